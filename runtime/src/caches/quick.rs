//! Quick helpers: what a site calls once it has seen operands of a kind that has a short way, but no stub of its own.
//!
//! The stubs `register_quick` and `register_quick_void` call the helper in payload word 0. Each looks at its operands first, and gives those of another kind to the site's
//! miss helper, which may choose anew. Words 1 and 2 (low) are the helper's, word 3 is the opcode's.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs::{self, StackRef};

use super::attributes::{load_attr, version};
use super::calls::call_python;
use super::operators::{binary_op, compare_op, contains_op, short_int, store_subscr};
use super::{set, stubs};
use crate::Frame;
use crate::helpers::RAISED;
use crate::site::{CodePtr, RegisterHelper, Site};

/// Points a site that changed its mind too often at its opcode's general helper, for good.
///
/// # Safety
/// The site has a payload; GIL held.
pub(super) unsafe fn give_up(site: *mut Site, general: RegisterHelper) {
    if let Some(stubs) = stubs() {
        // SAFETY: passed on.
        unsafe { point_at(site, stubs.register_quick, general) };
    }
}

/// As `give_up`, for operations without a value.
///
/// # Safety
/// As `give_up`.
pub(super) unsafe fn give_up_void(site: *mut Site, general: RegisterHelper) {
    if let Some(stubs) = stubs() {
        // SAFETY: passed on.
        unsafe { point_at(site, stubs.register_quick_void, general) };
    }
}

unsafe fn point_at(site: *mut Site, stub: CodePtr, helper: RegisterHelper) {
    // SAFETY: the site has a payload.
    unsafe {
        let words = (*Site::payload(site)).words;
        set(site, stub, [helper as usize as u64, 0, words[2], words[3]]);
    }
}

/// Points a site at a quick helper.
///
/// # Safety
/// The site has a payload; GIL held.
pub(super) unsafe fn learn(site: *mut Site, stub: CodePtr, quick: Quick, kinds: u64) {
    // SAFETY: passed on.
    unsafe {
        let helper = quick.helper as usize as u64;
        set(
            site,
            stub,
            [
                helper,
                quick.function as u64,
                u64::from(quick.version),
                kinds,
            ],
        );
    }
}

/// A quick helper with what it finds in payload words 1 and 2 (low): a function (borrowed from a class while it has the version), and the version.
pub(super) struct Quick {
    helper: RegisterHelper,
    function: *mut PyObject,
    version: u32,
}

impl From<RegisterHelper> for Quick {
    fn from(helper: RegisterHelper) -> Self {
        Quick {
            helper,
            function: std::ptr::null_mut(),
            version: 0,
        }
    }
}

/// `helper` for instances of a class that defines this method in Python.
unsafe fn python_method(
    helper: RegisterHelper,
    object: *mut PyObject,
    name: *mut PyObject,
) -> Option<Quick> {
    // SAFETY: a live object, and an interned name; what the class holds is borrowed from it.
    unsafe {
        let ty = refs::type_of(object);
        if !refs::type_has_feature(ty, u64::from(ffi::Py_TPFLAGS_HEAPTYPE)) {
            return None;
        }
        let function = ffi::_PyType_Lookup(ty, name);
        if function.is_null() || !refs::is_type(function, &raw const ffi::PyFunction_Type) {
            return None;
        }
        let version = version(ty);
        (version != 0).then_some(Quick {
            helper,
            function,
            version,
        })
    }
}

/// The function that a site remembers for objects like this one.
unsafe fn remembered(site: *mut Site, object: *mut PyObject) -> Option<*mut PyObject> {
    // SAFETY: a live object; the class keeps the function alive while it has the version.
    unsafe {
        let words = (*Site::payload(site)).words;
        ((*refs::type_of(object)).tp_version_tag == words[2] as u32)
            .then_some(words[1] as *mut PyObject)
    }
}

/// An interned name that CPython has.
macro_rules! identifier {
    ($name:ident) => {
        (&raw mut ffi::_PyRuntime
            .static_objects
            .singletons
            .strings
            .identifiers
            .$name)
            .cast::<PyObject>()
    };
}

