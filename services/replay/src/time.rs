//! Times as they are read and written: RFC 3339, UTC, with microseconds.

use antar_broker::Timestamp;

/// Writes times of entries that follow each other: the part down to the second is made once for each second.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    /// Adds a time to a line.
    pub(crate) fn write(&mut self, time: Timestamp, into: &mut Vec<u8>) {
        let (second, micros) = (time.0 / 1_000_000, time.0 % 1_000_000);
        if self.text.is_empty() || second != self.second {
            self.second = second;
            let seconds = i64::try_from(second).unwrap_or(i64::MAX);
            let shown = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
            self.text = format!("{shown:.0}");
            self.text.truncate(self.text.trim_end_matches('Z').len());
        }
        into.extend_from_slice(self.text.as_bytes());
        let mut digits = *b".000000Z";
        let mut rest = micros;
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        into.extend_from_slice(&digits);
    }
}

/// One time as text.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let mut text = Vec::new();
    Clock::default().write(time, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads a time with an offset, or a day of UTC.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = match text.len() {
        10 => format!("{text}T00:00:00Z").parse().ok()?,
        _ => text.parse().ok()?,
    };
    u64::try_from(time.as_microsecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_and_read_to_the_microsecond() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_795_304_532_874_925, "2026-11-21T23:42:12.874925Z"),
            (1_795_304_533_000_007, "2026-11-21T23:42:13.000007Z"),
        ] {
            assert_eq!(rfc3339(Timestamp(micros)), expected);
            assert_eq!(parse(expected), Some(Timestamp(micros)));
        }
        assert_eq!(parse("2026-11-22T06:42:12+07:00"), parse("2026-11-21T23:42:12Z"));
        assert_eq!(parse("1970-01-02"), Some(Timestamp(86_400_000_000)));
        for bad in ["", "yesterday", "2026-13-01", "1969-12-31", "2026-11-21T23:42:12"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_follows_entries_over_seconds() {
        let (mut clock, mut out) = (Clock::default(), Vec::new());
        for micros in [1_999_999, 2_000_000, 1_000_001] {
            clock.write(Timestamp(micros), &mut out);
        }
        let expected = "1970-01-01T00:00:01.999999Z1970-01-01T00:00:02.000000Z1970-01-01T00:00:01.000001Z";
        assert_eq!(out, expected.as_bytes());
    }
}
