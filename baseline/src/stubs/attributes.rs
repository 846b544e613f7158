//! Stubs of LOAD_ATTR and STORE_ATTR. `runtime/src/caches/attributes.rs` chooses among them and documents the payload.

use std::mem::offset_of;

use hotstamp_layout::ffi;
use hotstamp_runtime::caches::{POLYMORPHIC_ENTRIES, PolymorphicEntry};
use hotstamp_runtime::site::Site;

use super::{BORROWED, Builder, NULL_BITS};
use crate::masm::{Alu, Cond, Label, MacroAssembler, Mem, Reg};

/// A word of the payload: the site's own, or an entry of its polymorphic record. A4 holds its address.
pub(super) fn payload(index: usize) -> Mem {
    Reg::A4.at(index * 8)
}

/// The upper half of a word of the payload.
fn payload_high(index: usize) -> Mem {
    Reg::A4.at(index * 8 + 4)
}

impl<M: MacroAssembler> Builder<M> {
    /// A4 = the site's own payload.
    pub(super) fn own_payload(&mut self) {
        self.masm.lea(Reg::A4, Reg::A3.at(size_of::<Site>()));
    }

    /// Polymorphic: finds the entry for the owner's type among those of the site's record and goes on at its stub; the owner is in `owner`.
    fn dispatch_by_type(&mut self, owner: Reg, miss: Label) {
        let m = &mut self.masm;
        m.mov(Reg::T0, owner);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        m.load(Reg::T1, Reg::T0.at(offset_of!(ffi::PyObject, ob_type)));
        m.load32(
            Reg::T2,
            Reg::T1.at(offset_of!(ffi::PyTypeObject, tp_version_tag)),
        );
        m.load(Reg::A4, Reg::A3.at(size_of::<Site>() + 8));
        let found = m.new_label();
        for index in 0..POLYMORPHIC_ENTRIES {
            m.branch_cmp32_mem(Cond::Eq, Reg::T2, Reg::A4.at(0), found);
            if index + 1 < POLYMORPHIC_ENTRIES {
                m.alu_imm(Alu::Add, Reg::A4, size_of::<PolymorphicEntry>() as i32);
            }
        }
        m.jump(miss);
        m.bind(found);
        m.jump_mem(Reg::A4.at(offset_of!(PolymorphicEntry, target)));
    }

