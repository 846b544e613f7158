//! The AArch64 backend. Mirrors `x86_64.rs`; the trait has the documentation.
//!
//! Private scratch: x16 (values, base addresses), x17 (displacements, immediates compared with) and, where both are taken, x15; no role names them.
//! Branches and literals out of their encoding's reach are the business of `islands.rs`.

#![allow(
    clippy::useless_conversion,
    reason = "dynasm converts every register number"
)]

mod islands;

use dynasmrt::aarch64::{
    Aarch64Relocation, encode_logical_immediate_32bit, encode_logical_immediate_64bit,
};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use hotstamp_runtime::site::CodePtr;

use self::islands::Islands;
use super::{Alu, AssembleError, Cond, FAlu, FReg, Label, MacroAssembler, Mem, Reg, Shift};

/// See the module.
pub struct Aarch64 {
    asm: VecAssembler<Aarch64Relocation>,
    start: usize,
    islands: Islands,
    /// By number; dynasm's labels are made when they are first used.
    labels: Vec<Option<DynamicLabel>>,
}

/// Machine register number of a role.
fn r(reg: Reg) -> u8 {
    match reg {
        Reg::Acc | Reg::A0 => 0,
        Reg::A1 => 1,
        Reg::A2 => 2,
        Reg::A3 => 3,
        Reg::A4 => 4,
        Reg::A5 => 5,
        Reg::T0 => 9,
        Reg::T1 => 10,
        Reg::T2 => 11,
        Reg::T3 => 12,
        Reg::T4 => 13,
        Reg::Frame => 19,
        Reg::Data => 21,
        Reg::Tstate => 20,
    }
}

fn f(reg: FReg) -> u8 {
    match reg {
        FReg::F0 => 0,
        FReg::F1 => 1,
    }
}

/// Private scratch that no register of an operand can be.
const X15: u8 = 15;
const X16: u8 = 16;
const X17: u8 = 17;
const ZERO: u8 = 31;

/// How an access reaches its displacement from the base register.
enum Address {
    /// Unsigned multiple of the access's size.
    Scaled(u32),
    /// Small and signed.
    Unscaled(i32),
    /// The displacement is in x17.
    Indexed,
}

impl Address {
    /// The encoding of a displacement that needs no register.
    fn encodable(disp: i32, size: i32) -> Option<Address> {
        if disp >= 0 && disp % size == 0 && disp / size < 1 << 12 {
            Some(Address::Scaled(disp as u32))
        } else if (-256..256).contains(&disp) {
            Some(Address::Unscaled(disp))
        } else {
            None
        }
    }
}

/// Where a conditional branch goes.
#[derive(Clone, Copy)]
enum Target {
    /// In the code being assembled.
    Inside(Label),
    /// To this address in the same code memory.
    Outside(CodePtr),
}

/// Assembles one or a few instructions, with the islands they need before them.
macro_rules! emit {
    ($self:ident ; $($code:tt)*) => {{
        $self.islands.keep_reach(&mut $self.asm);
        dynasm!($self.asm ; .arch aarch64 ; $($code)*)
    }};
}

/// `op reg, [base + disp]`, with the opcode for scaled and register displacements and that for unscaled ones.
macro_rules! access {
    ($self:ident, $op:tt, $unscaled:tt, $reg:ident($n:expr), $size:expr, $base:expr, $disp:expr) => {{
        let (n, base) = ($n, $base);
        match $self.address($disp, $size) {
            Address::Scaled(disp) => emit!($self ; $op $reg(n), [XSP(base), disp]),
            Address::Unscaled(disp) => emit!($self ; $unscaled $reg(n), [XSP(base), disp]),
            Address::Indexed => emit!($self ; $op $reg(n), [XSP(base), x17]),
        }
    }};
}

