//! Memory helpers of attributes: loading, storing, deleting, and loading through `super`. Called through sites only.

use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::calls::vectorcall;
use super::operands::name;
use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// `LOAD_ATTR(name << 1 | method)`: owner -> attribute; as a method load: owner -> method self, or attribute NULL.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_attr(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the owner is an object on the frame's stack; its slot and, for a method load, one more are free for the results.
    unsafe {
        let stack = Stack::of(frame);
        let oparg = (*site).oparg;
        let name = name(frame, oparg >> 1);
        if oparg & 1 == 0 {
            let attribute = ffi::PyObject_GetAttr(stack.object(1), name);
            stack.pop_close();
            return stack.push_new(attribute);
        }
        // The call consumes the owner, so it must not be on the stack any more when a destructor runs.
        let owner = stack.pop();
        let mut self_or_null = StackRef::NULL;
        let method = ffi::_Py_LoadAttr_StackRefSteal(tstate, owner, name, &raw mut self_or_null);
        if method.is_null() {
            self_or_null.xclose();
            return -1;
        }
        stack.push(method);
        stack.push(self_or_null);
        0
    }
}

/// `STORE_ATTR(name)`: value owner ->.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_store_attr(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack, which holds them throughout.
    unsafe {
        let stack = Stack::of(frame);
        let error =
            ffi::PyObject_SetAttr(stack.object(1), name(frame, (*site).oparg), stack.object(2));
        stack.pop_close_n(2);
        if error == 0 { 0 } else { -1 }
    }
}

/// `DELETE_ATTR(name)`: owner ->.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_delete_attr(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an object on the frame's stack, which holds it throughout. Setting an attribute to null deletes it.
    unsafe {
        let stack = Stack::of(frame);
        let error = ffi::PyObject_DelAttr(stack.object(1), name(frame, (*site).oparg));
        stack.pop_close();
        if error == 0 { 0 } else { -1 }
    }
}

/// `LOAD_SUPER_ATTR(name << 2 | two arguments << 1 | method)`: super class self -> attribute, and NULL above it in the method form (the method arrives bound).
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_super_attr(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack, which holds them while `super` is called; `super(class, self)` has its two arguments there or none.
    unsafe {
        let stack = Stack::of(frame);
        let oparg = (*site).oparg;
        let arguments = [stack.object(2), stack.object(1)];
        let proxy = vectorcall(
            tstate,
            stack.object(3),
            arguments.as_ptr(),
            (oparg & 2) as usize,
            std::ptr::null_mut(),
        );
        stack.pop_close_n(3);
        if proxy.is_null() {
            return -1;
        }
        let attribute = ffi::PyObject_GetAttr(proxy, name(frame, oparg >> 2));
        refs::decref(proxy);
        if attribute.is_null() {
            return -1;
        }
        stack.push(StackRef::from_steal(attribute));
        if oparg & 1 != 0 {
            stack.push(StackRef::NULL);
        }
        0
    }
}
