//! LOAD_GLOBAL, and attributes of modules: global cells kept current by a dictionary watcher.
//!
//! A cell holds what one name in one namespace (a dictionary, or globals with builtins behind them) is bound to, as borrowed `StackRef` bits that
//! a reader copies (taking a reference if bit 0 is clear), or 0 if it has to be looked up. Cells are never freed: sites keep their addresses.

use std::cell::UnsafeCell;
use std::ffi::c_int;

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};
use rustc_hash::FxHashMap;

use super::note_miss;
use crate::Frame;
use crate::helpers::RAISED;
use crate::helpers::operands::name;
use crate::site::Site;

/// What a site without a cell yet points at: always 0.
pub static UNBOUND: u64 = 0;

/// A cell and the dictionaries of its namespace.
#[derive(Clone, Copy)]
struct Watched {
    cell: *mut u64,
    first: usize,
    second: usize,
}

/// The cells that depend on one dictionary, by name.
type Interest = FxHashMap<usize, Vec<Watched>>;

/// Every cell has to be looked up anew.
///
/// # Safety
/// GIL held.
unsafe fn empty(interest: &Interest) {
    for watched in interest.values().flatten() {
        // SAFETY: cells are never freed.
        unsafe { watched.cell.write(0) };
    }
}

#[derive(Default)]
struct Cells {
    watcher: Option<c_int>,
    by_namespace: FxHashMap<(usize, usize, usize), *mut u64>,
    by_dict: FxHashMap<usize, Interest>,
}

struct UnderGil(UnsafeCell<Option<Cells>>);

// SAFETY: only touched with the GIL held, and never across a call that could release it.
unsafe impl Sync for UnderGil {}

static CELLS: UnderGil = UnderGil(UnsafeCell::new(None));

/// All cells.
///
/// # Safety
/// GIL held; the reference is dropped before anything runs that could come here again.
unsafe fn cells() -> &'static mut Cells {
    // SAFETY: see above.
    unsafe { (*CELLS.0.get()).get_or_insert_with(Cells::default) }
}

unsafe extern "C" fn on_dict_event(
    event: ffi::PyDict_WatchEvent,
    dict: *mut PyObject,
    key: *mut PyObject,
    new_value: *mut PyObject,
) -> c_int {
    // SAFETY: GIL held; only plain memory is touched. The cells' values are borrowed from the dictionary, which holds a replaced value until after this event.
    unsafe {
        let all = cells();
        let Some(interest) = all.by_dict.get_mut(&(dict as usize)) else {
            return 0;
        };
        match event {
            ffi::PyDict_EVENT_ADDED | ffi::PyDict_EVENT_MODIFIED | ffi::PyDict_EVENT_DELETED => {
                let Some(cells) = interest.get(&(key as usize)) else {
                    // A key that is equal to a name but another object: names are interned, so only keys that are no exact interned str come here.
                    if !is_interned(key) {
                        empty(interest);
                    }
                    return 0;
                };
                for &Watched { cell, .. } in cells {
                    // A rebinding cannot fail any more, so the new value is what the dictionary will hold. Only this dictionary's own value is replaced.
                    let current = cell.read() & !1;
                    let own = event == ffi::PyDict_EVENT_MODIFIED
                        && current != 0
                        && current == ffi::PyDict_GetItemWithError(dict, key) as u64;
                    cell.write(if own { bits(new_value) } else { 0 });
                }
            }
            ffi::PyDict_EVENT_DEALLOCATED => {
                empty(interest);
                // Another dictionary may come to lie there.
                for (name, watched) in all.by_dict.remove(&(dict as usize)).unwrap_or_default() {
                    for Watched { first, second, .. } in watched {
                        all.by_namespace.remove(&(first, second, name));
                    }
                }
            }
            _ => empty(interest),
        }
        0
    }
}

