//! Bodies that are run once and never called: modules, `exec`, classes.
//!
//! CPython runs them inside `exec` and `__build_class__` without a function's vectorcall, so these two are swapped. A body is stamped only if it loops and `when.rs` says so: a straight line that
//! runs once costs less to interpret than to compile. Everything out of the ordinary goes to the original, before anything was done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use hotstamp_layout::ffi::{self, PyCodeObject, PyFunctionObject, PyObject, PyTypeObject};
use hotstamp_layout::refs;

use super::swap::Swap;
use super::tracing;
use super::when;
use crate::code_data::CodeData;
use crate::exits::{self, ExitReason};
use crate::{entry, registry};

static EXEC: Swap = Swap::new();
static BUILD_CLASS: Swap = Swap::new();

/// Swaps `exec` and `__build_class__`. If a program replaced them, its bodies are interpreted.
pub(super) unsafe fn install() {
    // SAFETY: main interpreter, GIL held; both functions have the signature of these flags.
    unsafe {
        let builtins = ffi::PyImport_AddModule(c"builtins".as_ptr());
        if builtins.is_null() {
            ffi::PyErr_Clear();
            return;
        }
        let flags = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
        EXEC.install(builtins, c"exec", flags, exec as *const ());
        BUILD_CLASS.install(
            builtins,
            c"__build_class__",
            flags,
            build_class as *const (),
        );
    }
}

/// Gives both back what they were.
pub(super) unsafe fn remove() {
    // SAFETY: GIL held.
    unsafe {
        EXEC.remove();
        BUILD_CLASS.remove();
    }
}

/// A reference that is released when it goes out of scope.
struct Owned(*mut PyObject);

impl Owned {
    /// Takes a new reference that a C function returned; null means that it raised.
    fn new(object: *mut PyObject) -> Option<Owned> {
        // Lazily: an owner of null must never exist, not even for a moment.
        (!object.is_null()).then(|| Owned(object))
    }

    /// Makes a reference of its own to a borrowed object.
    unsafe fn to(object: *mut PyObject) -> Owned {
        // SAFETY: the caller gives a live object.
        unsafe { refs::incref(object) };
        Owned(object)
    }

    fn release(self) -> *mut PyObject {
        let object = self.0;
        std::mem::forget(self);
        object
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: this owns one reference.
        unsafe { refs::decref(self.0) };
    }
}

/// The compiled code of a body that loops, or `None` if it has to be interpreted.
unsafe fn stamped(
    code: *mut PyCodeObject,
    globals: *mut PyObject,
    builtins: *mut PyObject,
) -> Option<*mut CodeData> {
    // SAFETY: the caller gives live objects, GIL held.
    unsafe {
        if !super::enabled()
            || !tracing::may_run(ffi::PyThreadState_GetUnchecked())
            || !when::body_counts(code)
            || !when::now(code)
        {
            return None;
        }
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            registry::data_for_code(code, globals, builtins)
        }));
        match attempt.unwrap_or(Err(ExitReason::InternalError)) {
            Ok(data) => Some(data),
            Err(reason) => {
                exits::count(reason);
                None
            }
        }
    }
}

/// `exec(code, globals, locals)`, for what importing a module and running a script come to: a code object without free variables, and a plain dictionary.
///
/// # Safety
/// As the built-in function's contract.
unsafe extern "C" fn exec(
    module: *mut PyObject,
    args: *const *mut PyObject,
    nargs: isize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: arguments are borrowed for the time of the call.
    unsafe {
        if kwnames.is_null() && (2..=3).contains(&nargs) {
            let (source, globals) = (*args, *args.add(1));
            let none = &raw mut ffi::_Py_NoneStruct;
            let locals = if nargs == 3 && *args.add(2) != none {
                *args.add(2)
            } else {
                globals
            };
            if is_exactly(source, &raw mut ffi::PyCode_Type)
                && is_exactly(globals, &raw mut ffi::PyDict_Type)
                && ffi::PyMapping_Check(locals) != 0
                && let Some(result) = run_module_body(source.cast(), globals, locals)
            {
                if result.is_null() {
                    return null_mut();
                }
                refs::decref(result);
                return none; // None is immortal
            }
        }
        EXEC.call_fast_keywords(module, args, nargs, kwnames)
    }
}

