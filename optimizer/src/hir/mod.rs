//! HIR: the optimizer's intermediate representation, SSA with types.
//!
//! A graph is a list of basic blocks of instructions; an instruction is the value it gives. Everything that may leave compiled code carries a frame state: for each frame, inlined
//! ones too, the bytecode offset and where each local and operand-stack entry lives, unboxed values included.
//!
//! `Ref` values are `StackRef` bits, as the baseline tier has them: the lowest bit set means that the value owns nothing.

pub mod print;
pub mod verify;

use std::rc::Rc;

pub use hotstamp_job::ArrayItems;
pub use hotstamp_job::artifact::Reason;

/// A value: the index of the instruction that gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// A basic block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `StackRef` bits.
    Ref,
    /// Unboxed int, 64 bits.
    Int,
    /// Unboxed float.
    Float,
    /// Truth value.
    Bool,
    /// A frame or another raw address.
    Pointer,
    /// No value.
    Void,
}

/// Comparisons; of floats a NaN makes all but `Ne` false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Cond {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// What an instruction does. Operands are in `Inst::args`, in the order the comments give.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    // ---- constants and entries ----
    /// `StackRef` bits.
    ConstRef(u64),
    /// An int.
    ConstInt(i64),
    /// A float.
    ConstFloat(f64),
    /// A truth value.
    ConstBool(bool),
    /// What the outer frame's slot holds at the entry (locals, then the operand stack).
    Slot(u32),
    /// One operand for each predecessor, in their order.
    Phi,

    // ---- ints ----
    /// Addition; leaves on overflow.
    IntAdd,
    /// Subtraction; leaves on overflow.
    IntSub,
    /// Multiplication; leaves on overflow.
    IntMul,
    /// Floor division by what is neither 0 nor -1 (guarded before).
    IntFloorDiv,
    /// Modulo with the divisor's sign; as `IntFloorDiv`.
    IntMod,
    /// Bitwise and.
    IntAnd,
    /// Bitwise or.
    IntOr,
    /// Bitwise exclusive or.
    IntXor,
    /// Shift left; leaves unless 0 <= count < 63 and nothing is lost.
    IntShl,
    /// Arithmetic shift right; leaves if the count is negative.
    IntShr,
    /// Wrapping addition, where the ranges are known (loop counters).
    IntAddWrapping,
    /// Whether 0 <= a < b.
    IntBelow,
    /// Wrapping subtraction, where the ranges are known.
    IntSubWrapping,
    /// Comparison of ints.
    IntCmp(Cond),

    // ---- floats ----
    /// Addition.
    FloatAdd,
    /// Subtraction.
    FloatSub,
    /// Multiplication.
    FloatMul,
    /// Division by what is not zero (guarded before).
    FloatDiv,
    /// Negation.
    FloatNeg,
    /// Absolute value.
    FloatAbs,
    /// Square root of what is not negative (guarded before).
    FloatSqrt,
    /// Comparison.
    FloatCmp(Cond),
    /// From an int whose absolute value is at most 2**53 (guarded before).
    IntToFloat,
    /// C's `pow` of a positive base (guarded before).
    FloatPow,
    /// A C function of one float without errors for finite operands (guarded before): its address.
    FloatCall(u64),

    /// Arithmetic of exact ints and floats by the runtime (owned result); leaves for anything else, and where it raises. BINARY_OP's argument.
    NumberOp(u32),

    // ---- bools ----
    /// Negation.
    BoolNot,
    /// Both.
    BoolAnd,
    /// One or both.
    BoolOr,
    /// The truth of an object: of None, True, False, exact ints, floats, strings, lists, tuples and dicts; leaves for others.
    Truth,
    /// Whether two `Ref`s are the same object.
    Same,
    /// One of two values: condition, then, else (of one type).
    Select,

    // ---- boxes ----
    /// A new int object (owned).
    BoxInt,
    /// A new float object (owned).
    BoxFloat,
    /// True or False.
    BoxBool,
    /// An object for an unboxed value if the flag says so, else null: flag, value (owned).
    BoxMaybe,
    /// The int in an exact int of at most two digits; leaves otherwise.
    UnboxInt,
    /// The float in an exact float; leaves otherwise.
    UnboxFloat,
    /// The float in an exact float, or the value of an exact int of at most one digit; leaves otherwise.
    UnboxNumber,
    /// Whether one of two objects is an exact float.
    EitherFloat,

    // ---- guards ----
    /// Whether the object's class has this version tag.
    VersionIs(u32),
    /// Leaves unless the operand is true.
    Guard(Reason),
    /// Leaves unless the object's class is this one exactly.
    GuardClass(u64),
    /// Leaves unless the object is an `array.array` (the class) whose items are described so.
    GuardArray(u64, u64),
    /// Leaves unless the object's class has this version tag.
    GuardVersion(u32),
    /// Leaves unless the operand is a class whose metaclass is `type`, with this version tag.
    GuardClassObject(u32),
    /// Leaves unless the object's inline values are in use: byte offset of the flag.
    GuardInline(u32),
    /// Leaves if the instance's dictionary was asked for.
    GuardNoDict,
    /// Leaves unless the shared keys of the object's class are this many.
    GuardKeys(u64),
    /// Leaves unless the word at an address holds this object: address of the cell, object.
    GuardCell(u64, u64),
    /// Leaves unless the function has this code object and these globals.
    GuardFunction(u64, u64),
    /// Leaves if another evaluator was installed (PEP 523).
    GuardEvaluator,
    /// Leaves if the operand is null.
    GuardBound,

    // ---- memory ----
    /// Stores the bits of a local into the outer frame: its memory is true for locals that are references or unbound.
    StoreLocal(u32),
    /// The object at a byte offset of an object, borrowed; leaves if null.
    Field(u32),
    /// What a global cell holds, borrowed; leaves if empty.
    Cell(u64),
    /// Item of a list: list, index (not negative); borrowed; leaves if out of range.
    ListItem,
    /// Item of a tuple: as `ListItem`.
    TupleItem,
    /// Item of an `array.array` with such items: array, index; leaves if out of range.
    ArrayItem(ArrayItems),
    /// Stores an item of an `array.array`: array, index (inside, guarded before), an int that fits or a float.
    ArrayStore(ArrayItems),
    /// Adds an item (owned) to a list.
    ListAppend,
    /// Takes the last item (owned) out of a list; leaves if there is none.
    ListPop,
    /// A new list (owned) of the operands (owned), which move.
    MakeList,
    /// A new iterator (owned) over what is exactly a list or a tuple (guarded before).
    Iterator,
    /// Leaves unless the object's class leaves comparisons to `object`.
    GuardIdentity,
    /// Leaves unless the object is exactly a list, tuple, str or dict: its size stands where `Length` looks.
    GuardSized,
    /// Reverses the first items of a list: list, how many (not more than there are).
    ReverseItems,
    /// A new list (owned) of the items of a list from an index (inside) on to the first.
    ListBackwards,
    /// Exchanges an item of a list: list, index (inside, guarded before), value (owned); gives the old item (owned).
    ListExchange,
    /// Leaves unless the operand is exactly a list or a tuple with this many items; gives the address of the items.
    Items(u32),
    /// The object at an index behind an address, borrowed.
    ItemAt(u32),
    /// Stores a float into a list: list, index (inside, guarded before), float. A float object that nobody else has is overwritten.
    ListStoreFloat,
    /// Stores a float as an attribute: object, float; as `StoreInline` or `StoreSlot` with the old value there and a float, else leaves to a new object. Byte offset.
    FieldStoreFloat(u32),
    /// Number of items of a list or tuple, as an int.
    Length,
    /// Stores an attribute: object, value (owned); offset of the value, of the `valid` flag, index among the keys. Gives the old value (owned, or null).
    StoreInline {
        /// Byte offset of the value in the object.
        offset: u32,
        /// Byte offset of the flag that inline values are in use.
        valid: u32,
        /// Index among the shared keys.
        index: u32,
    },
    /// Stores a slot: object, value (owned); byte offset. Gives the old value (owned, or null).
    StoreSlot(u32),
    /// The next item of a list iterator (borrowed), null when exhausted; the iterator's class was guarded.
    NextOfList,
    /// As `NextOfList`, of a tuple iterator.
    NextOfTuple,
    /// Takes the sequence out of an exhausted list or tuple iterator (owned, or null).
    TakeSequence,
    /// The 64-bit word at a byte offset of an object.
    Word(u32),
    /// Stores a word: object, int.
    SetWord(u32),
    /// Leaves unless somebody else has no reference to the object.
    GuardUnique,
    /// Exchanges an item of a tuple that nobody sees (guarded before), by its index: tuple, value (owned); gives the old item (owned). The collector knows the tuple afterwards.
    TupleExchange(u32),
    /// A word of a range iterator object: 0 the next value, 1 the step, 2 how many are left.
    RangeWord(u32),
    /// The next value of a range iterator object that has one; advances it.
    NextOfRange,

    // ---- references ----
    /// A new reference to the object: bits that own, unless it is immortal.
    Own,
    /// The bits without ownership.
    Borrow,
    /// Releases what the bits own; a destructor may run, with the frames as the state says. Where it gives a bool: whether somebody may have seen that.
    Release,

    // ---- calls and control of the thread ----
    /// Runs a memory helper of the baseline at a site, with all operands in the frame: operands are the instruction's inputs (owned); `outputs` values are left on
    /// the frame's operand stack. Gives the helper's result (an int).
    Helper {
        /// The site.
        site: u64,
        /// The helper.
        helper: u64,
        /// Entries of the operand stack that the inputs take.
        inputs: u32,
    },
    /// An output of a `Helper`: how far from the operand stack's base.
    HelperOutput(u32),
    /// Calls a stamped Python function with its exact positional arguments (owned), which move: function object, `CodeData`. The first operand is the function (owned).
    CallPython {
        /// `CodeData` of the callee.
        data: u64,
        /// Words of its frame.
        frame_words: u32,
        /// Locals, cells and free variables.
        nlocalsplus: u32,
        /// Its code object.
        code: u64,
        /// Its globals.
        globals: u64,
        /// Its builtins.
        builtins: u64,
        /// First code unit.
        start: u64,
    },
    /// A new tuple of the operands (owned), which move.
    MakeTuple,
    /// A new instance of a class made by `object.__new__` (owned); the class.
    NewInstance(u64),
    /// Leaves if something is pending.
    Poll,
}

