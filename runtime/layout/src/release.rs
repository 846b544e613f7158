//! Which CPython releases this build can run on, and whether the running one is such a release.
//!
//! Structures move between patch releases without notice. A build carries the releases whose headers it was compared
//! with; on top of that the running interpreter's own table of sizes and offsets (made for debuggers) must agree with
//! the headers, which catches interpreters that were configured differently.

use core::mem::{offset_of, size_of};

use crate::ffi;

include!(concat!(env!("OUT_DIR"), "/releases.rs"));

/// Why compiled code must not touch the running interpreter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The release is not among those the build carries.
    #[error(
        "this is CPython {found}, but this build of hotstamp knows the structures of CPython {carried} only"
    )]
    NotCarried {
        /// The running release.
        found: String,
        /// The releases that would do.
        carried: String,
    },
    /// The interpreter has no GIL.
    #[error(
        "this is a free-threaded build of CPython {0}: hotstamp supports the default build, with the GIL"
    )]
    FreeThreaded(String),
    /// The interpreter's structures are not those of the headers.
    #[error(
        "this CPython {release} was built differently from the one hotstamp was made for: {what} is {found}, not {expected}"
    )]
    Differs {
        /// The running release.
        release: String,
        /// Which size or offset.
        what: &'static str,
        /// What the interpreter says.
        found: u64,
        /// What the headers say.
        expected: u64,
    },
}

/// `PY_VERSION_HEX` as people write it.
pub fn version_text(hex: u32) -> String {
    let [major, minor, micro, level] = hex.to_be_bytes();
    match level >> 4 {
        0xf => format!("{major}.{minor}.{micro}"),
        0xc => format!("{major}.{minor}.{micro}rc{}", level & 15),
        other => format!("{major}.{minor}.{micro}{other:x}{}", level & 15),
    }
}

/// The releases this build carries, as people write them.
pub fn carried_text() -> String {
    let texts: Vec<String> = CARRIED_RELEASES
        .iter()
        .map(|hex| version_text(*hex))
        .collect();
    match texts.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// Checks that the interpreter this runs in is one the build carries.
///
/// # Safety
/// Runs in a process with a CPython 3.14, whatever its patch release and build.
pub unsafe fn check_running() -> Result<(), ReleaseError> {
    // SAFETY: `Py_Version` is a constant of the stable interface, and the table of offsets is the first thing in
    // `_PyRuntime` in every build of 3.14; its own layout belongs to the minor version.
    let (version, offsets) = unsafe {
        (
            ffi::Py_Version as u32,
            &raw const ffi::_PyRuntime.debug_offsets,
        )
    };
    // SAFETY: as above; the table is never written.
    check(version, unsafe { &*offsets })
}

/// The check itself, on given facts.
pub fn check(version: u32, offsets: &ffi::_Py_DebugOffsets) -> Result<(), ReleaseError> {
    let release = version_text(version);
    if offsets.free_threaded != 0 {
        return Err(ReleaseError::FreeThreaded(release));
    }
    if !CARRIED_RELEASES.contains(&version) {
        return Err(ReleaseError::NotCarried {
            found: release,
            carried: carried_text(),
        });
    }
    for (what, found, expected) in facts(offsets) {
        if found != expected as u64 {
            return Err(ReleaseError::Differs {
                release,
                what,
                found,
                expected: expected as u64,
            });
        }
    }
    Ok(())
}

/// Everything the interpreter's table says that compiled code rests on, beside what the headers say.
fn facts(o: &ffi::_Py_DebugOffsets) -> impl Iterator<Item = (&'static str, u64, usize)> {
    macro_rules! sizes {
        ($($group:ident: $type:ident { $($field:ident = $($path:ident).+),* };)*) => {
            [$(
                (concat!("the size of ", stringify!($type)), o.$group.size, size_of::<ffi::$type>()),
                $((concat!("the offset of ", stringify!($type), " ", stringify!($field)), o.$group.$field, offset_of!(ffi::$type, $($path).+)),)*
            )*]
        };
    }
    sizes! {
        runtime_state: _PyRuntimeState { interpreters_head = interpreters.head };
        interpreter_state: PyInterpreterState { gc = gc, builtins = builtins, ceval_gil = ceval.gil };
        thread_state: PyThreadState {
            interp = interp, current_frame = current_frame, datastack_chunk = datastack_chunk, status = _status
        };
        interpreter_frame: _PyInterpreterFrame {
            previous = previous, executable = f_executable, instr_ptr = instr_ptr, localsplus = localsplus, owner = owner,
            stackpointer = stackpointer
        };
        code_object: PyCodeObject {
            filename = co_filename, linetable = co_linetable, localsplusnames = co_localsplusnames,
            co_code_adaptive = co_code_adaptive
        };
        pyobject: PyObject { ob_type = ob_type };
        type_object: PyTypeObject { tp_flags = tp_flags };
        tuple_object: PyTupleObject { ob_item = ob_item };
        list_object: PyListObject { ob_item = ob_item };
        dict_object: PyDictObject { ma_keys = ma_keys, ma_values = ma_values };
        float_object: PyFloatObject { ob_fval = ob_fval };
        long_object: PyLongObject { lv_tag = long_value.lv_tag, ob_digit = long_value.ob_digit };
        unicode_object: PyUnicodeObject {};
        gen_object: PyGenObject { gi_iframe = gi_iframe, gi_frame_state = gi_frame_state };
    }
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_releases() {
        assert_eq!(version_text(0x030e_08f0), "3.14.8");
        assert_eq!(version_text(0x030e_00c2), "3.14.0rc2");
        assert!(CARRIED_RELEASES.contains(&ffi::PY_VERSION_HEX));
        assert!(carried_text().starts_with(&version_text(ffi::PY_VERSION_HEX)));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        // SAFETY: the table is plain numbers.
        let mut offsets: ffi::_Py_DebugOffsets = unsafe { core::mem::zeroed() };
        let unknown = check(0x030e_63f0, &offsets).unwrap_err();
        assert!(
            unknown
                .to_string()
                .starts_with("this is CPython 3.14.99, but this build of hotstamp knows"),
            "{unknown}"
        );
        let differs = check(ffi::PY_VERSION_HEX, &offsets).unwrap_err();
        assert!(
            matches!(
                differs,
                ReleaseError::Differs {
                    what: "the size of _PyRuntimeState",
                    found: 0,
                    ..
                }
            ),
            "{differs}"
        );
        offsets.free_threaded = 1;
        assert!(matches!(
            check(ffi::PY_VERSION_HEX, &offsets),
            Err(ReleaseError::FreeThreaded(_))
        ));
    }
}
