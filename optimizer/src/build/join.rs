//! Where control flow meets: joins and loops. Each slot becomes one kind of entry, with phis where the ways differ; what is of another kind is converted at the end of its way.

use super::{BuildError, Builder, Edge, Header, HeaderSlot, State, Step, Stop, Want};
use crate::hir::{End, Entry, Inst, Op, Type, Value};

impl Builder<'_> {
    /// Goes on where the edges meet.
    pub(crate) fn join(&mut self, mut edges: Vec<Edge>) -> Step<()> {
        debug_assert!(self.destroyed.is_empty());
        if edges.len() == 1 {
            if let Some(edge) = edges.pop() {
                self.resume_edge(edge);
            }
            return Ok(());
        }
        let (locals, depth) = (edges[0].state.locals.len(), edges[0].state.stack.len());
        if edges.iter().any(|edge| edge.state.stack.len() != depth) {
            return Err(BuildError::BadBytecode.into());
        }
        let mut kinds = Vec::new();
        // Locals that become references here although they were unboxed on some way.
        let mut boxed = Vec::new();
        // What is known of a value is known on its own way only.
        let mut types: Vec<Vec<Option<Type>>> = Vec::new();
        for edge in &mut edges {
            std::mem::swap(&mut self.state.facts, &mut edge.state.facts);
            types.push(
                (0..locals + depth)
                    .map(|slot| self.unboxed_type(slot_of(&edge.state, slot)))
                    .collect(),
            );
            std::mem::swap(&mut self.state.facts, &mut edge.state.facts);
        }
        for slot in 0..locals + depth {
            let entries: Vec<Entry> = edges
                .iter()
                .map(|edge| slot_of(&edge.state, slot))
                .collect();
            let types: Vec<Option<Type>> = types.iter().map(|types| types[slot]).collect();
            let kind = self.kind(&entries, &types);
            boxed.push(
                matches!(kind, Kind::Ref)
                    && entries
                        .iter()
                        .any(|entry| matches!(entry, Entry::Unboxed(_) | Entry::Maybe(..))),
            );
            kinds.push(kind);
        }
        // Convert at the ends of the ways, then bring them together.
        let mut operands: Vec<Vec<Vec<Value>>> = vec![Vec::new(); locals + depth];
        let mut facts = None;
        let mut blocks = Vec::new();
        for edge in edges {
            self.resume_edge(edge);
            for (slot, kind) in kinds.iter().enumerate() {
                let entry = slot_of(&self.state, slot);
                operands[slot].push(self.convert(entry, *kind)?);
            }
            match &mut facts {
                None => facts = Some(self.state.facts.clone()),
                Some(facts) => facts.meet(&self.state.facts),
            }
            blocks.push(self.block);
        }
        let target = self.graph.new_block();
        for block in blocks {
            self.graph.end(block, End::Jump(target));
        }
        self.block = target;
        self.open = true;
        self.state.facts = facts.unwrap_or_default();
        let mut stale = Vec::new();
        for (slot, kind) in kinds.iter().enumerate() {
            let columns = transpose(&operands[slot]);
            let phis: Vec<Value> = columns
                .into_iter()
                .map(|column| self.phi(target, column))
                .collect();
            let entry = match kind {
                Kind::Same(entry) => *entry,
                Kind::Ref => Entry::Owned(phis[0]),
                Kind::Unboxed(_) => Entry::Unboxed(phis[0]),
                Kind::Maybe(_) => Entry::Maybe(phis[0], phis[1]),
                Kind::Range(step) => Entry::Range(phis[0], phis[1], *step),
            };
            set_slot(&mut self.state, slot, entry);
            if slot < locals && boxed[slot] {
                stale.push(slot as u32);
            }
        }
        for local in stale {
            self.store_local(local);
        }
        Ok(())
    }

    /// A phi, or the value that all ways bring.
    fn phi(&mut self, block: crate::hir::BlockId, args: Vec<Value>) -> Value {
        if args.iter().all(|arg| *arg == args[0]) {
            return args[0];
        }
        let ty = self.graph.ty(args[0]);
        self.graph.push(
            block,
            Inst {
                op: Op::Phi,
                ty,
                args,
                state: None,
            },
        )
    }

    /// What the entries of a slot become where they meet, given the unboxed type that each is known to have on its way.
    fn kind(&self, entries: &[Entry], types: &[Option<Type>]) -> Kind {
        let first = entries[0];
        if entries.iter().all(|entry| *entry == first) {
            return Kind::Same(first);
        }
        if let Entry::Range(_, _, step) = first
            && entries
                .iter()
                .all(|entry| matches!(entry, Entry::Range(_, _, other) if *other == step))
        {
            return Kind::Range(step);
        }
        let mut null = false;
        let mut ty = None;
        for (entry, known) in entries.iter().zip(types) {
            match entry {
                Entry::Null => null = true,
                Entry::Maybe(_, value) => {
                    null = true;
                    let this = self.graph.ty(*value);
                    if *ty.get_or_insert(this) != this {
                        return Kind::Ref;
                    }
                }
                _ => match *known {
                    Some(this) if *ty.get_or_insert(this) == this => {}
                    _ => return Kind::Ref,
                },
            }
        }
        // Only where one of them is unboxed already: constants alone stay objects.
        let unboxed = entries
            .iter()
            .any(|entry| matches!(entry, Entry::Unboxed(_) | Entry::Maybe(..)));
        match (ty, unboxed) {
            (Some(ty), true) if null && ty != Type::Bool => Kind::Maybe(ty),
            (Some(ty), true) if !null => Kind::Unboxed(ty),
            _ => Kind::Ref,
        }
    }

    /// Converts an entry at the end of the current block; gives the values for the phis.
    fn convert(&mut self, entry: Entry, kind: Kind) -> Step<Vec<Value>> {
        Ok(match kind {
            Kind::Same(_) => Vec::new(),
            Kind::Ref => vec![self.owned_reference(entry)?],
            Kind::Unboxed(ty) => {
                self.guard_bound(entry);
                let value = self.unboxed_value(entry, ty);
                if let Entry::Owned(old) = entry {
                    self.release_between(old);
                }
                vec![value]
            }
            Kind::Maybe(ty) => match entry {
                Entry::Null => {
                    let zero = if ty == Type::Int {
                        self.int(0)
                    } else {
                        self.float(0.0)
                    };
                    vec![self.bool(false), zero]
                }
                Entry::Maybe(flag, value) => vec![flag, value],
                _ => {
                    let value = self.unboxed_value(entry, ty);
                    if let Entry::Owned(old) = entry {
                        self.release_between(old);
                    }
                    vec![self.bool(true), value]
                }
            },
            Kind::Range(_) => match entry {
                Entry::Range(next, left, _) => vec![next, left],
                _ => return Err(BuildError::BadBytecode.into()),
            },
        })
    }

    /// Leaves where an entry that is to be unboxed may be unbound.
    fn guard_bound(&mut self, entry: Entry) {
        if let Some(value) = self.reference(entry)
            && matches!(self.graph.inst(value).op, Op::Slot(_) | Op::Phi)
            && !self.state.facts.unboxed.contains_key(&value)
        {
            self.emit_guarded(Op::GuardBound, Type::Void, &[value]);
        }
    }

    /// An owned Ref for any entry.
    fn owned_reference(&mut self, entry: Entry) -> Step<Value> {
        match entry {
            Entry::Maybe(flag, value) => Ok(self.emit(Op::BoxMaybe, Type::Ref, &[flag, value])),
            Entry::Range(..) => Ok(self.not_a_reference(entry)),
            _ => Ok(self.take_owned(entry)),
        }
    }

    /// The unboxed value of an entry whose unboxed type is known.
    fn unboxed_value(&mut self, entry: Entry, ty: Type) -> Value {
        match ty {
            Type::Int => self.as_int(entry),
            Type::Float => self.as_float(entry),
            _ => match self.known(entry) {
                Some(hotstamp_job::Known::Bool(value)) => self.bool(value),
                _ => match entry {
                    Entry::Unboxed(value) => value,
                    _ => {
                        let (value, _) = self.as_ref(entry);
                        self.state.facts.unboxed[&value]
                    }
                },
            },
        }
    }

    // ---- loops ----

    /// Opens a loop: its head gets phis for what the body changes.
    pub(crate) fn open_loop(&mut self, head: u32, edges: Vec<Edge>) -> Step<()> {
        self.join(edges)?;
        let body = self.function().cfg.loops[&head].clone();
        let (locals, depth) = (self.state.locals.len(), self.state.stack.len());
        let path = self.function().path;
        // Guards here leave in front of the loop's first instruction.
        self.at = self.function().cfg.instructions[self.function().cfg.index[&head]];
        self.before = None;
        let mut wants = Vec::new();
        for slot in 0..locals + depth {
            let changed = if slot < locals {
                body.locals.contains(&(slot as u32))
            } else {
                slot - locals >= body.untouched
            };
            let entry = slot_of(&self.state, slot);
            wants.push(match entry {
                // Advances at the head itself.
                Entry::Range(..) => Some(None),
                _ if changed => Some(Some(self.want(path, head, slot as u32, entry))),
                _ => None,
            });
        }
        let mut initial = Vec::new();
        for (slot, want) in wants.iter().enumerate() {
            let entry = slot_of(&self.state, slot);
            let values = match want {
                None => Vec::new(),
                Some(None) => self.convert(entry, Kind::Range(0))?,
                Some(Some(want)) => {
                    let values = self.convert(entry, want.kind())?;
                    // What was converted is from here on the slot's content, also for the states of guards that follow.
                    let converted = want.entry(&values);
                    set_slot(&mut self.state, slot, converted);
                    if slot < locals && matches!(entry, Entry::Unboxed(_) | Entry::Maybe(..)) {
                        self.store_local(slot as u32);
                    }
                    self.before = None;
                    values
                }
            };
            initial.push(values);
        }
        let from = self.block;
        let target = self.graph.new_block();
        self.graph.end(from, End::Jump(target));
        self.block = target;
        self.open = true;
        self.state.facts.forget_memory();
        let mut slots = Vec::new();
        for (slot, (want, values)) in wants.iter().zip(initial).enumerate() {
            let phis: Vec<Value> = values
                .into_iter()
                .map(|value| {
                    let ty = self.graph.ty(value);
                    self.graph.push(
                        target,
                        Inst {
                            op: Op::Phi,
                            ty,
                            args: vec![value],
                            state: None,
                        },
                    )
                })
                .collect();
            slots.push(match want {
                None => HeaderSlot::Same,
                Some(None) => {
                    if let Entry::Range(_, _, step) = slot_of(&self.state, slot) {
                        set_slot(&mut self.state, slot, Entry::Range(phis[0], phis[1], step));
                    }
                    HeaderSlot::Range(phis[0], phis[1])
                }
                Some(Some(want)) => {
                    set_slot(&mut self.state, slot, want.entry(&phis));
                    match phis[..] {
                        [phi] => HeaderSlot::Phi(*want, phi),
                        _ => HeaderSlot::Maybe(*want, phis[0], phis[1]),
                    }
                }
            });
        }
        let header = Header {
            block: target,
            slots,
        };
        self.function_mut().headers.insert(head, header);
        Ok(())
    }

    /// What a loop's slot should be, from hints or from what arrives first.
    fn want(&mut self, path: u64, head: u32, slot: u32, entry: Entry) -> Want {
        if let Some(want) = self.hints.slots.get(&(path, head, slot)) {
            // What arrives may have become unbound on some way since the hint was given.
            return match (*want, entry) {
                (Want::Int, Entry::Null | Entry::Maybe(..)) => Want::MaybeInt,
                (Want::Float, Entry::Null | Entry::Maybe(..)) => Want::MaybeFloat,
                (want, _) => want,
            };
        }
        if matches!(entry, Entry::Null) || self.failed_at(head) {
            return Want::Ref;
        }
        match (entry, self.unboxed_type(entry)) {
            (Entry::Maybe(_, value), _) => match self.graph.ty(value) {
                Type::Int => Want::MaybeInt,
                _ => Want::MaybeFloat,
            },
            (_, Some(Type::Int)) => Want::Int,
            (_, Some(Type::Float)) => Want::Float,
            (Entry::Unboxed(_), Some(Type::Bool)) => Want::Bool,
            _ => Want::Ref,
        }
    }

    /// A back edge: converts what arrives to what the head expects, or learns and starts again.
    pub(crate) fn close_loop(&mut self, head: u32) -> Step<()> {
        self.open = true;
        let slots = self.function().headers[&head].slots.clone();
        let target = self.function().headers[&head].block;
        let path = self.function().path;
        let may_guess = !self.failed_at(head);
        let mut learnt = false;
        for (slot, expected) in slots.iter().enumerate() {
            let entry = slot_of(&self.state, slot);
            let (HeaderSlot::Phi(want, _) | HeaderSlot::Maybe(want, ..)) = expected else {
                continue;
            };
            let arrives = match entry {
                Entry::Maybe(_, value) => Some(self.graph.ty(value)),
                _ => self.unboxed_type(entry),
            };
            let maybe = matches!(entry, Entry::Maybe(..) | Entry::Null);
            let fits = match want {
                Want::Int => arrives == Some(Type::Int) && !maybe,
                Want::Float => arrives == Some(Type::Float) && !maybe,
                Want::Bool => arrives == Some(Type::Bool) && matches!(entry, Entry::Unboxed(_)),
                Want::MaybeInt => arrives == Some(Type::Int) || entry == Entry::Null,
                Want::MaybeFloat => arrives == Some(Type::Float) || entry == Entry::Null,
                // An unboxed value would be boxed each time around: better to unbox what comes from before the loop.
                Want::Ref => {
                    !matches!(entry, Entry::Unboxed(_) | Entry::Maybe(..))
                        || self.hints.slots.contains_key(&(path, head, slot as u32))
                        || !may_guess
                }
            };
            if fits {
                continue;
            }
            let known = self.hints.slots.get(&(path, head, slot as u32)).copied();
            let first = self.first_operand(expected);
            let was_null = matches!(
                self.graph.inst(first).op,
                Op::ConstRef(super::stack::NULL_BITS)
            );
            let better = match (want, arrives, known) {
                (Want::Ref, Some(Type::Int), None) if was_null || maybe => Want::MaybeInt,
                (Want::Ref, Some(Type::Float), None) if was_null || maybe => Want::MaybeFloat,
                (Want::Ref, Some(Type::Int), None) => Want::Int,
                (Want::Ref, Some(Type::Float), None) if !self.is_int_constant(first) => Want::Float,
                _ => Want::Ref,
            };
            self.hints.slots.insert((path, head, slot as u32), better);
            learnt = true;
        }
        if learnt {
            return Err(Stop::Restart);
        }
        let mut operands = Vec::new();
        for (slot, expected) in slots.iter().enumerate() {
            let entry = slot_of(&self.state, slot);
            operands.push(match expected {
                HeaderSlot::Same => Vec::new(),
                HeaderSlot::Phi(want, _) | HeaderSlot::Maybe(want, ..) => {
                    let values = self.convert(entry, want.kind())?;
                    if slot < self.state.locals.len()
                        && matches!(entry, Entry::Unboxed(_) | Entry::Maybe(..))
                    {
                        let converted = want.entry(&values);
                        set_slot(&mut self.state, slot, converted);
                        self.store_local(slot as u32);
                    }
                    values
                }
                HeaderSlot::Range(..) => self.convert(entry, Kind::Range(0))?,
            });
        }
        for (expected, values) in slots.iter().zip(operands) {
            let phis = match *expected {
                HeaderSlot::Same => Vec::new(),
                HeaderSlot::Phi(_, phi) => vec![phi],
                HeaderSlot::Maybe(_, flag, value) => vec![flag, value],
                HeaderSlot::Range(next, left) => vec![next, left],
            };
            for (phi, value) in phis.into_iter().zip(values) {
                self.graph.inst_mut(phi).args.push(value);
            }
        }
        self.graph.end(self.block, End::Jump(target));
        self.open = false;
        Ok(())
    }

    fn first_operand(&self, slot: &HeaderSlot) -> Value {
        let phi = match *slot {
            HeaderSlot::Phi(_, phi) | HeaderSlot::Maybe(_, phi, _) | HeaderSlot::Range(phi, _) => {
                phi
            }
            HeaderSlot::Same => return Value(0),
        };
        self.graph.inst(phi).args[0]
    }

    fn is_int_constant(&self, value: Value) -> bool {
        matches!(
            self.known(Entry::Borrowed(value)),
            Some(hotstamp_job::Known::Int(_))
        ) || matches!(self.graph.inst(value).op, Op::ConstInt(_))
    }
}

