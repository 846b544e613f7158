//! What crosses between the extension and the optimizer's shared object: a job in, an artifact's metadata out, both plain data in postcard's format.
//!
//! Python objects cross as opaque addresses only. Whoever builds a job holds the GIL; whoever reads one must not touch what the addresses point to.

pub mod artifact;

use serde::{Deserialize, Serialize};

pub use artifact::{Action, ExitPlan, FramePlan, Metadata, Mode, Source};

/// A function to compile, with everything that may be known about it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// Names the job in results and logs.
    pub id: u64,
    /// Code objects: the first is compiled, the others may be inlined.
    pub codes: Vec<Code>,
    /// What is known of objects that sites and constants name.
    pub objects: Vec<Object>,
    /// Bytecode offset of the loop head at which the code is entered, with a linked frame; 0 for a call.
    pub entry: u32,
    /// Where things are in this process.
    pub process: Process,
    /// Memory helpers of the baseline by opcode, 0 where there is none.
    pub memory_helpers: Vec<u64>,
    /// What to do and what not.
    pub options: Options,
    /// Guards that failed before: code address, bytecode offset. Their instructions take the general way. With `DESTROYED`: what was known of memory in front of the instruction.
    pub failed: Vec<(u64, u32)>,
}

impl Job {
    /// The memory helper of an opcode, or 0.
    pub fn memory_helper(&self, opcode: u8) -> u64 {
        self.memory_helpers
            .get(usize::from(opcode))
            .copied()
            .unwrap_or(0)
    }
}

/// How the reason of a refusal begins that may not hold when more of the function was executed.
pub const NOT_WORTH_IT: &str = "not worth it";

/// Switches, from environment variables.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Options {
    /// Inline Python functions (`HOTSTAMP_INLINE`).
    pub inline: bool,
    /// Use what the sites have seen (`HOTSTAMP_FEEDBACK`).
    pub feedback: bool,
    /// An instruction that was never executed becomes an exit; else it takes the general way.
    pub traps: bool,
    /// Texts to give back in the metadata (`HOTSTAMP_DUMP`).
    pub dump_hir: bool,
    /// See `dump_hir`.
    pub dump_llvm: bool,
    /// See `dump_hir`.
    pub dump_asm: bool,
    /// Code that saves less than this (about nanoseconds a call) is refused.
    pub least_gain: f64,
    /// Verify HIR and LLVM IR.
    pub verify: bool,
    /// LLVM's pipeline; empty for the default.
    pub pipeline: String,
}

/// A code object, and the data that the baseline tier made for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Code {
    /// `module:qualname` as logs show it.
    pub name: String,
    /// The code object.
    pub address: u64,
    /// Its `CodeData`.
    pub data: u64,
    /// Globals it was stamped for.
    pub globals: u64,
    /// Builtins it was stamped for.
    pub builtins: u64,
    /// First code unit in memory, for `instr_ptr`.
    pub start: u64,
    /// Bytecode in its base form.
    pub bytecode: Vec<u8>,
    /// `co_consts`.
    pub constants: Vec<Constant>,
    /// Locals, cells and free variables.
    pub nlocalsplus: u32,
    /// `co_argcount`.
    pub argcount: u32,
    /// Locals that are bound when a call begins: all parameters.
    pub parameters: u32,
    /// `co_flags`.
    pub flags: u32,
    /// `co_framesize`.
    pub frame_words: u32,
    /// `co_stacksize`.
    pub stack_size: u32,
    /// A call with exactly `argcount` positional arguments needs no binding.
    pub simple_arguments: bool,
    /// Begins with RESUME (no cells, no free variables, no generator).
    pub plain_start: bool,
    /// What the baseline's sites have seen, by bytecode offset, ascending.
    pub sites: Vec<(u32, Site)>,
}

impl Code {
    /// The site of the instruction at an offset.
    pub fn site(&self, offset: u32) -> Option<&Site> {
        let index = self
            .sites
            .binary_search_by_key(&offset, |(at, _)| *at)
            .ok()?;
        Some(&self.sites[index].1)
    }
}

/// A constant of a code object.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Constant {
    /// The object.
    pub address: u64,
    /// What it is.
    pub value: Known,
}

/// What is known of an object's value, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Known {
    /// An exact int of 64 bits.
    Int(i64),
    /// An exact float.
    Float(f64),
    /// True or False.
    Bool(bool),
    /// None.
    None,
    /// Anything else.
    Other,
}

/// An object that sites name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Object {
    /// Its address; kept alive by the artifact if it is a function, else by what was guarded.
    pub address: u64,
    /// What it is.
    pub kind: ObjectKind,
}

