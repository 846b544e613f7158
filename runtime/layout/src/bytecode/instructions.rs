//! The instructions of a piece of bytecode, one by one.

use super::{BytecodeOffset, DecodeError, unit_at};
use crate::ffi::PyCodeObject;
use crate::opcode::Opcode;
use crate::refs::{code_len, code_start};

/// An instruction with its `EXTENDED_ARG` prefixes folded in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Where it begins: its first `EXTENDED_ARG`, or the opcode itself. Jumps lead here.
    pub start: BytecodeOffset,
    /// Where its opcode is: what `instr_ptr` points to while it runs.
    pub offset: BytecodeOffset,
    /// Always a base opcode: neither specialised nor instrumented.
    pub opcode: Opcode,
    /// The whole argument.
    pub oparg: u32,
    /// The next instruction, behind the inline cache.
    pub next: BytecodeOffset,
}

impl Instruction {
    /// The first code unit of the inline cache (equal to `next` if there is none).
    #[inline]
    pub fn cache(&self) -> BytecodeOffset {
        BytecodeOffset(self.offset.0 + 1)
    }

    /// Where the argument points if it is a distance, as `dis` computes it; `None` if it is none or points before the
    /// code. `END_ASYNC_FOR` has one without ever jumping there.
    #[inline]
    pub fn jump_target(&self) -> Option<BytecodeOffset> {
        if !self.opcode.has_jump() {
            return None;
        }
        let target = if self.opcode.counts_backward() {
            self.next.0.checked_sub(self.oparg)?
        } else {
            self.next.0.checked_add(self.oparg)?
        };
        Some(BytecodeOffset(target))
    }

    /// Where control goes when it jumps: the jump target, but `FOR_ITER` skips the `END_FOR` it points to.
    #[inline]
    pub fn taken_target(&self) -> Option<BytecodeOffset> {
        match self.opcode {
            Opcode::END_ASYNC_FOR => None,
            Opcode::FOR_ITER => self.jump_target().map(|t| BytecodeOffset(t.0 + 1)),
            _ => self.jump_target(),
        }
    }
}

/// Reads the instruction that starts at a code unit, of `len` in all. `unit` gives the base opcode and argument of a unit, which may be behind the end.
#[inline]
fn instruction_at(
    len: u32,
    start: u32,
    unit: impl Fn(BytecodeOffset) -> Result<Option<(Opcode, u8)>, DecodeError>,
) -> Result<Instruction, DecodeError> {
    let start = BytecodeOffset(start);
    let mut oparg: u32 = 0;
    let mut offset = start;
    loop {
        let Some((opcode, byte)) = unit(offset)? else {
            return Err(DecodeError::Truncated(start));
        };
        oparg |= u32::from(byte);
        if opcode != Opcode::EXTENDED_ARG {
            let next = BytecodeOffset(offset.0 + 1 + opcode.caches() as u32);
            if next.0 > len {
                return Err(DecodeError::Truncated(start));
            }
            return Ok(Instruction {
                start,
                offset,
                opcode,
                oparg,
                next,
            });
        }
        // C keeps the argument in an int: a shift into the sign bit is an error here.
        if oparg >> 23 != 0 {
            return Err(DecodeError::ArgumentTooLarge(start));
        }
        oparg <<= 8;
        offset.0 += 1;
    }
}

/// The base opcode with this number or behind it.
fn base_opcode(offset: BytecodeOffset, number: u8) -> Result<Opcode, DecodeError> {
    let opcode = Opcode::from_u8(number)
        .ok_or(DecodeError::UnknownOpcode(offset, number))?
        .base();
    if opcode.is_base() {
        Ok(opcode)
    } else {
        Err(DecodeError::Unresolved(offset, opcode))
    }
}

/// Reads the instructions of a live code object, as [`Decoder`] does those of what `base_code` gives of it, without copying them.
#[derive(Clone, Debug)]
pub struct LiveCode {
    co: *mut PyCodeObject,
    units: *const [u8; 2],
    len: u32,
}

