//! The opcodes of 3.14 and what the headers say of them: families, inline caches, flags, stack effects.
//!
//! The compiler's pseudo instructions (above 255) are left out: no code object contains them.

#![allow(non_camel_case_types)]

use core::fmt;

use crate::ffi::*;

include!(concat!(env!("OUT_DIR"), "/opcode.rs"));

/// In the tables of fixed effects: it depends on the argument, or is not known.
const VARIES: u8 = u8::MAX;

/// Code units of inline cache behind whatever has this number; 0 for what is no opcode.
static CACHES: [u8; 256] = {
    let mut table = [0; 256];
    let mut number = 0;
    while number < table.len() {
        if OPCODES[number].is_some() {
            table[number] = OWN_CACHES[BASES[number] as usize];
        }
        number += 1;
    }
    table
};

const JUMPS: u8 = 1;
const TERMINATES: u8 = 2;
const COUNTS_BACKWARD: u8 = 4;
const SUSPENDS: u8 = 8;
const BEGINS: u8 = 16;

/// How each opcode directs control. The headers give only which argument is a distance; that END_ASYNC_FOR uses its own
/// otherwise, which jumps go backwards and what ends a block is the meaning of the instructions.
static CONTROL: [u8; 256] = {
    let mut table = [0; 256];
    let mut number = 0;
    while number < table.len() {
        let base = BASES[number];
        let mut control = match base {
            Opcode::JUMP_BACKWARD | Opcode::JUMP_BACKWARD_NO_INTERRUPT => {
                COUNTS_BACKWARD | TERMINATES
            }
            Opcode::END_ASYNC_FOR => COUNTS_BACKWARD,
            Opcode::RETURN_GENERATOR | Opcode::YIELD_VALUE => SUSPENDS,
            Opcode::RESUME | Opcode::MAKE_CELL | Opcode::COPY_FREE_VARS => BEGINS,
            Opcode::JUMP_FORWARD
            | Opcode::RETURN_VALUE
            | Opcode::RAISE_VARARGS
            | Opcode::RERAISE
            | Opcode::INTERPRETER_EXIT => TERMINATES,
            _ => 0,
        };
        if FLAGS[base as usize] as u32 & HAS_JUMP_FLAG != 0
            && !matches!(base, Opcode::END_ASYNC_FOR)
        {
            control |= JUMPS;
        }
        table[number] = control;
        number += 1;
    }
    table
};

/// By number: the base opcode of what is one or specialises one. Not of what the instruments put in, which can stand for any.
static COMPILED: [Option<Opcode>; 256] = {
    let mut table = [None; 256];
    let mut number = 0;
    while number < table.len() {
        let base = BASES[number];
        if OPCODES[number].is_some()
            && BASES[base as usize] as u8 == base as u8
            && (base as u32) < MIN_SPECIALIZED_OPCODE
        {
            table[number] = Some(base);
        }
        number += 1;
    }
    table
};

/// Code units of inline cache behind an instruction with this number, which need not be an opcode.
#[inline]
pub(crate) fn caches_of(number: u8) -> usize {
    usize::from(CACHES[usize::from(number)])
}

/// The lowest number of an opcode that takes an argument.
pub const HAVE_ARGUMENT: u8 = crate::ffi::HAVE_ARGUMENT as u8;

impl Opcode {
    /// The opcode with this number, if there is one.
    #[inline]
    pub fn from_u8(number: u8) -> Option<Self> {
        OPCODES[usize::from(number)]
    }

    /// The base opcode of the one with this number, unless only the code object's own data can tell.
    #[inline]
    pub fn compiled(number: u8) -> Option<Self> {
        COMPILED[usize::from(number)]
    }

    /// Every opcode, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        OPCODES.iter().flatten().copied()
    }

    /// The name that C and `dis` use.
    #[inline]
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// The opcode that the compiler emitted where this one stands: itself, or what it specialises or instruments.
    /// `INSTRUMENTED_LINE`, `INSTRUMENTED_INSTRUCTION` and `ENTER_EXECUTOR` can stand for any and give themselves.
    #[inline]
    pub fn base(self) -> Self {
        BASES[self as usize]
    }

    /// Whether the compiler emits it: neither a specialised nor an instrumented form, nor put in by the interpreter.
    #[inline]
    pub fn is_base(self) -> bool {
        self.base() == self && u32::from(self as u8) < MIN_SPECIALIZED_OPCODE
    }

    /// Code units of inline cache behind the instruction.
    #[inline]
    pub fn caches(self) -> usize {
        usize::from(CACHES[self as usize])
    }

    /// The headers' flags: the `HAS_*_FLAG` bits.
    #[inline]
    pub fn flags(self) -> u32 {
        u32::from(FLAGS[self as usize])
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
        CONTROL[self as usize] & COUNTS_BACKWARD != 0
    }

    /// Control never goes on to the next instruction.
    #[inline]
    pub fn is_terminator(self) -> bool {
        CONTROL[self as usize] & TERMINATES != 0
    }

    /// Control can go to the jump target.
    #[inline]
    pub fn is_jump(self) -> bool {
        CONTROL[self as usize] & JUMPS != 0
    }

    /// Control goes away and comes back behind it.
    #[inline]
    pub fn suspends(self) -> bool {
        CONTROL[self as usize] & SUSPENDS != 0
    }

    /// Neither jumps nor suspends nor belongs to a function's beginning: MAKE_CELL, COPY_FREE_VARS, RESUME.
    #[inline]
    pub fn is_ordinary(self) -> bool {
        CONTROL[self as usize] & (JUMPS | SUSPENDS | BEGINS) == 0
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
        match FIXED_POPPED[self as usize] {
            VARIES => {
                raw_popped(self, i32::try_from(oparg).ok()?).and_then(|n| u32::try_from(n).ok())
            }
            fixed => Some(u32::from(fixed)),
        }
    }

    /// Entries put on the stack.
    #[inline]
    pub fn pushed(self, oparg: u32) -> Option<u32> {
        match FIXED_PUSHED[self as usize] {
            VARIES => {
                raw_pushed(self, i32::try_from(oparg).ok()?).and_then(|n| u32::try_from(n).ok())
            }
            fixed => Some(u32::from(fixed)),
        }
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
