//! BINARY_OP and COMPARE_OP.

use hotstamp_layout::array;
use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::{CacheStubs, is_stale, note_miss, set};
use crate::Frame;
use crate::helpers::operators::{reg_binary_op, reg_compare_op};
use crate::helpers::subscripts::reg_store_subscr;
use crate::site::{CodePtr, Site};

/// Whether an object is an int of one digit.
unsafe fn is_small_int(object: *mut PyObject) -> bool {
    // SAFETY: a live object.
    unsafe { refs::is_exact_long(object) && refs::long_is_compact(object.cast()) }
}

/// Payload word 3 says what kinds of operands a site has seen when it missed: two ints of at most two digits.
pub const SAW_INTS: u64 = 1;
/// As `SAW_INTS`: two floats.
pub const SAW_FLOATS: u64 = 2;
/// As `SAW_INTS`: such an int and a float.
pub const SAW_MIXED: u64 = 4;
/// As `SAW_INTS`: anything else.
pub const SAW_OTHER: u64 = 8;
/// As `SAW_INTS`: an `array.array` subscripted with an int; word 0 is its `ob_descr`.
pub const SAW_ARRAY: u64 = 16;
/// As `SAW_INTS`: an instance of a Python class on the left (a subscript: as the container); word 0 has the version tags of the operands' classes, the left one in its low half.
pub const SAW_INSTANCE: u64 = 32;
/// STORE_SUBSCR: a list with an int as subscript.
pub const SAW_LIST: u64 = 64;
/// As `SAW_INTS`: a list subscripted with a slice.
pub const SAW_SLICE: u64 = 128;

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
            (2, _) => note_left(site, left, right, (*site).oparg == ffi::NB_SUBSCR),
            _ => SAW_OTHER,
        };
        (*Site::payload(site)).words[3] |= saw;
    }
}

/// What a left operand is that is no number; what goes with it is noted in word 0, which belongs to this while the site's target is a plain stub.
unsafe fn note_left(
    site: *mut Site,
    left: *mut PyObject,
    right: *mut PyObject,
    subscript: bool,
) -> u64 {
    // SAFETY: live objects; the site has a payload.
    unsafe {
        if subscript
            && refs::is_exact_list(left)
            && refs::is_type(right, &raw const ffi::PySlice_Type)
        {
            return SAW_SLICE;
        }
        let (saw, word) = if subscript && is_short_int(right) && !array::descr_of(left).is_null() {
            (SAW_ARRAY, array::descr_of(left) as u64)
        } else {
            let (ours, theirs) = (refs::type_of(left), refs::type_of(right));
            if (*ours).tp_flags & u64::from(ffi::Py_TPFLAGS_HEAPTYPE) == 0
                || ffi::PyUnstable_Type_AssignVersionTag(ours) == 0
                || ffi::PyUnstable_Type_AssignVersionTag(theirs) == 0
            {
                return SAW_OTHER;
            }
            let theirs = if subscript {
                0
            } else {
                (*theirs).tp_version_tag
            };
            let versions = u64::from((*ours).tp_version_tag) | u64::from(theirs) << 32;
            (SAW_INSTANCE, versions)
        };
        let payload = Site::payload(site);
        let noted = (*payload).words[0];
        let outdated = (*payload).words[3] & SAW_ARRAY == 0 && is_stale(noted as u32);
        if noted != 0 && noted != word && !outdated {
            return SAW_OTHER;
        }
        (*payload).words[0] = word;
        saw
    }
}

/// `STORE_SUBSCR`. Register helper: `acc` is the value, `b` the container, `c` the subscript.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn store_subscript(
    acc: StackRef,
    b: StackRef,
    c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: passed on.
    unsafe {
        if note_miss(site, |stubs| stubs.register_void).is_some() {
            let (container, subscript) = (b.as_ptr_borrow(), c.as_ptr_borrow());
            (*Site::payload(site)).words[3] |=
                if refs::is_exact_list(container) && is_small_int(subscript) {
                    SAW_LIST
                } else {
                    note_left(site, container, subscript, true)
                };
        }
        reg_store_subscr(acc, b, c, site, frame, tstate)
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
            if let Some(target) = binary_stub(stubs, (*site).oparg, left, right) {
                set(site, target, [0, 0, 0, (*Site::payload(site)).words[3]]);
            }
        }
        reg_binary_op(acc, b, c, site, frame, tstate)
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
            note_kinds(site, left, right);
            let words = [0, 0, 0, (*Site::payload(site)).words[3]];
            if is_short_int(left) && is_short_int(right) {
                set(site, ints[operation], words);
            } else if refs::is_exact_float(left) && refs::is_exact_float(right) {
                set(site, floats[operation], words);
            }
        }
        reg_compare_op(acc, b, c, site, frame, tstate)
    }
}
