//! Turning hotstamp on and off, as the environment and the program ask.
//!
//! `HOTSTAMP=0` wins over everything. `HOTSTAMP_TIER` chooses the tiers, `HOTSTAMP_JITLIST` the functions that may be compiled. All are read once, when the extension is imported.

use std::ffi::c_int;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use hotstamp_runtime::hooks::{self, when};
use hotstamp_runtime::jitlist::{self, JitList};
use hotstamp_runtime::optimize::policy;
use hotstamp_runtime::stats;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use thiserror::Error;

/// Which tiers may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    /// Nothing is compiled.
    Interpreter,
    /// Functions are stamped at their first call and stay so.
    Baseline,
    /// Hot functions are optimized as soon as they are seen.
    Optimizer,
    /// Functions are stamped, hot ones optimized in the background.
    Auto,
}

impl Tier {
    const ALL: [(&'static str, Tier); 4] = [
        ("interpreter", Tier::Interpreter),
        ("baseline", Tier::Baseline),
        ("optimizer", Tier::Optimizer),
        ("auto", Tier::Auto),
    ];

    fn name(self) -> &'static str {
        Tier::ALL
            .iter()
            .find(|(_, tier)| *tier == self)
            .map_or("", |(name, _)| name)
    }
}

/// `HOTSTAMP_TIER` has a value that names no tier.
#[derive(Debug, Error)]
#[error("HOTSTAMP_TIER={0} is not a tier: it may be interpreter, baseline, optimizer or auto")]
struct UnknownTier(String);

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(text: &str) -> Result<Tier, UnknownTier> {
        Tier::ALL
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, tier)| *tier)
            .ok_or_else(|| UnknownTier(text.to_owned()))
    }
}

/// Why `enable` does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    SwitchedOff,
    InterpreterTier,
    UnknownTier(String),
    UnusableList(String),
    NotEnabled,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::SwitchedOff => f.write_str("HOTSTAMP=0 is set, which wins over everything"),
            Refusal::InterpreterTier => {
                f.write_str("HOTSTAMP_TIER=interpreter is set: nothing is compiled")
            }
            Refusal::UnknownTier(text) | Refusal::UnusableList(text) => f.write_str(text),
            Refusal::NotEnabled => {
                f.write_str("hotstamp.enable() was not called, and HOTSTAMP=1 is not set")
            }
        }
    }
}

/// What the environment asks for.
#[derive(Debug)]
struct Settings {
    tier: Tier,
    refusal: Option<Refusal>,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// From which call on code is stamped, if not when it was found hot: what `HOTSTAMP_STAMP` says, or the tier's own.
fn stamping_call(tier: Tier) -> Option<u32> {
    let default = (tier == Tier::Optimizer).then_some(1);
    let text = std::env::var("HOTSTAMP_STAMP").unwrap_or_default();
    if text.is_empty() {
        return default;
    }
    text.parse().map_or_else(
        |_| {
            tracing::warn!("HOTSTAMP_STAMP={text} is no number");
            default
        },
        Some,
    )
}

/// Reads the environment. An unknown tier and an unusable list are reported on standard error, and the program runs interpreted.
pub(crate) fn read_environment() {
    SETTINGS.get_or_init(|| {
        let switch = std::env::var_os("HOTSTAMP");
        let tier = match std::env::var("HOTSTAMP_TIER") {
            Ok(text) if !text.is_empty() => text.parse::<Tier>(),
            _ => Ok(Tier::Auto),
        };
        if std::env::var_os("HOTSTAMP_STATS").is_some_and(|value| value == "1") {
            // SAFETY: an initialised interpreter; the function is called once, at the very end.
            unsafe { hotstamp_layout::ffi::Py_AtExit(Some(print_stats)) };
        }
        if switch.is_some_and(|value| value == "0") {
            return Settings {
                tier: Tier::Interpreter,
                refusal: Some(Refusal::SwitchedOff),
            };
        }
        match tier {
            Ok(Tier::Interpreter) => Settings {
                tier: Tier::Interpreter,
                refusal: Some(Refusal::InterpreterTier),
            },
            Ok(tier) => match read_list() {
                Ok(()) => {
                    if let Some(call) = stamping_call(tier) {
                        when::count_from_first(call);
                    }
                    Settings {
                        tier,
                        refusal: None,
                    }
                }
                Err(error) => interpreted(Refusal::UnusableList(error)),
            },
            Err(error) => interpreted(Refusal::UnknownTier(error.to_string())),
        }
    });
}

/// The environment asks for what there is not: said on standard error.
fn interpreted(refusal: Refusal) -> Settings {
    eprintln!("hotstamp: {refusal}. The program runs interpreted.");
    Settings {
        tier: Tier::Interpreter,
        refusal: Some(refusal),
    }
}

/// The functions to compile, if the environment names a list.
fn read_list() -> Result<(), String> {
    let Some(path) = std::env::var_os("HOTSTAMP_JITLIST").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let path = Path::new(&path);
    let list = JitList::read(path)
        .map_err(|error| format!("HOTSTAMP_JITLIST={} {error}", path.display()))?;
    jitlist::set(list);
    Ok(())
}

unsafe extern "C" fn print_stats() {
    eprint!("{}", stats::report());
}

fn refusal() -> Option<&'static Refusal> {
    SETTINGS
        .get()
        .and_then(|settings| settings.refusal.as_ref())
}

