//! Calls.

use hotstamp_layout::opcode::Opcode;
use hotstamp_runtime::caches::calls;
use hotstamp_runtime::helpers;

use crate::compiler::Compiler;
use crate::error::CompileError;
use crate::masm::MacroAssembler;
use crate::vstack::Entry;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// `CALL`, `CALL_KW`, `CALL_FUNCTION_EX`: callable and arguments in memory, the result in `Acc`.
    pub(crate) fn emit_call(&mut self) -> Result<(), CompileError> {
        let opcode = self.at.opcode;
        let (Some((helper, _)), Some(popped)) = (
            helpers::memory_helper(opcode as u8),
            opcode.popped(self.at.oparg),
        ) else {
            return Err(CompileError::BadBytecode("no helper"));
        };
        self.own_constants(popped as usize);
        self.stack.flush(&mut self.m);
        let stub = if opcode == Opcode::CALL {
            self.stubs.call
        } else {
            self.stubs.memory_value_polled
        };
        let helper = match opcode {
            Opcode::CALL => calls::call,
            Opcode::CALL_KW => calls::call_kw,
            _ => helper,
        };
        let site = self.plan_site(stub, helper as *const (), self.stack.depth(), true);
        self.call_site(site);
        self.stack.drop_top(popped as usize);
        self.stress_return();
        self.stack.push(Entry::Acc);
        Ok(())
    }
}
