//! Going on in baseline code in the middle of a frame: how optimized code leaves, and how an exception or a result reaches the rest of a function.
//!
//! The frame is real, linked, its recursion counted, on top of the data stack, and its memory canonical: every entry of the operand stack is in its slot, and `stackpointer` covers
//! them. The resume table says what baseline code expects instead. Each function runs the rest of the frame and returns as a body does: `StackRef` bits, or 0 with an exception
//! set; the frame is popped in both cases.
//!
//! Where compiled code may not run (somebody observes, or `CodeData::leave` is set), the frame goes to the interpreter, but not in front of an instruction that begins a line: its
//! LINE event would be lost, as the interpreter takes the line for the one that it comes from. Baseline code then runs to its next poll and leaves there, as it always does.

pub mod stress;
pub mod table;

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

use hotstamp_layout::bytecode::{Locations, unit_at};
use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs::{self, StackRef};

use crate::code_data::CodeData;
use crate::entry::stale;
use crate::exits::{self, ExitReason};
use crate::site::CodePtr;
use crate::unwind::{self, Continuation};
use crate::{Frame, registry};
use table::{Place, Reader, ResumePoint};

static RESUMED: AtomicU64 = AtomicU64::new(0);

/// Frames that went on in baseline code so far.
pub fn resumed() -> u64 {
    RESUMED.load(Ordering::Relaxed)
}

/// Runs the rest of a frame, from the instruction at `offset` (in code units) on. See the module.
///
/// # Safety
/// As the module says; `data` is that of the frame's code, and all of the instruction's inputs are on the operand stack. Slots of entries that baseline code takes from a local or
/// constant hold that object, borrowed or owned. GIL held, no exception set.
pub unsafe fn resume_frame(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    offset: u32,
) -> usize {
    // SAFETY: passed on.
    unsafe { finish(tstate, frame, data, prepare(tstate, frame, data, offset)) }
}

/// Raises the exception that is set, for the instruction at `offset`, and runs what is left of the frame: its handler, or nothing. See the module.
///
/// # Safety
/// As `resume_frame`, but that an exception is set, and that the operand stack is what the instruction left of it.
pub unsafe fn raise_in_frame(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    offset: u32,
) -> usize {
    // SAFETY: passed on.
    unsafe {
        let continuation = prepare_raise(tstate, frame, data, offset);
        finish(tstate, frame, data, continuation)
    }
}

/// Runs the rest of a frame behind the call at `call_offset`, which returned `bits` (owned; 0 with an exception set; pushed unless `dropped`). Events are polled as after every call. See the module.
///
/// # Safety
/// As `resume_frame`, but that the inputs of the call are gone from the operand stack, and that an exception is set if `bits` is 0.
pub unsafe fn return_into(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    call_offset: u32,
    bits: usize,
    dropped: bool,
) -> usize {
    // SAFETY: passed on.
    unsafe {
        let continuation = prepare_return(tstate, frame, data, call_offset, bits, dropped);
        finish(tstate, frame, data, continuation)
    }
}

/// What code that replaced a loop returns in place of a result: baseline code goes on where `handed_back` says, on the native frame that it had before. No `StackRef` looks so.
pub const HANDED_BACK: usize = 2;

/// Where the running thread's frame goes on when `HANDED_BACK` is returned. The global lock is held from there to the stub that reads it.
#[derive(Debug)]
#[repr(transparent)]
pub struct HandedBack(UnsafeCell<Continuation>);

// SAFETY: read and written with the GIL held.
unsafe impl Sync for HandedBack {}

/// See `HandedBack`.
pub static HANDED_BACK_TO: HandedBack = HandedBack(UnsafeCell::new(Continuation {
    resume: std::ptr::null(),
    result: 0,
}));

/// As `resume_frame`, for code that replaced a loop and returns at once with what this returns: the rest of the frame runs when the native frame is gone. A loop that is replaced and left
/// again and again would use up the native stack otherwise.
///
/// # Safety
/// As `resume_frame`; the caller was entered at a back edge and returns the result unchanged.
pub unsafe fn hand_back(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    offset: u32,
) -> usize {
    // SAFETY: passed on.
    unsafe { give(prepare(tstate, frame, data, offset)) }
}

/// As `raise_in_frame`, in the way of `hand_back`.
///
/// # Safety
/// As `raise_in_frame` and `hand_back`.
pub unsafe fn hand_back_raised(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    offset: u32,
) -> usize {
    // SAFETY: passed on.
    unsafe { give(prepare_raise(tstate, frame, data, offset)) }
}

