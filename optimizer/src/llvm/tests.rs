//! From IR through LLVM and the runtime's loader to code that runs: what a function may contain, and what is refused.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hotstamp_runtime::code_memory::CodeMemory;
use hotstamp_runtime::optimize::object::{self, ObjectError, Placed};

use super::*;
use crate::compile::Refusal;
use crate::ir_job;

fn compile(passes: &str, ir: &str) -> Result<Vec<u8>, Refusal> {
    let job = [ir_job::PREFIX, passes.as_bytes(), b"\0", ir.as_bytes()].concat();
    ir_job::compile(&job).map(|artifact| artifact.object)
}

/// Tests run at the same time, and have no GIL that would keep them apart in code memory.
fn alone() -> MutexGuard<'static, ()> {
    static GIL: Mutex<()> = Mutex::new(());
    GIL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place_object(object: &[u8]) -> Result<Placed, ObjectError> {
    let _guard = alone();
    object::place(CodeMemory::global(), object)
}

/// Compiles and places.
fn place(ir: &str) -> Placed {
    let object = compile(DEFAULT_PASSES, ir).unwrap();
    place_object(&object).unwrap()
}

fn refused(ir: &str) -> ObjectError {
    let object = compile(DEFAULT_PASSES, ir).unwrap();
    place_object(&object).unwrap_err()
}

/// The entry as a function of this type.
macro_rules! entry {
    ($placed:expr, fn($($argument:ty),*) -> $result:ty) => {{
        assert!(CodeMemory::global().contains($placed.entry));
        // SAFETY: the IR defines the entry with this type, and keeps to the C calling convention.
        unsafe { std::mem::transmute::<*const u8, extern "C" fn($($argument),*) -> $result>($placed.entry.0) }
    }};
}

#[test]
fn a_table_of_floats_is_read_from_beside_the_code() {
    let placed = place(
        "@table = private unnamed_addr constant [4 x double] [double 0.5, double -2.25, double 1.0e300, double 0x7FF8000000000000]
         define double @hotstamp_entry(i64 %i, double %x) {
           %p = getelementptr [4 x double], ptr @table, i64 0, i64 %i
           %v = load double, ptr %p
           %r = fmul double %v, %x
           %s = fadd double %r, 3.25
           ret double %s
         }",
    );
    let f = entry!(placed, fn(u64, f64) -> f64);
    assert_eq!(f(0, 3.0), 4.75);
    assert_eq!(f(1, 2.0), -1.25);
    assert_eq!(f(2, 1.0), 1.0e300);
    assert!(f(3, 1.0).is_nan());
}

#[test]
fn a_switch_becomes_a_jump_table_that_finds_its_way() {
    // Different instructions in each case, which no pass turns into a table of results.
    let operations = [
        "add i64 %x, 3",
        "mul i64 %y, 5",
        "xor i64 %y, 77",
        "sub i64 9, %y",
        "shl i64 %y, 3",
        "and i64 %y, 12345",
        "or i64 %y, 64",
        "udiv i64 %y, 3",
        "urem i64 %y, 7",
    ];
    let cases: String = operations
        .iter()
        .enumerate()
        .map(|(n, operation)| format!("c{n}:\n %r{n} = {operation}\n br label %end\n"))
        .collect();
    let labels: String = (0..operations.len())
        .map(|n| format!("i64 {n}, label %c{n} "))
        .collect();
    let merged: String = (0..operations.len())
        .map(|n| format!("[ %r{n}, %c{n} ], "))
        .collect();
    let placed = place(&format!(
        "define i64 @hotstamp_entry(i64 %x, i64 %y) {{
         switch i64 %x, label %other [ {labels} ]
         {cases}
         other:
           br label %end
         end:
           %r = phi i64 {merged} [ -1, %other ]
           ret i64 %r
         }}"
    ));
    let f = entry!(placed, fn(u64, u64) -> u64);
    let y = 1_000_003;
    let expected = [
        3,
        y * 5,
        y ^ 77,
        9u64.wrapping_sub(y),
        y << 3,
        y & 12345,
        y | 64,
        y / 3,
        y % 7,
        u64::MAX,
    ];
    for (x, &value) in expected.iter().enumerate() {
        assert_eq!(f(x as u64, y), value, "case {x}");
    }
}

extern "C" fn helper(a: i64, b: f64) -> f64 {
    a as f64 * b
}

#[test]
fn a_helper_is_called_at_its_absolute_address() {
    let placed = place(&format!(
        "define double @hotstamp_entry(i64 %a, double %b) {{
           %r = call double inttoptr (i64 {} to ptr)(i64 %a, double %b)
           %s = fadd double %r, 1.0
           ret double %s
         }}",
        helper as extern "C" fn(i64, f64) -> f64 as usize
    ));
    assert_eq!(entry!(placed, fn(i64, f64) -> f64)(6, 0.5), 4.0);
}

