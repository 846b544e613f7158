//! Globals and attributes.

use std::mem::offset_of;

use hotstamp_job::{Attribute, ObjectKind, Place, Seen};
use hotstamp_layout::ffi;

use super::{Builder, Step};
use crate::hir::{Entry, Op, Reason, Type, Value};

impl Builder<'_> {
    /// `LOAD_GLOBAL`: a constant while its cell holds what it held, if that is of use; else what the cell holds.
    pub(crate) fn load_global(&mut self, oparg: u32) -> Step<()> {
        self.before();
        let (cell, value) = match self
            .code()
            .site(self.at.offset.0)
            .map(|site| site.seen.clone())
        {
            Some(Seen::Global { cell, value }) if value != 0 => (cell, value),
            _ => return self.never_executed(),
        };
        let entry = if self.failed() {
            Entry::Lent(self.emit_guarded(Op::Cell(cell), Type::Ref, &[]))
        } else {
            let value = self.guarded_cell(cell, value);
            self.kept(value)
        };
        self.push(entry);
        if oparg & 1 != 0 {
            self.push(Entry::Null);
        }
        Ok(())
    }

    /// The content of a global cell, as a constant that is guarded.
    fn guarded_cell(&mut self, cell: u64, value: u64) -> Value {
        if self.state.facts.cells.insert(cell) {
            self.emit_guarded(Op::GuardCell(cell, value), Type::Void, &[]);
        }
        // The guard compares addresses, and what the object is goes into the code: another one must not take its place.
        if matches!(
            self.object_kind(value),
            Some(ObjectKind::Value(_) | ObjectKind::Builtin(_))
        ) {
            self.anchors.insert(value);
        }
        self.constant(value)
    }

    /// The entry for a constant that somebody else holds: functions are kept alive by the code, so that nobody counts them.
    fn kept(&mut self, value: Value) -> Entry {
        match self.constant_address(Entry::Lent(value)) {
            Some(address)
                if matches!(
                    self.object_kind(address),
                    Some(ObjectKind::Function { code: Some(_), .. } | ObjectKind::Builtin(_))
                ) =>
            {
                self.anchors.insert(address);
                Entry::Borrowed(value)
            }
            Some(address) if self.anchors.contains(&address) => Entry::Borrowed(value),
            _ => Entry::Lent(value),
        }
    }

    pub(crate) fn load_attr(&mut self, oparg: u32) -> Step<()> {
        self.before();
        let method = oparg & 1 != 0;
        let owner = self.state.stack[self.state.stack.len() - 1];
        let Some(object) = self.reference(owner) else {
            return self.general();
        };
        match self.seen() {
            Seen::Attribute(types) if types.len() == 1 => {
                self.load_attribute(object, owner, types[0], method)
            }
            Seen::Attribute(types) if types.len() > 1 => {
                self.load_polymorphic(object, owner, &types, method)
            }
            Seen::Module {
                version,
                dict,
                cell,
                value,
            } if value != 0 => {
                self.guard_module(object, version, dict);
                let value = self.guarded_cell(cell, value);
                let owner = self.pop();
                let entry = self.keep_item(owner, value);
                self.push(entry);
                if method {
                    self.push(Entry::Null);
                }
                Ok(())
            }
            Seen::TypeAttribute { version, value } => {
                if self.state.facts.class_objects.get(&object) != Some(&version) {
                    self.emit_guarded(Op::GuardClassObject(version), Type::Void, &[object]);
                    self.state.facts.class_objects.insert(object, version);
                }
                let value = self.constant(value);
                let owner = self.pop();
                let entry = self.keep_item(owner, value);
                self.push(entry);
                if method {
                    self.push(Entry::Null);
                }
                Ok(())
            }
            Seen::Nothing => self.never_executed(),
            _ => self.general(),
        }
    }

    /// Guards that an object is a module with this dictionary. Its address would not tell: another module may have it while the dictionary lives on.
    fn guard_module(&mut self, object: Value, version: u32, dict: u64) {
        self.guard_version(object, version);
        if self.state.facts.module_dicts.get(&object) != Some(&dict) {
            let offset = offset_of!(ffi::PyModuleObject, md_dict) as u32;
            let found = self.emit_guarded(Op::Field(offset), Type::Ref, &[object]);
            let wanted = self.constant(dict);
            let same = self.emit(Op::Same, Type::Bool, &[found, wanted]);
            self.emit_guarded(Op::Guard(Reason::TypeGuard), Type::Void, &[same]);
            self.state.facts.module_dicts.insert(object, dict);
        }
    }

    /// An entry for what was found in the owner, which is released.
    fn keep_item(&mut self, owner: Entry, value: Value) -> Entry {
        let kept = self.kept(value);
        if matches!(kept, Entry::Borrowed(_)) {
            self.release_entry(owner);
            return kept;
        }
        match owner {
            Entry::Owned(object) => {
                let owned = self.take_owned(Entry::Lent(value));
                self.release(object);
                Entry::Owned(owned)
            }
            _ => Entry::Lent(value),
        }
    }

    /// Guards what a place of an attribute needs.
    pub(crate) fn guard_attribute(&mut self, object: Value, attribute: Attribute) {
        self.guard_version(object, attribute.version);
        match attribute.place {
            Place::Inline { valid, .. } => self.guard_inline(object, valid),
            Place::ClassUnshadowed { valid, keys, .. } => {
                self.guard_inline(object, valid);
                if self.state.facts.keys.insert(object) {
                    self.emit_guarded(Op::GuardKeys(keys), Type::Void, &[object]);
                }
            }
            _ => {}
        }
    }

    fn guard_inline(&mut self, object: Value, valid: u32) {
        if self.state.facts.inline.insert(object) {
            self.emit_guarded(Op::GuardInline(valid), Type::Void, &[object]);
        }
    }

    fn load_attribute(
        &mut self,
        object: Value,
        owner: Entry,
        attribute: Attribute,
        method: bool,
    ) -> Step<()> {
        if self.is_list_method(attribute.place) {
            // The class cannot change, and its objects have no attributes of their own.
            self.guard_class(object, self.job.process.list_type);
        } else {
            self.guard_attribute(object, attribute);
        }
        match attribute.place {
            Place::Inline { offset, .. } | Place::Slot { offset } => {
                if method {
                    return self.general();
                }
                let value = self.field(object, offset);
                self.pop();
                let entry = match value {
                    Entry::Lent(value) => self.keep_item(owner, value),
                    unboxed => {
                        self.release_entry(owner);
                        unboxed
                    }
                };
                self.push(entry);
            }
            Place::Class { value } | Place::ClassUnshadowed { value, .. } => {
                let value = self.constant(value);
                self.pop();
                if method {
                    let kept = self.kept(value);
                    self.push(kept);
                    // Self moves.
                    self.push(owner);
                } else {
                    let entry = self.keep_item(owner, value);
                    self.push(entry);
                }
            }
        }
        Ok(())
    }

    /// One way for each type that was seen; another type leaves.
    fn load_polymorphic(
        &mut self,
        object: Value,
        owner: Entry,
        types: &[Attribute],
        method: bool,
    ) -> Step<()> {
        if method
            && types.iter().any(|attribute| {
                matches!(attribute.place, Place::Inline { .. } | Place::Slot { .. })
            })
        {
            return self.general();
        }
        if let Some(known) = self.state.facts.version.get(&object).copied()
            && let Some(attribute) = types.iter().find(|attribute| attribute.version == known)
        {
            return self.load_attribute(object, owner, *attribute, method);
        }
        self.by_type(object, types, |this, attribute| {
            this.load_attribute(object, owner, attribute, method)
        })
    }

    /// Builds an instruction once for each type, behind a test of the object's; the last type is guarded by what is built for it.
    fn by_type(
        &mut self,
        object: Value,
        types: &[Attribute],
        mut build: impl FnMut(&mut Self, Attribute) -> Step<()>,
    ) -> Step<()> {
        let mut edges = Vec::new();
        let (last, first) = (types[types.len() - 1], &types[..types.len() - 1]);
        for attribute in first {
            let is = self.emit(Op::VersionIs(attribute.version), Type::Bool, &[object]);
            let (yes, no) = self.fork(is, 128);
            self.resume_edge(yes);
            self.state.facts.version.insert(object, attribute.version);
            build(self, *attribute)?;
            self.settle();
            edges.push(super::Edge {
                block: self.block,
                state: self.state.clone(),
            });
            self.before = None;
            self.resume_edge(no);
        }
        build(self, last)?;
        self.settle();
        edges.push(super::Edge {
            block: self.block,
            state: self.state.clone(),
        });
        self.open = false;
        self.before = None;
        self.join(edges)
    }

    /// What a field holds, loaded unless it is known.
    fn field(&mut self, object: Value, offset: u32) -> Entry {
        if let Some(value) = self.state.facts.fields.get(&(object, offset)).copied() {
            return if self.graph.ty(value) == Type::Ref {
                Entry::Lent(value)
            } else {
                Entry::Unboxed(value)
            };
        }
        let value = self.emit_guarded(Op::Field(offset), Type::Ref, &[object]);
        self.state.facts.fields.insert((object, offset), value);
        Entry::Lent(value)
    }

    /// `STORE_ATTR`: value, owner.
    pub(crate) fn store_attr(&mut self) -> Step<()> {
        self.before();
        let top = self.state.stack.len();
        let (value, owner) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        let attribute = match self.seen() {
            Seen::Attribute(types) if types.len() == 1 => types[0],
            Seen::Attribute(types) if types.len() > 1 => return self.store_polymorphic(&types),
            Seen::Nothing => return self.never_executed(),
            _ => return self.general(),
        };
        self.store_attribute(value, owner, attribute)
    }

    /// As `load_polymorphic`.
    fn store_polymorphic(&mut self, types: &[Attribute]) -> Step<()> {
        let top = self.state.stack.len();
        let (value, owner) = (self.state.stack[top - 2], self.state.stack[top - 1]);
        let (Some(object), true) = (
            self.reference(owner),
            types.iter().all(|attribute| {
                matches!(attribute.place, Place::Inline { .. } | Place::Slot { .. })
            }),
        ) else {
            return self.general();
        };
        self.by_type(object, types, |this, attribute| {
            this.store_attribute(value, owner, attribute)
        })
    }

    fn store_attribute(&mut self, value: Entry, owner: Entry, attribute: Attribute) -> Step<()> {
        let (Some(object), false) = (
            self.reference(owner),
            matches!(value, Entry::Range(..) | Entry::Maybe(..)),
        ) else {
            return self.general();
        };
        let (op, offset) = match attribute.place {
            Place::Inline {
                offset,
                valid,
                index,
            } => (
                Op::StoreInline {
                    offset,
                    valid,
                    index,
                },
                offset,
            ),
            Place::Slot { offset } => (Op::StoreSlot(offset), offset),
            _ => return self.general(),
        };
        self.guard_attribute(object, attribute);
        let fresh = self.state.facts.fresh.contains(&object);
        if matches!(op, Op::StoreInline { .. }) && !fresh {
            self.emit_guarded(Op::GuardNoDict, Type::Void, &[object]);
        }
        self.pop();
        self.pop();
        if let Entry::Unboxed(float) = value
            && self.graph.ty(float) == Type::Float
            && self.is_float_field(object, offset)
        {
            // Whoever borrowed the old object gets a reference, so that it is not overwritten.
            self.own_all();
            self.emit_here(Op::FieldStoreFloat(offset), Type::Void, &[object, float]);
            self.state.facts.fields.retain(|key, _| key.1 != offset);
            self.state.facts.fields.insert((object, offset), float);
            self.release_entry(owner);
            return Ok(());
        }
        let known = self.state.facts.fields.get(&(object, offset)).copied();
        let owned = self.take_owned(value);
        let old = self.emit(op, Type::Ref, &[object, owned]);
        self.state.facts.fields.retain(|key, _| key.1 != offset);
        self.state.facts.fields.insert(
            (object, offset),
            match value {
                Entry::Unboxed(unboxed) => unboxed,
                _ => self.object_of(owned),
            },
        );
        if let Some(known) = known {
            self.copy_facts(known, old);
        }
        // A new instance had nothing there.
        if !fresh || known.is_some() {
            self.release(old);
        }
        self.release_entry(owner);
        Ok(())
    }

    /// Whether a field is known to hold a float at this point: it was loaded or stored before, and nothing has changed it since.
    fn is_float_field(&self, object: Value, offset: u32) -> bool {
        let Some(value) = self.state.facts.fields.get(&(object, offset)) else {
            return false;
        };
        match self.graph.ty(*value) {
            Type::Float => true,
            Type::Ref => self
                .state
                .facts
                .unboxed
                .get(value)
                .is_some_and(|unboxed| self.graph.ty(*unboxed) == Type::Float),
            _ => false,
        }
    }

    /// What is known of the object at an address.
    pub(crate) fn object_kind(&self, address: u64) -> Option<&ObjectKind> {
        self.objects.get(&address).map(|object| &object.kind)
    }
}
