//! Between entries of the log and messages of NATS.

use std::collections::VecDeque;
use std::sync::Arc;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::bundle::{self, BUNDLE};
use crate::{AppendError, Entry, EntryId, ExpectLast, Headers, Subject, Timestamp};

/// What JetStream recognises a repetition by.
pub(super) const MSG_ID: &str = "Nats-Msg-Id";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const SUBJECT: &str = "Nats-Subject";
pub(super) const SEQUENCE: &str = "Nats-Sequence";
const TIME: &str = "Nats-Time-Stamp";
pub(super) const LAST: &str = "Nats-Last-Sequence";
pub(super) const PENDING: &str = "Nats-Num-Pending";
/// What NATS's key-value stores mark deletions with.
pub(super) const KV_OPERATION: &str = "KV-Operation";
/// What the server marks its own deletions with.
pub(super) const MARKER: &str = "Nats-Marker-Reason";
pub(super) const TTL: &str = "Nats-TTL";

/// Headers of an append's copy for its subject number `at`: each has an id of its own, for JetStream knows only one
/// subject at a time. A space ends an entry's id, which has none.
pub(super) fn headers_of(
    id: &EntryId,
    at: usize,
    headers: &Headers,
    expected: Option<&ExpectLast>,
    own: &Subject,
) -> Result<HeaderMap, AppendError> {
    let mut map = HeaderMap::new();
    match at {
        0 => map.insert(HeaderName::from_static(MSG_ID), value(id.as_str())?),
        at => map.insert(HeaderName::from_static(MSG_ID), value(&format!("{} {at}", id.as_str()))?),
    }
    for (name, text) in headers {
        let sane = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !sane || name.starts_with("Nats-") || name.starts_with("KV-") {
            return Err(AppendError::Refused(format!("{name:?} is no name of a header")));
        }
        map.append(name.as_str(), value(text)?);
    }
    if let Some(expected) = expected {
        expect_last(&mut map, expected, own)?;
    }
    Ok(map)
}

/// Adds what is expected of a message's own subject, or of another one.
pub(super) fn expect_last(
    map: &mut HeaderMap,
    expected: &ExpectLast,
    own: &Subject,
) -> Result<(), AppendError> {
    map.insert(HeaderName::from_static(EXPECTED), HeaderValue::from(bundle::expected(expected.seq)));
    if expected.subject != *own {
        map.insert(HeaderName::from_static(EXPECTED_SUBJECT), value(expected.subject.as_str())?);
    }
    Ok(())
}

/// Headers of a message that a stream refuses: it is for one that is not there.
pub(super) fn probe_headers() -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(HeaderName::from_static("Nats-Expected-Stream"), HeaderValue::from("-"));
    map
}

/// Adds that the last sequence of the message's own subject has to be this one.
pub(super) fn expect(map: &mut HeaderMap, seq: u64) {
    map.insert(HeaderName::from_static(EXPECTED), HeaderValue::from(seq));
}

fn value(text: &str) -> Result<HeaderValue, AppendError> {
    text.parse().map_err(|_| AppendError::Refused(format!("{text:?} is no value of a header")))
}

/// A message of a stream, as reads and the live announcement give it.
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) seq: u64,
    /// The sequence before this one on its subject, where it is told.
    pub(super) last: Option<u64>,
    pub(super) time: Timestamp,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Stored {
    /// Reads it; `None` for a message that does not come from a stream.
    pub(super) fn of(message: async_nats::Message) -> Option<Self> {
        let headers = message.headers?;
        let number = |name| headers.get_last(HeaderName::from_static(name))?.as_str().parse::<u64>().ok();
        let subject = headers.get_last(HeaderName::from_static(SUBJECT))?.as_str().to_owned();
        let seq = number(SEQUENCE)?;
        let last = number(LAST);
        let time = parse_time(headers.get_last(HeaderName::from_static(TIME))?.as_str())?;
        Some(Self { subject, seq, last, time, headers, body: message.payload })
    }

    /// The text of one header.
    pub(super) fn header(&self, name: &'static str) -> Option<&str> {
        self.headers.get_last(HeaderName::from_static(name)).map(HeaderValue::as_str)
    }

    /// Its entries: one, or those of a bundle; none if its subject is none of ours.
    pub(super) fn entries(self, into: &mut VecDeque<Arc<Entry>>) {
        let Ok(subject) = Subject::new(&self.subject) else { return };
        let (seq, time) = (self.seq, self.time);
        if let Some(count) = self.header(BUNDLE).and_then(|count| count.parse::<usize>().ok()) {
            let mut rest = self.body;
            for at in 0..count {
                let Some(copy) = bundle::unpack(&mut rest) else {
                    tracing::error!(subject = self.subject, seq, "a bundle is not readable");
                    return;
                };
                let bundle::Part { id, headers, body } = copy;
                let seq = bundle::seq(seq, at, count);
                into.push_back(Arc::new(Entry { subject: subject.clone(), seq, time, id, headers, body }));
            }
            return;
        }
        // The first of these is what the publisher gave, whatever the server has added.
        let id = self.headers.get(HeaderName::from_static(MSG_ID));
        let id = id.and_then(|id| EntryId::new(id.as_str().split(' ').next().unwrap_or_default()));
        // Whoever publishes to a subject of ours past this program need not give an id.
        let id = id.unwrap_or_else(|| EntryId::new(format!("seq/{seq}")).expect("a number is printable"));
        let mut headers: Headers = Vec::new();
        for (name, values) in self.headers.iter() {
            let name: &str = name.as_ref();
            if !name.starts_with("Nats-") {
                headers.extend(values.iter().map(|value| (name.to_owned(), value.as_str().to_owned())));
            }
        }
        headers.sort();
        let seq = bundle::seq(seq, 0, 1);
        into.push_back(Arc::new(Entry { subject, seq, time, id, headers, body: self.body }));
    }
}

/// A time as NATS writes it, RFC 3339 with nanoseconds.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_microsecond()).ok().map(Timestamp)
}
