//! Stubs of BINARY_OP, COMPARE_OP and FOR_ITER on small ints, floats, lists, tuples and ranges.
//!
//! Operands in `Acc` and A1 (FOR_ITER: the iterator in `Acc`, borrowed), the result in `Acc`.

use std::mem::offset_of;

use hotstamp_layout::ffi::{self, PyLongObject};
use hotstamp_layout::refs;
use hotstamp_runtime::code_data::CodeData;
use hotstamp_runtime::site::Site;

use super::attributes::payload;
use super::{BORROWED, Builder, NULL_BITS};
use crate::masm::{Alu, Cond, FAlu, FReg, Label, MacroAssembler, Reg, Shift};

const LV_TAG: usize = offset_of!(PyLongObject, long_value) + offset_of!(ffi::_PyLongValue, lv_tag);
const OB_DIGIT: usize =
    offset_of!(PyLongObject, long_value) + offset_of!(ffi::_PyLongValue, ob_digit);
const FLOAT_VALUE: usize = offset_of!(ffi::PyFloatObject, ob_fval);
const OB_TYPE: usize = offset_of!(ffi::PyObject, ob_type);
const OB_SIZE: usize = offset_of!(ffi::PyVarObject, ob_size);

/// `lv_tag` of ints with at most one digit is below this.
const COMPACT_LIMIT: i32 = 2 << ffi::_PyLong_NON_SIZE_BITS;
/// `lv_tag` of ints with at most two digits is below this.
const TWO_DIGITS_LIMIT: i32 = 3 << ffi::_PyLong_NON_SIZE_BITS;
/// Bit of `lv_tag` that negative ints have (the sign is 0, 1 for zero, or 2).
const NEGATIVE: u32 = ffi::SIGN_NEGATIVE;

/// A free list of the main interpreter, the only one hotstamp runs in.
fn freelist(field: usize) -> u64 {
    // SAFETY: hotstamp starts with an initialised interpreter.
    let interp = unsafe { ffi::PyInterpreterState_Main() } as usize;
    let lists = offset_of!(ffi::PyInterpreterState, object_state)
        + offset_of!(ffi::_py_object_state, freelists);
    (interp + lists + field) as u64
}

/// An int operand with two digits, whose value is put together out of line.
struct TwoDigits {
    from: Label,
    back: Label,
    value: Reg,
}

impl<M: MacroAssembler> Builder<M> {
    /// `value` = the int in the `StackRef` `source`, if it is an exact int of one digit; else to `miss`. Uses `tag`; T4 holds the type int.
    fn small_int(&mut self, source: Reg, value: Reg, tag: Reg, miss: Label) {
        let m = &mut self.masm;
        let positive = m.new_label();
        m.mov(value, source);
        m.alu_imm(Alu::And, value, !BORROWED);
        m.load(tag, value.at(OB_TYPE));
        m.branch_cmp(Cond::Ne, tag, Reg::T4, miss);
        m.load(tag, value.at(LV_TAG));
        m.branch_cmp_imm(Cond::AboveEq, tag, COMPACT_LIMIT, miss);
        m.load32(value, value.at(OB_DIGIT));
        m.branch_bits_clear(tag, NEGATIVE, positive);
        m.neg(value);
        m.bind(positive);
    }

    /// T0, T1 = the ints in `Acc` and A1, if both are exact ints of at most two digits (60 bits); else to `miss`. Uses T2, T3, T4. What it returns has to be given to
    /// `finish_two_digits` where control does not come by.
    fn two_short_ints(&mut self, miss: Label) -> [TwoDigits; 2] {
        self.masm
            .mov_imm(Reg::T4, (&raw const ffi::PyLong_Type) as u64);
        [(Reg::Acc, Reg::T0), (Reg::A1, Reg::T1)].map(|(source, value)| {
            let m = &mut self.masm;
            let (from, back, positive) = (m.new_label(), m.new_label(), m.new_label());
            m.mov(value, source);
            m.alu_imm(Alu::And, value, !BORROWED);
            m.branch_cmp_mem(Cond::Ne, Reg::T4, value.at(OB_TYPE), miss);
            m.load(Reg::T2, value.at(LV_TAG));
            m.branch_cmp_imm(Cond::AboveEq, Reg::T2, COMPACT_LIMIT, from);
            m.load32(value, value.at(OB_DIGIT));
            m.bind(back);
            m.branch_bits_clear(Reg::T2, NEGATIVE, positive);
            m.neg(value);
            m.bind(positive);
            TwoDigits { from, back, value }
        })
    }

