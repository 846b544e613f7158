//! What was compiled and why compiled code was left: counted here, shown by `hotstamp.stats()` and, with `HOTSTAMP_STATS=1`, on standard error at exit.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::code_memory::{CodeMemory, Usage};
use crate::optimize::policy;
use crate::{exits, resume, segments};

static FUNCTIONS: AtomicU64 = AtomicU64::new(0);
static INSTRUCTIONS: AtomicU64 = AtomicU64::new(0);
static CODE_BYTES: AtomicU64 = AtomicU64::new(0);
static METADATA_BYTES: AtomicU64 = AtomicU64::new(0);
static COMPILE_NS: AtomicU64 = AtomicU64::new(0);

/// Counts one stamped code: bytes of machine code and of data, bytecode instructions, and how long it took.
pub fn count_stamped(
    code_bytes: usize,
    metadata_bytes: usize,
    instructions: usize,
    took: Duration,
) {
    FUNCTIONS.fetch_add(1, Ordering::Relaxed);
    INSTRUCTIONS.fetch_add(instructions as u64, Ordering::Relaxed);
    CODE_BYTES.fetch_add(code_bytes as u64, Ordering::Relaxed);
    METADATA_BYTES.fetch_add(metadata_bytes as u64, Ordering::Relaxed);
    COMPILE_NS.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
}

/// All counters at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Codes stamped so far, those that were freed since included.
    pub functions_stamped: u64,
    /// Bytecode instructions of these.
    pub instructions: u64,
    /// Bytes of their machine code.
    pub code_bytes: u64,
    /// Bytes of their data and tables.
    pub metadata_bytes: u64,
    /// Time spent stamping, in nanoseconds.
    pub compile_ns: u64,
    /// Frames that went on in baseline code in the middle: left by optimized code, or by a stress mode.
    pub resumed: u64,
    /// Calls that went to further native stack.
    pub stack_switches: u64,
    /// Segments of native stack that were made.
    pub stack_segments_made: u64,
    /// Segments of native stack that were freed.
    pub stack_segments_freed: u64,
    /// What code memory holds.
    pub code_memory: Usage,
    /// Exits and refusals by name, those that never happened included.
    pub exits: Vec<(&'static str, u64)>,
    /// The optimizer's sums, if the tier was started.
    pub optimizer: Option<Optimizer>,
}

/// What the optimizer did.
#[derive(Clone, Debug)]
pub struct Optimizer {
    /// Sums by name; times in nanoseconds.
    pub totals: Vec<(&'static str, u64)>,
    /// Exits of optimized code by reason, those that never happened included.
    pub exits: Vec<(&'static str, u64)>,
}

impl Optimizer {
    /// Functions and loops that were compiled and installed so far.
    pub fn compiled(&self) -> u64 {
        self.totals
            .iter()
            .find(|(name, _)| *name == "compiled")
            .map_or(0, |(_, count)| *count)
    }

    fn read() -> Option<Optimizer> {
        let totals = policy::totals()?;
        let nanoseconds = |time: Duration| time.as_nanos() as u64;
        Some(Optimizer {
            totals: vec![
                ("compiled", totals.compiled),
                ("refused", totals.refused),
                ("failed", totals.failed),
                ("retired", totals.retired),
                ("code_bytes", totals.code_bytes),
                ("compile_ns", nanoseconds(totals.compile_time)),
                ("latency_ns", nanoseconds(totals.latency)),
                ("stalled_ns", nanoseconds(totals.stalled)),
                ("longest_stall_ns", nanoseconds(totals.longest_stall)),
                ("under_way", policy::under_way() as u64),
            ],
            exits: policy::exits()
                .map(|(reason, count)| (reason.name(), count))
                .collect(),
        })
    }
}

/// Reads all counters.
pub fn snapshot() -> Snapshot {
    let stack = segments::counts();
    Snapshot {
        functions_stamped: FUNCTIONS.load(Ordering::Relaxed),
        instructions: INSTRUCTIONS.load(Ordering::Relaxed),
        code_bytes: CODE_BYTES.load(Ordering::Relaxed),
        metadata_bytes: METADATA_BYTES.load(Ordering::Relaxed),
        compile_ns: COMPILE_NS.load(Ordering::Relaxed),
        resumed: resume::resumed(),
        stack_switches: stack.switches,
        stack_segments_made: stack.made,
        stack_segments_freed: stack.freed,
        code_memory: CodeMemory::global().usage(),
        exits: exits::counts()
            .map(|(reason, count)| (reason.name(), count))
            .collect(),
        optimizer: Optimizer::read(),
    }
}

/// The report that `HOTSTAMP_STATS=1` prints: one `hotstamp: name value` a line, exits that happened at the end.
pub fn report() -> String {
    let all = snapshot();
    let mut text = String::new();
    let lines = [
        ("functions_stamped", all.functions_stamped),
        ("instructions", all.instructions),
        ("code_bytes", all.code_bytes),
        ("metadata_bytes", all.metadata_bytes),
        ("compile_ns", all.compile_ns),
        ("resumed", all.resumed),
        ("stack_switches", all.stack_switches),
        ("stack_segments_made", all.stack_segments_made),
        ("stack_segments_freed", all.stack_segments_freed),
        ("code_memory_used", all.code_memory.used as u64),
        ("code_memory_reusable", all.code_memory.reusable as u64),
    ];
    let exits = all
        .exits
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| (format!("exit.{name}"), *count));
    let optimizer = all.optimizer.iter().flat_map(|optimizer| {
        let exits = optimizer
            .exits
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (format!("optimizer.exit.{name}"), *count));
        let totals = optimizer
            .totals
            .iter()
            .map(|(name, value)| (format!("optimizer.{name}"), *value));
        [("functions_optimized".to_owned(), optimizer.compiled())]
            .into_iter()
            .chain(totals)
            .chain(exits)
    });
    for (name, value) in lines
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .chain(exits)
        .chain(optimizer)
    {
        // Writing to a string does not fail.
        let _ = writeln!(text, "hotstamp: {name} {value}");
    }
    text
}
