//! Executing tests of comparisons, branches, calls and native frames.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use hotstamp_runtime::site::CodePtr;

use super::data::{IMMEDIATES, INTEGERS, pairs};
use super::harness::{Code, FREE, Host, State, branch_code, check, load_state, store_state, word};
use crate::masm::Reg::*;
use crate::masm::{Alu, Cond, MacroAssembler, Reg};

const CONDITIONS: [Cond; 8] = [
    Cond::Eq,
    Cond::Ne,
    Cond::Lt,
    Cond::Le,
    Cond::Gt,
    Cond::Ge,
    Cond::Below,
    Cond::AboveEq,
];

fn holds(cond: Cond, a: i64, b: i64) -> bool {
    match cond {
        Cond::Eq => a == b,
        Cond::Ne => a != b,
        Cond::Lt => a < b,
        Cond::Le => a <= b,
        Cond::Gt => a > b,
        Cond::Ge => a >= b,
        Cond::Below => (a as u64) < b as u64,
        Cond::AboveEq => a as u64 >= b as u64,
    }
}

/// For 32 bits, as the low bits of `a` and `b` have it.
fn holds32(cond: Cond, a: i64, b: i64) -> bool {
    holds(cond, i64::from(a as i32), i64::from(b as i32))
}

#[test]
fn negated_conditions() {
    for cond in CONDITIONS {
        for (a, b) in pairs() {
            assert_ne!(holds(cond, a, b), holds(cond.negated(), a, b));
        }
    }
}

#[test]
fn comparisons_of_registers_and_memory() {
    for cond in CONDITIONS {
        for (a, b) in [(A1, T4), (Acc, A1), (T2, Data)] {
            let codes = [
                branch_code(|masm, taken| masm.branch_cmp(cond, a, b, taken)),
                branch_code(|masm, taken| masm.branch_cmp_mem(cond, a, word(1), taken)),
                branch_code(|masm, taken| masm.branch_cmp32_mem(cond, a, word(1), taken)),
            ];
            for (x, y) in pairs() {
                let mut state = State::new();
                state.set(a, x as u64);
                state.set(b, y as u64);
                state.memory[1] = y as u64;
                let taken = codes.each_ref().map(|code| code.taken(&state));
                let wide = holds(cond, x, y);
                assert_eq!(
                    taken,
                    [wide, wide, holds32(cond, x, y)],
                    "{x:#x} {cond:?} {y:#x}"
                );
            }
        }
    }
}

#[test]
fn comparisons_with_immediates() {
    for cond in CONDITIONS {
        for value in IMMEDIATES {
            let codes = [
                branch_code(|masm, taken| masm.branch_cmp_imm(cond, T3, value, taken)),
                branch_code(|masm, taken| masm.branch_mem_imm(cond, word(1), value, taken)),
                branch_code(|masm, taken| masm.branch_mem32_imm(cond, word(1), value, taken)),
            ];
            let value = i64::from(value);
            for x in INTEGERS
                .into_iter()
                .chain([value, value - 1, value + 1, -value])
            {
                let mut state = State::new();
                state.set(T3, x as u64);
                state.memory[1] = x as u64;
                let taken = codes.each_ref().map(|code| code.taken(&state));
                let wide = holds(cond, x, value);
                assert_eq!(
                    taken,
                    [wide, wide, holds32(cond, x, value)],
                    "{x:#x} {cond:?} {value:#x}"
                );
            }
        }
    }
}

#[test]
fn tests_of_bits() {
    let masks = [
        1,
        2,
        3,
        0x40,
        0x80,
        0x81,
        0x100,
        0xff00,
        0x1235,
        0x8000_0000,
        0x8000_0001,
        0x5555_5555,
        u32::MAX,
    ];
    for mask in masks {
        for reg in [Acc, A0, A1, A3, T0, T2, T4] {
            let codes = [
                branch_code(|masm, taken| masm.branch_bits_set(reg, mask, taken)),
                branch_code(|masm, taken| masm.branch_bits_clear(reg, mask, taken)),
                branch_code(|masm, taken| masm.branch_mem32_bits_set(word(1), mask, taken)),
                branch_code(|masm, taken| masm.branch_mem32_bits_clear(word(1), mask, taken)),
            ];
            for x in INTEGERS
                .into_iter()
                .chain([0x80, 0x8000, !i64::from(mask), i64::from(mask)])
            {
                let mut state = State::new();
                state.set(reg, x as u64);
                state.memory[1] = x as u64;
                let taken = codes.each_ref().map(|code| code.taken(&state));
                let set = x as u32 & mask != 0;
                assert_eq!(taken, [set, !set, set, !set], "{x:#x} & {mask:#x}");
            }
        }
    }
}

