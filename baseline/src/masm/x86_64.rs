//! The x86-64 backend. Mirrors `aarch64.rs`; the trait has the documentation.
//!
//! Private scratch: none but the flags; `call_c` goes through rax (`Acc`).

#![allow(
    clippy::useless_conversion,
    reason = "dynasm converts every register number"
)]

mod code;

use dynasmrt::{DynasmApi, dynasm};
use hotstamp_runtime::site::CodePtr;

use self::code::{Code, Head};
use super::{Alu, AssembleError, Cond, FAlu, FReg, Label, MacroAssembler, Mem, Reg, Shift};

/// See the module.
pub struct X86_64 {
    asm: Code,
}

/// Machine register number of a role.
#[inline(always)]
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

#[inline(always)]
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

/// The number of a condition in the opcodes of jumps.
#[inline(always)]
fn condition(cond: Cond) -> u8 {
    match cond {
        Cond::Eq => 0x4,
        Cond::Ne => 0x5,
        Cond::Lt => 0xc,
        Cond::Le => 0xe,
        Cond::Gt => 0xf,
        Cond::Ge => 0xd,
        Cond::Below => ABOVE_EQUAL ^ 1,
        Cond::AboveEq => ABOVE_EQUAL,
    }
}

const ABOVE_EQUAL: u8 = 0x3;
const ABOVE: u8 = 0x7;
const PARITY: u8 = 0xa;

/// REX where it is wanted, and the opcode's bytes.
#[inline(always)]
fn prefixed(rex: u8, opcode: &[u8]) -> Head {
    let mut head = Head::EMPTY;
    if rex != NARROW {
        head = head.then(rex);
    }
    for &byte in opcode {
        head = head.then(byte);
    }
    head
}

/// An instruction on two registers, or a `/digit` and one; `rm` is what x86 calls r/m.
#[inline(always)]
fn registers(rex: u8, opcode: &[u8], reg: u8, rm: u8) -> Head {
    prefixed(rex | (reg >> 3) << 2 | rm >> 3, opcode).then(0xc0 | (reg & 7) << 3 | (rm & 7))
}

/// `[base + disp]`, or `[base + index * 8 + disp]`, by the numbers of registers.
#[derive(Clone, Copy)]
struct Address {
    base: u8,
    index: Option<u8>,
    disp: i32,
}

impl Address {
    #[inline(always)]
    fn of(mem: Mem) -> Address {
        Address {
            base: r(mem.base),
            index: None,
            disp: mem.disp,
        }
    }

    #[inline(always)]
    fn indexed(base: Reg, index: Reg, disp: i32) -> Address {
        Address {
            base: r(base),
            index: Some(r(index)),
            disp,
        }
    }
}

/// An immediate operand and its bytes: 0, 1 or 4.
#[derive(Clone, Copy)]
struct Immediate(u32, u32);

const NO_IMMEDIATE: Immediate = Immediate(0, 0);

impl X86_64 {
    /// REX, opcode, ModRM, SIB and displacement of an instruction with a memory operand, in the fewest bytes; `reg` is a register or an opcode's `/digit`. The
    /// immediate follows. (dynasm spends a REX and an SIB byte on every register number that it does not know when it is compiled.)
    #[inline(always)]
    fn memory(
        &mut self,
        rex: u8,
        opcode: &[u8],
        reg: u8,
        Address { base, index, disp }: Address,
        Immediate(imm, imm_len): Immediate,
    ) {
        let rex_bits =
            rex | (reg >> 3) << 2 | index.map_or(0, |index| (index >> 3) << 1) | base >> 3;
        let head = prefixed(rex_bits, opcode);
        let modrm = 8 * head.len;
        let reg = (reg & 7) << 3;
        let head = match index {
            // Scale 8; index 4 without REX (rsp) cannot be encoded and is no role.
            Some(index) => head
                .then(reg | 4)
                .then(0xc0 | (index & 7) << 3 | (base & 7)),
            // Base 4 (rsp, r12) needs an SIB byte.
            None if base & 7 == 4 => head.then(reg | 4).then(0x24),
            None => head.then(reg | (base & 7)),
        };
        // Without a displacement, base 5 (rbp, r13) would mean another addressing mode.
        let (mode, disp_len) = if disp == 0 && base & 7 != 5 {
            (0x00, 0)
        } else if disp as i8 as i32 == disp {
            (0x40, 1)
        } else {
            (0x80, 4)
        };
        let head = Head {
            bytes: head.bytes | mode << modrm,
            ..head
        };
        if imm_len == 0 {
            self.asm.emit_with(head, u64::from(disp as u32), disp_len);
        } else {
            let disp_bits = 8 * disp_len;
            let tail =
                u64::from(disp as u32) & ((1 << disp_bits) - 1) | u64::from(imm) << disp_bits;
            self.asm.emit_with(head, tail, disp_len + imm_len);
        }
    }

