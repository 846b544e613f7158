//! The decoder on byte strings made by hand.

use hotstamp_baseline::bytecode::Bytecode;
use hotstamp_baseline::error::CompileError;
use hotstamp_layout::bytecode::base_code;
use hotstamp_layout::opcode::Opcode;
use hotstamp_layout::refs;

use crate::interpreter::Python;

/// The bytes of instructions, with their caches.
fn assemble(instructions: &[(Opcode, u8)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(opcode, argument) in instructions {
        bytes.extend([opcode as u8, argument]);
        bytes.resize(bytes.len() + 2 * opcode.caches(), 0);
    }
    bytes
}

fn decode(instructions: &[(Opcode, u8)]) -> Bytecode {
    Bytecode::from_bytes(&assemble(instructions), &[]).expect("valid bytecode")
}

/// What an error says.
fn refused(bytes: &[u8], table: &[u8]) -> String {
    match Bytecode::from_bytes(bytes, table) {
        Err(CompileError::BadBytecode(text)) => text.to_owned(),
        Err(CompileError::Decode(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn leaders(bytecode: &Bytecode) -> Vec<u32> {
    (0..=bytecode.units as u32)
        .filter(|&offset| bytecode.is_leader(offset))
        .collect()
}

#[test]
fn prefixes_are_folded_in() {
    let bytecode = decode(&[
        (Opcode::RESUME, 0),
        (Opcode::EXTENDED_ARG, 1),
        (Opcode::EXTENDED_ARG, 2),
        (Opcode::LOAD_CONST, 3),
        (Opcode::EXTENDED_ARG, 0xff),
        (Opcode::LOAD_CONST, 0),
        (Opcode::LOAD_CONST, 7),
    ]);
    let decoded: Vec<_> = bytecode
        .instructions
        .iter()
        .map(|i| (i.start, i.offset, i.next, i.opcode, i.oparg))
        .collect();
    assert_eq!(
        decoded,
        [
            (0, 0, 1, Opcode::RESUME, 0),
            (1, 3, 4, Opcode::LOAD_CONST, 0x01_02_03),
            (4, 5, 6, Opcode::LOAD_CONST, 0xff00),
            (6, 6, 7, Opcode::LOAD_CONST, 7),
        ]
    );
    assert_eq!(bytecode.units, 7);
}

#[test]
fn caches_are_skipped() {
    let bytecode = decode(&[(Opcode::LOAD_GLOBAL, 0), (Opcode::NOP, 0)]);
    let caches = Opcode::LOAD_GLOBAL.caches() as u32;
    assert!(caches > 0);
    assert_eq!(bytecode.instructions[0].next, 1 + caches);
    assert_eq!(bytecode.instructions[1].start, 1 + caches);
    assert_eq!(bytecode.instructions.len(), 2);
}

#[test]
fn jumps_make_leaders() {
    // 0 RESUME; 1 JUMP_FORWARD to 4, a prefix; 2, 3 NOP; 4 LOAD_CONST with prefix; 6 JUMP_BACKWARD, with a cache, to 2.
    let bytecode = decode(&[
        (Opcode::RESUME, 0),
        (Opcode::JUMP_FORWARD, 2),
        (Opcode::NOP, 0),
        (Opcode::NOP, 0),
        (Opcode::EXTENDED_ARG, 1),
        (Opcode::LOAD_CONST, 0),
        (Opcode::JUMP_BACKWARD, 6),
    ]);
    assert_eq!(bytecode.instructions[1].jump_target(), 4);
    assert_eq!(bytecode.instructions[5].next, 8);
    assert_eq!(bytecode.instructions[5].jump_target(), 2);
    assert_eq!(leaders(&bytecode), [2, 4]);
    assert!(!bytecode.is_leader(1000));
}

#[test]
fn long_jumps_take_their_prefix_along() {
    let mut instructions = vec![(Opcode::EXTENDED_ARG, 1), (Opcode::JUMP_FORWARD, 4)];
    instructions.extend([(Opcode::NOP, 0); 0x105]);
    let bytecode = decode(&instructions);
    assert_eq!(bytecode.instructions[0].jump_target(), 2 + 0x104);
    assert_eq!(leaders(&bytecode), [2 + 0x104]);
}

#[test]
fn loops_end_behind_their_end() {
    // 0 FOR_ITER with a cache to 3, an END_FOR that is skipped; 2 NOP; 3 END_FOR; 4 POP_ITER.
    let bytecode = decode(&[
        (Opcode::FOR_ITER, 1),
        (Opcode::NOP, 0),
        (Opcode::END_FOR, 0),
        (Opcode::POP_ITER, 0),
    ]);
    assert_eq!(bytecode.instructions[0].jump_target(), 3);
    assert_eq!(leaders(&bytecode), [4]);
}

#[test]
fn cells_before_resume() {
    let first = |instructions: &[(Opcode, u8)]| decode(instructions).makes_cells_first;
    let (cell, resume) = ((Opcode::MAKE_CELL, 0), (Opcode::RESUME, 0));
    assert!(first(&[cell, resume]));
    assert!(first(&[(Opcode::COPY_FREE_VARS, 1), resume]));
    assert!(!first(&[resume]));
    assert!(!first(&[resume, cell]));
}

const NOPS: [u8; 200] = {
    let mut bytes = [0; 200];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = Opcode::NOP as u8;
        i += 2;
    }
    bytes
};

/// An entry of an exception table: six bits a byte, most significant first; the first byte of an entry has bit 7 set.
fn entry(fields: [u32; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        if field >= 64 {
            bytes.push(64 | (field >> 6) as u8);
        }
        bytes.push((field & 63) as u8);
    }
    bytes[0] |= 128;
    bytes
}

#[test]
fn exception_table() {
    // Start, length, target, depth and whether the instruction number is kept.
    let mut table = entry([1, 3, 5, 2 << 1]);
    table.extend(entry([10, 3, 5, 2 << 1]));
    table.extend(entry([70, 2, 75, 1 << 1 | 1]));
    let bytecode = Bytecode::from_bytes(&NOPS, &table).expect("valid bytecode");
    let handlers: Vec<_> = bytecode
        .handlers
        .iter()
        .map(|handler| (handler.target, handler.entry_depth))
        .collect();
    // The exception is pushed, behind the instruction number.
    assert_eq!(handlers, [(5, 3), (75, 3)]);
    assert_eq!(leaders(&bytecode), [5, 75]);
    assert!(bytecode.is_handler(5) && bytecode.is_handler(75) && !bytecode.is_handler(1));
}

#[test]
fn a_jump_target_is_no_handler() {
    let bytecode = decode(&[(Opcode::JUMP_FORWARD, 0), (Opcode::NOP, 0)]);
    assert!(bytecode.is_leader(1) && !bytecode.is_handler(1));
    assert!(bytecode.handlers.is_empty());
}

#[test]
fn bad_bytecode_is_refused() {
    let table = entry([1, 3, 5, 0]);
    let malformed = "exception table: the entry at byte 0 is malformed";
    assert_eq!(refused(&NOPS, &table[..3]), malformed);
    assert_eq!(refused(&NOPS, &[0x80 | 64]), malformed);
    assert_eq!(
        refused(&NOPS, &entry([1, 3, 101, 0])),
        "handler out of the code"
    );
    let jump = assemble(&[(Opcode::JUMP_FORWARD, 2)]);
    assert_eq!(refused(&jump, &[]), "jump out of the code");
    let backward = assemble(&[(Opcode::JUMP_BACKWARD, 9)]);
    assert_eq!(refused(&backward, &[]), "jump out of the code");
    let unknown = (0..=255).find(|number| Opcode::from_u8(*number).is_none());
    let unknown = unknown.expect("a free number");
    assert_eq!(
        refused(&[unknown, 0], &[]),
        format!("byte 0: no opcode has the number {unknown}")
    );
    assert_eq!(
        refused(&[Opcode::NOP as u8, 0, Opcode::EXTENDED_ARG as u8, 1], &[]),
        "byte 2: the code ends within the instruction"
    );
}

#[test]
fn lines() {
    let first = |kind: u8, units: u8| 0x80 | kind << 3 | (units - 1);
    let table = [
        // 0: no columns, line + 1.
        &[first(13, 1), 1 << 1][..],
        // 1, 2: one line form, the same line.
        &[first(10, 2), 0, 0],
        // 3: one line form, line + 1.
        &[first(11, 1), 0, 0],
        // 4: no location.
        &[first(15, 1)],
        // 5: the line of 3 once more, after a gap.
        &[first(10, 1), 0, 0],
        // 6: long form, line - 1.
        &[first(14, 1), 1 << 1 | 1, 0, 0, 0],
        // 7: short form, the same line.
        &[first(0, 1), 0],
        // 8: long form, line + 100 in two bytes, a column in two bytes.
        &[first(14, 1), 64 | (200 & 63), (200 >> 6), 0, 64 | 1, 2, 0],
        // 9: one line form, line + 2.
        &[first(12, 1), 0, 0],
    ]
    .concat();
    let python = Python::attach();
    let source = format!("codes = [assemble('RESUME 0', *9 * ['NOP'], lines=bytes({table:?}))]");
    let code = python.execute(&source).codes(c"codes")[0];
    // SAFETY: a live code object, and the GIL is held.
    let bytecode = unsafe { Bytecode::decode(code) }.expect("valid bytecode");
    let lines: Vec<u32> = (0..10)
        .filter(|&offset| bytecode.begins_line(offset))
        .collect();
    assert_eq!(lines, [0, 3, 5, 6, 8, 9]);
}

/// Live code is decoded as the compiler emitted it, whatever the interpreter has made of it since.
#[test]
fn live_code() {
    let python = Python::attach();
    let source = r#"
import sys, argparse
def warm(items, n):
    total = 0
    for i in range(n):
        for item in items:
            total += len(item) + i * 2
            if item == 'b':
                total -= 1.5
    return [x for x in items if total > 3]
for _ in range(100):
    warm(['a', 'b'], 20)
def observed(x):
    y = x + 1
    return y
sys.monitoring.use_tool_id(3, 'test')
sys.monitoring.set_local_events(3, observed.__code__, sys.monitoring.events.LINE | sys.monitoring.events.INSTRUCTION)
codes = [warm.__code__, observed.__code__, *functions_of('argparse')]
"#;
    let globals = python.execute(source);
    let shown = |bytecode: &Bytecode| {
        let all = bytecode.instructions.iter();
        let all = all.map(|i| (i.start, i.offset, i.next, i.opcode, i.oparg));
        (all.collect::<Vec<_>>(), leaders(bytecode))
    };
    let codes = globals.codes(c"codes");
    assert!(codes.len() > 100);
    for code in codes {
        // SAFETY: a live code object, and the GIL is held.
        let (live, copied) = unsafe {
            let table = refs::bytes_contents((*code).co_exceptiontable);
            let copied = Bytecode::from_bytes(&base_code(code), table);
            (Bytecode::decode(code), copied)
        };
        let (live, copied) = (live.expect("valid bytecode"), copied.expect("the same"));
        assert_eq!(shown(&live), shown(&copied));
    }
    python.execute("import sys; sys.monitoring.free_tool_id(3)");
}
