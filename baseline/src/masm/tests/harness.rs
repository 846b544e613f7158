//! Runs assembled code on the host: published into memory, entered through the assembler's own trampoline, with every register role under control.
//!
//! A test gives the state before, the code, and what the code should have changed. The harness compares all registers and the memory window, so that a
//! method that changes more than it says is caught as well.

use std::ptr;

use hotstamp_runtime::site::CodePtr;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::masm::{FReg, MacroAssembler, Mem, Reg};

#[cfg(target_arch = "aarch64")]
pub type Host = crate::masm::aarch64::Aarch64;
#[cfg(target_arch = "x86_64")]
pub type Host = crate::masm::x86_64::X86_64;

/// All roles.
pub const ROLES: [Reg; 15] = [
    Reg::Acc,
    Reg::A0,
    Reg::A1,
    Reg::A2,
    Reg::A3,
    Reg::A4,
    Reg::A5,
    Reg::T0,
    Reg::T1,
    Reg::T2,
    Reg::T3,
    Reg::T4,
    Reg::Frame,
    Reg::Data,
    Reg::Tstate,
];

/// Roles whose contents a test chooses: all but `Frame`, which is the address of the `State` while the code runs.
pub const FREE: [Reg; 14] = [
    Reg::Acc,
    Reg::A0,
    Reg::A1,
    Reg::A2,
    Reg::A3,
    Reg::A4,
    Reg::A5,
    Reg::T0,
    Reg::T1,
    Reg::T2,
    Reg::T3,
    Reg::T4,
    Reg::Data,
    Reg::Tstate,
];

/// Are these the same machine register?
pub fn alias(a: Reg, b: Reg) -> bool {
    let accumulator = |reg| matches!(reg, Reg::Acc | Reg::A0);
    a == b || cfg!(target_arch = "aarch64") && accumulator(a) && accumulator(b)
}

/// An anonymous mapping.
struct Mapping {
    address: *mut u8,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> Mapping {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever the kernel puts it, is nobody else's memory.
        let address = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                bytes,
                protection,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
            .unwrap()
        };
        Mapping {
            address: address.cast(),
            bytes,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and a test keeps no pointer into it.
        unsafe { munmap(self.address.cast(), self.bytes).unwrap() };
    }
}

/// Executable code. The trampoline is at its beginning, so it is called as `(frame, tstate, entry, data)`.
pub struct Code {
    memory: Mapping,
    pub bytes: usize,
    /// Offset of the body.
    body: usize,
    /// Offset of where the body returns to.
    pub trampoline_return: usize,
}

type Trampoline = unsafe extern "C" fn(*mut State, u64, *const u8, u64) -> u64;

impl Code {
    /// Publishes a trampoline, and a body that loads all free roles from its `State`, does what `code` assembles and stores them back.
    pub fn new(code: impl FnOnce(&mut Host)) -> Code {
        Code::with_capacity(64 << 10, |masm, _| {
            masm.body_enter();
            load_state(masm);
            code(masm);
            store_state(masm);
            masm.body_return();
        })
    }

    /// Publishes a trampoline and the code of a body, of at most so many bytes. `body` is given the address of position 0.
    pub fn with_capacity(capacity: usize, body: impl FnOnce(&mut Host, *const u8)) -> Code {
        let memory = Mapping::new(capacity);
        let mut masm = Host::new(CodePtr(memory.address));
        let trampoline_return = masm.trampoline();
        masm.align();
        let start = masm.position();
        body(&mut masm, memory.address);
        let code = masm.finish().unwrap();
        assert!(code.len() <= capacity, "{} bytes", code.len());
        // SAFETY: the mapping is as large as that, and nobody else writes it.
        unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), memory.address, code.len());
            mprotect(
                memory.address.cast(),
                memory.bytes,
                MprotectFlags::READ | MprotectFlags::EXEC,
            )
            .unwrap();
            let published = std::slice::from_raw_parts(memory.address, code.len());
            dynasmrt::cache_control::synchronize_icache(published);
            dynasmrt::cache_control::prepare_for_execution(published);
        }
        Code {
            memory,
            bytes: code.len(),
            body: start,
            trampoline_return,
        }
    }

    /// Where the trampoline begins.
    pub fn start(&self) -> *const u8 {
        self.memory.address
    }

    /// Where the body begins.
    pub fn entry(&self) -> *const u8 {
        self.memory.address.wrapping_add(self.body)
    }

    /// Calls the body with any pointers that it expects.
    pub fn call(&self, frame: *mut State, tstate: u64, data: u64) -> u64 {
        // SAFETY: the trampoline was assembled there; a test's code does nothing but what the test checks.
        unsafe {
            let trampoline: Trampoline = std::mem::transmute(self.memory.address);
            trampoline(frame, tstate, self.entry(), data)
        }
    }

    /// Runs the code of `Code::new` on a state.
    pub fn run(&self, state: &mut State) {
        self.call(state, 0, 0);
    }
}

