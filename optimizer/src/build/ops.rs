//! One instruction after the other: the dispatch, locals, stack and jumps, and the general way through the baseline's helpers.

use hotstamp_job::{Known, Seen};
use hotstamp_layout::opcode::Opcode;

use super::calls::INLINE_LOOKS;
use super::stack::NULL_BITS;
use super::{Builder, Step, Stop};
use crate::hir::{Cond, Entry, Op, Reason, Type, Value};

impl Builder<'_> {
    /// Builds the instruction `at`.
    pub(crate) fn instruction(&mut self) -> Step<()> {
        self.before = None;
        if std::mem::take(&mut self.skip) {
            return Ok(());
        }
        let oparg = self.at.oparg;
        let pair = (oparg >> 4, oparg & 15);
        self.materialize_for_instruction();
        match self.at.opcode {
            Opcode::NOP | Opcode::NOT_TAKEN | Opcode::RESUME => {}

            Opcode::LOAD_FAST => self.load_fast(oparg, false),
            Opcode::LOAD_FAST_BORROW => self.load_fast(oparg, true),
            Opcode::LOAD_FAST_LOAD_FAST => {
                self.load_fast(pair.0, false);
                self.load_fast(pair.1, false);
            }
            Opcode::LOAD_FAST_BORROW_LOAD_FAST_BORROW => {
                self.load_fast(pair.0, true);
                self.load_fast(pair.1, true);
            }
            Opcode::LOAD_FAST_CHECK => self.load_fast_check(oparg),
            Opcode::LOAD_FAST_AND_CLEAR => {
                let entry = std::mem::replace(&mut self.state.locals[oparg as usize], Entry::Null);
                self.push(entry);
                self.store_local(oparg);
            }
            Opcode::STORE_FAST => self.store_fast(oparg),
            Opcode::STORE_FAST_LOAD_FAST => {
                self.store_fast(pair.0);
                self.load_fast(pair.1, false);
            }
            Opcode::STORE_FAST_STORE_FAST => {
                self.store_fast(pair.0);
                self.store_fast(pair.1);
            }
            Opcode::DELETE_FAST => self.delete_fast(oparg),
            Opcode::LOAD_CONST => {
                let address = self.code().constants[oparg as usize].address;
                let value = self.constant(address);
                self.push(Entry::Borrowed(value));
            }
            Opcode::LOAD_SMALL_INT => {
                let index = hotstamp_layout::ffi::_PY_NSMALLNEGINTS as u64 + u64::from(oparg);
                let value = self.constant(self.job.process.small_ints + index * 32);
                self.push(Entry::Borrowed(value));
            }

            Opcode::PUSH_NULL => self.push(Entry::Null),
            Opcode::POP_TOP | Opcode::POP_ITER | Opcode::END_FOR => {
                let entry = self.pop();
                self.release_entry(entry);
            }
            Opcode::COPY => self.copy(oparg),
            Opcode::SWAP => {
                let top = self.state.stack.len() - 1;
                self.state.stack.swap(top, top + 1 - oparg as usize);
            }

            Opcode::JUMP_FORWARD | Opcode::JUMP_BACKWARD_NO_INTERRUPT => self.jump()?,
            Opcode::JUMP_BACKWARD => {
                self.emit_guarded(Op::Poll, Type::Void, &[]);
                self.jump()?;
            }
            Opcode::POP_JUMP_IF_TRUE => self.pop_jump_if(true)?,
            Opcode::POP_JUMP_IF_FALSE => self.pop_jump_if(false)?,
            Opcode::POP_JUMP_IF_NONE => self.pop_jump_if_none(true)?,
            Opcode::POP_JUMP_IF_NOT_NONE => self.pop_jump_if_none(false)?,
            Opcode::RETURN_VALUE => self.return_value(),

            Opcode::TO_BOOL => self.truth_of_top()?,
            Opcode::UNARY_NOT => {
                let entry = self.pop();
                let value = self.as_bool(entry);
                let negated = self.emit(Op::BoolNot, Type::Bool, &[value]);
                self.push_unboxed(negated);
            }
            Opcode::UNARY_NEGATIVE => self.negate()?,
            Opcode::IS_OP => self.is_op(oparg)?,
            Opcode::COMPARE_OP => self.compare_op(oparg)?,
            Opcode::BINARY_OP => self.binary_op(oparg)?,
            Opcode::STORE_SUBSCR => self.store_subscript()?,

            Opcode::LOAD_GLOBAL => self.load_global(oparg)?,
            Opcode::LOAD_ATTR => self.load_attr(oparg)?,
            Opcode::STORE_ATTR => self.store_attr()?,

            Opcode::GET_ITER => self.get_iter()?,
            Opcode::FOR_ITER => self.for_iter()?,

            // What lies between the container and what is added stays as it is.
            Opcode::LIST_APPEND => self.list_append_below(oparg)?,
            Opcode::SET_ADD => self.general_with(1, 0)?,
            Opcode::MAP_ADD => self.general_with(2, 0)?,

            Opcode::CALL => self.call(oparg)?,
            Opcode::UNPACK_SEQUENCE => self.unpack_sequence(oparg)?,

            Opcode::BUILD_TUPLE => self.build_tuple(oparg)?,
            Opcode::BUILD_SLICE => self.build_slice(oparg)?,
            Opcode::STORE_SLICE => self.store_slice()?,

            Opcode::BUILD_LIST => self.build_list(oparg)?,

            Opcode::BUILD_MAP
            | Opcode::BUILD_SET
            | Opcode::BUILD_STRING
            | Opcode::CALL_KW
            | Opcode::CALL_FUNCTION_EX
            | Opcode::CALL_INTRINSIC_1
            | Opcode::CALL_INTRINSIC_2
            | Opcode::CONTAINS_OP
            | Opcode::CONVERT_VALUE
            | Opcode::DELETE_ATTR
            | Opcode::DELETE_GLOBAL
            | Opcode::DELETE_SUBSCR
            | Opcode::DICT_MERGE
            | Opcode::DICT_UPDATE
            | Opcode::FORMAT_SIMPLE
            | Opcode::FORMAT_WITH_SPEC
            | Opcode::GET_LEN
            | Opcode::IMPORT_FROM
            | Opcode::IMPORT_NAME
            | Opcode::LIST_EXTEND
            | Opcode::LOAD_BUILD_CLASS
            | Opcode::LOAD_COMMON_CONSTANT
            | Opcode::LOAD_SUPER_ATTR
            | Opcode::MAKE_FUNCTION
            | Opcode::SET_FUNCTION_ATTRIBUTE
            | Opcode::SET_UPDATE
            | Opcode::STORE_GLOBAL
            | Opcode::UNARY_INVERT
            | Opcode::UNPACK_EX
            | Opcode::BINARY_SLICE => self.general()?,

            // What raises anyway, and what has a flow of its own, is the baseline's.
            Opcode::RAISE_VARARGS | Opcode::RERAISE => self.leave(Reason::RareCase),
            other => return self.unsupported(other.name()),
        }
        Ok(())
    }

    // ---- locals and stack ----

    fn load_fast(&mut self, index: u32, borrow: bool) {
        let entry = match self.state.locals[index as usize] {
            Entry::Owned(value) | Entry::Borrowed(value) | Entry::Lent(value) => {
                if borrow {
                    Entry::Borrowed(value)
                } else {
                    Entry::Lent(value)
                }
            }
            // The bytecode compiler knows that it is bound here.
            Entry::Maybe(_, value) => Entry::Unboxed(value),
            Entry::Tuple(tuple) => self.lend_tuple(tuple),
            other => other,
        };
        self.push(entry);
    }

    fn load_fast_check(&mut self, index: u32) {
        match self.state.locals[index as usize] {
            Entry::Null => self.leave(Reason::Unbound),
            Entry::Maybe(flag, value) => {
                self.emit_guarded(Op::Guard(Reason::Unbound), Type::Void, &[flag]);
                self.state.locals[index as usize] = Entry::Unboxed(value);
                self.push_unboxed(value);
            }
            Entry::Unboxed(value) => self.push_unboxed(value),
            Entry::Tuple(tuple) => {
                let lent = self.lend_tuple(tuple);
                self.push(lent);
            }
            Entry::Owned(value) | Entry::Borrowed(value) | Entry::Lent(value) => {
                self.emit_guarded(Op::GuardBound, Type::Void, &[value]);
                self.push(Entry::Lent(value));
            }
            _ => {}
        }
    }

    fn store_fast(&mut self, index: u32) {
        if !self.is_inlined() {
            self.materialize_inputs(1);
        }
        let entry = self.pop();
        let entry = match entry {
            Entry::Borrowed(_) | Entry::Lent(_) => {
                let value = self.take_owned(entry);
                Entry::Owned(value)
            }
            Entry::Tuple(tuple) => self.own_tuple(tuple),
            other => other,
        };
        let old = self.state.locals[index as usize];
        // Entries of the operand stack that borrow from the local get references of their own.
        if matches!(old, Entry::Tuple(_)) {
            self.own_all();
        }
        if let Entry::Owned(value) = old {
            for place in 0..self.state.stack.len() {
                if matches!(self.state.stack[place], Entry::Borrowed(v) | Entry::Lent(v) if v == value)
                {
                    let owned = self.take_owned(Entry::Borrowed(value));
                    self.state.stack[place] = Entry::Owned(owned);
                }
            }
        }
        self.state.locals[index as usize] = entry;
        self.store_local(index);
        self.before = None;
        self.release_entry(old);
    }

    /// Makes the outer frame's memory true for a local.
    pub(crate) fn store_local(&mut self, index: u32) {
        if self.is_inlined() {
            return;
        }
        let value = match self.state.locals[index as usize] {
            Entry::Owned(value) | Entry::Borrowed(value) | Entry::Lent(value) => value,
            Entry::Null => self.null(),
            Entry::Unboxed(_)
            | Entry::Maybe(..)
            | Entry::Range(..)
            | Entry::Tuple(_)
            | Entry::Backwards(..) => return,
        };
        self.emit(Op::StoreLocal(index), Type::Void, &[value]);
    }

    fn delete_fast(&mut self, index: u32) {
        match self.state.locals[index as usize] {
            Entry::Null => return self.leave(Reason::Unbound),
            Entry::Maybe(flag, _) => {
                self.emit_guarded(Op::Guard(Reason::Unbound), Type::Void, &[flag]);
            }
            entry => {
                if let Some(value) = self.reference(entry) {
                    self.emit_guarded(Op::GuardBound, Type::Void, &[value]);
                }
            }
        }
        self.push(Entry::Null);
        self.store_fast(index);
    }

    fn copy(&mut self, n: u32) {
        let entry = self.state.stack[self.state.stack.len() - n as usize];
        let copied = match entry {
            Entry::Owned(value) => Entry::Lent(value),
            Entry::Tuple(tuple) => self.own_tuple(tuple),
            other => other,
        };
        // The original may be consumed before the copy: it needs its own reference then.
        let copied = match copied {
            Entry::Lent(value) if matches!(entry, Entry::Owned(_)) => {
                Entry::Owned(self.take_owned(Entry::Lent(value)))
            }
            other => other,
        };
        self.push(copied);
    }

    // ---- control ----

    fn jump(&mut self) -> Step<()> {
        let Some(target) = self.at.jump_target() else {
            return self.unsupported("a jump to nowhere");
        };
        self.go_to(target.0)
    }

    fn branch_to(&mut self, condition: Value, when: bool) -> Step<()> {
        let Some(target) = self.at.taken_target() else {
            return self.unsupported("a jump to nowhere");
        };
        let next = self.at.next.0;
        if let Op::ConstBool(known) = self.graph.inst(condition).op {
            return self.go_to(if known == when { target.0 } else { next });
        }
        let (yes, no) = self.fork(condition, 128);
        let (taken, not_taken) = if when { (yes, no) } else { (no, yes) };
        self.resume_edge(taken);
        self.go_to(target.0)?;
        self.resume_edge(not_taken);
        self.go_to(next)
    }

    fn pop_jump_if(&mut self, when: bool) -> Step<()> {
        self.before();
        let entry = self.pop();
        let condition = self.as_bool(entry);
        self.branch_to(condition, when)
    }

    fn pop_jump_if_none(&mut self, when: bool) -> Step<()> {
        let entry = self.pop();
        let condition = match entry {
            Entry::Owned(value) | Entry::Borrowed(value) | Entry::Lent(value) => {
                let none = self.constant(self.job.process.none_object);
                self.emit(Op::Same, Type::Bool, &[value, none])
            }
            _ => self.bool(false),
        };
        // The comparison is of addresses: the object may go now.
        self.release_entry(entry);
        self.branch_to(condition, when)
    }

    fn return_value(&mut self) {
        let entry = self.pop();
        let edge = super::Edge {
            block: self.block,
            state: self.state.clone(),
        };
        self.open = false;
        self.function_mut().returns.push((edge, entry));
    }

    /// A truth value for an entry that is exactly True or False.
    pub(crate) fn as_bool(&mut self, entry: Entry) -> Value {
        if let Some(Known::Bool(value)) = self.known(entry) {
            return self.bool(value);
        }
        match entry {
            Entry::Unboxed(value) => value,
            _ => {
                let (value, _) = self.as_ref(entry);
                if let Some(unboxed) = self.state.facts.unboxed.get(&value).copied() {
                    return unboxed;
                }
                let truth = self.constant(self.job.process.true_object);
                self.emit(Op::Same, Type::Bool, &[value, truth])
            }
        }
    }

    fn truth_of_top(&mut self) -> Step<()> {
        self.before();
        let entry = self.state.stack[self.state.stack.len() - 1];
        let known = self.known(entry);
        let result = match (known, self.unboxed_type(entry)) {
            (Some(Known::None), _) => Some(self.bool(false)),
            (_, Some(Type::Bool)) => Some(self.as_bool(entry)),
            (_, Some(Type::Int)) => {
                let (value, zero) = (self.as_int(entry), self.int(0));
                Some(self.emit(Op::IntCmp(Cond::Ne), Type::Bool, &[value, zero]))
            }
            (_, Some(Type::Float)) => {
                let (value, zero) = (self.as_float(entry), self.float(0.0));
                Some(self.emit(Op::FloatCmp(Cond::Ne), Type::Bool, &[value, zero]))
            }
            _ => None,
        };
        let result = match result {
            Some(result) => result,
            None => {
                if self.failed() {
                    return self.general();
                }
                let (value, _) = self.as_ref(entry);
                self.emit_guarded(Op::Truth, Type::Bool, &[value])
            }
        };
        let entry = self.pop();
        self.release_entry(entry);
        self.push_unboxed(result);
        Ok(())
    }

    /// `UNPACK_SEQUENCE(n)`: the first item comes to the top.
    fn unpack_sequence(&mut self, count: u32) -> Step<()> {
        self.before();
        let entry = self.state.stack[self.state.stack.len() - 1];
        if let Entry::Tuple(tuple) = entry
            && self.unpack_tuple(tuple, count)
        {
            return Ok(());
        }
        self.before();
        let entry = self.state.stack[self.state.stack.len() - 1];
        let (Some(sequence), false) = (self.reference(entry), self.failed()) else {
            return self.general();
        };
        let items = self.emit_guarded(Op::Items(count), Type::Pointer, &[sequence]);
        self.pop();
        let owned = matches!(entry, Entry::Owned(_));
        for index in (0..count).rev() {
            let item = self.emit(Op::ItemAt(index), Type::Ref, &[items]);
            // A sequence that dies here takes its items along.
            let entry = if owned {
                Entry::Owned(self.take_owned(Entry::Lent(item)))
            } else {
                Entry::Lent(item)
            };
            self.push(entry);
        }
        self.release_entry(entry);
        Ok(())
    }

    fn is_op(&mut self, inverted: u32) -> Step<()> {
        let top = self.state.stack.len();
        let (left, right) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        if let Some(same) = self.identity_of_unboxed(left, right)? {
            let (right, left) = (self.pop(), self.pop());
            self.release_entry(left);
            self.release_entry(right);
            let result = if inverted != 0 {
                self.emit(Op::BoolNot, Type::Bool, &[same])
            } else {
                same
            };
            self.push_unboxed(result);
            return Ok(());
        }
        let (right, left) = (self.pop(), self.pop());
        let (a, own_a) = self.as_ref(left);
        let (b, own_b) = self.as_ref(right);
        let mut same = self.emit(Op::Same, Type::Bool, &[a, b]);
        if inverted != 0 {
            same = self.emit(Op::BoolNot, Type::Bool, &[same]);
        }
        for (value, boxed, entry) in [(a, own_a, left), (b, own_b, right)] {
            if boxed {
                self.release(value);
            } else {
                self.release_entry(entry);
            }
        }
        self.push_unboxed(same);
        Ok(())
    }

    /// Whether two entries are one object, if one of them is an unboxed number: what object it would be is known only in part.
    fn identity_of_unboxed(&mut self, left: Entry, right: Entry) -> Step<Option<Value>> {
        let number = |this: &Self, entry: Entry| match entry {
            Entry::Unboxed(value) if this.graph.ty(value) != Type::Bool => Some(value),
            _ => None,
        };
        let (value, other) = match (number(self, left), number(self, right)) {
            (Some(a), Some(b)) if a == b => return Ok(Some(self.bool(true))),
            (Some(a), _) => (a, right),
            (None, Some(b)) => (b, left),
            (None, None) => return Ok(None),
        };
        let ty = self.graph.ty(value);
        Ok(Some(match (self.known(other), self.unboxed_type(other)) {
            // One object for each.
            (Some(Known::Int(int)), _) if ty == Type::Int && (-5..=256).contains(&int) => {
                let wanted = self.int(int);
                self.emit(Op::IntCmp(Cond::Eq), Type::Bool, &[value, wanted])
            }
            (_, Some(found)) if found != ty => self.bool(false),
            (Some(Known::None), _) => self.bool(false),
            _ if self.is_inlined() => return self.do_not_inline(),
            _ => return self.unsupported("identity of numbers"),
        }))
    }

    // ---- the general way ----

    /// The instruction through the baseline's memory helper, with all operands in the frame.
    pub(crate) fn general(&mut self) -> Step<()> {
        let (opcode, oparg) = (self.at.opcode, self.at.oparg);
        let (Some(popped), Some(pushed)) = (opcode.popped(oparg), opcode.pushed(oparg)) else {
            return self.unsupported("an opcode without a stack effect");
        };
        self.general_with(popped as usize, pushed as usize)
    }

    /// As `general`, for given inputs and outputs.
    pub(crate) fn general_with(&mut self, inputs: usize, outputs: usize) -> Step<()> {
        let offset = self.at.offset.0;
        let Some(site) = self.code().site(offset) else {
            return self.unsupported("an instruction without a site");
        };
        let helper = match self.at.opcode {
            // The baseline's own helper knows classes and stamped functions.
            Opcode::CALL => site.helper,
            opcode => self.job.memory_helper(opcode as u8),
        };
        let site = site.address;
        if helper == 0 {
            return self.unsupported(self.at.opcode.name());
        }
        self.look(inputs)?;
        let state = self.frame_state(offset);
        let op = Op::Helper {
            site,
            helper,
            inputs: inputs as u32,
        };
        let block = self.block;
        self.graph.push(
            block,
            crate::hir::Inst {
                op,
                ty: Type::Int,
                args: Vec::new(),
                state: Some(state),
            },
        );
        for _ in 0..inputs {
            self.pop();
        }
        let base = self.state.stack.len();
        for place in 0..outputs {
            let value = self.emit(Op::HelperOutput((base + place) as u32), Type::Ref, &[]);
            self.push(Entry::Owned(value));
        }
        self.state.facts.forget_memory();
        Ok(())
    }

    /// Makes everything ready for an operation that may run Python: the inputs are objects, nothing is lent.
    pub(crate) fn look(&mut self, inputs: usize) -> Step<()> {
        if self.is_inlined() {
            let function = self.function_mut();
            function.looks += 1;
            if function.looks > INLINE_LOOKS {
                return self.do_not_inline();
            }
        }
        self.show_tuples()?;
        let top = self.state.stack.len();
        for place in top - inputs..top {
            match self.state.stack[place] {
                Entry::Unboxed(value) => {
                    let boxed = self.boxed(value);
                    self.state.stack[place] = Entry::Owned(boxed);
                }
                Entry::Range(..) => return self.real_range(),
                Entry::Maybe(..) => return self.unsupported("an unbound operand"),
                _ => {}
            }
        }
        self.own_all();
        Ok(())
    }

    /// The innermost inlined function needs a frame too often: its call is not inlined at the next attempt.
    pub(crate) fn do_not_inline<T>(&mut self) -> Step<T> {
        let path = self.function().path;
        self.hints.not_inlined.insert(path);
        Err(Stop::Restart)
    }

    /// A range iterator that something else than FOR_ITER uses: no range is kept apart in this function at the next attempt.
    fn real_range(&mut self) -> Step<()> {
        let path = self.function().path;
        if self.hints.real_ranges.insert((path, u32::MAX)) {
            return Err(Stop::Restart);
        }
        self.unsupported("a range iterator as an operand")
    }

    /// What the current instruction's site has seen, if feedback is wanted.
    pub(crate) fn seen(&self) -> Seen {
        if !self.job.options.feedback || self.failed() {
            return Seen::Megamorphic;
        }
        match self.code().site(self.at.offset.0) {
            Some(site) => site.seen.clone(),
            None => Seen::Nothing,
        }
    }

    /// An instruction that was never executed: leaves there, or goes the general way.
    pub(crate) fn never_executed(&mut self) -> Step<()> {
        if self.job.options.traps && !self.failed() {
            self.leave(Reason::NeverExecuted);
            Ok(())
        } else {
            self.general()
        }
    }

    /// The null entry as a value.
    pub(crate) fn null(&mut self) -> Value {
        self.emit(Op::ConstRef(NULL_BITS), Type::Ref, &[])
    }
}
