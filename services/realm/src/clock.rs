//! Times as they stand in entries and replies.

use antar_broker::Timestamp;

/// The present as RFC 3339, UTC, with microseconds.
pub(crate) fn now_rfc3339() -> String {
    rfc3339(Timestamp::now())
}

/// A time of the broker's as RFC 3339, UTC.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let micros = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX).to_string()
}
