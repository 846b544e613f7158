//! Links LLVM statically, and with it everything it needs but the C library: whoever installs the wheel has none of it.
//!
//! `HOTSTAMP_LLVM_CONFIG` is an `llvm-config` of LLVM 22 that runs on the machine that builds (default: the one on the PATH). `HOTSTAMP_LLVM_LIBRARIES` is a
//! folder with the static libraries of the architecture that is built for, where that is not the machine's own; zlib and zstd are looked for there too.
//! `ci/env` sets both.

use std::env;
use std::path::Path;
use std::process::Command;

/// What is used of LLVM, besides the target: the rest of its libraries would be found dead by the linker, but their static initialisers would not.
const COMPONENTS: [&str; 5] = ["passes", "target", "core", "analysis", "irreader"];

fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a program prints, without the end of the line. A program that is not there, or fails, ends the build.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; ci/setup installs LLVM 22"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn link_llvm(architecture: &str) {
    let config = variable("HOTSTAMP_LLVM_CONFIG").unwrap_or_else(|| "llvm-config-22".to_owned());
    let target = match architecture {
        "x86_64" => "x86",
        other => other,
    };
    let parts = ["codegen", "desc", "info"].map(|part| format!("{target}{part}"));
    let mut arguments = vec!["--link-static", "--libnames"];
    arguments.extend(parts.iter().map(String::as_str));
    arguments.extend(COMPONENTS);
    let names = output_of(&config, &arguments);
    let folder = variable("HOTSTAMP_LLVM_LIBRARIES")
        .unwrap_or_else(|| output_of(&config, &["--link-static", "--libdir"]));
    arguments_for_linker(&[format!("-L{folder}"), "-Wl,-Bstatic".to_owned()]);
    for name in names.split_whitespace() {
        arguments_for_linker(&[format!("-l:{name}")]);
    }
}

/// The C++ library and the compression libraries, from wherever the C++ compiler finds them.
fn link_what_llvm_needs(architecture: &str) {
    let host = env::var("HOST").unwrap_or_default();
    let compiler = variable("HOTSTAMP_CXX").unwrap_or_else(|| {
        if host.starts_with(architecture) {
            "g++".to_owned()
        } else {
            format!("{architecture}-linux-gnu-g++")
        }
    });
    for name in ["libz.a", "libzstd.a", "libstdc++.a"] {
        let found = output_of(&compiler, &[&format!("-print-file-name={name}")]);
        // A bare name if the compiler does not know it.
        if let Some(folder) = Path::new(&found)
            .parent()
            .filter(|folder| folder.is_absolute())
        {
            arguments_for_linker(&[format!("-L{}", folder.display())]);
        }
        arguments_for_linker(&[format!("-l:{name}")]);
    }
    arguments_for_linker(&["-Wl,-Bdynamic", "-lm", "-lgcc_s", "-lgcc", "-lc"]);
}

/// Adds to the end of every command that links something of this crate. As plain libraries they would stand in front of the crates that call them, where linkers
/// that look only forward do not find them; nor do they belong into this crate's own archive.
fn arguments_for_linker(arguments: &[impl AsRef<str>]) {
    for argument in arguments {
        println!("cargo::rustc-link-arg={}", argument.as_ref());
    }
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo says what is built for");
    link_llvm(&architecture);
    link_what_llvm_needs(&architecture);
    // One symbol is exported, and all others are bound here. Undefined ones are an error: nothing in here may call CPython.
    let mut arguments = vec!["--exclude-libs,ALL", "-z,defs"];
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // A third of the file, which is copied into every Python and every wheel.
        arguments.push("--strip-all");
    }
    for argument in arguments {
        println!("cargo::rustc-cdylib-link-arg=-Wl,{argument}");
    }
}
