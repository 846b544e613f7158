//! Golden disassembly: each group of methods on both architectures, to be read side by side.
//!
//! Every method of the trait is here; a test sees to it.

use std::fmt::Write;

use capstone::arch::{BuildsCapstone, arm64};
use capstone::prelude::*;
use hotstamp_runtime::site::CodePtr;
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use crate::masm::FReg::*;
use crate::masm::Reg::*;
use crate::masm::aarch64::Aarch64;
use crate::masm::x86_64::X86_64;
use crate::masm::{Alu, Cond, FAlu, Label, MacroAssembler, Reg, Shift};

/// Where the code is assembled for.
const ADDRESS: usize = 0x10_0000;
/// Code elsewhere in the same code memory.
const NEAR: CodePtr = CodePtr(0x20_0000 as *const u8);
/// A function of the process.
const FAR: *const () = 0x7f12_3456_7890_usize as *const ();

trait Disassemble: MacroAssembler {
    /// One line per instruction: address and text.
    fn disassemble(code: &[u8], address: u64) -> String;
}

impl Disassemble for X86_64 {
    fn disassemble(code: &[u8], address: u64) -> String {
        let mut formatter = IntelFormatter::new();
        formatter.options_mut().set_hex_prefix("0x");
        formatter.options_mut().set_hex_suffix("");
        formatter.options_mut().set_uppercase_hex(false);
        formatter.options_mut().set_branch_leading_zeros(false);
        let mut text = String::new();
        for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE).iter() {
            assert!(!instruction.is_invalid(), "not x86-64: {code:x?}");
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            writeln!(text, "    {:x}  {line}", instruction.ip()).unwrap();
        }
        text
    }
}

impl Disassemble for Aarch64 {
    fn disassemble(code: &[u8], address: u64) -> String {
        let capstone = Capstone::new()
            .arm64()
            .mode(arm64::ArchMode::Arm)
            .build()
            .unwrap();
        let instructions = capstone.disasm_all(code, address).unwrap();
        assert_eq!(instructions.len() * 4, code.len(), "not AArch64: {code:x?}");
        let mut text = String::new();
        for instruction in instructions.iter() {
            let (name, operands) = (instruction.mnemonic(), instruction.op_str());
            let line = format!("{} {}", name.unwrap(), operands.unwrap_or_default());
            writeln!(text, "    {:x}  {}", instruction.address(), line.trim_end()).unwrap();
        }
        text
    }
}

/// Assembles calls and remembers which bytes each gave.
struct Golden<M> {
    masm: M,
    calls: Vec<(String, usize)>,
    /// For the calls that need a label; bound at the end.
    label: Label,
}

impl<M: Disassemble> Golden<M> {
    fn of(group: impl FnOnce(&mut Golden<M>)) -> String {
        let mut masm = M::new(CodePtr(ADDRESS as *const u8));
        let label = masm.new_label();
        let mut golden = Golden {
            masm,
            calls: Vec::new(),
            label,
        };
        group(&mut golden);
        golden.masm.bind(label);
        golden
            .calls
            .push(("label:".to_owned(), golden.masm.position()));
        golden.masm.ret();
        let end = golden.masm.position();
        let code = golden.masm.finish().unwrap();
        let mut text = String::new();
        let ends = golden.calls[1..]
            .iter()
            .map(|(_, start)| *start)
            .chain([end]);
        for ((call, start), end) in golden.calls.iter().zip(ends) {
            writeln!(text, "{call}").unwrap();
            let address = (ADDRESS + start) as u64;
            text += &M::disassemble(&code[*start..end], address);
        }
        // What the assembler put behind the code: branches and literals. The literals are the last, and aligned.
        if end < code.len() {
            writeln!(text, "behind the code").unwrap();
            for (i, word) in code[end..].chunks(4).enumerate() {
                let word = u32::from_le_bytes(word.try_into().unwrap());
                writeln!(text, "    {:x}  .word 0x{word:08x}", ADDRESS + end + 4 * i).unwrap();
            }
        }
        text
    }
}

/// Assembles each call, with its own text as its title.
macro_rules! calls {
    ($golden:ident: $($method:ident($($argument:expr),*);)*) => {
        $({
            let arguments: &[&str] = &[$(stringify!($argument)),*];
            let arguments = arguments.join(", ").replace("golden.", "");
            let call = format!("{}({arguments})", stringify!($method));
            $golden.calls.push((call, $golden.masm.position()));
            $golden.masm.$method($($argument),*);
        })*
    };
}

/// A test that compares a group on both architectures with its snapshots.
macro_rules! group {
    ($name:ident, |$golden:ident| $body:block) => {
        #[test]
        fn $name() {
            fn group<M: Disassemble>($golden: &mut Golden<M>) $body
            insta::assert_snapshot!(concat!(stringify!($name), "_x86_64"), Golden::<X86_64>::of(group));
            insta::assert_snapshot!(concat!(stringify!($name), "_aarch64"), Golden::<Aarch64>::of(group));
        }
    };
}

