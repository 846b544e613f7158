//! CALL and CALL_KW of what the call stub leaves: Python functions with any parameters and classes with a Python `__init__` directly, builtins by their flags, the rest through
//! `op_call` and `op_call_kw`.
//!
//! Payload: word 0 = the class, word 1 = its version, word 3 = its `__init__` (borrowed from the class while the version holds). Or word 0 = 0, and word 1 is a class that nothing is known
//! of (compared only, it may have died).

use hotstamp_layout::ffi::{self, PyFunctionObject, PyObject, PyThreadState, PyTypeObject};
use hotstamp_layout::refs::{self, StackRef};

use super::{MISS_LIMIT, note_miss};
use crate::bind::{self, BindError};
use crate::code_data::{CodeData, SIMPLE_ARGUMENTS};
use crate::helpers::calls::{ARGUMENTS_OFFSET, op_call, op_call_kw, unpack_bound_method};
use crate::hooks::functions::{self, Callee};
use crate::site::{MemoryHelper, Site};
use crate::{Frame, entry, frame_stack, segments};

/// The data of a function that is about to be called, if it is stamped. One that is the interpreter's own begins to count.
unsafe fn stamped(func: *mut PyFunctionObject) -> Option<*mut CodeData> {
    // SAFETY: a live function.
    unsafe {
        let data = entry::data_behind((*func).vectorcall);
        if data.is_none() {
            functions::called(func);
        }
        data
    }
}

/// `CALL(n)`: callable self-or-NULL argument*n -> result. Memory helper behind the call stub.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn call(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: the operands are on the frame's stack; the payload's pointers are valid while the class has the version.
    unsafe {
        let count = (*site).oparg as usize;
        let slots = (*frame).stackpointer.cast::<StackRef>().sub(count + 2);
        unpack_bound_method(slots);
        let callable = (*slots).as_ptr_borrow();
        if refs::is_type(callable, &raw const ffi::PyFunction_Type) {
            let arguments = count + usize::from(!(*slots.add(1)).is_null());
            let callee = functions::callee(tstate, callable.cast());
            if let Callee::Stamped(data) = callee
                && takes(callable.cast(), data, arguments)
            {
                return call_stamped(frame, tstate, slots, arguments, count, data);
            }
            let names = std::ptr::null_mut();
            return call_bound(frame, tstate, slots, arguments, count, names, callee)
                .unwrap_or_else(|| op_call(site, frame, tstate));
        }
        if refs::is_type(callable, &raw const ffi::PyType_Type) && (*slots.add(1)).is_null() {
            let class = callable.cast::<PyTypeObject>();
            let payload = Site::payload(site);
            let words = (*payload).words;
            let known = words[0] == class as u64 && words[1] == u64::from((*class).tp_version_tag);
            if known || learn_class(site, class) {
                let init = (*payload).words[3] as *mut PyFunctionObject;
                if !entry::foreign_evaluator(tstate)
                    && let Some(data) = stamped(init)
                    && takes(init, data, count + 1)
                {
                    return construct(frame, tstate, slots, count, class, init, data);
                }
            }
        }
        if entry::native_stack_low(tstate) {
            return op_call(site, frame, tstate);
        }
        if refs::is_type(callable, &raw const ffi::PyType_Type)
            && (*slots.add(1)).is_null()
            && let Some(result) = call_builtin_class(callable.cast(), slots.add(2), count)
        {
            expect(site, call_class);
            return finish_builtin(tstate, frame, slots, count, result);
        }
        let Some((method, receiver)) = builtin(callable, *slots.add(1)) else {
            if let Some(result) = call_descriptor(callable, slots, count) {
                expect(site, call_unbound);
                return finish_builtin(tstate, frame, slots, count, result);
            }
            if let Some(result) = call_slot(callable, slots, count) {
                expect(site, call_slot_of_class);
                return finish_builtin(tstate, frame, slots, count, result);
            }
            if !is_known(callable) {
                expect(site, call_other);
            } else if refs::is_type(callable, &raw const ffi::PyType_Type)
                && (*Site::payload(site)).words[0] == 0
            {
                (*Site::payload(site)).words[1] = callable as u64;
                expect(site, call_type);
            }
            return op_call(site, frame, tstate);
        };
        let Some(result) = call_builtin(method, receiver, slots.add(2), count) else {
            return op_call(site, frame, tstate);
        };
        if (*method).ml_flags as u32 & ffi::METH_FASTCALL != 0 {
            expect(site, call_fastcall);
        }
        finish_builtin(tstate, frame, slots, count, result)
    }
}

