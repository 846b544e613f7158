//! What optimized code calls to make and change lists. None of it runs Python code; without memory there is no way back from here.

use hotstamp_layout::ffi::{self, PyObject};
use hotstamp_layout::refs::{self, StackRef};

/// Ends the process if there was no memory.
unsafe fn checked(object: *mut PyObject) -> *mut PyObject {
    if object.is_null() {
        // SAFETY: does not return.
        unsafe { ffi::Py_FatalError(c"hotstamp: out of memory for a list".as_ptr()) };
    }
    object
}

/// A new list, as bits, of objects whose references move.
pub(super) unsafe extern "C" fn make_list(items: *const *mut PyObject, count: usize) -> usize {
    // SAFETY: as many objects as said; GIL held.
    unsafe {
        let list = checked(ffi::PyList_New(count as isize));
        for place in 0..count {
            ffi::PyList_SetItem(list, place as isize, items.add(place).read());
        }
        StackRef::from_steal(list).bits
    }
}

/// Adds an item, whose reference moves, to a list.
pub(super) unsafe extern "C" fn append(list: *mut PyObject, item: *mut PyObject) {
    // SAFETY: a list and an object; GIL held.
    unsafe {
        if ffi::PyList_Append(list, item) != 0 {
            checked(std::ptr::null_mut());
        }
        refs::decref(item);
    }
}

/// Takes the last item out of a list that has one; the reference goes to the caller.
pub(super) unsafe extern "C" fn pop(list: *mut PyObject) -> *mut PyObject {
    // SAFETY: a list with an item; GIL held. The item outlives the slice: it is referenced before.
    unsafe {
        let last = refs::size_of_var(list) as usize - 1;
        let item = refs::new_ref(refs::list_item(list, last));
        let end = last as isize;
        if ffi::PyList_SetSlice(list, end, end + 1, std::ptr::null_mut()) != 0 {
            checked(std::ptr::null_mut());
        }
        item
    }
}

/// A new iterator, as bits, over a list or tuple.
pub(super) unsafe extern "C" fn iterator(object: *mut PyObject) -> usize {
    // SAFETY: exactly a list or a tuple; GIL held.
    unsafe { StackRef::from_steal(checked(ffi::PyObject_GetIter(object))).bits }
}
