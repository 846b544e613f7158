//! The ways by which C code resumes generators, coroutines and async generators, wrapped so that they reach compiled code.
//!
//! The types' slots (`tp_iternext`, `am_send`, `tp_finalize`) and the C functions behind their methods are replaced; types, method objects and everything visible stay. Each
//! replacement does what the original does for a generator that is suspended in compiled code, and calls the original for all else: other interpreters, somebody observing,
//! generators that run, are finished, or were never stamped. The rules (which exception, which message, what is closed first) are those of CPython's `genobject.c`.

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use hotstamp_layout::ffi::{self, PyGenObject, PyInterpreterState, PyObject, PyTypeObject};
use hotstamp_layout::ffi::{
    PyAsyncMethods, PyMethodDef, PyMethodDescrObject, PySendResult, PyThreadState,
    PyWrapperDescrObject,
};
use hotstamp_layout::refs::{self, StackRef};
use once_cell::sync::OnceCell;

use crate::generators::{self, Compiled, Outcome};

static MAIN: AtomicPtr<PyInterpreterState> = AtomicPtr::new(null_mut());

/// Whether this is the interpreter in which hotstamp was enabled, whose compiled code is the only one.
#[inline]
pub fn is_main(interp: *mut PyInterpreterState) -> bool {
    interp == MAIN.load(Ordering::Relaxed)
}

type Unary = unsafe extern "C" fn(*mut PyObject) -> *mut PyObject;
type Binary = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
type Fast = unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, isize) -> *mut PyObject;
type Send = unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut *mut PyObject) -> PySendResult;

/// What the wrapped slots and methods were. One of each is enough: `send`, `throw` and `close` of generators, coroutines and async generators are the same C functions.
#[derive(Debug)]
struct Originals {
    iternext: Unary,
    am_send: Send,
    finalize: ffi::destructor,
    send: Binary,
    throw: Fast,
    close: Binary,
    asend_iternext: Unary,
    asend_send: Binary,
}

static ORIGINALS: OnceCell<Originals> = OnceCell::new();

/// Only our replacements ask, which are installed after the originals were stored.
fn originals() -> &'static Originals {
    match ORIGINALS.get() {
        Some(originals) => originals,
        None => unreachable!("a replacement runs before it was installed"),
    }
}

/// `send`, `throw` or `close` of a type: the descriptor object, what its definition was, and ours.
#[derive(Debug)]
struct Method {
    descriptor: *mut PyMethodDescrObject,
    original: *mut PyMethodDef,
    replacement: *mut PyMethodDef,
}

/// A slot wrapper such as `__next__`, which holds the slot's function itself.
#[derive(Debug)]
struct Wrapper {
    descriptor: *mut PyWrapperDescrObject,
    original: *mut c_void,
    replacement: *mut c_void,
}

/// Everything that was found to replace, made once.
#[derive(Debug)]
struct Patches {
    methods: Vec<Method>,
    wrappers: Vec<Wrapper>,
    /// Types with their own asynchronous methods and ours, a copy with another `am_send`.
    senders: Vec<(*mut PyTypeObject, *mut PyAsyncMethods, *mut PyAsyncMethods)>,
}

// SAFETY: the pointers are to static types, to definitions that are never freed, and to descriptors that live as long as their types; used under the GIL only.
unsafe impl std::marker::Send for Patches {}
// SAFETY: as above.
unsafe impl Sync for Patches {}

static PATCHES: OnceCell<Patches> = OnceCell::new();
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// The C function of a method, if the method is there and has these flags.
unsafe fn method(
    ty: *mut PyTypeObject,
    name: &CStr,
    flags: u32,
) -> Option<(*mut PyMethodDescrObject, *const ())> {
    // SAFETY: the caller gives a ready type; its dictionary keeps the descriptor alive.
    unsafe {
        let descriptor = attribute(ty, name, &raw mut ffi::PyMethodDescr_Type)?;
        let descriptor = descriptor.cast::<PyMethodDescrObject>();
        let definition = (*descriptor).d_method;
        if (*definition).ml_flags as u32 != flags {
            return None;
        }
        (*definition)
            .ml_meth
            .map(|function| (descriptor, function as *const ()))
    }
}

