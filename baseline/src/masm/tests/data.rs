//! Executing tests of moves, memory accesses and integer arithmetic.

use super::harness::{Code, FREE, Far, Host, State, WORDS, alias, check, word};
use crate::masm::Reg::*;
use crate::masm::{Alu, MacroAssembler, Mem, Reg, Shift};

/// Integers at the edges of what encodings and conditions tell apart.
pub const INTEGERS: [i64; 17] = [
    0,
    1,
    -1,
    2,
    7,
    -8,
    0x7fff_ffff,
    -0x8000_0000,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    -0x1_0000_0001,
    0x1234_5678_9abc_def0,
    -0x1234_5678_9abc_def0,
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
];

/// Immediates at the edges of what encodings hold.
pub const IMMEDIATES: [i32; 25] = [
    0,
    1,
    -1,
    2,
    3,
    127,
    128,
    -128,
    -129,
    0xff,
    4095,
    -4095,
    4096,
    -4096,
    0x5001,
    -0x5001,
    0x00ff_f000,
    -0x00ff_f000,
    0x0100_0000,
    0x1234_5678,
    -0x1234_5678,
    0x5555_5555,
    i32::MAX,
    i32::MIN,
    i32::MIN + 1,
];

/// Displacements at the edges of what encodings reach, of either alignment.
const DISPLACEMENTS: [i32; 30] = [
    0, 1, 8, 124, 127, 128, 248, 255, 256, 257, 4088, 4095, 4096, 8190, 8192, 16380, 16384, 32760,
    32767, 32768, 65536, 0x12_3456, 0x1ff_f000, -1, -8, -128, -256, -257, -32768, -0x12_3456,
];

#[test]
fn mov_between_all_roles() {
    for dst in FREE {
        for src in FREE {
            let change = |state: &mut State| state.set(dst, state.get(src));
            check(&State::new(), |masm| masm.mov(dst, src), change);
        }
        let code = Code::new(|masm| {
            masm.mov(dst, Frame);
            masm.store(word(0), dst);
        });
        let mut state = State::new();
        let address = &raw mut state as u64;
        code.run(&mut state);
        let seen = (state.get(dst), state.memory[0]);
        assert_eq!(seen, (address, address), "{dst:?} = Frame");
    }
}

#[test]
fn mov_imm_of_every_shape() {
    let halves = [0, 0xffff, 0x1234, 0x8000, 0x00ff];
    let mut values: Vec<u64> = (0..halves.len().pow(4))
        .map(|n| {
            (0..4).fold(0, |value, i| {
                value << 16 | halves[n / halves.len().pow(i) % halves.len()]
            })
        })
        .collect();
    values.extend((0..64).flat_map(|bit| {
        [
            1 << bit,
            !(1 << bit),
            u64::MAX >> bit,
            u64::MAX << bit,
            0x5555_5555 << bit,
        ]
    }));
    values.extend(INTEGERS.map(|value| value as u64));
    values.extend(IMMEDIATES.map(|value| value as u64));
    for dst in [Acc, A1, T2, T4, Data] {
        // Chunks fit the code's capacity; what has been loaded is in the far memory.
        for chunk in values.chunks(500) {
            let far = Far::new();
            let base = if alias(dst, A2) { A3 } else { A2 };
            let code = Code::new(|masm| {
                for (i, &value) in chunk.iter().enumerate() {
                    masm.mov_imm(dst, value);
                    masm.store(base.at(8 * i), dst);
                }
            });
            let mut state = State::new();
            state.set(base, far.middle());
            let before = state.clone();
            code.run(&mut state);
            for (i, &value) in chunk.iter().enumerate() {
                assert_eq!(far.get(8 * i as i64), value, "{dst:?} = {value:#x}");
            }
            state.set(dst, before.get(dst));
            assert_eq!(state, before);
        }
    }
}

/// Checks an access to memory at all displacements: `code` gets the operand, `change` the state and the old word, and gives the new word.
fn check_access(
    displacements: &[i32],
    base: Reg,
    code: impl Fn(&mut Host, Mem),
    change: impl Fn(&mut State, u64) -> u64,
) {
    let old = 0xf1e2_d3c4_b5a6_9788;
    let (below, above) = (0x1111_2222_3333_4444, 0x5555_6666_7777_8888);
    for &disp in displacements {
        let far = Far::new();
        let place = i64::from(disp);
        far.set(place - 8, below);
        far.set(place, old);
        far.set(place + 8, above);
        let mut state = State::new();
        state.set(base, far.middle());
        let mut expected = state.clone();
        let new = change(&mut expected, old);
        Code::new(|masm| code(masm, base.offset(disp))).run(&mut state);
        assert_eq!(state, expected, "displacement {disp}");
        let words = [place - 8, place, place + 8].map(|place| far.get(place));
        assert_eq!(words, [below, new, above], "displacement {disp}");
    }
}

