//! Sites: the per-instruction data that compiled code calls through, and the feedback cells inside them.
//!
//! A site is plain data at a fixed address for the life of its code. Compiled code reads `target` and the payload; helpers write both, always while
//! holding the GIL. The optimizer's snapshot reads the payload.

use hotstamp_layout::ffi::{_Py_CODEUNIT, PyThreadState};
use hotstamp_layout::refs::StackRef;

use crate::Frame;

/// Address of machine code in the executable alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct CodePtr(pub *const u8);

// SAFETY: an address of code, which any thread may hold; reading through it is unsafe by itself.
unsafe impl Send for CodePtr {}
// SAFETY: as above.
unsafe impl Sync for CodePtr {}

/// A helper that works on the frame's operand stack. See ARCHITECTURE.md, "Helpers".
pub type MemoryHelper = unsafe extern "C" fn(*mut Site, *mut Frame, *mut PyThreadState) -> isize;

/// A helper whose operands come in registers. See ARCHITECTURE.md, "Helpers".
pub type RegisterHelper = unsafe extern "C" fn(
    StackRef,
    StackRef,
    StackRef,
    *mut Site,
    *mut Frame,
    *mut PyThreadState,
) -> StackRef;

/// One instruction that can call something. 32 bytes of header, then 32 bytes of feedback where the opcode has any.
#[repr(C)]
#[derive(Debug)]
pub struct Site {
    /// Machine code that `call [site]` reaches: a shared stub.
    pub target: CodePtr,
    /// The bytecode instruction, for `frame.instr_ptr` (the instruction itself, not its EXTENDED_ARG prefixes).
    pub instr: *mut _Py_CODEUNIT,
    /// The Rust helper behind the stub: a `MemoryHelper` or a `RegisterHelper`, as `target` expects.
    pub helper: *const (),
    /// Words from the frame to the `stackpointer` that holds while the helper runs.
    pub stack_words: u16,
    /// Code units from `instr` to the next instruction.
    pub next_units: u8,
    /// Bits of `SITE_*`.
    pub flags: u8,
    /// The instruction's full argument.
    pub oparg: u32,
}

/// The feedback of a site, directly behind its header. Its meaning depends on the opcode and on the stub in `target`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Payload {
    /// Four words; each cache kind documents its use.
    pub words: [u64; 4],
}

/// `Site::flags`: the instruction suspends the frame, and `instr` is the one behind it.
pub const SITE_SUSPENDS: u8 = 1;

/// `Site::flags`: the instruction pushes a null behind its value.
pub const SITE_PUSHES_NULL: u8 = 2;

/// `Site::flags`: a payload stands behind the header.
pub const SITE_HAS_PAYLOAD: u8 = 4;

impl Site {
    /// Bytes of a site without feedback.
    pub const HEADER_BYTES: usize = size_of::<Site>();
    /// Bytes of a site with feedback.
    pub const FULL_BYTES: usize = size_of::<Site>() + size_of::<Payload>();

    /// The feedback behind the header.
    ///
    /// # Safety
    /// The site was laid out with feedback, and the GIL is held.
    pub unsafe fn payload(site: *mut Site) -> *mut Payload {
        // SAFETY: the caller promises that a payload follows the header.
        unsafe { site.add(1).cast() }
    }
}
