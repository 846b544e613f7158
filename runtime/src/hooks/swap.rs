//! Replacing what a built-in function does, not what it is: the function object keeps its identity and everything visible, only the C function in its method
//! definition changes.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

use hotstamp_layout::ffi::{self, PyCFunctionObject, PyMethodDef, PyObject};
use hotstamp_layout::refs;

/// What `PyCFunction` is when there is one.
type Builtin = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;

/// One built-in function that can be swapped.
pub(super) struct Swap {
    /// The function object, owned while swapped.
    object: AtomicPtr<PyObject>,
    /// Its own method definition, once it was seen. Static data of the module that defines it.
    original: AtomicPtr<PyMethodDef>,
    /// Our method definition, once it was made. Never freed: a call may be inside.
    replacement: AtomicPtr<PyMethodDef>,
}

impl Swap {
    pub(super) const fn new() -> Swap {
        Swap {
            object: AtomicPtr::new(std::ptr::null_mut()),
            original: AtomicPtr::new(std::ptr::null_mut()),
            replacement: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Swaps the attribute `name` of `module`. False if it is no built-in function with these calling flags: then nothing changes.
    ///
    /// # Safety
    /// `function` has the C signature that `flags` stand for; GIL held, no exception set.
    pub(super) unsafe fn install(
        &self,
        module: *mut PyObject,
        name: &CStr,
        flags: u32,
        function: *const (),
    ) -> bool {
        // SAFETY: `module` is an object; the attribute is owned here until it is stored or released.
        unsafe {
            let object = ffi::PyObject_GetAttrString(module, name.as_ptr());
            if object.is_null() {
                ffi::PyErr_Clear();
                return false;
            }
            let builtin = object.cast::<PyCFunctionObject>();
            if (*object).ob_type != &raw mut ffi::PyCFunction_Type
                || (*(*builtin).m_ml).ml_flags as u32 != flags
            {
                refs::decref(object);
                return false;
            }
            let original = (*builtin).m_ml;
            let mut replacement = self.replacement.load(Ordering::Relaxed);
            if replacement.is_null() {
                let mut definition = *original;
                definition.ml_meth = std::mem::transmute::<*const (), ffi::PyCFunction>(function);
                replacement = Box::into_raw(Box::new(definition));
                self.replacement.store(replacement, Ordering::Relaxed);
            }
            if original != replacement {
                self.original.store(original, Ordering::Relaxed);
                (*builtin).m_ml = replacement;
            }
            let before = self.object.swap(object, Ordering::Relaxed);
            if !before.is_null() {
                refs::decref(before);
            }
            true
        }
    }

    /// Gives the function its own definition back, unless somebody else replaced ours meanwhile: then ours must stay reachable.
    ///
    /// # Safety
    /// GIL held.
    pub(super) unsafe fn remove(&self) {
        let object = self.object.swap(std::ptr::null_mut(), Ordering::Relaxed);
        if object.is_null() {
            return;
        }
        // SAFETY: `install` stored an owned built-in function.
        unsafe {
            let builtin = object.cast::<PyCFunctionObject>();
            if (*builtin).m_ml == self.replacement.load(Ordering::Relaxed) {
                (*builtin).m_ml = self.original.load(Ordering::Relaxed);
            }
            refs::decref(object);
        }
    }

    /// The C function that the built-in function had. Called only from our replacement, which runs only after `install`.
    pub(super) fn original(&self) -> ffi::PyCFunction {
        // SAFETY: set by `install` to a method definition that lives as long as its module's code.
        unsafe { (*self.original.load(Ordering::Relaxed)).ml_meth }
    }

    /// Calls the original of a `METH_O` function.
    ///
    /// # Safety
    /// As the function's own contract.
    pub(super) unsafe fn call_o(
        &self,
        module: *mut PyObject,
        argument: *mut PyObject,
    ) -> *mut PyObject {
        match self.original() {
            // SAFETY: the flags were compared when it was installed.
            Some(function) => unsafe { function(module, argument) },
            None => std::ptr::null_mut(),
        }
    }

    /// Calls the original of a `METH_FASTCALL` function.
    ///
    /// # Safety
    /// As the function's own contract.
    pub(super) unsafe fn call_fast(
        &self,
        module: *mut PyObject,
        args: *const *mut PyObject,
        nargs: isize,
    ) -> *mut PyObject {
        type Fast =
            unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, isize) -> *mut PyObject;
        match self.original() {
            // SAFETY: the flags were compared when it was installed, so this is its signature.
            Some(function) => unsafe {
                std::mem::transmute::<Builtin, Fast>(function)(module, args, nargs)
            },
            None => std::ptr::null_mut(),
        }
    }

    /// Calls the original of a `METH_FASTCALL | METH_KEYWORDS` function.
    ///
    /// # Safety
    /// As the function's own contract.
    pub(super) unsafe fn call_fast_keywords(
        &self,
        module: *mut PyObject,
        args: *const *mut PyObject,
        nargs: isize,
        kwnames: *mut PyObject,
    ) -> *mut PyObject {
        type Fast = unsafe extern "C" fn(
            *mut PyObject,
            *const *mut PyObject,
            isize,
            *mut PyObject,
        ) -> *mut PyObject;
        match self.original() {
            // SAFETY: the flags were compared when it was installed, so this is its signature.
            Some(function) => unsafe {
                std::mem::transmute::<Builtin, Fast>(function)(module, args, nargs, kwnames)
            },
            None => std::ptr::null_mut(),
        }
    }
}
