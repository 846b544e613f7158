//! What the optimizer gives back beside the object file: how to leave the code, and what it assumes.

use serde::{Deserialize, Serialize};

/// Everything about an artifact that is not machine code.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// Exits, and states for destructors, by index.
    pub plans: Vec<ExitPlan>,
    /// Words that `values` of an exit may have.
    pub max_values: u32,
    /// Codes of the job that were inlined: the artifact depends on them.
    pub inlined: Vec<u32>,
    /// Objects of the job that the code names: the artifact keeps them alive.
    pub anchors: Vec<u64>,
    /// Texts asked for by `Options::dump_*`.
    pub dumps: Vec<(String, String)>,
    /// Instructions of HIR, for logs.
    pub hir_instructions: u32,
}

/// How frames look at some point, and why control leaves there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExitPlan {
    /// Number of the reason (`hotstamp_runtime::exits::ExitReason`), by name.
    pub reason: Reason,
    /// What to do with the frames.
    pub action: Action,
    /// Frames, the outermost (which is real) first.
    pub frames: Vec<FramePlan>,
}

macro_rules! exit_reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// Why optimized code leaves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[doc = $doc])* $name,)* }
        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// Its name in the statistics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }
        }
    };
}

exit_reasons! {
    /// An object is of another type than the feedback said.
    TypeGuard = "type_guard",
    /// An int does not fit, or its arithmetic overflowed.
    IntOverflow = "int_overflow",
    /// A global or a module attribute changed.
    GlobalChanged = "global_changed",
    /// Something pending, or somebody observes.
    Events = "events",
    /// Control went where it had never been.
    NeverExecuted = "never_executed",
    /// An index out of range, a division by zero: baseline code raises.
    RareCase = "rare_case",
    /// An unbound local: baseline code raises.
    Unbound = "unbound",
    /// An operation raised.
    Raised = "raised",
    /// Somebody took the frame object in a call.
    FrameObserved = "frame_observed",
    /// An object died whose end somebody may have seen: what was known of memory may be wrong.
    Destroyed = "destroyed",
    /// A state for a destructor, not an exit.
    State = "state",
}

/// How control goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Execute the innermost frame's instruction again.
    Resume,
    /// The innermost frame's instruction raised; the exception is set.
    Raise,
    /// Only a state.
    None,
}

/// One frame of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FramePlan {
    /// Index of its code in the job.
    pub code: u32,
    /// The instruction: the next one to execute in the innermost frame, the call in the others.
    pub offset: u32,
    /// The function object's address, for inlined frames.
    pub function: u64,
    /// Whether an inlined frame is on the data stack already, linked, as an operation that may run Python left it.
    pub linked: bool,
    /// Locals, cells and free variables.
    pub locals: Vec<Source>,
    /// The operand stack.
    pub stack: Vec<Source>,
    /// The call makes an instance, whose `__init__` is the next frame: what takes the place of its result.
    pub instance: Option<Source>,
    /// The next frame's result is dropped: it is that of a method behind a statement such as `a[b] = c`.
    pub drops_result: bool,
}

/// What becomes of the reference in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The bits own what they say, and move.
    Move,
    /// The slot borrows.
    Borrow,
    /// The slot gets a reference of its own.
    Dup,
}

/// Where a slot's value comes from; indices into the values that the code hands over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// In the slot already.
    InPlace,
    /// Unbound.
    Null,
    /// `StackRef` bits.
    Bits(u16, Mode),
    /// A constant object's bits.
    Constant(u64),
    /// An unboxed int.
    Int(u16),
    /// An unboxed float.
    Float(u16),
    /// An unboxed bool (0 or 1).
    Bool(u16),
    /// An unboxed int if the flag is not 0, else unbound: flag, value.
    MaybeInt(u16, u16),
    /// An unboxed float if the flag is not 0, else unbound: flag, value.
    MaybeFloat(u16, u16),
    /// A constant int.
    ConstantInt(i64),
    /// A constant float.
    ConstantFloat(f64),
    /// A range iterator: next value, how many are left, step.
    Range(u16, u16, i64),
    /// A tuple of such items; those of one exit with the same number are one.
    Tuple(u32, Vec<Source>),
    /// A list of the items of a list from an index on to the first: list, index.
    Backwards(u16, u16),
}
