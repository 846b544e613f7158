//! Frames on the thread's data stack: pushing, initialising, popping, in the same chunks and by the same rules as CPython, so that either side may pop what the other
//! pushed. Also the frame's frame object.
//!
//! Called by the vectorcall entry, by the runtime paths of compiled calls, and by the unwinder. Linking a frame to the thread and counting recursion are theirs.

use std::ptr::null_mut;

use hotstamp_layout::ffi::{
    self, _PyStackChunk, PyCodeObject, PyFrameObject, PyObject, PyThreadState,
};
use hotstamp_layout::refs::{self, StackRef};

use crate::Frame;

/// Words that a new chunk has room for beyond the frame it is made for: `MINIMUM_OVERHEAD` in CPython's `pystate.c`, which no header tells.
const MINIMUM_OVERHEAD: usize = 1000;

/// A data stack's chunk begins with its links; `data` follows.
const CHUNK_HEADER: usize = std::mem::offset_of!(_PyStackChunk, data);

/// Pushes a frame for a call of `func` and initialises everything but its locals, which the caller fills (all `co_nlocalsplus` of them) before anything can look at them,
/// and `previous`, which is null until the frame is linked. Consumes `func` in every case. Returns null with MemoryError set if there is no memory.
///
/// # Safety
/// The GIL is held and `tstate` is the current thread's state; `func` is a Python function, `code` its code object and `framesize` that one's `co_framesize`.
#[inline(always)]
pub unsafe fn push_frame(
    tstate: *mut PyThreadState,
    func: StackRef,
    code: *mut PyCodeObject,
    framesize: usize,
) -> *mut Frame {
    // SAFETY: the words from the data stack's top on are free, as many as were asked for.
    unsafe {
        let frame = push_words(tstate, framesize).cast::<Frame>();
        if frame.is_null() {
            func.close();
            ffi::PyErr_NoMemory();
            return null_mut();
        }
        initialize_frame(
            frame,
            func,
            null_mut(),
            code,
            refs::nlocalsplus(code),
            null_mut(),
        );
        frame
    }
}

/// `_PyThreadState_PushFrame`: takes words from the top of the data stack, uninitialised. Null, without an exception, if there is no memory.
///
/// # Safety
/// The GIL is held and `tstate` is the current thread's state.
#[inline(always)]
pub unsafe fn push_words(tstate: *mut PyThreadState, words: usize) -> *mut *mut PyObject {
    // SAFETY: the current chunk has room for the words, or a new one is made.
    unsafe {
        if refs::has_stack_space(tstate, words) {
            let base = (*tstate).datastack_top;
            (*tstate).datastack_top = base.add(words);
            return base;
        }
        push_chunk(tstate, words)
    }
}

/// `_PyFrame_Initialize`: sets every field of a frame. Consumes `func` and `locals` (null for a function's frame). Local slots below `null_locals_from` are left as they
/// are.
///
/// # Safety
/// `frame` points to `co_framesize` words; `func` is a Python function whose globals and builtins it will borrow, and `code` is the function's code object.
#[inline(always)]
pub unsafe fn initialize_frame(
    frame: *mut Frame,
    func: StackRef,
    locals: *mut PyObject,
    code: *mut PyCodeObject,
    null_locals_from: usize,
    previous: *mut Frame,
) {
    // SAFETY: the memory holds the fields and then `co_nlocalsplus` slots and the operand stack.
    unsafe {
        let function: *mut ffi::PyFunctionObject = func.as_ptr_borrow().cast();
        let slots = refs::frame_locals(frame);
        let nlocalsplus = refs::nlocalsplus(code);
        (&raw mut (*frame).f_executable).write(StackRef::from_new(code.cast()));
        (*frame).previous = previous;
        (&raw mut (*frame).f_funcobj).write(func);
        (*frame).f_globals = (*function).func_globals;
        (*frame).f_builtins = (*function).func_builtins;
        (*frame).f_locals = locals;
        (*frame).frame_obj = null_mut();
        (*frame).instr_ptr = refs::code_start(code);
        (*frame).stackpointer = slots.add(nlocalsplus);
        (*frame).return_offset = 0;
        (*frame).owner = ffi::FRAME_OWNED_BY_THREAD as _;
        (*frame).visited = 0;
        for index in null_locals_from..nlocalsplus {
            slots.add(index).write(StackRef::NULL);
        }
    }
}

