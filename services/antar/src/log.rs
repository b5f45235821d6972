//! Logs on stderr: text on a terminal, JSON otherwise; and traces to a collector, in `otel`.

#[cfg(feature = "otel")]
mod otel;

use std::io::IsTerminal as _;

use antar_realm::SPANS;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogConfig, LogFormat};
use crate::exit::Outcome;

/// The client of NATS tells at lower levels what goes over the wire: tokens' hashes, people's words.
const TALKATIVE: &str = "async_nats";

/// What it says of failed attempts to connect is said by whoever wanted the connection.
const CONNECTOR: &str = "async_nats::connector";

/// What runs beside the log.
pub(crate) struct Logging {
    #[cfg(feature = "otel")]
    traces: Option<otel::Traces>,
}

impl Logging {
    /// Sends what waits to be exported, for a moment at the most.
    #[cfg_attr(not(feature = "otel"), expect(clippy::unused_async, reason = "nothing is exported then"))]
    pub(crate) async fn end(self) {
        #[cfg(feature = "otel")]
        if let Some(traces) = self.traces {
            traces.end().await;
        }
    }
}

/// Starts logging for this process. Stdout is left to what scripts read.
pub(crate) fn init(config: &LogConfig) -> Outcome<Logging> {
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // The log and the traces each have a filter of their own: a span of one is nothing to the other.
    #[cfg(feature = "otel")]
    let (layer, traces) = match &config.traces {
        Some(endpoint) => otel::start(endpoint).map(|(layer, traces)| (Some(layer), Some(traces)))?,
        None => (None, None),
    };
    #[cfg(not(feature = "otel"))]
    let layer = None::<tracing_subscriber::layer::Identity>;
    let registry = tracing_subscriber::registry().with(layer);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let levels = discreet(&config.level);
    // An error means that somebody installed a subscriber before, which then stays.
    let _ = match json {
        true => registry
            .with(layer.json().flatten_event(true).with_span_list(false).with_filter(levels))
            .try_init(),
        false => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(levels)).try_init()
        }
    };
    Ok(Logging {
        #[cfg(feature = "otel")]
        traces,
    })
}

/// The same levels, but at most `info` of what would tell the text of messages, and no spans that are for a collector.
fn discreet(levels: &Targets) -> Targets {
    let default = levels.default_level().unwrap_or(LevelFilter::OFF);
    let own = levels.iter().filter(|(target, _)| !target.starts_with(TALKATIVE));
    let levels = own.collect::<Targets>().with_default(default);
    levels
        .with_target(TALKATIVE, default.min(LevelFilter::INFO))
        .with_target(CONNECTOR, LevelFilter::OFF)
        .with_target(SPANS, LevelFilter::OFF)
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
        assert!(!levels.would_enable(SPANS, &Level::ERROR), "spans are for a collector");
        assert!(!discreet(&"warn".parse().unwrap()).would_enable("async_nats", &Level::INFO));
    }
}
