//! The `MacroAssembler`: what templates and shared stubs are written in.
//!
//! One trait, two mirrored backends (`x86_64.rs`, `aarch64.rs`: same methods in the same order). The documentation stands here and holds for both.
//! Templates name registers by role, never by number. Memory operands are a role and a byte displacement; a backend splits what its encodings cannot reach, using only
//! its own private scratch registers. No method changes a register it does not name, except flags, unless it says so.

pub mod aarch64;
pub mod x86_64;

#[cfg(test)]
mod tests;

use hotstamp_runtime::site::CodePtr;

/// A register by its role. ARCHITECTURE.md has the mapping to machine registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reg {
    /// Result of every call, and the cached top of the operand stack. On AArch64 this is the same register as `A0`.
    Acc,
    /// First C argument.
    A0,
    /// Second C argument; second register operand of a site.
    A1,
    /// Third C argument; third register operand of a site.
    A2,
    /// Fourth C argument; the site's address.
    A3,
    /// Fifth C argument.
    A4,
    /// Sixth C argument.
    A5,
    /// Scratch, lost at any call.
    T0,
    /// Scratch, lost at any call.
    T1,
    /// Scratch, lost at any call.
    T2,
    /// Scratch, lost at any call.
    T3,
    /// Scratch, lost at any call.
    T4,
    /// The running `_PyInterpreterFrame`.
    Frame,
    /// The running code's `CodeData`.
    Data,
    /// The thread state.
    Tstate,
}

/// A floating-point register; all are lost at any call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FReg {
    /// First.
    F0,
    /// Second.
    F1,
}

/// A memory operand: `[base + disp]`, `disp` in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    /// Register that holds the base address.
    pub base: Reg,
    /// Displacement in bytes.
    pub disp: i32,
}

impl Reg {
    /// `[self + disp]`.
    pub fn at(self, disp: usize) -> Mem {
        Mem {
            base: self,
            disp: disp as i32,
        }
    }

    /// `[self + disp]` with a signed displacement.
    pub fn offset(self, disp: i32) -> Mem {
        Mem { base: self, disp }
    }
}

/// Condition of a branch after a comparison `a ? b`, or after floating-point comparison (where a NaN makes every condition but `Ne` false).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cond {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Signed less than.
    Lt,
    /// Signed less than or equal.
    Le,
    /// Signed greater than.
    Gt,
    /// Signed greater than or equal.
    Ge,
    /// Unsigned less than.
    Below,
    /// Unsigned greater than or equal.
    AboveEq,
}

impl Cond {
    /// The condition that holds exactly when this one does not (for integers).
    pub fn negated(self) -> Cond {
        match self {
            Cond::Eq => Cond::Ne,
            Cond::Ne => Cond::Eq,
            Cond::Lt => Cond::Ge,
            Cond::Le => Cond::Gt,
            Cond::Gt => Cond::Le,
            Cond::Ge => Cond::Lt,
            Cond::Below => Cond::AboveEq,
            Cond::AboveEq => Cond::Below,
        }
    }
}

/// A place in the code being assembled; may be used before it is bound, and must be bound in the end if it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(u32);

impl Label {
    const NEAR: u32 = 1 << 31;

    /// The label with this number, which is counted by each assembler from 0.
    #[inline]
    fn new(number: u32, near: bool) -> Label {
        Label(if near { number | Label::NEAR } else { number })
    }

    #[inline]
    fn number(self) -> usize {
        (self.0 & !Label::NEAR) as usize
    }

    #[inline]
    fn is_near(self) -> bool {
        self.0 & Label::NEAR != 0
    }

    /// Of labels made by `new_labels`, which gave this one: the label with this index.
    #[inline]
    pub fn nth(self, index: usize) -> Label {
        Label(self.0 + index as u32)
    }
}

/// Integer operations of `alu` and `alu_imm`: `dst = dst op src`, 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alu {
    /// Addition.
    Add,
    /// Subtraction.
    Sub,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
}

/// Shifts of `shift_imm`, 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// Left.
    Left,
    /// Right, logical (zeros come in).
    RightLogical,
    /// Right, arithmetic (the sign comes in).
    RightArithmetic,
}

/// Floating-point operations of `falu`: `dst = dst op src`, binary64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FAlu {
    /// Addition.
    Add,
    /// Subtraction.
    Sub,
    /// Multiplication.
    Mul,
    /// Division.
    Div,
}

/// Why assembling failed.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A branch or a stub is out of the encoding's reach, or a label was never bound.
    #[error("machine code cannot be relocated: {0}")]
    Relocation(String),
}

/// An assembler for one architecture. Code is assembled for the address given at construction and copied there afterwards.
pub trait MacroAssembler: Sized {
    /// Starts assembling code that will stand at `address`.
    fn new(address: CodePtr) -> Self;
    /// Bytes assembled so far.
    fn position(&self) -> usize;
    /// Resolves all labels and gives the code. Fails if a label is unbound or out of reach.
    fn finish(self) -> Result<Vec<u8>, AssembleError>;

