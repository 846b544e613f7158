//! `_PyStackRef`: what lies in a frame's slots.

use super::count::{decref_mortal, incref, incref_mortal, is_immortal, new_ref, object_flags};
use crate::ffi::{self, PyObject, PyTypeObject};

const REFCNT: usize = ffi::Py_TAG_REFCNT as usize;
const TAG_BITS: usize = ffi::Py_TAG_BITS as usize;
const INT_TAG: usize = ffi::Py_INT_TAG as usize;

// `FromPyObjectSteal` copies the object's immortality flag into the tag.
const _: () = assert!(ffi::_Py_IMMORTAL_FLAGS == ffi::Py_TAG_REFCNT);

/// A tagged reference, with C's layout and meaning: bit 0 set owns nothing (borrowed or immortal), bits 1 is null,
/// tag 3 is a small integer, tag 0 owns one count of the object.
///
/// It is `Copy` as in C: who owns what is up to the code that moves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct StackRef {
    /// The tagged word.
    pub bits: usize,
}

impl StackRef {
    /// `PyStackRef_NULL`.
    pub const NULL: Self = Self { bits: REFCNT };

    /// `PyStackRef_None`.
    #[inline(always)]
    pub fn none() -> Self {
        Self {
            bits: &raw const ffi::_Py_NoneStruct as usize | REFCNT,
        }
    }

    /// `PyStackRef_True` or `PyStackRef_False`.
    #[inline(always)]
    pub fn bool(value: bool) -> Self {
        let object = if value {
            &raw const ffi::_Py_TrueStruct as usize
        } else {
            &raw const ffi::_Py_FalseStruct as usize
        };
        Self {
            bits: object | REFCNT,
        }
    }

