//! Reading the headers takes many seconds; what comes out depends only on them, on the target and on this build script. So it is kept under the user's
//! cache folder, by a hash of all three.
use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
};

use crate::headers::Headers;

/// The generated files, all or none of which are in a cache entry.
pub const FILES: [&str; 3] = ["ffi.rs", "opcode.rs", "releases.rs"];

/// Where the result for these inputs is kept, if there is a cache folder.
pub fn entry(target: &str, headers: &[&Headers]) -> Option<PathBuf> {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    hash_folder(Path::new("build"), &mut hasher)?;
    for headers in headers {
        hash_folder(&headers.root, &mut hasher)?;
    }
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => PathBuf::from(env::var_os("HOME")?).join(".cache"),
    };
    Some(
        cache
            .join("hotstamp/bindings")
            .join(format!("{:016x}", hasher.finish())),
    )
}

/// Copies a cache entry to `out`; false if it is not there.
pub fn restore(entry: &Path, out: &Path) -> bool {
    FILES
        .iter()
        .all(|name| fs::copy(entry.join(name), out.join(name)).is_ok())
}

/// Keeps what is in `out`. Another build may do the same at this moment, so the entry appears at once or not at all; failing only costs time later.
pub fn keep(entry: &Path, out: &Path) {
    let temporary = entry.with_extension(std::process::id().to_string());
    let copied = fs::create_dir_all(&temporary).is_ok()
        && FILES
            .iter()
            .all(|name| fs::copy(out.join(name), temporary.join(name)).is_ok());
    if !copied || fs::rename(&temporary, entry).is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
}

/// Hashes names and contents of all files below a folder, links followed.
fn hash_folder(folder: &Path, hasher: &mut DefaultHasher) -> Option<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    for path in entries {
        path.file_name().hash(hasher);
        if path.is_dir() {
            hash_folder(&path, hasher)?;
        } else {
            fs::read(&path).ok()?.hash(hasher);
        }
    }
    Some(())
}
