//! From the interpreter into compiled code in the middle of a function: what replaces the back edges of code that is interpreted at first.
//!
//! A function that is called once may still run for long, in a loop. Where CPython was built with its experimental JIT (switched off or not), the instruction ENTER_EXECUTOR calls machine code that the code
//! object brings along, and goes on where that says. Code that waits to be stamped gets such an *executor* in place of each JUMP_BACKWARD. Ours counts the iteration and says the head of the
//! loop, as the jump did; when it has counted enough the code is stamped, and the rest of the frame runs in baseline code, on the frame that the interpreter had. Then the executor says the place in the caller
//! that a return would have gone on at.
//!
//! The executors stay when the code is stamped: other frames of it may be in the interpreter, of outer calls or other threads, and each of them goes on compiled at its next back edge.
//!
//! CPython keeps the books as if its own JIT had done it: `co_code`, hashes and comparisons see the jump, `dis` asks the executor, instrumentation takes executors out, and so does the end of the code
//! object. Where there is a JIT that is switched on, or none, nothing is replaced and code that loops is stamped at once.
//!
//! Layouts: `_PyExecutorObject` and `_PyExecutorArray` of the headers; what ENTER_EXECUTOR does with them: `Python/bytecodes.c` and `GOTO_TIER_TWO` in `Python/ceval_macros.h` of 3.14.

use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::{Mutex, OnceLock, PoisonError};

use hotstamp_layout::ffi::{
    self, _Py_CODEUNIT, _PyExecutorObject, PyCodeObject, PyObject, PyThreadState,
};
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs::{self, StackRef};

use super::{functions, sampler, tracing};
use crate::exits;
use crate::{Frame, entry, registry, resume};

/// The most executors that a code object can have: their index is ENTER_EXECUTOR's argument.
const MOST: usize = 256;

/// One back edge of a code object that waits to be stamped.
#[repr(C)]
pub(crate) struct BackEdge {
    /// What CPython sees of it. Immortal, so that nobody frees it. `vm_data.code` is null once the edge was taken out.
    executor: _PyExecutorObject,
    /// For builds that interpret traces instead of running machine code: goes on at the loop's head.
    trace: [ffi::_PyUOpInstruction; 1],
    /// The code unit at which the loop begins.
    head: u32,
    /// The code's countdown, in its record in the registry.
    waits: *mut u32,
}

/// Back edges without a code object, for the next. Never given back to the allocator: ENTER_EXECUTOR touches its executor once more when the call returns, and the code object may be gone by then.
static FREE: Mutex<Vec<Free>> = Mutex::new(Vec::new());

/// A back edge that belongs to nobody.
struct Free(*mut BackEdge);

// SAFETY: the list owns it.
unsafe impl Send for Free {}

/// The executors' type, if this CPython executes ENTER_EXECUTOR. `dis` calls the methods.
unsafe fn executor_type() -> Option<*mut ffi::PyTypeObject> {
    static TYPE: OnceLock<usize> = OnceLock::new();
    // SAFETY: GIL held; `sys._jit` is asked what any program may ask it.
    let address =
        *TYPE.get_or_init(|| unsafe { if tier_two() { make_type() as usize } else { 0 } });
    (address != 0).then_some(address as *mut ffi::PyTypeObject)
}

/// Whether CPython was built with its JIT.
unsafe fn tier_two() -> bool {
    // SAFETY: GIL held.
    unsafe {
        let jit = ffi::PySys_GetObject(c"_jit".as_ptr());
        if jit.is_null() {
            return false;
        }
        let answer = ffi::PyObject_CallMethod(jit, c"is_available".as_ptr(), std::ptr::null());
        if answer.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let yes = answer == (&raw mut ffi::_Py_TrueStruct).cast();
        refs::decref(answer);
        yes
    }
}

/// A type for our executors, with the questions that `dis` asks the JIT's. Null: there is none, and so are executors.
unsafe fn make_type() -> *mut ffi::PyTypeObject {
    unsafe extern "C" fn get_opcode(executor: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
        // SAFETY: a method of our type.
        unsafe {
            ffi::PyLong_FromLong(
                (*executor.cast::<_PyExecutorObject>())
                    .vm_data
                    .opcode
                    .into(),
            )
        }
    }
    unsafe extern "C" fn get_oparg(executor: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
        // SAFETY: a method of our type.
        unsafe {
            ffi::PyLong_FromLong((*executor.cast::<_PyExecutorObject>()).vm_data.oparg.into())
        }
    }
    type Method = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
    // SAFETY: null ends the table.
    let method = |name: Option<&'static CStr>, function: Option<Method>| unsafe {
        ffi::PyMethodDef {
            ml_name: name.map_or(std::ptr::null(), CStr::as_ptr),
            ml_meth: function,
            ml_flags: ffi::METH_NOARGS as i32,
            ..std::mem::zeroed()
        }
    };
    let methods = Box::leak(Box::new([
        method(Some(c"get_opcode"), Some(get_opcode)),
        method(Some(c"get_oparg"), Some(get_oparg)),
        method(None, None),
    ]));
    let mut slots = [
        ffi::PyType_Slot {
            slot: ffi::Py_tp_methods as i32,
            pfunc: methods.as_mut_ptr().cast(),
        },
        ffi::PyType_Slot {
            slot: 0,
            pfunc: null_mut(),
        },
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"hotstamp.back_edge".as_ptr(),
        basicsize: size_of::<_PyExecutorObject>() as i32,
        itemsize: 0,
        flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: GIL held; the type copies the slots, and the methods live for ever.
    unsafe {
        let class = ffi::PyType_FromSpec(&raw mut spec);
        if class.is_null() {
            ffi::PyErr_Clear();
        }
        class.cast()
    }
}

