//! Every template has a golden: the sources of the templates are read and compared with the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::templates::FAMILIES;

/// Functions that are no templates: what several templates share. Their code is in the goldens of those.
const SHARED: &[&str] = &["incref", "poll", "poll_through"];

fn sources() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/templates");
    let entries = fs::read_dir(folder).expect("the templates' folder can be read");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| fs::read_to_string(path).expect("a source"))
        .collect()
}

/// `<name>` of each `fn emit_<name>` in the templates.
fn templates(sources: &[String]) -> BTreeSet<String> {
    let declarations = sources
        .iter()
        .flat_map(|source| source.split("fn emit_").skip(1));
    declarations
        .map(|rest| {
            let name = rest
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .next();
            name.expect("a name").to_owned()
        })
        .collect()
}

/// Which opcodes the driver gives to which template.
fn dispatched(sources: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let driver = sources
        .iter()
        .find(|source| source.contains("match instruction.opcode {"));
    let (_, arms) = driver
        .and_then(|source| source.split_once("match instruction.opcode {"))
        .expect("the driver chooses by opcode");
    let (arms, _) = arms
        .split_once("other =>")
        .expect("the last arm is for all others");
    let mut opcodes = BTreeSet::new();
    let mut dispatched: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    for piece in arms
        .replace("Opcode::", "\u{1}Opcode::")
        .replace("=>", "\u{1}=>")
        .split('\u{1}')
    {
        if let Some(rest) = piece.strip_prefix("Opcode::") {
            opcodes.insert(word(rest));
        } else if piece.starts_with("=>") {
            let arm = std::mem::take(&mut opcodes);
            if let Some((_, rest)) = piece.split_once("self.emit_") {
                dispatched.entry(word(rest)).or_default().extend(arm);
            }
        }
    }
    dispatched
}

#[test]
fn every_template_has_a_golden() {
    let sources = sources();
    let templates = templates(&sources);
    assert!(templates.len() > 30, "{templates:?}");
    let goldens: BTreeSet<String> = FAMILIES
        .iter()
        .map(|family| family.template.to_owned())
        .collect();
    let shared: BTreeSet<String> = SHARED.iter().map(|name| (*name).to_owned()).collect();
    let known: BTreeSet<String> = goldens.union(&shared).cloned().collect();
    let missing: Vec<_> = templates.difference(&known).collect();
    assert!(
        missing.is_empty(),
        "emit_* without a golden in templates.rs: {missing:?}"
    );
    let gone: Vec<_> = known.difference(&templates).collect();
    assert!(
        gone.is_empty(),
        "no emit_* in the sources any more: {gone:?}"
    );
    // What is shared must be used by a template, or nothing shows its code.
    for name in SHARED {
        let call = format!("self.emit_{name}(");
        assert!(
            sources.iter().any(|source| source.contains(&call)),
            "{name} is not used"
        );
    }
}

#[test]
fn every_opcode_of_a_template_has_a_golden() {
    let dispatched = dispatched(&sources());
    assert!(dispatched.len() > 30, "{dispatched:?}");
    for (template, opcodes) in &dispatched {
        let family = FAMILIES.iter().find(|family| family.template == template);
        let family = family.unwrap_or_else(|| panic!("emit_{template} has no golden"));
        let shown: BTreeSet<String> = family
            .opcodes
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        let missing: Vec<_> = opcodes.difference(&shown).collect();
        assert!(
            missing.is_empty(),
            "emit_{template} has no golden for {missing:?}"
        );
    }
}
