//! Hot functions and loops: counters in baseline code, and what happens when they run out.
//!
//! `CodeData::heat` counts down at each entry of a baseline body and at each back edge. At zero the code calls `hot_call` or `hot_loop`, which ask the policy's hooks. Without hooks
//! the counter starts again from `NEVER`.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use hotstamp_layout::ffi::PyThreadState;

use crate::Frame;
use crate::code_data::CodeData;
use crate::entry::native_stack_low;
use crate::site::{CodePtr, Site};

/// A counter that runs out in days.
pub const NEVER: u32 = u32::MAX;

static THRESHOLD: AtomicU32 = AtomicU32::new(NEVER);

/// The heat that new functions start with.
pub fn threshold() -> u32 {
    THRESHOLD.load(Ordering::Relaxed)
}

/// Sets the heat that functions stamped from now on start with: entries and back edges together until a function is hot. 0 is taken as 1.
pub fn set_threshold(entries: u32) {
    THRESHOLD.store(entries.max(1), Ordering::Relaxed);
}

/// A function became hot at an entry. The frame is linked and counted and runs in baseline code afterwards, whatever happens; `heat` has been set to `NEVER`, and may be set to
/// when to call again. No exception may be left set.
pub type CallHook =
    unsafe extern "C" fn(frame: *mut Frame, tstate: *mut PyThreadState, data: *mut CodeData);

/// A function became hot at a back edge to `loop_head` (in code units). The frame's memory is canonical there: `stackpointer` is that of the loop head. Returns optimized code that
/// runs the rest of the frame from the loop head, an `OptimizedCode` that finds the frame linked and counted, or null; it may return `resume::HANDED_BACK`. As to the rest, see `CallHook`.
pub type LoopHook = unsafe extern "C" fn(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    loop_head: u32,
) -> *const u8;

/// Optimized code: runs a frame, or the rest of one, and pops it. Returns `StackRef` bits, or 0 with an exception set.
pub type OptimizedCode = unsafe extern "C" fn(
    frame: *mut Frame,
    data: *mut CodeData,
    tstate: *mut PyThreadState,
) -> usize;

static CALL_HOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
static LOOP_HOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Registers the policy.
pub fn set_hooks(call: CallHook, back_edge: LoopHook) {
    CALL_HOOK.store(call as *mut (), Ordering::Relaxed);
    LOOP_HOOK.store(back_edge as *mut (), Ordering::Relaxed);
}

/// Called by the prologue when `heat` reaches zero.
///
/// # Safety
/// The running frame and its data; the frame has not begun.
pub unsafe extern "C" fn hot_call(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
) {
    // SAFETY: the slot is null or holds a `CallHook`.
    unsafe {
        (*data).heat = NEVER;
        let hook = CALL_HOOK.load(Ordering::Relaxed);
        if let Some(hook) = std::mem::transmute::<*mut (), Option<CallHook>>(hook) {
            hook(frame, tstate, data);
        }
    }
}

/// Called at a back edge when `heat` reaches zero; `site` is that of the JUMP_BACKWARD. Returns where to go on in optimized code, or null.
///
/// # Safety
/// The running frame and its data; `instr_ptr` and `stackpointer` are set.
pub unsafe extern "C" fn hot_loop(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    site: *mut Site,
) -> CodePtr {
    // SAFETY: the slot is null or holds a `LoopHook`.
    unsafe {
        (*data).heat = NEVER;
        // Optimized code that does not hand its frame back takes native stack each time.
        if native_stack_low(tstate) {
            return CodePtr(std::ptr::null());
        }
        let hook = LOOP_HOOK.load(Ordering::Relaxed);
        match std::mem::transmute::<*mut (), Option<LoopHook>>(hook) {
            Some(hook) => CodePtr(hook(frame, tstate, data, loop_head(data, site))),
            None => CodePtr(std::ptr::null()),
        }
    }
}

/// Where the JUMP_BACKWARD of a site leads, in code units.
unsafe fn loop_head(data: *mut CodeData, site: *mut Site) -> u32 {
    // SAFETY: the site's instruction is in the data's code.
    unsafe {
        let instruction = (*site).instr.offset_from((*data).code_start) as u32;
        instruction + u32::from((*site).next_units) - (*site).oparg
    }
}
