//! Helpers of subscripts and slices, except for reading `a[b]`, which is a binary operator. Called through sites only.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::RAISED;
use super::stack::{Stack, status};
use crate::Frame;
use crate::site::Site;

/// `BUILD_SLICE(n)`: start stop (step, if n is 3) -> slice.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_build_slice(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack.
    unsafe {
        let stack = Stack::of(frame);
        let n = (*site).oparg as usize;
        let step = if n == 3 {
            stack.object(1)
        } else {
            std::ptr::null_mut()
        };
        let slice = ffi::PySlice_New(stack.object(n), stack.object(n - 1), step);
        stack.pop_close_n(n);
        stack.push_new(slice)
    }
}

/// Pops start and stop and makes a slice of them, which then alone holds them; null with an exception set if that fails.
///
/// # Safety
/// Start and stop are the two entries at the top.
unsafe fn pop_slice(stack: Stack) -> *mut PyObject {
    // SAFETY: the two entries exist; popped, they are ours to close.
    unsafe {
        let (start, stop) = (stack.peek(2), stack.peek(1));
        let slice = ffi::PySlice_New(
            start.as_ptr_borrow(),
            stop.as_ptr_borrow(),
            std::ptr::null_mut(),
        );
        stack.shrink(2);
        start.close();
        stop.close();
        slice
    }
}

/// `BINARY_SLICE`: container start stop -> container[start:stop].
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_binary_slice(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds the container until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let slice = pop_slice(stack);
        let mut result = std::ptr::null_mut();
        if !slice.is_null() {
            result = ffi::PyObject_GetItem(stack.object(1), slice);
            refs::decref(slice);
        }
        stack.pop_close();
        stack.push_new(result)
    }
}

/// `STORE_SLICE`: value container start stop -> ; `container[start:stop] = value`.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_store_slice(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds container and value until the store is over.
    unsafe {
        let stack = Stack::of(frame);
        let slice = pop_slice(stack);
        let mut error = -1;
        if !slice.is_null() {
            error = ffi::PyObject_SetItem(stack.object(1), slice, stack.object(2));
            refs::decref(slice);
        }
        stack.pop_close_n(2);
        status(error)
    }
}

/// `STORE_SUBSCR`: value container subscript -> ; `container[subscript] = value`.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_store_subscr(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the store is over.
    unsafe {
        let stack = Stack::of(frame);
        let error = ffi::PyObject_SetItem(stack.object(2), stack.object(1), stack.object(3));
        stack.pop_close_n(3);
        status(error)
    }
}

/// `STORE_SUBSCR` with `acc` the value, `b` the container and `c` the subscript; the result is None.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn reg_store_subscr(
    acc: StackRef,
    b: StackRef,
    c: StackRef,
    _site: *mut Site,
    _frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operands are objects, and ours to close.
    unsafe {
        let error =
            ffi::PyObject_SetItem(b.as_ptr_borrow(), c.as_ptr_borrow(), acc.as_ptr_borrow());
        c.close();
        b.close();
        acc.close();
        if error == 0 { StackRef::none() } else { RAISED }
    }
}

/// `DELETE_SUBSCR`: container subscript -> ; `del container[subscript]`.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_delete_subscr(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the deletion is over.
    unsafe {
        let stack = Stack::of(frame);
        let error = ffi::PyObject_DelItem(stack.object(2), stack.object(1));
        stack.pop_close_n(2);
        status(error)
    }
}
