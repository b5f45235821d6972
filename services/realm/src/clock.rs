//! Times as they stand in entries and replies, and pauses that grow.

use std::time::Duration;

use antar_broker::Timestamp;

/// The present as RFC 3339, UTC, with microseconds.
pub(crate) fn now_rfc3339() -> String {
    rfc3339(Timestamp::now())
}

/// A time of the broker's as RFC 3339, UTC. Always with six digits, so that times can be compared as text.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let micros = i64::try_from(time.0).unwrap_or(i64::MAX);
    format!("{:.6}", jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX))
}

/// A time that somebody else wrote, RFC 3339; nothing if it is none, or before 1970.
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_microsecond()).ok().map(Timestamp)
}

/// The pause after so many failures in a row: `shortest`, twice that the next time, and so on up to `longest`.
pub(crate) fn backoff(failures: u32, shortest: Duration, longest: Duration) -> Duration {
    shortest.saturating_mul(2u32.saturating_pow(failures)).min(longest)
}
