//! The baseline tier: bytecode to machine code in one pass, no IR.
//!
//! `start` assembles the shared stubs and registers the compiler with the runtime; from then on functions are stamped at their first call.

pub mod bytecode;
pub mod compiler;
pub mod error;
pub mod masm;
mod spare;
pub mod stubs;
mod templates;
pub mod vstack;

use std::time::Instant;

use hotstamp_layout::ffi::{self, PyCodeObject, PyObject};
use hotstamp_layout::refs::{self, StackRef};
use hotstamp_runtime::code_data::{CALL_STUB_MAGIC, CodeData, NewCode, SIMPLE_ARGUMENTS};
use hotstamp_runtime::code_memory::CodeMemory;
use hotstamp_runtime::exits::ExitReason;
use hotstamp_runtime::registry::{self, Compiler as RegisteredCompiler, StartError};
use hotstamp_runtime::resume::stress;
use hotstamp_runtime::site::CodePtr;
use hotstamp_runtime::{caches, entry, naming, stats};
use once_cell::sync::OnceCell;

use crate::bytecode::Bytecode;
use crate::compiler::{Compiler, Output};
use crate::error::CompileError;
use crate::masm::{MacroAssembler, Reg};
use crate::spare::Spare;
use crate::stubs::Stubs;

/// The backend of the machine this runs on.
#[cfg(target_arch = "x86_64")]
pub type Native = masm::x86_64::X86_64;
/// The backend of the machine this runs on.
#[cfg(target_arch = "aarch64")]
pub type Native = masm::aarch64::Aarch64;

static STUBS: OnceCell<Stubs> = OnceCell::new();

/// Why the tier could not start.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The shared stubs could not be made.
    #[error("the shared stubs could not be made: {0}")]
    Stubs(#[from] CompileError),
    /// The runtime refused.
    #[error(transparent)]
    Registry(#[from] StartError),
}

/// Starts the tier. Idempotent; GIL held.
///
/// # Errors
/// No code memory, or no code extra slot.
pub fn start() -> Result<(), BaselineError> {
    let stubs = shared_stubs()?;
    if registry::compiler().is_none() {
        stress::start();
        caches::start(stubs.cache_stubs());
        registry::start(RegisteredCompiler {
            compile: compile_counted,
            trampoline: stubs.trampoline,
            trampoline_return: stubs.trampoline_return,
            call_on_stack: stubs.call_on_stack,
            enter_at: stubs.enter_at,
            c_entry: stubs.c_entry,
            optimized_entry: stubs.optimized_entry,
            throw_into: stubs.throw_into,
        })?;
    }
    Ok(())
}

/// The shared stubs, assembled at the first use.
fn shared_stubs() -> Result<&'static Stubs, CompileError> {
    STUBS.get_or_try_init(|| {
        let memory = CodeMemory::global();
        let address = memory.next_address()?;
        let (code, stubs) = Stubs::assemble::<Native>(address, stress::modes().resume)?;
        memory.publish(&code)?;
        for (name, address) in stubs.named() {
            tracing::trace!(address = ?address.0, "stub {name}");
        }
        Ok(stubs)
    })
}

/// What the registry calls.
unsafe fn compile_counted(
    code: *mut PyCodeObject,
    globals: *mut PyObject,
    builtins: *mut PyObject,
) -> Result<*mut CodeData, ExitReason> {
    let started = Instant::now();
    // SAFETY: passed on.
    let result = unsafe { stamp(code, globals, builtins) };
    match result {
        Ok((data, instructions)) => {
            // SAFETY: just made.
            let (code_bytes, metadata_bytes) =
                unsafe { ((*data).code_bytes, (*data).metadata_bytes) };
            stats::count_stamped(
                code_bytes as usize,
                metadata_bytes as usize,
                instructions,
                started.elapsed(),
            );
            // SAFETY: as above.
            unsafe { log(data, started) };
            Ok(data)
        }
        Err(error) => {
            // SAFETY: a live code object.
            tracing::debug!(reason = error.reason().name(), %error, "not compiled: {}", unsafe { naming::qualified_name(code) });
            Err(error.reason())
        }
    }
}

