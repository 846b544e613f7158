//! Items of `array.array`: numbers that are unboxed in memory.

use super::{Builder, Step};
use crate::hir::{ArrayItems, Cond, Entry, Op, Reason, Type, Value};

/// Type of an item as a value.
fn item_type(items: ArrayItems) -> Type {
    match items {
        ArrayItems::Float(_) => Type::Float,
        ArrayItems::Signed(_) | ArrayItems::Unsigned(_) => Type::Int,
    }
}

impl Builder<'_> {
    /// Guards that an object is an array with such items: its class and what describes them, which never changes.
    fn guard_array(&mut self, object: Value, (class, descr): (u64, u64)) {
        if self.state.facts.arrays.get(&object) == Some(&descr) {
            return;
        }
        self.emit_guarded(Op::GuardArray(class, descr), Type::Void, &[object]);
        self.state.facts.arrays.insert(object, descr);
        self.state.facts.class.insert(object, class);
    }

    /// Whether an entry may be the int that a subscript wants.
    pub(crate) fn may_be_index(&self, entry: Entry) -> bool {
        match self.unboxed_type(entry) {
            None => self.reference(entry).is_some() && self.known(entry).is_none(),
            Some(ty) => ty == Type::Int,
        }
    }

    /// `array[int]`
    pub(crate) fn array_item(&mut self, array: (u64, u64), items: ArrayItems) -> Step<()> {
        let top = self.state.stack.len();
        let (container, index) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        let (Some(object), true) = (self.reference(container), self.may_be_index(index)) else {
            return self.general();
        };
        self.guard_array(object, array);
        let place = self.as_int(index);
        let place = self.wrap_index(index, object, place);
        let item = self.emit_guarded(Op::ArrayItem(items), item_type(items), &[object, place]);
        let (index, container) = (self.pop(), self.pop());
        self.release_entry(index);
        self.release_entry(container);
        self.push_unboxed(item);
        Ok(())
    }

    /// `array[int] = number`
    pub(crate) fn store_array_item(&mut self, array: (u64, u64), items: ArrayItems) -> Step<()> {
        let top = self.state.stack.len();
        let (value, container, index) = (
            self.state.stack[top - 3],
            self.state.stack[top - 2],
            self.state.stack[top - 1],
        );
        let wanted = item_type(items);
        let fits = match self.unboxed_type(value) {
            None => self.reference(value).is_some() && self.known(value).is_none(),
            Some(Type::Int) => true,
            Some(ty) => ty == wanted,
        };
        let (Some(object), true, true) =
            (self.reference(container), fits, self.may_be_index(index))
        else {
            return self.general();
        };
        self.guard_array(object, array);
        let place = self.as_int(index);
        let place = self.wrap_index(index, object, place);
        let length = self.emit(Op::Length, Type::Int, &[object]);
        let inside = self.emit(Op::IntBelow, Type::Bool, &[place, length]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[inside]);
        let number = if wanted == Type::Float {
            self.as_float(value)
        } else {
            let int = self.as_int(value);
            self.guard_range(int, items);
            int
        };
        self.emit(Op::ArrayStore(items), Type::Void, &[object, place, number]);
        let (index, container, value) = (self.pop(), self.pop(), self.pop());
        self.release_entry(value);
        self.release_entry(container);
        self.release_entry(index);
        Ok(())
    }

    /// Leaves unless an int fits into an item: baseline code raises.
    fn guard_range(&mut self, int: Value, items: ArrayItems) {
        let (low, high) = match items {
            ArrayItems::Signed(bytes) if bytes < 8 => {
                (-(1i64 << (bytes * 8 - 1)), (1i64 << (bytes * 8 - 1)) - 1)
            }
            ArrayItems::Unsigned(bytes) => (0, (1i64 << (bytes * 8)) - 1),
            _ => return,
        };
        let (low, high) = (self.int(low), self.int(high));
        let above = self.emit(Op::IntCmp(Cond::Ge), Type::Bool, &[int, low]);
        let below = self.emit(Op::IntCmp(Cond::Le), Type::Bool, &[int, high]);
        let fits = self.emit(Op::BoolAnd, Type::Bool, &[above, below]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[fits]);
    }
}
