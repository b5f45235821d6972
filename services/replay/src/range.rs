//! Where a reading begins and where it ends.
//!
//! A plain sequence means something only where all that is read shares one: on a SQLite file always, on NATS within one
//! stream. `KIND:SEQ` names an entry, and with it the moment at which it was stored: that is where the other streams begin
//! or end.

use std::time::Duration;

use antar_broker::{Filter, ReadError, ReadFrom, ReadLimit, Seq, SharedBroker, Timestamp};
use antar_proto::RealmId;
use antar_realm::traffic::{Kind, Stream};

use crate::time;

/// One end of a range; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A moment.
    Time(Timestamp),
    /// A sequence.
    Seq(Seq),
    /// A sequence of the stream that keeps this kind.
    SeqOf(Kind, Seq),
}

/// How a broker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequences {
    /// All streams share one sequence.
    Shared,
    /// Each stream has its own.
    PerStream,
}

/// Why there is no range.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// A plain sequence, and several streams.
    #[error(
        "each stream has sequences of its own here, so {0} alone says nothing: name a kind with it, like mail:{0}, or \
         read kinds of one stream only with --kind"
    )]
    Ambiguous(Seq),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Bound {
    /// Reads `SEQ`, `KIND:SEQ`, a time of RFC 3339, a day, or how long ago (`-10m`; units s, m, h, d, w).
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        let advice = || {
            format!(
                "{text:?} is none of SEQ, KIND:SEQ (mail:812), a time (2026-11-21T23:42:12Z) and how long ago (-10m)"
            )
        };
        let seq = |digits: &str| digits.parse().map(Seq).map_err(|_| advice());
        if let Some(ago) = text.strip_prefix('-') {
            let ago = duration(ago).ok_or_else(advice)?;
            let micros = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
            return Ok(Self::Time(Timestamp(now.0.saturating_sub(micros))));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Seq(seq(text)?));
        }
        match text.split_once(':') {
            Some((kind, digits)) if kind.parse::<Kind>().is_ok() => {
                Ok(Self::SeqOf(kind.parse()?, seq(digits)?))
            }
            _ => time::parse(text).map(Self::Time).ok_or_else(advice),
        }
    }

    /// As it is written into an export.
    pub fn to_text(self) -> String {
        match self {
            Self::Time(time) => time::rfc3339(time),
            Self::Seq(seq) => seq.to_string(),
            Self::SeqOf(kind, seq) => format!("{kind}:{seq}"),
        }
    }

    /// The same, where a plain sequence is one of a stream.
    fn settle(self, kinds: &[Kind], sequences: Sequences) -> Result<Self, RangeError> {
        match (self, sequences) {
            (Self::SeqOf(_, seq), Sequences::Shared) => Ok(Self::Seq(seq)),
            (Self::Seq(seq), Sequences::PerStream) => match kinds {
                [first, rest @ ..] if rest.iter().all(|kind| kind.stream() == first.stream()) => {
                    Ok(Self::SeqOf(*first, seq))
                }
                _ => Err(RangeError::Ambiguous(seq)),
            },
            (other, _) => Ok(other),
        }
    }
}

/// A length of time: a whole number and a unit.
pub fn duration(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 24 * 3_600,
        'w' => 7 * 24 * 3_600,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = if is_number { digits.parse().ok()? } else { return None };
    Some(Duration::from_secs(number.checked_mul(unit)?))
}

/// What is read of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) from: ReadFrom,
    pub(crate) seq_max: Seq,
    pub(crate) time_max: Timestamp,
}

/// The ends of a reading, for each stream.
pub(crate) struct Range<'a> {
    pub(crate) broker: &'a SharedBroker,
    pub(crate) realm: &'a RealmId,
    pub(crate) kinds: &'a [Kind],
    pub(crate) sequences: Sequences,
}

