//! From a function to its `CodeData`: one per (code object, globals, builtins), found through the code object's extra slot.
//!
//! The tier that compiles is registered here as a function pointer, so that the runtime need not know it. Everything happens under the GIL.

use std::ffi::c_void;
use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering};

use hotstamp_layout::ffi::{self, PyCodeObject, PyFunctionObject, PyObject};
use once_cell::sync::OnceCell;

use crate::code_data::CodeData;
use crate::exits::ExitReason;
use crate::hooks::back_edges::{self, BackEdge};
use crate::jitlist::{self, Choice};
use crate::site::CodePtr;

/// What a tier gives the runtime at start-up.
#[derive(Clone, Copy, Debug)]
pub struct Compiler {
    /// Stamps a code object for the given globals and builtins (borrowed). GIL held.
    pub compile: unsafe fn(
        *mut PyCodeObject,
        *mut PyObject,
        *mut PyObject,
    ) -> Result<*mut CodeData, ExitReason>,
    /// Enters a body from Rust: `(frame, tstate, entry, data) -> StackRef bits or 0`. Passes a fifth and sixth argument on.
    pub trampoline: CodePtr,
    /// Where a body returns to that was entered through the trampoline.
    pub trampoline_return: CodePtr,
    /// `(argument, function, top) -> result`: calls a C function on the native stack that ends at `top`.
    pub call_on_stack: CodePtr,
    /// Enters a body in the middle, called through the trampoline: the fifth argument is the machine code to go on at, the sixth what `Acc` holds there.
    pub enter_at: CodePtr,
    /// `CodeData::c_entry` of functions without optimized code.
    pub c_entry: CodePtr,
    /// `CodeData::entry` of functions with optimized code.
    pub optimized_entry: CodePtr,
    /// Entered as a body is, with a generator's frame: raises the exception that is set where the frame is suspended.
    pub throw_into: CodePtr,
}

static COMPILER: OnceCell<Compiler> = OnceCell::new();
static EXTRA_INDEX: AtomicIsize = AtomicIsize::new(-1);

/// All the versions of one code object.
#[derive(Debug, Default)]
struct Versions {
    stamped: Vec<*mut CodeData>,
    refused: Option<ExitReason>,
    /// Counts down, with calls and loop iterations, to when the code is stamped. It is interpreted until then.
    waits: u32,
    /// What counts the iterations, see `hooks/back_edges.rs`.
    back_edges: Vec<*mut BackEdge>,
}

/// Why the registry could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// CPython has no code extra slot left (it has 255).
    #[error("no code extra slot is free: too many tools attach data to code objects")]
    NoExtraSlot,
}

/// Registers the compiler. Call once, GIL held, before any function is hooked.
pub fn start(compiler: Compiler) -> Result<(), StartError> {
    // SAFETY: GIL held; the free function matches the slot's type.
    let index = unsafe { ffi::PyUnstable_Eval_RequestCodeExtraIndex(Some(free_versions)) };
    if index < 0 {
        return Err(StartError::NoExtraSlot);
    }
    EXTRA_INDEX.store(index, Ordering::Relaxed);
    let _ = COMPILER.set(compiler);
    Ok(())
}

/// The registered compiler, if `start` succeeded.
pub fn compiler() -> Option<&'static Compiler> {
    COMPILER.get()
}

unsafe extern "C" fn free_versions(extra: *mut c_void) {
    if extra.is_null() {
        return;
    }
    // SAFETY: the slot only ever holds what `versions` boxed; the code object dies, so no frame runs its code.
    unsafe {
        let versions = Box::from_raw(extra.cast::<Versions>());
        back_edges::disarm(versions.back_edges);
        for data in versions.stamped {
            CodeData::free(data);
        }
    }
}

/// The versions of `code`, if there are any.
unsafe fn versions(code: *mut PyCodeObject) -> *mut Versions {
    let mut extra: *mut c_void = std::ptr::null_mut();
    let index = EXTRA_INDEX.load(Ordering::Relaxed);
    if index < 0 {
        return std::ptr::null_mut();
    }
    // SAFETY: `code` is a code object, the index was given by CPython.
    unsafe {
        if ffi::PyUnstable_Code_GetExtra(code.cast(), index as _, &raw mut extra) < 0 {
            ffi::PyErr_Clear();
            return std::ptr::null_mut();
        }
    }
    extra.cast()
}

/// The data stamped for a function, without compiling. Null if there is none.
///
/// # Safety
/// `func` is a Python function; GIL held.
pub unsafe fn existing(func: *mut PyFunctionObject) -> *mut CodeData {
    // SAFETY: the pointers come from the function.
    unsafe {
        existing_for(
            (*func).func_code.cast(),
            (*func).func_globals,
            (*func).func_builtins,
        )
    }
}

