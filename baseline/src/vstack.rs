//! The virtual operand stack: what each entry of the operand stack is, as far as it is known while compiling.

use hotstamp_runtime::resume::table::{PACKED, Place};

use crate::masm::{MacroAssembler, Mem, Reg};
use crate::stubs::{BORROWED, LOCALS, NULL_BITS};

/// One entry of the operand stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Borrowed from the local with this index, which holds it unchanged.
    Local(u32),
    /// A constant's `StackRef` bits: null, an immortal object, or one that the code object keeps alive (borrowed).
    Const(u64),
    /// In its slot of the frame.
    Memory,
    /// In `Acc`. At most one entry.
    Acc,
}

/// See the module. Depths count from the bottom of the operand stack.
#[derive(Debug)]
pub struct VirtualStack {
    entries: Vec<Entry>,
    /// Where the lowest `PACKED` entries are, two bits each: the numbers of `Place`, so that entries in memory have none.
    places: u64,
    nlocalsplus: u32,
}

/// The bits of all entries below `depth`.
#[inline(always)]
fn below(depth: usize) -> u64 {
    if depth < PACKED {
        (1 << (2 * depth)) - 1
    } else {
        !0
    }
}

impl Entry {
    /// Where it is.
    #[inline(always)]
    pub fn place(self) -> Place {
        match self {
            Entry::Memory => Place::Memory,
            Entry::Local(_) | Entry::Const(_) => Place::Implied,
            Entry::Acc => Place::Acc,
        }
    }
}

impl VirtualStack {
    /// An empty stack in a frame with that many locals, cells and free variables.
    pub fn new(nlocalsplus: u32) -> Self {
        Self::new_in(Vec::with_capacity(16), nlocalsplus)
    }

    /// As `new`, in the memory of another stack.
    pub fn new_in(mut entries: Vec<Entry>, nlocalsplus: u32) -> Self {
        entries.clear();
        VirtualStack {
            entries,
            places: 0,
            nlocalsplus,
        }
    }

    /// The memory, for another stack.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Where the lowest `PACKED` entries are, two bits each.
    #[inline]
    pub fn packed_places(&self) -> u64 {
        debug_assert!(
            (0..self.entries.len().min(PACKED)).all(|depth| {
                self.places >> (2 * depth) & 3 == self.entries[depth].place() as u64
            })
        );
        self.places
    }

    /// Replaces an entry.
    #[inline]
    fn set(&mut self, depth: usize, entry: Entry) {
        self.entries[depth] = entry;
        if depth < PACKED {
            let shift = 2 * depth;
            self.places = self.places & !(3 << shift) | (entry.place() as u64) << shift;
        }
    }

    /// Number of entries.
    pub fn depth(&self) -> usize {
        self.entries.len()
    }

    /// The entries, from the bottom.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Stores all entries to their slots, and leaves them what they are besides. Uses T0.
    pub fn store_canonical<M: MacroAssembler>(&self, m: &mut M) {
        for (depth, &entry) in self.entries.iter().enumerate() {
            self.store_entry(m, entry, depth);
        }
    }

    /// Forgets everything and starts with `depth` entries in memory, as at every block boundary.
    pub fn reset(&mut self, depth: usize) {
        self.entries.clear();
        self.entries.resize(depth, Entry::Memory);
        self.places = 0;
    }

    /// The slot of a local.
    pub fn local(index: u32) -> Mem {
        Reg::Frame.at(LOCALS + index as usize * 8)
    }

    /// The canonical slot of the entry at `depth`.
    pub fn slot(&self, depth: usize) -> Mem {
        Self::local(self.nlocalsplus + depth as u32)
    }

    /// The entry `back` places from the top (0 is the top).
    pub fn peek(&self, back: usize) -> Entry {
        self.entries[self.entries.len() - 1 - back]
    }

    /// Pushes. An `Acc` entry requires that none is there.
    pub fn push(&mut self, entry: Entry) {
        debug_assert!(entry != Entry::Acc || !self.entries.contains(&Entry::Acc));
        let depth = self.entries.len();
        if depth < PACKED {
            self.places |= (entry.place() as u64) << (2 * depth);
        }
        self.entries.push(entry);
    }

    /// Drops the top `count` entries without code: their values were consumed.
    pub fn drop_top(&mut self, count: usize) {
        let depth = self.entries.len() - count;
        self.entries.truncate(depth);
        self.places &= below(depth);
    }

    /// Takes the top entry off without code.
    pub fn take(&mut self) -> Entry {
        match self.entries.pop() {
            Some(entry) => {
                self.places &= below(self.entries.len());
                entry
            }
            None => unreachable!("the decoder checked the stack depth"),
        }
    }

    /// Loads an entry that stands (or stood) at `depth` into a register, as a `StackRef` that owns what the entry owns.
    #[inline]
    pub fn materialize<M: MacroAssembler>(&self, m: &mut M, entry: Entry, depth: usize, dst: Reg) {
        match entry {
            Entry::Local(index) => {
                m.load(dst, Self::local(index));
                m.alu_imm(crate::masm::Alu::Or, dst, BORROWED);
            }
            Entry::Const(bits) => m.mov_imm(dst, bits),
            Entry::Memory => m.load(dst, self.slot(depth)),
            Entry::Acc => m.mov(dst, Reg::Acc),
        }
    }

