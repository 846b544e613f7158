//! Helpers of operators: arithmetic, subscripts read as operators, comparison, containment, identity, truth. Called through sites only.
//!
//! Operands die in the interpreter's order: of a binary operation the left one first, of a comparison the right one.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::RAISED;
use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// The function behind a `BINARY_OP` argument (`NB_ADD`, .., `NB_SUBSCR`).
///
/// # Safety
/// `oparg` is one that the compiler of the bytecode emits.
#[inline(always)]
unsafe fn binary_function(
    oparg: u32,
) -> unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject {
    // SAFETY: the table, which the header declares without its length, has a function for each of these arguments.
    unsafe {
        (&raw const ffi::_PyEval_BinaryOps)
            .cast::<ffi::binaryfunc>()
            .add(oparg as usize)
            .read()
            .unwrap_unchecked()
    }
}

/// `BINARY_OP(op)`: lhs rhs -> lhs op rhs.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_binary_op(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let result = binary_function((*site).oparg)(stack.object(2), stack.object(1));
        if result.is_null() {
            return stack.fail(2);
        }
        stack.replace_close(2, StackRef::from_steal(result));
        stack.pop_close();
        0
    }
}

/// `BINARY_OP(op)` with `acc` the left and `b` the right operand.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn reg_binary_op(
    acc: StackRef,
    b: StackRef,
    _c: StackRef,
    site: *mut Site,
    _frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operands are objects, and ours to close.
    unsafe {
        let result = binary_function((*site).oparg)(acc.as_ptr_borrow(), b.as_ptr_borrow());
        if result.is_null() {
            b.close();
            acc.close();
            return RAISED;
        }
        acc.close();
        b.close();
        StackRef::from_steal(result)
    }
}

/// `UNARY_NEGATIVE`: value -> -value.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_unary_negative(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack, which holds it until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let result = ffi::PyNumber_Negative(stack.object(1));
        stack.pop_close();
        stack.push_new(result)
    }
}

/// `UNARY_INVERT`: value -> ~value.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_unary_invert(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack, which holds it until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let result = ffi::PyNumber_Invert(stack.object(1));
        stack.pop_close();
        stack.push_new(result)
    }
}

/// `UNARY_NOT`: bool -> bool. The operand is a bool already (`TO_BOOL` comes before it).
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_unary_not(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is True or False: immortal, so that nothing has to be closed.
    unsafe {
        let stack = Stack::of(frame);
        stack.put(1, StackRef::bool(stack.peek(1).is_false()));
        0
    }
}

/// `TO_BOOL`: value -> bool.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_to_bool(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack, which holds it until its truth is known.
    unsafe {
        let stack = Stack::of(frame);
        let truth = ffi::PyObject_IsTrue(stack.object(1));
        stack.pop_close();
        stack.push_truth(truth)
    }
}

/// `TO_BOOL` of `acc`.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn reg_to_bool(
    acc: StackRef,
    _b: StackRef,
    _c: StackRef,
    _site: *mut Site,
    _frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operand is an object, and ours to close.
    unsafe {
        let truth = ffi::PyObject_IsTrue(acc.as_ptr_borrow());
        acc.close();
        truth_or_error(truth)
    }
}

/// The register helpers' result for a truth value, or for the -1 of the functions that ask for one.
fn truth_or_error(truth: i32) -> StackRef {
    if truth < 0 {
        RAISED
    } else {
        StackRef::bool(truth != 0)
    }
}

/// Bit of a `COMPARE_OP` argument: the result is wanted as a bool.
const COMPARE_TO_BOOL: u32 = 16;
/// The comparison (`Py_LT`, ..) is above this bit of a `COMPARE_OP` argument.
const COMPARE_SHIFT: u32 = 5;

/// The truth of `object`, which it consumes; -1 with an exception set.
///
/// # Safety
/// `object` is a reference of the caller's.
unsafe fn take_truth(object: *mut PyObject) -> i32 {
    // SAFETY: the caller hands over the reference.
    unsafe {
        let truth = ffi::PyObject_IsTrue(object);
        refs::decref(object);
        truth
    }
}

/// `COMPARE_OP(op)`: left right -> left op right; as a bool where the argument says so.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_compare_op(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let oparg = (*site).oparg;
        let result = ffi::PyObject_RichCompare(
            stack.object(2),
            stack.object(1),
            (oparg >> COMPARE_SHIFT) as i32,
        );
        stack.pop_close_n(2);
        if oparg & COMPARE_TO_BOOL != 0 && !result.is_null() {
            return stack.push_truth(take_truth(result));
        }
        stack.push_new(result)
    }
}

/// `COMPARE_OP(op)` with `acc` the left and `b` the right operand.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn reg_compare_op(
    acc: StackRef,
    b: StackRef,
    _c: StackRef,
    site: *mut Site,
    _frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operands are objects, and ours to close.
    unsafe {
        let oparg = (*site).oparg;
        let result = ffi::PyObject_RichCompare(
            acc.as_ptr_borrow(),
            b.as_ptr_borrow(),
            (oparg >> COMPARE_SHIFT) as i32,
        );
        b.close();
        acc.close();
        if result.is_null() {
            return RAISED;
        }
        if oparg & COMPARE_TO_BOOL != 0 {
            return truth_or_error(take_truth(result));
        }
        StackRef::from_steal(result)
    }
}

/// `CONTAINS_OP(invert)`: item container -> bool.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_contains_op(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the answer is there.
    unsafe {
        let stack = Stack::of(frame);
        let found = ffi::PySequence_Contains(stack.object(1), stack.object(2));
        stack.pop_close_n(2);
        stack.push_truth(if found < 0 {
            found
        } else {
            found ^ (*site).oparg as i32
        })
    }
}

/// `CONTAINS_OP(invert)` with `acc` the item and `b` the container.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn reg_contains_op(
    acc: StackRef,
    b: StackRef,
    _c: StackRef,
    site: *mut Site,
    _frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operands are objects, and ours to close.
    unsafe {
        let found = ffi::PySequence_Contains(b.as_ptr_borrow(), acc.as_ptr_borrow());
        b.close();
        acc.close();
        truth_or_error(if found < 0 {
            found
        } else {
            found ^ (*site).oparg as i32
        })
    }
}

/// `IS_OP(invert)`: left right -> bool.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_is_op(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack.
    unsafe {
        let stack = Stack::of(frame);
        let same = stack.object(2) == stack.object(1);
        stack.pop_close_n(2);
        stack.push_truth(same as i32 ^ (*site).oparg as i32)
    }
}