/// As `existing`, for a code object that runs with these globals and builtins.
///
/// # Safety
/// `code` is a code object; GIL held.
pub unsafe fn existing_for(
    code: *mut PyCodeObject,
    globals: *mut PyObject,
    builtins: *mut PyObject,
) -> *mut CodeData {
    // SAFETY: `Versions` lives as long as the code object.
    unsafe {
        let all = versions(code);
        if all.is_null() {
            return std::ptr::null_mut();
        }
        find(&*all, globals, builtins)
    }
}

fn find(all: &Versions, globals: *mut PyObject, builtins: *mut PyObject) -> *mut CodeData {
    all.stamped
        .iter()
        .copied()
        // SAFETY: stamped data is valid until its code object is freed.
        .find(|&data| unsafe { (*data).globals == globals && (*data).builtins == builtins })
        .unwrap_or(std::ptr::null_mut())
}

/// The data for a function, compiling it at the first request.
///
/// # Errors
/// The reason why this code is not compiled; remembered, so that it is found quickly.
///
/// # Safety
/// `func` is a Python function; GIL held.
pub unsafe fn data_for(func: *mut PyFunctionObject) -> Result<*mut CodeData, ExitReason> {
    // SAFETY: as in `existing`.
    unsafe {
        data_for_code(
            (*func).func_code.cast(),
            (*func).func_globals,
            (*func).func_builtins,
        )
    }
}

/// As `data_for`, for a code object that runs with these globals and builtins.
///
/// # Errors
/// See `data_for`.
///
/// # Safety
/// All three are valid objects of their kinds; GIL held.
pub unsafe fn data_for_code(
    code: *mut PyCodeObject,
    globals: *mut PyObject,
    builtins: *mut PyObject,
) -> Result<*mut CodeData, ExitReason> {
    let Some(compiler) = COMPILER.get() else {
        return Err(ExitReason::OptedOut);
    };
    // SAFETY: as above; the box is handed to the extra slot, which frees it with the code object.
    unsafe {
        let mut all = versions(code);
        if all.is_null() {
            all = attach_versions(code);
            if all.is_null() {
                return Err(ExitReason::OptedOut);
            }
        }
        if let Some(reason) = (*all).refused {
            return Err(reason);
        }
        let found = find(&*all, globals, builtins);
        if !found.is_null() {
            return Ok(found);
        }
        if (*all).stamped.len() >= MAX_VERSIONS {
            return Err(ExitReason::TooManyGlobals);
        }
        match jitlist::choose(code, globals) {
            Choice::Compile => {}
            Choice::NotHere => return Err(ExitReason::NotListed),
            Choice::Never => {
                (*all).refused = Some(ExitReason::NotListed);
                return Err(ExitReason::NotListed);
            }
        }
        match (compiler.compile)(code, globals, builtins) {
            Ok(data) => {
                (*all).stamped.push(data);
                Ok(data)
            }
            Err(reason) => {
                (*all).refused = Some(reason);
                Err(reason)
            }
        }
    }
}

/// What a code object's `co_extra` points to: CPython's `_PyCodeObjectExtra`, which no header declares.
#[repr(C)]
struct CodeExtras {
    size: isize,
    slots: [*mut c_void; 1],
}

/// The most users of code extra slots that CPython admits (`MAX_CO_EXTRA_USERS`).
const MAX_EXTRA_USERS: isize = 255;

/// Gives a code object that has none the record of its versions. Null, without an exception, if it cannot be attached.
///
/// # Safety
/// `code` is a code object; GIL held.
unsafe fn attach_versions(code: *mut PyCodeObject) -> *mut Versions {
    let index = EXTRA_INDEX.load(Ordering::Relaxed);
    if index < 0 {
        return std::ptr::null_mut();
    }
    let all = Box::into_raw(Box::<Versions>::default());
    // SAFETY: the box is ours until it is handed over; CPython has just made room for our slot, and counts it in `size`.
    unsafe {
        if ffi::PyUnstable_Code_SetExtra(code.cast(), index, all.cast()) < 0 {
            ffi::PyErr_Clear();
            drop(Box::from_raw(all));
            return std::ptr::null_mut();
        }
        // A dying code object calls the free function of every slot that it has room for, empty ones too, and other users of slots do not expect that for code that
        // they never touched: their function may be gone by then. Room above ours that is empty is given up; who needs it later makes it grow again.
        let extras = (*code).co_extra.cast::<CodeExtras>();
        if (index + 1..=MAX_EXTRA_USERS).contains(&(*extras).size) {
            let slots = (&raw const (*extras).slots).cast::<*mut c_void>();
            while (*extras).size > index + 1 && (*slots.offset((*extras).size - 1)).is_null() {
                (*extras).size -= 1;
            }
        }
    }
    all
}

