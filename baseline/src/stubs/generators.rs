//! Generators: entering their bodies, suspending and ending them, and pushing straight into them from FOR_ITER and SEND.
//!
//! `runtime/src/generators.rs` says what a suspended frame looks like; the interpreter's own instructions are the model of each transition.

use std::mem::offset_of;

use hotstamp_layout::ffi::{
    self, _PyErr_StackItem, _PyInterpreterFrame as Frame, PyGenObject, PyObject, PyThreadState,
};
use hotstamp_runtime::code_data::CodeData;
use hotstamp_runtime::generators::{self, AT_POINT, ResumePoint};
use hotstamp_runtime::site::Site;
use hotstamp_runtime::{entry, leave, unwind};

use super::{BORROWED, Builder, NULL_BITS, tstate};
use crate::masm::{Alu, Cond, Label, MacroAssembler, Mem, Reg};

/// Bytes from a generator object to its frame.
const FRAME: usize = offset_of!(PyGenObject, gi_iframe);

/// Where the generator keeps its link in the chain of handled exceptions.
const PREVIOUS_ITEM: usize =
    offset_of!(PyGenObject, gi_exc_state) + offset_of!(_PyErr_StackItem, previous_item);

/// The sign of a frame state: set in all states that can be resumed, clear in all others.
const RESUMABLE: u32 = 0x80;

/// What the body of a generator says in A1 of how it was left, for SEND: its value was yielded.
pub(super) const YIELDED: i32 = 0;
/// Its value was returned.
const RETURNED: i32 = 1;
/// The interpreter went on with the frame: the generator's state tells.
pub(super) const ASK_STATE: i32 = 2;

/// Most generators that a SEND goes through without entering them.
const CHAIN: i32 = 64;

/// A field of the resume point whose address, with the mark, is in `point`.
fn of_point(point: Reg, field: usize) -> Mem {
    point.offset(field as i32 - AT_POINT as i32)
}

/// A field of the frame in the generator in `generator`.
fn frame_of(generator: Reg, field: usize) -> Mem {
    generator.at(FRAME + field)
}

/// A field of the generator whose frame runs.
fn own(field: usize) -> Mem {
    Reg::Frame.offset(field as i32 - FRAME as i32)
}

impl<M: MacroAssembler> Builder<M> {
    pub(super) fn resume(&mut self) {
        self.masm
            .add64_mem(Reg::Data.at(offset_of!(CodeData, resumptions)), 1);
        self.prologue(false, false);
    }

    /// Whether there is room for it was asked before.
    pub(super) fn throw_into(&mut self) {
        let m = &mut self.masm;
        m.body_enter();
        m.add64_mem(Reg::Data.at(offset_of!(CodeData, resumptions)), 1);
        m.store(tstate(offset_of!(PyThreadState, current_frame)), Reg::Frame);
        m.add32_mem(
            tstate(offset_of!(PyThreadState, py_recursion_remaining)),
            -1,
        );
        m.mov_imm(Reg::A3, 0);
        self.handle_exception(unwind::THROWN as u64);
    }