/// Lets a site begin with this helper: it expects another callable of the kind that was called. Not after many changes of mind.
unsafe fn expect(site: *mut Site, helper: MemoryHelper) {
    // SAFETY: the caller's site has a payload; GIL held.
    unsafe {
        if let Some(stubs) = note_miss(site, |stubs| stubs.call) {
            (*site).helper = helper as *const ();
            (*site).target = stubs.memory_value_polled;
        }
    }
}

/// What another kind of callable means for a site that expected one: it begins with the call stub again.
#[cold]
unsafe fn unexpected(site: *mut Site, frame: *mut Frame, tstate: *mut PyThreadState) -> isize {
    // SAFETY: the contract of memory helpers.
    unsafe {
        (*site).helper = call as MemoryHelper as *const ();
        if let Some(stubs) = super::stubs() {
            (*site).target = stubs.call;
        }
        call(site, frame, tstate)
    }
}

/// Whether `call` has a way of its own for a callable's type.
#[inline(always)]
unsafe fn is_known(callable: *mut PyObject) -> bool {
    // SAFETY: a live object.
    let ty = unsafe { refs::type_of(callable) }.cast_const();
    [
        &raw const ffi::PyFunction_Type,
        &raw const ffi::PyType_Type,
        &raw const ffi::PyMethod_Type,
        &raw const ffi::PyMethodDescr_Type,
        &raw const ffi::PyCFunction_Type,
    ]
    .into_iter()
    .any(|known| std::ptr::eq(known, ty))
}

/// `CALL` of objects of other types, through vectorcall or `tp_call`. Memory helper behind the stub `memory_value_polled`.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
unsafe extern "C" fn call_other(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: as `call`.
    unsafe {
        let count = (*site).oparg as usize;
        let slots = (*frame).stackpointer.cast::<StackRef>().sub(count + 2);
        if is_known((*slots).as_ptr_borrow()) {
            return unexpected(site, frame, tstate);
        }
        op_call(site, frame, tstate)
    }
}

/// `CALL` of a builtin that takes its arguments in an array; all else is `call`'s, and the site goes back to that. Memory helper behind the stub `memory_value_polled`.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
unsafe extern "C" fn call_fastcall(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: as `call`.
    unsafe {
        let count = (*site).oparg as usize;
        let slots = (*frame).stackpointer.cast::<StackRef>().sub(count + 2);
        if let Some((method, receiver)) = builtin((*slots).as_ptr_borrow(), *slots.add(1))
            && (*method).ml_flags as u32 & ffi::METH_FASTCALL != 0
            && !entry::native_stack_low(tstate)
            && let Some(result) = call_builtin(method, receiver, slots.add(2), count)
        {
            return finish_builtin(tstate, frame, slots, count, result);
        }
        unexpected(site, frame, tstate)
    }
}

/// `CALL` of the class in word 1, which is called in no way of ours, as [`call_fastcall`].
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
unsafe extern "C" fn call_type(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: as `call`.
    unsafe {
        let count = (*site).oparg as usize;
        let slots = (*frame).stackpointer.cast::<StackRef>().sub(count + 2);
        let words = (*Site::payload(site)).words;
        if words[0] == 0 && words[1] == (*slots).as_ptr_borrow() as u64 {
            return op_call(site, frame, tstate);
        }
        unexpected(site, frame, tstate)
    }
}

/// `CALL` of a builtin class's method with its object as first argument (`dict.get(d, key)`), as [`call_fastcall`].
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
unsafe extern "C" fn call_unbound(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: as `call`.
    unsafe {
        let count = (*site).oparg as usize;
        let slots = (*frame).stackpointer.cast::<StackRef>().sub(count + 2);
        if !entry::native_stack_low(tstate)
            && let Some(result) = call_descriptor((*slots).as_ptr_borrow(), slots, count)
        {
            return finish_builtin(tstate, frame, slots, count, result);
        }
        unexpected(site, frame, tstate)
    }
}

