//! Our entry in Python functions: put there when they are found to be worth it (`when.rs`), exchanged for the code's stub at the call that stamps it, taken out again when hotstamp lets go.
//!
//! **Versions.** The interpreter inlines functions by `func_version`, without looking at `vectorcall`, so a stamped function must have none. CPython knows 0 (never
//! had one) and 1 (lost it, because defaults or code changed; must not come back). Functions that we took a valid version from get 0. So a function of ours with
//! version 0 may have its code's version when it is handed back, one with 1 may not, and nothing has to be stored beside it.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};

use hotstamp_layout::ffi::{self, PyCodeObject, PyFunctionObject, PyObject, PyThreadState};
use hotstamp_layout::refs;

use super::{HookError, tracing, when};
use crate::code_data::CodeData;
use crate::code_memory::CodeMemory;
use crate::exits::{self, ExitReason};
use crate::site::CodePtr;
use crate::{entry, registry};

/// `func_version` of a function that has none now: never had, or (of ours) may have it back.
const VERSION_UNSET: u32 = 0;
/// `func_version` of a function that lost it for good.
const VERSION_CLEARED: u32 = 1;

static WATCHER: AtomicI32 = AtomicI32::new(-1);

/// Learns CPython's own entry and starts to watch functions.
pub(super) unsafe fn install() -> Result<(), HookError> {
    // SAFETY: GIL held, main interpreter.
    unsafe {
        if registry::default_vectorcall().is_none() {
            registry::set_default_vectorcall(read_default_vectorcall()?);
        }
        let id = ffi::PyFunction_AddWatcher(Some(watch));
        if id < 0 {
            ffi::PyErr_Clear();
            return Err(HookError::NoFunctionWatcher);
        }
        WATCHER.store(id, Ordering::Relaxed);
    }
    Ok(())
}

/// Stops watching. The functions were handed back before.
pub(super) unsafe fn remove() {
    let id = WATCHER.swap(-1, Ordering::Relaxed);
    // SAFETY: the id is ours.
    if id >= 0 && unsafe { ffi::PyFunction_ClearWatcher(id) } < 0 {
        // SAFETY: GIL held.
        unsafe { ffi::PyErr_Clear() };
    }
}

/// The entry that a new function gets from CPython.
unsafe fn read_default_vectorcall() -> Result<ffi::vectorcallfunc, HookError> {
    // SAFETY: plain constructors; what they give is owned here and released.
    unsafe {
        let code = ffi::PyCode_NewEmpty(c"".as_ptr(), c"".as_ptr(), 0).cast::<PyObject>();
        let globals = ffi::PyDict_New();
        let func = if code.is_null() || globals.is_null() {
            null_mut()
        } else {
            ffi::PyFunction_New(code, globals)
        };
        let found = if func.is_null() {
            None
        } else {
            (*func.cast::<PyFunctionObject>()).vectorcall
        };
        for object in [func, globals, code] {
            refs::xdecref(object);
        }
        if found.is_none() {
            ffi::PyErr_Clear();
            return Err(HookError::NoMemory);
        }
        Ok(found)
    }
}

fn same(a: ffi::vectorcallfunc, b: ffi::vectorcallfunc) -> bool {
    a.map(|f| f as usize) == b.map(|f| f as usize)
}

/// Whether a function's entry is ours: waiting for its first call, or a stub.
unsafe fn is_ours(func: *mut PyFunctionObject) -> bool {
    // SAFETY: the caller gives a live function.
    let entry = unsafe { (*func).vectorcall };
    if same(entry, registry::default_vectorcall()) {
        return false;
    }
    same(entry, Some(lazy_entry))
        || entry.is_some_and(|f| CodeMemory::global().contains(CodePtr(f as *const u8)))
}

