//! The extension's side of the optimizer tier.
//!
//! | file | purpose |
//! |---|---|
//! | `boundary.rs` | what crosses between the extension and the shared object with LLVM in it |
//! | `hotness.rs` | counters that find hot functions and loops |
//! | `object.rs` | from an object file to code in code memory |
//! | `relocate.rs` | the kinds of relocations |
//! | `library.rs` | the functions that LLVM calls of its own accord |

pub mod boundary;
pub mod hotness;
pub mod library;
pub mod object;
pub mod relocate;