unsafe fn is_exactly(object: *mut PyObject, class: *mut PyTypeObject) -> bool {
    // SAFETY: the caller gives a live object.
    unsafe { (*object).ob_type == class }
}

/// Runs a code object as `exec` does, through its compiled body. `None` if it has to be interpreted: nothing was done then. Null: it raised.
///
/// # Safety
/// `globals` is exactly a dictionary, `locals` a mapping; GIL held, no exception set.
pub unsafe fn run_module_body(
    code: *mut PyCodeObject,
    globals: *mut PyObject,
    locals: *mut PyObject,
) -> Option<*mut PyObject> {
    // SAFETY: passed on from the caller.
    unsafe {
        if (*code).co_nfreevars != 0
            || !super::enabled()
            || super::suspended()
            || !when::body_counts(code)
        {
            return None;
        }
        // As `exec`: the names of built-in functions are reachable from every namespace that code runs in.
        match ffi::PyDict_ContainsString(globals, c"__builtins__".as_ptr()) {
            0 if ffi::PyDict_SetItemString(
                globals,
                c"__builtins__".as_ptr(),
                ffi::PyEval_GetBuiltins(),
            ) < 0 =>
            {
                return Some(null_mut());
            }
            0 | 1 => {}
            _ => return Some(null_mut()),
        }
        let Some(func) = Owned::new(ffi::PyFunction_New(code.cast(), globals)) else {
            return Some(null_mut());
        };
        let function = func.0.cast::<PyFunctionObject>();
        stamped(code, globals, (*function).func_builtins)?;
        if ffi::PySys_Audit(c"exec".as_ptr(), c"O".as_ptr(), code) < 0 {
            return Some(null_mut());
        }
        match entry::run_body(function, locals) {
            Ok(result) => Some(result),
            Err(reason) => {
                exits::count(reason);
                Some(ffi::PyEval_EvalCode(code.cast(), globals, locals))
            }
        }
    }
}

/// `__build_class__(func, name, *bases, metaclass=None, **keywords)`, for a body that loops.
///
/// # Safety
/// As the built-in function's contract.
unsafe extern "C" fn build_class(
    module: *mut PyObject,
    args: *const *mut PyObject,
    nargs: isize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: arguments are borrowed for the time of the call.
    unsafe {
        if nargs >= 2
            && is_exactly(*args, &raw mut ffi::PyFunction_Type)
            && is_exactly(*args.add(1), &raw mut ffi::PyUnicode_Type)
        {
            let func = (*args).cast::<PyFunctionObject>();
            let code = (*func).func_code.cast::<PyCodeObject>();
            if stamped(code, (*func).func_globals, (*func).func_builtins).is_some() {
                let names = if kwnames.is_null() {
                    0
                } else {
                    ffi::PyTuple_Size(kwnames) as usize
                };
                let all = std::slice::from_raw_parts(args, nargs as usize + names);
                return make_class(func, all, nargs as usize, kwnames)
                    .map_or(null_mut(), Owned::release);
            }
        }
        BUILD_CLASS.call_fast_keywords(module, args, nargs, kwnames)
    }
}

