//! Why a function could not be stamped.

use hotstamp_layout::bytecode::DecodeError;
use hotstamp_runtime::code_memory::CodeMemoryError;
use hotstamp_runtime::exits::ExitReason;

use crate::masm::AssembleError;

/// See the module. Each maps to the reason that statistics show.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// More instructions, locals or stack than the tables carry.
    #[error("the function is too large to be stamped")]
    TooLarge,
    /// Bytecode that CPython's compiler does not make.
    #[error("unexpected bytecode: {0}")]
    BadBytecode(&'static str),
    /// Bytecode or tables that cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Branches out of reach.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// No code memory.
    #[error(transparent)]
    Memory(#[from] CodeMemoryError),
}

impl CompileError {
    /// The reason under which the refusal is counted.
    pub fn reason(&self) -> ExitReason {
        match self {
            CompileError::TooLarge | CompileError::Assemble(_) => ExitReason::TooLarge,
            CompileError::BadBytecode(_) | CompileError::Decode(_) => ExitReason::BadBytecode,
            CompileError::Memory(_) => ExitReason::CodeCapReached,
        }
    }
}