/// Calls a builtin class's method that has its object as first argument. None for other callables and arguments: nothing was called then.
#[inline(always)]
unsafe fn call_descriptor(
    callable: *mut PyObject,
    slots: *mut StackRef,
    count: usize,
) -> Option<*mut PyObject> {
    // SAFETY: the slots are a call's operands, live objects.
    unsafe {
        if !refs::is_type(callable, &raw const ffi::PyMethodDescr_Type)
            || !(*slots.add(1)).is_null()
            || count == 0
        {
            return None;
        }
        let (method, receiver) = builtin(callable, *slots.add(2))?;
        call_builtin(method, receiver, slots.add(3), count - 1)
    }
}

/// `CALL` of what a builtin class makes of one of its slots (`object.__getattribute__(x, name)`), as [`call_fastcall`].
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
unsafe extern "C" fn call_slot_of_class(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: as `call`.
    unsafe {
        let count = (*site).oparg as usize;
        let slots = (*frame).stackpointer.cast::<StackRef>().sub(count + 2);
        if !entry::native_stack_low(tstate)
            && let Some(result) = call_slot((*slots).as_ptr_borrow(), slots, count)
        {
            return finish_builtin(tstate, frame, slots, count, result);
        }
        unexpected(site, frame, tstate)
    }
}

/// Calls a wrapper of a slot with an object of its class, without the tuple of all arguments that its `tp_call` wants and takes apart. None for other callables and arguments: nothing
/// was called then.
#[inline(always)]
unsafe fn call_slot(
    callable: *mut PyObject,
    slots: *mut StackRef,
    count: usize,
) -> Option<*mut PyObject> {
    // SAFETY: the slots are a call's operands, live objects; a wrapper without the flag takes object, tuple and slot.
    unsafe {
        let has_self = usize::from(!(*slots.add(1)).is_null());
        let given = count + has_self;
        if !refs::is_type(callable, &raw const ffi::PyWrapperDescr_Type)
            || given == 0
            || given > MOST_ARGUMENTS
        {
            return None;
        }
        let descr = callable.cast::<ffi::PyWrapperDescrObject>();
        let base = (*descr).d_base;
        let first = slots.add(2 - has_self);
        let object = (*first).as_ptr_borrow();
        if (*base).flags & ffi::PyWrapperFlag_KEYWORDS as i32 != 0
            || ffi::PyType_IsSubtype(refs::type_of(object), (*descr).d_common.d_type) == 0
        {
            return None;
        }
        let wrapper = (*base).wrapper?;
        let mut array = [std::mem::MaybeUninit::<*mut PyObject>::uninit(); MOST_ARGUMENTS];
        for (index, place) in array.iter_mut().enumerate().take(given - 1) {
            place.write((*first.add(1 + index)).as_ptr_borrow());
        }
        let arguments = ffi::_PyTuple_FromArray(array.as_ptr().cast(), given as isize - 1);
        if arguments.is_null() {
            return Some(std::ptr::null_mut());
        }
        let result = wrapper(object, arguments, (*descr).d_wrapped);
        refs::decref(arguments);
        Some(result)
    }
}

/// `CALL` of a class with an entry of its own for calls (`type(x)`, `list()`), as [`call_fastcall`].
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
unsafe extern "C" fn call_class(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: as `call`.
    unsafe {
        let count = (*site).oparg as usize;
        let slots = (*frame).stackpointer.cast::<StackRef>().sub(count + 2);
        let callable = (*slots).as_ptr_borrow();
        if refs::is_type(callable, &raw const ffi::PyType_Type)
            && (*slots.add(1)).is_null()
            && !entry::native_stack_low(tstate)
            && let Some(result) = call_builtin_class(callable.cast(), slots.add(2), count)
        {
            return finish_builtin(tstate, frame, slots, count, result);
        }
        unexpected(site, frame, tstate)
    }
}

/// `CALL_KW(n)`: callable self-or-NULL argument*n names -> result. Memory helper.
///
/// # Safety
/// The contract of memory helpers (ARCHITECTURE.md).
pub unsafe extern "C" fn call_kw(
    site: *mut Site,
    frame: *mut Frame,
    tstate: *mut PyThreadState,
) -> isize {
    // SAFETY: as `call`; the names are a tuple of strings, as many as the last arguments that they name.
    unsafe {
        let count = (*site).oparg as usize;
        let slots = (*frame).stackpointer.cast::<StackRef>().sub(count + 3);
        unpack_bound_method(slots);
        let callable = (*slots).as_ptr_borrow();
        if refs::is_type(callable, &raw const ffi::PyFunction_Type) {
            let callee = functions::callee(tstate, callable.cast());
            let names = (*slots.add(count + 2)).as_ptr_borrow();
            let given = count + usize::from(!(*slots.add(1)).is_null());
            let arguments = given - refs::size_of_var(names) as usize;
            let bound = call_bound(frame, tstate, slots, arguments, given, names, callee);
            if let Some(result) = bound {
                return result;
            }
        }
        op_call_kw(site, frame, tstate)
    }
}

