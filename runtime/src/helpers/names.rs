//! Memory helpers of names: globals, the names of module and class bodies, locals, cells and free variables. Called through sites only.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::operands::{Identifier, cell, local, local_name, name};
use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

static ANNOTATIONS: Identifier = Identifier::new(c"__annotations__");

/// Raises NameError for a name that is defined nowhere; -1, the helper's result.
///
/// # Safety
/// `name` is a live string, and the GIL is held.
#[cold]
unsafe fn undefined_name(tstate: *mut PyThreadState, name: *mut PyObject) -> isize {
    // SAFETY: passed on; the format takes the name's text.
    unsafe {
        ffi::_PyEval_FormatExcCheckArg(
            tstate,
            ffi::PyExc_NameError,
            c"name '%.200s' is not defined".as_ptr(),
            name,
        )
    };
    -1
}

/// Raises UnboundLocalError for a local; -1, the helper's result.
///
/// # Safety
/// The frame is live and has the local.
#[cold]
unsafe fn unbound_local(frame: *mut Frame, tstate: *mut PyThreadState, index: u32) -> isize {
    // SAFETY: passed on; the format takes the name's text.
    unsafe {
        ffi::_PyEval_FormatExcCheckArg(
            tstate,
            ffi::PyExc_UnboundLocalError,
            c"cannot access local variable '%s' where it is not associated with a value".as_ptr(),
            local_name(frame, index),
        )
    };
    -1
}

/// Raises UnboundLocalError for a cell or NameError for a free variable, empty both; -1, the helper's result.
///
/// # Safety
/// The frame is live and has the variable.
#[cold]
unsafe fn unbound_cell(frame: *mut Frame, tstate: *mut PyThreadState, index: u32) -> isize {
    // SAFETY: passed on.
    unsafe { ffi::_PyEval_FormatExcUnbound(tstate, refs::frame_code(frame), index as i32) };
    -1
}

/// Raises SystemError for a frame without a namespace; -1, the helper's result. `format` may take the name.
///
/// # Safety
/// `format` is a format of `PyErr_Format` that takes at most the name.
#[cold]
unsafe fn no_namespace(format: &std::ffi::CStr, name: *mut PyObject) -> isize {
    // SAFETY: passed on.
    unsafe { ffi::PyErr_Format(ffi::PyExc_SystemError, format.as_ptr(), name) };
    -1
}

/// `LOAD_GLOBAL(name << 1 | call)`: -> value, and NULL above it for a call.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_global(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the frame borrows globals and builtins from its function, which it keeps alive.
    unsafe {
        let stack = Stack::of(frame);
        let oparg = (*site).oparg;
        let mut value = StackRef::NULL;
        ffi::_PyEval_LoadGlobalStackRef(
            (*frame).f_globals,
            (*frame).f_builtins,
            name(frame, oparg >> 1),
            &raw mut value,
        );
        if value.is_null() {
            return -1;
        }
        stack.push(value);
        if oparg & 1 != 0 {
            stack.push(StackRef::NULL);
        }
        0
    }
}

/// `STORE_GLOBAL(name)`: value ->.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_store_global(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the value is an object on the frame's stack, which holds it throughout; globals are a dict.
    unsafe {
        let stack = Stack::of(frame);
        let error = ffi::PyDict_SetItem(
            (*frame).f_globals,
            name(frame, (*site).oparg),
            stack.object(1),
        );
        stack.pop_close();
        if error == 0 { 0 } else { -1 }
    }
}

/// `DELETE_GLOBAL(name)`: no stack effect.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_delete_global(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: globals are a dict; without a place for it the removed value is released.
    unsafe {
        let name = name(frame, (*site).oparg);
        match ffi::PyDict_Pop((*frame).f_globals, name, std::ptr::null_mut()) {
            0 => undefined_name(tstate, name),
            1.. => 0,
            _ => -1,
        }
    }
}

/// `LOAD_NAME(name)`: -> value, from the namespace, the globals or the builtins.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_name(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the frame is live and has the name.
    unsafe {
        Stack::of(frame).push_new(ffi::_PyEval_LoadName(
            tstate,
            frame,
            name(frame, (*site).oparg),
        ))
    }
}

