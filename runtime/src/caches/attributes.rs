//! LOAD_ATTR and STORE_ATTR.
//!
//! Payloads: word 0 low = type version, high = byte offset of the value in the object; word 1 = the cached `StackRef` bits (a borrowed class attribute, kept
//! alive by the type while its version holds) or the global cell; word 2 low = byte offset of the inline values' `valid` flag; word 3 = number of shared keys, or the module's dictionary.

use std::mem::offset_of;

use hotstamp_layout::ffi::{self, PyObject, PyThreadState, PyTypeObject};
use hotstamp_layout::refs::{self, StackRef};

use super::quick_attributes::{self, Kind};
use super::{CacheStubs, Family, add_type, globals, note_miss, quick, set};
use crate::Frame;
use crate::helpers::RAISED;
use crate::helpers::operands::name;
use crate::site::Site;

/// `LOAD_ATTR` of a value. Register helper: `acc` is the owner.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn load_attr(
    acc: StackRef,
    _b: StackRef,
    _c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the owner is ours to close; the name belongs to the code object.
    unsafe {
        let owner = acc.as_ptr_borrow();
        let name = name(frame, (*site).oparg >> 1);
        learn_load(site, owner, name, false);
        let result = ffi::PyObject_GetAttr(owner, name);
        acc.close();
        if result.is_null() {
            RAISED
        } else {
            StackRef::from_steal(result)
        }
    }
}

/// `LOAD_ATTR` in front of a call: writes callable and self (or null) to the operand stack, where the owner stood; any non-zero result.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn load_method(
    acc: StackRef,
    _b: StackRef,
    _c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: as above; the stack has room for both, since the instruction pushes them.
    unsafe {
        let owner = acc.as_ptr_borrow();
        let name = name(frame, (*site).oparg >> 1);
        learn_load(site, owner, name, true);
        let mut method: *mut PyObject = std::ptr::null_mut();
        let unbound = ffi::_PyObject_GetMethod(owner, name, &raw mut method) != 0;
        if method.is_null() {
            acc.close();
            return RAISED;
        }
        let slots = (*frame).stackpointer.cast::<StackRef>();
        slots.write(StackRef::from_steal(method));
        if unbound {
            slots.add(1).write(acc);
        } else {
            slots.add(1).write(StackRef::NULL);
            acc.close();
        }
        // Both count as pushed from here on, should the frame leave.
        (*frame).stackpointer = (*frame).stackpointer.add(2);
        StackRef::none()
    }
}

/// `STORE_ATTR`. Register helper: `acc` is the value, `b` the owner.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn store_attr(
    acc: StackRef,
    b: StackRef,
    _c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: as above.
    unsafe {
        let owner = b.as_ptr_borrow();
        let name = name(frame, (*site).oparg);
        let error = ffi::PyObject_SetAttr(owner, name, acc.as_ptr_borrow());
        if error == 0 {
            learn_store(site, owner, name);
        }
        acc.close();
        b.close();
        if error != 0 { RAISED } else { StackRef::none() }
    }
}

/// The version tag of a type, given one if it has none; 0 if it cannot have one any more.
///
/// # Safety
/// A live type, GIL held.
pub(super) unsafe fn version(ty: *mut PyTypeObject) -> u32 {
    // SAFETY: a live type, GIL held.
    unsafe {
        if (*ty).tp_version_tag == 0 {
            ffi::PyUnstable_Type_AssignVersionTag(ty);
        }
        (*ty).tp_version_tag
    }
}

/// `StackRef` bits that a stub may copy, taking a reference if bit 0 is clear.
unsafe fn cacheable_bits(object: *mut PyObject) -> u64 {
    // SAFETY: a live object.
    unsafe { object as u64 | u64::from(refs::is_immortal(object)) }
}

/// Whether instances of a type keep their attributes inline.
unsafe fn has_inline_values(ty: *mut PyTypeObject) -> bool {
    // SAFETY: a live type.
    unsafe { refs::type_has_feature(ty, u64::from(ffi::Py_TPFLAGS_INLINE_VALUES)) }
}

/// Whether instances of a type have no dictionary of any kind.
unsafe fn has_no_dict(ty: *mut PyTypeObject) -> bool {
    // SAFETY: a live type.
    unsafe {
        (*ty).tp_dictoffset == 0
            && !refs::type_has_feature(ty, u64::from(ffi::Py_TPFLAGS_MANAGED_DICT))
    }
}

