//! How hotstamp hooks into a stock CPython, and how it lets go again.
//!
//! `functions.rs` puts our entry into Python functions, `when.rs` says when code is stamped, `sampler.rs` finds it and `back_edges.rs` counts and enters its loops, `tracing.rs` hands them all back while somebody watches the program run, `bodies.rs` catches the code that
//! never is a function call: modules, classes and `exec`, `forks.rs` hides the compiler thread from `os.fork`. `generators.rs` catches the resumption of generators. `swap.rs` is how built-in functions are replaced without their identity changing.
//!
//! All of it belongs to the main interpreter and happens under the GIL.

pub(crate) mod back_edges;
pub mod bodies;
mod forks;
pub mod functions;
pub mod generators;
pub(crate) mod sampler;
mod swap;
pub mod tracing;
pub mod when;

use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

/// Why the hooks could not be installed. Nothing stays installed then.
#[derive(Debug, Error)]
pub enum HookError {
    /// CPython has eight places for function watchers.
    #[error(
        "CPython has no place left for a function watcher: other tools of this process use all of them"
    )]
    NoFunctionWatcher,
    /// A function to read CPython's own entry off could not be made.
    #[error("out of memory")]
    NoMemory,
}

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Installs all hooks and takes over the functions that are of interest already. The compiler must be registered. Calling it again changes nothing.
///
/// # Errors
/// See `HookError`.
///
/// # Safety
/// Main interpreter, GIL held.
pub unsafe fn enable() -> Result<(), HookError> {
    if enabled() {
        return Ok(());
    }
    // SAFETY: passed on from the caller.
    unsafe {
        functions::install()?;
        tracing::install();
        bodies::install();
        forks::install();
        generators::install();
        ENABLED.store(true, Ordering::Relaxed);
        tracing::start();
        sampler::start();
    }
    Ok(())
}

/// Takes all hooks away: functions get CPython's own entry back, compiled code on the stack leaves at its next poll.
///
/// # Safety
/// Main interpreter, GIL held.
pub unsafe fn disable() {
    if !enabled() {
        return;
    }
    ENABLED.store(false, Ordering::Relaxed);
    sampler::stop();
    // SAFETY: passed on from the caller.
    unsafe {
        tracing::stop();
        forks::remove();
        generators::remove();
        bodies::remove();
        tracing::remove();
        functions::remove();
    }
}

/// Whether the hooks are installed.
pub fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Whether all functions are in the interpreter's hands for now: somebody traces, profiles or monitors.
pub fn suspended() -> bool {
    tracing::suspended()
}
