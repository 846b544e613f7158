//! The x86-64 backend. Mirrors `aarch64.rs`; the trait has the documentation.
//!
//! Private scratch: none but the flags; `call_c` goes through rax (`Acc`).

#![allow(
    clippy::useless_conversion,
    reason = "dynasm converts every register number"
)]

use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use hotstamp_runtime::site::CodePtr;

use super::{Alu, AssembleError, Cond, FAlu, FReg, Label, MacroAssembler, Mem, Reg, Shift};

/// See the module.
pub struct X86_64 {
    asm: VecAssembler<X64Relocation>,
    start: usize,
}

/// Machine register number of a role.
fn r(reg: Reg) -> u8 {
    match reg {
        Reg::Acc => 0,
        Reg::A0 => 7,
        Reg::A1 => 6,
        Reg::A2 => 2,
        Reg::A3 => 1,
        Reg::A4 => 8,
        Reg::A5 => 9,
        Reg::T0 => 10,
        Reg::T1 => 11,
        Reg::T2 => 5,
        Reg::T3 => 14,
        Reg::T4 => 15,
        Reg::Frame => 3,
        Reg::Data => 12,
        Reg::Tstate => 13,
    }
}

fn f(reg: FReg) -> u8 {
    match reg {
        FReg::F0 => 0,
        FReg::F1 => 1,
    }
}

/// REX prefix of a 64-bit operation.
const WIDE: u8 = 0x48;
/// REX prefix of a 32-bit operation: left out where no register needs it.
const NARROW: u8 = 0x40;

/// `/digit` of the operations that share the opcodes 81 and 83 (immediate operands).
#[derive(Clone, Copy)]
enum Group1 {
    Add = 0,
    Or = 1,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// A conditional jump to a label, or to `extern` code.
macro_rules! jump_if {
    ($self:ident, $cond:expr, $($target:tt)*) => {
        match $cond {
            Cond::Eq => dynasm!($self.asm ; .arch x64 ; je $($target)*),
            Cond::Ne => dynasm!($self.asm ; .arch x64 ; jne $($target)*),
            Cond::Lt => dynasm!($self.asm ; .arch x64 ; jl $($target)*),
            Cond::Le => dynasm!($self.asm ; .arch x64 ; jle $($target)*),
            Cond::Gt => dynasm!($self.asm ; .arch x64 ; jg $($target)*),
            Cond::Ge => dynasm!($self.asm ; .arch x64 ; jge $($target)*),
            Cond::Below => dynasm!($self.asm ; .arch x64 ; jb $($target)*),
            Cond::AboveEq => dynasm!($self.asm ; .arch x64 ; jae $($target)*),
        }
    };
}

impl X86_64 {
    /// REX, opcode, ModRM, SIB and displacement of an instruction with a memory operand, in the fewest bytes; `reg` is a register or an opcode's `/digit`. An
    /// immediate follows. (dynasm spends a REX and an SIB byte on every register number that it does not know when it is compiled.)
    fn memory(&mut self, rex: u8, opcode: &[u8], reg: u8, base: u8, index: Option<u8>, disp: i32) {
        let rex_bits =
            rex | (reg >> 3) << 2 | index.map_or(0, |index| (index >> 3) << 1) | base >> 3;
        if rex_bits != NARROW {
            self.asm.push(rex_bits);
        }
        for &byte in opcode {
            self.asm.push(byte);
        }
        let short = i8::try_from(disp);
        // Without a displacement, base 5 (rbp, r13) would mean another addressing mode.
        let mode = if disp == 0 && base & 7 != 5 {
            0x00
        } else if short.is_ok() {
            0x40
        } else {
            0x80
        };
        let reg = (reg & 7) << 3;
        match index {
            Some(index) => {
                // Scale 8; index 4 without REX (rsp) cannot be encoded and is no role.
                self.asm.push(mode | reg | 4);
                self.asm.push(0xc0 | (index & 7) << 3 | (base & 7));
            }
            // Base 4 (rsp, r12) needs an SIB byte.
            None if base & 7 == 4 => {
                self.asm.push(mode | reg | 4);
                self.asm.push(0x24);
            }
            None => self.asm.push(mode | reg | (base & 7)),
        }
        match (mode, short) {
            (0x00, _) => {}
            (_, Ok(disp)) => self.asm.push_i8(disp),
            (_, Err(_)) => self.asm.push_i32(disp),
        }
    }