/// Position of a name in the shared keys of a type, and how many keys there are.
unsafe fn shared_key(ty: *mut PyTypeObject, name: *mut PyObject) -> (Option<usize>, usize) {
    // SAFETY: a type with inline values is a heap type with shared (unicode) keys, whose entries only ever grow.
    unsafe {
        let keys = (*ty.cast::<ffi::PyHeapTypeObject>()).ht_cached_keys;
        if keys.is_null() {
            return (None, 0);
        }
        let count = (*keys).dk_nentries as usize;
        let entries = refs::dict_keys_entries(keys).cast::<ffi::PyDictUnicodeEntry>();
        // A key that came in through `__dict__` may be equal to the name and another object.
        let is_name = |key: *mut PyObject| {
            key == name
                || !key.is_null()
                    && !globals::is_interned(key)
                    && ffi::PyUnicode_Compare(key, name) == 0
        };
        let found = (0..count).find(|&index| is_name((*entries.add(index)).me_key));
        (found, count)
    }
}

/// Where an object of the type keeps inline value `index`, and its `valid` flag: byte offsets.
unsafe fn inline_offsets(ty: *mut PyTypeObject, index: usize) -> (u64, u64) {
    // SAFETY: a live type; `_PyObject_InlineValues` is at `tp_basicsize`.
    unsafe {
        let base = (*ty).tp_basicsize as u64;
        let value = base + offset_of!(ffi::PyDictValues, values) as u64 + index as u64 * 8;
        (value, base + offset_of!(ffi::PyDictValues, valid) as u64)
    }
}

/// The byte offset of a plain object slot, if a descriptor is one that may be read (and written).
unsafe fn slot_offset(ty: *mut PyTypeObject, descr: *mut PyObject) -> Option<u64> {
    // SAFETY: a live descriptor; its member definition lives as long as it does.
    unsafe {
        if !refs::is_type(descr, &raw const ffi::PyMemberDescr_Type) {
            return None;
        }
        let member = (*descr.cast::<ffi::PyMemberDescrObject>()).d_member;
        let usable = (*member).type_ == ffi::Py_T_OBJECT_EX as i32
            && (*member).flags == 0
            && (*member).offset > 0;
        // A slot of another layout's class never gets here: the descriptor was found on this type.
        let applies = ffi::PyType_IsSubtype(ty, (*descr.cast::<ffi::PyDescrObject>()).d_type) != 0;
        (usable && applies).then_some((*member).offset as u64)
    }
}

/// LOAD_ATTR of a value.
fn values(stubs: &CacheStubs) -> Family {
    Family {
        polymorphic: stubs.attr_polymorphic,
        plain: stubs.register,
        kinds: [
            (stubs.attr_inline, stubs.attr_inline_entry),
            (stubs.attr_slot, stubs.attr_slot_entry),
            (stubs.attr_class, stubs.attr_class_entry),
            (
                stubs.attr_class_unshadowed,
                stubs.attr_class_unshadowed_entry,
            ),
        ],
    }
}

/// LOAD_ATTR in front of a call.
fn methods(stubs: &CacheStubs) -> Family {
    let (class, unshadowed) = (stubs.method_class, stubs.method_class_unshadowed);
    Family {
        polymorphic: stubs.method_polymorphic,
        plain: stubs.register_void,
        kinds: [
            (class, stubs.method_class_entry),
            (unshadowed, stubs.method_class_unshadowed_entry),
            (class, stubs.method_class_entry),
            (unshadowed, stubs.method_class_unshadowed_entry),
        ],
    }
}

/// STORE_ATTR.
fn stores(stubs: &CacheStubs) -> Family {
    let (inline, slot) = (stubs.store_inline, stubs.store_slot);
    Family {
        polymorphic: stubs.store_polymorphic,
        plain: stubs.register_void,
        kinds: [
            (inline, stubs.store_inline_entry),
            (slot, stubs.store_slot_entry),
            (inline, stubs.store_inline_entry),
            (slot, stubs.store_slot_entry),
        ],
    }
}

