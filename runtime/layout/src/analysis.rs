//! What control flow says about each instruction: basic blocks, stack depth, handlers, lines.
//!
//! One pass of abstract interpretation over stack depths. The compiler's own output is always consistent; code made
//! with `code.replace` need not be, and gets an error that says where.

use crate::bytecode::{
    BorrowedCode, BytecodeOffset, DecodeError, Decoder, ExceptionTable, Instruction,
};
use crate::opcode::Opcode;

/// Why bytecode makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnalysisError {
    /// It cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Two ways lead here with different depths.
    #[error("byte {at}: the stack is {first} deep on one way here and {second} on another")]
    DepthMismatch {
        /// Where they meet.
        at: BytecodeOffset,
        /// The depth seen first.
        first: u32,
        /// The depth seen later.
        second: u32,
    },
    /// More is taken off the stack than is on it.
    #[error("byte {at}: {opcode} takes {popped} off a stack that is {depth} deep")]
    Underflow {
        /// The instruction.
        at: BytecodeOffset,
        /// Its opcode.
        opcode: Opcode,
        /// What it takes.
        popped: u32,
        /// What there is.
        depth: u32,
    },
    /// More is put on the stack than `co_stacksize` promises.
    #[error("byte {at}: the stack grows to {depth}, but the code asks for {stack_size}")]
    Overflow {
        /// The instruction.
        at: BytecodeOffset,
        /// How deep it gets.
        depth: u32,
        /// `co_stacksize`.
        stack_size: u32,
    },
    /// A handler wants more on the stack than is there when an instruction it covers begins.
    #[error("byte {at}: its handler keeps {kept} entries of a stack that is {depth} deep")]
    HandlerTooDeep {
        /// The covered instruction.
        at: BytecodeOffset,
        /// What the handler keeps.
        kept: u32,
        /// What there is.
        depth: u32,
    },
    /// A jump, a handler or a range of the exception table does not lead to the start of an instruction.
    #[error("byte {at}: {target} is not the start of an instruction")]
    NotAnInstruction {
        /// Where it comes from.
        at: BytecodeOffset,
        /// Where it leads.
        target: BytecodeOffset,
    },
    /// Control runs off the end of the code.
    #[error("control runs off the end of the code")]
    NoEnd,
    /// An opcode whose stack effect the headers do not give.
    #[error("byte {at}: the stack effect of {opcode} is not known")]
    NoEffect {
        /// The instruction.
        at: BytecodeOffset,
        /// Its opcode.
        opcode: Opcode,
    },
}

/// What is known of one instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// A basic block begins here: first instruction, jump target, handler, or behind a jump or terminator.
    pub is_leader: bool,
    /// Some instruction jumps here (`FOR_ITER` to both its `END_FOR` and what follows).
    pub is_jump_target: bool,
    /// A jump from further down leads here.
    pub is_loop_header: bool,
    /// The exception table leads here.
    pub is_handler_entry: bool,
    /// The depth of the stack before it; `None` if no way leads here.
    pub depth: Option<u32>,
    /// The source line, `None` if it has none.
    pub line: Option<i32>,
    /// A LINE event is due here when the interpreter arrives: entering it in the middle of the line would lose one.
    pub starts_line: bool,
}

impl Facts {
    /// Some way leads here.
    pub fn is_reachable(&self) -> bool {
        self.depth.is_some()
    }
}

/// A code object's instructions and what is known of each.
#[derive(Clone, Debug)]
pub struct Analysis {
    instructions: Vec<Instruction>,
    facts: Vec<Facts>,
    /// For each code unit the instruction that begins there (its first `EXTENDED_ARG`) or has its opcode there.
    index_of: Vec<u32>,
    exceptions: ExceptionTable,
    max_depth: u32,
}

const NO_INSTRUCTION: u32 = u32::MAX;

impl Analysis {
    /// Analyses bytecode in its base form (see [`crate::bytecode::base_code`]) with the tables that belong to it.
    pub fn new(code: &[u8], tables: &BorrowedCode<'_>) -> Result<Self, AnalysisError> {
        // Most instructions have no cache: about half as many as there are code units.
        let mut instructions = Vec::with_capacity(code.len() / 3);
        let mut index_of = vec![NO_INSTRUCTION; code.len() / 2];
        let mut branches = vec![];
        for instruction in Decoder::new(code) {
            let instruction = instruction?;
            let index = instructions.len();
            index_of[instruction.start.index()] = index as u32;
            index_of[instruction.offset.index()] = index as u32;
            if instruction.opcode.has_jump() || instruction.opcode.is_terminator() {
                branches.push(index);
            }
            instructions.push(instruction);
        }
        let facts = vec![Facts::default(); instructions.len()];
        let mut analysis = Self {
            instructions,
            facts,
            index_of,
            exceptions: tables.exceptions()?,
            max_depth: 0,
        };
        analysis.find_leaders(&branches)?;
        analysis.find_depths(tables.stack_size)?;
        analysis.find_lines(tables, &branches)?;
        Ok(analysis)
    }

