//! The virtual operand stack: its bookkeeping, and goldens of the moves that it emits.

use std::fmt::Write;

use hotstamp_baseline::masm::Reg;
use hotstamp_baseline::masm::aarch64::Aarch64;
use hotstamp_baseline::masm::x86_64::X86_64;
use hotstamp_baseline::vstack::{Entry, VirtualStack};
use hotstamp_runtime::site::CodePtr;

use crate::disassembly::Architecture;
use crate::listing::BODY;

/// Some constant's bits, with the mark of a borrowed reference; and null.
const CONSTANT: Entry = Entry::Const(0x1235);
const NULL: Entry = Entry::Const(1);

fn stack(entries: &[Entry]) -> VirtualStack {
    let mut stack = VirtualStack::new(3);
    for &entry in entries {
        stack.push(entry);
    }
    stack
}

fn entries(stack: &VirtualStack) -> Vec<Entry> {
    (0..stack.depth())
        .rev()
        .map(|back| stack.peek(back))
        .collect()
}

/// Does something to a stack and writes what it was, what it became, and the moves.
fn step<M: Architecture>(
    text: &mut String,
    name: &str,
    before: &[Entry],
    change: impl FnOnce(&mut VirtualStack, &mut M),
) -> Vec<Entry> {
    let mut masm = M::new(CodePtr(BODY as *const u8));
    let mut stack = stack(before);
    change(&mut stack, &mut masm);
    let after = entries(&stack);
    writeln!(text, "{name}: {before:?} -> {after:?}").unwrap();
    let code = masm.finish().expect("moves can be assembled");
    let end = BODY + code.len() as u64;
    for line in M::disassemble(&code, BODY) {
        assert!(line.target.is_none_or(|target| target <= end));
        let target = line.target.map(|target| format!(" +{:#x}", target - BODY));
        writeln!(text, "    {}{}", line.text, target.unwrap_or_default()).unwrap();
    }
    after
}

fn moves<M: Architecture>() {
    use Entry::{Acc, Local, Memory};
    let mut text = String::new();
    let t = &mut text;
    for entry in [Local(1), CONSTANT, NULL, Memory, Acc] {
        step::<M>(t, "materialize in A1", &[Memory, entry], |stack, m| {
            stack.materialize(m, entry, 1, Reg::A1);
        });
    }
    let all = [Local(0), CONSTANT, NULL, Memory, Acc];
    let after = step::<M>(t, "flush", &all, |stack, m| stack.flush(m));
    assert_eq!(after, [Memory; 5]);
    let after = step::<M>(t, "flush_below(2)", &all, |stack, m| {
        stack.flush_below(m, 2)
    });
    assert_eq!(after, [Memory, Memory, Memory, Memory, Acc]);
    let after = step::<M>(t, "flush", &[Memory; 3], |stack, m| stack.flush(m));
    assert_eq!(after, [Memory; 3]);
    let after = step::<M>(t, "spill_acc", &[Local(0), Acc, CONSTANT], |stack, m| {
        stack.spill_acc(m)
    });
    assert_eq!(after, [Local(0), Memory, CONSTANT]);
    let after = step::<M>(t, "spill_acc", &[Local(0), CONSTANT], |stack, m| {
        stack.spill_acc(m)
    });
    assert_eq!(after, [Local(0), CONSTANT]);
    let swaps = [
        ([Memory, CONSTANT, Memory], [Memory, CONSTANT, Memory]),
        ([Memory, CONSTANT, Acc], [Acc, CONSTANT, Memory]),
        ([Local(2), CONSTANT, Memory], [Memory, CONSTANT, Local(2)]),
        ([Local(2), CONSTANT, Acc], [Acc, CONSTANT, Local(2)]),
    ];
    for (before, expected) in swaps {
        let after = step::<M>(t, "swap(2)", &before, |stack, m| stack.swap(m, 2));
        assert_eq!(after, expected);
    }
    let borrows = [Local(1), Local(0), Local(1), Acc];
    let after = step::<M>(t, "own_borrows_of(1)", &borrows, |stack, m| {
        stack.own_borrows_of(m, 1)
    });
    assert_eq!(after, [Memory, Local(0), Memory, Acc]);
    insta::with_settings!({
        snapshot_path => "vstack",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(format!("moves_{}", M::NAME), text);
    });
}

#[test]
fn moves_x86_64() {
    moves::<X86_64>();
}

#[test]
fn moves_aarch64() {
    moves::<Aarch64>();
}

#[test]
fn bookkeeping() {
    let mut stack = stack(&[Entry::Local(2), CONSTANT, Entry::Acc]);
    assert_eq!(stack.depth(), 3);
    assert_eq!(
        (stack.peek(0), stack.peek(2)),
        (Entry::Acc, Entry::Local(2))
    );
    assert!(stack.borrows_from(2) && !stack.borrows_from(0));
    assert_eq!(stack.take(), Entry::Acc);
    stack.drop_top(1);
    assert_eq!(entries(&stack), [Entry::Local(2)]);
    stack.reset(2);
    assert_eq!(entries(&stack), [Entry::Memory; 2]);
    assert!(!stack.borrows_from(2));
    stack.reset(0);
    assert_eq!(stack.depth(), 0);
}

/// The operand stack lies behind the locals.
#[test]
fn slots() {
    let stack = VirtualStack::new(3);
    let (local, slot) = (VirtualStack::local(2), stack.slot(0));
    assert_eq!((local.base, slot.base), (Reg::Frame, Reg::Frame));
    assert_eq!(slot.disp - local.disp, 8);
    assert_eq!(stack.slot(4).disp - slot.disp, 32);
}
