//! The verifier: what must hold of every graph, checked after every pass in tests and debug builds.

use super::{BlockId, End, Entry, FrameState, Graph, Op, Type, Value};

/// A broken rule.
#[derive(Debug, thiserror::Error)]
#[error("HIR is broken in {block}: {what}")]
pub struct Broken {
    block: BlockId,
    what: String,
}

/// Checks a graph.
///
/// # Errors
/// The first rule found broken.
pub fn verify(graph: &Graph) -> Result<(), Broken> {
    let dominators = Dominators::new(graph);
    let mut defined_in = vec![None; graph.insts.len()];
    for (index, block) in graph.blocks.iter().enumerate() {
        for (place, &value) in block.insts.iter().enumerate() {
            defined_in[value.0 as usize] = Some((BlockId(index as u32), place));
        }
    }
    for &id in &dominators.order {
        let block = graph.block(id);
        let broken = |what: String| Broken { block: id, what };
        let available = |value: Value, at: BlockId, place: usize| match defined_in[value.0 as usize]
        {
            None => false,
            Some((block, defined)) if block == at => defined < place,
            Some((block, _)) => dominators.dominates(block, at),
        };
        let state_values = |state: &FrameState| -> Vec<(Value, Option<Type>)> {
            let mut all = Vec::new();
            let mut next = Some(state);
            while let Some(state) = next {
                let mut entries: Vec<&Entry> = state.locals.iter().chain(&state.stack).collect();
                while let Some(entry) = entries.pop() {
                    if let Entry::Tuple(tuple) = entry {
                        entries.extend(&graph.tuples[*tuple as usize].items);
                    }
                    let want = match entry {
                        Entry::Owned(_) | Entry::Borrowed(_) | Entry::Lent(_) => Some(Type::Ref),
                        _ => None,
                    };
                    all.extend(entry.values().map(|value| (value, want)));
                }
                all.extend(state.instance.map(|value| (value, Some(Type::Ref))));
                next = state.parent.as_deref();
            }
            all
        };
        for (place, &value) in block.insts.iter().enumerate() {
            let inst = graph.inst(value);
            if inst.op == Op::Phi {
                if inst.args.len() != block.preds.len() {
                    return Err(broken(format!(
                        "{value} has {} operands for {} predecessors",
                        inst.args.len(),
                        block.preds.len()
                    )));
                }
                for (&arg, &pred) in inst.args.iter().zip(&block.preds) {
                    if !available(arg, pred, usize::MAX) {
                        return Err(broken(format!("{value}: {arg} does not reach from {pred}")));
                    }
                    if graph.ty(arg) != inst.ty {
                        return Err(broken(format!(
                            "{value}: {arg} is {:?}, not {:?}",
                            graph.ty(arg),
                            inst.ty
                        )));
                    }
                }
                continue;
            }
            for &arg in &inst.args {
                if !available(arg, id, place) {
                    return Err(broken(format!("{value}: {arg} is not available")));
                }
            }
            if let Some(state) = &inst.state {
                for (used, want) in state_values(state) {
                    if !available(used, id, place) {
                        return Err(broken(format!("state of {value}: {used} is not available")));
                    }
                    if want.is_some_and(|want| want != graph.ty(used)) {
                        return Err(broken(format!(
                            "state of {value}: {used} is {:?}",
                            graph.ty(used)
                        )));
                    }
                }
            }
        }
        let last = block.insts.len();
        let mut used = match &block.end {
            End::None => return Err(broken("it does not end".into())),
            End::Branch(value, ..) => vec![*value],
            End::Return(value, locals) => std::iter::once(*value)
                .chain(locals.iter().copied())
                .collect(),
            _ => Vec::new(),
        };
        if let Some(state) = &block.state {
            used.extend(state_values(state).into_iter().map(|(value, _)| value));
        }
        for value in used {
            if !available(value, id, last) {
                return Err(broken(format!(
                    "its end uses {value}, which is not available"
                )));
            }
        }
        for target in block.end.targets() {
            if !graph.block(target).preds.contains(&id) {
                return Err(broken(format!("{target} does not know it as predecessor")));
            }
        }
    }
    Ok(())
}

/// Dominator tree of the reachable blocks (Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm").
pub struct Dominators {
    /// Reachable blocks in reverse postorder.
    pub order: Vec<BlockId>,
    number: Vec<Option<usize>>,
    idom: Vec<usize>,
}

impl Dominators {
    /// Computes them.
    pub fn new(graph: &Graph) -> Self {
        let mut post = Vec::new();
        let mut seen = vec![false; graph.blocks.len()];
        let mut work = vec![(BlockId(0), 0)];
        seen[0] = true;
        while let Some((block, next)) = work.pop() {
            let targets = graph.block(block).end.targets();
            if let Some(&target) = targets.get(next) {
                work.push((block, next + 1));
                if !seen[target.0 as usize] {
                    seen[target.0 as usize] = true;
                    work.push((target, 0));
                }
            } else {
                post.push(block);
            }
        }
        post.reverse();
        let mut number = vec![None; graph.blocks.len()];
        for (index, block) in post.iter().enumerate() {
            number[block.0 as usize] = Some(index);
        }
        let mut idom = vec![usize::MAX; post.len()];
        idom[0] = 0;
        let mut changed = true;
        while changed {
            changed = false;
            for (index, &block) in post.iter().enumerate().skip(1) {
                let mut best = usize::MAX;
                for pred in &graph.block(block).preds {
                    let Some(mut other) = number[pred.0 as usize] else {
                        continue;
                    };
                    if idom[other] == usize::MAX {
                        continue;
                    }
                    if best == usize::MAX {
                        best = other;
                        continue;
                    }
                    let mut mine = best;
                    while mine != other {
                        while mine > other {
                            mine = idom[mine];
                        }
                        while other > mine {
                            other = idom[other];
                        }
                    }
                    best = mine;
                }
                if idom[index] != best {
                    idom[index] = best;
                    changed = true;
                }
            }
        }
        Dominators {
            order: post,
            number,
            idom,
        }
    }

    /// Whether every way to `b` leads through `a`.
    pub fn dominates(&self, a: BlockId, b: BlockId) -> bool {
        let (Some(a), Some(mut b)) = (self.number[a.0 as usize], self.number[b.0 as usize]) else {
            return false;
        };
        while b > a {
            b = self.idom[b];
        }
        a == b
    }
}