    /// `PyStackRef_IsNull`.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.bits == Self::NULL.bits
    }

    /// `PyStackRef_IsNone`.
    #[inline(always)]
    pub fn is_none(self) -> bool {
        self == Self::none()
    }

    /// `PyStackRef_IsTrue`.
    #[inline(always)]
    pub fn is_true(self) -> bool {
        self == Self::bool(true)
    }

    /// `PyStackRef_IsFalse`.
    #[inline(always)]
    pub fn is_false(self) -> bool {
        self == Self::bool(false)
    }

    /// `PyStackRef_TagInt`. The value must fit 62 bits.
    #[inline(always)]
    pub fn tag_int(value: isize) -> Self {
        debug_assert_eq!((value << 2) >> 2, value);
        Self {
            bits: ((value as usize) << 2) | INT_TAG,
        }
    }

    /// `PyStackRef_IsTaggedInt`.
    #[inline(always)]
    pub fn is_tagged_int(self) -> bool {
        self.bits & INT_TAG == INT_TAG
    }

    /// `PyStackRef_UntagInt`.
    #[inline(always)]
    pub fn untag_int(self) -> isize {
        debug_assert!(self.is_tagged_int());
        (self.bits as isize) >> 2
    }

    /// `PyStackRef_IsNullOrInt`.
    #[inline(always)]
    pub fn is_null_or_int(self) -> bool {
        self.is_null() || self.is_tagged_int()
    }

    /// `PyStackRef_RefcountOnObject`: this reference owns a count of its object.
    #[inline(always)]
    pub fn owns_count(self) -> bool {
        self.bits & REFCNT == 0
    }

    /// `PyStackRef_Is`: the same object, whoever owns it.
    #[inline(always)]
    pub fn is(self, other: Self) -> bool {
        self.bits & !REFCNT == other.bits & !REFCNT
    }

    /// `PyStackRef_AsPyObjectBorrow`. Null gives a null pointer; a tagged integer has none.
    #[inline(always)]
    pub fn as_ptr_borrow(self) -> *mut PyObject {
        debug_assert!(!self.is_tagged_int());
        (self.bits & !REFCNT) as *mut PyObject
    }

    /// `PyStackRef_Borrow`: the same object without owning it.
    #[inline(always)]
    pub fn borrow(self) -> Self {
        Self {
            bits: self.bits | REFCNT,
        }
    }

    /// `PyStackRef_FromPyObjectBorrow`: owns nothing; the object must outlive it.
    #[inline(always)]
    pub fn from_borrow(op: *mut PyObject) -> Self {
        Self {
            bits: op as usize | REFCNT,
        }
    }

    /// `PyStackRef_FromPyObjectImmortal`.
    #[inline(always)]
    pub fn from_immortal(op: *mut PyObject) -> Self {
        Self::from_borrow(op)
    }

    /// `PyStackRef_FromPyObjectSteal`: takes over the caller's reference.
    ///
    /// # Safety
    /// `op` points to a live object of which the caller owns a reference.
    #[inline(always)]
    pub unsafe fn from_steal(op: *mut PyObject) -> Self {
        // SAFETY: passed on.
        let tag = unsafe { usize::from(object_flags(op)) } & REFCNT;
        Self {
            bits: op as usize | tag,
        }
    }

    /// `PyStackRef_FromPyObjectStealMortal`.
    #[inline(always)]
    pub fn from_steal_mortal(op: *mut PyObject) -> Self {
        Self { bits: op as usize }
    }

    /// `PyStackRef_FromPyObjectNew`: a new reference.
    ///
    /// # Safety
    /// `op` points to a live object and the GIL is held.
    #[inline(always)]
    pub unsafe fn from_new(op: *mut PyObject) -> Self {
        // SAFETY: passed on.
        unsafe {
            if is_immortal(op) {
                return Self::from_borrow(op);
            }
            incref_mortal(op);
        }
        Self { bits: op as usize }
    }

    /// `PyStackRef_FromPyObjectNewMortal`.
    ///
    /// # Safety
    /// As for [`Self::from_new`]; the object is not immortal.
    #[inline(always)]
    pub unsafe fn from_new_mortal(op: *mut PyObject) -> Self {
        // SAFETY: passed on.
        unsafe { incref_mortal(op) };
        Self { bits: op as usize }
    }

    /// `PyStackRef_AsPyObjectSteal`: this reference becomes a counted one.
    ///
    /// # Safety
    /// Refers to a live object, and is not used again.
    #[inline(always)]
    pub unsafe fn steal(self) -> *mut PyObject {
        if self.owns_count() {
            self.bits as *mut PyObject
        } else {
            // SAFETY: passed on.
            unsafe { new_ref(self.as_ptr_borrow()) }
        }
    }

    /// `PyStackRef_AsPyObjectNew`: a counted reference beside this one.
    ///
    /// # Safety
    /// Refers to a live object.
    #[inline(always)]
    pub unsafe fn as_new(self) -> *mut PyObject {
        // SAFETY: passed on.
        unsafe { new_ref(self.as_ptr_borrow()) }
    }

    /// `PyStackRef_TYPE`.
    ///
    /// # Safety
    /// Refers to a live object.
    #[inline(always)]
    pub unsafe fn type_of(self) -> *mut PyTypeObject {
        // SAFETY: passed on.
        unsafe { (*self.as_ptr_borrow()).ob_type }
    }

    /// `PyStackRef_DUP`. Not for null.
    ///
    /// # Safety
    /// Refers to a live object, or is a tagged integer.
    #[inline(always)]
    pub unsafe fn dup(self) -> Self {
        if self.owns_count() {
            // SAFETY: the reference owns a count, so the object lives and is mortal.
            unsafe { incref_mortal(self.bits as *mut PyObject) };
        }
        self
    }

    /// `PyStackRef_IsHeapSafe`: may be kept beyond the frame.
    ///
    /// # Safety
    /// Refers to a live object, or is null or a tagged integer.
    #[inline(always)]
    pub unsafe fn is_heap_safe(self) -> bool {
        // SAFETY: with tag `REFCNT` and not null the word is a pointer; the caller vouches for it.
        self.bits & TAG_BITS != REFCNT
            || self.is_null()
            || unsafe { is_immortal(self.as_ptr_borrow()) }
    }

    /// `PyStackRef_MakeHeapSafe`: a borrowed reference to a mortal object becomes an owning one.
    ///
    /// # Safety
    /// As for [`Self::is_heap_safe`].
    #[inline(always)]
    pub unsafe fn make_heap_safe(self) -> Self {
        // SAFETY: passed on.
        unsafe {
            if self.is_heap_safe() {
                return self;
            }
            let op = self.as_ptr_borrow();
            incref(op);
            Self { bits: op as usize }
        }
    }

    /// `PyStackRef_CLOSE` and `PyStackRef_XCLOSE`, which are the same but for an assertion. May run a destructor.
    ///
    /// # Safety
    /// Refers to a live object, or is null or a tagged integer; it is not used again.
    #[inline(always)]
    pub unsafe fn close(self) {
        if self.owns_count() {
            // SAFETY: the reference owned a count.
            unsafe { decref_mortal(self.bits as *mut PyObject) }
        }
    }

    /// As [`Self::close`]; the name says that null is expected.
    ///
    /// # Safety
    /// As for [`Self::close`].
    #[inline(always)]
    pub unsafe fn xclose(self) {
        // SAFETY: passed on.
        unsafe { self.close() }
    }

    /// `PyStackRef_CLEAR`: the slot is null before the destructor can run.
    ///
    /// # Safety
    /// `slot` is a valid slot whose reference the caller owns.
    #[inline(always)]
    pub unsafe fn clear(slot: *mut Self) {
        // SAFETY: passed on.
        unsafe {
            let old = slot.read();
            slot.write(Self::NULL);
            old.close();
        }
    }
}
