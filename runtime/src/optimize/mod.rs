//! What the optimizer tier needs of the runtime.

pub mod hotness;