/// Called by CPython for every function that is created, changed or destroyed.
unsafe extern "C" fn watch(
    event: ffi::PyFunction_WatchEvent,
    func: *mut PyFunctionObject,
    _new: *mut PyObject,
) -> c_int {
    // SAFETY: CPython passes a live function, GIL held. Nothing here runs Python code.
    unsafe {
        match event {
            ffi::PyFunction_EVENT_CREATE => {
                if !tracing::suspended() {
                    if same((*func).vectorcall, registry::default_vectorcall())
                        && is_of_interest(func)
                    {
                        (*func).vectorcall = Some(lazy_entry);
                    }
                } else {
                    tracing::function_created();
                }
            }
            ffi::PyFunction_EVENT_MODIFY_CODE => {
                if is_ours(func) {
                    (*func).vectorcall = Some(lazy_entry);
                    lose_version(func);
                } else if same((*func).vectorcall, registry::default_vectorcall())
                    && !tracing::suspended()
                    && !when::samples()
                {
                    // Its old code was refused; CPython clears the version right after this event.
                    (*func).vectorcall = Some(lazy_entry);
                }
            }
            ffi::PyFunction_EVENT_MODIFY_DEFAULTS | ffi::PyFunction_EVENT_MODIFY_KWDEFAULTS
                if is_ours(func) =>
            {
                lose_version(func)
            }
            _ => {}
        }
    }
    0
}

/// CPython is about to clear the version of a function that has none because of us: it must not come back.
unsafe fn lose_version(func: *mut PyFunctionObject) {
    // SAFETY: the caller gives a live function.
    unsafe {
        if (*func).func_version == VERSION_UNSET {
            (*func).func_version = VERSION_CLEARED;
        }
    }
}

/// Whether a function gets our entry when it is made, or when we come to know it: all do where calls are counted from the first, else those whose code was found before.
unsafe fn is_of_interest(func: *mut PyFunctionObject) -> bool {
    // SAFETY: the caller gives a live function.
    !when::samples() || unsafe { registry::is_known((*func).func_code.cast()) }
}

/// Has a function that was found running begin to count, unless it has an entry of ours.
///
/// # Safety
/// `func` is a live function, GIL held, no exception set, nobody observes.
pub(super) unsafe fn found(func: *mut PyFunctionObject) {
    // SAFETY: see above.
    unsafe {
        let code = (*func).func_code.cast();
        when::found(code);
        if same((*func).vectorcall, registry::default_vectorcall()) && !registry::is_refused(code) {
            take_over(func);
        }
    }
}

/// Compiled code calls a function: it begins to count if it is the interpreter's own yet.
///
/// # Safety
/// `func` is a live function, GIL held, no exception set.
pub(crate) unsafe fn called(func: *mut PyFunctionObject) {
    // SAFETY: see above.
    unsafe {
        if same((*func).vectorcall, registry::default_vectorcall())
            && super::enabled()
            && !super::suspended()
            && !registry::is_refused((*func).func_code.cast())
        {
            take_over(func);
        }
    }
}

/// How a call of a Python function that compiled code makes goes on, arguments moved into the callee's frame.
pub(crate) enum Callee {
    /// In its compiled code.
    Stamped(*mut CodeData),
    /// In the interpreter, as one that the interpreter calls.
    Interpreted,
    /// Through its entry: somebody else's, or none of ours may run.
    Entry,
}

/// Counts a call of a function that compiled code is about to make, and stamps the function if that was the last that it waited for.
///
/// # Safety
/// `func` is a live function, GIL held, no exception set.
pub(crate) unsafe fn callee(tstate: *mut PyThreadState, func: *mut PyFunctionObject) -> Callee {
    // SAFETY: see above. Code is never at the very start of a mapping, so the 16 bytes in front of a function can be read.
    unsafe {
        if entry::foreign_evaluator(tstate) {
            return Callee::Entry;
        }
        if let Some(data) = entry::data_behind((*func).vectorcall) {
            return Callee::Stamped(data);
        }
        called(func);
        if same((*func).vectorcall, Some(lazy_entry)) {
            if tracing::may_run(tstate)
                && when::now((*func).func_code.cast())
                && let Some(data) = stamp_now(func)
            {
                return Callee::Stamped(data);
            }
            return Callee::Interpreted;
        }
        if same((*func).vectorcall, registry::default_vectorcall()) {
            return Callee::Interpreted;
        }
        Callee::Entry
    }
}

