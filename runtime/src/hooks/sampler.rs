//! Finding code worth stamping without slowing the rest: a thread asks the program now and then where it is.
//!
//! Code that nobody has found yet is the interpreter's own: no entry of ours, and calls inlined as ever. The thread adds a pending call, which the interpreter makes at the next function entry or back edge of
//! whatever runs; there the functions on top of the stack are taken over and begin to count (`when.rs`). So what takes time is found in proportion to the time it takes, and a program that ends
//! within a millisecond is not touched at all. The callees of compiled code are found by their calls.
//!
//! The thread asks again only when it was answered: a program that waits is left alone. When its questions lead to no loop that is entered it asks less often. It ends before a fork, and starts again behind it. It ends for
//! good as the interpreter is cleared: pending calls need a main interpreter.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use hotstamp_layout::ffi::{self, PyFunctionObject, PyThreadState};
use hotstamp_layout::refs;

use super::{functions, tracing, when};
use crate::{Frame, threads};

/// Between two questions while they lead to loops that are entered.
const SHORTEST: Duration = Duration::from_millis(2);
/// So many doublings of it at most, when they do not.
const DOUBLINGS: u32 = 3;
/// Questions in vain before the time doubles.
const PATIENCE: u32 = 2;
/// How many frames are looked at, from the top of the stack.
const DEPTH: usize = 8;
/// What is touched of the thread's stack is a page or two.
const STACK_BYTES: usize = 64 << 10;

/// How long a question stays put off that reached optimized code.
const PUT_OFF: Duration = Duration::from_millis(20);

/// Questions among the interpreter's pending calls.
static QUESTIONS: AtomicI32 = AtomicI32::new(0);

/// A question was put off: it waits among the pending calls, and the main thread was not told.
static PARKED: AtomicBool = AtomicBool::new(false);

/// A loop was entered since the last question.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// An interpreted loop goes on in stamped code: there is more to find, perhaps. Functions that are stamped for their calls say less, since every import makes some.
pub(super) fn note_entered_loop() {
    ENTERED.store(true, Ordering::Relaxed);
}

struct State {
    thread: Option<JoinHandle<()>>,
    /// The thread is to end.
    stop: bool,
    /// A question was not answered yet.
    asked: bool,
    /// The interpreter has come to its end.
    ended: bool,
}