    /// An instruction with a register or `/digit` and a memory operand.
    fn reg_mem(&mut self, rex: u8, opcode: &[u8], reg: u8, mem: Mem) {
        self.memory(rex, opcode, reg, r(mem.base), None, mem.disp);
    }

    /// `op [mem], imm`.
    fn mem_imm(&mut self, rex: u8, op: Group1, mem: Mem, imm: i32) {
        match i8::try_from(imm) {
            Ok(imm) => {
                self.reg_mem(rex, &[0x83], op as u8, mem);
                self.asm.push_i8(imm);
            }
            Err(_) => {
                self.reg_mem(rex, &[0x81], op as u8, mem);
                self.asm.push_i32(imm);
            }
        }
    }

    /// `op reg, imm`, 64 bits.
    fn reg_imm(&mut self, op: Group1, n: u8, imm: i32) {
        self.asm.push(WIDE | n >> 3);
        match i8::try_from(imm) {
            Ok(imm) => {
                self.asm.push(0x83);
                self.asm.push(0xc0 | (op as u8) << 3 | (n & 7));
                self.asm.push_i8(imm);
            }
            Err(_) => {
                self.asm.push(0x81);
                self.asm.push(0xc0 | (op as u8) << 3 | (n & 7));
                self.asm.push_i32(imm);
            }
        }
    }

    fn branch(&mut self, cond: Cond, target: Label) {
        let label = target.0;
        jump_if!(self, cond, =>label);
    }

    fn compare_imm(&mut self, a: Reg, value: i32) {
        let n = r(a);
        if value == 0 {
            dynasm!(self.asm ; .arch x64 ; test Rq(n), Rq(n));
        } else {
            self.reg_imm(Group1::Cmp, n, value);
        }
    }

    fn test_bits(&mut self, a: Reg, mask: u32) {
        let n = r(a);
        if mask < 0x80 {
            dynasm!(self.asm ; .arch x64 ; test Rb(n), BYTE mask as i8);
        } else {
            dynasm!(self.asm ; .arch x64 ; test Rd(n), DWORD mask as i32);
        }
    }

    fn test_mem32_bits(&mut self, mem: Mem, mask: u32) {
        self.reg_mem(NARROW, &[0xf7], 0, mem);
        self.asm.push_i32(mask as i32);
    }
}

impl MacroAssembler for X86_64 {
    fn new(address: CodePtr) -> Self {
        let start = address.0 as usize;
        X86_64 {
            asm: VecAssembler::new(start),
            start,
        }
    }

    fn position(&self) -> usize {
        self.asm.offset().0
    }

    fn finish(self) -> Result<Vec<u8>, AssembleError> {
        self.asm
            .finalize()
            .map_err(|error| AssembleError::Relocation(error.to_string()))
    }

    fn new_label(&mut self) -> Label {
        Label(self.asm.new_dynamic_label())
    }

    fn bind(&mut self, label: Label) {
        let label = label.0;
        dynasm!(self.asm ; .arch x64 ; =>label);
    }

    fn align(&mut self) {
        while !(self.start + self.position()).is_multiple_of(16) {
            dynasm!(self.asm ; .arch x64 ; int3);
        }
    }

    // ---- moves ----

    fn mov(&mut self, dst: Reg, src: Reg) {
        if dst != src {
            dynasm!(self.asm ; .arch x64 ; mov Rq(r(dst)), Rq(r(src)));
        }
    }

