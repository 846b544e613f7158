//! BINARY_OP, COMPARE_OP, CONTAINS_OP, STORE_SUBSCR and TO_BOOL.

use hotstamp_layout::array;
use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::{CacheStubs, is_stale, note_miss, quick, set};
use crate::Frame;
use crate::helpers::operators::{reg_binary_op, reg_compare_op, reg_contains_op, reg_to_bool};
use crate::helpers::subscripts::reg_store_subscr;
use crate::site::{CodePtr, Site};

/// Whether an object is an int of one digit.
unsafe fn is_small_int(object: *mut PyObject) -> bool {
    // SAFETY: a live object.
    unsafe { refs::is_exact_long(object) && refs::long_is_compact(object.cast()) }
}

/// The low byte of payload word 3 says what kinds of operands a site has seen when it missed. What goes with a kind is in the other bytes.
pub const SAW_KINDS: u64 = 0xff;
/// Two ints of at most two digits.
pub const SAW_INTS: u64 = 1;
/// Two floats.
pub const SAW_FLOATS: u64 = 2;
/// Such an int and a float.
pub const SAW_MIXED: u64 = 4;
/// Anything else.
pub const SAW_OTHER: u64 = 8;
/// An `array.array` subscripted with an int; with it its `ob_descr`.
pub const SAW_ARRAY: u64 = 16;
/// An instance of a Python class on the left (a subscript: as the container); with it `Versions`.
pub const SAW_INSTANCE: u64 = 32;
/// STORE_SUBSCR: a list with an int as subscript.
pub const SAW_LIST: u64 = 64;
/// A list subscripted with a slice.
pub const SAW_SLICE: u64 = 128;
/// COMPARE_OP: two objects that are equal if they are the same.
pub const SAW_OBJECTS: u64 = 64;

/// Whether the class of an object leaves comparisons to `object`.
unsafe fn compares_addresses(object: *mut PyObject) -> bool {
    // SAFETY: a live object; static classes.
    unsafe {
        let default = (&raw const ffi::PyBaseObject_Type.tp_richcompare).read();
        let compare = (*refs::type_of(object)).tp_richcompare;
        compare.map(|function| function as usize) == default.map(|function| function as usize)
    }
}

/// What goes with a site's kinds.
pub fn seen_with(word: u64) -> u64 {
    word >> 8
}

/// Version tags of the operands' classes in 28 bits each; of the right one 0 if it does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of the left operand.
    pub left: u32,
    /// Of the right operand.
    pub right: u32,
}

impl Versions {
    const BITS: u32 = 28;

    fn pack(self) -> Option<u64> {
        let fits = |version: u32| version >> Self::BITS == 0;
        (fits(self.left) && fits(self.right))
            .then(|| u64::from(self.left) | u64::from(self.right) << Self::BITS)
    }

    /// From what goes with `SAW_INSTANCE`.
    pub fn unpack(noted: u64) -> Versions {
        let mask = (1 << Self::BITS) - 1;
        Versions {
            left: (noted & mask) as u32,
            right: (noted >> Self::BITS & mask) as u32,
        }
    }
}

/// Notes what kinds of operands an operation had, for the optimizer.
unsafe fn note_kinds(site: *mut Site, left: *mut PyObject, right: *mut PyObject) {
    // SAFETY: live objects; the site has a payload.
    unsafe {
        let kind = |object| match (is_short_int(object), refs::is_exact_float(object)) {
            (true, _) => 0,
            (_, true) => 1,
            _ => 2,
        };
        let saw = match (kind(left), kind(right)) {
            (0, 0) => SAW_INTS,
            (1, 1) => SAW_FLOATS,
            (0, 1) | (1, 0) => SAW_MIXED,
            (2, _) => {
                let subscript = (*site).oparg == ffi::NB_SUBSCR;
                return note_left(site, left, right, subscript);
            }
            _ => SAW_OTHER,
        };
        (*Site::payload(site)).words[3] |= saw;
    }
}

