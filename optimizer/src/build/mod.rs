//! From bytecode and feedback to HIR, by abstract interpretation: what the interpreter's locals and operand stack hold is followed at compile time, values unboxed where the
//! feedback says so, known functions inlined.
//!
//! What a loop's phis should be is not known when its head is built. The builder guesses, writes down what it learns in `Hints`, and starts again until nothing is learnt.

mod arith;
mod arrays;
mod attributes;
mod calls;
mod cfg;
mod iteration;
mod join;
mod lists;
mod operators;
mod ops;
mod slices;
mod stack;
mod tuples;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use hotstamp_job::{Code, Job, Known, Object};
use hotstamp_layout::bytecode::Instruction;

use crate::hir::{BlockId, Context, End, Entry, FrameState, Graph, Inst, Op, Reason, Type, Value};
use cfg::Cfg;

/// Why a function is not compiled.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its bytecode makes no sense.
    #[error("the bytecode does not decode")]
    BadBytecode,
    /// An opcode that optimized code does not have.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// As `Unsupported`, with the instruction.
    #[error("{0} is not supported: {1} at {2}")]
    At(&'static str, &'static str, u32),
    /// The graph grew too large.
    #[error("too large")]
    TooLarge,
    /// Building did not come to rest.
    #[error("its types do not settle")]
    Unsettled,
}

/// What an attempt learnt for the next.
#[derive(Debug, Default)]
pub struct Hints {
    /// What a loop's slot should be: (path, head, slot) with locals first, then the operand stack.
    slots: HashMap<(u64, u32, u32), Want>,
    /// Calls (path of the callee) that cannot be inlined.
    not_inlined: HashSet<u64>,
    /// GET_ITER instructions (path, offset) whose range must be a real iterator.
    real_ranges: HashSet<(u64, u32)>,
    /// BUILD_TUPLE instructions (path, offset) whose tuple must be an object.
    real_tuples: HashSet<(u64, u32)>,
}

/// Kinds of a loop's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Int,
    Float,
    Bool,
    MaybeInt,
    MaybeFloat,
    Ref,
}

/// The attempt has to start again: a hint was added.
pub(crate) enum Stop {
    Restart,
    Failed(BuildError),
}

impl From<BuildError> for Stop {
    fn from(error: BuildError) -> Self {
        Stop::Failed(error)
    }
}

pub(crate) type Step<T> = Result<T, Stop>;

/// What is known of values at a point, beyond their types. Of references taken later the keys are their `object_of`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Exact builtin class of a Ref.
    class: HashMap<Value, u64>,
    /// What describes the items of an `array.array`.
    arrays: HashMap<Value, u64>,
    /// Refs that are exact ints or floats.
    numbers: HashSet<Value>,
    /// The unboxed value of a Ref.
    unboxed: HashMap<Value, Value>,
    /// Version tag of a Ref's class. Lost when Python code may run.
    version: HashMap<Value, u32>,
    /// Class objects with their checked version. Lost with `version`.
    class_objects: HashMap<Value, u32>,
    /// Modules with their checked dictionary; lost with `version`, since another module may take the address of a constant.
    module_dicts: HashMap<Value, u64>,
    /// Refs whose inline values are in use; lost with `version`.
    inline: HashSet<Value>,
    /// Refs whose shared keys were compared; lost with `version`.
    keys: HashSet<Value>,
    /// Global cells that were compared; lost with `version`.
    cells: HashSet<u64>,
    /// Functions whose code was compared; lost with `version`.
    functions: HashSet<u64>,
    /// Instances made here that nobody else knows: a field that is not in `fields` is empty. Lost with `version`.
    fresh: HashSet<Value>,
    /// Contents of fields: (object, offset) -> value; lost with `version`, and when another object's field of that offset is stored to.
    fields: HashMap<(Value, u32), Value>,
}

impl Facts {
    /// Python code may have run.
    fn forget_memory(&mut self) {
        self.version.clear();
        self.class_objects.clear();
        self.module_dicts.clear();
        self.inline.clear();
        self.keys.clear();
        self.cells.clear();
        self.functions.clear();
        self.fresh.clear();
        self.fields.clear();
    }

    /// What both know.
    fn meet(&mut self, other: &Facts) {
        self.class
            .retain(|key, value| other.class.get(key) == Some(value));
        self.numbers.retain(|key| other.numbers.contains(key));
        self.arrays
            .retain(|key, value| other.arrays.get(key) == Some(value));
        self.unboxed
            .retain(|key, value| other.unboxed.get(key) == Some(value));
        self.version
            .retain(|key, value| other.version.get(key) == Some(value));
        self.class_objects
            .retain(|key, value| other.class_objects.get(key) == Some(value));
        self.module_dicts
            .retain(|key, value| other.module_dicts.get(key) == Some(value));
        self.inline.retain(|key| other.inline.contains(key));
        self.keys.retain(|key| other.keys.contains(key));
        self.functions.retain(|key| other.functions.contains(key));
        self.fresh.clear();
        self.cells.retain(|key| other.cells.contains(key));
        self.fields
            .retain(|key, value| other.fields.get(key) == Some(value));
    }
}

