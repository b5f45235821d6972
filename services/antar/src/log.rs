//! Logs on stderr: text on a terminal, JSON otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogConfig, LogFormat};

/// The client of NATS tells at lower levels what goes over the wire: tokens' hashes, people's words.
const TALKATIVE: &str = "async_nats";

/// What it says of failed attempts to connect is said by whoever wanted the connection.
const CONNECTOR: &str = "async_nats::connector";

/// Starts logging for this process. Stdout is left to what scripts read.
pub(crate) fn init(config: &LogConfig) {
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let registry = tracing_subscriber::registry().with(discreet(&config.level));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // An error means that somebody installed a subscriber before, which then stays.
    let _ = match json {
        true => registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init(),
        false => registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init(),
    };
}

/// The same levels, but at most `info` of what would tell the text of messages.
fn discreet(levels: &Targets) -> Targets {
    let default = levels.default_level().unwrap_or(LevelFilter::OFF);
    let own = levels.iter().filter(|(target, _)| !target.starts_with(TALKATIVE));
    let levels = own.collect::<Targets>().with_default(default);
    levels.with_target(TALKATIVE, default.min(LevelFilter::INFO)).with_target(CONNECTOR, LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn what_goes_over_the_wire_is_logged_at_no_level() {
        for levels in
            ["trace", "async_nats=trace", "info,async_nats::connection=trace", "debug,async_nats=debug"]
        {
            let levels = discreet(&levels.parse().unwrap());
            assert!(!levels.would_enable("async_nats::connection", &Level::DEBUG), "{levels}");
        }
        let levels = discreet(&"debug,antar_edge=trace".parse().unwrap());
        assert!(
            levels.would_enable("antar_edge", &Level::TRACE) && levels.would_enable("antar", &Level::DEBUG)
        );
        assert!(levels.would_enable("async_nats", &Level::INFO));
        assert!(!discreet(&"warn".parse().unwrap()).would_enable("async_nats", &Level::INFO));
    }
}