/// `STORE_NAME(name)`: value ->.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_store_name(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the value is an object on the frame's stack, which holds it throughout; the frame owns its namespace.
    unsafe {
        let stack = Stack::of(frame);
        let name = name(frame, (*site).oparg);
        let namespace = (*frame).f_locals;
        if namespace.is_null() {
            no_namespace(c"no locals found when storing %R", name);
            return stack.fail(1);
        }
        let error = if refs::is_exact_dict(namespace) {
            ffi::PyDict_SetItem(namespace, name, stack.object(1))
        } else {
            ffi::PyObject_SetItem(namespace, name, stack.object(1))
        };
        stack.pop_close();
        if error == 0 { 0 } else { -1 }
    }
}

/// `DELETE_NAME(name)`: no stack effect.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_delete_name(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the frame owns its namespace.
    unsafe {
        let name = name(frame, (*site).oparg);
        let namespace = (*frame).f_locals;
        if namespace.is_null() {
            return no_namespace(c"no locals when deleting %R", name);
        }
        if ffi::PyObject_DelItem(namespace, name) != 0 {
            // Whatever the namespace raised, the interpreter raises NameError instead.
            return undefined_name(tstate, name);
        }
        0
    }
}

/// `LOAD_LOCALS`: -> the namespace.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_locals(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the frame owns its namespace.
    unsafe {
        let namespace = (*frame).f_locals;
        if namespace.is_null() {
            return no_namespace(c"no locals found", namespace);
        }
        Stack::of(frame).push(StackRef::from_new(namespace));
        0
    }
}

/// `SETUP_ANNOTATIONS`: no stack effect; makes `__annotations__` in the namespace unless it is there.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_setup_annotations(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the frame owns its namespace, a mapping; the references made here are released here.
    unsafe {
        if (*frame).f_locals.is_null() {
            return no_namespace(
                c"no locals found when setting up annotations",
                std::ptr::null_mut(),
            );
        }
        let key = ANNOTATIONS.get();
        let mut annotations = std::ptr::null_mut();
        if key.is_null()
            || ffi::PyMapping_GetOptionalItem((*frame).f_locals, key, &raw mut annotations) < 0
        {
            return -1;
        }
        let mut error = 0;
        if annotations.is_null() {
            annotations = ffi::PyDict_New();
            if annotations.is_null() {
                return -1;
            }
            error = ffi::PyObject_SetItem((*frame).f_locals, key, annotations);
        }
        refs::decref(annotations);
        if error == 0 { 0 } else { -1 }
    }
}

/// Finds a name in globals, then builtins, as `LOAD_FROM_DICT_OR_GLOBALS` does: a new reference, or null with an exception set.
///
/// # Safety
/// The frame is live.
unsafe fn load_global_or_builtin(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    name: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the frame borrows globals and builtins from its function, which it keeps alive.
    unsafe {
        let (globals, builtins) = ((*frame).f_globals, (*frame).f_builtins);
        let mut value = std::ptr::null_mut();
        if refs::is_exact_dict(globals) && refs::is_exact_dict(builtins) {
            value = ffi::_PyDict_LoadGlobal(globals.cast(), builtins.cast(), name);
            if value.is_null() && (*tstate).current_exception.is_null() {
                undefined_name(tstate, name);
            }
            return value;
        }
        if ffi::PyMapping_GetOptionalItem(globals, name, &raw mut value) < 0 {
            return std::ptr::null_mut();
        }
        if value.is_null() {
            if ffi::PyMapping_GetOptionalItem(builtins, name, &raw mut value) < 0 {
                return std::ptr::null_mut();
            }
            if value.is_null() {
                undefined_name(tstate, name);
            }
        }
        value
    }
}

/// `LOAD_FROM_DICT_OR_GLOBALS(name)`: mapping -> value, from the mapping, the globals or the builtins.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_from_dict_or_globals(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the mapping is an object on the frame's stack, which holds it while it is asked.
    unsafe {
        let stack = Stack::of(frame);
        let name = name(frame, (*site).oparg);
        let mut value = std::ptr::null_mut();
        let error = ffi::PyMapping_GetOptionalItem(stack.object(1), name, &raw mut value);
        stack.pop_close();
        if error < 0 {
            return -1;
        }
        if value.is_null() {
            value = load_global_or_builtin(frame, tstate, name);
        }
        stack.push_new(value)
    }
}

