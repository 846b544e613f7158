//! The decoded bytecode of one code object, as the compiler wants it: instructions in order, leaders, handlers.

use hotstamp_layout::bytecode::base_code;
use hotstamp_layout::ffi::PyCodeObject;
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs;

use crate::error::CompileError;

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
}

const LEADER: u8 = 1;
const HANDLER: u8 = 2;
const LINE: u8 = 4;

impl Bytecode {
    /// Decodes a code object.
    ///
    /// # Errors
    /// Bytecode that CPython's compiler does not make.
    ///
    /// # Safety
    /// `code` is a live code object; GIL held.
    pub unsafe fn decode(code: *mut PyCodeObject) -> Result<Bytecode, CompileError> {
        // SAFETY: a live code object, whose tables it keeps alive.
        unsafe {
            let table = refs::bytes_contents((*code).co_exceptiontable);
            let mut decoded = Self::from_bytes(&base_code(code), table)?;
            decoded.mark_lines(refs::bytes_contents((*code).co_linetable));
            Ok(decoded)
        }
    }

    /// Decodes plain bytes with their exception table.
    ///
    /// # Errors
    /// See `decode`.
    pub fn from_bytes(bytes: &[u8], exception_table: &[u8]) -> Result<Bytecode, CompileError> {
        let units = bytes.len() / 2;
        let mut instructions = Vec::with_capacity(units / 2);
        let mut marks = vec![0u8; units + 1];
        let (mut offset, mut start, mut extended) = (0, 0, 0u32);
        let (mut makes_cells_first, mut resumed) = (false, false);
        while offset < units {
            let (number, low) = (bytes[offset * 2], u32::from(bytes[offset * 2 + 1]));
            let opcode =
                Opcode::from_u8(number).ok_or(CompileError::BadBytecode("unknown opcode"))?;
            let oparg = extended << 8 | low;
            if opcode == Opcode::EXTENDED_ARG {
                extended = oparg;
                offset += 1;
                continue;
            }
            let next = offset + 1 + opcode.caches();
            let instruction = Instruction {
                start: start as u32,
                offset: offset as u32,
                next: next as u32,
                opcode,
                oparg,
            };
            if opcode.is_jump() {
                let mut target = instruction.jump_target() as usize;
                if opcode == Opcode::FOR_ITER {
                    // The END_FOR at the target is skipped, as the interpreter does.
                    target += 1;
                }
                *marks
                    .get_mut(target)
                    .ok_or(CompileError::BadBytecode("jump out of the code"))? |= LEADER;
            }
            match opcode {
                Opcode::MAKE_CELL | Opcode::COPY_FREE_VARS if !resumed => makes_cells_first = true,
                Opcode::RESUME => resumed = true,
                _ => {}
            }
            instructions.push(instruction);
            (offset, start, extended) = (next, next, 0);
        }
        let mut decoded = Bytecode {
            instructions,
            units,
            handlers: Vec::new(),
            makes_cells_first,
            marks,
        };
        decoded.mark_handlers(exception_table)?;
        Ok(decoded)
    }

    fn mark_handlers(&mut self, mut table: &[u8]) -> Result<(), CompileError> {
        while !table.is_empty() {
            let mut fields = [0u32; 4];
            for field in &mut fields {
                loop {
                    let (&byte, rest) = table
                        .split_first()
                        .ok_or(CompileError::BadBytecode("exception table cut short"))?;
                    table = rest;
                    *field = *field << 6 | u32::from(byte & 63);
                    if byte & 64 == 0 {
                        break;
                    }
                }
            }
            let [_, _, target, depth_lasti] = fields;
            let mark = self
                .marks
                .get_mut(target as usize)
                .ok_or(CompileError::BadBytecode("handler out of the code"))?;
            if *mark & HANDLER == 0 {
                *mark |= LEADER | HANDLER;
                self.handlers.push(HandlerTarget {
                    target,
                    entry_depth: (depth_lasti >> 1) + (depth_lasti & 1) + 1,
                });
            }
        }
        Ok(())
    }

    /// Marks the first instruction of each run of instructions with one line (PEP 626's location table).
    fn mark_lines(&mut self, mut table: &[u8]) {
        const NO_LOCATION: u8 = 15;
        const LONG: u8 = 14;
        const NO_COLUMNS: u8 = 13;
        let (mut line, mut previous, mut unit) = (0i64, None, 0usize);
        while let Some((&first, rest)) = table.split_first() {
            let (kind, length) = ((first >> 3) & 15, usize::from(first & 7) + 1);
            table = rest;
            let here = match kind {
                NO_LOCATION => None,
                LONG | NO_COLUMNS => {
                    line += signed_varint(&mut table);
                    if kind == LONG {
                        for _ in 0..3 {
                            varint(&mut table);
                        }
                    }
                    Some(line)
                }
                10..=12 => {
                    line += i64::from(kind - 10);
                    table = table.get(2..).unwrap_or(&[]);
                    Some(line)
                }
                _ => {
                    table = table.get(1..).unwrap_or(&[]);
                    Some(line)
                }
            };
            if here.is_some() && here != previous && unit < self.marks.len() {
                self.marks[unit] |= LINE;
            }
            previous = here;
            unit += length;
        }
    }

    /// Whether control can come here other than from the instruction before.
    pub fn is_leader(&self, offset: u32) -> bool {
        self.marks
            .get(offset as usize)
            .is_some_and(|mark| mark & LEADER != 0)
    }

    /// Whether an exception handler begins here.
    pub fn is_handler(&self, offset: u32) -> bool {
        self.marks[offset as usize] & HANDLER != 0
    }

    /// Whether a line begins here.
    pub fn begins_line(&self, offset: u32) -> bool {
        self.marks
            .get(offset as usize)
            .is_some_and(|mark| mark & LINE != 0)
    }
}

/// A varint of the location table: six bits a byte, least significant first.
fn varint(table: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0u64, 0);
    while let Some((&byte, rest)) = table.split_first() {
        *table = rest;
        value |= u64::from(byte & 63) << shift;
        shift += 6;
        if byte & 64 == 0 || shift > 60 {
            break;
        }
    }
    value
}

/// As `varint`, with the sign in the lowest bit.
fn signed_varint(table: &mut &[u8]) -> i64 {
    let value = varint(table);
    if value & 1 != 0 {
        -((value >> 1) as i64)
    } else {
        (value >> 1) as i64
    }
}
