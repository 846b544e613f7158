//! Memory helpers of raising and of exception handlers. Called through sites only.
//!
//! An instruction that raises anew returns -1: the exception gets a traceback entry for this frame. One that passes an exception on, which has its entry already
//! (where the interpreter jumps to `exception_unwind`), returns [`RERAISED`]. In both cases the handler is searched from the site's instruction, not from
//! `frame.instr_ptr`: `RERAISE` sets that back to where the exception came from.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::calls::vectorcall;
use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// What a helper returns when it passes an exception on that must not get another traceback entry for this frame.
pub const RERAISED: isize = -2;

/// An exception for `raise` or its cause: `given` itself, or the instance made by calling it; null with an exception set where that fails. Consumes `given`, returns
/// an owned reference. `refusal` is the TypeError's text for what is neither an exception nor a class of them.
///
/// # Safety
/// `given` is an owned object, and the GIL is held.
unsafe fn exception_instance(
    tstate: *mut PyThreadState,
    given: *mut PyObject,
    refusal: &std::ffi::CStr,
) -> *mut PyObject {
    // SAFETY: the caller gave us `given`, and the instance is ours.
    unsafe {
        if refs::is_exception(given) {
            return given;
        }
        let mut instance = std::ptr::null_mut();
        if is_exception_class(given) {
            instance = vectorcall(tstate, given, std::ptr::null(), 0, std::ptr::null_mut());
            if !instance.is_null() && !refs::is_exception(instance) {
                let format =
                    c"calling %R should have returned an instance of BaseException, not %R";
                ffi::PyErr_Format(
                    ffi::PyExc_TypeError,
                    format.as_ptr(),
                    given,
                    refs::type_of(instance),
                );
                refs::decref(instance);
                instance = std::ptr::null_mut();
            }
        } else {
            ffi::PyErr_SetString(ffi::PyExc_TypeError, refusal.as_ptr());
        }
        refs::decref(given);
        instance
    }
}

/// `PyExceptionClass_Check`.
///
/// # Safety
/// `op` is a live object.
unsafe fn is_exception_class(op: *mut PyObject) -> bool {
    // SAFETY: a type object is a `PyTypeObject`.
    unsafe {
        refs::is_type_object(op)
            && refs::type_has_feature(op.cast(), ffi::Py_TPFLAGS_BASE_EXC_SUBCLASS as u64)
    }
}

/// `raise exc from cause`: leaves some exception set in every case. `cause` is null where there is no `from`. Consumes both.
///
/// # Safety
/// Both are owned objects (or `cause` null), and the GIL is held.
unsafe fn raise(tstate: *mut PyThreadState, exc: *mut PyObject, cause: *mut PyObject) {
    // SAFETY: what the caller gave us and what we make of it is ours until it is passed on or released.
    unsafe {
        // The exception is raised as this type, as the interpreter does: a class that makes instances of another one has them wrapped in it.
        let class = if is_exception_class(exc) {
            refs::new_ref(exc)
        } else {
            std::ptr::null_mut()
        };
        let value = exception_instance(tstate, exc, c"exceptions must derive from BaseException");
        if value.is_null() {
            refs::xdecref(class);
            refs::xdecref(cause);
            return;
        }
        let class = if class.is_null() {
            refs::new_ref(refs::type_of(value).cast())
        } else {
            class
        };
        let mut usable = true;
        if !cause.is_null() {
            let mut fixed_cause = std::ptr::null_mut();
            if cause == &raw mut ffi::_Py_NoneStruct {
                refs::decref(cause);
            } else {
                fixed_cause = exception_instance(
                    tstate,
                    cause,
                    c"exception causes must derive from BaseException",
                );
                usable = !fixed_cause.is_null();
            }
            if usable {
                ffi::PyException_SetCause(value, fixed_cause);
            }
        }
        if usable {
            ffi::PyErr_SetObject(class, value);
        }
        refs::decref(value);
        refs::decref(class);
    }
}

