//! Memory for machine code: one region, never writable and executable at once, filled from its start.
//!
//! The whole region lies within branch range of itself (at most 128 MiB), so compiled code and shared stubs reach one another with near branches. Code is
//! assembled for an address (`next_address`), then copied there through the writable alias (`publish`); published bytes never change. Callers hold the
//! GIL; the lock inside is for `fork`, and for callers that do not.
//!
//! `mapping.rs` knows how pages are made, `icache.rs` what a processor must be told, `fork.rs` what both sides of a fork give up.

mod fork;
mod icache;
mod mapping;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use once_cell::sync::OnceCell;
use thiserror::Error;

use crate::site::CodePtr;
use mapping::Mapping;
pub use mapping::Protection;

/// Alignment of every published piece of code.
pub const ALIGNMENT: usize = 16;

/// The largest region: what an AArch64 `bl` reaches.
pub const MAX_MIB: usize = 128;

/// Why code could not be placed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CodeMemoryError {
    /// The cap on code memory is used up; the program goes on without new code.
    #[error("the cap on code memory ({cap} bytes, HOTSTAMP_CODE_MIB) is reached")]
    CapReached {
        /// The cap in bytes.
        cap: usize,
    },
    /// The system lets this process have no executable memory of its own.
    #[error("this system permits no executable memory: {0}")]
    Forbidden(rustix::io::Errno),
    /// Address space or pages could not be had.
    #[error("no memory for code: {0}")]
    OutOfMemory(rustix::io::Errno),
    /// The freed block chosen by `address_for` is too small: assemble again for `next_address`.
    #[error("{needed} bytes of code do not fit the freed block they were assembled for")]
    DoesNotFit {
        /// Bytes that were to be placed.
        needed: usize,
    },
}

/// What code memory holds, for the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes handed out since the start of the region, padding and freed code included.
    pub used: usize,
    /// Bytes of these that were freed and may be handed out again.
    pub reusable: usize,
    /// Bytes of these that a fork sealed.
    pub sealed: usize,
    /// The cap in bytes.
    pub cap: usize,
    /// How pages are protected; `None` before the first use.
    pub protection: Option<Protection>,
}

/// All machine code of the process.
#[derive(Debug)]
pub struct CodeMemory {
    arena: Mutex<Arena>,
}

static GLOBAL: OnceCell<CodeMemory> = OnceCell::new();