/// object[key], by a Python `__getitem__`.
unsafe extern "C" fn python_getitem(
    object: StackRef,
    key: StackRef,
    third: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operands are ours to hand on.
    unsafe {
        if let Some(function) = remembered(site, object.as_ptr_borrow())
            && let Some(result) = call_python(tstate, function.cast(), [object, key])
        {
            return if result.is_null() {
                RAISED
            } else {
                StackRef::from_steal(result)
            };
        }
        binary_op(object, key, third, site, frame, tstate)
    }
}

/// object[key] = value, by a Python `__setitem__`.
unsafe extern "C" fn python_setitem(
    value: StackRef,
    object: StackRef,
    key: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operands are ours to hand on.
    unsafe {
        if let Some(function) = remembered(site, object.as_ptr_borrow())
            && let Some(result) = call_python(tstate, function.cast(), [object, key, value])
        {
            if result.is_null() {
                return RAISED;
            }
            refs::decref(result);
            return StackRef::none();
        }
        store_subscr(value, object, key, site, frame, tstate)
    }
}

/// A property whose getter is a Python function.
///
/// # Safety
/// A live property, found in the class of the objects that have the version.
pub(super) unsafe fn property(property: *mut PyObject, version: u32) -> Quick {
    Quick {
        helper: load_property,
        function: property,
        version,
    }
}

/// LOAD_ATTR of a property.
unsafe extern "C" fn load_property(
    object: StackRef,
    second: StackRef,
    third: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operand is ours to hand on; the getter may be exchanged (`property.__init__`), so it is held.
    unsafe {
        if let Some(property) = remembered(site, object.as_ptr_borrow()) {
            let getter = (*property.cast::<ffi::propertyobject>()).prop_get;
            if !getter.is_null()
                && refs::is_type(getter, &raw const ffi::PyFunction_Type)
                && let Some(result) = call_python(tstate, getter.cast(), [object])
            {
                return if result.is_null() {
                    RAISED
                } else {
                    StackRef::from_steal(result)
                };
            }
        }
        load_attr(object, second, third, site, frame, tstate)
    }
}

/// The quick helper of a `BINARY_OP` for operands like these.
///
/// # Safety
/// Live objects.
pub(super) unsafe fn binary(
    operation: u32,
    left: *mut PyObject,
    right: *mut PyObject,
) -> Option<Quick> {
    // SAFETY: passed on.
    unsafe {
        if operation == ffi::NB_SUBSCR
            && let Some(quick) = python_method(python_getitem, left, identifier!(_py___getitem__))
        {
            return Some(quick);
        }
        binary_of_builtins(operation, left, right).map(Quick::from)
    }
}

unsafe fn binary_of_builtins(
    operation: u32,
    left: *mut PyObject,
    right: *mut PyObject,
) -> Option<RegisterHelper> {
    // SAFETY: live objects.
    unsafe {
        if short_int(left).is_some() && short_int(right).is_some() {
            return match operation {
                ffi::NB_FLOOR_DIVIDE | ffi::NB_INPLACE_FLOOR_DIVIDE => Some(int_floor_divide),
                ffi::NB_REMAINDER | ffi::NB_INPLACE_REMAINDER => Some(int_remainder),
                ffi::NB_LSHIFT | ffi::NB_INPLACE_LSHIFT => Some(int_shift_left),
                ffi::NB_RSHIFT | ffi::NB_INPLACE_RSHIFT => Some(int_shift_right),
                ffi::NB_TRUE_DIVIDE | ffi::NB_INPLACE_TRUE_DIVIDE => Some(mixed_divide),
                _ => None,
            };
        }
        if number(left).is_some() && number(right).is_some() {
            return match operation {
                ffi::NB_ADD | ffi::NB_INPLACE_ADD => Some(mixed_add),
                ffi::NB_SUBTRACT | ffi::NB_INPLACE_SUBTRACT => Some(mixed_subtract),
                ffi::NB_MULTIPLY | ffi::NB_INPLACE_MULTIPLY => Some(mixed_multiply),
                ffi::NB_TRUE_DIVIDE | ffi::NB_INPLACE_TRUE_DIVIDE => Some(mixed_divide),
                _ => None,
            };
        }
        match operation {
            ffi::NB_ADD | ffi::NB_INPLACE_ADD
                if refs::is_exact_unicode(left) && refs::is_exact_unicode(right) =>
            {
                Some(str_concatenate)
            }
            ffi::NB_SUBSCR if refs::is_exact_dict(left) => Some(dict_subscript),
            ffi::NB_SUBSCR if refs::is_exact_unicode(left) && short_int(right).is_some() => {
                Some(str_subscript)
            }
            _ => None,
        }
    }
}

