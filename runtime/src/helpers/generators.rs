//! Memory helpers of generators, coroutines and asynchronous iteration, but for those that make or suspend a frame. Called through sites only.

use hotstamp_layout::ffi::{self, PyGenObject, PyObject, PyStopIterationObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::exceptions::RERAISED;
use super::operands::Identifier;
use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// What [`op_send`] returns when the sub-iterator has returned: compiled code goes on at the instruction's jump target.
pub const RETURNED: isize = 1;

static SEND: Identifier = Identifier::new(c"send");

/// `GET_AWAITABLE(where)`: object -> iterator.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_get_awaitable(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an object on the frame's stack, which holds it until the iterator is there.
    unsafe {
        let stack = Stack::of(frame);
        let object = stack.object(1);
        // A coroutine is its own iterator, unless it is in the middle of an `await`: then somebody else awaits it.
        if refs::is_exact_coroutine(object)
            && i32::from((*object.cast::<PyGenObject>()).gi_frame_state)
                != ffi::FRAME_SUSPENDED_YIELD_FROM
        {
            return 0;
        }
        let iterator = ffi::_PyEval_GetAwaitable(object, (*site).oparg as i32);
        stack.pop_close();
        stack.push_new(iterator)
    }
}

/// `GET_AITER`: object -> asynchronous iterator.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_get_aiter(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an object on the frame's stack, which holds it until its type has been used.
    unsafe {
        let stack = Stack::of(frame);
        let object = stack.object(1);
        let ty = refs::type_of(object);
        let async_methods = (*ty).tp_as_async;
        let Some(get_iterator) = async_methods.as_ref().and_then(|methods| methods.am_aiter) else {
            let format = c"'async for' requires an object with __aiter__ method, got %.100s";
            ffi::PyErr_Format(ffi::PyExc_TypeError, format.as_ptr(), (*ty).tp_name);
            return stack.fail(1);
        };
        let iterator = get_iterator(object);
        stack.pop_close();
        if iterator.is_null() {
            return -1;
        }
        let ty = refs::type_of(iterator);
        if (*ty)
            .tp_as_async
            .as_ref()
            .and_then(|methods| methods.am_anext)
            .is_none()
        {
            let format = c"'async for' received an object from __aiter__ that does not implement __anext__: %.100s";
            ffi::PyErr_Format(ffi::PyExc_TypeError, format.as_ptr(), (*ty).tp_name);
            refs::decref(iterator);
            return -1;
        }
        stack.push(StackRef::from_steal(iterator));
        0
    }
}

/// `GET_ANEXT`: asynchronous iterator -> (the same) awaitable.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_get_anext(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an object on the frame's stack, which holds it throughout.
    unsafe {
        let stack = Stack::of(frame);
        stack.push_new(ffi::_PyEval_GetANext(stack.object(1)))
    }
}

/// `GET_YIELD_FROM_ITER`: iterable -> iterator.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_get_yield_from_iter(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an object on the frame's stack, which holds it until the iterator is there.
    unsafe {
        let stack = Stack::of(frame);
        let iterable = stack.object(1);
        if refs::is_exact_coroutine(iterable) {
            let flags = (*refs::frame_code(frame)).co_flags as u32;
            if flags & (ffi::CO_COROUTINE | ffi::CO_ITERABLE_COROUTINE) == 0 {
                let text = c"cannot 'yield from' a coroutine object in a non-coroutine generator";
                ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
                return stack.fail(1);
            }
            return 0;
        }
        if refs::is_exact_generator(iterable) {
            return 0;
        }
        let iterator = ffi::PyObject_GetIter(iterable);
        if iterator.is_null() {
            return stack.fail(1);
        }
        stack.replace_close(1, StackRef::from_steal(iterator));
        0
    }
}

