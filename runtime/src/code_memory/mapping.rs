//! Pages for code: an executable view that is never writable, and a way to write behind it.
//!
//! Address space is reserved at once, pages come in steps, so that a process with little code maps little. No file descriptor is kept: programs close
//! descriptors they do not know, and the number would then be another file's.

use std::ffi::c_void;
use std::ptr::{copy_nonoverlapping, null_mut};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

use super::{CodeMemoryError, round_up};

/// Bytes mapped at first: the shared stubs and some functions. A step is as large as what is mapped already, so that a program that stamps nothing pays for little.
const FIRST_STEP: usize = 32 << 10;
/// Bytes mapped at a time when there is much code.
const LAST_STEP: usize = 256 << 10;

/// The smallest region worth having, where address space is limited.
const MIN_REGION: usize = 1 << 20;

/// How a page of code is kept from being writable and executable at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// One memory object, mapped twice: writable here, executable there.
    DualMapped,
    /// Private pages whose protection is switched while the GIL is held, so that no thread runs compiled code meanwhile.
    Private,
}

impl Protection {
    /// The name that statistics show.
    pub const fn name(self) -> &'static str {
        match self {
            Protection::DualMapped => "dual_mapped",
            Protection::Private => "private",
        }
    }
}

/// The region and its pages.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Start of the executable view.
    start: usize,
    /// Start of the writable view; `start` where there is one view only.
    writable: usize,
    len: usize,
    /// Pages exist below this offset.
    mapped: usize,
    /// The part of `mapped` that an earlier process owned: its writable view is withdrawn with the next growth.
    inherited: usize,
    page: usize,
    protection: Protection,
}

impl Mapping {
    /// Reserves a region of `len` bytes, or of what the limit on address space leaves, and finds out how this system lets it be filled.
    pub(super) fn reserve(
        len: usize,
        forced: Option<Protection>,
    ) -> Result<Mapping, CodeMemoryError> {
        let page = rustix::param::page_size();
        let mut len = round_up(len, page);
        let tried = match &forced {
            Some(one) => std::slice::from_ref(one),
            None => &[Protection::DualMapped, Protection::Private][..],
        };
        let mut last = Errno::NOMEM;
        for &protection in tried {
            loop {
                match Mapping::reserve_as(len, page, protection) {
                    Ok(mapping) => return Ok(mapping),
                    Err(Errno::NOMEM) if len / 2 >= MIN_REGION => len = round_up(len / 2, page),
                    Err(error) => {
                        last = error;
                        break;
                    }
                }
            }
        }
        Err(match last {
            Errno::NOMEM => CodeMemoryError::OutOfMemory(last),
            _ => CodeMemoryError::Forbidden(last),
        })
    }

    fn reserve_as(len: usize, page: usize, protection: Protection) -> Result<Mapping, Errno> {
        let start = reserve_addresses(len)?;
        let writable = match protection {
            Protection::Private => start,
            Protection::DualMapped => match reserve_addresses(len) {
                Ok(address) => address,
                Err(error) => {
                    // SAFETY: reserved above, and nothing refers to it.
                    unsafe { munmap(start as *mut c_void, len)? };
                    return Err(error);
                }
            },
        };
        let mut mapping = Mapping {
            start,
            writable,
            len,
            mapped: 0,
            inherited: 0,
            page,
            protection,
        };
        // The first step shows whether the system permits this way at all.
        mapping.grow_to(page)?;
        mapping.write_bytes(0, &[0])?;
        Ok(mapping)
    }

