//! Tests of the `MacroAssembler`: what both backends assemble, as golden disassembly, and what the host's backend does when it runs.
//!
//! The executing tests cover AArch64 when the crate is built for it and run natively or under emulation.

mod control;
mod data;
mod far;
mod floats;
mod golden;
mod harness;
mod labels;