/// How long code waits to be stamped, in steps of `count`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Until so many steps were counted.
    Steps(u32),
    /// As `Steps`, if iterations can be counted too; not at all otherwise.
    CountedLoops(u32),
}

/// Counts `steps` for code that may not be stamped yet. True if it is to be stamped now (or was, or is refused). `wait` is asked at the first time.
///
/// # Safety
/// `code` is a live code object; GIL held, no exception set.
pub(crate) unsafe fn count(
    code: *mut PyCodeObject,
    steps: u32,
    wait: impl FnOnce() -> Wait,
) -> bool {
    // SAFETY: the record lives as long as the code object.
    unsafe {
        let mut all = versions(code);
        if all.is_null() {
            all = attach_versions(code);
            if all.is_null() {
                return true;
            }
            match wait() {
                Wait::Steps(total) => (*all).waits = total,
                Wait::CountedLoops(total) => {
                    (*all).waits = total;
                    (*all).back_edges = back_edges::arm(code, &raw mut (*all).waits);
                    if (*all).back_edges.is_empty() {
                        (*all).waits = 0;
                    }
                }
            }
        }
        (*all).waits = (*all).waits.saturating_sub(steps);
        (*all).waits == 0
    }
}

/// Begins to count for code that was found running, as `count` does at its first time.
///
/// # Safety
/// As `count`.
pub(crate) unsafe fn begin_counting(code: *mut PyCodeObject, wait: impl FnOnce() -> Wait) {
    // SAFETY: passed on.
    unsafe {
        if !is_known(code) {
            count(code, 0, wait);
        }
    }
}

/// Whether code has a record: it counts, is stamped or refused.
///
/// # Safety
/// `code` is a live code object; GIL held.
pub(crate) unsafe fn is_known(code: *mut PyCodeObject) -> bool {
    // SAFETY: passed on.
    unsafe { !versions(code).is_null() }
}

/// Whether code was refused.
///
/// # Safety
/// `code` is a live code object; GIL held.
pub(crate) unsafe fn is_refused(code: *mut PyCodeObject) -> bool {
    // SAFETY: the record lives as long as the code object.
    unsafe {
        let all = versions(code);
        !all.is_null() && (*all).refused.is_some()
    }
}

/// Has code count its iterations no longer: it will never be stamped.
///
/// # Safety
/// As `count`.
pub(crate) unsafe fn disarm(code: *mut PyCodeObject) {
    // SAFETY: the record lives as long as the code object.
    unsafe {
        let all = versions(code);
        if !all.is_null() {
            back_edges::disarm(std::mem::take(&mut (*all).back_edges));
        }
    }
}

/// A code object executed with more globals than this (templates run through `exec`) stays interpreted for the further ones.
const MAX_VERSIONS: usize = 8;

/// Marks a code object as never to be compiled. What is compiled of it leaves at its next poll, and at every entry.
///
/// # Safety
/// `code` is a code object; GIL held.
pub unsafe fn opt_out(code: *mut PyCodeObject) {
    // SAFETY: as `data_for_code`; null globals never match, and the refusal is found before compiling.
    unsafe {
        let mut all = versions(code);
        if all.is_null() {
            all = attach_versions(code);
            if all.is_null() {
                return;
            }
        }
        (*all).refused = Some(ExitReason::OptedOut);
        back_edges::disarm(std::mem::take(&mut (*all).back_edges));
        for &data in &(*all).stamped {
            (*data).leave = 1;
            CodeData::uninstall_optimized(data);
        }
    }
}

/// CPython's own vectorcall of Python functions; null until the hooks have read it.
static DEFAULT_VECTORCALL: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// CPython's own vectorcall of Python functions, as `hooks` read it off one at start-up.
pub fn default_vectorcall() -> ffi::vectorcallfunc {
    let address = DEFAULT_VECTORCALL.load(Ordering::Relaxed);
    // SAFETY: null becomes `None`; otherwise it is the address of CPython's `_PyFunction_Vectorcall`.
    unsafe { std::mem::transmute::<*mut (), ffi::vectorcallfunc>(address) }
}

/// Remembers CPython's own vectorcall.
pub fn set_default_vectorcall(function: ffi::vectorcallfunc) {
    // SAFETY: an optional function pointer has the size of a pointer.
    let address = unsafe { std::mem::transmute::<ffi::vectorcallfunc, *mut ()>(function) };
    DEFAULT_VECTORCALL.store(address, Ordering::Relaxed);
}
