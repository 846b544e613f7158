//! Goldens of the shared stubs: one file for each stub and architecture, and one for the tails that several share.

use std::collections::BTreeMap;
use std::fmt::Write;

use hotstamp_baseline::masm::aarch64::Aarch64;
use hotstamp_baseline::masm::x86_64::X86_64;

use crate::annotated::Part;
use crate::disassembly::{Architecture, Line};
use crate::interpreter::Python;
use crate::listing::{STUBS, assemble_stubs};

/// A stub with its code's bounds.
struct Stub {
    name: &'static str,
    start: usize,
    end: usize,
}

fn check<M: Architecture>() {
    // The addresses of C functions and types are taken; nothing runs.
    let _python = Python::attach();
    let (code, stubs, notes) = assemble_stubs::<M>();
    let offset = |address: u64| (address - STUBS) as usize;
    let mut starts: Vec<(usize, &str)> = stubs
        .named()
        .into_iter()
        .map(|(name, at)| (offset(at.0 as u64), name))
        .collect();
    starts.sort_unstable();
    let (last, _) = *starts.last().expect("there are stubs");
    let tails = notes.aligned.iter().find(|at| **at > last);
    starts.push((*tails.expect("the tails are aligned"), "tails"));
    let behind = notes.parts.iter().find(|(_, part)| *part == Part::Behind);
    starts.push((behind.expect("the code ended").0, "literals"));
    let ends = starts[1..]
        .iter()
        .map(|(start, _)| *start)
        .chain([code.len()]);
    let stubs: Vec<Stub> = starts
        .iter()
        .zip(ends)
        .map(|(&(start, name), end)| Stub { name, start, end })
        .collect();

    let lines = M::disassemble(&code, STUBS);
    let labels = labels(&stubs, &lines, code.len());
    for stub in stubs.iter().filter(|stub| stub.name != "literals") {
        let mut text = format!("{} bytes\n", stub.end - stub.start);
        for line in lines
            .iter()
            .filter(|line| (stub.start..stub.end).contains(&line.at))
        {
            if let Some(label) = labels.get(&line.at)
                && let Some((_, label)) = label.split_once('@')
            {
                writeln!(text, "  @{label}").unwrap();
            }
            let mut shown = notes.symbols.replace(&line.text);
            if let Some(target) = line.target {
                let label = &labels[&offset(target)];
                let own = label.strip_prefix(stub.name);
                let label = own.filter(|rest| rest.starts_with('@')).unwrap_or(label);
                write!(shown, " {label}").unwrap();
            }
            if let Some(value) = line.literal {
                let value = notes.symbols.show(value).unwrap_or(format!("{value:#x}"));
                write!(shown, " {value}").unwrap();
            }
            writeln!(text, "    {shown}").unwrap();
        }
        insta::with_settings!({
            snapshot_path => format!("stubs/{}", M::NAME),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(stub.name, text);
        });
    }
}

/// Names of the places that are branched to: a stub, or `stub@n`.
fn labels(stubs: &[Stub], lines: &[Line], bytes: usize) -> BTreeMap<usize, String> {
    let targets = lines.iter().filter_map(|line| line.target);
    let mut targets: Vec<usize> = targets.map(|target| (target - STUBS) as usize).collect();
    targets.sort_unstable();
    targets.dedup();
    let mut labels = BTreeMap::new();
    for stub in stubs {
        let inside = targets
            .iter()
            .filter(|at| (stub.start..stub.end).contains(at));
        let mut number = 0;
        for &at in inside {
            let begins = at == stub.start;
            let label = if begins {
                stub.name.to_owned()
            } else {
                number += 1;
                format!("{}@{number}", stub.name)
            };
            labels.insert(at, label);
        }
    }
    assert!(
        targets.iter().all(|at| *at < bytes),
        "a stub branches out of the stubs"
    );
    labels
}

#[test]
fn x86_64() {
    check::<X86_64>();
}

#[test]
fn aarch64() {
    check::<Aarch64>();
}
