//! `CodeData`: the data of one stamped (code object, globals, builtins).
//!
//! Compiled code addresses it through the pinned `Data` register, so the offsets of the header's fields are part of the code generators'
//! interface (`offset_of!`). The block is allocated once, never moves, and is freed with its code object.

use hotstamp_layout::ffi::{_Py_CODEUNIT, PyCodeObject, PyObject};

use crate::site::CodePtr;

/// Where a compiled exception handler begins.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HandlerEntry {
    /// Bytecode offset of the handler's first instruction, in code units.
    pub offset: u32,
    /// Machine code offset of its block from the body's start, in bytes.
    pub code_offset: u32,
}

/// Header of a function's data; its sites follow directly.
#[repr(C)]
#[derive(Debug)]
pub struct CodeData {
    /// The code object. Borrowed: this block is freed by the code object's extra slot.
    pub code: *mut PyCodeObject,
    /// The body that calls reach now. Swapping a tier stores here.
    pub entry: CodePtr,
    /// The globals the code was stamped for (borrowed; compared, not used, after they may have died).
    pub globals: *mut PyObject,
    /// The builtins the code was stamped for.
    pub builtins: *mut PyObject,
    /// The call stub: what `func->vectorcall` of its functions holds.
    pub stub: CodePtr,
    /// Where the stub jumps: `entry::vectorcall_entry`, with this block as fifth argument.
    pub vectorcall: *const (),
    /// First instruction of the code object.
    pub code_start: *mut _Py_CODEUNIT,
    /// `StackRef` bits of True, False and None, to compare with and to load.
    pub true_bits: usize,
    /// See `true_bits`.
    pub false_bits: usize,
    /// See `true_bits`.
    pub none_bits: usize,
    /// `co_framesize`, in words.
    pub frame_words: u32,
    /// Locals, cells and free variables together.
    pub nlocalsplus: u32,
    /// Positional arguments (`co_argcount`).
    pub argcount: u32,
    /// `SIMPLE_ARGUMENTS` and others.
    pub flags: u32,
    /// Non-zero: code of this function on the stack leaves to the interpreter when control returns to it.
    pub leave: u32,
    /// Number of `handlers`.
    pub handler_count: u32,
    /// Compiled exception handlers, by offset.
    pub handlers: *const HandlerEntry,
    /// Start of the baseline body.
    pub baseline: CodePtr,
    /// Bytes of machine code of the baseline body with its stub.
    pub code_bytes: u32,
    /// Bytes of this block and its tables.
    pub metadata_bytes: u32,
    /// Calls that entered through the stub, for hotness.
    pub calls: u64,
}

/// No keyword-only arguments, no `*args`, no `**kwargs`: a call with exactly `argcount` positional arguments needs no binding.
pub const SIMPLE_ARGUMENTS: u32 = 1;
