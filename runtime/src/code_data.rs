//! `CodeData`: the data of one stamped (code object, globals, builtins).
//!
//! Compiled code addresses it through the pinned `Data` register, so the offsets of the header's fields are part of the code generators'
//! interface (`offset_of!`). The block is allocated once, never moves, and is freed with its code object.

use std::alloc::Layout;

use hotstamp_layout::ffi::{_Py_CODEUNIT, PyCodeObject, PyObject};

use crate::generators::{ResumePoint, suspended_at};
use crate::site::{CodePtr, Site};
use crate::unwind::Raised;

/// Where a compiled exception handler begins.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HandlerEntry {
    /// Bytecode offset of the handler's first instruction, in code units.
    pub offset: u32,
    /// Machine code offset of its block from the body's start, in bytes.
    pub code_offset: u32,
}

/// Where a suspended generator goes on, as the compiler knows it. See `generators::ResumePoint`.
#[derive(Clone, Copy, Debug)]
pub struct ResumeEntry {
    /// Bytecode offset of the instruction, in code units.
    pub offset: u32,
    /// Machine code offset of its entry from the body's start, in bytes.
    pub code_offset: u32,
    /// Offset from the data to the site of the instruction that suspends there, in bytes.
    pub site: u32,
    /// The SEND whose values the instruction yields, if it does nothing else, with the machine code offset behind the SEND's call.
    pub delegates: Option<HandlerEntry>,
}

/// Header of a function's data; its sites follow directly.
#[repr(C)]
#[derive(Debug)]
pub struct CodeData {
    /// The code object. Borrowed: this block is freed by the code object's extra slot.
    pub code: *mut PyCodeObject,
    /// The body that calls reach now. Swapping a tier stores here.
    pub entry: CodePtr,
    /// The globals the code was stamped for (borrowed; compared, not used, after they may have died).
    pub globals: *mut PyObject,
    /// The builtins the code was stamped for.
    pub builtins: *mut PyObject,
    /// The call stub: what `func->vectorcall` of its functions holds.
    pub stub: CodePtr,
    /// Where the stub jumps: `entry::vectorcall_entry`, with this block as fifth argument.
    pub vectorcall: *const (),
    /// First instruction of the code object.
    pub code_start: *mut _Py_CODEUNIT,
    /// The word that `eval_breaker` equals while nothing is pending and nobody observes (`hooks::tracing::plain_version_cell`).
    pub version: *const usize,
    /// `StackRef` bits of True, False and None, to compare with and to load.
    pub true_bits: usize,
    /// See `true_bits`.
    pub false_bits: usize,
    /// See `true_bits`.
    pub none_bits: usize,
    /// `co_framesize`, in words.
    pub frame_words: u32,
    /// Locals, cells and free variables together.
    pub nlocalsplus: u32,
    /// Positional arguments (`co_argcount`).
    pub argcount: u32,
    /// `SIMPLE_ARGUMENTS` and others.
    pub flags: u32,
    /// Non-zero: code of this function on the stack leaves to the interpreter when control returns to it.
    pub leave: u32,
    /// Entries and back edges that are left until the function is hot; see `optimize::hotness`.
    pub heat: u32,
    /// Number of `handlers`.
    pub handler_count: u32,
    /// Compiled exception handlers, by offset.
    pub handlers: *const HandlerEntry,
    /// Where suspended generators of this code go on, `resume_point_count` of them.
    pub resume_points: *mut ResumePoint,
    /// Number of `resume_points`.
    pub resume_point_count: usize,
    /// Start of the baseline body.
    pub baseline: CodePtr,
    /// Entry for optimized callers: a C function `(frame, data, tstate) -> bits` with a body's contract.
    pub c_entry: CodePtr,
    /// Optimized code with the same signature, or null.
    pub optimized: CodePtr,
    /// The resume table of the baseline body (`resume::table`).
    pub resume: *const u8,
    /// Bytes of `resume`.
    pub resume_bytes: u32,
    /// Bytes of machine code of the baseline body with its stub.
    pub code_bytes: u32,
    /// Bytes of this block and its tables.
    pub metadata_bytes: u32,
    /// Bytes of sites behind this header.
    pub site_bytes: u32,
    /// Calls that entered through the stub, for hotness.
    pub calls: u64,
    /// Resumptions of generators that entered this code.
    pub resumptions: u64,
    /// Where the last exception of this code went.
    pub raised: Raised,
}

/// No keyword-only arguments, no `*args`, no `**kwargs`: a call with exactly `argcount` positional arguments needs no binding.
pub const SIMPLE_ARGUMENTS: u32 = 1;

/// What the header of new data says; see the fields of `CodeData`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct NewCode {
    pub code: *mut PyCodeObject,
    pub globals: *mut PyObject,
    pub builtins: *mut PyObject,
    pub vectorcall: *const (),
    pub c_entry: CodePtr,
    pub true_bits: usize,
    pub false_bits: usize,
    pub none_bits: usize,
    pub argcount: u32,
    pub nlocalsplus: u32,
    pub frame_words: u32,
    pub flags: u32,
}

