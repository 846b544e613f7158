//! From a job to an object file and the metadata that its installation needs.

use std::fmt::Write;

use hotstamp_job::{Job, Metadata, NOT_WORTH_IT};
use hotstamp_layout::bytecode::{BytecodeOffset, Decoder};
use inkwell::OptimizationLevel;
use inkwell::context::Context;
use thiserror::Error;

use crate::hir::{Graph, Op, verify};
use crate::llvm::{self, Backend};
use crate::{build, ir_job, lower, worth};

/// What a compilation gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Artifact {
    /// An ELF object file; its entry is [`crate::llvm::ENTRY_NAME`].
    pub object: Vec<u8>,
    /// A `hotstamp_job::Metadata`, in postcard's format.
    pub metadata: Vec<u8>,
}

/// Why there is no machine code for a job.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The function is not supported, or not worth it. Nothing is wrong.
    #[error("{0}")]
    Unsupported(String),
    /// The job could not be read, or this crate made something wrong.
    #[error("{0}")]
    Defect(String),
    /// LLVM failed, or this crate gave it something wrong.
    #[error("{0}")]
    Llvm(#[from] crate::llvm::LlvmError),
}

/// Instructions of a graph from which on it matters more when code is ready than how good it is: LLVM takes a fifth of a second.
const LARGE: usize = 200;

/// Compiles a job. Called on the compiler thread, one job at a time.
pub fn compile(bytes: &[u8]) -> Result<Artifact, Refusal> {
    if bytes.starts_with(ir_job::PREFIX) {
        return ir_job::compile(bytes);
    }
    let job: Job = postcard::from_bytes(bytes)
        .map_err(|error| Refusal::Defect(format!("the job does not decode: {error}")))?;
    let built = build::build(&job).map_err(|error| Refusal::Unsupported(error.to_string()))?;
    let mut metadata = Metadata {
        anchors: built.anchors,
        inlined: built.inlined,
        hir_instructions: built.graph.insts.len() as u32,
        ..Metadata::default()
    };
    if job.options.dump_hir {
        metadata.dumps.push((
            "hir".to_owned(),
            format!("{}{}", built.graph, generals(&built.graph, &job)),
        ));
    }
    if cfg!(debug_assertions) || job.options.verify {
        verify::verify(&built.graph)
            .map_err(|error| Refusal::Defect(format!("{error}\n{}", built.graph)))?;
    }
    let gain = worth::gain(&built.graph, &job);
    if gain < job.options.least_gain {
        return Err(Refusal::Unsupported(format!(
            "{NOT_WORTH_IT}: baseline code is faster by about {:.0} ns",
            -gain
        )));
    }
    let backend = Backend::new(OptimizationLevel::Default)?;
    backend.select_quickly(built.graph.insts.len() > LARGE);
    let context = Context::create();
    let module = context.create_module("hotstamp");
    backend.prepare(&module);
    let (plans, max_values) = lower::lower(&context, &module, &built.graph, &job)
        .map_err(|error| Refusal::Defect(format!("{error}\n{}", built.graph)))?;
    metadata.plans = plans;
    metadata.max_values = max_values as u32;
    if job.options.verify {
        backend.verify(&module)?;
    }
    let passes = if job.options.pipeline.is_empty() {
        llvm::DEFAULT_PASSES
    } else {
        &job.options.pipeline
    };
    backend.optimize(&module, passes)?;
    if job.options.dump_llvm {
        metadata
            .dumps
            .push(("llvm".to_owned(), llvm::ir_text(&module)));
    }
    if job.options.dump_asm {
        metadata
            .dumps
            .push(("asm".to_owned(), backend.assembly(&module)?));
    }
    let object = backend.object(&module)?;
    let metadata =
        postcard::to_allocvec(&metadata).map_err(|error| Refusal::Defect(error.to_string()))?;
    Ok(Artifact { object, metadata })
}

/// Which instructions go the general way or call, for dumps: a line for each.
fn generals(graph: &Graph, job: &Job) -> String {
    let mut text = String::new();
    let values = graph.blocks.iter().flat_map(|block| &block.insts);
    for &value in values {
        let inst = graph.inst(value);
        let what = match inst.op {
            Op::Helper { .. } => "general",
            Op::CallPython { .. } => "call",
            _ => continue,
        };
        let Some(state) = &inst.state else { continue };
        let code = &job.codes[graph.contexts[state.context as usize].code as usize];
        let decoded = Decoder::starting_at(&code.bytecode, BytecodeOffset(state.offset)).next();
        let Some(Ok(instruction)) = decoded else {
            continue;
        };
        let seen = code.site(state.offset).map(|site| &site.seen);
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "; v{} {what}: {} {} of {} at {}: {seen:?}",
            value.0,
            instruction.opcode.name(),
            instruction.oparg,
            code.name,
            state.offset
        );
    }
    text
}
