//! The AArch64 backend. Mirrors `x86_64.rs`; the trait has the documentation.
