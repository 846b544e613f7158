//! Goldens of the templates: for each `emit_<opcode>` the code of its opcodes in small functions, in every state of the virtual stack that it tells apart.

use crate::disassembly::Architecture;
use crate::interpreter::Python;
use crate::listing::Compiled;
use hotstamp_baseline::masm::aarch64::Aarch64;
use hotstamp_baseline::masm::x86_64::X86_64;

/// The goldens of one template.
pub struct Family {
    /// `<opcode>` of `emit_<opcode>`.
    pub template: &'static str,
    /// The opcodes that it compiles.
    pub opcodes: &'static [&'static str],
    /// Source texts that define `f`, a function or code object.
    sources: &'static [&'static str],
}

impl Family {
    fn check<M: Architecture>(&self) {
        let python = Python::attach();
        let (mut text, mut missing) = (String::new(), self.opcodes.to_vec());
        for source in self.sources {
            let globals = python.execute(&format!("{source}\ncodes = [code_of(f)]"));
            let compiled = Compiled::new::<M>(&globals, globals.codes(c"codes")[0]);
            missing.retain(|opcode| !compiled.has(opcode));
            text += &format!("{source}\n\n{}\n\n", compiled.listing(self.opcodes));
        }
        assert!(
            missing.is_empty(),
            "no code was made for {missing:?}: {text}"
        );
        assert_listing(self.template, M::NAME, &text);
    }
}

fn assert_listing(name: &str, architecture: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => format!("templates/{architecture}"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(name, text);
    });
}

