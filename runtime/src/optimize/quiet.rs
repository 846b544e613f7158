//! Objects whose end nobody can see: freeing them runs no Python code, so that frames need not be made true for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use hotstamp_layout::ffi::{self, PyObject, PyTypeObject};
use hotstamp_layout::refs;

/// How deep it is looked: an instance, what it holds, and what that holds.
const DEPTH: u32 = 3;

/// Items of a tuple or list that are looked at.
const ITEMS: isize = 16;

/// Objects that are held from elsewhere too.
const SURVIVORS: usize = 32;

/// `tp_dealloc` of classes that Python code makes; 0 as long as it is not known.
static OF_CLASSES: AtomicUsize = AtomicUsize::new(0);

/// Learns what Python classes free their instances with, from one that every interpreter has.
///
/// # Safety
/// GIL held, no exception set.
pub(super) unsafe fn prepare() {
    // SAFETY: results are checked; the class outlives the module's reference.
    unsafe {
        let module = ffi::PyImport_ImportModule(c"_frozen_importlib".as_ptr());
        if !module.is_null() {
            let class = ffi::PyObject_GetAttrString(module, c"ModuleSpec".as_ptr());
            if !class.is_null() {
                if let Some(function) = (*class.cast::<PyTypeObject>()).tp_dealloc {
                    OF_CLASSES.store(function as usize, Ordering::Relaxed);
                }
                refs::decref(class);
            }
            refs::decref(module);
        }
        ffi::PyErr_Clear();
    }
}

/// Whether freeing an object, of which no reference is left, can be seen by nobody.
///
/// # Safety
/// A valid object but for its count; GIL held.
pub(super) unsafe fn is_quiet(object: *mut PyObject) -> bool {
    // SAFETY: passed on.
    unsafe { is_quiet_to(object, DEPTH, &mut Survivors::default()) }
}

/// Objects that lose references and live on.
struct Survivors {
    objects: [(*mut PyObject, isize); SURVIVORS],
    len: usize,
}

impl Default for Survivors {
    fn default() -> Self {
        Survivors {
            objects: [(std::ptr::null_mut(), 0); SURVIVORS],
            len: 0,
        }
    }
}

impl Survivors {
    /// Takes one of `count` references away. Whether some is left, and could be noted.
    fn lose(&mut self, object: *mut PyObject, count: isize) -> bool {
        let known = self.objects[..self.len]
            .iter_mut()
            .find(|(known, _)| *known == object);
        if let Some((_, lost)) = known {
            *lost += 1;
            return *lost < count;
        }
        let Some(place) = self.objects.get_mut(self.len) else {
            return false;
        };
        *place = (object, 1);
        self.len += 1;
        count > 1
    }
}

unsafe fn is_quiet_to(object: *mut PyObject, depth: u32, survivors: &mut Survivors) -> bool {
    // SAFETY: a valid object; everything it holds is valid.
    unsafe {
        let class = refs::type_of(object);
        let flags = (*class).tp_flags;
        let heap = u64::from(ffi::Py_TPFLAGS_HEAPTYPE);
        if flags & (heap | u64::from(ffi::Py_TPFLAGS_HAVE_GC)) == 0 {
            // Numbers, strings and their like.
            return true;
        }
        if depth == 0 {
            return false;
        }
        if class == &raw mut ffi::PyTuple_Type {
            let tuple = object.cast::<ffi::PyTupleObject>();
            let items = (&raw const (*tuple).ob_item).cast::<*mut PyObject>();
            return are_quiet(items, (*tuple).ob_base.ob_size, depth, survivors);
        }
        if class == &raw mut ffi::PyList_Type {
            let list = object.cast::<ffi::PyListObject>();
            return are_quiet((*list).ob_item, (*list).ob_base.ob_size, depth, survivors);
        }
        if class == &raw mut ffi::PyListIter_Type || class == &raw mut ffi::PyTupleIter_Type {
            const {
                assert!(
                    std::mem::offset_of!(ffi::_PyTupleIterObject, it_seq)
                        == std::mem::offset_of!(ffi::_PyListIterObject, it_seq)
                )
            };
            let iterator = object.cast::<ffi::_PyListIterObject>();
            return are_quiet((&raw const (*iterator).it_seq).cast(), 1, depth, survivors);
        }
        flags & heap != 0 && is_quiet_instance(object, class, depth, survivors)
    }
}

/// An instance of a Python class without a base, a destructor, slots, a dictionary object and weak references.
unsafe fn is_quiet_instance(
    object: *mut PyObject,
    class: *mut PyTypeObject,
    depth: u32,
    survivors: &mut Survivors,
) -> bool {
    // SAFETY: a valid instance; inline values lie at `tp_basicsize`, the words in front of it are those of the flags.
    unsafe {
        let flags = (*class).tp_flags;
        let freed_by = (*class).tp_dealloc.map_or(0, |function| function as usize);
        let managed =
            u64::from(ffi::Py_TPFLAGS_INLINE_VALUES) | u64::from(ffi::Py_TPFLAGS_MANAGED_WEAKREF);
        if freed_by != OF_CLASSES.load(Ordering::Relaxed)
            || freed_by == 0
            || (*class).tp_finalize.is_some()
            || (*class).tp_del.is_some()
            || flags & managed != managed
            || (*class).tp_base != &raw mut ffi::PyBaseObject_Type
            || (*class).tp_basicsize != size_of::<PyObject>() as isize
        {
            return false;
        }
        let weak_references: *mut *mut PyObject =
            object.byte_offset(ffi::MANAGED_WEAKREF_OFFSET).cast();
        if !(*weak_references).is_null() || !(*refs::managed_dict_slot(object)).is_null() {
            return false;
        }
        let values = refs::inline_values(object);
        // Without valid inline values attributes are elsewhere.
        if (*values).valid == 0 {
            return false;
        }
        are_quiet(
            refs::dict_value_slot(values, 0),
            (*values).capacity as isize,
            depth,
            survivors,
        )
    }
}

/// Whether none of the items is freed in a way that can be seen, if each loses one reference.
unsafe fn are_quiet(
    items: *const *mut PyObject,
    count: isize,
    depth: u32,
    survivors: &mut Survivors,
) -> bool {
    // SAFETY: as many items, null or valid.
    unsafe {
        count <= ITEMS
            && (0..count).all(|index| {
                let item = items.offset(index).read();
                if item.is_null() || refs::is_immortal(item) {
                    return true;
                }
                match ffi::Py_REFCNT(item) {
                    1 => is_quiet_to(item, depth - 1, survivors),
                    count => survivors.lose(item, count),
                }
            })
    }
}