/// How a block ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Not built yet.
    None,
    /// To a block.
    Jump(BlockId),
    /// By a truth value: then, else; how likely then is, of 256 (128: unknown).
    Branch(Value, BlockId, BlockId, u8),
    /// Returns a value (owned) from the outer frame. Locals that own references, to be released in this order, after the frame is unlinked.
    Return(Value, Vec<Value>),
    /// Leaves.
    Exit(Reason),
}

/// A frame of a compilation: the function itself or an inlined call.
#[derive(Clone, Debug)]
pub struct Context {
    /// Index of the code in the job.
    pub code: u32,
    /// The calling context and the offset of its call.
    pub parent: Option<(u32, u32)>,
    /// The function object, for inlined frames.
    pub function: u64,
    /// Names the context across rebuilds.
    pub path: u64,
}

/// Where a local or an entry of the operand stack lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry {
    /// Unbound, or a null on the stack.
    Null,
    /// A value of type Ref that owns.
    Owned(Value),
    /// A value of type Ref that somebody else keeps alive; the slot borrows.
    Borrowed(Value),
    /// A value of type Ref that somebody else keeps alive; the slot would own.
    Lent(Value),
    /// An unboxed value.
    Unboxed(Value),
    /// An unboxed value, if the flag (a bool) says so: flag, value.
    Maybe(Value, Value),
    /// A range iterator: next value, how many are left, step.
    Range(Value, Value, i64),
    /// A tuple that is not there: index into `Graph::tuples`.
    Tuple(u32),
    /// A list that is not there: the items of a list from an index on to the first.
    Backwards(Value, Value),
}

