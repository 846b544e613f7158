//! The decoded bytecode of one code object, as the compiler wants it: instructions in order, leaders, handlers.

use std::cell::OnceCell;

use hotstamp_layout::bytecode::{
    self as layout, BytecodeOffset, DecodeError, Decoder, ExceptionEntries, LiveCode, Locations,
};
use hotstamp_layout::ffi::PyCodeObject;
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs;

use crate::error::CompileError;
use crate::spare::Spare;

/// One instruction, its EXTENDED_ARG prefixes folded in. Offsets are in code units.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// Where it starts, prefixes included: what jumps aim at.
    pub start: u32,
    /// The instruction itself: what `instr_ptr` holds.
    pub offset: u32,
    /// The next instruction's start.
    pub next: u32,
    /// Base opcode.
    pub opcode: Opcode,
    /// Full argument.
    pub oparg: u32,
}

impl Instruction {
    /// Before the first.
    pub const START: Instruction = Instruction {
        start: 0,
        offset: 0,
        next: 0,
        opcode: Opcode::NOP,
        oparg: 0,
    };

    /// Where it jumps, for an opcode that jumps.
    pub fn jump_target(&self) -> u32 {
        if self.opcode.counts_backward() {
            self.next.wrapping_sub(self.oparg)
        } else {
            self.next + self.oparg
        }
    }
}

/// An entry of the exception table that some instruction is covered by.
#[derive(Clone, Copy, Debug)]
pub struct HandlerTarget {
    /// First instruction of the handler.
    pub target: u32,
    /// Operand stack depth there: what stays, the instruction number if kept, the exception.
    pub entry_depth: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Bytecode {
    /// In order.
    pub instructions: Vec<Instruction>,
    /// Code units in all.
    pub units: usize,
    /// Distinct handler targets.
    pub handlers: Vec<HandlerTarget>,
    /// MAKE_CELL or COPY_FREE_VARS come before RESUME.
    pub makes_cells_first: bool,
    marks: Vec<u8>,
    /// The code object that was decoded, if it was one.
    code: *mut PyCodeObject,
    /// Where lines begin, in order, once somebody has asked.
    lines: OnceCell<Vec<u32>>,
}

const LEADER: u8 = 1;
const HANDLER: u8 = 2;
const RESUME_POINT: u8 = 4;

impl Bytecode {
    /// Decodes a code object.
    ///
    /// # Errors
    /// Bytecode that CPython's compiler does not make.
    ///
    /// # Safety
    /// `code` is a live code object, and stays one while the decoded bytecode exists; GIL held.
    pub unsafe fn decode(code: *mut PyCodeObject) -> Result<Bytecode, CompileError> {
        // SAFETY: passed on.
        unsafe { Self::decode_in(code, &mut Spare::default()) }
    }

    /// As `decode`, in spare memory.
    ///
    /// # Errors
    /// See `decode`.
    ///
    /// # Safety
    /// See `decode`.
    pub(crate) unsafe fn decode_in(
        code: *mut PyCodeObject,
        spare: &mut Spare,
    ) -> Result<Bytecode, CompileError> {
        // SAFETY: a live code object, whose tables it keeps alive.
        unsafe {
            let table = refs::bytes_contents((*code).co_exceptiontable);
            let live = LiveCode::new(code);
            let mut decoded = Self::read(
                spare,
                live.len(),
                |at| live.unit(at),
                |at| live.instruction(at),
                table,
            )?;
            decoded.code = code;
            Ok(decoded)
        }
    }

    /// Decodes plain bytes with their exception table.
    ///
    /// # Errors
    /// See `decode`.
    pub fn from_bytes(bytes: &[u8], exception_table: &[u8]) -> Result<Bytecode, CompileError> {
        let instruction = |at| {
            let mut decoder = Decoder::starting_at(bytes, BytecodeOffset(at));
            let end = DecodeError::Truncated(BytecodeOffset(at));
            decoder.next().unwrap_or(Err(end))
        };
        let units = bytes.len() / 2;
        Self::read(
            &mut Spare::default(),
            units,
            |_| None,
            instruction,
            exception_table,
        )
    }