/// `raise` without operands: sets the exception that is being handled; [`RERAISED`], or -1 with RuntimeError set where there is none.
///
/// # Safety
/// The GIL is held.
unsafe fn reraise_handled(tstate: *mut PyThreadState) -> isize {
    // SAFETY: the chain of handled exceptions is never empty and ends in the thread's own item.
    unsafe {
        let mut item = (*tstate).exc_info;
        while (*item).exc_value.is_null() && !(*item).previous_item.is_null() {
            item = (*item).previous_item;
        }
        let handled = (*item).exc_value;
        if handled.is_null() || handled == &raw mut ffi::_Py_NoneStruct {
            ffi::PyErr_SetString(
                ffi::PyExc_RuntimeError,
                c"No active exception to reraise".as_ptr(),
            );
            return -1;
        }
        ffi::_PyErr_SetRaisedException(tstate, refs::new_ref(handled));
        RERAISED
    }
}

/// `RAISE_VARARGS(n)`: exception-if-n>0 cause-if-n=2 ->. Never 0; [`RERAISED`] for a bare `raise`.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_raise_varargs(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack, and owned once taken off it.
    unsafe {
        let stack = Stack::of(frame);
        let count = (*site).oparg;
        if count == 0 {
            return reraise_handled(tstate);
        }
        let cause = if count == 2 {
            stack.pop().steal()
        } else {
            std::ptr::null_mut()
        };
        raise(tstate, stack.pop().steal(), cause);
        -1
    }
}

/// `RERAISE(n)`: (n values) exception -> (n values). Always [`RERAISED`]. With n > 0 the lowest value is the offset where the exception came from, which `frame.instr_ptr`
/// is set back to.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_reraise(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an exception on the frame's stack, and owned once taken off it; the offset lies in the frame's code.
    unsafe {
        let stack = Stack::of(frame);
        let exception = stack.pop().steal();
        let values = (*site).oparg as usize;
        if values != 0 {
            let offset = stack.peek(values).untag_int();
            (*frame).instr_ptr = refs::code_start(refs::frame_code(frame)).offset(offset);
        }
        ffi::_PyErr_SetRaisedException(tstate, exception);
        RERAISED
    }
}

/// `PUSH_EXC_INFO`: exception -> previous exception. The exception becomes the one being handled.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_push_exc_info(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an exception on the frame's stack. The reference that the thread's item held moves to the stack.
    unsafe {
        let stack = Stack::of(frame);
        let item = (*tstate).exc_info;
        let exception = stack.pop();
        let previous = (*item).exc_value;
        (*item).exc_value = exception.as_new();
        stack.push(if previous.is_null() {
            StackRef::none()
        } else {
            StackRef::from_steal(previous)
        });
        stack.push(exception);
        0
    }
}

/// `POP_EXCEPT`: previous exception ->. It becomes the one being handled again.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_pop_except(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an exception or None on the frame's stack, and owned once taken off it; the item's old reference is ours once it is overwritten.
    unsafe {
        let previous = Stack::of(frame).pop();
        let item = (*tstate).exc_info;
        let handled = (*item).exc_value;
        (*item).exc_value = if previous.is_none() {
            std::ptr::null_mut()
        } else {
            previous.steal()
        };
        refs::xdecref(handled);
        0
    }
}

/// `CHECK_EXC_MATCH`: exception type -> exception bool.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_check_exc_match(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack, which holds them throughout.
    unsafe {
        let stack = Stack::of(frame);
        let expected = stack.object(1);
        if ffi::_PyEval_CheckExceptTypeValid(tstate, expected) < 0 {
            return stack.fail(1);
        }
        let matches = ffi::PyErr_GivenExceptionMatches(stack.object(2), expected) != 0;
        stack.pop_close();
        stack.push(StackRef::bool(matches));
        0
    }
}

/// `CHECK_EG_MATCH`: exception type -> rest match, both None-able.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_check_eg_match(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack, which holds them while they are split; the parts are owned by us until they are pushed.
    unsafe {
        let stack = Stack::of(frame);
        let (exception, expected) = (stack.object(2), stack.object(1));
        if ffi::_PyEval_CheckExceptStarTypeValid(tstate, expected) < 0 {
            return stack.fail(2);
        }
        let mut matched = std::ptr::null_mut();
        let mut rest = std::ptr::null_mut();
        let error = ffi::_PyEval_ExceptionGroupMatch(
            frame,
            exception,
            expected,
            &raw mut matched,
            &raw mut rest,
        );
        stack.pop_close_n(2);
        if error < 0 || matched.is_null() {
            return -1;
        }
        if matched != &raw mut ffi::_Py_NoneStruct {
            ffi::PyErr_SetHandledException(matched);
        }
        stack.push(StackRef::from_steal(rest));
        stack.push(StackRef::from_steal(matched));
        0
    }
}
