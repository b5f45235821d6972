//! What an edge counts of its connections. `proto-docs/metrics.md` has the names.
//!
//! Owns: the counters. On the way of a send they are single additions to atomics, without a lock or a look-up. Must not know: how they
//! are shown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antar_proto::ErrorCode;
use antar_proto::command::{COMMANDS, Verb};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Upper ends of the intervals in which times of sends are counted: what a commit on a fast disk takes, up to the time after which a
/// send is answered `unavailable`.
const SEND_SECONDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The code of what was answered OK.
const OK: &str = "ok";
/// The command of a line that is none.
const NO_COMMAND: &str = "none";

/// Examples of what was counted; there are none.
type Examples = HashMap<usize, Exemplar<[(&'static str, &'static str); 0], f64>>;
type Coded = Family<[(&'static str, &'static str); 2], Counter>;

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Connections that were accepted.
    pub(crate) connections: Counter,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    commands: Coded,
    sent: Counter,
    failed: Family<[(&'static str, &'static str); 1], Counter>,
    send_time: std::sync::Arc<Times>,
    /// Events that were pushed to whoever watches.
    pub(crate) pushed: Counter,
    /// Bytes that clients sent.
    pub(crate) read_bytes: Counter,
    /// Bytes that clients took.
    pub(crate) written_bytes: Counter,
}

/// Why a connection is not taken, or is ended by the edge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refused {
    /// There are too many.
    Full,
    /// Its address has too many without a login.
    Evicted,
    /// It did not log in for too long.
    NoLogin,
    /// It does not take what it is sent.
    SlowReader,
    /// A line took too long.
    SlowLine,
}

impl Refused {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Evicted => "evicted",
            Self::NoLogin => "no-login",
            Self::SlowReader => "slow-reader",
            Self::SlowLine => "slow-line",
        }
    }
}

impl Counts {
    pub(crate) fn refused(&self, why: Refused) {
        self.refused.get_or_create(&[("reason", why.as_str())]).inc();
    }

    /// A command but a send, and how it was answered.
    pub(crate) fn command(&self, verb: Option<Verb>, refused: Option<ErrorCode>) {
        let named = |verb| COMMANDS.iter().find(|spec| spec.verb == verb).map(|spec| spec.names[0]);
        let command = verb.and_then(named).unwrap_or(NO_COMMAND);
        let code = refused.map_or(OK, ErrorCode::as_str);
        self.commands.get_or_create(&[("command", command), ("code", code)]).inc();
    }

    /// A send that was not answered OK.
    pub(crate) fn send_failed(&self, code: ErrorCode) {
        self.failed.get_or_create(&[("code", code.as_str())]).inc();
    }

    /// Takes in what became of sends that were answered together.
    pub(crate) fn add(&self, answered: &Answered) {
        if answered.sent > 0 {
            self.sent.inc_by(answered.sent);
        }
        self.send_time.add(answered);
    }

    /// Lets a registry show them.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let counters = [
            ("antar_connections", "Connections of clients that were accepted", &self.connections),
            ("antar_sends_ok", "Sends that were answered OK: what they say is stored", &self.sent),
            ("antar_events_pushed", "Events that were pushed to clients that watch", &self.pushed),
            ("antar_read_bytes", "Bytes that clients sent", &self.read_bytes),
            ("antar_written_bytes", "Bytes that clients took", &self.written_bytes),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "antar_connections_refused",
            "Connections that were not taken or were ended by the edge, by reason",
            self.refused.clone(),
        );
        registry.register(
            "antar_commands",
            "Commands but sends, by name and by the code of their answer; lines that are no command as none",
            self.commands.clone(),
        );
        registry.register(
            "antar_sends_failed",
            "Sends that were not answered OK, by code",
            self.failed.clone(),
        );
        registry.register_collector(Box::new(self.send_time.clone()));
    }
}

/// Sends that were answered together, to be counted at once: the counters are shared by all threads, and each addition takes
/// them from another.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// Those that were answered OK.
    pub(crate) sent: u64,
    /// As in [`Times`].
    counts: [u32; SEND_SECONDS.len() + 1],
    sum_us: u64,
}

impl Answered {
    /// One that took so long from its line to its acknowledgement.
    pub(crate) fn took(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.counts[SEND_SECONDS.partition_point(|end| *end < seconds)] += 1;
        self.sum_us = self.sum_us.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// How many took how long.
#[derive(Debug, Default)]
struct Times {
    /// One for each of [`SEND_SECONDS`], and one for those that took longer.
    counts: [AtomicU64; SEND_SECONDS.len() + 1],
    sum_us: AtomicU64,
}

impl Times {
    fn add(&self, answered: &Answered) {
        for (all, more) in self.counts.iter().zip(answered.counts).filter(|(_, more)| *more > 0) {
            all.fetch_add(u64::from(more), Ordering::Relaxed);
        }
        self.sum_us.fetch_add(answered.sum_us, Ordering::Relaxed);
    }
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let ends = SEND_SECONDS.into_iter().chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
        let all = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram(sum, all, &buckets, None::<&Examples>)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl Collector for Times {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Time of sends from their line to the broker's acknowledgement";
        let encoder = encoder.encode_descriptor("antar_send_seconds", help, None, self.metric_type())?;
        EncodeMetric::encode(self, encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_where_they_belong() {
        let (times, mut answered) = (Times::default(), Answered::default());
        for micros in [0, 500, 501, 5_000_000, 6_000_000] {
            answered.took(Duration::from_micros(micros));
        }
        times.add(&answered);
        times.add(&Answered::default());
        let counts: Vec<u64> = times.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!((counts[0], counts[1], counts[12], counts[13]), (2, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 5);
    }
}
