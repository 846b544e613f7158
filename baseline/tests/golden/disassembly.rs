//! Disassembly of both architectures into lines that know where they branch.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use capstone::arch::{BuildsCapstone, arm64};
use capstone::prelude::*;
use hotstamp_baseline::masm::MacroAssembler;
use hotstamp_baseline::masm::aarch64::Aarch64;
use hotstamp_baseline::masm::x86_64::X86_64;
use hotstamp_baseline::stubs::Stubs;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, IntelFormatter};

/// One instruction or literal.
#[derive(Debug)]
pub struct Line {
    /// Offset in the code.
    pub at: usize,
    /// Its text, without the target.
    pub text: String,
    /// Address that it branches to or calls: follows the text.
    pub target: Option<u64>,
    /// Value that it loads or is: follows the text.
    pub literal: Option<u64>,
}

/// A backend whose code can be shown.
pub trait Architecture: MacroAssembler {
    /// In names of files.
    const NAME: &'static str;
    /// Where the shared stubs' addresses are kept once they were assembled.
    fn stubs() -> &'static OnceLock<Stubs>;
    /// Disassembles code that stands at `address`.
    fn disassemble(code: &[u8], address: u64) -> Vec<Line>;
}

impl Architecture for X86_64 {
    const NAME: &'static str = "x86_64";

    fn stubs() -> &'static OnceLock<Stubs> {
        static STUBS: OnceLock<Stubs> = OnceLock::new();
        &STUBS
    }

    fn disassemble(code: &[u8], address: u64) -> Vec<Line> {
        let mut formatter = IntelFormatter::new();
        let options = formatter.options_mut();
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_uppercase_hex(false);
        options.set_space_after_operand_separator(true);
        let mut lines = Vec::new();
        for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE).iter() {
            assert!(!instruction.is_invalid(), "not x86-64: {code:x?}");
            let target = match instruction.flow_control() {
                FlowControl::UnconditionalBranch
                | FlowControl::ConditionalBranch
                | FlowControl::Call => Some(instruction.near_branch_target()),
                _ => None,
            };
            let mut text = String::new();
            if target.is_some() {
                formatter.format_mnemonic(&instruction, &mut text);
            } else {
                formatter.format(&instruction, &mut text);
            }
            lines.push(Line {
                at: (instruction.ip() - address) as usize,
                text,
                target,
                literal: None,
            });
        }
        lines
    }
}

impl Architecture for Aarch64 {
    const NAME: &'static str = "aarch64";

    fn stubs() -> &'static OnceLock<Stubs> {
        static STUBS: OnceLock<Stubs> = OnceLock::new();
        &STUBS
    }

    fn disassemble(code: &[u8], address: u64) -> Vec<Line> {
        let capstone = Capstone::new()
            .arm64()
            .mode(arm64::ArchMode::Arm)
            .build()
            .expect("capstone was built for AArch64");
        let (mut lines, mut literals, mut at) = (Vec::new(), BTreeSet::new(), 0);
        while at < code.len() {
            let mut line = Line {
                at,
                text: String::new(),
                target: None,
                literal: None,
            };
            if literals.contains(&at) {
                line.text = ".quad".to_owned();
                line.literal = Some(quad(code, at));
                lines.push(line);
                at += 8;
                continue;
            }
            let word = &code[at..at + 4];
            let decoded = capstone.disasm_count(word, address + at as u64, 1);
            let decoded = decoded.expect("capstone works");
            let Some(instruction) = decoded.iter().next() else {
                assert_eq!(word, [0; 4], "not AArch64 at {at:#x}");
                line.text = ".word 0".to_owned();
                lines.push(line);
                at += 4;
                continue;
            };
            let name = instruction.mnemonic().expect("a mnemonic");
            let operands = instruction.op_str().unwrap_or_default();
            let (front, last) = match operands.rsplit_once(", ") {
                Some((front, last)) => (format!("{name} {front},"), last),
                None => (name.to_owned(), operands),
            };
            let value = last
                .strip_prefix("#0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let branches =
                ["b", "bl", "cbz", "cbnz", "tbz", "tbnz"].contains(&name) || name.starts_with("b.");
            match value {
                Some(target) if branches => {
                    line.text = front;
                    line.target = Some(target);
                }
                Some(place) if name == "ldr" => {
                    let place = (place - address) as usize;
                    literals.insert(place);
                    line.text = format!("{front} =");
                    line.literal = Some(quad(code, place));
                }
                _ => line.text = format!("{name} {operands}").trim_end().to_owned(),
            }
            lines.push(line);
            at += 4;
        }
        lines
    }
}

fn quad(code: &[u8], at: usize) -> u64 {
    let bytes = code[at..at + 8].try_into();
    u64::from_le_bytes(bytes.expect("eight bytes"))
}
