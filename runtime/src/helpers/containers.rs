//! Memory helpers that build and fill tuples, lists, sets and dictionaries. Called through sites only.
//!
//! `list`, `set` and `dict` below are the container `oparg` entries under the value that goes into it; it stays on the stack, also when the instruction fails.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::RAISED;
use super::stack::{Stack, status};
use crate::Frame;
use crate::site::Site;

/// `BUILD_TUPLE(n)`: n values -> tuple.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_build_tuple(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack; the new tuple takes them over if there is one.
    unsafe {
        let stack = Stack::of(frame);
        let n = (*site).oparg as usize;
        let tuple = ffi::_PyTuple_FromStackRefStealOnSuccess(stack.entries(n), n as isize);
        stack.push_in_place_of(n, tuple)
    }
}

/// `BUILD_LIST(n)`: n values -> list.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_build_list(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack; the new list takes them over if there is one.
    unsafe {
        let stack = Stack::of(frame);
        let n = (*site).oparg as usize;
        let list = ffi::_PyList_FromStackRefStealOnSuccess(stack.entries(n), n as isize);
        stack.push_in_place_of(n, list)
    }
}

/// `BUILD_SET(n)`: n values -> set.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_build_set(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack; each is NULL there before the set, or the end of its life, gets it.
    unsafe {
        let stack = Stack::of(frame);
        let n = (*site).oparg as usize;
        let set = ffi::PySet_New(std::ptr::null_mut());
        if set.is_null() {
            return stack.fail(n);
        }
        // Hashing and comparing run Python code. After the first failure the rest of the values only die, in the same order.
        let mut failed = false;
        for i in (1..=n).rev() {
            let value = stack.peek(i);
            stack.put(i, StackRef::NULL);
            if failed {
                value.close();
            } else {
                failed = ffi::_PySet_AddTakeRef(set.cast(), value.steal()) != 0;
            }
        }
        stack.shrink(n);
        if failed {
            refs::decref(set);
            return -1;
        }
        stack.push_new(set)
    }
}

/// `BUILD_MAP(n)`: n pairs of key and value -> dict.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_build_map(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them while the dictionary is made.
    unsafe {
        let stack = Stack::of(frame);
        let pairs = (*site).oparg as usize;
        let map = stack.with_objects(2 * pairs, |objects| {
            ffi::_PyDict_FromItems(objects, 2, objects.add(1), 2, pairs as isize)
        });
        stack.pop_close_n(2 * pairs);
        stack.push_new(map)
    }
}

/// `LIST_APPEND(i)`: list .. value -> list ..
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_list_append(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the list is `oparg` entries below the value, as the compiler of the bytecode laid them out; popped, the value is ours to hand on.
    unsafe {
        let stack = Stack::of(frame);
        let value = stack.pop().steal();
        let list = stack.object((*site).oparg as usize);
        status(list_append_steal(list.cast(), value))
    }
}

/// `LIST_APPEND(i)` with `acc` the value, which is not on the operand stack any more; any non-zero result.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn reg_list_append(
    acc: StackRef,
    _b: StackRef,
    _c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: as `op_list_append`.
    unsafe {
        let list = Stack::of(frame).object((*site).oparg as usize);
        if list_append_steal(list.cast(), acc.steal()) < 0 {
            RAISED
        } else {
            StackRef::none()
        }
    }
}

/// Appends `value`, which it consumes also when it fails: CPython's inlined `_PyList_AppendTakeRef`.
///
/// # Safety
/// `list` is a list and `value` a reference of the caller's.
unsafe fn list_append_steal(list: *mut ffi::PyListObject, value: *mut PyObject) -> i32 {
    // SAFETY: slots between the size and `allocated` are the list's own spare room.
    unsafe {
        let size = (*list).ob_base.ob_size;
        if (*list).allocated > size {
            (*list).ob_item.add(size as usize).write(value);
            (*list).ob_base.ob_size = size + 1;
            return 0;
        }
        ffi::_PyList_AppendTakeRefListResize(list, value)
    }
}

