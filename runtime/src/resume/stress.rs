//! Stress modes of the baseline tier, for tests: `HOTSTAMP_STRESS` names those that are on, separated by commas.
//!
//! - `resume`: at every instruction the frame's memory is made canonical, and the frame goes through its resume table; results of calls and exceptions take the way back from an
//!   optimized callee. One time in a few it is done in a new native frame, as exits do it.
//! - `optimized`: hot functions and loops go through the entries of optimized code; the optimized code is one that resumes the baseline code.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use hotstamp_layout::ffi::PyThreadState;
use hotstamp_layout::refs;

use crate::code_data::CodeData;
use crate::site::Site;
use crate::unwind::{self, Continuation};
use crate::{Frame, exits, resume};

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
        for name in std::env::var("HOTSTAMP_STRESS").unwrap_or_default().split(',') {
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
        if number & 1 != 0 {
            exits::make_operands_owned(frame);
        }
        let continuation = match (nests(tstate, number), bits) {
            (false, 0) => resume::prepare(tstate, frame, data, offset),
            (false, _) => resume::prepare_return(tstate, frame, data, offset, bits),
            (true, 0) => returns(resume::resume_frame(tstate, frame, data, offset)),
            (true, _) => returns(resume::return_into(tstate, frame, data, offset, bits)),
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

/// The frame is gone.
fn returns(result: usize) -> Continuation {
    Continuation {
        resume: std::ptr::null(),
        result,
    }
}
