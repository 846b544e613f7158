//! The Python extension `hotstamp._hotstamp`.
use pyo3::prelude::*;

#[pymodule]
fn _hotstamp(_m: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
