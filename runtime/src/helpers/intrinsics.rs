//! Memory helpers of instructions that reach into CPython's own tables: intrinsics and common constants. Called through sites only.
//!
//! The intrinsic `INTRINSIC_IMPORT_STAR` writes the locals of the running frame, so the frame must be linked (as it is at every site).

use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::refs::StackRef;

use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// `LOAD_COMMON_CONSTANT(i)`: -> an exception class or builtin that compiled bytecode refers to by number.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_common_constant(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the interpreter state outlives its threads and holds these objects.
    unsafe {
        let constant = (*(*tstate).interp).common_consts[(*site).oparg as usize];
        Stack::of(frame).push(StackRef::from_new(constant));
        0
    }
}

/// `CALL_INTRINSIC_1(i)`: value -> result.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_call_intrinsic_1(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack; the table, which the header declares without its length, has an entry for each number the compiler of
    // the bytecode emits.
    unsafe {
        let stack = Stack::of(frame);
        let table =
            (&raw const ffi::_PyIntrinsics_UnaryFunctions).cast::<ffi::intrinsic_func1_info>();
        let function = (*table.add((*site).oparg as usize)).func.unwrap_unchecked();
        let result = function(tstate, stack.object(1));
        stack.pop_close();
        stack.push_new(result)
    }
}

/// `CALL_INTRINSIC_2(i)`: value1 value2 -> result.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_call_intrinsic_2(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: as for one operand.
    unsafe {
        let stack = Stack::of(frame);
        let table =
            (&raw const ffi::_PyIntrinsics_BinaryFunctions).cast::<ffi::intrinsic_func2_info>();
        let function = (*table.add((*site).oparg as usize)).func.unwrap_unchecked();
        let result = function(tstate, stack.object(2), stack.object(1));
        stack.pop_close_n(2);
        stack.push_new(result)
    }
}
