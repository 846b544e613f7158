//! Accessors of code objects, functions, frames and threads.

use core::ptr::{addr_of, addr_of_mut};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::stackref::StackRef;
use crate::ffi::{
    self, _Py_CODEUNIT, _PyInterpreterFrame, PyCodeObject, PyFunctionObject, PyThreadState,
};

// --- code ---

/// `_PyCode_CODE`: the first instruction. The array is live: specialised, instrumented, rewritten at any time.
///
/// # Safety
/// `co` points to a live code object.
#[inline(always)]
pub unsafe fn code_start(co: *mut PyCodeObject) -> *mut _Py_CODEUNIT {
    // SAFETY: the caller vouches for `co`; `addr_of_mut` keeps the provenance of the whole object.
    unsafe { addr_of_mut!((*co).co_code_adaptive).cast() }
}

/// `Py_SIZE(co)`: the length of the code in code units.
///
/// # Safety
/// `co` points to a live code object.
#[inline(always)]
pub unsafe fn code_len(co: *mut PyCodeObject) -> usize {
    // SAFETY: the caller vouches for `co`.
    unsafe { (*co).ob_base.ob_size as usize }
}

/// The slots for locals, cells and free variables.
///
/// # Safety
/// `co` points to a live code object.
#[inline(always)]
pub unsafe fn nlocalsplus(co: *mut PyCodeObject) -> usize {
    // SAFETY: the caller vouches for `co`.
    unsafe { (*co).co_nlocalsplus as usize }
}

/// The words a frame of this code takes on the data stack.
///
/// # Safety
/// `co` points to a live code object.
#[inline(always)]
pub unsafe fn framesize(co: *mut PyCodeObject) -> usize {
    // SAFETY: the caller vouches for `co`.
    unsafe { (*co).co_framesize as usize }
}

/// The instrumentation version the code was last adapted to, with the event bits cleared: compared with the eval breaker.
///
/// # Safety
/// `co` points to a live code object.
#[inline(always)]
pub unsafe fn code_instrumentation_version(co: *mut PyCodeObject) -> usize {
    // SAFETY: the caller vouches for `co`; C reads it atomically, and with the GIL held nobody writes it meanwhile.
    unsafe {
        AtomicUsize::from_ptr(addr_of_mut!((*co)._co_instrumentation_version))
            .load(Ordering::Relaxed)
    }
}

// --- functions ---

/// The function's code object.
///
/// # Safety
/// `func` points to a live Python function.
#[inline(always)]
pub unsafe fn function_code(func: *mut PyFunctionObject) -> *mut PyCodeObject {
    // SAFETY: the caller vouches for `func`.
    unsafe { (*func).func_code.cast() }
}

/// The function's version; below `FUNC_VERSION_FIRST_VALID` it stands for nothing.
///
/// # Safety
/// `func` points to a live Python function.
#[inline(always)]
pub unsafe fn function_version(func: *mut PyFunctionObject) -> u32 {
    // SAFETY: the caller vouches for `func`.
    unsafe { (*func).func_version }
}

// --- frames ---

/// The words of a frame before its first local.
pub const FRAME_SPECIALS_SIZE: usize = ffi::FRAME_SPECIALS_SIZE as usize;

const _: () = assert!(
    FRAME_SPECIALS_SIZE * size_of::<usize>()
        == core::mem::offset_of!(_PyInterpreterFrame, localsplus)
);

/// `_PyFrame_GetCode`.
///
/// # Safety
/// `frame` points to a live frame that is not the interpreter's own entry frame.
#[inline(always)]
pub unsafe fn frame_code(frame: *mut _PyInterpreterFrame) -> *mut PyCodeObject {
    // SAFETY: the caller vouches for `frame`.
    unsafe { (*frame).f_executable.as_ptr_borrow().cast() }
}

/// `_PyFrame_GetFunction`.
///
/// # Safety
/// As for [`frame_code`].
#[inline(always)]
pub unsafe fn frame_function(frame: *mut _PyInterpreterFrame) -> *mut PyFunctionObject {
    // SAFETY: the caller vouches for `frame`.
    unsafe { (*frame).f_funcobj.as_ptr_borrow().cast() }
}