impl Aarch64 {
    /// Chooses the encoding of a displacement; loads x17 if it takes a register.
    fn address(&mut self, disp: i32, size: i32) -> Address {
        Address::encodable(disp, size).unwrap_or_else(|| {
            self.immediate(X17, i64::from(disp) as u64);
            Address::Indexed
        })
    }

    fn load_64(&mut self, n: u8, base: u8, disp: i32) {
        access!(self, ldr, ldur, X(n), 8, base, disp);
    }

    fn load_32(&mut self, n: u8, base: u8, disp: i32) {
        access!(self, ldr, ldur, W(n), 4, base, disp);
    }

    fn store_64(&mut self, n: u8, base: u8, disp: i32) {
        access!(self, str, stur, X(n), 8, base, disp);
    }

    fn store_32(&mut self, n: u8, base: u8, disp: i32) {
        access!(self, str, stur, W(n), 4, base, disp);
    }

    /// One or two instructions without a literal, or a literal that equal values share.
    fn immediate(&mut self, n: u8, value: u64) {
        let halves: [u32; 4] = std::array::from_fn(|i| (value >> (16 * i)) as u32 & 0xffff);
        let not_zero = halves.iter().filter(|&&half| half != 0).count();
        let not_ones = halves.iter().filter(|&&half| half != 0xffff).count();
        if not_zero <= 1 {
            self.move_halves(n, halves, 0);
        } else if not_ones <= 1 {
            self.move_halves(n, halves, 0xffff);
        } else if value >> 32 == 0 && halves[1] == 0xffff {
            emit!(self ; movn W(n), halves[0] ^ 0xffff);
        } else if value >> 32 == 0 && halves[0] == 0xffff {
            emit!(self ; movn W(n), halves[1] ^ 0xffff, lsl 16);
        } else if encode_logical_immediate_64bit(value).is_some() {
            emit!(self ; orr XSP(n), xzr, value);
        } else if value >> 32 == 0 && encode_logical_immediate_32bit(value as u32).is_some() {
            emit!(self ; orr WSP(n), wzr, value as u32);
        } else if not_zero == 2 {
            self.move_halves(n, halves, 0);
        } else if not_ones == 2 {
            self.move_halves(n, halves, 0xffff);
        } else {
            self.islands.keep_reach(&mut self.asm);
            let literal = self.islands.literal(&mut self.asm, value);
            dynasm!(self.asm ; .arch aarch64 ; ldr X(n), =>literal);
        }
    }

    /// Moves the 16-bit halves that differ from `rest` (0 or 0xffff), which the first instruction puts in all others.
    fn move_halves(&mut self, n: u8, halves: [u32; 4], rest: u32) {
        let mut differing = (0..4).filter(|&i| halves[i] != rest);
        let first = differing.next().unwrap_or(0);
        let shift = 16 * first as u32;
        if rest == 0 {
            emit!(self ; movz X(n), halves[first], lsl shift);
        } else {
            emit!(self ; movn X(n), halves[first] ^ 0xffff, lsl shift);
        }
        for i in differing {
            let shift = 16 * i as u32;
            emit!(self ; movk X(n), halves[i], lsl shift);
        }
    }

    /// `d = n + value`; a `value` of more than 24 bits goes through `scratch`.
    fn add_immediate(&mut self, d: u8, n: u8, value: i32, scratch: u8) {
        let size = value.unsigned_abs();
        let (low, high) = (size & 0xfff, size >> 12);
        if size == 0 {
            if d != n {
                emit!(self ; mov X(d), X(n));
            }
        } else if high >= 1 << 12 {
            self.immediate(scratch, i64::from(value) as u64);
            emit!(self ; add X(d), X(n), X(scratch));
        } else {
            let mut n = n;
            if high != 0 {
                match value > 0 {
                    true => emit!(self ; add XSP(d), XSP(n), high, lsl 12),
                    false => emit!(self ; sub XSP(d), XSP(n), high, lsl 12),
                }
                n = d;
            }
            if low != 0 {
                match value > 0 {
                    true => emit!(self ; add XSP(d), XSP(n), low),
                    false => emit!(self ; sub XSP(d), XSP(n), low),
                }
            }
        }
    }

