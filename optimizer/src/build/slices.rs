//! Slices of lists. `list[a::-1]` that is stored into a slice of a list at once is not made: where it is what the slice held, in the other order, the items change places.

use hotstamp_job::{Known, Seen};
use hotstamp_layout::ffi;
use hotstamp_layout::opcode::Opcode;

use super::{Builder, Step};
use crate::hir::{Cond, Entry, Op, Reason, Type, Value};

/// Instructions between the slice and the store.
const FARTHEST: usize = 8;

impl Builder<'_> {
    /// `BUILD_SLICE`.
    pub(crate) fn build_slice(&mut self, count: u32) -> Step<()> {
        if count == 3 && !self.failed() && self.is_stored_at_once() && self.list_backwards() {
            self.skip = true;
            return Ok(());
        }
        self.general()
    }

    /// Whether a subscript follows, and after nothing but loads and arithmetic a STORE_SLICE.
    fn is_stored_at_once(&self) -> bool {
        let function = self.function();
        let Some(index) = function.cfg.index.get(&self.at.next.0) else {
            return false;
        };
        let mut following = function.cfg.instructions[*index..].iter();
        if !following.next().is_some_and(|instruction| {
            instruction.opcode == Opcode::BINARY_OP && instruction.oparg == ffi::NB_SUBSCR
        }) {
            return false;
        }
        following
            .take(FARTHEST)
            .take_while(|instruction| {
                matches!(
                    instruction.opcode,
                    Opcode::LOAD_FAST
                        | Opcode::LOAD_FAST_BORROW
                        | Opcode::LOAD_FAST_LOAD_FAST
                        | Opcode::LOAD_FAST_BORROW_LOAD_FAST_BORROW
                        | Opcode::LOAD_CONST
                        | Opcode::LOAD_SMALL_INT
                        | Opcode::BINARY_OP
                        | Opcode::STORE_SLICE
                )
            })
            .any(|instruction| instruction.opcode == Opcode::STORE_SLICE)
    }

    /// Container, start, stop, step: the items of a list that a local keeps, from one on to the first.
    fn list_backwards(&mut self) -> bool {
        let top = self.state.stack.len();
        let [container, start, stop, step] =
            [4, 3, 2, 1].map(|place| self.state.stack[top - place]);
        let list = match container {
            Entry::Borrowed(list) | Entry::Lent(list) => list,
            _ => return false,
        };
        let subscript = self.function().cfg.index.get(&self.at.next.0);
        let Some(subscript) = subscript.map(|index| self.function().cfg.instructions[*index])
        else {
            return false;
        };
        let seen = self.code().site(subscript.offset.0).map(|site| &site.seen);
        if seen != Some(&Seen::ListSlice)
            || !self.job.options.feedback
            || !self.may_be_index(start)
            || self.known(stop) != Some(Known::None)
            || self.known(step) != Some(Known::Int(-1))
        {
            return false;
        }
        self.before();
        self.guard_class(list, self.job.process.list_type);
        let last = self.as_int(start);
        let length = self.emit(Op::Length, Type::Int, &[list]);
        let inside = self.emit(Op::IntBelow, Type::Bool, &[last, length]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[inside]);
        for _ in 0..4 {
            let entry = self.pop();
            self.release_entry(entry);
        }
        self.push(Entry::Backwards(list, last));
        true
    }

    /// `STORE_SLICE`: value, container, start, stop.
    pub(crate) fn store_slice(&mut self) -> Step<()> {
        let top = self.state.stack.len();
        let [value, container, start, stop] =
            [4, 3, 2, 1].map(|place| self.state.stack[top - place]);
        let (Entry::Backwards(list, last), Some(target), false) =
            (value, self.reference(container), self.failed())
        else {
            return self.general();
        };
        let from_first = self.known(start) == Some(Known::None);
        if !self.may_be_index(stop) || !(from_first || self.may_be_index(start)) {
            return self.general();
        }
        self.before();
        if target != list {
            let same = self.emit(Op::Same, Type::Bool, &[target, list]);
            self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[same]);
        }
        if !from_first && self.known(start) != Some(Known::Int(0)) {
            let (first, zero) = (self.as_int(start), self.int(0));
            self.guard_equal(first, zero);
        }
        let (end, one) = (self.as_int(stop), self.int(1));
        let count = self.emit(Op::IntAddWrapping, Type::Int, &[last, one]);
        self.guard_equal(end, count);
        self.emit(Op::ReverseItems, Type::Void, &[list, count]);
        for _ in 0..4 {
            let entry = self.pop();
            self.release_entry(entry);
        }
        Ok(())
    }

    fn guard_equal(&mut self, a: Value, b: Value) {
        let equal = self.emit(Op::IntCmp(Cond::Eq), Type::Bool, &[a, b]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[equal]);
    }

    /// A list object (owned) of the items from `last` on to the first.
    pub(crate) fn make_backwards(&mut self, list: Value, last: Value) -> Value {
        let made = self.emit(Op::ListBackwards, Type::Ref, &[list, last]);
        self.state
            .facts
            .class
            .insert(made, self.job.process.list_type);
        made
    }
}
