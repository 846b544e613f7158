//! Compiling a code object for a listing, and the listing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use hotstamp_baseline::bytecode::Bytecode;
use hotstamp_baseline::compiler::{Compiler, Output};
use hotstamp_baseline::stubs::Stubs;
use hotstamp_layout::ffi::PyCodeObject;
use hotstamp_runtime::site::CodePtr;

use crate::annotated::{Annotated, Notes, Part, noting};
use crate::disassembly::{Architecture, Line};
use crate::interpreter::Globals;
use crate::symbols::{Symbols, function};

/// Where bodies are assembled for.
pub const BODY: u64 = 0x2010_0000;
/// Where the shared stubs are, in reach of bodies.
pub const STUBS: u64 = 0x2000_0000;

fn code_pointer(address: u64) -> CodePtr {
    CodePtr(address as *const u8)
}

/// The shared stubs of an architecture, with what was noted.
pub fn assemble_stubs<M: Architecture>() -> (Vec<u8>, Stubs, Notes) {
    let (result, notes) = noting(Symbols::default(), || {
        Stubs::assemble::<Annotated<M>>(code_pointer(STUBS), false)
    });
    let (code, stubs) = result.expect("the stubs can be assembled");
    (code, stubs, notes)
}

/// A compiled function.
pub struct Compiled {
    /// Its machine code.
    pub output: Output,
    notes: Notes,
    stubs: Stubs,
    lines: Vec<Line>,
    /// Offset, name and description of each instruction of its bytecode.
    instructions: BTreeMap<u32, (String, String)>,
}

impl Compiled {
    /// Compiles a code object.
    pub fn new<M: Architecture>(globals: &Globals, code: *mut PyCodeObject) -> Compiled {
        let stubs = *M::stubs().get_or_init(|| assemble_stubs::<M>().1);
        // SAFETY: a live code object, and the GIL is held by the test.
        let bytecode = unsafe { Bytecode::decode(code) }.expect("valid bytecode");
        let (result, notes) = noting(Symbols::of_code(globals, code), || {
            // SAFETY: as above.
            let compiler = unsafe {
                Compiler::<Annotated<M>>::new(code_pointer(BODY), &stubs, code, &bytecode)
            };
            compiler.compile()
        });
        let output = result.expect("the code can be compiled");
        let lines = M::disassemble(&output.code, BODY);
        let described = globals.strings(c"instructions", code.cast());
        let instructions = described.iter().map(|line| {
            let mut fields = line.splitn(3, '\t').map(str::to_owned);
            let mut next = || fields.next().expect("three fields");
            let offset: u32 = next().parse().expect("a number");
            (offset, (next(), next()))
        });
        Compiled {
            instructions: instructions.collect(),
            output,
            notes,
            stubs,
            lines,
        }
    }

    /// Whether code was made for one of these opcodes.
    pub fn has(&self, opcode: &str) -> bool {
        self.notes
            .parts
            .iter()
            .any(|(_, part)| matches!(part, Part::Instruction(at) if self.name(*at) == opcode))
    }

    fn name(&self, instruction: u32) -> &str {
        &self.instructions[&instruction].0
    }

