//! From a job to an object file and the metadata that its installation needs.

use thiserror::Error;

use crate::ir_job;

/// What a compilation gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Artifact {
    /// An ELF object file; its entry is [`crate::llvm::ENTRY_NAME`].
    pub object: Vec<u8>,
    /// Resume tables and assumptions, as the extension reads them.
    pub metadata: Vec<u8>,
}

/// Why there is no machine code for a job.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The function is not supported, or not worth it. Nothing is wrong.
    #[error("{0}")]
    Unsupported(String),
    /// LLVM failed, or this crate gave it something wrong.
    #[error("{0}")]
    Llvm(#[from] crate::llvm::LlvmError),
}

/// Compiles a job. Called on the compiler thread, one job at a time.
pub fn compile(job: &[u8]) -> Result<Artifact, Refusal> {
    if job.starts_with(ir_job::PREFIX) {
        return ir_job::compile(job);
    }
    Err(Refusal::Unsupported(
        "the optimizer does not read jobs yet".to_owned(),
    ))
}
