//! Reads CPython's real headers, for the target being built, and writes what the crate needs of them to `OUT_DIR`:
//! `ffi.rs` (bindgen), `opcode.rs` (the opcode tables) and `releases.rs` (the patch releases this build carries).
mod bindings;
mod cache;
mod compare;
mod headers;
mod libpython;
mod opcodes;

use std::{env, fs, path::PathBuf, process::exit, thread};

use headers::Headers;

fn main() {
    libpython::link_tests();
    if let Err(message) = run() {
        eprintln!("error: {message}");
        exit(1);
    }
}

/// What is generated for one release.
struct Generated {
    ffi: String,
    opcodes: String,
    version: u32,
}

fn generate(headers: &Headers, target: &str) -> Result<Generated, String> {
    let ffi = bindings::generate(headers, target)?;
    let version = compare::version_hex(&ffi)?;
    Ok(Generated {
        opcodes: opcodes::generate(headers)?,
        ffi,
        version,
    })
}

fn run() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo::rerun-if-changed=build");
    let (primary, further) = (headers::primary()?, headers::further()?);
    let all: Vec<&Headers> = std::iter::once(&primary).chain(&further).collect();
    let cached = cache::entry(&target, &all);
    if cached
        .as_ref()
        .is_some_and(|entry| cache::restore(entry, &out))
    {
        return Ok(());
    }
    // A release takes seconds, so they are read side by side.
    let (base, others) = thread::scope(|scope| {
        let others: Vec<_> = further
            .iter()
            .map(|headers| (headers, scope.spawn(|| generate(headers, &target))))
            .collect();
        let base = generate(&primary, &target);
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().expect("bindgen does not panic")
        };
        (
            base,
            others
                .into_iter()
                .map(|(headers, thread)| (headers, join(thread)))
                .collect::<Vec<_>>(),
        )
    });
    let base = base?;
    let mut carried = vec![base.version];
    for (headers, other) in others {
        let other = other?;
        let mut differences = compare::differences(&base.ffi, &other.ffi)?;
        if base.opcodes != other.opcodes {
            differences.push("the opcode tables differ".into());
        }
        if !differences.is_empty() {
            return Err(format!(
                "the headers in {} (release {:#010x}) cannot share a build with release {:#010x}:\n  {}",
                headers.root.display(),
                other.version,
                base.version,
                differences.join("\n  ")
            ));
        }
        carried.push(other.version);
    }
    let write = |name: &str, text: &str| {
        let path = out.join(name);
        fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
    };
    write("ffi.rs", &base.ffi)?;
    write("opcode.rs", &base.opcodes)?;
    write(
        "releases.rs",
        &format!(
            "/// `PY_VERSION_HEX` of the releases whose headers this build was checked against.\npub const CARRIED_RELEASES: &[u32] = &{carried:#x?};\n"
        ),
    )?;
    if let Some(entry) = cached {
        cache::keep(&entry, &out);
    }
    Ok(())
}
