//! Golden disassembly of the baseline tier on both architectures, and unit tests of the decoder and the virtual stack.
//!
//! Nothing assembled here runs: both backends assemble on any host, at addresses that are always the same. README.md has how to read and regenerate the listings.

mod annotated;
mod bytecode;
mod coverage;
mod disassembly;
mod interpreter;
mod listing;
mod size;
mod stubs;
mod symbols;
mod templates;
mod vstack;