unsafe fn log(data: *const CodeData, started: Instant) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let micros = started.elapsed().as_micros() as u64;
        // SAFETY: live data.
        let (name, address, bytes) = unsafe {
            let name = naming::qualified_name((*data).code);
            (name, (*data).baseline.0, (*data).code_bytes)
        };
        tracing::debug!(
            tier = "baseline",
            bytes,
            ?address,
            micros,
            "Finished compiling {name}"
        );
    }
}

/// Compiles a code object for these globals and builtins, and installs the result.
unsafe fn stamp(
    code: *mut PyCodeObject,
    globals: *mut PyObject,
    builtins: *mut PyObject,
) -> Result<(*mut CodeData, usize), CompileError> {
    // SAFETY: `code` is a live code object and the GIL is held, by the registry's contract.
    unsafe {
        compiler::check_supported(code)?;
        let mut spare = Spare::take();
        let bytecode = Bytecode::decode_in(code, &mut spare)?;
        let stubs = shared_stubs()?;
        let memory = CodeMemory::global();
        let address = memory.next_address()?;
        let mut compiler = Compiler::<Native>::new_in(address, stubs, code, &bytecode, &mut spare);
        if stress::modes().resume {
            compiler.stress_resume();
        }
        let mut output = compiler.compile()?;
        let data = install(memory, address, code, globals, builtins, &mut output)?;
        let instructions = output.instructions;
        output.give_back(&mut spare);
        bytecode.give_back(&mut spare);
        spare.keep();
        Ok((data, instructions))
    }
}

/// Makes the function's data, adds its call stub behind the body, and publishes both.
unsafe fn install(
    memory: &CodeMemory,
    address: CodePtr,
    code: *mut PyCodeObject,
    globals: *mut PyObject,
    builtins: *mut PyObject,
    output: &mut Output,
) -> Result<*mut CodeData, CompileError> {
    // SAFETY: as `stamp`; the block is owned by the registry from here on.
    unsafe {
        // A module's code made into a function has its globals as locals: the entry sees to that, and compiled callers do not.
        let flags = (*code).co_flags as u32;
        let simple = (*code).co_kwonlyargcount == 0
            && flags & (ffi::CO_VARARGS | ffi::CO_VARKEYWORDS) == 0
            && flags & ffi::CO_OPTIMIZED != 0;
        let data = CodeData::allocate(
            NewCode {
                code,
                globals,
                builtins,
                vectorcall: entry::vectorcall_entry as *const (),
                c_entry: shared_stubs()?.c_entry,
                true_bits: StackRef::bool(true).bits,
                false_bits: StackRef::bool(false).bits,
                none_bits: StackRef::none().bits,
                argcount: (*code).co_argcount as u32,
                nlocalsplus: refs::nlocalsplus(code) as u32,
                frame_words: refs::framesize(code) as u32,
                flags: if simple { SIMPLE_ARGUMENTS } else { 0 },
            },
            &output.sites,
            &output.handlers,
            &output.resume,
        );
        let bytes = &mut output.code;
        let body = bytes.len().next_multiple_of(16);
        bytes.resize(body, 0);
        // In front of the stub: the mark by which callers know it, and its data.
        bytes.extend_from_slice(&CALL_STUB_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&(data as u64).to_le_bytes());
        let stub = CodePtr(address.0.wrapping_add(bytes.len()));
        let linked = call_stub(stub, data).and_then(|stub_code| {
            bytes.extend_from_slice(&stub_code);
            Ok(memory.publish(bytes)?)
        });
        match linked {
            Ok(at) => {
                debug_assert_eq!(at, address);
                CodeData::set_code(data, address, stub, bytes.len());
                CodeData::set_resume_points(data, &output.resume_points);
                Ok(data)
            }
            Err(error) => {
                CodeData::free(data);
                Err(error)
            }
        }
    }
}

/// The call stub: the data as fifth argument, then through the data's slot.
fn call_stub(address: CodePtr, data: *mut CodeData) -> Result<Vec<u8>, CompileError> {
    let mut m = Native::new(address);
    m.mov_imm(Reg::A4, data as u64);
    m.jump_mem(Reg::A4.at(std::mem::offset_of!(CodeData, vectorcall)));
    Ok(m.finish()?)
}
