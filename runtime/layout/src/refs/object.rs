//! Accessors of objects: types, integers, tuples, lists, strings, instance attributes, collector links.

use core::ptr::{addr_of, addr_of_mut};

use crate::ffi::{
    self, PyDictKeysObject, PyDictObject, PyDictValues, PyGC_Head, PyLongObject, PyObject,
    PyTypeObject,
};

/// `Py_TYPE`.
///
/// # Safety
/// `op` points to a live object.
#[inline(always)]
pub unsafe fn type_of(op: *mut PyObject) -> *mut PyTypeObject {
    // SAFETY: the caller vouches for `op`.
    unsafe { (*op).ob_type }
}

/// `Py_IS_TYPE`: exactly this type.
///
/// # Safety
/// As for [`type_of`].
#[inline(always)]
pub unsafe fn is_type(op: *mut PyObject, ty: *const PyTypeObject) -> bool {
    // SAFETY: passed on.
    unsafe { type_of(op).cast_const() == ty }
}

/// `PyType_HasFeature`.
///
/// # Safety
/// `ty` points to a live type.
#[inline(always)]
pub unsafe fn type_has_feature(ty: *mut PyTypeObject, flags: u64) -> bool {
    // SAFETY: the caller vouches for `ty`.
    unsafe { (*ty).tp_flags & flags != 0 }
}