/// `LOAD_FROM_DICT_OR_DEREF(variable)`: mapping -> value, from the mapping or the cell.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_from_dict_or_deref(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the mapping is an object on the frame's stack, which holds it while it is asked; the slot holds a cell.
    unsafe {
        let stack = Stack::of(frame);
        let oparg = (*site).oparg;
        let mut value = std::ptr::null_mut();
        if ffi::PyMapping_GetOptionalItem(stack.object(1), local_name(frame, oparg), &raw mut value)
            < 0
        {
            return stack.fail(1);
        }
        if value.is_null() {
            value = (*cell(frame, oparg)).ob_ref;
            if value.is_null() {
                unbound_cell(frame, tstate, oparg);
                return stack.fail(1);
            }
            refs::incref(value);
        }
        stack.pop_close();
        stack.push_new(value)
    }
}

/// `LOAD_DEREF(variable)`: -> value of the cell.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_deref(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the slot holds a cell, which owns its value.
    unsafe {
        let oparg = (*site).oparg;
        let value = (*cell(frame, oparg)).ob_ref;
        if value.is_null() {
            return unbound_cell(frame, tstate, oparg);
        }
        Stack::of(frame).push(StackRef::from_new(value));
        0
    }
}

/// `STORE_DEREF(variable)`: value ->.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_store_deref(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the slot holds a cell, which owns its value; the old one is ours once it is overwritten.
    unsafe {
        let cell = cell(frame, (*site).oparg);
        let old = (*cell).ob_ref;
        (*cell).ob_ref = Stack::of(frame).pop().steal();
        refs::xdecref(old);
        0
    }
}

/// `DELETE_DEREF(variable)`: no stack effect; empties the cell.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_delete_deref(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the slot holds a cell, which owns its value; the old one is ours once the cell is empty.
    unsafe {
        let oparg = (*site).oparg;
        let cell = cell(frame, oparg);
        let old = (*cell).ob_ref;
        if old.is_null() {
            return unbound_cell(frame, tstate, oparg);
        }
        (*cell).ob_ref = std::ptr::null_mut();
        refs::decref(old);
        0
    }
}

/// `MAKE_CELL(variable)`: no stack effect; the slot's value moves into a new cell in the slot.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_make_cell(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the slot holds an object or null; the old reference is ours once it is overwritten.
    unsafe {
        let slot = local(frame, (*site).oparg);
        let cell = ffi::PyCell_New((*slot).as_ptr_borrow());
        if cell.is_null() {
            return -1;
        }
        let initial = slot.replace(StackRef::from_steal(cell));
        initial.xclose();
        0
    }
}

/// `COPY_FREE_VARS(n)`: no stack effect; the closure's cells go into the last `n` slots.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_copy_free_vars(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the function's closure has as many cells as its code has free variables, whose slots are the last ones and still null.
    unsafe {
        let count = (*site).oparg as usize;
        let closure = (*refs::frame_function(frame)).func_closure;
        let slots = refs::frame_stack_base(frame).sub(count);
        for index in 0..count {
            slots
                .add(index)
                .write(StackRef::from_new(refs::tuple_item(closure, index)));
        }
        0
    }
}

/// `DELETE_FAST(local)`: no stack effect.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_delete_fast(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the slot is the frame's; its reference is ours once it is overwritten.
    unsafe {
        let oparg = (*site).oparg;
        let slot = local(frame, oparg);
        if (*slot).is_null() {
            return unbound_local(frame, tstate, oparg);
        }
        StackRef::clear(slot);
        0
    }
}

/// `LOAD_FAST_CHECK(local)`: -> value.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_fast_check(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the slot is the frame's and holds an object or null.
    unsafe {
        let oparg = (*site).oparg;
        let value = *local(frame, oparg);
        if value.is_null() {
            return unbound_local(frame, tstate, oparg);
        }
        Stack::of(frame).push(value.dup());
        0
    }
}