impl CodeMemory {
    /// The process's code memory, with the cap that `HOTSTAMP_CODE_MIB` asks for.
    pub fn global() -> &'static CodeMemory {
        let memory = GLOBAL.get_or_init(|| {
            let memory = CodeMemory::with_cap(cap_from_environment(), None);
            memory.lock().rewriting = Rewriting::Untried;
            memory
        });
        fork::install();
        memory
    }

    /// Code memory of its own, for tests. `protection` forces a way of protecting pages.
    fn with_cap(cap: usize, protection: Option<Protection>) -> CodeMemory {
        CodeMemory {
            arena: Mutex::new(Arena::new(cap, protection)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executable address at which the next `publish` places its bytes. It stays the same until then, while the caller holds the GIL.
    pub fn next_address(&self) -> Result<CodePtr, CodeMemoryError> {
        self.lock().next_address()
    }

    /// Executable address for code of about `estimate` bytes: a freed block that holds as much, otherwise `next_address`. To be used with `publish_at`.
    pub fn address_for(&self, estimate: usize) -> Result<CodePtr, CodeMemoryError> {
        let mut arena = self.lock();
        match arena.free.best_fit(round_up(estimate, ALIGNMENT)) {
            Some(address) => Ok(CodePtr(address as *const u8)),
            None => arena.next_address(),
        }
    }

    /// Copies code to `next_address` and makes it executable on every processor.
    pub fn publish(&self, bytes: &[u8]) -> Result<CodePtr, CodeMemoryError> {
        let mut arena = self.lock();
        let at = arena.next_address()?;
        arena.publish_at(at, bytes)
    }

    /// Copies code to an address that `next_address` or `address_for` gave, and makes it executable on every processor.
    pub fn publish_at(&self, at: CodePtr, bytes: &[u8]) -> Result<CodePtr, CodeMemoryError> {
        self.lock().publish_at(at, bytes)
    }

    /// Gives a piece of code back for reuse. Code that a fork shares is never reused; freeing it does nothing.
    ///
    /// # Safety
    /// The piece was published with this length, is freed once, and no thread runs in it or holds its address.
    pub unsafe fn free(&self, at: CodePtr, len: usize) {
        self.lock().release(at.0 as usize, len);
    }

    /// Whether an address lies in published code.
    pub fn contains(&self, at: CodePtr) -> bool {
        let arena = self.lock();
        arena
            .mapping
            .as_ref()
            .is_some_and(|m| (m.start()..m.start() + arena.used).contains(&(at.0 as usize)))
    }

    /// What is used at present.
    pub fn usage(&self) -> Usage {
        let mut arena = self.lock();
        arena.forget_sealed();
        Usage {
            used: arena.used,
            reusable: arena.free.bytes,
            sealed: arena.sealed,
            cap: arena.cap,
            protection: arena.mapping.as_ref().map(Mapping::protection),
        }
    }
}

/// The cap in bytes. What is not a number is answered by the default; more than a branch reaches, by what it reaches.
fn cap_from_environment() -> usize {
    let Ok(text) = std::env::var("HOTSTAMP_CODE_MIB") else {
        return MAX_MIB << 20;
    };
    match text.trim().parse::<usize>() {
        Ok(mib) => mib.min(MAX_MIB) << 20,
        Err(_) => {
            tracing::warn!(value = %text, "HOTSTAMP_CODE_MIB is not a number of MiB; {MAX_MIB} is used");
            MAX_MIB << 20
        }
    }
}

/// `value` rounded up to a multiple of a power of two.
const fn round_up(value: usize, to: usize) -> usize {
    (value + to - 1) & !(to - 1)
}

/// The allocator over one mapping. Offsets count from the mapping's start.
#[derive(Debug)]
struct Arena {
    cap: usize,
    forced: Option<Protection>,
    mapping: Option<Mapping>,
    /// Everything below was handed out or padded.
    used: usize,
    /// Everything below is shared with another process since a fork: never written, freed or reused.
    sealed: usize,
    /// A fork sealed blocks that `free` still lists.
    free_is_stale: bool,
    free: FreeBlocks,
    rewriting: Rewriting,
}

/// Whether code that was executed may be replaced by other code at its address.
///
/// An emulator that translates ahead may miss stores through the writable alias and take `ic ivau` for nothing (QEMU 7.2's user mode does): it would
/// go on with the code that was freed. What it does is found by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewriting {
    /// To be tried when the region is reserved.
    Untried,
    /// New code is what runs.
    Seen,
    /// Old code may run: freed code stays where it is.
    Missed,
}

impl Arena {
    fn new(cap: usize, forced: Option<Protection>) -> Arena {
        Arena {
            cap,
            forced,
            mapping: None,
            used: 0,
            sealed: 0,
            free_is_stale: false,
            free: FreeBlocks::default(),
            rewriting: Rewriting::Seen,
        }
    }

    fn cap_reached(&self) -> CodeMemoryError {
        CodeMemoryError::CapReached { cap: self.cap }
    }

    /// The mapping, reserved at the first use.
    fn mapping(&mut self) -> Result<&mut Mapping, CodeMemoryError> {
        if self.mapping.is_none() {
            if self.cap == 0 {
                return Err(self.cap_reached());
            }
            self.mapping = Some(Mapping::reserve(self.cap, self.forced)?);
            self.try_rewriting();
        }
        // The branch above filled it.
        self.mapping
            .as_mut()
            .ok_or(CodeMemoryError::CapReached { cap: self.cap })
    }

    /// Learns whether rewritten code is what runs, from a function that is executed, rewritten and executed again at the region's start.
    fn try_rewriting(&mut self) {
        if self.rewriting != Rewriting::Untried {
            return;
        }
        // Also the answer when the function cannot be placed.
        self.rewriting = Rewriting::Missed;
        let Some(mapping) = &mut self.mapping else {
            return;
        };
        let start = mapping.start() as *const u8;
        if mapping.len() < ALIGNMENT || mapping.grow(ALIGNMENT).is_err() {
            return;
        }
        let mut answer = |number| -> Option<i32> {
            let code = icache::returns(number);
            mapping.write(0, &code).ok()?;
            // SAFETY: `write` has just filled these bytes, which are mapped executable.
            unsafe { icache::synchronise(start, code.len(), true) };
            // SAFETY: the bytes are a whole function of this type, and no other thread knows of them.
            let function =
                unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i32>(start) };
            Some(function())
        };
        if answer(1) == Some(1) && answer(2) == Some(2) {
            self.rewriting = Rewriting::Seen;
        }
        self.used = ALIGNMENT;
    }

    fn next_address(&mut self) -> Result<CodePtr, CodeMemoryError> {
        self.forget_sealed();
        let mapping = self.mapping()?;
        let (start, len) = (mapping.start(), mapping.len());
        if self.used >= len {
            return Err(self.cap_reached());
        }
        Ok(CodePtr((start + self.used) as *const u8))
    }

    fn publish_at(&mut self, at: CodePtr, bytes: &[u8]) -> Result<CodePtr, CodeMemoryError> {
        self.forget_sealed();
        let len = round_up(bytes.len().max(1), ALIGNMENT);
        let start = self.mapping()?.start();
        let used = self.used;
        let mapping = self.mapping()?;
        let offset = (at.0 as usize).wrapping_sub(start);
        if offset == used {
            if len > mapping.len() - used {
                return Err(self.cap_reached());
            }
            mapping.grow(used + len)?;
            mapping.write(offset, bytes)?;
            self.used = used + len;
        } else {
            if !self.free.fits(at.0 as usize, len) {
                return Err(CodeMemoryError::DoesNotFit { needed: len });
            }
            self.mapping()?.write(offset, bytes)?;
            self.free.take(at.0 as usize, len);
        }
        // SAFETY: `write` has just filled these bytes, which are mapped executable.
        unsafe { icache::synchronise(at.0, bytes.len(), offset != used) };
        Ok(at)
    }

    fn release(&mut self, at: usize, len: usize) {
        self.forget_sealed();
        let Some(mapping) = &self.mapping else { return };
        let (offset, len) = (
            at.wrapping_sub(mapping.start()),
            round_up(len.max(1), ALIGNMENT),
        );
        debug_assert!(
            offset % ALIGNMENT == 0 && offset + len <= self.used,
            "freed code was never published"
        );
        let reusable = self.rewriting == Rewriting::Seen && offset >= self.sealed;
        if reusable && offset + len <= self.used {
            self.free.insert(at, len);
        }
    }

    /// Drops the freed blocks that a fork has sealed. Deferred to here because a fork handler may not use the allocator.
    fn forget_sealed(&mut self) {
        if std::mem::take(&mut self.free_is_stale) {
            self.free = FreeBlocks::default();
        }
    }

    /// Seals all that was handed out, at a fork: the other process executes the same pages. Only stores; called in fork handlers.
    fn seal(&mut self, in_child: bool) {
        let Some(mapping) = &mut self.mapping else {
            return;
        };
        if mapping.protection() == Protection::Private || self.used == self.sealed && !in_child {
            return;
        }
        // From here on neither side may share a page that the other still writes.
        self.used = round_up(self.used, mapping.page()).min(mapping.len());
        self.sealed = self.used;
        self.free_is_stale = true;
        if in_child {
            // The rest of what is mapped belongs to the parent; this process maps its own over it.
            mapping.cut(self.used);
        }
    }
}