    /// The part of `two_short_ints` for ints that have two digits.
    fn finish_two_digits(&mut self, ints: [TwoDigits; 2], miss: Label) {
        let m = &mut self.masm;
        for TwoDigits { from, back, value } in ints {
            m.bind(from);
            m.branch_cmp_imm(Cond::AboveEq, Reg::T2, TWO_DIGITS_LIMIT, miss);
            m.load32(Reg::T3, value.at(OB_DIGIT + size_of::<ffi::digit>()));
            m.shift_imm(Shift::Left, Reg::T3, ffi::PyLong_SHIFT as u8);
            m.load32(value, value.at(OB_DIGIT));
            m.alu(Alu::Or, value, Reg::T3);
            m.jump(back);
        }
    }

    /// T1 = a new `StackRef` of the int in T0. Keeps Acc, A1; uses all temporaries and A2. Inside no `stub_enter`.
    fn box_int(&mut self) {
        let m = &mut self.masm;
        let (large, big, negative, signed, done) = (
            m.new_label(),
            m.new_label(),
            m.new_label(),
            m.new_label(),
            m.new_label(),
        );
        let (lowest, count) = (
            ffi::_PY_NSMALLNEGINTS as i32,
            (ffi::_PY_NSMALLNEGINTS + ffi::_PY_NSMALLPOSINTS) as i32,
        );
        m.lea(Reg::T1, Reg::T0.offset(lowest));
        m.branch_cmp_imm(Cond::AboveEq, Reg::T1, count, large);
        // The table of small ints.
        const { assert!(size_of::<PyLongObject>() == 32) };
        m.shift_imm(Shift::Left, Reg::T1, 5);
        m.mov_imm(Reg::T2, refs::small_ints() as u64 | BORROWED as u64);
        m.alu(Alu::Add, Reg::T1, Reg::T2);
        m.jump(done);

        m.bind(large);
        m.mov(Reg::T2, Reg::T0);
        m.branch_cmp_imm(Cond::Lt, Reg::T0, 0, negative);
        m.mov_imm(Reg::T3, 1 << ffi::_PyLong_NON_SIZE_BITS);
        m.jump(signed);
        m.bind(negative);
        m.neg(Reg::T2);
        m.mov_imm(
            Reg::T3,
            1 << ffi::_PyLong_NON_SIZE_BITS | u64::from(NEGATIVE),
        );
        m.bind(signed);
        m.branch_cmp_imm(Cond::AboveEq, Reg::T2, 1 << 30, big);
        m.mov_imm(Reg::T4, freelist(offset_of!(ffi::_Py_freelists, ints)));
        m.load(Reg::T1, Reg::T4.at(0));
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, big);
        m.load(Reg::A2, Reg::T1.at(0));
        m.store(Reg::T4.at(0), Reg::A2);
        m.add64_mem(Reg::T4.at(offset_of!(ffi::_Py_freelist, size)), -1);
        m.store_imm(Reg::T1.at(0), 1);
        m.store(Reg::T1.at(LV_TAG), Reg::T3);
        m.store32(Reg::T1.at(OB_DIGIT), Reg::T2);
        m.jump(done);

