//! The Python extension `hotstamp._hotstamp`: the lifecycle, the choice of tiers, and what Python code can ask.
//!
//! pyo3 ends here: below this crate Python objects are raw pointers. `lifecycle.rs` reads the environment and turns hotstamp on and off, `run_main.rs` runs a
//! program as `python` would, `inspect.rs` answers questions about functions.

mod inspect;
mod lifecycle;
mod log;
mod optimizer;
mod run_main;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// The native part of hotstamp. Use the package `hotstamp`.
#[pymodule(gil_used = true)]
fn _hotstamp(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: importing happens in an initialised interpreter, with the GIL.
    unsafe { hotstamp_layout::release::check_running() }
        .map_err(|error| PyImportError::new_err(error.to_string()))?;
    log::start();
    lifecycle::read_environment();
    module.add_function(wrap_pyfunction!(lifecycle::enable, module)?)?;
    module.add_function(wrap_pyfunction!(lifecycle::disable, module)?)?;
    module.add_function(wrap_pyfunction!(lifecycle::is_enabled, module)?)?;
    module.add_function(wrap_pyfunction!(lifecycle::disabled_reason, module)?)?;
    module.add_function(wrap_pyfunction!(lifecycle::tier, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::is_compiled, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::compiled_size, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::optimizations, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::optimized_size, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::resumptions, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::opt_out, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::stats, module)?)?;
    module.add_function(wrap_pyfunction!(run_main::run_source, module)?)?;
    module.add_function(wrap_pyfunction!(run_main::run_code, module)?)?;
    module.add_function(wrap_pyfunction!(run_main::run_callable, module)?)?;
    module.add_function(wrap_pyfunction!(run_main::interrupted, module)?)?;
    Ok(())
}