    pub(super) fn start(&self) -> usize {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn page(&self) -> usize {
        self.page
    }

    pub(super) fn protection(&self) -> Protection {
        self.protection
    }

    /// Makes sure that pages exist below `end`, which lies in the region.
    pub(super) fn grow(&mut self, end: usize) -> Result<(), CodeMemoryError> {
        self.grow_to(end).map_err(CodeMemoryError::OutOfMemory)
    }

    fn grow_to(&mut self, end: usize) -> Result<(), Errno> {
        if end <= self.mapped {
            return Ok(());
        }
        if self.inherited > 0 {
            // SAFETY: this part of the writable view is never written again: a fork sealed it.
            unsafe {
                mprotect(
                    self.writable as *mut c_void,
                    self.inherited,
                    MprotectFlags::empty(),
                )?
            };
            self.inherited = 0;
        }
        let mapped = self.mapped;
        let unit = mapped.next_power_of_two().clamp(FIRST_STEP, LAST_STEP);
        let step = round_up(end - mapped, unit).min(self.len - mapped);
        if self.protection == Protection::DualMapped {
            let object = memory_object()?;
            ftruncate(&object, step as u64)?;
            // All pages at once: a fault for each page and view costs more than stamping what fits on it.
            let shared = MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE;
            // SAFETY: both ranges lie in address space that this mapping reserved, and hold nothing of this process beyond `mapped`.
            unsafe {
                mmap(
                    (self.writable + mapped) as *mut c_void,
                    step,
                    ProtFlags::READ | ProtFlags::WRITE,
                    shared,
                    &object,
                    0,
                )?;
                mmap(
                    (self.start + mapped) as *mut c_void,
                    step,
                    ProtFlags::READ | ProtFlags::EXEC,
                    shared,
                    &object,
                    0,
                )?;
            }
        }
        self.mapped = mapped + step;
        Ok(())
    }

    /// Copies bytes to an offset where pages exist. The executable view shows them afterwards.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), CodeMemoryError> {
        self.write_bytes(offset, bytes)
            .map_err(CodeMemoryError::Forbidden)
    }

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        assert!(
            offset + bytes.len() <= self.mapped,
            "code is written where pages are mapped"
        );
        let target = (self.writable + offset) as *mut u8;
        match self.protection {
            Protection::DualMapped => {
                // SAFETY: the range is mapped writable, and `bytes` is not part of it: nobody else has references into the writable view.
                unsafe { copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
                Ok(())
            }
            Protection::Private => {
                let first = offset & !(self.page - 1);
                let pages = round_up(offset + bytes.len(), self.page) - first;
                let address = (self.start + first) as *mut c_void;
                // SAFETY: the pages are this mapping's. While they are writable no thread executes them, since the GIL is held.
                unsafe {
                    mprotect(address, pages, MprotectFlags::READ | MprotectFlags::WRITE)?;
                    copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
                    mprotect(address, pages, MprotectFlags::READ | MprotectFlags::EXEC)
                }
            }
        }
    }

    /// Forgets the pages from `end` on, in the child of a fork: they are shared with the parent, and the next growth maps others over them.
    pub(super) fn cut(&mut self, end: usize) {
        self.mapped = self.mapped.min(end);
        self.inherited = self.mapped;
    }
}

/// The process's own mapping is never dropped; one that the system refused to fill is, and those of tests.
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: whoever drops the mapping gave out no address of it, or no longer uses them.
        let unmapped = unsafe {
            munmap(self.start as *mut c_void, self.len).and_then(|()| {
                if self.writable == self.start {
                    Ok(())
                } else {
                    munmap(self.writable as *mut c_void, self.len)
                }
            })
        };
        debug_assert!(unmapped.is_ok());
    }
}

/// Address space without pages.
fn reserve_addresses(len: usize) -> Result<usize, Errno> {
    // SAFETY: a fresh private mapping at an address of the kernel's choice disturbs nothing.
    let address = unsafe {
        mmap_anonymous(
            null_mut(),
            len,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )?
    };
    Ok(address as usize)
}

/// An anonymous memory object that may be mapped executable. Kernels before 6.3 do not know the flag that says so.
fn memory_object() -> Result<rustix::fd::OwnedFd, Errno> {
    match memfd_create(c"hotstamp", MemfdFlags::CLOEXEC | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(c"hotstamp", MemfdFlags::CLOEXEC),
        other => other,
    }
}