    /// The listing; of the code of these opcodes only, if there are any.
    pub fn listing(&self, opcodes: &[&str]) -> String {
        let shown = |part: Part| match part {
            _ if opcodes.is_empty() => true,
            Part::Instruction(at) | Part::Cold(at) => opcodes.contains(&self.name(at)),
            Part::Prologue | Part::Behind => false,
        };
        let labels = self.labels(shown);
        let mut text = String::new();
        let ends = self.notes.parts[1..].iter().map(|(start, _)| *start);
        let ends = ends.chain([self.output.code.len()]);
        for ((start, part), end) in self.notes.parts.iter().zip(ends) {
            let title = match part {
                Part::Prologue => "prologue".to_owned(),
                Part::Instruction(at) => format!("{at} {}", self.instructions[at].1),
                Part::Cold(at) => format!("out of line of {at} {}", self.name(*at)),
                Part::Behind => "behind the code".to_owned(),
            };
            if !shown(*part) {
                if matches!(part, Part::Instruction(_)) {
                    writeln!(text, "{title}").unwrap();
                }
                continue;
            }
            if start == &end && *part == Part::Behind {
                continue;
            }
            writeln!(text, "{title}: {} bytes", end - start).unwrap();
            for line in self
                .lines
                .iter()
                .filter(|line| (*start..end).contains(&line.at))
            {
                if let Some(label) = labels.get(&line.at)
                    && label.starts_with('@')
                {
                    writeln!(text, "  {label}").unwrap();
                }
                let mut shown = self.notes.symbols.replace(&line.text);
                if let Some(target) = line.target {
                    write!(shown, " {}", self.target(target, &labels)).unwrap();
                }
                if let Some(value) = line.literal {
                    let value = self
                        .notes
                        .symbols
                        .show(value)
                        .unwrap_or(format!("{value:#x}"));
                    write!(shown, " {value}").unwrap();
                }
                writeln!(text, "    {shown}").unwrap();
            }
        }
        for site in self.output.sites() {
            // The instruction that a site belongs to is named by its own offset, behind prefixes.
            let (at, _) = self
                .instructions
                .range(..=site.instruction)
                .next_back()
                .unwrap();
            if !shown(Part::Instruction(*at)) {
                continue;
            }
            let (offset, name) = (site.byte_offset, self.name(*at));
            let stub = self.stub(site.target.0 as u64);
            write!(
                text,
                "site {offset:#x} of {at} {name}: {} bytes, {stub}",
                site.bytes
            )
            .unwrap();
            if !site.helper.is_null() {
                let helper = function(site.helper as u64).expect("a helper has a name");
                write!(text, ", {helper}").unwrap();
            }
            if let Some(number) = site.suspends_at {
                write!(text, ", goes on at resume point {number}").unwrap();
            }
            text.push('\n');
        }
        text
    }

    /// Names of the places that are branched to: the bytecode instruction that begins there, or `@n`, counted in the parts that are shown first.
    fn labels(&self, shown: impl Fn(Part) -> bool) -> BTreeMap<usize, String> {
        let targets = self.lines.iter().filter_map(|line| line.target);
        let inside = BODY..BODY + self.output.code.len() as u64;
        let targets = targets.filter(|target| inside.contains(target));
        let targets: BTreeSet<usize> = targets.map(|target| (target - BODY) as usize).collect();
        let (mut labels, mut others) = (BTreeMap::new(), Vec::new());
        for &at in &targets {
            let begins = self
                .notes
                .parts
                .iter()
                .find_map(|(start, part)| match part {
                    Part::Instruction(instruction) if *start == at => Some(instruction),
                    _ => None,
                });
            match begins {
                Some(instruction) => {
                    labels.insert(at, format!("instruction {instruction}"));
                }
                None => others.push(at),
            }
        }
        others.sort_by_key(|&at| {
            let part = self
                .notes
                .parts
                .iter()
                .rev()
                .find(|(start, _)| *start <= at);
            (!part.is_some_and(|(_, part)| shown(*part)), at)
        });
        for (i, at) in others.into_iter().enumerate() {
            labels.insert(at, format!("@{}", i + 1));
        }
        labels
    }

    fn target(&self, address: u64, labels: &BTreeMap<usize, String>) -> String {
        let inside = address
            .checked_sub(BODY)
            .and_then(|at| labels.get(&(at as usize)));
        match inside {
            Some(label) => label.clone(),
            None => self.stub(address),
        }
    }

    fn stub(&self, address: u64) -> String {
        let named = self.stubs.named();
        let stub = named.iter().find(|(_, at)| at.0 as u64 == address);
        let (name, _) = stub.expect("code outside of the body is a stub");
        (*name).to_owned()
    }
}