/// An entry of a type's dictionary with this exact type, borrowed.
unsafe fn attribute(
    ty: *mut PyTypeObject,
    name: &CStr,
    kind: *mut PyTypeObject,
) -> Option<*mut PyObject> {
    // SAFETY: the caller gives a ready type.
    unsafe {
        let dict = ffi::PyType_GetDict(ty);
        if dict.is_null() {
            return None;
        }
        let found = ffi::PyDict_GetItemString(dict, name.as_ptr());
        refs::decref(dict);
        (!found.is_null() && refs::type_of(found) == kind).then_some(found)
    }
}

/// Finds what is to be replaced. `None` if anything is not as CPython 3.14 has it: then generators are resumed by the interpreter alone.
unsafe fn find() -> Option<(Originals, Patches)> {
    // SAFETY: static types, GIL held. Functions are transmuted to what the flags of their definitions (or their slots) say they are.
    unsafe {
        let generator = &raw mut ffi::PyGen_Type;
        let coroutine = &raw mut ffi::PyCoro_Type;
        let async_generator = &raw mut ffi::PyAsyncGen_Type;
        let asend = &raw mut ffi::_PyAsyncGenASend_Type;
        if (*asend).tp_basicsize as usize != size_of::<AsyncGenASend>() {
            return None;
        }
        let (_, send_function) = method(generator, c"send", ffi::METH_O)?;
        let (_, throw_function) = method(generator, c"throw", ffi::METH_FASTCALL)?;
        let (_, close_function) = method(generator, c"close", ffi::METH_NOARGS)?;
        let (_, asend_function) = method(asend, c"send", ffi::METH_O)?;
        let originals = Originals {
            iternext: (*generator).tp_iternext?,
            am_send: (*(*generator).tp_as_async).am_send?,
            finalize: Some((*generator).tp_finalize?),
            send: std::mem::transmute::<*const (), Binary>(send_function),
            throw: std::mem::transmute::<*const (), Fast>(throw_function),
            close: std::mem::transmute::<*const (), Binary>(close_function),
            asend_iternext: (*asend).tp_iternext?,
            asend_send: std::mem::transmute::<*const (), Binary>(asend_function),
        };
        let mut patches = Patches {
            methods: Vec::new(),
            wrappers: Vec::new(),
            senders: Vec::new(),
        };
        let (send_flags, throw_flags, close_flags) =
            (ffi::METH_O, ffi::METH_FASTCALL, ffi::METH_NOARGS);
        let wanted = [
            (
                generator,
                c"send",
                send_flags,
                send_function,
                send as *const (),
            ),
            (
                generator,
                c"throw",
                throw_flags,
                throw_function,
                throw as *const (),
            ),
            (
                generator,
                c"close",
                close_flags,
                close_function,
                close as *const (),
            ),
            (
                coroutine,
                c"send",
                send_flags,
                send_function,
                send as *const (),
            ),
            (
                coroutine,
                c"throw",
                throw_flags,
                throw_function,
                throw as *const (),
            ),
            (
                coroutine,
                c"close",
                close_flags,
                close_function,
                close as *const (),
            ),
            (
                asend,
                c"send",
                send_flags,
                asend_function,
                asend_send as *const (),
            ),
        ];
        for (ty, name, flags, expected, replacement) in wanted {
            let (descriptor, function) = method(ty, name, flags)?;
            if function != expected {
                return None;
            }
            let original = (*descriptor).d_method;
            let mut definition = *original;
            definition.ml_meth = std::mem::transmute::<*const (), ffi::PyCFunction>(replacement);
            patches.methods.push(Method {
                descriptor,
                original,
                replacement: Box::into_raw(Box::new(definition)),
            });
        }
        for (ty, original, replacement) in [
            (
                generator,
                originals.iternext as *mut c_void,
                iternext as *mut c_void,
            ),
            (
                asend,
                originals.asend_iternext as *mut c_void,
                asend_iternext as *mut c_void,
            ),
        ] {
            let descriptor = attribute(ty, c"__next__", &raw mut ffi::PyWrapperDescr_Type)?;
            let descriptor = descriptor.cast::<PyWrapperDescrObject>();
            if (*descriptor).d_wrapped != original {
                return None;
            }
            patches.wrappers.push(Wrapper {
                descriptor,
                original,
                replacement,
            });
        }
        for ty in [generator, coroutine, async_generator] {
            let own = (*ty).tp_as_async;
            if own.is_null()
                || (*own).am_send.map(|f| f as usize) != Some(originals.am_send as usize)
            {
                return None;
            }
            let mut ours = *own;
            ours.am_send = Some(am_send);
            patches
                .senders
                .push((ty, own, Box::into_raw(Box::new(ours))));
        }
        Some((originals, patches))
    }
}