#[test]
fn library_functions_that_llvm_chose_are_found() {
    let placed = place(
        "define double @hotstamp_entry(double %a, double %b) {
           %r = frem double %a, %b
           ret double %r
         }",
    );
    assert_eq!(entry!(placed, fn(f64, f64) -> f64)(7.5, 2.0), 1.5);

    let placed = place(
        "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
         define void @hotstamp_entry(ptr %to, ptr %from, i64 %n) {
           call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %n, i1 false)
           ret void
         }",
    );
    let (mut to, from) = ([0u8; 300], [7u8; 300]);
    entry!(placed, fn(*mut u8, *const u8, usize) -> ())(to.as_mut_ptr(), from.as_ptr(), 299);
    assert_eq!((to[298], to[299]), (7, 0));

    let placed = place(
        "define i64 @hotstamp_entry(i64 %a, i64 %b, i64 %c) {
           %x = sext i64 %a to i128
           %y = sext i64 %b to i128
           %p = mul i128 %x, %y
           %z = sext i64 %c to i128
           %q = sdiv i128 %p, %z
           %r = trunc i128 %q to i64
           ret i64 %r
         }",
    );
    let f = entry!(placed, fn(i64, i64, i64) -> i64);
    assert_eq!(f(1 << 62, -10, 1 << 60), -40);
}

#[test]
fn the_address_of_a_library_function_is_its_own() {
    let placed = place(
        "declare double @fmod(double, double)
         define ptr @hotstamp_entry() {
           ret ptr @fmod
         }",
    );
    unsafe extern "C" {
        fn fmod(a: f64, b: f64) -> f64;
    }
    let address = entry!(placed, fn() -> usize)();
    assert_eq!(
        address,
        fmod as unsafe extern "C" fn(f64, f64) -> f64 as usize
    );
}

#[test]
fn cold_code_lies_apart_and_is_reached() {
    let placed = place(
        "define internal i64 @rare(i64 %x) cold noinline {
           %r = mul i64 %x, 1000003
           ret i64 %r
         }
         define i64 @second(i64 %x) noinline {
           %r = xor i64 %x, 5
           ret i64 %r
         }
         define i64 @hotstamp_entry(i64 %x) {
           %big = icmp ugt i64 %x, 100
           br i1 %big, label %yes, label %no
         yes:
           %r = call i64 @rare(i64 %x)
           %t = add i64 %r, 1
           ret i64 %t
         no:
           %s = call i64 @second(i64 %x)
           ret i64 %s
         }",
    );
    let f = entry!(placed, fn(u64) -> u64);
    assert_eq!((f(3), f(101)), (6, 101 * 1_000_003 + 1));
    assert!(placed.cold_bytes > 0 && placed.hot_bytes > 0);
    assert!(placed.function("second").is_some());
    assert_eq!(placed.function("rare"), None);
    assert_eq!(placed.function(ENTRY_NAME), Some(placed.entry));
}

#[test]
fn constants_keep_their_alignment_wherever_the_code_lies() {
    // Something of odd length in front of each.
    for filler in 0..4 {
        let fill = vec![0u8; 16 * filler + 5];
        let guard = alone();
        CodeMemory::global().publish(&fill).unwrap();
        drop(guard);
        let placed = place(
            "@v = private unnamed_addr constant <8 x float> <float 1.0, float 2.0, float 3.0, float 4.0, float 5.0, float 6.0, float 7.0, float 8.0>, align 64
             define void @hotstamp_entry(ptr %p) {
               %a = load <8 x float>, ptr %p, align 4
               %b = load <8 x float>, ptr @v, align 64
               %c = fadd <8 x float> %a, %b
               store <8 x float> %c, ptr %p, align 4
               %i = ptrtoint ptr @v to i64
               %low = and i64 %i, 63
               %q = getelementptr i8, ptr %p, i64 32
               store i64 %low, ptr %q, align 4
               ret void
             }",
        );
        let mut values = [0.5f32; 10];
        values[8] = 9.0;
        entry!(placed, fn(*mut f32) -> ())(values.as_mut_ptr());
        assert_eq!(values[..8], [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]);
        assert_eq!(values[8].to_bits(), 0, "the low bits of the address");
    }
}

#[test]
fn a_table_of_addresses_is_filled_in() {
    let placed = place(
        "@table = internal constant [3 x ptr] [ptr @one, ptr @two, ptr @one]
         define i64 @one() noinline { ret i64 11 }
         define i64 @two() noinline { ret i64 22 }
         define i64 @hotstamp_entry(i64 %i) {
           %p = getelementptr [3 x ptr], ptr @table, i64 0, i64 %i
           %f = load ptr, ptr %p
           %r = call i64 %f()
           ret i64 %r
         }",
    );
    let f = entry!(placed, fn(u64) -> u64);
    assert_eq!([f(0), f(1), f(2)], [11, 22, 11]);
}