/// Pops the frame on top of the data stack, whose references are gone already (cleared, or never made: see [`drop_unlinked_frame`]).
///
/// # Safety
/// The GIL is held, `tstate` is the current thread's state, and `frame` is the last frame pushed.
#[inline(always)]
pub unsafe fn pop_frame(tstate: *mut PyThreadState, frame: *mut Frame) {
    // SAFETY: the frame lies in the current chunk; only the first one of a chunk takes the chunk with it, which CPython frees or keeps for later.
    unsafe {
        let base = frame.cast::<*mut PyObject>();
        if base == (&raw mut (*(*tstate).datastack_chunk).data).cast() {
            ffi::_PyThreadState_PopFrame(tstate, frame);
        } else {
            (*tstate).datastack_top = base;
        }
    }
}

/// Undoes [`push_frame`]: releases function and code object and pops the frame. For a frame that was never linked and holds no locals (binding its arguments failed).
///
/// # Safety
/// As for [`pop_frame`]; the frame's locals own nothing, and it has no frame object.
#[cold]
pub unsafe fn drop_unlinked_frame(tstate: *mut PyThreadState, frame: *mut Frame) {
    // SAFETY: both references are the frame's; they are closed once the frame is no longer there.
    unsafe {
        let executable = (&raw const (*frame).f_executable).read();
        let func = (&raw const (*frame).f_funcobj).read();
        pop_frame(tstate, frame);
        func.close();
        executable.close();
    }
}

/// `push_chunk`: makes a chunk with room for the words the current one and takes them from it. Null, without an exception, if there is no memory.
///
/// # Safety
/// The GIL is held and `tstate` is the current thread's state.
#[cold]
unsafe fn push_chunk(tstate: *mut PyThreadState, words: usize) -> *mut *mut PyObject {
    // SAFETY: a chunk is `size` bytes of memory, owned by the thread state: as the current one, in the chain behind it, or as the one kept for later.
    unsafe {
        let mut bytes = ffi::_PY_DATA_STACK_CHUNK_SIZE as usize;
        while bytes < size_of::<usize>() * (words + MINIMUM_OVERHEAD) {
            bytes *= 2;
        }
        let current = (*tstate).datastack_chunk;
        let mut chunk = (*tstate).datastack_cached_chunk;
        if !chunk.is_null() && bytes <= (*chunk).size {
            (*tstate).datastack_cached_chunk = null_mut();
        } else {
            chunk = allocate_chunk(bytes);
            if chunk.is_null() {
                return null_mut();
            }
        }
        (*chunk).previous = current;
        (*chunk).top = 0;
        if !current.is_null() {
            let start: *mut *mut PyObject = (&raw mut (*current).data).cast();
            (*current).top = (*tstate).datastack_top.offset_from(start) as usize;
        }
        (*tstate).datastack_chunk = chunk;
        (*tstate).datastack_limit = chunk.byte_add((*chunk).size).cast();
        // A thread's first chunk keeps a word unused, so that no frame ever lies at its start and takes the chunk with it.
        let base: *mut *mut PyObject = chunk
            .byte_add(CHUNK_HEADER)
            .cast::<*mut PyObject>()
            .add(usize::from(current.is_null()));
        (*tstate).datastack_top = base.add(words);
        base
    }
}

/// Memory for a chunk from the allocator that CPython frees chunks with (`_PyObject_VirtualAlloc`, which is not exported). Null if there is none.
///
/// # Safety
/// The GIL is held.
unsafe fn allocate_chunk(bytes: usize) -> *mut _PyStackChunk {
    // SAFETY: the allocator is asked under the GIL, under which it is set; the header is written within the memory it gave.
    unsafe {
        let mut allocator: ffi::PyObjectArenaAllocator = std::mem::zeroed();
        ffi::PyObject_GetArenaAllocator(&raw mut allocator);
        let Some(alloc) = allocator.alloc else {
            return null_mut();
        };
        let chunk: *mut _PyStackChunk = alloc(allocator.ctx, bytes).cast();
        if !chunk.is_null() {
            (*chunk).size = bytes;
        }
        chunk
    }
}

/// `_PyFrame_GetFrameObject`: the frame object of the running frame, made if it has none, borrowed from the frame. The exception that is set stays set. Null if there is
/// no memory for it, with MemoryError set instead.
///
/// # Safety
/// The GIL is held; `frame` is complete and the current thread's innermost frame that is.
pub unsafe fn frame_object(frame: *mut Frame) -> *mut PyFrameObject {
    // SAFETY: the function that makes frame objects is not exported; asking for the thread's current one calls it. The frame owns the object, so our reference to it is not
    // the last one.
    unsafe {
        let known = (*frame).frame_obj;
        if !known.is_null() {
            return known;
        }
        let object = ffi::PyThreadState_GetFrame(ffi::PyThreadState_GetUnchecked());
        if object.is_null() {
            ffi::PyErr_NoMemory();
            return null_mut();
        }
        refs::decref_no_dealloc(object.cast());
        debug_assert_eq!((*frame).frame_obj, object);
        object
    }
}