/// Resumes a receiver of `SEND`: the value it yields, or the one it returns with `RETURNED`, as a new reference; null with an exception set otherwise.
///
/// # Safety
/// The frame is live and `receiver` and `value` are live objects.
unsafe fn send(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    receiver: *mut PyObject,
    value: StackRef,
) -> (*mut PyObject, isize) {
    // SAFETY: passed on; a generator object has a frame state, and a type with `tp_iternext` an iterator's protocol.
    unsafe {
        let sent = value.as_ptr_borrow();
        let mut result = std::ptr::null_mut();
        if (refs::is_exact_generator(receiver) || refs::is_exact_coroutine(receiver))
            && i32::from((*receiver.cast::<PyGenObject>()).gi_frame_state) < ffi::FRAME_EXECUTING
        {
            // The interpreter resumes the frame in place: a returned value arrives without a StopIteration around it, as it does here.
            return match ffi::PyIter_Send(receiver, sent, &raw mut result) {
                ffi::PYGEN_RETURN => (result, RETURNED),
                ffi::PYGEN_NEXT => (result, 0),
                _ => (std::ptr::null_mut(), -1),
            };
        }
        if value.is_none() && ffi::PyIter_Check(receiver) != 0 {
            result = match (*refs::type_of(receiver)).tp_iternext {
                Some(next) => next(receiver),
                None => std::ptr::null_mut(),
            };
        } else {
            let method = SEND.get();
            if method.is_null() {
                return (std::ptr::null_mut(), -1);
            }
            let arguments = [receiver, sent];
            result =
                ffi::PyObject_VectorcallMethod(method, arguments.as_ptr(), 2, std::ptr::null_mut());
        }
        if !result.is_null() {
            return (result, 0);
        }
        if !(*tstate).current_exception.is_null()
            && ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) != 0
        {
            ffi::_PyEval_MonitorRaise(tstate, frame, (*site).instr);
        }
        if ffi::_PyGen_FetchStopIterationValue(&raw mut result) == 0 {
            (result, RETURNED)
        } else {
            (std::ptr::null_mut(), -1)
        }
    }
}

/// `SEND`: receiver value -> receiver result; [`RETURNED`] if the result is what the receiver returned, 0 if it yielded it. The receiver stays in every case.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_send(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack, which holds them until the result is there.
    unsafe {
        let stack = Stack::of(frame);
        let (result, outcome) = send(site, frame, tstate, stack.object(2), stack.peek(1));
        stack.pop_close();
        if !result.is_null() {
            stack.push(StackRef::from_steal(result));
        }
        outcome
    }
}

/// `END_SEND`: receiver value -> value.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_end_send(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack; the value moves to the receiver's slot before the receiver is closed.
    unsafe {
        let stack = Stack::of(frame);
        let value = stack.pop();
        stack.replace_close(1, value);
        0
    }
}

/// `CLEANUP_THROW`: sub-iterator last-sent exception -> None value, for a StopIteration; any other exception is passed on ([`RERAISED`]).
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_cleanup_throw(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, the top one an exception, which the stack holds until its value has been taken.
    unsafe {
        let stack = Stack::of(frame);
        let exception = stack.object(1);
        if ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_StopIteration) == 0 {
            ffi::_PyErr_SetRaisedException(tstate, refs::new_ref(exception));
            stack.pop_close_n(3);
            return RERAISED;
        }
        let value = StackRef::from_new((*exception.cast::<PyStopIterationObject>()).value);
        // In the interpreter's order: the sub-iterator dies first, with the value in its slot.
        stack.replace_close(3, value);
        stack.pop_close_n(2);
        stack.put(1, StackRef::none());
        stack.push(value);
        0
    }
}

/// `END_ASYNC_FOR`: awaitable exception ->, for a StopAsyncIteration; any other exception is passed on ([`RERAISED`]).
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_end_async_for(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack, the top one an exception.
    unsafe {
        let stack = Stack::of(frame);
        let exception = stack.object(1);
        let ended = ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_StopAsyncIteration) != 0;
        if !ended {
            ffi::_PyErr_SetRaisedException(tstate, refs::new_ref(exception));
        }
        stack.pop_close_n(2);
        if ended { 0 } else { RERAISED }
    }
}

/// `POP_ITER`: iterator ->, at the end of a loop.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_pop_iter(
    _site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an object on the frame's stack.
    unsafe { Stack::of(frame).pop_close() };
    0
}
