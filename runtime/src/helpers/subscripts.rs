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

/// The bounds of `[start:stop]` of a sequence with `length` items, both within it, if they are None or small ints.
unsafe fn plain_bounds(start: StackRef, stop: StackRef, length: isize) -> Option<(isize, isize)> {
    // SAFETY: the bounds are objects.
    unsafe {
        let bound = |bound: StackRef, otherwise: isize| {
            if bound.is_none() {
                return Some(otherwise);
            }
            let object = bound.as_ptr_borrow();
            if !refs::is_exact_long(object) || !refs::long_is_compact(object.cast()) {
                return None;
            }
            let index = refs::long_compact_value(object.cast());
            let index = if index < 0 { index + length } else { index };
            Some(index.clamp(0, length))
        };
        let (start, stop) = (bound(start, 0)?, bound(stop, length)?);
        Some((start, stop.max(start)))
    }
}

/// `container[start:stop]` of an exact list, tuple or str with plain bounds, without a slice object. None for anything else.
unsafe fn plain_slice(
    container: *mut PyObject,
    start: StackRef,
    stop: StackRef,
) -> Option<*mut PyObject> {
    // SAFETY: live objects.
    unsafe {
        if refs::is_exact_list(container) {
            let (low, high) = plain_bounds(start, stop, refs::size_of_var(container))?;
            return Some(ffi::PyList_GetSlice(container, low, high));
        }
        if refs::is_exact_unicode(container) {
            let length = (*container.cast::<ffi::PyASCIIObject>()).length;
            let (low, high) = plain_bounds(start, stop, length)?;
            return Some(ffi::PyUnicode_Substring(container, low, high));
        }
        if refs::is_exact_tuple(container) {
            let (low, high) = plain_bounds(start, stop, refs::size_of_var(container))?;
            return Some(ffi::PyTuple_GetSlice(container, low, high));
        }
        None
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
        if let Some(result) = plain_slice(stack.object(3), stack.peek(2), stack.peek(1)) {
            stack.pop_close_n(3);
            return stack.push_new(result);
        }
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
        let container = stack.object(3);
        let value = stack.object(4);
        // Anything else is made a list first, which may run Python code or raise.
        if refs::is_exact_list(container)
            && (refs::is_exact_list(value) || refs::is_exact_tuple(value))
            && let Some((low, high)) =
                plain_bounds(stack.peek(2), stack.peek(1), refs::size_of_var(container))
        {
            let error = ffi::PyList_SetSlice(container, low, high, value);
            stack.pop_close_n(4);
            return status(error);
        }
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
