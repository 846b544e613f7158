//! Tuples that are not there: BUILD_TUPLE leaves its items where they are, and UNPACK_SEQUENCE or a subscript takes them from there. What wants an object makes it.
//!
//! Only inlined frames keep them in locals: the outer frame's memory is true.

use hotstamp_job::Known;
use hotstamp_layout::opcode::Opcode;

use super::{Builder, Step, Stop};
use crate::hir::{Entry, Op, Tuple, Type, Value};

impl Builder<'_> {
    fn items(&self, tuple: u32) -> Vec<Entry> {
        self.graph.tuples[tuple as usize].items.clone()
    }

    /// The same tuple with items of another kind.
    fn with_items(&mut self, tuple: u32, items: Vec<Entry>) -> Entry {
        let origin = self.graph.tuples[tuple as usize].origin;
        if self.graph.tuples[tuple as usize].items == items {
            return Entry::Tuple(tuple);
        }
        self.graph.tuples.push(Tuple { origin, items });
        Entry::Tuple(self.graph.tuples.len() as u32 - 1)
    }

    fn origin(&self, entry: Entry) -> Option<u32> {
        match entry {
            Entry::Tuple(tuple) => Some(self.graph.tuples[tuple as usize].origin),
            _ => None,
        }
    }

    /// `BUILD_TUPLE(n)`.
    pub(crate) fn build_tuple(&mut self, count: u32) -> Step<()> {
        let top = self.state.stack.len();
        let items = self.state.stack[top - count as usize..].to_vec();
        let plain = |entry: &Entry| {
            matches!(
                entry,
                Entry::Owned(_) | Entry::Borrowed(_) | Entry::Lent(_) | Entry::Unboxed(_)
            )
        };
        let site = (self.function().path, self.at.offset.0);
        if count == 0
            || count > 8
            || !items.iter().all(plain)
            || self.hints.real_tuples.contains(&site)
        {
            self.materialize_inputs(count as usize);
            return self.general();
        }
        self.state.stack.truncate(top - count as usize);
        let items = items
            .into_iter()
            .map(|entry| match entry {
                // The tuple would own it.
                Entry::Borrowed(value) => Entry::Lent(value),
                other => other,
            })
            .collect();
        let origin = self.graph.tuples.len() as u32;
        self.graph.tuples.push(Tuple { origin, items });
        self.tuple_sites.insert(origin, site);
        self.push(Entry::Tuple(origin));
        Ok(())
    }

    /// A copy of a tuple that is kept alive by the original.
    pub(crate) fn lend_tuple(&mut self, tuple: u32) -> Entry {
        let items = self.items(tuple);
        let lent = items
            .into_iter()
            .map(|entry| match entry {
                Entry::Owned(value) => Entry::Lent(value),
                other => other,
            })
            .collect();
        self.with_items(tuple, lent)
    }

    /// The tuple with references of its own.
    pub(crate) fn own_tuple(&mut self, tuple: u32) -> Entry {
        let items = self.items(tuple);
        let owned = items
            .into_iter()
            .map(|entry| match entry {
                Entry::Lent(value) | Entry::Borrowed(value) => {
                    Entry::Owned(self.take_owned(Entry::Lent(value)))
                }
                other => other,
            })
            .collect();
        self.with_items(tuple, owned)
    }

    /// Releases what a tuple's items own, from the last to the first, as the destructor of tuples does.
    pub(crate) fn release_tuple(&mut self, tuple: u32) {
        for entry in self.items(tuple).into_iter().rev() {
            self.release_entry(entry);
        }
    }

    /// A tuple object (owned).
    pub(crate) fn make_tuple(&mut self, tuple: u32) -> Value {
        let items = self.items(tuple);
        let args: Vec<Value> = items
            .into_iter()
            .map(|entry| self.take_owned(entry))
            .collect();
        let made = self.emit(Op::MakeTuple, Type::Ref, &args);
        self.state
            .facts
            .class
            .insert(made, self.job.process.tuple_type);
        made
    }

    /// Makes an object of the tuple at a place of the operand stack, for all its copies in this frame.
    fn materialize(&mut self, place: usize) {
        let entry = self.state.stack[place];
        if let Entry::Backwards(list, last) = entry {
            let made = self.make_backwards(list, last);
            self.state.stack[place] = Entry::Owned(made);
            self.before = None;
        }
        let Some(origin) = self.origin(entry) else {
            return;
        };
        let is_copy = |this: &Self, entry: Entry| this.origin(entry) == Some(origin);
        let local =
            (0..self.state.locals.len()).find(|local| is_copy(self, self.state.locals[*local]));
        // The owner of the items gives them away.
        let owner = match local {
            Some(local) => self.state.locals[local],
            None => entry,
        };
        let Entry::Tuple(tuple) = owner else { return };
        let made = self.make_tuple(tuple);
        if let Some(first) = local {
            self.state.locals[first] = Entry::Owned(made);
            for other in first + 1..self.state.locals.len() {
                if let Entry::Tuple(tuple) = self.state.locals[other]
                    && is_copy(self, self.state.locals[other])
                {
                    self.state.locals[other] = Entry::Owned(self.take_owned(Entry::Lent(made)));
                    self.release_tuple(tuple);
                }
            }
        } else {
            self.state.stack[place] = Entry::Owned(made);
        }
        for other in 0..self.state.stack.len() {
            if let Entry::Tuple(tuple) = self.state.stack[other]
                && is_copy(self, self.state.stack[other])
            {
                self.state.stack[other] = if local.is_some() {
                    Entry::Lent(made)
                } else {
                    Entry::Owned(self.take_owned(Entry::Lent(made)))
                };
                self.release_tuple(tuple);
            }
        }
        self.before = None;
    }

    /// Makes objects of the tuples among the top entries.
    pub(crate) fn materialize_inputs(&mut self, count: usize) {
        let top = self.state.stack.len();
        for place in top - count.min(top)..top {
            self.materialize(place);
        }
    }

    /// Somebody may look: makes objects of all tuples of this frame. Those of the callers' frames have to be objects from the start, at the next attempt.
    pub(crate) fn show_tuples(&mut self) -> Step<()> {
        self.materialize_inputs(self.state.stack.len());
        for local in 0..self.state.locals.len() {
            if let Entry::Tuple(tuple) = self.state.locals[local] {
                let made = self.make_tuple(tuple);
                self.state.locals[local] = Entry::Owned(made);
                self.before = None;
            }
        }
        let mut learnt = false;
        let mut next = self.function().parent.clone();
        while let Some(state) = next {
            for entry in state.locals.iter().chain(&state.stack) {
                if let Some(origin) = self.origin(*entry) {
                    self.hints.real_tuples.insert(self.tuple_sites[&origin]);
                    learnt = true;
                }
            }
            next = state.parent.clone();
        }
        if learnt {
            return Err(Stop::Restart);
        }
        Ok(())
    }

    /// In front of each instruction: only some know what to do with a tuple that is not there.
    pub(crate) fn materialize_for_instruction(&mut self) {
        let (opcode, oparg) = (self.at.opcode, self.at.oparg);
        let knows = matches!(
            opcode,
            Opcode::BUILD_TUPLE
                | Opcode::UNPACK_SEQUENCE
                | Opcode::BINARY_OP
                | Opcode::STORE_SUBSCR
                | Opcode::STORE_SLICE
                | Opcode::CALL
                | Opcode::COPY
                | Opcode::SWAP
                | Opcode::POP_TOP
                | Opcode::RETURN_VALUE
                | Opcode::STORE_FAST
                | Opcode::STORE_FAST_LOAD_FAST
                | Opcode::STORE_FAST_STORE_FAST
        );
        if !knows {
            let inputs = opcode.popped(oparg).unwrap_or(0) as usize;
            self.materialize_inputs(inputs);
        }
    }

    /// `UNPACK_SEQUENCE` of such a tuple, if it has as many items.
    pub(crate) fn unpack_tuple(&mut self, tuple: u32, count: u32) -> bool {
        let items = self.items(tuple);
        if items.len() != count as usize {
            self.materialize_inputs(1);
            return false;
        }
        self.pop();
        self.state.stack.extend(items.into_iter().rev());
        true
    }

    /// `tuple[constant]`, if it is in range.
    pub(crate) fn tuple_item(&mut self) -> bool {
        let top = self.state.stack.len();
        let (Entry::Tuple(tuple), Some(Known::Int(index))) = (
            self.state.stack[top - 2],
            self.known(self.state.stack[top - 1]),
        ) else {
            return false;
        };
        let items = self.items(tuple);
        let length = items.len() as i64;
        let index = if index < 0 { index + length } else { index };
        if !(0..length).contains(&index) {
            return false;
        }
        self.pop();
        self.pop();
        let item = items[index as usize];
        // The others die with the tuple.
        for (place, other) in items.into_iter().enumerate().rev() {
            if place as i64 != index {
                self.release_entry(other);
            }
        }
        self.push(item);
        true
    }
}