#[test]
fn loads_of_every_width() {
    for (dst, base) in [
        (A1, T0),
        (Acc, Data),
        (T2, Tstate),
        (T4, T2),
        (A3, A3),
        (A0, A0),
    ] {
        let access = |code: &dyn Fn(&mut Host, Mem), mask: u64| {
            check_access(&DISPLACEMENTS, base, code, |state, word| {
                state.set(dst, word & mask);
                word
            });
        };
        access(&|masm, mem| masm.load(dst, mem), u64::MAX);
        access(&|masm, mem| masm.load32(dst, mem), 0xffff_ffff);
        access(&|masm, mem| masm.load16(dst, mem), 0xffff);
        access(&|masm, mem| masm.load8(dst, mem), 0xff);
    }
}

#[test]
fn stores_of_every_width() {
    for base in [T0, Data, Tstate, T2] {
        for src in FREE.into_iter().filter(|&src| !alias(src, base)) {
            let displacements = if src == Acc {
                &DISPLACEMENTS[..]
            } else {
                &DISPLACEMENTS[..3]
            };
            let access = |code: &dyn Fn(&mut Host, Mem), mask: u64| {
                check_access(displacements, base, code, |state, word| {
                    word & !mask | state.get(src) & mask
                });
            };
            access(&|masm, mem| masm.store(mem, src), u64::MAX);
            access(&|masm, mem| masm.store32(mem, src), 0xffff_ffff);
            access(&|masm, mem| masm.store8(mem, src), 0xff);
        }
    }
}

#[test]
fn stores_of_immediates() {
    for value in IMMEDIATES {
        let displacements = if value == 0x1234_5678 {
            &DISPLACEMENTS[..]
        } else {
            &DISPLACEMENTS[..1]
        };
        let wide = i64::from(value) as u64;
        let narrow = u64::from(value as u32);
        check_access(
            displacements,
            T3,
            |masm, mem| masm.store_imm(mem, value),
            |_, _| wide,
        );
        check_access(
            displacements,
            T3,
            |masm, mem| masm.store32_imm(mem, value),
            |_, word| word & !0xffff_ffff | narrow,
        );
    }
}

#[test]
fn indexed_accesses() {
    for index in [0_i64, 1, -1, 3, 1000, -100_000] {
        for disp in DISPLACEMENTS {
            let far = Far::new();
            let place = index * 8 + i64::from(disp);
            far.set(place, 0xf1e2_d3c4_b5a6_9788);
            let mut before = State::new();
            before.set(T2, far.middle());
            before.set(Data, index as u64);
            check(
                &before,
                |masm| masm.load_indexed(A5, T2, Data, disp),
                |state| state.set(A5, 0xf1e2_d3c4_b5a6_9788),
            );
            check(
                &before,
                |masm| masm.store_indexed(T2, Data, disp, T4),
                |_| (),
            );
            assert_eq!(far.get(place), before.get(T4));
            let address = far.middle().wrapping_add_signed(place);
            for dst in [A1, T2] {
                check(
                    &before,
                    |masm| masm.lea_indexed(dst, T2, Data, disp),
                    |state| state.set(dst, address),
                );
            }
        }
    }
}

#[test]
fn lea_of_every_displacement() {
    for disp in DISPLACEMENTS.into_iter().chain(IMMEDIATES) {
        for dst in [A1, T2] {
            let sum = |state: &mut State| {
                state.set(dst, state.get(T2).wrapping_add_signed(i64::from(disp)))
            };
            check(&State::new(), |masm| masm.lea(dst, T2.offset(disp)), sum);
        }
    }
}

const ALUS: [Alu; 5] = [Alu::Add, Alu::Sub, Alu::And, Alu::Or, Alu::Xor];

fn compute(op: Alu, a: u64, b: u64) -> u64 {
    match op {
        Alu::Add => a.wrapping_add(b),
        Alu::Sub => a.wrapping_sub(b),
        Alu::And => a & b,
        Alu::Or => a | b,
        Alu::Xor => a ^ b,
    }
}

#[test]
fn alu_of_registers() {
    for op in ALUS {
        for (dst, src) in [(A1, T4), (Acc, A1), (T2, Data), (T0, T0)] {
            let code = Code::new(|masm| masm.alu(op, dst, src));
            for (a, b) in pairs() {
                let mut state = State::new();
                state.set(dst, a as u64);
                state.set(src, b as u64);
                let mut expected = state.clone();
                expected.set(dst, compute(op, state.get(dst), state.get(src)));
                code.run(&mut state);
                assert_eq!(state, expected);
            }
        }
    }
}

pub fn pairs() -> impl Iterator<Item = (i64, i64)> {
    INTEGERS
        .into_iter()
        .flat_map(|a| INTEGERS.into_iter().map(move |b| (a, b)))
}