    pub(super) fn attr_polymorphic(&mut self) {
        let miss = self.masm.new_label();
        self.dispatch_by_type(Reg::Acc, miss);
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    pub(super) fn method_polymorphic(&mut self) {
        let miss = self.masm.new_label();
        self.dispatch_by_type(Reg::Acc, miss);
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    pub(super) fn store_polymorphic(&mut self) {
        let miss = self.masm.new_label();
        self.dispatch_by_type(Reg::A1, miss);
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    /// T0 = the object in the `StackRef` `reg`, T1 = its type; to `miss` unless the type has the version of word 0. Uses T2.
    pub(super) fn guard_type(&mut self, reg: Reg, miss: Label) {
        let m = &mut self.masm;
        m.mov(Reg::T0, reg);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        m.load(Reg::T1, Reg::T0.at(offset_of!(ffi::PyObject, ob_type)));
        m.load32(
            Reg::T2,
            Reg::T1.at(offset_of!(ffi::PyTypeObject, tp_version_tag)),
        );
        m.branch_cmp32_mem(Cond::Ne, Reg::T2, payload(0), miss);
    }

    /// To `miss` unless the object's inline values are in use. Uses T2, T3.
    fn guard_inline_values(&mut self, miss: Label) {
        let m = &mut self.masm;
        m.load32(Reg::T2, payload(2));
        m.alu(Alu::Add, Reg::T2, Reg::T0);
        m.load8(Reg::T3, Reg::T2.at(0));
        m.branch_cmp_imm(Cond::Eq, Reg::T3, 0, miss);
    }

    /// To `miss` if the shared keys of the type in T1 grew since the cache was filled: the name may be one of them now. Uses T2.
    fn guard_keys(&mut self, miss: Label) {
        let m = &mut self.masm;
        m.load(
            Reg::T2,
            Reg::T1.at(offset_of!(ffi::PyHeapTypeObject, ht_cached_keys)),
        );
        m.load(
            Reg::T2,
            Reg::T2.at(offset_of!(ffi::PyDictKeysObject, dk_nentries)),
        );
        m.branch_cmp_mem(Cond::Ne, Reg::T2, payload(3), miss);
    }

    /// T1 = what is at the cached offset of the object in T0; to `miss` if null.
    fn load_cached_offset(&mut self, miss: Label) {
        let m = &mut self.masm;
        m.load32(Reg::T2, payload_high(0));
        m.alu(Alu::Add, Reg::T2, Reg::T0);
        m.load(Reg::T1, Reg::T2.at(0));
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, miss);
    }

    /// T1 = a new `StackRef` of the cached bits in word 1.
    fn load_cached_value(&mut self) {
        self.masm.load(Reg::T1, payload(1));
        self.take_reference_t1();
    }

    /// Takes a reference for the `StackRef` in T1 unless it owns nothing.
    pub(super) fn take_reference_t1(&mut self) {
        let m = &mut self.masm;
        let done = m.new_label();
        m.branch_bits_set(Reg::T1, BORROWED as u32, done);
        m.add32_mem(Reg::T1.at(0), 1);
        m.bind(done);
    }

    pub(super) fn attr_inline(&mut self) {
        self.own_payload();
        self.attr_inline_entry = self.here();
        let miss = self.masm.new_label();
        self.guard_type(Reg::Acc, miss);
        self.guard_inline_values(miss);
        self.load_cached_offset(miss);
        self.jump_to_new_value();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    pub(super) fn attr_slot(&mut self) {
        self.own_payload();
        self.attr_slot_entry = self.here();
        let miss = self.masm.new_label();
        self.guard_type(Reg::Acc, miss);
        self.load_cached_offset(miss);
        self.jump_to_new_value();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    pub(super) fn attr_class(&mut self) {
        self.own_payload();
        self.attr_class_entry = self.here();
        let miss = self.masm.new_label();
        self.guard_type(Reg::Acc, miss);
        self.load_cached_value();
        self.jump_to_close_acc();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    pub(super) fn attr_class_unshadowed(&mut self) {
        self.own_payload();
        self.attr_class_unshadowed_entry = self.here();
        let miss = self.masm.new_label();
        self.guard_type(Reg::Acc, miss);
        self.guard_inline_values(miss);
        self.guard_keys(miss);
        self.load_cached_value();
        self.jump_to_close_acc();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    /// T1 = the value of the cell of a module attribute, with a reference; to `miss` for another owner or an empty cell.
    fn load_module_value(&mut self, miss: Label) {
        self.guard_type(Reg::Acc, miss);
        let m = &mut self.masm;
        m.load(
            Reg::T2,
            Reg::T0.at(offset_of!(ffi::PyModuleObject, md_dict)),
        );
        m.branch_cmp_mem(Cond::Ne, Reg::T2, payload(3), miss);
        m.load(Reg::T1, payload(1));
        m.load(Reg::T1, Reg::T1.at(0));
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, miss);
        self.take_reference_t1();
    }

    pub(super) fn attr_module(&mut self) {
        self.own_payload();
        let miss = self.masm.new_label();
        self.load_module_value(miss);
        self.jump_to_close_acc();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    /// To `miss` unless `Acc` is a class of metaclass `type` with the version of word 0.
    fn guard_class(&mut self, miss: Label) {
        let m = &mut self.masm;
        m.mov(Reg::T0, Reg::Acc);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        m.load(Reg::T1, Reg::T0.at(offset_of!(ffi::PyObject, ob_type)));
        m.mov_imm(Reg::T2, (&raw const ffi::PyType_Type) as u64);
        m.branch_cmp(Cond::Ne, Reg::T1, Reg::T2, miss);
        m.load32(
            Reg::T2,
            Reg::T0.at(offset_of!(ffi::PyTypeObject, tp_version_tag)),
        );
        m.branch_cmp32_mem(Cond::Ne, Reg::T2, payload(0), miss);
    }

    pub(super) fn attr_type(&mut self) {
        self.own_payload();
        let miss = self.masm.new_label();
        self.guard_class(miss);
        self.load_cached_value();
        self.jump_to_close_acc();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    /// Writes callable (T1) and self (the owner in `Acc`, which moves) to the operand stack and returns. Uses T2.
    fn finish_method(&mut self) {
        self.operand_slot();
        let m = &mut self.masm;
        m.store(Reg::T2.at(0), Reg::T1);
        m.store(Reg::T2.at(8), Reg::Acc);
        m.ret();
    }

    /// T2 = the slot where the operand stack ends for this site.
    fn operand_slot(&mut self) {
        let m = &mut self.masm;
        m.load16(Reg::T2, Reg::A3.at(offset_of!(Site, stack_words)));
        m.lea_indexed(Reg::T2, Reg::Frame, Reg::T2, 0);
    }

    /// Writes callable (T1) and null to the operand stack, and releases the owner.
    fn finish_unbound(&mut self) {
        self.operand_slot();
        let m = &mut self.masm;
        m.store(Reg::T2.at(0), Reg::T1);
        m.store_imm(Reg::T2.at(8), NULL_BITS);
        self.jump_to_close_acc();
    }

    pub(super) fn method_class(&mut self) {
        self.own_payload();
        self.method_class_entry = self.here();
        let miss = self.masm.new_label();
        self.guard_type(Reg::Acc, miss);
        self.load_cached_value();
        self.finish_method();
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    pub(super) fn method_class_unshadowed(&mut self) {
        self.own_payload();
        self.method_class_unshadowed_entry = self.here();
        let miss = self.masm.new_label();
        self.guard_type(Reg::Acc, miss);
        self.guard_inline_values(miss);
        self.guard_keys(miss);
        self.load_cached_value();
        self.finish_method();
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    pub(super) fn method_module(&mut self) {
        self.own_payload();
        let miss = self.masm.new_label();
        self.load_module_value(miss);
        self.finish_unbound();
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    pub(super) fn method_type(&mut self) {
        self.own_payload();
        let miss = self.masm.new_label();
        self.guard_class(miss);
        self.load_cached_value();
        self.finish_unbound();
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    /// Acc = value, A1 = owner.
    pub(super) fn store_inline(&mut self) {
        self.own_payload();
        self.store_inline_entry = self.here();
        let miss = self.masm.new_label();
        self.guard_type(Reg::A1, miss);
        self.guard_inline_values(miss);
        let m = &mut self.masm;
        // An instance whose dictionary was asked for shares the values with it, but the dictionary's watchers and order are its own.
        m.branch_mem_imm(
            Cond::Ne,
            Reg::T0.offset(ffi::MANAGED_DICT_OFFSET as i32),
            0,
            miss,
        );
        self.own_acc();
        let m = &mut self.masm;
        m.load32(Reg::T2, payload_high(0));
        m.alu(Alu::Add, Reg::T2, Reg::T0);
        m.load(Reg::T1, Reg::T2.at(0));
        m.store(Reg::T2.at(0), Reg::Acc);
        let replaced = m.new_label();
        m.branch_cmp_imm(Cond::Ne, Reg::T1, 0, replaced);
        // A value that was not there: its index goes to the end of the insertion order, which stands behind the values.
        let valid = offset_of!(ffi::PyDictValues, valid) as i32;
        m.load32(Reg::T2, payload(2));
        m.alu(Alu::Add, Reg::T2, Reg::T0);
        m.lea(Reg::T2, Reg::T2.offset(-valid));
        m.load8(Reg::T3, Reg::T2.at(offset_of!(ffi::PyDictValues, capacity)));
        m.load8(Reg::T4, Reg::T2.at(offset_of!(ffi::PyDictValues, size)));
        m.lea_indexed(
            Reg::T3,
            Reg::T2,
            Reg::T3,
            offset_of!(ffi::PyDictValues, values) as i32,
        );
        m.alu(Alu::Add, Reg::T3, Reg::T4);
        m.load(Reg::T1, payload(1));
        m.store8(Reg::T3.at(0), Reg::T1);
        m.alu_imm(Alu::Add, Reg::T4, 1);
        m.store8(Reg::T2.at(offset_of!(ffi::PyDictValues, size)), Reg::T4);
        m.mov_imm(Reg::T1, NULL_BITS as u64);
        m.bind(replaced);
        self.close_replaced();
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    /// Acc = value, A1 = owner.
    pub(super) fn store_slot(&mut self) {
        self.own_payload();
        self.store_slot_entry = self.here();
        let miss = self.masm.new_label();
        self.guard_type(Reg::A1, miss);
        self.own_acc();
        let m = &mut self.masm;
        m.load32(Reg::T2, payload_high(0));
        m.alu(Alu::Add, Reg::T2, Reg::T0);
        m.load(Reg::T1, Reg::T2.at(0));
        m.store(Reg::T2.at(0), Reg::Acc);
        let replaced = m.new_label();
        m.branch_cmp_imm(Cond::Ne, Reg::T1, 0, replaced);
        m.mov_imm(Reg::T1, NULL_BITS as u64);
        m.bind(replaced);
        self.close_replaced();
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    /// Turns the `StackRef` in `Acc` into an object pointer that owns a reference. Uses T1.
    pub(super) fn own_acc(&mut self) {
        let m = &mut self.masm;
        let (owned, done) = (m.new_label(), m.new_label());
        m.branch_bits_clear(Reg::Acc, BORROWED as u32, owned);
        m.alu_imm(Alu::Sub, Reg::Acc, BORROWED);
        m.branch_mem32_imm(Cond::Lt, Reg::Acc.at(0), 0, done);
        m.add32_mem(Reg::Acc.at(0), 1);
        m.bind(owned);
        m.bind(done);
    }

    /// Releases the object in T1 (a pointer, possibly immortal, or the null `StackRef`) and the owner in A1; `Acc` is then any value. Destructors see the new attribute.
    pub(super) fn close_replaced(&mut self) {
        let m = &mut self.masm;
        let kept = m.new_label();
        // As a `StackRef` in `Acc`, it is released by the common tail.
        m.mov(Reg::Acc, Reg::T1);
        m.branch_bits_set(Reg::Acc, BORROWED as u32, kept);
        m.branch_mem32_imm(Cond::Ge, Reg::Acc.at(0), 0, kept);
        m.mov_imm(Reg::Acc, NULL_BITS as u64);
        m.bind(kept);
        m.mov_imm(Reg::T1, NULL_BITS as u64);
        let tail = self.close_acc_then_a1;
        self.masm.jump(tail);
    }

    /// The pieces of code that the stubs end in.
    pub(super) fn value_tails(&mut self) {
        // T1 = an object: takes a reference, releases `Acc`, returns it.
        let (new_value, close_acc, close_both, acc_then_a1) = (
            self.new_value,
            self.close_acc,
            self.close_both,
            self.close_acc_then_a1,
        );
        let m = &mut self.masm;
        m.align();
        m.bind(new_value);
        let immortal = m.new_label();
        m.branch_mem32_imm(Cond::Lt, Reg::T1.at(0), 0, immortal);
        m.add32_mem(Reg::T1.at(0), 1);
        m.jump(close_acc);
        m.bind(immortal);
        m.alu_imm(Alu::Or, Reg::T1, BORROWED);

        // T1 = the result: releases `Acc`, returns it.
        m.bind(close_acc);
        let (free_acc, acc_closed) = (m.new_label(), m.new_label());
        m.branch_bits_set(Reg::Acc, BORROWED as u32, acc_closed);
        m.dec32_mem_branch_zero(Reg::Acc.at(0), free_acc);
        m.bind(acc_closed);
        m.mov(Reg::Acc, Reg::T1);
        m.ret();

        // T1 = the result: releases A1 and `Acc`, returns it.
        m.bind(close_both);
        let free_a1 = m.new_label();
        m.branch_bits_set(Reg::A1, BORROWED as u32, close_acc);
        m.dec32_mem_branch_zero(Reg::A1.at(0), free_a1);
        m.jump(close_acc);

        // T1 = the result: releases `Acc`, then A1.
        m.bind(acc_then_a1);
        let (free_first, first_closed) = (m.new_label(), m.new_label());
        m.branch_bits_set(Reg::Acc, BORROWED as u32, first_closed);
        m.dec32_mem_branch_zero(Reg::Acc.at(0), free_first);
        m.bind(first_closed);
        m.mov(Reg::Acc, Reg::A1);
        m.jump(close_acc);

        m.bind(free_acc);
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.push_pair(Reg::T1, Reg::A1);
        m.mov(Reg::A0, Reg::Acc);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.pop_pair(Reg::T1, Reg::A1);
        m.stub_exit();
        m.jump(acc_closed);

        m.bind(free_first);
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.push_pair(Reg::T1, Reg::A1);
        m.mov(Reg::A0, Reg::Acc);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.pop_pair(Reg::T1, Reg::A1);
        m.stub_exit();
        m.jump(first_closed);

        m.bind(free_a1);
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.push_pair(Reg::T1, Reg::Acc);
        m.mov(Reg::A0, Reg::A1);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.pop_pair(Reg::T1, Reg::Acc);
        m.stub_exit();
        m.jump(close_acc);
    }

    pub(super) fn jump_to_new_value(&mut self) {
        let tail = self.new_value;
        self.masm.jump(tail);
    }

    pub(super) fn jump_to_close_acc(&mut self) {
        let tail = self.close_acc;
        self.masm.jump(tail);
    }

    pub(super) fn jump_to_close_both(&mut self) {
        let tail = self.close_both;
        self.masm.jump(tail);
    }
}