#[test]
fn native_stack_pointer() {
    let mut state = State::new();
    Code::new(|masm| {
        masm.native_stack_pointer(T0);
        masm.push_pair(A1, A2);
        masm.native_stack_pointer(T1);
        masm.load(T3, T1.at(0));
        masm.load(T4, T1.at(8));
        masm.pop_pair(A1, A2);
        masm.native_stack_pointer(T2);
    })
    .run(&mut state);
    let [stack, pushed, popped] = [T0, T1, T2].map(|reg| state.get(reg));
    let local = &raw const state as u64;
    assert!(stack.abs_diff(local) < 1 << 20, "{stack:#x}, {local:#x}");
    assert_eq!((stack % 16, pushed, popped), (0, stack - 16, stack));
    // The order of a pair in memory.
    assert_eq!(
        [T3, T4].map(|reg| state.get(reg)),
        [A2, A1].map(|reg| state.get(reg))
    );
}

#[test]
fn below_the_native_stack_pointer() {
    for bytes in [0, 0x1000, 0x2_0000, 0xff_f000] {
        let mut state = State::new();
        Code::new(|masm| {
            masm.native_stack_pointer(T0);
            masm.native_stack_below(T1, bytes);
            masm.native_stack_pointer(T2);
        })
        .run(&mut state);
        let [stack, below, after] = [T0, T1, T2].map(|reg| state.get(reg));
        assert_eq!((below, after), (stack - u64::from(bytes), stack));
    }
}

#[test]
fn return_addresses_inside_of_a_stub() {
    let called_at = Cell::new(0);
    let code = with_function(
        |masm| {
            masm.stub_enter();
            masm.stub_return_address(T0);
            masm.body_return_address(A4);
            masm.stub_exit();
            masm.ret();
        },
        |masm, stub| {
            masm.call_near(stub);
            called_at.set(masm.position());
        },
    );
    let mut state = State::new();
    code.run(&mut state);
    let start = code.start() as u64;
    assert_eq!(state.get(T0), start + called_at.get() as u64);
    assert_eq!(state.get(A4), start + code.trampoline_return as u64);
}

#[test]
fn calls_on_another_stack() {
    type CallOnStack = unsafe extern "C" fn(&mut [u64; 2], Callee, u64) -> u64;
    type Callee = extern "C" fn(&mut [u64; 2]) -> u64;
    extern "C" fn callee(seen: &mut [u64; 2]) -> u64 {
        change_everything();
        let local = 0_u128;
        seen[1] = &raw const local as u64;
        seen[0] + 1
    }
    let code = Code::with_capacity(4096, |masm, _| masm.call_on_stack());
    let mut memory = vec![0_u128; 16 << 10];
    let bounds = memory.as_mut_ptr_range();
    let mut seen = [41, 0];
    // SAFETY: the function is at the code's entry; the memory is a stack of 256 KiB, aligned as stacks are.
    let result = unsafe {
        let call: CallOnStack = std::mem::transmute(code.entry());
        call(&mut seen, callee, bounds.end as u64)
    };
    assert_eq!(result, 42);
    assert!((bounds.start as u64..bounds.end as u64).contains(&seen[1]));
    // What was below the callee's frames is untouched, and this stack is in use again.
    assert_eq!(memory[0], 0);
    let local = 0_u128;
    assert!((&raw const local as u64).abs_diff(&raw const seen as u64) < 1 << 16);
}