/// What a slot becomes where ways meet.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Same(Entry),
    Ref,
    Unboxed(Type),
    Maybe(Type),
    Range(i64),
}

impl Want {
    fn kind(self) -> Kind {
        match self {
            Want::Int => Kind::Unboxed(Type::Int),
            Want::Float => Kind::Unboxed(Type::Float),
            Want::Bool => Kind::Unboxed(Type::Bool),
            Want::MaybeInt => Kind::Maybe(Type::Int),
            Want::MaybeFloat => Kind::Maybe(Type::Float),
            Want::Ref => Kind::Ref,
        }
    }

    fn entry(self, values: &[Value]) -> Entry {
        match self {
            Want::Int | Want::Float | Want::Bool => Entry::Unboxed(values[0]),
            Want::MaybeInt | Want::MaybeFloat => Entry::Maybe(values[0], values[1]),
            Want::Ref => Entry::Owned(values[0]),
        }
    }
}

fn slot_of(state: &State, slot: usize) -> Entry {
    match state.locals.get(slot) {
        Some(entry) => *entry,
        None => state.stack[slot - state.locals.len()],
    }
}

fn set_slot(state: &mut State, slot: usize, entry: Entry) {
    let locals = state.locals.len();
    if slot < locals {
        state.locals[slot] = entry;
    } else {
        state.stack[slot - locals] = entry;
    }
}

/// Rows of columns to columns of rows.
fn transpose(rows: &[Vec<Value>]) -> Vec<Vec<Value>> {
    let width = rows.first().map_or(0, Vec::len);
    (0..width)
        .map(|column| rows.iter().map(|row| row[column]).collect())
        .collect()
}
