//! The list of functions to compile (`HOTSTAMP_JITLIST`): what it does not name stays interpreted, in both tiers.
//!
//! A line is `module:qualname`; `#` begins a comment, blank lines count for nothing. The module is the `__name__` of the globals that a function runs with, so the
//! program itself is `__main__`; the bodies of modules and classes have qualified names too (`json:<module>`, `json.decoder:JSONDecoder`).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use hotstamp_layout::ffi::{self, PyCodeObject, PyObject};
use hotstamp_layout::refs;

use crate::naming;

/// The functions to compile: qualified names, and the modules that they are listed with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JitList(HashMap<String, HashSet<String>>);

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JitListError {
    /// There is no such file, or it is no text.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// A line names no function.
    #[error("line {number} is not module:qualname: {text}")]
    BadLine {
        /// Counted from 1.
        number: usize,
        /// The line, without its comment.
        text: String,
    },
}

impl FromStr for JitList {
    type Err = JitListError;

    fn from_str(text: &str) -> Result<JitList, JitListError> {
        let mut list = JitList::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let parts = line.split_once(':').filter(|(module, name)| {
                [module, name].iter().all(|part| {
                    !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c == ':')
                })
            });
            let Some((module, name)) = parts else {
                return Err(JitListError::BadLine {
                    number: index + 1,
                    text: line.to_owned(),
                });
            };
            list.0
                .entry(name.to_owned())
                .or_default()
                .insert(module.to_owned());
        }
        Ok(list)
    }
}

impl JitList {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<JitList, JitListError> {
        std::fs::read_to_string(path)?.parse()
    }

    fn choice(&self, module: &str, name: &str) -> Choice {
        match self.0.get(name) {
            None => Choice::Never,
            Some(modules) if modules.contains(module) => Choice::Compile,
            Some(_) => Choice::NotHere,
        }
    }
}

/// What the list says of a code object and its globals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It may be compiled.
    Compile,
    /// Not with these globals: another module lists the name.
    NotHere,
    /// With no globals at all.
    Never,
}

static LIST: OnceLock<JitList> = OnceLock::new();

/// From here on only these functions are compiled. Once, before anything is.
pub fn set(list: JitList) {
    let _ = LIST.set(list);
}

/// Whether a code object may be compiled for these globals. Without a list all may.
///
/// # Safety
/// Valid objects of their kinds; GIL held, no exception set.
pub unsafe fn choose(code: *mut PyCodeObject, globals: *mut PyObject) -> Choice {
    let Some(list) = LIST.get() else {
        return Choice::Compile;
    };
    // SAFETY: see above. What looking the name up may raise is cleared; the name is borrowed from the globals only as long as its text is copied.
    unsafe {
        let module = ffi::PyDict_GetItemString(globals, c"__name__".as_ptr());
        let module = if module.is_null() || !refs::is_unicode(module) {
            String::new()
        } else {
            naming::text(module)
        };
        list.choice(&module, &naming::text((*code).co_qualname))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<JitList>().unwrap_err().to_string()
    }

    #[test]
    fn names_by_module() {
        let list: JitList =
            "# what is hot\n\n__main__:f  # mine\n a.b:C.m.<locals>.<lambda>\na:f\n"
                .parse()
                .unwrap();
        assert_eq!(list.choice("__main__", "f"), Choice::Compile);
        assert_eq!(list.choice("a", "f"), Choice::Compile);
        assert_eq!(list.choice("b", "f"), Choice::NotHere);
        assert_eq!(list.choice("a.b", "C.m.<locals>.<lambda>"), Choice::Compile);
        assert_eq!(list.choice("__main__", "g"), Choice::Never);
    }

    #[test]
    fn an_empty_list_has_nothing() {
        let list: JitList = "# nothing\n".parse().unwrap();
        assert_eq!(list.choice("a", "f"), Choice::Never);
    }

    #[test]
    fn lines_that_name_nothing() {
        assert_eq!(error("a:f\nf\n"), "line 2 is not module:qualname: f");
        assert_eq!(error(":f # x"), "line 1 is not module:qualname: :f");
        for line in ["a:", "a:b:c", "a: f", "a:f g", "a b:f"] {
            assert_eq!(
                error(line),
                format!("line 1 is not module:qualname: {line}")
            );
        }
    }
}
