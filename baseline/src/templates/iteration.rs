//! Loops over iterators.

use hotstamp_runtime::caches::iteration;
use hotstamp_runtime::helpers::unpack::op_unpack_sequence;
use hotstamp_runtime::site::{MemoryHelper, RegisterHelper};

use crate::compiler::Compiler;
use crate::error::CompileError;
use crate::masm::{Cond, MacroAssembler, Reg};
use crate::stubs::NULL_BITS;
use crate::vstack::Entry;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// `FOR_ITER`: the iterator stays on the stack, the next value is pushed; when exhausted, control goes behind the END_FOR at the target.
    pub(crate) fn emit_for_iter(&mut self) -> Result<(), CompileError> {
        self.stack.flush(&mut self.m);
        let exhausted = self.target(self.at.jump_target() + 1)?;
        let helper: RegisterHelper = iteration::for_iter;
        let site = self.plan_site(
            self.stubs.register,
            helper as *const (),
            self.stack.depth(),
            true,
        );
        self.m
            .load(Reg::Acc, self.stack.slot(self.stack.depth() - 1));
        self.call_site(site);
        self.m
            .branch_cmp_imm(Cond::Eq, Reg::Acc, NULL_BITS, exhausted);
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// `UNPACK_SEQUENCE`: a sequence in memory becomes its items, the first on top.
    pub(crate) fn emit_unpack_sequence(&mut self) -> Result<(), CompileError> {
        let helper: MemoryHelper = op_unpack_sequence;
        self.stack.flush(&mut self.m);
        if self.at.oparg == 0 {
            return self.emit_memory_helper(self.stubs.memory);
        }
        let stub = self.stubs.unpack_sequence;
        let site = self.plan_site(stub, helper as *const (), self.stack.depth(), false);
        self.call_site(site);
        self.stack.drop_top(1);
        for _ in 1..self.at.oparg {
            self.stack.push(Entry::Memory);
        }
        self.stack.push(Entry::Acc);
        Ok(())
    }
}
