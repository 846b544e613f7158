//! How much code is made: exactly for one shape, and for a part of the standard library as a table (`--nocapture` shows it).

use std::fmt::Write;

use hotstamp_baseline::bytecode::Bytecode;
use hotstamp_baseline::compiler::{Compiler, Output, check_supported};
use hotstamp_baseline::masm::aarch64::Aarch64;
use hotstamp_baseline::masm::x86_64::X86_64;
use hotstamp_baseline::stubs::Stubs;
use hotstamp_layout::ffi::PyCodeObject;
use hotstamp_runtime::site::CodePtr;

use crate::disassembly::Architecture;
use crate::interpreter::Python;
use crate::listing::{BODY, Compiled, assemble_stubs};

fn site_bytes(output: &Output) -> usize {
    output.sites().map(|site| site.bytes).sum()
}

/// The call-heavy shape: one sum of N square roots. Bytes of the body's code and of its sites, on both architectures.
#[test]
fn canonical_shape() {
    fn row<M: Architecture>(text: &mut String) {
        let python = Python::attach();
        for n in [1, 2, 200] {
            let source = format!(
                "source = 'def f(x):\\n    s = 0.0\\n' + {n} * '    s += math.sqrt(x)\\n' + '    return s'\nexec(source)\ncodes = [f.__code__]"
            );
            let globals = python.execute(&source);
            let compiled = Compiled::new::<M>(&globals, globals.codes(c"codes")[0]);
            let (code, sites) = (compiled.output.code.len(), site_bytes(&compiled.output));
            writeln!(
                text,
                "{} N={n}: {code} bytes of code, {sites} of sites",
                M::NAME
            )
            .unwrap();
        }
    }
    let mut text = String::new();
    row::<X86_64>(&mut text);
    row::<Aarch64>(&mut text);
    insta::with_settings!({
        snapshot_path => "size",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!("canonical_shape", text);
    });
}

/// Every function of some modules of the standard library that is of a supported kind compiles, for both architectures.
#[test]
fn standard_library() {
    fn compile<M: Architecture>(code: *mut PyCodeObject, stubs: &Stubs) -> (usize, Output) {
        // SAFETY: a live code object, and the GIL is held.
        let bytecode = unsafe { Bytecode::decode(code) }.expect("valid bytecode");
        let address = CodePtr(BODY as *const u8);
        // SAFETY: as above.
        let compiler = unsafe { Compiler::<M>::new(address, stubs, code, &bytecode) };
        let output = compiler.compile();
        (
            2 * bytecode.units,
            output.expect("the function can be compiled"),
        )
    }
    fn row<M: Architecture>(python: &Python) {
        let (_, stubs, _) = assemble_stubs::<M>();
        for modules in [
            &["argparse"][..],
            &["json.decoder", "json.encoder", "json.scanner"],
            &["dataclasses"],
        ] {
            let globals = python.execute(&format!("codes = functions_of(*{modules:?})"));
            let (mut functions, mut refused, mut bytecode, mut code, mut sites) = (0, 0, 0, 0, 0);
            for function in globals.codes(c"codes") {
                // SAFETY: a live code object.
                if unsafe { check_supported(function) }.is_err() {
                    refused += 1;
                    continue;
                }
                let (units, output) = compile::<M>(function, &stubs);
                functions += 1;
                bytecode += units;
                code += output.code.len();
                sites += site_bytes(&output);
            }
            assert!(functions > 10, "{modules:?} has functions");
            let ratio = code as f64 / bytecode as f64;
            println!(
                "{}: {} functions of {modules:?} ({refused} refused), {bytecode} bytes of bytecode, {code} of code ({ratio:.2} per byte), {sites} of sites",
                M::NAME,
                functions
            );
        }
    }
    let python = Python::attach();
    row::<X86_64>(&python);
    row::<Aarch64>(&python);
}
