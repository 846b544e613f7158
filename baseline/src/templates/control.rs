//! Jumps, branches, polls and returns.

use std::mem::offset_of;

use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_runtime::code_data::CodeData;
use hotstamp_runtime::site::CodePtr;

use crate::compiler::{Cold, Compiler, SiteRef};
use crate::error::CompileError;
use crate::masm::{Cond, MacroAssembler, Reg};
use crate::stubs::tstate;
use crate::vstack::Entry;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// `RESUME`: the prologue has polled, unless cells were made first. A generator polls here; behind `await` and `yield from` pending events wait, and only observers
    /// are looked for.
    pub(crate) fn emit_resume(&mut self, oparg: u32) -> Result<(), CompileError> {
        if oparg & ffi::RESUME_OPARG_LOCATION_MASK >= ffi::RESUME_AFTER_YIELD_FROM {
            self.emit_poll_through(self.stubs.poll_observers);
        } else if self.bytecode.makes_cells_first || self.is_generator {
            self.emit_poll();
        }
        Ok(())
    }

    /// Looks at the eval breaker; all of the operand stack is in memory.
    fn emit_poll(&mut self) -> SiteRef {
        self.emit_poll_through(self.stubs.poll)
    }

    /// As `emit_poll`; what is pending goes through `stub`.
    fn emit_poll_through(&mut self, stub: CodePtr) -> SiteRef {
        let site = self.plan_site(stub, std::ptr::null(), self.stack.depth(), false);
        let (from, back) = (self.m.new_label(), self.m.new_label());
        self.m
            .load(Reg::T0, tstate(offset_of!(PyThreadState, eval_breaker)));
        self.m
            .load(Reg::T1, Reg::Data.at(offset_of!(CodeData, version)));
        self.m
            .branch_cmp_mem(Cond::Ne, Reg::T0, Reg::T1.at(0), from);
        self.m.bind(back);
        self.cold.push(Cold::Poll {
            from,
            back,
            site,
            stub,
        });
        site
    }

    /// `JUMP_FORWARD`, `JUMP_BACKWARD_NO_INTERRUPT`.
    pub(crate) fn emit_jump(&mut self) -> Result<(), CompileError> {
        self.stack.flush(&mut self.m);
        let target = self.target(self.at.jump_target())?;
        self.m.jump(target);
        self.end_block();
        Ok(())
    }

    /// `JUMP_BACKWARD`: a loop's back edge polls. A frame that must leave does so in front of the jump. Then it counts, and may go on in optimized code.
    pub(crate) fn emit_jump_backward(&mut self) -> Result<(), CompileError> {
        self.stack.flush(&mut self.m);
        let site = self.emit_poll();
        let back = self.target(self.at.jump_target())?;
        let from = self.m.new_label();
        self.m
            .dec32_mem_branch_not_zero(Reg::Data.at(offset_of!(CodeData, heat)), back);
        self.m.jump(from);
        self.cold.push(Cold::Hot { from, back, site });
        self.end_block();
        Ok(())
    }

    /// `POP_JUMP_IF_TRUE`, `POP_JUMP_IF_FALSE`: the top is exactly True or False.
    pub(crate) fn emit_pop_jump_if_bool(&mut self, when: bool) -> Result<(), CompileError> {
        let depth = self.stack.depth() - 1;
        let entry = self.stack.take();
        self.stack.spill_acc(&mut self.m);
        self.stack.materialize(&mut self.m, entry, depth, Reg::Acc);
        self.stack.flush(&mut self.m);
        let target = self.target(self.at.jump_target())?;
        let field = if when {
            offset_of!(CodeData, true_bits)
        } else {
            offset_of!(CodeData, false_bits)
        };
        self.m
            .branch_cmp_mem(Cond::Eq, Reg::Acc, Reg::Data.at(field), target);
        Ok(())
    }

    /// `POP_JUMP_IF_NONE`, `POP_JUMP_IF_NOT_NONE`: None itself is immortal, anything else is released.
    pub(crate) fn emit_pop_jump_if_none(&mut self, when: bool) -> Result<(), CompileError> {
        let depth = self.stack.depth() - 1;
        let entry = self.stack.take();
        self.stack.spill_acc(&mut self.m);
        self.stack.materialize(&mut self.m, entry, depth, Reg::A1);
        self.stack.flush(&mut self.m);
        let target = self.target(self.at.jump_target())?;
        let none = Reg::Data.at(offset_of!(CodeData, none_bits));
        let borrowed = matches!(entry, Entry::Local(_) | Entry::Const(_));
        if when {
            self.m.branch_cmp_mem(Cond::Eq, Reg::A1, none, target);
            if !borrowed {
                self.emit_close(0);
            }
        } else if borrowed {
            self.m.branch_cmp_mem(Cond::Ne, Reg::A1, none, target);
        } else {
            let is_none = self.m.new_near_label();
            self.m.branch_cmp_mem(Cond::Eq, Reg::A1, none, is_none);
            self.emit_close(0);
            self.m.jump(target);
            self.m.bind(is_none);
        }
        Ok(())
    }

    /// `RETURN_VALUE`: the shared epilogue does the rest.
    pub(crate) fn emit_return_value(&mut self) -> Result<(), CompileError> {
        let depth = self.stack.depth() - 1;
        let entry = self.stack.take();
        self.stack.materialize(&mut self.m, entry, depth, Reg::Acc);
        let stub = if self.is_generator {
            self.stubs.return_from_generator
        } else {
            self.stubs.return_value
        };
        let site = self.plan_site(stub, std::ptr::null(), 0, false);
        self.load_site(site);
        self.m.jump_near(stub);
        self.end_block();
        Ok(())
    }
}