    /// The base and displacement of `mem` for accesses that may use x16: where the displacement takes a register, their sum is in x17.
    fn address_to_update(&mut self, mem: Mem, size: i32) -> (u8, i32) {
        if Address::encodable(mem.disp, size).is_some() {
            (r(mem.base), mem.disp)
        } else {
            self.add_immediate(X17, r(mem.base), mem.disp, X17);
            (X17, 0)
        }
    }

    /// What dynasm knows a label as.
    fn label(&mut self, label: Label) -> DynamicLabel {
        *self.labels[label.number()].get_or_insert_with(|| self.asm.new_dynamic_label())
    }

    /// The label that a conditional branch, `cbz` or `cbnz` has to name; it must be the next instruction.
    fn long(&mut self, target: Target) -> DynamicLabel {
        self.islands.keep_reach(&mut self.asm);
        match target {
            Target::Inside(label) => {
                let label = self.label(label);
                self.islands.long(&mut self.asm, label)
            }
            Target::Outside(code) => self.islands.outside(&mut self.asm, code.0 as usize),
        }
    }

    /// A branch on the flags.
    fn branch(&mut self, cond: Cond, target: Target) {
        let label = self.long(target);
        match cond {
            Cond::Eq => dynasm!(self.asm ; .arch aarch64 ; b.eq =>label),
            Cond::Ne => dynasm!(self.asm ; .arch aarch64 ; b.ne =>label),
            Cond::Lt => dynasm!(self.asm ; .arch aarch64 ; b.lt =>label),
            Cond::Le => dynasm!(self.asm ; .arch aarch64 ; b.le =>label),
            Cond::Gt => dynasm!(self.asm ; .arch aarch64 ; b.gt =>label),
            Cond::Ge => dynasm!(self.asm ; .arch aarch64 ; b.ge =>label),
            Cond::Below => dynasm!(self.asm ; .arch aarch64 ; b.lo =>label),
            Cond::AboveEq => dynasm!(self.asm ; .arch aarch64 ; b.hs =>label),
        }
    }

    /// A branch if a register's 64 or 32 bits are zero.
    fn branch_zero(&mut self, wide: bool, n: u8, target: Target) {
        let label = self.long(target);
        match wide {
            true => dynasm!(self.asm ; .arch aarch64 ; cbz X(n), =>label),
            false => dynasm!(self.asm ; .arch aarch64 ; cbz W(n), =>label),
        }
    }

    /// A branch if a register's 64 or 32 bits are not zero.
    fn branch_not_zero(&mut self, wide: bool, n: u8, target: Target) {
        let label = self.long(target);
        match wide {
            true => dynasm!(self.asm ; .arch aarch64 ; cbnz X(n), =>label),
            false => dynasm!(self.asm ; .arch aarch64 ; cbnz W(n), =>label),
        }
    }

    /// A branch if one bit of a register is as wanted.
    fn branch_bit(&mut self, set: bool, n: u8, bit: u32, target: Label) {
        self.islands.keep_reach(&mut self.asm);
        let label = self.label(target);
        let label = self.islands.short(&mut self.asm, label);
        match set {
            true => dynasm!(self.asm ; .arch aarch64 ; tbnz X(n), bit, =>label),
            false => dynasm!(self.asm ; .arch aarch64 ; tbz X(n), bit, =>label),
        }
    }

