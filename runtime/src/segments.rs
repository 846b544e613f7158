//! Further native stack for compiled code: Python calls are native calls there, and go deeper than a thread's stack.
//!
//! A call from compiled code that finds less than [`ROOM`] in front of the soft limit of CPython's stack protection runs on a *segment*: memory of its own, to which the thread
//! state's limits are set until the call returns. Calls that arrive from C never switch, so recursion through C ends at the stack that it is on, as in the interpreter.
//!
//! Called by the prologue's slow path (through [`go_on`]), and by helpers that call Python functions on behalf of compiled code (through [`with_room`]).

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use hotstamp_layout::ffi::{self, _PyThreadStateImpl, PyObject, PyThreadState};
use hotstamp_layout::refs;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::code_data::CodeData;
use crate::site::CodePtr;
use crate::{Frame, registry, resume};

/// Native stack that compiled code leaves to the C code that it calls: nearer to the soft limit, its calls go to a segment. Less than the 256 KiB that threads with small stacks have.
pub const ROOM: usize = 128 << 10;

/// Usable bytes of a segment. Memory is only taken where it is touched.
const SEGMENT: usize = 4 << 20;

/// Inaccessible bytes below a segment: pages of any size.
const GUARD: usize = 64 << 10;

/// What one Python frame of compiled code may take of the native stack. What is taken beyond that is C's, which may take as much as the thread's own stack has: recursion through both
/// C and compiled calls ends, whatever the recursion limit is.
const PER_FRAME: usize = 1 << 10;

static SWITCHES: AtomicU64 = AtomicU64::new(0);
static MADE: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

/// What was counted so far.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Calls that ran on a segment of their own.
    pub switches: u64,
    /// Segments mapped.
    pub made: u64,
    /// Segments unmapped.
    pub freed: u64,
}

/// See `Counts`.
pub fn counts() -> Counts {
    Counts {
        switches: SWITCHES.load(Ordering::Relaxed),
        made: MADE.load(Ordering::Relaxed),
        freed: FREED.load(Ordering::Relaxed),
    }
}

/// Memory for a native stack, with inaccessible pages below.
#[derive(Debug)]
struct Segment {
    mapping: *mut c_void,
}

impl Segment {
    fn new() -> Option<Segment> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        // SAFETY: a new mapping, nobody's before.
        unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            let bytes = GUARD + SEGMENT;
            let mapping = rustix::mm::mmap_anonymous(null_mut(), bytes, access, flags).ok()?;
            MADE.fetch_add(1, Ordering::Relaxed);
            let segment = Segment { mapping };
            rustix::mm::mprotect(mapping, GUARD, MprotectFlags::empty()).ok()?;
            Some(segment)
        }
    }

    fn base(&self) -> usize {
        self.mapping as usize + GUARD
    }

    fn top(&self) -> usize {
        self.base() + SEGMENT
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        FREED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the mapping is ours, and no frame is on it: who runs on a segment holds it.
        let unmapped = unsafe { rustix::mm::munmap(self.mapping, GUARD + SEGMENT) };
        debug_assert!(unmapped.is_ok());
    }
}

/// What a native thread has.
#[derive(Debug, Default)]
struct Thread {
    /// A segment that was left, for the next call: a loop at the end of a stack would map and unmap one for each call otherwise.
    spare: Option<Segment>,
    /// Bytes in use of the stacks that are below the running one.
    below: usize,
    /// Bytes of the thread's own stack, once it was left.
    own: usize,
}

thread_local! {
    /// Frees its spare segment with the thread.
    static THREAD: RefCell<Thread> = RefCell::default();
}

/// The limits of CPython's stack protection.
#[derive(Clone, Copy, Debug)]
struct Limits {
    top: usize,
    soft: usize,
    hard: usize,
}