group!(moves, |golden| {
    calls! { golden:
        mov(A1, T3);
        mov(Acc, A0);
        mov(A0, Acc);
        mov(T0, T0);
        mov(Frame, A2);
        mov_imm(A1, 0);
        mov_imm(A1, 1);
        mov_imm(T2, 0xffff);
        mov_imm(T2, 0x1234_0000);
        mov_imm(T2, 0x1234_5678);
        mov_imm(T2, 0xffff_1234);
        mov_imm(T2, 0x1234_ffff);
        mov_imm(T2, 0x5555_5555);
        mov_imm(T2, 0x8000_0000_0000_0000);
        mov_imm(T2, 0x00ff_ff00_00ff_ff00);
        mov_imm(T2, u64::MAX);
        mov_imm(T2, -4_i64 as u64);
        mov_imm(T2, -70_000_i64 as u64);
        mov_imm(T2, 0x1234_ffff_5678_ffff);
        mov_imm(T2, 0x7f12_3456_7890);
        mov_imm(A1, 0x7f12_3456_7890);
        mov_imm(A1, 0x7f12_3456_78a0);
        native_stack_pointer(T1);
        native_stack_below(T0, 0x2_0000);
        native_stack_below(Acc, 0x1000);
    }
});

group!(loads_and_stores, |golden| {
    calls! { golden:
        load(Acc, Frame.at(0));
        load(A1, Frame.at(8));
        load(A5, T2.at(0));
        load(T2, Tstate.at(0));
        load(T4, Data.at(0));
        load(T4, Data.at(0x7ff8));
        load(T4, Data.at(0x8000));
        load(T4, Data.at(0x12_3458));
        load(T4, Data.offset(-8));
        load(T4, Data.offset(-256));
        load(T4, Data.offset(-264));
        load(A2, A3.at(3));
        load(A2, A3.at(0x1001));
        load32(Acc, A1.at(4));
        load32(T0, Data.at(0x3ffc));
        load32(T0, Data.at(0x4000));
        load32(T0, Data.offset(-4));
        load16(Acc, A1.at(2));
        load16(T0, Data.at(0x2000));
        load16(T0, Data.offset(-300));
        load8(Acc, A1.at(1));
        load8(T0, Data.at(0xfff));
        load8(T0, Data.at(0x1000));
        store(Frame.at(0x48), Acc);
        store(Tstate.at(0), T3);
        store(Data.at(0x8000), A0);
        store32(Frame.at(0x44), Acc);
        store32(Data.offset(-1000), T4);
        store8(Frame.at(0x43), Acc);
        store8(Frame.at(0x43), A0);
        store8(Frame.at(0x43), A1);
        store8(Frame.at(0x43), A2);
        store8(T0.at(0), T2);
        store8(Frame.at(0), T2);
        store8(Data.at(0x2000), T4);
        store_imm(Frame.at(0x40), 0);
        store_imm(Frame.at(0x40), 1);
        store_imm(Frame.at(0x40), -1);
        store_imm(Data.at(0x8000), 0x12_3456);
        store32_imm(Frame.at(0x40), 0);
        store32_imm(Frame.at(0x40), -2);
        store32_imm(Data.at(0x8000), 0x12_3456);
    }
});

group!(indexed, |golden| {
    calls! { golden:
        load_indexed(Acc, A1, A2, 0);
        load_indexed(T3, Data, T4, 0x18);
        load_indexed(T3, T2, T1, 0);
        load_indexed(T3, Data, Data, 0x8000);
        store_indexed(A1, A2, 0, Acc);
        store_indexed(Data, T4, 0x18, T3);
        store_indexed(Data, T4, -0x8000, T3);
        lea(A1, Frame.at(0));
        lea(A1, Frame.at(0x50));
        lea(A1, Frame.at(0x5000));
        lea(A1, Frame.at(0x5008));
        lea(A1, Frame.offset(-0x58));
        lea(A1, Frame.offset(-0x5008));
        lea(A1, Frame.at(0x1234_5678));
        lea(T0, T0.at(0x1234_5678));
        lea(T0, T0.at(0));
        lea_indexed(T0, A1, A2, 0);
        lea_indexed(T0, A1, A2, 0x50);
        lea_indexed(A1, A1, A1, -0x50);
    }
});

