//! The extension's side of the optimizer tier.
//!
//! | file | purpose |
//! |---|---|
//! | `hotness.rs` | counters that find hot functions and loops |
//! | `policy.rs` | what is compiled when, installed, and made anew |
//! | `snapshot.rs` | what a compilation may know |
//! | `operators.rs` | what the feedback of operators stands for |
//! | `artifact.rs` | installed code and what it keeps alive |
//! | `lists.rs` | what optimized code calls to make and change lists |
//! | `leave.rs` | from optimized code back to real frames in baseline code |
//! | `quiet.rs` | objects that can be freed without frames |
//! | `service/`, `loader.rs` | the compiler thread, and loading what it runs |
//! | `boundary.rs` | what crosses between the extension and the shared object with LLVM in it |
//! | `object.rs`, `relocate.rs`, `library.rs` | an object file in code memory |

pub mod artifact;
pub mod boundary;
pub mod hotness;
mod leave;
mod library;
mod lists;
pub mod loader;
pub mod object;
mod operators;
pub mod policy;
mod quiet;
mod relocate;
pub mod service;
mod snapshot;