/// Makes a class as the language reference says ("Metaclasses"), with the body run through compiled code. `None`: an exception is set.
unsafe fn make_class(
    func: *mut PyFunctionObject,
    args: &[*mut PyObject],
    nargs: usize,
    kwnames: *mut PyObject,
) -> Option<Owned> {
    // SAFETY: `args` are borrowed live objects: the body, the name, the bases, then the keywords' values.
    unsafe {
        let name = args[1];
        let given = Owned::new(ffi::PyTuple_New(nargs as isize - 2))?;
        for (index, &base) in args[2..nargs].iter().enumerate() {
            refs::incref(base);
            ffi::PyTuple_SetItem(given.0, index as isize, base);
        }
        let bases = resolve_bases(&given)?;

        let mut keywords = None;
        let mut metaclass = None;
        if !kwnames.is_null() {
            let dict = Owned::new(ffi::PyDict_New())?;
            for (index, &value) in args[nargs..].iter().enumerate() {
                if ffi::PyDict_SetItem(dict.0, ffi::PyTuple_GetItem(kwnames, index as isize), value)
                    < 0
                {
                    return None;
                }
            }
            let mut explicit = null_mut();
            if ffi::PyDict_PopString(dict.0, c"metaclass".as_ptr(), &raw mut explicit) < 0 {
                return None;
            }
            metaclass = Owned::new(explicit);
            keywords = Some(dict);
        }
        let keywords = keywords.as_ref().map_or(null_mut(), |dict| dict.0);

        let mut metaclass = match metaclass {
            Some(explicit) => explicit,
            None if ffi::PyTuple_Size(bases.0) == 0 => {
                Owned::to((&raw mut ffi::PyType_Type).cast())
            }
            None => Owned::to((*ffi::PyTuple_GetItem(bases.0, 0)).ob_type.cast()),
        };
        let is_class = is_type(metaclass.0);
        if is_class {
            metaclass = Owned::to(most_derived_metaclass(metaclass.0.cast(), &bases)?.cast());
        }

        let namespace = prepare(&metaclass, is_class, name, &bases, keywords)?;
        let cell = match entry::run_body(func, namespace.0) {
            Ok(result) => Owned::new(result)?,
            Err(reason) => {
                exits::count(reason);
                let code = (*func).func_code;
                let closure = (*func).func_closure;
                Owned::new(ffi::PyEval_EvalCodeEx(
                    code,
                    (*func).func_globals,
                    namespace.0,
                    std::ptr::null(),
                    0,
                    std::ptr::null(),
                    0,
                    std::ptr::null(),
                    0,
                    null_mut(),
                    closure,
                ))?
            }
        };

        if bases.0 != given.0
            && ffi::PyMapping_SetItemString(namespace.0, c"__orig_bases__".as_ptr(), given.0) < 0
        {
            return None;
        }
        let arguments = [name, bases.0, namespace.0];
        let class = Owned::new(ffi::PyObject_VectorcallDict(
            metaclass.0,
            arguments.as_ptr(),
            3,
            keywords,
        ))?;
        if is_type(class.0) && is_exactly(cell.0, &raw mut ffi::PyCell_Type) {
            check_class_cell(&cell, &class, name)?;
        }
        Some(class)
    }
}

unsafe fn is_type(object: *mut PyObject) -> bool {
    // SAFETY: the caller gives a live object.
    unsafe {
        ffi::PyType_GetFlags((*object).ob_type) & u64::from(ffi::Py_TPFLAGS_TYPE_SUBCLASS) != 0
    }
}

/// Replaces bases that are no classes by what their `__mro_entries__` gives. The same tuple if there are none.
unsafe fn resolve_bases(given: &Owned) -> Option<Owned> {
    // SAFETY: `given` is a tuple that lives through the call.
    unsafe {
        let mut resolved: Option<Owned> = None;
        for index in 0..ffi::PyTuple_Size(given.0) {
            let base = ffi::PyTuple_GetItem(given.0, index);
            let mut entries = null_mut();
            if !is_type(base)
                && ffi::PyObject_GetOptionalAttrString(
                    base,
                    c"__mro_entries__".as_ptr(),
                    &raw mut entries,
                ) < 0
            {
                return None;
            }
            let Some(entries) = Owned::new(entries) else {
                if let Some(list) = &resolved
                    && ffi::PyList_Append(list.0, base) < 0
                {
                    return None;
                }
                continue;
            };
            let replacement = Owned::new(ffi::PyObject_CallOneArg(entries.0, given.0))?;
            if ffi::PyType_GetFlags((*replacement.0).ob_type)
                & u64::from(ffi::Py_TPFLAGS_TUPLE_SUBCLASS)
                == 0
            {
                ffi::PyErr_SetString(
                    ffi::PyExc_TypeError,
                    c"__mro_entries__ must return a tuple".as_ptr(),
                );
                return None;
            }
            let list = match resolved.take() {
                Some(list) => list,
                None => {
                    let before = Owned::new(ffi::PyTuple_GetSlice(given.0, 0, index))?;
                    Owned::new(ffi::PySequence_List(before.0))?
                }
            };
            let end = ffi::PyList_Size(list.0);
            if ffi::PyList_SetSlice(list.0, end, end, replacement.0) < 0 {
                return None;
            }
            resolved = Some(list);
        }
        match resolved {
            Some(list) => Owned::new(ffi::PyList_AsTuple(list.0)),
            None => Some(Owned::to(given.0)),
        }
    }
}