/// A tuple that is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuple {
    /// Copies of one tuple have the same number.
    pub origin: u32,
    /// Its items: references or unboxed values.
    pub items: Vec<Entry>,
}

impl Entry {
    /// The values that the entry needs, but for the items of a tuple.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        let (a, b) = match *self {
            Entry::Null | Entry::Tuple(_) => (None, None),
            Entry::Owned(v) | Entry::Borrowed(v) | Entry::Lent(v) | Entry::Unboxed(v) => {
                (Some(v), None)
            }
            Entry::Maybe(flag, value) => (Some(flag), Some(value)),
            Entry::Range(next, left, _) => (Some(next), Some(left)),
            Entry::Backwards(list, last) => (Some(list), Some(last)),
        };
        a.into_iter().chain(b)
    }
}

/// One frame at one point.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameState {
    /// Which context.
    pub context: u32,
    /// Bytecode offset: in the innermost frame the instruction to execute (again), in the others the call.
    pub offset: u32,
    /// Locals, cells and free variables.
    pub locals: Vec<Entry>,
    /// The operand stack.
    pub stack: Vec<Entry>,
    /// The instance that the call in progress makes (owned): it takes the place of `__init__`'s result.
    pub instance: Option<Value>,
    /// The call in progress is of a method whose result is dropped (STORE_SUBSCR).
    pub drops_result: bool,
    /// The caller, for inlined frames.
    pub parent: Option<Rc<FrameState>>,
}

