//! One pass over a code object's bytecode: the driver, and what templates use of it.
//!
//! Templates (`templates/`) are methods of `Compiler`, one `emit_<opcode>` each. The driver decodes, keeps the virtual stack right at block
//! boundaries, places sites, and assembles cold code behind the function's end.

use hotstamp_layout::ffi::{_Py_CODEUNIT, PyCodeObject, PyObject};
use hotstamp_layout::refs;
use hotstamp_runtime::code_data::{CodeData, HandlerEntry, ResumeEntry};
use hotstamp_runtime::exits::ExitReason;
use hotstamp_runtime::resume::table::TableBuilder;
use hotstamp_runtime::site::{
    CodePtr, Payload, SITE_HAS_PAYLOAD, SITE_PUSHES_NULL, SITE_SUSPENDS, Site,
};
use hotstamp_runtime::{generators, helpers};

use crate::bytecode::{Bytecode, Instruction};
use crate::error::CompileError;
use crate::masm::{Label, MacroAssembler, Mem, Reg};
use crate::spare::Spare;
use crate::stubs::Stubs;
use crate::vstack::{Entry, VirtualStack};

/// Names a planned site; its address is `Data + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SiteRef {
    byte_offset: u32,
}

/// Code that stands behind the function's end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cold {
    /// The object in `A1` died: free it, then go on at `back`.
    Dealloc {
        from: Label,
        back: Label,
        site: SiteRef,
    },
    /// The eval breaker is set: poll through `stub`, then go on at `back`.
    Poll {
        from: Label,
        back: Label,
        site: SiteRef,
        stub: CodePtr,
    },
    /// A back edge became hot: ask for optimized code, or go on at `back`.
    Hot {
        from: Label,
        back: Label,
        site: SiteRef,
    },
    /// What a receiver of SEND returned goes to its slot, and control to the instruction's target.
    Returned {
        from: Label,
        slot: Mem,
        target: Label,
    },
    /// Call the site's stub, then go on at `back`.
    Call {
        from: Label,
        back: Label,
        site: SiteRef,
    },
}

/// What a finished compilation consists of.
#[derive(Debug)]
pub struct Output {
    /// Machine code, body first.
    pub code: Vec<u8>,
    /// Compiled exception handlers, sorted by bytecode offset.
    pub handlers: Vec<HandlerEntry>,
    /// The resume table.
    pub resume: Vec<u8>,
    /// Where suspended generators go on, by bytecode offset.
    pub resume_points: Vec<ResumeEntry>,
    /// The function's sites, as they stand behind its `CodeData`.
    pub(crate) sites: Vec<u64>,
    code_start: *mut _Py_CODEUNIT,
    /// Memory that is given back.
    entries: Vec<Entry>,
    cold: Vec<Cold>,
    depths: Vec<i16>,
    /// Instructions that the bytecode has.
    pub instructions: usize,
}

/// Compiles one code object. See the module.
pub struct Compiler<'a, M> {
    pub(crate) m: M,
    pub(crate) stubs: &'a Stubs,
    pub(crate) code: *mut PyCodeObject,
    pub(crate) bytecode: &'a Bytecode,
    pub(crate) stack: VirtualStack,
    pub(crate) cold: Vec<Cold>,
    /// The instruction being compiled.
    pub(crate) at: &'a Instruction,
    sites: Vec<u64>,
    code_start: *mut _Py_CODEUNIT,
    /// Locals, cells and free variables.
    nlocalsplus: usize,
    /// Index of the word with which the site planned last begins.
    last_site: usize,
    /// The labels of all offsets; those of leaders are used.
    leaders: Label,
    depths: Vec<i16>,
    handlers: Vec<HandlerEntry>,
    resume: TableBuilder,
    stressed: bool,
    /// The number of the next instruction.
    next_index: usize,
    pub(crate) resume_points: Vec<ResumeEntry>,
    /// The site of the instruction that suspends in front of the next one.
    pub(crate) suspending_site: u32,
    /// What the next resume point delegates to, see `ResumeEntry`.
    pub(crate) delegation: Option<HandlerEntry>,
    /// Whether calls make a generator, coroutine or async generator.
    pub(crate) is_generator: bool,
    reachable: bool,
}

const UNKNOWN: i16 = -1;

