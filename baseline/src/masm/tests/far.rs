//! Executing tests of code that is larger than the reach of AArch64's branches and literals.

use hotstamp_runtime::site::CodePtr;

use super::harness::{Code, Host, State, load_state, store_state, word};
use crate::masm::Reg::*;
use crate::masm::aarch64::Aarch64;
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
fn padding<M: MacroAssembler>(masm: &mut M, bytes: usize) {
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
fn branch_if_odd<M: MacroAssembler>(masm: &mut M, form: u64, target: Label) {
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

/// One of the many blocks of a program. Each changes T0 and may branch to any other.
struct Block {
    multiplier: u64,
    form: u64,
    target: usize,
    padding: usize,
    near: bool,
}

/// A program with a budget of blocks in T1, so that it ends. `address` is that of position 0.
fn assemble<M: MacroAssembler>(masm: &mut M, address: *const u8, program: &[Block]) {
    let labels: Vec<Label> = program.iter().map(|_| masm.new_label()).collect();
    let (start, end) = (masm.new_label(), masm.new_label());
    masm.jump(start);
    masm.align();
    let leave = CodePtr(address.wrapping_add(masm.position()));
    masm.jump(end);
    masm.bind(start);
    for (block, &label) in program.iter().zip(&labels) {
        masm.bind(label);
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
}

/// What the program makes of T0 and T1.
fn interpret(program: &[Block], mut value: u64, mut budget: u64) -> (u64, u64) {
    let mut at = 0;
    while let Some(block) = program.get(at) {
        budget -= 1;
        if budget == 0 {
            break;
        }
        value = value.wrapping_add(block.multiplier);
        value ^= value >> 7;
        at = if value & 1 == 1 { block.target } else { at + 1 };
    }
    (value, budget)
}

#[test]
fn random_control_flow() {
    // Blocks, and the most bytes of padding behind each: from what needs no island to what needs many.
    let shapes = [
        (200, 64),
        (2000, 40),
        (400, 2000),
        (300, 40_000),
        (40, 200_000),
        (20_000, 100),
        (3000, 2000),
    ];
    for (seed, (blocks, most_padding)) in shapes.into_iter().enumerate() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64 + 1));
        let program: Vec<Block> = (0..blocks)
            .map(|_| Block {
                multiplier: numbers.below(1 << 60) << 3 | 5,
                form: numbers.below(4),
                target: numbers.below(blocks) as usize,
                padding: numbers.below(most_padding) as usize,
                near: numbers.below(8) == 0,
            })
            .collect();
        // On every host: whether AArch64's branches reach is found out when they are assembled.
        let address = 0x10_0000 as *const u8;
        let mut masm = Aarch64::new(CodePtr(address));
        assemble(&mut masm, address, &program);
        masm.ret();
        masm.finish().unwrap();

        let code = large(|masm, address| assemble(masm, address, &program));
        for start in 0..50 {
            let budget = 3 * blocks;
            let mut state = State::new();
            state.set(T0, start);
            state.set(T1, budget);
            code.run(&mut state);
            assert_eq!(
                (state.get(T0), state.get(T1)),
                interpret(&program, start, budget),
                "seed {seed}, start {start}, {} bytes",
                code.bytes
            );
        }
    }
}