/// Notes what a left operand is that is no number.
unsafe fn note_left(site: *mut Site, left: *mut PyObject, right: *mut PyObject, subscript: bool) {
    // SAFETY: live objects; the site has a payload.
    unsafe {
        let word = &raw mut (*Site::payload(site)).words[3];
        let (saw, with) = seen_left(left, right, subscript);
        let noted = seen_with(*word);
        let is_outdated =
            *word & SAW_ARRAY == 0 && noted != 0 && is_stale(Versions::unpack(noted).left);
        if with == 0 || noted == with {
            *word |= saw;
        } else if noted == 0 || is_outdated {
            *word = *word & SAW_KINDS | saw | with << 8;
        } else {
            *word |= SAW_OTHER;
        }
    }
}

/// The kind of a left operand that is no number, and what goes with it (0 for nothing).
unsafe fn seen_left(left: *mut PyObject, right: *mut PyObject, subscript: bool) -> (u64, u64) {
    // SAFETY: live objects.
    unsafe {
        if subscript
            && refs::is_exact_list(left)
            && refs::is_type(right, &raw const ffi::PySlice_Type)
        {
            return (SAW_SLICE, 0);
        }
        if subscript && is_short_int(right) {
            let descr = array::descr_of(left) as u64;
            // User space ends far below.
            if descr != 0 && descr >> 56 == 0 {
                return (SAW_ARRAY, descr);
            }
        }
        let (ours, theirs) = (refs::type_of(left), refs::type_of(right));
        if (*ours).tp_flags & u64::from(ffi::Py_TPFLAGS_HEAPTYPE) == 0
            || ffi::PyUnstable_Type_AssignVersionTag(ours) == 0
            || ffi::PyUnstable_Type_AssignVersionTag(theirs) == 0
        {
            return (SAW_OTHER, 0);
        }
        let versions = Versions {
            left: (*ours).tp_version_tag,
            right: if subscript {
                0
            } else {
                (*theirs).tp_version_tag
            },
        };
        match versions.pack() {
            Some(with) => (SAW_INSTANCE, with),
            None => (SAW_OTHER, 0),
        }
    }
}

/// `BINARY_OP`. Register helper: `acc` is the left operand, `b` the right.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn binary_op(
    acc: StackRef,
    b: StackRef,
    c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: passed on.
    unsafe {
        if let Some(stubs) = note_miss(site, |stubs| stubs.register) {
            let (left, right) = (acc.as_ptr_borrow(), b.as_ptr_borrow());
            note_kinds(site, left, right);
            let kinds = (*Site::payload(site)).words[3];
            if let Some(target) = binary_stub(stubs, (*site).oparg, left, right) {
                set(site, target, [0, 0, 0, kinds]);
            } else if let Some(quick) = quick::binary((*site).oparg, left, right) {
                quick::learn(site, stubs.register_quick, quick, kinds);
            }
        } else {
            quick::give_up(site, reg_binary_op);
        }
        reg_binary_op(acc, b, c, site, frame, tstate)
    }
}

/// The value of an exact int of at most two digits.
///
/// # Safety
/// A live object.
#[inline]
pub(super) unsafe fn short_int(object: *mut PyObject) -> Option<i64> {
    // SAFETY: an int has room for one digit at least, and for two where its tag says so.
    unsafe {
        if !is_short_int(object) {
            return None;
        }
        let value = &raw const (*object.cast::<ffi::PyLongObject>()).long_value;
        let tag = (*value).lv_tag;
        let digits = (&raw const (*value).ob_digit).cast::<ffi::digit>();
        let mut size = i64::from(*digits);
        if tag >> ffi::_PyLong_NON_SIZE_BITS == 2 {
            size |= i64::from(*digits.add(1)) << ffi::PyLong_SHIFT;
        }
        Some(if tag & ffi::SIGN_NEGATIVE as usize != 0 {
            -size
        } else {
            size
        })
    }
}

/// Whether an object is an int of at most two digits, which the arithmetic stubs take.
unsafe fn is_short_int(object: *mut PyObject) -> bool {
    // SAFETY: a live object; the tag holds the number of digits above its lowest bits.
    unsafe {
        refs::is_exact_long(object)
            && (*object.cast::<ffi::PyLongObject>()).long_value.lv_tag
                < 3 << ffi::_PyLong_NON_SIZE_BITS
    }
}

