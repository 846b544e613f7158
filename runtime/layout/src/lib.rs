//! What hotstamp knows of CPython: its structures and functions, its opcodes, and how to read its bytecode. All of it is
//! generated from, or follows, the headers of the release that the build is for.
//!
//! This is the lowest layer: it knows nothing of compiled code.

pub mod analysis;
pub mod array;
pub mod bytecode;
pub mod ffi;
pub mod opcode;
pub mod refs;
pub mod release;
