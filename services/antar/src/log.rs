//! Logs on stderr: text on a terminal, JSON otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogConfig, LogFormat};

/// Starts logging for this process. Stdout is left to what scripts read.
pub(crate) fn init(config: &LogConfig) {
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let registry = tracing_subscriber::registry().with(config.level.clone());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // An error means that somebody installed a subscriber before, which then stays.
    let _ = match json {
        true => registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init(),
        false => registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init(),
    };
}