    /// Assembles about so many bytes, into this memory if the assembler can.
    fn write_into(&mut self, _memory: Vec<u8>, _bytes: usize) {}
    /// A label not bound yet.
    fn new_label(&mut self) -> Label;
    /// A label not bound yet, which will be bound no more than 100 bytes behind any branch to it: branches to it may be shorter.
    fn new_near_label(&mut self) -> Label;
    /// So many labels at once; the first, see `Label::nth`.
    fn new_labels(&mut self, count: usize) -> Label;
    /// Binds `label` here.
    fn bind(&mut self, label: Label);
    /// Pads to the alignment at which functions and stubs begin (16 bytes).
    fn align(&mut self);
    /// The code of the bytecode instruction at `offset` (in code units) begins here: for assemblers that annotate a listing. Gives no code.
    fn note_instruction(&mut self, _offset: u32) {}

    // ---- moves ----

    /// `dst = src`; nothing if they are the same machine register.
    fn mov(&mut self, dst: Reg, src: Reg);
    /// `dst = value`, in as few bytes as the value allows.
    fn mov_imm(&mut self, dst: Reg, value: u64);
    /// `dst = [mem]`, 64 bits.
    fn load(&mut self, dst: Reg, mem: Mem);
    /// `dst = [mem]`, 32 bits, zero-extended.
    fn load32(&mut self, dst: Reg, mem: Mem);
    /// `dst = [mem]`, 16 bits, zero-extended.
    fn load16(&mut self, dst: Reg, mem: Mem);
    /// `dst = [mem]`, 8 bits, zero-extended.
    fn load8(&mut self, dst: Reg, mem: Mem);
    /// `[mem] = src`, 64 bits.
    fn store(&mut self, mem: Mem, src: Reg);
    /// `[mem] = src`, low 32 bits.
    fn store32(&mut self, mem: Mem, src: Reg);
    /// `[mem] = src`, low 8 bits.
    fn store8(&mut self, mem: Mem, src: Reg);
    /// `[mem] = value`, 64 bits, sign-extended.
    fn store_imm(&mut self, mem: Mem, value: i32);
    /// `[mem] = value`, 32 bits.
    fn store32_imm(&mut self, mem: Mem, value: i32);
    /// `dst = [base + index * 8 + disp]`, 64 bits.
    fn load_indexed(&mut self, dst: Reg, base: Reg, index: Reg, disp: i32);
    /// `[base + index * 8 + disp] = src`, 64 bits.
    fn store_indexed(&mut self, base: Reg, index: Reg, disp: i32, src: Reg);
    /// `dst = base + disp`, flags kept or not.
    fn lea(&mut self, dst: Reg, mem: Mem);
    /// `dst = base + index * 8 + disp`.
    fn lea_indexed(&mut self, dst: Reg, base: Reg, index: Reg, disp: i32);

    // ---- arithmetic ----

    /// `dst = dst op src`.
    fn alu(&mut self, op: Alu, dst: Reg, src: Reg);
    /// `dst = dst op value`.
    fn alu_imm(&mut self, op: Alu, dst: Reg, value: i32);
    /// `dst = dst shifted by amount` (0..=63).
    fn shift_imm(&mut self, op: Shift, dst: Reg, amount: u8);
    /// `dst = dst * src`, branching to `overflow` if the signed 64-bit product does not fit; `dst` is then undefined.
    fn mul_overflow(&mut self, dst: Reg, src: Reg, overflow: Label);
    /// `dst = -dst`.
    fn neg(&mut self, dst: Reg);
    /// `[mem] += value`, 32 bits. May use no register but private scratch.
    fn add32_mem(&mut self, mem: Mem, value: i32);
    /// `[mem] += value`, 64 bits.
    fn add64_mem(&mut self, mem: Mem, value: i32);
    /// `[mem] -= 1`, 32 bits, then branches to `zero` if the result is zero. This is how references are released.
    fn dec32_mem_branch_zero(&mut self, mem: Mem, zero: Label);
    /// `[mem] -= 1`, 32 bits, then branches to `more` unless the result is zero. This is how loops are counted.
    fn dec32_mem_branch_not_zero(&mut self, mem: Mem, more: Label);

    // ---- comparisons and control ----