impl<'a, M: MacroAssembler> Compiler<'a, M> {
    /// Prepares compiling `code`, whose decoded bytecode is `bytecode`, for machine code at `address`.
    ///
    /// # Safety
    /// `code` is a live code object and stays one while the compiler exists; GIL held.
    pub unsafe fn new(
        address: CodePtr,
        stubs: &'a Stubs,
        code: *mut PyCodeObject,
        bytecode: &'a Bytecode,
    ) -> Self {
        // SAFETY: passed on.
        unsafe { Self::new_in(address, stubs, code, bytecode, &mut Spare::default()) }
    }

    /// As `new`, in spare memory, which `Output::give_back` gives back.
    ///
    /// # Safety
    /// See `new`.
    pub(crate) unsafe fn new_in(
        address: CodePtr,
        stubs: &'a Stubs,
        code: *mut PyCodeObject,
        bytecode: &'a Bytecode,
        spare: &mut Spare,
    ) -> Self {
        let count = bytecode.instructions.len();
        let mut m = M::new(address);
        let units = bytecode.units;
        m.write_into(std::mem::take(&mut spare.code), count * 24 + 64);
        let leaders = m.new_labels(units + 1);
        let mut depths = emptied(&mut spare.depths);
        depths.resize(units + 1, UNKNOWN);
        // SAFETY: a live code object.
        let (nlocalsplus, code_start, is_generator) = unsafe {
            (
                refs::nlocalsplus(code),
                refs::code_start(code),
                generators::makes_generator(code),
            )
        };
        Compiler {
            m,
            stubs,
            code,
            bytecode,
            stack: VirtualStack::new_in(std::mem::take(&mut spare.entries), nlocalsplus as u32),
            cold: emptied(&mut spare.cold),
            at: &Instruction::START,
            sites: emptied(&mut spare.sites),
            code_start,
            nlocalsplus,
            last_site: 0,
            leaders,
            depths,
            handlers: emptied(&mut spare.handlers),
            resume: TableBuilder::new_in(std::mem::take(&mut spare.resume)),
            stressed: false,
            next_index: 0,
            resume_points: emptied(&mut spare.resume_points),
            suspending_site: 0,
            delegation: None,
            is_generator,
            reachable: true,
        }
    }

    /// Makes code that goes through its resume table at every instruction: see `resume::stress`.
    pub fn stress_resume(&mut self) {
        self.stressed = true;
    }

    /// Compiles the whole body.
    ///
    /// # Errors
    /// Why the function has to stay interpreted.
    pub fn compile(mut self) -> Result<Output, CompileError> {
        for handler in &self.bytecode.handlers {
            self.depths[handler.target as usize] = handler.entry_depth as i16;
        }
        self.depths[0] = 0;
        self.emit_prologue();
        while let Some(instruction) = self.bytecode.instructions.get(self.next_index) {
            self.next_index += 1;
            self.begin_instruction(instruction)?;
            if self.reachable {
                self.m.note_instruction(instruction.start);
                self.note_resume_point(instruction);
                self.emit(instruction)?;
            }
        }
        if self.reachable {
            return Err(CompileError::BadBytecode("control runs past the end"));
        }
        self.emit_cold();
        self.handlers.sort_by_key(|handler| handler.offset);
        Ok(Output {
            code: self.m.finish()?,
            handlers: self.handlers,
            resume: self.resume.finish(),
            resume_points: self.resume_points,
            sites: self.sites,
            code_start: self.code_start,
            entries: self.stack.into_entries(),
            cold: self.cold,
            depths: self.depths,
            instructions: self.bytecode.instructions.len(),
        })
    }

    fn emit_prologue(&mut self) {
        self.m.body_enter();
        // What a generator's first RESUME polls is polled when it is first resumed.
        let stub = if self.bytecode.makes_cells_first || self.is_generator {
            self.stubs.enter_before_cells
        } else {
            self.stubs.enter
        };
        self.m.call_near(stub);
    }

    /// At a leader: joins what falls through with what jumps here.
    fn begin_instruction(&mut self, instruction: &'a Instruction) -> Result<(), CompileError> {
        self.at = instruction;
        let offset = instruction.start as usize;
        if !self.bytecode.is_leader(instruction.start) {
            return Ok(());
        }
        if self.reachable {
            self.stack.flush(&mut self.m);
            self.join(offset)?;
        }
        let depth = self.depths[offset];
        self.reachable = depth != UNKNOWN;
        self.stack.reset(depth.max(0) as usize);
        if self.bytecode.is_handler(instruction.start) {
            self.handlers.push(HandlerEntry {
                offset: instruction.start,
                code_offset: self.m.position() as u32,
            });
        }
        if self.reachable && self.bytecode.is_resume_point(instruction.start) {
            self.enter_at_resume_point(instruction.start);
        }
        self.m.bind(self.leaders.nth(offset));
        Ok(())
    }