    /// An instruction with a register or `/digit` and a memory operand.
    #[inline(always)]
    fn reg_mem(&mut self, rex: u8, opcode: &[u8], reg: u8, mem: Mem) {
        self.memory(rex, opcode, reg, Address::of(mem), NO_IMMEDIATE);
    }

    /// As `reg_mem`, with 32 bits of immediate operand.
    #[inline(always)]
    fn reg_mem_imm(&mut self, rex: u8, opcode: &[u8], reg: u8, mem: Mem, imm: i32) {
        self.memory(rex, opcode, reg, Address::of(mem), Immediate(imm as u32, 4));
    }

    /// `op [mem], imm`.
    #[inline(always)]
    fn mem_imm(&mut self, rex: u8, op: Group1, mem: Mem, imm: i32) {
        match i8::try_from(imm) {
            Ok(imm) => {
                let imm = Immediate(u32::from(imm as u8), 1);
                self.memory(rex, &[0x83], op as u8, Address::of(mem), imm);
            }
            Err(_) => self.reg_mem_imm(rex, &[0x81], op as u8, mem, imm),
        }
    }

    /// `op reg, imm`, 64 bits.
    #[inline(always)]
    fn reg_imm(&mut self, op: Group1, n: u8, imm: i32) {
        match i8::try_from(imm) {
            Ok(imm) => {
                let head = registers(WIDE, &[0x83], op as u8, n);
                self.asm.emit(head.then(imm as u8));
            }
            Err(_) => {
                let head = registers(WIDE, &[0x81], op as u8, n);
                self.asm.emit_with(head, u64::from(imm as u32), 4);
            }
        }
    }

    /// An instruction on two registers, 64 bits.
    #[inline(always)]
    fn wide(&mut self, opcode: u8, reg: u8, rm: u8) {
        self.asm.emit(registers(WIDE, &[opcode], reg, rm));
    }

    /// A jump to a label on a condition, given by its number.
    #[inline]
    fn jump_if(&mut self, condition: u8, target: Label) {
        let short = Head::EMPTY.then(0x70 | condition);
        let long = Head::EMPTY.then(0x0f).then(0x80 | condition);
        self.asm.branch(short, long, target);
    }

    #[inline]
    fn branch(&mut self, cond: Cond, target: Label) {
        self.jump_if(condition(cond), target);
    }

    #[inline]
    fn compare_imm(&mut self, a: Reg, value: i32) {
        let n = r(a);
        if value == 0 {
            self.wide(0x85, n, n);
        } else {
            self.reg_imm(Group1::Cmp, n, value);
        }
    }

    #[inline]
    fn test_bits(&mut self, a: Reg, mask: u32) {
        let n = r(a);
        match (mask < 0x80, n) {
            (true, 0) => self.asm.emit(Head::EMPTY.then(0xa8).then(mask as u8)),
            (true, _) => {
                // Without any REX prefix, 4 to 7 are the second bytes of rax to rbx.
                let mut head = registers(NARROW, &[0xf6], 0, n);
                if n & 0xc == 4 {
                    head = Head {
                        bytes: head.bytes << 8 | u64::from(NARROW),
                        len: head.len + 1,
                    };
                }
                self.asm.emit(head.then(mask as u8));
            }
            (false, 0) => self
                .asm
                .emit_with(Head::EMPTY.then(0xa9), u64::from(mask), 4),
            (false, _) => {
                let head = registers(NARROW, &[0xf7], 0, n);
                self.asm.emit_with(head, u64::from(mask), 4);
            }
        }
    }