    /// Sets the flags from a register's 64 or 32 bits and a value, which may need x17.
    fn compare_imm(&mut self, wide: bool, n: u8, value: i32) {
        let size = value.unsigned_abs();
        let (low, high) = (size & 0xfff, size >> 12);
        match (wide, value >= 0) {
            (true, true) if high == 0 => emit!(self ; cmp XSP(n), low),
            (true, true) if low == 0 && high < 1 << 12 => emit!(self ; cmp XSP(n), high, lsl 12),
            (true, false) if high == 0 => emit!(self ; cmn XSP(n), low),
            (true, false) if low == 0 && high < 1 << 12 => emit!(self ; cmn XSP(n), high, lsl 12),
            (false, true) if high == 0 => emit!(self ; cmp WSP(n), low),
            (false, true) if low == 0 && high < 1 << 12 => emit!(self ; cmp WSP(n), high, lsl 12),
            (false, false) if high == 0 => emit!(self ; cmn WSP(n), low),
            (false, false) if low == 0 && high < 1 << 12 => emit!(self ; cmn WSP(n), high, lsl 12),
            (true, _) => {
                self.immediate(X17, i64::from(value) as u64);
                emit!(self ; cmp X(n), x17);
            }
            (false, _) => {
                self.immediate(X17, u64::from(value as u32));
                emit!(self ; cmp W(n), w17);
            }
        }
    }

    fn branch_imm(&mut self, cond: Cond, wide: bool, n: u8, value: i32, target: Target) {
        let sign = if wide { 63 } else { 31 };
        match (cond, value, target) {
            (Cond::Eq, 0, _) => self.branch_zero(wide, n, target),
            (Cond::Ne, 0, _) => self.branch_not_zero(wide, n, target),
            (Cond::Lt, 0, Target::Inside(label)) => self.branch_bit(true, n, sign, label),
            (Cond::Ge, 0, Target::Inside(label)) => self.branch_bit(false, n, sign, label),
            _ => {
                self.compare_imm(wide, n, value);
                self.branch(cond, target);
            }
        }
    }

    /// A branch if any bit (`set`) or no bit of `mask` is set.
    fn branch_mask(&mut self, set: bool, n: u8, mask: u32, target: Label) {
        if mask.is_power_of_two() {
            self.branch_bit(set, n, mask.trailing_zeros(), target);
            return;
        }
        if encode_logical_immediate_32bit(mask).is_some() {
            emit!(self ; tst W(n), mask);
        } else {
            self.immediate(X17, u64::from(mask));
            emit!(self ; tst W(n), w17);
        }
        self.branch(
            if set { Cond::Ne } else { Cond::Eq },
            Target::Inside(target),
        );
    }
}

impl MacroAssembler for Aarch64 {
    fn new(address: CodePtr) -> Self {
        let start = address.0 as usize;
        assert!(start.is_multiple_of(4), "AArch64 instructions are aligned");
        Aarch64 {
            asm: VecAssembler::new(start),
            start,
            islands: Islands::new(),
            labels: Vec::new(),
        }
    }

    fn position(&self) -> usize {
        self.asm.offset().0
    }

    fn finish(mut self) -> Result<Vec<u8>, AssembleError> {
        self.islands.finish(&mut self.asm);
        self.asm
            .finalize()
            .map_err(|error| AssembleError::Relocation(error.to_string()))
    }

    fn new_label(&mut self) -> Label {
        self.new_labels(1)
    }

    fn new_near_label(&mut self) -> Label {
        self.new_labels(1)
    }

    fn new_labels(&mut self, count: usize) -> Label {
        let number = self.labels.len();
        self.labels.resize(number + count, None);
        Label::new(number as u32, false)
    }

    fn bind(&mut self, label: Label) {
        let label = self.label(label);
        self.islands.bind(&mut self.asm, label);
        self.asm.dynamic_label(label);
    }

    fn align(&mut self) {
        while !(self.start + self.position()).is_multiple_of(16) {
            emit!(self ; brk 0);
        }
    }

    // ---- moves ----

    fn mov(&mut self, dst: Reg, src: Reg) {
        let (d, s) = (r(dst), r(src));
        if d != s {
            emit!(self ; mov X(d), X(s));
        }
    }

    fn mov_imm(&mut self, dst: Reg, value: u64) {
        self.immediate(r(dst), value);
    }

