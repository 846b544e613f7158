//! Memory helpers of `match` statements. Called through sites only.

use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::refs::StackRef;

use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// `GET_LEN`: value -> value len(value).
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_get_len(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack and stays there.
    unsafe {
        let stack = Stack::of(frame);
        let len = ffi::PyObject_Length(stack.object(1));
        if len < 0 {
            return -1;
        }
        stack.push_new(ffi::PyLong_FromSsize_t(len))
    }
}

/// `MATCH_CLASS(n)`: subject class names -> tuple of the attributes matched, or None.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_match_class(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let attributes = ffi::_PyEval_MatchClass(
            tstate,
            stack.object(3),
            stack.object(2),
            (*site).oparg as isize,
            stack.object(1),
        );
        stack.pop_close_n(3);
        // No match is null without an exception.
        if attributes.is_null() && ffi::PyErr_Occurred().is_null() {
            stack.push(StackRef::none());
            return 0;
        }
        stack.push_new(attributes)
    }
}

/// `MATCH_KEYS`: subject keys -> subject keys (tuple of the values, or None).
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_match_keys(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack and stay there.
    unsafe {
        let stack = Stack::of(frame);
        stack.push_new(ffi::_PyEval_MatchKeys(
            tstate,
            stack.object(2),
            stack.object(1),
        ))
    }
}

/// `MATCH_MAPPING`: subject -> subject bool.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_match_mapping(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack and stays there.
    unsafe { push_type_flag(Stack::of(frame), ffi::Py_TPFLAGS_MAPPING.into()) }
}

/// `MATCH_SEQUENCE`: subject -> subject bool.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_match_sequence(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack and stays there.
    unsafe { push_type_flag(Stack::of(frame), ffi::Py_TPFLAGS_SEQUENCE.into()) }
}

/// Pushes whether the class of the object at the top has `flag`.
///
/// # Safety
/// The top is an object, and there is room for one entry more.
unsafe fn push_type_flag(stack: Stack, flag: u64) -> isize {
    // SAFETY: the caller promises the object and the room.
    unsafe {
        let has = (*(*stack.object(1)).ob_type).tp_flags & flag != 0;
        stack.push_truth(has as i32)
    }
}