impl Limits {
    unsafe fn read(tstate: *mut PyThreadState) -> Limits {
        // SAFETY: every thread state is part of such a structure.
        unsafe {
            let state: *mut _PyThreadStateImpl = refs::thread_impl(tstate);
            Limits {
                top: (*state).c_stack_top as usize,
                soft: (*state).c_stack_soft_limit as usize,
                hard: (*state).c_stack_hard_limit as usize,
            }
        }
    }

    unsafe fn write(self, tstate: *mut PyThreadState) {
        // SAFETY: as `read`; the state is the attached one, so that nobody else reads it.
        unsafe {
            let state: *mut _PyThreadStateImpl = refs::thread_impl(tstate);
            (*state).c_stack_top = self.top as _;
            (*state).c_stack_soft_limit = self.soft as _;
            (*state).c_stack_hard_limit = self.hard as _;
        }
    }

    /// Those of a segment, with the margins that these have.
    fn of(self, segment: &Segment) -> Limits {
        let margin = self.soft - self.hard;
        let hard = segment.base() + margin;
        Limits {
            top: segment.top(),
            soft: hard + margin,
            hard,
        }
    }
}

/// An address on the running stack.
#[inline(always)]
fn here() -> usize {
    let local = 0u8;
    std::hint::black_box(&raw const local) as usize
}

/// Whether compiled code has as much native stack as it wants for a call.
///
/// # Safety
/// `tstate` is the attached thread state.
#[inline(always)]
pub(crate) unsafe fn has_room(tstate: *mut PyThreadState) -> bool {
    // SAFETY: as `Limits::read`.
    let soft = unsafe { (*refs::thread_impl(tstate)).c_stack_soft_limit } as usize;
    here().wrapping_sub(ROOM) >= soft
}

/// Whether a call may switch: the limits are those of the running stack, C code did not take too much, and nobody copies stacks.
///
/// # Safety
/// `tstate` is the attached thread state; no exception is set.
pub(crate) unsafe fn may_switch(tstate: *mut PyThreadState) -> bool {
    // SAFETY: see above.
    unsafe { in_use(tstate).is_some() && !greenlets() }
}

/// Bytes in use of all stacks of the thread, if a call may switch as far as they tell.
unsafe fn in_use(tstate: *mut PyThreadState) -> Option<usize> {
    // SAFETY: see `may_switch`.
    let (limits, depth) = unsafe {
        let depth = (*tstate).py_recursion_limit - (*tstate).py_recursion_remaining;
        (Limits::read(tstate), usize::try_from(depth).unwrap_or(0))
    };
    let here = here();
    if here < limits.hard || here >= limits.top || limits.soft <= limits.hard {
        return None;
    }
    let (below, own) = THREAD
        .try_with(|thread| {
            let thread = thread.borrow();
            (thread.below, thread.own)
        })
        .ok()?;
    let own = if below == 0 {
        limits.top - limits.hard
    } else {
        own
    };
    let used = below + (limits.top - here);
    (used.saturating_sub(depth * PER_FRAME) <= own).then_some(used)
}

/// Whether the program has greenlets, which take the stack between two addresses to be one piece.
unsafe fn greenlets() -> bool {
    // SAFETY: GIL held, both borrowed.
    unsafe {
        let modules = ffi::PyImport_GetModuleDict();
        !modules.is_null() && !ffi::PyDict_GetItemString(modules, c"greenlet".as_ptr()).is_null()
    }
}

/// `call_on_stack` of the registered compiler.
type CallOnStack = unsafe extern "C" fn(*mut c_void, unsafe extern "C" fn(*mut c_void), usize);

/// Does work that compiled code wants done and that calls Python code: on a segment, if there is less than `ROOM`.
///
/// # Safety
/// `tstate` is the attached thread state, no exception is set, and compiled code asked for the work: not C.
#[inline(always)]
pub(crate) unsafe fn with_room<R>(tstate: *mut PyThreadState, work: impl FnOnce() -> R) -> R {
    // SAFETY: passed on.
    unsafe {
        if has_room(tstate) {
            work()
        } else {
            on_segment(tstate, work)
        }
    }
}

