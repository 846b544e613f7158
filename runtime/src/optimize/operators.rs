//! What the feedback of operators stands for: items of arrays, and the Python methods behind operators of instances. For snapshots only.

use std::ffi::CStr;

use hotstamp_job::{ArrayItems, RightOperand, Seen};
use hotstamp_layout::array::{self, ArrayDescr};
use hotstamp_layout::ffi::{self, PyObject, PyTypeObject};
use hotstamp_layout::refs;

use crate::caches::operators::Versions;

/// Subscripts of arrays with this `ob_descr`.
pub(super) unsafe fn array(descr: u64) -> Option<Seen> {
    // SAFETY: a static record of the module `array`.
    let code = unsafe { (*(descr as *const ArrayDescr)).typecode } as u8;
    // SAFETY: as above.
    let bytes = unsafe { (*(descr as *const ArrayDescr)).itemsize } as u8;
    let items = match code {
        b'd' | b'f' => ArrayItems::Float(bytes),
        b'b' | b'h' | b'i' | b'l' | b'q' => ArrayItems::Signed(bytes),
        b'B' | b'H' | b'I' | b'L' | b'Q' if bytes < 8 => ArrayItems::Unsigned(bytes),
        _ => return None,
    };
    Some(Seen::ArrayItem {
        class: array::class() as u64,
        descr,
        items,
    })
}

/// The method that BINARY_OP asks the left operand for, and the one that its in-place form would ask for first.
pub(super) fn method_names(oparg: u32) -> Option<(&'static CStr, Option<&'static CStr>)> {
    Some(match oparg {
        ffi::NB_ADD => (c"__add__", None),
        ffi::NB_SUBTRACT => (c"__sub__", None),
        ffi::NB_MULTIPLY => (c"__mul__", None),
        ffi::NB_TRUE_DIVIDE => (c"__truediv__", None),
        ffi::NB_FLOOR_DIVIDE => (c"__floordiv__", None),
        ffi::NB_REMAINDER => (c"__mod__", None),
        ffi::NB_MATRIX_MULTIPLY => (c"__matmul__", None),
        ffi::NB_AND => (c"__and__", None),
        ffi::NB_OR => (c"__or__", None),
        ffi::NB_XOR => (c"__xor__", None),
        ffi::NB_LSHIFT => (c"__lshift__", None),
        ffi::NB_RSHIFT => (c"__rshift__", None),
        ffi::NB_INPLACE_ADD => (c"__add__", Some(c"__iadd__")),
        ffi::NB_INPLACE_SUBTRACT => (c"__sub__", Some(c"__isub__")),
        ffi::NB_INPLACE_MULTIPLY => (c"__mul__", Some(c"__imul__")),
        ffi::NB_INPLACE_TRUE_DIVIDE => (c"__truediv__", Some(c"__itruediv__")),
        ffi::NB_INPLACE_FLOOR_DIVIDE => (c"__floordiv__", Some(c"__ifloordiv__")),
        ffi::NB_INPLACE_REMAINDER => (c"__mod__", Some(c"__imod__")),
        ffi::NB_INPLACE_MATRIX_MULTIPLY => (c"__matmul__", Some(c"__imatmul__")),
        ffi::NB_INPLACE_AND => (c"__and__", Some(c"__iand__")),
        ffi::NB_INPLACE_OR => (c"__or__", Some(c"__ior__")),
        ffi::NB_INPLACE_XOR => (c"__xor__", Some(c"__ixor__")),
        ffi::NB_INPLACE_LSHIFT => (c"__lshift__", Some(c"__ilshift__")),
        ffi::NB_INPLACE_RSHIFT => (c"__rshift__", Some(c"__irshift__")),
        ffi::NB_SUBSCR => (c"__getitem__", None),
        _ => return None,
    })
}

/// The live class that has a version tag.
unsafe fn class_of(version: u32) -> Option<*mut PyTypeObject> {
    // SAFETY: GIL held; the table borrows from live classes.
    unsafe {
        let table = &(*ffi::PyInterpreterState_Get()).types.type_version_cache;
        let class = table[version as usize % table.len()];
        (version != 0 && !class.is_null() && (*class).tp_version_tag == version).then_some(class)
    }
}

/// What a class has under a name, borrowed.
unsafe fn lookup(class: *mut PyTypeObject, name: &CStr) -> *mut PyObject {
    // SAFETY: a live class; what it finds the class keeps alive. Nothing here runs Python code.
    unsafe {
        let name = ffi::PyUnicode_InternFromString(name.as_ptr());
        if name.is_null() {
            ffi::PyErr_Clear();
            return std::ptr::null_mut();
        }
        let found = ffi::_PyType_Lookup(class, name);
        refs::decref(name);
        found
    }
}

/// The Python function that an operator calls first, with what must hold for that: the left operand's class has it, and the right operand's is no subclass of it, whose method would come first.
///
/// # Safety
/// GIL held.
pub(super) unsafe fn resolve(
    versions: u64,
    name: &CStr,
    in_place: Option<&CStr>,
) -> Option<(u64, Seen)> {
    // SAFETY: classes are live while they have a version.
    unsafe {
        let Versions { left, right } = Versions::unpack(versions);
        let class = class_of(left)?;
        let function = lookup(class, name);
        if function.is_null() || !refs::is_type(function, &raw const ffi::PyFunction_Type) {
            return None;
        }
        if in_place.is_some_and(|name| !lookup(class, name).is_null()) {
            return None;
        }
        let right = if right == 0 {
            RightOperand::Any
        } else {
            let other = class_of(right)?;
            if other != class && ffi::PyType_IsSubtype(other, class) != 0 {
                return None;
            }
            if (*other).tp_flags & u64::from(ffi::Py_TPFLAGS_HEAPTYPE) == 0 {
                RightOperand::Class(other as u64)
            } else {
                RightOperand::Version(right)
            }
        };
        let function = function as u64;
        let seen = Seen::Operator {
            left,
            right,
            function,
        };
        Some((function, seen))
    }
}
