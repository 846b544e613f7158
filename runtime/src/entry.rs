//! The ways from C into compiled bodies: the vectorcall entry behind every call stub, and bodies of classes, modules and `exec`.

use hotstamp_layout::ffi::{self, PyFunctionObject, PyObject, PyThreadState};
use hotstamp_layout::refs::StackRef;

use crate::bind::BindError;
use crate::code_data::{CALL_STUB_MAGIC, CodeData, SIMPLE_ARGUMENTS};
use crate::exits::{self, ExitReason};
use crate::site::CodePtr;
use crate::{Frame, bind, frame_stack, hooks, registry, segments};

/// Machine code that enters a body: `(frame, tstate, entry, data) -> StackRef bits or 0`.
type Trampoline =
    unsafe extern "C" fn(*mut Frame, *mut PyThreadState, *const u8, *mut CodeData) -> usize;

const ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

/// What a call stub jumps to: `vectorcall` of a stamped function, with its data as fifth argument.
///
/// # Safety
/// As CPython's vectorcall protocol; `data` was stamped for the function's code, globals and builtins.
pub unsafe extern "C" fn vectorcall_entry(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    kwnames: *mut PyObject,
    data: *mut CodeData,
) -> *mut PyObject {
    // SAFETY: by contract `callable` is a Python function and the arguments are borrowed references for the time of the call.
    unsafe {
        let tstate = ffi::PyThreadState_GetUnchecked();
        if hooks::suspended() || foreign_evaluator(tstate) {
            return call_default(callable, args, nargsf, kwnames);
        }
        let func = callable.cast::<PyFunctionObject>();
        let frame = frame_stack::push_frame(
            tstate,
            StackRef::from_new(callable),
            (*data).code,
            (*data).frame_words as usize,
        );
        if frame.is_null() {
            return std::ptr::null_mut();
        }
        let nargs = nargsf & !ARGUMENTS_OFFSET;
        let locals = (&raw mut (*frame).localsplus).cast::<StackRef>();
        let total = (*data).nlocalsplus as usize;
        if kwnames.is_null()
            && (*data).flags & SIMPLE_ARGUMENTS != 0
            && nargs == (*data).argcount as usize
        {
            for index in 0..nargs {
                locals
                    .add(index)
                    .write(StackRef::from_new(*args.add(index)));
            }
            for index in nargs..total {
                locals.add(index).write(StackRef::NULL);
            }
        } else if let Err(error) =
            bind::bind_arguments(func, (*data).code, locals, args, nargs, kwnames)
        {
            // The frame never ran, and binding left its locals null.
            frame_stack::drop_unlinked_frame(tstate, frame);
            return match error {
                // CPython binds once more, and raises its own TypeError or runs the function.
                BindError::Mismatch | BindError::UnusualKeyword => {
                    call_default(callable, args, nargsf, kwnames)
                }
                BindError::Raised => std::ptr::null_mut(),
            };
        }
        if (*(*data).code).co_flags as u32 & ffi::CO_OPTIMIZED == 0 {
            // The code of a module made into a function: names are its globals'.
            (*frame).f_locals = hotstamp_layout::refs::new_ref((*func).func_globals);
        }
        (*data).calls += 1;
        enter(tstate, frame, data)
    }
}

/// The data of a function whose `vectorcall` is a call stub of ours.
///
/// # Safety
/// `vectorcall` is null or a function with 16 readable bytes in front, as all have that are not at the very start of a mapping.
#[inline(always)]
pub(crate) unsafe fn data_behind(vectorcall: ffi::vectorcallfunc) -> Option<*mut CodeData> {
    // SAFETY: see above; behind the mark is the data's address.
    unsafe {
        let stub = vectorcall? as *const u8;
        let mark = stub.sub(16).cast::<u64>().read_unaligned();
        (mark == CALL_STUB_MAGIC)
            .then(|| stub.sub(8).cast::<u64>().read_unaligned() as *mut CodeData)
    }
}

/// Runs an initialised frame on top of the data stack through its compiled body.
///
/// # Safety
/// The frame belongs to `data`'s code and is not linked yet: its link is set here.
pub(crate) unsafe fn enter(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
) -> *mut PyObject {
    // SAFETY: passed on; the body's result is owned.
    unsafe {
        let bits = enter_at(tstate, frame, data, (*data).entry);
        if bits == 0 {
            std::ptr::null_mut()
        } else {
            StackRef { bits }.steal()
        }
    }
}

