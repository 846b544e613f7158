//! Argument binding: from a vectorcall's arguments into the locals of a new frame, with the semantics of CPython's `initialize_locals`.
//!
//! Called by the vectorcall entry and by the runtime paths of compiled calls. It raises nothing for arguments that do not fit: the caller drops the frame and calls the
//! function's default vectorcall with the same arguments, which raises CPython's own TypeError, or runs the function interpreted where a keyword is no exact string.

use hotstamp_layout::ffi::{self, PyCodeObject, PyFunctionObject, PyObject};
use hotstamp_layout::refs::{self, StackRef};
use thiserror::Error;

/// Why arguments were not bound. The locals are all null then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BindError {
    /// They do not fit the parameters. No exception is set: the function's default vectorcall raises it.
    #[error("the arguments do not fit the function's parameters")]
    Mismatch,
    /// A keyword is no exact string, so that comparing it could run Python code. None has been run: the function's default vectorcall has to bind.
    #[error("a keyword is an instance of a subclass of str, or no string")]
    UnusualKeyword,
    /// Memory ran out, or an exchanged dict of defaults raised while it was searched. The exception is set.
    #[error("an exception was raised while arguments were bound")]
    Raised,
}

/// Binds the arguments of a call of `func` into `localsplus`: parameters get owned references, all other slots are set null.
///
/// # Safety
/// The GIL is held. `code` is the code object of `func`, and `localsplus` has `co_nlocalsplus` slots, whose old contents are overwritten. `args` holds `nargs` positional arguments
/// and then one for each name in `kwnames` (a tuple, or null), all borrowed for the time of the call.
#[inline]
pub unsafe fn bind_arguments(
    func: *mut PyFunctionObject,
    code: *mut PyCodeObject,
    localsplus: *mut StackRef,
    args: *const *mut PyObject,
    nargs: usize,
    kwnames: *mut PyObject,
) -> Result<(), BindError> {
    // SAFETY: passed on.
    unsafe {
        let binding = Binding::new(func, code, localsplus);
        let args = Borrowed(args);
        if kwnames.is_null()
            && nargs == binding.argcount
            && binding.has_only_positional_parameters()
        {
            binding.take_positional(args, nargs);
            return Ok(());
        }
        binding.bind(args, nargs, kwnames)
    }
}

/// As [`bind_arguments`], with arguments on an operand stack, which move into the frame. On an error they stay where they are, and their owner's.
///
/// # Safety
/// As for [`bind_arguments`]. After success nothing of the arguments is the operand stack's any more.
pub unsafe fn bind_entries(
    func: *mut PyFunctionObject,
    code: *mut PyCodeObject,
    localsplus: *mut StackRef,
    args: *const StackRef,
    nargs: usize,
    kwnames: *mut PyObject,
) -> Result<(), BindError> {
    // SAFETY: passed on; what was not moved to a slot of its own has got another reference in the tuple, dict or slot that holds it, so that closing it frees nothing.
    unsafe {
        let binding = Binding::new(func, code, localsplus);
        binding.bind(Entries(args), nargs, kwnames)?;
        let keywords = if kwnames.is_null() {
            0
        } else {
            refs::size_of_var(kwnames) as usize
        };
        for index in nargs.min(binding.argcount)..nargs + keywords {
            (*args.add(index)).close();
        }
        Ok(())
    }
}

/// Where the arguments of a call are.
trait Source: Copy {
    /// An argument, borrowed.
    unsafe fn object(self, index: usize) -> *mut PyObject;
    /// An argument for a slot of its own.
    unsafe fn take(self, index: usize) -> StackRef;
    /// What the slot of a taken argument holds is given back: the slot becomes null.
    unsafe fn give_back(slot: *mut StackRef);
}

/// Vectorcall's array.
#[derive(Clone, Copy)]
struct Borrowed(*const *mut PyObject);

impl Source for Borrowed {
    #[inline(always)]
    unsafe fn object(self, index: usize) -> *mut PyObject {
        // SAFETY: the index is below the number of arguments.
        unsafe { *self.0.add(index) }
    }

    #[inline(always)]
    unsafe fn take(self, index: usize) -> StackRef {
        // SAFETY: as above.
        unsafe { StackRef::from_new(self.object(index)) }
    }

    #[inline(always)]
    unsafe fn give_back(slot: *mut StackRef) {
        // SAFETY: the caller's arguments outlive this, so nothing of theirs dies.
        unsafe { StackRef::clear(slot) }
    }
}

/// Entries of an operand stack.
#[derive(Clone, Copy)]
struct Entries(*const StackRef);

impl Source for Entries {
    #[inline(always)]
    unsafe fn object(self, index: usize) -> *mut PyObject {
        // SAFETY: the index is below the number of arguments.
        unsafe { (*self.0.add(index)).as_ptr_borrow() }
    }

