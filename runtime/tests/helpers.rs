//! Differential tests of the helpers: `helpers/*.py` lets CPython's interpreter execute an instruction of real bytecode and a helper the same on a frame of
//! its own, and compares results, exceptions, order of destruction and reference counts.
//!
//! This file embeds the interpreter and gives the scripts the functions they call helpers with.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::ptr::null_mut;

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};
use hotstamp_runtime::Frame;
use hotstamp_runtime::helpers::{RAISED, memory_helper, register_helper};
use hotstamp_runtime::site::Site;

/// Entries of the operand stack of the frames made here.
const STACK_ENTRIES: usize = 600;

/// The memory of a frame that belongs to no code and runs nothing: what helpers without locals need.
#[repr(C)]
struct BareFrame {
    frame: Frame,
    more: [usize; STACK_ENTRIES],
}

impl BareFrame {
    fn new() -> Box<Self> {
        // SAFETY: the structure is made of integers and pointers, all of which may be zero.
        let mut bare: Box<Self> = unsafe { Box::new_zeroed().assume_init() };
        bare.frame.stackpointer = bare.base();
        bare
    }

    fn base(&mut self) -> *mut StackRef {
        (&raw mut self.frame.localsplus).cast()
    }

    fn depth(&mut self) -> usize {
        // SAFETY: both point into this frame.
        unsafe { self.frame.stackpointer.offset_from(self.base()) as usize }
    }

    fn push(&mut self, value: StackRef) {
        assert!(self.depth() < STACK_ENTRIES);
        // SAFETY: there is room.
        unsafe {
            self.frame.stackpointer.write(value);
            self.frame.stackpointer = self.frame.stackpointer.add(1);
        }
    }

    fn pop(&mut self) -> Option<StackRef> {
        if self.depth() == 0 {
            return None;
        }
        // SAFETY: the stack is not empty.
        unsafe {
            self.frame.stackpointer = self.frame.stackpointer.sub(1);
            Some(self.frame.stackpointer.read())
        }
    }
}