/// What stands where in the block of a `CodeData`: header, sites, handlers, resume table.
struct Placement {
    layout: Layout,
    handlers: usize,
    resume: usize,
}

impl Placement {
    fn of(site_bytes: usize, handlers: usize, resume_bytes: usize) -> Placement {
        // Each part's size is a multiple of the next one's alignment.
        const { assert!(align_of::<CodeData>() == align_of::<u64>()) };
        let handlers_at = size_of::<CodeData>() + site_bytes;
        let resume = handlers_at + handlers * size_of::<HandlerEntry>();
        let layout = Layout::from_size_align(resume + resume_bytes, align_of::<CodeData>())
            .expect("the data of a function fits into memory");
        Placement {
            layout,
            handlers: handlers_at,
            resume,
        }
    }
}

impl CodeData {
    /// Allocates data with its sites (in words) and tables. Its code is set by `set_code`.
    ///
    /// # Safety
    /// The pointers in `new` are live objects of their kinds.
    pub unsafe fn allocate(
        new: NewCode,
        sites: &[u64],
        handlers: &[HandlerEntry],
        resume: &[u8],
    ) -> *mut CodeData {
        let place = Placement::of(size_of_val(sites), handlers.len(), resume.len());
        // SAFETY: the layout is not empty; the block is written before it is used.
        let data = unsafe { std::alloc::alloc(place.layout) }.cast::<CodeData>();
        if data.is_null() {
            std::alloc::handle_alloc_error(place.layout);
        }
        // SAFETY: the block has room for all of them behind the header, at these offsets.
        let (handlers_at, resume_at) = unsafe {
            let site_words = data.add(1).cast::<u64>();
            site_words.copy_from_nonoverlapping(sites.as_ptr(), sites.len());
            let handlers_at = data.byte_add(place.handlers).cast::<HandlerEntry>();
            handlers_at.copy_from_nonoverlapping(handlers.as_ptr(), handlers.len());
            let resume_at = data.byte_add(place.resume).cast::<u8>();
            resume_at.copy_from_nonoverlapping(resume.as_ptr(), resume.len());
            (handlers_at, resume_at)
        };
        // SAFETY: freshly allocated for exactly this; `code` is live.
        unsafe {
            data.write(CodeData {
                code: new.code,
                entry: CodePtr(std::ptr::null()),
                globals: new.globals,
                builtins: new.builtins,
                stub: CodePtr(std::ptr::null()),
                vectorcall: new.vectorcall,
                code_start: hotstamp_layout::refs::code_start(new.code),
                version: crate::hooks::tracing::plain_version_cell(),
                true_bits: new.true_bits,
                false_bits: new.false_bits,
                none_bits: new.none_bits,
                frame_words: new.frame_words,
                nlocalsplus: new.nlocalsplus,
                argcount: new.argcount,
                flags: new.flags,
                leave: 0,
                heat: crate::optimize::hotness::threshold(),
                handler_count: handlers.len() as u32,
                handlers: handlers_at,
                resume_points: std::ptr::null_mut(),
                resume_point_count: 0,
                baseline: CodePtr(std::ptr::null()),
                c_entry: new.c_entry,
                optimized: CodePtr(std::ptr::null()),
                resume: resume_at,
                resume_bytes: resume.len() as u32,
                code_bytes: 0,
                metadata_bytes: place.layout.size() as u32,
                site_bytes: size_of_val(sites) as u32,
                calls: 0,
                resumptions: 0,
                raised: Raised::NOTHING,
            });
        }
        data
    }

    /// Sets where generators go on, and has the sites that suspend there say so. The code must be set already.
    ///
    /// # Safety
    /// `data` came from `allocate`, its sites are written, and this was not called for it before.
    pub unsafe fn set_resume_points(data: *mut CodeData, points: &[ResumeEntry]) {
        if points.is_empty() {
            return;
        }
        // SAFETY: see above; offsets lie inside of the code and of the block.
        unsafe {
            let code = |offset: u32| CodePtr((*data).baseline.0.add(offset as usize));
            let instr = |offset: u32| (*data).code_start.add(offset as usize);
            let made: Vec<ResumePoint> = points
                .iter()
                .map(|point| ResumePoint {
                    instr: instr(point.offset),
                    address: code(point.code_offset),
                    data,
                    delegates: match point.delegates {
                        Some(delegation) => code(delegation.code_offset),
                        None => CodePtr(std::ptr::null()),
                    },
                    send: match point.delegates {
                        Some(delegation) => instr(delegation.offset),
                        None => std::ptr::null_mut(),
                    },
                })
                .collect();
            (*data).metadata_bytes += size_of_val(made.as_slice()) as u32;
            (*data).resume_point_count = made.len();
            (*data).resume_points = Box::into_raw(made.into_boxed_slice()).cast();
            for (index, point) in points.iter().enumerate() {
                let site = data.byte_add(point.site as usize).cast::<Site>();
                let word = suspended_at((*data).resume_points.add(index));
                (*site).helper = std::ptr::without_provenance(word);
            }
        }
    }

