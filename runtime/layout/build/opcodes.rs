//! The opcode tables, read from `opcode_ids.h` and `pycore_opcode_metadata.h`.
//!
//! Those two headers are generated from one description of the instructions, so their text is regular; what does not
//! look as expected is an error, never skipped.
use std::{collections::BTreeMap, fmt::Write, fs};

use crate::headers::Headers;

/// What the headers say of one real opcode.
#[derive(Default)]
struct Op {
    name: String,
    base: String,
    caches: u32,
    flags: String,
    popped: String,
    pushed: String,
}

/// One question about an opcode, answered as Rust text.
type Column = fn(&Op) -> String;

/// The text of `opcode.rs`: the enum, its metadata and the stack effects.
pub fn generate(headers: &Headers) -> Result<String, String> {
    let ids = read(headers, "python3.14/opcode_ids.h")?;
    let metadata = read(headers, "python3.14/internal/pycore_opcode_metadata.h")?;
    let ops = collect(&ids, &metadata)?;
    Ok(render(&ops))
}

fn read(headers: &Headers, name: &str) -> Result<String, String> {
    let path = headers.root.join(name);
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn collect(ids: &str, metadata: &str) -> Result<BTreeMap<u8, Op>, String> {
    let mut numbers = BTreeMap::new();
    let limits = [
        "HAVE_ARGUMENT",
        "MIN_SPECIALIZED_OPCODE",
        "MIN_INSTRUMENTED_OPCODE",
    ];
    for line in ids.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["#define", name, value] = words[..] else {
            continue;
        };
        if limits.contains(&name) {
            continue;
        }
        let value: u32 = value
            .parse()
            .map_err(|_| format!("opcode_ids.h: {line:?} is not a number"))?;
        // Above 255 are the compiler's pseudo instructions, which no code object contains.
        if let Ok(value) = u8::try_from(value) {
            numbers.insert(name, value);
        }
    }
    let mut ops: BTreeMap<u8, Op> = numbers
        .iter()
        .map(|(name, number)| {
            (
                *number,
                Op {
                    name: (*name).into(),
                    ..Op::default()
                },
            )
        })
        .collect();
    let number = |name: &str| numbers.get(name).copied();

    for (name, value) in table(metadata, "_PyOpcode_Deopt[256] = {")? {
        // The unused numbers appear as digits and stand for themselves.
        if let Some(n) = number(&name) {
            number(&value)
                .ok_or_else(|| format!("{name} is a form of {value}, which is no opcode"))?;
            ops.get_mut(&n).expect("numbered above").base = value;
        }
    }
    for (name, value) in table(metadata, "_PyOpcode_Caches[256] = {")? {
        let n = number(&name).ok_or_else(|| format!("{name} has a cache but no number"))?;
        ops.get_mut(&n).expect("numbered above").caches = value
            .parse()
            .map_err(|_| format!("{name} has {value} caches"))?;
    }
    for (name, value) in table(metadata, "_PyOpcode_opcode_metadata[267] = {")? {
        let Some(n) = number(&name) else { continue };
        let flags = value
            .trim_matches(['{', '}', ' '])
            .split(',')
            .nth(2)
            .ok_or_else(|| format!("{name} has no flags"))?;
        ops.get_mut(&n).expect("numbered above").flags = flags.trim().into();
    }
    for (function, store) in [
        ("_PyOpcode_num_popped", true),
        ("_PyOpcode_num_pushed", false),
    ] {
        for (name, effect) in cases(metadata, function)? {
            let Some(n) = number(&name) else { continue };
            let op = ops.get_mut(&n).expect("numbered above");
            *(if store {
                &mut op.popped
            } else {
                &mut op.pushed
            }) = effect;
        }
    }
    // An instrumented form stands for the instruction it is named after; INSTRUMENTED_LINE and INSTRUMENTED_INSTRUCTION
    // can stand for any and are looked up in the code object's monitoring data.
    let names: Vec<String> = numbers.keys().map(|n| (*n).to_owned()).collect();
    for op in ops.values_mut() {
        if let Some(plain) = op.name.strip_prefix("INSTRUMENTED_")
            && names.iter().any(|n| n == plain)
        {
            op.base = plain.into();
        }
        if op.base.is_empty() {
            return Err(format!(
                "pycore_opcode_metadata.h does not say what {} is a form of",
                op.name
            ));
        }
    }
    Ok(ops)
}

/// The `[key] = value` entries of the table that starts with this text.
fn table(text: &str, start: &str) -> Result<Vec<(String, String)>, String> {
    let body = between(text, start, "\n};")?;
    let mut entries = vec![];
    for line in body.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let entry = line.strip_prefix('[').and_then(|l| l.split_once("] = "));
        let (key, value) =
            entry.ok_or_else(|| format!("unexpected line in {start:?}: {line:?}"))?;
        entries.push((key.into(), value.trim_end_matches(',').into()));
    }
    Ok(entries)
}

