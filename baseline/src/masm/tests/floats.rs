//! Executing tests of floating point.

use super::data::INTEGERS;
use super::harness::{Code, Far, State, branch_code};
use crate::masm::FReg::*;
use crate::masm::Reg::*;
use crate::masm::{Cond, FAlu, MacroAssembler};

type Operation = fn(f64, f64) -> f64;
type Comparison = fn(f64, f64) -> bool;

const FLOATS: [f64; 13] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    3.0,
    1e300,
    -1e300,
    f64::MIN_POSITIVE,
    5e-324,
    f64::MAX,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

fn pairs() -> impl Iterator<Item = (f64, f64)> {
    FLOATS
        .into_iter()
        .flat_map(|a| FLOATS.into_iter().map(move |b| (a, b)))
}

/// Equal bits, or both NaN (whose bits differ between architectures).
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn arithmetic() {
    let operations: [(FAlu, Operation); 4] = [
        (FAlu::Add, |a, b| a + b),
        (FAlu::Sub, |a, b| a - b),
        (FAlu::Mul, |a, b| a * b),
        (FAlu::Div, |a, b| a / b),
    ];
    for (op, compute) in operations {
        for (dst, src) in [(F0, F1), (F1, F0), (F0, F0)] {
            let code = Code::new(|masm| masm.falu(op, dst, src));
            for (a, b) in pairs() {
                let mut state = State::new();
                state.set_float(dst, a);
                state.set_float(src, b);
                let mut expected = state.clone();
                let result = compute(state.get_float(dst), state.get_float(src));
                code.run(&mut state);
                assert!(same(state.get_float(dst), result), "{a} {op:?} {b}");
                expected.set_float(dst, state.get_float(dst));
                assert_eq!(state, expected);
            }
        }
    }
}

#[test]
fn conversion() {
    for (dst, src) in [(F0, Acc), (F1, T4), (F0, A3)] {
        let code = Code::new(|masm| masm.fconvert(dst, src));
        for value in INTEGERS.into_iter().chain([(1 << 53) + 1, (1 << 54) + 3]) {
            let mut state = State::new();
            state.set(src, value as u64);
            let mut expected = state.clone();
            expected.set_float(dst, value as f64);
            code.run(&mut state);
            assert_eq!(state, expected);
        }
    }
}

#[test]
fn loads_and_stores() {
    for disp in [
        0, 8, 128, 255, 256, 4096, 32760, 32768, 0x12_3456, -8, -256, -257, -0x12_3456,
    ] {
        for reg in [F0, F1] {
            let far = Far::new();
            far.set(i64::from(disp), 2.75_f64.to_bits());
            let mut before = State::new();
            before.set(Data, far.middle());
            let mut after = before.clone();
            Code::new(|masm| masm.fload(reg, Data.offset(disp))).run(&mut after);
            let mut expected = before.clone();
            expected.set_float(reg, 2.75);
            assert_eq!(after, expected, "{disp}");
            let mut after = before.clone();
            Code::new(|masm| masm.fstore(Data.offset(disp), reg)).run(&mut after);
            assert_eq!(after, before, "{disp}");
            assert_eq!(far.get(i64::from(disp)), before.get_float(reg).to_bits());
        }
    }
}

#[test]
fn branches_with_every_kind_of_value() {
    let conditions: [(Cond, Comparison); 8] = [
        (Cond::Eq, |a, b| a == b),
        (Cond::Ne, |a, b| a != b),
        (Cond::Lt, |a, b| a < b),
        (Cond::Le, |a, b| a <= b),
        (Cond::Gt, |a, b| a > b),
        (Cond::Ge, |a, b| a >= b),
        (Cond::Below, |a, b| a < b),
        (Cond::AboveEq, |a, b| a >= b),
    ];
    for (cond, holds) in conditions {
        for (x, y) in [(F0, F1), (F1, F0)] {
            let code = branch_code(|masm, taken| masm.fbranch(cond, x, y, taken));
            for (a, b) in pairs() {
                let mut state = State::new();
                state.set_float(x, a);
                state.set_float(y, b);
                assert_eq!(code.taken(&state), holds(a, b), "{a} {cond:?} {b}");
            }
        }
    }
    for reg in [F0, F1] {
        let code = branch_code(|masm, taken| masm.fbranch_zero(reg, taken));
        for a in FLOATS {
            let mut state = State::new();
            state.set_float(reg, a);
            assert_eq!(code.taken(&state), a == 0.0, "{a}");
        }
    }
}
