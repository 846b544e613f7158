//! Links this crate's tests against a shared libpython, so that they can start an interpreter.

#[path = "../runtime/layout/build/libpython.rs"]
mod libpython;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    libpython::link_tests();
}
