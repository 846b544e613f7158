//! `HOTSTAMP_LOG`: what hotstamp does, as log lines on standard error. The variable is a filter as `tracing-subscriber` reads it, for example `debug`.

use tracing_subscriber::EnvFilter;

/// Starts logging if the variable is set. Nothing is paid otherwise.
pub(crate) fn start() {
    let Ok(text) = std::env::var("HOTSTAMP_LOG") else {
        return;
    };
    let filter = match EnvFilter::try_new(&text) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("hotstamp: HOTSTAMP_LOG={text}: {error}; nothing is logged");
            return;
        }
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // Fails only if the module was imported before, when logging has started already.
    let _ = lines.without_time().try_init();
}