    fn test_mem32_bits(&mut self, mem: Mem, mask: u32) {
        self.reg_mem_imm(NARROW, &[0xf7], 0, mem, mask as i32);
    }

    /// `ucomisd`
    fn compare_floats(&mut self, x: u8, y: u8) {
        dynasm!(self.asm ; .arch x64 ; ucomisd Rx(x), Rx(y));
    }
}

impl MacroAssembler for X86_64 {
    fn new(address: CodePtr) -> Self {
        X86_64 {
            asm: Code::new(address.0 as usize),
        }
    }

    #[inline]
    fn position(&self) -> usize {
        self.asm.position()
    }

    fn finish(self) -> Result<Vec<u8>, AssembleError> {
        self.asm.finish()
    }

    fn write_into(&mut self, memory: Vec<u8>, bytes: usize) {
        self.asm.write_into(memory, bytes);
    }

    #[inline]
    fn new_label(&mut self) -> Label {
        self.asm.new_label(false)
    }

    #[inline]
    fn new_near_label(&mut self) -> Label {
        self.asm.new_label(true)
    }

    fn new_labels(&mut self, count: usize) -> Label {
        self.asm.new_labels(count)
    }

    #[inline]
    fn bind(&mut self, label: Label) {
        self.asm.bind(label);
    }

    fn align(&mut self) {
        // int3
        self.asm.align(16, 0xcc);
    }

    // ---- moves ----

    #[inline]
    fn mov(&mut self, dst: Reg, src: Reg) {
        if dst != src {
            self.wide(0x89, r(src), r(dst));
        }
    }

    #[inline]
    fn mov_imm(&mut self, dst: Reg, value: u64) {
        let n = r(dst);
        if value == 0 {
            self.asm.emit(registers(NARROW, &[0x31], n, n));
        } else if value <= u64::from(u32::MAX) {
            let head = prefixed(NARROW | n >> 3, &[0xb8 | (n & 7)]);
            self.asm.emit_with(head, value, 4);
        } else if let Ok(small) = i32::try_from(value as i64) {
            let head = registers(WIDE, &[0xc7], 0, n);
            self.asm.emit_with(head, u64::from(small as u32), 4);
        } else {
            let head = prefixed(WIDE | n >> 3, &[0xb8 | (n & 7)]);
            self.asm.emit_with(head, value, 8);
        }
    }

    #[inline]
    fn load(&mut self, dst: Reg, mem: Mem) {
        self.reg_mem(WIDE, &[0x8b], r(dst), mem);
    }

    #[inline]
    fn load32(&mut self, dst: Reg, mem: Mem) {
        self.reg_mem(NARROW, &[0x8b], r(dst), mem);
    }

    #[inline]
    fn load16(&mut self, dst: Reg, mem: Mem) {
        self.reg_mem(NARROW, &[0x0f, 0xb7], r(dst), mem);
    }

    #[inline]
    fn load8(&mut self, dst: Reg, mem: Mem) {
        self.reg_mem(NARROW, &[0x0f, 0xb6], r(dst), mem);
    }

    #[inline]
    fn store(&mut self, mem: Mem, src: Reg) {
        self.reg_mem(WIDE, &[0x89], r(src), mem);
    }

    #[inline]
    fn store32(&mut self, mem: Mem, src: Reg) {
        self.reg_mem(NARROW, &[0x89], r(src), mem);
    }

    #[inline]
    fn store8(&mut self, mem: Mem, src: Reg) {
        // As in `test_bits`.
        if r(src) & 0xc == 4 && r(mem.base) < 8 {
            self.asm.push(NARROW);
        }
        self.reg_mem(NARROW, &[0x88], r(src), mem);
    }

    #[inline]
    fn store_imm(&mut self, mem: Mem, value: i32) {
        self.reg_mem_imm(WIDE, &[0xc7], 0, mem, value);
    }

    #[inline]
    fn store32_imm(&mut self, mem: Mem, value: i32) {
        self.reg_mem_imm(NARROW, &[0xc7], 0, mem, value);
    }

    #[inline]
    fn load_indexed(&mut self, dst: Reg, base: Reg, index: Reg, disp: i32) {
        let address = Address::indexed(base, index, disp);
        self.memory(WIDE, &[0x8b], r(dst), address, NO_IMMEDIATE);
    }

