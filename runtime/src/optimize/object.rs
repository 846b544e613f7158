//! From an object file that LLVM wrote to code that runs.
//!
//! The sections of an object become one piece of code memory: hot code, constants, cold code, then a link slot for each function that is not in the object.
//! Published bytes never change, so what must be written must lie elsewhere: an object with writable data is refused, as is everything else that is not
//! known here. A refused object costs the function its optimized code and nothing more.
//!
//! `relocate.rs` knows the kinds of relocations, `library.rs` the functions that LLVM calls of its own accord.

use object::elf;
use object::read::elf::{ElfFile64, FileHeader};
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget,
    SectionFlags, SectionIndex, SymbolKind,
};
use thiserror::Error;

use super::library;
use super::relocate::{self, Place, RelocationError};
use crate::code_memory::{CodeMemory, CodeMemoryError};
use crate::site::CodePtr;

/// Name of the function at which an object is entered.
pub const ENTRY_NAME: &str = "hotstamp_entry";

/// Why an object was not placed.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// Not an object file, or one that contradicts itself.
    #[error("malformed object file: {0}")]
    Malformed(#[from] object::Error),
    /// Made for another processor.
    #[error("an object file for another machine ({0})")]
    OtherMachine(u16),
    /// Data that is written at run time, or is a thread's own.
    #[error("section {0} cannot be part of code")]
    Section(String),
    /// A function or variable that is neither in the object nor in the table of library functions.
    #[error("unknown symbol {0}")]
    Symbol(String),
    /// A relocation that cannot be made.
    #[error("in section {section}: {error}")]
    Relocation {
        /// The section that refers.
        section: String,
        /// What is wrong.
        error: RelocationError,
    },
    /// There is no function `ENTRY_NAME`.
    #[error("the object has no function {ENTRY_NAME}")]
    NoEntry,
    /// No room.
    #[error(transparent)]
    Memory(#[from] CodeMemoryError),
}

/// An object in code memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it begins. It is freed from here.
    pub at: CodePtr,
    /// How long it is.
    pub len: usize,
    /// Its function `ENTRY_NAME`.
    pub entry: CodePtr,
    /// All its global functions, in the object's order, the entry too.
    pub functions: Vec<(String, CodePtr)>,
    /// Bytes of code that is expected to run.
    pub hot_bytes: usize,
    /// Bytes of code that is not.
    pub cold_bytes: usize,
}

impl Placed {
    /// The address of a global function of the object.
    pub fn function(&self, name: &str) -> Option<CodePtr> {
        self.functions
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, at)| *at)
    }
}

/// What a section is for; also the order in which they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Hot,
    Constants,
    Cold,
}

/// A section that is placed.
struct Section<'data> {
    index: SectionIndex,
    name: &'data str,
    part: Part,
    align: usize,
    bytes: &'data [u8],
    /// Its address; known after `lay_out`.
    address: usize,
}

/// The largest alignment of a section. LLVM asks for at most a cache line, or a vector.
const MAX_ALIGN: u64 = 4096;

type File<'data> = ElfFile64<'data, LittleEndian>;

#[cfg(target_arch = "x86_64")]
const MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: elf::Machine = elf::EM_AARCH64;

/// Places an object in code memory, relocated, fit to run. The caller holds the GIL.
pub fn place(memory: &CodeMemory, object: &[u8]) -> Result<Placed, ObjectError> {
    let file = File::parse(object)?;
    let machine = file.elf_header().e_machine(LittleEndian);
    if machine != MACHINE {
        return Err(ObjectError::OtherMachine(machine.0));
    }
    let mut image = Image {
        sections: sections(&file)?,
        slots: slots(&file)?,
        slots_at: 0,
        base: 0,
        end: 0,
    };
    let base = memory.address_for(image.upper_bound())?;
    image.lay_out(base.0 as usize);
    let bytes = image.link(&file)?;
    let functions = image.functions(&file)?;
    let entry = functions
        .iter()
        .find(|(name, _)| name == ENTRY_NAME)
        .map(|(_, at)| *at)
        .ok_or(ObjectError::NoEntry)?;
    let at = memory.publish_at(base, &bytes)?;
    Ok(Placed {
        at,
        len: bytes.len(),
        entry,
        functions,
        hot_bytes: image.bytes_of(Part::Hot),
        cold_bytes: image.bytes_of(Part::Cold),
    })
}