unsafe fn binary_stub(
    stubs: &CacheStubs,
    oparg: u32,
    left: *mut PyObject,
    right: *mut PyObject,
) -> Option<CodePtr> {
    // SAFETY: live objects.
    unsafe {
        if is_short_int(left) && is_short_int(right) {
            return match oparg {
                ffi::NB_ADD | ffi::NB_INPLACE_ADD => Some(stubs.int_add),
                ffi::NB_SUBTRACT | ffi::NB_INPLACE_SUBTRACT => Some(stubs.int_sub),
                ffi::NB_MULTIPLY | ffi::NB_INPLACE_MULTIPLY => Some(stubs.int_mul),
                ffi::NB_AND | ffi::NB_INPLACE_AND => Some(stubs.int_and),
                ffi::NB_OR | ffi::NB_INPLACE_OR => Some(stubs.int_or),
                ffi::NB_XOR | ffi::NB_INPLACE_XOR => Some(stubs.int_xor),
                _ => None,
            };
        }
        if refs::is_exact_float(left) && refs::is_exact_float(right) {
            return match oparg {
                ffi::NB_ADD | ffi::NB_INPLACE_ADD => Some(stubs.float_add),
                ffi::NB_SUBTRACT | ffi::NB_INPLACE_SUBTRACT => Some(stubs.float_sub),
                ffi::NB_MULTIPLY | ffi::NB_INPLACE_MULTIPLY => Some(stubs.float_mul),
                ffi::NB_TRUE_DIVIDE | ffi::NB_INPLACE_TRUE_DIVIDE => Some(stubs.float_div),
                _ => None,
            };
        }
        if oparg == ffi::NB_SUBSCR && is_small_int(right) {
            if refs::is_exact_list(left) {
                return Some(stubs.list_subscript);
            }
            if refs::is_exact_tuple(left) {
                return Some(stubs.tuple_subscript);
            }
        }
        None
    }
}

/// `COMPARE_OP`. Register helper: `acc` is the left operand, `b` the right.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn compare_op(
    acc: StackRef,
    b: StackRef,
    c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: passed on.
    unsafe {
        if let Some(stubs) = note_miss(site, |stubs| stubs.register) {
            let (left, right) = (acc.as_ptr_borrow(), b.as_ptr_borrow());
            // The comparison is in the upper bits, `Py_LT` to `Py_GE`.
            let operation = ((*site).oparg >> 5) as usize;
            let ints = [
                stubs.int_lt,
                stubs.int_le,
                stubs.int_eq,
                stubs.int_ne,
                stubs.int_gt,
                stubs.int_ge,
            ];
            let floats = [
                stubs.float_lt,
                stubs.float_le,
                stubs.float_eq,
                stubs.float_ne,
                stubs.float_gt,
                stubs.float_ge,
            ];
            if compares_addresses(left) && compares_addresses(right) {
                (*Site::payload(site)).words[3] |= SAW_OBJECTS;
            } else {
                note_kinds(site, left, right);
            }
            let words = [0, 0, 0, (*Site::payload(site)).words[3]];
            if is_short_int(left) && is_short_int(right) {
                set(site, ints[operation], words);
            } else if refs::is_exact_float(left) && refs::is_exact_float(right) {
                set(site, floats[operation], words);
            } else if let Some(helper) = quick::comparison(operation as u32, left, right) {
                quick::learn(site, stubs.register_quick, helper.into(), words[3]);
            }
        } else {
            quick::give_up(site, reg_compare_op);
        }
        reg_compare_op(acc, b, c, site, frame, tstate)
    }
}

/// `CONTAINS_OP`. Register helper: `acc` is what is looked for, `b` the container.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn contains_op(
    acc: StackRef,
    b: StackRef,
    c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: passed on.
    unsafe {
        if let Some(stubs) = note_miss(site, |stubs| stubs.register) {
            if let Some(helper) = quick::containment(acc.as_ptr_borrow(), b.as_ptr_borrow()) {
                quick::learn(site, stubs.register_quick, helper.into(), 0);
            }
        } else {
            quick::give_up(site, reg_contains_op);
        }
        reg_contains_op(acc, b, c, site, frame, tstate)
    }
}