    fn mov_imm(&mut self, dst: Reg, value: u64) {
        let n = r(dst);
        if value == 0 {
            dynasm!(self.asm ; .arch x64 ; xor Rd(n), Rd(n));
        } else if value <= u64::from(u32::MAX) {
            dynasm!(self.asm ; .arch x64 ; mov Rd(n), DWORD value as u32 as i32);
        } else if let Ok(small) = i32::try_from(value as i64) {
            dynasm!(self.asm ; .arch x64 ; mov Rq(n), DWORD small);
        } else {
            dynasm!(self.asm ; .arch x64 ; mov Rq(n), QWORD value as i64);
        }
    }

    fn load(&mut self, dst: Reg, mem: Mem) {
        self.reg_mem(WIDE, &[0x8b], r(dst), mem);
    }

    fn load32(&mut self, dst: Reg, mem: Mem) {
        self.reg_mem(NARROW, &[0x8b], r(dst), mem);
    }

    fn load16(&mut self, dst: Reg, mem: Mem) {
        self.reg_mem(NARROW, &[0x0f, 0xb7], r(dst), mem);
    }

    fn load8(&mut self, dst: Reg, mem: Mem) {
        self.reg_mem(NARROW, &[0x0f, 0xb6], r(dst), mem);
    }

    fn store(&mut self, mem: Mem, src: Reg) {
        self.reg_mem(WIDE, &[0x89], r(src), mem);
    }

    fn store32(&mut self, mem: Mem, src: Reg) {
        self.reg_mem(NARROW, &[0x89], r(src), mem);
    }

    fn store8(&mut self, mem: Mem, src: Reg) {
        // Without any REX prefix, 4 to 7 are the second bytes of rax to rbx.
        if r(src) & 0xc == 4 && r(mem.base) < 8 {
            self.asm.push(NARROW);
        }
        self.reg_mem(NARROW, &[0x88], r(src), mem);
    }

    fn store_imm(&mut self, mem: Mem, value: i32) {
        self.reg_mem(WIDE, &[0xc7], 0, mem);
        self.asm.push_i32(value);
    }

    fn store32_imm(&mut self, mem: Mem, value: i32) {
        self.reg_mem(NARROW, &[0xc7], 0, mem);
        self.asm.push_i32(value);
    }

    fn load_indexed(&mut self, dst: Reg, base: Reg, index: Reg, disp: i32) {
        self.memory(WIDE, &[0x8b], r(dst), r(base), Some(r(index)), disp);
    }

    fn store_indexed(&mut self, base: Reg, index: Reg, disp: i32, src: Reg) {
        self.memory(WIDE, &[0x89], r(src), r(base), Some(r(index)), disp);
    }

    fn lea(&mut self, dst: Reg, mem: Mem) {
        if mem.disp == 0 {
            self.mov(dst, mem.base);
        } else {
            self.reg_mem(WIDE, &[0x8d], r(dst), mem);
        }
    }

    fn lea_indexed(&mut self, dst: Reg, base: Reg, index: Reg, disp: i32) {
        self.memory(WIDE, &[0x8d], r(dst), r(base), Some(r(index)), disp);
    }

    // ---- arithmetic ----

    fn alu(&mut self, op: Alu, dst: Reg, src: Reg) {
        let (d, s) = (r(dst), r(src));
        match op {
            Alu::Add => dynasm!(self.asm ; .arch x64 ; add Rq(d), Rq(s)),
            Alu::Sub => dynasm!(self.asm ; .arch x64 ; sub Rq(d), Rq(s)),
            Alu::And => dynasm!(self.asm ; .arch x64 ; and Rq(d), Rq(s)),
            Alu::Or => dynasm!(self.asm ; .arch x64 ; or Rq(d), Rq(s)),
            Alu::Xor => dynasm!(self.asm ; .arch x64 ; xor Rq(d), Rq(s)),
        }
    }

