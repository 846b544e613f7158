//! The operand stack of a frame, seen from a memory helper. Used by every helper; knows nothing about any opcode.
//!
//! Positions count from the top as in CPython's sources: `peek(1)` is `stack_pointer[-1]`. Every operation that closes a reference may run Python
//! code (a destructor), so entries are always taken off the stack *before* they are closed: what looks at the frame meanwhile sees only live entries.

use std::ptr::null_mut;

use hotstamp_layout::ffi::{self, PyObject};
use hotstamp_layout::refs::StackRef;

use crate::Frame;

/// The operand stack of one frame, through `frame.stackpointer`.
#[derive(Clone, Copy)]
pub struct Stack {
    frame: *mut Frame,
}

impl Stack {
    /// The operand stack of `frame`.
    ///
    /// # Safety
    /// The frame is live and its `stackpointer` valid, as at the entry of a memory helper, for as long as the `Stack` is used.
    /// Every other method relies on this and on the stack being as deep as its arguments say; nothing is checked.
    #[inline(always)]
    pub unsafe fn of(frame: *mut Frame) -> Self {
        Self { frame }
    }

    /// The address behind the top entry.
    ///
    /// # Safety
    /// See [`Stack::of`].
    #[inline(always)]
    pub unsafe fn top(self) -> *mut StackRef {
        // SAFETY: the frame is live (`of`).
        unsafe { (*self.frame).stackpointer }
    }

    /// Makes `top` the address behind the top entry. Nothing is closed.
    ///
    /// # Safety
    /// `top` lies within the frame's operand stack, and all entries below it are valid.
    #[inline(always)]
    pub unsafe fn set_top(self, top: *mut StackRef) {
        // SAFETY: the frame is live (`of`).
        unsafe { (*self.frame).stackpointer = top }
    }

    /// The address of the `n` entries at the top, in push order.
    ///
    /// # Safety
    /// The stack holds `n` entries.
    #[inline(always)]
    pub unsafe fn entries(self, n: usize) -> *mut StackRef {
        // SAFETY: the stack holds `n` entries.
        unsafe { self.top().sub(n) }
    }

    /// The `n`th entry from the top, 1 being the top itself; the stack keeps it.
    ///
    /// # Safety
    /// The stack holds `n` entries.
    #[inline(always)]
    pub unsafe fn peek(self, n: usize) -> StackRef {
        // SAFETY: the stack holds `n` entries.
        unsafe { self.entries(n).read() }
    }

    /// The object in the `n`th entry from the top, borrowed from the stack.
    ///
    /// # Safety
    /// The stack holds `n` entries, and this one is an object (not NULL, not a tagged integer).
    #[inline(always)]
    pub unsafe fn object(self, n: usize) -> *mut PyObject {
        // SAFETY: the entry exists and is an object.
        unsafe { self.peek(n).as_ptr_borrow() }
    }

    /// Ends an instruction that failed with its `n` operands still on the stack: the interpreter leaves them to the unwinder, which closes them from the
    /// top down; here they are closed at once, as the contract of memory helpers asks. Returns -1, the helper's result.
    ///
    /// # Safety
    /// The stack holds `n` entries and an exception is set.
    #[inline(always)]
    pub unsafe fn fail(self, n: usize) -> isize {
        // SAFETY: the stack holds `n` entries.
        unsafe { self.pop_close_n(n) };
        -1
    }

    /// Replaces the `n`th entry from the top without closing what was there.
    ///
    /// # Safety
    /// The stack holds `n` entries, and the caller took over the one that is overwritten.
    #[inline(always)]
    pub unsafe fn put(self, n: usize, value: StackRef) {
        // SAFETY: the stack holds `n` entries.
        unsafe { self.entries(n).write(value) }
    }

    /// Pushes an entry.
    ///
    /// # Safety
    /// The frame has room for it.
    #[inline(always)]
    pub unsafe fn push(self, value: StackRef) {
        // SAFETY: the frame has room for one more entry.
        unsafe {
            let top = self.top();
            top.write(value);
            self.set_top(top.add(1));
        }
    }

    /// Takes the top entry.
    ///
    /// # Safety
    /// The stack is not empty.
    #[inline(always)]
    pub unsafe fn pop(self) -> StackRef {
        // SAFETY: the stack holds an entry.
        unsafe {
            let top = self.top().sub(1);
            self.set_top(top);
            top.read()
        }
    }

