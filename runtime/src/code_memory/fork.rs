//! Fork: code memory is a shared memory object, and stays shared between parent and child.
//!
//! Both sides seal the pages in use (never written, freed or reused again) and go on behind them, the child in memory of its own. The handlers run
//! between `fork` and its return, in the child with only this thread alive: they take a lock that is known to be free and store integers, nothing else.

use std::cell::UnsafeCell;
use std::sync::{MutexGuard, Once};

use super::{Arena, GLOBAL};

/// The lock on the global arena, held across `fork` so that the child does not inherit it taken by a thread that is gone.
struct HeldAcrossFork(UnsafeCell<Option<MutexGuard<'static, Arena>>>);

// SAFETY: only fork handlers touch it, and only while they hold the very lock whose guard it stores.
unsafe impl Sync for HeldAcrossFork {}

static HELD: HeldAcrossFork = HeldAcrossFork(UnsafeCell::new(None));

/// Registers the handlers, once.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handlers are functions of this library, which is never unloaded.
        let failed = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
        assert!(failed == 0, "out of memory while registering fork handlers");
    });
}

extern "C" fn prepare() {
    let Some(memory) = GLOBAL.get() else { return };
    let guard = memory.lock();
    // SAFETY: this thread holds the lock.
    unsafe { *HELD.0.get() = Some(guard) };
}

extern "C" fn parent() {
    finish(false);
}

extern "C" fn child() {
    finish(true);
}

fn finish(in_child: bool) {
    // SAFETY: `prepare` took the lock in this thread.
    let guard = unsafe { (*HELD.0.get()).take() };
    if let Some(mut arena) = guard {
        arena.seal(in_child);
    }
}
