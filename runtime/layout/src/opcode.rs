//! The opcodes of 3.14 and what the headers say of them: families, inline caches, flags, stack effects.
//!
//! The compiler's pseudo instructions (above 255) are left out: no code object contains them.

#![allow(non_camel_case_types)]

use core::fmt;

use crate::ffi::*;

include!(concat!(env!("OUT_DIR"), "/opcode.rs"));

struct Metadata {
    opcode: Opcode,
    name: &'static str,
    base: Opcode,
    caches: u8,
    flags: u16,
}

/// The lowest number of an opcode that takes an argument.
pub const HAVE_ARGUMENT: u8 = crate::ffi::HAVE_ARGUMENT as u8;

impl Opcode {
    /// The opcode with this number, if there is one.
    #[inline]
    pub fn from_u8(number: u8) -> Option<Self> {
        METADATA[usize::from(number)].as_ref().map(|m| m.opcode)
    }

    /// Every opcode, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        METADATA.iter().flatten().map(|m| m.opcode)
    }

    #[inline]
    fn metadata(self) -> &'static Metadata {
        METADATA[self as usize]
            .as_ref()
            .expect("the table has an entry for every variant")
    }

    /// The name that C and `dis` use.
    #[inline]
    pub fn name(self) -> &'static str {
        self.metadata().name
    }

    /// The opcode that the compiler emitted where this one stands: itself, or what it specialises or instruments.
    /// `INSTRUMENTED_LINE`, `INSTRUMENTED_INSTRUCTION` and `ENTER_EXECUTOR` can stand for any and give themselves.
    #[inline]
    pub fn base(self) -> Self {
        self.metadata().base
    }

    /// Whether the compiler emits it: neither a specialised nor an instrumented form, nor put in by the interpreter.
    pub fn is_base(self) -> bool {
        self.base() == self && u32::from(self as u8) < MIN_SPECIALIZED_OPCODE
    }

    /// Code units of inline cache behind the instruction.
    #[inline]
    pub fn caches(self) -> usize {
        usize::from(self.base().metadata().caches)
    }

    /// The headers' flags: the `HAS_*_FLAG` bits.
    #[inline]
    pub fn flags(self) -> u32 {
        u32::from(self.metadata().flags)
    }

    /// The argument means something.
    #[inline]
    pub fn has_arg(self) -> bool {
        self.flags() & HAS_ARG_FLAG != 0
    }

    /// The argument is a distance in code units. For `END_ASYNC_FOR` it only names the loop's `SEND`: no jump.
    #[inline]
    pub fn has_jump(self) -> bool {
        self.flags() & HAS_JUMP_FLAG != 0
    }

    /// The argument indexes the constants.
    #[inline]
    pub fn has_const(self) -> bool {
        self.flags() & HAS_CONST_FLAG != 0
    }

    /// The argument indexes the names (some opcodes shift it: see each).
    #[inline]
    pub fn has_name(self) -> bool {
        self.flags() & HAS_NAME_FLAG != 0
    }

    /// The argument indexes the fast locals.
    #[inline]
    pub fn has_local(self) -> bool {
        self.flags() & HAS_LOCAL_FLAG != 0
    }

    /// The argument indexes cells and free variables among the fast locals.
    #[inline]
    pub fn has_free(self) -> bool {
        self.flags() & HAS_FREE_FLAG != 0
    }

    /// Polls the eval breaker.
    #[inline]
    pub fn has_eval_break(self) -> bool {
        self.flags() & HAS_EVAL_BREAK_FLAG != 0
    }

    /// Can raise.
    #[inline]
    pub fn has_error(self) -> bool {
        self.flags() & (HAS_ERROR_FLAG | HAS_ERROR_NO_POP_FLAG) != 0
    }

    /// Can run arbitrary code.
    #[inline]
    pub fn has_escapes(self) -> bool {
        self.flags() & HAS_ESCAPES_FLAG != 0
    }

    /// The jump distance counts backwards. True of `END_ASYNC_FOR` too, which does not jump.
    #[inline]
    pub fn counts_backward(self) -> bool {
        matches!(
            self.base(),
            Self::JUMP_BACKWARD | Self::JUMP_BACKWARD_NO_INTERRUPT | Self::END_ASYNC_FOR
        )
    }

    /// Control never goes on to the next instruction.
    #[inline]
    pub fn is_terminator(self) -> bool {
        matches!(
            self.base(),
            Self::RETURN_VALUE
                | Self::RAISE_VARARGS
                | Self::RERAISE
                | Self::JUMP_FORWARD
                | Self::JUMP_BACKWARD
                | Self::JUMP_BACKWARD_NO_INTERRUPT
                | Self::INTERPRETER_EXIT
        )
    }

    /// Control can go to the jump target.
    #[inline]
    pub fn is_jump(self) -> bool {
        self.base().has_jump() && self.base() != Self::END_ASYNC_FOR
    }

    /// Jumps always.
    #[inline]
    pub fn is_unconditional_jump(self) -> bool {
        matches!(
            self.base(),
            Self::JUMP_FORWARD | Self::JUMP_BACKWARD | Self::JUMP_BACKWARD_NO_INTERRUPT
        )
    }

    /// Entries taken off the stack. `None` for an opcode without a known effect (`EXTENDED_ARG` and the like never ask).
    #[inline]
    pub fn popped(self, oparg: u32) -> Option<u32> {
        raw_popped(self, i32::try_from(oparg).ok()?).and_then(|n| u32::try_from(n).ok())
    }

    /// Entries put on the stack.
    #[inline]
    pub fn pushed(self, oparg: u32) -> Option<u32> {
        raw_pushed(self, i32::try_from(oparg).ok()?).and_then(|n| u32::try_from(n).ok())
    }

    /// How much deeper the stack is afterwards; the same whether it jumps or not. (`FOR_ITER` that ends jumps to an
    /// `END_FOR` as if it had pushed; the interpreter skips both.)
    #[inline]
    pub fn stack_effect(self, oparg: u32) -> Option<i32> {
        Some(self.pushed(oparg)?.cast_signed() - self.popped(oparg)?.cast_signed())
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The argument of `COMPARE_OP`: comparison in bits 5 up, bit 4 asks for a bool, bits 0-3 the `COMPARISON_*` mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompareArg(pub u32);

impl CompareArg {
    /// `Py_LT` to `Py_GE`.
    pub fn comparison(self) -> u32 {
        self.0 >> 5
    }

    /// The result is converted to a bool.
    pub fn to_bool(self) -> bool {
        self.0 & 16 != 0
    }

    /// Which outcomes make it true: `COMPARISON_UNORDERED`, `_LESS_THAN`, `_GREATER_THAN`, `_EQUALS`.
    pub fn mask(self) -> u32 {
        self.0 & 15
    }
}
