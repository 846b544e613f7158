//! Memory helpers of `with` and `async with`. Called through sites only.

use hotstamp_layout::ffi::{self, PyObject, PyThreadState};
use hotstamp_layout::refs::{self, StackRef};

use super::calls::{ARGUMENTS_OFFSET, vectorcall};
use super::stack::Stack;
use crate::Frame;
use crate::site::Site;

/// `LOAD_SPECIAL(which)`: object -> method self-or-NULL, looked up on the type: `__enter__`, `__exit__` and their asynchronous forms.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_load_special(
    site: *mut Site,
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operand is an object on the frame's stack, which has room for one entry more; the lookup works on these two slots and leaves them valid in every
    // case. The table, which the header declares without its length, has an entry for each argument that the compiler of the bytecode emits.
    unsafe {
        let stack = Stack::of(frame);
        let oparg = (*site).oparg;
        let special = (&raw const ffi::_Py_SpecialMethods)
            .cast::<ffi::_Py_SpecialMethod>()
            .add(oparg as usize);
        let object = stack.peek(1);
        stack.put(1, StackRef::NULL);
        stack.push(object);
        match ffi::_PyObject_LookupSpecialMethod((*special).name, stack.entries(2)) {
            1.. => return 0,
            0 => {
                let owner = stack.object(1);
                let suggest = ffi::_PyEval_SpecialMethodCanSuggest(owner, oparg as i32) != 0;
                let format = if suggest {
                    (*special).error_suggestion
                } else {
                    (*special).error
                };
                // `%T` of CPython's formats: the object's type.
                ffi::PyErr_Format(ffi::PyExc_TypeError, format, owner);
            }
            _ => {}
        }
        stack.fail(2)
    }
}

/// `WITH_EXCEPT_START`: exit self-or-NULL lasti previous exception -> (the same) result of calling exit(type, exception, traceback). Everything stays, on errors too.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn op_with_except_start(
    _site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack, which holds them throughout; an exception keeps its type alive, and the traceback is ours until it is released.
    unsafe {
        let stack = Stack::of(frame);
        let exit = stack.object(5);
        let exit_self = stack.peek(4).as_ptr_borrow();
        let exception = stack.object(1);
        let traceback = ffi::PyException_GetTraceback(exception);
        let shown_traceback = if traceback.is_null() {
            &raw mut ffi::_Py_NoneStruct
        } else {
            traceback
        };
        let mut words: [*mut PyObject; 5] = [
            std::ptr::null_mut(),
            exit_self,
            refs::type_of(exception).cast(),
            exception,
            shown_traceback,
        ];
        let skip = usize::from(exit_self.is_null());
        let arguments = words.as_mut_ptr().add(1 + skip);
        let result = vectorcall(
            tstate,
            exit,
            arguments,
            (4 - skip) | ARGUMENTS_OFFSET,
            std::ptr::null_mut(),
        );
        refs::xdecref(traceback);
        stack.push_new(result)
    }
}
