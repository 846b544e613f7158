//! Names of code objects.

use hotstamp_layout::ffi::{self, PyCodeObject, PyObject};

/// `file:qualname` of a code object, for logs.
///
/// # Safety
/// A live code object; GIL held.
pub unsafe fn qualified_name(code: *mut PyCodeObject) -> String {
    // SAFETY: both are str objects.
    unsafe {
        format!(
            "{}:{}",
            text((*code).co_filename),
            text((*code).co_qualname)
        )
    }
}

/// A str object's text, or `?` if it cannot be encoded.
///
/// # Safety
/// A live str object; GIL held, no exception set.
pub unsafe fn text(object: *mut PyObject) -> String {
    // SAFETY: see above; a failing encoding gives null and is cleared, the text is copied while the object lives.
    unsafe {
        let utf8 = ffi::PyUnicode_AsUTF8(object);
        if utf8.is_null() {
            ffi::PyErr_Clear();
            return String::from("?");
        }
        std::ffi::CStr::from_ptr(utf8)
            .to_string_lossy()
            .into_owned()
    }
}
