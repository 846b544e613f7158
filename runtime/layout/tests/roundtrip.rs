//! The decoder and the analysis against `dis` and against the interpreter's own instrumentation, over the whole standard
//! library, in an embedded interpreter. The comparison itself is `roundtrip.py`.

use std::ffi::CString;
use std::ptr::null_mut;

use hotstamp_layout::bytecode::{BorrowedCode, base_code, debug_dump};
use hotstamp_layout::ffi::{self, PyObject};
use hotstamp_layout::refs::is_code;
use hotstamp_layout::release;

/// A `bytes` object with these numbers in native order, four bytes each.
fn numbers(values: &[i64]) -> *mut PyObject {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|v| i32::try_from(*v).expect("fits an int").to_ne_bytes())
        .collect();
    // SAFETY: the GIL is held; Python copies the bytes.
    unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as isize) }
}

fn value_error(message: String) -> *mut PyObject {
    let message = CString::new(message).expect("messages have no NUL");
    // SAFETY: the GIL is held and the string outlives the call.
    unsafe { ffi::PyErr_SetString(ffi::PyExc_ValueError, message.as_ptr()) };
    null_mut()
}

/// `rows(code)`: what `debug_dump` gives, 14 numbers a row, -1 for what is absent.
unsafe extern "C" fn rows(_module: *mut PyObject, code: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by Python with a live object and the GIL held.
    let rows = unsafe {
        assert!(is_code(code));
        debug_dump(code.cast())
    };
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return value_error(error.to_string()),
    };
    let mut out = vec![];
    for row in rows {
        let handler = row.handler.map_or([-1, -1], |h| {
            [i64::from(h.target.in_bytes()), i64::from(h.handler_depth())]
        });
        out.extend([
            i64::from(row.start_offset),
            i64::from(row.offset),
            i64::from(row.opcode),
            i64::from(row.oparg),
            i64::from(row.next_offset),
            row.jump_target.map_or(-1, i64::from),
            row.line.map_or(-1, i64::from),
            i64::from(row.starts_line),
            row.depth.map_or(-1, i64::from),
            i64::from(
                row.stack_effect
                    .expect("every emitted opcode has an effect"),
            ),
            i64::from(row.is_leader),
            i64::from(row.is_handler_entry),
        ]);
        out.extend(handler);
    }
    numbers(&out)
}

/// `exceptions(code)`: five numbers an entry.
unsafe extern "C" fn exceptions(_module: *mut PyObject, code: *mut PyObject) -> *mut PyObject {
    // SAFETY: as in `rows`.
    let table = unsafe { BorrowedCode::new(code.cast()) }.exceptions();
    match table {
        Ok(table) => {
            let entry = |e: &hotstamp_layout::bytecode::ExceptionEntry| {
                [
                    e.start.in_bytes(),
                    e.end.in_bytes(),
                    e.target.in_bytes(),
                    e.depth,
                    u32::from(e.lasti),
                ]
                .map(i64::from)
            };
            numbers(&table.entries().iter().flat_map(entry).collect::<Vec<_>>())
        }
        Err(error) => value_error(error.to_string()),
    }
}

/// `positions(code)`: for each code unit its line, end line, column and end column, -1 for what is absent.
unsafe extern "C" fn positions(_module: *mut PyObject, code: *mut PyObject) -> *mut PyObject {
    // SAFETY: as in `rows`.
    let locations = unsafe { BorrowedCode::new(code.cast()) }.locations();
    let mut out = vec![];
    for location in locations {
        let l = match location {
            Ok(location) => location,
            Err(error) => return value_error(error.to_string()),
        };
        for _ in l.start.0..l.end.0 {
            out.extend([
                l.line.map_or(-1, i64::from),
                l.end_line.map_or(-1, i64::from),
            ]);
            out.extend([
                l.column.map_or(-1, i64::from),
                l.end_column.map_or(-1, i64::from),
            ]);
        }
    }
    numbers(&out)
}

/// `base(code)`: the bytecode in its base form, read from the live code object.
unsafe extern "C" fn base(_module: *mut PyObject, code: *mut PyObject) -> *mut PyObject {
    // SAFETY: as in `rows`.
    let code = unsafe { base_code(code.cast()) };
    // SAFETY: the GIL is held; Python copies the bytes.
    unsafe { ffi::PyBytes_FromStringAndSize(code.as_ptr().cast(), code.len() as isize) }
}

/// `effects()`: for each base opcode its number, caches, and stack effect with the arguments 0 to 9 (-1000: none).
unsafe extern "C" fn effects(_module: *mut PyObject, _none: *mut PyObject) -> *mut PyObject {
    let mut out = vec![];
    for opcode in hotstamp_layout::opcode::Opcode::all().filter(|o| o.is_base()) {
        out.extend([opcode as i64, opcode.caches() as i64]);
        out.extend((0..10).map(|oparg| opcode.stack_effect(oparg).map_or(-1000, i64::from)));
    }
    numbers(&out)
}

/// Whether another processor's code is being emulated, which is many times slower: the machine's own programs are then not
/// for the processor that this one is for.
fn is_emulated() -> bool {
    let machine = |path: &str| std::fs::read(path).ok()?.get(18..20).map(<[u8]>::to_vec);
    let own = std::env::current_exe()
        .ok()
        .and_then(|path| machine(path.to_str()?));
    machine("/bin/sh").is_some_and(|shell| Some(shell) != own)
}

type Method = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;

#[test]
fn agrees_with_dis_and_instrumentation() {
    let functions: [(&str, Method, u32); 5] = [
        ("rows", rows, ffi::METH_O),
        ("exceptions", exceptions, ffi::METH_O),
        ("positions", positions, ffi::METH_O),
        ("base", base, ffi::METH_O),
        ("effects", effects, ffi::METH_NOARGS),
    ];
    // SAFETY: the only test of this program, so the only interpreter; every pointer handed over is leaked or copied.
    unsafe {
        // The JIT that some builds have puts ENTER_EXECUTOR into hot code, which has to be undone too.
        std::env::set_var("PYTHON_JIT", "1");
        if is_emulated() && std::env::var_os("HOTSTAMP_ROUNDTRIP_STEP").is_none() {
            std::env::set_var("HOTSTAMP_ROUNDTRIP_STEP", "200");
        }
        ffi::Py_InitializeEx(0);
        release::check_running().expect("the interpreter under test is one the build carries");
        let globals = ffi::PyModule_GetDict(ffi::PyImport_AddModule(c"__main__".as_ptr()));
        for (name, method, flags) in functions {
            let name = CString::new(name).unwrap().into_raw();
            let def = ffi::PyMethodDef {
                ml_name: name,
                ml_meth: Some(method),
                ml_flags: flags as i32,
                ml_doc: null_mut(),
            };
            let function =
                ffi::PyCMethod_New(Box::leak(Box::new(def)), null_mut(), null_mut(), null_mut());
            assert_eq!(ffi::PyDict_SetItemString(globals, name, function), 0);
        }
        let source = CString::new(include_str!("roundtrip.py")).unwrap();
        let code = ffi::Py_CompileString(
            source.as_ptr(),
            c"roundtrip.py".as_ptr(),
            ffi::Py_file_input as i32,
        );
        let result = if code.is_null() {
            null_mut()
        } else {
            ffi::PyEval_EvalCode(code, globals, globals)
        };
        if result.is_null() {
            ffi::PyErr_Print();
            panic!("roundtrip.py failed");
        }
        assert_eq!(ffi::Py_FinalizeEx(), 0);
    }
}
