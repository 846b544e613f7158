//! Operators on instances whose classes have Python methods for them: inlined, as calls of those methods are.

use hotstamp_job::{ObjectKind, RightOperand, Seen};
use hotstamp_layout::opcode::Opcode;

use super::calls::Outcome;
use super::{Builder, Step};
use crate::hir::{Entry, Op, Type, Value};

impl Builder<'_> {
    /// An operator that asks a known method of the left operand (of a subscript: of the container) first.
    pub(crate) fn operator(&mut self, seen: &Seen) -> Step<()> {
        let Seen::Operator {
            left,
            right,
            function,
        } = *seen
        else {
            return self.general();
        };
        let Some(ObjectKind::Function {
            code: Some(code), ..
        }) = self.object_kind(function).cloned()
        else {
            return self.general();
        };
        let stores = self.at.opcode == Opcode::STORE_SUBSCR;
        let arguments = if stores { 3 } else { 2 };
        let callee = &self.job.codes[code as usize];
        if !callee.simple_arguments
            || callee.argcount as usize != arguments
            || !self.may_inline(code)
        {
            return self.general();
        }
        let top = self.state.stack.len();
        let (ours, theirs) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        let Some(object) = self.reference(ours) else {
            return self.general();
        };
        if !self.guard_right(theirs, right) {
            return self.general();
        }
        self.guard_version(object, left);
        self.guard_function(function, code);
        let outcome = if stores {
            // As the method wants them: container, subscript, value.
            self.state.stack[top - 3..].rotate_left(1);
            Outcome::Dropped
        } else if right == RightOperand::Any {
            Outcome::Pushed
        } else {
            Outcome::Operator
        };
        self.inline(function, code, arguments, outcome)
    }

    /// Whether an object is an instance of a constant class that leaves the question to `type`; an unknown one has to be of exactly that class.
    pub(crate) fn is_instance(&mut self, entry: Entry, class: Entry) -> Option<bool> {
        let class = self.constant_address(class)?;
        if !matches!(self.object_kind(class), Some(ObjectKind::Class { .. })) {
            return None;
        }
        let process = &self.job.process;
        let known = match (entry, self.unboxed_type(entry)) {
            (Entry::Tuple(_), _) => Some(process.tuple_type),
            (_, Some(Type::Int)) => Some(process.int_type),
            (_, Some(Type::Float)) => Some(process.float_type),
            (_, Some(Type::Bool)) => return None,
            _ => self
                .reference(entry)
                .and_then(|value| self.state.facts.class.get(&value).copied()),
        };
        let builtins = [
            process.int_type,
            process.float_type,
            process.list_type,
            process.tuple_type,
            process.dict_type,
            process.str_type,
        ];
        match known {
            Some(known) if known == class => Some(true),
            // None of these is a subclass of another.
            Some(known) if builtins.contains(&known) && builtins.contains(&class) => Some(false),
            Some(_) => None,
            None if self.known(entry).is_some() => None,
            None => {
                let value = self.reference(entry)?;
                // The class may change: this is known here only.
                self.emit_guarded(Op::GuardClass(class), Type::Void, &[value]);
                if builtins.contains(&class) {
                    self.state.facts.class.insert(value, class);
                }
                Some(true)
            }
        }
    }

    /// Guards a class by its version.
    pub(crate) fn guard_version(&mut self, object: Value, version: u32) {
        if self.state.facts.version.get(&object) != Some(&version) {
            self.emit_guarded(Op::GuardVersion(version), Type::Void, &[object]);
            self.state.facts.version.insert(object, version);
        }
    }

    /// Guards what the right operand has to be. Not if it surely is something else.
    fn guard_right(&mut self, entry: Entry, wanted: RightOperand) -> bool {
        match (wanted, entry) {
            (RightOperand::Any, _) => true,
            // Numbers are of no Python class.
            (_, Entry::Unboxed(_)) => true,
            (RightOperand::Class(class), _) => match self.reference(entry) {
                Some(_) if self.known(entry).is_some() => true,
                Some(object) => {
                    if self
                        .state
                        .facts
                        .class
                        .get(&object)
                        .is_some_and(|known| *known != class)
                    {
                        return false;
                    }
                    self.guard_class(object, class);
                    true
                }
                None => false,
            },
            (RightOperand::Version(version), _) => match self.reference(entry) {
                Some(object) if self.known(entry).is_none() => {
                    self.guard_version(object, version);
                    true
                }
                _ => false,
            },
        }
    }

    /// Whether a method's result may be NotImplemented, as far as is known.
    pub(crate) fn may_be_not_implemented(&self, entry: Entry) -> bool {
        let Some(value) = self.reference(entry) else {
            return false;
        };
        if let Some(address) = self.constant_address(entry) {
            return address == self.job.process.not_implemented;
        }
        let facts = &self.state.facts;
        !(facts.class.contains_key(&value)
            || facts.version.contains_key(&value)
            || facts.unboxed.contains_key(&value)
            || self.is_made_here(value))
    }

    /// Whether an object was made by this code: it is of a class that it named, or a number.
    fn is_made_here(&self, value: Value) -> bool {
        let inst = self.graph.inst(value);
        match inst.op {
            Op::NewInstance(_) | Op::BoxInt | Op::BoxFloat | Op::BoxBool | Op::NumberOp(_) => true,
            Op::Own | Op::Borrow => self.is_made_here(inst.args[0]),
            Op::Phi => inst
                .args
                .iter()
                .all(|arg| !matches!(self.graph.inst(*arg).op, Op::Phi) && self.is_made_here(*arg)),
            _ => false,
        }
    }
}
