//! Memory helpers that make functions and start class bodies. Called through sites only.

use hotstamp_layout::ffi::{self, PyCodeObject, PyFunctionObject, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::operands::Identifier;
use super::stack::Stack;
use crate::site::Site;
use crate::{Frame, hooks};

static BUILD_CLASS: Identifier = Identifier::new(c"__build_class__");

/// `LOAD_BUILD_CLASS`: -> `__build_class__` of the frame's builtins.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_build_class(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the frame borrows the builtins from its function, which it keeps alive.
    unsafe {
        let key = BUILD_CLASS.get();
        let mut build_class = std::ptr::null_mut();
        if key.is_null()
            || ffi::PyMapping_GetOptionalItem((*frame).f_builtins, key, &raw mut build_class) < 0
        {
            return -1;
        }
        if build_class.is_null() {
            ffi::PyErr_SetString(ffi::PyExc_NameError, c"__build_class__ not found".as_ptr());
            return -1;
        }
        Stack::of(frame).push_new(build_class)
    }
}

/// `MAKE_FUNCTION`: code -> function.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_make_function(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is a code object on the frame's stack; the function keeps it alive once the stack no longer does.
    unsafe {
        let stack = Stack::of(frame);
        let code = stack.object(1);
        let function = ffi::PyFunction_New(code, (*frame).f_globals);
        stack.pop_close();
        if function.is_null() {
            return -1;
        }
        // A function whose code is stamped has no version, and its call needs not find that out.
        if !hooks::functions::adopt(function.cast()) {
            ffi::_PyFunction_SetVersion(function.cast(), (*code.cast::<PyCodeObject>()).co_version);
        }
        stack.push(StackRef::from_steal(function));
        0
    }
}

/// `SET_FUNCTION_ATTRIBUTE(which)`: value function -> function.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_set_function_attribute(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the top operand is a function that has just been made: nobody else knows it, and the attribute's field is still null. The table, which the header
    // declares without its length, has an offset for each argument that the compiler of the bytecode emits.
    unsafe {
        let stack = Stack::of(frame);
        let oparg = (*site).oparg;
        let function_ref = stack.pop();
        let function: *mut PyFunctionObject = function_ref.as_ptr_borrow().cast();
        let value = stack.peek(1).steal();
        stack.put(1, function_ref);
        let offset = (&raw const ffi::_Py_FunctionAttributeOffsets)
            .cast::<usize>()
            .add(oparg as usize)
            .read();
        function
            .byte_add(offset)
            .cast::<*mut PyObject>()
            .write(value);
        if oparg == ffi::MAKE_FUNCTION_ANNOTATE && refs::is_function(value) {
            // The function that computes the annotations is named after the one it belongs to.
            let qualname =
                ffi::PyUnicode_FromFormat(c"%U.__annotate__".as_ptr(), (*function).func_qualname);
            if qualname.is_null() {
                return stack.fail(1);
            }
            let annotate: *mut PyFunctionObject = value.cast();
            let old = std::mem::replace(&mut (*annotate).func_qualname, qualname);
            refs::decref(old);
        }
        0
    }
}

/// `EXIT_INIT_CHECK`: result of `__init__` ->, which must be None.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_exit_init_check(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an object on the frame's stack.
    unsafe {
        let stack = Stack::of(frame);
        if !stack.peek(1).is_none() {
            let type_name = (*refs::type_of(stack.object(1))).tp_name;
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"__init__() should return None, not '%.200s'".as_ptr(),
                type_name,
            );
            return stack.fail(1);
        }
        stack.shrink(1);
        0
    }
}