    #[inline(always)]
    fn read(
        spare: &mut Spare,
        units: usize,
        unit: impl Fn(u32) -> Option<(Opcode, u8)>,
        instruction: impl Fn(u32) -> Result<layout::Instruction, DecodeError>,
        exception_table: &[u8],
    ) -> Result<Bytecode, CompileError> {
        let mut instructions = std::mem::take(&mut spare.instructions);
        instructions.clear();
        instructions.reserve(units);
        let mut marks = std::mem::take(&mut spare.marks);
        marks.clear();
        marks.resize(units + 1, 0);
        let (mut makes_cells_first, mut resumed) = (false, false);
        let (mut at, mut count) = (0, 0);
        while (at as usize) < units {
            let plain = unit(at).filter(|&(opcode, _)| opcode != Opcode::EXTENDED_ARG);
            let instruction = match plain {
                Some((opcode, byte)) => Instruction {
                    start: at,
                    offset: at,
                    next: at + 1 + opcode.caches() as u32,
                    opcode,
                    oparg: u32::from(byte),
                },
                None => {
                    let decoded = instruction(at)?;
                    Instruction {
                        start: decoded.start.0,
                        offset: decoded.offset.0,
                        next: decoded.next.0,
                        opcode: decoded.opcode,
                        oparg: decoded.oparg,
                    }
                }
            };
            at = instruction.next;
            if at as usize > units {
                return Err(DecodeError::Truncated(BytecodeOffset(instruction.start)).into());
            }
            // SAFETY: an instruction has a unit at least, and there is room for one for each unit.
            unsafe { instructions.as_mut_ptr().add(count).write(instruction) };
            count += 1;
            let opcode = instruction.opcode;
            if opcode.is_ordinary() {
                continue;
            }
            if opcode.is_jump() {
                let mut target = instruction.jump_target() as usize;
                if opcode == Opcode::FOR_ITER {
                    // The END_FOR at the target is skipped, as the interpreter does.
                    target += 1;
                }
                *marks
                    .get_mut(target)
                    .ok_or(CompileError::BadBytecode("jump out of the code"))? |= LEADER;
            } else if opcode.suspends() {
                *marks
                    .get_mut(at as usize)
                    .ok_or(CompileError::BadBytecode("a yield at the end"))? |=
                    LEADER | RESUME_POINT;
            } else if opcode == Opcode::RESUME {
                resumed = true;
            } else {
                makes_cells_first |= !resumed;
            }
        }
        // SAFETY: so many have been written.
        unsafe { instructions.set_len(count) };
        let mut decoded = Bytecode {
            instructions,
            units,
            handlers: Vec::new(),
            makes_cells_first,
            marks,
            code: std::ptr::null_mut(),
            lines: OnceCell::new(),
        };
        decoded.mark_handlers(exception_table)?;
        Ok(decoded)
    }

    fn mark_handlers(&mut self, table: &[u8]) -> Result<(), CompileError> {
        for entry in ExceptionEntries::new(table) {
            let entry = entry?;
            let mark = self
                .marks
                .get_mut(entry.target.index())
                .ok_or(CompileError::BadBytecode("handler out of the code"))?;
            if *mark & HANDLER == 0 {
                *mark |= LEADER | HANDLER;
                self.handlers.push(HandlerTarget {
                    target: entry.target.0,
                    entry_depth: entry.handler_depth(),
                });
            }
        }
        Ok(())
    }

    /// Gives back the memory that `decode_in` took.
    pub(crate) fn give_back(self, spare: &mut Spare) {
        spare.instructions = self.instructions;
        spare.marks = self.marks;
    }

    /// Whether control can come here other than from the instruction before.
    pub fn is_leader(&self, offset: u32) -> bool {
        self.marks
            .get(offset as usize)
            .is_some_and(|mark| mark & LEADER != 0)
    }

    /// Whether a suspended generator goes on here: behind RETURN_GENERATOR and YIELD_VALUE.
    pub fn is_resume_point(&self, offset: u32) -> bool {
        self.marks[offset as usize] & RESUME_POINT != 0
    }

    /// Whether an exception handler begins here.
    pub fn is_handler(&self, offset: u32) -> bool {
        self.marks[offset as usize] & HANDLER != 0
    }

    /// Whether a line begins here: at the first instruction of each run of instructions with one line.
    pub fn begins_line(&self, offset: u32) -> bool {
        self.lines
            .get_or_init(|| self.read_lines())
            .binary_search(&offset)
            .is_ok()
    }

    #[cold]
    fn read_lines(&self) -> Vec<u32> {
        if self.code.is_null() {
            return Vec::new();
        }
        // SAFETY: a live code object, by the contract of `decode`.
        let table = unsafe { refs::bytes_contents((*self.code).co_linetable) };
        Locations::new(table, 1)
            .line_starts()
            .map_while(Result::ok)
            .map(|start| start.0)
            .collect()
    }
}
