//! Generators and coroutines: making, suspending, delegating.
//!
//! An instruction that suspends ends its block with the whole operand stack in the frame. What follows is a *resume point*, entered through the table in the function's data
//! with the sent value on the stack; `Compiler::begin_instruction` emits its entry.

use hotstamp_layout::ffi;
use hotstamp_layout::opcode::Opcode;
use hotstamp_runtime::caches::iteration;
use hotstamp_runtime::code_data::HandlerEntry;
use hotstamp_runtime::site::MemoryHelper;

use crate::compiler::{Cold, Compiler};
use crate::error::CompileError;
use crate::masm::{Cond, MacroAssembler, Reg};
use crate::vstack::Entry;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// `RETURN_GENERATOR`: the frame moves into a generator object, which the body returns. The object goes on behind it.
    pub(crate) fn emit_return_generator(&mut self) -> Result<(), CompileError> {
        self.stack.flush(&mut self.m);
        let stub = self.stubs.return_generator;
        let site = self.plan_site(stub, std::ptr::null(), self.stack.depth(), false);
        self.mark_suspending(site);
        self.load_site(site);
        self.m.jump_near(stub);
        self.end_at_resume_point()
    }

    /// `YIELD_VALUE`: value -> sent value. The frame is suspended as the interpreter suspends it.
    pub(crate) fn emit_yield_value(&mut self, oparg: u32) -> Result<(), CompileError> {
        let depth = self.stack.depth() - 1;
        let entry = self.stack.take();
        self.stack.flush(&mut self.m);
        self.stack.materialize(&mut self.m, entry, depth, Reg::Acc);
        let stub = self.stubs.yield_value;
        // Installed code has the word of a generator that is suspended here in place of the number.
        let number = std::ptr::without_provenance(self.resume_points.len());
        let site = self.plan_site(stub, number, depth, false);
        self.mark_suspending(site);
        const { assert!(ffi::FRAME_SUSPENDED_YIELD_FROM == ffi::FRAME_SUSPENDED + 1) };
        let state = ffi::FRAME_SUSPENDED + oparg as i32;
        self.mark_suspends(state as u32);
        self.load_site(site);
        self.m.jump_near(stub);
        self.end_at_resume_point()
    }

    /// The next instruction is a resume point, with the sent value on the stack.
    fn end_at_resume_point(&mut self) -> Result<(), CompileError> {
        self.stack.push(Entry::Memory);
        self.join(self.at.next as usize)?;
        self.end_block();
        Ok(())
    }

    /// `SEND`: receiver, value -> receiver, result. Jumps if the receiver returned it, goes on if it yielded it.
    pub(crate) fn emit_send(&mut self) -> Result<(), CompileError> {
        self.stack.flush(&mut self.m);
        let helper: MemoryHelper = iteration::send;
        let depth = self.stack.depth();
        let site = self.plan_site(self.stubs.send, helper as *const (), depth, true);
        self.call_site(site);
        if self.passes_on() {
            self.delegation = Some(HandlerEntry {
                offset: self.at.offset,
                code_offset: self.m.position() as u32,
            });
        }
        self.load_site(site);
        let finish = self.stubs.send_finish;
        self.m.call_near(finish);
        let target = self.target(self.at.jump_target())?;
        let from = self.m.new_label();
        self.m.branch_cmp_imm(Cond::Ne, Reg::A1, 0, from);
        let slot = self.stack.slot(depth - 1);
        self.cold.push(Cold::Returned { from, slot, target });
        self.stack.drop_top(1);
        self.stack.push(Entry::Acc);
        Ok(())
    }

    /// Whether this SEND, the YIELD_VALUE behind it and the jump back are all that happens while the receiver yields: `yield from` and `await`.
    fn passes_on(&self) -> bool {
        let Some([value, resume, jump]) = self.following(3) else {
            return false;
        };
        value.opcode == Opcode::YIELD_VALUE
            && value.oparg == 1
            && value.start == self.at.next
            && !self.bytecode.is_leader(value.start)
            && resume.opcode == Opcode::RESUME
            && jump.opcode == Opcode::JUMP_BACKWARD_NO_INTERRUPT
            && jump.start == resume.next
            && !self.bytecode.is_leader(jump.start)
            && jump.jump_target() == self.at.start
    }

    /// `END_SEND`: receiver, value -> value. The receiver dies with the value in its slot.
    pub(crate) fn emit_end_send(&mut self) -> Result<(), CompileError> {
        self.stack.flush(&mut self.m);
        let depth = self.stack.depth();
        let (receiver, value) = (self.stack.slot(depth - 2), self.stack.slot(depth - 1));
        self.m.load(Reg::A1, receiver);
        self.m.load(Reg::T0, value);
        self.m.store(receiver, Reg::T0);
        self.emit_close(depth - 1);
        self.stack.drop_top(1);
        Ok(())
    }
}
