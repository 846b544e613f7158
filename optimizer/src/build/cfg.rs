//! Control flow of bytecode: blocks in reverse postorder, loops and what they change. Exception handlers are not part of it: a raise leaves.

use std::collections::{HashMap, HashSet};

use hotstamp_layout::bytecode::{Decoder, Instruction};
use hotstamp_layout::opcode::Opcode;

/// What a loop's body changes.
#[derive(Debug, Default, Clone)]
pub struct Loop {
    /// Locals that are stored to or deleted.
    pub locals: HashSet<u32>,
    /// Operand-stack entries below this depth are left alone.
    pub untouched: usize,
}

/// A code object's control flow.
#[derive(Debug)]
pub struct Cfg {
    /// Instructions by position.
    pub instructions: Vec<Instruction>,
    /// Position of the instruction that starts at an offset.
    pub index: HashMap<u32, usize>,
    /// Offsets of blocks reachable from the entry, in reverse postorder.
    pub order: Vec<u32>,
    /// Block leaders.
    pub leaders: HashSet<u32>,
    /// Loop heads among them.
    pub loops: HashMap<u32, Loop>,
}

/// Why there is no graph of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CfgError {
    /// The bytecode does not decode.
    #[error("bytecode that does not decode")]
    BadBytecode,
    /// A loop is entered in its middle.
    #[error("a loop entered in its middle")]
    Irreducible,
}

impl Cfg {
    /// Reads bytecode from `entry` on. `depth` is the operand stack's depth there.
    pub fn new(bytecode: &[u8], entry: u32, depth: usize) -> Result<Cfg, CfgError> {
        let mut instructions = Vec::new();
        let mut decoder = Decoder::new(bytecode);
        for instruction in &mut decoder {
            instructions.push(instruction.map_err(|_| CfgError::BadBytecode)?);
        }
        let index: HashMap<u32, usize> = instructions
            .iter()
            .enumerate()
            .map(|(at, i)| (i.start.0, at))
            .collect();
        let mut leaders = HashSet::from([entry]);
        for instruction in &instructions {
            if let Some(target) = instruction.taken_target() {
                leaders.insert(target.0);
                leaders.insert(instruction.next.0);
            } else if instruction.opcode.is_terminator() {
                leaders.insert(instruction.next.0);
            }
        }
        let mut cfg = Cfg {
            instructions,
            index,
            order: Vec::new(),
            leaders,
            loops: HashMap::new(),
        };
        cfg.walk(entry, depth)?;
        Ok(cfg)
    }

    /// The instructions of the block that starts at an offset.
    pub fn block(&self, start: u32) -> impl Iterator<Item = &Instruction> {
        let from = self.index[&start];
        let mut ended = false;
        self.instructions[from..]
            .iter()
            .take_while(move |instruction| {
                let take = !ended
                    && (instruction.start.0 == start
                        || !self.leaders.contains(&instruction.start.0));
                ended |= instruction.opcode.is_terminator()
                    || instruction.opcode.is_unconditional_jump();
                take
            })
    }

    fn successors(&self, start: u32) -> Vec<u32> {
        let Some(last) = self.block(start).last() else {
            return Vec::new();
        };
        let mut next = Vec::new();
        if let Some(target) = last.taken_target() {
            next.push(target.0);
        }
        if !last.opcode.is_terminator() && !last.opcode.is_unconditional_jump() {
            next.push(last.next.0);
        }
        next
    }

    fn walk(&mut self, entry: u32, depth: usize) -> Result<(), CfgError> {
        let mut depths = HashMap::from([(entry, depth)]);
        let (mut post, mut on_stack, mut seen) =
            (Vec::new(), HashSet::from([entry]), HashSet::from([entry]));
        let mut back_edges: Vec<(u32, u32)> = Vec::new();
        let mut predecessors: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut work = vec![(entry, self.checked_successors(entry)?, 0)];
        while let Some((block, next, place)) = work.pop() {
            let Some(&to) = next.get(place) else {
                on_stack.remove(&block);
                post.push(block);
                continue;
            };
            predecessors.entry(to).or_default().push(block);
            if on_stack.contains(&to) {
                back_edges.push((block, to));
            }
            work.push((block, next, place + 1));
            if seen.insert(to) {
                on_stack.insert(to);
                let successors = self.checked_successors(to)?;
                work.push((to, successors, 0));
            }
        }
        post.reverse();
        self.order = post;
        for &block in &self.order {
            let mut at = depths.get(&block).copied().ok_or(CfgError::BadBytecode)?;
            let instructions: Vec<Instruction> = self.block(block).copied().collect();
            for instruction in instructions {
                if let Some(target) = instruction.taken_target() {
                    let there = match instruction.opcode {
                        // Where the iterator is exhausted, it alone is left.
                        Opcode::FOR_ITER => at,
                        _ => {
                            (at as i32
                                + instruction
                                    .opcode
                                    .stack_effect(instruction.oparg)
                                    .ok_or(CfgError::BadBytecode)?)
                                as usize
                        }
                    };
                    depths.entry(target.0).or_insert(there);
                }
                at = (at as i32
                    + instruction
                        .opcode
                        .stack_effect(instruction.oparg)
                        .ok_or(CfgError::BadBytecode)?) as usize;
                depths.entry(instruction.next.0).or_insert(at);
            }
        }
        for (from, head) in back_edges {
            // The natural loop: what reaches the back edge without passing the head.
            let (mut body, mut work) = (HashSet::from([head, from]), vec![from]);
            while let Some(block) = work.pop() {
                if block == head {
                    continue;
                }
                for &pred in predecessors.get(&block).into_iter().flatten() {
                    if body.insert(pred) {
                        work.push(pred);
                    }
                }
            }
            // Entered in the middle, from a loop inside: the head does not come before all of it, so that what it changes cannot be known there.
            if head != entry && body.contains(&entry) {
                return Err(CfgError::Irreducible);
            }
            let depth = depths[&head];
            let mut found = self.loops.remove(&head).unwrap_or(Loop {
                locals: HashSet::new(),
                untouched: depth,
            });
            for &block in &body {
                let mut at = depths[&block];
                for instruction in self.block(block) {
                    let (opcode, oparg) = (instruction.opcode, instruction.oparg);
                    match opcode {
                        Opcode::STORE_FAST | Opcode::DELETE_FAST | Opcode::LOAD_FAST_AND_CLEAR => {
                            found.locals.insert(oparg);
                        }
                        Opcode::STORE_FAST_LOAD_FAST => {
                            found.locals.insert(oparg >> 4);
                        }
                        Opcode::STORE_FAST_STORE_FAST => {
                            found.locals.insert(oparg >> 4);
                            found.locals.insert(oparg & 15);
                        }
                        _ => {}
                    }
                    let popped = match opcode {
                        Opcode::FOR_ITER => 0,
                        _ => opcode.popped(oparg).ok_or(CfgError::BadBytecode)? as usize,
                    };
                    found.untouched = found.untouched.min(at.saturating_sub(popped));
                    at = (at as i32 + opcode.stack_effect(oparg).ok_or(CfgError::BadBytecode)?)
                        as usize;
                }
            }
            self.loops.insert(head, found);
        }
        Ok(())
    }

    fn checked_successors(&self, block: u32) -> Result<Vec<u32>, CfgError> {
        if !self.index.contains_key(&block) {
            return Err(CfgError::BadBytecode);
        }
        Ok(self.successors(block))
    }
}
