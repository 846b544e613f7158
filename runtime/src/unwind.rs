//! Raising in compiled code: traceback, exception table, handler or unwind.
//!
//! Called by the shared error stub. The semantics are those of the interpreter's `error` and `exception_unwind` labels.

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

/// A handler found in an exception table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handler {
    target: u32,
    depth: u32,
    push_lasti: bool,
}

/// Reads one varint of the exception table; `None` at the end of the table.
fn varint(table: &mut &[u8]) -> Option<u32> {
    let (&first, mut rest) = table.split_first()?;
    let mut value = u32::from(first & 63);
    let mut byte = first;
    while byte & 64 != 0 {
        let (&next, after) = rest.split_first()?;
        value = (value << 6) | u32::from(next & 63);
        byte = next;
        rest = after;
    }
    *table = rest;
    Some(value)
}

/// The innermost handler that covers `offset` (in code units). Entries are sorted by start, and ranges do not overlap.
fn find_handler(mut table: &[u8], offset: u32) -> Option<Handler> {
    while !table.is_empty() {
        let start = varint(&mut table)?;
        let size = varint(&mut table)?;
        let target = varint(&mut table)?;
        let depth_lasti = varint(&mut table)?;
        if start > offset {
            return None;
        }
        if offset < start + size {
            return Some(Handler {
                target,
                depth: depth_lasti >> 1,
                push_lasti: depth_lasti & 1 != 0,
            });
        }
    }
    None
}

/// Handles the exception that is set, for an instruction of `frame`.
///
/// `site` is the instruction that raised; if null, `frame.instr_ptr` is. `reraised` skips the traceback entry.
/// The operand stack below `frame.stackpointer` holds what the instruction left.
///
/// # Safety
/// Called by compiled code of `data` at body level, GIL held, exception set.
pub unsafe extern "C" fn handle_exception(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    site: *mut Site,
    reraised: usize,
    out: *mut Continuation,
) {
    // SAFETY: the frame is the running one and `data` belongs to its code; all pointers are valid by the contract above.
    unsafe {
        let code = (*data).code;
        let instr = if site.is_null() {
            (*frame).instr_ptr
        } else {
            (*site).instr
        };
        if reraised == 0 {
            let incomplete =
                (*frame).instr_ptr < (*data).code_start.add((*code)._co_firsttraceable as usize);
            if !incomplete {
                // Without memory for the frame object a MemoryError is set in its place.
                let object = frame_stack::frame_object(frame);
                if !object.is_null() {
                    ffi::PyTraceBack_Here(object);
                }
            }
            ffi::_PyEval_MonitorRaise(tstate, frame, instr);
        }
        let offset = instr.offset_from((*data).code_start) as u32;
        let table = (*code).co_exceptiontable;
        let bytes = refs::bytes_contents(table);
        let stack_base = refs::frame_stack_base(frame);
        let level = find_handler(bytes, offset);
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
        if handler.push_lasti {
            let lasti = (*frame).instr_ptr.offset_from((*data).code_start);
            push(frame, StackRef::tag_int(lasti));
        }
        let exception = ffi::_PyErr_GetRaisedException(tstate);
        push(frame, StackRef::from_steal(exception));
        (*frame).instr_ptr = (*data).code_start.add(handler.target as usize);
        let resume = (*data).handler_address(handler.target);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_innermost_range() {
        // (start 2, size 3, target 20, depth 1, lasti), (start 5, size 70, target 30, depth 0)
        let table = [2, 3, 20, 3, 5, 0x41, 6, 30, 0];
        assert_eq!(find_handler(&table, 1), None);
        assert_eq!(
            find_handler(&table, 2),
            Some(Handler {
                target: 20,
                depth: 1,
                push_lasti: true
            })
        );
        assert_eq!(
            find_handler(&table, 5),
            Some(Handler {
                target: 30,
                depth: 0,
                push_lasti: false
            })
        );
        assert_eq!(
            find_handler(&table, 74),
            Some(Handler {
                target: 30,
                depth: 0,
                push_lasti: false
            })
        );
        assert_eq!(find_handler(&table, 75), None);
    }
}
