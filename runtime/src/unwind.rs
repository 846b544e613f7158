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
            if how == RAISED_HERE && crate::entry::stale(tstate) {
                ffi::_PyEval_MonitorRaise(tstate, frame, instr);
            }
        }
        let offset = instr.offset_from((*data).code_start) as u32;
        let stack_base = refs::frame_stack_base(frame);
        // Mostly it is the instruction that raised last time.
        if (*data).raised.offset != offset {
            (*data).raised = look_up(data, offset);
        }
        let raised = (*data).raised;
        let new_top = stack_base.add(raised.depth as usize);
        while (*frame).stackpointer.cast::<StackRef>() > new_top {
            let top = (*frame).stackpointer.sub(1);
            (*frame).stackpointer = top;
            top.cast::<StackRef>().read().xclose();
        }
        if !raised.handled {
            pop_running_frame(tstate, frame);
            out.write(Continuation {
                resume: std::ptr::null(),
                result: 0,
            });
            return;
        }
        if raised.lasti {
            let lasti = (*frame).instr_ptr.offset_from((*data).code_start);
            push(frame, StackRef::tag_int(lasti));
        }
        let exception = ffi::_PyErr_GetRaisedException(tstate);
        push(frame, StackRef::from_steal(exception));
        (*frame).instr_ptr = (*data).code_start.add(raised.target as usize);
        let compiled = !raised.address.0.is_null();
        let stale = crate::entry::stale(tstate);
        if (*data).leave != 0 || stale || !compiled {
            let reason = match (stale, compiled) {
                (true, _) => ExitReason::TracingEnabled,
                (false, false) => ExitReason::UnsupportedOpcode,
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
            resume: raised.address.0,
            result: 0,
        });
    }
}

/// What the exception table says of an instruction.
#[derive(Clone, Copy, Debug)]
pub struct Raised {
    /// The instruction, in code units; [`Raised::NOTHING`]'s is none.
    offset: u32,
    /// Bytecode offset of the handler.
    target: u32,
    /// Its compiled block, or null.
    address: CodePtr,
    /// How much of the operand stack stays; 0 without a handler.
    depth: u32,
    /// Whether the handler wants the instruction's number.
    lasti: bool,
    /// Whether there is a handler.
    handled: bool,
}

impl Raised {
    /// Before anything was looked up.
    pub const NOTHING: Raised = Raised {
        offset: u32::MAX,
        target: 0,
        address: CodePtr(std::ptr::null()),
        depth: 0,
        lasti: false,
        handled: false,
    };
}

#[cold]
unsafe fn look_up(data: *mut CodeData, offset: u32) -> Raised {
    // SAFETY: the caller's data is live, and so is its code object with its table.
    unsafe {
        let table = refs::bytes_contents((*(*data).code).co_exceptiontable);
        match ExceptionEntries::new(table).covering(BytecodeOffset(offset)) {
            Some(handler) => Raised {
                offset,
                target: handler.target.0,
                address: (*data)
                    .handler_address(handler.target.0)
                    .unwrap_or(CodePtr(std::ptr::null())),
                depth: handler.depth,
                lasti: handler.lasti,
                handled: true,
            },
            None => Raised {
                offset,
                ..Raised::NOTHING
            },
        }
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
