//! Operators on ints and floats, subscripts and their like.

use hotstamp_job::{Known, Seen};
use hotstamp_layout::ffi;
use hotstamp_layout::opcode::CompareArg;

use super::{Builder, Step};
use crate::hir::{Cond, Entry, Op, Reason, Type, Value};

/// What BINARY_OP's argument asks for; in-place forms are the same for ints and floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Add,
    Sub,
    Mul,
    TrueDiv,
    FloorDiv,
    Mod,
    Power,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    Subscript,
    Other,
}

fn binary(oparg: u32) -> Binary {
    match oparg {
        ffi::NB_ADD | ffi::NB_INPLACE_ADD => Binary::Add,
        ffi::NB_SUBTRACT | ffi::NB_INPLACE_SUBTRACT => Binary::Sub,
        ffi::NB_MULTIPLY | ffi::NB_INPLACE_MULTIPLY => Binary::Mul,
        ffi::NB_TRUE_DIVIDE | ffi::NB_INPLACE_TRUE_DIVIDE => Binary::TrueDiv,
        ffi::NB_FLOOR_DIVIDE | ffi::NB_INPLACE_FLOOR_DIVIDE => Binary::FloorDiv,
        ffi::NB_REMAINDER | ffi::NB_INPLACE_REMAINDER => Binary::Mod,
        ffi::NB_POWER | ffi::NB_INPLACE_POWER => Binary::Power,
        ffi::NB_AND | ffi::NB_INPLACE_AND => Binary::And,
        ffi::NB_OR | ffi::NB_INPLACE_OR => Binary::Or,
        ffi::NB_XOR | ffi::NB_INPLACE_XOR => Binary::Xor,
        ffi::NB_LSHIFT | ffi::NB_INPLACE_LSHIFT => Binary::Shl,
        ffi::NB_RSHIFT | ffi::NB_INPLACE_RSHIFT => Binary::Shr,
        ffi::NB_SUBSCR => Binary::Subscript,
        _ => Binary::Other,
    }
}

