//! Memory helpers of imports. Called through sites only.

use hotstamp_layout::ffi::{self, PyThreadState};

use super::operands::name;
use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// `IMPORT_NAME(name)`: level names-or-None -> module.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_import_name(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack, which holds them while the import runs.
    unsafe {
        let stack = Stack::of(frame);
        let module = ffi::_PyEval_ImportName(
            tstate,
            frame,
            name(frame, (*site).oparg),
            stack.object(1),
            stack.object(2),
        );
        stack.pop_close_n(2);
        stack.push_new(module)
    }
}

/// `IMPORT_FROM(name)`: module -> module attribute. The module stays, on errors too.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_import_from(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the module is an object on the frame's stack, which holds it throughout.
    unsafe {
        let stack = Stack::of(frame);
        stack.push_new(ffi::_PyEval_ImportFrom(
            tstate,
            stack.object(1),
            name(frame, (*site).oparg),
        ))
    }
}