    /// Branches to `target`.
    fn jump(&mut self, target: Label);
    /// Branches if `a cond b`.
    fn branch_cmp(&mut self, cond: Cond, a: Reg, b: Reg, target: Label);
    /// Branches if `a cond value` (the value sign-extended to 64 bits).
    fn branch_cmp_imm(&mut self, cond: Cond, a: Reg, value: i32, target: Label);
    /// Branches if `a cond [mem]`, 64 bits.
    fn branch_cmp_mem(&mut self, cond: Cond, a: Reg, mem: Mem, target: Label);
    /// Branches if `low32(a) cond [mem]`, 32 bits.
    fn branch_cmp32_mem(&mut self, cond: Cond, a: Reg, mem: Mem, target: Label);
    /// Branches if `[mem] cond value`, 64 bits, the value sign-extended.
    fn branch_mem_imm(&mut self, cond: Cond, mem: Mem, value: i32, target: Label);
    /// Branches if `[mem] cond value`, 32 bits.
    fn branch_mem32_imm(&mut self, cond: Cond, mem: Mem, value: i32, target: Label);
    /// Branches if any bit of `mask` (at most 32 bits wide, non-negative) is set in `a`.
    fn branch_bits_set(&mut self, a: Reg, mask: u32, target: Label);
    /// Branches if no bit of `mask` is set in `a`.
    fn branch_bits_clear(&mut self, a: Reg, mask: u32, target: Label);
    /// Branches if any bit of `mask` is set in the 32 bits at `[mem]`.
    fn branch_mem32_bits_set(&mut self, mem: Mem, mask: u32, target: Label);
    /// Branches if no bit of `mask` is set in the 32 bits at `[mem]`.
    fn branch_mem32_bits_clear(&mut self, mem: Mem, mask: u32, target: Label);
    /// Jumps to the address in `target`.
    fn jump_reg(&mut self, target: Reg);
    /// Jumps to the address at `[mem]`.
    fn jump_mem(&mut self, mem: Mem);
    /// Jumps to code in the same code memory (in branch range).
    fn jump_near(&mut self, target: CodePtr);
    /// Branches to code in the same code memory if `a cond value`.
    fn branch_cmp_imm_near(&mut self, cond: Cond, a: Reg, value: i32, target: CodePtr);
    /// Calls the address in `target`.
    fn call_reg(&mut self, target: Reg);
    /// Calls the address at `[mem]`.
    fn call_mem(&mut self, mem: Mem);
    /// Calls code in the same code memory (in branch range).
    fn call_near(&mut self, target: CodePtr);
    /// Calls a C function at any address. The native stack must be aligned (`body` level, or inside `stub_enter`). Uses private scratch only (on x86-64: `Acc`).
    fn call_c(&mut self, target: *const ());

    // ---- native frames ----

    /// First instructions of a body: saves the caller's `Frame` and `Data` and the return address, then `Frame = A0` and `Data = A1`.
    fn body_enter(&mut self);
    /// Restores what `body_enter` saved and returns to the caller; `Acc` is the result.
    fn body_return(&mut self);
    /// In a shared stub reached by `call` from a body: aligns the native stack so that C functions may be called, and saves `A3` (the site).
    fn stub_enter(&mut self);
    /// Undoes `stub_enter` and gives back `A3` as it was saved.
    fn stub_exit(&mut self);
    /// Undoes `stub_enter`, giving back `A3`, and drops the return address to the body, which is left for good (error paths): now at body level.
    fn stub_abandon(&mut self);
    /// Drops the return address in a stub that has not done `stub_enter`: now at body level.
    fn stub_abandon_early(&mut self);
    /// Returns from a shared stub.
    fn ret(&mut self);
    /// Saves two registers on the native stack (16 bytes, alignment kept): `b` at the native stack pointer, `a` 8 bytes above.
    fn push_pair(&mut self, a: Reg, b: Reg);
    /// Restores what `push_pair` with the same registers saved.
    fn pop_pair(&mut self, a: Reg, b: Reg);
    /// `dst` = the native stack pointer.
    fn native_stack_pointer(&mut self, dst: Reg);
    /// `dst` = the native stack pointer less `bytes`, a multiple of 4,096 below 2^24.
    fn native_stack_below(&mut self, dst: Reg, bytes: u32);
    /// Inside `stub_enter`, with nothing pushed behind it: `dst` = the stub's return address.
    fn stub_return_address(&mut self, dst: Reg);
    /// Inside `stub_enter`, with nothing pushed behind it, of a stub called at body level: `dst` = the return address of the body.
    fn body_return_address(&mut self, dst: Reg);
    /// The trampoline from Rust into bodies: C signature `(frame, tstate, entry, data) -> bits`. Saves all callee-saved registers, sets `Tstate`, calls
    /// `entry` with `A0 = frame` and `A1 = data`, restores and returns the body's result. A fifth and sixth argument are passed on in `A4` and `A5`.
    /// Gives the position that the body returns to.
    fn trampoline(&mut self) -> usize;
    /// A C function `(argument, function, top) -> result`, which calls the C function `function(argument)` on the native stack that ends at `top` (aligned to 16
    /// bytes) and returns its result.
    fn call_on_stack(&mut self);

    // ---- floating point ----

    /// `dst = [mem]`, binary64.
    fn fload(&mut self, dst: FReg, mem: Mem);
    /// `[mem] = src`, binary64.
    fn fstore(&mut self, mem: Mem, src: FReg);
    /// `dst = dst op src`.
    fn falu(&mut self, op: FAlu, dst: FReg, src: FReg);
    /// `dst = src` converted from a signed 64-bit integer.
    fn fconvert(&mut self, dst: FReg, src: Reg);
    /// Branches if `a cond b`; with a NaN only `Ne` branches.
    fn fbranch(&mut self, cond: Cond, a: FReg, b: FReg, target: Label);
    /// Branches if `a` is zero (either sign); a NaN does not branch.
    fn fbranch_zero(&mut self, a: FReg, target: Label);
}
