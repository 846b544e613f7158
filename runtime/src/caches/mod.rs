//! Inline caches: what a site learns, and which shared stub it goes through next.
//!
//! A site starts at a stub that calls the *miss helper* of its opcode (this folder). The helper does the operation with full semantics, and where the operands are of a
//! kind that a stub handles, points the site's `target` at that stub and writes what the stub compares into the payload. A stub that does not recognise its operands
//! calls the same helper again. After `MISS_LIMIT` changes of mind the site is megamorphic and keeps its plain stub.
//!
//! Payload of every cached site (the optimizer reads it): word 2's high half counts misses; the rest is the kind's, as its stub documents.

pub mod attributes;
pub mod calls;
pub mod globals;
pub mod iteration;
pub mod operators;
pub mod quick;
mod quick_attributes;

use hotstamp_layout::ffi;
use once_cell::sync::OnceCell;

use crate::site::{CodePtr, Payload, Site};

macro_rules! cache_stubs {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Addresses of the stubs that miss helpers choose from.
        #[derive(Clone, Copy, Debug)]
        pub struct CacheStubs { $($(#[doc = $doc])* pub $name: CodePtr,)* }
    };
}

cache_stubs! {
    /// Register helper with a value, no cache: the start, and the megamorphic end.
    register,
    /// As `register` for operations without a value.
    register_void,
    /// As `register`, with the quick helper in payload word 0.
    register_quick,
    /// As `register_quick` for operations without a value.
    register_quick_void,
    /// CALL of anything.
    call,
    /// Memory helper with a value, without a cache.
    memory_value_polled,
    /// LOAD_ATTR: up to four types; payload word 1 is the record.
    attr_polymorphic,
    /// LOAD_ATTR for a call, as `attr_polymorphic`.
    method_polymorphic,
    /// STORE_ATTR, as `attr_polymorphic`.
    store_polymorphic,
    /// `attr_inline` as polymorphic entries use it.
    attr_inline_entry,
    /// `attr_slot` as polymorphic entries use it.
    attr_slot_entry,
    /// `attr_class` as polymorphic entries use it.
    attr_class_entry,
    /// `attr_class_unshadowed` as polymorphic entries use it.
    attr_class_unshadowed_entry,
    /// `method_class` as polymorphic entries use it.
    method_class_entry,
    /// `method_class_unshadowed` as polymorphic entries use it.
    method_class_unshadowed_entry,
    /// `store_inline` as polymorphic entries use it.
    store_inline_entry,
    /// `store_slot` as polymorphic entries use it.
    store_slot_entry,
    /// LOAD_ATTR: an inline value of the instance.
    attr_inline,
    /// LOAD_ATTR: a slot (member descriptor).
    attr_slot,
    /// LOAD_ATTR: a class attribute that no instance can shadow.
    attr_class,
    /// LOAD_ATTR: a class attribute that this instance's keys do not shadow.
    attr_class_unshadowed,
    /// LOAD_ATTR: an attribute of a module, known by its dictionary.
    attr_module,
    /// LOAD_ATTR: an attribute of a class.
    attr_type,
    /// LOAD_ATTR for a call: as `attr_class`.
    method_class,
    /// LOAD_ATTR for a call: as `attr_class_unshadowed`.
    method_class_unshadowed,
    /// LOAD_ATTR for a call: as `attr_module`.
    method_module,
    /// LOAD_ATTR for a call: as `attr_type`.
    method_type,
    /// STORE_ATTR: an inline value of the instance.
    store_inline,
    /// STORE_ATTR: a slot.
    store_slot,
    /// BINARY_OP on two small ints: addition.
    int_add,
    /// BINARY_OP on two small ints: subtraction.
    int_sub,
    /// BINARY_OP on two small ints: multiplication.
    int_mul,
    /// BINARY_OP on two small ints: bitwise and.
    int_and,
    /// BINARY_OP on two small ints: bitwise or.
    int_or,
    /// BINARY_OP on two small ints: bitwise exclusive or.
    int_xor,
    /// BINARY_OP on two floats: addition.
    float_add,
    /// BINARY_OP on two floats: subtraction.
    float_sub,
    /// BINARY_OP on two floats: multiplication.
    float_mul,
    /// BINARY_OP on two floats: division.
    float_div,
    /// BINARY_OP: list[small int].
    list_subscript,
    /// BINARY_OP: tuple[small int].
    tuple_subscript,
    /// STORE_SUBSCR: list[small int].
    store_list,
    /// TO_BOOL: a word of the object says; see `operators::to_bool`.
    to_bool_word,
    /// COMPARE_OP on two small ints, by `Py_LT` to `Py_GE`.
    int_lt,
    /// See `int_lt`.
    int_le,
    /// See `int_lt`.
    int_eq,
    /// See `int_lt`.
    int_ne,
    /// See `int_lt`.
    int_gt,
    /// See `int_lt`.
    int_ge,
    /// COMPARE_OP on two floats, by `Py_LT` to `Py_GE`.
    float_lt,
    /// See `float_lt`.
    float_le,
    /// See `float_lt`.
    float_eq,
    /// See `float_lt`.
    float_ne,
    /// See `float_lt`.
    float_gt,
    /// See `float_lt`.
    float_ge,
    /// FOR_ITER over a list.
    iterate_list,
    /// FOR_ITER over a tuple.
    iterate_tuple,
    /// FOR_ITER over a range.
    iterate_range,
    /// FOR_ITER over a generator whose code is compiled; payload word 1 is its type.
    iterate_generator,
    /// SEND: to a generator or coroutine whose code is compiled, as `iterate_generator`; to anything else through the helper.
    send,
}

/// A site that changed its mind this often stays with its plain stub.
pub const MISS_LIMIT: u32 = 16;

static STUBS: OnceCell<CacheStubs> = OnceCell::new();

/// Registers the stubs, once.
pub fn start(stubs: CacheStubs) {
    let _ = STUBS.set(stubs);
}

/// The registered stubs.
pub(crate) fn stubs() -> Option<&'static CacheStubs> {
    STUBS.get()
}

/// Counts a miss. The stubs to choose from, unless the site has changed its mind too often: then it becomes megamorphic with `plain`.
///
/// # Safety
/// The site has a payload; GIL held.
pub(crate) unsafe fn note_miss(
    site: *mut Site,
    plain: impl Fn(&CacheStubs) -> CodePtr,
) -> Option<&'static CacheStubs> {
    // SAFETY: see above.
    unsafe {
        let payload = Site::payload(site);
        let misses = ((*payload).words[2] >> 32) as u32;
        let stubs = stubs()?;
        if misses >= MISS_LIMIT {
            (*site).target = plain(stubs);
            return None;
        }
        (*payload).words[2] += 1 << 32;
        Some(stubs)
    }
}

