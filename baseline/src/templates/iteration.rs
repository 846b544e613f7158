//! Loops over iterators.

use hotstamp_runtime::helpers;

use crate::compiler::Compiler;
use crate::error::CompileError;
use crate::masm::{Cond, MacroAssembler, Reg};
use crate::vstack::Entry;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// `FOR_ITER`: the iterator stays on the stack, the next value is pushed; when exhausted, control goes behind the END_FOR at the target.
    pub(crate) fn emit_for_iter(&mut self) -> Result<(), CompileError> {
        let Some((helper, _)) = helpers::memory_helper(self.at.opcode as u8) else {
            return Err(CompileError::BadBytecode("no helper"));
        };
        self.stack.flush(&mut self.m);
        let exhausted = self.target(self.at.jump_target() + 1)?;
        let site = self.plan_site(self.stubs.memory, helper as *const (), self.stack.depth(), false);
        self.call_site(site);
        self.m.branch_cmp_imm(Cond::Ne, Reg::Acc, 0, exhausted);
        self.stack.push(Entry::Memory);
        Ok(())
    }
}
