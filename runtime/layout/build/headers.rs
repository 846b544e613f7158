//! Where the headers of the supported CPython releases are.
use std::{env, path::PathBuf};

/// The folder with the headers of the release that the bindings are generated from.
const PRIMARY: &str = "HOTSTAMP_PYTHON_INCLUDE";
/// Colon-separated folders with the headers of further patch releases this build must also run on.
const ALSO: &str = "HOTSTAMP_PYTHON_INCLUDE_ALSO";

/// The headers of one CPython release.
pub struct Headers {
    /// A folder that holds `python3.14` and, where the distribution splits it off, the architecture's folder.
    pub root: PathBuf,
}

impl Headers {
    fn open(root: PathBuf) -> Result<Self, String> {
        let marker = root.join("python3.14/internal/pycore_frame.h");
        if !marker.is_file() {
            return Err(format!(
                "{} is not there: {} must hold CPython 3.14's headers, the internal ones too",
                marker.display(),
                root.display()
            ));
        }
        Ok(Self { root })
    }

    /// What clang needs to find these headers and to see their internal part.
    pub fn clang_args(&self, target: &str) -> Vec<String> {
        let root = self.root.display();
        vec![
            format!("--target={target}"),
            "-DPy_BUILD_CORE_MODULE=1".into(),
            format!("-I{root}/python3.14"),
            format!("-I{root}/python3.14/internal"),
            format!("-I{root}"),
        ]
    }
}

/// The release the bindings are generated from.
pub fn primary() -> Result<Headers, String> {
    println!("cargo::rerun-if-env-changed={PRIMARY}");
    println!("cargo::rerun-if-env-changed={ALSO}");
    match env::var_os(PRIMARY) {
        Some(root) if !root.is_empty() => Headers::open(root.into()),
        _ => Err(format!(
            "{PRIMARY} is not set: it names a folder that holds the python3.14 headers of the target's CPython (ci/setup makes one)"
        )),
    }
}

/// The further releases this build must carry.
pub fn further() -> Result<Vec<Headers>, String> {
    let roots = env::var_os(ALSO).unwrap_or_default();
    env::split_paths(&roots)
        .filter(|root| !root.as_os_str().is_empty())
        .map(Headers::open)
        .collect()
}
