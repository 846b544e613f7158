//! Entering and leaving bodies: prologue and epilogue, as the interpreter pushes and pops its frames.

use std::mem::offset_of;

use hotstamp_layout::ffi::{self, _PyInterpreterFrame as Frame, PyThreadState};
use hotstamp_runtime::code_data::CodeData;
use hotstamp_runtime::optimize::hotness;
use hotstamp_runtime::{entry, segments};

use super::generators::ASK_STATE;
use super::{BORROWED, Builder, LOCALS, tstate};
use crate::masm::{Alu, Cond, MacroAssembler, Reg};

impl<M: MacroAssembler> Builder<M> {
    pub(super) fn enter(&mut self) {
        self.prologue(true, true);
    }

    pub(super) fn enter_before_cells(&mut self) {
        self.prologue(false, true);
    }

    /// The frame's creator has set `previous`. The order is the interpreter's: recursion first, then events. A call counts for the function's hotness.
    pub(super) fn prologue(&mut self, poll: bool, call: bool) {
        let m = &mut self.masm;
        let slow = m.new_label();
        m.store(tstate(offset_of!(PyThreadState, current_frame)), Reg::Frame);
        m.add32_mem(
            tstate(offset_of!(PyThreadState, py_recursion_remaining)),
            -1,
        );
        m.branch_mem32_imm(
            Cond::Lt,
            tstate(offset_of!(PyThreadState, py_recursion_remaining)),
            0,
            slow,
        );
        m.native_stack_below(Reg::T0, segments::ROOM as u32);
        m.branch_cmp_mem(
            Cond::Below,
            Reg::T0,
            tstate(offset_of!(ffi::_PyThreadStateImpl, c_stack_soft_limit)),
            slow,
        );
        if poll {
            m.load(Reg::T0, tstate(offset_of!(PyThreadState, eval_breaker)));
            m.load(Reg::T1, Reg::Data.at(offset_of!(CodeData, version)));
            m.branch_cmp_mem(Cond::Ne, Reg::T0, Reg::T1.at(0), slow);
        }
        m.branch_mem32_imm(Cond::Ne, Reg::Data.at(offset_of!(CodeData, leave)), 0, slow);
        if call {
            let hot = m.new_label();
            m.dec32_mem_branch_zero(Reg::Data.at(offset_of!(CodeData, heat)), hot);
            m.ret();

            m.bind(hot);
            m.mov_imm(Reg::A3, 0);
            m.stub_enter();
            m.mov(Reg::A0, Reg::Frame);
            m.mov(Reg::A1, Reg::Tstate);
            m.mov(Reg::A2, Reg::Data);
            m.call_c(hotness::hot_call as *const ());
            m.stub_exit();
        }
        m.ret();

        m.bind(slow);
        m.mov_imm(Reg::A3, 0);
        m.stub_enter();
        let (proceed, failed, raised, further) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        m.body_return_address(Reg::A4);
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.mov_imm(Reg::A3, u64::from(poll));
        m.call_c(entry::enter_slow as *const ());
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, proceed);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, -1, failed);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, -2, raised);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, entry::FURTHER_STACK as i32, further);
        m.stub_abandon();
        self.leave_after_poll();
        let m = &mut self.masm;
        m.bind(failed);
        m.stub_abandon();
        m.mov_imm(Reg::Acc, 0);
        m.body_return();
        m.bind(raised);
        m.stub_abandon();
        m.jump(self.error);
        // The body goes on where this stub would have returned to, on a further stack, and this native frame returns what it gave.
        m.bind(further);
        m.stub_return_address(Reg::T0);
        m.stub_abandon();
        m.mov(Reg::A3, Reg::T0);
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.call_c(segments::go_on as *const ());
        m.mov_imm(Reg::A1, ASK_STATE as u64);
        m.body_return();
        m.bind(proceed);
        m.stub_exit();
        m.ret();
    }

    pub(super) fn enter_at(&mut self) {
        let m = &mut self.masm;
        m.body_enter();
        m.mov(Reg::Acc, Reg::A5);
        m.jump_reg(Reg::A4);
    }

    pub(super) fn c_entry(&mut self) {
        let trampoline = self.inner_trampoline_address;
        let m = &mut self.masm;
        m.mov(Reg::A3, Reg::A1);
        m.mov(Reg::A1, Reg::A2);
        m.load(Reg::A2, Reg::A3.at(offset_of!(CodeData, entry)));
        m.jump_near(trampoline);
    }

    /// A tail call: the body's caller expects no more than a C function keeps.
    pub(super) fn optimized_entry(&mut self) {
        let m = &mut self.masm;
        m.mov(Reg::A2, Reg::Tstate);
        m.jump_mem(Reg::A1.at(offset_of!(CodeData, optimized)));
    }

    /// Acc = value. Jumped to at body level.
    pub(super) fn return_value(&mut self) {
        let m = &mut self.masm;
        let (owned, slow, next, done) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        // The result leaves the frame it may be borrowed from: own it, unless it is immortal.
        m.branch_bits_clear(Reg::Acc, BORROWED as u32, owned);
        m.lea(Reg::T0, Reg::Acc.offset(-BORROWED));
        m.branch_mem32_imm(Cond::Lt, Reg::T0.at(0), 0, owned);
        m.add32_mem(Reg::T0.at(0), 1);
        m.mov(Reg::Acc, Reg::T0);
        m.bind(owned);
        m.add32_mem(tstate(offset_of!(PyThreadState, py_recursion_remaining)), 1);
        m.load(Reg::T0, Reg::Frame.at(offset_of!(Frame, previous)));
        m.store(tstate(offset_of!(PyThreadState, current_frame)), Reg::T0);
        // A frame object takes the frame over, and class bodies own their namespace: both are rare.
        m.branch_mem_imm(
            Cond::Ne,
            Reg::Frame.at(offset_of!(Frame, frame_obj)),
            0,
            slow,
        );
        m.branch_mem_imm(
            Cond::Ne,
            Reg::Frame.at(offset_of!(Frame, f_locals)),
            0,
            slow,
        );
        m.load32(Reg::T1, Reg::Data.at(offset_of!(CodeData, nlocalsplus)));
        // Locals are released from the last to the first, as the interpreter does; destructors may run.
        m.bind(next);
        m.alu_imm(Alu::Sub, Reg::T1, 1);
        m.branch_cmp_imm(Cond::Lt, Reg::T1, 0, done);
        m.load_indexed(Reg::T2, Reg::Frame, Reg::T1, LOCALS as i32);
        m.branch_bits_set(Reg::T2, BORROWED as u32, next);
        let free_local = m.new_label();
        m.dec32_mem_branch_zero(Reg::T2.at(0), free_local);
        m.jump(next);

        m.bind(free_local);
        m.push_pair(Reg::Acc, Reg::T1);
        m.mov(Reg::A0, Reg::T2);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.pop_pair(Reg::Acc, Reg::T1);
        m.jump(next);

        m.bind(done);
        for field in [
            offset_of!(Frame, f_funcobj),
            offset_of!(Frame, f_executable),
        ] {
            let (kept, free) = (m.new_label(), m.new_label());
            m.load(Reg::T2, Reg::Frame.at(field));
            m.branch_bits_set(Reg::T2, BORROWED as u32, kept);
            m.dec32_mem_branch_zero(Reg::T2.at(0), free);
            m.jump(kept);
            m.bind(free);
            m.push_pair(Reg::Acc, Reg::T1);
            m.mov(Reg::A0, Reg::T2);
            m.call_c(ffi::_Py_Dealloc as *const ());
            m.pop_pair(Reg::Acc, Reg::T1);
            m.bind(kept);
        }
        // The first frame of a data stack chunk takes the chunk with it.
        let pop_chunk = m.new_label();
        m.load(Reg::T0, tstate(offset_of!(PyThreadState, datastack_chunk)));
        m.lea(Reg::T0, Reg::T0.at(offset_of!(ffi::_PyStackChunk, data)));
        m.branch_cmp(Cond::Eq, Reg::T0, Reg::Frame, pop_chunk);
        m.store(tstate(offset_of!(PyThreadState, datastack_top)), Reg::Frame);
        m.body_return();

        m.bind(pop_chunk);
        m.push_pair(Reg::Acc, Reg::T1);
        m.mov(Reg::A1, Reg::Frame);
        m.mov(Reg::A0, Reg::Tstate);
        m.call_c(ffi::_PyThreadState_PopFrame as *const ());
        m.pop_pair(Reg::Acc, Reg::T1);
        m.body_return();

        m.bind(slow);
        m.push_pair(Reg::Acc, Reg::T1);
        self.publish_site();
        let m = &mut self.masm;
        m.mov(Reg::A1, Reg::Frame);
        m.mov(Reg::A0, Reg::Tstate);
        m.call_c(ffi::_PyEval_FrameClearAndPop as *const ());
        m.pop_pair(Reg::Acc, Reg::T1);
        m.body_return();
    }
}
