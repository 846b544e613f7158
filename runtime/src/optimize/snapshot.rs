//! What a compilation may know, taken down under the GIL: bytecode, what the sites have seen, and the objects that they name.
//!
//! Functions that the code calls by way of globals and classes are taken down with it, so that they can be inlined.

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::sync::OnceLock;

use hotstamp_job::{
    Attribute, Builtin, Code, Constant, Job, Known, Object, ObjectKind, Place, Seen,
    Site as JobSite,
};
use hotstamp_layout::bytecode::base_code;
use hotstamp_layout::ffi::{self, PyFunctionObject, PyObject, PyTypeObject};
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs;

use super::operators;
use crate::caches::operators::{
    SAW_ARRAY, SAW_FLOATS, SAW_INSTANCE, SAW_INTS, SAW_KINDS, SAW_LIST, SAW_MIXED, SAW_OBJECTS,
    SAW_SLICE, seen_with,
};
use crate::caches::{self, CacheStubs, MISS_LIMIT, POLYMORPHIC_ENTRIES, PolymorphicEntry, globals};
use crate::code_data::{CodeData, SIMPLE_ARGUMENTS};
use crate::helpers;
use crate::registry;
use crate::site::{CodePtr, SITE_HAS_PAYLOAD, Site};

/// Most code objects of a job.
const MOST_CODES: usize = 40;

struct Snapshot<'a> {
    stubs: &'a CacheStubs,
    codes: Vec<Code>,
    by_data: HashMap<usize, u32>,
    objects: Vec<Object>,
    by_object: HashMap<usize, u32>,
    pending: VecDeque<*mut CodeData>,
}

/// Takes down a function, entered at `entry`. The caller fills in what is not the function's.
///
/// # Safety
/// `data` is live; GIL held.
pub unsafe fn take(data: *mut CodeData, entry: u32) -> Option<Job> {
    let stubs = caches::stubs()?;
    let mut snapshot = Snapshot {
        stubs,
        codes: Vec::new(),
        by_data: HashMap::new(),
        objects: Vec::new(),
        by_object: HashMap::new(),
        pending: VecDeque::new(),
    };
    // SAFETY: passed on.
    unsafe {
        snapshot.index_of(data);
        while let Some(data) = snapshot.pending.pop_front() {
            let code = snapshot.capture(data);
            snapshot.codes.push(code);
        }
    }
    let memory_helpers = (0..=u8::MAX)
        .map(|opcode| {
            helpers::memory_helper(opcode).map_or(0, |(helper, _)| helper as usize as u64)
        })
        .collect();
    Some(Job {
        codes: snapshot.codes,
        objects: snapshot.objects,
        entry,
        memory_helpers,
        ..Job::default()
    })
}