/// The `case KEY: return EFFECT;` pairs of a function, the effects checked to be arithmetic on `oparg`.
fn cases(text: &str, function: &str) -> Result<Vec<(String, String)>, String> {
    let body = between(
        text,
        &format!("int {function}(int opcode, int oparg)  {{"),
        "default:",
    )?;
    let mut keys = vec![];
    let mut entries = vec![];
    for line in body.lines().map(str::trim) {
        if let Some(key) = line.strip_prefix("case ").and_then(|l| l.strip_suffix(':')) {
            keys.push(key.to_owned());
        } else if let Some(effect) = line
            .strip_prefix("return ")
            .and_then(|l| l.strip_suffix(';'))
        {
            let plain = effect
                .replace("oparg", "")
                .replace(">>", "")
                .replace("0xFF", "");
            if !plain
                .chars()
                .all(|c| c.is_ascii_digit() || "+-*&() ".contains(c))
            {
                return Err(format!(
                    "{function}: the effect {effect:?} is not understood"
                ));
            }
            entries.extend(keys.drain(..).map(|key| (key, effect.to_owned())));
        } else if !line.is_empty() && line != "switch(opcode) {" {
            return Err(format!("{function}: the line {line:?} is not understood"));
        }
    }
    Ok(entries)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Result<&'a str, String> {
    let missing = || format!("pycore_opcode_metadata.h has no {start:?}");
    // The first mention is a declaration where there is one: a definition has the opening brace in `start`.
    let from = text.find(start).ok_or_else(missing)? + start.len();
    let len = text[from..].find(end).ok_or_else(missing)?;
    Ok(&text[from..from + len])
}

/// The effect where it is a plain number, else `VARIES`.
fn fixed_effect(effect: &str) -> String {
    effect
        .parse::<u8>()
        .map_or("VARIES".into(), |n| n.to_string())
}

fn render(ops: &BTreeMap<u8, Op>) -> String {
    let mut out = String::new();
    let w = &mut out;
    let _ = writeln!(
        w,
        "/// Every opcode a code object can contain, under its C name."
    );
    let _ = writeln!(
        w,
        "#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]\n#[repr(u8)]\npub enum Opcode {{"
    );
    for (number, op) in ops {
        let _ = writeln!(w, "/// `{0}`.\n{0} = {number},", op.name);
    }
    let _ = writeln!(w, "}}\n");
    // One table per question, so that a look-up is one small load.
    let tables: [(&str, &str, &str, Column); 7] = [
        ("OPCODES", "Option<Opcode>", "None", |op| {
            format!("Some(Opcode::{})", op.name)
        }),
        ("NAMES", "&str", "\"\"", |op| format!("{:?}", op.name)),
        ("BASES", "Opcode", "Opcode::CACHE", |op| {
            format!("Opcode::{}", op.base)
        }),
        ("FLAGS", "u16", "0", |op| match op.flags.as_str() {
            "" | "0" => "0".into(),
            flags => format!("({flags}) as u16"),
        }),
        ("OWN_CACHES", "u8", "0", |op| op.caches.to_string()),
        ("FIXED_POPPED", "u8", "VARIES", |op| {
            fixed_effect(&op.popped)
        }),
        ("FIXED_PUSHED", "u8", "VARIES", |op| {
            fixed_effect(&op.pushed)
        }),
    ];
    for (table, kind, filler, value) in tables {
        let _ = writeln!(
            w,
            "static {table}: [{kind}; 256] = {{\nlet mut table = [{filler}; 256];"
        );
        for (number, op) in ops {
            let _ = writeln!(w, "table[{number}] = {};", value(op));
        }
        let _ = writeln!(w, "table\n}};\n");
    }
    for (name, effect) in [
        ("raw_popped", |op: &Op| op.popped.clone()),
        ("raw_pushed", |op: &Op| op.pushed.clone()),
    ] as [(&str, Column); 2]
    {
        let _ = writeln!(
            w,
            "#[allow(unused_parens, clippy::all)]\n#[inline]\nfn {name}(op: Opcode, oparg: i32) -> Option<i32> {{\nSome(match op {{"
        );
        for op in ops.values() {
            let effect = effect(op);
            if !effect.is_empty() {
                let _ = writeln!(w, "Opcode::{} => {effect},", op.name);
            }
        }
        let _ = writeln!(
            w,
            "#[allow(unreachable_patterns)]\n_ => return None,\n}})\n}}\n"
        );
    }
    out
}
