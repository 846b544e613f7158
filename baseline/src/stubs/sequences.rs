//! Stubs of UNPACK_SEQUENCE and LIST_APPEND.

use std::mem::offset_of;

use hotstamp_layout::ffi::{self, _Py_CODEUNIT, PyListObject};
use hotstamp_runtime::site::Site;
use hotstamp_runtime::{Frame, leave};

use super::{BORROWED, Builder, LOCALS};
use crate::masm::{Alu, Cond, Label, MacroAssembler, Reg, Shift};

impl<M: MacroAssembler> Builder<M> {
    /// LIST_APPEND: `Acc` = the value, off the operand stack, where the list is as many entries below the end as the site's argument says. A list that has room takes it here.
    pub(super) fn list_append(&mut self) {
        let m = &mut self.masm;
        let miss = m.new_label();
        m.load16(Reg::T0, Reg::A3.at(offset_of!(Site, stack_words)));
        m.load32(Reg::T1, Reg::A3.at(offset_of!(Site, oparg)));
        m.alu(Alu::Sub, Reg::T0, Reg::T1);
        m.load_indexed(Reg::T2, Reg::Frame, Reg::T0, 0);
        m.alu_imm(Alu::And, Reg::T2, !BORROWED);
        let size = Reg::T2.at(offset_of!(ffi::PyVarObject, ob_size));
        m.load(Reg::T1, size);
        let allocated = Reg::T2.at(offset_of!(PyListObject, allocated));
        m.branch_cmp_mem(Cond::Ge, Reg::T1, allocated, miss);
        self.own(Reg::Acc);
        // An object's address, not a `StackRef`: immortal ones lose their mark.
        let m = &mut self.masm;
        m.alu_imm(Alu::And, Reg::Acc, !BORROWED);
        m.load(Reg::T0, Reg::T2.at(offset_of!(PyListObject, ob_item)));
        m.store_indexed(Reg::T0, Reg::T1, 0, Reg::Acc);
        m.add64_mem(size, 1);
        m.ret();
        m.bind(miss);
        self.register_call(false, false);
    }

