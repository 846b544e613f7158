//! LLVM as this crate uses it: from a finished module to an object file in memory, or to text.
//!
//! Code is made for the processor it runs on. It lies in code memory with its constants beside it, so all its references to itself are PC-relative and short;
//! everything foreign (helpers, data, objects) is a 64-bit constant in the IR. The object may still name library functions that LLVM puts in by itself, such as
//! `memcpy`: `runtime/src/optimize/object.rs` knows them.

use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::rc::Rc;
use std::sync::OnceLock;

use inkwell::OptimizationLevel;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, RelocMode, Target, TargetMachine, TargetMachineOptions, TargetTriple,
};
use llvm_sys::target as initialisers;
use thiserror::Error;

/// Name of the function at which an object is entered.
pub const ENTRY_NAME: &str = "hotstamp_entry";

/// What optimizes a module where nobody chose otherwise. Code is as fast as with `default<O2>`, by a few instructions in a hundred, in half the time: half of that pipeline is for what
/// the builder does not make (calls to inline, objects in memory to take apart), and optimizes other languages.
pub const DEFAULT_PASSES: &str = "function(early-cse<memssa>,simplifycfg,instcombine<no-verify-fixpoint>,loop-mssa(loop-rotate,licm),gvn,dse,\
    instcombine<no-verify-fixpoint>,simplifycfg)";

/// What the code generator leaves out, as LLVM's tools name it: passes that take a fifth of its time, and after which our code is no faster (by counts of instructions; processors
/// reorder instructions themselves).
const WITHOUT: [&CStr; 7] = [
    c"-enable-misched=false",
    c"-disable-post-ra",
    c"-disable-copyprop",
    c"-disable-machine-licm",
    c"-disable-machine-cse",
    c"-disable-early-taildup",
    c"-disable-tail-duplicate",
];

/// LLVM could not, or would not. The texts are LLVM's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LlvmError {
    /// There is no code generator for this machine.
    #[error("LLVM has no target for this machine: {0}")]
    Target(String),
    /// The module is not valid IR.
    #[error("invalid IR: {0}")]
    Invalid(String),
    /// The names of the passes, or what one of them met.
    #[error("LLVM's passes: {0}")]
    Passes(String),
    /// No machine code came out.
    #[error("LLVM's code generator: {0}")]
    Codegen(String),
}

/// The code generator for this machine. It belongs to one thread, where making it again costs nothing.
#[derive(Debug)]
pub struct Backend {
    machine: Rc<TargetMachine>,
}

thread_local! {
    /// The last one that was made: it has read the processor's features, and knows which instructions there are.
    static MACHINE: RefCell<Option<(OptimizationLevel, Rc<TargetMachine>)>> = const { RefCell::new(None) };
}

/// What `TargetMachine` wants, found out once.
#[derive(Debug)]
struct Host {
    cpu: String,
    features: String,
}

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        // SAFETY: they fill in LLVM's table of targets, once, before it is read.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            {
                initialisers::LLVMInitializeX86TargetInfo();
                initialisers::LLVMInitializeX86Target();
                initialisers::LLVMInitializeX86TargetMC();
                initialisers::LLVMInitializeX86AsmPrinter();
            }
            #[cfg(target_arch = "aarch64")]
            {
                initialisers::LLVMInitializeAArch64TargetInfo();
                initialisers::LLVMInitializeAArch64Target();
                initialisers::LLVMInitializeAArch64TargetMC();
                initialisers::LLVMInitializeAArch64AsmPrinter();
            }
        }
        let words: Vec<*const c_char> = std::iter::once(c"hotstamp")
            .chain(WITHOUT)
            .map(CStr::as_ptr)
            .collect();
        // SAFETY: strings that end; once, before anything is compiled.
        unsafe {
            llvm_sys::support::LLVMParseCommandLineOptions(
                words.len() as i32,
                words.as_ptr(),
                std::ptr::null(),
            );
        }
        Host {
            cpu: TargetMachine::get_host_cpu_name().to_string(),
            features: TargetMachine::get_host_cpu_features().to_string(),
        }
    })
}

