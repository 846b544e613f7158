//! References: untagging, owning, releasing, boxing.

use std::mem::offset_of;

use hotstamp_layout::ffi::{self, PyLongObject};
use inkwell::IntPredicate;
use inkwell::module::Linkage;
use inkwell::values::{BasicValueEnum, FloatValue, FunctionValue, IntValue, PointerValue};

use super::{Lower, LowerError, Lowered};
use crate::hir::{Op, Type, Value};

pub(super) const LV_TAG: usize =
    offset_of!(PyLongObject, long_value) + offset_of!(ffi::_PyLongValue, lv_tag);
pub(super) const OB_DIGIT: usize =
    offset_of!(PyLongObject, long_value) + offset_of!(ffi::_PyLongValue, ob_digit);
pub(super) const FLOAT_VALUE: usize = offset_of!(ffi::PyFloatObject, ob_fval);
/// `lv_tag` of ints with at most one digit is below this.
pub(super) const COMPACT_LIMIT: u64 = 2 << ffi::_PyLong_NON_SIZE_BITS;

/// As `COMPACT_LIMIT`, of at most two digits.
pub(super) const SHORT_LIMIT: u64 = 3 << ffi::_PyLong_NON_SIZE_BITS;

impl<'c> Lower<'c, '_> {
    /// The object of a reference, untagged.
    pub(super) fn object(&mut self, value: Value) -> Lowered<PointerValue<'c>> {
        if let Some(pointer) = self.pointers.get(&value) {
            return Ok(*pointer);
        }
        if let Op::ConstRef(bits) = self.op(value) {
            return Ok(self.address(bits & !1));
        }
        let bits = self.int(value)?;
        self.untag(bits)
    }

    pub(super) fn untag(&self, bits: IntValue<'c>) -> Lowered<PointerValue<'c>> {
        let plain = self.b.build_and(bits, self.i64(!1), "")?;
        Ok(self
            .b
            .build_int_to_ptr(plain, self.context.ptr_type(Default::default()), "")?)
    }

    /// Borrowed bits of an object; remembers its address.
    pub(super) fn set_borrowed(&mut self, value: Value, pointer: PointerValue<'c>) -> Lowered<()> {
        let bits = self
            .b
            .build_ptr_to_int(pointer, self.context.i64_type(), "")?;
        let tagged = self.b.build_or(bits, self.i64(1), "")?;
        self.pointers.insert(value, pointer);
        self.values.insert(value, tagged.into());
        Ok(())
    }

    /// Whether the object is immortal.
    fn immortal(&self, object: PointerValue<'c>) -> Lowered<IntValue<'c>> {
        let count = self.load32(object, 0)?;
        self.compare(IntPredicate::SLT, count, self.i32(0))
    }

    /// New bits that own the object, which is not null.
    pub(super) fn own(&mut self, object: PointerValue<'c>) -> Lowered<IntValue<'c>> {
        let count = self.load32(object, 0)?;
        let immortal = self.compare(IntPredicate::SLT, count, self.i32(0))?;
        let more = self.b.build_int_add(count, self.i32(1), "")?;
        let new = self
            .b
            .build_select(immortal, count, more, "")?
            .into_int_value();
        self.store(object, 0, new.into())?;
        let bits = self
            .b
            .build_ptr_to_int(object, self.context.i64_type(), "")?;
        let tag = self
            .b
            .build_int_z_extend(immortal, self.context.i64_type(), "")?;
        Ok(self.b.build_or(bits, tag, "")?)
    }

    /// Whether the bits of a value surely own what they say or are immortal: nothing else borrows through them.
    fn surely_owns(&self, value: Value) -> bool {
        matches!(
            self.op(value),
            Op::Own
                | Op::NumberOp(_)
                | Op::BoxInt
                | Op::BoxFloat
                | Op::BoxBool
                | Op::BoxMaybe
                | Op::CallPython { .. }
                | Op::NewInstance(_)
                | Op::MakeTuple
                | Op::MakeList
                | Op::ListPop
                | Op::Iterator
                | Op::ListBackwards
        )
    }

    /// Bits that may outlive the frame: what they borrow gets a reference.
    pub(super) fn heap_bits(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        let bits = self.int(value)?;
        if self.surely_owns(value) {
            return Ok(bits);
        }
        let borrowed = self
            .b
            .build_int_truncate(bits, self.context.bool_type(), "")?;
        let (take, done) = (self.new_block(""), self.new_block(""));
        let from = self.current();
        self.b.build_conditional_branch(borrowed, take, done)?;
        self.b.position_at_end(take);
        let object = self.untag(bits)?;
        // The null reference has the tag too, but it is never stored or returned.
        let owned = self.own(object)?;
        let end = self.current();
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        let phi = self.b.build_phi(self.context.i64_type(), "")?;
        phi.add_incoming(&[(&bits, from), (&owned, end)]);
        Ok(phi.as_basic_value().into_int_value())
    }

    /// The address to store into the heap, with the reference that goes with it.
    pub(super) fn heap_pointer(&mut self, value: Value) -> Lowered<PointerValue<'c>> {
        let bits = self.heap_bits(value)?;
        self.untag(bits)
    }

    /// The bits of an object that the heap owned until now: the tag if it is immortal, or the null reference.
    pub(super) fn taken_from_heap(&mut self, object: PointerValue<'c>) -> Lowered<IntValue<'c>> {
        let null = self.is_null(object)?;
        let (some, done) = (self.new_block(""), self.new_block(""));
        let from = self.current();
        self.b.build_conditional_branch(null, done, some)?;
        self.b.position_at_end(some);
        let immortal = self.immortal(object)?;
        let tag = self
            .b
            .build_int_z_extend(immortal, self.context.i64_type(), "")?;
        let bits = self
            .b
            .build_ptr_to_int(object, self.context.i64_type(), "")?;
        let bits = self.b.build_or(bits, tag, "")?;
        let end = self.current();
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        let phi = self.b.build_phi(self.context.i64_type(), "")?;
        phi.add_incoming(&[(&self.i64(1), from), (&bits, end)]);
        Ok(phi.as_basic_value().into_int_value())
    }

    /// Releases bits; `cold` says what frees the object, if not just its destructor: it gets the object's address and goes on behind it. Whether somebody may
    /// have seen the object's end.
    pub(super) fn release_bits(
        &mut self,
        bits: IntValue<'c>,
        cold: Option<&crate::hir::FrameState>,
    ) -> Lowered<IntValue<'c>> {
        let before = self.current();
        let no = self.context.bool_type().const_zero();
        let mut seen = no;
        let borrowed = self
            .b
            .build_int_truncate(bits, self.context.bool_type(), "")?;
        let (drop, free, done) = (
            self.new_block("release"),
            self.new_block("free"),
            self.new_block(""),
        );
        self.b.build_conditional_branch(borrowed, done, drop)?;
        self.b.position_at_end(drop);
        let object =
            self.b
                .build_int_to_ptr(bits, self.context.ptr_type(Default::default()), "")?;
        let count = self.load32(object, 0)?;
        let fewer = self.b.build_int_sub(count, self.i32(1), "")?;
        self.store(object, 0, fewer.into())?;
        let dead = self.compare(IntPredicate::EQ, fewer, self.i32(0))?;
        let branch = self.b.build_conditional_branch(dead, free, done)?;
        self.weights(branch, 1, 16)?;
        self.b.position_at_end(free);
        let process = &self.job.process;
        match cold {
            None => {
                self.call(process.dealloc, None, &[object.into()])?;
            }
            Some(state) => {
                let (plan, handed) =
                    self.plan(crate::hir::Reason::State, hotstamp_job::Action::None, state);
                let values = self.hand_over(&handed)?;
                let result = self.call64(
                    process.dealloc_at,
                    &[
                        self.i64(process.artifact).into(),
                        self.i64(plan).into(),
                        self.frame.into(),
                        self.tstate.into(),
                        values.into(),
                        object.into(),
                    ],
                )?;
                seen = self.compare(IntPredicate::NE, result, self.i64(0))?;
            }
        }
        let freed = self.current();
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        let phi = self.b.build_phi(self.context.bool_type(), "seen")?;
        phi.add_incoming(&[(&no, before), (&no, drop), (&seen, freed)]);
        Ok(phi.as_basic_value().into_int_value())
    }

    /// Stores a float into a slot of the heap that holds an object: a float that nobody else has is overwritten, else a new one takes its place.
    pub(super) fn store_float(
        &mut self,
        place: PointerValue<'c>,
        float: FloatValue<'c>,
        state: Option<&crate::hir::FrameState>,
    ) -> Lowered<()> {
        let (check, reuse, replace, done) = (
            self.new_block(""),
            self.new_block("reuse"),
            self.new_block("replace"),
            self.new_block(""),
        );
        let old = self.load_pointer(place, 0)?;
        let class = self.load64(old, offset_of!(ffi::PyObject, ob_type))?;
        let is_float = self.compare(
            IntPredicate::EQ,
            class,
            self.i64(self.job.process.float_type),
        )?;
        self.b.build_conditional_branch(is_float, check, replace)?;
        self.b.position_at_end(check);
        let count = self.load32(old, 0)?;
        let single = self.compare(IntPredicate::EQ, count, self.i32(1))?;
        self.b.build_conditional_branch(single, reuse, replace)?;
        self.b.position_at_end(reuse);
        self.store(old, FLOAT_VALUE, float.into())?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(replace);
        let new = self.box_float(float)?;
        self.store(place, 0, new.into())?;
        let bits = self.taken_from_heap(old)?;
        self.release_bits(bits, state)?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        Ok(())
    }

    /// Stores the pointers of items, whose references move, to the buffer, for a call that makes something of them.
    pub(super) fn items_to_buffer(&mut self, items: &[Value]) -> Lowered<()> {
        let buffer = self.hidden_buffer()?;
        for (index, &item) in items.iter().enumerate() {
            let pointer = self.heap_pointer(item)?;
            self.store(buffer, index * 8, pointer.into())?;
        }
        self.max_values = self.max_values.max(items.len());
        Ok(())
    }

    /// A new tuple of references that move: from the heap, by a call that gets them in the buffer.
    pub(super) fn make_tuple(&mut self, items: &[Value]) -> Lowered<IntValue<'c>> {
        self.items_to_buffer(items)?;
        self.call64(
            self.job.process.make_tuple,
            &[self.buffer.into(), self.i64(items.len() as u64).into()],
        )
    }

    /// `TupleExchange`.
    pub(super) fn tuple_exchange(&mut self, args: &[Value], index: u32) -> Lowered<IntValue<'c>> {
        let tuple = self.object(args[0])?;
        let new = self.heap_pointer(args[1])?;
        let place = self.at(
            tuple,
            offset_of!(ffi::PyTupleObject, ob_item) + index as usize * 8,
        )?;
        let old = self.load_pointer(place, 0)?;
        self.store(place, 0, new.into())?;
        // The collector leaves a tuple alone whose items it need not know.
        // SAFETY: an address computation; the collector's header lies in front of every tuple.
        let header = unsafe {
            self.b.build_gep(
                self.context.i8_type(),
                tuple,
                &[self.i64((-(size_of::<ffi::PyGC_Head>() as i64)).cast_unsigned())],
                "",
            )?
        };
        let next = self.load64(header, offset_of!(ffi::PyGC_Head, _gc_next))?;
        let untracked = self.compare(IntPredicate::EQ, next, self.i64(0))?;
        let (track, done) = (self.new_block("track"), self.new_block(""));
        let branch = self.b.build_conditional_branch(untracked, track, done)?;
        self.weights(branch, 1, 4000)?;
        self.b.position_at_end(track);
        self.call(self.job.process.gc_track, None, &[tuple.into()])?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        self.taken_from_heap(old)
    }

    // ---- boxes ----

    /// A new object for an unboxed value.
    pub(super) fn boxed(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        match self.graph.ty(value) {
            Type::Int => {
                let int = self.int(value)?;
                self.box_int(int)
            }
            Type::Float => {
                let float = self.float(value)?;
                self.box_float(float)
            }
            _ => self.box_bool(value),
        }
    }

    pub(super) fn box_bool(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        let process = &self.job.process;
        let (yes, no) = (
            self.i64(process.true_object | 1),
            self.i64(process.false_object | 1),
        );
        let condition = self.bool(value)?;
        Ok(self
            .b
            .build_select(condition, yes, no, "")?
            .into_int_value())
    }

    pub(super) fn box_int(&mut self, int: IntValue<'c>) -> Lowered<IntValue<'c>> {
        let function = self.box_int_function()?;
        self.call_own(function, int.into())
    }

    pub(super) fn box_float(&mut self, float: FloatValue<'c>) -> Lowered<IntValue<'c>> {
        let function = self.box_float_function()?;
        self.call_own(function, float.into())
    }

    fn call_own(
        &self,
        function: FunctionValue<'c>,
        arg: BasicValueEnum<'c>,
    ) -> Lowered<IntValue<'c>> {
        match self
            .b
            .build_call(function, &[arg.into()], "")?
            .try_as_basic_value()
            .basic()
        {
            Some(BasicValueEnum::IntValue(value)) => Ok(value),
            _ => Err(LowerError::Kind),
        }
    }

    /// `(i64) -> bits`: from the table of small ints, from the free list, or by a call.
    fn box_int_function(&mut self) -> Lowered<FunctionValue<'c>> {
        if let Some(function) = self.module.get_function("box_int") {
            return Ok(function);
        }
        let i64 = self.context.i64_type();
        let function = self.module.add_function(
            "box_int",
            i64.fn_type(&[i64.into()], false),
            Some(Linkage::Internal),
        );
        let here = self.current();
        let outer = std::mem::replace(&mut self.function, function);
        let entry = self.new_block("entry");
        let (small, large, compact, take, slow) = (
            self.new_block("small"),
            self.new_block("large"),
            self.new_block("compact"),
            self.new_block("take"),
            self.new_block("slow"),
        );
        self.b.position_at_end(entry);
        let int = function
            .get_nth_param(0)
            .ok_or(LowerError::Kind)?
            .into_int_value();
        let (below, count) = (
            u64::from(ffi::_PY_NSMALLNEGINTS),
            u64::from(ffi::_PY_NSMALLNEGINTS + ffi::_PY_NSMALLPOSINTS),
        );
        let place = self.b.build_int_add(int, self.i64(below), "")?;
        let is_small = self.compare(IntPredicate::ULT, place, self.i64(count))?;
        self.b.build_conditional_branch(is_small, small, large)?;

        self.b.position_at_end(small);
        let offset = self.b.build_left_shift(place, self.i64(5), "")?;
        let bits = self
            .b
            .build_int_add(offset, self.i64(self.job.process.small_ints | 1), "")?;
        self.b.build_return(Some(&bits))?;

        self.b.position_at_end(large);
        let shifted = self.b.build_int_add(int, self.i64((1 << 30) - 1), "")?;
        let fits = self.compare(IntPredicate::ULT, shifted, self.i64((1 << 31) - 1))?;
        self.b.build_conditional_branch(fits, compact, slow)?;

        self.b.position_at_end(compact);
        let head = self.address(self.job.process.int_freelist);
        let object = self
            .load(self.context.ptr_type(Default::default()), head, 0)?
            .into_pointer_value();
        let empty = self.is_null(object)?;
        self.b.build_conditional_branch(empty, slow, take)?;

        self.b.position_at_end(take);
        self.pop_freelist(head, object)?;
        let negative = self.compare(IntPredicate::SLT, int, self.i64(0))?;
        let sign = self
            .b
            .build_select(
                negative,
                self.i64(u64::from(ffi::SIGN_NEGATIVE)),
                self.i64(0),
                "",
            )?
            .into_int_value();
        let tag = self
            .b
            .build_or(sign, self.i64(1 << ffi::_PyLong_NON_SIZE_BITS), "")?;
        self.store(object, LV_TAG, tag.into())?;
        let negated = self.b.build_int_neg(int, "")?;
        let size = self
            .b
            .build_select(negative, negated, int, "")?
            .into_int_value();
        let digit = self
            .b
            .build_int_truncate(size, self.context.i32_type(), "")?;
        self.store(object, OB_DIGIT, digit.into())?;
        let bits = self.b.build_ptr_to_int(object, i64, "")?;
        self.b.build_return(Some(&bits))?;

        self.b.position_at_end(slow);
        let bits = self.call64(self.job.process.box_int, &[int.into()])?;
        self.b.build_return(Some(&bits))?;
        self.function = outer;
        self.b.position_at_end(here);
        Ok(function)
    }

    /// `(f64) -> bits`: from the free list, or by a call.
    fn box_float_function(&mut self) -> Lowered<FunctionValue<'c>> {
        if let Some(function) = self.module.get_function("box_float") {
            return Ok(function);
        }
        let i64 = self.context.i64_type();
        let function = self.module.add_function(
            "box_float",
            i64.fn_type(&[self.context.f64_type().into()], false),
            Some(Linkage::Internal),
        );
        let here = self.current();
        let outer = std::mem::replace(&mut self.function, function);
        let entry = self.new_block("entry");
        let (take, slow) = (self.new_block("take"), self.new_block("slow"));
        self.b.position_at_end(entry);
        let float = function
            .get_nth_param(0)
            .ok_or(LowerError::Kind)?
            .into_float_value();
        let head = self.address(self.job.process.float_freelist);
        let object = self
            .load(self.context.ptr_type(Default::default()), head, 0)?
            .into_pointer_value();
        let empty = self.is_null(object)?;
        let branch = self.b.build_conditional_branch(empty, slow, take)?;
        self.weights(branch, 1, 100)?;
        self.b.position_at_end(take);
        self.pop_freelist(head, object)?;
        self.store(object, FLOAT_VALUE, float.into())?;
        let bits = self.b.build_ptr_to_int(object, i64, "")?;
        self.b.build_return(Some(&bits))?;
        self.b.position_at_end(slow);
        let bits = self.call64(self.job.process.box_float, &[float.into()])?;
        self.b.build_return(Some(&bits))?;
        self.function = outer;
        self.b.position_at_end(here);
        Ok(function)
    }

    /// Takes the first object off a free list and gives it one reference.
    fn pop_freelist(&self, head: PointerValue<'c>, object: PointerValue<'c>) -> Lowered<()> {
        let next = self.load64(object, 0)?;
        self.store(head, offset_of!(ffi::_Py_freelist, freelist), next.into())?;
        let size = self.load64(head, offset_of!(ffi::_Py_freelist, size))?;
        let fewer = self.b.build_int_sub(size, self.i64(1), "")?;
        self.store(head, offset_of!(ffi::_Py_freelist, size), fewer.into())?;
        self.store(object, 0, self.i64(1).into())
    }
}
