//! How threads of ours start: without the program's signals.

use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Runs `start` with signals blocked, so that a thread that it starts takes none: the program's handlers are for the program's threads. Faults stay as they are,
/// since blocked they would kill without a word.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sets of signals are plain data, filled in before they are read; the mask is this thread's alone.
    unsafe {
        let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(blocked.as_mut_ptr());
        for fault in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGABRT,
            libc::SIGTRAP,
        ] {
            libc::sigdelset(blocked.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, blocked.as_ptr(), old.as_mut_ptr());
    }
    let result = start();
    // SAFETY: `old` was filled in above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), null_mut()) };
    result
}