/// The main interpreter's evaluator (PEP 523): a word that is zero while it is CPython's own. Compiled code runs in the main interpreter alone.
pub fn evaluator_cell() -> *const usize {
    // SAFETY: an address inside of the interpreter's state, which is static.
    unsafe { (&raw const (*ffi::PyInterpreterState_Main()).eval_frame).cast() }
}

/// As `enter`, at any machine code of `data` that is entered as a body is. The result is `StackRef` bits, or 0 with an exception set.
///
/// # Safety
/// As `enter`; the frame is in the state that the code at `address` expects.
#[inline(always)]
pub(crate) unsafe fn enter_at(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    data: *mut CodeData,
    address: CodePtr,
) -> usize {
    // SAFETY: a `CodeData` exists only after the compiler was registered; its trampoline has this signature.
    unsafe {
        let Some(compiler) = registry::compiler() else {
            return 0;
        };
        let trampoline = std::mem::transmute::<*const u8, Trampoline>(compiler.trampoline.0);
        (*frame).previous = (*tstate).current_frame;
        trampoline(frame, tstate, address.0, data)
    }
}

/// Whether an exception can be raised in a generator by compiled code: what the prologue of a body checks, and cannot do with an exception set.
///
/// # Safety
/// `tstate` is the attached thread state.
pub(crate) unsafe fn has_room_to_throw(tstate: *mut PyThreadState) -> bool {
    // SAFETY: plain fields of the thread state.
    unsafe { (*tstate).py_recursion_remaining > 0 && !native_stack_low(tstate) }
}

/// Whether somebody installed another evaluator (PEP 523).
pub(crate) unsafe fn foreign_evaluator(tstate: *mut PyThreadState) -> bool {
    // SAFETY: the thread state is attached, so its interpreter is alive.
    unsafe { (*(*tstate).interp).eval_frame.is_some() }
}

/// Calls CPython's own function vectorcall.
///
/// # Safety
/// As CPython's vectorcall protocol.
pub unsafe fn call_default(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    match registry::default_vectorcall() {
        // SAFETY: passed on unchanged.
        Some(default) => unsafe { default(callable, args, nargsf, kwnames) },
        None => std::ptr::null_mut(),
    }
}

/// Runs a function object's code as the body of a class, a module or an `exec`, with `locals` as its local namespace (borrowed; null for a
/// function without one). Returns a new reference or null with an exception set.
///
/// # Safety
/// `func` is a Python function without parameters; GIL held.
pub unsafe fn run_body(
    func: *mut PyFunctionObject,
    locals: *mut PyObject,
) -> Result<*mut PyObject, ExitReason> {
    // SAFETY: see above; the frame takes a reference to the function and to the locals.
    unsafe {
        let tstate = ffi::PyThreadState_GetUnchecked();
        let data = registry::data_for(func)?;
        if hooks::suspended() || foreign_evaluator(tstate) {
            return Err(ExitReason::TracingEnabled);
        }
        let frame = frame_stack::push_frame(
            tstate,
            StackRef::from_new(func.cast()),
            (*data).code,
            (*data).frame_words as usize,
        );
        if frame.is_null() {
            return Ok(std::ptr::null_mut());
        }
        let slots = (&raw mut (*frame).localsplus).cast::<StackRef>();
        for index in 0..(*data).nlocalsplus as usize {
            slots.add(index).write(StackRef::NULL);
        }
        if !locals.is_null() {
            hotstamp_layout::refs::incref(locals);
            (*frame).f_locals = locals;
        }
        Ok(enter(tstate, frame, data))
    }
}

/// What the slow path of a body's prologue found.
const PROCEED: isize = 0;
const RETURN_ERROR: isize = -1;
const LEAVE: isize = 1;
/// The body goes on on a further stack, see `segments`.
pub const FURTHER_STACK: isize = 2;