/// Stamps a function that waited for it, and has it enter its code from here on; one that is refused is handed back.
unsafe fn stamp_now(func: *mut PyFunctionObject) -> Option<*mut CodeData> {
    // SAFETY: the caller gives a live function, GIL held; a call stub is a vectorcall function.
    unsafe {
        match stamp(func) {
            Ok(data) => {
                enter_through(
                    func,
                    std::mem::transmute::<*const u8, ffi::vectorcallfunc>((*data).stub.0),
                );
                Some(data)
            }
            Err(reason) => {
                exits::count(reason);
                hand_back(func);
                None
            }
        }
    }
}

/// Stores an entry of ours so that nobody inlines the function by its version any more.
unsafe fn enter_through(func: *mut PyFunctionObject, entry: ffi::vectorcallfunc) {
    // SAFETY: the caller gives a live function; the entry is a vectorcall function.
    unsafe {
        if (*func).func_version > VERSION_CLEARED {
            // Clears the version, and the interpreter's table from versions to functions.
            ffi::PyFunction_SetVectorcall(func, entry);
            (*func).func_version = VERSION_UNSET;
        } else {
            (*func).vectorcall = entry;
        }
    }
}

/// Takes over a function that existed before. Sites specialised for its code's version must not inline later closures of the same code either, so the
/// code gets another version.
unsafe fn take_over(func: *mut PyFunctionObject) {
    // SAFETY: the caller gives a live function.
    unsafe {
        if !same((*func).vectorcall, registry::default_vectorcall()) {
            return;
        }
        let code = (*func).func_code.cast::<PyCodeObject>();
        if (*func).func_version > VERSION_CLEARED && (*func).func_version == (*code).co_version {
            renew_code_version(code);
        }
        enter_through(func, Some(lazy_entry));
    }
}

/// Gives a code object a version that no specialised instruction knows.
unsafe fn renew_code_version(code: *mut PyCodeObject) {
    // SAFETY: GIL held; the table's entries are cleared by whoever dies, by version, so the old version's entry goes first.
    unsafe {
        let state = &raw mut (*ffi::PyInterpreterState_Get()).func_state;
        let fresh = (*state).next_version;
        if fresh == 0 {
            return; // the interpreter ran out of versions; nothing gets one any more
        }
        let table = &mut (*state).func_version_cache;
        let slot = &mut table[(*code).co_version as usize % ffi::FUNC_VERSION_CACHE_SIZE as usize];
        if slot.code == code.cast() {
            slot.code = null_mut();
            slot.func = null_mut();
        }
        (*state).next_version = fresh.wrapping_add(1);
        (*code).co_version = fresh;
    }
}

/// Gives a function CPython's own entry back, and its version if we took it.
unsafe fn hand_back(func: *mut PyFunctionObject) {
    // SAFETY: the caller gives a live function whose entry is ours.
    unsafe {
        (*func).vectorcall = registry::default_vectorcall();
        if (*func).func_version == VERSION_UNSET {
            let version = (*(*func).func_code.cast::<PyCodeObject>()).co_version;
            if version > VERSION_CLEARED {
                ffi::_PyFunction_SetVersion(func, version);
            }
        }
    }
}

/// Takes over all functions that exist and are of interest.
pub(super) unsafe fn take_over_all() {
    unsafe extern "C" fn visit(object: *mut PyObject, _: *mut c_void) -> c_int {
        // SAFETY: the visitor passes live objects, and a function is one by its type.
        unsafe {
            if (*object).ob_type == &raw mut ffi::PyFunction_Type && is_of_interest(object.cast()) {
                take_over(object.cast());
            }
        }
        1
    }
    // SAFETY: the callback allocates nothing and runs no Python code.
    unsafe { ffi::PyUnstable_GC_VisitObjects(Some(visit), null_mut()) };
}

/// Hands back all functions that have an entry of ours.
pub(super) unsafe fn hand_back_all() {
    unsafe extern "C" fn visit(object: *mut PyObject, _: *mut c_void) -> c_int {
        // SAFETY: the visitor passes live objects, and a function is one by its type.
        unsafe {
            if (*object).ob_type == &raw mut ffi::PyFunction_Type && is_ours(object.cast()) {
                hand_back(object.cast());
            }
        }
        1
    }
    // SAFETY: the callback allocates nothing and runs no Python code.
    unsafe { ffi::PyUnstable_GC_VisitObjects(Some(visit), null_mut()) };
}

