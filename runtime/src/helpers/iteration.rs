//! Memory helpers of `for` loops. Called through sites only.

use hotstamp_layout::ffi::{self, PyThreadState};

use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// What [`op_for_iter`] returns when the iterator has no more values.
pub const EXHAUSTED: isize = 1;

/// `GET_ITER`: iterable -> iterator.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_get_iter(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack, which holds it until the iterator is there.
    unsafe {
        let stack = Stack::of(frame);
        let iterator = ffi::PyObject_GetIter(stack.object(1));
        stack.pop_close();
        stack.push_new(iterator)
    }
}

/// `FOR_ITER`: iterator -> iterator value, or [`EXHAUSTED`] with nothing pushed. The iterator stays on the stack in every case, errors included: leaving the loop pops it.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_for_iter(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the iterator is on the frame's stack, which holds it throughout.
    unsafe {
        let stack = Stack::of(frame);
        let iterator = stack.object(1);
        let Some(next) = (*(*iterator).ob_type).tp_iternext else {
            let type_name = (*(*iterator).ob_type).tp_name;
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"'%.100s' object is not an iterator".as_ptr(),
                type_name,
            );
            return -1;
        };
        let value = next(iterator);
        if !value.is_null() {
            return stack.push_new(value);
        }
        if !ffi::PyErr_Occurred().is_null() {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) == 0 {
                return -1;
            }
            ffi::_PyEval_MonitorRaise(tstate, frame, (*site).instr);
            ffi::PyErr_Clear();
        }
        EXHAUSTED
    }
}
