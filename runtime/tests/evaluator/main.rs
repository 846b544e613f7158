//! Whole programs through the memory helpers: CPython hands every Python frame to an evaluator that is made of them (PEP 523), new functions are called through
//! this crate's argument binding and frames, and `programs.py` and `arguments.py` compare what happens with what the interpreter did.
//!
//! This file embeds the interpreter; `evaluator.rs` is the evaluator.

mod evaluator;

use std::ffi::{CStr, CString};
use std::ptr::null_mut;

use hotstamp_layout::ffi::{self, PyObject};
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs;
use hotstamp_runtime::helpers::memory_helper;

/// `enable()`: from now on frames run in the evaluator, and functions that are created are called through our binding.
unsafe extern "C" fn enable(_module: *mut PyObject, _args: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by Python.
    unsafe {
        evaluator::install();
        refs::new_ref(&raw mut ffi::_Py_NoneStruct)
    }
}

/// `executed()`: how often each opcode that has a memory helper was executed by the evaluator, as a dict by name; and under `calls` and `refused`, how many calls were
/// bound and how many were refused.
unsafe extern "C" fn executed(_module: *mut PyObject, _args: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by Python; the dict is new.
    unsafe {
        let counts = ffi::PyDict_New();
        let set = |name: &str, count: u64| {
            let name = CString::new(name).expect("no NUL in a name");
            let count = ffi::PyLong_FromUnsignedLongLong(count);
            assert_eq!(ffi::PyDict_SetItemString(counts, name.as_ptr(), count), 0);
            refs::decref(count);
        };
        for opcode in Opcode::all() {
            if opcode.is_base() && memory_helper(opcode as u8).is_some() {
                set(opcode.name(), evaluator::executed(opcode));
            }
        }
        set("calls", evaluator::bound_calls());
        set("refused", evaluator::refused_calls());
        counts
    }
}

/// Makes the functions above builtins of the embedded interpreter.
unsafe fn define_functions() {
    type Function = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
    let functions: [(&CStr, Function); 2] = [(c"enable", enable), (c"executed", executed)];
    for (name, function) in functions {
        let method = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: Some(function),
            ml_flags: ffi::METH_NOARGS as i32,
            ml_doc: std::ptr::null(),
        }));
        // SAFETY: the interpreter is initialised, and the definition lives for ever.
        unsafe {
            let object = ffi::PyCFunction_NewEx(method, null_mut(), null_mut());
            let builtins = ffi::PyEval_GetBuiltins();
            assert_eq!(
                ffi::PyDict_SetItemString(builtins, name.as_ptr(), object),
                0
            );
            refs::decref(object);
        }
    }
}

#[test]
fn programs_run_through_the_helpers() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/evaluator");
    let run = CString::new(format!(
        "import runpy\nrunpy.run_path({script:?}, run_name='__main__')"
    ))
    .expect("no NUL");
    // SAFETY: the only test of this process, so nothing else initialises Python.
    unsafe {
        ffi::Py_InitializeEx(0);
        define_functions();
        assert_eq!(
            ffi::PyRun_SimpleString(run.as_ptr()),
            0,
            "see the output of the script"
        );
        assert_eq!(ffi::Py_FinalizeEx(), 0);
    }
}