    fn alu_imm(&mut self, op: Alu, dst: Reg, value: i32) {
        let d = r(dst);
        match op {
            Alu::Add => self.reg_imm(Group1::Add, d, value),
            Alu::Sub => self.reg_imm(Group1::Sub, d, value),
            Alu::And => self.reg_imm(Group1::And, d, value),
            Alu::Or => self.reg_imm(Group1::Or, d, value),
            Alu::Xor => self.reg_imm(Group1::Xor, d, value),
        }
    }

    fn shift_imm(&mut self, op: Shift, dst: Reg, amount: u8) {
        let (d, amount) = (r(dst), amount as i8);
        match op {
            Shift::Left => dynasm!(self.asm ; .arch x64 ; shl Rq(d), BYTE amount),
            Shift::RightLogical => dynasm!(self.asm ; .arch x64 ; shr Rq(d), BYTE amount),
            Shift::RightArithmetic => dynasm!(self.asm ; .arch x64 ; sar Rq(d), BYTE amount),
        }
    }

    fn mul_overflow(&mut self, dst: Reg, src: Reg, overflow: Label) {
        let label = overflow.0;
        dynasm!(self.asm ; .arch x64 ; imul Rq(r(dst)), Rq(r(src)) ; jo =>label);
    }

    fn neg(&mut self, dst: Reg) {
        dynasm!(self.asm ; .arch x64 ; neg Rq(r(dst)));
    }

    fn add32_mem(&mut self, mem: Mem, value: i32) {
        self.mem_imm(NARROW, Group1::Add, mem, value);
    }

    fn add64_mem(&mut self, mem: Mem, value: i32) {
        self.mem_imm(WIDE, Group1::Add, mem, value);
    }

    fn dec32_mem_branch_zero(&mut self, mem: Mem, zero: Label) {
        self.mem_imm(NARROW, Group1::Sub, mem, 1);
        self.branch(Cond::Eq, zero);
    }

    fn dec32_mem_branch_not_zero(&mut self, mem: Mem, more: Label) {
        self.mem_imm(NARROW, Group1::Sub, mem, 1);
        self.branch(Cond::Ne, more);
    }

    // ---- comparisons and control ----

    fn jump(&mut self, target: Label) {
        let label = target.0;
        dynasm!(self.asm ; .arch x64 ; jmp =>label);
    }

    fn branch_cmp(&mut self, cond: Cond, a: Reg, b: Reg, target: Label) {
        dynasm!(self.asm ; .arch x64 ; cmp Rq(r(a)), Rq(r(b)));
        self.branch(cond, target);
    }

    fn branch_cmp_imm(&mut self, cond: Cond, a: Reg, value: i32, target: Label) {
        self.compare_imm(a, value);
        self.branch(cond, target);
    }

    fn branch_cmp_mem(&mut self, cond: Cond, a: Reg, mem: Mem, target: Label) {
        self.reg_mem(WIDE, &[0x3b], r(a), mem);
        self.branch(cond, target);
    }

    fn branch_cmp32_mem(&mut self, cond: Cond, a: Reg, mem: Mem, target: Label) {
        self.reg_mem(NARROW, &[0x3b], r(a), mem);
        self.branch(cond, target);
    }

    fn branch_mem_imm(&mut self, cond: Cond, mem: Mem, value: i32, target: Label) {
        self.mem_imm(WIDE, Group1::Cmp, mem, value);
        self.branch(cond, target);
    }

    fn branch_mem32_imm(&mut self, cond: Cond, mem: Mem, value: i32, target: Label) {
        self.mem_imm(NARROW, Group1::Cmp, mem, value);
        self.branch(cond, target);
    }

    fn branch_bits_set(&mut self, a: Reg, mask: u32, target: Label) {
        self.test_bits(a, mask);
        self.branch(Cond::Ne, target);
    }

