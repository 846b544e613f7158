//! The optimizer tier: hot functions through HIR and LLVM to machine code, on the background thread.
//!
//! This crate is a shared object of its own, since LLVM is large: the extension loads it at the first hot function. `runtime/src/optimize/boundary.rs` says
//! what crosses. Nothing in here touches Python: a job holds all that a compilation may know, and the object is linked so that it could not call CPython.
//!
//! | file | purpose |
//! |---|---|
//! | `entry.rs` | the C interface that the extension calls; no panic crosses it |
//! | `compile.rs` | from a job to an object file and its metadata |
//! | `build/` | bytecode and feedback to HIR |
//! | `hir/` | the intermediate representation, its printer and verifier |
//! | `worth.rs` | whether optimized code would be faster than baseline code |
//! | `lower/` | HIR to LLVM IR |
//! | `stand_ins.rs` | why LLVM's destructors never run, and what is left out of it |
//! | `ir_job.rs` | jobs that are LLVM IR as text, for tests |
//! | `llvm.rs` | from a finished LLVM module to an object file |

pub mod compile;
mod entry;

pub mod build;
pub mod hir;
pub mod lower;
pub mod worth;

pub mod ir_job;
pub mod llvm;
mod stand_ins;

/// What crosses between this object and the extension.
pub use hotstamp_runtime::optimize::boundary;