/// The sections that are placed, in their order.
fn sections<'data>(file: &File<'data>) -> Result<Vec<Section<'data>>, ObjectError> {
    let mut sections = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            continue;
        };
        let name = section.name()?;
        if !sh_flags.contains(elf::SHF_ALLOC) || section.size() == 0 || is_left_out(name) {
            continue;
        }
        let part = if sh_flags.contains(elf::SHF_EXECINSTR) {
            if is_cold(name) { Part::Cold } else { Part::Hot }
        } else if sh_flags.contains(elf::SHF_TLS)
            || sh_flags.contains(elf::SHF_WRITE) && !name.starts_with(".data.rel.ro")
        {
            return Err(ObjectError::Section(name.to_owned()));
        } else {
            Part::Constants
        };
        let align = section.align().max(1);
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(ObjectError::Section(name.to_owned()));
        }
        let bytes = section.data()?;
        if bytes.len() as u64 != section.size() {
            // It would be filled with zeros.
            return Err(ObjectError::Section(name.to_owned()));
        }
        sections.push(Section {
            index: section.index(),
            name,
            part,
            align: align as usize,
            bytes,
            address: 0,
        });
    }
    sections.sort_by_key(|section| section.part);
    Ok(sections)
}

/// Nothing unwinds through this code, and nothing debugs it.
fn is_left_out(name: &str) -> bool {
    name == ".eh_frame" || name.starts_with(".note") || name.starts_with(".debug")
}

fn is_cold(name: &str) -> bool {
    [".text.unlikely", ".text.cold", ".text.split"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// What a symbol stands for that needs a slot: a function outside, or anything whose address is loaded from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    symbol: usize,
    /// The address, if it is outside.
    outside: Option<usize>,
}

/// The symbols that relocations name and that need a slot, each once.
fn slots(file: &File<'_>) -> Result<Vec<Slot>, ObjectError> {
    let mut slots: Vec<Slot> = Vec::new();
    for section in file.sections() {
        if is_left_out(section.name()?) {
            continue;
        }
        for (_, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else {
                continue;
            };
            if slots.iter().any(|slot| slot.symbol == index.0) {
                continue;
            }
            let symbol = file.symbol_by_index(index)?;
            let outside = match symbol.is_undefined() {
                true => Some(library_function(symbol.name()?)?),
                false => None,
            };
            let through_memory = match relocation.flags() {
                RelocationFlags::Elf { r_type } => relocate::is_through_slot(r_type),
                _ => false,
            };
            if outside.is_some() || through_memory {
                slots.push(Slot {
                    symbol: index.0,
                    outside,
                });
            }
        }
    }
    Ok(slots)
}

fn library_function(name: &str) -> Result<usize, ObjectError> {
    library::address_of(name).ok_or_else(|| ObjectError::Symbol(name.to_owned()))
}

/// An object on its way into code memory.
struct Image<'data> {
    sections: Vec<Section<'data>>,
    slots: Vec<Slot>,
    slots_at: usize,
    base: usize,
    end: usize,
}

fn align_up(value: usize, align: usize) -> usize {
    value.next_multiple_of(align)
}

