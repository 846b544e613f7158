//! FOR_ITER, and what FOR_ITER and SEND remember of what they resume: word 1 of the payload is its type.

use hotstamp_layout::ffi::{self, PyGenObject, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::{note_miss, set};
use crate::Frame;
use crate::helpers::RAISED;
use crate::helpers::generators::{RETURNED, op_send};
use crate::helpers::stack::Stack;
use crate::hooks::generators::{Step, await_step};
use crate::site::{RegisterHelper, Site};
use crate::{entry, generators};

/// `FOR_ITER`. Register helper: `acc` borrows the iterator, which stays on the operand stack. The next value, or null when exhausted.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md), but that `acc` is not closed.
pub unsafe extern "C" fn for_iter(
    acc: StackRef,
    _b: StackRef,
    _c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operand stack holds the iterator.
    unsafe {
        let iterator = acc.as_ptr_borrow();
        let ty = refs::type_of(iterator);
        learn_iterator(site, iterator, tstate);
        // Somebody may have put anything in place of the iterator (a generator expression's `.0`).
        let Some(next) = (*ty).tp_iternext else {
            let format = c"'%.100s' object is not an iterator";
            ffi::PyErr_Format(ffi::PyExc_TypeError, format.as_ptr(), (*ty).tp_name);
            return RAISED;
        };
        give_next(next(iterator), site, frame, tstate)
    }
}

/// `FOR_ITER` over iterators of the type in payload word 1. As [`for_iter`].
unsafe extern "C" fn for_iter_of_type(
    acc: StackRef,
    b: StackRef,
    c: StackRef,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: as `for_iter`; the type is compared only, so that it need not live.
    unsafe {
        let iterator = acc.as_ptr_borrow();
        let ty = refs::type_of(iterator);
        match (*ty).tp_iternext {
            Some(next) if (*Site::payload(site)).words[1] == ty as u64 => {
                give_next(next(iterator), site, frame, tstate)
            }
            _ => for_iter(acc, b, c, site, frame, tstate),
        }
    }
}

/// What an iterator gave, or null bits where it is exhausted.
#[inline(always)]
unsafe fn give_next(
    value: *mut PyObject,
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: a new reference, or null with or without an exception set.
    unsafe {
        if !value.is_null() {
            return StackRef::from_steal(value);
        }
        if !(*tstate).current_exception.is_null() {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) == 0 {
                return RAISED;
            }
            ffi::_PyEval_MonitorRaise(tstate, frame, (*site).instr);
            ffi::PyErr_Clear();
        }
        StackRef::NULL
    }
}

/// Points a FOR_ITER site at the stub for an iterator's type, if there is one.
unsafe fn learn_iterator(site: *mut Site, iterator: *mut PyObject, tstate: *mut PyThreadState) {
    // SAFETY: the caller gives a live iterator and a site with a payload, GIL held.
    unsafe {
        let Some(stubs) = super::stubs() else {
            return;
        };
        let ty = refs::type_of(iterator).cast_const();
        let known = [
            (&raw const ffi::PyListIter_Type, stubs.iterate_list),
            (&raw const ffi::PyTupleIter_Type, stubs.iterate_tuple),
            (&raw const ffi::PyRangeIter_Type, stubs.iterate_range),
        ];
        if let Some((_, target)) = known.iter().find(|(known, _)| std::ptr::eq(*known, ty)) {
            // The stub that knows the type calls for the end of each loop: no change of mind.
            if (*site).target != *target && note_miss(site, |stubs| stubs.register).is_some() {
                set(site, *target, [0; 4]);
            }
        } else if std::ptr::eq(ty, &raw const ffi::PyGen_Type) {
            // Generators that the interpreter made or suspended last are none of the site's: it expects the next one to be ours.
            if (*site).target != stubs.iterate_generator
                && resumes_compiled(iterator.cast(), tstate)
                && note_miss(site, |stubs| stubs.register).is_some()
            {
                set(site, stubs.iterate_generator, [0, ty as u64, 0, 0]);
            }
        } else if note_miss(site, |stubs| stubs.register).is_some() {
            let helper: RegisterHelper = for_iter_of_type;
            set(
                site,
                stubs.register_quick,
                [helper as usize as u64, ty as u64, 0, 0],
            );
        }
    }
}

/// `SEND`: as [`op_send`], after the site learnt the receiver's code.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md); the site has a payload.
pub unsafe extern "C" fn send(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are objects on the frame's stack.
    unsafe {
        let stack = Stack::of(frame);
        let receiver = stack.object(2);
        if refs::is_exact_generator(receiver) || refs::is_exact_coroutine(receiver) {
            let ty = refs::type_of(receiver) as u64;
            if (*Site::payload(site)).words[1] != ty
                && resumes_compiled(receiver.cast(), tstate)
                && let Some(stubs) = note_miss(site, |stubs| stubs.send)
            {
                set(site, stubs.send, [0, ty, 0, 0]);
            }
        } else if stack.peek(1).is_none()
            && let Some(step) = await_step(receiver)
        {
            stack.pop_close();
            return match step {
                Step::Awaits(object) => stack.push_new(object),
                Step::Gives(value) if !entry::stale(tstate) => {
                    stack.push(StackRef::from_steal(value));
                    RETURNED
                }
                // Somebody watches since: they are told of the StopIteration.
                Step::Gives(value) => {
                    ffi::_PyGen_SetStopIterationValue(value);
                    refs::decref(value);
                    finished_by_exception(site, frame, tstate)
                }
                Step::Raised => finished_by_exception(site, frame, tstate),
            };
        }
        op_send(site, frame, tstate)
    }
}

/// The receiver of SEND raised: StopIteration gives the value that it returned.
unsafe fn finished_by_exception(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: an exception is set; the value that was sent is off the operand stack.
    unsafe {
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) == 0 {
            return -1;
        }
        ffi::_PyEval_MonitorRaise(tstate, frame, (*site).instr);
        let mut value = std::ptr::null_mut();
        if ffi::_PyGen_FetchStopIterationValue(&raw mut value) < 0 {
            return -1;
        }
        Stack::of(frame).push(StackRef::from_steal(value));
        RETURNED
    }
}

/// Whether a generator or coroutine goes on in compiled code.
///
/// # Safety
/// The generator is a live generator or coroutine; GIL held.
unsafe fn resumes_compiled(generator: *mut PyGenObject, tstate: *mut PyThreadState) -> bool {
    // SAFETY: see above.
    unsafe {
        generators::may_resume(tstate)
            && generators::is_resumable((*generator).gi_frame_state)
            && generators::compiled(generator).is_some()
    }
}
