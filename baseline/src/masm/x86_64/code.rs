//! The x86-64 backend's code buffer: bytes, labels, and the branches that wait for a label.
//!
//! Most instructions are one unconditional store of more bytes than they have, behind which the next one begins: stamping is fast where the encoding is
//! known when hotstamp is compiled, and the buffer is the only thing that moves.

use std::cell::Cell;

use dynasmrt::{AssemblyOffset, DynasmApi};
use hotstamp_runtime::site::CodePtr;

use crate::masm::{AssembleError, Label};

/// More than any instruction has.
const ROOM: usize = 16;

/// The position of a label that is not bound yet.
const UNBOUND: u32 = u32::MAX;

/// A branch's displacement that waits for its label.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Where the displacement stands.
    at: u32,
    label: Label,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Code {
    bytes: Vec<u8>,
    /// Address of the first byte.
    start: usize,
    /// By number: where the label is bound.
    labels: Vec<u32>,
    waiting: Vec<Waiting>,
    /// The branches, of one byte each, to near labels.
    waiting_near: Vec<Waiting>,
    /// A call or jump does not reach its target.
    out_of_reach: bool,
}

/// The first bytes of an instruction, up to 8.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) bytes: u64,
    pub(super) len: u32,
}

impl Head {
    pub(super) const EMPTY: Head = Head { bytes: 0, len: 0 };

    /// Appends a byte.
    #[inline(always)]
    pub(super) fn then(self, byte: u8) -> Head {
        Head {
            bytes: self.bytes | u64::from(byte) << (8 * self.len),
            len: self.len + 1,
        }
    }
}

/// More labels than this, and their memory is given back to the allocator.
const MOST_LABELS: usize = 1 << 15;

thread_local! {
    /// The memory of labels and waiting branches, from one piece of code to the next on its thread.
    static SPARE: Cell<(Vec<u32>, Vec<Waiting>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

impl Code {
    pub(super) fn new(start: usize) -> Code {
        let (labels, waiting) = SPARE.take();
        Code {
            bytes: Vec::new(),
            start,
            labels,
            waiting,
            waiting_near: Vec::new(),
            out_of_reach: false,
        }
    }

    /// Assembles into this memory, which gets room for so many bytes. Nothing has been assembled.
    pub(super) fn write_into(&mut self, memory: Vec<u8>, bytes: usize) {
        self.bytes = memory;
        self.bytes.clear();
        self.bytes.reserve(bytes);
    }

    #[inline(always)]
    pub(super) fn position(&self) -> usize {
        self.bytes.len()
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.bytes.reserve(self.bytes.capacity().max(256));
    }

    /// An instruction that consists of its head.
    #[inline(always)]
    pub(super) fn emit(&mut self, head: Head) {
        self.emit_with(head, 0, 0);
    }

    /// An instruction with `len` (at most 8) bytes of `tail` behind its head.
    #[inline(always)]
    pub(super) fn emit_with(&mut self, head: Head, tail: u64, len: u32) {
        if self.bytes.capacity() - self.bytes.len() < ROOM {
            self.grow();
        }
        let at = self.bytes.len();
        // SAFETY: there is room for two words at the end, one behind the other: the head has 8 bytes at most. What is stored beyond the instruction's length
        // is not counted, and stored over by the next one.
        unsafe {
            let end = self.bytes.as_mut_ptr().add(at);
            end.cast::<u64>().write_unaligned(head.bytes.to_le());
            if len > 0 {
                end.add(head.len as usize)
                    .cast::<u64>()
                    .write_unaligned(tail.to_le());
            }
            self.bytes.set_len(at + (head.len + len) as usize);
        }
    }

    /// A label not bound yet.
    #[inline]
    pub(super) fn new_label(&mut self, near: bool) -> Label {
        let number = self.labels.len() as u32;
        self.labels.push(UNBOUND);
        Label::new(number, near)
    }

    /// Labels with consecutive numbers; the first.
    pub(super) fn new_labels(&mut self, count: usize) -> Label {
        let number = self.labels.len() as u32;
        self.labels.resize(self.labels.len() + count, UNBOUND);
        Label::new(number, false)
    }

    #[inline]
    pub(super) fn bind(&mut self, label: Label) {
        let position = self.position() as u32;
        let bound = &mut self.labels[label.number()];
        assert!(*bound == UNBOUND, "a label is bound once");
        *bound = position;
        if label.is_near() {
            self.resolve_near(label, position as usize);
        }
    }

    #[inline]
    fn resolve_near(&mut self, label: Label, position: usize) {
        let mut index = self.waiting_near.len();
        while index > 0 {
            index -= 1;
            if self.waiting_near[index].label != label {
                continue;
            }
            let at = self.waiting_near.swap_remove(index).at as usize;
            match i8::try_from(position - (at + 1)) {
                Ok(distance) => self.bytes[at] = distance as u8,
                Err(_) => self.out_of_reach = true,
            }
        }
    }

    /// A branch: `short` is the opcode with 8 bits of displacement, `long` that with 32.
    #[inline]
    pub(super) fn branch(&mut self, short: Head, long: Head, label: Label) {
        let target = self.labels[label.number()];
        if target != UNBOUND {
            let at = self.position();
            let distance = target as i64 - (at as i64 + i64::from(short.len) + 1);
            if let Ok(distance) = i8::try_from(distance) {
                self.emit(short.then(distance as u8));
            } else {
                let distance = target as i64 - (at as i64 + i64::from(long.len) + 4);
                self.emit_with(long, distance as u32 as u64, 4);
            }
            return;
        }
        if label.is_near() {
            self.emit(short.then(0));
            let at = self.position() as u32 - 1;
            self.waiting_near.push(Waiting { at, label });
        } else {
            self.emit_with(long, 0, 4);
            let at = self.position() as u32 - 4;
            self.waiting.push(Waiting { at, label });
        }
    }

    /// A call or jump, or a branch, to other code in the same code memory.
    #[inline]
    pub(super) fn outside(&mut self, head: Head, target: CodePtr) {
        let next = self.start + self.position() + head.len as usize + 4;
        let distance = (target.0 as usize).wrapping_sub(next) as i64;
        self.out_of_reach |= i32::try_from(distance).is_err();
        self.emit_with(head, distance as u32 as u64, 4);
    }

    /// Resolves what waits for labels.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, AssembleError> {
        if self.out_of_reach {
            let what = "a branch does not reach its target";
            return Err(AssembleError::Relocation(what.to_owned()));
        }
        let unbound = |label: Label| {
            AssembleError::Relocation(format!("label {} is not bound", label.number()))
        };
        if let Some(waiting) = self.waiting_near.first() {
            return Err(unbound(waiting.label));
        }
        for &Waiting { at, label } in &self.waiting {
            let target = self.labels[label.number()];
            if target == UNBOUND {
                return Err(unbound(label));
            }
            let distance = target.wrapping_sub(at + 4);
            let at = at as usize;
            self.bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        if self.labels.capacity() <= MOST_LABELS {
            self.labels.clear();
            self.waiting.clear();
            SPARE.set((self.labels, self.waiting));
        }
        Ok(self.bytes)
    }
}

impl Extend<u8> for Code {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.bytes.extend(bytes);
    }
}

impl<'a> Extend<&'a u8> for Code {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, bytes: T) {
        self.bytes.extend(bytes);
    }
}

/// For instructions that `dynasm!` encodes; they have no labels.
impl DynasmApi for Code {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(self.position())
    }

    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn align(&mut self, alignment: usize, with: u8) {
        while !(self.start + self.position()).is_multiple_of(alignment) {
            self.bytes.push(with);
        }
    }
}