impl Snapshot<'_> {
    /// The index that a code has or will have.
    fn index_of(&mut self, data: *mut CodeData) -> Option<u32> {
        if let Some(index) = self.by_data.get(&(data as usize)) {
            return Some(*index);
        }
        let index = self.by_data.len();
        if index >= MOST_CODES {
            return None;
        }
        self.by_data.insert(data as usize, index as u32);
        self.pending.push_back(data);
        Some(index as u32)
    }

    unsafe fn capture(&mut self, data: *mut CodeData) -> Code {
        // SAFETY: `data` is live, so its code object is.
        unsafe {
            let code = (*data).code;
            let bytecode = base_code(code);
            let count = refs::size_of_var((*code).co_consts) as usize;
            let constants = (0..count)
                .map(|index| {
                    let object = refs::tuple_item((*code).co_consts, index);
                    Constant {
                        address: object as u64,
                        value: known(object),
                    }
                })
                .collect();
            let flags = (*code).co_flags as u32;
            let generator = ffi::CO_GENERATOR | ffi::CO_COROUTINE | ffi::CO_ASYNC_GENERATOR;
            let optimized = ffi::CO_OPTIMIZED | ffi::CO_NEWLOCALS;
            Code {
                name: crate::naming::qualified_name(code),
                address: code as u64,
                data: data as u64,
                globals: (*data).globals as u64,
                builtins: (*data).builtins as u64,
                start: (*data).code_start as u64,
                constants,
                nlocalsplus: (*data).nlocalsplus,
                argcount: (*data).argcount,
                parameters: (*data).argcount
                    + (*code).co_kwonlyargcount as u32
                    + u32::from(flags & ffi::CO_VARARGS != 0)
                    + u32::from(flags & ffi::CO_VARKEYWORDS != 0),
                flags,
                frame_words: (*data).frame_words,
                stack_size: (*code).co_stacksize as u32,
                simple_arguments: (*data).flags & SIMPLE_ARGUMENTS != 0,
                plain_start: (*code).co_ncellvars == 0
                    && (*code).co_nfreevars == 0
                    && flags & generator == 0
                    && flags & optimized == optimized,
                sites: self.sites(data, &bytecode),
                bytecode,
            }
        }
    }

    /// The sites that do an instruction's work, by its offset.
    unsafe fn sites(&mut self, data: *mut CodeData, bytecode: &[u8]) -> Vec<(u32, JobSite)> {
        let mut sites: Vec<(u32, JobSite)> = Vec::new();
        // SAFETY: the sites lie behind the header, each as long as its flag says.
        unsafe {
            let mut at = data.add(1).cast::<u8>();
            let end = at.add((*data).site_bytes as usize);
            while at < end {
                let site = at.cast::<Site>();
                let payload = (*site).flags & SITE_HAS_PAYLOAD != 0;
                at = at.add(if payload {
                    Site::FULL_BYTES
                } else {
                    Site::HEADER_BYTES
                });
                if (*site).helper.is_null() {
                    continue;
                }
                let offset = (*site).instr.offset_from((*data).code_start) as u32;
                if sites.last().is_some_and(|(last, _)| *last == offset) {
                    continue;
                }
                let seen = if payload {
                    self.seen(site, bytecode[offset as usize * 2])
                } else {
                    Seen::Nothing
                };
                sites.push((
                    offset,
                    JobSite {
                        address: site as u64,
                        helper: (*site).helper as u64,
                        seen,
                    },
                ));
            }
        }
        sites.sort_by_key(|(offset, _)| *offset);
        sites
    }

    unsafe fn seen(&mut self, site: *mut Site, opcode: u8) -> Seen {
        // SAFETY: a live site with a payload, which is as its target documents.
        unsafe {
            let stubs = self.stubs;
            let words = (*Site::payload(site)).words;
            let target = (*site).target;
            // Of operators.
            let kinds = words[3] & SAW_KINDS;
            let undecided = if words[2] >> 32 == 0 {
                Seen::Nothing
            } else {
                Seen::Megamorphic
            };
            match Opcode::from_u8(opcode) {
                Some(Opcode::LOAD_GLOBAL) => {
                    let cell = words[1];
                    if cell == (&raw const globals::UNBOUND) as u64 {
                        return undecided;
                    }
                    let value = *(cell as *const u64) & !1;
                    self.object(value);
                    Seen::Global { cell, value }
                }
                Some(Opcode::STORE_SUBSCR) => match kinds {
                    SAW_LIST => Seen::ListItem,
                    SAW_ARRAY => operators::array(seen_with(words[3])).unwrap_or(undecided),
                    SAW_INSTANCE => self
                        .operator(seen_with(words[3]), (c"__setitem__", None))
                        .unwrap_or(undecided),
                    _ => undecided,
                },
                Some(Opcode::BINARY_OP) => {
                    if kinds == SAW_SLICE {
                        Seen::ListSlice
                    } else if kinds == SAW_ARRAY {
                        operators::array(seen_with(words[3])).unwrap_or(undecided)
                    } else if kinds == SAW_INSTANCE {
                        operators::method_names((*site).oparg)
                            .and_then(|names| self.operator(seen_with(words[3]), names))
                            .unwrap_or(undecided)
                    } else if let Some(seen) = numbers(kinds) {
                        seen
                    } else if target == stubs.list_subscript {
                        Seen::ListItem
                    } else if target == stubs.tuple_subscript {
                        Seen::TupleItem
                    } else {
                        undecided
                    }
                }
                Some(Opcode::COMPARE_OP) if kinds == SAW_OBJECTS => Seen::Objects,
                Some(Opcode::COMPARE_OP) => numbers(kinds).unwrap_or(undecided),
                Some(Opcode::FOR_ITER) => {
                    if target == stubs.iterate_list {
                        Seen::ListIterator
                    } else if target == stubs.iterate_tuple {
                        Seen::TupleIterator
                    } else if target == stubs.iterate_range {
                        Seen::RangeIterator
                    } else if target == stubs.register_quick
                        && words[1] == (&raw const ffi::PyEnum_Type) as u64
                    {
                        Seen::Enumerate
                    } else {
                        undecided
                    }
                }
                Some(Opcode::LOAD_ATTR | Opcode::STORE_ATTR) => {
                    self.attribute(target, words, undecided)
                }
                Some(Opcode::CALL) if words[0] != 0 => {
                    self.object(words[3]);
                    Seen::Construct {
                        class: words[0],
                        version: words[1] as u32,
                        init: words[3],
                    }
                }
                _ => undecided,
            }
        }
    }

    /// The Python method behind an operator, by the versions of the operands' classes (0 for a right one that has no say).
    unsafe fn operator(
        &mut self,
        versions: u64,
        (name, in_place): (&CStr, Option<&CStr>),
    ) -> Option<Seen> {
        // SAFETY: GIL held; the method is alive while its class has the version.
        let (function, seen) = unsafe { operators::resolve(versions, name, in_place) }?;
        // SAFETY: a live function.
        unsafe { self.object(function) };
        Some(seen)
    }

    unsafe fn attribute(&mut self, target: CodePtr, words: [u64; 4], undecided: Seen) -> Seen {
        let stubs = self.stubs;
        // SAFETY: what the payload names is alive while the version holds, which the GIL keeps.
        unsafe {
            if target == stubs.attr_module || target == stubs.method_module {
                let value = *(words[1] as *const u64) & !1;
                self.object(value);
                return Seen::Module {
                    version: words[0] as u32,
                    dict: words[3],
                    cell: words[1],
                    value,
                };
            }
            if target == stubs.attr_type || target == stubs.method_type {
                let value = words[1] & !1;
                self.object(value);
                return Seen::TypeAttribute {
                    version: words[0] as u32,
                    value,
                };
            }
            if target == stubs.attr_polymorphic
                || target == stubs.method_polymorphic
                || target == stubs.store_polymorphic
            {
                let record = &*(words[1] as *const [PolymorphicEntry; POLYMORPHIC_ENTRIES]);
                let types: Vec<Attribute> = record
                    .iter()
                    .filter(|entry| entry.words[0] as u32 != u32::MAX)
                    .filter_map(|entry| self.place(entry.target, entry.words, true))
                    .collect();
                return Seen::Attribute(types);
            }
            match self.place(target, words, false) {
                Some(attribute) => Seen::Attribute(vec![attribute]),
                None if words[2] >> 32 >= u64::from(MISS_LIMIT) => Seen::Megamorphic,
                None => undecided,
            }
        }
    }

    /// How a stub (or its entry for polymorphic sites) finds an attribute.
    unsafe fn place(&mut self, target: CodePtr, words: [u64; 4], entry: bool) -> Option<Attribute> {
        let stubs = self.stubs;
        let is =
            |stub: CodePtr, stub_entry: CodePtr| target == if entry { stub_entry } else { stub };
        let (version, offset) = (words[0] as u32, (words[0] >> 32) as u32);
        let valid = words[2] as u32;
        let place = if is(stubs.attr_inline, stubs.attr_inline_entry) {
            // SAFETY: see `seen`.
            Place::Inline {
                offset,
                valid,
                index: 0,
            }
        } else if is(stubs.store_inline, stubs.store_inline_entry) {
            Place::Inline {
                offset,
                valid,
                index: words[1] as u32,
            }
        } else if is(stubs.attr_slot, stubs.attr_slot_entry)
            || is(stubs.store_slot, stubs.store_slot_entry)
        {
            Place::Slot { offset }
        } else if is(stubs.attr_class, stubs.attr_class_entry)
            || is(stubs.method_class, stubs.method_class_entry)
        {
            Place::Class {
                value: words[1] & !1,
            }
        } else if is(
            stubs.attr_class_unshadowed,
            stubs.attr_class_unshadowed_entry,
        ) || is(
            stubs.method_class_unshadowed,
            stubs.method_class_unshadowed_entry,
        ) {
            Place::ClassUnshadowed {
                value: words[1] & !1,
                valid,
                keys: words[3],
            }
        } else {
            return None;
        };
        if let Place::Class { value } | Place::ClassUnshadowed { value, .. } = place {
            // SAFETY: the class keeps it alive.
            unsafe { self.object(value) };
        }
        Some(Attribute { version, place })
    }

    /// Takes down what is known of an object. Gives its index.
    unsafe fn object(&mut self, address: u64) {
        if address == 0 || self.by_object.contains_key(&(address as usize)) {
            return;
        }
        self.by_object
            .insert(address as usize, self.objects.len() as u32);
        let place = self.objects.len();
        self.objects.push(Object {
            address,
            kind: ObjectKind::Other,
        });
        // SAFETY: a live object, GIL held.
        self.objects[place].kind = unsafe { self.kind(address as *mut PyObject) };
    }

    unsafe fn kind(&mut self, object: *mut PyObject) -> ObjectKind {
        // SAFETY: a live object, GIL held.
        unsafe {
            if refs::is_type(object, &raw const ffi::PyFunction_Type) {
                let function = object.cast::<PyFunctionObject>();
                let data = registry::existing(function);
                if data.is_null() || !crate::hooks::functions::is_stamped(function) {
                    return ObjectKind::Other;
                }
                // Also what is too large to be inlined: it is called directly.
                return ObjectKind::Function {
                    code: self.index_of(data),
                    data: data as u64,
                };
            }
            if object == (&raw mut ffi::PyRange_Type).cast() {
                return ObjectKind::RangeClass;
            }
            if refs::is_type(object, &raw const ffi::PyType_Type) {
                let class = object.cast::<PyTypeObject>();
                return ObjectKind::Class {
                    version: (*class).tp_version_tag,
                    init: None,
                };
            }
            if refs::is_type(object, &raw const ffi::PyCFunction_Type) {
                return builtin(object.cast()).map_or(ObjectKind::Other, ObjectKind::Builtin);
            }
            if let Some(method) = list_method(object) {
                return ObjectKind::Builtin(method);
            }
            match known(object) {
                Known::Other => ObjectKind::Other,
                value => ObjectKind::Value(value),
            }
        }
    }
}

