//! Generators, coroutines and async generators that run compiled: making the object, resuming its frame in compiled code, raising in it.
//!
//! Called by the shared stubs (`return_generator`, `after_send`) and by `hooks/generators.rs`, which is how C code reaches a compiled generator. Nothing here is the owner of
//! a frame: it is embedded in the generator object, canonical at every yield, so the interpreter may resume what compiled code suspended and the other way round.

use std::mem::offset_of;
use std::ptr::null_mut;

use hotstamp_layout::ffi::{self, PyCodeObject, PyGenObject, PyObject};
use hotstamp_layout::ffi::{_Py_CODEUNIT, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use crate::code_data::CodeData;
use crate::exits::{self, ExitReason};
use crate::site::{CodePtr, Site};
use crate::{Frame, entry, frame_stack, hooks, leave, registry};

/// Where a suspended frame goes on in compiled code: behind RETURN_GENERATOR and behind each YIELD_VALUE. Lives as long as the code's data, and that as long as the code object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResumePoint {
    /// The `instr_ptr` of a frame that is suspended there.
    pub instr: *mut _Py_CODEUNIT,
    /// Machine code that enters the body there; called as a body is.
    pub address: CodePtr,
    /// The code's data.
    pub data: *mut CodeData,
    /// If the frame only passes on what its receiver yields (`yield from`, `await`): the machine code behind the SEND, which expects what the receiver gave. Else null.
    pub delegates: CodePtr,
    /// That SEND: the `instr_ptr` while the receiver runs.
    pub send: *mut _Py_CODEUNIT,
}

/// Set in the word of a suspended generator that says where it goes on. The word is `gi_exc_state.previous_item`, which CPython writes when it resumes a generator and clears when it
/// suspends one, and reads of running ones only.
pub const AT_POINT: usize = 1;

/// What that word of a generator holds that is suspended at `point`.
pub fn suspended_at(point: *const ResumePoint) -> usize {
    point as usize | AT_POINT
}

/// The resume point at which compiled code suspended a generator. None: the interpreter suspended it, or it was moved since.
///
/// # Safety
/// `generator` is created or suspended; GIL held.
#[inline]
unsafe fn point_of(generator: *mut PyGenObject) -> Option<*const ResumePoint> {
    // SAFETY: what has the mark is the address of a point of the code that the generator keeps alive.
    unsafe {
        let word = (*generator).gi_exc_state.previous_item as usize;
        let point = (word & !AT_POINT) as *const ResumePoint;
        (word & AT_POINT != 0 && (*point).instr == (*generator).gi_iframe.instr_ptr)
            .then_some(point)
    }
}

/// The generator object that embeds a frame.
///
/// # Safety
/// The frame is owned by a generator.
pub unsafe fn generator_of(frame: *mut Frame) -> *mut PyGenObject {
    // SAFETY: by the caller's word the frame is this field of a generator object.
    unsafe { frame.byte_sub(offset_of!(PyGenObject, gi_iframe)).cast() }
}

/// Whether a frame state is one that can be resumed: created or suspended.
pub fn is_resumable(state: i8) -> bool {
    i32::from(state) < ffi::FRAME_EXECUTING
}

/// Whether a frame state is one of the suspended ones.
pub fn is_suspended(state: i8) -> bool {
    (ffi::FRAME_SUSPENDED..=ffi::FRAME_SUSPENDED_YIELD_FROM).contains(&i32::from(state))
}

