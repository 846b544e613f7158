//! Standing aside while somebody watches the program run: `sys.settrace`, `sys.setprofile`, `sys.monitoring`.
//!
//! Only the interpreter emits their events, and it takes a foreign `vectorcall` for a C function. So while anything observes, every function has CPython's own entry
//! and version, and compiled code that is on the stack leaves at its next poll.
//!
//! **One compare decides.** The interpreter counts changes of instrumentation in the upper bits of every thread's `eval_breaker`. A cell holds the value at which compiled
//! code may run; bodies compare against it at entry, at back edges and after calls. While suspended it holds a value that no thread ever has. (The code object's own version
//! will not do: a compiled function never passes the interpreter's RESUME, which alone brings it up to date, and starting to trace brings that of running code up to date at once.)
//!
//! **How changes are seen.** The functions in `sys` and `sys.monitoring` that can start or end it are swapped. Who calls `PyEval_SetTrace` from C is seen by the compare, since
//! that counts the version up. There is no audit hook: with any hook installed each call of `id()` takes 2.6 times as long.
//!
//! A suspension visits every object twice. A program that switches tracing all the time therefore stays suspended for a while: see `affordable`.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hotstamp_layout::ffi::{self, PyInterpreterState, PyObject, PyThreadState};

use super::functions;
use super::swap::Swap;

/// Low bits of `eval_breaker`: pending events. The others count changes of instrumentation.
pub(super) const EVENT_BITS: usize = 0xff;

/// No `eval_breaker` has this value: all of its events and the last of all versions.
const NEVER: usize = usize::MAX;

static PLAIN_VERSION: AtomicUsize = AtomicUsize::new(NEVER);
static SUSPENDED: AtomicBool = AtomicBool::new(false);

/// Address of the word that compiled code compares `eval_breaker` with. Equal: nothing is pending and nobody observes.
pub fn plain_version_cell() -> *const usize {
    PLAIN_VERSION.as_ptr()
}

/// What `plain_version_cell` holds.
pub(super) fn plain_version() -> usize {
    PLAIN_VERSION.load(Ordering::Relaxed)
}

/// Whether all functions are handed back because somebody observes.
pub fn suspended() -> bool {
    SUSPENDED.load(Ordering::Relaxed)
}

/// Whether compiled code may run now, as far as observers are concerned; pending events are the caller's. Notices observers that started, and versions that changed with none.
///
/// # Safety
/// `tstate` is the attached thread state of the main interpreter.
#[inline]
pub unsafe fn may_run(tstate: *mut PyThreadState) -> bool {
    // SAFETY: a plain field of the caller's thread state.
    let version = unsafe { (*tstate).eval_breaker } & !EVENT_BITS;
    // SAFETY: passed on from the caller.
    version == PLAIN_VERSION.load(Ordering::Relaxed) || unsafe { version_changed(tstate, version) }
}

#[cold]
unsafe fn version_changed(tstate: *mut PyThreadState, version: usize) -> bool {
    if suspended() || !super::enabled() {
        return false;
    }
    // SAFETY: the interpreter of an attached thread state is alive.
    unsafe {
        if observed((*tstate).interp) {
            suspend();
            return false;
        }
    }
    PLAIN_VERSION.store(version, Ordering::Relaxed);
    true
}

/// Tools that programs can register; the two above them are `sys.setprofile`'s and `sys.settrace`'s own.
const TOOLS: usize = 6;

/// Whether anything traces, profiles or monitors. A tool counts as soon as it has a callback: it may switch on local events, which nothing announces.
unsafe fn observed(interp: *mut PyInterpreterState) -> bool {
    // SAFETY: the caller gives a live interpreter, GIL held.
    unsafe {
        let interp = &*interp;
        interp.sys_tracing_threads > 0
            || interp.sys_profiling_threads > 0
            || interp.monitoring_callables[..TOOLS]
                .iter()
                .flatten()
                .any(|callback| !callback.is_null())
            || interp
                .monitors
                .tools
                .iter()
                .any(|&tools| tools & ((1 << TOOLS) - 1) != 0)
    }
}

