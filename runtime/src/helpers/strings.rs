//! Memory helpers of f-strings and t-strings. Called through sites only.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs;

use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// The empty string; it is immortal, so nobody need own it.
///
/// # Safety
/// The GIL is held.
unsafe fn empty_string() -> *mut PyObject {
    // SAFETY: an empty string is never allocated: CPython hands out its singleton.
    unsafe { ffi::PyUnicode_New(0, 0) }
}

/// `BUILD_STRING(n)`: n strings -> their concatenation.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_build_string(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let n = (*site).oparg as usize;
        let string = stack.with_objects(n, |pieces| {
            ffi::_PyUnicode_JoinArray(empty_string(), pieces, n as isize)
        });
        stack.pop_close_n(n);
        stack.push_new(string)
    }
}

/// `FORMAT_SIMPLE`: value -> str. An exact `str` stays as it is.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_format_simple(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack, which holds it until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let value = stack.object(1);
        if refs::is_exact_unicode(value) {
            return 0;
        }
        let string = ffi::PyObject_Format(value, std::ptr::null_mut());
        stack.pop_close();
        stack.push_new(string)
    }
}

/// `FORMAT_WITH_SPEC`: value spec -> str.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_format_with_spec(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let string = ffi::PyObject_Format(stack.object(2), stack.object(1));
        stack.pop_close_n(2);
        stack.push_new(string)
    }
}

/// `CONVERT_VALUE(conversion)`: value -> its `str`, `repr` or `ascii`.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_convert_value(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is on the frame's stack; the table, which the header declares without its length, has a function for each conversion the
    // compiler of the bytecode emits.
    unsafe {
        let stack = Stack::of(frame);
        let functions = (&raw const ffi::_PyEval_ConversionFuncs).cast::<ffi::conversion_func>();
        let convert = functions
            .add((*site).oparg as usize)
            .read()
            .unwrap_unchecked();
        let string = convert(stack.object(1));
        stack.pop_close();
        stack.push_new(string)
    }
}

/// `BUILD_INTERPOLATION(flags)`: value str (spec, if bit 0 is set) -> interpolation. The conversion is above bit 1.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_build_interpolation(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let oparg = (*site).oparg;
        let has_spec = (oparg & 1) as usize;
        let spec = if has_spec == 1 {
            stack.object(1)
        } else {
            empty_string()
        };
        let interpolation = ffi::_PyInterpolation_Build(
            stack.object(2 + has_spec),
            stack.object(1 + has_spec),
            (oparg >> 2) as i32,
            spec,
        );
        stack.pop_close_n(2 + has_spec);
        stack.push_new(interpolation)
    }
}

/// `BUILD_TEMPLATE`: strings interpolations -> template.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_build_template(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let template = ffi::_PyTemplate_Build(stack.object(2), stack.object(1));
        stack.pop_close_n(2);
        stack.push_new(template)
    }
}
