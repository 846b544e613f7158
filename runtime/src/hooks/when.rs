//! When code is stamped: what runs a few times costs less to interpret than to compile.
//!
//! Code is interpreted, by the interpreter's own ways, until it is found running (`sampler.rs`) or called by compiled code. Then it counts: a call `STEPS_OF_CALL` steps, a loop's iteration one
//! (`back_edges.rs`). When it has counted enough it is stamped, and where it loops entered in the middle. Where iterations cannot be counted code that loops is stamped when it is found, since one
//! call may be the whole program and the interpreter cannot be left in the middle of a loop.
//!
//! The steps come from measurement (ARCHITECTURE.md, "When code is stamped"). `HOTSTAMP_STAMP=N` counts all code from its first call on, and stamps it at its `N`th; 1: all code at its first.

use std::sync::atomic::{AtomicU32, Ordering};

use hotstamp_layout::ffi::PyCodeObject;
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs;

use crate::registry::{self, Wait};

/// Calls that are counted before code that does not loop is stamped.
const CALLS: u32 = 32;

/// What a call counts, against one for an iteration.
const STEPS_OF_CALL: u32 = 4;

/// What `HOTSTAMP_STAMP` says; 0: nothing.
static FROM_FIRST: AtomicU32 = AtomicU32::new(0);

/// Has all code count from its first call on, and be stamped at this one.
pub fn count_from_first(call: u32) {
    FROM_FIRST.store(call.max(1), Ordering::Relaxed);
}

/// Whether code is found by looking where the program is.
pub(crate) fn samples() -> bool {
    FROM_FIRST.load(Ordering::Relaxed) == 0
}

/// Whether code of a function of ours is stamped at this call, which is counted.
///
/// # Safety
/// `code` is a live code object; GIL held, no exception set.
pub(super) unsafe fn now(code: *mut PyCodeObject) -> bool {
    let calls = match FROM_FIRST.load(Ordering::Relaxed) {
        0 => CALLS,
        1 => return true,
        calls => calls,
    };
    // SAFETY: passed on from the caller.
    unsafe { registry::count(code, STEPS_OF_CALL, || wait(code, calls)) }
}

/// Whether code that is no function's may be stamped when it runs: it loops, and where code is found by sampling it was.
///
/// # Safety
/// `code` is a live code object; GIL held.
pub(super) unsafe fn body_counts(code: *mut PyCodeObject) -> bool {
    // SAFETY: passed on from the caller.
    unsafe { (!samples() || registry::is_known(code)) && loops(code) }
}

/// Code was found running: it begins to count.
///
/// # Safety
/// As `now`.
pub(super) unsafe fn found(code: *mut PyCodeObject) {
    // SAFETY: passed on from the caller.
    unsafe { registry::begin_counting(code, || wait(code, CALLS)) }
}

unsafe fn wait(code: *mut PyCodeObject, calls: u32) -> Wait {
    let steps = calls.saturating_mul(STEPS_OF_CALL);
    // SAFETY: the caller gives a live code object.
    if unsafe { loops(code) } {
        Wait::CountedLoops(steps)
    } else {
        Wait::Steps(steps)
    }
}

/// Whether code jumps backward anywhere. Instrumented code counts as straight: nothing is stamped while somebody observes.
unsafe fn loops(code: *mut PyCodeObject) -> bool {
    // SAFETY: the caller gives a live code object; its code units follow its header.
    unsafe {
        let units = refs::code_start(code);
        let len = refs::code_len(code);
        let mut at = 0;
        while at < len {
            let Some(opcode) = Opcode::from_u8((*units.add(at)).op.code) else {
                return false;
            };
            match opcode.base() {
                Opcode::JUMP_BACKWARD
                | Opcode::JUMP_BACKWARD_NO_INTERRUPT
                | Opcode::ENTER_EXECUTOR => return true,
                Opcode::INSTRUMENTED_LINE | Opcode::INSTRUMENTED_INSTRUCTION => return false,
                base => at += 1 + base.caches(),
            }
        }
        false
    }
}