    #[inline]
    fn store_indexed(&mut self, base: Reg, index: Reg, disp: i32, src: Reg) {
        let address = Address::indexed(base, index, disp);
        self.memory(WIDE, &[0x89], r(src), address, NO_IMMEDIATE);
    }

    #[inline]
    fn lea(&mut self, dst: Reg, mem: Mem) {
        if mem.disp == 0 {
            self.mov(dst, mem.base);
        } else {
            self.reg_mem(WIDE, &[0x8d], r(dst), mem);
        }
    }

    #[inline]
    fn lea_indexed(&mut self, dst: Reg, base: Reg, index: Reg, disp: i32) {
        let address = Address::indexed(base, index, disp);
        self.memory(WIDE, &[0x8d], r(dst), address, NO_IMMEDIATE);
    }

    // ---- arithmetic ----

    #[inline]
    fn alu(&mut self, op: Alu, dst: Reg, src: Reg) {
        let (d, s) = (r(dst), r(src));
        match op {
            Alu::Add => self.wide(0x01, s, d),
            Alu::Sub => self.wide(0x29, s, d),
            Alu::And => self.wide(0x21, s, d),
            Alu::Or => self.wide(0x09, s, d),
            Alu::Xor => self.wide(0x31, s, d),
        }
    }

    #[inline]
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

    #[inline]
    fn shift_imm(&mut self, op: Shift, dst: Reg, amount: u8) {
        let (d, amount) = (r(dst), amount as i8);
        match op {
            Shift::Left => dynasm!(self.asm ; .arch x64 ; shl Rq(d), BYTE amount),
            Shift::RightLogical => dynasm!(self.asm ; .arch x64 ; shr Rq(d), BYTE amount),
            Shift::RightArithmetic => dynasm!(self.asm ; .arch x64 ; sar Rq(d), BYTE amount),
        }
    }

    #[inline]
    fn mul_overflow(&mut self, dst: Reg, src: Reg, overflow: Label) {
        const OVERFLOW: u8 = 0x0;
        dynasm!(self.asm ; .arch x64 ; imul Rq(r(dst)), Rq(r(src)));
        self.jump_if(OVERFLOW, overflow);
    }

    #[inline]
    fn neg(&mut self, dst: Reg) {
        dynasm!(self.asm ; .arch x64 ; neg Rq(r(dst)));
    }

    #[inline]
    fn add32_mem(&mut self, mem: Mem, value: i32) {
        if value == 1 {
            self.reg_mem(NARROW, &[0xff], 0, mem);
        } else {
            self.mem_imm(NARROW, Group1::Add, mem, value);
        }
    }

    #[inline]
    fn add64_mem(&mut self, mem: Mem, value: i32) {
        self.mem_imm(WIDE, Group1::Add, mem, value);
    }

    #[inline]
    fn dec32_mem_branch_zero(&mut self, mem: Mem, zero: Label) {
        self.reg_mem(NARROW, &[0xff], 1, mem);
        self.branch(Cond::Eq, zero);
    }

    #[inline]
    fn dec32_mem_branch_not_zero(&mut self, mem: Mem, more: Label) {
        self.reg_mem(NARROW, &[0xff], 1, mem);
        self.branch(Cond::Ne, more);
    }

    // ---- comparisons and control ----

    #[inline]
    fn jump(&mut self, target: Label) {
        self.asm
            .branch(Head::EMPTY.then(0xeb), Head::EMPTY.then(0xe9), target);
    }

    #[inline]
    fn branch_cmp(&mut self, cond: Cond, a: Reg, b: Reg, target: Label) {
        self.wide(0x39, r(b), r(a));
        self.branch(cond, target);
    }

    #[inline]
    fn branch_cmp_imm(&mut self, cond: Cond, a: Reg, value: i32, target: Label) {
        self.compare_imm(a, value);
        self.branch(cond, target);
    }

    #[inline]
    fn branch_cmp_mem(&mut self, cond: Cond, a: Reg, mem: Mem, target: Label) {
        self.reg_mem(WIDE, &[0x3b], r(a), mem);
        self.branch(cond, target);
    }

