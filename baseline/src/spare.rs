//! What a compilation needs and leaves for the next one on its thread: vectors that keep their memory.
//!
//! A function is stamped in a few microseconds; allocating and growing a dozen vectors for it took a tenth of that.

use std::cell::Cell;

use hotstamp_runtime::code_data::{HandlerEntry, ResumeEntry};

use crate::bytecode::Instruction;
use crate::compiler::Cold;
use crate::vstack::Entry;

/// More code units than this, and what a function needed is given back to the allocator.
const MOST_UNITS: usize = 1 << 15;

/// See the module. What is in the vectors means nothing.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) marks: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) cold: Vec<Cold>,
    pub(crate) sites: Vec<u64>,
    pub(crate) depths: Vec<i16>,
    pub(crate) handlers: Vec<HandlerEntry>,
    pub(crate) resume: Vec<u8>,
    pub(crate) resume_points: Vec<ResumeEntry>,
    pub(crate) code: Vec<u8>,
}

thread_local! {
    static SPARE: Cell<Option<Box<Spare>>> = const { Cell::new(None) };
}

impl Spare {
    /// This thread's, or new ones.
    pub(crate) fn take() -> Box<Spare> {
        SPARE.take().unwrap_or_default()
    }

    /// Keeps them for this thread's next compilation.
    pub(crate) fn keep(self: Box<Spare>) {
        if self.marks.capacity() <= MOST_UNITS {
            SPARE.set(Some(self));
        }
    }
}
