//! Stress modes of the baseline tier, for tests: `HOTSTAMP_STRESS` names those that are on, separated by commas.
//!
//! - `resume`: at every instruction the frame's memory is made canonical, and the frame goes through its resume table; results of calls and exceptions take the way back from an
//!   optimized callee. One time in a few it is done in a new native frame, as exits do it.
//! - `optimized`: hot functions and loops go through the entries of optimized code; the optimized code is one that resumes the baseline code.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hotstamp_layout::ffi::PyThreadState;
use hotstamp_layout::refs;

use crate::code_data::CodeData;
use crate::optimize::hotness::{self, OptimizedCode};
use crate::resume::table::Place;
use crate::site::{CodePtr, Site};
use crate::unwind::{self, Continuation};
use crate::{Frame, resume};

/// The modes that are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// See the module.
    pub resume: bool,
    /// See the module.
    pub optimized: bool,
}

/// The modes that the environment asks for, read once.
pub fn modes() -> Modes {
    static MODES: OnceLock<Modes> = OnceLock::new();
    *MODES.get_or_init(|| {
        let mut modes = Modes::default();
        for name in std::env::var("HOTSTAMP_STRESS")
            .unwrap_or_default()
            .split(',')
        {
            match name.trim() {
                "" => {}
                "resume" => modes.resume = true,
                "optimized" => modes.optimized = true,
                other => tracing::warn!("HOTSTAMP_STRESS: there is no mode {other:?}"),
            }
        }
        modes
    })
}

/// One in so many goes through a native frame of its own.
const NESTED_EVERY: u32 = 7;

/// Bytes of native stack that nesting leaves.
const NATIVE_STACK_KEPT: usize = 2 << 20;

/// A number that grows with each request.
fn next_number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Whether this one is to nest, and the native stack lets it.
unsafe fn nests(tstate: *mut PyThreadState, number: u32) -> bool {
    let here = 0u8;
    // SAFETY: every `PyThreadState` is the first member of a `_PyThreadStateImpl`.
    let limit = unsafe { (*refs::thread_impl(tstate)).c_stack_soft_limit } as usize;
    number.is_multiple_of(NESTED_EVERY) && (&raw const here as usize) > limit + NATIVE_STACK_KEPT
}

/// What stressed code does at each instruction, `bits` being 0, and behind each call, with the call's result.
///
/// # Safety
/// Called by the `stress` stub of a body; the frame's memory is canonical up to the site's depth, and `site` is the instruction or the call.
pub unsafe extern "C" fn trip(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    site: *mut Site,
    bits: usize,
    out: *mut Continuation,
) {
    // SAFETY: as the functions of `resume` want it.
    unsafe {
        let offset = (*site).instr.offset_from((*data).code_start) as u32;
        let number = next_number();
        // What an optimizer owns instead of borrowing has to be released.
        if bits == 0
            && number & 1 != 0
            && let Some(point) = resume::point_at(data, offset)
        {
            let base = refs::frame_stack_base(frame);
            for (depth, place) in point.places.iter().enumerate() {
                if *place == Place::Implied {
                    let slot = base.add(depth);
                    slot.write(slot.read().make_heap_safe());
                }
            }
        }
        let continuation = match (nests(tstate, number), bits) {
            (false, 0) => resume::prepare(tstate, frame, data, offset),
            (false, _) => resume::prepare_return(tstate, frame, data, offset, bits, false),
            (true, 0) => returns(resume::resume_frame(tstate, frame, data, offset)),
            (true, _) => returns(resume::return_into(
                tstate, frame, data, offset, bits, false,
            )),
        };
        out.write(continuation);
    }
}

/// `unwind::handle_exception` for stressed code: one time in a few through `raise_in_frame`.
///
/// # Safety
/// As `unwind::handle_exception`.
pub unsafe extern "C" fn handle_exception(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    site: *mut Site,
    reraised: usize,
    out: *mut Continuation,
) {
    // SAFETY: passed on; an exception for the instruction that `instr_ptr` names is what `raise_in_frame` raises.
    unsafe {
        let same = site.is_null() || (*site).instr == (*frame).instr_ptr;
        if reraised != 0 || !same || !nests(tstate, next_number()) {
            return unwind::handle_exception(frame, tstate, data, site, reraised, out);
        }
        let offset = (*frame).instr_ptr.offset_from((*data).code_start) as u32;
        out.write(returns(resume::raise_in_frame(tstate, frame, data, offset)));
    }
}

/// The heat that functions start with in the mode `optimized`.
const THRESHOLD: u32 = 3;

/// Turns on what the modes need. Call once, before anything is stamped.
pub fn start() {
    if modes().optimized {
        hotness::set_threshold(THRESHOLD);
        hotness::set_hooks(hot_call, hot_loop);
    }
}

static ENTERED: AtomicU64 = AtomicU64::new(0);
static REPLACED: AtomicU64 = AtomicU64::new(0);

/// How often the stand-ins for optimized code were entered: by calls, and at back edges.
pub fn stand_ins() -> (u64, u64) {
    (
        ENTERED.load(Ordering::Relaxed),
        REPLACED.load(Ordering::Relaxed),
    )
}

/// Installs the stand-in for optimized code, or takes it away.
unsafe extern "C" fn hot_call(
    _frame: *mut Frame,
    _tstate: *mut PyThreadState,
    data: *mut CodeData,
) {
    // SAFETY: live data; the stand-in is code of this program.
    unsafe {
        (*data).heat = THRESHOLD;
        CodeData::install_optimized(data, CodePtr(stand_in as *const u8));
    }
}

/// Stands in for an optimized function: runs the baseline body. Every few calls it takes itself away, until the function is hot again.
unsafe extern "C" fn stand_in(
    frame: *mut Frame,
    data: *mut CodeData,
    tstate: *mut PyThreadState,
) -> usize {
    ENTERED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the frame is as bodies want it. `c_entry` is that of bodies once nothing is installed.
    unsafe {
        if next_number().is_multiple_of(5) {
            (*data).heat = THRESHOLD;
            CodeData::uninstall_optimized(data);
            let c_entry = std::mem::transmute::<CodePtr, OptimizedCode>((*data).c_entry);
            return c_entry(frame, data, tstate);
        }
        resume::enter_body(frame, tstate, data, (*data).baseline)
    }
}

/// Gives a stand-in for optimized code of a loop: it leaves at once, at the loop's head.
unsafe extern "C" fn hot_loop(
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
    data: *mut CodeData,
    loop_head: u32,
) -> *const u8 {
    // SAFETY: the running frame and its data.
    unsafe {
        (*data).heat = THRESHOLD;
        (*frame).instr_ptr = (*data).code_start.add(loop_head as usize);
    }
    replaced_loop as *const u8
}

unsafe extern "C" fn replaced_loop(
    frame: *mut Frame,
    data: *mut CodeData,
    tstate: *mut PyThreadState,
) -> usize {
    REPLACED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the frame's memory is canonical at the loop's head, where `hot_loop` left `instr_ptr`.
    unsafe {
        let offset = (*frame).instr_ptr.offset_from((*data).code_start) as u32;
        if nests(tstate, next_number()) {
            resume::resume_frame(tstate, frame, data, offset)
        } else {
            resume::hand_back(tstate, frame, data, offset)
        }
    }
}

/// The frame is gone.
fn returns(result: usize) -> Continuation {
    Continuation {
        resume: std::ptr::null(),
        result,
    }
}