#[test]
fn jumps_to_addresses() {
    let target = Code::with_capacity(4096, |masm, _| {
        masm.store_imm(word(0), 5);
        store_state(masm);
        masm.body_return();
    });
    let mut before = State::new();
    before.set(T3, target.entry() as u64);
    before.memory[1] = target.entry() as u64;
    let jump_reg = |masm: &mut Host| masm.jump_reg(T3);
    let jump_mem = |masm: &mut Host| masm.jump_mem(word(1));
    check(&before, jump_reg, |state| state.memory[0] = 5);
    check(&before, jump_mem, |state| state.memory[0] = 5);
}

/// Code that has a function, or a stub, before its body; the body is given the function's address.
fn with_function(function: impl FnOnce(&mut Host), body: impl FnOnce(&mut Host, CodePtr)) -> Code {
    Code::with_capacity(64 << 10, |masm, address| {
        let start = masm.new_label();
        masm.jump(start);
        masm.align();
        let near = address.wrapping_add(masm.position());
        assert!((near as usize).is_multiple_of(16));
        function(masm);
        masm.align();
        masm.bind(start);
        masm.body_enter();
        load_state(masm);
        body(masm, CodePtr(near));
        store_state(masm);
        masm.body_return();
    })
}

#[test]
fn jumps_to_near_code() {
    for cond in CONDITIONS {
        for value in [0, 5, -5, 0x12_3456] {
            // The function is code of the body that is out of line.
            let code = with_function(
                |masm| {
                    masm.store_imm(word(0), 1);
                    store_state(masm);
                    masm.body_return();
                },
                |masm, near| {
                    masm.branch_cmp_imm_near(cond, A1, value, near);
                    masm.branch_cmp_imm_near(cond, T4, value, near);
                    masm.store_imm(word(0), 0);
                },
            );
            let value = i64::from(value);
            for (x, y) in INTEGERS
                .into_iter()
                .flat_map(|x| [(x, value), (value, x), (value - 1, value + 1)])
            {
                let mut state = State::new();
                state.set(A1, x as u64);
                state.set(T4, y as u64);
                let mut expected = state.clone();
                expected.memory[0] = u64::from(holds(cond, x, value) || holds(cond, y, value));
                code.run(&mut state);
                assert_eq!(state, expected, "{x:#x} or {y:#x} {cond:?} {value:#x}");
            }
        }
    }
    let code = with_function(
        |masm| {
            masm.store_imm(word(0), 1);
            store_state(masm);
            masm.body_return();
        },
        |masm, near| {
            masm.jump_near(near);
            masm.store_imm(word(0), 2);
        },
    );
    let mut state = State::new();
    code.run(&mut state);
    assert_eq!(state.memory[0], 1);
}

#[test]
fn calls_of_near_code() {
    let increment = |masm: &mut Host| {
        masm.alu_imm(Alu::Add, A1, 1);
        masm.ret();
    };
    for way in 0..3 {
        let code = with_function(increment, |masm, near| {
            for _ in 0..3 {
                masm.mov_imm(A3, near.0 as u64);
                masm.store(word(1), A3);
                match way {
                    0 => masm.call_near(near),
                    1 => masm.call_mem(word(1)),
                    _ => masm.call_reg(A3),
                }
            }
            masm.mov_imm(A3, 0);
            masm.store(word(1), A3);
        });
        let mut state = State::new();
        let mut expected = state.clone();
        expected.set(A1, state.get(A1) + 3);
        expected.set(A3, 0);
        expected.memory[1] = 0;
        code.run(&mut state);
        assert_eq!(state, expected);
    }
}