/// Replaces slots and methods. If CPython's are not what they should be, nothing is replaced, and generators that C code resumes run in the interpreter.
pub(super) unsafe fn install() {
    // SAFETY: main interpreter, GIL held.
    unsafe {
        MAIN.store(ffi::PyInterpreterState_Get(), Ordering::Relaxed);
        if PATCHES.get().is_none() {
            let Some((originals, patches)) = find() else {
                ::tracing::debug!(
                    "the generator types are not CPython's own: generators are resumed by the interpreter"
                );
                return;
            };
            let _ = ORIGINALS.set(originals);
            let _ = PATCHES.set(patches);
        }
        set(true);
    }
}

/// Gives the types back what they had.
pub(super) unsafe fn remove() {
    if INSTALLED.load(Ordering::Relaxed) {
        // SAFETY: GIL held.
        unsafe { set(false) };
    }
}

unsafe fn set(ours: bool) {
    let (Some(patches), Some(originals)) = (PATCHES.get(), ORIGINALS.get()) else {
        return;
    };
    INSTALLED.store(ours, Ordering::Relaxed);
    // SAFETY: descriptors live as long as the static types; definitions are never freed.
    unsafe {
        for method in &patches.methods {
            (*method.descriptor).d_method = if ours {
                method.replacement
            } else {
                method.original
            };
        }
        for wrapper in &patches.wrappers {
            (*wrapper.descriptor).d_wrapped = if ours {
                wrapper.replacement
            } else {
                wrapper.original
            };
        }
        for &(ty, original, replacement) in &patches.senders {
            (*ty).tp_as_async = if ours { replacement } else { original };
        }
        ffi::PyGen_Type.tp_iternext = Some(if ours { iternext } else { originals.iternext });
        ffi::_PyAsyncGenASend_Type.tp_iternext = Some(if ours {
            asend_iternext
        } else {
            originals.asend_iternext
        });
        let finalizer = if ours {
            Some(finalize as _)
        } else {
            originals.finalize
        };
        for ty in [
            &raw mut ffi::PyGen_Type,
            &raw mut ffi::PyCoro_Type,
            &raw mut ffi::PyAsyncGen_Type,
        ] {
            (*ty).tp_finalize = finalizer;
        }
    }
}

/// The thread state and the compiled code of a generator that can be resumed in it now. `None`: the original function decides.
#[inline]
unsafe fn ready(generator: *mut PyGenObject) -> Option<(*mut PyThreadState, Compiled)> {
    // SAFETY: the caller gives a live generator, coroutine or async generator, GIL held.
    unsafe {
        let tstate = ffi::PyThreadState_GetUnchecked();
        if !generators::may_resume(tstate) || !generators::is_resumable((*generator).gi_frame_state)
        {
            return None;
        }
        generators::compiled(generator).map(|found| (tstate, found))
    }
}

/// Whether the original has to refuse the value: nothing but None can be sent to what has not started.
unsafe fn refuses(generator: *mut PyGenObject, value: *mut PyObject) -> bool {
    // SAFETY: the caller gives a live generator.
    unsafe {
        i32::from((*generator).gi_frame_state) == ffi::FRAME_CREATED
            && value != &raw mut ffi::_Py_NoneStruct
    }
}

/// `tp_iternext` of generators.
unsafe extern "C" fn iternext(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: called as the slot it replaces.
    unsafe {
        let generator = object.cast::<PyGenObject>();
        let Some((tstate, found)) = ready(generator) else {
            return (originals().iternext)(object);
        };
        match generators::resume(tstate, generator, Some(found), StackRef::none(), false) {
            Outcome::Yielded(value) => value,
            Outcome::Returned(value) => {
                if value != &raw mut ffi::_Py_NoneStruct {
                    ffi::_PyGen_SetStopIterationValue(value);
                    refs::decref(value);
                }
                null_mut()
            }
            Outcome::Raised => null_mut(),
        }
    }
}