    pub(super) fn poll_observers(&mut self) {
        self.publish_site();
        let m = &mut self.masm;
        let proceed = m.new_label();
        m.stub_enter();
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.call_c(generators::poll_observers as *const ());
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, proceed);
        m.stub_abandon();
        self.leave_after_poll();
        let m = &mut self.masm;
        m.bind(proceed);
        m.stub_exit();
        m.ret();
    }

    /// Jumped to at body level.
    pub(super) fn return_generator(&mut self) {
        self.publish_site();
        let m = &mut self.masm;
        let failed = m.new_label();
        m.push_pair(Reg::T0, Reg::A3);
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::A3);
        m.call_c(generators::return_generator as *const ());
        m.pop_pair(Reg::T0, Reg::A3);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, failed);
        m.body_return();
        m.bind(failed);
        m.jump(self.error);
    }

    /// Acc = value. Jumped to at body level. The site says what the suspended frame has to hold: `instr_ptr`, `stackpointer`, the state (as its argument) and the word that names the
    /// resume point (as its helper).
    pub(super) fn yield_value(&mut self) {
        self.own(Reg::Acc);
        self.publish_site();
        let m = &mut self.masm;
        m.load32(Reg::T0, Reg::A3.at(offset_of!(Site, oparg)));
        m.store8(own(offset_of!(PyGenObject, gi_frame_state)), Reg::T0);
        m.load(Reg::T0, own(PREVIOUS_ITEM));
        m.store(tstate(offset_of!(PyThreadState, exc_info)), Reg::T0);
        m.load(Reg::T0, Reg::A3.at(offset_of!(Site, helper)));
        m.store(own(PREVIOUS_ITEM), Reg::T0);
        m.add32_mem(tstate(offset_of!(PyThreadState, py_recursion_remaining)), 1);
        m.load(Reg::T0, Reg::Frame.at(offset_of!(Frame, previous)));
        m.store(tstate(offset_of!(PyThreadState, current_frame)), Reg::T0);
        m.store_imm(Reg::Frame.at(offset_of!(Frame, previous)), 0);
        m.mov_imm(Reg::A1, YIELDED as u64);
        m.body_return();
    }

    /// Acc = value. Jumped to at body level.
    pub(super) fn return_from_generator(&mut self) {
        self.own(Reg::Acc);
        self.publish_site();
        let m = &mut self.masm;
        m.add32_mem(tstate(offset_of!(PyThreadState, py_recursion_remaining)), 1);
        m.load(Reg::T0, Reg::Frame.at(offset_of!(Frame, previous)));
        m.store(tstate(offset_of!(PyThreadState, current_frame)), Reg::T0);
        m.push_pair(Reg::Acc, Reg::T1);
        m.mov(Reg::A1, Reg::Frame);
        m.mov(Reg::A0, Reg::Tstate);
        m.call_c(ffi::_PyEval_FrameClearAndPop as *const ());
        m.pop_pair(Reg::Acc, Reg::T1);
        m.mov_imm(Reg::A1, RETURNED as u64);
        m.body_return();
    }

    /// Makes the `StackRef` in `value` own a reference, unless it is immortal: it leaves the frame that it may be borrowed from. Uses T0.
    pub(super) fn own(&mut self, value: Reg) {
        let m = &mut self.masm;
        let owned = m.new_label();
        m.branch_bits_clear(value, BORROWED as u32, owned);
        m.lea(Reg::T0, value.offset(-BORROWED));
        m.branch_mem32_imm(Cond::Lt, Reg::T0.at(0), 0, owned);
        m.add32_mem(Reg::T0.at(0), 1);
        m.mov(value, Reg::T0);
        m.bind(owned);
    }

    /// A1 = a generator or coroutine. To `miss` unless compiled code suspended it. `point` = its resume point, with the mark. Uses T0.
    fn find_resume_point(&mut self, generator: Reg, point: Reg, miss: Label) {
        let m = &mut self.masm;
        m.load8(
            Reg::T0,
            generator.at(offset_of!(PyGenObject, gi_frame_state)),
        );
        m.branch_bits_clear(Reg::T0, RESUMABLE, miss);
        m.load(point, generator.at(PREVIOUS_ITEM));
        m.branch_bits_clear(point, AT_POINT as u32, miss);
        m.load(Reg::T0, frame_of(generator, offset_of!(Frame, instr_ptr)));
        m.branch_cmp_mem(
            Cond::Ne,
            Reg::T0,
            of_point(point, offset_of!(ResumePoint, instr)),
            miss,
        );
    }

    /// To `miss` if another evaluator (PEP 523) is to see every resumption. Uses T0.
    fn branch_if_foreign_evaluator(&mut self, miss: Label) {
        let m = &mut self.masm;
        m.mov_imm(Reg::T0, entry::evaluator_cell() as u64);
        m.branch_mem_imm(Cond::Ne, Reg::T0.at(0), 0, miss);
    }

    /// A1 = the generator, T3 = its resume point, T4 = the sent value, heap-safe. Links the generator on top of the running frame, whose `instr_ptr` and `stackpointer` are set, and
    /// makes A0 and A1 the arguments of the body. Keeps T3.
    fn link_generator(&mut self) {
        let m = &mut self.masm;
        let stackpointer = frame_of(Reg::A1, offset_of!(Frame, stackpointer));
        m.load(Reg::T0, stackpointer);
        m.store(Reg::T0.at(0), Reg::T4);
        m.alu_imm(Alu::Add, Reg::T0, 8);
        m.store(stackpointer, Reg::T0);
        self.mark_executing();
        let m = &mut self.masm;
        m.store(frame_of(Reg::A1, offset_of!(Frame, previous)), Reg::Frame);
        m.lea(Reg::A0, Reg::A1.at(FRAME));
        m.load(Reg::A1, of_point(Reg::T3, offset_of!(ResumePoint, data)));
    }

    /// Makes the generator in A1 the one that executes, with its exceptions behind those of the thread. Uses T0.
    fn mark_executing(&mut self) {
        let m = &mut self.masm;
        const { assert!(ffi::FRAME_EXECUTING == 0) };
        m.mov_imm(Reg::T0, 0);
        m.store8(Reg::A1.at(offset_of!(PyGenObject, gi_frame_state)), Reg::T0);
        m.load(Reg::T0, tstate(offset_of!(PyThreadState, exc_info)));
        m.store(Reg::A1.at(PREVIOUS_ITEM), Reg::T0);
        m.lea(Reg::T0, Reg::A1.at(offset_of!(PyGenObject, gi_exc_state)));
        m.store(tstate(offset_of!(PyThreadState, exc_info)), Reg::T0);
    }

    /// Branches unless the generator that stands `words` below the site's end of the operand stack is still suspended: then it returned. Uses T0, T1.
    fn branch_if_returned(&mut self, words: i32, returned: Label) {
        let m = &mut self.masm;
        m.load16(Reg::T0, Reg::A3.at(offset_of!(Site, stack_words)));
        m.load_indexed(Reg::T0, Reg::Frame, Reg::T0, -8 * words);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        m.load8(Reg::T1, Reg::T0.at(offset_of!(PyGenObject, gi_frame_state)));
        m.branch_bits_clear(Reg::T1, RESUMABLE, returned);
    }

    /// Returns to the site, or goes to `changed` if the instrumentation version changed. Events that are only pending wait for the next poll. Uses T0, T1.
    fn return_unless_stale(&mut self, changed: Label) {
        let look = self.masm.new_label();
        self.branch_if_breaker(look);
        let m = &mut self.masm;
        m.ret();
        m.bind(look);
        self.branch_if_stale(changed);
        self.masm.ret();
    }

    /// Acc = the iterator.
    pub(super) fn iterate_generator(&mut self) {
        let m = &mut self.masm;
        let (miss, failed, changed) = (m.new_label(), m.new_label(), m.new_label());
        let (returned, exhausted, free, done) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        m.mov(Reg::A1, Reg::Acc);
        m.alu_imm(Alu::And, Reg::A1, !BORROWED);
        m.load(Reg::T0, Reg::A1.at(offset_of!(PyObject, ob_type)));
        m.mov_imm(Reg::T1, (&raw const ffi::PyGen_Type) as u64);
        m.branch_cmp(Cond::Ne, Reg::T0, Reg::T1, miss);
        self.branch_if_foreign_evaluator(miss);
        self.find_resume_point(Reg::A1, Reg::T3, miss);
        self.publish_site();
        let m = &mut self.masm;
        m.load(Reg::T4, Reg::Data.at(offset_of!(CodeData, none_bits)));
        m.stub_enter();
        self.link_generator();
        let m = &mut self.masm;
        m.call_mem(of_point(Reg::T3, offset_of!(ResumePoint, address)));
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, failed);
        m.stub_exit();
        self.branch_if_returned(1, returned);
        let m = &mut self.masm;
        m.bind(done);
        self.return_unless_stale(changed);
        let m = &mut self.masm;

        // The loop has no use for what it returned.
        m.bind(returned);
        m.branch_bits_set(Reg::Acc, BORROWED as u32, exhausted);
        m.dec32_mem_branch_zero(Reg::Acc.at(0), free);
        m.bind(exhausted);
        m.mov_imm(Reg::Acc, NULL_BITS as u64);
        m.jump(done);
        m.bind(free);
        m.stub_enter();
        m.mov(Reg::A0, Reg::Acc);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.stub_exit();
        m.jump(exhausted);

        m.bind(changed);
        m.stub_enter();
        m.jump(self.leave_after_value);
        m.bind(failed);
        m.stub_abandon();
        m.jump(self.error);
        m.bind(miss);
        self.register_call(true, false);
    }

    /// The operand stack holds receiver and value. A compiled generator is entered by a jump: what it yields or returns goes straight to the site, so that a chain of them costs
    /// one native return for each, which processors predict up to a depth of 16 or so. The site goes on through `send_finish`.
    pub(super) fn send(&mut self) {
        let m = &mut self.masm;
        let (miss, failed) = (m.new_label(), m.new_label());
        let (chain, plain) = (m.new_label(), m.new_label());
        m.load16(Reg::T0, Reg::A3.at(offset_of!(Site, stack_words)));
        m.lea_indexed(Reg::T2, Reg::Frame, Reg::T0, -16);
        m.load(Reg::A1, Reg::T2.at(0));
        m.alu_imm(Alu::And, Reg::A1, !BORROWED);
        // The type that the site remembers: generator or coroutine, or null.
        m.load(Reg::T0, Reg::A1.at(offset_of!(PyObject, ob_type)));
        m.branch_cmp_mem(Cond::Ne, Reg::T0, Reg::A3.at(size_of::<Site>() + 8), miss);
        self.branch_if_foreign_evaluator(miss);
        self.find_resume_point(Reg::A1, Reg::T3, miss);
        let m = &mut self.masm;
        // The value, mostly None, moves; the receiver stays.
        let none = m.new_label();
        m.load(Reg::T4, Reg::T2.at(8));
        m.branch_cmp_mem(
            Cond::Eq,
            Reg::T4,
            Reg::Data.at(offset_of!(CodeData, none_bits)),
            none,
        );
        self.own(Reg::T4);
        let m = &mut self.masm;
        m.bind(none);
        m.load(Reg::T0, Reg::A3.at(offset_of!(Site, instr)));
        m.store(Reg::Frame.at(offset_of!(Frame, instr_ptr)), Reg::T0);
        m.lea(Reg::T2, Reg::T2.at(8));
        m.store(Reg::Frame.at(offset_of!(Frame, stackpointer)), Reg::T2);
        m.branch_mem_imm(
            Cond::Ne,
            of_point(Reg::T3, offset_of!(ResumePoint, delegates)),
            0,
            chain,
        );
        m.bind(plain);
        self.link_generator();
        let m = &mut self.masm;
        m.jump_mem(of_point(Reg::T3, offset_of!(ResumePoint, address)));
        m.bind(chain);
        self.send_through(plain);
        let m = &mut self.masm;

        // Anything else through the helper, which says whether the receiver returned and leaves the result on the operand stack.
        m.bind(miss);
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.mov(Reg::A0, Reg::A3);
        m.mov(Reg::A1, Reg::Frame);
        m.mov(Reg::A2, Reg::Tstate);
        m.call_mem(Reg::A3.at(offset_of!(Site, helper)));
        m.branch_cmp_imm(Cond::Lt, Reg::Acc, 0, failed);
        m.mov(Reg::A1, Reg::Acc);
        m.load(Reg::T0, Reg::Frame.at(offset_of!(Frame, stackpointer)));
        m.alu_imm(Alu::Sub, Reg::T0, 8);
        m.load(Reg::Acc, Reg::T0.at(0));
        m.store(Reg::Frame.at(offset_of!(Frame, stackpointer)), Reg::T0);
        m.stub_exit();
        m.ret();
        m.bind(failed);
        m.stub_abandon();
        m.jump(self.error);
    }

    /// Sends to a generator (A1) that only passes on what its receiver yields, as that may again: each of them is linked as if its SEND ran, without entering its body, and the last
    /// one is entered. When that yields, they are suspended again from the last to the first; when it does anything else, the body in front of it goes on behind its SEND.
    /// Registers as `link_generator` wants them; A3 is the site, whose frame says where it is. To `plain` with them unchanged if something is pending.
    ///
    /// The native stack has two words for each generator: its resume point and the frame in front of it.
    fn send_through(&mut self, plain: Label) {
        let continue_delegation = self.continue_delegation_address;
        let m = &mut self.masm;
        let (next, last, entered) = (m.new_label(), m.new_label(), m.new_label());
        let (other, suspend, go_on, done) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        m.branch_mem32_imm(
            Cond::Lt,
            tstate(offset_of!(PyThreadState, py_recursion_remaining)),
            CHAIN,
            plain,
        );
        self.branch_if_breaker(plain);
        let m = &mut self.masm;
        m.stub_enter();
        m.mov_imm(Reg::T1, 0);
        m.push_pair(Reg::T1, Reg::T1);
        m.mov_imm(Reg::T1, CHAIN as u64);

        m.bind(next);
        // A4 = its receiver, A5 = the resume point of that.
        m.load(Reg::A4, frame_of(Reg::A1, offset_of!(Frame, stackpointer)));
        m.load(Reg::A4, Reg::A4.offset(-8));
        m.alu_imm(Alu::And, Reg::A4, !BORROWED);
        m.load(Reg::T0, Reg::A4.at(offset_of!(PyObject, ob_type)));
        m.branch_cmp_mem(Cond::Ne, Reg::T0, Reg::A3.at(size_of::<Site>() + 8), last);
        self.find_resume_point(Reg::A4, Reg::A5, last);
        let m = &mut self.masm;
        m.load(Reg::T0, of_point(Reg::T3, offset_of!(ResumePoint, data)));
        m.branch_mem32_imm(Cond::Ne, Reg::T0.at(offset_of!(CodeData, leave)), 0, last);
        m.add64_mem(Reg::T0.at(offset_of!(CodeData, resumptions)), 1);
        m.push_pair(Reg::T3, Reg::Frame);
        m.load(Reg::T0, of_point(Reg::T3, offset_of!(ResumePoint, send)));
        m.store(frame_of(Reg::A1, offset_of!(Frame, instr_ptr)), Reg::T0);
        m.store(frame_of(Reg::A1, offset_of!(Frame, previous)), Reg::Frame);
        self.mark_executing();
        let m = &mut self.masm;
        m.add32_mem(
            tstate(offset_of!(PyThreadState, py_recursion_remaining)),
            -1,
        );
        m.lea(Reg::Frame, Reg::A1.at(FRAME));
        m.mov(Reg::A1, Reg::A4);
        m.mov(Reg::T3, Reg::A5);
        m.alu_imm(Alu::Sub, Reg::T1, 1);
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, last);
        m.branch_mem_imm(
            Cond::Ne,
            of_point(Reg::T3, offset_of!(ResumePoint, delegates)),
            0,
            next,
        );

        m.bind(last);
        self.link_generator();
        let m = &mut self.masm;
        m.call_mem(of_point(Reg::T3, offset_of!(ResumePoint, address)));

        // `Acc` and A1 are what a body gave whose frame was in front of `Frame`.
        m.bind(entered);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, other);
        m.branch_cmp_imm(Cond::Ne, Reg::A1, YIELDED, other);
        m.load(Reg::T0, tstate(offset_of!(PyThreadState, eval_breaker)));
        m.load(Reg::T1, Reg::Data.at(offset_of!(CodeData, version)));
        m.branch_cmp_mem(Cond::Ne, Reg::T0, Reg::T1.at(0), other);
        m.bind(suspend);
        m.pop_pair(Reg::T3, Reg::T2);
        m.branch_cmp_imm(Cond::Eq, Reg::T3, 0, done);
        m.load(Reg::T0, of_point(Reg::T3, offset_of!(ResumePoint, data)));
        m.branch_mem32_imm(Cond::Ne, Reg::T0.at(offset_of!(CodeData, leave)), 0, go_on);
        m.load(Reg::T0, of_point(Reg::T3, offset_of!(ResumePoint, instr)));
        m.store(Reg::Frame.at(offset_of!(Frame, instr_ptr)), Reg::T0);
        m.mov_imm(Reg::T0, ffi::FRAME_SUSPENDED_YIELD_FROM as u8 as u64);
        m.store8(own(offset_of!(PyGenObject, gi_frame_state)), Reg::T0);
        m.load(Reg::T0, own(PREVIOUS_ITEM));
        m.store(tstate(offset_of!(PyThreadState, exc_info)), Reg::T0);
        m.store(own(PREVIOUS_ITEM), Reg::T3);
        m.add32_mem(tstate(offset_of!(PyThreadState, py_recursion_remaining)), 1);
        m.store_imm(Reg::Frame.at(offset_of!(Frame, previous)), 0);
        m.mov(Reg::Frame, Reg::T2);
        m.jump(suspend);

        m.bind(done);
        m.store(tstate(offset_of!(PyThreadState, current_frame)), Reg::Frame);
        m.stub_exit();
        m.ret();

        m.bind(other);
        m.pop_pair(Reg::T3, Reg::T2);
        m.branch_cmp_imm(Cond::Eq, Reg::T3, 0, done);
        m.bind(go_on);
        m.store(tstate(offset_of!(PyThreadState, current_frame)), Reg::Frame);
        m.mov(Reg::A4, Reg::Acc);
        m.mov(Reg::A5, Reg::A1);
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::Frame, Reg::T2);
        m.load(Reg::A1, of_point(Reg::T3, offset_of!(ResumePoint, data)));
        m.load(
            Reg::T3,
            of_point(Reg::T3, offset_of!(ResumePoint, delegates)),
        );
        m.call_near(continue_delegation);
        m.jump(entered);
    }

    pub(super) fn continue_delegation(&mut self) {
        self.continue_delegation_address = self.here();
        let m = &mut self.masm;
        m.body_enter();
        m.mov(Reg::Acc, Reg::A4);
        m.mov(Reg::A1, Reg::A5);
        m.jump_reg(Reg::T3);
    }

    /// Called by the site when the receiver of SEND is done: `Acc` is the result or 0, A1 says how the body was left (`YIELDED`, `RETURNED`, `ASK_STATE`), A3 is the site. Gives the
    /// result in `Acc`, and in A1 `YIELDED` or `RETURNED`.
    pub(super) fn send_finish(&mut self) {
        let m = &mut self.masm;
        let (failed, other, done) = (m.new_label(), m.new_label(), m.new_label());
        let (returned, look, changed, stay) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, failed);
        const { assert!(YIELDED == 0) };
        m.branch_cmp_imm(Cond::Ne, Reg::A1, YIELDED, other);
        m.bind(done);
        self.branch_if_breaker(look);
        let m = &mut self.masm;
        m.ret();

        m.bind(other);
        m.branch_cmp_imm(Cond::Eq, Reg::A1, RETURNED, done);
        self.branch_if_returned(2, returned);
        let m = &mut self.masm;
        m.mov_imm(Reg::A1, YIELDED as u64);
        m.jump(done);
        m.bind(returned);
        m.mov_imm(Reg::A1, RETURNED as u64);
        m.jump(done);

        m.bind(failed);
        m.stub_abandon_early();
        m.jump(self.error);

        m.bind(look);
        self.branch_if_stale(changed);
        let m = &mut self.masm;
        m.ret();
        m.bind(changed);
        m.stub_enter();
        m.push_pair(Reg::Acc, Reg::A1);
        m.mov(Reg::A4, Reg::Acc);
        m.mov(Reg::A5, Reg::A1);
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.call_c(generators::after_send as *const ());
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, leave::STAY as i32, stay);
        m.pop_pair(Reg::T0, Reg::A1);
        m.stub_abandon();
        self.leave_after_poll();
        let m = &mut self.masm;
        m.bind(stay);
        m.pop_pair(Reg::Acc, Reg::A1);
        m.stub_exit();
        m.ret();
    }
}