    /// The instructions in order.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// What is known of the instruction with this index.
    pub fn facts(&self, index: usize) -> &Facts {
        &self.facts[index]
    }

    /// The instructions with what is known of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Instruction, &Facts)> {
        self.instructions.iter().zip(&self.facts)
    }

    /// The index of the instruction that begins at this offset, or has its opcode there.
    pub fn index_at(&self, offset: BytecodeOffset) -> Option<usize> {
        self.index_of
            .get(offset.index())
            .filter(|index| **index != NO_INSTRUCTION)
            .map(|index| *index as usize)
    }

    /// The parsed exception table.
    pub fn exceptions(&self) -> &ExceptionTable {
        &self.exceptions
    }

    /// The deepest stack before or after any reachable instruction.
    pub fn max_depth(&self) -> u32 {
        self.max_depth
    }

    /// The index of the instruction that begins exactly here.
    fn start_index(
        &self,
        at: BytecodeOffset,
        target: Option<BytecodeOffset>,
    ) -> Result<usize, AnalysisError> {
        let target = target.ok_or(DecodeError::JumpOutside(at))?;
        let index = self
            .index_at(target)
            .filter(|index| self.instructions[*index].start == target);
        index.ok_or(AnalysisError::NotAnInstruction { at, target })
    }

    /// `branches` are the instructions that may not go on to the next one.
    fn find_leaders(&mut self, branches: &[usize]) -> Result<(), AnalysisError> {
        if let Some(first) = self.facts.first_mut() {
            first.is_leader = true;
        }
        for &index in branches {
            let instruction = self.instructions[index];
            let opcode = instruction.opcode;
            if opcode.is_jump() {
                let pointed_to = self.start_index(instruction.offset, instruction.jump_target())?;
                // `FOR_ITER` skips what it points to; a generator that it inlined ends there.
                let taken = self.start_index(instruction.offset, instruction.taken_target())?;
                for target in [pointed_to, taken] {
                    let facts = &mut self.facts[target];
                    facts.is_leader = true;
                    facts.is_jump_target = true;
                    facts.is_loop_header |= target <= index;
                }
            }
            if (opcode.is_jump() || opcode.is_terminator()) && index + 1 < self.facts.len() {
                self.facts[index + 1].is_leader = true;
            }
        }
        for entry in self.exceptions.entries() {
            let target = self.start_index(entry.start, Some(entry.target))?;
            self.facts[target].is_leader = true;
            self.facts[target].is_handler_entry = true;
        }
        Ok(())
    }

    fn find_depths(&mut self, stack_size: u32) -> Result<(), AnalysisError> {
        let mut pending = vec![];
        if self.instructions.is_empty() {
            return Err(AnalysisError::NoEnd);
        }
        self.reach(0, 0, &mut pending)?;
        while let Some(index) = pending.pop() {
            self.follow(index, stack_size, &mut pending)?;
        }
        Ok(())
    }

    /// Follows straight-line code from an instruction whose depth is known, to where control leaves or was before.
    fn follow(
        &mut self,
        start: usize,
        stack_size: u32,
        pending: &mut Vec<usize>,
    ) -> Result<(), AnalysisError> {
        let mut depth = self.facts[start]
            .depth
            .expect("only reached instructions are followed");
        let mut handler_depth = None;
        let mut handler_until = BytecodeOffset(0);
        for index in start..self.instructions.len() {
            let Instruction {
                offset: at,
                opcode,
                oparg,
                ..
            } = self.instructions[index];
            if at >= handler_until {
                let (entry, until) = self.exceptions.lookup_span(at);
                (handler_depth, handler_until) = (entry.map(|entry| entry.depth), until);
                if let Some(entry) = entry.copied() {
                    let handler = self.start_index(at, Some(entry.target))?;
                    self.reach(handler, entry.handler_depth(), pending)?;
                }
            }
            if let Some(kept) = handler_depth
                && kept > depth
            {
                return Err(AnalysisError::HandlerTooDeep { at, kept, depth });
            }
            let effect = opcode.popped(oparg).zip(opcode.pushed(oparg));
            let (popped, pushed) = effect.ok_or(AnalysisError::NoEffect { at, opcode })?;
            let left = depth.checked_sub(popped).ok_or(AnalysisError::Underflow {
                at,
                opcode,
                popped,
                depth,
            })?;
            let terminates = opcode.is_terminator();
            let after = left + pushed;
            // What a RETURN_VALUE pushes goes onto its caller's stack.
            self.max_depth = self.max_depth.max(depth);
            if opcode.is_jump() {
                let target = self.start_index(at, self.instructions[index].jump_target())?;
                self.reach(target, after, pending)?;
            }
            if !terminates {
                self.max_depth = self.max_depth.max(after);
            }
            if self.max_depth > stack_size {
                return Err(AnalysisError::Overflow {
                    at,
                    depth: self.max_depth,
                    stack_size,
                });
            }
            if terminates {
                return Ok(());
            }
            let next = self.facts.get_mut(index + 1).ok_or(AnalysisError::NoEnd)?;
            match next.depth {
                None => next.depth = Some(after),
                Some(first) if first == after => return Ok(()),
                Some(first) => {
                    let at = self.instructions[index + 1].start;
                    return Err(AnalysisError::DepthMismatch {
                        at,
                        first,
                        second: after,
                    });
                }
            }
            depth = after;
        }
        Ok(())
    }

    fn reach(
        &mut self,
        index: usize,
        depth: u32,
        pending: &mut Vec<usize>,
    ) -> Result<(), AnalysisError> {
        match self.facts[index].depth {
            None => {
                self.facts[index].depth = Some(depth);
                pending.push(index);
                Ok(())
            }
            Some(first) if first == depth => Ok(()),
            Some(first) => Err(AnalysisError::DepthMismatch {
                at: self.instructions[index].start,
                first,
                second: depth,
            }),
        }
    }

    /// Lines, and the places where the interpreter would emit LINE events: where the line changes in the order of the
    /// code, and wherever a jump or an exception can arrive; never at the instructions that such an arrival skips.
    fn find_lines(
        &mut self,
        tables: &BorrowedCode<'_>,
        branches: &[usize],
    ) -> Result<(), AnalysisError> {
        let mut lines = tables.locations().lines();
        let (mut line, mut line_until) = (None, BytecodeOffset(0));
        let mut line_before = None;
        for (instruction, facts) in self.instructions.iter().zip(&mut self.facts) {
            while line_until <= instruction.offset {
                (line, line_until) = lines
                    .next()
                    .transpose()?
                    .unwrap_or((None, BytecodeOffset(u32::MAX)));
            }
            facts.line = line;
            if instruction.start.0 < tables.first_traceable {
                continue;
            }
            // The interpreter sees a prefix as an instruction of its own, which nothing skips.
            let skipped = instruction.start == instruction.offset
                && is_skipped_on_arrival(instruction.opcode);
            if !skipped {
                facts.starts_line = line.is_some() && line != line_before;
                line_before = line;
            }
        }
        for &index in branches {
            let instruction = self.instructions[index];
            if instruction.start.0 < tables.first_traceable || !instruction.opcode.is_jump() {
                continue;
            }
            let mut target = self.start_index(instruction.offset, instruction.jump_target())?;
            if matches!(instruction.opcode, Opcode::FOR_ITER | Opcode::SEND) {
                target += 1;
            }
            if self
                .instructions
                .get(target)
                .is_some_and(|i| i.opcode != Opcode::POP_ITER)
            {
                self.facts[target].starts_line |= self.facts[target].line.is_some();
            }
        }
        for entry in self.exceptions.entries() {
            let handler = self.start_index(entry.start, Some(entry.target))?;
            let Instruction {
                start,
                offset,
                opcode,
                ..
            } = self.instructions[handler];
            if start != offset || opcode != Opcode::END_ASYNC_FOR {
                self.facts[handler].starts_line |= self.facts[handler].line.is_some();
            }
        }
        Ok(())
    }
}

/// Instructions that jumps land behind, or that the interpreter never instruments for lines.
fn is_skipped_on_arrival(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::END_ASYNC_FOR
            | Opcode::END_FOR
            | Opcode::END_SEND
            | Opcode::RESUME
            | Opcode::POP_ITER
    )
}

#[cfg(test)]
mod tests;