/// Starts to compile: functions are stamped at their next call, those that exist already too.
///
/// Returns whether hotstamp is enabled afterwards. It is not if the environment forbids it (HOTSTAMP=0, HOTSTAMP_TIER=interpreter): `disabled_reason()` says why.
#[pyfunction]
pub(crate) fn enable(py: Python<'_>) -> PyResult<bool> {
    if refusal().is_some() {
        return Ok(false);
    }
    hotstamp_baseline::start().map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    let mut first = false;
    static OPTIMIZER: std::sync::Once = std::sync::Once::new();
    OPTIMIZER.call_once(|| {
        if let Some(tier @ (Tier::Optimizer | Tier::Auto)) =
            SETTINGS.get().map(|settings| settings.tier)
        {
            crate::optimizer::start(tier == Tier::Optimizer);
        }
        first = true;
    });
    if first {
        // Registered so early, it is called behind all others: nothing of the program runs any more, and nothing is taken down yet.
        py.import("atexit")?
            .call_method1("register", (wrap_pyfunction!(end, py)?,))?;
    }
    // SAFETY: the GIL is held, and the extension refuses to be imported outside the main interpreter.
    unsafe { hooks::enable() }.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok(true)
}

/// The program has ended: what optimized code keeps alive is given up.
#[pyfunction]
fn end() {
    hooks::end();
    // SAFETY: the GIL is held; threads that are still there never get it again.
    unsafe { policy::end() };
}

/// Stops compiling: all functions are interpreted again. What was compiled is kept for the next `enable()`.
#[pyfunction]
pub(crate) fn disable(_py: Python<'_>) {
    // SAFETY: as in `enable`.
    unsafe { hooks::disable() };
}

/// Whether functions are being compiled and run compiled. True also while tracing or monitoring suspends it.
#[pyfunction]
pub(crate) fn is_enabled() -> bool {
    hooks::enabled()
}

/// Why hotstamp is not enabled, or None if it is.
#[pyfunction]
pub(crate) fn disabled_reason() -> Option<String> {
    if hooks::enabled() {
        return None;
    }
    Some(refusal().unwrap_or(&Refusal::NotEnabled).to_string())
}

/// The tiers that may run: "interpreter", "baseline", "optimizer" or "auto".
#[pyfunction]
pub(crate) fn tier() -> &'static str {
    SETTINGS
        .get()
        .map_or(Tier::Interpreter, |settings| settings.tier)
        .name()
}

/// Whether CPython reports an error by this value.
pub(crate) fn failed(status: c_int) -> bool {
    status < 0
}