/// What a site's kinds of operands (`caches::operators`) say, if they were numbers only.
fn numbers(saw: u64) -> Option<Seen> {
    match saw {
        SAW_INTS => Some(Seen::Ints),
        SAW_FLOATS => Some(Seen::Floats),
        0 => None,
        saw if saw & !(SAW_FLOATS | SAW_MIXED) == 0 => Some(Seen::FloatAndNumber),
        saw if saw & !(SAW_INTS | SAW_FLOATS | SAW_MIXED) == 0 => Some(Seen::Numbers),
        _ => None,
    }
}

/// Methods of lists that the optimizer knows, by their descriptors.
unsafe fn list_method(object: *mut PyObject) -> Option<Builtin> {
    static METHODS: OnceLock<[(usize, Builtin); 2]> = OnceLock::new();
    let methods = METHODS.get_or_init(|| {
        // SAFETY: GIL held; a builtin class keeps what it has, so that the reference may go.
        let find = |name: &CStr| unsafe {
            let class = &raw mut ffi::PyList_Type;
            let found = ffi::PyObject_GetAttrString(class.cast(), name.as_ptr());
            refs::decref(found);
            found as usize
        };
        [
            (find(c"append"), Builtin::ListAppend),
            (find(c"pop"), Builtin::ListPop),
        ]
    });
    methods
        .iter()
        .find(|(address, _)| *address == object as usize)
        .map(|(_, method)| *method)
}

