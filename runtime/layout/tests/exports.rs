//! Every function and variable in `ffi` is exported by the interpreter itself, so that the extension loads.

use std::collections::BTreeSet;

use object::{Object, ObjectSymbol};

/// What the generated bindings declare.
fn declared() -> BTreeSet<String> {
    let file = syn::parse_file(include_str!(concat!(env!("OUT_DIR"), "/ffi.rs")))
        .expect("the bindings parse");
    let mut names = BTreeSet::new();
    for item in file.items {
        let syn::Item::ForeignMod(block) = item else {
            continue;
        };
        for item in block.items {
            names.insert(match item {
                syn::ForeignItem::Fn(function) => function.sig.ident.to_string(),
                syn::ForeignItem::Static(variable) => variable.ident.to_string(),
                _ => panic!("neither a function nor a variable in an extern block"),
            });
        }
    }
    names
}

#[test]
fn everything_declared_is_exported() {
    let home = std::env::var("PYTHONHOME")
        .expect("PYTHONHOME names the prefix of the Python under test (ci/env sets it)");
    let path = std::path::Path::new(&home).join("bin/python3.14");
    let data = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let elf = object::File::parse(&*data).expect("the interpreter is an ELF file");
    let exported: BTreeSet<String> = elf
        .dynamic_symbols()
        .filter(|s| !s.is_undefined())
        .filter_map(|s| s.name().ok().map(str::to_owned))
        .collect();
    let declared = declared();
    assert!(
        declared.len() > 1500 && declared.contains("_PyEval_EvalFrameDefault"),
        "{} names",
        declared.len()
    );
    let missing: Vec<_> = declared.difference(&exported).collect();
    assert!(
        missing.is_empty(),
        "declared in the headers but not exported; add to NOT_EXPORTED in build/bindings.rs: {missing:?}"
    );
}