/// The metaclass that is a subclass of all the bases' metaclasses.
unsafe fn most_derived_metaclass(
    start: *mut PyTypeObject,
    bases: &Owned,
) -> Option<*mut PyTypeObject> {
    let mut winner = start;
    // SAFETY: `bases` is a tuple, which keeps the bases and so their classes alive.
    unsafe {
        for index in 0..ffi::PyTuple_Size(bases.0) {
            let candidate = (*ffi::PyTuple_GetItem(bases.0, index)).ob_type;
            if ffi::PyType_IsSubtype(winner, candidate) != 0 {
                continue;
            }
            if ffi::PyType_IsSubtype(candidate, winner) == 0 {
                let text = c"metaclass conflict: the metaclass of a derived class must be a (non-strict) subclass of the metaclasses of all its bases";
                ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
                return None;
            }
            winner = candidate;
        }
    }
    Some(winner)
}

/// The namespace that the body fills: what `metaclass.__prepare__` gives, or a dictionary.
unsafe fn prepare(
    metaclass: &Owned,
    is_class: bool,
    name: *mut PyObject,
    bases: &Owned,
    keywords: *mut PyObject,
) -> Option<Owned> {
    // SAFETY: all arguments are live objects.
    unsafe {
        let mut function = null_mut();
        if ffi::PyObject_GetOptionalAttrString(
            metaclass.0,
            c"__prepare__".as_ptr(),
            &raw mut function,
        ) < 0
        {
            return None;
        }
        let Some(function) = Owned::new(function) else {
            return Owned::new(ffi::PyDict_New());
        };
        let arguments = [name, bases.0];
        let namespace = Owned::new(ffi::PyObject_VectorcallDict(
            function.0,
            arguments.as_ptr(),
            2,
            keywords,
        ))?;
        if ffi::PyMapping_Check(namespace.0) == 0 {
            let whose = if is_class {
                (*metaclass.0.cast::<PyTypeObject>()).tp_name
            } else {
                c"<metaclass>".as_ptr()
            };
            let got = (*(*namespace.0).ob_type).tp_name;
            let text = c"%.200s.__prepare__() must return a mapping, not %.200s";
            ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), whose, got);
            return None;
        }
        Some(namespace)
    }
}

/// `type.__new__` must have filled the cell behind the body's `__class__`.
unsafe fn check_class_cell(cell: &Owned, class: &Owned, name: *mut PyObject) -> Option<()> {
    // SAFETY: `cell` is a cell; all objects are live.
    unsafe {
        let inside = Owned::new(ffi::PyCell_Get(cell.0));
        match inside {
            Some(found) if found.0 == class.0 => Some(()),
            Some(found) => {
                let text = c"__class__ set to %.200R defining %.200R as %.200R";
                ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), found.0, name, class.0);
                None
            }
            None => {
                let text = c"__class__ not set defining %.200R as %.200R. Was __classcell__ propagated to type.__new__?";
                ffi::PyErr_Format(ffi::PyExc_RuntimeError, text.as_ptr(), name, class.0);
                None
            }
        }
    }
}
