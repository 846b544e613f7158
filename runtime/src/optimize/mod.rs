//! The extension's side of the optimizer tier.
//!
//! | file | purpose |
//! |---|---|
//! | `boundary.rs` | what crosses between the extension and the shared object with LLVM in it |
//! | `hotness.rs` | counters that find hot functions and loops |

pub mod boundary;
pub mod hotness;
