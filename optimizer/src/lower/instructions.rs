//! One HIR instruction after the other: values and memory. Guards are in `guards.rs`, what may run Python in `look.rs`.

use std::mem::offset_of;

use hotstamp_layout::ffi;
use inkwell::values::{BasicValueEnum, IntValue};
use inkwell::{FloatPredicate, IntPredicate};

use super::{Lower, LowerError, Lowered};
use crate::hir::{Cond, Op, Reason, Value};

impl<'c> Lower<'c, '_> {
    pub(super) fn instruction(&mut self, value: Value) -> Lowered<()> {
        let graph = self.graph;
        let inst = graph.inst(value);
        let args = &inst.args;
        let result: BasicValueEnum<'c> = match &inst.op {
            Op::ConstRef(bits) => self.i64(*bits).into(),
            Op::ConstInt(int) => self.i64(int.cast_unsigned()).into(),
            Op::ConstFloat(float) => self.context.f64_type().const_float(*float).into(),
            Op::ConstBool(bool) => self
                .context
                .bool_type()
                .const_int(u64::from(*bool), false)
                .into(),
            Op::Slot(index) => self
                .load64(self.frame, super::frames::LOCALS + *index as usize * 8)?
                .into(),
            Op::Phi => {
                let phi = self.b.build_phi(self.llvm_type(inst.ty), "")?;
                self.phis.push((value, self.block, phi));
                phi.as_basic_value()
            }

            Op::IntAdd | Op::IntSub | Op::IntMul => self.int_overflow(value)?.into(),
            Op::IntFloorDiv | Op::IntMod => self.divide(value)?.into(),
            Op::IntAnd => self
                .b
                .build_and(self.int(args[0])?, self.int(args[1])?, "")?
                .into(),
            Op::IntOr => self
                .b
                .build_or(self.int(args[0])?, self.int(args[1])?, "")?
                .into(),
            Op::IntXor => self
                .b
                .build_xor(self.int(args[0])?, self.int(args[1])?, "")?
                .into(),
            Op::IntShl | Op::IntShr => self.shift(value)?.into(),
            Op::IntAddWrapping => self
                .b
                .build_int_nsw_add(self.int(args[0])?, self.int(args[1])?, "")?
                .into(),
            Op::IntSubWrapping => self
                .b
                .build_int_nsw_sub(self.int(args[0])?, self.int(args[1])?, "")?
                .into(),
            Op::IntCmp(cond) => self
                .compare(int_predicate(*cond), self.int(args[0])?, self.int(args[1])?)?
                .into(),
            Op::IntBelow => self
                .compare(IntPredicate::ULT, self.int(args[0])?, self.int(args[1])?)?
                .into(),

            Op::FloatAdd => self
                .b
                .build_float_add(self.float(args[0])?, self.float(args[1])?, "")?
                .into(),
            Op::FloatSub => self
                .b
                .build_float_sub(self.float(args[0])?, self.float(args[1])?, "")?
                .into(),
            Op::FloatMul => self
                .b
                .build_float_mul(self.float(args[0])?, self.float(args[1])?, "")?
                .into(),
            Op::FloatDiv => self
                .b
                .build_float_div(self.float(args[0])?, self.float(args[1])?, "")?
                .into(),
            Op::FloatNeg => self.b.build_float_neg(self.float(args[0])?, "")?.into(),
            Op::FloatAbs => self.intrinsic("llvm.fabs", value)?,
            Op::FloatSqrt => self.intrinsic("llvm.sqrt", value)?,
            Op::FloatCmp(cond) => self
                .compare_float(
                    float_predicate(*cond),
                    self.float(args[0])?,
                    self.float(args[1])?,
                )?
                .into(),
            Op::IntToFloat => self
                .b
                .build_signed_int_to_float(self.int(args[0])?, self.context.f64_type(), "")?
                .into(),
            Op::FloatPow => {
                let (a, b) = (self.float(args[0])?, self.float(args[1])?);
                self.call(
                    self.job.process.pow,
                    Some(self.context.f64_type().into()),
                    &[a.into(), b.into()],
                )?
                .ok_or(LowerError::Kind)?
            }
            Op::FloatCall(address) => {
                let a = self.float(args[0])?;
                self.call(*address, Some(self.context.f64_type().into()), &[a.into()])?
                    .ok_or(LowerError::Kind)?
            }

            Op::NumberOp(operation) => {
                let state = self.state_of(value)?;
                let exit = self.exit_block(Reason::TypeGuard, &state)?;
                let mut words = Vec::new();
                for &arg in args {
                    let object = self.object(arg)?;
                    let is_int = self.is_exact(object, self.job.process.int_type)?;
                    let is_float = self.is_exact(object, self.job.process.float_type)?;
                    let either = self.b.build_or(is_int, is_float, "")?;
                    self.expect(either, exit)?;
                    words.push(self.int(arg)?);
                }
                let result = self.call64(
                    self.job.process.number_op,
                    &[
                        words[0].into(),
                        words[1].into(),
                        self.i64(u64::from(*operation)).into(),
                    ],
                )?;
                let failed = self.compare(IntPredicate::EQ, result, self.i64(0))?;
                let raises = self.exit_block(Reason::RareCase, &state)?;
                self.unlikely(failed, raises)?;
                result.into()
            }
            Op::BoolNot => self.b.build_not(self.bool(args[0])?, "")?.into(),
            Op::BoolAnd => self
                .b
                .build_and(self.bool(args[0])?, self.bool(args[1])?, "")?
                .into(),
            Op::BoolOr => self
                .b
                .build_or(self.bool(args[0])?, self.bool(args[1])?, "")?
                .into(),
            Op::Same => {
                let one = self.i64(1);
                let a = self.b.build_or(self.int(args[0])?, one, "")?;
                let b = self.b.build_or(self.int(args[1])?, one, "")?;
                self.compare(IntPredicate::EQ, a, b)?.into()
            }
            Op::Truth => self.truth(value)?.into(),
            Op::Select => self.b.build_select(
                self.bool(args[0])?,
                self.value(args[1])?,
                self.value(args[2])?,
                "",
            )?,

            Op::BoxInt | Op::BoxFloat | Op::BoxBool => self.boxed(args[0])?.into(),
            Op::BoxMaybe => self.boxed_if(args[0], args[1])?.into(),
            Op::UnboxInt => self.unbox_int(value)?.into(),
            Op::UnboxFloat => self.unbox_float(value)?.into(),
            Op::UnboxNumber => self.unbox_number(value)?.into(),
            Op::EitherFloat => {
                let mut floats = Vec::new();
                for &arg in args {
                    let object = self.object(arg)?;
                    floats.push(self.is_exact(object, self.job.process.float_type)?);
                }
                self.b.build_or(floats[0], floats[1], "")?.into()
            }

            Op::Guard(reason) => {
                let state = self.state_of(value)?;
                let exit = self.exit_block(*reason, &state)?;
                let condition = self.bool(args[0])?;
                return self.expect(condition, exit);
            }
            Op::GuardClass(_)
            | Op::GuardArray(..)
            | Op::GuardVersion(_)
            | Op::GuardClassObject(_)
            | Op::GuardIdentity
            | Op::GuardInline(_)
            | Op::GuardNoDict
            | Op::GuardKeys(_)
            | Op::GuardCell(..)
            | Op::GuardFunction(..)
            | Op::GuardEvaluator
            | Op::GuardUnique
            | Op::GuardBound => {
                return self.guard(value);
            }

            Op::VersionIs(version) => {
                let object = self.object(args[0])?;
                let class = self.load_pointer(object, offset_of!(ffi::PyObject, ob_type))?;
                let found = self.load32(class, offset_of!(ffi::PyTypeObject, tp_version_tag))?;
                self.compare(IntPredicate::EQ, found, self.i32(u64::from(*version)))?
                    .into()
            }

            Op::Field(offset) => {
                let object = self.object(args[0])?;
                let loaded = self.load_pointer(object, *offset as usize)?;
                let null = self.is_null(loaded)?;
                let state = self.state_of(value)?;
                let exit = self.exit_block(Reason::RareCase, &state)?;
                self.unlikely(null, exit)?;
                return self.set_borrowed(value, loaded);
            }
            Op::Cell(cell) => {
                let bits = self.load64(self.address(*cell), 0)?;
                let empty = self.compare(IntPredicate::EQ, bits, self.i64(0))?;
                let state = self.state_of(value)?;
                let exit = self.exit_block(Reason::GlobalChanged, &state)?;
                self.unlikely(empty, exit)?;
                self.b.build_or(bits, self.i64(1), "")?.into()
            }
            Op::ListItem | Op::TupleItem => {
                let object = self.object(args[0])?;
                let index = self.int(args[1])?;
                let length = self.load64(object, offset_of!(ffi::PyVarObject, ob_size))?;
                let inside = self.compare(IntPredicate::ULT, index, length)?;
                let state = self.state_of(value)?;
                let exit = self.exit_block(Reason::RareCase, &state)?;
                self.expect(inside, exit)?;
                let items = if inst.op == Op::ListItem {
                    self.load(
                        self.context.ptr_type(Default::default()),
                        object,
                        offset_of!(ffi::PyListObject, ob_item),
                    )?
                    .into_pointer_value()
                } else {
                    self.at(object, offset_of!(ffi::PyTupleObject, ob_item))?
                };
                let place = self.indexed(items, index)?;
                let item = self.load_pointer(place, 0)?;
                return self.set_borrowed(value, item);
            }
            Op::ArrayItem(items) => self.array_item(value, *items)?,
            Op::ArrayStore(items) => return self.array_store(value, *items),
            Op::ListExchange => {
                let object = self.object(args[0])?;
                let index = self.int(args[1])?;
                let new = self.heap_pointer(args[2])?;
                let items = self
                    .load(
                        self.context.ptr_type(Default::default()),
                        object,
                        offset_of!(ffi::PyListObject, ob_item),
                    )?
                    .into_pointer_value();
                let place = self.indexed(items, index)?;
                let old = self.load_pointer(place, 0)?;
                self.store(place, 0, new.into())?;
                self.taken_from_heap(old)?.into()
            }
            Op::Items(count) => {
                let object = self.object(args[0])?;
                let state = self.state_of(value)?;
                let exit = self.exit_block(Reason::TypeGuard, &state)?;
                let class = self.load64(object, offset_of!(ffi::PyObject, ob_type))?;
                let is_list = self.compare(
                    IntPredicate::EQ,
                    class,
                    self.i64(self.job.process.list_type),
                )?;
                let is_tuple = self.compare(
                    IntPredicate::EQ,
                    class,
                    self.i64(self.job.process.tuple_type),
                )?;
                let either = self.b.build_or(is_list, is_tuple, "")?;
                self.expect(either, exit)?;
                let length = self.load64(object, offset_of!(ffi::PyVarObject, ob_size))?;
                let fits = self.compare(IntPredicate::EQ, length, self.i64(u64::from(*count)))?;
                self.expect(fits, exit)?;
                // A list's items are behind a pointer, a tuple's in the object: the word is read in both.
                let behind = self.load64(object, offset_of!(ffi::PyListObject, ob_item))?;
                let inside = self.at(object, offset_of!(ffi::PyTupleObject, ob_item))?;
                let inside = self
                    .b
                    .build_ptr_to_int(inside, self.context.i64_type(), "")?;
                self.b.build_select(is_list, behind, inside, "")?
            }
            Op::ItemAt(index) => {
                let items = self.int(args[0])?;
                let items = self.b.build_int_to_ptr(
                    items,
                    self.context.ptr_type(Default::default()),
                    "",
                )?;
                let item = self.load_pointer(items, *index as usize * 8)?;
                return self.set_borrowed(value, item);
            }
            Op::ListStoreFloat => {
                let object = self.object(args[0])?;
                let index = self.int(args[1])?;
                let items = self
                    .load(
                        self.context.ptr_type(Default::default()),
                        object,
                        offset_of!(ffi::PyListObject, ob_item),
                    )?
                    .into_pointer_value();
                let place = self.indexed(items, index)?;
                let float = self.float(args[2])?;
                return self.store_float(place, float, inst.state.clone().as_deref());
            }
            Op::FieldStoreFloat(offset) => {
                let object = self.object(args[0])?;
                let place = self.at(object, *offset as usize)?;
                let float = self.float(args[1])?;
                return self.store_float(place, float, inst.state.clone().as_deref());
            }
            Op::Length => {
                let object = self.object(args[0])?;
                self.load64(object, offset_of!(ffi::PyVarObject, ob_size))?
                    .into()
            }
            Op::StoreInline {
                offset,
                valid,
                index,
            } => {
                let object = self.object(args[0])?;
                let new = self.heap_pointer(args[1])?;
                let old = self.load_pointer(object, *offset as usize)?;
                self.store(object, *offset as usize, new.into())?;
                self.note_insertion(object, old, *valid, *index)?;
                self.taken_from_heap(old)?.into()
            }
            Op::StoreSlot(offset) => {
                let object = self.object(args[0])?;
                let new = self.heap_pointer(args[1])?;
                let old = self.load_pointer(object, *offset as usize)?;
                self.store(object, *offset as usize, new.into())?;
                self.taken_from_heap(old)?.into()
            }
            Op::NextOfList | Op::NextOfTuple => return self.next_of(value),
            Op::TakeSequence => {
                let iterator = self.object(args[0])?;
                let offset = offset_of!(ffi::_PyListIterObject, it_seq);
                let sequence = self.load_pointer(iterator, offset)?;
                self.store(iterator, offset, self.i64(0).into())?;
                // An exhausted list iterator is known by its index alone; a tuple's has it in the same place, and nobody looks at it.
                let index = offset_of!(ffi::_PyListIterObject, it_index);
                self.store(iterator, index, self.i64(u64::MAX).into())?;
                self.taken_from_heap(sequence)?.into()
            }
            Op::Word(offset) => {
                let object = self.object(args[0])?;
                self.load64(object, *offset as usize)?.into()
            }
            Op::SetWord(offset) => {
                let object = self.object(args[0])?;
                let word = self.value(args[1])?;
                self.store(object, *offset as usize, word)?;
                return Ok(());
            }
            Op::TupleExchange(index) => self.tuple_exchange(args, *index)?.into(),
            Op::RangeWord(word) => {
                let iterator = self.object(args[0])?;
                let offset = [
                    offset_of!(ffi::_PyRangeIterObject, start),
                    offset_of!(ffi::_PyRangeIterObject, step),
                    offset_of!(ffi::_PyRangeIterObject, len),
                ][*word as usize];
                self.load64(iterator, offset)?.into()
            }
            Op::NextOfRange => {
                let iterator = self.object(args[0])?;
                let (start, step, len) = (
                    offset_of!(ffi::_PyRangeIterObject, start),
                    offset_of!(ffi::_PyRangeIterObject, step),
                    offset_of!(ffi::_PyRangeIterObject, len),
                );
                let next = self.load64(iterator, start)?;
                let by = self.load64(iterator, step)?;
                let after = self.b.build_int_add(next, by, "")?;
                self.store(iterator, start, after.into())?;
                let left = self.load64(iterator, len)?;
                let fewer = self.b.build_int_sub(left, self.i64(1), "")?;
                self.store(iterator, len, fewer.into())?;
                next.into()
            }

            Op::StoreLocal(index) => {
                let bits = self.value(args[0])?;
                return self.store(
                    self.frame,
                    super::frames::LOCALS + *index as usize * 8,
                    bits,
                );
            }
            Op::Own => {
                let object = self.object(args[0])?;
                let bits = self.own(object)?;
                self.pointers.insert(value, object);
                bits.into()
            }
            Op::NewInstance(class) => {
                let object =
                    self.call64(self.job.process.new_instance, &[self.i64(*class).into()])?;
                let pointer = self.b.build_int_to_ptr(
                    object,
                    self.context.ptr_type(Default::default()),
                    "",
                )?;
                self.pointers.insert(value, pointer);
                object.into()
            }
            Op::ListBackwards => {
                let (list, last) = (self.int(args[0])?, self.int(args[1])?);
                self.call64(self.job.process.list_backwards, &[list.into(), last.into()])?
                    .into()
            }
            Op::ReverseItems => {
                let (list, count) = (self.int(args[0])?, self.int(args[1])?);
                self.call(
                    self.job.process.reverse_items,
                    None,
                    &[list.into(), count.into()],
                )?;
                return Ok(());
            }
            Op::MakeTuple => self.make_tuple(args)?.into(),
            Op::MakeList => self.make_list(args)?.into(),
            Op::ListAppend => return self.list_append(args),
            Op::ListPop => self.list_pop(value)?.into(),
            Op::Iterator => {
                let object = self.object(args[0])?;
                self.call64(self.job.process.iterator, &[object.into()])?
                    .into()
            }
            Op::GuardSized => return self.guard_sized(value),
            Op::Borrow => {
                let bits = self.int(args[0])?;
                self.b.build_or(bits, self.i64(1), "")?.into()
            }
            Op::Release => {
                let bits = self.int(args[0])?;
                let seen = self.release_bits(bits, inst.state.clone().as_deref())?;
                if inst.ty == crate::hir::Type::Bool {
                    self.values.insert(value, seen.into());
                }
                return Ok(());
            }

            Op::Helper {
                site,
                helper,
                inputs,
            } => return self.helper(value, *site, *helper, *inputs),
            // Loaded with its helper.
            Op::HelperOutput(_) => return Ok(()),
            Op::CallPython { .. } => return self.call_python(value),
            Op::Poll => return self.poll(value),
        };
        self.values.insert(value, result);
        Ok(())
    }

    fn intrinsic(&mut self, name: &str, value: Value) -> Lowered<BasicValueEnum<'c>> {
        let arg = self.float(self.graph.inst(value).args[0])?;
        let intrinsic = inkwell::intrinsics::Intrinsic::find(name).ok_or(LowerError::Kind)?;
        let function = intrinsic
            .get_declaration(self.module, &[self.context.f64_type().into()])
            .ok_or(LowerError::Kind)?;
        self.b
            .build_call(function, &[arg.into()], "")?
            .try_as_basic_value()
            .basic()
            .ok_or(LowerError::Kind)
    }

    /// Floor division and modulo by a positive divisor.
    fn divide(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        let inst = self.graph.inst(value);
        let (a, b) = (self.int(inst.args[0])?, self.int(inst.args[1])?);
        let rest = self.b.build_int_signed_rem(a, b, "")?;
        let below = self.compare(IntPredicate::SLT, rest, self.i64(0))?;
        if inst.op == Op::IntMod {
            let more = self.b.build_int_add(rest, b, "")?;
            return Ok(self.b.build_select(below, more, rest, "")?.into_int_value());
        }
        let quotient = self.b.build_int_signed_div(a, b, "")?;
        let less = self.b.build_int_sub(quotient, self.i64(1), "")?;
        Ok(self
            .b
            .build_select(below, less, quotient, "")?
            .into_int_value())
    }

    /// A value that was not there: its index goes to the end of the insertion order, which stands behind the values.
    fn note_insertion(
        &mut self,
        object: inkwell::values::PointerValue<'c>,
        old: inkwell::values::PointerValue<'c>,
        valid: u32,
        index: u32,
    ) -> Lowered<()> {
        let (insert, done) = (self.new_block("insert"), self.new_block(""));
        let fresh = self.is_null(old)?;
        let branch = self.b.build_conditional_branch(fresh, insert, done)?;
        self.weights(branch, 1, 8)?;
        self.b.position_at_end(insert);
        let values = valid as usize - offset_of!(ffi::PyDictValues, valid);
        let capacity = self.load8(object, values + offset_of!(ffi::PyDictValues, capacity))?;
        let size = self.load8(object, values + offset_of!(ffi::PyDictValues, size))?;
        let capacity = self
            .b
            .build_int_z_extend(capacity, self.context.i64_type(), "")?;
        let wide = self
            .b
            .build_int_z_extend(size, self.context.i64_type(), "")?;
        let first = self.at(object, values + offset_of!(ffi::PyDictValues, values))?;
        let order = self.indexed(first, capacity)?;
        // SAFETY: an address computation; the order has room for every value.
        let place = unsafe {
            self.b
                .build_gep(self.context.i8_type(), order, &[wide], "")?
        };
        self.store(
            place,
            0,
            self.context
                .i8_type()
                .const_int(u64::from(index), false)
                .into(),
        )?;
        let more = self
            .b
            .build_int_add(size, self.context.i8_type().const_int(1, false), "")?;
        self.store(
            object,
            values + offset_of!(ffi::PyDictValues, size),
            more.into(),
        )?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        Ok(())
    }

    /// The next item of a list or tuple iterator, or null.
    fn next_of(&mut self, value: Value) -> Lowered<()> {
        let inst = self.graph.inst(value);
        let iterator = self.object(inst.args[0])?;
        let (sequence, index) = (
            offset_of!(ffi::_PyListIterObject, it_seq),
            offset_of!(ffi::_PyListIterObject, it_index),
        );
        const {
            assert!(
                offset_of!(ffi::_PyTupleIterObject, it_seq)
                    == offset_of!(ffi::_PyListIterObject, it_seq)
            )
        };
        const {
            assert!(
                offset_of!(ffi::_PyTupleIterObject, it_index)
                    == offset_of!(ffi::_PyListIterObject, it_index)
            )
        };
        let (look, take, done) = (self.new_block(""), self.new_block(""), self.new_block(""));
        let items = self.load_pointer(iterator, sequence)?;
        let gone = self.is_null(items)?;
        let first = self.current();
        let branch = self.b.build_conditional_branch(gone, done, look)?;
        self.weights(branch, 1, 4000)?;
        self.b.position_at_end(look);
        let place = self.load64(iterator, index)?;
        let length = self.load64(items, offset_of!(ffi::PyVarObject, ob_size))?;
        let inside = self.compare(IntPredicate::ULT, place, length)?;
        self.b.build_conditional_branch(inside, take, done)?;
        self.b.position_at_end(take);
        let base = if inst.op == Op::NextOfList {
            self.load(
                self.context.ptr_type(Default::default()),
                items,
                offset_of!(ffi::PyListObject, ob_item),
            )?
            .into_pointer_value()
        } else {
            self.at(items, offset_of!(ffi::PyTupleObject, ob_item))?
        };
        let slot = self.indexed(base, place)?;
        let item = self.load_pointer(slot, 0)?;
        let bits = self.b.build_ptr_to_int(item, self.context.i64_type(), "")?;
        let bits = self.b.build_or(bits, self.i64(1), "")?;
        let after = self.b.build_int_add(place, self.i64(1), "")?;
        self.store(iterator, index, after.into())?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        let phi = self.b.build_phi(self.context.i64_type(), "")?;
        let null = self.i64(1);
        phi.add_incoming(&[(&null, first), (&null, look), (&bits, take)]);
        self.values.insert(value, phi.as_basic_value());
        Ok(())
    }
}

fn int_predicate(cond: Cond) -> IntPredicate {
    match cond {
        Cond::Eq => IntPredicate::EQ,
        Cond::Ne => IntPredicate::NE,
        Cond::Lt => IntPredicate::SLT,
        Cond::Le => IntPredicate::SLE,
        Cond::Gt => IntPredicate::SGT,
        Cond::Ge => IntPredicate::SGE,
    }
}

fn float_predicate(cond: Cond) -> FloatPredicate {
    match cond {
        Cond::Eq => FloatPredicate::OEQ,
        Cond::Ne => FloatPredicate::UNE,
        Cond::Lt => FloatPredicate::OLT,
        Cond::Le => FloatPredicate::OLE,
        Cond::Gt => FloatPredicate::OGT,
        Cond::Ge => FloatPredicate::OGE,
    }
}