thread_local! {
    /// The frames whose helpers run, innermost last: for `stack()`.
    static RUNNING: RefCell<Vec<*mut BareFrame>> = const { RefCell::new(Vec::new()) };
    /// How many entries the last helper left on its stack if it failed.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a script passed: which helper, its argument, and the operands, taken out of the script's list.
struct Request {
    opcode: u8,
    site: Site,
    operands: Vec<StackRef>,
    /// The owners of the operands that are passed as borrowed.
    owners: Vec<*mut PyObject>,
}

impl Request {
    /// Reads `(opcode, oparg, operands, borrowed)`: the list `operands` is emptied, so that what is not `borrowed` (a bit mask) belongs to the operand stack
    /// alone. `Ellipsis` stands for NULL.
    unsafe fn parse(args: *mut PyObject, helper: impl Fn(u8) -> Option<*const ()>) -> Option<Self> {
        let (mut opcode, mut oparg, mut borrowed) = (0u32, 0u32, 0u32);
        let mut list: *mut PyObject = null_mut();
        // SAFETY: the format agrees with the arguments; the list is the script's and stays alive in `args`; a site of zeros is valid.
        unsafe {
            if ffi::PyArg_ParseTuple(
                args,
                c"IIOI".as_ptr(),
                &raw mut opcode,
                &raw mut oparg,
                &raw mut list,
                &raw mut borrowed,
            ) == 0
            {
                return None;
            }
            let Some(function) = helper(opcode as u8) else {
                ffi::PyErr_SetString(ffi::PyExc_LookupError, c"no such helper".as_ptr());
                return None;
            };
            // The rest of a site is for stubs.
            let mut site: Site = std::mem::zeroed();
            site.helper = function;
            site.oparg = oparg;
            let mut request = Request {
                opcode: opcode as u8,
                site,
                operands: Vec::new(),
                owners: Vec::new(),
            };
            for i in 0..refs::size_of_var(list) {
                let object = refs::new_ref(refs::list_item(list, i as usize));
                request
                    .operands
                    .push(if object == &raw mut ffi::_Py_EllipsisObject {
                        StackRef::NULL
                    } else if borrowed >> i & 1 != 0 {
                        request.owners.push(object);
                        StackRef::from_borrow(object)
                    } else {
                        StackRef::from_steal(object)
                    });
            }
            ffi::PyList_SetSlice(list, 0, isize::MAX, null_mut());
            Some(request)
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        for owner in self.owners.drain(..) {
            // SAFETY: this was their owner.
            unsafe { refs::decref(owner) };
        }
    }
}

/// `call(opcode, oparg, operands, borrowed) -> (status, stack)`: calls a memory helper; what is left on the stack comes back bottom first, or the exception is raised.
unsafe extern "C" fn call(_module: *mut PyObject, args: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by Python with its arguments; the frame is as the contract of memory helpers says.
    unsafe {
        let found = |opcode| memory_helper(opcode).map(|(helper, _)| helper as *const ());
        let Some(mut request) = Request::parse(args, found) else {
            return null_mut();
        };
        let (helper, name) = memory_helper(request.opcode).expect("parsed");
        let mut bare = BareFrame::new();
        for operand in request.operands.drain(..) {
            bare.push(operand);
        }
        RUNNING.with_borrow_mut(|frames| frames.push(&raw mut *bare));
        let status = helper(
            &raw mut request.site,
            &raw mut bare.frame,
            ffi::PyThreadState_Get(),
        );
        if status < 0 {
            assert_eq!(status, -1, "{name}");
            assert!(
                !ffi::PyErr_Occurred().is_null(),
                "{name} failed without an exception"
            );
            LEFT.set(Some(bare.depth()));
            while let Some(entry) = bare.pop() {
                entry.close();
            }
            RUNNING.with_borrow_mut(|frames| frames.pop());
            return null_mut();
        }
        assert!(
            ffi::PyErr_Occurred().is_null(),
            "{name} succeeded with an exception"
        );
        RUNNING.with_borrow_mut(|frames| frames.pop());
        LEFT.set(None);
        let depth = bare.depth();
        let stack = ffi::PyList_New(depth as isize);
        for i in (0..depth).rev() {
            let entry = bare.pop().expect("counted");
            let object = if entry.is_null() {
                &raw mut ffi::_Py_EllipsisObject
            } else {
                entry.steal()
            };
            ffi::PyList_SetItem(stack, i as isize, object);
        }
        ffi::Py_BuildValue(c"nN".as_ptr(), status, stack)
    }
}

/// `call_register(opcode, oparg, operands, borrowed) -> (0, [result])`: calls a register helper.
unsafe extern "C" fn call_register(_module: *mut PyObject, args: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by Python with its arguments; operands and frame are as the contract of register helpers says.
    unsafe {
        let found = |opcode| register_helper(opcode).map(|(helper, _)| helper as *const ());
        let Some(mut request) = Request::parse(args, found) else {
            return null_mut();
        };
        let (helper, name) = register_helper(request.opcode).expect("parsed");
        let mut bare = BareFrame::new();
        let operand = |i: usize| request.operands.get(i).copied().unwrap_or(StackRef::NULL);
        let (acc, b, c) = (operand(0), operand(1), operand(2));
        let tstate: *mut PyThreadState = ffi::PyThreadState_Get();
        RUNNING.with_borrow_mut(|frames| frames.push(&raw mut *bare));
        let result = helper(
            acc,
            b,
            c,
            &raw mut request.site,
            &raw mut bare.frame,
            tstate,
        );
        RUNNING.with_borrow_mut(|frames| frames.pop());
        assert_eq!(bare.depth(), 0, "{name} touched the stack");
        assert_eq!(result == RAISED, !ffi::PyErr_Occurred().is_null(), "{name}");
        LEFT.set(None);
        if result == RAISED {
            return null_mut();
        }
        ffi::Py_BuildValue(c"n[N]".as_ptr(), 0isize, result.steal())
    }
}

/// `stack()`: the objects on the operand stack of the helper that runs, bottom first, `Ellipsis` for NULL; nothing outside of helpers.
unsafe extern "C" fn stack(_module: *mut PyObject, _args: *mut PyObject) -> *mut PyObject {
    let frame = RUNNING.with_borrow(|frames| frames.last().copied());
    let Some(frame) = frame else {
        // SAFETY: called by Python.
        return unsafe { ffi::PyList_New(0) };
    };
    // SAFETY: the frame lives as long as its helper runs, and its `stackpointer` must be valid now: that is what this tests.
    unsafe {
        let depth = (*frame).depth();
        let list = ffi::PyList_New(depth as isize);
        for i in 0..depth {
            let entry = (*frame).base().add(i).read();
            let object = if entry.is_null() {
                &raw mut ffi::_Py_EllipsisObject
            } else {
                entry.as_new()
            };
            ffi::PyList_SetItem(list, i as isize, object);
        }
        list
    }
}

/// `left()`: how many entries the last memory helper left on its stack if it failed, else -1.
unsafe extern "C" fn left(_module: *mut PyObject, _args: *mut PyObject) -> *mut PyObject {
    let left = LEFT.get().map_or(-1, |left| left as isize);
    // SAFETY: called by Python.
    unsafe { ffi::PyLong_FromSsize_t(left) }
}

/// `helper_of(opcode) -> (memory helper's name or None, register helper's name or None)`.
unsafe extern "C" fn helper_of(_module: *mut PyObject, opcode: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by Python with an integer.
    unsafe {
        let opcode = ffi::PyLong_AsLong(opcode) as u8;
        let name = |name: Option<&str>| {
            let name = name.map(|name| CString::new(name).expect("no NUL in a name"));
            ffi::Py_BuildValue(
                c"z".as_ptr(),
                name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            )
        };
        let memory = name(memory_helper(opcode).map(|(_, name)| name));
        let register = name(register_helper(opcode).map(|(_, name)| name));
        ffi::Py_BuildValue(c"NN".as_ptr(), memory, register)
    }
}

/// Makes the functions above builtins of the embedded interpreter.
unsafe fn define_functions() {
    type Function = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
    let functions: [(&CStr, Function, u32); 5] = [
        (c"call", call, ffi::METH_VARARGS),
        (c"call_register", call_register, ffi::METH_VARARGS),
        (c"stack", stack, ffi::METH_NOARGS),
        (c"left", left, ffi::METH_NOARGS),
        (c"helper_of", helper_of, ffi::METH_O),
    ];
    for (name, function, flags) in functions {
        let method = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: Some(function),
            ml_flags: flags as i32,
            ml_doc: std::ptr::null(),
        }));
        // SAFETY: the interpreter is initialised, and the definition lives for ever.
        unsafe {
            let object = ffi::PyCFunction_NewEx(method, null_mut(), null_mut());
            assert_eq!(
                ffi::PyDict_SetItemString(ffi::PyEval_GetBuiltins(), name.as_ptr(), object),
                0
            );
            refs::decref(object);
        }
    }
}

#[test]
fn helpers_do_what_the_interpreter_does() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/helpers");
    let run = CString::new(format!(
        "import runpy\nrunpy.run_path({script:?}, run_name='__main__')"
    ))
    .expect("no NUL");
    // SAFETY: the only test of this process that uses Python, so nothing else initialises it.
    unsafe {
        ffi::Py_InitializeEx(0);
        define_functions();
        assert_eq!(
            ffi::PyRun_SimpleString(run.as_ptr()),
            0,
            "see the output of the script"
        );
        assert_eq!(ffi::Py_FinalizeEx(), 0);
    }
}
