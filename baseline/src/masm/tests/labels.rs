//! Executing tests of labels: near ones, many at once, and branches back over short and long distances.

use hotstamp_runtime::site::CodePtr;

use super::harness::{Code, State, word};
use crate::masm::Reg::*;
use crate::masm::aarch64::Aarch64;
use crate::masm::x86_64::X86_64;
use crate::masm::{Alu, Cond, MacroAssembler};

/// Near labels whose branches are nested, interleaved, doubled, and mixed with those of other labels.
#[test]
fn near_labels_of_any_order() {
    let code = Code::new(|masm| {
        let (outer, inner, twice) = (
            masm.new_near_label(),
            masm.new_near_label(),
            masm.new_near_label(),
        );
        let (far, end) = (masm.new_label(), masm.new_label());
        masm.branch_bits_set(A1, 1, outer);
        masm.branch_bits_set(A1, 2, twice);
        masm.branch_bits_set(A1, 4, far);
        masm.branch_bits_set(A1, 8, inner);
        masm.alu_imm(Alu::Add, T3, 1);
        masm.bind(inner);
        masm.alu_imm(Alu::Add, T3, 10);
        masm.branch_bits_set(A1, 16, twice);
        masm.alu_imm(Alu::Add, T3, 100);
        masm.bind(outer);
        masm.alu_imm(Alu::Add, T3, 1000);
        masm.bind(twice);
        masm.jump(end);
        masm.bind(far);
        masm.alu_imm(Alu::Add, T3, 10_000);
        // A near label that is bound is a label as any other.
        masm.jump(outer);
        masm.bind(end);
    });
    for bits in 0..32_u64 {
        let expected = match bits {
            _ if bits & 1 != 0 => 1000,
            _ if bits & 2 != 0 => 0,
            _ if bits & 4 != 0 => 11_000,
            _ => {
                let first = if bits & 8 != 0 { 10 } else { 11 };
                first + if bits & 16 != 0 { 0 } else { 1100 }
            }
        };
        let mut state = State::new();
        state.set(A1, bits);
        state.set(T3, 0);
        let mut after = state.clone();
        after.set(T3, expected);
        code.run(&mut state);
        assert_eq!(state, after, "{bits:#b}");
    }
}

/// A loop whose back edge has each length around where encodings change.
#[test]
fn branches_back_over_any_distance() {
    for padding in (0..60).chain([1000, 15_000]) {
        for conditional in [false, true] {
            let code = Code::new(|masm| {
                let labels = masm.new_labels(3);
                let (again, done) = (labels.nth(1), labels.nth(2));
                masm.bind(again);
                for _ in 0..padding {
                    masm.mov(T0, T1);
                }
                masm.add64_mem(word(0), 3);
                masm.alu_imm(Alu::Sub, T3, 1);
                if conditional {
                    masm.branch_cmp_imm(Cond::Ne, T3, 0, again);
                } else {
                    masm.branch_cmp_imm(Cond::Eq, T3, 0, done);
                    masm.jump(again);
                }
                masm.bind(done);
            });
            let mut state = State::new();
            state.set(T3, 7);
            state.memory[0] = 5;
            code.run(&mut state);
            assert_eq!(state.memory[0], 5 + 21, "{padding} {conditional}");
        }
    }
}

#[test]
fn near_labels_must_be_near_and_bound() {
    fn assemble<M: MacroAssembler>(padding: usize, bound: bool) -> Result<Vec<u8>, String> {
        let mut masm = M::new(CodePtr(0x10_0000 as *const u8));
        let label = masm.new_near_label();
        masm.branch_bits_set(A1, 1, label);
        let end = masm.position() + padding;
        while masm.position() < end {
            masm.mov(T0, T1);
        }
        if bound {
            masm.bind(label);
        }
        masm.ret();
        masm.finish().map_err(|error| error.to_string())
    }
    for padding in [0, 100] {
        assert!(assemble::<X86_64>(padding, true).is_ok());
        assert!(assemble::<Aarch64>(padding, true).is_ok());
        assert!(assemble::<X86_64>(padding, false).is_err());
        assert!(assemble::<Aarch64>(padding, false).is_err());
    }
    assert!(assemble::<X86_64>(200, true).is_err());
}
