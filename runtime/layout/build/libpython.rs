//! Linking of Rust tests against a shared libpython, shared by the build scripts of the crates whose tests need one
//! (by `#[path]`). The extension itself never links libpython: it finds CPython's symbols in the running interpreter.
//!
//! `HOTSTAMP_LIBPYTHON` names the shared library, `HOTSTAMP_LOADER` the dynamic loader of the C library that it was
//! built against, where that is not the machine's. `ci/env` sets both. Without them nothing is linked, and only tests
//! that refer to no CPython symbol can be built.

use std::{env, path::PathBuf};

/// Prints cargo's directives. They reach test binaries, since the crates that call this are plain Rust libraries.
pub fn link_tests() {
    for name in ["HOTSTAMP_LIBPYTHON", "HOTSTAMP_LOADER"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let path = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(library) = path("HOTSTAMP_LIBPYTHON") {
        let folder = library
            .parent()
            .expect("the path of a library has a folder");
        println!("cargo::rustc-link-arg={}", library.display());
        // DT_RPATH, which holds for libpython's own dependencies too. Its symbol versions are those of a C library
        // that the linker does not see.
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags,--allow-shlib-undefined");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
    if let Some(loader) = path("HOTSTAMP_LOADER") {
        println!(
            "cargo::rustc-link-arg=-Wl,--dynamic-linker,{}",
            loader.display()
        );
    }
}