    fn branch_bits_clear(&mut self, a: Reg, mask: u32, target: Label) {
        self.test_bits(a, mask);
        self.branch(Cond::Eq, target);
    }

    fn branch_mem32_bits_set(&mut self, mem: Mem, mask: u32, target: Label) {
        self.test_mem32_bits(mem, mask);
        self.branch(Cond::Ne, target);
    }

    fn branch_mem32_bits_clear(&mut self, mem: Mem, mask: u32, target: Label) {
        self.test_mem32_bits(mem, mask);
        self.branch(Cond::Eq, target);
    }

    fn jump_reg(&mut self, target: Reg) {
        dynasm!(self.asm ; .arch x64 ; jmp Rq(r(target)));
    }

    fn jump_mem(&mut self, mem: Mem) {
        self.reg_mem(NARROW, &[0xff], 4, mem);
    }

    fn jump_near(&mut self, target: CodePtr) {
        dynasm!(self.asm ; .arch x64 ; jmp extern target.0 as usize);
    }

    fn branch_cmp_imm_near(&mut self, cond: Cond, a: Reg, value: i32, target: CodePtr) {
        self.compare_imm(a, value);
        jump_if!(self, cond, extern target.0 as usize);
    }

    fn call_reg(&mut self, target: Reg) {
        dynasm!(self.asm ; .arch x64 ; call Rq(r(target)));
    }

    fn call_mem(&mut self, mem: Mem) {
        self.reg_mem(NARROW, &[0xff], 2, mem);
    }

    fn call_near(&mut self, target: CodePtr) {
        dynasm!(self.asm ; .arch x64 ; call extern target.0 as usize);
    }

    fn call_c(&mut self, target: *const ()) {
        self.mov_imm(Reg::Acc, target as u64);
        dynasm!(self.asm ; .arch x64 ; call rax);
    }

    // ---- native frames ----

    fn body_enter(&mut self) {
        dynasm!(self.asm ; .arch x64 ; push rbx ; push r12 ; sub rsp, BYTE 8 ; mov rbx, rdi ; mov r12, rsi);
    }

    fn body_return(&mut self) {
        dynasm!(self.asm ; .arch x64 ; add rsp, BYTE 8 ; pop r12 ; pop rbx ; ret);
    }

    fn stub_enter(&mut self) {
        dynasm!(self.asm ; .arch x64 ; push rcx);
    }

    fn stub_exit(&mut self) {
        dynasm!(self.asm ; .arch x64 ; pop rcx);
    }

    fn stub_abandon(&mut self) {
        dynasm!(self.asm ; .arch x64 ; pop rcx ; lea rsp, [BYTE rsp + 8]);
    }

    fn stub_abandon_early(&mut self) {
        dynasm!(self.asm ; .arch x64 ; lea rsp, [BYTE rsp + 8]);
    }

    fn ret(&mut self) {
        dynasm!(self.asm ; .arch x64 ; ret);
    }

    fn push_pair(&mut self, a: Reg, b: Reg) {
        dynasm!(self.asm ; .arch x64 ; push Rq(r(a)) ; push Rq(r(b)));
    }

    fn pop_pair(&mut self, a: Reg, b: Reg) {
        dynasm!(self.asm ; .arch x64 ; pop Rq(r(b)) ; pop Rq(r(a)));
    }

    fn native_stack_pointer(&mut self, dst: Reg) {
        dynasm!(self.asm ; .arch x64 ; mov Rq(r(dst)), rsp);
    }

    fn native_stack_below(&mut self, dst: Reg, bytes: u32) {
        dynasm!(self.asm ; .arch x64 ; lea Rq(r(dst)), [DWORD rsp - bytes as i32]);
    }

    fn stub_return_address(&mut self, dst: Reg) {
        dynasm!(self.asm ; .arch x64 ; mov Rq(r(dst)), [BYTE rsp + 8]);
    }

