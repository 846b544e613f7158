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

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use hotstamp_layout::ffi;
use thiserror::Error;

use crate::optimize::service;

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
        end_with_interpreter();
        sampler::start();
    }
    Ok(())
}

/// Has `end` called as the interpreter is cleared, should nobody have called it before: a program may empty the list of Python's `atexit`. The other way round, CPython 3.14 forgets the second of
/// three functions that are registered here.
///
/// # Safety
/// Main interpreter, GIL held.
unsafe fn end_with_interpreter() {
    static REGISTERED: Once = Once::new();
    unsafe extern "C" fn cleared(_: *mut c_void) {
        end();
    }
    REGISTERED.call_once(|| {
        // SAFETY: the caller's. Without memory for it there is `atexit`.
        unsafe {
            if ffi::PyUnstable_AtExit(ffi::PyInterpreterState_Get(), Some(cleared), null_mut()) != 0
            {
                ffi::PyErr_Clear();
            }
        }
    });
}

/// No thread of ours asks anything of the interpreter any more: it comes to its end.
pub fn end() {
    sampler::end();
    service::stop();
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