    /// Drops `n` entries from the top without closing them.
    ///
    /// # Safety
    /// The stack holds `n` entries, and the caller took them over.
    #[inline(always)]
    pub unsafe fn shrink(self, n: usize) {
        // SAFETY: the stack holds `n` entries.
        unsafe { self.set_top(self.entries(n)) }
    }

    /// Pops the top entry and closes it (NULL included).
    ///
    /// # Safety
    /// The stack is not empty.
    #[inline(always)]
    pub unsafe fn pop_close(self) {
        // SAFETY: the stack holds an entry, which is ours once popped.
        unsafe { self.pop().xclose() }
    }

    /// Pops `n` entries and closes them, the top one first, each off the stack before it dies.
    ///
    /// # Safety
    /// The stack holds `n` entries.
    #[inline(always)]
    pub unsafe fn pop_close_n(self, n: usize) {
        for _ in 0..n {
            // SAFETY: the stack holds at least the entries not yet popped.
            unsafe { self.pop_close() }
        }
    }

    /// Replaces the `n`th entry from the top and then closes what was there: one step of the interpreter's `DECREF_INPUTS`. `replace_close(2, result)` and
    /// `pop_close()` end a binary operation as the interpreter does, the left operand dying first.
    ///
    /// # Safety
    /// The stack holds `n` entries.
    #[inline(always)]
    pub unsafe fn replace_close(self, n: usize, value: StackRef) {
        // SAFETY: the stack holds `n` entries; the old one is ours once overwritten.
        unsafe {
            let old = self.peek(n);
            self.put(n, value);
            old.xclose();
        }
    }

    /// Pushes a new object, or returns -1 if `object` is null (an exception is set).
    ///
    /// # Safety
    /// The frame has room for it; the stack takes over the caller's reference.
    #[inline(always)]
    pub unsafe fn push_new(self, object: *mut PyObject) -> isize {
        if object.is_null() {
            return -1;
        }
        // SAFETY: the object is the caller's to hand over.
        unsafe { self.push(StackRef::from_steal(object)) };
        0
    }

    /// Pushes a bool, or returns -1 if `truth` is negative (an exception is set), as C functions report truth.
    ///
    /// # Safety
    /// The frame has room for it.
    #[inline(always)]
    pub unsafe fn push_truth(self, truth: i32) -> isize {
        if truth < 0 {
            return -1;
        }
        // SAFETY: the frame has room for one more entry.
        unsafe { self.push(StackRef::bool(truth != 0)) };
        0
    }

    /// Puts `object`, which took over the `n` entries at the top, in their place. If it is null (an exception is set), it did not, and they are closed.
    ///
    /// # Safety
    /// The stack holds `n` entries, and has room for one if `n` is 0.
    #[inline(always)]
    pub unsafe fn push_in_place_of(self, n: usize, object: *mut PyObject) -> isize {
        // SAFETY: see above.
        unsafe {
            if object.is_null() {
                return self.fail(n);
            }
            self.shrink(n);
            self.push_new(object)
        }
    }

    /// Calls `f` with an array of the objects in the `n` entries at the top (null for NULL), which the stack keeps. `f` may use the slot before the array,
    /// as `PY_VECTORCALL_ARGUMENTS_OFFSET` says. Returns what `f` returns, or null with an exception set where there is no memory for the array.
    ///
    /// # Safety
    /// The stack holds `n` entries, none of them a tagged integer.
    #[inline(always)]
    pub unsafe fn with_objects(
        self,
        n: usize,
        f: impl FnOnce(*mut *mut PyObject) -> *mut PyObject,
    ) -> *mut PyObject {
        /// The length up to which the array lies on the native stack.
        const INLINE: usize = 12;
        let mut inline = [null_mut(); INLINE + 1];
        let mut spilled = Vec::new();
        let slots = if n <= INLINE {
            &mut inline[..]
        } else {
            if spilled.try_reserve_exact(n + 1).is_err() {
                // SAFETY: the GIL is held, as everywhere in a helper.
                return unsafe { ffi::PyErr_NoMemory() };
            }
            spilled.resize(n + 1, null_mut());
            &mut spilled[..]
        };
        for (i, slot) in slots[1..=n].iter_mut().enumerate() {
            // SAFETY: the stack holds `n` entries.
            *slot = unsafe { self.object(n - i) };
        }
        // SAFETY: there are `n + 1` slots at least.
        f(unsafe { slots.as_mut_ptr().add(1) })
    }
}

/// The result of a memory helper for the status of a C function: 0, or -1 for anything else.
#[inline(always)]
pub fn status(error: i32) -> isize {
    if error == 0 { 0 } else { -1 }
}
