//! Loops over iterators.

use hotstamp_job::{ENUMERATE_INDEX, ENUMERATE_ITERATOR, ENUMERATE_RESULT, Seen};

use super::{Builder, Step};
use crate::hir::{Cond, Entry, Op, Reason, Tuple, Type};

impl Builder<'_> {
    /// `GET_ITER`: an unstarted range is its own iterator.
    pub(crate) fn get_iter(&mut self) -> Step<()> {
        self.before();
        match self.state.stack.last() {
            Some(Entry::Range(..)) => Ok(()),
            _ => self.iterate(),
        }
    }

    /// `FOR_ITER`: the iterator stays, the next value is pushed; when exhausted, control goes behind the END_FOR.
    pub(crate) fn for_iter(&mut self) -> Step<()> {
        self.before();
        let place = self.state.stack.len() - 1;
        let Some(exhausted) = self.at.taken_target() else {
            return self.unsupported("a jump to nowhere");
        };
        match self.state.stack[place] {
            Entry::Range(next, left, step) => {
                let zero = self.int(0);
                let more = self.emit(Op::IntCmp(Cond::Gt), Type::Bool, &[left, zero]);
                let (yes, no) = self.fork(more, 250);
                self.resume_edge(no);
                self.go_to(exhausted.0)?;
                self.resume_edge(yes);
                let (by, one) = (self.int(step), self.int(-1));
                let after = self.emit(Op::IntAddWrapping, Type::Int, &[next, by]);
                let fewer = self.emit(Op::IntAddWrapping, Type::Int, &[left, one]);
                self.state.stack[place] = Entry::Range(after, fewer, step);
                self.push_unboxed(next);
                Ok(())
            }
            entry => {
                let (op, class) = match self.seen() {
                    Seen::ListIterator => (Op::NextOfList, self.job.process.list_iterator_type),
                    Seen::TupleIterator => (Op::NextOfTuple, self.job.process.tuple_iterator_type),
                    Seen::RangeIterator => return self.for_range_object(exhausted.0),
                    Seen::Enumerate if self.job.process.enumerate_type != 0 => {
                        return self.for_enumerate(exhausted.0);
                    }
                    Seen::Nothing => return self.never_executed_loop(exhausted.0),
                    _ => return self.for_general(exhausted.0),
                };
                let Some(iterator) = self.reference(entry) else {
                    return self.unsupported("an iterator that is none");
                };
                self.guard_class(iterator, class);
                let item = self.emit(op, Type::Ref, &[iterator]);
                let null = self.null();
                let ended = self.emit(Op::Same, Type::Bool, &[item, null]);
                let (no, yes) = self.fork(ended, 6);
                self.resume_edge(no);
                // An exhausted iterator forgets its sequence.
                let sequence = self.emit(Op::TakeSequence, Type::Ref, &[iterator]);
                self.release(sequence);
                self.go_to(exhausted.0)?;
                self.resume_edge(yes);
                self.before = None;
                self.push(Entry::Lent(item));
                Ok(())
            }
        }
    }

    /// A range iterator object: its words are its state.
    fn for_range_object(&mut self, exhausted: u32) -> Step<()> {
        let entry = self.state.stack[self.state.stack.len() - 1];
        let Some(iterator) = self.reference(entry) else {
            return self.unsupported("an iterator that is none");
        };
        self.guard_class(iterator, self.job.process.range_iterator_type);
        let left = self.emit(Op::RangeWord(2), Type::Int, &[iterator]);
        let zero = self.int(0);
        let more = self.emit(Op::IntCmp(Cond::Gt), Type::Bool, &[left, zero]);
        let (yes, no) = self.fork(more, 250);
        self.resume_edge(no);
        self.go_to(exhausted)?;
        self.resume_edge(yes);
        let next = self.emit(Op::NextOfRange, Type::Int, &[iterator]);
        self.push_unboxed(next);
        Ok(())
    }

    /// An `enumerate` object over a list iterator: the pair is a tuple that is not there. As in the interpreter the object's own pair keeps the item until the next one comes.
    fn for_enumerate(&mut self, exhausted: u32) -> Step<()> {
        let entry = self.state.stack[self.state.stack.len() - 1];
        let Some(iterator) = self.reference(entry) else {
            return self.unsupported("an iterator that is none");
        };
        let process = &self.job.process;
        let (enumerate, list) = (process.enumerate_type, process.list_iterator_type);
        self.guard_class(iterator, enumerate);
        let inner = self.emit_guarded(Op::Field(ENUMERATE_ITERATOR), Type::Ref, &[iterator]);
        self.guard_class(inner, list);
        let pair = self.emit_guarded(Op::Field(ENUMERATE_RESULT), Type::Ref, &[iterator]);
        self.emit_guarded(Op::GuardUnique, Type::Void, &[pair]);
        let index = self.emit(Op::Word(ENUMERATE_INDEX), Type::Int, &[iterator]);
        // From the largest word on the object counts in another way.
        let limit = self.int(1 << 61);
        let usual = self.emit(Op::IntBelow, Type::Bool, &[index, limit]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[usual]);
        let item = self.emit(Op::NextOfList, Type::Ref, &[inner]);
        let null = self.null();
        let ended = self.emit(Op::Same, Type::Bool, &[item, null]);
        let (no, yes) = self.fork(ended, 6);
        self.resume_edge(no);
        let sequence = self.emit(Op::TakeSequence, Type::Ref, &[inner]);
        self.release(sequence);
        self.go_to(exhausted)?;
        self.resume_edge(yes);
        self.before = None;
        let one = self.int(1);
        let after = self.emit(Op::IntAddWrapping, Type::Int, &[index, one]);
        self.emit(Op::SetWord(ENUMERATE_INDEX), Type::Void, &[iterator, after]);
        let owned = self.take_owned(Entry::Lent(item));
        let old = self.emit(Op::TupleExchange(1), Type::Ref, &[pair, owned]);
        self.release(old);
        let site = (self.function().path, self.at.offset.0);
        let origin = self.graph.tuples.len() as u32;
        self.graph.tuples.push(Tuple {
            origin,
            items: vec![Entry::Unboxed(index), Entry::Lent(item)],
        });
        self.tuple_sites.insert(origin, site);
        self.push(Entry::Tuple(origin));
        if self.hints.real_tuples.contains(&site) {
            self.materialize_inputs(1);
        }
        Ok(())
    }

    fn never_executed_loop(&mut self, exhausted: u32) -> Step<()> {
        if self.job.options.traps && !self.failed() {
            self.leave(crate::hir::Reason::NeverExecuted);
            return Ok(());
        }
        self.for_general(exhausted)
    }

    /// Through the memory helper: 0 pushed a value, 1 found the iterator exhausted.
    fn for_general(&mut self, exhausted: u32) -> Step<()> {
        let offset = self.at.offset.0;
        let Some(site) = self.code().site(offset) else {
            return self.unsupported("an instruction without a site");
        };
        let (site, helper) = (site.address, self.job.memory_helper(self.at.opcode as u8));
        self.look(1)?;
        let state = self.frame_state(offset);
        let inst = crate::hir::Inst {
            op: Op::Helper {
                site,
                helper,
                inputs: 0,
            },
            ty: Type::Int,
            args: Vec::new(),
            state: Some(state),
        };
        let result = self.graph.push(self.block, inst);
        // Of no meaning once exhausted.
        let value = self.emit(
            Op::HelperOutput(self.state.stack.len() as u32),
            Type::Ref,
            &[],
        );
        self.state.facts.forget_memory();
        let zero = self.int(0);
        let ended = self.emit(Op::IntCmp(Cond::Ne), Type::Bool, &[result, zero]);
        let (no, yes) = self.fork(ended, 6);
        self.resume_edge(no);
        self.go_to(exhausted)?;
        self.resume_edge(yes);
        self.before = None;
        self.push(Entry::Owned(value));
        Ok(())
    }
}
