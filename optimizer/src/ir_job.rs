//! Jobs that are LLVM IR as text, for tests and measurements of everything around HIR and lowering: loading, the thread, LLVM itself, relocation, execution.
//!
//! Such a job is `PREFIX`, the names of the passes, a null byte, and the IR. The metadata of what comes out is empty.

use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;

use crate::compile::{Artifact, Refusal};
use crate::llvm::{Backend, LlvmError};

/// How such a job begins. No snapshot begins with a null byte.
pub const PREFIX: &[u8] = b"\0llvm-ir:";

/// Compiles IR as text.
pub fn compile(job: &[u8]) -> Result<Artifact, Refusal> {
    let text = job
        .strip_prefix(PREFIX)
        .and_then(|rest| std::str::from_utf8(rest).ok());
    let Some((passes, ir)) = text.and_then(|text| text.split_once('\0')) else {
        return Err(Refusal::Unsupported("not a job of IR".to_owned()));
    };
    let context = Context::create();
    // The parser wants a null byte behind the text, which `MemoryBuffer` counts as part of it.
    let ir = [ir.as_bytes(), b"\0"].concat();
    let module = context
        .create_module_from_ir(MemoryBuffer::create_from_memory_range_copy(&ir, "job"))
        .map_err(|message| LlvmError::Invalid(message.to_string()))?;
    let backend = Backend::new(OptimizationLevel::Default)?;
    backend.prepare(&module);
    backend.verify(&module)?;
    backend.optimize(&module, passes)?;
    Ok(Artifact {
        object: backend.object(&module)?,
        metadata: Vec::new(),
    })
}