#[test]
fn alu_of_immediates() {
    let masks = [1, 3, 7, 0xff, -4, -8, 0x0ff0, 0x7fff_fff8];
    for op in ALUS {
        for value in IMMEDIATES.into_iter().chain(masks) {
            for dst in [A1, T3] {
                let code = Code::new(|masm| masm.alu_imm(op, dst, value));
                for a in INTEGERS {
                    let mut state = State::new();
                    state.set(dst, a as u64);
                    let mut expected = state.clone();
                    expected.set(dst, compute(op, a as u64, i64::from(value) as u64));
                    code.run(&mut state);
                    assert_eq!(state, expected, "{op:?} {a:#x} {value:#x}");
                }
            }
        }
    }
}

#[test]
fn shifts_and_negation() {
    for a in INTEGERS {
        let mut before = State::new();
        before.set(T2, a as u64);
        for amount in [0, 1, 2, 3, 31, 32, 62, 63] {
            let results = [
                (Shift::Left, (a as u64) << amount),
                (Shift::RightLogical, a as u64 >> amount),
                (Shift::RightArithmetic, (a >> amount) as u64),
            ];
            for (op, result) in results {
                check(
                    &before,
                    |masm| masm.shift_imm(op, T2, amount),
                    |state| state.set(T2, result),
                );
            }
        }
        check(
            &before,
            |masm| masm.neg(T2),
            |state| state.set(T2, a.wrapping_neg() as u64),
        );
    }
}

#[test]
fn multiplication_and_its_overflow() {
    for (dst, src) in [(A1, T4), (Acc, A1), (T2, Data)] {
        let code = Code::new(|masm| {
            let (overflow, done) = (masm.new_label(), masm.new_label());
            masm.mul_overflow(dst, src, overflow);
            masm.store_imm(word(0), 0);
            masm.jump(done);
            masm.bind(overflow);
            // Undefined now.
            masm.mov_imm(dst, 0);
            masm.store_imm(word(0), 1);
            masm.bind(done);
        });
        let roots = [
            3_037_000_499,
            3_037_000_500,
            -3_037_000_500,
            1 << 31,
            1 << 32,
            -(1 << 32),
        ];
        let roots = roots
            .into_iter()
            .flat_map(|a| roots.into_iter().map(move |b| (a, b)));
        for (a, b) in pairs().chain(roots) {
            let mut state = State::new();
            state.set(dst, a as u64);
            state.set(src, b as u64);
            let mut expected = state.clone();
            let product = a.checked_mul(b);
            expected.set(dst, product.unwrap_or(0) as u64);
            expected.memory[0] = u64::from(product.is_none());
            code.run(&mut state);
            assert_eq!(state, expected, "{a} * {b}");
        }
    }
}

#[test]
fn additions_to_memory() {
    for value in IMMEDIATES {
        let displacements = if value == 1 || value == 0x1234_5678 {
            &DISPLACEMENTS[..]
        } else {
            &DISPLACEMENTS[..1]
        };
        let add32 = |_: &mut State, word: u64| {
            word & !0xffff_ffff | u64::from((word as u32).wrapping_add_signed(value))
        };
        let add64 = |_: &mut State, word: u64| word.wrapping_add_signed(i64::from(value));
        check_access(
            displacements,
            Data,
            |masm, mem| masm.add32_mem(mem, value),
            add32,
        );
        check_access(
            displacements,
            A1,
            |masm, mem| masm.add64_mem(mem, value),
            add64,
        );
    }
}

#[test]
fn decrement_and_branch() {
    for count in [1_u64, 2, 0, 0x8000_0000, 0xffff_ffff] {
        for high in [0, 0x1234_5678_0000_0000] {
            for if_zero in [true, false] {
                let mut before = State::new();
                before.memory[2] = high | count;
                let code = |masm: &mut Host| {
                    let (taken, done) = (masm.new_label(), masm.new_label());
                    match if_zero {
                        true => masm.dec32_mem_branch_zero(word(2), taken),
                        false => masm.dec32_mem_branch_not_zero(word(2), taken),
                    }
                    masm.store_imm(word(WORDS - 1), 0);
                    masm.jump(done);
                    masm.bind(taken);
                    masm.store_imm(word(WORDS - 1), 1);
                    masm.bind(done);
                };
                check(&before, code, |state| {
                    state.memory[2] = high | u64::from((count as u32).wrapping_sub(1));
                    state.memory[WORDS - 1] = u64::from((count == 1) == if_zero);
                });
            }
        }
    }
    for if_zero in [true, false] {
        let decrement = |masm: &mut Host, mem| {
            let next = masm.new_label();
            match if_zero {
                true => masm.dec32_mem_branch_zero(mem, next),
                false => masm.dec32_mem_branch_not_zero(mem, next),
            }
            masm.bind(next);
        };
        check_access(&DISPLACEMENTS, T1, decrement, |_, word| word - 1);
    }
}
