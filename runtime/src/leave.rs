//! What happens when, after an operation, something was pending or an assumption had changed.

use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::refs::StackRef;

use crate::Frame;
use crate::code_data::CodeData;
use crate::entry::stale;
use crate::resume::begins_line;
use crate::site::{SITE_PUSHES_NULL, Site};

/// Compiled code goes on.
pub const STAY: isize = 0;
/// A handler raised: the exception is handled in the frame, for the site's instruction.
pub const RAISED: isize = -2;
/// The frame is ready for the interpreter, at the next instruction.
pub const LEAVE: isize = 1;

/// Handles pending events after the operation of `site`, and decides whether the frame must leave. `value` is the operation's result as
/// `StackRef` bits, not yet on the operand stack, or 0 if there is none.
///
/// On `LEAVE` the value is pushed and `instr_ptr` moved; on `RAISED` the value is released; on `STAY` nothing changed.
///
/// # Safety
/// Called by shared stubs with the running frame, its data and a site of it; `stackpointer` is valid.
pub unsafe extern "C" fn after_operation(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    site: *mut Site,
    value: usize,
) -> isize {
    // SAFETY: see above; the operand stack has room for the result, since the instruction pushes it.
    unsafe {
        if !stale(tstate)
            && (*tstate).eval_breaker & 0xff != 0
            && ffi::_Py_HandlePending(tstate) != 0
        {
            if value != 0 {
                StackRef { bits: value }.xclose();
            }
            return RAISED;
        }
        // An exhausted iterator (FOR_ITER gives null) jumps: it leaves at a later poll.
        let jumps = value == StackRef::NULL.bits;
        let must_leave = !jumps && (stale(tstate) || (*data).leave != 0);
        if !must_leave {
            return STAY;
        }
        let next = (*site).instr.add(usize::from((*site).next_units));
        // Its LINE event would be lost.
        if begins_line(data, next.offset_from_unsigned((*data).code_start) as u32) {
            return STAY;
        }
        if value != 0 {
            (*frame)
                .stackpointer
                .cast::<StackRef>()
                .write(StackRef { bits: value });
            (*frame).stackpointer = (*frame).stackpointer.add(1);
            if (*site).flags & SITE_PUSHES_NULL != 0 {
                (*frame)
                    .stackpointer
                    .cast::<StackRef>()
                    .write(StackRef::NULL);
                (*frame).stackpointer = (*frame).stackpointer.add(1);
            }
        }
        (*frame).instr_ptr = next;
        LEAVE
    }
}