/// Replaces all back edges of `code`. Empty: it has none, or they cannot be replaced.
///
/// # Safety
/// `code` is a live code object, GIL held, no exception set; `waits` is valid until `disarm`.
pub(crate) unsafe fn arm(code: *mut PyCodeObject, waits: *mut u32) -> Vec<*mut BackEdge> {
    // SAFETY: see above; what is written is what CPython's own optimizer writes.
    unsafe {
        let generators = ffi::CO_GENERATOR | ffi::CO_COROUTINE | ffi::CO_ASYNC_GENERATOR;
        if !(*code).co_executors.is_null()
            || (*code).co_flags as u32 & generators != 0
            // Python's start-up switches it on behind the imports of `site`.
            || (*ffi::PyInterpreterState_Get()).jit
            || instrumentation_differs(code)
        {
            return Vec::new();
        }
        let Some(class) = executor_type() else {
            return Vec::new();
        };
        let Some(jumps) = jumps(code).filter(|jumps| jumps.len() <= MOST) else {
            return Vec::new();
        };
        if jumps.is_empty() {
            return Vec::new();
        }
        let size = std::mem::offset_of!(ffi::_PyExecutorArray, executors)
            + jumps.len() * size_of::<*mut _PyExecutorObject>();
        let array = ffi::PyMem_Malloc(size).cast::<ffi::_PyExecutorArray>();
        if array.is_null() {
            return Vec::new();
        }
        (*array).size = jumps.len() as i32;
        (*array).capacity = jumps.len() as i32;
        let slots = (&raw mut (*array).executors).cast::<*mut _PyExecutorObject>();
        let units = refs::code_start(code);
        let mut edges = Vec::with_capacity(jumps.len());
        for (index, jump) in jumps.into_iter().enumerate() {
            let unit = units.add(jump.at);
            let edge = make(class, code, unit, jump, waits);
            slots.add(index).write(edge.cast());
            (*unit).op.code = Opcode::ENTER_EXECUTOR as u8;
            (*unit).op.arg = index as u8;
            edges.push(edge);
        }
        (*code).co_executors = array;
        edges
    }
}

/// Whether the code's first RESUME will bring its instrumentation up to date, which takes executors out.
unsafe fn instrumentation_differs(code: *mut PyCodeObject) -> bool {
    // SAFETY: the caller gives a live code object and holds the GIL.
    unsafe {
        let breaker = (*ffi::PyThreadState_GetUnchecked()).eval_breaker;
        (*code)._co_instrumentation_version != breaker & !tracing::EVENT_BITS
    }
}

/// A jump backward: where it is and where it goes, in code units.
struct Jump {
    at: usize,
    head: usize,
}

/// The back edges of code that nobody observes; `None` of other code.
unsafe fn jumps(code: *mut PyCodeObject) -> Option<Vec<Jump>> {
    // SAFETY: the caller gives a live code object; its code units follow its header.
    unsafe {
        let units = refs::code_start(code);
        let len = refs::code_len(code);
        let mut found = Vec::new();
        let (mut at, mut high) = (0, 0);
        while at < len {
            let unit = (*units.add(at)).op;
            let opcode = Opcode::from_u8(unit.code)?;
            let argument = high << 8 | usize::from(unit.arg);
            high = 0;
            let next = at + 1 + opcode.base().caches();
            match opcode {
                Opcode::EXTENDED_ARG => high = argument,
                Opcode::JUMP_BACKWARD | Opcode::JUMP_BACKWARD_NO_JIT => found.push(Jump {
                    at,
                    head: next.checked_sub(argument)?,
                }),
                Opcode::JUMP_BACKWARD_JIT | Opcode::ENTER_EXECUTOR => return None,
                _ if u32::from(unit.code) >= ffi::MIN_INSTRUMENTED_OPCODE => return None,
                _ => {}
            }
            at = next;
        }
        Some(found)
    }
}

