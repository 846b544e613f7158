use super::*;
use crate::bytecode::encode_instruction;

fn assemble(instructions: &[(Opcode, u32)]) -> Vec<u8> {
    let mut code = vec![];
    for &(opcode, oparg) in instructions {
        encode_instruction(&mut code, opcode, oparg);
    }
    code
}

/// Line 10 for everything unless a location table says otherwise.
fn tables<'a>(
    exception_table: &'a [u8],
    location_table: &'a [u8],
    stack_size: u32,
) -> BorrowedCode<'a> {
    BorrowedCode {
        exception_table,
        location_table,
        first_line: 10,
        stack_size,
        first_traceable: 0,
    }
}

fn analyse(instructions: &[(Opcode, u32)], stack_size: u32) -> Result<Analysis, AnalysisError> {
    Analysis::new(&assemble(instructions), &tables(&[], &[], stack_size))
}

/// A whole function: `for x in y: pass`.
const LOOP: &[(Opcode, u32)] = &[
    (Opcode::RESUME, 0),        // 0
    (Opcode::LOAD_FAST, 0),     // 1
    (Opcode::GET_ITER, 0),      // 2
    (Opcode::FOR_ITER, 3),      // 3, cache 4; ends at 8
    (Opcode::STORE_FAST, 1),    // 5
    (Opcode::JUMP_BACKWARD, 5), // 6, cache 7; to 3
    (Opcode::END_FOR, 0),       // 8
    (Opcode::POP_ITER, 0),      // 9
    (Opcode::LOAD_CONST, 0),    // 10
    (Opcode::RETURN_VALUE, 0),  // 11
];

#[test]
fn follows_a_loop() {
    let analysis = analyse(LOOP, 2).unwrap();
    let depths: Vec<Option<u32>> = analysis.iter().map(|(_, f)| f.depth).collect();
    assert_eq!(depths, [0, 0, 1, 1, 2, 1, 2, 1, 0, 1].map(Some));
    let starts = |pick: fn(&Facts) -> bool| -> Vec<u32> {
        analysis
            .iter()
            .filter(|(_, f)| pick(f))
            .map(|(i, _)| i.start.0)
            .collect()
    };
    assert_eq!(starts(|f| f.is_leader), [0, 3, 5, 8, 9]);
    assert_eq!(starts(|f| f.is_loop_header), [3]);
    assert_eq!(starts(|f| f.is_jump_target), [3, 8, 9]);
    assert_eq!(analysis.max_depth(), 2);
    assert_eq!(analysis.index_at(BytecodeOffset(4)), None);
    assert_eq!(analysis.index_at(BytecodeOffset(5)), Some(4));
}

#[test]
fn enters_handlers_at_their_depth() {
    let code = assemble(&[
        (Opcode::LOAD_CONST, 0),     // 0
        (Opcode::LOAD_CONST, 0),     // 1  covered: depth 1 kept, lasti pushed
        (Opcode::UNARY_NEGATIVE, 0), // 2  covered
        (Opcode::RETURN_VALUE, 0),   // 3
        (Opcode::RERAISE, 1),        // 4  handler
        (Opcode::NOP, 0),            // 5  never reached
    ]);
    let table = [0x81, 2, 4, 1 << 1 | 1];
    let analysis = Analysis::new(&code, &tables(&table, &[], 3)).unwrap();
    let handler = analysis.facts(4);
    assert!(handler.is_handler_entry && handler.is_leader && handler.depth == Some(3));
    assert!(!analysis.facts(5).is_reachable());
    assert_eq!(
        analysis
            .exceptions()
            .lookup(BytecodeOffset(2))
            .unwrap()
            .target,
        BytecodeOffset(4)
    );
    let too_deep = [0x80, 2, 4, 1 << 1];
    let error = Analysis::new(&code, &tables(&too_deep, &[], 3)).unwrap_err();
    assert_eq!(
        error,
        AnalysisError::HandlerTooDeep {
            at: BytecodeOffset(0),
            kept: 1,
            depth: 0
        }
    );
}

#[test]
fn marks_where_line_events_are_due() {
    let line = |delta: u8, units: u8| [128 | 13 << 3 | (units - 1), delta << 1];
    // RESUME and LOAD_FAST on line 10, the iterator on 11, the body on 12, the jump back on 11, the end on 13.
    let table = [line(0, 2), line(1, 3), line(1, 1)].concat();
    let table = [
        table.as_slice(),
        &[128 | 13 << 3 | 1, 1 << 1 | 1],
        &line(0, 2),
        &line(2, 2),
    ]
    .concat();
    let analysis = Analysis::new(&assemble(LOOP), &tables(&[], &table, 2)).unwrap();
    let rows: Vec<_> = analysis
        .iter()
        .map(|(i, f)| (i.opcode.name(), f.line.unwrap(), f.starts_line))
        .collect();
    assert_eq!(
        rows,
        [
            ("RESUME", 10, false),
            ("LOAD_FAST", 10, true),
            ("GET_ITER", 11, true),
            ("FOR_ITER", 11, true),
            ("STORE_FAST", 12, true),
            ("JUMP_BACKWARD", 11, true),
            ("END_FOR", 11, false),
            ("POP_ITER", 11, false),
            ("LOAD_CONST", 13, true),
            ("RETURN_VALUE", 13, false),
        ]
    );
}

#[test]
fn says_what_is_wrong() {
    let at = BytecodeOffset;
    assert_eq!(analyse(&[], 1).unwrap_err(), AnalysisError::NoEnd);
    assert_eq!(
        analyse(&[(Opcode::NOP, 0)], 1).unwrap_err(),
        AnalysisError::NoEnd
    );
    let underflow = AnalysisError::Underflow {
        at: at(0),
        opcode: Opcode::POP_TOP,
        popped: 1,
        depth: 0,
    };
    assert_eq!(
        analyse(&[(Opcode::POP_TOP, 0), (Opcode::RETURN_VALUE, 0)], 1).unwrap_err(),
        underflow
    );
    let overflow = AnalysisError::Overflow {
        at: at(0),
        depth: 1,
        stack_size: 0,
    };
    assert_eq!(
        analyse(&[(Opcode::LOAD_CONST, 0), (Opcode::RETURN_VALUE, 0)], 0).unwrap_err(),
        overflow
    );
    let into_cache = [(Opcode::JUMP_FORWARD, 1), (Opcode::TO_BOOL, 0)];
    assert_eq!(
        analyse(&into_cache, 1).unwrap_err(),
        AnalysisError::NotAnInstruction {
            at: at(0),
            target: at(2)
        }
    );
    let before = analyse(&[(Opcode::JUMP_BACKWARD, 9)], 1).unwrap_err();
    assert_eq!(
        before,
        AnalysisError::Decode(DecodeError::JumpOutside(at(0)))
    );
    let mismatch = [
        (Opcode::LOAD_CONST, 0),
        (Opcode::POP_JUMP_IF_TRUE, 1), // over the next
        (Opcode::LOAD_CONST, 0),
        (Opcode::RETURN_VALUE, 0),
    ];
    let error = analyse(&mismatch, 2).unwrap_err();
    assert!(
        matches!(
            error,
            AnalysisError::DepthMismatch {
                at: BytecodeOffset(4),
                ..
            }
        ),
        "{error}"
    );
}