macro_rules! exact_checks {
    ($($(#[$doc:meta])* $name:ident => $type:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `op` points to a live object.
        #[inline(always)]
        pub unsafe fn $name(op: *mut PyObject) -> bool {
            // SAFETY: passed on; only the type's address is taken.
            unsafe { is_type(op, &raw const ffi::$type) }
        }
    )*};
}

exact_checks! {
    /// `PyLong_CheckExact`.
    is_exact_long => PyLong_Type;
    /// `PyFloat_CheckExact`.
    is_exact_float => PyFloat_Type;
    /// `PyUnicode_CheckExact`.
    is_exact_unicode => PyUnicode_Type;
    /// `PyBool_Check`.
    is_bool => PyBool_Type;
    /// `PyTuple_CheckExact`.
    is_exact_tuple => PyTuple_Type;
    /// `PyList_CheckExact`.
    is_exact_list => PyList_Type;
    /// `PyDict_CheckExact`.
    is_exact_dict => PyDict_Type;
    /// `PySlice_Check`.
    is_slice => PySlice_Type;
    /// `PyCell_Check`.
    is_cell => PyCell_Type;
    /// `PyFunction_Check`.
    is_function => PyFunction_Type;
    /// `PyMethod_Check`.
    is_bound_method => PyMethod_Type;
    /// `PyCFunction_CheckExact`.
    is_exact_cfunction => PyCFunction_Type;
    /// `PyCode_Check`.
    is_code => PyCode_Type;
    /// `PyGen_CheckExact`.
    is_exact_generator => PyGen_Type;
    /// `PyCoro_CheckExact`.
    is_exact_coroutine => PyCoro_Type;
    /// `PyModule_CheckExact`.
    is_exact_module => PyModule_Type;
}

macro_rules! subclass_checks {
    ($($(#[$doc:meta])* $name:ident => $flag:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `op` points to a live object.
        #[inline(always)]
        pub unsafe fn $name(op: *mut PyObject) -> bool {
            // SAFETY: passed on.
            unsafe { type_has_feature(type_of(op), ffi::$flag as u64) }
        }
    )*};
}

subclass_checks! {
    /// `PyLong_Check`.
    is_long => Py_TPFLAGS_LONG_SUBCLASS;
    /// `PyUnicode_Check`.
    is_unicode => Py_TPFLAGS_UNICODE_SUBCLASS;
    /// `PyTuple_Check`.
    is_tuple => Py_TPFLAGS_TUPLE_SUBCLASS;
    /// `PyList_Check`.
    is_list => Py_TPFLAGS_LIST_SUBCLASS;
    /// `PyDict_Check`.
    is_dict => Py_TPFLAGS_DICT_SUBCLASS;
    /// `PyType_Check`.
    is_type_object => Py_TPFLAGS_TYPE_SUBCLASS;
    /// `PyExceptionInstance_Check`.
    is_exception => Py_TPFLAGS_BASE_EXC_SUBCLASS;
}

// --- integers ---

/// `_PyLong_IsCompact`: at most one digit.
///
/// # Safety
/// `op` points to a live integer.
#[inline(always)]
pub unsafe fn long_is_compact(op: *mut PyLongObject) -> bool {
    // SAFETY: the caller vouches for `op`.
    unsafe { (*op).long_value.lv_tag < 2 << ffi::_PyLong_NON_SIZE_BITS }
}

/// `_PyLong_CompactValue`.
///
/// # Safety
/// `op` points to a live compact integer.
#[inline(always)]
pub unsafe fn long_compact_value(op: *mut PyLongObject) -> isize {
    // SAFETY: the caller vouches for `op`; a compact integer has room for one digit, zero when the sign is.
    unsafe {
        let sign = 1 - ((*op).long_value.lv_tag & ffi::_PyLong_SIGN_MASK as usize) as isize;
        sign * (*op).long_value.ob_digit[0] as isize
    }
}

/// `_PyLong_IsNonNegativeCompact`.
///
/// # Safety
/// `op` points to a live integer.
#[inline(always)]
pub unsafe fn long_is_non_negative_compact(op: *mut PyLongObject) -> bool {
    // SAFETY: the caller vouches for `op`.
    unsafe {
        (*op).long_value.lv_tag & !(ffi::IMMORTALITY_BIT_MASK as usize)
            <= 1 << ffi::_PyLong_NON_SIZE_BITS
    }
}

// --- tuples and lists ---

/// `PyTuple_GET_SIZE`, `PyList_GET_SIZE`, `Py_SIZE`.
///
/// # Safety
/// `op` points to a live object of variable size (not an integer).
#[inline(always)]
pub unsafe fn size_of_var(op: *mut PyObject) -> isize {
    // SAFETY: the caller vouches for `op`.
    unsafe { (*op.cast::<ffi::PyVarObject>()).ob_size }
}

/// The first item's address in a tuple.
///
/// # Safety
/// `op` points to a live tuple.
#[inline(always)]
pub unsafe fn tuple_items(op: *mut PyObject) -> *mut *mut PyObject {
    // SAFETY: the caller vouches for `op`; `addr_of_mut` keeps the provenance of the whole object.
    unsafe { addr_of_mut!((*op.cast::<ffi::PyTupleObject>()).ob_item).cast() }
}

/// `PyTuple_GET_ITEM`, borrowed.
///
/// # Safety
/// `op` points to a live tuple with more than `index` items.
#[inline(always)]
pub unsafe fn tuple_item(op: *mut PyObject, index: usize) -> *mut PyObject {
    // SAFETY: passed on.
    unsafe { *tuple_items(op).add(index) }
}

/// The first item's address in a list.
///
/// # Safety
/// `op` points to a live list; the address is good until the list is changed.
#[inline(always)]
pub unsafe fn list_items(op: *mut PyObject) -> *mut *mut PyObject {
    // SAFETY: the caller vouches for `op`.
    unsafe { (*op.cast::<ffi::PyListObject>()).ob_item }
}

/// `PyList_GET_ITEM`, borrowed.
///
/// # Safety
/// `op` points to a live list with more than `index` items.
#[inline(always)]
pub unsafe fn list_item(op: *mut PyObject, index: usize) -> *mut PyObject {
    // SAFETY: passed on.
    unsafe { *list_items(op).add(index) }
}

// --- bytes ---

/// The contents of a bytes object.
///
/// # Safety
/// `op` points to a bytes object that outlives the result.
#[inline(always)]
pub unsafe fn bytes_contents<'a>(op: *mut PyObject) -> &'a [u8] {
    // SAFETY: a bytes object has `ob_size` bytes behind its header and never changes them.
    unsafe {
        let data = addr_of!((*op.cast::<ffi::PyBytesObject>()).ob_sval).cast::<u8>();
        core::slice::from_raw_parts(data, size_of_var(op) as usize)
    }
}

// --- instance attributes ---

/// `_PyObject_ManagedDictPointer`: where an instance with `Py_TPFLAGS_MANAGED_DICT` keeps its dict, null if it has none yet.
///
/// # Safety
/// `op` points to a live object whose type has that flag.
#[inline(always)]
pub unsafe fn managed_dict_slot(op: *mut PyObject) -> *mut *mut PyDictObject {
    // SAFETY: such an object is preceded by the slot.
    unsafe { op.byte_offset(ffi::MANAGED_DICT_OFFSET).cast() }
}

/// `_PyObject_InlineValues`: the values stored behind an instance with `Py_TPFLAGS_INLINE_VALUES`.
///
/// # Safety
/// `op` points to a live object whose type has that flag.
#[inline(always)]
pub unsafe fn inline_values(op: *mut PyObject) -> *mut PyDictValues {
    // SAFETY: such an object is followed by its values.
    unsafe { op.byte_offset((*type_of(op)).tp_basicsize).cast() }
}

/// The address of the value with this index among dict values.
///
/// # Safety
/// `values` is live and has room for more than `index` values.
#[inline(always)]
pub unsafe fn dict_value_slot(values: *mut PyDictValues, index: usize) -> *mut *mut PyObject {
    // SAFETY: the caller vouches for `values`.
    unsafe {
        addr_of_mut!((*values).values)
            .cast::<*mut PyObject>()
            .add(index)
    }
}

/// `get_insertion_order_array`: the order in which the values were set, behind the values.
///
/// # Safety
/// `values` is live.
#[inline(always)]
pub unsafe fn insertion_order(values: *mut PyDictValues) -> *mut u8 {
    // SAFETY: the array follows `capacity` values.
    unsafe { dict_value_slot(values, usize::from((*values).capacity)).cast() }
}

/// `_DK_ENTRIES`: the first entry of a dict's keys.
///
/// # Safety
/// `keys` is live.
#[inline(always)]
pub unsafe fn dict_keys_entries(keys: *mut PyDictKeysObject) -> *mut core::ffi::c_void {
    // SAFETY: the index table has 2 to the power of `dk_log2_index_bytes` bytes.
    unsafe {
        addr_of_mut!((*keys).dk_indices)
            .cast::<u8>()
            .add(1 << (*keys).dk_log2_index_bytes)
            .cast()
    }
}

// --- the garbage collector ---

/// `_Py_AS_GC`.
///
/// # Safety
/// `op` points to a live object of a type with `Py_TPFLAGS_HAVE_GC`.
#[inline(always)]
pub unsafe fn gc_head(op: *mut PyObject) -> *mut PyGC_Head {
    // SAFETY: such an object is preceded by its collector head.
    unsafe { op.cast::<PyGC_Head>().sub(1) }
}

/// `_PyObject_GC_IS_TRACKED`.
///
/// # Safety
/// As for [`gc_head`].
#[inline(always)]
pub unsafe fn gc_is_tracked(op: *mut PyObject) -> bool {
    // SAFETY: passed on.
    unsafe { (*gc_head(op))._gc_next != 0 }
}
