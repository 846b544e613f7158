//! Reading live code objects, whose instructions the interpreter specialises, instruments and replaces in place.

use super::{DecodeError, ExceptionTable, Locations};
use crate::ffi::{self, PyCodeObject};
use crate::opcode::{Opcode, caches_of};
use crate::refs::{bytes_contents, code_len, code_start};

/// The bytecode as the compiler emitted it, caches zeroed: what `co_code` would give, without allocating an object.
///
/// # Safety
/// `co` points to a live code object and the GIL is held.
pub unsafe fn base_code(co: *mut PyCodeObject) -> Vec<u8> {
    // SAFETY: the array has `code_len` units behind the object's header, and nobody writes it while the GIL is held.
    let units =
        unsafe { core::slice::from_raw_parts(code_start(co).cast::<[u8; 2]>(), code_len(co)) };
    let mut code: Vec<[u8; 2]> = Vec::with_capacity(units.len());
    while code.len() < units.len() {
        let at = code.len();
        // SAFETY: `at` is the index of an instruction.
        let unit = unsafe { base_unit(co, units[at], at) };
        code.push(unit);
        for _ in 0..caches_of(unit[0]).min(units.len() - at - 1) {
            code.push([0, 0]);
        }
    }
    code.into_flattened()
}

/// One unit of [`base_code`], without making all of them.
///
/// # Safety
/// As for [`base_code`]; `index` is the index of an instruction, not of a cache.
pub unsafe fn unit_at(co: *mut PyCodeObject, index: usize) -> [u8; 2] {
    // SAFETY: as in `base_code`.
    unsafe {
        base_unit(
            co,
            code_start(co).cast::<[u8; 2]>().add(index).read(),
            index,
        )
    }
}

/// What the instruction at this index was before the interpreter changed it. Numbers that are no opcode stay.
///
/// # Safety
/// As for [`base_code`]; `index` is the index of an instruction, not of a cache.
#[inline]
unsafe fn base_unit(co: *mut PyCodeObject, unit: [u8; 2], index: usize) -> [u8; 2] {
    let [mut number, mut oparg] = unit;
    if let Some(opcode) = Opcode::from_u8(number)
        && opcode.base().is_base()
    {
        return [opcode.base() as u8, oparg];
    }
    if number == Opcode::ENTER_EXECUTOR as u8 {
        // SAFETY: the argument of ENTER_EXECUTOR indexes the code object's executors, which keep what they replaced.
        unsafe {
            let executors = &raw mut (*(*co).co_executors).executors;
            let executor = *executors
                .cast::<*mut ffi::_PyExecutorObject>()
                .add(usize::from(oparg));
            (number, oparg) = ((*executor).vm_data.opcode, (*executor).vm_data.oparg);
        }
    } else {
        // The order is the interpreter's: a line event hides an instruction event hides an instrumented opcode.
        if number == Opcode::INSTRUMENTED_LINE as u8 {
            // SAFETY: a code object with this opcode has line data, an entry per code unit, the opcode first in each.
            unsafe {
                let lines = (*(*co)._co_monitoring).lines;
                let data = (&raw const (*lines).data).cast::<u8>();
                number = *data.add(index * usize::from((*lines).bytes_per_entry));
            }
        }
        if number == Opcode::INSTRUMENTED_INSTRUCTION as u8 {
            // SAFETY: a code object with this opcode has an opcode for each code unit.
            number = unsafe { *(*(*co)._co_monitoring).per_instruction_opcodes.add(index) };
        }
    }
    [
        Opcode::from_u8(number).map_or(number, |opcode| opcode.base() as u8),
        oparg,
    ]
}

/// A code object's tables, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct BorrowedCode<'a> {
    /// `co_exceptiontable`.
    pub exception_table: &'a [u8],
    /// `co_linetable`.
    pub location_table: &'a [u8],
    /// `co_firstlineno`.
    pub first_line: i32,
    /// `co_stacksize`.
    pub stack_size: u32,
    /// `_co_firsttraceable`, in code units.
    pub first_traceable: u32,
}

impl<'a> BorrowedCode<'a> {
    /// Borrows from a live code object.
    ///
    /// # Safety
    /// `co` points to a code object that lives for `'a`.
    pub unsafe fn new(co: *mut PyCodeObject) -> Self {
        // SAFETY: these fields never change after the code object was made.
        unsafe {
            Self {
                exception_table: bytes_contents((*co).co_exceptiontable),
                location_table: bytes_contents((*co).co_linetable),
                first_line: (*co).co_firstlineno,
                stack_size: (*co).co_stacksize as u32,
                first_traceable: (*co)._co_firsttraceable as u32,
            }
        }
    }

    /// Parses the exception table.
    pub fn exceptions(&self) -> Result<ExceptionTable, DecodeError> {
        ExceptionTable::parse(self.exception_table)
    }

    /// Iterates over the location table.
    pub fn locations(&self) -> Locations<'a> {
        Locations::new(self.location_table, self.first_line)
    }
}