/// `am_send` of generators, coroutines and async generators.
unsafe extern "C" fn am_send(
    object: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    // SAFETY: called as the slot it replaces.
    unsafe {
        let generator = object.cast::<PyGenObject>();
        let Some((tstate, found)) = ready(generator) else {
            return (originals().am_send)(object, value, result);
        };
        if value.is_null() || refuses(generator, value) {
            return (originals().am_send)(object, value, result);
        }
        *result = null_mut();
        let sent = StackRef::from_new(value);
        match generators::resume(tstate, generator, Some(found), sent, false) {
            Outcome::Yielded(value) => {
                *result = value;
                ffi::PYGEN_NEXT
            }
            Outcome::Returned(value) => {
                *result = value;
                ffi::PYGEN_RETURN
            }
            Outcome::Raised => ffi::PYGEN_ERROR,
        }
    }
}

/// The result of a method that resumes: what was yielded, or null with StopIteration (StopAsyncIteration) for what was returned.
unsafe fn method_result(object: *mut PyObject, outcome: Outcome) -> *mut PyObject {
    // SAFETY: no exception is set when something was returned.
    unsafe {
        match outcome {
            Outcome::Yielded(value) => value,
            Outcome::Returned(value) => {
                if refs::type_of(object) == &raw mut ffi::PyAsyncGen_Type {
                    ffi::PyErr_SetNone(ffi::PyExc_StopAsyncIteration);
                } else if value == &raw mut ffi::_Py_NoneStruct {
                    ffi::PyErr_SetNone(ffi::PyExc_StopIteration);
                } else {
                    ffi::_PyGen_SetStopIterationValue(value);
                }
                refs::decref(value);
                null_mut()
            }
            Outcome::Raised => null_mut(),
        }
    }
}

/// `send(value)` of generators and coroutines; async generators are sent to through it by their awaitables.
unsafe extern "C" fn send(object: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: called as the method it replaces.
    unsafe {
        let generator = object.cast::<PyGenObject>();
        match ready(generator) {
            Some((tstate, found)) if !refuses(generator, value) => {
                let sent = StackRef::from_new(value);
                let outcome = generators::resume(tstate, generator, Some(found), sent, false);
                method_result(object, outcome)
            }
            _ => (originals().send)(object, value),
        }
    }
}

/// `throw(exception)`; the other signatures are deprecated and the original's.
unsafe extern "C" fn throw(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: isize,
) -> *mut PyObject {
    // SAFETY: called as the method it replaces.
    unsafe {
        let generator = object.cast::<PyGenObject>();
        if nargs != 1 || ready(generator).is_none() {
            return (originals().throw)(object, args, nargs);
        }
        throw_into(generator, *args)
    }
}

unsafe fn is_exception_class(object: *mut PyObject) -> bool {
    // SAFETY: the caller gives a live object; a class's flags say what it is.
    unsafe {
        refs::type_has_feature(
            refs::type_of(object),
            u64::from(ffi::Py_TPFLAGS_TYPE_SUBCLASS),
        ) && refs::type_has_feature(object.cast(), u64::from(ffi::Py_TPFLAGS_BASE_EXC_SUBCLASS))
    }
}

unsafe fn is_exception(object: *mut PyObject) -> bool {
    // SAFETY: the caller gives a live object.
    unsafe {
        refs::type_has_feature(
            refs::type_of(object),
            u64::from(ffi::Py_TPFLAGS_BASE_EXC_SUBCLASS),
        )
    }
}

/// The exact generators and coroutines, whose methods need not be looked up.
unsafe fn is_delegate(object: *mut PyObject) -> bool {
    // SAFETY: the caller gives a live object.
    unsafe {
        let ty = refs::type_of(object);
        ty == &raw mut ffi::PyGen_Type || ty == &raw mut ffi::PyCoro_Type
    }
}

/// Throws an exception (instance or class, whatever was given) into a generator that is suspended in compiled code: to what it delegates to first.
unsafe fn throw_into(generator: *mut PyGenObject, given: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller keeps generator and exception alive; `delegate` is a reference of ours.
    unsafe {
        let delegate = ffi::_PyGen_yf(generator);
        if delegate.is_null() {
            return throw_here(generator, given);
        }
        if ffi::PyErr_GivenExceptionMatches(given, ffi::PyExc_GeneratorExit) != 0 {
            let closed = while_running(generator, false, || close_delegate(delegate));
            refs::decref(delegate);
            return if closed {
                throw_here(generator, given)
            } else {
                raise_in(generator)
            };
        }
        let result = if is_delegate(delegate) {
            while_running(generator, true, || throw(delegate, &raw const given, 1))
        } else {
            let mut throw_method = null_mut();
            if ffi::PyObject_GetOptionalAttrString(
                delegate,
                c"throw".as_ptr(),
                &raw mut throw_method,
            ) < 0
            {
                refs::decref(delegate);
                return null_mut();
            }
            if throw_method.is_null() {
                refs::decref(delegate);
                return throw_here(generator, given);
            }
            let result = while_running(generator, true, || {
                ffi::PyObject_CallOneArg(throw_method, given)
            });
            refs::decref(throw_method);
            result
        };
        refs::decref(delegate);
        if result.is_null() {
            // It raised, or returned: either way an exception, which the instructions behind the SEND handle.
            return raise_in(generator);
        }
        result
    }
}

