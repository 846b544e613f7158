//! What compiled code calls for everything it does not do inline: one function per opcode with exactly the semantics of CPython 3.14's unspecialised
//! instruction. Called by the shared stubs through a site; never by the tiers directly.
//!
//! A *memory helper* `op_<opcode>` takes its operands from the frame's stack and leaves its results there; a *register helper* `reg_<opcode>` takes them in
//! registers. ARCHITECTURE.md ("Helpers") has the contract of both. [`memory_helper`] maps an opcode to its helper; the table below is the only list.
//!
//! One file per family of opcodes; [`stack`] is what they all use. What several of them need and CPython does not export is in `internals`.

pub mod stack;

// Operators, containers, strings, matching.

// Names, attributes, calls, functions, control flow, exceptions.
