//! Names for the addresses in assembled code, which differ from run to run: constants, small integers, C and Rust functions.

use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::offset_of;
use std::sync::OnceLock;

use hotstamp_layout::ffi::{self, PyCodeObject};
use hotstamp_layout::refs;
use object::{Object, ObjectSymbol};

use crate::interpreter::Globals;

/// Addresses begin here that stand for the real ones in assembled code. No 16-bit part of them is zero, as in most real ones.
const FIRST: u64 = 0x7a5a_1000_0010;

/// See the module.
#[derive(Default)]
pub struct Symbols {
    constants: HashMap<u64, String>,
    /// What stands for what, in order of use.
    stand_ins: Vec<(u64, String)>,
}

impl Symbols {
    /// Knows the constants of a code object.
    pub fn of_code(globals: &Globals, code: *mut PyCodeObject) -> Symbols {
        let names = globals.strings(c"constants", code.cast());
        let constants = names.into_iter().enumerate().map(|(i, name)| {
            // SAFETY: `constants` gives one name for each item of `co_consts`.
            let constant = unsafe { refs::tuple_item((*code).co_consts, i) };
            (constant as u64, name)
        });
        Symbols {
            constants: constants.collect(),
            stand_ins: Vec::new(),
        }
    }

    /// What takes the place of a value in assembled code: the value itself unless it is an address. Bit 0, a borrowed reference, is kept.
    pub fn stand_in(&mut self, value: u64) -> u64 {
        if value >> 32 == 0 || value >> 47 != 0 {
            return value;
        }
        let (address, borrowed) = (value & !1, value & 1);
        let index = match self.stand_ins.iter().position(|(of, _)| *of == address) {
            Some(index) => index,
            None => {
                let name = self.name(address);
                self.stand_ins.push((address, name));
                self.stand_ins.len() - 1
            }
        };
        (FIRST + 16 * index as u64) | borrowed
    }

    /// How listings show a value, if it is a stand-in.
    pub fn show(&self, value: u64) -> Option<String> {
        let index = (value & !1).checked_sub(FIRST)? / 16;
        let (_, name) = self.stand_ins.get(index as usize)?;
        let borrowed = if value & 1 != 0 { " borrowed" } else { "" };
        Some(format!("{{{name}{borrowed}}}"))
    }

    /// Replaces the stand-ins in an instruction's text.
    pub fn replace(&self, text: &str) -> String {
        let Some(start) = text.find("0x7a5a") else {
            return text.to_owned();
        };
        let digits = &text[start + 2..];
        let end = digits
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(digits.len());
        let shown = u64::from_str_radix(&digits[..end], 16)
            .ok()
            .and_then(|value| self.show(value));
        let name = shown.expect("a stand-in");
        format!("{}{name}{}", &text[..start], &digits[end..])
    }

    fn name(&self, address: u64) -> String {
        if let Some(name) = self.constants.get(&address) {
            return name.clone();
        }
        let small_ints = refs::small_ints() as u64;
        let count = u64::from(ffi::_PY_NSMALLNEGINTS + ffi::_PY_NSMALLPOSINTS);
        let size = size_of::<ffi::PyLongObject>() as u64;
        if (small_ints..small_ints + count * size).contains(&address) {
            let index = (address - small_ints) / size;
            return (index as i64 - i64::from(ffi::_PY_NSMALLNEGINTS)).to_string();
        }
        // Where they are in the interpreter's state differs between architectures, their own layout does not.
        if let Some(offset) = address.checked_sub(freelists())
            && offset < size_of::<ffi::_Py_freelists>() as u64
        {
            return format!("freelists+{offset:#x}");
        }
        if address == hotstamp_runtime::entry::evaluator_cell() as u64 {
            return "eval_frame of the interpreter".to_owned();
        }
        function(address).unwrap_or_else(|| {
            panic!("{address:#x} has no name: the listing would differ from run to run")
        })
    }
}

/// The free lists of the main interpreter.
fn freelists() -> u64 {
    // SAFETY: the interpreter was started.
    let interpreter = unsafe { ffi::PyInterpreterState_Main() } as usize;
    let state = offset_of!(ffi::PyInterpreterState, object_state);
    (interpreter + state + offset_of!(ffi::_py_object_state, freelists)) as u64
}

/// The name of a function or variable of the process that begins at an address.
pub fn function(address: u64) -> Option<String> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: `dladdr` takes any address, and fills the structure if it gives non-zero.
    if unsafe { libc::dladdr(address as *const _, &mut info) } == 0 {
        return None;
    }
    if !info.dli_sname.is_null() {
        // SAFETY: a string of the dynamic linker.
        let name = unsafe { CStr::from_ptr(info.dli_sname) }.to_str().ok()?;
        if info.dli_saddr as u64 == address {
            return Some(name.to_owned());
        }
    }
    let offset = address - info.dli_fbase as u64;
    // Equal functions may be one: take the name that is first in the alphabet.
    let names = own_functions().get(&offset)?.iter();
    let names = names.map(|name| format!("{:#}", rustc_demangle::demangle(name)));
    let name = names.min()?;
    let short = name.strip_prefix("hotstamp_runtime::");
    Some(short.unwrap_or(&name).to_owned())
}

/// The symbols of the test binary, by their offset from its beginning: Rust functions are in no dynamic table.
fn own_functions() -> &'static HashMap<u64, Vec<String>> {
    static FUNCTIONS: OnceLock<HashMap<u64, Vec<String>>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let binary = std::fs::read("/proc/self/exe").expect("the binary can be read");
        let file = object::File::parse(&*binary).expect("an ELF file");
        let mut functions: HashMap<u64, Vec<String>> = HashMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.is_definition()) {
            if let Ok(name) = symbol.name() {
                let names = functions.entry(symbol.address()).or_default();
                names.push(name.to_owned());
            }
        }
        functions
    })
}
