//! Loops over iterators.

use hotstamp_layout::opcode::Opcode;
use hotstamp_runtime::caches::iteration;
use hotstamp_runtime::helpers::containers::reg_list_append;
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

    /// `LIST_APPEND`: the value moves into a list further down.
    pub(crate) fn emit_list_append(&mut self) -> Result<(), CompileError> {
        let helper: RegisterHelper = reg_list_append;
        self.pop_operands::<1>();
        let stub = self.stubs.list_append;
        let site = self.plan_site(stub, helper as *const (), self.stack.depth(), false);
        self.call_site(site);
        Ok(())
    }

    /// Whether this many STORE_FAST_STORE_FAST follow that can be executed with this instruction: nobody gets between, and no line begins there, in front of which a frame must not leave.
    fn pairs_stored_behind(&self, pairs: usize) -> bool {
        self.following(pairs).is_some_and(|stores| {
            let mut at = self.at.next;
            stores.iter().all(|store| {
                let plain = store.opcode == Opcode::STORE_FAST_STORE_FAST
                    && store.start == at
                    && store.offset == at
                    && !self.bytecode.is_leader(at)
                    && !self.bytecode.begins_line(at);
                at = store.next;
                plain
            })
        })
    }

    /// `UNPACK_SEQUENCE`: a sequence in memory becomes its items, the first on top. The stores behind it are executed by the same stub: `resume` of the runtime executes them for frames
    /// that are resumed between.
    pub(crate) fn emit_unpack_sequence(&mut self) -> Result<(), CompileError> {
        let helper: MemoryHelper = op_unpack_sequence;
        self.stack.flush(&mut self.m);
        if self.at.oparg == 0 {
            return self.emit_memory_helper(self.stubs.memory);
        }
        let pairs = self.at.oparg as usize / 2;
        let stored = pairs > 0 && self.pairs_stored_behind(pairs);
        let stub = if stored {
            self.stubs.unpack_and_store
        } else {
            self.stubs.unpack_sequence
        };
        let site = self.plan_site(stub, helper as *const (), self.stack.depth(), false);
        self.call_site(site);
        self.stack.drop_top(1);
        if stored {
            self.skip(pairs);
            if self.at.oparg % 2 == 1 {
                self.stack.push(Entry::Acc);
            }
            return Ok(());
        }
        for _ in 1..self.at.oparg {
            self.stack.push(Entry::Memory);
        }
        self.stack.push(Entry::Acc);
        Ok(())
    }
}