impl LiveCode {
    /// For a code object.
    ///
    /// # Safety
    /// `co` points to a code object that lives as long as this, and the GIL is held all the while.
    pub unsafe fn new(co: *mut PyCodeObject) -> Self {
        // SAFETY: see above.
        unsafe {
            Self {
                co,
                units: code_start(co).cast(),
                len: code_len(co) as u32,
            }
        }
    }

    /// What the interpreter replaced.
    #[cold]
    fn resolve(&self, offset: BytecodeOffset) -> Result<Option<(Opcode, u8)>, DecodeError> {
        // SAFETY: by the contract of `new`; the caller has compared the offset, at which an instruction stands.
        let [number, byte] = unsafe { unit_at(self.co, offset.index()) };
        Ok(Some((base_opcode(offset, number)?, byte)))
    }

    /// Code units.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The base opcode and the argument of the unit there, if it is an instruction's and no more than the unit is needed to know.
    #[inline(always)]
    pub fn unit(&self, at: u32) -> Option<(Opcode, u8)> {
        if at >= self.len {
            return None;
        }
        // SAFETY: inside of the code, by the contract of `new`.
        let [number, byte] = unsafe { *self.units.add(at as usize) };
        Some((Opcode::compiled(number)?, byte))
    }

    /// The instruction that starts there.
    pub fn instruction(&self, start: u32) -> Result<Instruction, DecodeError> {
        instruction_at(self.len, start, |offset| {
            if offset.0 >= self.len {
                return Ok(None);
            }
            match self.unit(offset.0) {
                Some(known) => Ok(Some(known)),
                None => self.resolve(offset),
            }
        })
    }
}

/// Iterates over the instructions of a slice of bytecode: what `co_code` holds, or `base_code` gives.
///
/// Specialised and instrumented opcodes are taken back to what they stand for. It ends after the first error.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    code: &'a [u8],
    at: u32,
}

impl<'a> Decoder<'a> {
    /// Reads from the start.
    pub fn new(code: &'a [u8]) -> Self {
        Self { code, at: 0 }
    }

    /// Reads from an instruction's start.
    pub fn starting_at(code: &'a [u8], start: BytecodeOffset) -> Self {
        Self { code, at: start.0 }
    }

    /// Code units in the slice.
    fn len(&self) -> u32 {
        // A code object's length is a C int.
        (self.code.len() / 2) as u32
    }

    #[inline]
    fn decode(&mut self) -> Result<Instruction, DecodeError> {
        instruction_at(self.len(), self.at, |offset| {
            let index = offset.index() * 2;
            let Some(&[number, byte]) = self
                .code
                .get(index..index + 2)
                .and_then(|unit| unit.as_array())
            else {
                return Ok(None);
            };
            Ok(Some((base_opcode(offset, number)?, byte)))
        })
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<Instruction, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.len() {
            return None;
        }
        let result = self.decode();
        self.at = match result {
            Ok(instruction) => instruction.next.0,
            Err(_) => self.len(),
        };
        Some(result)
    }
}

