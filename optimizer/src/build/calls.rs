//! Calls: of Python functions, inlined or direct, of some builtins, and the general way.

use hotstamp_job::{Builtin, ObjectKind};

use super::{BuildError, Builder, State, Step};
use crate::hir::{Cond, Entry, Op, Reason, Type, Value};

/// Depth of inlining.
const INLINE_DEPTH: usize = 6;
/// Bytecode of one inlined function, in bytes.
const INLINE_BYTES: usize = 400;
/// Operations in an inlined function that may run Python: for each its frame is written and linked, as a call would do once.
pub(super) const INLINE_LOOKS: usize = 4;
/// Functions that a call may have one of.
const MOST_CALLEES: usize = 4;
/// Instructions of a graph at which inlining ends.
const INLINE_GRAPH: usize = 6_000;

/// What becomes of an inlined call's result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It is the call's.
    Pushed,
    /// It is None, and this instance takes its place.
    Instance(Value),
    /// It is an operator's: NotImplemented would mean to ask the other operand.
    Operator,
    /// It is dropped.
    Dropped,
}

impl Builder<'_> {
    /// `CALL(n)`: callable, self or null, arguments.
    pub(crate) fn call(&mut self, count: u32) -> Step<()> {
        self.before();
        let count = count as usize;
        let top = self.state.stack.len();
        let (callable, receiver) = (
            self.state.stack[top - count - 2],
            self.state.stack[top - count - 1],
        );
        if self.failed() {
            return self.general();
        }
        if let Some((phi, callees)) = self.callees(callable) {
            return self.call_one_of(count as u32, phi, &callees);
        }
        let Some(address) = self.constant_address(callable) else {
            return self.general();
        };
        if matches!(
            self.object_kind(address),
            Some(ObjectKind::Builtin(builtin)) if *builtin != Builtin::IsInstance
        ) {
            self.materialize_inputs(count);
            self.before();
        }
        let has_self = receiver != Entry::Null;
        let arguments = count + usize::from(has_self);
        match self.object_kind(address).cloned() {
            Some(ObjectKind::Function {
                code: Some(code), ..
            }) => {
                let callee = &self.job.codes[code as usize];
                if !callee.simple_arguments || callee.argcount as usize != arguments {
                    return self.general();
                }
                self.guard_function(address, code);
                if self.may_inline(code) {
                    return self.inline(address, code, arguments, Outcome::Pushed);
                }
                // The artifact keeps the function: the operand stack and the callee's frame borrow it.
                if let Entry::Lent(value) = callable {
                    self.anchors.insert(address);
                    self.state.stack[top - count - 2] = Entry::Borrowed(value);
                }
                self.call_python(code, arguments)
            }
            Some(ObjectKind::RangeClass) if !has_self && (1..=3).contains(&count) => {
                self.make_range(count)
            }
            Some(ObjectKind::Builtin(builtin)) => self.call_builtin(builtin, count, has_self),
            Some(ObjectKind::Class { .. }) if !has_self => self.construct(address, callable, count),
            _ => self.general(),
        }
    }

    /// Names an inlined call of a code across attempts.
    fn path_of(&self, code: u32) -> u64 {
        let parent = self.function().path;
        parent
            .wrapping_mul(1_000_003)
            .wrapping_add(u64::from(self.at.offset.0) + 1)
            .wrapping_add(u64::from(code) << 32)
    }

    /// The functions that a callable is one of, where ways with different ones have met.
    fn callees(&self, callable: Entry) -> Option<(Value, Vec<u64>)> {
        let Entry::Owned(phi) = callable else {
            return None;
        };
        let inst = self.graph.inst(phi);
        if inst.op != Op::Phi {
            return None;
        }
        let mut callees = Vec::new();
        for &arg in &inst.args {
            let source = match self.graph.inst(arg) {
                own if own.op == Op::Own => own.args[0],
                _ => arg,
            };
            let address = self.constant_address(Entry::Borrowed(source))?;
            if !matches!(
                self.object_kind(address),
                Some(ObjectKind::Function { code: Some(_), .. })
            ) {
                return None;
            }
            if !callees.contains(&address) {
                callees.push(address);
            }
        }
        (callees.len() <= MOST_CALLEES).then_some((phi, callees))
    }

    /// A call of one of several known functions: a way for each.
    fn call_one_of(&mut self, count: u32, phi: Value, callees: &[u64]) -> Step<()> {
        let place = self.state.stack.len() - count as usize - 2;
        // The code keeps them alive.
        self.anchors.extend(callees);
        self.emit(Op::Release, Type::Void, &[phi]);
        let mut edges = Vec::new();
        for (index, &callee) in callees.iter().enumerate() {
            let constant = self.constant(callee);
            let mut other = None;
            if index + 1 < callees.len() {
                let same = self.emit(Op::Same, Type::Bool, &[phi, constant]);
                let (yes, no) = self.fork(same, 128);
                self.resume_edge(yes);
                other = Some(no);
            }
            self.state.stack[place] = Entry::Lent(constant);
            self.before = None;
            self.call(count)?;
            if self.open {
                self.settle();
                edges.push(super::Edge {
                    block: self.block,
                    state: self.state.clone(),
                });
            }
            if let Some(other) = other {
                self.resume_edge(other);
            }
        }
        self.open = false;
        self.before = None;
        if edges.is_empty() {
            return Ok(());
        }
        self.join(edges)
    }

    pub(crate) fn may_inline(&self, code: u32) -> bool {
        let callee = &self.job.codes[code as usize];
        self.job.options.inline
            && callee.plain_start
            && callee.bytecode.len() <= INLINE_BYTES
            && self.functions.len() < INLINE_DEPTH
            && self.graph.insts.len() < INLINE_GRAPH
            && !self.hints.not_inlined.contains(&self.path_of(code))
            && self
                .functions
                .iter()
                .filter(|function| function.code == code)
                .count()
                < 2
    }

    /// Guards that a known function has the code and the globals that it had.
    pub(crate) fn guard_function(&mut self, function: u64, code: u32) {
        if self.state.facts.functions.insert(function) {
            let callee = &self.job.codes[code as usize];
            let constant = self.constant(function);
            self.emit_guarded(
                Op::GuardFunction(callee.address, callee.globals),
                Type::Void,
                &[constant],
            );
        }
    }

    /// A call of a class whose instances `object.__new__` makes: the instance is made here, `__init__` is inlined.
    fn construct(&mut self, class: u64, callable: Entry, count: usize) -> Step<()> {
        let hotstamp_job::Seen::Construct {
            class: seen,
            version,
            init,
        } = self.seen()
        else {
            return self.general();
        };
        let (
            Some(ObjectKind::Function {
                code: Some(code), ..
            }),
            true,
        ) = (self.object_kind(init).cloned(), seen == class)
        else {
            return self.general();
        };
        let callee = &self.job.codes[code as usize];
        if !callee.simple_arguments
            || callee.argcount as usize != count + 1
            || !self.may_inline(code)
        {
            return self.general();
        }
        let Some(object) = self.reference(callable) else {
            return self.general();
        };
        if self.state.facts.class_objects.get(&object) != Some(&version) {
            self.emit_guarded(Op::GuardClassObject(version), Type::Void, &[object]);
            self.state.facts.class_objects.insert(object, version);
        }
        self.guard_function(init, code);
        self.own_all();
        let instance = self.emit(Op::NewInstance(class), Type::Ref, &[]);
        let facts = &mut self.state.facts;
        facts.version.insert(instance, version);
        facts.inline.insert(instance);
        facts.fresh.insert(instance);
        self.inline(init, code, count, Outcome::Instance(instance))
    }

    /// Moves the arguments into an inlined frame and builds the callee's body here.
    pub(crate) fn inline(
        &mut self,
        function: u64,
        code: u32,
        arguments: usize,
        outcome: Outcome,
    ) -> Step<()> {
        let instance = match outcome {
            Outcome::Instance(instance) => Some(instance),
            _ => None,
        };
        let path = self.path_of(code);
        self.give_up_memory();
        // An object that both the caller's local and the argument are would become two.
        if self
            .state
            .locals
            .iter()
            .any(|entry| matches!(entry, Entry::Tuple(_)))
        {
            self.materialize_inputs(arguments);
        }
        self.own_all();
        let callee = &self.job.codes[code as usize];
        let (nlocalsplus, offset) = (callee.nlocalsplus as usize, self.at.offset.0);
        let mut locals: Vec<Entry> = self
            .state
            .stack
            .split_off(self.state.stack.len() - arguments);
        if locals
            .iter()
            .any(|entry| matches!(entry, Entry::Range(..) | Entry::Maybe(..)))
        {
            return self.unsupported("an unbound or virtual argument");
        }
        if let Some(instance) = instance {
            // The caller holds it while `__init__` runs.
            locals.insert(0, Entry::Borrowed(instance));
        }
        locals.resize(nlocalsplus, Entry::Null);
        // Callable, and the null in self's place.
        let expected = self.at.opcode.popped(self.at.oparg).unwrap_or(0) as usize - arguments;
        for _ in 0..expected {
            let entry = self.pop();
            // A function that is kept alive by the code: releasing it frees nothing.
            if let Entry::Owned(value) = entry
                && !self.undo_own(value)
            {
                self.emit(Op::Release, Type::Void, &[value]);
            }
        }
        self.anchors.insert(function);
        self.inlined.insert(code);
        let mut parent = self.frame_state(offset);
        if let Some(instance) = instance {
            std::rc::Rc::make_mut(&mut parent).instance = Some(instance);
        }
        if outcome == Outcome::Dropped {
            std::rc::Rc::make_mut(&mut parent).drops_result = true;
        }
        let caller = self.function().context;
        let caller_state = self.state.clone();
        let facts = std::mem::take(&mut self.state.facts);
        let state = State {
            locals,
            stack: Vec::new(),
            facts,
        };
        let at = self.at;
        self.enter_function(
            code,
            Some((caller, offset, parent.clone())),
            function,
            path,
            0,
            state,
        )?;
        let Some(built) = self.functions.pop() else {
            return Err(BuildError::BadBytecode.into());
        };
        self.at = at;
        let mut edges = Vec::new();
        for (edge, value) in built.returns {
            self.resume_edge(edge);
            if let Some(instance) = instance {
                if self.constant_address(value) != Some(self.job.process.none_object) {
                    self.hints.not_inlined.insert(path);
                    return Err(super::Stop::Restart);
                }
                self.return_inlined(Entry::Owned(instance), &caller_state)?;
                self.settle();
                edges.push(super::Edge {
                    block: self.block,
                    state: self.state.clone(),
                });
                continue;
            }
            if outcome == Outcome::Operator && self.may_be_not_implemented(value) {
                self.hints.not_inlined.insert(path);
                return Err(super::Stop::Restart);
            }
            self.return_inlined(value, &caller_state)?;
            if outcome == Outcome::Dropped {
                let result = self.pop();
                self.release_entry(result);
            }
            self.settle();
            edges.push(super::Edge {
                block: self.block,
                state: self.state.clone(),
            });
        }
        self.before = None;
        if edges.is_empty() {
            self.open = false;
            return Ok(());
        }
        self.join(edges)
    }

    /// The end of an inlined call on one way: its locals are released, the caller's state comes back with the result on top.
    fn return_inlined(&mut self, value: Entry, caller: &State) -> Step<()> {
        let value = match value {
            Entry::Borrowed(value) | Entry::Lent(value) => {
                match self.constant_address(Entry::Borrowed(value)) {
                    Some(_) => Entry::Lent(value),
                    None => Entry::Owned(self.take_owned(Entry::Borrowed(value))),
                }
            }
            Entry::Tuple(tuple) => self.own_tuple(tuple),
            Entry::Range(..) | Entry::Maybe(..) => return self.unsupported("a virtual result"),
            other => other,
        };
        let locals = std::mem::take(&mut self.state.locals);
        self.state.locals = caller.locals.clone();
        self.state.stack = caller.stack.clone();
        // While locals are released the result is nobody's but ours.
        let result = match value {
            Entry::Lent(value) => Entry::Owned(self.take_owned(Entry::Lent(value))),
            other => other,
        };
        for entry in locals.into_iter().rev() {
            self.release_entry(entry);
        }
        self.push(result);
        Ok(())
    }

    /// A direct call: the arguments move into the callee's frame.
    fn call_python(&mut self, code: u32, arguments: usize) -> Step<()> {
        let popped = self.at.opcode.popped(self.at.oparg).unwrap_or(0) as usize;
        let top = self.state.stack.len();
        if self.state.stack[top - popped..]
            .iter()
            .any(|entry| matches!(entry, Entry::Range(..) | Entry::Maybe(..)))
        {
            return self.general();
        }
        self.emit_guarded(Op::GuardEvaluator, Type::Void, &[]);
        self.look(popped)?;
        let callee = &self.job.codes[code as usize];
        let op = Op::CallPython {
            data: callee.data,
            frame_words: callee.frame_words,
            nlocalsplus: callee.nlocalsplus,
            code: callee.address,
            globals: callee.globals,
            builtins: callee.builtins,
            start: callee.start,
        };
        // The guard compares code objects, so that one must not die and come back as another; the function is held by the operand stack.
        self.inlined.insert(code);
        let mut args: Vec<Value> = Vec::new();
        for _ in 0..arguments {
            let entry = self.pop();
            args.push(match entry {
                // As the interpreter does: what the caller's local keeps alive is borrowed in the callee's frame too.
                Entry::Borrowed(value) => self.emit(Op::Borrow, Type::Ref, &[value]),
                other => self.take_owned(other),
            });
        }
        for _ in 0..popped - arguments - 1 {
            self.pop();
        }
        let callable = self.pop();
        let callable = match callable {
            Entry::Borrowed(value) => self.emit(Op::Borrow, Type::Ref, &[value]),
            other => self.take_owned(other),
        };
        args.push(callable);
        args.reverse();
        let result = self.emit_here(op, Type::Ref, &args);
        self.state.facts.forget_memory();
        self.push(Entry::Owned(result));
        Ok(())
    }

    /// Takes callable, null and arguments off the stack once their values were used.
    fn finish_call(&mut self, result: Entry) -> Step<()> {
        let popped = self.at.opcode.popped(self.at.oparg).unwrap_or(0) as usize;
        let entries = self.state.stack.split_off(self.state.stack.len() - popped);
        for entry in entries.into_iter().rev() {
            self.release_entry(entry);
        }
        self.push(result);
        Ok(())
    }

    fn call_builtin(&mut self, builtin: Builtin, count: usize, has_self: bool) -> Step<()> {
        let top = self.state.stack.len();
        let argument = |this: &Self, index: usize| this.state.stack[top - count + index];
        match (builtin, count) {
            (Builtin::Sqrt | Builtin::Sin | Builtin::Cos, 1) if !has_self => {
                let entry = argument(self, 0);
                let number = match self.unboxed_type(entry) {
                    Some(ty) => matches!(ty, Type::Float | Type::Int),
                    None => self.reference(entry).is_some() && self.known(entry).is_none(),
                };
                if !number {
                    return self.general();
                }
                let x = self.as_number(entry);
                let result = match builtin {
                    Builtin::Sqrt => {
                        let zero = self.float(0.0);
                        let fine = self.emit(Op::FloatCmp(Cond::Ge), Type::Bool, &[x, zero]);
                        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[fine]);
                        self.emit(Op::FloatSqrt, Type::Float, &[x])
                    }
                    _ => {
                        let infinity = self.float(f64::INFINITY);
                        let size = self.emit(Op::FloatAbs, Type::Float, &[x]);
                        let finite =
                            self.emit(Op::FloatCmp(Cond::Lt), Type::Bool, &[size, infinity]);
                        self.emit_guarded(Op::Guard(Reason::RareCase), Type::Void, &[finite]);
                        let address = if builtin == Builtin::Sin {
                            self.job.process.sin
                        } else {
                            self.job.process.cos
                        };
                        self.emit(Op::FloatCall(address), Type::Float, &[x])
                    }
                };
                self.finish_call(Entry::Unboxed(result))
            }
            (Builtin::Abs, 1) if !has_self => {
                let entry = argument(self, 0);
                let result = match self.unboxed_type(entry) {
                    Some(Type::Float) => {
                        let x = self.as_float(entry);
                        self.emit(Op::FloatAbs, Type::Float, &[x])
                    }
                    Some(Type::Int) => {
                        let (x, zero) = (self.as_int(entry), self.int(0));
                        let negated = self.emit_guarded(Op::IntSub, Type::Int, &[zero, x]);
                        let negative = self.emit(Op::IntCmp(Cond::Lt), Type::Bool, &[x, zero]);
                        self.emit(Op::Select, Type::Int, &[negative, negated, x])
                    }
                    _ => return self.general(),
                };
                self.finish_call(Entry::Unboxed(result))
            }
            (Builtin::IsInstance, 2) if !has_self => {
                let (object, class) = (argument(self, 0), argument(self, 1));
                let Some(result) = self.is_instance(object, class) else {
                    return self.general();
                };
                let result = self.bool(result);
                self.finish_call(Entry::Unboxed(result))
            }
            (Builtin::ListAppend, 1) if has_self => self.list_append(),
            (Builtin::ListPop, 0) if has_self => self.list_pop(),
            (Builtin::Len, 1) if !has_self => {
                let entry = argument(self, 0);
                let Some(object) = self.reference(entry) else {
                    return self.general();
                };
                let known = self.state.facts.class.get(&object).copied();
                let process = &self.job.process;
                match known {
                    Some(class) if [process.list_type, process.tuple_type].contains(&class) => {}
                    None if self.known(entry).is_none()
                        && !self.state.facts.version.contains_key(&object) =>
                    {
                        self.emit_guarded(Op::GuardSized, Type::Void, &[object]);
                    }
                    _ => return self.general(),
                }
                let length = self.emit(Op::Length, Type::Int, &[object]);
                self.finish_call(Entry::Unboxed(length))
            }
            _ => self.general(),
        }
    }

    /// `range(...)` of ints becomes an unstarted range iterator in its place, if GET_ITER follows at once.
    fn make_range(&mut self, count: usize) -> Step<()> {
        let path = self.function().path;
        let top = self.state.stack.len();
        let arguments: Vec<Entry> = self.state.stack[top - count..].to_vec();
        let next = self
            .function()
            .cfg
            .index
            .get(&self.at.next.0)
            .map(|index| self.function().cfg.instructions[*index].opcode);
        let step = match arguments.get(2) {
            None => Some(1),
            Some(entry) => match self.known(*entry) {
                Some(hotstamp_job::Known::Int(step))
                    if step != 0 && step.unsigned_abs() < 1 << 31 =>
                {
                    Some(step)
                }
                _ => None,
            },
        };
        let ints = arguments.iter().all(|entry| {
            self.unboxed_type(*entry) == Some(Type::Int)
                || self.unboxed_type(*entry).is_none() && self.known(*entry).is_none()
        });
        let (Some(step), true, false) = (
            step,
            ints && next == Some(hotstamp_layout::opcode::Opcode::GET_ITER),
            self.hints.real_ranges.contains(&(path, u32::MAX)),
        ) else {
            return self.general();
        };
        let (start, stop) = if count == 1 {
            (None, arguments[0])
        } else {
            (Some(arguments[0]), arguments[1])
        };
        let start = match start {
            Some(entry) => self.as_int(entry),
            None => self.int(0),
        };
        let stop = self.as_int(stop);
        // The distance fits, and so does what comes behind the end.
        let (low, high) = (self.int(-(1 << 61)), self.int(1 << 61));
        for value in [start, stop] {
            if matches!(self.graph.inst(value).op, Op::ConstInt(_)) {
                continue;
            }
            let above = self.emit(Op::IntCmp(Cond::Gt), Type::Bool, &[value, low]);
            let below = self.emit(Op::IntCmp(Cond::Lt), Type::Bool, &[value, high]);
            let fits = self.emit(Op::BoolAnd, Type::Bool, &[above, below]);
            self.emit_guarded(Op::Guard(Reason::IntOverflow), Type::Void, &[fits]);
        }
        let left = self.range_length(start, stop, step);
        self.finish_call(Entry::Range(start, left, step))
    }

    /// How many values a range has: `max(0, ceil((stop - start) / step))`.
    fn range_length(&mut self, start: Value, stop: Value, step: i64) -> Value {
        let (from, to) = if step > 0 {
            (start, stop)
        } else {
            (stop, start)
        };
        let zero = self.int(0);
        let minus = self.emit(Op::IntSubWrapping, Type::Int, &[to, from]);
        let distance = if step.unsigned_abs() == 1 {
            minus
        } else {
            let (size, rest) = (self.int(step.abs()), self.int(step.abs() - 1));
            let up = self.emit(Op::IntAddWrapping, Type::Int, &[minus, rest]);
            self.emit(Op::IntFloorDiv, Type::Int, &[up, size])
        };
        let some = self.emit(Op::IntCmp(Cond::Gt), Type::Bool, &[distance, zero]);
        self.emit(Op::Select, Type::Int, &[some, distance, zero])
    }
}
