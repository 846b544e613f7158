//! Guards: what leaves when the world is not as the feedback said.

use std::mem::offset_of;

use hotstamp_layout::array::ArrayObject;
use hotstamp_layout::ffi;
use inkwell::IntPredicate;
use inkwell::values::IntValue;

use super::refs::{COMPACT_LIMIT, FLOAT_VALUE, LV_TAG, OB_DIGIT, SHORT_LIMIT};
use super::{Lower, LowerError, Lowered};
use crate::hir::{Op, Reason, Value};

const OB_TYPE: usize = offset_of!(ffi::PyObject, ob_type);
const VERSION_TAG: usize = offset_of!(ffi::PyTypeObject, tp_version_tag);

impl<'c> Lower<'c, '_> {
    /// A guard without a value.
    pub(super) fn guard(&mut self, value: Value) -> Lowered<()> {
        let state = self.state_of(value)?;
        let arg = self.graph.inst(value).args.first().copied();
        let object = |this: &mut Self| this.object(arg.ok_or(LowerError::Kind)?);
        let (holds, reason) = match *self.op(value) {
            Op::GuardClass(class) => {
                let object = object(self)?;
                let found = self.load64(object, OB_TYPE)?;
                (
                    self.compare(IntPredicate::EQ, found, self.i64(class))?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardArray(class, descr) => {
                let object = object(self)?;
                let found = self.load64(object, OB_TYPE)?;
                let is_array = self.compare(IntPredicate::EQ, found, self.i64(class))?;
                let exit = self.exit_block(Reason::TypeGuard, &state)?;
                self.expect(is_array, exit)?;
                let found = self.load64(object, offset_of!(ArrayObject, ob_descr))?;
                (
                    self.compare(IntPredicate::EQ, found, self.i64(descr))?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardVersion(version) => {
                let object = object(self)?;
                let class = self.load_pointer(object, OB_TYPE)?;
                let found = self.load32(class, VERSION_TAG)?;
                (
                    self.compare(IntPredicate::EQ, found, self.i32(u64::from(version)))?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardClassObject(version) => {
                let object = object(self)?;
                let metaclass = self.load64(object, OB_TYPE)?;
                let is_class = self.compare(
                    IntPredicate::EQ,
                    metaclass,
                    self.i64(self.job.process.type_type),
                )?;
                let exit = self.exit_block(Reason::TypeGuard, &state)?;
                self.expect(is_class, exit)?;
                let found = self.load32(object, VERSION_TAG)?;
                (
                    self.compare(IntPredicate::EQ, found, self.i32(u64::from(version)))?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardIdentity => {
                let object = object(self)?;
                let class = self.load_pointer(object, OB_TYPE)?;
                let found = self.load64(class, offset_of!(ffi::PyTypeObject, tp_richcompare))?;
                let wanted = self.i64(self.job.process.object_compare);
                (
                    self.compare(IntPredicate::EQ, found, wanted)?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardInline(valid) => {
                let object = object(self)?;
                let flag = self.load8(object, valid as usize)?;
                (
                    self.compare(IntPredicate::NE, flag, self.context.i8_type().const_zero())?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardNoDict => {
                let object = object(self)?;
                // SAFETY: an address computation; the slot lies in front of every object with inline values.
                let slot = unsafe {
                    self.b.build_gep(
                        self.context.i8_type(),
                        object,
                        &[self.i64((ffi::MANAGED_DICT_OFFSET as i64).cast_unsigned())],
                        "",
                    )?
                };
                let dict = self.load64(slot, 0)?;
                (
                    self.compare(IntPredicate::EQ, dict, self.i64(0))?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardKeys(count) => {
                let object = object(self)?;
                let class = self.load_pointer(object, OB_TYPE)?;
                let keys =
                    self.load_pointer(class, offset_of!(ffi::PyHeapTypeObject, ht_cached_keys))?;
                let found = self.load64(keys, offset_of!(ffi::PyDictKeysObject, dk_nentries))?;
                (
                    self.compare(IntPredicate::EQ, found, self.i64(count))?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardCell(cell, wanted) => {
                let bits = self.load64(self.address(cell), 0)?;
                let tagged = self.b.build_or(bits, self.i64(1), "")?;
                (
                    self.compare(IntPredicate::EQ, tagged, self.i64(wanted | 1))?,
                    Reason::GlobalChanged,
                )
            }
            Op::GuardFunction(code, globals) => {
                let object = object(self)?;
                let found = self.load64(object, offset_of!(ffi::PyFunctionObject, func_code))?;
                let same_code = self.compare(IntPredicate::EQ, found, self.i64(code))?;
                let found = self.load64(object, offset_of!(ffi::PyFunctionObject, func_globals))?;
                let same_globals = self.compare(IntPredicate::EQ, found, self.i64(globals))?;
                (
                    self.b.build_and(same_code, same_globals, "")?,
                    Reason::TypeGuard,
                )
            }
            Op::GuardEvaluator => {
                let evaluator = self.load64(self.address(self.job.process.evaluator), 0)?;
                (
                    self.compare(IntPredicate::EQ, evaluator, self.i64(0))?,
                    Reason::Events,
                )
            }
            Op::GuardUnique => {
                let object = object(self)?;
                let count = self.load32(object, 0)?;
                (
                    self.compare(IntPredicate::EQ, count, self.i32(1))?,
                    Reason::RareCase,
                )
            }
            Op::GuardBound => {
                let bits = self.int(arg.ok_or(LowerError::Kind)?)?;
                (
                    self.compare(IntPredicate::NE, bits, self.i64(1))?,
                    Reason::Unbound,
                )
            }
            _ => return Err(LowerError::Kind),
        };
        let exit = self.exit_block(reason, &state)?;
        self.expect(holds, exit)
    }

    pub(super) fn unbox_int(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        let state = self.state_of(value)?;
        let arg = self.graph.inst(value).args[0];
        let exit = self.exit_block(Reason::TypeGuard, &state)?;
        let object = self.object(arg)?;
        let class = self.load64(object, OB_TYPE)?;
        let is_int = self.compare(IntPredicate::EQ, class, self.i64(self.job.process.int_type))?;
        self.expect(is_int, exit)?;
        let tag = self.load64(object, LV_TAG)?;
        let short = self.compare(IntPredicate::ULT, tag, self.i64(SHORT_LIMIT))?;
        let too_large = self.exit_block(Reason::IntOverflow, &state)?;
        self.expect(short, too_large)?;
        // Both digits in one load: what stands behind a single digit belongs to the object's memory, and is not used.
        let digits = self.load64(object, OB_DIGIT)?;
        let low = self
            .b
            .build_and(digits, self.i64(u64::from(u32::MAX)), "")?;
        let high = self.b.build_right_shift(digits, self.i64(32), false, "")?;
        let high = self
            .b
            .build_left_shift(high, self.i64(u64::from(ffi::PyLong_SHIFT)), "")?;
        let both = self.b.build_or(low, high, "")?;
        let two = self.compare(IntPredicate::UGE, tag, self.i64(COMPACT_LIMIT))?;
        let size = self.b.build_select(two, both, low, "")?.into_int_value();
        let sign = self.b.build_and(tag, self.i64(3), "")?;
        let sign = self.b.build_int_sub(self.i64(1), sign, "")?;
        Ok(self.b.build_int_mul(size, sign, "")?)
    }

    pub(super) fn unbox_float(&mut self, value: Value) -> Lowered<inkwell::values::FloatValue<'c>> {
        let state = self.state_of(value)?;
        let arg = self.graph.inst(value).args[0];
        let exit = self.exit_block(Reason::TypeGuard, &state)?;
        let object = self.object(arg)?;
        let class = self.load64(object, OB_TYPE)?;
        let is_float = self.compare(
            IntPredicate::EQ,
            class,
            self.i64(self.job.process.float_type),
        )?;
        self.expect(is_float, exit)?;
        Ok(self
            .load(self.context.f64_type(), object, FLOAT_VALUE)?
            .into_float_value())
    }

    /// Whether an object's class is exactly this one.
    pub(super) fn is_exact(
        &mut self,
        object: inkwell::values::PointerValue<'c>,
        class: u64,
    ) -> Lowered<IntValue<'c>> {
        let found = self.load64(object, OB_TYPE)?;
        self.compare(IntPredicate::EQ, found, self.i64(class))
    }

    pub(super) fn unbox_number(
        &mut self,
        value: Value,
    ) -> Lowered<inkwell::values::FloatValue<'c>> {
        let state = self.state_of(value)?;
        let arg = self.graph.inst(value).args[0];
        let exit = self.exit_block(Reason::TypeGuard, &state)?;
        let object = self.object(arg)?;
        let (float, other, done) = (
            self.new_block("float"),
            self.new_block("other"),
            self.new_block(""),
        );
        let is_float = self.is_exact(object, self.job.process.float_type)?;
        self.b.build_conditional_branch(is_float, float, other)?;
        self.b.position_at_end(float);
        let double = self.context.f64_type();
        let found = self.load(double, object, FLOAT_VALUE)?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(other);
        let is_int = self.is_exact(object, self.job.process.int_type)?;
        self.expect(is_int, exit)?;
        let tag = self.load64(object, LV_TAG)?;
        let compact = self.compare(IntPredicate::ULT, tag, self.i64(COMPACT_LIMIT))?;
        let too_large = self.exit_block(Reason::IntOverflow, &state)?;
        self.expect(compact, too_large)?;
        let digit = self.load32(object, OB_DIGIT)?;
        let size = self
            .b
            .build_int_z_extend(digit, self.context.i64_type(), "")?;
        let sign = self.b.build_and(tag, self.i64(3), "")?;
        let sign = self.b.build_int_sub(self.i64(1), sign, "")?;
        let int = self.b.build_int_mul(size, sign, "")?;
        let converted = self.b.build_signed_int_to_float(int, double, "")?;
        let end = self.current();
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        let phi = self.b.build_phi(double, "")?;
        phi.add_incoming(&[(&found, float), (&converted, end)]);
        Ok(phi.as_basic_value().into_float_value())
    }

    /// The truth of what can be judged without running Python.
    pub(super) fn truth(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        let state = self.state_of(value)?;
        let arg = self.graph.inst(value).args[0];
        let exit = self.exit_block(Reason::TypeGuard, &state)?;
        let bits = self.int(arg)?;
        let tagged = self.b.build_or(bits, self.i64(1), "")?;
        let process = &self.job.process;
        let (yes, no) = (
            self.context.bool_type().const_int(1, false),
            self.context.bool_type().const_zero(),
        );
        let done = self.new_block("");
        let mut ways = Vec::new();
        for (object, result) in [
            (process.true_object, yes),
            (process.false_object, no),
            (process.none_object, no),
        ] {
            let is = self.compare(IntPredicate::EQ, tagged, self.i64(object | 1))?;
            let next = self.new_block("");
            ways.push((result, self.current()));
            self.b.build_conditional_branch(is, done, next)?;
            self.b.position_at_end(next);
        }
        let object = self.object(arg)?;
        let class = self.load64(object, OB_TYPE)?;
        // Containers by their number of items; ints by their sign.
        let kinds = [
            (process.list_type, offset_of!(ffi::PyVarObject, ob_size)),
            (process.tuple_type, offset_of!(ffi::PyVarObject, ob_size)),
            (process.dict_type, offset_of!(ffi::PyDictObject, ma_used)),
            (process.str_type, offset_of!(ffi::PyASCIIObject, length)),
            (process.int_type, LV_TAG),
        ];
        for (wanted, offset) in kinds {
            let (hit, next) = (self.new_block(""), self.new_block(""));
            let is = self.compare(IntPredicate::EQ, class, self.i64(wanted))?;
            self.b.build_conditional_branch(is, hit, next)?;
            self.b.position_at_end(hit);
            let word = self.load64(object, offset)?;
            let result = if wanted == process.int_type {
                let sign = self.b.build_and(word, self.i64(3), "")?;
                self.compare(IntPredicate::NE, sign, self.i64(1))?
            } else {
                self.compare(IntPredicate::NE, word, self.i64(0))?
            };
            ways.push((result, self.current()));
            self.b.build_unconditional_branch(done)?;
            self.b.position_at_end(next);
        }
        self.b.build_unconditional_branch(exit)?;
        self.b.position_at_end(done);
        let phi = self.b.build_phi(self.context.bool_type(), "")?;
        for (result, block) in &ways {
            phi.add_incoming(&[(result, *block)]);
        }
        Ok(phi.as_basic_value().into_int_value())
    }

    /// Arithmetic that leaves on overflow.
    pub(super) fn int_overflow(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        let state = self.state_of(value)?;
        let inst = self.graph.inst(value);
        let name = match inst.op {
            Op::IntAdd => "llvm.sadd.with.overflow",
            Op::IntSub => "llvm.ssub.with.overflow",
            _ => "llvm.smul.with.overflow",
        };
        let (a, b) = (self.int(inst.args[0])?, self.int(inst.args[1])?);
        let intrinsic = inkwell::intrinsics::Intrinsic::find(name).ok_or(LowerError::Kind)?;
        let function = intrinsic
            .get_declaration(self.module, &[self.context.i64_type().into()])
            .ok_or(LowerError::Kind)?;
        let pair = self
            .b
            .build_call(function, &[a.into(), b.into()], "")?
            .try_as_basic_value()
            .basic()
            .ok_or(LowerError::Kind)?
            .into_struct_value();
        let result = self.b.build_extract_value(pair, 0, "")?.into_int_value();
        let overflow = self.b.build_extract_value(pair, 1, "")?.into_int_value();
        let exit = self.exit_block(Reason::IntOverflow, &state)?;
        self.unlikely(overflow, exit)?;
        Ok(result)
    }

    pub(super) fn shift(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        let state = self.state_of(value)?;
        let inst = self.graph.inst(value);
        let (a, count) = (self.int(inst.args[0])?, self.int(inst.args[1])?);
        let exit = self.exit_block(Reason::IntOverflow, &state)?;
        if inst.op == Op::IntShl {
            let fits = self.compare(IntPredicate::ULT, count, self.i64(63))?;
            self.expect(fits, exit)?;
            let shifted = self.b.build_left_shift(a, count, "")?;
            let back = self.b.build_right_shift(shifted, count, true, "")?;
            let same = self.compare(IntPredicate::EQ, back, a)?;
            self.expect(same, exit)?;
            return Ok(shifted);
        }
        let fine = self.compare(IntPredicate::SGE, count, self.i64(0))?;
        self.expect(fine, exit)?;
        let large = self.compare(IntPredicate::SGT, count, self.i64(63))?;
        let count = self
            .b
            .build_select(large, self.i64(63), count, "")?
            .into_int_value();
        Ok(self.b.build_right_shift(a, count, true, "")?)
    }
}
