//! What compiled code stands on: code memory, call stubs, frames, sites and feedback cells, helper functions, watchers, exits.
//!
//! Both tiers import this crate; it imports neither. ARCHITECTURE.md describes the contracts.

pub mod code_data;
pub mod code_memory;
pub mod exits;
pub mod helpers;
pub mod site;

/// CPython's interpreter frame.
pub type Frame = hotstamp_layout::ffi::_PyInterpreterFrame;