/// `_PyFrame_GetLocalsArray`: the first local's slot.
///
/// # Safety
/// `frame` points to a frame's memory.
#[inline(always)]
pub unsafe fn frame_locals(frame: *mut _PyInterpreterFrame) -> *mut StackRef {
    // SAFETY: the caller vouches for `frame`.
    unsafe { addr_of_mut!((*frame).localsplus).cast() }
}

/// `_PyFrame_Stackbase`: the first slot of the operand stack.
///
/// # Safety
/// As for [`frame_code`].
#[inline(always)]
pub unsafe fn frame_stack_base(frame: *mut _PyInterpreterFrame) -> *mut StackRef {
    // SAFETY: the frame has room for its code's locals and stack.
    unsafe { frame_locals(frame).add(nlocalsplus(frame_code(frame))) }
}

/// `_PyInterpreterFrame_LASTI`: the index of the current instruction in code units.
///
/// # Safety
/// As for [`frame_code`].
#[inline(always)]
pub unsafe fn frame_lasti(frame: *mut _PyInterpreterFrame) -> isize {
    // SAFETY: `instr_ptr` points into the frame's code.
    unsafe {
        (*frame)
            .instr_ptr
            .offset_from(code_start(frame_code(frame)))
    }
}

/// `_PyFrame_IsIncomplete`: the frame has not reached its first traceable instruction, or is the interpreter's own.
///
/// # Safety
/// `frame` points to a live frame.
#[inline(always)]
pub unsafe fn frame_is_incomplete(frame: *mut _PyInterpreterFrame) -> bool {
    // SAFETY: the caller vouches for `frame`; only frames that are not the interpreter's own have code.
    unsafe {
        let owner = (*frame).owner as u32;
        owner >= ffi::FRAME_OWNED_BY_INTERPRETER
            || owner != ffi::FRAME_OWNED_BY_GENERATOR
                && frame_lasti(frame) < (*frame_code(frame))._co_firsttraceable as isize
    }
}

/// `_PyThreadState_HasStackSpace`: the current chunk of the data stack has room for so many words.
///
/// # Safety
/// `tstate` is the current thread's state.
#[inline(always)]
pub unsafe fn has_stack_space(tstate: *mut PyThreadState, words: usize) -> bool {
    // SAFETY: the caller vouches for `tstate`; top and limit belong to one chunk.
    unsafe {
        let top = (*tstate).datastack_top;
        !top.is_null()
            && words < ((*tstate).datastack_limit as usize - top as usize) / size_of::<usize>()
    }
}

// --- threads ---

/// The thread's eval breaker: event bits in the low byte, instrumentation version above.
///
/// # Safety
/// `tstate` points to a live thread state.
#[inline(always)]
pub unsafe fn eval_breaker(tstate: *mut PyThreadState) -> usize {
    // SAFETY: the caller vouches for `tstate`; other threads write it atomically.
    unsafe { AtomicUsize::from_ptr(addr_of_mut!((*tstate).eval_breaker)).load(Ordering::Relaxed) }
}

/// The per-thread part of the state that is private to the interpreter (C stack limits and more).
///
/// # Safety
/// `tstate` points to a live thread state.
#[inline(always)]
pub unsafe fn thread_impl(tstate: *mut PyThreadState) -> *mut ffi::_PyThreadStateImpl {
    // Every thread state is the first member of one.
    const { assert!(core::mem::offset_of!(ffi::_PyThreadStateImpl, base) == 0) };
    tstate.cast()
}

/// The small integers' table inside `_PyRuntime`: element `value + _PY_NSMALLNEGINTS`.
#[inline(always)]
pub fn small_ints() -> *const ffi::PyLongObject {
    // SAFETY: only an address inside the static is computed.
    unsafe { addr_of!(ffi::_PyRuntime.static_objects.singletons.small_ints).cast() }
}
