//! A `MacroAssembler` around a backend that makes code the same on every run, and remembers what its parts are.
//!
//! Addresses of objects and functions are replaced by stand-ins of the same shape before the backend sees them, so that the choice of encodings and the
//! sharing of literals is as with real ones.

use std::cell::RefCell;

use hotstamp_baseline::masm::{
    Alu, AssembleError, Cond, FAlu, FReg, Label, MacroAssembler, Mem, Reg, Shift,
};
use hotstamp_runtime::site::CodePtr;

use crate::symbols::Symbols;

/// What a part of the code belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// In front of the first instruction.
    Prologue,
    /// The bytecode instruction at this offset, in code units.
    Instruction(u32),
    /// Out of line code of that instruction.
    Cold(u32),
    /// What the backend put behind the code: islands and literals.
    Behind,
}

/// What is remembered of an assembly.
#[derive(Default)]
pub struct Notes {
    /// The names of the stand-ins.
    pub symbols: Symbols,
    /// Where parts begin, in order.
    pub parts: Vec<(usize, Part)>,
    /// Where `align` was called, after the padding.
    pub aligned: Vec<usize>,
    labels: Vec<(Label, Option<u32>)>,
    instruction: Option<u32>,
}

thread_local! {
    /// The assembly that goes on in this thread: the compiler makes its assembler itself and keeps it.
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// Assembles with these symbols known, and gives what was noted with the result.
pub fn noting<R>(symbols: Symbols, assemble: impl FnOnce() -> R) -> (R, Notes) {
    NOTES.set(Notes {
        symbols,
        ..Notes::default()
    });
    let result = assemble();
    (result, NOTES.take())
}

fn note<R>(change: impl FnOnce(&mut Notes) -> R) -> R {
    NOTES.with_borrow_mut(change)
}

/// See the module.
pub struct Annotated<M>(M);

/// Methods that only pass on.
macro_rules! pass_on {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method(&mut self, $($argument: $type),*) {
            self.0.$method($($argument),*)
        })*
    };
}

impl<M: MacroAssembler> MacroAssembler for Annotated<M> {
    fn new(address: CodePtr) -> Self {
        note(|notes| notes.parts.push((0, Part::Prologue)));
        Annotated(M::new(address))
    }

    fn position(&self) -> usize {
        self.0.position()
    }

    fn finish(self) -> Result<Vec<u8>, AssembleError> {
        let end = self.0.position();
        note(|notes| notes.parts.push((end, Part::Behind)));
        self.0.finish()
    }

    fn new_label(&mut self) -> Label {
        let label = self.0.new_label();
        note(|notes| notes.labels.push((label, notes.instruction)));
        label
    }

    fn write_into(&mut self, memory: Vec<u8>, bytes: usize) {
        self.0.write_into(memory, bytes);
    }

    fn new_near_label(&mut self) -> Label {
        let label = self.0.new_near_label();
        note(|notes| notes.labels.push((label, notes.instruction)));
        label
    }

    fn new_labels(&mut self, count: usize) -> Label {
        self.0.new_labels(count)
    }

    /// A label that another instruction made for itself is bound: its out of line code begins.
    fn bind(&mut self, label: Label) {
        self.0.bind(label);
        let position = self.0.position();
        note(|notes| {
            let known = notes.labels.iter().rev().find(|(known, _)| *known == label);
            let maker = known.and_then(|(_, maker)| *maker);
            if let Some(maker) = maker
                && notes.instruction != Some(maker)
            {
                notes.parts.push((position, Part::Cold(maker)));
            }
        });
    }

    fn align(&mut self) {
        self.0.align();
        let position = self.0.position();
        note(|notes| notes.aligned.push(position));
    }

    fn note_instruction(&mut self, offset: u32) {
        let position = self.0.position();
        note(|notes| {
            notes.instruction = Some(offset);
            notes.parts.push((position, Part::Instruction(offset)));
        });
    }

    fn mov_imm(&mut self, dst: Reg, value: u64) {
        let value = note(|notes| notes.symbols.stand_in(value));
        self.0.mov_imm(dst, value);
    }

    fn call_c(&mut self, target: *const ()) {
        let target = note(|notes| notes.symbols.stand_in(target as u64));
        self.0.call_c(target as *const ());
    }

    fn trampoline(&mut self) -> usize {
        self.0.trampoline()
    }

    pass_on! {
        mov(dst: Reg, src: Reg);
        load(dst: Reg, mem: Mem);
        load32(dst: Reg, mem: Mem);
        load16(dst: Reg, mem: Mem);
        load8(dst: Reg, mem: Mem);
        store(mem: Mem, src: Reg);
        store32(mem: Mem, src: Reg);
        store8(mem: Mem, src: Reg);
        store_imm(mem: Mem, value: i32);
        store32_imm(mem: Mem, value: i32);
        load_indexed(dst: Reg, base: Reg, index: Reg, disp: i32);
        store_indexed(base: Reg, index: Reg, disp: i32, src: Reg);
        lea(dst: Reg, mem: Mem);
        lea_indexed(dst: Reg, base: Reg, index: Reg, disp: i32);
        alu(op: Alu, dst: Reg, src: Reg);
        alu_imm(op: Alu, dst: Reg, value: i32);
        shift_imm(op: Shift, dst: Reg, amount: u8);
        mul_overflow(dst: Reg, src: Reg, overflow: Label);
        neg(dst: Reg);
        add32_mem(mem: Mem, value: i32);
        add64_mem(mem: Mem, value: i32);
        dec32_mem_branch_zero(mem: Mem, zero: Label);
        dec32_mem_branch_not_zero(mem: Mem, more: Label);
        jump(target: Label);
        branch_cmp(cond: Cond, a: Reg, b: Reg, target: Label);
        branch_cmp_imm(cond: Cond, a: Reg, value: i32, target: Label);
        branch_cmp_mem(cond: Cond, a: Reg, mem: Mem, target: Label);
        branch_cmp32_mem(cond: Cond, a: Reg, mem: Mem, target: Label);
        branch_mem_imm(cond: Cond, mem: Mem, value: i32, target: Label);
        branch_mem32_imm(cond: Cond, mem: Mem, value: i32, target: Label);
        branch_bits_set(a: Reg, mask: u32, target: Label);
        branch_bits_clear(a: Reg, mask: u32, target: Label);
        branch_mem32_bits_set(mem: Mem, mask: u32, target: Label);
        branch_mem32_bits_clear(mem: Mem, mask: u32, target: Label);
        jump_reg(target: Reg);
        jump_mem(mem: Mem);
        jump_near(target: CodePtr);
        branch_cmp_imm_near(cond: Cond, a: Reg, value: i32, target: CodePtr);
        call_reg(target: Reg);
        call_mem(mem: Mem);
        call_near(target: CodePtr);
        body_enter();
        body_return();
        stub_enter();
        stub_exit();
        stub_abandon();
        stub_abandon_early();
        ret();
        push_pair(a: Reg, b: Reg);
        pop_pair(a: Reg, b: Reg);
        native_stack_pointer(dst: Reg);
        native_stack_below(dst: Reg, bytes: u32);
        stub_return_address(dst: Reg);
        body_return_address(dst: Reg);
        call_on_stack();
        fload(dst: FReg, mem: Mem);
        fstore(mem: Mem, src: FReg);
        falu(op: FAlu, dst: FReg, src: FReg);
        fconvert(dst: FReg, src: Reg);
        fbranch(cond: Cond, a: FReg, b: FReg, target: Label);
        fbranch_zero(a: FReg, target: Label);
    }
}