#[cold]
#[inline(never)]
unsafe fn on_segment<R, W: FnOnce() -> R>(tstate: *mut PyThreadState, work: W) -> R {
    struct Work<R, W> {
        work: Option<W>,
        result: Option<R>,
    }
    unsafe extern "C" fn run<R, W: FnOnce() -> R>(argument: *mut c_void) {
        // SAFETY: the argument that is given below.
        let this = unsafe { &mut *argument.cast::<Work<R, W>>() };
        this.result = this.work.take().map(|work| work());
    }
    // SAFETY: by the contract of `with_room`; the stub has this signature.
    unsafe {
        let Some(compiler) = registry::compiler() else {
            return work();
        };
        let call = std::mem::transmute::<*const u8, CallOnStack>(compiler.call_on_stack.0);
        let mut work = Work {
            work: Some(work),
            result: None,
        };
        let argument = (&raw mut work).cast();
        match Switch::begin(tstate) {
            Some(switch) => {
                call(argument, run::<R, W>, switch.segment.top());
                switch.end(tstate);
            }
            None => run::<R, W>(argument),
        }
        match work.result {
            Some(result) => result,
            None => unreachable!("the work was done"),
        }
    }
}

/// A call that runs on a segment.
struct Switch {
    segment: Segment,
    /// The limits of the stack that was left.
    limits: Limits,
    /// What was below it.
    below: usize,
}

impl Switch {
    /// Gets a segment and sets the thread's limits to it; `None` if the call has to do with the stack that it has.
    unsafe fn begin(tstate: *mut PyThreadState) -> Option<Switch> {
        // SAFETY: see `may_switch`.
        unsafe {
            if greenlets() {
                return None;
            }
            let used = in_use(tstate)?;
            let limits = Limits::read(tstate);
            let spare = THREAD
                .try_with(|thread| thread.borrow_mut().spare.take())
                .ok()?;
            let segment = spare.or_else(Segment::new)?;
            let below = THREAD
                .try_with(|thread| {
                    let mut thread = thread.borrow_mut();
                    if thread.below == 0 {
                        thread.own = limits.top - limits.hard;
                    }
                    std::mem::replace(&mut thread.below, used)
                })
                .ok()?;
            SWITCHES.fetch_add(1, Ordering::Relaxed);
            limits.of(&segment).write(tstate);
            Some(Switch {
                segment,
                limits,
                below,
            })
        }
    }

    /// The call is back on the stack that it left.
    unsafe fn end(self, tstate: *mut PyThreadState) {
        // SAFETY: the thread state is that of the beginning: calls return with the one that they were made with.
        unsafe { self.limits.write(tstate) };
        let (segment, below) = (self.segment, self.below);
        // Where the thread's data is gone already, the segment is freed.
        let _ = THREAD.try_with(|thread| {
            let mut thread = thread.borrow_mut();
            thread.below = below;
            if thread.spare.is_none() {
                thread.spare = Some(segment);
            }
        });
    }
}

/// What the prologue calls at `entry::FURTHER_STACK`: the body goes on at `address` on a segment. Returns as the body does.
///
/// # Safety
/// The frame is linked and counted, and its body has run nothing but its prologue.
pub unsafe extern "C" fn go_on(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    address: CodePtr,
) -> usize {
    // SAFETY: passed on; compiled code called the body.
    unsafe {
        with_room(tstate, || {
            resume::enter_in_middle(frame, tstate, data, address, 0)
        })
    }
}

/// Whether a callable is a Python function, whose call the interpreter would make without a native one.
///
/// # Safety
/// A live object.
pub(crate) unsafe fn is_function(callable: *mut PyObject) -> bool {
    // SAFETY: see above.
    unsafe { refs::is_type(callable, &raw const ffi::PyFunction_Type) }
}
