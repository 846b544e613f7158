//! Reading bytecode: instructions, exception table, location table, and the live code objects they come from.
//!
//! Offsets count code units (two bytes) from the start of the code, as jumps and tables do; `dis` counts bytes.

mod debug;
mod exceptions;
mod instructions;
mod live;
mod locations;

pub use debug::{DecodedRow, debug_dump};
pub use exceptions::{ExceptionEntries, ExceptionEntry, ExceptionTable};
pub use instructions::{Decoder, Instruction, LiveCode, encode_instruction};
pub use live::{BorrowedCode, base_code, unit_at};
pub use locations::{Lines, Location, Locations};

use core::fmt;

/// A place in the code, in code units.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct BytecodeOffset(pub u32);

impl BytecodeOffset {
    /// As an index of code units.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// As `dis` prints it.
    #[inline]
    pub fn in_bytes(self) -> u32 {
        self.0 * 2
    }
}

impl fmt::Display for BytecodeOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.in_bytes())
    }
}

/// Why bytecode cannot be read. The compiler never emits such code; `code.replace` can make it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// A number that stands for no opcode.
    #[error("byte {0}: no opcode has the number {1}")]
    UnknownOpcode(BytecodeOffset, u8),
    /// `INSTRUMENTED_LINE` and its like, which only the code object's own data can resolve.
    #[error("byte {0}: what {1} stands for is not known here")]
    Unresolved(BytecodeOffset, crate::opcode::Opcode),
    /// The code ends inside an instruction or its cache.
    #[error("byte {0}: the code ends within the instruction")]
    Truncated(BytecodeOffset),
    /// More `EXTENDED_ARG` than an argument has bytes.
    #[error("byte {0}: the argument does not fit 31 bits")]
    ArgumentTooLarge(BytecodeOffset),
    /// A jump that leaves the code.
    #[error("byte {0}: the jump leads outside the code")]
    JumpOutside(BytecodeOffset),
    /// The exception table ends inside an entry, or an entry makes no sense.
    #[error("exception table: the entry at byte {0} is malformed")]
    ExceptionTable(usize),
    /// The location table ends inside an entry, or an entry makes no sense.
    #[error("location table: the entry at byte {0} is malformed")]
    LocationTable(usize),
}