/// A builtin function that the optimizer knows.
unsafe fn builtin(function: *mut ffi::PyCFunctionObject) -> Option<Builtin> {
    // SAFETY: a live builtin function; names are C strings, the module is a str or null.
    unsafe {
        let name = CStr::from_ptr((*(*function).m_ml).ml_name).to_bytes();
        let module = (*function).m_module;
        if module.is_null() || !refs::is_exact_unicode(module) {
            return None;
        }
        let utf8 = ffi::PyUnicode_AsUTF8(module);
        if utf8.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        match (CStr::from_ptr(utf8).to_bytes(), name) {
            (b"builtins", b"len") => Some(Builtin::Len),
            (b"builtins", b"isinstance") => Some(Builtin::IsInstance),
            (b"builtins", b"abs") => Some(Builtin::Abs),
            (b"math", b"sqrt") => Some(Builtin::Sqrt),
            (b"math", b"sin") => Some(Builtin::Sin),
            (b"math", b"cos") => Some(Builtin::Cos),
            _ => None,
        }
    }
}

/// The value of an object whose value says everything.
unsafe fn known(object: *mut PyObject) -> Known {
    // SAFETY: a live object.
    unsafe {
        if object == &raw mut ffi::_Py_NoneStruct {
            return Known::None;
        }
        if refs::is_type(object, &raw const ffi::PyBool_Type) {
            return Known::Bool(object == (&raw mut ffi::_Py_TrueStruct).cast());
        }
        if refs::is_exact_long(object) {
            let mut overflow = 0;
            let value = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
            return if overflow == 0 {
                Known::Int(value)
            } else {
                Known::Other
            };
        }
        if refs::is_exact_float(object) {
            return Known::Float(ffi::PyFloat_AsDouble(object));
        }
        Known::Other
    }
}
