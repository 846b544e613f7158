//! Raising in compiled code: traceback, exception table, handler or unwind.
//!
//! Called by the shared error stub. The semantics are those of the interpreter's `error` and `exception_unwind` labels.

use hotstamp_layout::bytecode::{BytecodeOffset, ExceptionEntries};
use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use crate::code_data::CodeData;
use crate::exits::{self, ExitReason};
use crate::site::{CodePtr, Site};
use crate::{Frame, frame_stack};

/// What the error stub does next.
#[repr(C)]
#[derive(Debug)]
pub struct Continuation {
    /// Machine code to go on at with the frame still running, or null to return from the body.
    pub resume: *const u8,
    /// The body's result when it returns: a `StackRef`, or 0 with the exception set. When it goes on: what `Acc` holds there, for who resumes in the middle of a block.
    pub result: usize,
}

/// An instruction raised.
pub const RAISED_HERE: usize = 0;
/// The exception goes on: no traceback entry.
pub const RERAISED: usize = 1;
/// The exception was thrown into a suspended generator: its handlers are those of the instruction that suspended it, which stands in front of `instr_ptr`.
pub const THROWN: usize = 2;

/// Handles the exception that is set, for an instruction of `frame`.
///
/// `site` is the instruction that raised; if null, `frame.instr_ptr` is. `how` is [`RAISED_HERE`], [`RERAISED`] or [`THROWN`].
/// The operand stack below `frame.stackpointer` holds what the instruction left.
///
/// # Safety
/// Called by compiled code of `data` at body level, GIL held, exception set.
pub unsafe extern "C" fn handle_exception(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    site: *mut Site,
    how: usize,
    out: *mut Continuation,
) {
    // SAFETY: the frame is the running one and `data` belongs to its code; all pointers are valid by the contract above.
    unsafe {
        let code = (*data).code;
        let instr = if how == THROWN {
            (*frame).instr_ptr.sub(1)
        } else if site.is_null() {
            (*frame).instr_ptr
        } else {
            (*site).instr
        };
        if (*tstate).current_exception.is_null() {
            // A C function gave null and set nothing. Calls in compiled code check that, as the interpreter's do before it specialises them; not all that optimized code calls.
            ffi::PyErr_SetString(
                ffi::PyExc_SystemError,
                c"error return without exception set".as_ptr(),
            );
        }
        if how != RERAISED {
            let incomplete = refs::frame_is_incomplete(frame);
            if !incomplete {
                // Without memory for the frame object a MemoryError is set in its place.
                let object = frame_stack::frame_object(frame);
                if !object.is_null() {
                    ffi::PyTraceBack_Here(object);
                }
            }
            if how == RAISED_HERE {
                ffi::_PyEval_MonitorRaise(tstate, frame, instr);
            }
        }
        let offset = instr.offset_from((*data).code_start) as u32;
        let table = (*code).co_exceptiontable;
        let bytes = refs::bytes_contents(table);
        let stack_base = refs::frame_stack_base(frame);
        let level = ExceptionEntries::new(bytes).covering(BytecodeOffset(offset));
        let new_top = stack_base.add(level.map_or(0, |handler| handler.depth as usize));
        while (*frame).stackpointer.cast::<StackRef>() > new_top {
            let top = (*frame).stackpointer.sub(1);
            (*frame).stackpointer = top;
            top.cast::<StackRef>().read().xclose();
        }
        let Some(handler) = level else {
            pop_running_frame(tstate, frame);
            out.write(Continuation {
                resume: std::ptr::null(),
                result: 0,
            });
            return;
        };
        if handler.lasti {
            let lasti = (*frame).instr_ptr.offset_from((*data).code_start);
            push(frame, StackRef::tag_int(lasti));
        }
        let exception = ffi::_PyErr_GetRaisedException(tstate);
        push(frame, StackRef::from_steal(exception));
        (*frame).instr_ptr = (*data).code_start.add(handler.target.index());
        let resume = (*data).handler_address(handler.target.0);
        let stale = crate::entry::stale(tstate);
        if (*data).leave != 0 || stale || resume.is_none() {
            let reason = match (stale, resume) {
                (true, _) => ExitReason::TracingEnabled,
                (false, None) => ExitReason::UnsupportedOpcode,
                _ => ExitReason::Invalidated,
            };
            let result = exits::leave_to_interpreter(frame, tstate, reason as usize);
            out.write(Continuation {
                resume: std::ptr::null(),
                result,
            });
            return;
        }
        out.write(Continuation {
            resume: resume.unwrap_or(CodePtr(std::ptr::null())).0,
            result: 0,
        });
    }
}

/// Pushes onto the frame's operand stack.
unsafe fn push(frame: *mut Frame, value: StackRef) {
    // SAFETY: the exception table's depth leaves room for the exception and the instruction number.
    unsafe {
        (*frame).stackpointer.cast::<StackRef>().write(value);
        (*frame).stackpointer = (*frame).stackpointer.add(1);
    }
}

/// Leaves the recursion, unlinks, clears and pops the running frame.
///
/// # Safety
/// `frame` is the running frame, on top of the data stack, with a valid `stackpointer`.
pub unsafe fn pop_running_frame(tstate: *mut PyThreadState, frame: *mut Frame) {
    // SAFETY: as the interpreter's `exit_unwind` does it.
    unsafe {
        (*tstate).py_recursion_remaining += 1;
        (*tstate).current_frame = (*frame).previous;
        ffi::_PyEval_FrameClearAndPop(tstate, frame);
    }
}