    fn load(&mut self, dst: Reg, mem: Mem) {
        self.load_64(r(dst), r(mem.base), mem.disp);
    }

    fn load32(&mut self, dst: Reg, mem: Mem) {
        self.load_32(r(dst), r(mem.base), mem.disp);
    }

    fn load16(&mut self, dst: Reg, mem: Mem) {
        access!(self, ldrh, ldurh, W(r(dst)), 2, r(mem.base), mem.disp);
    }

    fn load8(&mut self, dst: Reg, mem: Mem) {
        access!(self, ldrb, ldurb, W(r(dst)), 1, r(mem.base), mem.disp);
    }

    fn store(&mut self, mem: Mem, src: Reg) {
        self.store_64(r(src), r(mem.base), mem.disp);
    }

    fn store32(&mut self, mem: Mem, src: Reg) {
        self.store_32(r(src), r(mem.base), mem.disp);
    }

    fn store8(&mut self, mem: Mem, src: Reg) {
        access!(self, strb, sturb, W(r(src)), 1, r(mem.base), mem.disp);
    }

    fn store_imm(&mut self, mem: Mem, value: i32) {
        let n = if value == 0 { ZERO } else { X16 };
        if value != 0 {
            self.immediate(n, i64::from(value) as u64);
        }
        self.store_64(n, r(mem.base), mem.disp);
    }

    fn store32_imm(&mut self, mem: Mem, value: i32) {
        let n = if value == 0 { ZERO } else { X16 };
        if value != 0 {
            self.immediate(n, u64::from(value as u32));
        }
        self.store_32(n, r(mem.base), mem.disp);
    }

    fn load_indexed(&mut self, dst: Reg, base: Reg, index: Reg, disp: i32) {
        let (d, b, i) = (r(dst), r(base), r(index));
        if disp == 0 {
            emit!(self ; ldr X(d), [XSP(b), X(i), lsl 3]);
        } else {
            emit!(self ; add x16, X(b), X(i), lsl 3);
            self.load_64(d, X16, disp);
        }
    }

    fn store_indexed(&mut self, base: Reg, index: Reg, disp: i32, src: Reg) {
        let (b, i, s) = (r(base), r(index), r(src));
        if disp == 0 {
            emit!(self ; str X(s), [XSP(b), X(i), lsl 3]);
        } else {
            emit!(self ; add x16, X(b), X(i), lsl 3);
            self.store_64(s, X16, disp);
        }
    }

    fn lea(&mut self, dst: Reg, mem: Mem) {
        self.add_immediate(r(dst), r(mem.base), mem.disp, X17);
    }

    fn lea_indexed(&mut self, dst: Reg, base: Reg, index: Reg, disp: i32) {
        let (d, b, i) = (r(dst), r(base), r(index));
        emit!(self ; add X(d), X(b), X(i), lsl 3);
        self.add_immediate(d, d, disp, X17);
    }

    // ---- arithmetic ----

    fn alu(&mut self, op: Alu, dst: Reg, src: Reg) {
        let (d, s) = (r(dst), r(src));
        match op {
            Alu::Add => emit!(self ; add X(d), X(d), X(s)),
            Alu::Sub => emit!(self ; sub X(d), X(d), X(s)),
            Alu::And => emit!(self ; and X(d), X(d), X(s)),
            Alu::Or => emit!(self ; orr X(d), X(d), X(s)),
            Alu::Xor => emit!(self ; eor X(d), X(d), X(s)),
        }
    }

