//! Why compiled code gave control back, or was never made. Every exit and refusal has a name and a counter; statistics print them all.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// An assumption of the code broke while it was on the stack.
    Invalidated = "invalidated",
    /// The opcode has no template yet.
    UnsupportedOpcode = "unsupported_opcode",
    /// Refused: a generator, coroutine or async generator.
    Generator = "generator",
    /// Refused: the function is larger than the tables carry.
    TooLarge = "too_large",
    /// Refused: the bytecode is not what the decoder expects (written by hand, or damaged).
    BadBytecode = "bad_bytecode",
    /// Refused: the cap on code memory was reached (`HOTSTAMP_CODE_MIB`).
    CodeCapReached = "code_cap_reached",
    /// Refused: opted out by the program.
    OptedOut = "opted_out",
    /// The native stack is nearly used up: the call runs in the interpreter.
    NativeStackLow = "native_stack_low",
}

/// Counts one exit or refusal.
pub fn count(reason: ExitReason) {
    COUNTS[reason as usize].fetch_add(1, Ordering::Relaxed);
}

/// Reasons with their counts, those that never happened included.
pub fn counts() -> impl Iterator<Item = (ExitReason, u64)> {
    ExitReason::ALL.iter().map(|&reason| (reason, COUNTS[reason as usize].load(Ordering::Relaxed)))
}