    /// Frames may be resumed here.
    #[inline]
    fn note_resume_point(&mut self, instruction: &'a Instruction) {
        if self.stressed {
            self.stack.store_canonical(&mut self.m);
            self.m.mov_imm(Reg::A4, 0);
            self.emit_stress_trip();
        }
        let code_offset = self.m.position() as u32;
        let entries = self.stack.entries();
        self.resume.add(
            instruction.start,
            instruction.offset,
            code_offset,
            entries.len(),
            self.stack.packed_places(),
            |depth| entries[depth].place(),
        );
    }

    /// Behind a call, whose result is in `Acc` and not on the operand stack yet: stressed code takes the way of an optimized callee's result.
    pub(crate) fn stress_return(&mut self) {
        if self.stressed {
            self.m.mov(Reg::A4, Reg::Acc);
            self.emit_stress_trip();
        }
    }

    /// The frame's memory is canonical, `A4` as `resume::stress::trip` wants it. Control goes on through the resume table.
    fn emit_stress_trip(&mut self) {
        let stub = self.stubs.stress;
        let site = self.plan_site(stub, std::ptr::null(), self.stack.depth(), false);
        self.load_site(site);
        self.m.jump_near(stub);
    }

    /// A suspended generator enters the body here, as if it were called; nothing falls through from the instruction that suspended it.
    fn enter_at_resume_point(&mut self, offset: u32) {
        self.resume_points.push(ResumeEntry {
            offset,
            code_offset: self.m.position() as u32,
            site: self.suspending_site,
            delegates: self.delegation.take(),
        });
        self.m.body_enter();
        let stub = self.stubs.resume;
        self.m.call_near(stub);
    }

    /// Records the stack depth with which control reaches an offset; all paths must agree.
    pub(crate) fn join(&mut self, offset: usize) -> Result<(), CompileError> {
        let depth = self.stack.depth() as i16;
        match self.depths[offset] {
            UNKNOWN => self.depths[offset] = depth,
            known if known == depth => {}
            _ => {
                return Err(CompileError::BadBytecode(
                    "paths join with different stack depths",
                ));
            }
        }
        Ok(())
    }

    // ---- what templates use ----

    /// The label of a jump target; the stack must be flushed, and is what the target starts with.
    pub(crate) fn target(&mut self, offset: u32) -> Result<Label, CompileError> {
        self.join(offset as usize)?;
        Ok(self.leaders.nth(offset as usize))
    }

