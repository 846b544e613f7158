//! A plain dump of what the decoder and the analysis see, for tests and tools to compare with `dis`.

use super::{BorrowedCode, ExceptionEntry, base_code};
use crate::analysis::{Analysis, AnalysisError};
use crate::ffi::PyCodeObject;

/// One instruction, with offsets in bytes as `dis` gives them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodedRow {
    /// The first `EXTENDED_ARG` or the opcode.
    pub start_offset: u32,
    /// The opcode.
    pub offset: u32,
    /// The opcode's number.
    pub opcode: u8,
    /// The opcode's name.
    pub opname: &'static str,
    /// The argument; 0 without one.
    pub oparg: u32,
    /// The next instruction.
    pub next_offset: u32,
    /// Where the argument points, if it is a distance.
    pub jump_target: Option<u32>,
    /// The source line.
    pub line: Option<i32>,
    /// A LINE event is due here.
    pub starts_line: bool,
    /// The depth of the stack before it, if it can be reached.
    pub depth: Option<u32>,
    /// How much deeper the stack is afterwards.
    pub stack_effect: Option<i32>,
    /// A basic block begins here.
    pub is_leader: bool,
    /// The handler that covers it, if any.
    pub handler: Option<ExceptionEntry>,
    /// The exception table leads here.
    pub is_handler_entry: bool,
}

/// What is seen of a live code object.
///
/// # Safety
/// `co` points to a live code object and the GIL is held.
pub unsafe fn debug_dump(co: *mut PyCodeObject) -> Result<Vec<DecodedRow>, AnalysisError> {
    // SAFETY: passed on; the tables are used only before this returns.
    let (code, tables) = unsafe { (base_code(co), BorrowedCode::new(co)) };
    let analysis = Analysis::new(&code, &tables)?;
    let row = |(instruction, facts): (&super::Instruction, &crate::analysis::Facts)| DecodedRow {
        start_offset: instruction.start.in_bytes(),
        offset: instruction.offset.in_bytes(),
        opcode: instruction.opcode as u8,
        opname: instruction.opcode.name(),
        oparg: instruction.oparg,
        next_offset: instruction.next.in_bytes(),
        jump_target: instruction
            .jump_target()
            .map(super::BytecodeOffset::in_bytes),
        line: facts.line,
        starts_line: facts.starts_line,
        depth: facts.depth,
        stack_effect: instruction.opcode.stack_effect(instruction.oparg),
        is_leader: facts.is_leader,
        handler: analysis.exceptions().lookup(instruction.offset).copied(),
        is_handler_entry: facts.is_handler_entry,
    };
    Ok(analysis.iter().map(row).collect())
}