impl FrameState {
    /// The frames, outermost first.
    pub fn chain(&self) -> Vec<&FrameState> {
        let mut chain: Vec<_> =
            std::iter::successors(Some(self), |state| state.parent.as_deref()).collect();
        chain.reverse();
        chain
    }
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Inst {
    /// What it does.
    pub op: Op,
    /// Type of its value.
    pub ty: Type,
    /// Operands.
    pub args: Vec<Value>,
    /// Frames where it may leave or somebody may look.
    pub state: Option<Rc<FrameState>>,
}

/// A basic block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Instructions, phis first.
    pub insts: Vec<Value>,
    /// How it ends.
    pub end: End,
    /// State of an `End::Exit`, or of destructors in `End::Return`.
    pub state: Option<Rc<FrameState>>,
    /// Predecessors, in the order of phi operands.
    pub preds: Vec<BlockId>,
    /// Never or hardly ever executed.
    pub cold: bool,
}

/// A function in HIR.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// All instructions; not all need be in blocks.
    pub insts: Vec<Inst>,
    /// The first is the entry.
    pub blocks: Vec<Block>,
    /// The first is the compiled function.
    pub contexts: Vec<Context>,
    /// Tuples that are not there.
    pub tuples: Vec<Tuple>,
}

impl Graph {
    /// A new, empty block.
    pub fn new_block(&mut self) -> BlockId {
        self.blocks.push(Block {
            insts: Vec::new(),
            end: End::None,
            state: None,
            preds: Vec::new(),
            cold: false,
        });
        BlockId(self.blocks.len() as u32 - 1)
    }

    /// Adds an instruction to a block's end.
    pub fn push(&mut self, block: BlockId, inst: Inst) -> Value {
        let value = Value(self.insts.len() as u32);
        self.insts.push(inst);
        self.blocks[block.0 as usize].insts.push(value);
        value
    }

    /// The instruction of a value.
    pub fn inst(&self, value: Value) -> &Inst {
        &self.insts[value.0 as usize]
    }

    /// See `inst`.
    pub fn inst_mut(&mut self, value: Value) -> &mut Inst {
        &mut self.insts[value.0 as usize]
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> Type {
        self.inst(value).ty
    }

    /// A block.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.0 as usize]
    }

    /// See `block`.
    pub fn block_mut(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.0 as usize]
    }

    /// Ends a block, and enters it as predecessor where it goes.
    pub fn end(&mut self, block: BlockId, end: End) {
        for target in end.targets() {
            self.block_mut(target).preds.push(block);
        }
        self.block_mut(block).end = end;
    }
}

impl End {
    /// Where control goes.
    pub fn targets(&self) -> Vec<BlockId> {
        match *self {
            End::Jump(to) => vec![to],
            End::Branch(_, yes, no, _) => vec![yes, no],
            _ => Vec::new(),
        }
    }
}

impl Op {
    /// Whether the instruction may be left out if nobody uses its value, and computed anywhere its operands are.
    pub fn is_pure(&self) -> bool {
        matches!(
            self,
            Op::ConstRef(_)
                | Op::ConstInt(_)
                | Op::ConstFloat(_)
                | Op::ConstBool(_)
                | Op::Slot(_)
                | Op::Phi
                | Op::IntFloorDiv
                | Op::IntMod
                | Op::IntAnd
                | Op::IntOr
                | Op::IntXor
                | Op::IntAddWrapping
                | Op::IntSubWrapping
                | Op::IntCmp(_)
                | Op::IntBelow
                | Op::FloatAdd
                | Op::FloatSub
                | Op::FloatMul
                | Op::FloatDiv
                | Op::FloatNeg
                | Op::FloatAbs
                | Op::FloatSqrt
                | Op::FloatCmp(_)
                | Op::IntToFloat
                | Op::FloatPow
                | Op::FloatCall(_)
                | Op::BoolNot
                | Op::BoolAnd
                | Op::BoolOr
                | Op::Same
                | Op::Select
                | Op::BoxBool
                | Op::Borrow
        )
    }
}
