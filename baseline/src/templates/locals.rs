//! Locals and constants.

use std::mem::offset_of;

use hotstamp_layout::{ffi, refs};

use crate::compiler::{Cold, Compiler, SiteRef};
use crate::error::CompileError;
use crate::masm::{Alu, Cond, MacroAssembler, Reg};
use crate::stubs::{BORROWED, NULL_BITS};
use crate::vstack::{Entry, VirtualStack};

/// The two local indices of a fused instruction.
fn pair(oparg: u32) -> (u32, u32) {
    (oparg >> 4, oparg & 15)
}

impl<M: MacroAssembler> Compiler<'_, M> {
    /// `LOAD_FAST`: the local is known to be bound; the stack owns a reference of its own.
    pub(crate) fn emit_load_fast(&mut self, index: u32) -> Result<(), CompileError> {
        self.stack.spill_acc(&mut self.m);
        self.m.load(Reg::Acc, VirtualStack::local(index));
        self.emit_incref(Reg::Acc);
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// `LOAD_FAST_BORROW`: costs nothing until somebody wants the value.
    pub(crate) fn emit_load_fast_borrow(&mut self, index: u32) -> Result<(), CompileError> {
        self.stack.push(Entry::Local(index));
        Ok(())
    }

    pub(crate) fn emit_load_fast_load_fast(&mut self, oparg: u32) -> Result<(), CompileError> {
        let (first, second) = pair(oparg);
        self.emit_load_fast(first)?;
        self.emit_load_fast(second)
    }

    pub(crate) fn emit_load_fast_borrow_load_fast_borrow(
        &mut self,
        oparg: u32,
    ) -> Result<(), CompileError> {
        let (first, second) = pair(oparg);
        self.emit_load_fast_borrow(first)?;
        self.emit_load_fast_borrow(second)
    }

    /// `LOAD_FAST_AND_CLEAR`: the local's reference, or null, moves to the stack.
    pub(crate) fn emit_load_fast_and_clear(&mut self, index: u32) -> Result<(), CompileError> {
        self.materialize_borrows_of(index);
        self.stack.spill_acc(&mut self.m);
        self.m.load(Reg::Acc, VirtualStack::local(index));
        self.m.store_imm(VirtualStack::local(index), NULL_BITS);
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// A site of the opcode's memory helper for code behind the function's end. The operand stack goes to memory.
    fn plan_cold_helper(&mut self) -> Result<SiteRef, CompileError> {
        self.stack.flush(&mut self.m);
        let Some((helper, _)) = hotstamp_runtime::helpers::memory_helper(self.at.opcode as u8)
        else {
            return Err(CompileError::BadBytecode("no helper"));
        };
        let depth = self.stack.depth();
        Ok(self.plan_site(self.stubs.memory, helper as *const (), depth, false))
    }

    /// `LOAD_FAST_CHECK`: as `LOAD_FAST` for a local that may be unbound; the helper raises then.
    pub(crate) fn emit_load_fast_check(&mut self, index: u32) -> Result<(), CompileError> {
        let site = self.plan_cold_helper()?;
        let (from, back) = (self.m.new_label(), self.m.new_label());
        self.m.load(Reg::Acc, VirtualStack::local(index));
        self.m.branch_cmp_imm(Cond::Eq, Reg::Acc, NULL_BITS, from);
        self.emit_incref(Reg::Acc);
        self.m.bind(back);
        self.cold.push(Cold::Call { from, back, site });
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// `LOAD_DEREF`: the content of a cell; the helper raises where it is empty.
    pub(crate) fn emit_load_deref(&mut self, index: u32) -> Result<(), CompileError> {
        let site = self.plan_cold_helper()?;
        let (from, back) = (self.m.new_label(), self.m.new_label());
        let (immortal, done) = (self.m.new_near_label(), self.m.new_near_label());
        self.m.load(Reg::T0, VirtualStack::local(index));
        self.m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        self.m
            .load(Reg::Acc, Reg::T0.at(offset_of!(ffi::PyCellObject, ob_ref)));
        self.m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, from);
        self.m
            .branch_mem32_imm(Cond::Lt, Reg::Acc.at(0), 0, immortal);
        self.m.add32_mem(Reg::Acc.at(0), 1);
        self.m.jump(done);
        self.m.bind(immortal);
        self.m.alu_imm(Alu::Or, Reg::Acc, BORROWED);
        self.m.bind(done);
        self.m.bind(back);
        self.cold.push(Cold::Call { from, back, site });
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// `STORE_FAST`: the value moves into the local, what was there is released afterwards (its destructor sees the new value).
    pub(crate) fn emit_store_fast(&mut self, index: u32) -> Result<(), CompileError> {
        self.materialize_borrows_of(index);
        let local = VirtualStack::local(index);
        let depth = self.stack.depth() - 1;
        let entry = self.stack.take();
        // A destructor may run below: nothing else may live in `Acc`.
        self.stack.spill_acc(&mut self.m);
        let value = match entry {
            Entry::Acc => Reg::Acc,
            _ => Reg::T0,
        };
        match entry {
            Entry::Const(bits) => self.load_owned_constant(bits, value),
            Entry::Local(source) => {
                self.m.load(value, VirtualStack::local(source));
                self.emit_incref(value);
            }
            _ => self.stack.materialize(&mut self.m, entry, depth, value),
        }
        self.m.load(Reg::A1, local);
        self.m.store(local, value);
        self.emit_close(0);
        Ok(())
    }

    pub(crate) fn emit_store_fast_load_fast(&mut self, oparg: u32) -> Result<(), CompileError> {
        let (first, second) = pair(oparg);
        self.emit_store_fast(first)?;
        self.emit_load_fast(second)
    }

    pub(crate) fn emit_store_fast_store_fast(&mut self, oparg: u32) -> Result<(), CompileError> {
        let (first, second) = pair(oparg);
        self.emit_store_fast(first)?;
        self.emit_store_fast(second)
    }

    /// `LOAD_CONST`: the code object keeps its constants alive, so the stack borrows.
    pub(crate) fn emit_load_const(&mut self, index: u32) -> Result<(), CompileError> {
        let bits = self.constant(index) as u64 | BORROWED as u64;
        self.stack.push(Entry::Const(bits));
        Ok(())
    }

    /// `LOAD_SMALL_INT`: small integers are immortal.
    pub(crate) fn emit_load_small_int(&mut self, value: u32) -> Result<(), CompileError> {
        // The table begins at the most negative small integer.
        let index = hotstamp_layout::ffi::_PY_NSMALLNEGINTS as usize + value as usize;
        let object = refs::small_ints().wrapping_add(index);
        self.stack
            .push(Entry::Const(object as u64 | BORROWED as u64));
        Ok(())
    }

    /// Takes a reference for the `StackRef` in `reg` unless it is borrowed or null.
    pub(crate) fn emit_incref(&mut self, reg: Reg) {
        let done = self.m.new_near_label();
        self.m.branch_bits_set(reg, BORROWED as u32, done);
        self.m.add32_mem(reg.at(0), 1);
        self.m.bind(done);
    }

    /// `dst` = a constant with a reference of its own (immortal ones need none).
    fn load_owned_constant(&mut self, bits: u64, dst: Reg) {
        if self.is_mortal(bits) {
            self.m.mov_imm(dst, bits & !(BORROWED as u64));
            self.m.add32_mem(dst.at(0), 1);
        } else {
            self.m.mov_imm(dst, bits);
        }
    }

    /// Whether a constant's references are counted.
    fn is_mortal(&self, bits: u64) -> bool {
        let pointer = bits & !(BORROWED as u64);
        // SAFETY: constants are null or live objects of the code object.
        pointer != 0 && unsafe { !refs::is_immortal(pointer as *mut _) }
    }

    /// Stores constants among the top `count` entries to their slots, with references of their own where constants are mortal: a callee sees how many there are.
    pub(crate) fn own_constants(&mut self, count: usize) {
        let depth = self.stack.depth();
        for at in depth - count..depth {
            if let Some(bits) = self.stack.constant_at(at)
                && self.is_mortal(bits)
            {
                self.load_owned_constant(bits, Reg::T0);
                self.stack.store_owned(&mut self.m, at, Reg::T0);
            }
        }
    }

    /// Before a local changes: entries borrowed from it get references of their own.
    fn materialize_borrows_of(&mut self, index: u32) {
        if self.stack.borrows_from(index) {
            self.stack.own_borrows_of(&mut self.m, index);
        }
    }
}
