//! What stands in a backup, one JSON object a line. Owns these objects; knows neither the file around them nor a broker.

use std::collections::BTreeMap;

use antar_broker::{Entry, Headers};
use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// What [`Header::format`] says.
pub(super) const FORMAT: &str = "antar-backup";
/// The version of the format that is written, and the newest that is read. The first one had no files.
pub(super) const VERSION: u32 = 2;

/// A line of a backup. They come in this order; keys, queues and entries are as many as there are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Record {
    Header(Header),
    /// The realm's private key, if it was asked for.
    Seed(String),
    Key(KeyRecord),
    Queue(QueueRecord),
    Entry(EntryRecord),
    End(End),
}

/// The first line: what the file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `antar-backup`.
    pub format: String,
    /// Of the format: 2, or 1 without files.
    pub version: u32,
    /// The realm.
    pub realm: String,
    /// Its public key.
    pub key: Option<String>,
    /// The file also holds the private key.
    pub has_seed: bool,
    /// The version of Antar that wrote it.
    pub antar: String,
    /// When it was begun: RFC 3339, UTC. All that had been answered OK by then is in it.
    pub time: String,
    /// Up to which sequence each stream is in it.
    pub streams: BTreeMap<String, u64>,
}

/// A key of a bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) value: Body,
    /// When it goes away by itself, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<u64>,
}

/// The position of a queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct QueueRecord {
    /// The subject that it is over.
    pub(super) subject: String,
    /// Everything up to this sequence was dealt with.
    pub(super) acked: u64,
}

/// An entry, or several of one append: they have everything but their place in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EntryRecord {
    /// `INBOX`, `MAIL` or `LOG`.
    pub(super) stream: String,
    /// Subjects and sequences, which grow.
    pub(super) at: Vec<(String, u64)>,
    /// Microseconds since 1970.
    pub(super) time: u64,
    pub(super) id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) headers: Headers,
    pub(super) body: Body,
}

/// The last line: how much there is before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Entries of each stream; those of one append count each.
    pub entries: BTreeMap<String, u64>,
    /// Keys of each bucket.
    pub keys: BTreeMap<String, u64>,
    /// Queues.
    pub queues: u64,
    /// Entries that no log of Antar's would take, mail of accounts that are gone, and files whose parts are: not in it.
    pub left_out: u64,
}

/// Bytes: as text if they are UTF-8, else in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Body {
    Text(String),
    Base64 { base64: String },
}

impl Body {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64 { base64: BASE64.encode(bytes) },
        }
    }

    /// How many bytes it takes in the file, or nearly so.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Base64 { base64: text } => text.len(),
        }
    }

    /// `None` if it is no base64.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            Self::Base64 { base64 } => BASE64.decode(base64.as_bytes()).ok().map(Bytes::from),
        }
    }
}

impl EntryRecord {
    pub(super) fn of(stream: &str, entry: &Entry) -> Self {
        Self {
            stream: stream.to_owned(),
            at: vec![(entry.subject.as_str().to_owned(), entry.seq.0)],
            time: entry.time.0,
            id: entry.id.as_str().to_owned(),
            headers: entry.headers.clone(),
            body: Body::of(&entry.body),
        }
    }
}

impl End {
    /// All entries together.
    pub fn entries_total(&self) -> u64 {
        self.entries.values().sum()
    }

    /// All keys together.
    pub fn keys_total(&self) -> u64 {
        self.keys.values().sum()
    }

    /// Counts a line.
    pub(super) fn count(&mut self, record: &Record) {
        let count = |counts: &mut BTreeMap<String, u64>, name: &str, more: usize| {
            *counts.entry(name.to_owned()).or_default() += more as u64;
        };
        match record {
            Record::Key(key) => count(&mut self.keys, &key.bucket, 1),
            Record::Queue(_) => self.queues += 1,
            Record::Entry(entry) => count(&mut self.entries, &entry.stream, entry.at.len()),
            Record::Header(_) | Record::Seed(_) | Record::End(_) => {}
        }
    }
}
