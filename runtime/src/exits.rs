//! Why compiled code gave control back, or was never made. Every exit and refusal has a name and a counter; statistics print them all.

use std::sync::atomic::{AtomicU64, Ordering};

use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::refs::StackRef;

use crate::Frame;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A named reason for leaving compiled code (an exit) or for not compiling (a refusal).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum ExitReason { $($(#[doc = $doc])* $name,)* }

        impl ExitReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [ExitReason] = &[$(ExitReason::$name,)*];

            /// The name statistics and `hotstamp.stats()` show.
            pub const fn name(self) -> &'static str {
                match self { $(ExitReason::$name => $text,)* }
            }
        }

        static COUNTS: [AtomicU64; ExitReason::ALL.len()] = [const { AtomicU64::new(0) }; ExitReason::ALL.len()];
    };
}

reasons! {
    /// Tracing, profiling or monitoring was switched on: the interpreter emits the events.
    TracingEnabled = "tracing_enabled",
    /// Another evaluator was installed (PEP 523).
    ForeignEvaluator = "foreign_evaluator",
    /// An assumption of the code broke while it was on the stack, or the program opted it out.
    Invalidated = "invalidated",
    /// The opcode has no template yet.
    UnsupportedOpcode = "unsupported_opcode",
    /// Refused: the function is larger than the tables carry.
    TooLarge = "too_large",
    /// Refused: the bytecode is not what the decoder expects (written by hand, or damaged).
    BadBytecode = "bad_bytecode",
    /// Refused: the cap on code memory was reached (`HOTSTAMP_CODE_MIB`).
    CodeCapReached = "code_cap_reached",
    /// Refused: opted out by the program.
    OptedOut = "opted_out",
    /// Refused: the code already runs with too many different globals.
    TooManyGlobals = "too_many_globals",
    /// Refused: the compiler failed on it, which is a defect of hotstamp.
    InternalError = "internal_error",
    /// The native stack is nearly used up, and the call came from C or no further stack is to be had: it runs in the interpreter.
    NativeStackLow = "native_stack_low",
    /// Optimized code left at an instruction that baseline code does not have.
    NoResumePoint = "no_resume_point",
    /// A generator that was to be resumed by us went on in the interpreter until its next yield: it was never stamped, or something prevents running compiled code now.
    GeneratorInterpreted = "generator_interpreted",
    /// Refused: `HOTSTAMP_JITLIST` does not name it.
    NotListed = "not_listed",
}

/// Counts one exit or refusal.
pub fn count(reason: ExitReason) {
    COUNTS[reason as usize].fetch_add(1, Ordering::Relaxed);
}

/// Reasons with their counts, those that never happened included.
pub fn counts() -> impl Iterator<Item = (ExitReason, u64)> {
    ExitReason::ALL
        .iter()
        .map(|&reason| (reason, COUNTS[reason as usize].load(Ordering::Relaxed)))
}

/// Hands the running frame to the interpreter, which finishes it. Returns the result as `StackRef` bits, or 0 with an exception set.
///
/// # Safety
/// `frame` is the running frame on top of the data stack; `instr_ptr` is the next instruction to execute, `stackpointer` and the slots below it are valid. The frame is consumed.
pub unsafe extern "C" fn leave_to_interpreter(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    reason: usize,
) -> usize {
    COUNTS[reason.min(ExitReason::ALL.len() - 1)].fetch_add(1, Ordering::Relaxed);
    // SAFETY: see above. The interpreter may overwrite locals that operand-stack entries borrow from in ways the compiled code did not, so borrowed
    // entries become owned first. It links the frame and enters the recursion itself.
    unsafe {
        make_operands_owned(frame);
        (*tstate).current_frame = (*frame).previous;
        (*tstate).py_recursion_remaining += 1;
        let result = ffi::_PyEval_EvalFrameDefault(tstate, frame, 0);
        if result.is_null() {
            0
        } else {
            StackRef::from_steal(result).bits
        }
    }
}

/// Turns borrowed operand-stack entries into owned ones.
///
/// # Safety
/// The frame's memory is canonical and its `stackpointer` valid.
unsafe fn make_operands_owned(frame: *mut Frame) {
    // SAFETY: the slots between the stack base and `stackpointer` are valid.
    unsafe {
        let mut slot = hotstamp_layout::refs::frame_stack_base(frame);
        while slot < (*frame).stackpointer.cast::<StackRef>() {
            slot.write(slot.read().make_heap_safe());
            slot = slot.add(1);
        }
    }
}