/// `STORE_SUBSCR`. Register helper: `acc` is the value, `b` the container, `c` the subscript.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn store_subscr(
    acc: StackRef,
    b: StackRef,
    c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: passed on.
    unsafe {
        if let Some(stubs) = note_miss(site, |stubs| stubs.register_void) {
            let (container, subscript) = (b.as_ptr_borrow(), c.as_ptr_borrow());
            let is_list = refs::is_exact_list(container) && is_small_int(subscript);
            if is_list {
                (*Site::payload(site)).words[3] |= SAW_LIST;
            } else {
                note_left(site, container, subscript, true);
            }
            let kinds = (*Site::payload(site)).words[3];
            if is_list {
                set(site, stubs.store_list, [0, 0, 0, kinds]);
            } else if let Some(quick) = quick::store(container) {
                quick::learn(site, stubs.register_quick_void, quick, kinds);
            }
        } else {
            quick::give_up_void(site, reg_store_subscr);
        }
        reg_store_subscr(acc, b, c, site, frame, tstate)
    }
}

/// `TO_BOOL`. Register helper: `acc` is the operand. The stub `to_bool_word` takes types whose objects are true where the word at an offset is at least a limit (unsigned):
/// word 0 of the payload is the type's version, word 1 the offset, word 3 the limit.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn to_bool(
    acc: StackRef,
    b: StackRef,
    c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: passed on; a live type.
    unsafe {
        if let Some(stubs) = note_miss(site, |stubs| stubs.register) {
            let ty = refs::type_of(acc.as_ptr_borrow());
            if let Some((offset, limit)) = truth_word(ty)
                && ((*ty).tp_version_tag != 0 || ffi::PyUnstable_Type_AssignVersionTag(ty) != 0)
            {
                let version = u64::from((*ty).tp_version_tag);
                set(site, stubs.to_bool_word, [version, offset as u64, 0, limit]);
            }
        } else {
            quick::give_up(site, reg_to_bool);
        }
        reg_to_bool(acc, b, c, site, frame, tstate)
    }
}

/// The offset of the word that says whether objects of a type are true, and the least value of true ones.
unsafe fn truth_word(ty: *mut ffi::PyTypeObject) -> Option<(usize, u64)> {
    let size = std::mem::offset_of!(ffi::PyVarObject, ob_size);
    let is = |other: *const ffi::PyTypeObject| std::ptr::eq(ty, other);
    // SAFETY: a live type.
    unsafe {
        if is(&raw const ffi::PyList_Type)
            || is(&raw const ffi::PyTuple_Type)
            || is(&raw const ffi::PyBytes_Type)
        {
            return Some((size, 1));
        }
        if is(&raw const ffi::PyUnicode_Type) {
            return Some((std::mem::offset_of!(ffi::PyASCIIObject, length), 1));
        }
        if is(&raw const ffi::PyDict_Type) {
            return Some((std::mem::offset_of!(ffi::PyDictObject, ma_used), 1));
        }
        if is(&raw const ffi::PySet_Type) || is(&raw const ffi::PyFrozenSet_Type) {
            return Some((std::mem::offset_of!(ffi::PySetObject, used), 1));
        }
        if is(&raw const ffi::PyLong_Type) {
            // A digit at least: zero has none.
            let tag = std::mem::offset_of!(ffi::PyLongObject, long_value)
                + std::mem::offset_of!(ffi::_PyLongValue, lv_tag);
            return Some((tag, 1 << ffi::_PyLong_NON_SIZE_BITS));
        }
        if is(refs::type_of(&raw mut ffi::_Py_NoneStruct)) {
            return Some((0, u64::MAX));
        }
        // Instances of classes that do not say: all are true.
        let says = (!(*ty).tp_as_number.is_null() && (*(*ty).tp_as_number).nb_bool.is_some())
            || (!(*ty).tp_as_mapping.is_null() && (*(*ty).tp_as_mapping).mp_length.is_some())
            || (!(*ty).tp_as_sequence.is_null() && (*(*ty).tp_as_sequence).sq_length.is_some());
        (!says).then_some((0, 0))
    }
}