    /// Stores all entries but the top `keep` to their slots. Uses T0.
    pub fn flush_below<M: MacroAssembler>(&mut self, m: &mut M, keep: usize) {
        let end = self.entries.len() - keep;
        let mut elsewhere = self.places & below(end);
        while elsewhere != 0 {
            let depth = elsewhere.trailing_zeros() as usize / 2;
            self.flush_entry(m, depth);
            elsewhere &= !(3 << (2 * depth));
        }
        for depth in PACKED..end {
            self.flush_entry(m, depth);
        }
    }

    /// Stores all entries to their slots. Uses T0.
    pub fn flush<M: MacroAssembler>(&mut self, m: &mut M) {
        self.flush_below(m, 0);
    }

    /// Makes `Acc` free by storing the entry that is in it, if any.
    pub fn spill_acc<M: MacroAssembler>(&mut self, m: &mut M) {
        const ACC: u64 = !0 / 3 * Place::Acc as u64;
        const { assert!(Place::Implied as u64 & Place::Acc as u64 == 0) };
        let packed = self.places & ACC;
        if packed != 0 {
            self.flush_entry(m, packed.trailing_zeros() as usize / 2);
        }
        for depth in PACKED..self.entries.len() {
            if self.entries[depth] == Entry::Acc {
                self.flush_entry(m, depth);
            }
        }
    }

    /// Whether an entry borrows from this local. CPython's compiler emits LOAD_FAST_BORROW only where the local does not change meanwhile.
    pub fn borrows_from(&self, index: u32) -> bool {
        const IMPLIED: u64 = !0 / 3 * Place::Implied as u64;
        (self.places & IMPLIED != 0 || self.entries.len() > PACKED)
            && self.entries.contains(&Entry::Local(index))
    }

    /// The bits of the constant at `depth`, if there is one that has no slot.
    pub fn constant_at(&self, depth: usize) -> Option<u64> {
        match self.entries[depth] {
            Entry::Const(bits) => Some(bits),
            _ => None,
        }
    }

    /// Gives the entry at `depth` its slot, with what `value` holds in its place.
    pub fn store_owned<M: MacroAssembler>(&mut self, m: &mut M, depth: usize, value: Reg) {
        m.store(self.slot(depth), value);
        self.set(depth, Entry::Memory);
    }

    fn flush_entry<M: MacroAssembler>(&mut self, m: &mut M, depth: usize) {
        self.store_entry(m, self.entries[depth], depth);
        self.set(depth, Entry::Memory);
    }

    fn store_entry<M: MacroAssembler>(&self, m: &mut M, entry: Entry, depth: usize) {
        match entry {
            Entry::Memory => {}
            Entry::Acc => m.store(self.slot(depth), Reg::Acc),
            Entry::Const(bits) if bits == NULL_BITS as u64 => {
                m.store_imm(self.slot(depth), NULL_BITS)
            }
            Entry::Local(index) => {
                m.load(Reg::T0, Self::local(index));
                m.alu_imm(crate::masm::Alu::Or, Reg::T0, BORROWED);
                m.store(self.slot(depth), Reg::T0);
            }
            Entry::Const(bits) => {
                m.mov_imm(Reg::T0, bits);
                m.store(self.slot(depth), Reg::T0);
            }
        }
    }

    /// Exchanges the top with the entry `back` places below it; both must be in no conflict for slots, so entries in memory are loaded first.
    pub fn swap<M: MacroAssembler>(&mut self, m: &mut M, back: usize) {
        let (low, high) = (self.entries.len() - 1 - back, self.entries.len() - 1);
        let (a, b) = (self.entries[low], self.entries[high]);
        match (a, b) {
            (Entry::Memory, Entry::Memory) => {
                m.load(Reg::T0, self.slot(low));
                m.load(Reg::T1, self.slot(high));
                m.store(self.slot(low), Reg::T1);
                m.store(self.slot(high), Reg::T0);
            }
            (Entry::Memory, _) => {
                m.load(Reg::T0, self.slot(low));
                m.store(self.slot(high), Reg::T0);
                self.set(low, b);
                self.set(high, Entry::Memory);
            }
            (_, Entry::Memory) => {
                m.load(Reg::T0, self.slot(high));
                m.store(self.slot(low), Reg::T0);
                self.set(low, Entry::Memory);
                self.set(high, a);
            }
            _ => {
                self.set(low, b);
                self.set(high, a);
            }
        }
    }
}

impl VirtualStack {
    /// Gives entries borrowed from a local references of their own, in their slots. Uses T0.
    pub fn own_borrows_of<M: MacroAssembler>(&mut self, m: &mut M, index: u32) {
        for depth in 0..self.entries.len() {
            if self.entries[depth] == Entry::Local(index) {
                let owned = m.new_near_label();
                m.load(Reg::T0, Self::local(index));
                m.store(self.slot(depth), Reg::T0);
                m.branch_bits_set(Reg::T0, BORROWED as u32, owned);
                m.add32_mem(Reg::T0.at(0), 1);
                m.bind(owned);
                self.set(depth, Entry::Memory);
            }
        }
    }
}