        // An allocation that may be traced: the frame says where.
        m.bind(big);
        let failed = m.new_label();
        m.mov(Reg::A2, Reg::T0);
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.push_pair(Reg::Acc, Reg::A1);
        m.mov(Reg::A0, Reg::A2);
        m.call_c(ffi::PyLong_FromLongLong as *const ());
        m.mov(Reg::T1, Reg::Acc);
        m.pop_pair(Reg::Acc, Reg::A1);
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, failed);
        m.stub_exit();
        m.jump(done);
        // Out of memory: the operands' references are lost with it.
        m.bind(failed);
        m.stub_exit();
        m.stub_abandon_early();
        m.jump(self.error);
        m.bind(done);
    }

    fn int_binary(&mut self, operation: impl FnOnce(&mut M, Label)) {
        let miss = self.masm.new_label();
        let ints = self.two_short_ints(miss);
        operation(&mut self.masm, miss);
        self.box_int();
        self.jump_to_close_both();
        self.masm.bind(miss);
        self.register_call(true, false);
        self.finish_two_digits(ints, miss);
    }

    pub(super) fn int_add(&mut self) {
        self.int_binary(|m, _| m.alu(Alu::Add, Reg::T0, Reg::T1));
    }

    pub(super) fn int_sub(&mut self) {
        self.int_binary(|m, _| m.alu(Alu::Sub, Reg::T0, Reg::T1));
    }

    pub(super) fn int_mul(&mut self) {
        self.int_binary(|m, miss| m.mul_overflow(Reg::T0, Reg::T1, miss));
    }

    pub(super) fn int_and(&mut self) {
        self.int_binary(|m, _| m.alu(Alu::And, Reg::T0, Reg::T1));
    }

    pub(super) fn int_or(&mut self) {
        self.int_binary(|m, _| m.alu(Alu::Or, Reg::T0, Reg::T1));
    }

    pub(super) fn int_xor(&mut self) {
        self.int_binary(|m, _| m.alu(Alu::Xor, Reg::T0, Reg::T1));
    }

    /// F0, F1 = the floats in `Acc` and A1; else to `miss`. Uses T0, T1, T4.
    fn two_floats(&mut self, miss: Label) {
        let m = &mut self.masm;
        m.mov_imm(Reg::T4, (&raw const ffi::PyFloat_Type) as u64);
        for (source, pointer, value) in
            [(Reg::Acc, Reg::T0, FReg::F0), (Reg::A1, Reg::T1, FReg::F1)]
        {
            m.mov(pointer, source);
            m.alu_imm(Alu::And, pointer, !BORROWED);
            m.branch_cmp_mem(Cond::Ne, Reg::T4, pointer.at(OB_TYPE), miss);
            m.fload(value, pointer.at(FLOAT_VALUE));
        }
    }

    fn float_binary(&mut self, operation: FAlu) {
        let m = &mut self.masm;
        let (miss, not_left, not_right, slow) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        self.two_floats(miss);
        let m = &mut self.masm;
        if operation == FAlu::Div {
            // The helper raises.
            m.fbranch_zero(FReg::F1, miss);
        }
        m.falu(operation, FReg::F0, FReg::F1);
        // An operand that dies here gives its memory.
        m.branch_bits_set(Reg::Acc, BORROWED as u32, not_left);
        m.branch_mem32_imm(Cond::Ne, Reg::Acc.at(0), 1, not_left);
        m.fstore(Reg::Acc.at(FLOAT_VALUE), FReg::F0);
        m.mov(Reg::T1, Reg::Acc);
        m.mov_imm(Reg::Acc, NULL_BITS as u64);
        self.jump_to_close_both();
        let m = &mut self.masm;
        m.bind(not_left);
        m.branch_bits_set(Reg::A1, BORROWED as u32, not_right);
        m.branch_mem32_imm(Cond::Ne, Reg::A1.at(0), 1, not_right);
        m.fstore(Reg::A1.at(FLOAT_VALUE), FReg::F0);
        m.mov(Reg::T1, Reg::A1);
        self.jump_to_close_acc();
        let m = &mut self.masm;
        m.bind(not_right);
        m.mov_imm(Reg::T4, freelist(offset_of!(ffi::_Py_freelists, floats)));
        m.load(Reg::T1, Reg::T4.at(0));
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, slow);
        m.load(Reg::A2, Reg::T1.at(0));
        m.store(Reg::T4.at(0), Reg::A2);
        m.add64_mem(Reg::T4.at(offset_of!(ffi::_Py_freelist, size)), -1);
        m.store_imm(Reg::T1.at(0), 1);
        m.fstore(Reg::T1.at(FLOAT_VALUE), FReg::F0);
        self.jump_to_close_both();
        let m = &mut self.masm;
        m.bind(slow);
        let failed = m.new_label();
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.push_pair(Reg::Acc, Reg::A1);
        m.call_c(ffi::PyFloat_FromDouble as *const ());
        m.mov(Reg::T1, Reg::Acc);
        m.pop_pair(Reg::Acc, Reg::A1);
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, failed);
        m.stub_exit();
        self.jump_to_close_both();
        self.masm.bind(failed);
        self.masm.stub_exit();
        self.masm.stub_abandon_early();
        let error = self.error;
        self.masm.jump(error);
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    pub(super) fn float_add(&mut self) {
        self.float_binary(FAlu::Add);
    }

    pub(super) fn float_sub(&mut self) {
        self.float_binary(FAlu::Sub);
    }

    pub(super) fn float_mul(&mut self) {
        self.float_binary(FAlu::Mul);
    }

    pub(super) fn float_div(&mut self) {
        self.float_binary(FAlu::Div);
    }

    /// T1 = True or False by a branch that `compare` makes to its label; then the operands are released.
    fn comparison(&mut self, compare: impl FnOnce(&mut M, Label)) {
        let holds = self.masm.new_label();
        compare(&mut self.masm, holds);
        self.masm
            .load(Reg::T1, Reg::Data.at(offset_of!(CodeData, false_bits)));
        self.jump_to_close_both();
        self.masm.bind(holds);
        self.masm
            .load(Reg::T1, Reg::Data.at(offset_of!(CodeData, true_bits)));
        self.jump_to_close_both();
    }

    /// Whether `Acc` and A1 are one object, or are not, as the site's argument wants it.
    pub(super) fn identity(&mut self) {
        let m = &mut self.masm;
        let (same, holds, fails) = (m.new_label(), m.new_label(), m.new_label());
        m.mov(Reg::T0, Reg::Acc);
        m.alu(Alu::Xor, Reg::T0, Reg::A1);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        m.load32(Reg::T1, Reg::A3.at(offset_of!(Site, oparg)));
        m.branch_cmp_imm(Cond::Eq, Reg::T0, 0, same);
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, fails);
        m.bind(holds);
        m.load(Reg::T1, Reg::Data.at(offset_of!(CodeData, true_bits)));
        self.jump_to_close_both();
        let m = &mut self.masm;
        m.bind(same);
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, holds);
        m.bind(fails);
        m.load(Reg::T1, Reg::Data.at(offset_of!(CodeData, false_bits)));
        self.jump_to_close_both();
    }

    fn int_compare(&mut self, cond: Cond) {
        let miss = self.masm.new_label();
        let ints = self.two_short_ints(miss);
        self.comparison(|m, holds| m.branch_cmp(cond, Reg::T0, Reg::T1, holds));
        self.masm.bind(miss);
        self.register_call(true, false);
        self.finish_two_digits(ints, miss);
    }

    fn float_compare(&mut self, cond: Cond) {
        let miss = self.masm.new_label();
        self.two_floats(miss);
        self.comparison(|m, holds| m.fbranch(cond, FReg::F0, FReg::F1, holds));
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    /// T3 = the index in `index` (a small int, counted from the end if it is negative); T0 = the object in `sequence`, of type `ty`; else to `miss`. Uses T1, T2, T4.
    /// What it returns has to be given to `finish_index` where control does not come by.
    fn sequence_and_index(
        &mut self,
        sequence: Reg,
        index: Reg,
        ty: *const ffi::PyTypeObject,
        miss: Label,
    ) -> (Label, Label) {
        let m = &mut self.masm;
        let (negative, valid) = (m.new_label(), m.new_label());
        m.mov(Reg::T0, sequence);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        m.mov_imm(Reg::T4, ty as u64);
        m.branch_cmp_mem(Cond::Ne, Reg::T4, Reg::T0.at(OB_TYPE), miss);
        m.mov_imm(Reg::T4, (&raw const ffi::PyLong_Type) as u64);
        self.small_int(index, Reg::T3, Reg::T2, miss);
        // Negative indices are above every size when compared as unsigned.
        let m = &mut self.masm;
        m.branch_cmp_mem(Cond::AboveEq, Reg::T3, Reg::T0.at(OB_SIZE), negative);
        m.bind(valid);
        (negative, valid)
    }

    /// The part of `sequence_and_index` for indices that are negative, or too large.
    fn finish_index(&mut self, (negative, valid): (Label, Label), miss: Label) {
        let m = &mut self.masm;
        m.bind(negative);
        m.branch_cmp_imm(Cond::Ge, Reg::T3, 0, miss);
        m.load(Reg::T2, Reg::T0.at(OB_SIZE));
        m.alu(Alu::Add, Reg::T3, Reg::T2);
        m.branch_cmp_imm(Cond::Ge, Reg::T3, 0, valid);
        m.jump(miss);
    }

    /// T1 = item, then reference and release.
    fn finish_subscript(&mut self) {
        let m = &mut self.masm;
        let (immortal, close) = (m.new_label(), m.new_label());
        m.branch_mem32_imm(Cond::Lt, Reg::T1.at(0), 0, immortal);
        m.add32_mem(Reg::T1.at(0), 1);
        m.bind(close);
        self.jump_to_close_both();
        let m = &mut self.masm;
        m.bind(immortal);
        m.alu_imm(Alu::Or, Reg::T1, BORROWED);
        m.jump(close);
    }

    pub(super) fn list_subscript(&mut self) {
        let miss = self.masm.new_label();
        let index = self.sequence_and_index(Reg::Acc, Reg::A1, &raw const ffi::PyList_Type, miss);
        self.masm
            .load(Reg::T1, Reg::T0.at(offset_of!(ffi::PyListObject, ob_item)));
        self.masm.load_indexed(Reg::T1, Reg::T1, Reg::T3, 0);
        self.finish_subscript();
        self.finish_index(index, miss);
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    pub(super) fn tuple_subscript(&mut self) {
        let miss = self.masm.new_label();
        let index = self.sequence_and_index(Reg::Acc, Reg::A1, &raw const ffi::PyTuple_Type, miss);
        self.masm.load_indexed(
            Reg::T1,
            Reg::T0,
            Reg::T3,
            offset_of!(ffi::PyTupleObject, ob_item) as i32,
        );
        self.finish_subscript();
        self.finish_index(index, miss);
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    /// Acc = value, A1 = list, A2 = index. What was there is released when the new value is in its place.
    pub(super) fn store_list(&mut self) {
        let miss = self.masm.new_label();
        let index = self.sequence_and_index(Reg::A1, Reg::A2, &raw const ffi::PyList_Type, miss);
        self.own_acc();
        let m = &mut self.masm;
        let (released, free) = (m.new_label(), m.new_label());
        m.load(Reg::T2, Reg::T0.at(offset_of!(ffi::PyListObject, ob_item)));
        m.load_indexed(Reg::T1, Reg::T2, Reg::T3, 0);
        m.store_indexed(Reg::T2, Reg::T3, 0, Reg::Acc);
        m.branch_bits_set(Reg::A2, BORROWED as u32, released);
        m.dec32_mem_branch_zero(Reg::A2.at(0), free);
        m.bind(released);
        self.close_replaced();
        // An int: freeing it runs no code.
        self.masm.bind(free);
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.push_pair(Reg::T1, Reg::A1);
        m.mov(Reg::A0, Reg::A2);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.pop_pair(Reg::T1, Reg::A1);
        m.stub_exit();
        m.jump(released);
        self.finish_index(index, miss);
        self.masm.bind(miss);
        self.register_call(false, false);
    }

    /// Acc = the operand; the payload says where the word is that makes it true.
    #[expect(clippy::wrong_self_convention, reason = "named after TO_BOOL")]
    pub(super) fn to_bool_word(&mut self) {
        self.own_payload();
        let miss = self.masm.new_label();
        self.guard_type(Reg::Acc, miss);
        let m = &mut self.masm;
        let holds = m.new_label();
        m.load(Reg::T2, payload(1));
        m.alu(Alu::Add, Reg::T2, Reg::T0);
        m.load(Reg::T2, Reg::T2.at(0));
        m.branch_cmp_mem(Cond::AboveEq, Reg::T2, payload(3), holds);
        m.load(Reg::T1, Reg::Data.at(offset_of!(CodeData, false_bits)));
        self.jump_to_close_acc();
        self.masm.bind(holds);
        self.masm
            .load(Reg::T1, Reg::Data.at(offset_of!(CodeData, true_bits)));
        self.jump_to_close_acc();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    /// T0 = the iterator in `Acc`, of type `ty`; else to `miss`. Uses T4.
    fn iterator(&mut self, ty: *const ffi::PyTypeObject, miss: Label) {
        let m = &mut self.masm;
        m.mov(Reg::T0, Reg::Acc);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        m.mov_imm(Reg::T4, ty as u64);
        m.branch_cmp_mem(Cond::Ne, Reg::T4, Reg::T0.at(OB_TYPE), miss);
    }

    /// Acc = a new `StackRef` of the object in T1; returns.
    fn return_new_t1(&mut self) {
        let m = &mut self.masm;
        let immortal = m.new_label();
        m.mov(Reg::Acc, Reg::T1);
        m.branch_mem32_imm(Cond::Lt, Reg::T1.at(0), 0, immortal);
        m.add32_mem(Reg::T1.at(0), 1);
        m.ret();
        m.bind(immortal);
        m.alu_imm(Alu::Or, Reg::Acc, BORROWED);
        m.ret();
    }

    pub(super) fn iterate_list(&mut self) {
        let miss = self.masm.new_label();
        self.iterator(&raw const ffi::PyListIter_Type, miss);
        let m = &mut self.masm;
        let (index, sequence) = (
            offset_of!(ffi::_PyListIterObject, it_index),
            offset_of!(ffi::_PyListIterObject, it_seq),
        );
        m.load(Reg::T2, Reg::T0.at(sequence));
        m.branch_cmp_imm(Cond::Eq, Reg::T2, 0, miss);
        m.load(Reg::T3, Reg::T0.at(index));
        m.branch_cmp_mem(Cond::AboveEq, Reg::T3, Reg::T2.at(OB_SIZE), miss);
        m.load(Reg::T1, Reg::T2.at(offset_of!(ffi::PyListObject, ob_item)));
        m.load_indexed(Reg::T1, Reg::T1, Reg::T3, 0);
        m.add64_mem(Reg::T0.at(index), 1);
        self.return_new_t1();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    pub(super) fn iterate_tuple(&mut self) {
        let miss = self.masm.new_label();
        self.iterator(&raw const ffi::PyTupleIter_Type, miss);
        let m = &mut self.masm;
        let (index, sequence) = (
            offset_of!(ffi::_PyTupleIterObject, it_index),
            offset_of!(ffi::_PyTupleIterObject, it_seq),
        );
        m.load(Reg::T2, Reg::T0.at(sequence));
        m.branch_cmp_imm(Cond::Eq, Reg::T2, 0, miss);
        m.load(Reg::T3, Reg::T0.at(index));
        m.branch_cmp_mem(Cond::AboveEq, Reg::T3, Reg::T2.at(OB_SIZE), miss);
        m.load_indexed(
            Reg::T1,
            Reg::T2,
            Reg::T3,
            offset_of!(ffi::PyTupleObject, ob_item) as i32,
        );
        m.add64_mem(Reg::T0.at(index), 1);
        self.return_new_t1();
        self.masm.bind(miss);
        self.register_call(true, false);
    }

    pub(super) fn iterate_range(&mut self) {
        let miss = self.masm.new_label();
        self.iterator(&raw const ffi::PyRangeIter_Type, miss);
        let m = &mut self.masm;
        let (start, step, len) = (
            offset_of!(ffi::_PyRangeIterObject, start),
            offset_of!(ffi::_PyRangeIterObject, step),
            offset_of!(ffi::_PyRangeIterObject, len),
        );
        m.branch_mem_imm(Cond::Le, Reg::T0.at(len), 0, miss);
        m.add64_mem(Reg::T0.at(len), -1);
        m.load(Reg::T2, Reg::T0.at(start));
        m.load(Reg::T3, Reg::T0.at(step));
        m.alu(Alu::Add, Reg::T3, Reg::T2);
        m.store(Reg::T0.at(start), Reg::T3);
        m.mov(Reg::T0, Reg::T2);
        self.box_int();
        self.masm.mov(Reg::Acc, Reg::T1);
        self.masm.ret();
        self.masm.bind(miss);
        self.register_call(true, false);
    }
}

macro_rules! comparisons {
    ($($int:ident $float:ident $cond:ident,)*) => {
        impl<M: MacroAssembler> Builder<M> {
            $(pub(super) fn $int(&mut self) { self.int_compare(Cond::$cond); }
            pub(super) fn $float(&mut self) { self.float_compare(Cond::$cond); })*
        }
    };
}

comparisons! {
    int_lt float_lt Lt,
    int_le float_le Le,
    int_eq float_eq Eq,
    int_ne float_ne Ne,
    int_gt float_gt Gt,
    int_ge float_ge Ge,
}
