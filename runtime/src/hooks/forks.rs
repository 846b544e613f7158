//! `os.fork` while the compiler thread is in the middle of a compilation.
//!
//! Python counts the threads of a process that forks, and warns if there are several. The compiler thread is asked to end before, but a compilation that takes longer than a
//! fork may is not waited for. If it is the only other thread, the program has one thread as far as it knows, so the fork is made here: the same steps, without
//! counting.

use std::ffi::c_int;

use hotstamp_layout::ffi::{self, PyObject};

use super::sampler;
use super::swap::Swap;
use crate::optimize::service;

static FORK: Swap = Swap::new();

unsafe extern "C" {
    fn PyOS_BeforeFork();
    fn PyOS_AfterFork_Parent();
    fn PyOS_AfterFork_Child();
    fn Py_IsFinalizing() -> c_int;
    fn PyErr_SetFromErrno(kind: *mut PyObject) -> *mut PyObject;
    fn PyLong_FromLong(value: libc::c_long) -> *mut PyObject;
    fn PyLong_AsLong(object: *mut PyObject) -> libc::c_long;
}

/// Swaps `os.fork`.
pub(super) unsafe fn install() {
    // SAFETY: main interpreter, GIL held; the function has the signature of these flags.
    unsafe {
        let posix = ffi::PyImport_AddModule(c"posix".as_ptr());
        if posix.is_null() {
            ffi::PyErr_Clear();
            return;
        }
        FORK.install(posix, c"fork", ffi::METH_NOARGS, fork as *const ());
    }
}

/// Gives it back what it was.
pub(super) unsafe fn remove() {
    // SAFETY: GIL held.
    unsafe { FORK.remove() };
}

unsafe extern "C" fn fork(module: *mut PyObject, nothing: *mut PyObject) -> *mut PyObject {
    // SAFETY: called as the built-in function is, with the GIL.
    unsafe {
        let hidden = service::thread_stays() && threads() == Some(2) && Py_IsFinalizing() == 0;
        let result = if hidden {
            fork_quietly()
        } else {
            FORK.call_o(module, nothing)
        };
        if !result.is_null() && PyLong_AsLong(result) == 0 {
            service::notice_fork();
            sampler::notice_fork();
        }
        result
    }
}

/// The process's threads, if the system says.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// What `os.fork` does in the main interpreter.
unsafe fn fork_quietly() -> *mut PyObject {
    // SAFETY: GIL held; the order of the calls is CPython's.
    unsafe {
        if ffi::PySys_Audit(c"os.fork".as_ptr(), std::ptr::null()) < 0 {
            return std::ptr::null_mut();
        }
        PyOS_BeforeFork();
        let pid = libc::fork();
        let error = *libc::__errno_location();
        if pid == 0 {
            PyOS_AfterFork_Child();
        } else {
            PyOS_AfterFork_Parent();
        }
        if pid < 0 {
            *libc::__errno_location() = error;
            return PyErr_SetFromErrno(ffi::PyExc_OSError);
        }
        PyLong_FromLong(pid.into())
    }
}
