//! FOR_ITER.

use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::{note_miss, set};
use crate::Frame;
use crate::helpers::RAISED;
use crate::site::Site;

/// `FOR_ITER`. Register helper: `acc` borrows the iterator, which stays on the operand stack. The next value, or null when exhausted.
///
/// # Safety
/// The contract of register helpers (ARCHITECTURE.md), but that `acc` is not closed.
pub unsafe extern "C" fn for_iter(
    acc: StackRef,
    _b: StackRef,
    _c: StackRef,
    site: *mut Site,
    _frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> StackRef {
    // SAFETY: the operand stack holds the iterator; `tp_iternext` was checked by GET_ITER, and generators' is their own.
    unsafe {
        let iterator = acc.as_ptr_borrow();
        let ty = refs::type_of(iterator);
        if let Some(stubs) = super::stubs() {
            let known = [
                (&raw const ffi::PyListIter_Type, stubs.iterate_list),
                (&raw const ffi::PyTupleIter_Type, stubs.iterate_tuple),
                (&raw const ffi::PyRangeIter_Type, stubs.iterate_range),
            ];
            let target = known
                .iter()
                .find(|(known, _)| std::ptr::eq(*known, ty))
                .map(|(_, target)| *target);
            // The stub that knows the type calls for the end of each loop: no change of mind.
            if target != Some((*site).target)
                && note_miss(site, |stubs| stubs.register).is_some()
                && let Some(target) = target
            {
                set(site, target, [0; 4]);
            }
        }
        let Some(next) = (*ty).tp_iternext else {
            return RAISED;
        };
        let value = next(iterator);
        if !value.is_null() {
            return StackRef::from_steal(value);
        }
        if !(*tstate).current_exception.is_null() {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) == 0 {
                return RAISED;
            }
            ffi::PyErr_Clear();
        }
        StackRef::NULL
    }
}