/// Types that a polymorphic site distinguishes.
pub const POLYMORPHIC_ENTRIES: usize = 4;

/// One type of a polymorphic site: the payload that a monomorphic site would have, and the stub that handles it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PolymorphicEntry {
    /// As the kind's payload; word 0 low is the type version, all ones in an empty entry.
    pub words: [u64; 4],
    /// The kind's stub, behind the instruction that loads the payload's address.
    pub target: CodePtr,
}

/// The stubs of one family of sites that distinguish types.
pub(crate) struct Family {
    /// Its polymorphic stub.
    pub polymorphic: CodePtr,
    /// Its plain stub.
    pub plain: CodePtr,
    /// Monomorphic stubs with their entries.
    pub kinds: [(CodePtr, CodePtr); 4],
}

/// Whether no class has a version any more. A class that CPython's table forgot in favour of another is taken for changed: its next use brings it back.
unsafe fn is_stale(version: u32) -> bool {
    // SAFETY: GIL held; the table borrows from live classes.
    unsafe {
        let table = &(*ffi::PyInterpreterState_Get()).types.type_version_cache;
        let class = table[version as usize % table.len()];
        class.is_null() || (*class).tp_version_tag != version
    }
}

/// Adds a type to a site: monomorphic first, then polymorphic, then plain.
///
/// # Safety
/// As `set`; `target` is one of the family's monomorphic stubs.
pub(crate) unsafe fn add_type(site: *mut Site, family: &Family, target: CodePtr, words: [u64; 4]) {
    let entry_of = |stub: CodePtr| {
        family
            .kinds
            .iter()
            .find(|(mono, _)| *mono == stub)
            .map(|(_, entry)| *entry)
    };
    // SAFETY: see above; a record is written before the site points at it, and is never freed while the site may use it.
    unsafe {
        let payload = Site::payload(site);
        let Some(entry) = entry_of(target) else {
            return;
        };
        let new = PolymorphicEntry {
            words,
            target: entry,
        };
        if (*site).target == family.polymorphic {
            let record = (*payload).words[1] as *mut [PolymorphicEntry; POLYMORPHIC_ENTRIES];
            let version = |entry: &PolymorphicEntry| entry.words[0] as u32;
            // The same type with other offsets, an empty place, or that of a class which changed since.
            let place = (*record)
                .iter_mut()
                .find(|entry| version(entry) == version(&new))
                .map(|place| *place = new)
                .or_else(|| {
                    (*record)
                        .iter_mut()
                        .find(|entry| version(entry) == u32::MAX || is_stale(version(entry)))
                        .map(|place| *place = new)
                });
            if place.is_none() {
                (*site).target = family.plain;
                (*payload).words[2] = u64::from(MISS_LIMIT) << 32;
            }
            return;
        }
        let old = (*payload).words;
        match entry_of((*site).target) {
            Some(old_entry) if old[0] as u32 != words[0] as u32 && !is_stale(old[0] as u32) => {
                let empty = PolymorphicEntry {
                    words: [u64::from(u32::MAX), 0, 0, 0],
                    target: family.plain,
                };
                let mut record = Box::new([empty; POLYMORPHIC_ENTRIES]);
                record[0] = PolymorphicEntry {
                    words: old,
                    target: old_entry,
                };
                record[1] = new;
                set(
                    site,
                    family.polymorphic,
                    [0, Box::into_raw(record) as u64, 0, 0],
                );
            }
            _ => set(site, target, words),
        }
    }
}

/// Points a site at a stub, with what the stub compares and uses. The miss count is kept.
///
/// # Safety
/// As `note_miss`.
pub(crate) unsafe fn set(site: *mut Site, target: CodePtr, words: [u64; 4]) {
    // SAFETY: see above. Compiled code reads the payload only under the GIL, which is held.
    unsafe {
        let payload: *mut Payload = Site::payload(site);
        let count = (*payload).words[2] & !0xffff_ffff;
        (*payload).words = [
            words[0],
            words[1],
            count | (words[2] & 0xffff_ffff),
            words[3],
        ];
        (*site).target = target;
    }
}