/// An edge for the jump at `unit`.
unsafe fn make(
    class: *mut ffi::PyTypeObject,
    code: *mut PyCodeObject,
    unit: *mut _Py_CODEUNIT,
    jump: Jump,
    waits: *mut u32,
) -> *mut BackEdge {
    // SAFETY: GIL held; all-zero is a value of these plain structures, and `unit` is an instruction of `code`.
    unsafe {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let edge = free.map_or_else(
            || Box::into_raw(Box::new(std::mem::zeroed::<BackEdge>())),
            |free| free.0,
        );
        let head = jump.head as u32;
        (*edge).head = head;
        (*edge).waits = waits;
        (*edge).trace[0].set_opcode(ffi::_DEOPT as u16);
        (*edge).trace[0].__bindgen_anon_1.target = head;
        let executor = &raw mut (*edge).executor;
        (*executor).ob_base.ob_base.ob_type = class;
        (*executor).ob_base.ob_base.__bindgen_anon_1.ob_refcnt_full =
            ffi::_Py_STATIC_IMMORTAL_INITIAL_REFCNT as i64;
        (*executor).trace = (&raw const (*edge).trace).cast();
        (*executor).jit_code = back_edge_taken as *mut _;
        (*executor).jit_side_entry = back_edge_taken as *mut _;
        let data = &raw mut (*executor).vm_data;
        // Not as specialised, so that it stays right whatever happens to the JIT's switch.
        (*data).opcode = Opcode::JUMP_BACKWARD as u8;
        (*data).oparg = (*unit).op.arg;
        (*data).set_valid(1);
        (*data).warm = true;
        (*data).index = jump.at as i32;
        (*data).code = code;
        edge
    }
}

/// Puts the jumps back that are replaced still, and takes the edges.
///
/// # Safety
/// `edges` are what `arm` gave for one code object, which is live or being freed; GIL held.
pub(crate) unsafe fn disarm(edges: Vec<*mut BackEdge>) {
    for &edge in &edges {
        // SAFETY: an edge with a code object stands in it, at its index.
        unsafe {
            let data = &raw mut (*edge).executor.vm_data;
            let code = (*data).code;
            if code.is_null() {
                continue;
            }
            let unit = refs::code_start(code).add((*data).index as usize);
            let slots =
                (&raw mut (*(*code).co_executors).executors).cast::<*mut _PyExecutorObject>();
            slots.add(usize::from((*unit).op.arg)).write(null_mut());
            (*unit).op.code = (*data).opcode;
            (*unit).op.arg = (*data).oparg;
            (*data).code = null_mut();
        }
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    free.extend(edges.into_iter().map(Free));
}

/// What ENTER_EXECUTOR calls, and goes on where this says, with the frame that is current then; null: with the exception that is set.
unsafe extern "C" fn back_edge_taken(
    frame: *mut Frame,
    stack_pointer: *mut StackRef,
    tstate: *mut PyThreadState,
) -> *mut _Py_CODEUNIT {
    // SAFETY: called by the interpreter for an executor of ours, which it has just made current; nothing is pending.
    unsafe {
        let edge = (*tstate).current_executor.cast::<BackEdge>();
        (*tstate).current_executor = null_mut();
        (*frame).stackpointer = stack_pointer.cast();
        let offset = (*edge).head;
        let head = refs::code_start(refs::frame_code(frame)).add(offset as usize);
        if *(*edge).waits > 1 {
            *(*edge).waits -= 1;
            return head;
        }
        enter(frame, tstate, offset).unwrap_or(head)
    }
}

/// Stamps the frame's code and runs the rest of it, from the loop's head at `offset` on. `None`: nothing was done, it stays interpreted.
#[cold]
unsafe fn enter(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    offset: u32,
) -> Option<*mut _Py_CODEUNIT> {
    // SAFETY: passed on; the frame runs, on top of the data stack, with all of its operand stack in memory.
    unsafe {
        if !super::enabled()
            || !tracing::may_run(tstate)
            || entry::foreign_evaluator(tstate)
            || entry::native_stack_low(tstate)
        {
            return None;
        }
        let code = refs::frame_code(frame);
        let data = match functions::stamp_code(code, (*frame).f_globals, (*frame).f_builtins) {
            Ok(data) => data,
            Err(reason) => {
                exits::count(reason);
                registry::disarm(code);
                return None;
            }
        };
        if (*data).leave != 0 {
            return None;
        }
        sampler::note_entered_loop();
        functions::enter_stamped((*frame).f_funcobj.as_ptr_borrow(), data);
        let bits = resume::resume_frame(tstate, frame, data, offset);
        let caller = (*tstate).current_frame;
        if bits == 0 {
            (*caller).return_offset = 0;
            if u32::from((*caller).owner as u8) != ffi::FRAME_OWNED_BY_INTERPRETER {
                return Some(null_mut());
            }
            // The interpreter's own frame beneath has no handlers; its only instruction returns what is on its stack, null here.
        }
        (*caller)
            .stackpointer
            .cast::<StackRef>()
            .write(StackRef { bits });
        (*caller).stackpointer = (*caller).stackpointer.add(1);
        Some(
            (*caller)
                .instr_ptr
                .add(usize::from((*caller).return_offset)),
        )
    }
}
