//! Executing tests of code that is larger than the reach of AArch64's branches and literals.

use hotstamp_runtime::site::CodePtr;

use super::harness::{Code, Host, State, load_state, store_state, word};
use crate::masm::Reg::*;
use crate::masm::{Alu, Cond, Label, MacroAssembler, Shift};

/// A small generator of numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Emits at least so many bytes that do nothing that is looked at.
fn padding(masm: &mut Host, bytes: usize) {
    let end = masm.position() + bytes;
    while masm.position() < end {
        masm.mov(T4, T3);
    }
}

/// A body, for code of up to 8 MiB.
fn large(code: impl FnOnce(&mut Host, *const u8)) -> Code {
    Code::with_capacity(8 << 20, |masm, address| {
        masm.body_enter();
        load_state(masm);
        code(masm, address);
        store_state(masm);
        masm.body_return();
    })
}

/// Assembles a branch that is taken if `T0` is odd, in one of the forms with different reach.
fn branch_if_odd(masm: &mut Host, form: u64, target: Label) {
    match form {
        0 => masm.branch_bits_set(T0, 1, target),
        1 => {
            masm.mov(T2, T0);
            masm.shift_imm(Shift::Left, T2, 63);
            masm.branch_cmp_imm(Cond::Lt, T2, 0, target);
        }
        2 => {
            masm.mov(T2, T0);
            masm.alu_imm(Alu::And, T2, 1);
            masm.branch_cmp_imm(Cond::Ne, T2, 0, target);
        }
        _ => {
            masm.mov(T2, T0);
            masm.alu_imm(Alu::And, T2, 1);
            masm.branch_cmp_imm(Cond::Eq, T2, 1, target);
        }
    }
}

const DISTANCES: [usize; 8] = [
    0,
    30 << 10,
    32 << 10,
    33 << 10,
    100 << 10,
    (1 << 20) - (40 << 10),
    1 << 20,
    5 << 20,
];

#[test]
fn branches_forward_over_any_distance() {
    for form in 0..4 {
        for distance in DISTANCES {
            let code = large(|masm, _| {
                let (target, done) = (masm.new_label(), masm.new_label());
                branch_if_odd(masm, form, target);
                masm.store_imm(word(0), 0);
                padding(masm, distance);
                masm.jump(done);
                masm.bind(target);
                masm.store_imm(word(0), 1);
                masm.bind(done);
            });
            for value in [0, 1, 6, 7] {
                let mut state = State::new();
                state.set(T0, value);
                code.run(&mut state);
                assert_eq!(
                    state.memory[0],
                    value % 2,
                    "form {form}, distance {distance}"
                );
            }
        }
    }
}

#[test]
fn branches_backward_over_any_distance() {
    for form in 0..4 {
        for distance in DISTANCES {
            // Counts the steps of T0 to its first even value under halving.
            let code = large(|masm, _| {
                let again = masm.new_label();
                masm.bind(again);
                masm.add64_mem(word(0), 1);
                masm.shift_imm(Shift::RightLogical, T0, 1);
                padding(masm, distance);
                branch_if_odd(masm, form, again);
            });
            for value in [0_u64, 1, 7, 0xff, 0xfffd] {
                let mut state = State::new();
                state.set(T0, value);
                state.memory[0] = 0;
                code.run(&mut state);
                let steps = u64::from((value >> 1).trailing_ones()) + 1;
                assert_eq!(state.memory[0], steps, "form {form}, distance {distance}");
            }
        }
    }
}

/// Programs of many blocks. Each block changes T0 and may branch to any other; a budget ends it. The same program runs as machine code and here.
#[test]
fn random_control_flow() {
    struct Block {
        multiplier: u64,
        form: u64,
        target: usize,
        padding: usize,
        near: bool,
    }
    for (seed, blocks, most_padding) in [
        (1, 200, 64),
        (2, 2000, 40),
        (3, 400, 2000),
        (4, 300, 40_000),
        (5, 40, 200_000),
        (6, 20_000, 100),
        (7, 3000, 2000),
    ] {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let program: Vec<Block> = (0..blocks)
            .map(|_| Block {
                multiplier: numbers.below(1 << 60) << 3 | 5,
                form: numbers.below(4),
                target: numbers.below(blocks) as usize,
                padding: numbers.below(most_padding) as usize,
                near: numbers.below(8) == 0,
            })
            .collect();
        let code = large(|masm, address| {
            let labels: Vec<Label> = program.iter().map(|_| masm.new_label()).collect();
            let (start, end) = (masm.new_label(), masm.new_label());
            masm.jump(start);
            masm.align();
            let leave = CodePtr(address.wrapping_add(masm.position()));
            masm.jump(end);
            masm.bind(start);
            for (block, &label) in program.iter().zip(&labels) {
                masm.bind(label);
                // A budget in T1, so that every program ends.
                masm.alu_imm(Alu::Sub, T1, 1);
                if block.near {
                    masm.branch_cmp_imm_near(Cond::Eq, T1, 0, leave);
                } else {
                    masm.branch_cmp_imm(Cond::Eq, T1, 0, end);
                }
                // A literal each.
                masm.mov_imm(A1, block.multiplier);
                masm.alu(Alu::Add, T0, A1);
                masm.mov(A1, T0);
                masm.shift_imm(Shift::RightLogical, A1, 7);
                masm.alu(Alu::Xor, T0, A1);
                branch_if_odd(masm, block.form, labels[block.target]);
                padding(masm, block.padding);
            }
            masm.bind(end);
        });
        for start in 0..50 {
            let budget = 3 * blocks;
            let mut state = State::new();
            state.set(T0, start);
            state.set(T1, budget);
            code.run(&mut state);
            let (mut value, mut left, mut at) = (start, budget, 0);
            while let Some(block) = program.get(at) {
                left -= 1;
                if left == 0 {
                    break;
                }
                value = value.wrapping_add(block.multiplier);
                value ^= value >> 7;
                at = if value & 1 == 1 { block.target } else { at + 1 };
            }
            assert_eq!(
                (state.get(T0), state.get(T1)),
                (value, left),
                "seed {seed}, start {start}, {} bytes",
                code.bytes
            );
        }
    }
}