/// The abstract state of the innermost frame.
#[derive(Clone, Debug)]
pub(crate) struct State {
    locals: Vec<Entry>,
    stack: Vec<Entry>,
    facts: Facts,
}

/// An open end of a block that leads somewhere with a state.
pub(crate) struct Edge {
    block: BlockId,
    state: State,
}

/// A loop whose back edges are still to come.
struct Header {
    block: BlockId,
    /// For each slot what arrives from before, with its phis.
    slots: Vec<HeaderSlot>,
}

#[derive(Clone, Copy, Debug)]
enum HeaderSlot {
    /// Unchanged in the loop.
    Same,
    Phi(Want, Value),
    Maybe(Want, Value, Value),
    Range(Value, Value),
}

/// What belongs to the function being built (the compiled one or an inlined one).
struct Function {
    context: u32,
    code: u32,
    path: u64,
    cfg: Rc<Cfg>,
    parent: Option<Rc<FrameState>>,
    incoming: HashMap<u32, Vec<Edge>>,
    headers: HashMap<u32, Header>,
    /// Operations that may run Python, for which an inlined function gets a frame each time.
    looks: usize,
    /// Open ends with what they return.
    returns: Vec<(Edge, Entry)>,
}

/// See the module.
pub(crate) struct Builder<'j> {
    job: &'j Job,
    hints: &'j mut Hints,
    graph: Graph,
    functions: Vec<Function>,
    state: State,
    block: BlockId,
    /// Whether `block` is open: else what follows is not reached.
    open: bool,
    /// The instruction being built.
    at: Instruction,
    /// The frames before the instruction.
    before: Option<Rc<FrameState>>,
    known: HashMap<u64, Known>,
    objects: HashMap<u64, &'j Object>,
    anchors: BTreeSet<u64>,
    inlined: BTreeSet<u32>,
    /// The BUILD_TUPLE (path, offset) of each tuple that is not there, by its number.
    tuple_sites: HashMap<u32, (u64, u32)>,
    /// The next instruction was built with the one in front of it.
    skip: bool,
    /// Of the current instruction: whether something died in a way that somebody may have seen. What is known of memory counts on that it did not.
    destroyed: Vec<Value>,
    /// Why the attempt ends, noted where no error can be returned.
    stop: Option<Stop>,
}

/// A built graph with what it depends on.
pub struct Built {
    /// The graph.
    pub graph: Graph,
    /// Functions that must stay alive.
    pub anchors: Vec<u64>,
    /// Codes that were inlined.
    pub inlined: Vec<u32>,
}

/// Most instructions of a graph.
const GRAPH_LIMIT: usize = 20_000;

/// Most attempts.
const ATTEMPTS: usize = 40;