/// What a call of `callable` gave, if it is a result or null with an exception set; else null, and a SystemError that says what is wrong.
#[inline(always)]
unsafe fn checked_result(
    tstate: *mut PyThreadState,
    callable: *mut PyObject,
    result: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's thread state and callable are live, the result is a new reference or null.
    unsafe {
        if result.is_null() == (*tstate).current_exception.is_null() {
            return ffi::_Py_CheckFunctionResult(tstate, callable, result, std::ptr::null());
        }
        result
    }
}

/// For the stub of CALL: checks what a builtin gave that raised, or gave a result and left an exception. The operand stack is as before the call.
///
/// # Safety
/// Called by compiled code for a site of CALL, GIL held.
pub unsafe extern "C" fn check_result(
    result: *mut PyObject,
    site: *const Site,
    frame: *const Frame,
    tstate: *mut PyThreadState,
) -> *mut PyObject {
    // SAFETY: callable, self or null and as many arguments as the site says are on top of the operand stack.
    unsafe {
        let operands = (*site).oparg as usize + 2;
        let callable = *(*frame).stackpointer.cast::<StackRef>().sub(operands);
        checked_result(tstate, callable.as_ptr_borrow(), result)
    }
}

/// Takes callable and arguments of a builtin's call off the operand stack; pushes its result, or raises if it is null.
#[inline(always)]
unsafe fn finish_builtin(
    tstate: *mut PyThreadState,
    frame: *mut Frame,
    slots: *mut StackRef,
    count: usize,
    result: *mut PyObject,
) -> isize {
    // SAFETY: the slots are the call's operands; the callable is there until they are closed.
    unsafe {
        let result = checked_result(tstate, (*slots).as_ptr_borrow(), result);
        for index in (0..count + 2).rev() {
            (*frame).stackpointer = slots.add(index).cast();
            slots.add(index).read().xclose();
        }
        if result.is_null() {
            return -1;
        }
        slots.write(StackRef::from_steal(result));
        (*frame).stackpointer = slots.add(1).cast();
        0
    }
}

/// Calls a class, an instance of `type` itself, that has an entry of its own for calls. None if it has not, or for many arguments: nothing was called then.
#[inline(always)]
unsafe fn call_builtin_class(
    class: *mut PyTypeObject,
    arguments: *const StackRef,
    count: usize,
) -> Option<*mut PyObject> {
    // SAFETY: the arguments are objects on the operand stack, which keeps them.
    unsafe {
        if class == &raw mut ffi::PyType_Type && count == 1 {
            let class = refs::type_of((*arguments).as_ptr_borrow());
            return Some(refs::new_ref(class.cast()));
        }
        let function = (*class).tp_vectorcall?;
        if count > MOST_ARGUMENTS {
            return None;
        }
        let mut array = [std::mem::MaybeUninit::uninit(); MOST_ARGUMENTS + 1];
        for (index, place) in array.iter_mut().skip(1).enumerate().take(count) {
            place.write((*arguments.add(index)).as_ptr_borrow());
        }
        let array = array.as_mut_ptr().cast::<*mut PyObject>().add(1);
        Some(function(
            class.cast(),
            array,
            count | ARGUMENTS_OFFSET,
            std::ptr::null_mut(),
        ))
    }
}

/// What is called of a builtin function, or of a builtin class's method with its object in place, and the receiver.
#[inline(always)]
unsafe fn builtin(
    callable: *mut PyObject,
    receiver: StackRef,
) -> Option<(*const ffi::PyMethodDef, *mut PyObject)> {
    // SAFETY: live objects of the types that are compared.
    unsafe {
        if refs::is_type(callable, &raw const ffi::PyMethodDescr_Type) && !receiver.is_null() {
            let descr = callable.cast::<ffi::PyMethodDescrObject>();
            let class = (*descr).d_common.d_type;
            let receiver = receiver.as_ptr_borrow();
            let applies = refs::type_of(receiver) == class
                || ffi::PyType_IsSubtype(refs::type_of(receiver), class) != 0;
            return applies.then_some(((*descr).d_method.cast_const(), receiver));
        }
        if refs::is_type(callable, &raw const ffi::PyCFunction_Type) && receiver.is_null() {
            let function = callable.cast::<ffi::PyCFunctionObject>();
            return Some(((*function).m_ml.cast_const(), (*function).m_self));
        }
        None
    }
}