    /// The next instructions, if they can be compiled with this one: stressed code wants each for itself.
    pub(crate) fn following(&self, count: usize) -> Option<&'a [Instruction]> {
        if self.stressed {
            return None;
        }
        let range = self.next_index..self.next_index + count;
        self.bytecode.instructions.get(range)
    }

    /// The next instructions have been compiled with this one. None of them is a leader.
    pub(crate) fn skip(&mut self, count: usize) {
        self.next_index += count;
    }

    /// Control does not go on to the next instruction.
    pub(crate) fn end_block(&mut self) {
        self.reachable = false;
    }

    /// Plans a site of this instruction whose helper sees the operand stack down to `depth` entries.
    pub(crate) fn plan_site(
        &mut self,
        target: CodePtr,
        helper: *const (),
        depth: usize,
        payload: bool,
    ) -> SiteRef {
        const HEADER: usize = Site::HEADER_BYTES / 8;
        const FULL: usize = Site::FULL_BYTES / 8;
        let first = self.sites.len();
        let flags = if payload { SITE_HAS_PAYLOAD } else { 0 };
        let site = Site {
            target,
            // In the code object.
            instr: self.code_start.wrapping_add(self.at.offset as usize),
            helper,
            stack_words: (refs::FRAME_SPECIALS_SIZE + self.nlocalsplus + depth) as u16,
            next_units: (self.at.next - self.at.offset) as u8,
            flags,
            oparg: self.at.oparg,
        };
        self.sites.reserve(FULL);
        // SAFETY: there is room for a site with its payload, of whose words none is left out.
        unsafe {
            let end = self.sites.as_mut_ptr().add(first);
            end.cast::<Site>().write(site);
            end.add(HEADER).cast::<Payload>().write(Payload::default());
            self.sites
                .set_len(first + if payload { FULL } else { HEADER });
        }
        self.last_site = first;
        SiteRef {
            byte_offset: (size_of::<CodeData>() + first * 8) as u32,
        }
    }

    /// The site planned last.
    fn last_site(&mut self) -> &mut Site {
        // SAFETY: `plan_site` has written a site there.
        unsafe { &mut *(&raw mut self.sites[self.last_site]).cast::<Site>() }
    }

    /// Makes the site planned last the one whose helper is the word of a generator suspended behind this instruction.
    pub(crate) fn mark_suspending(&mut self, site: SiteRef) {
        self.suspending_site = site.byte_offset;
    }

    /// Sets what a word of the site's payload holds at first. The site is the one planned last.
    pub(crate) fn initialize_word(&mut self, site: SiteRef, index: usize, value: u64) {
        let word = (site.byte_offset as usize - size_of::<CodeData>() + Site::HEADER_BYTES) / 8;
        self.sites[word + index] = value;
    }

    /// Makes the site planned last say what a frame holds that is suspended there: `instr_ptr` behind the instruction, and the generator's state.
    pub(crate) fn mark_suspends(&mut self, state: u32) {
        let next = self.code_start.wrapping_add(self.at.next as usize);
        let site = self.last_site();
        site.instr = next;
        site.oparg = state;
        site.flags |= SITE_SUSPENDS;
    }

    /// Marks the site planned last as pushing a null behind its value.
    pub(crate) fn mark_pushes_null(&mut self) {
        self.last_site().flags |= SITE_PUSHES_NULL;
    }

    /// A word of the site's payload.
    pub(crate) fn payload_word(&self, site: SiteRef, index: usize) -> Mem {
        Reg::Data.at(site.byte_offset as usize + Site::HEADER_BYTES + index * 8)
    }

    /// A constant of the code object (borrowed).
    pub(crate) fn constant(&self, index: u32) -> *mut PyObject {
        // SAFETY: the bytecode compiler emits only indices inside of `co_consts`.
        unsafe { refs::tuple_item((*self.code).co_consts, index as usize) }
    }

    /// `A3` = the site's address.
    pub(crate) fn load_site(&mut self, site: SiteRef) {
        self.m.lea(Reg::A3, Reg::Data.at(site.byte_offset as usize));
    }

    /// Calls the site's stub. The operand stack below the operands has been flushed.
    pub(crate) fn call_site(&mut self, site: SiteRef) {
        self.load_site(site);
        self.m.call_mem(Reg::A3.at(0));
    }

    /// The whole operand stack goes to memory, the opcode's memory helper does the work, results are in memory.
    pub(crate) fn emit_memory_helper(&mut self, stub: CodePtr) -> Result<(), CompileError> {
        let opcode = self.at.opcode;
        let Some((helper, _)) = helpers::memory_helper(opcode as u8) else {
            return self.emit_leave(ExitReason::UnsupportedOpcode);
        };
        self.stack.flush(&mut self.m);
        let site = self.plan_site(stub, helper as *const (), self.stack.depth(), false);
        self.call_site(site);
        self.apply_stack_effect()
    }

    /// Replaces the opcode's inputs by its outputs, all in memory.
    pub(crate) fn apply_stack_effect(&mut self) -> Result<(), CompileError> {
        let (opcode, oparg) = (self.at.opcode, self.at.oparg);
        let (Some(popped), Some(pushed)) = (opcode.popped(oparg), opcode.pushed(oparg)) else {
            return Err(CompileError::BadBytecode(
                "instruction without a stack effect",
            ));
        };
        if popped as usize > self.stack.depth() {
            return Err(CompileError::BadBytecode("operand stack underflow"));
        }
        self.stack.drop_top(popped as usize);
        for _ in 0..pushed {
            self.stack.push(Entry::Memory);
        }
        Ok(())
    }

    /// Leaves to the interpreter at this instruction, for good.
    pub(crate) fn emit_leave(&mut self, reason: ExitReason) -> Result<(), CompileError> {
        self.stack.flush(&mut self.m);
        let site = self.plan_site(
            self.stubs.leave_at,
            std::ptr::null(),
            self.stack.depth(),
            false,
        );
        self.load_site(site);
        self.m.mov_imm(Reg::A2, reason as u64);
        let stub = self.stubs.leave_at;
        self.m.jump_near(stub);
        self.end_block();
        Ok(())
    }

    /// Releases the `StackRef` in `A1`. Destructors may run; the operand stack has `depth` entries then.
    pub(crate) fn emit_close(&mut self, depth: usize) {
        let back = self.m.new_near_label();
        let from = self.m.new_label();
        let site = self.plan_site(self.stubs.dealloc, std::ptr::null(), depth, false);
        self.m
            .branch_bits_set(Reg::A1, crate::stubs::BORROWED as u32, back);
        self.m.dec32_mem_branch_zero(Reg::A1.at(0), from);
        self.m.bind(back);
        self.cold.push(Cold::Dealloc { from, back, site });
    }

    fn emit_cold(&mut self) {
        let all = std::mem::take(&mut self.cold);
        for &cold in &all {
            match cold {
                Cold::Dealloc { from, back, site } => {
                    self.m.bind(from);
                    self.load_site(site);
                    let stub = self.stubs.dealloc;
                    self.m.call_near(stub);
                    self.m.jump(back);
                }
                Cold::Poll {
                    from,
                    back,
                    site,
                    stub,
                } => {
                    self.m.bind(from);
                    self.load_site(site);
                    self.m.call_near(stub);
                    self.m.jump(back);
                }
                Cold::Hot { from, back, site } => {
                    self.m.bind(from);
                    self.load_site(site);
                    let stub = self.stubs.hot_loop;
                    self.m.call_near(stub);
                    self.m.jump(back);
                }
                Cold::Returned { from, slot, target } => {
                    self.m.bind(from);
                    self.m.store(slot, Reg::Acc);
                    self.m.jump(target);
                }
                Cold::Call { from, back, site } => {
                    self.m.bind(from);
                    self.call_site(site);
                    self.m.jump(back);
                }
            }
        }
        self.cold = all;
    }
}