static STATE: Mutex<State> = Mutex::new(State {
    thread: None,
    stop: false,
    asked: false,
    ended: false,
});
/// Signalled when the thread is to end and when a question was answered.
static CHANGED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to ask, if code is found by asking at all.
///
/// # Safety
/// Main interpreter, GIL held.
pub(super) unsafe fn start() {
    static HANDLERS: Once = Once::new();
    if !when::samples() {
        return;
    }
    HANDLERS.call_once(|| {
        // SAFETY: the handlers call nothing but this module.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), None) };
    });
    let mut state = state();
    if state.thread.is_some() || state.ended {
        return;
    }
    (state.stop, state.asked) = (false, false);
    let started = threads::without_signals(|| {
        Builder::new()
            .name("hotstamp-sampler".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(run)
    });
    match started {
        Ok(thread) => state.thread = Some(thread),
        Err(error) => ::tracing::warn!(%error, "no thread to find hot code with"),
    }
}

/// Stops asking. Whether it was asked before.
pub(super) fn stop() -> bool {
    let thread = {
        let mut state = state();
        state.stop = true;
        CHANGED.notify_all();
        state.thread.take()
    };
    thread.is_some_and(|thread| {
        // A panic has been reported by the thread itself.
        let _ = thread.join();
        true
    })
}

/// Stops asking for good: the interpreter comes to its end.
pub(super) fn end() {
    state().ended = true;
    stop();
}

/// Whether the fork that is being made interrupted the asking.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the process's first thread makes it. The child of another one ends with that thread, if it has no further ones: it may have none of ours.
static BY_FIRST_THREAD: AtomicBool = AtomicBool::new(false);

extern "C" fn before_fork() {
    INTERRUPTED.store(stop(), Ordering::Relaxed);
    // SAFETY: asks the system for two numbers.
    let first = unsafe { libc::gettid() == libc::getpid() };
    BY_FIRST_THREAD.store(first, Ordering::Relaxed);
}

/// In the parent. Not at once: Python counts the threads when the fork is made, and warns.
extern "C" fn after_fork() {
    if INTERRUPTED.load(Ordering::Relaxed) {
        // SAFETY: as in `run`.
        unsafe {
            ffi::_PyEval_AddPendingCall(ffi::PyInterpreterState_Main(), Some(go_on), null_mut(), 0)
        };
    }
}

unsafe extern "C" fn go_on(_: *mut c_void) -> c_int {
    if super::enabled() {
        // SAFETY: pending calls of the main interpreter are made in it, with the GIL.
        unsafe { start() };
    }
    0
}

/// In the child of a fork that Python made, when Python is ready again.
///
/// # Safety
/// Main interpreter, GIL held.
pub(super) unsafe fn notice_fork() {
    if INTERRUPTED.load(Ordering::Relaxed)
        && BY_FIRST_THREAD.load(Ordering::Relaxed)
        && super::enabled()
    {
        // SAFETY: passed on from the caller.
        unsafe { start() };
    }
}

/// The thread.
fn run() {
    // Both a question and what it interrupts are dear: twice a switch of threads, and caches that are cold afterwards.
    let mut in_vain = 0_u32;
    loop {
        let mut now = state();
        let interval = SHORTEST * (1 << (in_vain / PATIENCE).min(DOUBLINGS));
        now = CHANGED
            .wait_timeout_while(now, interval, |state| !state.stop)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        while now.asked && !now.stop {
            now = CHANGED
                .wait_timeout_while(now, PUT_OFF, |state| state.asked && !state.stop)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if now.asked && !now.stop {
                // A question that was put off is put again; for one that was not, the thread waits.
                if PARKED.swap(false, Ordering::SeqCst) {
                    tell_main_thread();
                } else {
                    now = CHANGED
                        .wait_while(now, |state| {
                            state.asked && !state.stop && !PARKED.load(Ordering::SeqCst)
                        })
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        if now.stop {
            return;
        }
        now.asked = true;
        drop(now);
        in_vain = if ENTERED.swap(false, Ordering::Relaxed) {
            0
        } else {
            in_vain.saturating_add(1)
        };
        QUESTIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: pending calls are added by any thread; the main interpreter is there, `end` has not returned.
        let full = unsafe {
            ffi::_PyEval_AddPendingCall(ffi::PyInterpreterState_Main(), Some(look), null_mut(), 0)
        };
        if full != 0 {
            QUESTIONS.fetch_sub(1, Ordering::SeqCst);
            state().asked = false;
        }
    }
}

/// Makes the main thread look at its pending calls.
fn tell_main_thread() {
    // SAFETY: the main thread's state lives as long as the main interpreter, and its breaker is written atomically.
    unsafe {
        let main = (*ffi::PyInterpreterState_Main()).threads.main;
        if !main.is_null() {
            breaker(main).fetch_or(CALLS, Ordering::SeqCst);
        }
    }
}

const CALLS: usize = ffi::_PY_CALLS_TO_DO_BIT as usize;

/// The word that says what is pending.
unsafe fn breaker<'a>(tstate: *mut PyThreadState) -> &'a AtomicUsize {
    // SAFETY: the caller gives a live thread state; CPython writes the word atomically.
    unsafe { AtomicUsize::from_ptr(&raw mut (*tstate).eval_breaker) }
}

/// Optimized code found something pending: whether there is anything but a question, which is put off. Optimized code would have to be left to answer it, for the rest of a loop that nobody needs to find.
///
/// # Safety
/// `tstate` is the attached thread state of the main interpreter.
pub unsafe extern "C" fn more_than_a_question(tstate: *mut PyThreadState) -> usize {
    // SAFETY: see above; counts of pending calls are written by other threads, and read here as they stand.
    unsafe {
        let breaker = breaker(tstate);
        let interp = ffi::PyInterpreterState_Main();
        let calls = || {
            let ours = (&raw const (*interp).ceval.pending.npending).read_volatile();
            let main =
                (&raw const ffi::_PyRuntime.ceval.pending_mainthread.npending).read_volatile();
            (ours, main)
        };
        let only_questions = || calls() == (QUESTIONS.load(Ordering::SeqCst), 0);
        if breaker.load(Ordering::SeqCst) != tracing::plain_version() | CALLS
            || (*interp).threads.main != tstate
            || !only_questions()
        {
            return 1;
        }
        breaker.fetch_and(!CALLS, Ordering::SeqCst);
        // A call that was added meanwhile was announced before or is seen now.
        if !only_questions() {
            breaker.fetch_or(CALLS, Ordering::SeqCst);
            return 1;
        }
        if !PARKED.swap(true, Ordering::SeqCst) {
            // With the lock taken in between the thread waits already, or has not looked yet.
            drop(state());
            CHANGED.notify_all();
        }
        0
    }
}

/// The answer: made by the interpreter, in one of its threads.
unsafe extern "C" fn look(_: *mut c_void) -> c_int {
    QUESTIONS.fetch_sub(1, Ordering::SeqCst);
    PARKED.store(false, Ordering::SeqCst);
    // SAFETY: pending calls are made with the GIL.
    unsafe { look_at(ffi::PyThreadState_GetUnchecked()) };
    state().asked = false;
    CHANGED.notify_all();
    0
}

/// Takes over what is on top of a thread's stack.
unsafe fn look_at(tstate: *mut PyThreadState) {
    // SAFETY: the caller's thread state is attached; frames on the stack are live.
    unsafe {
        if !super::enabled()
            || super::suspended()
            || !(*tstate).current_exception.is_null()
            || !tracing::may_run(tstate)
        {
            return;
        }
        let mut frame = (*tstate).current_frame;
        for _ in 0..DEPTH {
            while !frame.is_null()
                && u32::from((*frame).owner as u8) >= ffi::FRAME_OWNED_BY_INTERPRETER
            {
                frame = (*frame).previous;
            }
            if frame.is_null() {
                break;
            }
            consider(frame);
            frame = (*frame).previous;
        }
    }
}

/// Has the function of a frame begin to count.
///
/// A generator that the interpreter resumed without leaving itself would stay there whatever became of its function, and so would those that it awaits: their calls would only
/// get slower. Its code is marked; who resumes it from C or compiled code has it stamped.
unsafe fn consider(frame: *mut Frame) {
    // SAFETY: the caller gives a live frame of a function or generator.
    unsafe {
        let function = (*frame).f_funcobj.as_ptr_borrow();
        if !refs::is_type(function, &raw const ffi::PyFunction_Type) {
            return;
        }
        let caller = (*frame).previous;
        if u32::from((*frame).owner as u8) == ffi::FRAME_OWNED_BY_GENERATOR
            && !caller.is_null()
            && u32::from((*caller).owner as u8) < ffi::FRAME_OWNED_BY_INTERPRETER
        {
            when::found((*function.cast::<PyFunctionObject>()).func_code.cast());
        } else {
            functions::found(function.cast::<PyFunctionObject>());
        }
    }
}