    fn alu_imm(&mut self, op: Alu, dst: Reg, value: i32) {
        let d = r(dst);
        let bits = i64::from(value) as u64;
        let logical = encode_logical_immediate_64bit(bits).is_some();
        match op {
            Alu::Add => self.add_immediate(d, d, value, X17),
            Alu::Sub if value != i32::MIN => self.add_immediate(d, d, -value, X17),
            Alu::And if logical => emit!(self ; and XSP(d), X(d), bits),
            Alu::Or if logical => emit!(self ; orr XSP(d), X(d), bits),
            Alu::Xor if logical => emit!(self ; eor XSP(d), X(d), bits),
            Alu::Sub | Alu::And | Alu::Or | Alu::Xor => {
                self.immediate(X17, bits);
                match op {
                    Alu::Add | Alu::Sub => emit!(self ; sub X(d), X(d), x17),
                    Alu::And => emit!(self ; and X(d), X(d), x17),
                    Alu::Or => emit!(self ; orr X(d), X(d), x17),
                    Alu::Xor => emit!(self ; eor X(d), X(d), x17),
                }
            }
        }
    }

    fn shift_imm(&mut self, op: Shift, dst: Reg, amount: u8) {
        let (d, amount) = (r(dst), u32::from(amount));
        match op {
            Shift::Left => emit!(self ; lsl X(d), X(d), amount),
            Shift::RightLogical => emit!(self ; lsr X(d), X(d), amount),
            Shift::RightArithmetic => emit!(self ; asr X(d), X(d), amount),
        }
    }

    fn mul_overflow(&mut self, dst: Reg, src: Reg, overflow: Label) {
        // The product fits if its high half is nothing but the sign of its low half.
        let (d, s) = (r(dst), r(src));
        emit!(self ; smulh x16, X(d), X(s) ; mul X(d), X(d), X(s) ; cmp x16, X(d), asr 63);
        self.branch(Cond::Ne, Target::Inside(overflow));
    }

    fn neg(&mut self, dst: Reg) {
        let d = r(dst);
        emit!(self ; neg X(d), X(d));
    }

    fn add32_mem(&mut self, mem: Mem, value: i32) {
        let (base, disp) = self.address_to_update(mem, 4);
        self.load_32(X16, base, disp);
        self.add_immediate(X16, X16, value, X15);
        self.store_32(X16, base, disp);
    }

    fn add64_mem(&mut self, mem: Mem, value: i32) {
        let (base, disp) = self.address_to_update(mem, 8);
        self.load_64(X16, base, disp);
        self.add_immediate(X16, X16, value, X15);
        self.store_64(X16, base, disp);
    }

    fn dec32_mem_branch_zero(&mut self, mem: Mem, zero: Label) {
        let (base, disp) = self.address_to_update(mem, 4);
        self.load_32(X16, base, disp);
        emit!(self ; sub w16, w16, 1);
        self.store_32(X16, base, disp);
        self.branch_zero(false, X16, Target::Inside(zero));
    }

    fn dec32_mem_branch_not_zero(&mut self, mem: Mem, more: Label) {
        let (base, disp) = self.address_to_update(mem, 4);
        self.load_32(X16, base, disp);
        emit!(self ; sub w16, w16, 1);
        self.store_32(X16, base, disp);
        self.branch_not_zero(false, X16, Target::Inside(more));
    }

    // ---- comparisons and control ----

    fn jump(&mut self, target: Label) {
        let label = self.label(target);
        emit!(self ; b =>label);
    }

    fn branch_cmp(&mut self, cond: Cond, a: Reg, b: Reg, target: Label) {
        emit!(self ; cmp X(r(a)), X(r(b)));
        self.branch(cond, Target::Inside(target));
    }

    fn branch_cmp_imm(&mut self, cond: Cond, a: Reg, value: i32, target: Label) {
        self.branch_imm(cond, true, r(a), value, Target::Inside(target));
    }

    fn branch_cmp_mem(&mut self, cond: Cond, a: Reg, mem: Mem, target: Label) {
        self.load_64(X16, r(mem.base), mem.disp);
        emit!(self ; cmp X(r(a)), x16);
        self.branch(cond, Target::Inside(target));
    }

    fn branch_cmp32_mem(&mut self, cond: Cond, a: Reg, mem: Mem, target: Label) {
        self.load_32(X16, r(mem.base), mem.disp);
        emit!(self ; cmp W(r(a)), w16);
        self.branch(cond, Target::Inside(target));
    }