/// Appends an instruction as the compiler would write it: prefixes as needed, an empty cache. For tests and generators.
pub fn encode_instruction(code: &mut Vec<u8>, opcode: Opcode, oparg: u32) {
    for shift in [24, 16, 8] {
        if oparg >> shift != 0 {
            code.extend([Opcode::EXTENDED_ARG as u8, (oparg >> shift) as u8]);
        }
    }
    code.extend([opcode as u8, oparg as u8]);
    code.resize(code.len() + 2 * opcode.caches(), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(instructions: &[(Opcode, u32)]) -> Vec<u8> {
        let mut code = vec![];
        for &(opcode, oparg) in instructions {
            encode_instruction(&mut code, opcode, oparg);
        }
        code
    }

    fn decode(code: &[u8]) -> Result<Vec<(Opcode, u32, u32)>, DecodeError> {
        Decoder::new(code)
            .map(|i| i.map(|i| (i.opcode, i.oparg, i.start.0)))
            .collect()
    }

    #[test]
    fn folds_prefixes_and_skips_caches() {
        let code = assemble(&[
            (Opcode::LOAD_CONST, 0x1_0203),
            (Opcode::TO_BOOL, 0),
            (Opcode::RETURN_VALUE, 0),
        ]);
        let decoded: Vec<Instruction> = Decoder::new(&code).map(Result::unwrap).collect();
        let [load, to_bool, ret] = decoded[..] else {
            panic!("{decoded:?}")
        };
        assert_eq!(
            (load.start.0, load.offset.0, load.oparg, load.next.0),
            (0, 2, 0x1_0203, 3)
        );
        assert_eq!(
            (to_bool.start.0, to_bool.cache().0, to_bool.next.0),
            (3, 4, 7)
        );
        assert_eq!(
            (ret.opcode, ret.start.0, ret.next.0),
            (Opcode::RETURN_VALUE, 7, 8)
        );
    }

    #[test]
    fn gives_base_opcodes() {
        let code = assemble(&[
            (Opcode::RESUME_CHECK, 0),
            (Opcode::LOAD_CONST_IMMORTAL, 1),
            (Opcode::INSTRUMENTED_CALL, 2),
            (Opcode::BINARY_OP_ADD_INT, 0),
        ]);
        let bases = [
            (Opcode::RESUME, 0, 0),
            (Opcode::LOAD_CONST, 1, 1),
            (Opcode::CALL, 2, 2),
            (Opcode::BINARY_OP, 0, 6),
        ];
        assert_eq!(decode(&code).unwrap(), bases);
    }

    #[test]
    fn computes_jumps() {
        let code = assemble(&[
            (Opcode::FOR_ITER, 3),
            (Opcode::JUMP_BACKWARD, 4),
            (Opcode::NOP, 0),
            (Opcode::END_FOR, 0),
        ]);
        let decoded: Vec<Instruction> = Decoder::new(&code).map(Result::unwrap).collect();
        let targets: Vec<_> = decoded
            .iter()
            .map(|i| (i.jump_target().map(|t| t.0), i.taken_target().map(|t| t.0)))
            .collect();
        assert_eq!(
            targets,
            [
                (Some(5), Some(6)),
                (Some(0), Some(0)),
                (None, None),
                (None, None)
            ]
        );
        let far = assemble(&[(Opcode::JUMP_BACKWARD, 99)]);
        assert_eq!(
            Decoder::new(&far).next().unwrap().unwrap().jump_target(),
            None
        );
    }

    #[test]
    fn refuses_what_is_no_code() {
        let at = BytecodeOffset;
        assert_eq!(
            decode(&[Opcode::EXTENDED_ARG as u8, 1]),
            Err(DecodeError::Truncated(at(0)))
        );
        assert_eq!(
            decode(&[Opcode::NOP as u8, 0, Opcode::CALL as u8, 0]),
            Err(DecodeError::Truncated(at(1)))
        );
        assert_eq!(
            decode(&[Opcode::INSTRUMENTED_LINE as u8, 0]),
            Err(DecodeError::Unresolved(at(0), Opcode::INSTRUMENTED_LINE))
        );
        assert_eq!(
            decode(&[Opcode::ENTER_EXECUTOR as u8, 0]),
            Err(DecodeError::Unresolved(at(0), Opcode::ENTER_EXECUTOR))
        );
        let unused = (0..=255)
            .find(|n| Opcode::from_u8(*n).is_none())
            .expect("some numbers are unused");
        assert_eq!(
            decode(&[unused, 0]),
            Err(DecodeError::UnknownOpcode(at(0), unused))
        );
        let huge: Vec<u8> = [Opcode::EXTENDED_ARG as u8, 255].repeat(4);
        assert_eq!(decode(&huge), Err(DecodeError::ArgumentTooLarge(at(0))));
    }
}
