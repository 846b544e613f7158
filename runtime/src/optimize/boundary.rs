//! The optimizer tier's boundary: what crosses between the extension and the shared object that carries LLVM.
//!
//! LLVM is reachable only from that object, which is loaded at the first hot function. A job goes in as one block of bytes (a snapshot of bytecode, feedback and
//! resolved values, taken under the GIL, with Python objects as opaque addresses); an object file with its metadata comes out. Nothing that crosses
//! is owned by the other side's allocator: the extension copies the output and gives it back. Both sides build this file in; the version guards against
//! files of different builds.

use std::ffi::c_void;

/// Version of this boundary; both sides compare it after loading.
pub const BOUNDARY_VERSION: u32 = 1;

/// Symbol of the loaded object's [`EntryFunction`].
pub const ENTRY_SYMBOL: &str = "hotstamp_optimizer";

/// What the loaded object exports. It only returns the address of a constant: LLVM is first touched by `compile`.
pub type EntryFunction = unsafe extern "C" fn() -> *const Optimizer;

/// Called when LLVM finds itself in a state that it cannot go on from, instead of ending the process. Runs in the middle of `compile`, with a message as UTF-8; it
/// must not return, nor unwind.
pub type FatalHandler = unsafe extern "C" fn(message: Bytes);

/// A block of bytes that the callee only reads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// First byte; may be dangling if `len` is 0.
    pub data: *const u8,
    /// Length in bytes.
    pub len: usize,
}

impl Bytes {
    /// The bytes as a slice.
    ///
    /// # Safety
    /// `data` points to `len` bytes that stay unchanged for `'a`.
    pub unsafe fn as_slice<'a>(self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: by the contract above.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl<'a> From<&'a [u8]> for Bytes {
    fn from(bytes: &'a [u8]) -> Self {
        Bytes {
            data: bytes.as_ptr(),
            len: bytes.len(),
        }
    }
}

/// How a compilation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// `object` is an object file, `metadata` its resume tables and assumptions.
    Compiled = 0,
    /// The function is not worth it or not supported; `metadata` is the reason as UTF-8.
    Refused = 1,
    /// LLVM failed; `metadata` is its message as UTF-8.
    Failed = 2,
}

/// What a compilation gives. Belongs to the optimizer until `release`.
#[repr(C)]
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub outcome: Outcome,
    /// The object file, or nothing.
    pub object: Bytes,
    /// See `Outcome`.
    pub metadata: Bytes,
    /// For `release`.
    pub owner: *mut c_void,
}

/// What the loaded object gives through `ENTRY_SYMBOL`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Optimizer {
    /// `BOUNDARY_VERSION` of the object.
    pub version: u32,
    /// Compiles a snapshot, on any thread but one at a time, without the GIL and without touching a Python object.
    pub compile: unsafe extern "C" fn(job: Bytes) -> Output,
    /// Says what is to happen instead of the process's end when LLVM gives up. Called once, before the first `compile`.
    pub on_fatal: unsafe extern "C" fn(handler: FatalHandler),
    /// Frees an output.
    pub release: unsafe extern "C" fn(output: Output),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let text = b"snapshot".as_slice();
        // SAFETY: `text` outlives the use.
        assert_eq!(unsafe { Bytes::from(text).as_slice() }, text);
        let empty = Bytes {
            data: std::ptr::null(),
            len: 0,
        };
        // SAFETY: no bytes are read.
        assert!(unsafe { empty.as_slice() }.is_empty());
    }
}