/// `LIST_EXTEND(i)`: list .. iterable -> list ..
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_list_extend(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the list is `oparg` entries below the iterable; the stack holds both until the extension is over.
    unsafe {
        let stack = Stack::of(frame);
        let iterable = stack.object(1);
        let list = stack.object(1 + (*site).oparg as usize);
        let none = ffi::_PyList_Extend(list.cast(), iterable);
        if none.is_null()
            && ffi::PyErr_ExceptionMatches(ffi::PyExc_TypeError) != 0
            && (*(*iterable).ob_type).tp_iter.is_none()
            && ffi::PySequence_Check(iterable) == 0
        {
            let type_name = (*(*iterable).ob_type).tp_name;
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"Value after * must be an iterable, not %.200s".as_ptr(),
                type_name,
            );
        }
        stack.pop_close();
        status(if none.is_null() { -1 } else { 0 })
    }
}

/// `SET_ADD(i)`: set .. value -> set ..
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_set_add(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the set is `oparg` entries below the value; popped, the value is ours to hand on.
    unsafe {
        let stack = Stack::of(frame);
        let set = stack.object((*site).oparg as usize + 1);
        // A program can rebind `__conditional_annotations__`, to which module and class bodies add.
        if !refs::is_type(set, &raw const ffi::PySet_Type) {
            let format = c"'%T' object is not a set";
            ffi::PyErr_Format(ffi::PyExc_TypeError, format.as_ptr(), set);
            return stack.fail(1);
        }
        status(ffi::_PySet_AddTakeRef(set.cast(), stack.pop().steal()))
    }
}

/// `SET_UPDATE(i)`: set .. iterable -> set ..
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_set_update(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the set is `oparg` entries below the iterable; the stack holds both until the update is over.
    unsafe {
        let stack = Stack::of(frame);
        let error = ffi::_PySet_Update(stack.object(1 + (*site).oparg as usize), stack.object(1));
        stack.pop_close();
        status(error)
    }
}

/// `MAP_ADD(i)`: dict .. key value -> dict ..
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_map_add(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the dict is `oparg` entries below the key; popped, key and value are ours to hand on.
    unsafe {
        let stack = Stack::of(frame);
        let value = stack.pop().steal();
        let key = stack.pop().steal();
        let dict = stack.object((*site).oparg as usize);
        status(ffi::_PyDict_SetItem_Take2(dict.cast(), key, value))
    }
}

/// `DICT_UPDATE(i)`: dict .. mapping -> dict ..
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_dict_update(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the dict is `oparg` entries below the mapping; the stack holds both until the update is over.
    unsafe {
        let stack = Stack::of(frame);
        let update = stack.object(1);
        let error = ffi::PyDict_Update(stack.object(1 + (*site).oparg as usize), update);
        if error < 0 && ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) != 0 {
            let type_name = (*(*update).ob_type).tp_name;
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"'%.200s' object is not a mapping".as_ptr(),
                type_name,
            );
        }
        stack.pop_close();
        status(error)
    }
}

/// `DICT_MERGE(i)`: callable self-or-null args dict .. mapping -> callable self-or-null args dict .. Merges `**mapping` of a call; the callable is wanted for the error's text.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_dict_merge(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the dict is `oparg` entries below the mapping and the callable three below the dict; the stack holds all until the merge is over.
    unsafe {
        let stack = Stack::of(frame);
        let depth = (*site).oparg as usize;
        let update = stack.object(1);
        let callable = stack.object(depth + 4);
        // 2: a key that is already there is an error.
        let error = ffi::_PyDict_MergeEx(stack.object(depth + 1), update, 2);
        if error < 0 {
            ffi::_PyEval_FormatKwargsError(tstate, callable, update);
        }
        stack.pop_close();
        status(error)
    }
}
