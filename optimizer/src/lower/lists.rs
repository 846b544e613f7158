//! Lists: adding and taking items in place, with the runtime's help where memory has to be had or given back.

use std::mem::offset_of;

use hotstamp_layout::ffi;
use inkwell::IntPredicate;
use inkwell::values::IntValue;

use super::{Lower, LowerError, Lowered};
use crate::hir::{Reason, Value};

const SIZE: usize = offset_of!(ffi::PyVarObject, ob_size);
const ITEMS: usize = offset_of!(ffi::PyListObject, ob_item);
const ALLOCATED: usize = offset_of!(ffi::PyListObject, allocated);

impl<'c> Lower<'c, '_> {
    /// `ListAppend`.
    pub(super) fn list_append(&mut self, args: &[Value]) -> Lowered<()> {
        let list = self.object(args[0])?;
        let item = self.heap_pointer(args[1])?;
        let size = self.load64(list, SIZE)?;
        let allocated = self.load64(list, ALLOCATED)?;
        let room = self.compare(IntPredicate::SLT, size, allocated)?;
        let (put, grow, done) = (
            self.new_block("put"),
            self.new_block("grow"),
            self.new_block(""),
        );
        let branch = self.b.build_conditional_branch(room, put, grow)?;
        self.weights(branch, 16, 1)?;
        self.b.position_at_end(put);
        let items = self.load_pointer(list, ITEMS)?;
        let place = self.indexed(items, size)?;
        self.store(place, 0, item.into())?;
        let more = self.b.build_int_add(size, self.i64(1), "")?;
        self.store(list, SIZE, more.into())?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(grow);
        self.call(
            self.job.process.list_append,
            None,
            &[list.into(), item.into()],
        )?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        Ok(())
    }

    /// `ListPop`. Gives memory back when CPython does: when less than half of it is used.
    pub(super) fn list_pop(&mut self, value: Value) -> Lowered<IntValue<'c>> {
        let state = self.state_of(value)?;
        let list = self.object(self.graph.inst(value).args[0])?;
        let size = self.load64(list, SIZE)?;
        let some = self.compare(IntPredicate::NE, size, self.i64(0))?;
        let exit = self.exit_block(Reason::RareCase, &state)?;
        self.expect(some, exit)?;
        let fewer = self.b.build_int_sub(size, self.i64(1), "")?;
        let allocated = self.load64(list, ALLOCATED)?;
        let half = self
            .b
            .build_right_shift(allocated, self.i64(1), false, "")?;
        let keeps = self.compare(IntPredicate::SGE, fewer, half)?;
        let (take, shrink, done) = (
            self.new_block("take"),
            self.new_block("shrink"),
            self.new_block(""),
        );
        let branch = self.b.build_conditional_branch(keeps, take, shrink)?;
        self.weights(branch, 16, 1)?;
        self.b.position_at_end(take);
        let items = self.load_pointer(list, ITEMS)?;
        let place = self.indexed(items, fewer)?;
        let taken = self.load64(place, 0)?;
        self.store(list, SIZE, fewer.into())?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(shrink);
        let popped = self.call64(self.job.process.list_pop, &[list.into()])?;
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        let phi = self.b.build_phi(self.context.i64_type(), "")?;
        phi.add_incoming(&[(&taken, take), (&popped, shrink)]);
        let object = self.b.build_int_to_ptr(
            phi.as_basic_value().into_int_value(),
            self.context.ptr_type(Default::default()),
            "",
        )?;
        self.taken_from_heap(object)
    }

    /// `MakeList`: the items go through the buffer.
    pub(super) fn make_list(&mut self, items: &[Value]) -> Lowered<IntValue<'c>> {
        if !items.is_empty() {
            self.items_to_buffer(items)?;
        }
        self.call64(
            self.job.process.make_list,
            &[self.buffer.into(), self.i64(items.len() as u64).into()],
        )
    }

    /// `GuardSized`.
    pub(super) fn guard_sized(&mut self, value: Value) -> Lowered<()> {
        const { assert!(offset_of!(ffi::PyDictObject, ma_used) == SIZE) };
        const { assert!(offset_of!(ffi::PyASCIIObject, length) == SIZE) };
        let state = self.state_of(value)?;
        let arg = *self
            .graph
            .inst(value)
            .args
            .first()
            .ok_or(LowerError::Kind)?;
        let object = self.object(arg)?;
        let process = &self.job.process;
        let classes = [
            process.list_type,
            process.tuple_type,
            process.str_type,
            process.dict_type,
        ];
        let mut any = self.context.bool_type().const_zero();
        for class in classes {
            let is = self.is_exact(object, class)?;
            any = self.b.build_or(any, is, "")?;
        }
        let exit = self.exit_block(Reason::TypeGuard, &state)?;
        self.expect(any, exit)
    }
}