/// Freed blocks by address, to join neighbours, and by length, to find the smallest that fits.
#[derive(Debug, Default)]
struct FreeBlocks {
    by_address: BTreeMap<usize, usize>,
    by_len: BTreeSet<(usize, usize)>,
    bytes: usize,
}

impl FreeBlocks {
    /// Adds a block, joined with the free blocks that touch it.
    fn insert(&mut self, mut at: usize, mut len: usize) {
        if let Some((&before, &before_len)) = self.by_address.range(..at).next_back()
            && before + before_len == at
        {
            self.remove(before, before_len);
            (at, len) = (before, before_len + len);
        }
        if let Some(&after_len) = self.by_address.get(&(at + len)) {
            self.remove(at + len, after_len);
            len += after_len;
        }
        self.by_address.insert(at, len);
        self.by_len.insert((len, at));
        self.bytes += len;
    }

    fn remove(&mut self, at: usize, len: usize) {
        self.by_address.remove(&at);
        self.by_len.remove(&(len, at));
        self.bytes -= len;
    }

    /// The smallest block of at least `len` bytes.
    fn best_fit(&self, len: usize) -> Option<usize> {
        self.by_len.range((len, 0)..).next().map(|&(_, at)| at)
    }

    fn fits(&self, at: usize, len: usize) -> bool {
        self.by_address.get(&at).is_some_and(|&block| len <= block)
    }

    /// Takes the first `len` bytes of the block at `at`, which `fits`.
    fn take(&mut self, at: usize, len: usize) {
        if let Some(&block) = self.by_address.get(&at) {
            self.remove(at, block);
            if block > len {
                self.insert(at + len, block - len);
            }
        }
    }
}

#[cfg(test)]
mod tests;