/// Kinds of objects that the optimizer knows how to use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ObjectKind {
    /// A Python function; the index of its code in the job, if it was captured for inlining.
    Function {
        /// Index into `Job::codes`.
        code: Option<u32>,
        /// Its `CodeData`, or 0.
        data: u64,
    },
    /// A class that is made by `object.__new__` and has a Python `__init__`.
    Class {
        /// Version tag.
        version: u32,
        /// `__init__`: index into `Job::objects`.
        init: Option<u32>,
    },
    /// The class `range`.
    RangeClass,
    /// An object whose value is all that matters.
    Value(Known),
    /// A builtin that is known by name, such as `len`.
    Builtin(Builtin),
    /// Anything else.
    Other,
}

/// Builtins with a translation of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Builtin {
    /// `len`
    Len,
    /// `abs`
    Abs,
    /// `math.sqrt`
    Sqrt,
    /// `isinstance`
    IsInstance,
    /// `list.append`
    ListAppend,
    /// `list.pop`
    ListPop,
    /// `min` and `max`, of two
    Min,
    /// See `Min`.
    Max,
    /// `ord`
    Ord,
    /// `math.sin`
    Sin,
    /// `math.cos`
    Cos,
}

/// A site of the baseline tier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Site {
    /// Its address.
    pub address: u64,
    /// The helper behind it.
    pub helper: u64,
    /// What it has seen.
    pub seen: Seen,
}

/// What a site has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Seen {
    /// Never executed (of an opcode that learns), or it learns nothing.
    Nothing,
    /// Too many different things.
    Megamorphic,
    /// Two small ints.
    Ints,
    /// Two floats.
    Floats,
    /// Exact ints and floats, in any combination.
    Numbers,
    /// As `Numbers`, but never two ints.
    FloatAndNumber,
    /// `list[int]`
    ListItem,
    /// `tuple[int]`
    TupleItem,
    /// Subscript of an `array.array` with an int.
    ArrayItem {
        /// The class.
        class: u64,
        /// What describes the items (`ob_descr`).
        descr: u64,
        /// What the items are.
        items: ArrayItems,
    },
    /// An operator whose left operand's class has a Python method for it, which is what runs first.
    Operator {
        /// Version tag of the left operand's class (of a subscript: the container's).
        left: u32,
        /// What the right operand has to be.
        right: RightOperand,
        /// The method.
        function: u64,
    },
    /// Compared: objects that are equal if they are the same.
    Objects,
    /// A list subscripted with a slice.
    ListSlice,
    /// FOR_ITER over a list.
    ListIterator,
    /// FOR_ITER over a tuple.
    TupleIterator,
    /// FOR_ITER over a range.
    RangeIterator,
    /// FOR_ITER over `enumerate` of something.
    Enumerate,
    /// LOAD_GLOBAL: the cell, and what is in it (an address without tag, 0 if empty).
    Global {
        /// Address of the cell.
        cell: u64,
        /// Its content.
        value: u64,
    },
    /// LOAD_ATTR, STORE_ATTR: by type.
    Attribute(Vec<Attribute>),
    /// LOAD_ATTR of a module: its global cell.
    Module {
        /// Version tag of the module's class.
        version: u32,
        /// The module's dictionary.
        dict: u64,
        /// Address of the cell.
        cell: u64,
        /// Its content without tag.
        value: u64,
    },
    /// LOAD_ATTR of a class.
    TypeAttribute {
        /// The class's version tag.
        version: u32,
        /// The value, without tag.
        value: u64,
    },
    /// CALL of a class with a Python `__init__`.
    Construct {
        /// The class.
        class: u64,
        /// Its version tag.
        version: u32,
        /// `__init__`.
        init: u64,
    },
}

/// Items of an `array.array`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArrayItems {
    /// Floats of so many bytes.
    Float(u8),
    /// Ints with a sign, of so many bytes.
    Signed(u8),
    /// Ints without a sign, of so many bytes (not 8, which do not fit).
    Unsigned(u8),
}

/// What the right operand of an operator has to be, so that its class has no say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RightOperand {
    /// Anything.
    Any,
    /// An instance of exactly this builtin class.
    Class(u64),
    /// An instance of a class with this version tag.
    Version(u32),
}

/// How an attribute is found for one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Version tag of the type.
    pub version: u32,
    /// Where it is.
    pub place: Place,
}

