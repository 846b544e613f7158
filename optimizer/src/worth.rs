//! Whether optimized code is worth having: what it saves against the baseline's inline caches, set against what it does through the general way, where the baseline is as good or better.
//!
//! The weights are of the order of nanoseconds, by measurement of single operations; loops count more, once for each level.

use hotstamp_job::Job;
use hotstamp_layout::bytecode::{BytecodeOffset, Decoder};
use hotstamp_layout::opcode::Opcode;

use crate::hir::verify::Dominators;
use crate::hir::{BlockId, End, Graph, Op, Type};

/// How much more an iteration counts than what is around the loop.
const PER_LOOP: f64 = 8.0;

/// What one execution saves, in about nanoseconds; negative where the baseline is faster.
pub fn gain(graph: &Graph, job: &Job) -> f64 {
    let depths = loop_depths(graph);
    let mut total = 0.0;
    for (index, block) in graph.blocks.iter().enumerate() {
        let Some(depth) = depths[index] else { continue };
        // Ways that lead out at once are not taken.
        if matches!(block.end, End::Exit(_)) {
            continue;
        }
        let here: f64 = block
            .insts
            .iter()
            .map(|&value| weigh(graph, job, value))
            .sum();
        total += here * PER_LOOP.powi(depth.min(3));
    }
    total
}

fn weigh(graph: &Graph, job: &Job, value: crate::hir::Value) -> f64 {
    let inst = graph.inst(value);
    match &inst.op {
        Op::IntAdd
        | Op::IntSub
        | Op::IntMul
        | Op::IntFloorDiv
        | Op::IntMod
        | Op::IntAnd
        | Op::IntOr
        | Op::IntXor
        | Op::IntShl
        | Op::IntShr
        | Op::IntCmp(_)
        | Op::FloatCmp(_) => 2.0,
        Op::FloatAdd
        | Op::FloatSub
        | Op::FloatMul
        | Op::FloatDiv
        | Op::FloatPow
        | Op::FloatSqrt
        | Op::FloatCall(_) => 4.0,
        Op::Field(_)
        | Op::ListItem
        | Op::TupleItem
        | Op::ItemAt(_)
        | Op::StoreInline { .. }
        | Op::StoreSlot(_) => 1.5,
        Op::ArrayItem(_) | Op::ArrayStore(_) => 8.0,
        Op::FieldStoreFloat(_) | Op::ListStoreFloat | Op::ListExchange => 4.0,
        Op::NextOfList | Op::NextOfTuple | Op::NextOfRange => 2.0,
        // Of an enumeration, which makes no tuple.
        Op::TupleExchange(_) => 12.0,
        Op::NewInstance(_) => 20.0,
        Op::CallPython { .. } => 2.0,
        Op::BoxInt | Op::BoxFloat => -3.0,
        Op::MakeTuple | Op::MakeList => -2.0,
        // Against a call through the baseline's site.
        Op::ListAppend | Op::ListPop | Op::GuardSized => 5.0,
        Op::Iterator | Op::GuardIdentity => 2.0,
        Op::ReverseItems => 80.0,
        Op::Helper { .. } => {
            let Some(state) = &inst.state else { return 0.0 };
            // Unboxed locals are boxed for whoever looks.
            let boxes = state.locals.iter().chain(&state.stack).filter(|entry| matches!(entry, crate::hir::Entry::Unboxed(v) if graph.ty(*v) != Type::Bool)).count() as f64;
            let code = &job.codes[graph.contexts[state.context as usize].code as usize];
            let opcode =
                match Decoder::starting_at(&code.bytecode, BytecodeOffset(state.offset)).next() {
                    Some(Ok(instruction)) => instruction.opcode,
                    _ => return 0.0,
                };
            let base = match opcode {
                // The baseline has caches for these.
                Opcode::LOAD_ATTR | Opcode::STORE_ATTR => -12.0,
                Opcode::BINARY_OP | Opcode::COMPARE_OP | Opcode::FOR_ITER => -6.0,
                Opcode::CALL => -4.0,
                _ => -2.0,
            };
            base - 3.0 * boxes
        }
        _ => 0.0,
    }
}

/// How many loops each reachable block is in.
fn loop_depths(graph: &Graph) -> Vec<Option<i32>> {
    let dominators = Dominators::new(graph);
    let mut depths = vec![None; graph.blocks.len()];
    for block in &dominators.order {
        depths[block.0 as usize] = Some(0);
    }
    for &from in &dominators.order {
        for head in graph.block(from).end.targets() {
            if !dominators.dominates(head, from) {
                continue;
            }
            let mut body = vec![false; graph.blocks.len()];
            body[head.0 as usize] = true;
            let mut work = vec![from];
            while let Some(BlockId(index)) = work.pop() {
                if !std::mem::replace(&mut body[index as usize], true) {
                    work.extend(graph.blocks[index as usize].preds.iter().copied());
                }
            }
            for (depth, inside) in depths.iter_mut().zip(body) {
                if inside && let Some(depth) = depth {
                    *depth += 1;
                }
            }
        }
    }
    depths
}
