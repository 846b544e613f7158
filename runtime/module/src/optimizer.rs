//! The optimizer tier's switches: environment variables, read once when the tier starts.
//!
//! | variable | meaning |
//! |---|---|
//! | `HOTSTAMP_AUTO` (or `PYTHONJITAUTO`) | calls and loop iterations after which a function is hot |
//! | `HOTSTAMP_INLINE=0` | no inlining |
//! | `HOTSTAMP_FEEDBACK=0` | nothing of what the baseline has seen is used |
//! | `HOTSTAMP_OSR=0` | loops are not entered in the middle |
//! | `HOTSTAMP_VERIFY=1` | HIR and LLVM IR are verified |
//! | `HOTSTAMP_PASSES` | LLVM's passes, as `opt -passes=` names them |
//! | `HOTSTAMP_DUMP=hir,llvm,asm` | texts that are written to the folder `HOTSTAMP_DUMP_FOLDER` (default `hotstamp-dump`) |
//! | `HOTSTAMP_DUMP_FILTER` | only of functions whose `file:qualname` contains this |

use hotstamp_job::Options;
use hotstamp_runtime::optimize::policy::{self, Settings};

/// Calls and loop iterations after which a function is hot.
const THRESHOLD: u32 = 2000;

/// With everything compiled at its first call, calls before the optimizer: what the baseline sees in one call is used by the next.
const SYNCHRONOUS_THRESHOLD: u32 = 2;

fn switch(name: &str, default: bool) -> bool {
    match std::env::var(name) {
        Ok(text) if text == "0" => false,
        Ok(text) if text == "1" => true,
        _ => default,
    }
}

/// Starts the tier. `synchronous`: every function is compiled at once, where it is called.
pub(crate) fn start(synchronous: bool) {
    let threshold = ["HOTSTAMP_AUTO", "PYTHONJITAUTO"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find_map(|text| match text.parse::<u32>() {
            Ok(number) => Some(number),
            Err(_) => {
                tracing::warn!("HOTSTAMP_AUTO={text} is no number");
                None
            }
        })
        .unwrap_or(if synchronous {
            SYNCHRONOUS_THRESHOLD
        } else {
            THRESHOLD
        });
    let wanted = std::env::var("HOTSTAMP_DUMP").unwrap_or_default();
    let dumps = |kind: &str| wanted.split(',').any(|word| word.trim() == kind);
    let options = Options {
        inline: switch("HOTSTAMP_INLINE", true),
        feedback: switch("HOTSTAMP_FEEDBACK", true),
        traps: true,
        // Tests want everything compiled.
        least_gain: if synchronous { f64::NEG_INFINITY } else { 0.0 },
        verify: switch("HOTSTAMP_VERIFY", synchronous),
        dump_hir: dumps("hir"),
        dump_llvm: dumps("llvm"),
        dump_asm: dumps("asm"),
        pipeline: std::env::var("HOTSTAMP_PASSES").unwrap_or_default(),
    };
    let dump_folder = (!wanted.is_empty()).then(|| {
        std::env::var_os("HOTSTAMP_DUMP_FOLDER").map_or_else(|| "hotstamp-dump".into(), Into::into)
    });
    policy::start(
        Settings {
            synchronous,
            options,
            dump_folder,
            dump_filter: std::env::var("HOTSTAMP_DUMP_FILTER").ok(),
            on_stack_replacement: switch("HOTSTAMP_OSR", true),
        },
        threshold,
    );
}