/// What a site is made with, for listings.
#[derive(Clone, Copy, Debug)]
pub struct SiteInfo {
    /// Offset of the site from the beginning of the function's `CodeData`.
    pub byte_offset: u32,
    /// Its bytecode instruction, in code units (behind EXTENDED_ARG prefixes).
    pub instruction: u32,
    /// The shared stub that it calls at first.
    pub target: CodePtr,
    /// The helper behind the stub, or null.
    pub helper: *const (),
    /// The number of the resume point, for an instruction that suspends.
    pub suspends_at: Option<u16>,
    /// Size of the site.
    pub bytes: usize,
}

/// The vector's memory.
fn emptied<T>(vector: &mut Vec<T>) -> Vec<T> {
    let mut vector = std::mem::take(vector);
    vector.clear();
    vector
}

impl Output {
    /// Gives back the memory that `Compiler::new_in` took, once all has been copied.
    pub(crate) fn give_back(self, spare: &mut Spare) {
        spare.code = self.code;
        spare.handlers = self.handlers;
        spare.resume = self.resume;
        spare.resume_points = self.resume_points;
        spare.sites = self.sites;
        spare.entries = self.entries;
        spare.cold = self.cold;
        spare.depths = self.depths;
    }

    /// The sites, in order, for listings.
    pub fn sites(&self) -> impl Iterator<Item = SiteInfo> {
        let mut rest = 0;
        std::iter::from_fn(move || {
            let at = rest;
            let words = self.sites.get(at..)?;
            if words.is_empty() {
                return None;
            }
            // SAFETY: sites stand one behind the other, as `plan_site` has written them.
            let site = unsafe { &*words.as_ptr().cast::<Site>() };
            let bytes = if site.flags & SITE_HAS_PAYLOAD != 0 {
                Site::FULL_BYTES
            } else {
                Site::HEADER_BYTES
            };
            rest += bytes / 8;
            let suspends = site.flags & SITE_SUSPENDS != 0;
            let behind = usize::from(suspends) * usize::from(site.next_units);
            let offset = (site.instr.addr() - self.code_start.addr()) / size_of::<_Py_CODEUNIT>();
            Some(SiteInfo {
                byte_offset: (size_of::<CodeData>() + at * 8) as u32,
                instruction: (offset - behind) as u32,
                target: site.target,
                helper: if suspends {
                    std::ptr::null()
                } else {
                    site.helper
                },
                suspends_at: suspends.then_some(site.helper.addr() as u16),
                bytes,
            })
        })
    }
}

/// Whether a code object is of a kind that is compiled at all.
///
/// # Safety
/// `code` is a code object.
pub unsafe fn check_supported(code: *mut PyCodeObject) -> Result<(), CompileError> {
    // SAFETY: see above.
    let frame_words = unsafe { (*code).co_framesize as usize };
    if frame_words > usize::from(u16::MAX) {
        return Err(CompileError::TooLarge);
    }
    Ok(())
}