/// `RETURN_GENERATOR`: makes the object, moves the running frame into it and pops it. The object as `StackRef` bits, or 0 with an exception set and the frame still running.
///
/// # Safety
/// Called by compiled code whose frame is on top of the data stack, with `instr_ptr` at its RETURN_GENERATOR and an empty operand stack. The site's helper is the word of
/// a generator that is suspended behind it.
pub unsafe extern "C" fn return_generator(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    site: *mut Site,
) -> usize {
    // SAFETY: a frame of a function; the object has room for what its code's frame holds.
    unsafe {
        let object = ffi::_Py_MakeCoro(refs::frame_function(frame));
        if object.is_null() {
            return 0;
        }
        let generator = object.cast::<PyGenObject>();
        (*frame).instr_ptr = (*frame).instr_ptr.add(1);
        move_frame(frame, &raw mut (*generator).gi_iframe);
        (*generator).gi_frame_state = ffi::FRAME_CREATED as i8;
        (*generator).gi_exc_state.previous_item = (*site).helper.cast_mut().cast();
        (*tstate).py_recursion_remaining += 1;
        (*tstate).current_frame = (*frame).previous;
        frame_stack::pop_frame(tstate, frame);
        StackRef::from_steal(object).bits
    }
}

/// Moves everything that a frame holds into the frame of a generator. What it borrows from its callers becomes its own.
unsafe fn move_frame(from: *mut Frame, to: *mut Frame) {
    // SAFETY: the caller gives a complete frame and room for one of the same code, which nobody looks at meanwhile.
    unsafe {
        let (source, target) = (refs::frame_locals(from), refs::frame_locals(to));
        let slots = (*from).stackpointer.cast::<StackRef>().offset_from(source) as usize;
        (&raw mut (*to).f_executable)
            .write((&raw const (*from).f_executable).read().make_heap_safe());
        (*to).previous = null_mut();
        (&raw mut (*to).f_funcobj).write((&raw const (*from).f_funcobj).read().make_heap_safe());
        (*to).f_globals = (*from).f_globals;
        (*to).f_builtins = (*from).f_builtins;
        (*to).f_locals = (*from).f_locals;
        (*to).frame_obj = (*from).frame_obj;
        (*to).instr_ptr = (*from).instr_ptr;
        (*to).stackpointer = target.add(slots).cast();
        (*to).return_offset = 0;
        (*to).owner = ffi::FRAME_OWNED_BY_GENERATOR as _;
        (*to).visited = 0;
        for index in 0..slots {
            target
                .add(index)
                .write(source.add(index).read().make_heap_safe());
        }
    }
}

/// Where frames that the interpreter suspended went on lately, by their `instr_ptr`.
#[derive(Clone, Copy, Debug)]
struct Known {
    instr: *mut _Py_CODEUNIT,
    globals: *mut PyObject,
    builtins: *mut PyObject,
    compiled: Compiled,
}

const KNOWN_COUNT: usize = 256;

const UNKNOWN: Known = Known {
    instr: null_mut(),
    globals: null_mut(),
    builtins: null_mut(),
    compiled: Compiled {
        data: null_mut(),
        address: CodePtr(std::ptr::null()),
    },
};

/// Read and written under the main interpreter's GIL only.
static mut KNOWN: [Known; KNOWN_COUNT] = [UNKNOWN; KNOWN_COUNT];

