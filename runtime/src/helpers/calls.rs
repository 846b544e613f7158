//! Memory helpers of calls, through vectorcall or `tp_call`. Called through sites only; [`vectorcall`] is also for other helpers.
//!
//! The interpreter runs a Python function without a native call when its vectorcall is the default one. Here every callable is called through its own entry:
//! that of a stamped function leads to its compiled code.

use std::mem::MaybeUninit;

use hotstamp_layout::ffi::{self, PyMethodObject, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::stack::Stack;
use crate::hooks::functions;
use crate::site::Site;
use crate::{Frame, segments};

/// `PY_VECTORCALL_ARGUMENTS_OFFSET`: the callee may use the word before the arguments.
pub const ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

/// Arguments that are gathered on the native stack; calls with more gather them in allocated memory.
const INLINE_ARGUMENTS: usize = 10;

/// `_PyObject_VectorcallTstate`: calls anything, and checks that a result and an exception exclude each other. Returns a new reference, or null with an exception set.
///
/// # Safety
/// `args` holds the positional arguments counted by `nargsf` and then one for each name in `kwnames` (a tuple of strings, or null), all borrowed; with
/// the offset bit in `nargsf` the word before them is writable. The GIL is held and `tstate` is the current thread's.
#[inline]
pub unsafe fn vectorcall(
    tstate: *mut PyThreadState,
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: a type with the flag keeps the entry, or null, in each of its objects at the offset it names.
    unsafe {
        let ty = refs::type_of(callable);
        let mut entry: ffi::vectorcallfunc = None;
        if refs::type_has_feature(ty, ffi::Py_TPFLAGS_HAVE_VECTORCALL as u64) {
            entry = callable
                .byte_offset((*ty).tp_vectorcall_offset)
                .cast::<ffi::vectorcallfunc>()
                .read();
        }
        let Some(entry) = entry else {
            return ffi::_PyObject_MakeTpCall(
                tstate,
                callable,
                args,
                (nargsf & !ARGUMENTS_OFFSET) as isize,
                kwnames,
            );
        };
        let result = entry(callable, args, nargsf, kwnames);
        if result.is_null() == (*tstate).current_exception.is_null() {
            return ffi::_Py_CheckFunctionResult(tstate, callable, result, std::ptr::null());
        }
        result
    }
}

/// Calls with arguments that lie on the operand stack, `total` of them from `arguments` on, the last ones named by `kwnames` unless it is null. The stack keeps
/// them. Returns a new reference, or null with an exception set.
///
/// # Safety
/// As for [`vectorcall`]; the entries are objects.
#[inline(always)]
unsafe fn call_with_entries(
    tstate: *mut PyThreadState,
    callable: *mut PyObject,
    arguments: *const StackRef,
    total: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the array has room for `total` pointers and the word before them; each is written before the call, which borrows them from the stack.
    unsafe {
        let positional = if kwnames.is_null() {
            total
        } else {
            total - refs::size_of_var(kwnames) as usize
        };
        let mut inline = [const { MaybeUninit::<*mut PyObject>::uninit() }; INLINE_ARGUMENTS + 1];
        let mut memory = inline.as_mut_ptr().cast::<*mut PyObject>();
        if total > INLINE_ARGUMENTS {
            memory = ffi::PyMem_Malloc((total + 1) * size_of::<*mut PyObject>()).cast();
            if memory.is_null() {
                return ffi::PyErr_NoMemory();
            }
        }
        let pointers = memory.add(1);
        for index in 0..total {
            pointers
                .add(index)
                .write((*arguments.add(index)).as_ptr_borrow());
        }
        let call = || {
            vectorcall(
                tstate,
                callable,
                pointers,
                positional | ARGUMENTS_OFFSET,
                kwnames,
            )
        };
        let result = if segments::is_function(callable) {
            functions::called(callable.cast());
            segments::with_room(tstate, call)
        } else {
            call()
        };
        if total > INLINE_ARGUMENTS {
            ffi::PyMem_Free(memory.cast());
        }
        result
    }
}

/// Replaces a bound method in the callable's slot by its function, and the null above it by its object.
///
/// # Safety
/// `slots` are the two slots of a call's callable and self-or-null on the operand stack.
#[inline(always)]
pub unsafe fn unpack_bound_method(slots: *mut StackRef) {
    // SAFETY: the slots hold an object, and an object or null; the method keeps function and object alive until it is closed.
    unsafe {
        let callable = slots.read();
        if !slots.add(1).read().is_null() || !refs::is_bound_method(callable.as_ptr_borrow()) {
            return;
        }
        let method: *mut PyMethodObject = callable.as_ptr_borrow().cast();
        slots.add(1).write(StackRef::from_new((*method).im_self));
        slots.write(StackRef::from_new((*method).im_func));
        callable.close();
    }
}

/// `CALL(n)`: callable self-or-NULL argument*n -> result.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_call(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them while the call runs.
    unsafe {
        let stack = Stack::of(frame);
        let count = (*site).oparg as usize;
        let slots = stack.entries(count + 2);
        unpack_bound_method(slots);
        let has_self = usize::from(!slots.add(1).read().is_null());
        let result = call_with_entries(
            tstate,
            (*slots).as_ptr_borrow(),
            slots.add(2 - has_self),
            count + has_self,
            std::ptr::null_mut(),
        );
        stack.pop_close_n(count + 2);
        stack.push_new(result)
    }
}

/// `CALL_KW(n)`: callable self-or-NULL argument*n names -> result.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_call_kw(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them while the call runs; the top one is a tuple with a name for each of the last arguments.
    unsafe {
        let stack = Stack::of(frame);
        let count = (*site).oparg as usize;
        let slots = stack.entries(count + 3);
        unpack_bound_method(slots);
        let has_self = usize::from(!slots.add(1).read().is_null());
        let result = call_with_entries(
            tstate,
            (*slots).as_ptr_borrow(),
            slots.add(2 - has_self),
            count + has_self,
            stack.object(1),
        );
        stack.pop_close_n(count + 3);
        stack.push_new(result)
    }
}

/// `CALL_FUNCTION_EX`: callable NULL arguments keywords-or-NULL -> result.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_call_function_ex(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them while the call runs; keywords are a dict or null.
    unsafe {
        let stack = Stack::of(frame);
        let callable = stack.object(4);
        let arguments = stack.object(2);
        if !refs::is_exact_tuple(arguments) {
            if ffi::_Py_Check_ArgsIterable(tstate, callable, arguments) < 0 {
                return stack.fail(4);
            }
            let tuple = ffi::PySequence_Tuple(arguments);
            if tuple.is_null() {
                return stack.fail(4);
            }
            stack.replace_close(2, StackRef::from_steal(tuple));
        }
        let call = || ffi::PyObject_Call(callable, stack.object(2), stack.peek(1).as_ptr_borrow());
        let result = if segments::is_function(callable) {
            functions::called(callable.cast());
            segments::with_room(tstate, call)
        } else {
            call()
        };
        stack.pop_close_n(4);
        stack.push_new(result)
    }
}