/// As `return_into`, in the way of `hand_back`.
///
/// # Safety
/// As `return_into` and `hand_back`.
pub unsafe fn hand_back_returned(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    call_offset: u32,
    bits: usize,
    dropped: bool,
) -> usize {
    // SAFETY: passed on.
    unsafe {
        give(prepare_return(
            tstate,
            frame,
            data,
            call_offset,
            bits,
            dropped,
        ))
    }
}

/// Leaves a continuation for the stub that entered the optimized code.
unsafe fn give(continuation: Continuation) -> usize {
    if continuation.resume.is_null() {
        return continuation.result;
    }
    // SAFETY: GIL held.
    unsafe { HANDED_BACK_TO.0.get().write(continuation) };
    HANDED_BACK
}

/// Goes where a continuation says: machine code that takes the frame over, or nowhere, with the frame gone.
unsafe fn finish(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    continuation: Continuation,
) -> usize {
    if continuation.resume.is_null() {
        return continuation.result;
    }
    let address = CodePtr(continuation.resume);
    // SAFETY: the frame is as the code there expects it.
    unsafe { enter_in_middle(frame, tstate, data, address, continuation.result) }
}

/// Runs the rest of a frame in baseline code at `address`, with `acc` in the accumulator.
///
/// # Safety
/// The frame is as the code at `address` expects it, which is code of `data`.
pub(crate) unsafe fn enter_in_middle(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    address: CodePtr,
    acc: usize,
) -> usize {
    let Some(compiler) = registry::compiler() else {
        unreachable!("data is made by a registered compiler");
    };
    // SAFETY: the trampoline passes the fifth and sixth argument on to the stub that enters bodies in the middle.
    unsafe {
        let trampoline = std::mem::transmute::<*const u8, ResumeTrampoline>(compiler.trampoline.0);
        trampoline(frame, tstate, compiler.enter_at, data, address, acc)
    }
}

/// Enters a body whose frame is as calls make it, wherever calls of the function lead.
pub(crate) unsafe fn enter_body(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    body: CodePtr,
) -> usize {
    let Some(compiler) = registry::compiler() else {
        unreachable!("data is made by a registered compiler");
    };
    // SAFETY: the body is `data`'s; bodies take two arguments.
    unsafe {
        let trampoline = std::mem::transmute::<*const u8, ResumeTrampoline>(compiler.trampoline.0);
        trampoline(frame, tstate, body, data, CodePtr(std::ptr::null()), 0)
    }
}

/// The trampoline as the `enter_at` stub is entered through it: `(frame, tstate, stub, data, machine code to go on at, contents of the accumulator)`.
type ResumeTrampoline = unsafe extern "C" fn(
    *mut Frame,
    *mut PyThreadState,
    CodePtr,
    *mut CodeData,
    CodePtr,
    usize,
) -> usize;

/// What the resume table says of the instruction at `offset`, if it was compiled.
///
/// # Safety
/// `data` is live.
pub unsafe fn point_at(data: *mut CodeData, offset: u32) -> Option<ResumePoint> {
    // SAFETY: the table lives as long as the data.
    Reader::new(unsafe { (*data).resume_table() }).find(offset)
}

/// Makes ready to go on at `offset`: where, and with what in the accumulator. Or the frame is gone already, to the interpreter.
pub(crate) unsafe fn prepare(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    mut offset: u32,
) -> Continuation {
    // SAFETY: by the contract of `resume_frame` slots and `stackpointer` are valid. What an implied entry's slot owns, its local or the code object owns too, so that releasing it
    // frees nothing.
    unsafe {
        let point = loop {
            if let Some(point) = point_at(data, offset) {
                break point;
            }
            if !store_pair(frame, data, offset) {
                return leave(tstate, frame, data, offset, ExitReason::NoResumePoint);
            }
            offset += 1;
        };
        if let Some(reason) = must_leave(tstate, data)
            && !begins_line(data, point.start)
        {
            return leave(tstate, frame, data, point.start, reason);
        }
        RESUMED.fetch_add(1, Ordering::Relaxed);
        (*frame).instr_ptr = (*data).code_start.add(point.offset as usize);
        let base = refs::frame_stack_base(frame);
        debug_assert_eq!(
            base.add(point.places.len()),
            (*frame).stackpointer.cast::<StackRef>(),
            "the operand stack's depth at {offset}"
        );
        let mut acc = 0;
        for (depth, place) in point.places.iter().enumerate() {
            match place {
                Place::Memory => {}
                Place::Implied => base.add(depth).read().xclose(),
                Place::Acc => acc = base.add(depth).read().bits,
            }
        }
        Continuation {
            resume: (*data).baseline.0.wrapping_add(point.code_offset as usize),
            result: acc,
        }
    }
}