/// Finds or makes the code of a function. A panic of the compiler refuses the function and reaches nobody.
unsafe fn stamp(func: *mut PyFunctionObject) -> Result<*mut CodeData, ExitReason> {
    // SAFETY: the caller gives a live function, GIL held.
    let attempt = catch_unwind(AssertUnwindSafe(|| unsafe { registry::data_for(func) }));
    attempt.unwrap_or_else(|_| {
        ::tracing::error!("the compiler panicked; the function stays interpreted");
        Err(ExitReason::InternalError)
    })
}

/// Finds or makes the code that frames of `code` with these globals and builtins run in. A panic of the compiler reaches nobody.
///
/// # Safety
/// Live objects, GIL held.
pub(crate) unsafe fn stamp_code(
    code: *mut PyCodeObject,
    globals: *mut PyObject,
    builtins: *mut PyObject,
) -> Result<*mut CodeData, ExitReason> {
    // SAFETY: passed on.
    let attempt = catch_unwind(AssertUnwindSafe(|| unsafe {
        registry::data_for_code(code, globals, builtins)
    }));
    attempt.unwrap_or(Err(ExitReason::InternalError))
}

/// The entry of a function that waits to be stamped: counts the call, and stamps the function or hands it back when it has counted enough.
///
/// # Safety
/// As CPython's vectorcall protocol.
pub unsafe extern "C" fn lazy_entry(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: only functions get this entry; arguments are passed on unchanged.
    unsafe {
        let tstate = ffi::PyThreadState_GetUnchecked();
        if !tracing::may_run(tstate) || (*(*tstate).interp).eval_frame.is_some() {
            return entry::call_default(callable, args, nargsf, kwnames);
        }
        let func = callable.cast::<PyFunctionObject>();
        if !when::now((*func).func_code.cast()) {
            return entry::call_default(callable, args, nargsf, kwnames);
        }
        match stamp_now(func) {
            Some(data) => entry::vectorcall_entry(callable, args, nargsf, kwnames, data),
            None => entry::call_default(callable, args, nargsf, kwnames),
        }
    }
}

/// Has a function that waits to be stamped enter its compiled code from the next call on. Other functions stay as they are.
///
/// # Safety
/// `func` is a live Python function; `data` was stamped for its code, globals and builtins. GIL held.
pub(crate) unsafe fn enter_stamped(func: *mut PyObject, data: *mut CodeData) {
    // SAFETY: see above; a call stub is a vectorcall function.
    unsafe {
        let func = func.cast::<PyFunctionObject>();
        if same((*func).vectorcall, Some(lazy_entry)) {
            enter_through(
                func,
                std::mem::transmute::<*const u8, ffi::vectorcallfunc>((*data).stub.0),
            );
        }
    }
}

/// Gives a function that has just been made, and has no version yet, the entry of its code if that is stamped already.
///
/// # Safety
/// `func` is a Python function that nobody else knows yet; GIL held.
pub(crate) unsafe fn adopt(func: *mut PyFunctionObject) -> bool {
    // SAFETY: see above.
    unsafe {
        if !same((*func).vectorcall, Some(lazy_entry)) || (*func).func_version != VERSION_UNSET {
            return false;
        }
        let data = registry::existing(func);
        if data.is_null() {
            return false;
        }
        (*func).vectorcall = std::mem::transmute::<*const u8, ffi::vectorcallfunc>((*data).stub.0);
        true
    }
}

/// Hands one function back if its entry is ours: it was opted out.
///
/// # Safety
/// `func` is a Python function; GIL held.
pub unsafe fn release(func: *mut PyFunctionObject) {
    // SAFETY: see above.
    unsafe {
        if is_ours(func) {
            hand_back(func);
        }
    }
}

/// Whether calls of a function reach compiled code.
///
/// # Safety
/// `func` is a Python function; GIL held.
pub unsafe fn is_stamped(func: *mut PyFunctionObject) -> bool {
    // SAFETY: see above.
    unsafe {
        let data = registry::existing(func);
        !data.is_null()
            && same(
                (*func).vectorcall,
                std::mem::transmute::<*const u8, ffi::vectorcallfunc>((*data).stub.0),
            )
    }
}
