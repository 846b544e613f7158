//! Fork: the child has no compiler thread.
//!
//! Before a fork the thread is asked to end, and waited for, since a process of several threads should not fork (Python warns of it). A compilation that takes longer is not waited
//! for: in the child its job, its channels and the optimizer that it was in are given up. The handlers do as little as they can; the rest is done at the next use (`settle`).

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{MutexGuard, Once};
use std::time::Duration;

use super::thread::{self, Command};
use super::{Service, lock, wake_up};
use crate::optimize::loader;

/// How long a fork waits for the compilation at hand.
const GRACE: Duration = Duration::from_millis(15);

/// What this process inherited and has not looked at: `OWN`, `QUIET` or `AT_WORK`.
static INHERITED: AtomicU8 = AtomicU8::new(OWN);
/// Nothing.
const OWN: u8 = 0;
/// A service whose thread had ended.
const QUIET: u8 = 1;
/// A service whose thread was at work, which it may have left in any state.
const AT_WORK: u8 = 2;

/// The lock on the service, and the one on loading.
type Locks = (
    MutexGuard<'static, Option<Service>>,
    MutexGuard<'static, ()>,
);

/// The locks, held across `fork`.
struct HeldAcrossFork(UnsafeCell<Option<Locks>>);

// SAFETY: only fork handlers touch it, and only while they hold the very locks whose guards it stores.
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

/// Somebody has waited for the thread already, for the fork that comes now.
static WAITED: AtomicBool = AtomicBool::new(false);

/// Asks the thread to end and waits for it a little, unless that was done for this fork. Whether it is still there.
pub(super) fn end_thread(service: &mut Service, before_fork: bool) -> bool {
    let waited = WAITED.swap(before_fork, Ordering::Relaxed);
    let Some(thread) = &service.thread else {
        return false;
    };
    if thread.is_stuck() {
        return true;
    }
    if before_fork || !waited {
        let _ = service.channels.commands.send(Command::End);
    }
    let grace = if waited { Duration::ZERO } else { GRACE };
    if !thread.is_done_within(grace) {
        return true;
    }
    service.join();
    false
}

extern "C" fn prepare() {
    let mut slot = lock();
    if let Some(service) = slot.as_mut() {
        end_thread(service, false);
    }
    // Not the compilation, but the dynamic loader is waited for in any case: a child could load nothing any more.
    let loading = loader::no_loading();
    // SAFETY: this thread holds both locks.
    unsafe { *HELD.0.get() = Some((slot, loading)) };
}

extern "C" fn parent() {
    // SAFETY: `prepare` took the locks in this thread.
    let held = unsafe { (*HELD.0.get()).take() };
    let left = held
        .as_ref()
        .is_some_and(|(slot, _)| slot.as_ref().is_some_and(|one| !one.stranded.is_empty()));
    drop(held);
    if left {
        // A thread for them is started at the next use, and not here: Python is about to count them.
        wake_up();
    }
}

extern "C" fn child() {
    // SAFETY: `prepare` took the locks in this thread.
    let held = unsafe { (*HELD.0.get()).take() };
    if let Some((slot, _)) = &held
        && let Some(service) = slot.as_ref()
    {
        if service.thread.is_some() {
            INHERITED.store(AT_WORK, Ordering::Relaxed);
            thread::forget_optimizer();
        } else if INHERITED.load(Ordering::Relaxed) == OWN {
            INHERITED.store(QUIET, Ordering::Relaxed);
        }
    }
    drop(held);
}

/// Makes an inherited service fit for this process: jobs that were queued or at work belong to the parent.
pub(super) fn settle(service: &mut Service) {
    match INHERITED.swap(OWN, Ordering::Relaxed) {
        QUIET => service.lose_unfinished(),
        AT_WORK => service.abandon_thread(),
        _ => {}
    }
}
