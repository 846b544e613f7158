//! `array.array`, which CPython's headers do not declare: its layout, and a check that it is as declared here.

use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::ffi::{self, PyObject, PyTypeObject};
use crate::refs;

/// An instance of `array.array`.
#[repr(C)]
#[allow(missing_debug_implementations)]
pub struct ArrayObject {
    /// Header; `ob_size` is the number of items.
    pub ob_base: ffi::PyVarObject,
    /// The items.
    pub ob_item: *mut c_char,
    /// Room for so many items.
    pub allocated: ffi::Py_ssize_t,
    /// What the items are; never changes.
    pub ob_descr: *const ArrayDescr,
    /// Weak references.
    pub weakreflist: *mut PyObject,
    /// Buffers that are exported.
    pub ob_exports: ffi::Py_ssize_t,
}

/// The beginning of what describes the items of an array; one static record for each type code.
#[repr(C)]
#[derive(Debug)]
pub struct ArrayDescr {
    /// Type code.
    pub typecode: c_char,
    /// Bytes of an item.
    pub itemsize: c_int,
}

/// The class, once it was seen; a reference to it is held.
static CLASS: AtomicPtr<PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// The class `array.array`, if an instance was seen by [`descr_of`].
pub fn class() -> *mut PyTypeObject {
    CLASS.load(Ordering::Relaxed)
}

/// What describes an array's items; null if the object is not exactly an `array.array` with the layout declared here.
///
/// # Safety
/// A live object, GIL held.
pub unsafe fn descr_of(object: *mut PyObject) -> *const ArrayDescr {
    // SAFETY: a live object; its class is the one whose layout was checked.
    unsafe {
        let ty = refs::type_of(object);
        if ty != class() && !(class().is_null() && learn(object, ty)) {
            return std::ptr::null();
        }
        (*object.cast::<ArrayObject>()).ob_descr
    }
}

/// Whether a class is `array.array` as declared here; remembers it.
unsafe fn learn(object: *mut PyObject, ty: *mut PyTypeObject) -> bool {
    // SAFETY: a live object and its class. A class of C code that has exactly this name and size and is what the module `array` holds has the header that is read below.
    unsafe {
        let flags = u64::from(ffi::Py_TPFLAGS_HEAPTYPE) | u64::from(ffi::Py_TPFLAGS_IMMUTABLETYPE);
        if (*ty).tp_flags & flags != flags
            || (*ty).tp_basicsize as usize != size_of::<ArrayObject>()
            || CStr::from_ptr((*ty).tp_name) != c"array.array"
            || !is_in_module(ty)
        {
            return false;
        }
        let array = object.cast::<ArrayObject>();
        let descr = &*(*array).ob_descr;
        let bytes = c"itemsize";
        let itemsize = ffi::PyObject_GetAttrString(object, bytes.as_ptr());
        let agrees = !itemsize.is_null()
            && ffi::PyLong_AsLong(itemsize) == i64::from(descr.itemsize)
            && ffi::PyErr_Occurred().is_null();
        if !itemsize.is_null() {
            refs::decref(itemsize);
        }
        ffi::PyErr_Clear();
        if agrees {
            refs::incref(ty.cast());
            CLASS.store(ty, Ordering::Relaxed);
        }
        agrees
    }
}

/// Whether the module `array` holds the class, without importing it.
unsafe fn is_in_module(ty: *mut PyTypeObject) -> bool {
    // SAFETY: GIL held; each result is checked.
    unsafe {
        let name = ffi::PyUnicode_InternFromString(c"array".as_ptr());
        if name.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let module = ffi::PyImport_GetModule(name);
        let mut found = std::ptr::null_mut();
        if !module.is_null() && refs::is_type(module, &raw const ffi::PyModule_Type) {
            found = ffi::PyDict_GetItemWithError(ffi::PyModule_GetDict(module), name);
        }
        refs::decref(name);
        if !module.is_null() {
            refs::decref(module);
        }
        ffi::PyErr_Clear();
        found == ty.cast()
    }
}
