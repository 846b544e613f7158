//! Moving things on the operand stack.

use crate::compiler::Compiler;
use crate::error::CompileError;
use crate::masm::{MacroAssembler, Reg};
use crate::stubs::NULL_BITS;
use crate::vstack::Entry;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// `PUSH_NULL`: a call without self.
    pub(crate) fn emit_push_null(&mut self) -> Result<(), CompileError> {
        self.stack.push(Entry::Const(NULL_BITS as u64));
        Ok(())
    }

    /// `POP_TOP`: borrowed entries cost nothing.
    pub(crate) fn emit_pop_top(&mut self) -> Result<(), CompileError> {
        let depth = self.stack.depth() - 1;
        match self.stack.take() {
            Entry::Local(_) | Entry::Const(_) => {}
            entry => {
                self.stack.spill_acc(&mut self.m);
                self.stack.materialize(&mut self.m, entry, depth, Reg::A1);
                self.emit_close(0);
            }
        }
        Ok(())
    }

    /// `COPY(n)`: pushes the n-th entry from the top (1 is the top) once more.
    pub(crate) fn emit_copy(&mut self, n: u32) -> Result<(), CompileError> {
        let depth = self.stack.depth() - n as usize;
        let entry = self.stack.peek(n as usize - 1);
        match entry {
            Entry::Local(_) | Entry::Const(_) => self.stack.push(entry),
            Entry::Acc => {
                self.stack.spill_acc(&mut self.m);
                self.emit_incref(Reg::Acc);
                self.stack.push(Entry::Acc);
            }
            Entry::Memory => {
                self.stack.spill_acc(&mut self.m);
                self.stack.materialize(&mut self.m, entry, depth, Reg::Acc);
                self.emit_incref(Reg::Acc);
                self.stack.push(Entry::Acc);
            }
        }
        Ok(())
    }

    /// `SWAP(n)`: exchanges the top with the n-th entry.
    pub(crate) fn emit_swap(&mut self, n: u32) -> Result<(), CompileError> {
        if n >= 2 {
            self.stack.swap(&mut self.m, n as usize - 1);
        }
        Ok(())
    }
}
