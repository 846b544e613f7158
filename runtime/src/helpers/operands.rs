//! What an instruction's argument stands for in its frame: a name, a local, a cell; and the names that CPython's sources call `&_Py_ID(...)`.
//! Used by the helpers of names, functions, calls and generators; knows nothing about any opcode.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

use hotstamp_layout::ffi::{self, PyCellObject, PyObject};
use hotstamp_layout::refs::{self, StackRef};

use crate::Frame;

/// `GETITEM(FRAME_CO_NAMES, index)`, borrowed from the code object.
///
/// # Safety
/// `frame` is a live frame, and its code has more than `index` names.
#[inline(always)]
pub unsafe fn name(frame: *mut Frame, index: u32) -> *mut PyObject {
    // SAFETY: the frame keeps its code object alive, whose names are a tuple with more than `index` items.
    unsafe { refs::tuple_item((*refs::frame_code(frame)).co_names, index as usize) }
}

/// `GETLOCAL(index)`: the slot of a local, cell or free variable.
///
/// # Safety
/// `frame` is a live frame whose code has more than `index` of them.
#[inline(always)]
pub unsafe fn local(frame: *mut Frame, index: u32) -> *mut StackRef {
    // SAFETY: the frame has `co_nlocalsplus` such slots, more than `index`.
    unsafe { refs::frame_locals(frame).add(index as usize) }
}

/// The name of a local, cell or free variable, borrowed from the code object.
///
/// # Safety
/// As for [`local`].
#[inline(always)]
pub unsafe fn local_name(frame: *mut Frame, index: u32) -> *mut PyObject {
    // SAFETY: the tuple has one name for each of the `co_nlocalsplus` slots.
    unsafe {
        refs::tuple_item(
            (*refs::frame_code(frame)).co_localsplusnames,
            index as usize,
        )
    }
}

/// The cell in a slot, borrowed from it.
///
/// # Safety
/// As for [`local`]; the slot holds a cell.
#[inline(always)]
pub unsafe fn cell(frame: *mut Frame, index: u32) -> *mut PyCellObject {
    // SAFETY: passed on.
    unsafe { (*local(frame, index)).as_ptr_borrow().cast() }
}

/// A string that CPython's sources use as `&_Py_ID(...)`: the interned one, which is statically allocated. It is found through the interning table, since its
/// place in `_PyRuntime` is not the same in all patch releases.
#[derive(Debug)]
pub struct Identifier {
    text: &'static CStr,
    object: AtomicPtr<PyObject>,
}

impl Identifier {
    /// The identifier spelt `text`.
    pub const fn new(text: &'static CStr) -> Self {
        Self {
            text,
            object: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// The string, borrowed for ever; or null with an exception set, which only a string that CPython does not allocate statically can cause.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline(always)]
    pub unsafe fn get(&self) -> *mut PyObject {
        let known = self.object.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the GIL is held, and the text ends in a zero byte.
        let object = unsafe { ffi::PyUnicode_InternFromString(self.text.as_ptr()) };
        self.object.store(object, Ordering::Relaxed);
        object
    }
}