/// Most arguments that are put into an array on the native stack.
const MOST_ARGUMENTS: usize = 6;

/// Calls a builtin with the arguments from `arguments` on. None if it takes its arguments in another way: nothing was called then.
#[inline(always)]
unsafe fn call_builtin(
    method: *const ffi::PyMethodDef,
    receiver: *mut PyObject,
    arguments: *const StackRef,
    count: usize,
) -> Option<*mut PyObject> {
    /// `METH_FASTCALL`.
    type Fast = unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, isize) -> *mut PyObject;
    /// `METH_FASTCALL | METH_KEYWORDS`.
    type FastKeywords = unsafe extern "C" fn(
        *mut PyObject,
        *const *mut PyObject,
        isize,
        *mut PyObject,
    ) -> *mut PyObject;
    // SAFETY: the flags say what the function's signature is; the arguments are objects on the operand stack, which keeps them.
    unsafe {
        let function = (*method).ml_meth?;
        let flags = (*method).ml_flags as u32;
        let result = match flags {
            ffi::METH_O if count == 1 => function(receiver, (*arguments).as_ptr_borrow()),
            ffi::METH_NOARGS if count == 0 => function(receiver, std::ptr::null_mut()),
            ffi::METH_FASTCALL | FAST_KEYWORDS if count <= MOST_ARGUMENTS => {
                let mut array = [std::mem::MaybeUninit::uninit(); MOST_ARGUMENTS];
                for (index, place) in array.iter_mut().enumerate().take(count) {
                    place.write((*arguments.add(index)).as_ptr_borrow());
                }
                let array = array.as_ptr().cast::<*mut PyObject>();
                if flags == ffi::METH_FASTCALL {
                    let function = std::mem::transmute::<*const (), Fast>(function as *const ());
                    function(receiver, array, count as isize)
                } else {
                    let function =
                        std::mem::transmute::<*const (), FastKeywords>(function as *const ());
                    function(receiver, array, count as isize, std::ptr::null_mut())
                }
            }
            _ => return None,
        };
        Some(result)
    }
}

const FAST_KEYWORDS: u32 = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;

/// Whether a function without collecting or keyword-only parameters can be called with `given` positional arguments: the parameters behind them have defaults.
unsafe fn takes(function: *mut PyFunctionObject, data: *mut CodeData, given: usize) -> bool {
    // SAFETY: a live function whose data this is; its defaults are a tuple or null.
    unsafe {
        let wanted = (*data).argcount as usize;
        let defaults = (*function).func_defaults;
        (*data).flags & SIMPLE_ARGUMENTS != 0
            && (given == wanted
                || given < wanted
                    && !defaults.is_null()
                    && wanted - given <= refs::size_of_var(defaults) as usize)
    }
}

/// Fills the locals of a frame behind the first `given`: the function's defaults for parameters, null for the others.
unsafe fn fill_locals(
    function: *mut PyFunctionObject,
    data: *mut CodeData,
    locals: *mut StackRef,
    given: usize,
) {
    // SAFETY: the frame has the slots, and the function as many defaults as are wanted (`takes`).
    unsafe {
        let wanted = (*data).argcount as usize;
        if given < wanted {
            let defaults = (*function).func_defaults;
            let end = refs::size_of_var(defaults) as usize;
            for missing in 1..=wanted - given {
                let value = refs::tuple_item(defaults, end - missing);
                locals
                    .add(wanted - missing)
                    .write(StackRef::from_new(value));
            }
        }
        for index in wanted..(*data).nlocalsplus as usize {
            locals.add(index).write(StackRef::NULL);
        }
    }
}