/// Where an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// An inline value of the instance.
    Inline {
        /// Byte offset of the value in the object.
        offset: u32,
        /// Byte offset of the flag that inline values are in use.
        valid: u32,
        /// Index among the shared keys.
        index: u32,
    },
    /// A slot.
    Slot {
        /// Byte offset in the object.
        offset: u32,
    },
    /// On the class, unshadowable.
    Class {
        /// The value, without tag.
        value: u64,
    },
    /// On the class, unless the instance has it: its inline values are in use and the shared keys are as many as they were.
    ClassUnshadowed {
        /// The value, without tag.
        value: u64,
        /// See `Inline::valid`.
        valid: u32,
        /// `dk_nentries` of the shared keys.
        keys: u64,
    },
}

/// Marks offsets in `Job::failed`, of instructions in front of which something died in a way that somebody may have seen.
pub const DESTROYED: u32 = 1 << 31;

/// Bytes of an `enumerate` object, and what lies where in it: the next index, the iterator, and the pair that it gives again if nobody kept it. CPython's headers do not say.
pub const ENUMERATE_SIZE: isize = 56;
/// See `ENUMERATE_SIZE`.
pub const ENUMERATE_INDEX: u32 = 16;
/// See `ENUMERATE_SIZE`.
pub const ENUMERATE_ITERATOR: u32 = 24;
/// See `ENUMERATE_SIZE`.
pub const ENUMERATE_RESULT: u32 = 32;

macro_rules! process {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Addresses in this process.
        #[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
        pub struct Process { $($(#[doc = $doc])* pub $name: u64,)* }
    };
}

process! {
    /// The record of the code that this job becomes; first argument of the functions below that want one.
    artifact,
    /// The word that `eval_breaker` equals while nothing is pending.
    plain_version,
    /// `(tstate) -> 0 or 1`: whether what made `eval_breaker` differ from that word has to be looked at.
    pending,
    /// A word that is zero while CPython's own evaluator is installed.
    evaluator,
    /// `PyLong_Type`
    int_type,
    /// `PyFloat_Type`
    float_type,
    /// `PyList_Type`
    list_type,
    /// `PyTuple_Type`
    tuple_type,
    /// `PyDict_Type`
    dict_type,
    /// `PyUnicode_Type`
    str_type,
    /// `PyListIter_Type`
    list_iterator_type,
    /// `PyTupleIter_Type`
    tuple_iterator_type,
    /// `PyRangeIter_Type`
    range_iterator_type,
    /// `PyEnum_Type`, or 0 if its objects are not known.
    enumerate_type,
    /// `PyFunction_Type`
    function_type,
    /// `PyType_Type`
    type_type,
    /// The table of small ints.
    small_ints,
    /// How objects compare whose classes do not say: by their addresses.
    object_compare,
    /// Address of True.
    true_object,
    /// Address of False.
    false_object,
    /// Address of None.
    none_object,
    /// Address of NotImplemented.
    not_implemented,
    /// Head of the free list of floats.
    float_freelist,
    /// Head of the free list of ints.
    int_freelist,
    /// `(i64) -> bits`: a new int.
    box_int,
    /// `(f64) -> bits`: a new float.
    box_float,
    /// `(object)`: frees an object whose count is zero.
    dealloc,
    /// `(artifact, plan, frame, tstate, values, object)`: frees an object while the frames are as the plan says.
    dealloc_at,
    /// `(artifact, plan, frame, tstate, values) -> bits`: leaves as the plan says.
    exit,
    /// `(tstate, frame)`: clears and pops a frame that somebody holds.
    clear_frame,
    /// `(tstate, frame)`: pops the first frame of a chunk.
    pop_frame,
    /// `(frame, data, tstate, return address) -> bits`: runs the baseline body instead of code that was called from there.
    baseline,
    /// `(tstate, words) -> frame or null`: room for a frame in a new chunk.
    push_chunk,
    /// `(class) -> object or null`: a new instance.
    new_instance,
    /// `(bits, last) -> bits`: a new list of the items of a list from `last` on to the first.
    list_backwards,
    /// `(object)`: the collector knows it from now on.
    gc_track,
    /// `(bits, count)`: reverses the first items of a list.
    reverse_items,
    /// `(items, count) -> bits`: a new tuple of objects whose references move.
    make_tuple,
    /// `(items, count) -> bits`: a new list of objects whose references move.
    make_list,
    /// `(list, object)`: adds an item, whose reference moves, to a list that is full.
    list_append,
    /// `(list) -> object`: takes the last item out of a list that has one.
    list_pop,
    /// `(object) -> bits`: a new iterator over a list or tuple.
    iterator,
    /// `(bits, bits, operation) -> bits or 0`: arithmetic of exact ints and floats; 0, without an exception, where it raises.
    number_op,
    /// `(f64, f64) -> f64`: C's `pow`, where Python's float power equals it.
    pow,
    /// `(f64) -> f64`
    sin,
    /// `(f64) -> f64`
    cos,
}