fn known_slot(instr: *mut _Py_CODEUNIT) -> *mut Known {
    // The upper bits of a product with an odd number (the golden ratio's) depend on all bits of the address.
    let mixed = (instr as usize as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let index = (mixed >> (u64::BITS - KNOWN_COUNT.ilog2())) as usize;
    // SAFETY: an address inside of the table.
    unsafe { (&raw mut KNOWN).cast::<Known>().add(index) }
}

/// Data is about to be freed: nothing may find it any more.
pub(crate) fn forget(data: *mut CodeData) {
    for index in 0..KNOWN_COUNT {
        // SAFETY: GIL held, as wherever code objects die.
        unsafe {
            let known = (&raw mut KNOWN).cast::<Known>().add(index);
            if (*known).compiled.data == data {
                *known = UNKNOWN;
            }
        }
    }
}

/// Whether generators may be resumed by us in this thread now: not in another interpreter, not while somebody observes, no foreign evaluator.
///
/// # Safety
/// `tstate` is the attached thread state.
#[inline]
pub unsafe fn may_resume(tstate: *mut PyThreadState) -> bool {
    // SAFETY: the interpreter of an attached thread state is alive.
    unsafe {
        hooks::generators::is_main((*tstate).interp)
            && hooks::tracing::may_run(tstate)
            && (*(*tstate).interp).eval_frame.is_none()
    }
}

/// The code that a created or suspended generator can be resumed in.
#[derive(Clone, Copy, Debug)]
pub struct Compiled {
    /// Its data.
    pub data: *mut CodeData,
    /// Where its frame goes on.
    pub address: CodePtr,
}

/// Finds the compiled code in which a created or suspended generator goes on.
///
/// # Safety
/// `generator` is a generator, coroutine or async generator that is created or suspended; the main interpreter's GIL is held.
#[inline]
pub unsafe fn compiled(generator: *mut PyGenObject) -> Option<Compiled> {
    // SAFETY: the frame of such a generator is complete.
    unsafe {
        if let Some(point) = point_of(generator) {
            let (data, address) = ((*point).data, (*point).address);
            return ((*data).leave == 0).then_some(Compiled { data, address });
        }
        let frame = &raw mut (*generator).gi_iframe;
        let known = known_slot((*frame).instr_ptr);
        // The instruction tells the code object.
        if (*known).instr != (*frame).instr_ptr
            || (*known).globals != (*frame).f_globals
            || (*known).builtins != (*frame).f_builtins
        {
            *known = look_up(frame)?;
        }
        ((*(*known).compiled.data).leave == 0).then_some((*known).compiled)
    }
}

#[cold]
unsafe fn look_up(frame: *mut Frame) -> Option<Known> {
    // SAFETY: passed on: a complete frame of a suspended generator.
    unsafe {
        let (globals, builtins) = ((*frame).f_globals, (*frame).f_builtins);
        let code = refs::frame_code(frame);
        let mut data = registry::existing_for(code, globals, builtins);
        if data.is_null() {
            // Code that was found running is stamped here: the interpreter, once it has the frame, would run what the generator awaits without asking us.
            if !hooks::when::samples() || !registry::is_known(code) || registry::is_refused(code) {
                return None;
            }
            data = hooks::functions::stamp_code(code, globals, builtins).ok()?;
        }
        let address = (*data).resume_address((*frame).instr_ptr)?;
        Some(Known {
            instr: (*frame).instr_ptr,
            globals,
            builtins,
            compiled: Compiled { data, address },
        })
    }
}

/// How a resumption ended.
#[derive(Debug)]
pub enum Outcome {
    /// It yielded: a new reference.
    Yielded(*mut PyObject),
    /// It returned: a new reference.
    Returned(*mut PyObject),
    /// It raised; the exception is set.
    Raised,
}

/// Resumes a created or suspended generator with a value (consumed), in the compiled code that was found for it, else in the interpreter. With `raise` the exception that is
/// set is raised at the point where it is suspended.
///
/// # Safety
/// `generator` is kept alive by the caller and is created or suspended; the main interpreter's GIL is held.
#[inline(always)]
pub unsafe fn resume(
    tstate: *mut PyThreadState,
    generator: *mut PyGenObject,
    found: Option<Compiled>,
    sent: StackRef,
    raise: bool,
) -> Outcome {
    // SAFETY: the frame's operand stack has room for the value, as its compiler reckoned with it.
    unsafe {
        let frame = &raw mut (*generator).gi_iframe;
        let top = (*frame).stackpointer.cast::<StackRef>();
        top.write(sent);
        (*frame).stackpointer = top.add(1).cast();
        (*generator).gi_exc_state.previous_item = (*tstate).exc_info;
        (*tstate).exc_info = &raw mut (*generator).gi_exc_state;
        if raise {
            chain_handled_exception(generator);
        }
        (*generator).gi_frame_state = ffi::FRAME_EXECUTING as i8;
        let bits = match (found, raise) {
            (Some(found), false) => entry::enter_at(tstate, frame, found.data, found.address),
            (Some(found), true) if entry::has_room_to_throw(tstate) => match registry::compiler() {
                Some(compiler) => entry::enter_at(tstate, frame, found.data, compiler.throw_into),
                None => interpret(tstate, frame, raise),
            },
            _ => interpret(tstate, frame, raise),
        };
        if bits == 0 {
            Outcome::Raised
        } else if is_suspended((*generator).gi_frame_state) {
            Outcome::Yielded(StackRef { bits }.steal())
        } else {
            Outcome::Returned(StackRef { bits }.steal())
        }
    }
}

/// Runs the frame in the interpreter, or in whatever evaluator was installed: as CPython itself resumes generators.
unsafe fn interpret(tstate: *mut PyThreadState, frame: *mut Frame, raise: bool) -> usize {
    exits::count(ExitReason::GeneratorInterpreted);
    // SAFETY: the frame is complete and not linked.
    unsafe {
        let result = match (*(*tstate).interp).eval_frame {
            Some(evaluator) => evaluator(tstate, frame, i32::from(raise)),
            None => ffi::_PyEval_EvalFrameDefault(tstate, frame, i32::from(raise)),
        };
        if result.is_null() {
            0
        } else {
            StackRef::from_steal(result).bits
        }
    }
}

/// The exception that is about to be raised in a generator gets the one that the generator is handling as its context.
unsafe fn chain_handled_exception(generator: *mut PyGenObject) {
    // SAFETY: the generator's exception state is the thread's innermost one now, which is what setting an exception looks at.
    unsafe {
        let handled = (*generator).gi_exc_state.exc_value;
        if handled.is_null() || handled == &raw mut ffi::_Py_NoneStruct {
            return;
        }
        let raised = ffi::PyErr_GetRaisedException();
        ffi::PyErr_SetObject(refs::type_of(raised).cast(), raised);
        refs::decref(raised);
    }
}

/// What happens when, after a SEND, an assumption had changed: `leave::STAY`, or `leave::LEAVE` with the result pushed and `instr_ptr` at the instruction that comes next.
/// `returned` says that the receiver returned `value` instead of yielding it.
///
/// # Safety
/// Called by the stub of SEND with the running frame, its data and the site; `stackpointer` stands behind the receiver.
pub unsafe extern "C" fn after_send(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    site: *mut Site,
    value: usize,
    returned: usize,
) -> isize {
    // SAFETY: see above; the slot behind the receiver is the result's.
    unsafe {
        if !entry::stale(tstate) && (*data).leave == 0 {
            return leave::STAY;
        }
        (*frame)
            .stackpointer
            .cast::<StackRef>()
            .write(StackRef { bits: value });
        (*frame).stackpointer = (*frame).stackpointer.add(1);
        let mut next = usize::from((*site).next_units);
        if returned != 0 {
            next += (*site).oparg as usize;
        }
        (*frame).instr_ptr = (*site).instr.add(next);
        leave::LEAVE
    }
}

/// Polls where pending events have to wait (RESUME behind an `await` or `yield from`): only observers matter. 0 to go on, 1 to leave.
///
/// # Safety
/// As [`entry::poll`].
pub unsafe extern "C" fn poll_observers(
    _frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
) -> isize {
    // SAFETY: see above.
    let leave = unsafe { (*data).leave } != 0;
    isize::from(leave || entry::stale(tstate))
}

/// Whether a code object's calls make a generator, coroutine or async generator.
///
/// # Safety
/// `code` is a live code object.
pub unsafe fn makes_generator(code: *mut PyCodeObject) -> bool {
    let kinds = ffi::CO_GENERATOR | ffi::CO_COROUTINE | ffi::CO_ASYNC_GENERATOR;
    // SAFETY: see above.
    unsafe { (*code).co_flags as u32 & kinds != 0 }
}