/// Executes a STORE_FAST_STORE_FAST that baseline code has no entry for: it belongs to an UNPACK_SEQUENCE, whose stub executes it. False if the instruction is another one.
unsafe fn store_pair(frame: *mut Frame, data: *mut CodeData, offset: u32) -> bool {
    // SAFETY: the offset is an instruction's; the operand stack has its two operands.
    unsafe {
        let opcode = unit_at((*data).code, offset as usize);
        if opcode[0] != Opcode::STORE_FAST_STORE_FAST as u8 {
            return false;
        }
        (*frame).instr_ptr = (*data).code_start.add(offset as usize);
        for index in [opcode[1] >> 4, opcode[1] & 15] {
            (*frame).stackpointer = (*frame).stackpointer.sub(1);
            let value = (*frame).stackpointer.cast::<StackRef>().read();
            let local = refs::frame_locals(frame).add(usize::from(index));
            local.replace(value).xclose();
        }
        true
    }
}

unsafe fn prepare_raise(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    offset: u32,
) -> Continuation {
    // SAFETY: by the contract of `raise_in_frame`; the unwinder fills the continuation.
    unsafe {
        let instruction = point_at(data, offset).map_or(offset, |point| point.offset);
        (*frame).instr_ptr = (*data).code_start.add(instruction as usize);
        let mut continuation = Continuation {
            resume: std::ptr::null(),
            result: 0,
        };
        unwind::handle_exception(
            frame,
            tstate,
            data,
            std::ptr::null_mut(),
            0,
            &raw mut continuation,
        );
        continuation
    }
}

unsafe fn prepare_return(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    call_offset: u32,
    bits: usize,
    dropped: bool,
) -> Continuation {
    // SAFETY: by the contract of `return_into`; the operand stack has room for the result, since the call pushes it.
    unsafe {
        if bits == 0 {
            return prepare_raise(tstate, frame, data, call_offset);
        }
        let mut reader = Reader::new((*data).resume_table());
        let call = reader.find(call_offset);
        let next = reader.advance().map(|point| point.start);
        let (Some(call), Some(next)) = (call, next) else {
            unreachable!("a call that ran was compiled, and so is what follows it");
        };
        (*frame).instr_ptr = (*data).code_start.add(call.offset as usize);
        if !stale(tstate)
            && (*tstate).eval_breaker & 0xff != 0
            && ffi::_Py_HandlePending(tstate) != 0
        {
            StackRef { bits }.xclose();
            return prepare_raise(tstate, frame, data, call_offset);
        }
        if dropped {
            StackRef { bits }.close();
            return prepare(tstate, frame, data, next);
        }
        (*frame)
            .stackpointer
            .cast::<StackRef>()
            .write(StackRef { bits });
        (*frame).stackpointer = (*frame).stackpointer.add(1);
        prepare(tstate, frame, data, next)
    }
}

/// Why compiled code of `data` may not go on, if it may not.
fn must_leave(tstate: *mut PyThreadState, data: *mut CodeData) -> Option<ExitReason> {
    if stale(tstate) {
        return Some(ExitReason::TracingEnabled);
    }
    // SAFETY: the callers' data is live.
    (unsafe { (*data).leave } != 0).then_some(ExitReason::Invalidated)
}

/// Hands the frame to the interpreter at an instruction.
unsafe fn leave(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    start: u32,
    reason: ExitReason,
) -> Continuation {
    // SAFETY: by the contract of `resume_frame` the frame's memory is what the interpreter wants.
    unsafe {
        (*frame).instr_ptr = (*data).code_start.add(start as usize);
        Continuation {
            resume: std::ptr::null(),
            result: exits::leave_to_interpreter(frame, tstate, reason as usize),
        }
    }
}

/// Whether a line begins at `start`: the instruction has another line than the one in front of it.
///
/// # Safety
/// `data` is live data.
pub(crate) unsafe fn begins_line(data: *mut CodeData, start: u32) -> bool {
    // SAFETY: the data's code object is live, and keeps its table.
    let table = unsafe { refs::bytes_contents((*(*data).code).co_linetable) };
    Locations::new(table, 1)
        .line_starts()
        .map_while(Result::ok)
        .take_while(|begin| begin.0 <= start)
        .any(|begin| begin.0 == start)
}
