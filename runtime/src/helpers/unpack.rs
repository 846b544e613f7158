//! Memory helpers that spread an iterable over the operand stack. Called through sites only.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// `UNPACK_SEQUENCE(n)`: iterable -> n values, the first on top.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_unpack_sequence(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack, which has room for the values.
    unsafe {
        let stack = Stack::of(frame);
        let n = (*site).oparg as usize;
        match exact_items(stack.object(1), n) {
            Some(items) => {
                let sequence = stack.pop();
                for i in (0..n).rev() {
                    stack.push(StackRef::from_new(items.add(i).read()));
                }
                sequence.close();
                0
            }
            None => unpack_iterable(stack, tstate, n, -1, n),
        }
    }
}

/// The items of `sequence` if it is exactly a tuple or a list and holds `n` of them. Iterating over these types runs no code, so the copy is all that can be seen.
///
/// # Safety
/// `sequence` is an object; the items are valid as long as it lives unchanged.
unsafe fn exact_items(sequence: *mut PyObject, n: usize) -> Option<*mut *mut PyObject> {
    // SAFETY: the exact type says which structure this is.
    unsafe {
        let items = if refs::is_exact_tuple(sequence) {
            refs::tuple_items(sequence)
        } else if refs::is_exact_list(sequence) {
            refs::list_items(sequence)
        } else {
            return None;
        };
        (refs::size_of_var(sequence) == n as isize).then_some(items)
    }
}

/// `UNPACK_EX(before, after)`: iterable -> the `before` first values (the first on top), the list of the middle ones, the `after` last ones (the last lowest).
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_unpack_ex(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack, which has room for the values.
    unsafe {
        let oparg = (*site).oparg as usize;
        let (before, after) = (oparg & 0xff, oparg >> 8);
        unpack_iterable(
            Stack::of(frame),
            tstate,
            before,
            after as i32,
            before + 1 + after,
        )
    }
}

/// Replaces the iterable at the top by `total` entries. `after` is -1 when there is no starred target.
///
/// # Safety
/// The iterable is on the stack, which has room for `total` entries in its place.
unsafe fn unpack_iterable(
    stack: Stack,
    tstate: *mut PyThreadState,
    before: usize,
    after: i32,
    total: usize,
) -> isize {
    // SAFETY: the values are written above `stackpointer`, which covers them only once all are there; on failure the callee has closed those it wrote.
    unsafe {
        let iterable = stack.pop().steal();
        let top = stack.top().add(total);
        let filled =
            ffi::_PyEval_UnpackIterableStackRef(tstate, iterable, before as i32, after, top);
        refs::decref(iterable);
        if filled == 0 {
            return -1;
        }
        stack.set_top(top);
        0
    }
}
