//! What compiled code stands on: code memory, call stubs, frames, sites and feedback cells, helper functions, watchers, exits.
//!
//! Both tiers import this crate; it imports neither. ARCHITECTURE.md describes the contracts.

pub mod bind;
pub mod caches;
pub mod code_data;
pub mod code_memory;
pub mod entry;
pub mod exits;
pub mod frame_stack;
pub mod generators;
pub mod helpers;
pub mod hooks;
pub mod jitlist;
pub mod leave;
pub mod naming;
pub mod optimize;
pub mod registry;
pub mod resume;
pub mod segments;
pub mod site;
pub mod stats;
mod threads;
pub mod unwind;

/// CPython's interpreter frame.
pub type Frame = hotstamp_layout::ffi::_PyInterpreterFrame;