/// A table of families, and a test for each on each architecture.
macro_rules! families {
    ($($template:ident: $($opcode:ident),+ { $($source:expr;)+ })+) => {
        /// All of them.
        pub const FAMILIES: &[Family] = &[$(Family {
            template: stringify!($template),
            opcodes: &[$(stringify!($opcode)),+],
            sources: &[$($source),+],
        }),+];

        fn family(template: &str) -> &'static Family {
            FAMILIES.iter().find(|family| family.template == template).expect("in the table")
        }

        mod x86_64 {
            $(#[test] fn $template() { super::family(stringify!($template)).check::<super::X86_64>(); })+
        }

        mod aarch64 {
            $(#[test] fn $template() { super::family(stringify!($template)).check::<super::Aarch64>(); })+
        }
    };
}

families! {
    resume: RESUME {
        "def f(): pass";
        "def f(a): return lambda: a";
        "def f(a): yield from a";
    }

    load_fast: LOAD_FAST {
        "def f(a):\n    b = a";
        r#"f = assemble("RESUME 0", "LOAD_FAST 0", "LOAD_FAST 1", "BINARY_OP 0", "RETURN_VALUE")"#;
    }
    load_fast_borrow: LOAD_FAST_BORROW {
        "def f(a): return a";
        "def f(a): return [a]";
    }
    load_fast_load_fast: LOAD_FAST_LOAD_FAST {
        "def f(a, b):\n    c, d = a, b";
    }
    load_fast_borrow_load_fast_borrow: LOAD_FAST_BORROW_LOAD_FAST_BORROW {
        "def f(a, b): return a + b";
    }
    load_fast_and_clear: LOAD_FAST_AND_CLEAR {
        "def f(a): return [x for x in a]";
        r#"f = assemble("RESUME 0", "LOAD_FAST_BORROW 0", "LOAD_FAST_AND_CLEAR 0", "BINARY_OP 0", "RETURN_VALUE")"#;
    }
    load_fast_check: LOAD_FAST_CHECK {
        "def f(a):\n    del a\n    return a";
    }
    store_fast: STORE_FAST {
        "def f(a): a = a + 1";
        "def f(a):\n    b = a";
        "def f(): a = 'mortal'";
        "def f(): a = None";
        "def f(): a = 1.5";
        "def f(): a = 5";
        "def f(a): x = [*a]";
        r#"f = assemble("RESUME 0", "LOAD_FAST_BORROW 0", "LOAD_FAST_BORROW 1", "STORE_FAST 0", "RETURN_VALUE")"#;
    }
    store_fast_load_fast: STORE_FAST_LOAD_FAST {
        "def f(a): return [x for x in a]";
    }
    store_fast_store_fast: STORE_FAST_STORE_FAST {
        "def f(a): b = c = a";
    }
    load_const: LOAD_CONST {
        "def f(): return 'constant'";
        "def f(): return 1.5";
        "def f(a): return a + 1.5";
        "def f(a): a['key'] = None";
    }
    load_small_int: LOAD_SMALL_INT {
        "def f(): return 7";
        "def f(a): return a + 255";
    }

    push_null: PUSH_NULL {
        "def f(a): a()";
    }
    pop_top: POP_TOP, POP_ITER, END_FOR {
        "def f(a): a()";
        "def f(a):\n    for x in a: pass";
        r#"f = assemble("RESUME 0", "LOAD_FAST_BORROW 0", "POP_TOP", "LOAD_FAST_BORROW 0", "GET_ITER", "LOAD_FAST_BORROW 0", "END_FOR", "POP_ITER", "LOAD_CONST 0", "RETURN_VALUE")"#;
    }
    copy: COPY {
        "def f(a):\n    b = c = a()";
        r#"f = assemble("RESUME 0", "LOAD_FAST_BORROW 0", "COPY 1", "BINARY_OP 0", "RETURN_VALUE")"#;
        r#"f = assemble("RESUME 0", "LOAD_CONST 0", "LOAD_FAST 0", "COPY 2", "COPY 2", "BUILD_LIST 4", "RETURN_VALUE")"#;
        "def f(a, b): return a() < b() < a()";
    }
    swap: SWAP {
        "def f(a, b, c): return a < b() < c";
        "def f(a, b, c):\n    for x in a:\n        return x";
        r#"f = assemble("RESUME 0", "LOAD_FAST_BORROW 0", "LOAD_FAST_BORROW 1", "SWAP 2", "BINARY_OP 0", "RETURN_VALUE")"#;
        r#"f = assemble("RESUME 0", "LOAD_FAST_BORROW 0", "GET_ITER", "LOAD_FAST_BORROW 1", "GET_ITER", "SWAP 2", "BINARY_OP 0", "RETURN_VALUE")"#;
        r#"f = assemble("RESUME 0", "LOAD_FAST 0", "LOAD_FAST_BORROW 1", "GET_ITER", "SWAP 2", "BINARY_OP 0", "RETURN_VALUE")"#;
        r#"f = assemble("RESUME 0", "LOAD_FAST_BORROW 1", "GET_ITER", "LOAD_FAST 0", "SWAP 2", "BINARY_OP 0", "RETURN_VALUE")"#;
    }

    jump: JUMP_FORWARD, JUMP_BACKWARD_NO_INTERRUPT {
        r#"f = assemble("RESUME 0", "LOAD_FAST 0", "JUMP_FORWARD 2", "NOP", "NOP", "RETURN_VALUE")"#;
        r#"f = assemble("RESUME 0", "JUMP_FORWARD 2", "LOAD_FAST 0", "RETURN_VALUE", "JUMP_BACKWARD_NO_INTERRUPT 3")"#;
    }
    jump_backward: JUMP_BACKWARD {
        "def f(a):\n    while True: a()";
        "def f(a):\n    for x in a: pass";
    }
    pop_jump_if_bool: POP_JUMP_IF_TRUE, POP_JUMP_IF_FALSE {
        "def f(a, b):\n    if a < b: return a\n    return b";
        "def f(a, b):\n    if not a: return a\n    return b";
        "def f(a, b):\n    return a() or b";
    }
    pop_jump_if_none: POP_JUMP_IF_NONE, POP_JUMP_IF_NOT_NONE {
        "def f(a):\n    if a is None: return 1\n    return 2";
        "def f(a):\n    if a is not None: return 1\n    return 2";
        "def f(a):\n    if a() is None: return 1\n    return 2";
        "def f(a):\n    if a() is not None: return 1\n    return 2";
    }
    return_value: RETURN_VALUE {
        "def f(a): return a";
        "def f(): pass";
        "def f(a): return a()";
        "def f(a): return [*a]";
    }

    return_generator: RETURN_GENERATOR {
        "def f(): yield";
        "def f(a):\n    yield a\n    return lambda: a";
    }
    yield_value: YIELD_VALUE {
        "def f(a):\n    yield a";
        "def f(a):\n    yield 1.5";
        "def f(a):\n    yield a()";
        "def f(a, b):\n    return a + (yield b)";
    }
    send: SEND {
        "def f(a): return (yield from a)";
        "async def f(a): return await a";
    }
    end_send: END_SEND {
        "def f(a): return (yield from a)";
    }

    unary_not: UNARY_NOT {
        "def f(a): return not a";
    }
    to_bool: TO_BOOL {
        "def f(a): return not a";
        "def f(a): return not a()";
    }
    is_op: IS_OP {
        "def f(a, b): return a is b";
        "def f(a, b): return a is not b";
        "def f(a, b): return a() is b";
    }
    binary: BINARY_OP, COMPARE_OP, CONTAINS_OP {
        "def f(a, b): return a + b";
        "def f(a, b): return a() - b";
        "def f(a, b): return a[b]";
        "def f(a, b): return a < b";
        "def f(a, b): return a == b() and a";
        "def f(a, b): return a in b";
        "def f(a, b): return a * (a + b)";
    }
    store_subscr: STORE_SUBSCR {
        "def f(a, b, c): a[b] = c";
        "def f(a, b, c): a[b] = c()";
        "def f(a, b, c): a[b] += c";
    }

    load_attr: LOAD_ATTR {
        "def f(a): return a.attribute";
        "def f(a): return a().attribute";
        "def f(a): return a.method()";
        "def f(a): return a.first.second.method(a.third)";
    }
    store_attr: STORE_ATTR {
        "def f(a, b): a.attribute = b";
        "def f(a, b): a().attribute = b()";
    }
    load_deref: LOAD_DEREF {
        "def f(a):\n    def g():\n        nonlocal a\n        a = 1\n    return a";
    }
    unpack_sequence: UNPACK_SEQUENCE {
        "def f(a): b, c = a";
        "def f(a): b, c, d = a()";
        "def f(a): b[0], c = a";
    }
    list_append: LIST_APPEND {
        "def f(a): return [b for b in a]";
        "def f(a): return [(b, 1) for b in a]";
    }
    load_global: LOAD_GLOBAL {
        "def f(): return name";
        "def f(): return name()";
        "def f(a): return a + name";
    }
    for_iter: FOR_ITER {
        "def f(a):\n    for x in a: x()";
    }
    call: CALL, CALL_KW, CALL_FUNCTION_EX {
        "def f(a): return a()";
        "def f(a, b): return a(b, 1)";
        "def f(a, b): return a.method(b)";
        "def f(a, b): return a(b, key=1)";
        "def f(a, b): return a(*b)";
        "def f(a, b): return a(b(a(b)))";
    }

    generic: BUILD_LIST, DELETE_FAST, RAISE_VARARGS, CALL_INTRINSIC_1, STORE_DEREF, BINARY_SLICE, IMPORT_NAME {
        "def f(a, b): return [a, b()]";
        "def f(a): del a";
        "def f(a): raise a";
        "def f(a): return (*a,)";
        "def f(a):\n    def g():\n        nonlocal a\n        a = 1\n    return a\nf = next(c for c in f.__code__.co_consts if hasattr(c, 'co_code'))";
        "def f(a, b, c): return a[b:c]";
        "def f():\n    import module";
    }
}

/// A whole function with all that stands around its instructions: the call-heavy shape that code size is measured on.
fn whole<M: Architecture>() {
    let python = Python::attach();
    let source = "def f(x):\n    s = 0.0\n    s += math.sqrt(x)\n    return s";
    let globals = python.execute(&format!("{source}\ncodes = [code_of(f)]"));
    let compiled = Compiled::new::<M>(&globals, globals.codes(c"codes")[0]);
    let (bytes, listing) = (compiled.output.code.len(), compiled.listing(&[]));
    let text = format!("{source}\n\n{listing}\n{bytes} bytes of code\n");
    assert_listing("whole_function", M::NAME, &text);
}

#[test]
fn whole_function_x86_64() {
    whole::<X86_64>();
}

#[test]
fn whole_function_aarch64() {
    whole::<Aarch64>();
}

/// Nothing in a listing depends on where things are in this process: the same function again, with other objects, gives the same text.
#[test]
fn listings_do_not_depend_on_addresses() {
    fn listing<M: Architecture>(python: &Python) -> (u64, String) {
        let source = "def f(a): return a.method(1.5, 'text', (a, 7), 12345)\ncodes = [code_of(f)]";
        let globals = python.execute(source);
        let code = globals.codes(c"codes")[0];
        (code as u64, Compiled::new::<M>(&globals, code).listing(&[]))
    }
    let python = Python::attach();
    let (first, text) = listing::<Aarch64>(&python);
    let (second, again) = listing::<Aarch64>(&python);
    assert_ne!(first, second);
    assert_eq!(text, again);
    assert_eq!(listing::<X86_64>(&python).1, listing::<X86_64>(&python).1);
}