group!(arithmetic, |golden| {
    calls! { golden:
        alu(Alu::Add, Acc, A1);
        alu(Alu::Sub, T0, T4);
        alu(Alu::And, A1, A2);
        alu(Alu::Or, A1, A2);
        alu(Alu::Xor, A1, A2);
        alu_imm(Alu::Add, A1, 1);
        alu_imm(Alu::Add, A1, -1);
        alu_imm(Alu::Add, A1, 0x1000);
        alu_imm(Alu::Add, A1, 0x1001);
        alu_imm(Alu::Add, A1, 0x1234_5678);
        alu_imm(Alu::Sub, A1, 8);
        alu_imm(Alu::Sub, A1, -8);
        alu_imm(Alu::Sub, A1, i32::MIN);
        alu_imm(Alu::And, A1, 3);
        alu_imm(Alu::And, A1, -4);
        alu_imm(Alu::And, A1, 0x1235);
        alu_imm(Alu::Or, Acc, 1);
        alu_imm(Alu::Or, T3, 0x1235);
        alu_imm(Alu::Xor, Acc, 1);
        alu_imm(Alu::Xor, T3, -3);
        alu_imm(Alu::Xor, T3, -0x1235);
        shift_imm(Shift::Left, T0, 3);
        shift_imm(Shift::RightLogical, A1, 63);
        shift_imm(Shift::RightArithmetic, A1, 2);
        mul_overflow(A1, T0, golden.label);
        neg(A2);
    }
});

group!(updates_of_memory, |golden| {
    calls! { golden:
        add32_mem(Data.at(0x20), 1);
        add32_mem(Data.at(0x20), -1);
        add32_mem(Data.at(0x20), 0x1234_5678);
        add32_mem(Data.at(0x8000), 1);
        add64_mem(Data.at(0x20), 8);
        add64_mem(Data.at(0x20), 0x1008);
        add64_mem(Data.offset(-0x12_3458), 0x1234_5678);
        dec32_mem_branch_zero(A0.at(0), golden.label);
        dec32_mem_branch_zero(Data.at(0x8004), golden.label);
        dec32_mem_branch_not_zero(A0.at(0), golden.label);
        dec32_mem_branch_not_zero(Data.at(0x8004), golden.label);
    }
});

group!(compare_and_branch, |golden| {
    calls! { golden:
        jump(golden.label);
        branch_cmp(Cond::Eq, A0, A1, golden.label);
        branch_cmp(Cond::Ne, A0, T4, golden.label);
        branch_cmp(Cond::Lt, A0, A1, golden.label);
        branch_cmp(Cond::Le, A0, A1, golden.label);
        branch_cmp(Cond::Gt, A0, A1, golden.label);
        branch_cmp(Cond::Ge, A0, A1, golden.label);
        branch_cmp(Cond::Below, A0, A1, golden.label);
        branch_cmp(Cond::AboveEq, A0, A1, golden.label);
        branch_cmp_imm(Cond::Eq, T0, 0, golden.label);
        branch_cmp_imm(Cond::Ne, T0, 0, golden.label);
        branch_cmp_imm(Cond::Lt, T0, 0, golden.label);
        branch_cmp_imm(Cond::Ge, T0, 0, golden.label);
        branch_cmp_imm(Cond::Le, T0, 0, golden.label);
        branch_cmp_imm(Cond::Below, T0, 0, golden.label);
        branch_cmp_imm(Cond::Eq, T0, 1, golden.label);
        branch_cmp_imm(Cond::Lt, T0, -1, golden.label);
        branch_cmp_imm(Cond::Lt, T0, 0x5000, golden.label);
        branch_cmp_imm(Cond::Lt, T0, -0x5000, golden.label);
        branch_cmp_imm(Cond::Lt, T0, 0x5001, golden.label);
        branch_cmp_imm(Cond::Lt, T0, -0x5001, golden.label);
        branch_cmp_mem(Cond::Eq, A1, Data.at(0x18), golden.label);
        branch_cmp_mem(Cond::Lt, T3, Data.at(0x8000), golden.label);
        branch_cmp32_mem(Cond::Ne, A1, Data.at(0x1c), golden.label);
        branch_cmp32_mem(Cond::Below, T3, T2.at(0), golden.label);
        branch_mem_imm(Cond::Eq, Data.at(0x18), 0, golden.label);
        branch_mem_imm(Cond::Lt, Data.at(0x18), 0, golden.label);
        branch_mem_imm(Cond::Gt, Data.at(0x8000), 0x12_3456, golden.label);
        branch_mem32_imm(Cond::Eq, Data.at(0x18), 0, golden.label);
        branch_mem32_imm(Cond::Ge, Data.at(0x18), 0, golden.label);
        branch_mem32_imm(Cond::Le, Data.at(0x18), -5, golden.label);
        branch_mem32_imm(Cond::Gt, Data.at(0x8000), 0x12_3456, golden.label);
    }
});