/// Slow path of the prologue: recursion limit, native stack, pending events, instrumentation. The recursion was counted and the frame is linked.
///
/// `polls` is 0 where the code's RESUME polls later. Returns 0 to go on, -1 when the frame was unwound with an exception set, 1 when the frame has to
/// be left to the interpreter, -2 when a pending handler raised and the exception has to be handled in the frame, `FURTHER_STACK` when compiled code called it (`caller` is where the
/// body returns to) and there is little native stack left.
///
/// # Safety
/// Called by the prologue stub of `data`'s body.
pub unsafe extern "C" fn enter_slow(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
    polls: usize,
    caller: *const u8,
) -> isize {
    // SAFETY: the frame is running, its operand stack is empty and `stackpointer` says so.
    unsafe {
        if (*tstate).py_recursion_remaining < 0 && recursion_error(tstate) {
            crate::unwind::pop_running_frame(tstate, frame);
            return RETURN_ERROR;
        }
        if (*data).leave != 0 {
            return LEAVE;
        }
        let further = !segments::has_room(tstate)
            && called_by_compiled_code(caller)
            && segments::may_switch(tstate);
        if !further && native_stack_low(tstate) {
            return LEAVE;
        }
        let polled = if polls == 0 {
            PROCEED
        } else {
            poll(frame, tstate, data)
        };
        if polled == PROCEED && further {
            FURTHER_STACK
        } else {
            polled
        }
    }
}

/// Whether a body that returns to `caller` was called by compiled code: not through the trampoline from Rust, which is how C calls arrive.
pub(crate) fn called_by_compiled_code(caller: *const u8) -> bool {
    registry::compiler().is_some_and(|compiler| compiler.trampoline_return.0 != caller)
}

/// Whether the native stack is past its soft limit: the interpreter then decides between going on and raising.
pub(crate) unsafe fn native_stack_low(tstate: *mut PyThreadState) -> bool {
    let here = 0u8;
    // SAFETY: every `PyThreadState` is the first member of a `_PyThreadStateImpl`.
    unsafe {
        (&raw const here as usize)
            < (*hotstamp_layout::refs::thread_impl(tstate)).c_stack_soft_limit as usize
    }
}

/// The recursion limit was passed: raises, unless the error's own handling runs. As `_Py_CheckRecursiveCallPy`.
unsafe fn recursion_error(tstate: *mut PyThreadState) -> bool {
    // SAFETY: plain fields of the thread state.
    unsafe {
        if (*tstate).recursion_headroom != 0 {
            if (*tstate).py_recursion_remaining < -50 {
                ffi::Py_FatalError(c"Cannot recover from Python stack overflow.".as_ptr());
            }
            return false;
        }
        (*tstate).recursion_headroom += 1;
        ffi::PyErr_SetString(
            ffi::PyExc_RecursionError,
            c"maximum recursion depth exceeded".as_ptr(),
        );
        (*tstate).recursion_headroom -= 1;
        true
    }
}

/// Looks at the eval breaker: pending events are handled, a changed instrumentation version makes the frame leave.
///
/// Returns 0 to go on, 1 to leave, -2 when a handler raised.
///
/// # Safety
/// `instr_ptr` and `stackpointer` of the running frame are set.
pub unsafe extern "C" fn poll(
    _frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
) -> isize {
    // SAFETY: see above; handlers may run any Python code.
    unsafe {
        if stale(tstate) {
            return LEAVE;
        }
        if (*tstate).eval_breaker & 0xff != 0 && ffi::_Py_HandlePending(tstate) != 0 {
            return -2;
        }
        if stale(tstate) || (*data).leave != 0 {
            LEAVE
        } else {
            PROCEED
        }
    }
}

/// Whether somebody observes the program since compiled code last ran, so that it must leave.
pub(crate) fn stale(tstate: *mut PyThreadState) -> bool {
    // SAFETY: the thread state is the attached one.
    unsafe { !hooks::tracing::may_run(tstate) }
}

/// Leaves with the reason that `poll` saw.
///
/// # Safety
/// As `exits::leave_to_interpreter`.
pub unsafe extern "C" fn leave_after_poll(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    data: *mut CodeData,
) -> usize {
    // SAFETY: see above.
    unsafe {
        let reason = if stale(tstate) {
            ExitReason::TracingEnabled
        } else if (*data).leave != 0 {
            ExitReason::Invalidated
        } else {
            ExitReason::NativeStackLow
        };
        exits::leave_to_interpreter(frame, tstate, reason as usize)
    }
}