impl Image<'_> {
    /// Bytes that it takes at most, wherever it begins.
    fn upper_bound(&self) -> usize {
        let sections: usize = self
            .sections
            .iter()
            .map(|section| section.bytes.len() + section.align)
            .sum();
        sections + (self.slots.len() + 1) * relocate::SLOT_BYTES
    }

    fn lay_out(&mut self, base: usize) {
        let mut at = base;
        for section in &mut self.sections {
            at = align_up(at, section.align);
            section.address = at;
            at += section.bytes.len();
        }
        self.slots_at = align_up(at, relocate::SLOT_BYTES);
        self.base = base;
        self.end = self.slots_at + self.slots.len() * relocate::SLOT_BYTES;
    }

    fn bytes_of(&self, part: Part) -> usize {
        let of_part = self.sections.iter().filter(|section| section.part == part);
        of_part.map(|section| section.bytes.len()).sum()
    }

    fn section(&self, index: SectionIndex) -> Option<&Section<'_>> {
        self.sections.iter().find(|section| section.index == index)
    }

    /// The address of a symbol of the object; `None` if it is outside.
    fn address_of<'data>(
        &self,
        symbol: &impl ObjectSymbol<'data>,
    ) -> Result<Option<usize>, ObjectError> {
        if symbol.is_undefined() {
            return Ok(None);
        }
        let section = symbol.section_index().and_then(|index| self.section(index));
        match section {
            Some(section) => Ok(Some(
                section.address.wrapping_add(symbol.address() as usize),
            )),
            None => Err(ObjectError::Symbol(symbol.name()?.to_owned())),
        }
    }

    /// The image with all relocations made.
    fn link(&self, file: &File<'_>) -> Result<Vec<u8>, ObjectError> {
        let mut bytes = vec![0; self.end - self.base];
        for section in &self.sections {
            let at = section.address - self.base;
            bytes[at..at + section.bytes.len()].copy_from_slice(section.bytes);
        }
        for (number, slot) in self.slots.iter().enumerate() {
            let target = match slot.outside {
                Some(address) => address,
                None => {
                    let symbol = file.symbol_by_index(object::SymbolIndex(slot.symbol))?;
                    self.address_of(&symbol)?
                        .ok_or_else(|| ObjectError::Symbol(String::new()))?
                }
            };
            let at = self.slot_address(number) - self.base;
            bytes[at..at + relocate::SLOT_BYTES]
                .copy_from_slice(&relocate::slot_bytes(target as u64));
        }
        for section in &self.sections {
            self.relocate_section(file, section, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn slot_address(&self, number: usize) -> usize {
        self.slots_at + number * relocate::SLOT_BYTES
    }

    fn relocate_section(
        &self,
        file: &File<'_>,
        section: &Section<'_>,
        bytes: &mut [u8],
    ) -> Result<(), ObjectError> {
        let failed = |error| ObjectError::Relocation {
            section: section.name.to_owned(),
            error,
        };
        for (offset, relocation) in file.section_by_index(section.index)?.relocations() {
            let (RelocationTarget::Symbol(index), RelocationFlags::Elf { r_type }) =
                (relocation.target(), relocation.flags())
            else {
                return Err(failed(RelocationError::Target));
            };
            let symbol = file.symbol_by_index(index)?;
            let slot = self.slots.iter().position(|slot| slot.symbol == index.0);
            let place = Place {
                address: (section.address as u64).wrapping_add(offset),
                target: match self.address_of(&symbol)? {
                    Some(address) => address as u64,
                    None => library_function(symbol.name()?)? as u64,
                },
                addend: relocation.addend(),
                slot: slot.map(|number| self.slot_address(number) as u64),
            };
            let at = section.address - self.base;
            let field = bytes[at..at + section.bytes.len()]
                .get_mut(offset as usize..)
                .ok_or_else(|| failed(RelocationError::Outside))?;
            relocate::apply(r_type, &place, field).map_err(failed)?;
        }
        Ok(())
    }

    /// The global functions with their addresses.
    fn functions(&self, file: &File<'_>) -> Result<Vec<(String, CodePtr)>, ObjectError> {
        let mut functions = Vec::new();
        for symbol in file.symbols() {
            if symbol.is_global()
                && symbol.kind() == SymbolKind::Text
                && let Some(address) = self.address_of(&symbol)?
            {
                functions.push((symbol.name()?.to_owned(), CodePtr(address as *const u8)));
            }
        }
        Ok(functions)
    }
}