/// Runs something on behalf of a suspended generator, which counts as running meanwhile and, if linked, is in tracebacks.
unsafe fn while_running<T>(
    generator: *mut PyGenObject,
    linked: bool,
    action: impl FnOnce() -> T,
) -> T {
    // SAFETY: the caller keeps the generator alive; its frame is complete and was not linked.
    unsafe {
        let tstate = ffi::PyThreadState_GetUnchecked();
        let frame = &raw mut (*generator).gi_iframe;
        let (state, before) = ((*generator).gi_frame_state, (*tstate).current_frame);
        if linked {
            (*frame).previous = before;
            (*tstate).current_frame = frame;
        }
        (*generator).gi_frame_state = ffi::FRAME_EXECUTING as i8;
        let result = action();
        (*generator).gi_frame_state = state;
        if linked {
            (*tstate).current_frame = before;
            (*frame).previous = null_mut();
        }
        result
    }
}

/// Raises what was given to `throw` in the generator itself.
unsafe fn throw_here(generator: *mut PyGenObject, given: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller keeps both alive; the three references are stolen by `PyErr_Restore`.
    unsafe {
        if is_exception_class(given) {
            let (mut class, mut value, mut traceback) =
                (refs::new_ref(given), null_mut(), null_mut());
            ffi::PyErr_NormalizeException(&raw mut class, &raw mut value, &raw mut traceback);
            ffi::PyErr_Restore(class, value, traceback);
        } else if is_exception(given) {
            ffi::PyErr_SetRaisedException(refs::new_ref(given));
        } else {
            let format =
                c"exceptions must be classes or instances deriving from BaseException, not %s";
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                format.as_ptr(),
                (*refs::type_of(given)).tp_name,
            );
            return null_mut();
        }
        raise_in(generator)
    }
}

/// Raises the exception that is set in a suspended generator. The result is that of `send`.
unsafe fn raise_in(generator: *mut PyGenObject) -> *mut PyObject {
    // SAFETY: the caller keeps the generator alive; it is suspended.
    unsafe {
        let tstate = ffi::PyThreadState_GetUnchecked();
        let found = if generators::may_resume(tstate) {
            generators::compiled(generator)
        } else {
            None
        };
        let outcome = generators::resume(tstate, generator, found, StackRef::none(), true);
        method_result(generator.cast(), outcome)
    }
}

/// Closes what a generator delegates to. False: it raised.
unsafe fn close_delegate(delegate: *mut PyObject) -> bool {
    // SAFETY: the caller keeps the object alive.
    unsafe {
        let result = if is_delegate(delegate) {
            close(delegate, null_mut())
        } else {
            let mut close_method = null_mut();
            if ffi::PyObject_GetOptionalAttrString(
                delegate,
                c"close".as_ptr(),
                &raw mut close_method,
            ) < 0
            {
                ffi::PyErr_FormatUnraisable(
                    c"Exception ignored while closing generator %R".as_ptr(),
                    delegate,
                );
            }
            if close_method.is_null() {
                return true;
            }
            let result = ffi::PyObject_CallNoArgs(close_method);
            refs::decref(close_method);
            result
        };
        refs::xdecref(result);
        !result.is_null()
    }
}

/// Whether closing a generator runs code of its own: it is suspended where more than the outermost handler (which CPython adds for StopIteration) could see the exception.
unsafe fn runs_when_closed(generator: *mut PyGenObject) -> bool {
    // SAFETY: the caller gives a suspended generator, whose `instr_ptr` is an instruction.
    unsafe {
        let unit = (*(*generator).gi_iframe.instr_ptr).op;
        let is_resume = matches!(
            u32::from(unit.code),
            ffi::RESUME | ffi::RESUME_CHECK | ffi::INSTRUMENTED_RESUME
        );
        !(is_resume && u32::from(unit.arg) & ffi::RESUME_OPARG_DEPTH1_MASK != 0)
    }
}

