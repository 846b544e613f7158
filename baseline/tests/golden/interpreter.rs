//! An interpreter in the test process: makes code objects from source text, and tells what `dis` says about them.

use std::ffi::{CStr, CString};
use std::ptr::null_mut;
use std::sync::Once;

use hotstamp_layout::ffi::{self, PyCodeObject, PyObject};

/// What every test source can use.
const PRELUDE: &str = include_str!("prelude.py");

/// Holds the GIL.
pub struct Python {
    state: ffi::PyGILState_STATE,
}

impl Python {
    /// Starts the interpreter if this is its first use, and takes the GIL.
    pub fn attach() -> Python {
        static START: Once = Once::new();
        START.call_once(|| {
            // SAFETY: once in the process, before anything uses Python; the GIL is then free for all threads.
            unsafe {
                ffi::Py_InitializeEx(0);
                ffi::PyEval_SaveThread();
            }
        });
        Python {
            // SAFETY: the interpreter was started.
            state: unsafe { ffi::PyGILState_Ensure() },
        }
    }

    /// Executes source text and gives its global variables, which live for ever.
    pub fn execute(&self, source: &str) -> Globals {
        // SAFETY: the GIL is held; references are leaked on purpose, so that all objects stay alive.
        unsafe {
            let globals = ffi::PyDict_New();
            let builtins = c"__builtins__".as_ptr();
            ffi::PyDict_SetItemString(globals, builtins, ffi::PyEval_GetBuiltins());
            for text in [PRELUDE, source] {
                let text = CString::new(text).expect("no NUL");
                let file_input = ffi::Py_file_input as i32;
                let result =
                    ffi::PyRun_StringFlags(text.as_ptr(), file_input, globals, globals, null_mut());
                if result.is_null() {
                    ffi::PyErr_Print();
                    panic!("raised: {source}");
                }
            }
            Globals { globals }
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // SAFETY: as `attach` got it.
        unsafe { ffi::PyGILState_Release(self.state) }
    }
}

/// Global variables of executed source text.
pub struct Globals {
    globals: *mut PyObject,
}

impl Globals {
    /// A variable (borrowed).
    pub fn get(&self, name: &CStr) -> *mut PyObject {
        // SAFETY: a dictionary, and the GIL is held by the test.
        let value = unsafe { ffi::PyDict_GetItemString(self.globals, name.as_ptr()) };
        assert!(!value.is_null(), "{name:?} is not defined");
        value
    }

    /// A list of code objects.
    pub fn codes(&self, name: &CStr) -> Vec<*mut PyCodeObject> {
        list(self.get(name))
            .into_iter()
            .map(|code| code.cast())
            .collect()
    }

    /// Calls a function of the prelude that gives a list of strings.
    pub fn strings(&self, function: &CStr, argument: *mut PyObject) -> Vec<String> {
        // SAFETY: a callable and an object; the GIL is held by the test.
        let result = unsafe { ffi::PyObject_CallOneArg(self.get(function), argument) };
        if result.is_null() {
            // SAFETY: an exception is set.
            unsafe { ffi::PyErr_Print() };
            panic!("{function:?} raised");
        }
        list(result).into_iter().map(text).collect()
    }
}

/// The entries of a list (borrowed).
fn list(list: *mut PyObject) -> Vec<*mut PyObject> {
    // SAFETY: a list; the GIL is held by the test.
    unsafe {
        let length = ffi::PyList_Size(list);
        assert!(length >= 0, "not a list");
        (0..length).map(|i| ffi::PyList_GetItem(list, i)).collect()
    }
}

/// The text of a `str`.
fn text(object: *mut PyObject) -> String {
    // SAFETY: a str; the GIL is held by the test.
    unsafe {
        let text = ffi::PyUnicode_AsUTF8(object);
        assert!(!text.is_null(), "not a str");
        CStr::from_ptr(text).to_str().expect("UTF-8").to_owned()
    }
}