/// Calls a stamped Python function with arguments that move into its frame. None if it cannot be called so: nothing has happened then. A new reference, or null with an exception set.
///
/// # Safety
/// A live function; the arguments are the caller's to hand on, and the caller's frame says where it is.
pub(super) unsafe fn call_python<const N: usize>(
    tstate: *mut PyThreadState,
    function: *mut PyFunctionObject,
    arguments: [StackRef; N],
) -> Option<*mut PyObject> {
    // SAFETY: see above; the frame takes a reference to the function.
    unsafe {
        let data = stamped(function)?;
        if !takes(function, data, N) || entry::foreign_evaluator(tstate) {
            return None;
        }
        let callee = frame_stack::push_frame(
            tstate,
            StackRef::from_new(function.cast()),
            (*data).code,
            (*data).frame_words as usize,
        );
        if callee.is_null() {
            for argument in arguments.into_iter().rev() {
                argument.close();
            }
            return Some(callee.cast());
        }
        let locals = (&raw mut (*callee).localsplus).cast::<StackRef>();
        for (index, argument) in arguments.into_iter().enumerate() {
            locals.add(index).write(argument);
        }
        fill_locals(function, data, locals, N);
        Some(entry::enter(tstate, callee, data))
    }
}

/// Calls a stamped function that takes these arguments (`takes`): function and arguments move into its frame. For optimized code, which has no call stub.
unsafe fn call_stamped(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    slots: *mut StackRef,
    arguments: usize,
    count: usize,
    data: *mut CodeData,
) -> isize {
    // SAFETY: as `call`; the operands are the caller's own until they are moved.
    unsafe {
        let callee = frame_stack::push_frame(
            tstate,
            slots.read(),
            (*data).code,
            (*data).frame_words as usize,
        );
        (*frame).stackpointer = slots.cast();
        let first = slots.add(2 + count - arguments);
        if callee.is_null() {
            for index in (0..arguments).rev() {
                first.add(index).read().close();
            }
            return -1;
        }
        let locals = (&raw mut (*callee).localsplus).cast::<StackRef>();
        first.copy_to_nonoverlapping(locals, arguments);
        fill_locals(refs::frame_function(callee), data, locals, arguments);
        let result = segments::with_room(tstate, || entry::enter(tstate, callee, data));
        if result.is_null() {
            return -1;
        }
        slots.write(StackRef::from_steal(result));
        (*frame).stackpointer = slots.add(1).cast();
        0
    }
}

/// Calls a function with any parameters: binds what the operand stack holds from the callable at `slots` on, of which the last `given` arguments count, `positional` ones and
/// then those that `names` (a tuple on top of them, or null) name. None if they do not fit: nothing has happened then.
unsafe fn call_bound(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    slots: *mut StackRef,
    positional: usize,
    given: usize,
    names: *mut PyObject,
    way: Callee,
) -> Option<isize> {
    // SAFETY: as `call`; the operands are the caller's own until they are bound. The interpreter takes the frame as `_PyEval_Vector` gives it one.
    unsafe {
        let function = (*slots).as_ptr_borrow().cast::<PyFunctionObject>();
        let code = (*function).func_code.cast::<ffi::PyCodeObject>();
        if matches!(way, Callee::Entry) || (*code).co_flags as u32 & ffi::CO_OPTIMIZED == 0 {
            return None;
        }
        let callee =
            frame_stack::push_frame(tstate, slots.read(), code, (*code).co_framesize as usize);
        if callee.is_null() {
            // The callable is gone; what lies above it still has to go.
            slots.write(StackRef::NULL);
            return Some(discard(frame, slots));
        }
        let first = slots.add(1 + usize::from((*slots.add(1)).is_null()));
        let locals = (&raw mut (*callee).localsplus).cast::<StackRef>();
        debug_assert!(given >= positional);
        if let Err(error) = bind::bind_entries(function, code, locals, first, positional, names) {
            // The frame gives up the function, which the operand stack still holds.
            (&raw mut (*callee).f_funcobj).write(StackRef::NULL);
            frame_stack::drop_unlinked_frame(tstate, callee);
            return match error {
                BindError::Mismatch | BindError::UnusualKeyword => None,
                BindError::Raised => Some(discard(frame, slots)),
            };
        }
        (*frame).stackpointer = slots.cast();
        if !names.is_null() {
            first.add(given).read().close();
        }
        let result = segments::with_room(tstate, || match way {
            Callee::Stamped(data) => entry::enter(tstate, callee, data),
            _ => ffi::_PyEval_EvalFrameDefault(tstate, callee, 0),
        });
        if result.is_null() {
            return Some(-1);
        }
        slots.write(StackRef::from_steal(result));
        (*frame).stackpointer = slots.add(1).cast();
        Some(0)
    }
}

