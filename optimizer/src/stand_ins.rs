//! Two functions that this object has of its own, so that LLVM does not get the real ones. Hidden: nothing but what is linked in here sees them.
//!
//! `__cxa_atexit`: LLVM's static objects are never destroyed. When the process exits, the compiler thread may be in the middle of a compilation, and nobody waits
//! for it. The C++ runtime would destroy LLVM's static objects beside it, and that thread would crash. Here it registers nothing.
//!
//! `LLVMDisposeExecutionEngine`: inkwell's modules drop the execution engine that owns them. None is ever made here, and without this one function LLVM's
//! execution engines need not be linked. Making one is a link error.

use std::arch::global_asm;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.hotstamp_stand_ins, \"ax\", @progbits",
    ".globl __cxa_atexit",
    ".hidden __cxa_atexit",
    ".type __cxa_atexit, @function",
    "__cxa_atexit:",
    "xor eax, eax",
    "ret",
    ".size __cxa_atexit, . - __cxa_atexit",
    ".globl LLVMDisposeExecutionEngine",
    ".hidden LLVMDisposeExecutionEngine",
    ".type LLVMDisposeExecutionEngine, @function",
    "LLVMDisposeExecutionEngine:",
    "ud2",
    ".size LLVMDisposeExecutionEngine, . - LLVMDisposeExecutionEngine",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.hotstamp_stand_ins, \"ax\", @progbits",
    ".p2align 2",
    ".globl __cxa_atexit",
    ".hidden __cxa_atexit",
    ".type __cxa_atexit, @function",
    "__cxa_atexit:",
    "mov w0, #0",
    "ret",
    ".size __cxa_atexit, . - __cxa_atexit",
    ".globl LLVMDisposeExecutionEngine",
    ".hidden LLVMDisposeExecutionEngine",
    ".type LLVMDisposeExecutionEngine, @function",
    "LLVMDisposeExecutionEngine:",
    "udf #0",
    ".size LLVMDisposeExecutionEngine, . - LLVMDisposeExecutionEngine",
    ".popsection",
);