/// The triple of what is compiled for, which is what this object was built for.
fn triple() -> TargetTriple {
    TargetTriple::create(if cfg!(target_arch = "x86_64") {
        "x86_64-unknown-linux-gnu"
    } else {
        "aarch64-unknown-linux-gnu"
    })
}

fn target_machine(level: OptimizationLevel) -> Result<TargetMachine, LlvmError> {
    let host = host();
    let triple = triple();
    let target =
        Target::from_triple(&triple).map_err(|message| LlvmError::Target(message.to_string()))?;
    let options = TargetMachineOptions::new()
        .set_cpu(&host.cpu)
        .set_features(&host.features)
        .set_level(level)
        .set_reloc_mode(RelocMode::PIC)
        .set_code_model(CodeModel::Small);
    target
        .create_target_machine_from_options(&triple, options)
        .ok_or_else(|| LlvmError::Target(format!("{} {}", host.cpu, host.features)))
}

impl Backend {
    /// A code generator for the processor at hand. `level` is how hard the generator itself tries, which is apart from what the passes do.
    pub fn new(level: OptimizationLevel) -> Result<Backend, LlvmError> {
        MACHINE.with_borrow_mut(|last| {
            if let Some((its_level, machine)) = last
                && *its_level == level
            {
                return Ok(Backend {
                    machine: Rc::clone(machine),
                });
            }
            let machine = Rc::new(target_machine(level)?);
            *last = Some((level, Rc::clone(&machine)));
            Ok(Backend { machine })
        })
    }

    /// Whether instructions are selected one by one, in two thirds of the time, and code is about a twentieth slower; for what is compiled from here on.
    pub fn select_quickly(&self, quickly: bool) {
        // SAFETY: a live target machine, of this thread.
        unsafe {
            llvm_sys::target_machine::LLVMSetTargetMachineFastISel(
                self.machine.as_mut_ptr(),
                quickly.into(),
            );
        }
    }

    /// Tells a module what it is compiled for. To be called before it is filled: the layout of data decides about alignment.
    pub fn prepare(&self, module: &Module<'_>) {
        module.set_triple(&self.machine.get_triple());
        module.set_data_layout(&self.machine.get_target_data().get_data_layout());
    }

    /// Checks that a module is valid IR. Costs about as much as a pass over it.
    pub fn verify(&self, module: &Module<'_>) -> Result<(), LlvmError> {
        module
            .verify()
            .map_err(|message| LlvmError::Invalid(message.to_string()))
    }

    /// Runs passes, named as `opt -passes=` names them; none for an empty text. Debug builds check the module before and after.
    pub fn optimize(&self, module: &Module<'_>, passes: &str) -> Result<(), LlvmError> {
        if cfg!(debug_assertions) {
            self.verify(module)?;
        }
        if passes.is_empty() {
            return Ok(());
        }
        let options = PassBuilderOptions::create();
        module
            .run_passes(passes, &self.machine, options)
            .map_err(|message| LlvmError::Passes(message.to_string()))?;
        if cfg!(debug_assertions) {
            self.verify(module)?;
        }
        Ok(())
    }

    /// Machine code for a module, as an ELF object file. The module is used up: code generation changes it.
    pub fn object(&self, module: &Module<'_>) -> Result<Vec<u8>, LlvmError> {
        self.emit(module, FileType::Object)
    }

    /// Machine code for a module as assembler text. The module is left as it is.
    pub fn assembly(&self, module: &Module<'_>) -> Result<String, LlvmError> {
        self.verify(module)?;
        let text = self.emit(&module.clone(), FileType::Assembly)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn emit(&self, module: &Module<'_>, kind: FileType) -> Result<Vec<u8>, LlvmError> {
        let buffer = self
            .machine
            .write_to_memory_buffer(module, kind)
            .map_err(|message| LlvmError::Codegen(message.to_string()))?;
        Ok(buffer.as_slice().to_vec())
    }
}

/// A module as text.
pub fn ir_text(module: &Module<'_>) -> String {
    module.print_to_string().to_string()
}

#[cfg(test)]
mod tests;
