//! Reference counts with 3.14's immortality rules: the count is the low 32 bits, negative (as signed) means immortal.

use crate::ffi::{self, PyObject};

/// The 32-bit reference count of an object.
///
/// # Safety
/// `op` points to a live object and the GIL is held.
#[inline(always)]
pub unsafe fn refcount(op: *mut PyObject) -> u32 {
    // SAFETY: every object starts with this header; the caller vouches for `op`.
    unsafe { (*op).__bindgen_anon_1.__bindgen_anon_1.ob_refcnt }
}

#[inline(always)]
unsafe fn set_refcount(op: *mut PyObject, count: u32) {
    // SAFETY: as in `refcount`; only the low 32 bits are written, overflow and flag bits stay.
    unsafe { (*op).__bindgen_anon_1.__bindgen_anon_1.ob_refcnt = count }
}

/// The flag bits beside the reference count (`_Py_IMMORTAL_FLAGS`, `_Py_STATICALLY_ALLOCATED_FLAG`).
///
/// # Safety
/// As for [`refcount`].
#[inline(always)]
pub unsafe fn object_flags(op: *mut PyObject) -> u16 {
    // SAFETY: every object starts with this header; the caller vouches for `op`.
    unsafe { (*op).__bindgen_anon_1.__bindgen_anon_1.ob_flags }
}

/// `_Py_IsImmortal`.
///
/// # Safety
/// As for [`refcount`].
#[inline(always)]
pub unsafe fn is_immortal(op: *mut PyObject) -> bool {
    // SAFETY: passed on.
    unsafe { (refcount(op) as i32) < 0 }
}

/// `_Py_IsStaticImmortal`: allocated statically, so immortal from its first reference to its last.
///
/// # Safety
/// As for [`refcount`].
#[inline(always)]
pub unsafe fn is_static_immortal(op: *mut PyObject) -> bool {
    // SAFETY: passed on.
    unsafe { u32::from(object_flags(op)) & ffi::_Py_STATICALLY_ALLOCATED_FLAG != 0 }
}

/// `Py_INCREF`. Counts from `_Py_IMMORTAL_INITIAL_REFCNT` up stay as they are; between the immortal minimum and it,
/// they still grow, as in C.
///
/// # Safety
/// As for [`refcount`].
#[inline(always)]
pub unsafe fn incref(op: *mut PyObject) {
    // SAFETY: passed on.
    unsafe {
        let count = refcount(op);
        if count < ffi::_Py_IMMORTAL_INITIAL_REFCNT {
            set_refcount(op, count + 1);
        }
    }
}

/// `Py_XINCREF`.
///
/// # Safety
/// As for [`refcount`], or `op` is null.
#[inline(always)]
pub unsafe fn xincref(op: *mut PyObject) {
    if !op.is_null() {
        // SAFETY: passed on.
        unsafe { incref(op) }
    }
}

/// `Py_NewRef`.
///
/// # Safety
/// As for [`refcount`].
#[inline(always)]
pub unsafe fn new_ref(op: *mut PyObject) -> *mut PyObject {
    // SAFETY: passed on.
    unsafe { incref(op) };
    op
}

/// `_Py_INCREF_MORTAL`: for an object known not to be static.
///
/// # Safety
/// As for [`refcount`]; the object is not statically immortal.
#[inline(always)]
pub unsafe fn incref_mortal(op: *mut PyObject) {
    // SAFETY: passed on.
    unsafe { set_refcount(op, refcount(op).wrapping_add(1)) }
}

/// `Py_DECREF`. May run arbitrary code (a destructor).
///
/// # Safety
/// As for [`refcount`]; the caller owned the reference that ends here.
#[inline(always)]
pub unsafe fn decref(op: *mut PyObject) {
    // SAFETY: passed on.
    unsafe {
        if !is_immortal(op) {
            decref_mortal(op);
        }
    }
}

/// `Py_XDECREF`.
///
/// # Safety
/// As for [`decref`], or `op` is null.
#[inline(always)]
pub unsafe fn xdecref(op: *mut PyObject) {
    if !op.is_null() {
        // SAFETY: passed on.
        unsafe { decref(op) }
    }
}

/// `Py_DECREF_MORTAL`: for an object known not to be static.
///
/// # Safety
/// As for [`decref`]; the object is not statically immortal.
#[inline(always)]
pub unsafe fn decref_mortal(op: *mut PyObject) {
    // SAFETY: the caller owned a reference, so the count is at least 1, and `_Py_Dealloc` takes the object at count 0.
    unsafe {
        let count = refcount(op).wrapping_sub(1);
        set_refcount(op, count);
        if count == 0 {
            ffi::_Py_Dealloc(op);
        }
    }
}

/// `_Py_DECREF_NO_DEALLOC`: for a reference that is known not to be the last.
///
/// # Safety
/// As for [`decref`]; somebody else owns a reference too.
#[inline(always)]
pub unsafe fn decref_no_dealloc(op: *mut PyObject) {
    // SAFETY: passed on.
    unsafe {
        if !is_immortal(op) {
            set_refcount(op, refcount(op) - 1);
        }
    }
}

/// `_PyObject_IsUniquelyReferenced`.
///
/// # Safety
/// As for [`refcount`].
#[inline(always)]
pub unsafe fn is_uniquely_referenced(op: *mut PyObject) -> bool {
    // SAFETY: passed on.
    unsafe { refcount(op) == 1 }
}
