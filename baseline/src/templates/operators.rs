//! Operators whose operands come in registers.

use std::mem::offset_of;

use hotstamp_layout::opcode::Opcode;
use hotstamp_runtime::caches::operators;
use hotstamp_runtime::code_data::CodeData;
use hotstamp_runtime::helpers::memory_helper;
use hotstamp_runtime::site::RegisterHelper;

use crate::compiler::Compiler;
use crate::error::CompileError;
use crate::masm::{Alu, Cond, MacroAssembler, Reg};
use crate::vstack::Entry;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// Takes the top `count` (1 to 3) entries into Acc, A1, A2 in stack order, all others having been flushed.
    #[inline]
    pub(crate) fn pop_operands<const COUNT: usize>(&mut self) {
        self.stack.flush_below(&mut self.m, COUNT);
        const REGISTERS: [Reg; 3] = [Reg::Acc, Reg::A1, Reg::A2];
        let base = self.stack.depth() - COUNT;
        // From the last to the first: `Acc` may hold any of them, and is written last.
        for index in (0..COUNT).rev() {
            let entry = self.stack.peek(COUNT - 1 - index);
            debug_assert!(
                index > 0
                    || entry != Entry::Acc
                    || (0..COUNT - 1).all(|back| self.stack.peek(back) != Entry::Acc)
            );
            self.stack
                .materialize(&mut self.m, entry, base + index, REGISTERS[index]);
        }
        self.stack.drop_top(COUNT);
    }

    /// `BINARY_OP`, `COMPARE_OP`, `CONTAINS_OP`: two operands, one result, through the site's register helper.
    pub(crate) fn emit_binary(&mut self) -> Result<(), CompileError> {
        let helper = match self.at.opcode {
            Opcode::BINARY_OP => operators::binary_op as RegisterHelper as *const (),
            Opcode::COMPARE_OP => operators::compare_op as RegisterHelper as *const (),
            _ => operators::contains_op as RegisterHelper as *const (),
        };
        self.pop_operands::<2>();
        let site = self.plan_site(self.stubs.register, helper, self.stack.depth(), true);
        self.call_site(site);
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// `STORE_SUBSCR`: value, container, subscript.
    pub(crate) fn emit_store_subscr(&mut self) -> Result<(), CompileError> {
        let helper: RegisterHelper = operators::store_subscr;
        self.pop_operands::<3>();
        let site = self.plan_site(
            self.stubs.register_void,
            helper as *const (),
            self.stack.depth(),
            true,
        );
        self.call_site(site);
        Ok(())
    }

    /// `TO_BOOL`: a bool stays what it is.
    pub(crate) fn emit_to_bool(&mut self) -> Result<(), CompileError> {
        let helper: RegisterHelper = operators::to_bool;
        self.pop_operands::<1>();
        let done = self.m.new_near_label();
        for field in [
            offset_of!(CodeData, true_bits),
            offset_of!(CodeData, false_bits),
        ] {
            self.m
                .branch_cmp_mem(Cond::Eq, Reg::Acc, Reg::Data.at(field), done);
        }
        let site = self.plan_site(
            self.stubs.register,
            helper as *const (),
            self.stack.depth(),
            true,
        );
        self.call_site(site);
        self.m.bind(done);
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// `UNARY_NOT`: the operand is exactly True or False, so it is exchanged for the other.
    pub(crate) fn emit_unary_not(&mut self) -> Result<(), CompileError> {
        self.pop_operands::<1>();
        self.m
            .load(Reg::T0, Reg::Data.at(offset_of!(CodeData, true_bits)));
        self.m
            .load(Reg::T1, Reg::Data.at(offset_of!(CodeData, false_bits)));
        self.m.alu(Alu::Xor, Reg::Acc, Reg::T0);
        self.m.alu(Alu::Xor, Reg::Acc, Reg::T1);
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// `IS_OP`: inline where neither operand has to be released.
    pub(crate) fn emit_is_op(&mut self, inverted: u32) -> Result<(), CompileError> {
        let borrowed = |entry| matches!(entry, Entry::Local(_) | Entry::Const(_));
        if !borrowed(self.stack.peek(0)) || !borrowed(self.stack.peek(1)) {
            let Some((helper, _)) = memory_helper(self.at.opcode as u8) else {
                return Err(CompileError::BadBytecode("no helper"));
            };
            // The helper is for optimized code.
            self.pop_operands::<2>();
            let stub = self.stubs.identity;
            let site = self.plan_site(stub, helper as *const (), self.stack.depth(), false);
            self.call_site(site);
            self.stack.push(Entry::Acc);
            return Ok(());
        }
        let (right, left) = (self.stack.take(), self.stack.take());
        self.stack.spill_acc(&mut self.m);
        let depth = self.stack.depth();
        self.stack.materialize(&mut self.m, left, depth, Reg::T0);
        self.stack
            .materialize(&mut self.m, right, depth + 1, Reg::T1);
        let (same, different) = if inverted == 0 {
            (
                offset_of!(CodeData, true_bits),
                offset_of!(CodeData, false_bits),
            )
        } else {
            (
                offset_of!(CodeData, false_bits),
                offset_of!(CodeData, true_bits),
            )
        };
        let done = self.m.new_near_label();
        self.m.load(Reg::Acc, Reg::Data.at(same));
        self.m.branch_cmp(Cond::Eq, Reg::T0, Reg::T1, done);
        self.m.load(Reg::Acc, Reg::Data.at(different));
        self.m.bind(done);
        self.stack.push(Entry::Acc);
        Ok(())
    }
}
