//! What Python code can ask about functions, and the statistics.

use hotstamp_layout::ffi::{
    PyFunction_Type, PyFunctionObject, PyMethod_Type, PyMethodObject, PyObject,
};
use hotstamp_runtime::exits::{self, ExitReason};
use hotstamp_runtime::optimize::policy;
use hotstamp_runtime::resume::stress;
use hotstamp_runtime::{hooks, registry, stats as counters};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The Python function behind a function or a bound method, borrowed from it.
fn function_of(object: &Bound<'_, PyAny>) -> PyResult<*mut PyFunctionObject> {
    let mut pointer = object.as_ptr().cast::<PyObject>();
    // SAFETY: a live object; a method keeps its function alive.
    unsafe {
        if (*pointer).ob_type == &raw mut PyMethod_Type {
            pointer = (*pointer.cast::<PyMethodObject>()).im_func;
        }
        if (*pointer).ob_type == &raw mut PyFunction_Type {
            return Ok(pointer.cast());
        }
    }
    Err(PyTypeError::new_err(format!(
        "a Python function or method is wanted, not {}",
        object.get_type().name()?
    )))
}

/// Whether there is machine code for a function (or the function of a method). False before its first call.
#[pyfunction]
pub(crate) fn is_compiled(function: &Bound<'_, PyAny>) -> PyResult<bool> {
    let function = function_of(function)?;
    // SAFETY: a live function, GIL held.
    Ok(!unsafe { registry::existing(function) }.is_null())
}

/// Bytes of a function's baseline code; 0 if it is not compiled.
#[pyfunction]
pub(crate) fn compiled_size(function: &Bound<'_, PyAny>) -> PyResult<u32> {
    let function = function_of(function)?;
    // SAFETY: a live function, GIL held; data that exists is valid as long as the function's code.
    unsafe {
        let data = registry::existing(function);
        Ok(if data.is_null() {
            0
        } else {
            (*data).code_bytes
        })
    }
}

/// How often generators or coroutines made by a function were resumed in its machine code; 0 if it is not compiled.
#[pyfunction]
pub(crate) fn resumptions(function: &Bound<'_, PyAny>) -> PyResult<u64> {
    let function = function_of(function)?;
    // SAFETY: as `compiled_size`.
    unsafe {
        let data = registry::existing(function);
        Ok(if data.is_null() {
            0
        } else {
            (*data).resumptions
        })
    }
}

/// How often the optimizer's code was installed for a function: once for its calls, once for each loop that was entered in the middle, and again after what was learnt from exits.
#[pyfunction]
pub(crate) fn optimizations(function: &Bound<'_, PyAny>) -> PyResult<u64> {
    let function = function_of(function)?;
    // SAFETY: as `compiled_size`.
    Ok(policy::installations(unsafe {
        registry::existing(function)
    }))
}

/// Bytes of the optimizer's code that is installed for a function, for its loops too; 0 if there is none.
#[pyfunction]
pub(crate) fn optimized_size(function: &Bound<'_, PyAny>) -> PyResult<usize> {
    let function = function_of(function)?;
    // SAFETY: as `compiled_size`.
    Ok(policy::installed_bytes(unsafe {
        registry::existing(function)
    }))
}

/// Keeps a function interpreted for ever, and all functions made from the same code. Returns it, so that it can be a decorator.
#[pyfunction]
pub(crate) fn opt_out<'py>(function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let target = function_of(&function)?;
    // SAFETY: a live function, GIL held.
    unsafe {
        registry::opt_out((*target).func_code.cast());
        hooks::functions::release(target);
    }
    exits::count(ExitReason::OptedOut);
    Ok(function)
}

/// The counters: functions_stamped, instructions, code_bytes, metadata_bytes, compile_ns, resumed (frames that went on in baseline code in the middle), stack_switches (calls that went to further native stack), stack_segments_made and stack_segments_freed, code_memory (a dict), exits (a dict from reason to count), functions_optimized (functions and loops that the optimizer's code was installed for), and, if the optimizer tier was started, optimizer: a dict of its sums, with its exits by reason in `exits`.
#[pyfunction]
pub(crate) fn stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let all = counters::snapshot();
    let dict = PyDict::new(py);
    dict.set_item("functions_stamped", all.functions_stamped)?;
    dict.set_item("instructions", all.instructions)?;
    dict.set_item("code_bytes", all.code_bytes)?;
    dict.set_item("metadata_bytes", all.metadata_bytes)?;
    dict.set_item("compile_ns", all.compile_ns)?;
    dict.set_item("resumed", all.resumed)?;
    dict.set_item("stack_switches", all.stack_switches)?;
    dict.set_item("stack_segments_made", all.stack_segments_made)?;
    dict.set_item("stack_segments_freed", all.stack_segments_freed)?;
    if stress::modes().optimized {
        dict.set_item("stand_ins", stress::stand_ins())?;
    }
    let memory = PyDict::new(py);
    memory.set_item("used", all.code_memory.used)?;
    memory.set_item("reusable", all.code_memory.reusable)?;
    memory.set_item("sealed", all.code_memory.sealed)?;
    memory.set_item("cap", all.code_memory.cap)?;
    memory.set_item(
        "protection",
        all.code_memory
            .protection
            .map(|protection| protection.name()),
    )?;
    dict.set_item("code_memory", memory)?;
    let exits = PyDict::new(py);
    for (name, count) in all.exits {
        exits.set_item(name, count)?;
    }
    dict.set_item("exits", exits)?;
    dict.set_item(
        "functions_optimized",
        all.optimizer
            .as_ref()
            .map_or(0, |optimizer| optimizer.compiled()),
    )?;
    if let Some(optimizer) = all.optimizer {
        let sums = PyDict::new(py);
        for (name, value) in optimizer.totals {
            sums.set_item(name, value)?;
        }
        let exits = PyDict::new(py);
        for (name, count) in optimizer.exits {
            exits.set_item(name, count)?;
        }
        sums.set_item("exits", exits)?;
        dict.set_item("optimizer", sums)?;
    }
    Ok(dict)
}