    fn branch_mem_imm(&mut self, cond: Cond, mem: Mem, value: i32, target: Label) {
        self.load_64(X16, r(mem.base), mem.disp);
        self.branch_imm(cond, true, X16, value, Target::Inside(target));
    }

    fn branch_mem32_imm(&mut self, cond: Cond, mem: Mem, value: i32, target: Label) {
        self.load_32(X16, r(mem.base), mem.disp);
        self.branch_imm(cond, false, X16, value, Target::Inside(target));
    }

    fn branch_bits_set(&mut self, a: Reg, mask: u32, target: Label) {
        self.branch_mask(true, r(a), mask, target);
    }

    fn branch_bits_clear(&mut self, a: Reg, mask: u32, target: Label) {
        self.branch_mask(false, r(a), mask, target);
    }

    fn branch_mem32_bits_set(&mut self, mem: Mem, mask: u32, target: Label) {
        self.load_32(X16, r(mem.base), mem.disp);
        self.branch_mask(true, X16, mask, target);
    }

    fn branch_mem32_bits_clear(&mut self, mem: Mem, mask: u32, target: Label) {
        self.load_32(X16, r(mem.base), mem.disp);
        self.branch_mask(false, X16, mask, target);
    }

    fn jump_reg(&mut self, target: Reg) {
        emit!(self ; br X(r(target)));
    }

    fn jump_mem(&mut self, mem: Mem) {
        self.load_64(X16, r(mem.base), mem.disp);
        emit!(self ; br x16);
    }

    fn jump_near(&mut self, target: CodePtr) {
        emit!(self ; b extern target.0 as usize);
    }

    fn branch_cmp_imm_near(&mut self, cond: Cond, a: Reg, value: i32, target: CodePtr) {
        self.branch_imm(cond, true, r(a), value, Target::Outside(target));
    }

    fn call_reg(&mut self, target: Reg) {
        emit!(self ; blr X(r(target)));
    }

    fn call_mem(&mut self, mem: Mem) {
        self.load_64(X16, r(mem.base), mem.disp);
        emit!(self ; blr x16);
    }

    fn call_near(&mut self, target: CodePtr) {
        emit!(self ; bl extern target.0 as usize);
    }

    fn call_c(&mut self, target: *const ()) {
        self.immediate(X16, target as u64);
        emit!(self ; blr x16);
    }

    // ---- native frames ----

    fn body_enter(&mut self) {
        emit!(self ; stp x29, x30, [sp, -32]! ; stp x19, x21, [sp, 16] ; mov x29, sp ; mov x19, x0 ; mov x21, x1);
    }

    fn body_return(&mut self) {
        emit!(self ; ldp x19, x21, [sp, 16] ; ldp x29, x30, [sp], 32 ; ret);
    }

    fn stub_enter(&mut self) {
        emit!(self ; stp x30, x3, [sp, -16]!);
    }

    fn stub_exit(&mut self) {
        emit!(self ; ldp x30, x3, [sp], 16);
    }

    fn stub_abandon(&mut self) {
        // x30 is given back too, to no purpose: it costs nothing here.
        emit!(self ; ldp x30, x3, [sp], 16);
    }

    fn stub_abandon_early(&mut self) {
        // The return address is in x30 alone, and the body has saved its own.
    }

    fn ret(&mut self) {
        emit!(self ; ret);
    }

    fn push_pair(&mut self, a: Reg, b: Reg) {
        emit!(self ; stp X(r(b)), X(r(a)), [sp, -16]!);
    }

    fn pop_pair(&mut self, a: Reg, b: Reg) {
        if r(a) == r(b) {
            // ldp may not load one register twice.
            emit!(self ; ldr X(r(a)), [sp], 16);
        } else {
            emit!(self ; ldp X(r(b)), X(r(a)), [sp], 16);
        }
    }

