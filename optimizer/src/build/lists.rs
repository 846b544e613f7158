//! Lists: making them, adding to them and taking from them, and iterators over them, without frames, since no Python code can run.

use hotstamp_job::{Builtin, ObjectKind, Place, Seen};
use hotstamp_layout::opcode::Opcode;

use super::{Builder, Step};
use crate::hir::{Entry, Op, Type, Value};

impl Builder<'_> {
    /// Whether an attribute's place holds a method of lists that has a translation.
    pub(crate) fn is_list_method(&self, place: Place) -> bool {
        let (Place::Class { value } | Place::ClassUnshadowed { value, .. }) = place else {
            return false;
        };
        matches!(
            self.object_kind(value),
            Some(ObjectKind::Builtin(Builtin::ListAppend | Builtin::ListPop))
        )
    }

    /// The list that a method's call has as its receiver.
    fn receiver(&self, count: usize) -> Option<Value> {
        let entry = self.state.stack[self.state.stack.len() - count - 1];
        let object = self.reference(entry)?;
        let class = self.state.facts.class.get(&object);
        (class == Some(&self.job.process.list_type)).then_some(object)
    }

    /// `list.append(item)`.
    pub(crate) fn list_append(&mut self) -> Step<()> {
        let item = self.state.stack[self.state.stack.len() - 1];
        let (Some(list), false) = (
            self.receiver(1),
            matches!(item, Entry::Range(..) | Entry::Maybe(..)),
        ) else {
            return self.general();
        };
        self.pop();
        let item = self.take_owned(item);
        self.emit(Op::ListAppend, Type::Void, &[list, item]);
        let (receiver, callable) = (self.pop(), self.pop());
        let none = self.constant(self.job.process.none_object);
        self.release_entry(receiver);
        self.release_entry(callable);
        self.push(Entry::Borrowed(none));
        Ok(())
    }

    /// `list.pop()`.
    pub(crate) fn list_pop(&mut self) -> Step<()> {
        let Some(list) = self.receiver(0) else {
            return self.general();
        };
        // Whoever borrowed the item from the list gets a reference.
        self.own_all();
        let item = self.emit_guarded(Op::ListPop, Type::Ref, &[list]);
        let (receiver, callable) = (self.pop(), self.pop());
        self.release_entry(receiver);
        self.release_entry(callable);
        self.push(Entry::Owned(item));
        Ok(())
    }

    /// `LIST_APPEND(i)`, of comprehensions: to the list `i` entries below the item.
    pub(crate) fn list_append_below(&mut self, below: u32) -> Step<()> {
        self.materialize_inputs(1);
        let top = self.state.stack.len();
        let item = self.state.stack[top - 1];
        let list = self.reference(self.state.stack[top - 1 - below as usize]);
        let (Some(list), false) = (list, matches!(item, Entry::Range(..) | Entry::Maybe(..)))
        else {
            return self.general_with(1, 0);
        };
        self.pop();
        let item = self.take_owned(item);
        self.emit(Op::ListAppend, Type::Void, &[list, item]);
        Ok(())
    }

    /// `BUILD_LIST(n)`.
    pub(crate) fn build_list(&mut self, count: u32) -> Step<()> {
        let count = count as usize;
        self.materialize_inputs(count);
        let top = self.state.stack.len();
        if self.state.stack[top - count..]
            .iter()
            .any(|entry| matches!(entry, Entry::Range(..) | Entry::Maybe(..)))
        {
            return self.general();
        }
        let entries = self.state.stack.split_off(top - count);
        let items: Vec<Value> = entries
            .into_iter()
            .map(|entry| self.take_owned(entry))
            .collect();
        let list = self.emit(Op::MakeList, Type::Ref, &items);
        let list_type = self.job.process.list_type;
        self.state.facts.class.insert(list, list_type);
        self.push(Entry::Owned(list));
        Ok(())
    }

    /// `GET_ITER` of a list or tuple, as the loop behind it has seen.
    pub(crate) fn iterate(&mut self) -> Step<()> {
        self.materialize_inputs(1);
        self.before();
        let entry = self.state.stack[self.state.stack.len() - 1];
        let next = self.at.next;
        let function = self.function();
        let opcode =
            (function.cfg.index.get(&next.0)).map(|index| function.cfg.instructions[*index].opcode);
        let seen =
            (self.job.options.feedback && opcode == Some(Opcode::FOR_ITER) && !self.failed())
                .then(|| self.code().site(next.0).map(|site| site.seen.clone()))
                .flatten();
        let process = &self.job.process;
        let (class, iterator) = match seen {
            Some(Seen::ListIterator) => (process.list_type, process.list_iterator_type),
            Some(Seen::TupleIterator) => (process.tuple_type, process.tuple_iterator_type),
            _ => return self.general(),
        };
        let Some(object) = self.reference(entry) else {
            return self.general();
        };
        if self
            .state
            .facts
            .class
            .get(&object)
            .is_some_and(|known| *known != class)
        {
            return self.general();
        }
        self.guard_class(object, class);
        let made = self.emit(Op::Iterator, Type::Ref, &[object]);
        self.state.facts.class.insert(made, iterator);
        self.pop();
        if let Entry::Owned(value) = entry {
            // The iterator has a reference: nothing dies.
            self.emit(Op::Release, Type::Void, &[value]);
        }
        self.push(Entry::Owned(made));
        Ok(())
    }
}
