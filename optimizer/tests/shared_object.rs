//! What the shared object shows to the process that loads it: one function. And what it asks of it: the C library, and nothing of CPython's.

use object::{Object, ObjectSymbol};

#[test]
fn one_symbol_goes_out_and_only_the_c_library_comes_in() {
    let path = std::env::current_exe()
        .unwrap()
        .with_file_name("libhotstamp_optimizer.so");
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let (defined, wanted): (Vec<_>, Vec<_>) = file
        .dynamic_symbols()
        .partition(|symbol| !symbol.is_undefined());
    let names = |symbols: &[object::Symbol]| -> Vec<String> {
        let names = symbols
            .iter()
            .map(|symbol| symbol.name().unwrap().to_owned());
        names.filter(|name| !name.is_empty()).collect()
    };
    assert_eq!(names(&defined), ["hotstamp_optimizer"]);
    let wanted = names(&wanted);
    assert!(wanted.iter().any(|name| name == "malloc"));
    for name in wanted {
        // Static objects that are destroyed at exit would be under the compiler thread's feet.
        assert_ne!(name, "__cxa_atexit");
        assert!(
            !name.starts_with("Py") && !name.starts_with("_Py"),
            "{name}"
        );
        // The C++ library is inside.
        assert!(
            !name.starts_with("_ZSt") && !name.starts_with("_ZNSt"),
            "{name}"
        );
    }
}