/// What suspensions have cost so far.
#[derive(Debug, Default)]
struct Costs {
    since: Option<Instant>,
    spent: Duration,
    suspensions: u32,
}

static COSTS: Mutex<Costs> = Mutex::new(Costs {
    since: None,
    spent: Duration::ZERO,
    suspensions: 0,
});

fn with_costs<T>(action: impl FnOnce(&mut Costs) -> T) -> T {
    action(&mut COSTS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Suspensions that end at once; later ones only while all of them together took less than a twentieth of the time.
const FREE_SUSPENSIONS: u32 = 16;

fn affordable() -> bool {
    with_costs(|costs| {
        let running = costs.since.map_or(Duration::ZERO, |since| since.elapsed());
        costs.suspensions <= FREE_SUSPENSIONS || costs.spent * 20 <= running
    })
}

fn timed(action: impl FnOnce()) {
    let start = Instant::now();
    action();
    with_costs(|costs| costs.spent += start.elapsed());
}

/// Hands all functions back. Compiled code on the stack leaves at its next poll.
unsafe fn suspend() {
    SUSPENDED.store(true, Ordering::Relaxed);
    PLAIN_VERSION.store(NEVER, Ordering::Relaxed);
    with_costs(|costs| costs.suspensions += 1);
    // SAFETY: main interpreter, GIL held.
    timed(|| unsafe { functions::hand_back_all() });
    ::tracing::debug!("suspended: the program is traced, profiled or monitored");
}

/// Takes all functions over.
unsafe fn resume() {
    SUSPENDED.store(false, Ordering::Relaxed);
    // SAFETY: main interpreter, GIL held.
    unsafe {
        let tstate = ffi::PyThreadState_GetUnchecked();
        PLAIN_VERSION.store((*tstate).eval_breaker & !EVENT_BITS, Ordering::Relaxed);
        timed(|| functions::take_over_all());
    }
    ::tracing::debug!("functions are stamped from here on");
}

/// Looks whether an observer came or went, and acts.
unsafe fn settle() {
    if !super::enabled() {
        return;
    }
    // SAFETY: main interpreter, GIL held.
    unsafe {
        let observed = observed(ffi::PyInterpreterState_Get());
        match (suspended(), observed) {
            (false, true) => suspend(),
            (true, false) if affordable() => resume(),
            _ => {}
        }
    }
}

/// The hooks are installed: takes functions over, unless somebody observes already.
pub(super) unsafe fn start() {
    with_costs(|costs| {
        costs.since.get_or_insert_with(Instant::now);
    });
    // SAFETY: main interpreter, GIL held.
    unsafe {
        SUSPENDED.store(true, Ordering::Relaxed);
        if !observed(ffi::PyInterpreterState_Get()) {
            resume();
        }
    }
}

/// The hooks are about to go: hands functions back.
pub(super) unsafe fn stop() {
    if !suspended() {
        // SAFETY: main interpreter, GIL held.
        unsafe { suspend() };
    }
    SUSPENDED.store(false, Ordering::Relaxed);
}

/// Functions created between two looks for the end of a suspension that nothing announces.
const LOOK_EVERY: u32 = 64;

/// A function was created while suspended. Observers that C code ended, and suspensions that were not affordable yet, are noticed by counting these.
pub(super) fn function_created() {
    static CREATED: AtomicU32 = AtomicU32::new(0);
    static SCHEDULED: AtomicBool = AtomicBool::new(false);

    unsafe extern "C" fn look(_: *mut c_void) -> c_int {
        SCHEDULED.store(false, Ordering::Relaxed);
        // SAFETY: pending calls run with the GIL, in a thread of the interpreter they were added to.
        unsafe { settle() };
        0
    }

    if !CREATED
        .fetch_add(1, Ordering::Relaxed)
        .is_multiple_of(LOOK_EVERY)
        || SCHEDULED.load(Ordering::Relaxed)
    {
        return;
    }
    // SAFETY: GIL held. Not here and now: the function that is being created is not complete.
    unsafe {
        let interp = ffi::PyInterpreterState_Get();
        if !observed(interp)
            && affordable()
            && ffi::_PyEval_AddPendingCall(interp, Some(look), std::ptr::null_mut(), 0) == 0
        {
            SCHEDULED.store(true, Ordering::Relaxed);
        }
    }
}

/// Defines a swapped function: the original, then a look at what it changed.
macro_rules! watched {
    ($($swap:ident $wrapper:ident O)*) => { $(
        static $swap: Swap = Swap::new();
        unsafe extern "C" fn $wrapper(module: *mut PyObject, argument: *mut PyObject) -> *mut PyObject {
            // SAFETY: called as the function it replaces.
            unsafe {
                let result = $swap.call_o(module, argument);
                settle();
                result
            }
        }
    )* };
    ($($swap:ident $wrapper:ident Fast)*) => { $(
        static $swap: Swap = Swap::new();
        unsafe extern "C" fn $wrapper(module: *mut PyObject, args: *const *mut PyObject, nargs: isize) -> *mut PyObject {
            // SAFETY: called as the function it replaces.
            unsafe {
                let result = $swap.call_fast(module, args, nargs);
                settle();
                result
            }
        }
    )* };
}

watched! {
    SETTRACE settrace O
    SETPROFILE setprofile O
    SETTRACE_ALL settrace_all O
    SETPROFILE_ALL setprofile_all O
    FREE_TOOL_ID free_tool_id O
    CLEAR_TOOL_ID clear_tool_id O
}
watched! {
    REGISTER_CALLBACK register_callback Fast
    SET_EVENTS set_events Fast
}

type WatchedO = (
    &'static Swap,
    &'static CStr,
    unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject,
);

const IN_SYS: [WatchedO; 4] = [
    (&SETTRACE, c"settrace", settrace),
    (&SETPROFILE, c"setprofile", setprofile),
    (&SETTRACE_ALL, c"_settraceallthreads", settrace_all),
    (&SETPROFILE_ALL, c"_setprofileallthreads", setprofile_all),
];
const IN_MONITORING: [WatchedO; 2] = [
    (&FREE_TOOL_ID, c"free_tool_id", free_tool_id),
    (&CLEAR_TOOL_ID, c"clear_tool_id", clear_tool_id),
];

/// Swaps the functions that start and end observing. One that is missing is left out: the compare notices its effect later.
pub(super) unsafe fn install() {
    // SAFETY: main interpreter, GIL held; each function has the signature of the flags it is installed for.
    unsafe {
        let sys = ffi::PyImport_AddModule(c"sys".as_ptr());
        if sys.is_null() {
            ffi::PyErr_Clear();
            return;
        }
        for (swap, name, function) in IN_SYS {
            note(
                swap.install(sys, name, ffi::METH_O, function as *const ()),
                name,
            );
        }
        let monitoring = ffi::PySys_GetObject(c"monitoring".as_ptr());
        if monitoring.is_null() {
            return;
        }
        for (swap, name, function) in IN_MONITORING {
            note(
                swap.install(monitoring, name, ffi::METH_O, function as *const ()),
                name,
            );
        }
        let name = c"register_callback";
        note(
            REGISTER_CALLBACK.install(
                monitoring,
                name,
                ffi::METH_FASTCALL,
                register_callback as *const (),
            ),
            name,
        );
        let name = c"set_events";
        note(
            SET_EVENTS.install(
                monitoring,
                name,
                ffi::METH_FASTCALL,
                set_events as *const (),
            ),
            name,
        );
    }
}

fn note(installed: bool, name: &CStr) {
    if !installed {
        ::tracing::debug!(
            ?name,
            "is not CPython's own function: its effects are noticed late"
        );
    }
}

/// Gives the functions back what they were.
pub(super) unsafe fn remove() {
    let swaps = IN_SYS.iter().chain(&IN_MONITORING).map(|watched| watched.0);
    for swap in swaps.chain([&REGISTER_CALLBACK, &SET_EVENTS]) {
        // SAFETY: GIL held.
        unsafe { swap.remove() };
    }
}