unsafe fn learn_load(site: *mut Site, owner: *mut PyObject, name: *mut PyObject, method: bool) {
    // SAFETY: owner and name are live; `_PyType_Lookup` borrows from the type, whose version the stubs compare.
    unsafe {
        let plain = |stubs: &CacheStubs| {
            if method {
                stubs.register_void
            } else {
                stubs.register
            }
        };
        let Some(stubs) = note_miss(site, plain) else {
            return;
        };
        let ty = refs::type_of(owner);
        if is_function(ffi::PyModule_Type.tp_getattro, (*ty).tp_getattro) {
            let tag = version(ty);
            if tag != 0
                && let Some(cell) = globals::module_cell(owner, name)
            {
                let target = if method {
                    stubs.method_module
                } else {
                    stubs.attr_module
                };
                // Not the module's address: a later module may get it while functions keep the dictionary alive.
                let dict = (*owner.cast::<ffi::PyModuleObject>()).md_dict;
                set(site, target, [u64::from(tag), cell as u64, 0, dict as u64]);
            }
            return;
        }
        if std::ptr::eq(ty, &raw const ffi::PyType_Type) {
            return learn_type_attribute(site, owner.cast(), name, method);
        }
        if is_function(ffi::PyType_Type.tp_getattro, (*ty).tp_getattro) {
            return learn_of_metaclass(site, stubs, owner.cast(), name, method);
        }
        if !is_function(Some(ffi::PyObject_GenericGetAttr), (*ty).tp_getattro) {
            return;
        }
        let tag = version(ty);
        if tag == 0 {
            return;
        }
        let descr = ffi::_PyType_Lookup(ty, name);
        let descr_type = if descr.is_null() {
            std::ptr::null_mut()
        } else {
            refs::type_of(descr)
        };
        if !descr.is_null() && may_become_descriptor(descr_type) {
            return;
        }
        if !descr.is_null() && (*descr_type).tp_descr_set.is_some() {
            if let (false, Some(offset)) = (method, slot_offset(ty, descr)) {
                add_type(
                    site,
                    &values(stubs),
                    stubs.attr_slot,
                    [u64::from(tag) | offset << 32, 0, 0, 0],
                );
            } else if !method && refs::is_type(descr, &raw const ffi::PyProperty_Type) {
                quick::learn(site, stubs.register_quick, quick::property(descr, tag), 0);
            }
            return;
        }
        let inline = has_inline_values(ty);
        let (index, keys) = if inline {
            shared_key(ty, name)
        } else {
            (None, 0)
        };
        if let Some(index) = index {
            let (value, valid) = inline_offsets(ty, index);
            if method {
                let kind = Kind::InlineValue {
                    offset: value,
                    valid,
                };
                quick_attributes::learn(site, stubs, kind, tag, true);
            } else {
                add_type(
                    site,
                    &values(stubs),
                    stubs.attr_inline,
                    [u64::from(tag) | value << 32, 0, valid, 0],
                );
            }
            return;
        }
        if descr.is_null() {
            return;
        }
        // In front of a call only what binds as a method is looked up without binding; elsewhere only what does not bind at all.
        let binds_as_method =
            refs::type_has_feature(descr_type, u64::from(ffi::Py_TPFLAGS_METHOD_DESCRIPTOR));
        if if method {
            !binds_as_method
        } else {
            (*descr_type).tp_descr_get.is_some()
        } {
            return;
        }
        let bits = cacheable_bits(descr);
        let family = if method {
            methods(stubs)
        } else {
            values(stubs)
        };
        if has_no_dict(ty) {
            let target = if method {
                stubs.method_class
            } else {
                stubs.attr_class
            };
            add_type(site, &family, target, [u64::from(tag), bits, 0, 0]);
        } else if inline {
            let target = if method {
                stubs.method_class_unshadowed
            } else {
                stubs.attr_class_unshadowed
            };
            let (_, valid) = inline_offsets(ty, 0);
            add_type(
                site,
                &family,
                target,
                [u64::from(tag), bits, valid, keys as u64],
            );
        } else if method
            && (*ty).tp_dictoffset > 0
            && !refs::type_has_feature(ty, u64::from(ffi::Py_TPFLAGS_MANAGED_DICT))
        {
            let kind = Kind::WithoutDict {
                method: descr,
                dict: (*ty).tp_dictoffset as usize,
            };
            quick_attributes::learn(site, stubs, kind, tag, true);
        }
    }
}