/// Words of memory in a `State`.
pub const WORDS: usize = 16;

/// What code reads and writes; `Frame` points to it.
#[repr(C)]
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    roles: [u64; FREE.len()],
    floats: [u64; 2],
    /// A window of memory.
    pub memory: [u64; WORDS],
}

impl State {
    /// A state with a different value in each place.
    pub fn new() -> State {
        let filled = |i: usize, seed: u64| (i as u64 + 1).wrapping_mul(seed);
        State {
            roles: std::array::from_fn(|i| filled(i, 0x0101_0101_0307_0b0d)),
            floats: [1.5_f64.to_bits(), (-2.25_f64).to_bits()],
            memory: std::array::from_fn(|i| filled(i, 0x1357_9bdf_0246_8ace)),
        }
    }

    pub fn get(&self, reg: Reg) -> u64 {
        self.roles[index(reg)]
    }

    pub fn set(&mut self, reg: Reg, value: u64) {
        self.roles[index(reg)] = value;
    }

    pub fn get_float(&self, reg: FReg) -> f64 {
        f64::from_bits(self.floats[reg as usize])
    }

    pub fn set_float(&mut self, reg: FReg, value: f64) {
        self.floats[reg as usize] = value.to_bits();
    }
}

/// Where a free role is in a `State`. Roles that are one register are in one place.
fn index(reg: Reg) -> usize {
    FREE.iter()
        .position(|&free| alias(free, reg))
        .expect("a free role")
}

fn slot(reg: Reg) -> Mem {
    Reg::Frame.at(8 * index(reg))
}

fn float_slot(reg: FReg) -> Mem {
    Reg::Frame.at(8 * (FREE.len() + reg as usize))
}

/// A word of the state's memory, as an operand.
pub fn word(i: usize) -> Mem {
    assert!(i < WORDS);
    Reg::Frame.at(8 * (FREE.len() + 2 + i))
}

/// Loads all free roles from the state.
pub fn load_state(masm: &mut Host) {
    masm.fload(FReg::F0, float_slot(FReg::F0));
    masm.fload(FReg::F1, float_slot(FReg::F1));
    for reg in FREE {
        masm.load(reg, slot(reg));
    }
}

/// Stores all free roles to the state.
pub fn store_state(masm: &mut Host) {
    for reg in FREE {
        masm.store(slot(reg), reg);
    }
    masm.fstore(float_slot(FReg::F0), FReg::F0);
    masm.fstore(float_slot(FReg::F1), FReg::F1);
}

/// Runs `code` on `before` and compares with what `change` makes of it.
#[track_caller]
pub fn check(before: &State, code: impl FnOnce(&mut Host), change: impl FnOnce(&mut State)) {
    let mut expected = before.clone();
    change(&mut expected);
    let mut state = before.clone();
    Code::new(code).run(&mut state);
    assert_eq!(state, expected, "before: {before:?}");
}

/// A body that tells whether a branch was taken: `branch` gets the label. `Code::taken` runs it.
pub fn branch_code(branch: impl FnOnce(&mut Host, crate::masm::Label)) -> Code {
    Code::new(|masm| {
        let (taken, done) = (masm.new_label(), masm.new_label());
        branch(masm, taken);
        masm.store_imm(word(WORDS - 1), 0);
        masm.jump(done);
        masm.bind(taken);
        masm.store_imm(word(WORDS - 1), 1);
        masm.bind(done);
    })
}

impl Code {
    /// Was the branch of `branch_code` taken, with nothing changed?
    #[track_caller]
    pub fn taken(&self, before: &State) -> bool {
        let mut state = before.clone();
        state.memory[WORDS - 1] = 7;
        self.run(&mut state);
        let taken = state.memory[WORDS - 1];
        assert!(taken <= 1, "the code did not run to its end");
        state.memory[WORDS - 1] = before.memory[WORDS - 1];
        assert_eq!(&state, before);
        taken == 1
    }
}

/// Memory around an address, zero at first, to be reached with displacements up to its size.
pub struct Far {
    memory: Mapping,
}

impl Far {
    const HALF: usize = 64 << 20;

    pub fn new() -> Far {
        Far {
            memory: Mapping::new(2 * Far::HALF),
        }
    }

    /// The address in the middle.
    pub fn middle(&self) -> u64 {
        self.memory.address as u64 + Far::HALF as u64
    }

    fn place(&self, disp: i64) -> *mut u64 {
        assert!(disp.unsigned_abs() as usize + 8 <= Far::HALF);
        self.memory
            .address
            .wrapping_offset(Far::HALF as isize + disp as isize)
            .cast()
    }

    /// The word at `middle + disp`.
    pub fn get(&self, disp: i64) -> u64 {
        // SAFETY: inside of the mapping.
        unsafe { self.place(disp).read_unaligned() }
    }

    /// Sets the word at `middle + disp`.
    pub fn set(&self, disp: i64, value: u64) {
        // SAFETY: inside of the mapping.
        unsafe { self.place(disp).write_unaligned(value) }
    }
}