/// Builds the graph of a job.
///
/// # Errors
/// Why the function stays in its tier.
pub fn build(job: &Job) -> Result<Built, BuildError> {
    let mut hints = Hints::default();
    for _ in 0..ATTEMPTS {
        let builder = Builder::new(job, &mut hints);
        match builder.run() {
            Ok(built) => return Ok(built),
            Err(Stop::Restart) => {}
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
    Err(BuildError::Unsettled)
}

impl<'j> Builder<'j> {
    fn new(job: &'j Job, hints: &'j mut Hints) -> Self {
        let mut known = HashMap::new();
        for constant in job.codes.iter().flat_map(|code| &code.constants) {
            known.insert(constant.address, constant.value);
        }
        for object in &job.objects {
            if let hotstamp_job::ObjectKind::Value(value) = object.kind {
                known.insert(object.address, value);
            }
        }
        known.insert(job.process.none_object, Known::None);
        known.insert(job.process.true_object, Known::Bool(true));
        known.insert(job.process.false_object, Known::Bool(false));
        let objects = job
            .objects
            .iter()
            .map(|object| (object.address, object))
            .collect();
        Builder {
            job,
            hints,
            graph: Graph::default(),
            functions: Vec::new(),
            state: State {
                locals: Vec::new(),
                stack: Vec::new(),
                facts: Facts::default(),
            },
            block: BlockId(0),
            open: true,
            at: NO_INSTRUCTION,
            before: None,
            known,
            objects,
            anchors: BTreeSet::new(),
            inlined: BTreeSet::new(),
            tuple_sites: HashMap::new(),
            skip: false,
            destroyed: Vec::new(),
            stop: None,
        }
    }

    fn run(mut self) -> Step<Built> {
        let code = &self.job.codes[0];
        let entry = self.job.entry;
        if !code.plain_start {
            return Err(BuildError::Unsupported("a function with cells").into());
        }
        self.block = self.graph.new_block();
        // At a loop head of CPython's, the operand stack holds the iterators of the loops around it.
        let depth = if entry == 0 {
            0
        } else {
            depth_at(&code.bytecode, entry).ok_or(BuildError::BadBytecode)?
        };
        let slots = code.nlocalsplus as usize;
        for index in 0..slots + depth {
            let unbound = entry == 0 && index >= code.parameters as usize;
            let entry = if unbound {
                Entry::Null
            } else {
                Entry::Owned(self.emit(Op::Slot(index as u32), Type::Ref, &[]))
            };
            if index < slots {
                self.state.locals.push(entry);
            } else {
                self.state.stack.push(entry);
            }
        }
        let state = self.state.clone();
        self.enter_function(0, None, 0, 0, entry, state)?;
        for (edge, value) in std::mem::take(&mut self.function_mut().returns) {
            self.resume_edge(edge);
            self.finish_return(value);
        }
        if let Some(stop) = self.stop.take() {
            return Err(stop);
        }
        Ok(Built {
            graph: self.graph,
            anchors: self.anchors.into_iter().collect(),
            inlined: self.inlined.into_iter().collect(),
        })
    }

    /// Builds all blocks of a function whose frame is `state`; leaves it on `functions` with its returns.
    fn enter_function(
        &mut self,
        code: u32,
        parent: Option<(u32, u32, Rc<FrameState>)>,
        function: u64,
        path: u64,
        entry: u32,
        state: State,
    ) -> Step<()> {
        let job: &'j Job = self.job;
        let depth = state.stack.len();
        let cfg = Rc::new(
            Cfg::new(&job.codes[code as usize].bytecode, entry, depth).map_err(
                |error| match error {
                    cfg::CfgError::BadBytecode => BuildError::BadBytecode,
                    cfg::CfgError::Irreducible => {
                        BuildError::Unsupported("a loop entered in its middle")
                    }
                },
            )?,
        );
        let context = self.graph.contexts.len() as u32;
        self.graph.contexts.push(Context {
            code,
            parent: parent
                .as_ref()
                .map(|(context, offset, _)| (*context, *offset)),
            function,
            path,
        });
        let order = cfg.order.clone();
        self.functions.push(Function {
            context,
            code,
            path,
            cfg: cfg.clone(),
            parent: parent.map(|(_, _, state)| state),
            incoming: HashMap::new(),
            headers: HashMap::new(),
            looks: 0,
            returns: Vec::new(),
        });
        let first = Edge {
            block: self.block,
            state,
        };
        self.function_mut().incoming.insert(entry, vec![first]);
        for leader in order {
            let Some(edges) = self.function_mut().incoming.remove(&leader) else {
                continue;
            };
            if cfg.loops.contains_key(&leader) {
                self.open_loop(leader, edges)?;
            } else {
                self.join(edges)?;
            }
            if let Some(stop) = self.stop.take() {
                return Err(stop);
            }
            let mut next = leader;
            for &instruction in cfg.block(leader) {
                self.at = instruction;
                next = instruction.next.0;
                if self.graph.insts.len() > GRAPH_LIMIT {
                    return Err(BuildError::TooLarge.into());
                }
                let mut result = self.instruction();
                if let Some(stop) = self.stop.take() {
                    result = Err(stop);
                }
                if let Err(Stop::Failed(BuildError::Unsupported(what))) = result {
                    return Err(
                        BuildError::At(what, self.at.opcode.name(), self.at.offset.0).into(),
                    );
                }
                result?;
                if !self.open {
                    self.destroyed.clear();
                    break;
                }
                self.settle();
            }
            if self.open {
                self.go_to(next)?;
            }
            if let Some(stop) = self.stop.take() {
                return Err(stop);
            }
        }
        Ok(())
    }

    fn function(&self) -> &Function {
        self.functions.last().expect("a function is being built")
    }

    fn function_mut(&mut self) -> &mut Function {
        self.functions
            .last_mut()
            .expect("a function is being built")
    }

    pub(crate) fn code(&self) -> &'j Code {
        let job: &'j Job = self.job;
        &job.codes[self.function().code as usize]
    }

    /// Whether the innermost frame is an inlined one.
    fn is_inlined(&self) -> bool {
        self.function().parent.is_some()
    }

    /// Whether a guard of the current instruction failed before.
    fn failed(&self) -> bool {
        self.failed_at(self.at.offset.0)
    }

    fn failed_at(&self, offset: u32) -> bool {
        self.job.failed.contains(&(self.code().address, offset))
    }

    // ---- emitting ----

    pub(crate) fn emit(&mut self, op: Op, ty: Type, args: &[Value]) -> Value {
        debug_assert!(self.open);
        self.graph.push(
            self.block,
            Inst {
                op,
                ty,
                args: args.to_vec(),
                state: None,
            },
        )
    }

    /// Emits what may leave to the instruction it belongs to.
    pub(crate) fn emit_guarded(&mut self, op: Op, ty: Type, args: &[Value]) -> Value {
        let state = Some(self.before());
        self.graph.push(
            self.block,
            Inst {
                op,
                ty,
                args: args.to_vec(),
                state,
            },
        )
    }

    /// Emits with the frames as they are now.
    pub(crate) fn emit_here(&mut self, op: Op, ty: Type, args: &[Value]) -> Value {
        let state = Some(self.frame_state(self.at.offset.0));
        self.graph.push(
            self.block,
            Inst {
                op,
                ty,
                args: args.to_vec(),
                state,
            },
        )
    }

    /// The frames before the current instruction.
    fn before(&mut self) -> Rc<FrameState> {
        if let Some(state) = &self.before {
            return state.clone();
        }
        let state = self.frame_state(self.at.start.0);
        self.before = Some(state.clone());
        state
    }

    /// The frames as they are now, the innermost at a bytecode offset.
    fn frame_state(&self, offset: u32) -> Rc<FrameState> {
        let function = self.function();
        Rc::new(FrameState {
            context: function.context,
            offset,
            locals: self.state.locals.clone(),
            stack: self.state.stack.clone(),
            instance: None,
            drops_result: false,
            parent: function.parent.clone(),
        })
    }

    /// Ends the current block by leaving in front of the current instruction.
    pub(crate) fn leave(&mut self, reason: Reason) {
        let state = self.before();
        self.graph.block_mut(self.block).state = Some(state);
        self.graph.end(self.block, End::Exit(reason));
        self.open = false;
    }

    fn resume_edge(&mut self, edge: Edge) {
        self.block = edge.block;
        self.state = edge.state;
        self.open = true;
    }

    /// Goes to another block of the function with the state as it is.
    pub(crate) fn go_to(&mut self, offset: u32) -> Step<()> {
        debug_assert!(self.open);
        self.give_up_memory();
        self.open = false;
        if self.function().headers.contains_key(&offset) {
            return self.close_loop(offset);
        }
        let edge = Edge {
            block: self.block,
            state: self.state.clone(),
        };
        self.function_mut()
            .incoming
            .entry(offset)
            .or_default()
            .push(edge);
        Ok(())
    }

    /// Branches within an instruction: two open blocks with the same state.
    pub(crate) fn fork(&mut self, condition: Value, odds: u8) -> (Edge, Edge) {
        self.give_up_memory();
        let (yes, no) = (self.graph.new_block(), self.graph.new_block());
        self.graph
            .end(self.block, End::Branch(condition, yes, no, odds));
        self.open = false;
        (
            Edge {
                block: yes,
                state: self.state.clone(),
            },
            Edge {
                block: no,
                state: self.state.clone(),
            },
        )
    }

    /// Returns from the compiled function.
    fn finish_return(&mut self, value: Entry) {
        let value = self.take_owned(value);
        let locals: Vec<Value> = self
            .state
            .locals
            .iter()
            .rev()
            .filter_map(|entry| match entry {
                Entry::Owned(local) => Some(*local),
                _ => None,
            })
            .collect();
        let state = self.frame_state(self.at.offset.0);
        self.graph.block_mut(self.block).state = Some(state);
        self.graph.end(self.block, End::Return(value, locals));
        self.open = false;
    }
}

/// Depth of the operand stack in front of an instruction, by a walk from the start.
fn depth_at(bytecode: &[u8], offset: u32) -> Option<usize> {
    let cfg = Cfg::new(bytecode, 0, 0).ok()?;
    let mut depths = HashMap::from([(0u32, 0i32)]);
    for &leader in &cfg.order {
        let mut at = *depths.get(&leader)?;
        for instruction in cfg.block(leader) {
            if instruction.start.0 == offset {
                return Some(at as usize);
            }
            let effect = instruction.opcode.stack_effect(instruction.oparg)?;
            if let Some(target) = instruction.taken_target() {
                let there = if instruction.opcode == hotstamp_layout::opcode::Opcode::FOR_ITER {
                    at
                } else {
                    at + effect
                };
                depths.entry(target.0).or_insert(there);
            }
            at += effect;
            depths.entry(instruction.next.0).or_insert(at);
        }
    }
    None
}

const NO_INSTRUCTION: Instruction = Instruction {
    start: hotstamp_layout::bytecode::BytecodeOffset(0),
    offset: hotstamp_layout::bytecode::BytecodeOffset(0),
    opcode: hotstamp_layout::opcode::Opcode::NOP,
    oparg: 0,
    next: hotstamp_layout::bytecode::BytecodeOffset(0),
};