#[test]
fn what_cannot_be_code_is_refused() {
    let error = refused(
        "@counter = internal global i64 1
         define i64 @hotstamp_entry() {
           %v = load i64, ptr @counter
           %w = add i64 %v, 1
           store i64 %w, ptr @counter
           ret i64 %w
         }",
    );
    assert!(
        matches!(&error, ObjectError::Section(name) if name == ".data"),
        "{error}"
    );
    let error = refused(
        "declare i64 @PyObject_Size(ptr)
         define i64 @hotstamp_entry(ptr %p) {
           %r = call i64 @PyObject_Size(ptr %p)
           ret i64 %r
         }",
    );
    assert_eq!(error.to_string(), "unknown symbol PyObject_Size");
    let error = refused("define i64 @other() { ret i64 1 }");
    assert!(matches!(error, ObjectError::NoEntry));
    let error = place_object(b"no object").unwrap_err();
    assert!(matches!(error, ObjectError::Malformed(_)));
    let mut foreign = compile("", "define void @hotstamp_entry() { ret void }").unwrap();
    // e_machine: some other one.
    foreign[18] ^= 1;
    let error = place_object(&foreign).unwrap_err();
    assert!(matches!(error, ObjectError::OtherMachine(_)));
}

#[test]
fn a_cut_object_is_an_error_and_no_crash() {
    let whole = compile(
        DEFAULT_PASSES,
        "define double @hotstamp_entry(double %a, double %b) {
           %r = frem double %a, %b
           %s = fadd double %r, 2.125
           ret double %s
         }",
    )
    .unwrap();
    assert!(place_object(&whole).is_ok());
    for len in 0..whole.len() {
        // Cut or changed, it is refused, or placed and not run.
        let cut = place_object(&whole[..len]);
        assert!(cut.is_err(), "cut at {len}");
        let mut changed = whole.clone();
        changed[len] ^= 0x80;
        let _ = place_object(&changed);
    }
}

#[test]
fn llvm_says_what_is_wrong() {
    let valid = "define void @hotstamp_entry() { ret void }";
    let passes = compile("no-such-pass", valid).unwrap_err();
    assert!(
        matches!(&passes, Refusal::Llvm(LlvmError::Passes(text)) if text.contains("no-such-pass"))
    );
    let syntax = compile("", "define what").unwrap_err();
    assert!(matches!(syntax, Refusal::Llvm(LlvmError::Invalid(_))));
    assert!(matches!(
        ir_job::compile(b"\0llvm-ir:no end"),
        Err(Refusal::Unsupported(_))
    ));
}

#[test]
fn the_verifier_finds_what_the_builder_lets_pass() {
    let context = inkwell::context::Context::create();
    let backend = Backend::new(OptimizationLevel::Default).unwrap();
    let module = context.create_module("m");
    backend.prepare(&module);
    let function = module.add_function(ENTRY_NAME, context.void_type().fn_type(&[], false), None);
    context.append_basic_block(function, "no terminator");
    assert!(matches!(
        backend.verify(&module),
        Err(LlvmError::Invalid(_))
    ));
}

#[test]
fn text_shows_the_function_and_leaves_the_module_as_it_is() {
    let context = inkwell::context::Context::create();
    let backend = Backend::new(OptimizationLevel::Default).unwrap();
    let module = context.create_module("m");
    backend.prepare(&module);
    let i64 = context.i64_type();
    let function = module.add_function(ENTRY_NAME, i64.fn_type(&[i64.into()], false), None);
    let builder = context.create_builder();
    builder.position_at_end(context.append_basic_block(function, "entry"));
    let argument = function.get_first_param().unwrap().into_int_value();
    let sum = builder
        .build_int_add(argument, i64.const_int(41, false), "sum")
        .unwrap();
    builder.build_return(Some(&sum)).unwrap();
    backend.optimize(&module, DEFAULT_PASSES).unwrap();
    let before = ir_text(&module);
    assert!(before.contains("%sum = add i64 %0, 41"), "{before}");
    let assembly = backend.assembly(&module).unwrap();
    assert!(
        assembly.contains("hotstamp_entry:") && assembly.contains("41"),
        "{assembly}"
    );
    assert_eq!(ir_text(&module), before);
    let object = backend.object(&module).unwrap();
    let placed = place_object(&object).unwrap();
    assert_eq!(entry!(placed, fn(i64) -> i64)(1), 42);
}