    #[inline]
    fn branch_cmp32_mem(&mut self, cond: Cond, a: Reg, mem: Mem, target: Label) {
        self.reg_mem(NARROW, &[0x3b], r(a), mem);
        self.branch(cond, target);
    }

    #[inline]
    fn branch_mem_imm(&mut self, cond: Cond, mem: Mem, value: i32, target: Label) {
        self.mem_imm(WIDE, Group1::Cmp, mem, value);
        self.branch(cond, target);
    }

    #[inline]
    fn branch_mem32_imm(&mut self, cond: Cond, mem: Mem, value: i32, target: Label) {
        self.mem_imm(NARROW, Group1::Cmp, mem, value);
        self.branch(cond, target);
    }

    #[inline]
    fn branch_bits_set(&mut self, a: Reg, mask: u32, target: Label) {
        self.test_bits(a, mask);
        self.branch(Cond::Ne, target);
    }

    #[inline]
    fn branch_bits_clear(&mut self, a: Reg, mask: u32, target: Label) {
        self.test_bits(a, mask);
        self.branch(Cond::Eq, target);
    }

    #[inline]
    fn branch_mem32_bits_set(&mut self, mem: Mem, mask: u32, target: Label) {
        self.test_mem32_bits(mem, mask);
        self.branch(Cond::Ne, target);
    }

    #[inline]
    fn branch_mem32_bits_clear(&mut self, mem: Mem, mask: u32, target: Label) {
        self.test_mem32_bits(mem, mask);
        self.branch(Cond::Eq, target);
    }

    #[inline]
    fn jump_reg(&mut self, target: Reg) {
        dynasm!(self.asm ; .arch x64 ; jmp Rq(r(target)));
    }

    #[inline]
    fn jump_mem(&mut self, mem: Mem) {
        self.reg_mem(NARROW, &[0xff], 4, mem);
    }

    #[inline]
    fn jump_near(&mut self, target: CodePtr) {
        self.asm.outside(Head::EMPTY.then(0xe9), target);
    }

    #[inline]
    fn branch_cmp_imm_near(&mut self, cond: Cond, a: Reg, value: i32, target: CodePtr) {
        self.compare_imm(a, value);
        let head = Head::EMPTY.then(0x0f).then(0x80 | condition(cond));
        self.asm.outside(head, target);
    }

    #[inline]
    fn call_reg(&mut self, target: Reg) {
        dynasm!(self.asm ; .arch x64 ; call Rq(r(target)));
    }

    #[inline]
    fn call_mem(&mut self, mem: Mem) {
        self.reg_mem(NARROW, &[0xff], 2, mem);
    }

    #[inline]
    fn call_near(&mut self, target: CodePtr) {
        self.asm.outside(Head::EMPTY.then(0xe8), target);
    }

    #[inline]
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
        let (x, y) = (f(a), f(b));
        match cond {
            Cond::Eq => {
                let unordered = self.new_near_label();
                self.compare_floats(x, y);
                self.jump_if(PARITY, unordered);
                self.branch(Cond::Eq, target);
                self.bind(unordered);
            }
            Cond::Ne => {
                self.compare_floats(x, y);
                self.jump_if(PARITY, target);
                self.branch(Cond::Ne, target);
            }
            Cond::Gt => {
                self.compare_floats(x, y);
                self.jump_if(ABOVE, target);
            }
            Cond::Ge | Cond::AboveEq => {
                self.compare_floats(x, y);
                self.jump_if(ABOVE_EQUAL, target);
            }
            Cond::Lt | Cond::Below => {
                self.compare_floats(y, x);
                self.jump_if(ABOVE, target);
            }
            Cond::Le => {
                self.compare_floats(y, x);
                self.jump_if(ABOVE_EQUAL, target);
            }
        }
    }

    fn fbranch_zero(&mut self, a: FReg, target: Label) {
        // xmm15 holds the constant zero; no role names it.
        let unordered = self.new_near_label();
        dynasm!(self.asm ; .arch x64 ; xorps xmm15, xmm15 ; ucomisd Rx(f(a)), xmm15);
        self.jump_if(PARITY, unordered);
        self.branch(Cond::Eq, target);
        self.bind(unordered);
    }
}