group!(bits, |golden| {
    calls! { golden:
        branch_bits_set(A0, 1, golden.label);
        branch_bits_clear(A0, 1, golden.label);
        branch_bits_set(T4, 0x8000_0000, golden.label);
        branch_bits_set(A2, 3, golden.label);
        branch_bits_clear(A2, 0x81, golden.label);
        branch_bits_clear(A2, 0x1235, golden.label);
        branch_mem32_bits_set(A1.at(8), 0x100, golden.label);
        branch_mem32_bits_clear(A1.at(8), 0x100, golden.label);
        branch_mem32_bits_set(A1.at(8), 0x6, golden.label);
        branch_mem32_bits_clear(A1.at(0x8000), 0x1235, golden.label);
    }
});

group!(jumps_and_calls, |golden| {
    calls! { golden:
        jump_reg(T0);
        jump_mem(Data.at(0x10));
        jump_mem(Data.at(0x8000));
        jump_near(NEAR);
        branch_cmp_imm_near(Cond::Eq, Acc, 0, NEAR);
        branch_cmp_imm_near(Cond::Lt, Acc, 0, NEAR);
        branch_cmp_imm_near(Cond::Ge, T1, 5, NEAR);
        branch_cmp_imm_near(Cond::Ne, Acc, 0, CodePtr(0x30_0000 as *const u8));
        call_reg(T0);
        call_mem(A3.at(0));
        call_mem(T2.at(0));
        call_mem(Data.at(0x10));
        call_mem(Data.at(0x8000));
        call_near(NEAR);
        call_c(FAR);
        call_c(FAR);
    }
});

group!(native_frames, |golden| {
    calls! { golden:
        align();
        body_enter();
        align();
        body_return();
        stub_enter();
        stub_return_address(T0);
        body_return_address(A4);
        stub_exit();
        stub_abandon();
        stub_abandon_early();
        ret();
        push_pair(A1, T4);
        pop_pair(A1, T4);
        push_pair(Acc, A0);
        pop_pair(Acc, A0);
        trampoline();
        call_on_stack();
    }
});

group!(floating_point, |golden| {
    calls! { golden:
        fload(F0, A1.at(0x10));
        fload(F1, T0.offset(-8));
        fload(F1, Data.at(0x8000));
        fstore(A1.at(0x10), F0);
        fstore(Data.offset(-0x8000), F1);
        falu(FAlu::Add, F0, F1);
        falu(FAlu::Sub, F1, F0);
        falu(FAlu::Mul, F0, F0);
        falu(FAlu::Div, F0, F1);
        fconvert(F0, Acc);
        fconvert(F1, T4);
        fbranch(Cond::Eq, F0, F1, golden.label);
        fbranch(Cond::Ne, F0, F1, golden.label);
        fbranch(Cond::Lt, F0, F1, golden.label);
        fbranch(Cond::Le, F0, F1, golden.label);
        fbranch(Cond::Gt, F0, F1, golden.label);
        fbranch(Cond::Ge, F0, F1, golden.label);
        fbranch_zero(F1, golden.label);
    }
});

#[test]
fn every_method_has_a_golden() {
    let declarations = include_str!("../mod.rs");
    let (_, declarations) = declarations.split_once("pub trait MacroAssembler").unwrap();
    let methods: Vec<&str> = declarations
        .lines()
        .filter_map(|line| line.trim().strip_prefix("fn ")?.split('(').next())
        .collect();
    assert!(methods.len() > 60, "{methods:?}");
    let here = include_str!("golden.rs");
    // Not calls of a group: what `Golden::of` itself uses, and what gives no code.
    let own = [
        "new",
        "position",
        "finish",
        "write_into",
        "new_label",
        "new_near_label",
        "new_labels",
        "bind",
        "note_instruction",
    ];
    for method in methods {
        let call = format!("\n        {method}(");
        assert!(
            own.contains(&method) || here.contains(&call),
            "{method} has no golden"
        );
    }
}

/// The two backends map all roles, and only `Acc` and `A0` to one register, on AArch64 only.
#[test]
fn roles_are_distinct() {
    let roles = super::harness::ROLES;
    let moves = |masm: &mut dyn FnMut(Reg, Reg) -> usize| {
        let mut same = Vec::new();
        for (i, &a) in roles.iter().enumerate() {
            for &b in &roles[i + 1..] {
                if masm(a, b) == 0 {
                    same.push((a, b));
                }
            }
        }
        same
    };
    fn bytes_of_mov<M: MacroAssembler>(a: Reg, b: Reg) -> usize {
        let mut masm = M::new(CodePtr(ADDRESS as *const u8));
        masm.mov(a, b);
        masm.position()
    }
    assert_eq!(moves(&mut bytes_of_mov::<X86_64>), []);
    assert_eq!(moves(&mut bytes_of_mov::<Aarch64>), [(Acc, A0)]);
}
