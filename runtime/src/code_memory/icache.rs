//! Making freshly written code visible to instruction fetch, on every processor.
//!
//! x86-64 keeps instruction fetch coherent with stores; only a thread that once executed other code at the same address has to serialise, which the
//! membarrier makes it do. AArch64 needs cache maintenance on the executable view, and the membarrier always.

use std::sync::atomic::{AtomicBool, Ordering};

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE`
const SYNC_CORE: libc::c_int = 1 << 5;
/// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE`
const REGISTER_SYNC_CORE: libc::c_int = 1 << 6;

/// The kernel refused to register: too old, or an emulator. Threads then synchronise when they are next interrupted.
static UNAVAILABLE: AtomicBool = AtomicBool::new(false);

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: membarrier takes three integers and touches no memory of the process.
    unsafe {
        libc::syscall(
            libc::SYS_membarrier,
            command,
            0 as libc::c_uint,
            0 as libc::c_int,
        ) == 0
    }
}

/// Makes every other thread of the process refetch what it executes next.
fn synchronise_threads() {
    if UNAVAILABLE.load(Ordering::Relaxed) || membarrier(SYNC_CORE) {
        return;
    }
    // Not registered yet.
    if !(membarrier(REGISTER_SYNC_CORE) && membarrier(SYNC_CORE)) {
        UNAVAILABLE.store(true, Ordering::Relaxed);
    }
}

/// Makes `len` bytes of new code at `start` fit to be executed. `reused`: other code may have been executed at these addresses.
///
/// # Safety
/// The range is mapped readable and executable, and holds its final bytes.
pub(super) unsafe fn synchronise(start: *const u8, len: usize, reused: bool) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: passed on from the caller.
    unsafe {
        maintain_caches(start as usize, len);
    }
    #[cfg(not(target_arch = "aarch64"))]
    let _ = (start, len);
    if reused || cfg!(target_arch = "aarch64") {
        synchronise_threads();
    }
}

/// Machine code of a C function that returns `number`.
#[cfg(target_arch = "aarch64")]
pub(super) fn returns(number: u16) -> [u8; 8] {
    // movz w0, #number; ret
    let words = [0x5280_0000 | u32::from(number) << 5, 0xd65f_03c0];
    let [move_, return_] = words.map(u32::to_le_bytes);
    let mut code = [0; 8];
    code[..4].copy_from_slice(&move_);
    code[4..].copy_from_slice(&return_);
    code
}

/// Machine code of a C function that returns `number`.
#[cfg(target_arch = "x86_64")]
pub(super) fn returns(number: u16) -> [u8; 6] {
    // mov eax, number; ret
    let [low, high] = number.to_le_bytes();
    [0xb8, low, high, 0, 0, 0xc3]
}

/// Cleans data lines to the point of unification, then invalidates instruction lines.
#[cfg(target_arch = "aarch64")]
unsafe fn maintain_caches(start: usize, len: usize) {
    use std::arch::asm;
    let cache_type: usize;
    // SAFETY: reading the cache type register is permitted in user mode and has no effect.
    unsafe {
        asm!("mrs {}, ctr_el0", out(reg) cache_type, options(nomem, nostack, preserves_flags))
    };
    let data_line = 4usize << ((cache_type >> 16) & 15);
    let instruction_line = 4usize << (cache_type & 15);
    let end = start + len;
    let mut line = start & !(data_line - 1);
    while line < end {
        // SAFETY: the address is readable, as the caller promises; the operation changes no memory.
        unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
        line += data_line;
    }
    // SAFETY: a barrier changes no memory.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    line = start & !(instruction_line - 1);
    while line < end {
        // SAFETY: as for the data lines.
        unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
        line += instruction_line;
    }
    // SAFETY: barriers change no memory.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
}