impl Range<'_> {
    /// What of a stream lies between the bounds.
    pub(crate) async fn part(
        &self,
        stream: Stream,
        from: Option<Bound>,
        to: Option<Bound>,
    ) -> Result<Part, RangeError> {
        let before = |seq: Seq| ReadFrom::After(Seq(seq.0.saturating_sub(1)));
        let settle = |bound: Bound| bound.settle(self.kinds, self.sequences);
        let from = match from.map(settle).transpose()? {
            None => ReadFrom::After(Seq::ZERO),
            Some(Bound::Time(time)) => ReadFrom::Since(time),
            Some(Bound::Seq(seq)) => before(seq),
            Some(Bound::SeqOf(kind, seq)) if kind.stream() == stream => before(seq),
            Some(Bound::SeqOf(kind, seq)) => ReadFrom::Since(
                self.time_of(kind.stream(), before(seq)).await?.unwrap_or(Timestamp(u64::MAX)),
            ),
        };
        let everything = (Seq(u64::MAX), Timestamp(u64::MAX));
        let (seq_max, time_max) = match to.map(settle).transpose()? {
            None => everything,
            Some(Bound::Time(time)) => (everything.0, time),
            Some(Bound::Seq(seq)) => (seq, everything.1),
            Some(Bound::SeqOf(kind, seq)) if kind.stream() == stream => (seq, everything.1),
            Some(Bound::SeqOf(kind, seq)) => {
                let last = ReadFrom::Before(Seq(seq.0.saturating_add(1)));
                (everything.0, self.time_of(kind.stream(), last).await?.unwrap_or_default())
            }
        };
        Ok(Part { from, seq_max, time_max })
    }

    /// When the first entry of a stream was stored that a read from there gives.
    async fn time_of(&self, stream: Stream, from: ReadFrom) -> Result<Option<Timestamp>, ReadError> {
        let mut found: Option<(Seq, Timestamp)> = None;
        for filter in filters(self.realm, |kind| kind.stream() == stream) {
            let page = self.broker.read(&filter, from, ReadLimit::entries(1)).await?;
            let is_backward = matches!(from, ReadFrom::Before(_));
            let is_nearer = |seq: Seq| found.is_none_or(|(other, _)| (seq > other) == is_backward);
            if let Some(entry) = page.entries.first().filter(|entry| is_nearer(entry.seq)) {
                found = Some((entry.seq, entry.time));
            }
        }
        Ok(found.map(|(_, time)| time))
    }
}

fn filters(realm: &RealmId, wanted: impl Fn(Kind) -> bool) -> Vec<Filter> {
    Kind::ALL.into_iter().filter(|kind| wanted(*kind)).flat_map(|kind| kind.filters(realm)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    #[test]
    fn an_end_is_a_sequence_a_time_or_a_while_ago() {
        for (text, expected) in [
            ("0", Bound::Seq(Seq(0))),
            ("812", Bound::Seq(Seq(812))),
            ("mail:812", Bound::SeqOf(Kind::Mail, Seq(812))),
            ("dead:1", Bound::SeqOf(Kind::Dead, Seq(1))),
            ("1970-01-01T00:00:01Z", Bound::Time(Timestamp(1_000_000))),
            ("1970-01-02", Bound::Time(Timestamp(86_400_000_000))),
            ("-10s", Bound::Time(Timestamp(NOW.0 - 10_000_000))),
            ("-2h", Bound::Time(Timestamp(NOW.0 - 7_200_000_000))),
            ("-9999w", Bound::Time(Timestamp(0))),
        ] {
            assert_eq!(Bound::parse(text, NOW), Ok(expected), "{text}");
        }
        for bad in
            ["", "-", "-10", "-m", "--10m", "-1.5h", "mail:", "post:1", "1x", "10m", "99999999999999999999"]
        {
            let error = Bound::parse(bad, NOW).unwrap_err();
            assert!(error.contains("KIND:SEQ"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_plain_sequence_is_refused_where_it_says_nothing() {
        let plain = Bound::Seq(Seq(7));
        assert_eq!(plain.settle(&Kind::ALL, Sequences::Shared).unwrap(), plain);
        assert!(matches!(plain.settle(&Kind::ALL, Sequences::PerStream), Err(RangeError::Ambiguous(Seq(7)))));
        let settled = plain.settle(&[Kind::Outbox, Kind::Dead], Sequences::PerStream).unwrap();
        assert_eq!(settled, Bound::SeqOf(Kind::Outbox, Seq(7)));
        let named = Bound::SeqOf(Kind::Mail, Seq(7));
        assert_eq!(named.settle(&Kind::ALL, Sequences::PerStream).unwrap(), named);
        assert_eq!(named.settle(&Kind::ALL, Sequences::Shared).unwrap(), plain);
    }
}
