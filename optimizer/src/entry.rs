//! The C interface that the extension finds in this object.
//!
//! Memory that crosses stays this side's: an output is boxed here and comes back to `release`. A panic ends the compilation, not the process.

use std::any::Any;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use llvm_sys::error_handling::LLVMInstallFatalErrorHandler;

use crate::boundary::{BOUNDARY_VERSION, Bytes, FatalHandler, Optimizer, Outcome, Output};
use crate::compile::{self, Artifact, Refusal};

static OPTIMIZER: Optimizer = Optimizer {
    version: BOUNDARY_VERSION,
    compile,
    on_fatal,
    release,
};

/// The one symbol that is exported. Its type is `boundary::EntryFunction`, its name `boundary::ENTRY_SYMBOL`.
#[unsafe(no_mangle)]
pub extern "C" fn hotstamp_optimizer() -> *const Optimizer {
    &OPTIMIZER
}

unsafe extern "C" fn compile(job: Bytes) -> Output {
    // SAFETY: the caller keeps the job's bytes as they are during the call.
    let job = unsafe { job.as_slice() };
    output_of(catch_unwind(AssertUnwindSafe(|| compile::compile(job))))
}

/// What crosses back for a compilation that ended so.
fn output_of(result: std::thread::Result<Result<Artifact, Refusal>>) -> Output {
    let (outcome, artifact) = match result {
        Ok(Ok(artifact)) => (Outcome::Compiled, artifact),
        Ok(Err(refusal)) => {
            let outcome = match refusal {
                Refusal::Unsupported(_) => Outcome::Refused,
                Refusal::Llvm(_) | Refusal::Defect(_) => Outcome::Failed,
            };
            (outcome, explained(refusal.to_string()))
        }
        Err(panic) => (
            Outcome::Failed,
            explained(format!("panic: {}", message_of(&*panic))),
        ),
    };
    let owned = Box::new(artifact);
    Output {
        outcome,
        object: Bytes::from(&owned.object[..]),
        metadata: Bytes::from(&owned.metadata[..]),
        owner: Box::into_raw(owned).cast::<c_void>(),
    }
}

fn explained(text: String) -> Artifact {
    Artifact {
        object: Vec::new(),
        metadata: text.into_bytes(),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "of no text"
    }
}

unsafe extern "C" fn release(output: Output) {
    if !output.owner.is_null() {
        // SAFETY: `owner` is what `output_of` made of a box, and is given back once.
        drop(unsafe { Box::from_raw(output.owner.cast::<Artifact>()) });
    }
}

static FATAL_HANDLER: OnceLock<FatalHandler> = OnceLock::new();

unsafe extern "C" fn on_fatal(handler: FatalHandler) {
    if FATAL_HANDLER.set(handler).is_ok() {
        // SAFETY: installed once, before LLVM is used.
        unsafe { LLVMInstallFatalErrorHandler(Some(report_fatal)) };
    }
}

extern "C" fn report_fatal(reason: *const c_char) {
    // SAFETY: LLVM passes a string that ends in a null byte.
    let text = unsafe { CStr::from_ptr(reason) }.to_bytes();
    if let Some(handler) = FATAL_HANDLER.get() {
        // SAFETY: the text outlives the call.
        unsafe { handler(Bytes::from(text)) };
    }
    // LLVM ends the process when this returns.
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(output: &Output) -> String {
        // SAFETY: not released yet.
        String::from_utf8(unsafe { output.metadata.as_slice() }.to_vec()).unwrap()
    }

    #[test]
    fn the_entry_says_which_version_it_is() {
        // SAFETY: a constant.
        assert_eq!(unsafe { (*hotstamp_optimizer()).version }, BOUNDARY_VERSION);
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_a_reason() {
        // SAFETY: the bytes outlive the call; the output is released once.
        unsafe {
            let output = compile(Bytes::from(&b"no job"[..]));
            assert_ne!(output.outcome, Outcome::Compiled);
            assert!(!text(&output).is_empty());
            assert_eq!(output.object.len, 0);
            release(output);
        }
    }

    #[test]
    fn a_panic_does_not_cross() {
        let result = catch_unwind(|| -> Result<Artifact, Refusal> { panic!("stack {}", 7) });
        let output = output_of(result);
        assert_eq!(output.outcome, Outcome::Failed);
        assert_eq!(text(&output), "panic: stack 7");
        // SAFETY: released once.
        unsafe { release(output) };
    }

    #[test]
    fn an_artifact_crosses_whole() {
        let artifact = Artifact {
            object: vec![1, 2, 3],
            metadata: vec![4],
        };
        let output = output_of(Ok(Ok(artifact)));
        // SAFETY: read before the release.
        unsafe {
            assert_eq!(output.object.as_slice(), [1, 2, 3]);
            assert_eq!(output.metadata.as_slice(), [4]);
            release(output);
        }
    }
}