    #[inline(always)]
    unsafe fn take(self, index: usize) -> StackRef {
        // SAFETY: as above; moved.
        unsafe { *self.0.add(index) }
    }

    #[inline(always)]
    unsafe fn give_back(slot: *mut StackRef) {
        // SAFETY: the slot holds what the operand stack holds too, and is the one that gives up.
        unsafe { slot.write(StackRef::NULL) }
    }
}

/// The function's side of a binding: what its code declares, and the slots to fill.
#[derive(Clone, Copy)]
struct Binding {
    func: *mut PyFunctionObject,
    slots: *mut StackRef,
    /// The names of the slots, parameters first; borrowed from the code object.
    names: *mut *mut PyObject,
    slot_count: usize,
    flags: u32,
    /// Positional parameters, those without a keyword included.
    argcount: usize,
    /// Parameters that cannot be given by keyword; the first ones.
    posonly: usize,
    /// Positional and keyword-only parameters: the slots before those of `*args` and `**kwargs`.
    named: usize,
}

impl Binding {
    /// # Safety
    /// As for [`bind_arguments`], and so for all other methods.
    #[inline(always)]
    unsafe fn new(
        func: *mut PyFunctionObject,
        code: *mut PyCodeObject,
        slots: *mut StackRef,
    ) -> Self {
        // SAFETY: the code object is live; its names are a tuple.
        unsafe {
            let argcount = (*code).co_argcount as usize;
            Self {
                func,
                slots,
                names: refs::tuple_items((*code).co_localsplusnames),
                slot_count: refs::nlocalsplus(code),
                flags: (*code).co_flags as u32,
                argcount,
                posonly: (*code).co_posonlyargcount as usize,
                named: argcount + (*code).co_kwonlyargcount as usize,
            }
        }
    }

    fn has_varargs(self) -> bool {
        self.flags & ffi::CO_VARARGS != 0
    }

    fn has_varkeywords(self) -> bool {
        self.flags & ffi::CO_VARKEYWORDS != 0
    }

    fn has_only_positional_parameters(self) -> bool {
        self.named == self.argcount && self.flags & (ffi::CO_VARARGS | ffi::CO_VARKEYWORDS) == 0
    }

    /// Takes the first `count` arguments into the first slots and sets all others null.
    #[inline(always)]
    unsafe fn take_positional<S: Source>(self, args: S, count: usize) {
        // SAFETY: there are at least `count` arguments, and as many parameters.
        unsafe {
            for index in 0..count {
                self.slots.add(index).write(args.take(index));
            }
            for index in count..self.slot_count {
                self.slots.add(index).write(StackRef::NULL);
            }
        }
    }