    fn body_return_address(&mut self, dst: Reg) {
        dynasm!(self.asm ; .arch x64 ; mov Rq(r(dst)), [BYTE rsp + 40]);
    }

    fn trampoline(&mut self) -> usize {
        dynasm!(self.asm ; .arch x64
            ; push rbp ; push rbx ; push r12 ; push r13 ; push r14 ; push r15 ; sub rsp, BYTE 8
            ; mov r13, rsi ; mov rsi, rcx ; call rdx);
        let returns = self.position();
        dynasm!(self.asm ; .arch x64
            ; add rsp, BYTE 8 ; pop r15 ; pop r14 ; pop r13 ; pop r12 ; pop rbx ; pop rbp ; ret);
        returns
    }

    fn call_on_stack(&mut self) {
        dynasm!(self.asm ; .arch x64 ; push rbp ; mov rbp, rsp ; mov rsp, rdx ; call rsi ; mov rsp, rbp ; pop rbp ; ret);
    }

    // ---- floating point ----

    fn fload(&mut self, dst: FReg, mem: Mem) {
        self.asm.push(0xf2);
        self.reg_mem(NARROW, &[0x0f, 0x10], f(dst), mem);
    }

    fn fstore(&mut self, mem: Mem, src: FReg) {
        self.asm.push(0xf2);
        self.reg_mem(NARROW, &[0x0f, 0x11], f(src), mem);
    }

    fn falu(&mut self, op: FAlu, dst: FReg, src: FReg) {
        let (d, s) = (f(dst), f(src));
        match op {
            FAlu::Add => dynasm!(self.asm ; .arch x64 ; addsd Rx(d), Rx(s)),
            FAlu::Sub => dynasm!(self.asm ; .arch x64 ; subsd Rx(d), Rx(s)),
            FAlu::Mul => dynasm!(self.asm ; .arch x64 ; mulsd Rx(d), Rx(s)),
            FAlu::Div => dynasm!(self.asm ; .arch x64 ; divsd Rx(d), Rx(s)),
        }
    }

    fn fconvert(&mut self, dst: FReg, src: Reg) {
        dynasm!(self.asm ; .arch x64 ; xorps Rx(f(dst)), Rx(f(dst)) ; cvtsi2sd Rx(f(dst)), Rq(r(src)));
    }

    fn fbranch(&mut self, cond: Cond, a: FReg, b: FReg, target: Label) {
        // ucomisd sets CF, ZF and PF for unordered: only "above" conditions are false then, so less-than is tested with its operands exchanged.
        let label = target.0;
        let (x, y) = (f(a), f(b));
        match cond {
            Cond::Eq => {
                dynasm!(self.asm ; .arch x64 ; ucomisd Rx(x), Rx(y) ; jp BYTE >unordered ; je =>label ; unordered:)
            }
            Cond::Ne => {
                dynasm!(self.asm ; .arch x64 ; ucomisd Rx(x), Rx(y) ; jp =>label ; jne =>label)
            }
            Cond::Gt => dynasm!(self.asm ; .arch x64 ; ucomisd Rx(x), Rx(y) ; ja =>label),
            Cond::Ge | Cond::AboveEq => {
                dynasm!(self.asm ; .arch x64 ; ucomisd Rx(x), Rx(y) ; jae =>label)
            }
            Cond::Lt | Cond::Below => {
                dynasm!(self.asm ; .arch x64 ; ucomisd Rx(y), Rx(x) ; ja =>label)
            }
            Cond::Le => dynasm!(self.asm ; .arch x64 ; ucomisd Rx(y), Rx(x) ; jae =>label),
        }
    }

    fn fbranch_zero(&mut self, a: FReg, target: Label) {
        // xmm15 holds the constant zero; no role names it.
        let label = target.0;
        dynasm!(self.asm ; .arch x64 ; xorps xmm15, xmm15 ; ucomisd Rx(f(a)), xmm15 ; jp BYTE >unordered ; je =>label ; unordered:);
    }
}
