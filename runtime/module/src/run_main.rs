//! Running a program as `python` does, from inside `python -m hotstamp`.
//!
//! The frames of hotstamp's own start-up code are on the stack while the program runs. They are unlinked meanwhile, so that the program's first frame has no caller, as with
//! `python` itself: tracebacks, `sys._getframe` and warnings see the program only.

use std::ffi::c_char;

use hotstamp_layout::ffi as python;
use hotstamp_layout::refs;
use hotstamp_runtime::hooks::bodies;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::lifecycle::failed;

/// The main thread's frames while a program runs at the bottom of the stack.
struct HiddenFrames {
    tstate: *mut python::PyThreadState,
    frame: *mut python::_PyInterpreterFrame,
}

impl HiddenFrames {
    fn hide(_py: Python<'_>) -> HiddenFrames {
        // SAFETY: the GIL is held, so the thread state is attached. The frames stay alive: their evaluation waits below on the C stack.
        unsafe {
            let tstate = python::PyThreadState_GetUnchecked();
            let frame = (*tstate).current_frame;
            (*tstate).current_frame = std::ptr::null_mut();
            HiddenFrames { tstate, frame }
        }
    }
}

impl Drop for HiddenFrames {
    fn drop(&mut self) {
        // SAFETY: same thread, and everything that ran meanwhile has popped its frames.
        unsafe { (*self.tstate).current_frame = self.frame };
    }
}

/// Does what `python` does with a program that ended: prints an exception, ends the process for `SystemExit`. Returns the exit status.
fn conclude(result: *mut python::PyObject) -> i32 {
    // SAFETY: GIL held; `result` is a new reference, or null with an exception set.
    unsafe {
        if !result.is_null() {
            refs::decref(result);
            return 0;
        }
        if python::PyErr_ExceptionMatches(python::PyExc_KeyboardInterrupt) != 0 {
            // `Py_RunMain` looks at this: the process ends by SIGINT, as shells expect.
            python::_PyRuntime.signals.unhandled_keyboard_interrupt = 1;
        }
        python::PyErr_Print();
        1
    }
}

/// Whether the program ended by an interrupt that nobody caught.
#[pyfunction]
pub(crate) fn interrupted() -> bool {
    // SAFETY: GIL held; a plain integer of the runtime.
    unsafe { python::_PyRuntime.signals.unhandled_keyboard_interrupt != 0 }
}

/// Runs code in the namespace of `__main__`: through machine code if it loops.
///
/// # Safety
/// Frames are hidden; `code` is a code object, `globals` a dictionary; GIL held.
unsafe fn evaluate(
    code: *mut python::PyObject,
    globals: *mut python::PyObject,
) -> *mut python::PyObject {
    // SAFETY: passed on from the caller.
    unsafe {
        if let Some(result) = bodies::run_module_body(code.cast(), globals, globals) {
            return result;
        }
        if failed(python::PySys_Audit(c"exec".as_ptr(), c"O".as_ptr(), code)) {
            return std::ptr::null_mut();
        }
        python::PyEval_EvalCode(code, globals, globals)
    }
}

/// Reports that a program's text is no Python. For a file, by letting CPython read it itself: its messages about encodings and null bytes differ from `compile`'s.
///
/// # Safety
/// An exception is set; `filename` is a string; frames are hidden; GIL held.
unsafe fn fail_to_compile(filename: *mut python::PyObject) -> i32 {
    // SAFETY: passed on from the caller. `PyRun_SimpleFileExFlags` closes the file and prints what it raises.
    unsafe {
        let raised = python::PyErr_GetRaisedException();
        let path = python::PyUnicode_AsUTF8(filename);
        if !path.is_null() && *path == b'/' as c_char {
            let file = python::Py_fopen(filename, c"rb".as_ptr());
            if !file.is_null() {
                refs::xdecref(raised);
                return i32::from(
                    python::PyRun_SimpleFileExFlags(file, path, 1, std::ptr::null_mut()) != 0,
                );
            }
        }
        python::PyErr_Clear();
        python::PyErr_SetRaisedException(raised);
        conclude(std::ptr::null_mut())
    }
}

/// Compiles and runs a program's text in `globals`. With `register`, tracebacks can show the text, which is in no file. Returns the exit status.
#[pyfunction]
pub(crate) fn run_source(
    py: Python<'_>,
    source: &Bound<'_, PyAny>,
    filename: &str,
    globals: &Bound<'_, PyDict>,
    register: bool,
) -> PyResult<i32> {
    let compile = py.import("builtins")?.getattr("compile")?;
    let register = if register {
        Some(py.import("linecache")?.getattr("_register_code")?)
    } else {
        None
    };
    let arguments = PyTuple::new(
        py,
        [
            source.clone(),
            filename.into_pyobject(py)?.into_any(),
            "exec".into_pyobject(py)?.into_any(),
        ],
    )?;
    let hidden = HiddenFrames::hide(py);
    // SAFETY: the arguments outlive the calls; what is returned is owned here.
    let status = unsafe {
        let code = python::PyObject_CallObject(compile.as_ptr().cast(), arguments.as_ptr().cast());
        if code.is_null() {
            fail_to_compile(arguments.get_item(1)?.as_ptr().cast())
        } else {
            if let Some(register) = register {
                let name = arguments.get_item(1)?;
                let registered = python::PyObject_CallFunctionObjArgs(
                    register.as_ptr().cast(),
                    code,
                    source.as_ptr().cast::<python::PyObject>(),
                    name.as_ptr().cast::<python::PyObject>(),
                    std::ptr::null_mut::<python::PyObject>(),
                );
                if registered.is_null() {
                    python::PyErr_Clear()
                } else {
                    refs::decref(registered)
                }
            }
            let result = evaluate(code, globals.as_ptr().cast());
            let status = conclude(result);
            refs::decref(code);
            status
        }
    };
    drop(hidden);
    Ok(status)
}

/// Runs a code object in `globals`. Returns the exit status.
#[pyfunction]
pub(crate) fn run_code(
    py: Python<'_>,
    code: &Bound<'_, PyAny>,
    globals: &Bound<'_, PyDict>,
) -> i32 {
    let _hidden = HiddenFrames::hide(py);
    // SAFETY: both live through the call; CPython checks that `code` is a code object before it runs it.
    unsafe {
        let pointer = code.as_ptr().cast::<python::PyObject>();
        if (*pointer).ob_type != &raw mut python::PyCode_Type {
            python::PyErr_SetString(python::PyExc_TypeError, c"a code object is wanted".as_ptr());
            return conclude(std::ptr::null_mut());
        }
        conclude(evaluate(pointer, globals.as_ptr().cast()))
    }
}

/// Calls a function as the bottom of the stack. Returns the exit status.
#[pyfunction]
#[pyo3(signature = (function, *arguments))]
pub(crate) fn run_callable(
    py: Python<'_>,
    function: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyTuple>,
) -> i32 {
    let _hidden = HiddenFrames::hide(py);
    // SAFETY: both live through the call.
    conclude(unsafe {
        python::PyObject_CallObject(function.as_ptr().cast(), arguments.as_ptr().cast())
    })
}
