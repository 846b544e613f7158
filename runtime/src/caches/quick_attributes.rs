//! Quick helpers of LOAD_ATTR, for owners that have no stub of their own: classes with a metaclass, attributes of instances that are called, methods of builtin objects with a
//! dictionary that is not there yet.
//!
//! Payload: word 0 = the helper, word 1 = its own, word 2 low = the version of the owner's class (of the owner itself where that is a class), word 3 = as each says.

use hotstamp_layout::ffi::{PyObject, PyThreadState, PyTypeObject};
use hotstamp_layout::refs::{self, StackRef};

use super::attributes::{load_attr, load_method};
use super::quick::register_helpers;
use super::{CacheStubs, set};
use crate::Frame;
use crate::site::{RegisterHelper, Site};

/// What a site learns.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// An attribute of a class: the value (borrowed from the class while it has the version), the version of the metaclass, and that of the value's class if that is one that may
    /// change (else 0).
    OfClass {
        value: *mut PyObject,
        metaclass: u32,
        value_class: u32,
    },
    /// A value that the instance keeps inline, in front of a call: byte offsets of the value and of the flag that says whether the inline values are in use.
    InlineValue { offset: u64, valid: u64 },
    /// What binds as a method (borrowed from the class while it has the version), unless the instance has a dictionary by now: the byte offset of the pointer to that.
    WithoutDict { method: *mut PyObject, dict: usize },
}

/// Points a site at the helper of a kind, unless it distinguishes classes already.
///
/// # Safety
/// The site has a payload; what the kind says is true of the class with this version. GIL held.
pub(super) unsafe fn learn(
    site: *mut Site,
    stubs: &CacheStubs,
    kind: Kind,
    version: u32,
    before_call: bool,
) {
    let (helper, first, third): (RegisterHelper, u64, u64) = match kind {
        Kind::OfClass {
            value,
            metaclass,
            value_class,
        } => {
            let helper = if before_call {
                method_of_class
            } else {
                attribute_of_class
            };
            let versions = u64::from(metaclass) | u64::from(value_class) << 32;
            (helper, value as u64, versions)
        }
        Kind::InlineValue { offset, valid } => (called_value, offset, valid),
        Kind::WithoutDict { method, dict } => (method_without_dict, method as u64, dict as u64),
    };
    let (stub, polymorphic) = if before_call {
        (stubs.register_quick_void, stubs.method_polymorphic)
    } else {
        (stubs.register_quick, stubs.attr_polymorphic)
    };
    // SAFETY: passed on.
    unsafe {
        if (*site).target == polymorphic {
            return;
        }
        set(
            site,
            stub,
            [helper as usize as u64, first, u64::from(version), third],
        );
    }
}

/// The value that a site remembers for a class, if this is the class.
#[inline(always)]
unsafe fn remembered_of_class(site: *mut Site, owner: *mut PyObject) -> Option<*mut PyObject> {
    // SAFETY: a live owner; with the metaclass's version it is a class. The class keeps the value alive while it has the version.
    unsafe {
        let words = (*Site::payload(site)).words;
        let (metaclass, value_class) = (words[3] as u32, (words[3] >> 32) as u32);
        if (*refs::type_of(owner)).tp_version_tag != metaclass
            || (*owner.cast::<PyTypeObject>()).tp_version_tag != words[2] as u32
        {
            return None;
        }
        let value = words[1] as *mut PyObject;
        (value_class == 0 || (*refs::type_of(value)).tp_version_tag == value_class).then_some(value)
    }
}

/// Writes a callable that takes no self to the operand stack; the owner that it was found in is closed.
#[inline(always)]
unsafe fn push_callable(frame: *mut Frame, callable: *mut PyObject, owner: StackRef) -> StackRef {
    // SAFETY: as `push_pair`; the owner is the caller's to close.
    unsafe {
        let pushed = push_pair(frame, StackRef::from_new(callable), StackRef::NULL);
        owner.close();
        pushed
    }
}

/// Writes callable and self (or null) to the operand stack, as `load_method` does.
#[inline(always)]
unsafe fn push_pair(frame: *mut Frame, callable: StackRef, receiver: StackRef) -> StackRef {
    // SAFETY: the stack has room for both, since the instruction pushes them.
    unsafe {
        let slots = (*frame).stackpointer.cast::<StackRef>();
        slots.write(callable);
        slots.add(1).write(receiver);
        // Both count as pushed from here on, should the frame leave.
        (*frame).stackpointer = (*frame).stackpointer.add(2);
        StackRef::none()
    }
}

register_helpers! {
    /// An attribute of a class, for its value.
    attribute_of_class(owner, second, third, site, frame) or load_attr {
        remembered_of_class(site, owner.as_ptr_borrow()).map(|value| {
            let value = StackRef::from_new(value);
            owner.close();
            value
        })
    }

    /// An attribute of a class, in front of a call.
    method_of_class(owner, second, third, site, frame) or load_method {
        remembered_of_class(site, owner.as_ptr_borrow()).map(|value| push_callable(frame, value, owner))
    }

    /// A value that an instance keeps inline, in front of a call; offsets lie within instances of the class that has the version.
    called_value(owner, second, third, site, frame) or load_method {
        let words = (*Site::payload(site)).words;
        let object = owner.as_ptr_borrow();
        if (*refs::type_of(object)).tp_version_tag == words[2] as u32
            && *object.byte_add(words[3] as usize).cast::<u8>() != 0
        {
            let value = *object.byte_add(words[1] as usize).cast::<*mut PyObject>();
            (!value.is_null()).then(|| push_callable(frame, value, owner))
        } else {
            None
        }
    }

    /// A method of an object whose dictionary is not there yet; the class keeps the method alive while it has the version.
    method_without_dict(owner, second, third, site, frame) or load_method {
        let words = (*Site::payload(site)).words;
        let object = owner.as_ptr_borrow();
        ((*refs::type_of(object)).tp_version_tag == words[2] as u32
            && (*object.byte_add(words[3] as usize).cast::<*mut PyObject>()).is_null())
        .then(|| push_pair(frame, StackRef::from_new(words[1] as *mut PyObject), owner))
    }
}