/// `close()` of generators and coroutines.
unsafe extern "C" fn close(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: called as the method it replaces.
    unsafe {
        let generator = object.cast::<PyGenObject>();
        if !generators::is_suspended((*generator).gi_frame_state)
            || !runs_when_closed(generator)
            || ready(generator).is_none()
        {
            return (originals().close)(object, null_mut());
        }
        let delegate = ffi::_PyGen_yf(generator);
        let mut closed = true;
        if !delegate.is_null() {
            closed = while_running(generator, false, || close_delegate(delegate));
            refs::decref(delegate);
        }
        if closed {
            ffi::PyErr_SetNone(ffi::PyExc_GeneratorExit);
        }
        let result = raise_in(generator);
        if !result.is_null() {
            refs::decref(result);
            let ty = refs::type_of(object);
            let message = if ty == &raw mut ffi::PyCoro_Type {
                c"coroutine ignored GeneratorExit"
            } else if ty == &raw mut ffi::PyAsyncGen_Type {
                c"async generator ignored GeneratorExit"
            } else {
                c"generator ignored GeneratorExit"
            };
            ffi::PyErr_SetString(ffi::PyExc_RuntimeError, message.as_ptr());
            return null_mut();
        }
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_GeneratorExit) != 0 {
            ffi::PyErr_Clear();
            return &raw mut ffi::_Py_NoneStruct; // immortal
        }
        // What it returned while it was closed.
        let mut value = null_mut();
        if ffi::_PyGen_FetchStopIterationValue(&raw mut value) == 0 {
            return value;
        }
        null_mut()
    }
}

/// `tp_finalize` of generators, coroutines and async generators: closes what is suspended. The other cases, async generators with a finalizer of the event loop among them, are
/// the original's.
unsafe extern "C" fn finalize(object: *mut PyObject) {
    // SAFETY: called as the slot it replaces; the object is alive for the time of the call.
    unsafe {
        let generator = object.cast::<PyGenObject>();
        let has_hook = refs::type_of(object) == &raw mut ffi::PyAsyncGen_Type
            && !(*generator).gi_origin_or_finalizer.is_null();
        if has_hook
            || !generators::is_suspended((*generator).gi_frame_state)
            || !runs_when_closed(generator)
            || ready(generator).is_none()
        {
            if let Some(original) = originals().finalize {
                original(object);
            }
            return;
        }
        let saved = ffi::PyErr_GetRaisedException();
        let result = close(object, null_mut());
        if result.is_null() {
            if !ffi::PyErr_Occurred().is_null() {
                ffi::PyErr_FormatUnraisable(
                    c"Exception ignored while closing generator %R".as_ptr(),
                    object,
                );
            }
        } else {
            refs::decref(result);
        }
        ffi::PyErr_SetRaisedException(saved);
    }
}

/// The awaitable of `__anext__()` and `asend()`: CPython's `PyAsyncGenASend`, which no header declares. Its size is compared at install.
#[repr(C)]
struct AsyncGenASend {
    ob_base: PyObject,
    generator: *mut PyGenObject,
    value: *mut PyObject,
    state: i32,
}

/// States of the awaitable: not awaited yet, being iterated, finished.
const AWAITABLE_INIT: i32 = 0;
const AWAITABLE_ITER: i32 = 1;
const AWAITABLE_CLOSED: i32 = 2;

/// The value that an async generator yields to its consumer: CPython's `_PyAsyncGenWrappedValue`, which no header declares.
#[repr(C)]
struct WrappedValue {
    ob_base: PyObject,
    value: *mut PyObject,
}

/// Whether an object is such a wrapped value. Its type is not exported; it has a name and a size of its own, and no Python code ever gets hold of one.
unsafe fn is_wrapped(object: *mut PyObject) -> bool {
    static WRAPPED: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
    // SAFETY: the caller gives a live object; types have names.
    unsafe {
        let ty = refs::type_of(object);
        let known = WRAPPED.load(Ordering::Relaxed);
        if !known.is_null() {
            return ty == known;
        }
        let is = (*ty).tp_basicsize as usize == size_of::<WrappedValue>()
            && (*ty).tp_flags & u64::from(ffi::Py_TPFLAGS_HEAPTYPE) == 0
            && CStr::from_ptr((*ty).tp_name) == c"async_generator_wrapped_value";
        if is {
            WRAPPED.store(ty, Ordering::Relaxed);
        }
        is
    }
}