    /// The sequence is on top of the operand stack, which the site counts; an exact tuple or list with as many items as wanted is taken apart here. The values take its place, the
    /// last item lowest; the first one, on top, is in `Acc`.
    pub(super) fn unpack_sequence(&mut self) {
        let miss = self.masm.new_label();
        self.take_apart(miss);
        // The items are held: freeing the sequence runs no code.
        self.jump_to_close_acc();
        self.masm.bind(miss);
        self.memory_call_value(false);
    }
    /// As `unpack_sequence`, behind which a STORE_FAST_STORE_FAST for each two items stands: they are executed too. The last item of an odd number is in `Acc`.
    pub(super) fn unpack_and_store(&mut self) {
        let m = &mut self.masm;
        let (miss, taken, free) = (m.new_label(), m.new_label(), m.new_label());
        self.take_apart(miss);
        let m = &mut self.masm;
        m.branch_bits_set(Reg::Acc, BORROWED as u32, taken);
        m.dec32_mem_branch_zero(Reg::Acc.at(0), free);
        m.bind(taken);
        self.store_pairs();

        let m = &mut self.masm;
        m.bind(free);
        // The items are held: freeing the sequence runs no code.
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.push_pair(Reg::T2, Reg::T3);
        m.mov(Reg::A0, Reg::Acc);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.pop_pair(Reg::T2, Reg::T3);
        m.stub_exit();
        m.jump(taken);

        // The helper leaves the items on the operand stack, and may have run anything: the frame may have to leave before it goes on.
        m.bind(miss);
        self.publish_site();
        let m = &mut self.masm;
        let (failed, changed, stay) = (m.new_label(), m.new_label(), m.new_label());
        m.stub_enter();
        m.mov(Reg::A0, Reg::A3);
        m.mov(Reg::A1, Reg::Frame);
        m.mov(Reg::A2, Reg::Tstate);
        m.call_mem(Reg::A3.at(offset_of!(Site, helper)));
        m.branch_cmp_imm(Cond::Lt, Reg::Acc, 0, failed);
        self.branch_if_stale(changed);
        let m = &mut self.masm;
        m.stub_exit();
        m.bind(stay);
        m.load(Reg::T2, Reg::Frame.at(offset_of!(Frame, stackpointer)));
        m.alu_imm(Alu::Sub, Reg::T2, 8);
        m.jump(taken);
        m.bind(failed);
        m.stub_abandon();
        m.jump(self.error);
        m.bind(changed);
        let raised = m.new_label();
        m.stub_exit();
        m.stub_enter();
        m.mov_imm(Reg::A4, 0);
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.call_c(leave::after_operation as *const ());
        let stays = m.new_label();
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, leave::STAY as i32, stays);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, leave::RAISED as i32, raised);
        m.stub_abandon();
        self.leave_after_poll();
        let m = &mut self.masm;
        m.bind(raised);
        m.stub_abandon();
        m.jump(self.error);
        m.bind(stays);
        m.stub_exit();
        m.jump(stay);
    }

    /// The sequence is on top of the operand stack, which the site counts: its items take its place if they are as many as wanted, else control goes to `miss`. T2 = the slot of the first,
    /// which is the top; `Acc` = the sequence, still to be released.
    fn take_apart(&mut self, miss: Label) {
        let m = &mut self.masm;
        let (tuple, next) = (m.new_label(), m.new_label());
        let (immortal, taken, last) = (m.new_label(), m.new_label(), m.new_label());
        m.load16(Reg::T0, Reg::A3.at(offset_of!(Site, stack_words)));
        m.lea_indexed(Reg::T2, Reg::Frame, Reg::T0, -8);
        m.load(Reg::Acc, Reg::T2.at(0));
        m.mov(Reg::T0, Reg::Acc);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        // T3 = the items.
        m.load(Reg::T1, Reg::T0.at(offset_of!(ffi::PyObject, ob_type)));
        m.lea(Reg::T3, Reg::T0.at(offset_of!(ffi::PyTupleObject, ob_item)));
        m.mov_imm(Reg::T4, (&raw const ffi::PyTuple_Type) as u64);
        m.branch_cmp(Cond::Eq, Reg::T1, Reg::T4, tuple);
        m.load(Reg::T3, Reg::T0.at(offset_of!(ffi::PyListObject, ob_item)));
        m.mov_imm(Reg::T4, (&raw const ffi::PyList_Type) as u64);
        m.branch_cmp(Cond::Ne, Reg::T1, Reg::T4, miss);
        m.bind(tuple);
        // T4 counts down.
        m.load32(Reg::T4, Reg::A3.at(offset_of!(Site, oparg)));
        m.branch_cmp_mem(
            Cond::Ne,
            Reg::T4,
            Reg::T0.at(offset_of!(ffi::PyVarObject, ob_size)),
            miss,
        );
        m.branch_cmp_imm(Cond::Eq, Reg::T4, 0, miss);
        m.bind(next);
        m.alu_imm(Alu::Sub, Reg::T4, 1);
        m.load_indexed(Reg::T1, Reg::T3, Reg::T4, 0);
        m.branch_mem32_imm(Cond::Lt, Reg::T1.at(0), 0, immortal);
        m.add32_mem(Reg::T1.at(0), 1);
        m.bind(taken);
        m.store(Reg::T2.at(0), Reg::T1);
        m.branch_cmp_imm(Cond::Eq, Reg::T4, 0, last);
        m.alu_imm(Alu::Add, Reg::T2, 8);
        m.jump(next);
        m.bind(immortal);
        m.alu_imm(Alu::Or, Reg::T1, BORROWED);
        m.jump(taken);
        m.bind(last);
    }

    /// Moves two items from the operand stack, whose top slot is T2, for each STORE_FAST_STORE_FAST behind the site's instruction, which wants as many; returns. `Acc` = the top that is left.
    fn store_pairs(&mut self) {
        let m = &mut self.masm;
        // T3 = the instruction, T4 counts down.
        m.load8(Reg::T3, Reg::A3.at(offset_of!(Site, next_units)));
        m.alu(Alu::Add, Reg::T3, Reg::T3);
        m.load(Reg::T0, Reg::A3.at(offset_of!(Site, instr)));
        m.alu(Alu::Add, Reg::T3, Reg::T0);
        m.load32(Reg::T4, Reg::A3.at(offset_of!(Site, oparg)));
        m.shift_imm(Shift::RightLogical, Reg::T4, 1);
        let next = m.new_label();
        let halves = [
            (m.new_label(), m.new_label()),
            (m.new_label(), m.new_label()),
        ];
        m.bind(next);
        // The argument: the first local's index above four bits of the second's.
        m.load8(Reg::T0, Reg::T3.at(1));
        m.mov(Reg::T1, Reg::T0);
        m.shift_imm(Shift::RightLogical, Reg::T1, 4);
        for (half, (free, closed)) in halves.into_iter().enumerate() {
            let index = if half == 0 { Reg::T1 } else { Reg::T0 };
            if half == 1 {
                m.alu_imm(Alu::And, Reg::T0, 15);
            }
            m.load_indexed(Reg::A1, Reg::Frame, index, LOCALS as i32);
            m.load(Reg::A2, Reg::T2.offset(-8 * half as i32));
            m.store_indexed(Reg::Frame, index, LOCALS as i32, Reg::A2);
            m.branch_bits_set(Reg::A1, BORROWED as u32, closed);
            m.dec32_mem_branch_zero(Reg::A1.at(0), free);
            m.bind(closed);
        }
        m.alu_imm(Alu::Sub, Reg::T2, 16);
        m.alu_imm(Alu::Add, Reg::T3, size_of::<_Py_CODEUNIT>() as i32);
        m.alu_imm(Alu::Sub, Reg::T4, 1);
        m.branch_cmp_imm(Cond::Ne, Reg::T4, 0, next);
        m.load(Reg::Acc, Reg::T2.at(0));
        m.ret();
        // What a local held dies, in the store's own instruction.
        for (half, (free, closed)) in halves.into_iter().enumerate() {
            m.bind(free);
            m.store(Reg::Frame.at(offset_of!(Frame, instr_ptr)), Reg::T3);
            m.lea(Reg::A2, Reg::T2.offset(-8 * half as i32));
            m.store(Reg::Frame.at(offset_of!(Frame, stackpointer)), Reg::A2);
            m.stub_enter();
            m.push_pair(Reg::T0, Reg::T2);
            m.push_pair(Reg::T3, Reg::T4);
            m.mov(Reg::A0, Reg::A1);
            m.call_c(ffi::_Py_Dealloc as *const ());
            m.pop_pair(Reg::T3, Reg::T4);
            m.pop_pair(Reg::T0, Reg::T2);
            m.stub_exit();
            m.jump(closed);
        }
    }
}