/// Whether a key is an interned str, which is equal to another one only if it is the same object.
pub(super) unsafe fn is_interned(key: *mut PyObject) -> bool {
    // SAFETY: `key` is null (for events without one) or a live object.
    unsafe {
        !key.is_null()
            && refs::is_exact_unicode(key)
            && (*key.cast::<ffi::PyASCIIObject>()).state.interned() != 0
    }
}

unsafe fn bits(object: *mut PyObject) -> u64 {
    // SAFETY: null or a live object.
    unsafe {
        if object.is_null() {
            0
        } else {
            object as u64 | u64::from(refs::is_immortal(object))
        }
    }
}

/// The cell for a name in `first`, with `second` behind it (null for none), made if needed. `None` if the dictionaries cannot be watched.
unsafe fn cell(
    first: *mut PyObject,
    second: *mut PyObject,
    name: *mut PyObject,
) -> Option<*mut u64> {
    // SAFETY: GIL held; watching a dictionary runs no Python code.
    unsafe {
        let all = cells();
        let key = (first as usize, second as usize, name as usize);
        if let Some(&cell) = all.by_namespace.get(&key) {
            return Some(cell);
        }
        let watcher = match all.watcher {
            Some(id) => id,
            None => {
                let id = ffi::PyDict_AddWatcher(Some(on_dict_event));
                if id < 0 {
                    ffi::PyErr_Clear();
                    return None;
                }
                all.watcher = Some(id);
                id
            }
        };
        for dict in [first, second] {
            if !dict.is_null() && ffi::PyDict_Watch(watcher, dict) < 0 {
                ffi::PyErr_Clear();
                return None;
            }
        }
        let cell = Box::into_raw(Box::new(0u64));
        for dict in [first, second] {
            if !dict.is_null() {
                all.by_dict
                    .entry(dict as usize)
                    .or_default()
                    .entry(name as usize)
                    .or_default()
                    .push(Watched {
                        cell,
                        first: first as usize,
                        second: second as usize,
                    });
            }
        }
        all.by_namespace.insert(key, cell);
        Some(cell)
    }
}

/// The cell of a module's attribute, filled, if the module has the attribute in its dictionary.
///
/// # Safety
/// `module` is a module object, `name` an interned str; GIL held.
pub unsafe fn module_cell(module: *mut PyObject, name: *mut PyObject) -> Option<*mut u64> {
    // SAFETY: see above; the value is borrowed from the dictionary.
    unsafe {
        let dict = (*module.cast::<ffi::PyModuleObject>()).md_dict;
        // `__getattr__` and data descriptors of module subclasses: only what the dictionary has, and the type does not.
        if dict.is_null() || !ffi::_PyType_Lookup(refs::type_of(module), name).is_null() {
            return None;
        }
        let value = ffi::PyDict_GetItemWithError(dict, name);
        if value.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        let cell = cell(dict, std::ptr::null_mut(), name)?;
        cell.write(bits(value));
        Some(cell)
    }
}

/// `LOAD_GLOBAL`, without the null it may push. Register helper without operands. Payload word 1: the cell.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn load_global(
    _acc: StackRef,
    _b: StackRef,
    _c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: globals and builtins are borrowed from the frame's function.
    unsafe {
        let (globals, builtins) = ((*frame).f_globals, (*frame).f_builtins);
        let name = name(frame, (*site).oparg >> 1);
        let mut result = StackRef::NULL;
        ffi::_PyEval_LoadGlobalStackRef(globals, builtins, name, (&raw mut result).cast());
        if result.is_null() {
            return RAISED;
        }
        if refs::is_type(globals, &raw const ffi::PyDict_Type)
            && refs::is_type(builtins, &raw const ffi::PyDict_Type)
            && note_miss(site, |stubs| stubs.register).is_some()
            && let Some(cell) = cell(globals, builtins, name)
        {
            cell.write(bits(result.as_ptr_borrow()));
            (*Site::payload(site)).words[1] = cell as u64;
        }
        result
    }
}