/// What awaiting one step of an async generator comes to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Something inside of it awaits: what it yielded, a new reference.
    Awaits(*mut PyObject),
    /// The value that it yielded to its consumer, a new reference: the awaitable is done, and would raise StopIteration with it.
    Gives(*mut PyObject),
    /// It raised or ended; the exception is set.
    Raised,
}

/// Tells what an async generator yielded, and notes in it that a step is over.
unsafe fn unwrap(generator: *mut PyGenObject, result: *mut PyObject) -> Step {
    // SAFETY: the caller keeps the generator alive and owns the result.
    unsafe {
        if result.is_null() {
            if ffi::PyErr_Occurred().is_null() {
                ffi::PyErr_SetNone(ffi::PyExc_StopAsyncIteration);
            }
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopAsyncIteration) != 0
                || ffi::PyErr_ExceptionMatches(ffi::PyExc_GeneratorExit) != 0
            {
                (*generator).gi_closed = 1;
            }
            (*generator).gi_running_async = 0;
            return Step::Raised;
        }
        if is_wrapped(result) {
            let value = refs::new_ref((*result.cast::<WrappedValue>()).value);
            refs::decref(result);
            (*generator).gi_running_async = 0;
            return Step::Gives(value);
        }
        Step::Awaits(result)
    }
}

/// One step of an async generator that is suspended in compiled code; `None`: the original decides. `value` is null for `__next__`.
unsafe fn step(object: *mut PyObject, value: *mut PyObject) -> Option<Step> {
    // SAFETY: the caller gives the awaitable, which holds its generator.
    unsafe {
        let awaitable = object.cast::<AsyncGenASend>();
        let generator = (*awaitable).generator;
        let none = &raw mut ffi::_Py_NoneStruct;
        let mut sent = if value.is_null() { none } else { value };
        match (*awaitable).state {
            AWAITABLE_INIT => {
                if (*generator).gi_running_async != 0 {
                    return None;
                }
                if sent == none && !(*awaitable).value.is_null() {
                    sent = (*awaitable).value;
                }
            }
            AWAITABLE_ITER => {}
            _ => return None,
        }
        let (tstate, found) = ready(generator)?;
        if refuses(generator, sent) {
            return None;
        }
        (*awaitable).state = AWAITABLE_ITER;
        (*generator).gi_running_async = 1;
        let sent = StackRef::from_new(sent);
        let outcome = generators::resume(tstate, generator, Some(found), sent, false);
        let step = unwrap(generator, method_result(generator.cast(), outcome));
        if !matches!(step, Step::Awaits(_)) {
            (*awaitable).state = AWAITABLE_CLOSED;
        }
        Some(step)
    }
}

/// A step as the awaitable's methods report it.
unsafe fn step_result(step: Step) -> *mut PyObject {
    match step {
        Step::Awaits(object) => object,
        Step::Gives(value) => {
            // SAFETY: no exception is set, and the value is ours.
            unsafe {
                ffi::_PyGen_SetStopIterationValue(value);
                refs::decref(value);
            }
            null_mut()
        }
        Step::Raised => null_mut(),
    }
}

/// One step of an async generator, awaited by compiled code: as `__next__` of its awaitable, without a StopIteration around the value. `None`: not such an awaitable, or the
/// original decides.
///
/// # Safety
/// The receiver is alive for the time of the call; GIL held.
pub(crate) unsafe fn await_step(receiver: *mut PyObject) -> Option<Step> {
    // SAFETY: see above; the size of the awaitable was compared at install.
    unsafe {
        if refs::type_of(receiver) != &raw mut ffi::_PyAsyncGenASend_Type
            || !INSTALLED.load(Ordering::Relaxed)
        {
            return None;
        }
        step(receiver, null_mut())
    }
}

/// `tp_iternext` of the awaitable.
unsafe extern "C" fn asend_iternext(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: called as the slot it replaces.
    unsafe {
        match step(object, null_mut()) {
            Some(step) => step_result(step),
            None => (originals().asend_iternext)(object),
        }
    }
}

/// `send(value)` of the awaitable.
unsafe extern "C" fn asend_send(object: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: called as the method it replaces.
    unsafe {
        match step(object, value) {
            Some(step) => step_result(step),
            None => (originals().asend_send)(object, value),
        }
    }
}