/// An attribute of a class whose metaclass is another one than `type`, looks attributes up as `type` does, and does not define this one.
unsafe fn learn_of_metaclass(
    site: *mut Site,
    stubs: &CacheStubs,
    class: *mut PyTypeObject,
    name: *mut PyObject,
    method: bool,
) {
    // SAFETY: as `learn_load`.
    unsafe {
        let metaclass = refs::type_of(class.cast());
        if !ffi::_PyType_Lookup(metaclass, name).is_null() {
            return;
        }
        let (meta_tag, tag) = (version(metaclass), version(class));
        let value = ffi::_PyType_Lookup(class, name);
        if meta_tag == 0 || tag == 0 || value.is_null() {
            return;
        }
        let value_type = refs::type_of(value);
        let is_plain = (*value_type).tp_descr_get.is_none()
            || std::ptr::eq(value_type, &raw const ffi::PyFunction_Type);
        let value_class = if may_become_descriptor(value_type) {
            version(value_type)
        } else {
            0
        };
        if !is_plain || may_become_descriptor(value_type) && value_class == 0 {
            return;
        }
        let kind = Kind::OfClass {
            value,
            metaclass: meta_tag,
            value_class,
        };
        quick_attributes::learn(site, stubs, kind, tag, method);
    }
}

/// An attribute of a class whose metaclass is `type` and does not define it.
unsafe fn learn_type_attribute(
    site: *mut Site,
    class: *mut PyTypeObject,
    name: *mut PyObject,
    method: bool,
) {
    // SAFETY: as `learn_load`.
    unsafe {
        let Some(stubs) = super::stubs() else { return };
        if !ffi::_PyType_Lookup(&raw mut ffi::PyType_Type, name).is_null() {
            return;
        }
        let tag = version(class);
        let value = ffi::_PyType_Lookup(class, name);
        if tag == 0 || value.is_null() {
            return;
        }
        let value_type = refs::type_of(value);
        if may_become_descriptor(value_type) {
            return;
        }
        // A function accessed through its class is itself.
        let plain = (*value_type).tp_descr_get.is_none()
            || std::ptr::eq(value_type, &raw const ffi::PyFunction_Type);
        if plain {
            let target = if method {
                stubs.method_type
            } else {
                stubs.attr_type
            };
            set(site, target, [u64::from(tag), cacheable_bits(value), 0, 0]);
        }
    }
}

unsafe fn learn_store(site: *mut Site, owner: *mut PyObject, name: *mut PyObject) {
    // SAFETY: as `learn_load`.
    unsafe {
        let Some(stubs) = note_miss(site, |stubs| stubs.register_void) else {
            return;
        };
        let ty = refs::type_of(owner);
        let generic: ffi::setattrofunc = Some(ffi::PyObject_GenericSetAttr);
        if (*ty).tp_setattro.map(|f| f as usize) != generic.map(|f| f as usize) {
            return;
        }
        let tag = version(ty);
        if tag == 0 {
            return;
        }
        let descr = ffi::_PyType_Lookup(ty, name);
        if !descr.is_null() && may_become_descriptor(refs::type_of(descr)) {
            return;
        }
        if !descr.is_null() && (*refs::type_of(descr)).tp_descr_set.is_some() {
            if let Some(offset) = slot_offset(ty, descr) {
                add_type(
                    site,
                    &stores(stubs),
                    stubs.store_slot,
                    [u64::from(tag) | offset << 32, 0, 0, 0],
                );
            }
            return;
        }
        if has_inline_values(ty)
            && let (Some(index), _) = shared_key(ty, name)
        {
            let (value, valid) = inline_offsets(ty, index);
            add_type(
                site,
                &stores(stubs),
                stubs.store_inline,
                [u64::from(tag) | value << 32, index as u64, valid, 0],
            );
        }
    }
}

/// Whether `__get__` or `__set__` may appear in or vanish from a class that is the type of a class attribute: the version of the attribute's class does not tell.
unsafe fn may_become_descriptor(ty: *mut PyTypeObject) -> bool {
    // SAFETY: `ty` is a live type.
    unsafe { !refs::type_has_feature(ty, u64::from(ffi::Py_TPFLAGS_IMMUTABLETYPE)) }
}

/// Whether a type's `tp_getattro` is a given function.
fn is_function(wanted: ffi::getattrofunc, found: ffi::getattrofunc) -> bool {
    wanted.map(|f| f as usize) == found.map(|f| f as usize)
}