/// An int of at most two digits or a float, as a float. The conversion rounds as Python's does.
unsafe fn number(object: *mut PyObject) -> Option<f64> {
    // SAFETY: a live object.
    unsafe {
        if refs::is_exact_float(object) {
            return Some((*object.cast::<ffi::PyFloatObject>()).ob_fval);
        }
        short_int(object).map(|value| value as f64)
    }
}

/// Register helpers for one kind of operands each: the body gives the result, or `None` for operands of another kind, which go to the miss helper.
macro_rules! register_helpers {
    ($($(#[doc = $doc:literal])* $name:ident($left:ident, $right:ident, $third:ident, $site:ident, $frame:ident) or $miss:ident $body:block)*) => {
        $($(#[doc = $doc])*
        ///
        /// # Safety
        /// The contract of register helpers (ARCHITECTURE.md).
        unsafe extern "C" fn $name(
            $left: StackRef,
            $right: StackRef,
            $third: StackRef,
            $site: *mut Site,
            $frame: *mut Frame,
            tstate: *mut PyThreadState,
        ) -> StackRef {
            // SAFETY: the operands are live objects and ours to close; the miss helper has the same contract.
            unsafe {
                let quick: Option<StackRef> = $body;
                match quick {
                    Some(result) => result,
                    None => $miss($left, $right, $third, $site, $frame, tstate),
                }
            }
        })*
    };
}
pub(super) use register_helpers;

/// Closes the operands and gives a new object.
unsafe fn finish(left: StackRef, right: StackRef, result: *mut PyObject) -> StackRef {
    // SAFETY: the operands are the caller's to close; the result is a new reference or null.
    unsafe {
        left.close();
        right.close();
        if result.is_null() {
            return RAISED;
        }
        StackRef::from_steal(result)
    }
}

/// The values of two ints of at most two digits.
unsafe fn ints(left: StackRef, right: StackRef) -> Option<(i64, i64)> {
    // SAFETY: live objects.
    unsafe {
        Some((
            short_int(left.as_ptr_borrow())?,
            short_int(right.as_ptr_borrow())?,
        ))
    }
}

/// The values of two numbers, ints or floats.
unsafe fn numbers(left: StackRef, right: StackRef) -> Option<(f64, f64)> {
    // SAFETY: live objects.
    unsafe {
        Some((
            number(left.as_ptr_borrow())?,
            number(right.as_ptr_borrow())?,
        ))
    }
}

/// Ints up to here are floats without rounding, so that dividing them as floats rounds once, as Python does.
const EXACT_FLOAT: u64 = 1 << 53;

register_helpers! {
    /// int // int.
    int_floor_divide(left, right, third, site, frame) or binary_op {
        match ints(left, right) {
            Some((a, b)) if b != 0 => {
                let (quotient, rest) = (a / b, a % b);
                let floor = quotient - i64::from(rest != 0 && (rest < 0) != (b < 0));
                Some(finish(left, right, ffi::PyLong_FromLongLong(floor)))
            }
            _ => None,
        }
    }

    /// int % int.
    int_remainder(left, right, third, site, frame) or binary_op {
        match ints(left, right) {
            Some((a, b)) if b != 0 => {
                let rest = a % b;
                let rest = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
                Some(finish(left, right, ffi::PyLong_FromLongLong(rest)))
            }
            _ => None,
        }
    }

    /// int << int, if the result fits.
    int_shift_left(left, right, third, site, frame) or binary_op {
        match ints(left, right) {
            Some((a, b @ 0..62)) if (a << b) >> b == a => {
                Some(finish(left, right, ffi::PyLong_FromLongLong(a << b)))
            }
            _ => None,
        }
    }

    /// int >> int.
    int_shift_right(left, right, third, site, frame) or binary_op {
        match ints(left, right) {
            Some((a, b @ 0..)) => Some(finish(left, right, ffi::PyLong_FromLongLong(a >> b.min(63)))),
            _ => None,
        }
    }

    /// An int and a float: +.
    mixed_add(left, right, third, site, frame) or binary_op {
        numbers(left, right)
            .filter(|_| ints(left, right).is_none())
            .map(|(a, b)| finish(left, right, ffi::PyFloat_FromDouble(a + b)))
    }

    /// An int and a float: -.
    mixed_subtract(left, right, third, site, frame) or binary_op {
        numbers(left, right)
            .filter(|_| ints(left, right).is_none())
            .map(|(a, b)| finish(left, right, ffi::PyFloat_FromDouble(a - b)))
    }

    /// An int and a float: *.
    mixed_multiply(left, right, third, site, frame) or binary_op {
        numbers(left, right)
            .filter(|_| ints(left, right).is_none())
            .map(|(a, b)| finish(left, right, ffi::PyFloat_FromDouble(a * b)))
    }

    /// Numbers: /.
    mixed_divide(left, right, third, site, frame) or binary_op {
        let exact = ints(left, right)
            .is_none_or(|(a, b)| a.unsigned_abs() <= EXACT_FLOAT && b.unsigned_abs() <= EXACT_FLOAT);
        match numbers(left, right) {
            Some((a, b)) if b != 0.0 && exact => {
                Some(finish(left, right, ffi::PyFloat_FromDouble(a / b)))
            }
            _ => None,
        }
    }

    /// str + str. What is stored back to the local that the left one comes from grows in place, as in the interpreter.
    str_concatenate(left, right, third, site, frame) or binary_op {
        let (a, b) = (left.as_ptr_borrow(), right.as_ptr_borrow());
        if refs::is_exact_unicode(a) && refs::is_exact_unicode(b) {
            let next = (*site).instr.add((*site).next_units as usize).cast::<u8>();
            let local = refs::frame_locals(frame).add(usize::from(*next.add(1)));
            if *next == Opcode::STORE_FAST as u8 && (*local).as_ptr_borrow() == a {
                left.close();
                let mut text = (*local).steal();
                local.write(StackRef::NULL);
                ffi::PyUnicode_Append(&raw mut text, b);
                right.close();
                Some(if text.is_null() { RAISED } else { StackRef::from_steal(text) })
            } else {
                Some(finish(left, right, ffi::PyUnicode_Concat(a, b)))
            }
        } else {
            None
        }
    }

    /// str[int].
    str_subscript(left, right, third, site, frame) or binary_op {
        let text = left.as_ptr_borrow();
        match short_int(right.as_ptr_borrow()) {
            Some(index) if refs::is_exact_unicode(text) => {
                let length = (*text.cast::<ffi::PyASCIIObject>()).length as i64;
                let index = if index < 0 { index + length } else { index };
                (0..length)
                    .contains(&index)
                    .then(|| finish(left, right, ffi::PyUnicode_Substring(text, index as isize, index as isize + 1)))
            }
            _ => None,
        }
    }

    /// dict[key].
    dict_subscript(left, right, third, site, frame) or binary_op {
        let (dict, key) = (left.as_ptr_borrow(), right.as_ptr_borrow());
        if refs::is_exact_dict(dict) {
            let mut value = std::ptr::null_mut();
            if ffi::PyDict_GetItemRef(dict, key, &raw mut value) == 0 {
                ffi::_PyErr_SetKeyError(key);
            }
            right.close();
            left.close();
            Some(if value.is_null() { RAISED } else { StackRef::from_steal(value) })
        } else {
            None
        }
    }

    /// str == str.
    str_equal(left, right, third, site, frame) or compare_op {
        same_text(left, right).map(|same| {
            left.close();
            right.close();
            StackRef::bool(same)
        })
    }

    /// str != str.
    str_not_equal(left, right, third, site, frame) or compare_op {
        same_text(left, right).map(|same| {
            left.close();
            right.close();
            StackRef::bool(!same)
        })
    }

    /// key in dict.
    in_dict(key, container, third, site, frame) or contains_op {
        let (dict, object) = (container.as_ptr_borrow(), key.as_ptr_borrow());
        refs::is_exact_dict(dict).then(|| finish_containment(key, container, site, ffi::PyDict_Contains(dict, object)))
    }

    /// key in set or frozenset.
    in_set(key, container, third, site, frame) or contains_op {
        let (set, object) = (container.as_ptr_borrow(), key.as_ptr_borrow());
        is_set(set).then(|| finish_containment(key, container, site, ffi::_PySet_Contains(set.cast(), object)))
    }

    /// str in str.
    in_str(key, container, third, site, frame) or contains_op {
        let (text, part) = (container.as_ptr_borrow(), key.as_ptr_borrow());
        (refs::is_exact_unicode(text) && refs::is_exact_unicode(part))
            .then(|| finish_containment(key, container, site, ffi::PyUnicode_Contains(text, part)))
    }

    /// dict[key] = value: `value` dict key.
    dict_store(value, container, key, site, frame) or store_subscr {
        let dict = container.as_ptr_borrow();
        if refs::is_exact_dict(dict) {
            let error = ffi::_PyDict_SetItem_Take2(dict.cast(), key.steal(), value.steal());
            container.close();
            Some(if error == 0 { StackRef::none() } else { RAISED })
        } else {
            None
        }
    }
}

/// Closes the operands of a containment test, and gives its result as the site wants it.
unsafe fn finish_containment(
    key: StackRef,
    container: StackRef,
    site: *mut Site,
    found: i32,
) -> StackRef {
    // SAFETY: the operands are the caller's to close; -1 says that an exception is set.
    unsafe {
        container.close();
        key.close();
        if found < 0 {
            return RAISED;
        }
        StackRef::bool(found ^ (*site).oparg as i32 != 0)
    }
}

/// Whether an object is a set or a frozenset, and no instance of a subclass.
unsafe fn is_set(object: *mut PyObject) -> bool {
    // SAFETY: a live object.
    unsafe {
        refs::is_type(object, &raw const ffi::PySet_Type)
            || refs::is_type(object, &raw const ffi::PyFrozenSet_Type)
    }
}

/// The quick helper of CONTAINS_OP for operands like these.
///
/// # Safety
/// Live objects.
pub(super) unsafe fn containment(
    key: *mut PyObject,
    container: *mut PyObject,
) -> Option<RegisterHelper> {
    // SAFETY: live objects.
    unsafe {
        if refs::is_exact_dict(container) {
            Some(in_dict)
        } else if is_set(container) {
            Some(in_set)
        } else if refs::is_exact_unicode(container) && refs::is_exact_unicode(key) {
            Some(in_str)
        } else {
            None
        }
    }
}

/// Whether two strings are equal, if they are exact strings.
unsafe fn same_text(left: StackRef, right: StackRef) -> Option<bool> {
    // SAFETY: live objects; comparing exact strings cannot fail.
    unsafe {
        let (a, b) = (left.as_ptr_borrow(), right.as_ptr_borrow());
        (refs::is_exact_unicode(a) && refs::is_exact_unicode(b))
            .then(|| a == b || ffi::PyUnicode_Equal(a, b) == 1)
    }
}

/// The quick helper of a comparison (`Py_EQ`, ..) of objects like these.
///
/// # Safety
/// Live objects.
pub(super) unsafe fn comparison(
    operation: u32,
    left: *mut PyObject,
    right: *mut PyObject,
) -> Option<RegisterHelper> {
    // SAFETY: live objects.
    let strings = unsafe { refs::is_exact_unicode(left) && refs::is_exact_unicode(right) };
    match operation {
        ffi::Py_EQ if strings => Some(str_equal),
        ffi::Py_NE if strings => Some(str_not_equal),
        _ => None,
    }
}

/// The quick helper of STORE_SUBSCR for a container like this.
///
/// # Safety
/// A live object.
pub(super) unsafe fn store(container: *mut PyObject) -> Option<Quick> {
    // SAFETY: a live object.
    unsafe {
        if refs::is_exact_dict(container) {
            return Some(Quick::from(dict_store as RegisterHelper));
        }
        python_method(python_setitem, container, identifier!(_py___setitem__))
    }
}
