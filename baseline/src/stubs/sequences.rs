//! Stub of UNPACK_SEQUENCE.

use std::mem::offset_of;

use hotstamp_layout::ffi;
use hotstamp_runtime::site::Site;

use super::{BORROWED, Builder};
use crate::masm::{Alu, Cond, MacroAssembler, Reg};

impl<M: MacroAssembler> Builder<M> {
    /// The sequence is on top of the operand stack, which the site counts; an exact tuple or list with as many items as wanted is taken apart here. The values take its place, the
    /// last item lowest; the first one, on top, is in `Acc`.
    pub(super) fn unpack_sequence(&mut self) {
        let m = &mut self.masm;
        let (miss, tuple, next) = (m.new_label(), m.new_label(), m.new_label());
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
        m.branch_cmp_imm(Cond::Eq, Reg::T4, 0, last);
        m.store(Reg::T2.at(0), Reg::T1);
        m.alu_imm(Alu::Add, Reg::T2, 8);
        m.jump(next);
        m.bind(immortal);
        m.alu_imm(Alu::Or, Reg::T1, BORROWED);
        m.jump(taken);
        m.bind(last);
        // The items are held: freeing the sequence runs no code.
        self.jump_to_close_acc();
        self.masm.bind(miss);
        self.memory_call_value(false);
    }
}
