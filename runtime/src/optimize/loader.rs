//! Loading the shared object with LLVM in it.
//!
//! It lies beside the extension; `HOTSTAMP_OPTIMIZER` names another one. It is loaded once, by the compiler thread, and never unloaded. A copy of it that was in the
//! middle of a compilation when the process forked is lost to the child, since the thread that held LLVM's locks is not there: the child loads another copy.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::fs::{MemfdFlags, memfd_create};
use thiserror::Error;

use super::boundary::{BOUNDARY_VERSION, ENTRY_SYMBOL, EntryFunction, FatalHandler, Optimizer};

/// File name of the shared object.
pub const FILE_NAME: &str = "libhotstamp_optimizer.so";

/// Names another file than the one beside the extension.
pub const VARIABLE: &str = "HOTSTAMP_OPTIMIZER";

/// Why there is no optimizer.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The dynamic loader says no.
    #[error("{path}: {error}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The dynamic loader's words.
        error: libloading::Error,
    },
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Built from other sources than this extension.
    #[error("{path} has version {found} of the boundary, and this extension {BOUNDARY_VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        found: u32,
    },
}

/// Held while the dynamic loader works: a process that forks then would have it broken in the child.
static LOADING: Mutex<()> = Mutex::new(());

/// For fork handlers: waits until nothing is being loaded, and keeps it so.
pub(super) fn no_loading() -> MutexGuard<'static, ()> {
    LOADING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the shared object is.
pub fn path() -> PathBuf {
    if let Some(chosen) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return chosen.into();
    }
    own_path()
        .as_deref()
        .and_then(Path::parent)
        .unwrap_or(Path::new(""))
        .join(FILE_NAME)
}

/// The file that this code was loaded from.
fn own_path() -> Option<PathBuf> {
    // SAFETY: plain data, which `dladdr` fills in.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let inside = path as *const ();
    // SAFETY: `inside` is an address of this library, `info` valid memory.
    let found = unsafe { libc::dladdr(inside.cast(), &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the dynamic loader keeps the name as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Loads the shared object and tells it whom to call when LLVM gives up. `another`: a copy of its own, whatever is loaded already.
pub fn load(
    path: &Path,
    another: bool,
    on_fatal: FatalHandler,
) -> Result<&'static Optimizer, LoadError> {
    let _guard = no_loading();
    let library = if another {
        open_copy(path)?
    } else {
        open(path, path)?
    };
    // SAFETY: a symbol of this name has this type; `BOUNDARY_VERSION` and the first field of `Optimizer` never change their place.
    let optimizer = unsafe {
        let entry = library
            .get::<EntryFunction>(ENTRY_SYMBOL.as_bytes())
            .map_err(|error| LoadError::Open {
                path: path.to_owned(),
                error,
            })?;
        &*entry()
    };
    // Its code is used from now on, and by the thread that may be in it when the process exits.
    std::mem::forget(library);
    if optimizer.version != BOUNDARY_VERSION {
        return Err(LoadError::Version {
            path: path.to_owned(),
            found: optimizer.version,
        });
    }
    // SAFETY: same version on both sides, first call.
    unsafe { (optimizer.on_fatal)(on_fatal) };
    Ok(optimizer)
}

/// `file` is what the dynamic loader opens, `path` what errors name.
fn open(file: &Path, path: &Path) -> Result<Library, LoadError> {
    // SAFETY: its initialisers are LLVM's and the C++ library's, which register things inside it and nothing else.
    unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| LoadError::Open {
        path: path.to_owned(),
        error,
    })
}

/// Loads a copy in memory: the dynamic loader knows a file that it has loaded by its inode, and gives the same library again.
fn open_copy(path: &Path) -> Result<Library, LoadError> {
    let unreadable = |error: io::Error| LoadError::Read {
        path: path.to_owned(),
        error,
    };
    let mut source = std::fs::File::open(path).map_err(unreadable)?;
    let flags = MemfdFlags::CLOEXEC;
    let copy = memfd_create(c"hotstamp-optimizer", flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create(c"hotstamp-optimizer", flags))
        .map_err(|error| unreadable(error.into()))?;
    let mut copy = std::fs::File::from(copy);
    io::copy(&mut source, &mut copy).map_err(unreadable)?;
    let name = format!("/proc/self/fd/{}", copy.as_raw_fd());
    open(Path::new(&name), path)
}