    /// Sets all slots null again, of which the first `taken` hold arguments.
    #[cold]
    unsafe fn release<S: Source>(self, taken: usize) {
        for index in 0..self.slot_count {
            // SAFETY: all slots are initialised; those behind the arguments own what they hold, and the caller's arguments outlive this.
            unsafe {
                let slot = self.slots.add(index);
                if index < taken {
                    S::give_back(slot);
                } else {
                    StackRef::clear(slot);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn is_unbound(self, index: usize) -> bool {
        // SAFETY: all slots are initialised.
        unsafe { (*self.slots.add(index)).is_null() }
    }

    /// Puts an owned reference into an empty slot.
    #[inline(always)]
    unsafe fn set(self, index: usize, value: StackRef) {
        // SAFETY: the slot exists and owns nothing.
        unsafe { self.slots.add(index).write(value) }
    }

    /// Binds any arguments.
    unsafe fn bind<S: Source>(
        self,
        args: S,
        nargs: usize,
        kwnames: *mut PyObject,
    ) -> Result<(), BindError> {
        // SAFETY: the first `min(nargs, argcount)` arguments are positional ones; from there on all slots are initialised.
        unsafe {
            if nargs > self.argcount && !self.has_varargs() {
                self.take_positional(args, 0);
                return Err(BindError::Mismatch);
            }
            let taken = nargs.min(self.argcount);
            self.take_positional(args, taken);
            let bound = self.bind_rest(args, nargs, kwnames);
            if bound.is_err() {
                self.release::<S>(taken);
            }
            bound
        }
    }

    /// Everything but the positional arguments that have parameters of their own.
    unsafe fn bind_rest<S: Source>(
        self,
        args: S,
        nargs: usize,
        kwnames: *mut PyObject,
    ) -> Result<(), BindError> {
        // SAFETY: passed on; the values by keyword follow the positional ones.
        unsafe {
            let keywords = self.bind_collectors(args, nargs)?;
            if !kwnames.is_null() {
                self.bind_keywords(args, kwnames, nargs, keywords)?;
            }
            if nargs < self.argcount {
                self.bind_defaults(nargs)?;
            }
            if self.argcount < self.named {
                self.bind_keyword_defaults()?;
            }
        }
        Ok(())
    }

    /// Fills the slots of `*args` and `**kwargs`. Returns the dict of the latter, borrowed, or null.
    unsafe fn bind_collectors<S: Source>(
        self,
        args: S,
        nargs: usize,
    ) -> Result<*mut PyObject, BindError> {
        let mut next = self.named;
        // SAFETY: the code has slots for what its flags declare.
        unsafe {
            if self.has_varargs() {
                let count = nargs.saturating_sub(self.argcount);
                let tuple = ffi::PyTuple_New(count as isize);
                if tuple.is_null() {
                    return Err(BindError::Raised);
                }
                for index in 0..count {
                    let item = refs::new_ref(args.object(self.argcount + index));
                    refs::tuple_items(tuple).add(index).write(item);
                }
                self.set(next, StackRef::from_steal(tuple));
                next += 1;
            }
            if !self.has_varkeywords() {
                return Ok(std::ptr::null_mut());
            }
            let dict = ffi::PyDict_New();
            if dict.is_null() {
                return Err(BindError::Raised);
            }
            self.set(next, StackRef::from_steal(dict));
            Ok(dict)
        }
    }

    /// Binds the values given by keyword: to the parameters they name, or into `collector` unless it is null.
    unsafe fn bind_keywords<S: Source>(
        self,
        args: S,
        kwnames: *mut PyObject,
        nargs: usize,
        collector: *mut PyObject,
    ) -> Result<(), BindError> {
        // SAFETY: there is a value for each name.
        unsafe {
            // Keywords are mostly given in the order of the parameters.
            let mut expected = nargs.max(self.posonly);
            for index in 0..refs::size_of_var(kwnames) as usize {
                let keyword = refs::tuple_item(kwnames, index);
                let value = args.object(nargs + index);
                let found = if expected < self.named && *self.names.add(expected) == keyword {
                    Some(expected)
                } else {
                    self.find_parameter(keyword)?
                };
                if let Some(parameter) = found {
                    if !self.is_unbound(parameter) {
                        return Err(BindError::Mismatch);
                    }
                    self.set(parameter, StackRef::from_new(value));
                    expected = parameter + 1;
                } else if collector.is_null() {
                    return Err(BindError::Mismatch);
                } else if ffi::PyDict_SetItem(collector, keyword, value) < 0 {
                    return Err(BindError::Raised);
                }
            }
        }
        Ok(())
    }

    /// The parameter that a keyword names.
    unsafe fn find_parameter(self, keyword: *mut PyObject) -> Result<Option<usize>, BindError> {
        // SAFETY: each slot has a name, a string.
        unsafe {
            // Comparing it can run Python code, which must see each comparison once, also where the call fails.
            if !refs::is_exact_unicode(keyword) {
                return Err(BindError::UnusualKeyword);
            }
            // Both names are nearly always interned, so that identity decides.
            let candidates = self.posonly..self.named;
            if let Some(index) = candidates
                .clone()
                .find(|&index| *self.names.add(index) == keyword)
            {
                return Ok(Some(index));
            }
            for index in candidates {
                let name = *self.names.add(index);
                let equal = ffi::PyUnicode_Equal(keyword, name);
                match equal {
                    0 => {}
                    1.. => return Ok(Some(index)),
                    _ => return Err(BindError::Raised),
                }
            }
            Ok(None)
        }
    }

    /// Fills positional parameters that were not given, of which only the last ones may have defaults.
    unsafe fn bind_defaults(self, nargs: usize) -> Result<(), BindError> {
        // SAFETY: the defaults are a tuple or null; an index at or above `first` lies within it.
        unsafe {
            let defaults = (*self.func).func_defaults;
            let count = if defaults.is_null() {
                0
            } else {
                refs::size_of_var(defaults)
            };
            // Negative if the program assigned more defaults than there are parameters.
            let first = self.argcount as isize - count;
            for index in nargs..self.argcount {
                if !self.is_unbound(index) {
                    continue;
                }
                let from = index as isize - first;
                if from < 0 {
                    return Err(BindError::Mismatch);
                }
                self.set(
                    index,
                    StackRef::from_new(refs::tuple_item(defaults, from as usize)),
                );
            }
        }
        Ok(())
    }

    /// Fills keyword-only parameters that were not given.
    unsafe fn bind_keyword_defaults(self) -> Result<(), BindError> {
        // SAFETY: the keyword-only defaults are a dict or null, and may be exchanged while it is searched.
        unsafe {
            for index in self.argcount..self.named {
                if !self.is_unbound(index) {
                    continue;
                }
                let defaults = (*self.func).func_kwdefaults;
                if defaults.is_null() {
                    return Err(BindError::Mismatch);
                }
                let mut value = std::ptr::null_mut();
                match ffi::PyDict_GetItemRef(defaults, *self.names.add(index), &raw mut value) {
                    1.. => self.set(index, StackRef::from_steal(value)),
                    0 => return Err(BindError::Mismatch),
                    _ => return Err(BindError::Raised),
                }
            }
        }
        Ok(())
    }
}
