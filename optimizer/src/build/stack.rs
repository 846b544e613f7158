//! Entries of the abstract locals and operand stack: pushing, popping, boxing, owning.

use hotstamp_job::{DESTROYED, Known};
use hotstamp_layout::ffi;
use hotstamp_layout::opcode::Opcode;

use super::{BuildError, Builder, Step, Stop};
use crate::hir::{Entry, Inst, Op, Reason, Type, Value};

/// Entries of the table of small ints.
const SMALL_INTS: u64 = (ffi::_PY_NSMALLNEGINTS + ffi::_PY_NSMALLPOSINTS) as u64;

/// Bits of the null `StackRef`.
pub(crate) const NULL_BITS: u64 = 1;

impl Builder<'_> {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.state.stack.push(entry);
    }

    pub(crate) fn pop(&mut self) -> Entry {
        self.state.stack.pop().unwrap_or(Entry::Null)
    }

    pub(crate) fn push_unboxed(&mut self, value: Value) {
        self.push(Entry::Unboxed(value));
    }

    /// A constant object.
    pub(crate) fn constant(&mut self, address: u64) -> Value {
        self.emit(Op::ConstRef(address | 1), Type::Ref, &[])
    }

    pub(crate) fn int(&mut self, value: i64) -> Value {
        self.emit(Op::ConstInt(value), Type::Int, &[])
    }

    pub(crate) fn float(&mut self, value: f64) -> Value {
        self.emit(Op::ConstFloat(value), Type::Float, &[])
    }

    pub(crate) fn bool(&mut self, value: bool) -> Value {
        self.emit(Op::ConstBool(value), Type::Bool, &[])
    }

    /// The value that first was this object: a reference taken later is another value, but what is known of the object holds for both.
    pub(crate) fn object_of(&self, mut value: Value) -> Value {
        while let Op::Own | Op::Borrow = self.graph.inst(value).op {
            value = self.graph.inst(value).args[0];
        }
        value
    }

    /// What is known of an entry's value.
    pub(crate) fn known(&self, entry: Entry) -> Option<Known> {
        match entry {
            Entry::Borrowed(value) | Entry::Owned(value) | Entry::Lent(value) => {
                match self.graph.inst(self.object_of(value)).op {
                    Op::ConstRef(bits) => self.known_object(bits & !1),
                    _ => None,
                }
            }
            Entry::Unboxed(value) => match self.graph.inst(value).op {
                Op::ConstInt(int) => Some(Known::Int(int)),
                Op::ConstFloat(float) => Some(Known::Float(float)),
                Op::ConstBool(bool) => Some(Known::Bool(bool)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The address of an entry that is a constant object.
    pub(crate) fn constant_address(&self, entry: Entry) -> Option<u64> {
        match entry {
            Entry::Borrowed(value) | Entry::Owned(value) | Entry::Lent(value) => {
                match self.graph.inst(self.object_of(value)).op {
                    Op::ConstRef(bits) if bits != NULL_BITS => Some(bits & !1),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn known_object(&self, address: u64) -> Option<Known> {
        if let Some(known) = self.known.get(&address) {
            return Some(*known);
        }
        // The table of small ints, 32 bytes each.
        let table = self.job.process.small_ints;
        let index = address.wrapping_sub(table) / 32;
        (address >= table && index < SMALL_INTS && (address - table).is_multiple_of(32))
            .then(|| Known::Int(index as i64 - ffi::_PY_NSMALLNEGINTS as i64))
    }

    /// Type of an unboxed entry, or of what a known constant would be.
    pub(crate) fn unboxed_type(&self, entry: Entry) -> Option<Type> {
        match entry {
            Entry::Unboxed(value) => Some(self.graph.ty(value)),
            _ => {
                if let Some(known) = self.known(entry) {
                    return match known {
                        Known::Int(_) => Some(Type::Int),
                        Known::Float(_) => Some(Type::Float),
                        Known::Bool(_) => Some(Type::Bool),
                        _ => None,
                    };
                }
                let value = self.reference(entry)?;
                self.state
                    .facts
                    .unboxed
                    .get(&value)
                    .map(|unboxed| self.graph.ty(*unboxed))
            }
        }
    }

    /// The object of an entry that is a reference, for looking at: the value itself may be a reference that was taken later.
    pub(crate) fn reference(&self, entry: Entry) -> Option<Value> {
        match entry {
            Entry::Owned(value) | Entry::Borrowed(value) | Entry::Lent(value) => {
                Some(self.object_of(value))
            }
            _ => None,
        }
    }

    /// A value of type Ref for an entry, for looking at; boxes if it has to (then the caller must release: the flag says so).
    pub(crate) fn as_ref(&mut self, entry: Entry) -> (Value, bool) {
        match entry {
            Entry::Owned(value) | Entry::Borrowed(value) | Entry::Lent(value) => {
                (self.object_of(value), false)
            }
            Entry::Unboxed(value) => (self.boxed(value), true),
            Entry::Null => (self.emit(Op::ConstRef(NULL_BITS), Type::Ref, &[]), false),
            Entry::Tuple(tuple) => (self.make_tuple(tuple), true),
            Entry::Backwards(list, last) => (self.make_backwards(list, last), true),
            Entry::Maybe(..) | Entry::Range(..) => (self.not_a_reference(entry), false),
        }
    }

    /// Something wants an object where there is none: the attempt ends behind the instruction.
    pub(crate) fn not_a_reference(&mut self, entry: Entry) -> Value {
        if matches!(entry, Entry::Range(..))
            && self
                .hints
                .real_ranges
                .insert((self.function().path, u32::MAX))
        {
            self.stop = Some(Stop::Restart);
        } else if self.stop.is_none() {
            self.stop = Some(Stop::Failed(BuildError::Unsupported(
                "an unbound or virtual operand",
            )));
        }
        self.emit(Op::ConstRef(NULL_BITS), Type::Ref, &[])
    }

    /// A new object for an unboxed value (owned).
    pub(crate) fn boxed(&mut self, value: Value) -> Value {
        let op = match self.graph.ty(value) {
            Type::Int => Op::BoxInt,
            Type::Float => Op::BoxFloat,
            Type::Bool => Op::BoxBool,
            ty => unreachable!("{ty:?} cannot be boxed"),
        };
        let boxed = self.emit(op, Type::Ref, &[value]);
        self.state.facts.unboxed.insert(boxed, value);
        boxed
    }

    /// A value of type Ref that owns, taken from an entry.
    pub(crate) fn take_owned(&mut self, entry: Entry) -> Value {
        match entry {
            Entry::Owned(value) => value,
            Entry::Borrowed(value) | Entry::Lent(value) => {
                if let Op::ConstRef(bits) = self.graph.inst(value).op
                    && (bits == NULL_BITS || self.is_immortal(bits & !1))
                {
                    return value;
                }
                self.emit(Op::Own, Type::Ref, &[value])
            }
            Entry::Unboxed(value) => self.boxed(value),
            Entry::Null => self.emit(Op::ConstRef(NULL_BITS), Type::Ref, &[]),
            Entry::Tuple(tuple) => self.make_tuple(tuple),
            Entry::Backwards(list, last) => self.make_backwards(list, last),
            Entry::Maybe(..) | Entry::Range(..) => self.not_a_reference(entry),
        }
    }

    /// Objects that are surely immortal.
    fn is_immortal(&self, address: u64) -> bool {
        let process = &self.job.process;
        [
            process.none_object,
            process.true_object,
            process.false_object,
        ]
        .contains(&address)
            || (address >= process.small_ints && address < process.small_ints + SMALL_INTS * 32)
    }

    /// The same object under another value: what is known holds for both.
    pub(crate) fn copy_facts(&mut self, from: Value, to: Value) {
        let facts = &mut self.state.facts;
        if let Some(class) = facts.class.get(&from).copied() {
            facts.class.insert(to, class);
        }
        if let Some(descr) = facts.arrays.get(&from).copied() {
            facts.arrays.insert(to, descr);
        }
        if let Some(unboxed) = facts.unboxed.get(&from).copied() {
            facts.unboxed.insert(to, unboxed);
        }
        if let Some(version) = facts.version.get(&from).copied() {
            facts.version.insert(to, version);
        }
        if facts.inline.contains(&from) {
            facts.inline.insert(to);
        }
        if facts.keys.contains(&from) {
            facts.keys.insert(to);
        }
    }

    /// Entries that others keep alive get references of their own: Python code may run. Must come before the state of an exit is taken.
    pub(crate) fn own_all(&mut self) {
        for index in 0..self.state.stack.len() {
            if let Entry::Lent(value) = self.state.stack[index] {
                let owned = self.take_owned(Entry::Lent(value));
                self.state.stack[index] = Entry::Owned(owned);
            }
            if let Entry::Tuple(tuple) = self.state.stack[index] {
                self.state.stack[index] = self.own_tuple(tuple);
            }
        }
        self.before = None;
    }

    /// Whether releasing a reference can only free one object without consequences.
    fn is_leaf(&self, value: Value) -> bool {
        let value = self.object_of(value);
        match self.graph.inst(value).op {
            Op::BoxInt | Op::BoxFloat | Op::BoxBool | Op::NumberOp(_) => return true,
            // What the code keeps alive is not freed here.
            Op::ConstRef(bits) if self.anchors.contains(&(bits & !1)) => return true,
            _ => {}
        }
        let facts = &self.state.facts;
        let process = &self.job.process;
        if facts.numbers.contains(&value)
            || facts.class.get(&value).is_some_and(|class| {
                [process.int_type, process.float_type, process.str_type].contains(class)
            })
        {
            return true;
        }
        match facts.unboxed.get(&value) {
            Some(unboxed) => matches!(
                self.graph.ty(*unboxed),
                Type::Int | Type::Float | Type::Bool
            ),
            None => false,
        }
    }

    /// Releases an owned reference that is no longer in the abstract state.
    pub(crate) fn release(&mut self, value: Value) {
        if let Op::ConstRef(bits) = self.graph.inst(value).op
            && (bits == NULL_BITS || self.is_immortal(bits & !1))
        {
            return;
        }
        if self.undo_own(value) {
            return;
        }
        if self.is_leaf(value) {
            self.emit(Op::Release, Type::Void, &[value]);
            return;
        }
        self.own_all();
        if self.may_settle() {
            let seen = self.emit_here(Op::Release, Type::Bool, &[value]);
            self.destroyed.push(seen);
            return;
        }
        self.emit_here(Op::Release, Type::Void, &[value]);
        self.state.facts.forget_memory();
    }

    /// As `release`, at the end of a way: no instruction is there whose end could tell what was seen.
    pub(crate) fn release_between(&mut self, value: Value) {
        self.release(value);
        self.give_up_memory();
    }

    /// Whether the instruction goes on with what is known of memory when something dies, and leaves at its end if somebody may have seen that. Not where that was in vain before.
    fn may_settle(&self) -> bool {
        matches!(
            self.at.opcode,
            Opcode::STORE_FAST
                | Opcode::STORE_FAST_LOAD_FAST
                | Opcode::STORE_FAST_STORE_FAST
                | Opcode::POP_TOP
                | Opcode::POP_ITER
                | Opcode::END_FOR
                | Opcode::LOAD_ATTR
                | Opcode::STORE_ATTR
                | Opcode::BINARY_OP
                | Opcode::COMPARE_OP
                | Opcode::STORE_SUBSCR
                | Opcode::CALL
        ) && self.job.options.feedback
            && !self.failed_at(self.at.next.0 | DESTROYED)
    }

    /// At the end of an instruction: leaves if something died in a way that somebody may have seen.
    pub(crate) fn settle(&mut self) {
        let destroyed = std::mem::take(&mut self.destroyed);
        let Some((&first, others)) = destroyed.split_first() else {
            return;
        };
        if self.skip {
            // There is no state between two instructions that were built as one.
            return self.state.facts.forget_memory();
        }
        let any = others.iter().fold(first, |any, other| {
            self.emit(Op::BoolOr, Type::Bool, &[any, *other])
        });
        let none = self.emit(Op::BoolNot, Type::Bool, &[any]);
        let state = Some(self.frame_state(self.at.next.0));
        self.graph.push(
            self.block,
            Inst {
                op: Op::Guard(Reason::Destroyed),
                ty: Type::Void,
                args: vec![none],
                state,
            },
        );
    }

    /// In the middle of an instruction: what was known of memory is not counted on any more.
    pub(crate) fn give_up_memory(&mut self) {
        if !self.destroyed.is_empty() {
            self.destroyed.clear();
            self.state.facts.forget_memory();
        }
    }

    /// A reference that was taken just before, without anything that could tell in between, is not taken at all.
    pub(crate) fn undo_own(&mut self, value: Value) -> bool {
        if self.graph.inst(value).op != Op::Own {
            return false;
        }
        let block = self.graph.block_mut(self.block);
        let Some(place) = block.insts.iter().rposition(|inst| *inst == value) else {
            return false;
        };
        let behind: Vec<Value> = block.insts[place + 1..].to_vec();
        let harmless = behind.iter().all(|inst| {
            let inst = &self.graph.insts[inst.0 as usize];
            inst.state.is_none()
                && !inst.args.contains(&value)
                && (inst.op.is_pure() || matches!(inst.op, Op::Own | Op::BoxInt | Op::BoxFloat))
        });
        if harmless {
            self.graph.block_mut(self.block).insts.remove(place);
        }
        harmless
    }

    /// Releases what an entry owned.
    pub(crate) fn release_entry(&mut self, entry: Entry) {
        match entry {
            Entry::Owned(value) => self.release(value),
            Entry::Tuple(tuple) => self.release_tuple(tuple),
            _ => {}
        }
    }

    /// An int for an entry, guarded if need be. The state must be the one before the instruction.
    pub(crate) fn as_int(&mut self, entry: Entry) -> Value {
        match entry {
            Entry::Unboxed(value) => match self.graph.ty(value) {
                Type::Bool => {
                    let (one, zero) = (self.int(1), self.int(0));
                    self.emit(Op::Select, Type::Int, &[value, one, zero])
                }
                _ => value,
            },
            _ => {
                if let Some(Known::Int(int)) = self.known(entry) {
                    return self.int(int);
                }
                let (value, _) = self.as_ref(entry);
                if let Some(unboxed) = self.state.facts.unboxed.get(&value).copied()
                    && self.graph.ty(unboxed) == Type::Int
                {
                    return unboxed;
                }
                let int = self.emit_guarded(Op::UnboxInt, Type::Int, &[value]);
                self.state.facts.unboxed.insert(value, int);
                self.state
                    .facts
                    .class
                    .insert(value, self.job.process.int_type);
                int
            }
        }
    }

    /// A float for an entry, as `as_int`; ints are converted.
    pub(crate) fn as_float(&mut self, entry: Entry) -> Value {
        if let Some(known) = self.known(entry) {
            match known {
                Known::Float(float) => return self.float(float),
                Known::Int(int) if int.unsigned_abs() <= 1 << 53 => return self.float(int as f64),
                _ => {}
            }
        }
        match self.unboxed_type(entry) {
            Some(Type::Int) => {
                let int = self.as_int(entry);
                self.int_to_float(int)
            }
            Some(Type::Float) => match entry {
                Entry::Unboxed(value) => value,
                _ => {
                    let (value, _) = self.as_ref(entry);
                    self.state.facts.unboxed[&value]
                }
            },
            _ => {
                let (value, _) = self.as_ref(entry);
                let float = self.emit_guarded(Op::UnboxFloat, Type::Float, &[value]);
                self.state.facts.unboxed.insert(value, float);
                self.state
                    .facts
                    .class
                    .insert(value, self.job.process.float_type);
                float
            }
        }
    }

    /// As `as_float`, of a number of which is not known whether it is a float or an int.
    pub(crate) fn as_number(&mut self, entry: Entry) -> Value {
        if self.unboxed_type(entry).is_some() {
            return self.as_float(entry);
        }
        let (value, _) = self.as_ref(entry);
        self.state.facts.numbers.insert(value);
        self.emit_guarded(Op::UnboxNumber, Type::Float, &[value])
    }

    /// Converts an int exactly.
    pub(crate) fn int_to_float(&mut self, int: Value) -> Value {
        let (low, high) = (self.int(-(1 << 53)), self.int(1 << 53));
        let above = self.emit(Op::IntCmp(crate::hir::Cond::Ge), Type::Bool, &[int, low]);
        let below = self.emit(Op::IntCmp(crate::hir::Cond::Le), Type::Bool, &[int, high]);
        let fits = self.emit(Op::BoolAnd, Type::Bool, &[above, below]);
        self.emit_guarded(Op::Guard(Reason::IntOverflow), Type::Void, &[fits]);
        self.emit(Op::IntToFloat, Type::Float, &[int])
    }

    /// Guards that a Ref is an instance of exactly this builtin class.
    pub(crate) fn guard_class(&mut self, value: Value, class: u64) {
        if self.state.facts.class.get(&value) == Some(&class) {
            return;
        }
        self.emit_guarded(Op::GuardClass(class), Type::Void, &[value]);
        self.state.facts.class.insert(value, class);
    }

    /// An unsupported opcode.
    pub(crate) fn unsupported<T>(&self, what: &'static str) -> Step<T> {
        Err(Stop::Failed(BuildError::Unsupported(what)))
    }
}