/// Takes what lies from `slots` on off the operand stack; -1.
#[cold]
unsafe fn discard(frame: *mut Frame, slots: *mut StackRef) -> isize {
    // SAFETY: the slots below the stack's end are valid.
    unsafe {
        while (*frame).stackpointer.cast::<StackRef>() > slots {
            let top = (*frame).stackpointer.cast::<StackRef>().sub(1);
            (*frame).stackpointer = top.cast();
            top.read().xclose();
        }
        -1
    }
}

/// Remembers a class that is made by `object.__new__` and initialised by a Python function.
unsafe fn learn_class(site: *mut Site, class: *mut PyTypeObject) -> bool {
    // SAFETY: a live class, GIL held; `_PyType_Lookup` borrows from it.
    unsafe {
        let payload = Site::payload(site);
        if ((*payload).words[2] >> 32) as u32 >= MISS_LIMIT
            || note_miss(site, |_| (*site).target).is_none()
        {
            return false;
        }
        let plain_new = (*class).tp_new.map(|f| f as usize)
            == ffi::PyBaseObject_Type.tp_new.map(|f| f as usize);
        let generic: ffi::allocfunc = Some(ffi::PyType_GenericAlloc);
        let plain_alloc = (*class).tp_alloc.map(|f| f as usize) == generic.map(|f| f as usize);
        if !plain_new
            || !plain_alloc
            || refs::type_has_feature(class, u64::from(ffi::Py_TPFLAGS_IS_ABSTRACT))
        {
            return false;
        }
        let init = ffi::_PyType_Lookup(
            class,
            (&raw mut ffi::_PyRuntime
                .static_objects
                .singletons
                .strings
                .identifiers
                ._py___init__)
                .cast(),
        );
        if init.is_null() || !refs::is_type(init, &raw const ffi::PyFunction_Type) {
            return false;
        }
        if (*class).tp_version_tag == 0 && ffi::PyUnstable_Type_AssignVersionTag(class) == 0 {
            return false;
        }
        (*payload).words[0] = class as u64;
        (*payload).words[1] = u64::from((*class).tp_version_tag);
        (*payload).words[3] = init as u64;
        true
    }
}

/// Makes an instance and runs `__init__` on it; the arguments move into its frame.
unsafe fn construct(
    frame: *mut Frame,
    tstate: *mut PyThreadState,
    slots: *mut StackRef,
    count: usize,
    class: *mut PyTypeObject,
    init: *mut PyFunctionObject,
    data: *mut CodeData,
) -> isize {
    // SAFETY: as `call`; the class stays on the operand stack until the end.
    unsafe {
        let instance = ffi::PyType_GenericAlloc(class, 0);
        let callee = if instance.is_null() {
            std::ptr::null_mut()
        } else {
            frame_stack::push_frame(
                tstate,
                StackRef::from_new(init.cast()),
                (*data).code,
                (*data).frame_words as usize,
            )
        };
        if callee.is_null() {
            refs::xdecref(instance);
            for index in (0..count).rev() {
                slots.add(2 + index).read().close();
            }
            return finish(frame, slots, None);
        }
        let locals = (&raw mut (*callee).localsplus).cast::<StackRef>();
        locals.write(StackRef::from_new(instance));
        slots.add(2).copy_to_nonoverlapping(locals.add(1), count);
        fill_locals(init, data, locals, count + 1);
        (*frame).stackpointer = slots.add(2).cast();
        let result = segments::with_room(tstate, || entry::enter(tstate, callee, data));
        if result.is_null() {
            refs::decref(instance);
            return finish(frame, slots, None);
        }
        if !StackRef::from_steal(result).is_none() {
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"__init__() should return None, not '%.200s'".as_ptr(),
                (*refs::type_of(result)).tp_name,
            );
            refs::decref(result);
            refs::decref(instance);
            return finish(frame, slots, None);
        }
        finish(frame, slots, Some(instance))
    }
}

/// Takes the class off the stack; pushes the instance.
unsafe fn finish(
    frame: *mut Frame,
    slots: *mut StackRef,
    instance: Option<*mut PyObject>,
) -> isize {
    // SAFETY: the class's slot is valid, what was above it is gone.
    unsafe {
        (*frame).stackpointer = slots.cast();
        slots.read().close();
        match instance {
            Some(instance) => {
                slots.write(StackRef::from_steal(instance));
                (*frame).stackpointer = slots.add(1).cast();
                0
            }
            None => -1,
        }
    }
}