/// What `combine` was called with.
static CALLED_WITH: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// A C function with all register arguments. Its frame holds a value that the compiler stores aligned, which traps on a misaligned stack on x86-64.
extern "C" fn combine(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> u64 {
    #[repr(align(16))]
    struct Aligned([u64; 6]);
    let arguments = std::hint::black_box(Aligned([a, b, c, d, e, f]));
    assert!((&raw const arguments as usize).is_multiple_of(16));
    for (cell, value) in CALLED_WITH.iter().zip(arguments.0) {
        cell.store(value, Ordering::Relaxed);
    }
    a.wrapping_mul(3).wrapping_add(f)
}

/// Locks `CALLED_WITH` for a test.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Checks what holds after `combine` was called with the arguments of `before`: its arguments and result, and the roles that calls preserve.
fn check_called(before: &State, after: &State) {
    // `Acc` was loaded last, and is `A0` on AArch64: `get` has the right value.
    let arguments = [A0, A1, A2, A3, A4, A5].map(|reg| before.get(reg));
    assert_eq!(
        CALLED_WITH
            .each_ref()
            .map(|cell| cell.load(Ordering::Relaxed)),
        arguments
    );
    assert_eq!(
        after.get(Acc),
        arguments[0].wrapping_mul(3).wrapping_add(arguments[5])
    );
    for reg in [Data, Tstate] {
        assert_eq!(after.get(reg), before.get(reg));
    }
    assert_eq!(after.memory, before.memory);
}

#[test]
fn calls_of_c_functions() {
    let _locked = ONE_AT_A_TIME.lock().unwrap();
    let before = State::new();
    let mut after = before.clone();
    Code::new(|masm| masm.call_c(combine as *const ())).run(&mut after);
    check_called(&before, &after);
}

#[test]
fn stubs_call_c_functions_and_return() {
    let _locked = ONE_AT_A_TIME.lock().unwrap();
    let before = State::new();
    let mut after = before.clone();
    with_function(
        |masm| {
            masm.stub_enter();
            masm.call_c(combine as *const ());
            // A C function may have changed it; here it surely has.
            masm.mov_imm(A3, 0);
            masm.stub_exit();
            masm.ret();
        },
        |masm, stub| masm.call_near(stub),
    )
    .run(&mut after);
    check_called(&before, &after);
    assert_eq!(after.get(A3), before.get(A3));
}

#[test]
fn stubs_align_the_stack_and_keep_registers() {
    let mut after = State::new();
    with_function(
        |masm| {
            masm.stub_enter();
            masm.native_stack_pointer(T0);
            masm.push_pair(A1, T4);
            masm.push_pair(T2, Data);
            masm.native_stack_pointer(T1);
            for reg in [A1, T4, T2, Data] {
                masm.mov_imm(reg, 0);
            }
            masm.pop_pair(T2, Data);
            masm.pop_pair(A1, T4);
            masm.stub_exit();
            masm.ret();
        },
        |masm, stub| masm.call_near(stub),
    )
    .run(&mut after);
    let (in_stub, pushed) = (after.get(T0), after.get(T1));
    assert_eq!((in_stub % 16, pushed), (0, in_stub - 32));
    let mut expected = State::new();
    expected.set(T0, in_stub);
    expected.set(T1, pushed);
    assert_eq!(after, expected);
}

#[test]
fn pairs_of_one_register() {
    let change = |masm: &mut Host, a, b| {
        masm.push_pair(a, b);
        masm.mov_imm(a, 0);
        masm.pop_pair(a, b);
    };
    for (a, b) in [(A1, A1), (Acc, A0), (A0, Acc)] {
        check(&State::new(), |masm| change(masm, a, b), |_| ());
    }
}

#[test]
fn stubs_that_leave_their_body() {
    for entered in [false, true] {
        let mut after = State::new();
        with_function(
            |masm| {
                if entered {
                    masm.stub_enter();
                    masm.push_pair(A1, A2);
                    masm.pop_pair(A1, A2);
                    masm.mov_imm(A3, 0);
                    masm.stub_abandon();
                } else {
                    masm.stub_abandon_early();
                }
                masm.native_stack_pointer(T1);
                store_state(masm);
                masm.body_return();
            },
            |masm, stub| {
                masm.native_stack_pointer(T0);
                masm.call_near(stub);
                masm.store_imm(word(0), 1);
            },
        )
        .run(&mut after);
        let level = after.get(T0);
        let mut expected = State::new();
        expected.set(T0, level);
        expected.set(T1, level);
        assert_eq!(after, expected, "entered: {entered}");
    }
}

#[test]
fn trampoline_passes_its_arguments_and_result() {
    let mut state = State::new();
    let code = Code::with_capacity(4096, |masm, _| {
        masm.body_enter();
        masm.store(word(0), Frame);
        masm.store(word(1), Tstate);
        masm.store(word(2), Data);
        masm.mov_imm(Acc, 0x1234_5678_9abc);
        masm.body_return();
    });
    let frame = &raw mut state;
    assert_eq!(code.call(frame, 0x7777_8888, 0x5555_6666), 0x1234_5678_9abc);
    assert_eq!(state.memory[..3], [frame as u64, 0x7777_8888, 0x5555_6666]);
}

#[test]
fn trampoline_passes_two_further_arguments() {
    type Trampoline = unsafe extern "C" fn(*mut State, u64, *const u8, u64, u64, u64) -> u64;
    let mut state = State::new();
    let code = Code::with_capacity(4096, |masm, _| {
        masm.body_enter();
        masm.store(word(0), A4);
        masm.mov(Acc, A5);
        masm.body_return();
    });
    // SAFETY: the trampoline is at the code's beginning, and the body does what is checked.
    let result = unsafe {
        let trampoline: Trampoline = std::mem::transmute(code.start());
        trampoline(&raw mut state, 1, code.entry(), 2, 0x3333, 0x4444)
    };
    assert_eq!((result, state.memory[0]), (0x4444, 0x3333));
}

/// Runs code that changes all roles.
extern "C" fn change_everything() {
    let code = Code::new(|masm| {
        for (i, reg) in FREE.into_iter().enumerate() {
            masm.mov_imm(reg, i as u64);
        }
    });
    let mut state = State::new();
    code.run(&mut state);
    assert_eq!(state.get(Tstate), FREE.len() as u64 - 1);
}

#[test]
fn trampoline_preserves_what_its_caller_owns() {
    // Called from a body, as a C function: what C functions preserve has to survive a trampoline inside.
    let preserved: &[Reg] = if cfg!(target_arch = "x86_64") {
        &[T2, T3, T4, Data, Tstate]
    } else {
        &[Data, Tstate]
    };
    let before = State::new();
    let mut after = before.clone();
    Code::new(|masm| masm.call_c(change_everything as *const ())).run(&mut after);
    for &reg in preserved {
        assert_eq!(after.get(reg), before.get(reg), "{reg:?}");
    }
    assert_eq!(after.memory, before.memory);
}

#[test]
fn bodies_preserve_frame_and_data_of_their_caller() {
    // The body calls another, and tells afterwards whether its own registers are still there.
    let mut inner = State::new();
    let inner_address = &raw mut inner as u64;
    let mut after = State::new();
    with_function(
        |masm| {
            masm.body_enter();
            masm.store(word(0), Data);
            masm.mov_imm(Acc, 9);
            masm.body_return();
        },
        |masm, callee| {
            masm.mov_imm(A0, inner_address);
            masm.mov_imm(A1, 77);
            masm.call_near(callee);
        },
    )
    .run(&mut after);
    assert_eq!(inner.memory[0], 77);
    let mut expected = State::new();
    expected.set(A0, inner_address);
    expected.set(A1, 77);
    expected.set(Acc, 9);
    assert_eq!(after, expected);
}

#[test]
fn errors() {
    fn unbound<M: MacroAssembler>() -> String {
        let mut masm = M::new(CodePtr(0x10_0000 as *const u8));
        let label = masm.new_label();
        masm.branch_cmp_imm(Cond::Eq, A1, 0, label);
        masm.finish().unwrap_err().to_string()
    }
    fn too_far<M: MacroAssembler>(target: usize) -> bool {
        let mut masm = M::new(CodePtr(0x10_0000 as *const u8));
        masm.call_near(CodePtr(target as *const u8));
        masm.finish().is_err()
    }
    use crate::masm::{aarch64::Aarch64, x86_64::X86_64};
    for error in [unbound::<X86_64>(), unbound::<Aarch64>()] {
        assert!(
            error.starts_with("machine code cannot be relocated"),
            "{error}"
        );
    }
    let reach = [
        0x10_0000,
        0x10_0000 + (127 << 20),
        0x10_0000 + (129 << 20),
        0x10_0000 + (3 << 30),
    ];
    assert_eq!(reach.map(too_far::<Aarch64>), [false, false, true, true]);
    assert_eq!(reach.map(too_far::<X86_64>), [false, false, false, true]);
}