impl Builder<'_> {
    /// Types of the top two operands for arithmetic, as far as known; the feedback fills the gaps.
    fn operand_types(&self, seen: &Seen) -> (Option<Type>, Option<Type>) {
        let top = self.state.stack.len();
        let (left, right) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        let (mut a, mut b) = (self.unboxed_type(left), self.unboxed_type(right));
        let class = |entry: Entry| {
            self.reference(entry)
                .and_then(|value| self.state.facts.class.get(&value).copied())
        };
        let other = |ty: Option<Type>, entry: Entry, wanted: u64| {
            ty.is_none()
                && class(entry).is_none_or(|class| class == wanted)
                && self.known(entry).is_none()
        };
        match seen {
            Seen::Ints => {
                if other(a, left, self.job.process.int_type) {
                    a = Some(Type::Int);
                }
                if other(b, right, self.job.process.int_type) {
                    b = Some(Type::Int);
                }
            }
            Seen::Floats => {
                if other(a, left, self.job.process.float_type) {
                    a = Some(Type::Float);
                }
                if other(b, right, self.job.process.float_type) {
                    b = Some(Type::Float);
                }
            }
            _ => {}
        }
        (a, b)
    }

    pub(crate) fn binary_op(&mut self, oparg: u32) -> Step<()> {
        self.before();
        let seen = self.seen();
        let kind = binary(oparg);
        if kind == Binary::Subscript && self.tuple_item() {
            return Ok(());
        }
        // A tuple as the right operand may end up as an argument.
        if !matches!(seen, Seen::Operator { .. }) {
            self.materialize_inputs(2);
            self.before();
        }
        if kind == Binary::Subscript {
            return self.subscript(&seen);
        }
        let (a, b) = self.operand_types(&seen);
        let int = |ty| matches!(ty, Some(Type::Int | Type::Bool));
        match (a, b) {
            (Some(Type::Float), Some(Type::Float | Type::Int))
            | (Some(Type::Int), Some(Type::Float)) => self.float_binary(kind),
            _ if self.gives_float(kind, &seen, (a, b)) => self.float_binary(kind),
            _ if int(a) && int(b) && kind != Binary::Other && !self.failed() => {
                self.int_binary(kind)
            }
            _ if seen == Seen::Nothing => self.never_executed(),
            _ if matches!(seen, Seen::Operator { .. }) => self.operator(&seen),
            _ if matches!(seen, Seen::Numbers | Seen::FloatAndNumber) => self.number_op(oparg),
            _ => self.general(),
        }
    }

    /// Whether an operation of numbers of kinds that change gives a float. Guards what has to be guarded for that.
    fn gives_float(
        &mut self,
        kind: Binary,
        seen: &Seen,
        types: (Option<Type>, Option<Type>),
    ) -> bool {
        let numbers = matches!(seen, Seen::Numbers | Seen::FloatAndNumber);
        if !numbers
            || !matches!(
                kind,
                Binary::Add | Binary::Sub | Binary::Mul | Binary::TrueDiv
            )
        {
            return false;
        }
        let top = self.state.stack.len();
        let (left, right) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        if !self.are_numbers(left, right) {
            return false;
        }
        match types {
            (Some(Type::Float), _) | (_, Some(Type::Float)) => true,
            // Small ints divide as floats do.
            (None, _) | (_, None) if kind == Binary::TrueDiv => true,
            (None, None) if *seen == Seen::FloatAndNumber => {
                let (Some(a), Some(b)) = (self.reference(left), self.reference(right)) else {
                    return false;
                };
                let either = self.emit(Op::EitherFloat, Type::Bool, &[a, b]);
                self.emit_guarded(Op::Guard(Reason::TypeGuard), Type::Void, &[either]);
                true
            }
            (None, Some(_)) if *seen == Seen::FloatAndNumber => {
                self.as_float(left);
                true
            }
            (Some(_), None) if *seen == Seen::FloatAndNumber => {
                self.as_float(right);
                true
            }
            _ => false,
        }
    }

    /// Whether both entries may be ints or floats, and neither is known to be anything else.
    fn are_numbers(&self, left: Entry, right: Entry) -> bool {
        [left, right]
            .into_iter()
            .all(|entry| match self.unboxed_type(entry) {
                Some(ty) => matches!(ty, Type::Int | Type::Float),
                None => self.reference(entry).is_some() && self.known(entry).is_none(),
            })
    }

    /// Numbers of kinds that change: by the runtime, but without frames, since no Python code can run.
    fn number_op(&mut self, oparg: u32) -> Step<()> {
        let top = self.state.stack.len();
        let (left, right) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        if [left, right].iter().any(|entry| {
            matches!(entry, Entry::Maybe(..) | Entry::Range(..))
                || self.unboxed_type(*entry) == Some(Type::Bool)
        }) {
            return self.general();
        }
        let (a, new_a) = self.as_ref(left);
        let (b, new_b) = self.as_ref(right);
        let result = self.emit_guarded(Op::NumberOp(oparg), Type::Ref, &[a, b]);
        self.state.facts.numbers.extend([a, b]);
        let (right, left) = (self.pop(), self.pop());
        for (value, new, entry) in [(a, new_a, left), (b, new_b, right)] {
            if new {
                self.release(value);
            } else if let Entry::Owned(value) = entry {
                // A number, as the operation checked.
                self.emit(Op::Release, Type::Void, &[value]);
            }
        }
        self.push(Entry::Owned(result));
        Ok(())
    }

    /// Takes both operands off the stack after their values were used, and pushes the result.
    fn finish_binary(&mut self, result: Value) -> Step<()> {
        let (right, left) = (self.pop(), self.pop());
        self.release_entry(left);
        self.release_entry(right);
        self.push_unboxed(result);
        Ok(())
    }

    fn float_binary(&mut self, kind: Binary) -> Step<()> {
        let top = self.state.stack.len();
        let (left, right) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        let op = match kind {
            Binary::Add => Op::FloatAdd,
            Binary::Sub => Op::FloatSub,
            Binary::Mul => Op::FloatMul,
            Binary::TrueDiv => Op::FloatDiv,
            Binary::Power => return self.float_power(left, right),
            _ => return self.general(),
        };
        let (a, b) = if matches!(self.seen(), Seen::Numbers | Seen::FloatAndNumber) {
            (self.as_number(left), self.as_number(right))
        } else {
            (self.as_float(left), self.as_float(right))
        };
        if op == Op::FloatDiv {
            let zero = self.float(0.0);
            // A NaN is not zero: it divides.
            let is_zero = self.emit(Op::FloatCmp(Cond::Eq), Type::Bool, &[b, zero]);
            let not_zero = self.emit(Op::BoolNot, Type::Bool, &[is_zero]);
            self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[not_zero]);
        }
        let result = self.emit(op, Type::Float, &[a, b]);
        self.finish_binary(result)
    }

    /// `x ** 2` and `x ** 0.5` on floats are what C's `pow` makes of them; so is every power of a positive finite base.
    fn float_power(&mut self, left: Entry, right: Entry) -> Step<()> {
        let (a, b) = (self.as_float(left), self.as_float(right));
        let (zero, infinity) = (self.float(0.0), self.float(f64::INFINITY));
        let positive = self.emit(Op::FloatCmp(Cond::Gt), Type::Bool, &[a, zero]);
        let finite = self.emit(Op::FloatCmp(Cond::Lt), Type::Bool, &[a, infinity]);
        let usual = self.emit(Op::BoolAnd, Type::Bool, &[positive, finite]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[usual]);
        let result = self.emit(Op::FloatPow, Type::Float, &[a, b]);
        // Overflow raises.
        let fits = self.emit(Op::FloatCmp(Cond::Lt), Type::Bool, &[result, infinity]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[fits]);
        self.finish_binary(result)
    }

    fn int_binary(&mut self, kind: Binary) -> Step<()> {
        let top = self.state.stack.len();
        let (left, right) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        // Operations of bools on bools that give bools again, or what ints rarely do, go the general way.
        let bools = self.unboxed_type(left) == Some(Type::Bool)
            && self.unboxed_type(right) == Some(Type::Bool);
        if bools && matches!(kind, Binary::And | Binary::Or | Binary::Xor) || kind == Binary::Power
        {
            return self.general();
        }
        let (a, b) = (self.as_int(left), self.as_int(right));
        let op = match kind {
            Binary::Add => Op::IntAdd,
            Binary::Sub => Op::IntSub,
            Binary::Mul => Op::IntMul,
            Binary::And => Op::IntAnd,
            Binary::Or => Op::IntOr,
            Binary::Xor => Op::IntXor,
            Binary::Shl => Op::IntShl,
            Binary::Shr => Op::IntShr,
            Binary::FloorDiv => Op::IntFloorDiv,
            Binary::Mod => Op::IntMod,
            Binary::TrueDiv => {
                let (x, y) = (self.int_to_float(a), self.int_to_float(b));
                let zero = self.float(0.0);
                let not_zero = self.emit(Op::FloatCmp(Cond::Ne), Type::Bool, &[y, zero]);
                self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[not_zero]);
                let result = self.emit(Op::FloatDiv, Type::Float, &[x, y]);
                return self.finish_binary(result);
            }
            _ => return self.general(),
        };
        let result = match op {
            Op::IntFloorDiv | Op::IntMod => {
                self.guard_divisor(right, b);
                self.emit(op, Type::Int, &[a, b])
            }
            Op::IntAnd | Op::IntOr | Op::IntXor => self.emit(op, Type::Int, &[a, b]),
            _ => self.emit_guarded(op, Type::Int, &[a, b]),
        };
        self.finish_binary(result)
    }

    /// Division by 0 raises; by -1 it may overflow.
    fn guard_divisor(&mut self, entry: Entry, divisor: Value) {
        if matches!(self.known(entry), Some(Known::Int(int)) if int > 0) {
            return;
        }
        let zero = self.int(0);
        let positive = self.emit(Op::IntCmp(Cond::Gt), Type::Bool, &[divisor, zero]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[positive]);
    }

    pub(crate) fn negate(&mut self) -> Step<()> {
        self.before();
        let entry = self.state.stack[self.state.stack.len() - 1];
        let result = match self.unboxed_type(entry) {
            Some(Type::Int) => {
                let (value, zero) = (self.as_int(entry), self.int(0));
                self.emit_guarded(Op::IntSub, Type::Int, &[zero, value])
            }
            Some(Type::Float) => {
                let value = self.as_float(entry);
                self.emit(Op::FloatNeg, Type::Float, &[value])
            }
            _ => return self.general(),
        };
        let entry = self.pop();
        self.release_entry(entry);
        self.push_unboxed(result);
        Ok(())
    }

    pub(crate) fn compare_op(&mut self, oparg: u32) -> Step<()> {
        self.before();
        let seen = self.seen();
        let cond = match CompareArg(oparg).comparison() {
            ffi::Py_LT => Cond::Lt,
            ffi::Py_LE => Cond::Le,
            ffi::Py_EQ => Cond::Eq,
            ffi::Py_NE => Cond::Ne,
            ffi::Py_GT => Cond::Gt,
            ffi::Py_GE => Cond::Ge,
            _ => return self.general(),
        };
        let top = self.state.stack.len();
        let (left, right) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        let (a, b) = self.operand_types(&seen);
        let int = |ty| matches!(ty, Some(Type::Int | Type::Bool));
        let result = match (a, b) {
            (Some(Type::Float), Some(Type::Float | Type::Int))
            | (Some(Type::Int), Some(Type::Float)) => {
                let (x, y) = (self.as_float(left), self.as_float(right));
                self.emit(Op::FloatCmp(cond), Type::Bool, &[x, y])
            }
            _ if int(a) && int(b) && !self.failed() => {
                let (x, y) = (self.as_int(left), self.as_int(right));
                self.emit(Op::IntCmp(cond), Type::Bool, &[x, y])
            }
            _ if matches!(seen, Seen::Numbers | Seen::FloatAndNumber)
                && self.are_numbers(left, right) =>
            {
                // Small ints compare as floats do.
                let (x, y) = (self.as_number(left), self.as_number(right));
                self.emit(Op::FloatCmp(cond), Type::Bool, &[x, y])
            }
            _ if seen == Seen::Objects
                && self.job.process.object_compare != 0
                && matches!(cond, Cond::Eq | Cond::Ne) =>
            {
                let (Some(x), Some(y)) = (self.reference(left), self.reference(right)) else {
                    return self.general();
                };
                self.emit_guarded(Op::GuardIdentity, Type::Void, &[x]);
                self.emit_guarded(Op::GuardIdentity, Type::Void, &[y]);
                let same = self.emit(Op::Same, Type::Bool, &[x, y]);
                if cond == Cond::Eq {
                    same
                } else {
                    self.emit(Op::BoolNot, Type::Bool, &[same])
                }
            }
            _ if seen == Seen::Nothing => return self.never_executed(),
            _ => return self.general(),
        };
        self.finish_binary(result)
    }

    // ---- subscripts ----

    fn subscript(&mut self, seen: &Seen) -> Step<()> {
        let top = self.state.stack.len();
        let (container, index) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        let (op, class) = match seen {
            Seen::ListItem => (Op::ListItem, self.job.process.list_type),
            Seen::TupleItem => (Op::TupleItem, self.job.process.tuple_type),
            Seen::ArrayItem {
                class,
                descr,
                items,
            } => return self.array_item((*class, *descr), *items),
            Seen::Operator { .. } => return self.operator(seen),
            Seen::Nothing => return self.never_executed(),
            _ => return self.general(),
        };
        let Some(object) = self.reference(container) else {
            return self.general();
        };
        self.guard_class(object, class);
        let place = self.as_int(index);
        let place = self.wrap_index(index, object, place);
        let item = self.emit_guarded(op, Type::Ref, &[object, place]);
        let (index, container) = (self.pop(), self.pop());
        self.release_entry(index);
        let entry = match container {
            // The container may die with its reference: the item is ours first.
            Entry::Owned(value) => {
                let owned = self.take_owned(Entry::Lent(item));
                self.release(value);
                Entry::Owned(owned)
            }
            _ => Entry::Lent(item),
        };
        self.push(entry);
        Ok(())
    }

    /// A constant negative index counts from the end; others are left to the bounds check.
    pub(crate) fn wrap_index(&mut self, entry: Entry, object: Value, place: Value) -> Value {
        match self.known(entry) {
            Some(Known::Int(int)) if int < 0 => {
                let length = self.emit(Op::Length, Type::Int, &[object]);
                self.emit(Op::IntAddWrapping, Type::Int, &[length, place])
            }
            _ => place,
        }
    }

    /// `STORE_SUBSCR`: value, container, subscript.
    pub(crate) fn store_subscript(&mut self) -> Step<()> {
        if !matches!(self.seen(), Seen::Operator { .. }) {
            self.materialize_inputs(3);
        }
        self.before();
        match self.seen() {
            Seen::ListItem => {}
            Seen::ArrayItem {
                class,
                descr,
                items,
            } => return self.store_array_item((class, descr), items),
            seen @ Seen::Operator { .. } => return self.operator(&seen),
            Seen::Nothing => return self.never_executed(),
            _ => return self.general(),
        }
        let top = self.state.stack.len();
        let (value, container, index) = (
            self.state.stack[top - 3],
            self.state.stack[top - 2],
            self.state.stack[top - 1],
        );
        let list = self.reference(container).filter(|object| {
            !self.failed()
                && self.unboxed_type(index).is_none_or(|ty| ty == Type::Int)
                && self
                    .state
                    .facts
                    .class
                    .get(object)
                    .is_none_or(|class| *class == self.job.process.list_type)
        });
        let (Some(object), false) = (list, matches!(value, Entry::Range(..) | Entry::Maybe(..)))
        else {
            return self.general();
        };
        self.guard_class(object, self.job.process.list_type);
        let place = self.as_int(index);
        let place = self.wrap_index(index, object, place);
        // The bounds are checked before anything is owned or boxed: an exit finds the operands as they were.
        let length = self.emit(Op::Length, Type::Int, &[object]);
        let inside = self.emit(Op::IntBelow, Type::Bool, &[place, length]);
        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[inside]);
        self.pop();
        self.pop();
        self.pop();
        if let Entry::Unboxed(float) = value
            && self.graph.ty(float) == Type::Float
        {
            // Whoever borrowed the old object gets a reference, so that it is not overwritten.
            self.own_all();
            self.emit_here(Op::ListStoreFloat, Type::Void, &[object, place, float]);
            self.state.facts.forget_memory();
            self.release_entry(container);
            self.release_entry(index);
            return Ok(());
        }
        let owned = self.take_owned(value);
        let old = self.emit(Op::ListExchange, Type::Ref, &[object, place, owned]);
        self.state.facts.fields.clear();
        self.release(old);
        self.release_entry(container);
        self.release_entry(index);
        Ok(())
    }
}