    fn native_stack_pointer(&mut self, dst: Reg) {
        emit!(self ; mov XSP(r(dst)), sp);
    }

    fn native_stack_below(&mut self, dst: Reg, bytes: u32) {
        emit!(self ; sub XSP(r(dst)), sp, bytes >> 12, lsl 12);
    }

    fn stub_return_address(&mut self, dst: Reg) {
        emit!(self ; ldr X(r(dst)), [sp]);
    }

    fn body_return_address(&mut self, dst: Reg) {
        emit!(self ; ldr X(r(dst)), [sp, 24]);
    }

    fn trampoline(&mut self) -> usize {
        // No code uses d8 to d15.
        emit!(self
            ; stp x29, x30, [sp, -96]! ; mov x29, sp
            ; stp x19, x20, [sp, 16] ; stp x21, x22, [sp, 32] ; stp x23, x24, [sp, 48] ; stp x25, x26, [sp, 64] ; stp x27, x28, [sp, 80]
            ; mov x20, x1 ; mov x1, x3 ; blr x2);
        let returns = self.position();
        emit!(self
            ; ldp x27, x28, [sp, 80] ; ldp x25, x26, [sp, 64] ; ldp x23, x24, [sp, 48] ; ldp x21, x22, [sp, 32] ; ldp x19, x20, [sp, 16]
            ; ldp x29, x30, [sp], 96 ; ret);
        returns
    }

    fn call_on_stack(&mut self) {
        emit!(self ; stp x29, x30, [sp, -16]! ; mov x29, sp ; mov sp, x2 ; blr x1 ; mov sp, x29 ; ldp x29, x30, [sp], 16 ; ret);
    }

    // ---- floating point ----

    fn fload(&mut self, dst: FReg, mem: Mem) {
        access!(self, ldr, ldur, D(f(dst)), 8, r(mem.base), mem.disp);
    }

    fn fstore(&mut self, mem: Mem, src: FReg) {
        access!(self, str, stur, D(f(src)), 8, r(mem.base), mem.disp);
    }

    fn falu(&mut self, op: FAlu, dst: FReg, src: FReg) {
        let (d, s) = (f(dst), f(src));
        match op {
            FAlu::Add => emit!(self ; fadd D(d), D(d), D(s)),
            FAlu::Sub => emit!(self ; fsub D(d), D(d), D(s)),
            FAlu::Mul => emit!(self ; fmul D(d), D(d), D(s)),
            FAlu::Div => emit!(self ; fdiv D(d), D(d), D(s)),
        }
    }

    fn fconvert(&mut self, dst: FReg, src: Reg) {
        emit!(self ; scvtf D(f(dst)), X(r(src)));
    }

    fn fbranch(&mut self, cond: Cond, a: FReg, b: FReg, target: Label) {
        // fcmp gives C and V alone for unordered: `mi` and `ls` are false then, where `lt` and `le` would be true.
        emit!(self ; fcmp D(f(a)), D(f(b)));
        let label = self.long(Target::Inside(target));
        match cond {
            Cond::Eq => dynasm!(self.asm ; .arch aarch64 ; b.eq =>label),
            Cond::Ne => dynasm!(self.asm ; .arch aarch64 ; b.ne =>label),
            Cond::Lt | Cond::Below => dynasm!(self.asm ; .arch aarch64 ; b.mi =>label),
            Cond::Le => dynasm!(self.asm ; .arch aarch64 ; b.ls =>label),
            Cond::Gt => dynasm!(self.asm ; .arch aarch64 ; b.gt =>label),
            Cond::Ge | Cond::AboveEq => dynasm!(self.asm ; .arch aarch64 ; b.ge =>label),
        }
    }

    fn fbranch_zero(&mut self, a: FReg, target: Label) {
        emit!(self ; fcmp D(f(a)), 0.0);
        self.branch(Cond::Eq, Target::Inside(target));
    }
}