    /// The machine code in which a frame that is suspended at `instr` goes on.
    pub fn resume_address(&self, instr: *mut _Py_CODEUNIT) -> Option<CodePtr> {
        if self.resume_points.is_null() {
            return None;
        }
        // SAFETY: the points live as long as this block.
        let points =
            unsafe { std::slice::from_raw_parts(self.resume_points, self.resume_point_count) };
        let point = points.iter().find(|point| point.instr == instr)?;
        Some(point.address)
    }

    /// Sets body and call stub, which were published as one piece of `code_bytes` bytes at `body`.
    ///
    /// # Safety
    /// `data` came from `allocate`.
    pub unsafe fn set_code(data: *mut CodeData, body: CodePtr, stub: CodePtr, code_bytes: usize) {
        // SAFETY: see above.
        unsafe {
            (*data).entry = body;
            (*data).baseline = body;
            (*data).stub = stub;
            (*data).code_bytes = code_bytes as u32;
        }
    }

    /// Frees data with its code.
    ///
    /// # Safety
    /// `data` came from `allocate`, no frame runs its code, and nothing refers to it any more.
    pub unsafe fn free(data: *mut CodeData) {
        crate::generators::forget(data);
        // SAFETY: see above; sizes as in `allocate`.
        unsafe {
            crate::optimize::policy::forget(data);
            if !(*data).baseline.0.is_null() {
                crate::code_memory::CodeMemory::global()
                    .free((*data).baseline, (*data).code_bytes as usize);
            }
            if !(*data).resume_points.is_null() {
                let points = std::ptr::slice_from_raw_parts_mut(
                    (*data).resume_points,
                    (*data).resume_point_count,
                );
                drop(Box::from_raw(points));
            }
            let place = Placement::of(
                (*data).site_bytes as usize,
                (*data).handler_count as usize,
                (*data).resume_bytes as usize,
            );
            std::alloc::dealloc(data.cast(), place.layout);
        }
    }

    /// The resume table, for `resume::table::Reader`.
    pub fn resume_table(&self) -> &[u8] {
        // SAFETY: `resume` points at as many bytes for the life of this block.
        unsafe { std::slice::from_raw_parts(self.resume, self.resume_bytes as usize) }
    }

    /// Makes optimized code what calls reach: `target` is a C function `(frame, data, tstate) -> bits` with a body's contract.
    ///
    /// # Safety
    /// `data` came from `allocate`, and `target` lives as long as it, or until `uninstall_optimized` and no frame runs it.
    pub unsafe fn install_optimized(data: *mut CodeData, target: CodePtr) {
        let Some(compiler) = crate::registry::compiler() else {
            unreachable!("data is made by a registered compiler");
        };
        // SAFETY: see above. The thunk behind `entry` reads `optimized`, which is therefore set first.
        unsafe {
            (*data).optimized = target;
            (*data).c_entry = target;
            (*data).entry = compiler.optimized_entry;
        }
    }

    /// Makes the baseline body what calls reach again. Frames that run optimized code stay in it.
    ///
    /// # Safety
    /// `data` came from `allocate`.
    pub unsafe fn uninstall_optimized(data: *mut CodeData) {
        let Some(compiler) = crate::registry::compiler() else {
            unreachable!("data is made by a registered compiler");
        };
        // SAFETY: see above. `optimized` stays what it was until nobody can be on the way to it: the GIL is held, and nothing switches threads between thunk and target.
        unsafe {
            (*data).entry = (*data).baseline;
            (*data).c_entry = compiler.c_entry;
            (*data).optimized = CodePtr(std::ptr::null());
        }
    }

    /// The machine code of the handler block at a bytecode offset, if it was compiled.
    pub fn handler_address(&self, offset: u32) -> Option<CodePtr> {
        // SAFETY: `handlers` points at `handler_count` entries for the life of this block (empty: dangling but not read).
        let handlers =
            unsafe { std::slice::from_raw_parts(self.handlers, self.handler_count as usize) };
        let index = handlers
            .binary_search_by_key(&offset, |entry| entry.offset)
            .ok()?;
        Some(CodePtr(
            self.baseline
                .0
                .wrapping_add(handlers[index].code_offset as usize),
        ))
    }
}

/// Stands 16 bytes in front of every call stub, with the data's address behind it: compiled callers know stamped functions by it. A random number
/// that no other code has in front of a function.
pub const CALL_STUB_MAGIC: u64 = 0xd1c8_5a3b_96e7_42f0;
