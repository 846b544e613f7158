//! Reads CPython's real headers, for the target being built, and writes what the crate needs of them to `OUT_DIR`.
mod bindings;
mod headers;

use std::{env, fs, path::PathBuf, process::exit};

fn main() {
    if let Err(message) = run() {
        eprintln!("error: {message}");
        exit(1);
    }
}

fn run() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo::rerun-if-changed=build");
    let base = headers::primary()?;
    let text = bindings::generate(&base, &target)?;
    fs::write(out.join("ffi.rs"), text).map_err(|e| format!("cannot write ffi.rs: {e}"))?;
    Ok(())
}
