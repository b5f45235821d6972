//! What a backup of a realm has to take, and where a restored realm keeps it.
//!
//! Owns: which streams, buckets and queues a realm consists of, as whoever copies all of it has to know, and the mark of a
//! realm that is being restored. How restored things differ from what they were is in [`crate::restored`]. Must not know:
//! files and their format.

use std::path::Path;

use antar_broker::{
    Bucket, Expect, KvEntry, KvError, OpenError, QueueName, ReadError, SharedBroker, StreamSpec, Subject,
};
use antar_proto::RealmId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::file::kept;
use crate::key::PublicKey;
use crate::key_file::{self, KeyError};
use crate::places::{self, LANES, Places, is_fence};

/// The key in the settings that stands there while a realm is being restored.
const RESTORING: &str = "restoring";
/// The parts of a realm's names of streams, in the order in which a restored realm gets them: what delivery has made of an
/// envelope must not look older than the envelope itself.
pub const STREAMS: [&str; 3] = ["INBOX", "MAIL", "LOG"];
/// The bucket of accounts.
pub const ACCOUNTS: &str = "accounts";
/// The bucket of cursors: keys `<user>.<box>`, `<user>._group.<group>` or `_relay_<peer>._group.<group>`, values sequences.
pub const CURSORS: &str = "cursors";
/// The bucket of peers.
pub const PEERS: &str = "peers";
/// The bucket of settings.
pub const SETTINGS: &str = "settings";
/// The bucket of how far each peer's lane was delivered.
pub const DELIVERED: &str = LANES;

/// The bucket of what is kept of each file beside its parts.
pub const FILES: &str = places::FILES;
/// The bucket of the parts of files. It may be large, and is never read as a whole.
pub const FILE_PARTS: &str = places::FILE_PARTS;

pub use crate::file::kept::Parts;

/// The key in the settings that says which key the realm signs with.
pub const KEY_SETTING: &str = key_file::KEY;

/// The mark of a realm that is being restored, or whose restoring was broken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// Which file from: its digest.
    pub file: String,
    /// When it was begun, in microseconds since 1970: the epoch of all its lanes.
    pub at: u64,
}

/// What a realm consists of.
#[derive(Debug, Clone)]
pub struct Snapshot {
    places: Places,
}

impl Snapshot {
    /// Of the realm of this id.
    pub fn new(realm: RealmId) -> Self {
        Self { places: Places::new(realm) }
    }

    /// The realm.
    pub fn realm(&self) -> &RealmId {
        self.places.realm()
    }

    /// Its streams, in the order of [`STREAMS`].
    pub fn streams(&self, mailbox_entries_max: u64) -> [StreamSpec; 3] {
        self.places.streams(mailbox_entries_max)
    }

    /// Its buckets but those of files, each with the part of its name that tells them apart.
    pub fn buckets(&self) -> Vec<(String, Bucket)> {
        let prefix = format!("REALM_{}_", self.realm());
        let name = |bucket: &Bucket| bucket.as_str().strip_prefix(&prefix).unwrap_or_default().to_owned();
        self.places.buckets().into_iter().map(|bucket| (name(&bucket), bucket)).collect()
    }

    /// One bucket.
    pub fn bucket(&self, name: &str) -> Option<Bucket> {
        if [FILES, FILE_PARTS].contains(&name) {
            return Some(self.places.bucket(name));
        }
        self.buckets().into_iter().find(|(known, _)| known == name).map(|(_, bucket)| bucket)
    }

    /// The records of all files, in no order; none in a realm of an older version.
    pub async fn files(&self, broker: &SharedBroker) -> Result<Vec<KvEntry>, ReadError> {
        crate::copy::kept_if_there(broker, &self.places.bucket(FILES)).await
    }

    /// The parts of the file with this record; `None` for one that is being removed, or cannot be read.
    pub fn parts_of(&self, record: &[u8]) -> Option<Parts> {
        kept::parts(record)
    }

    /// What a record of a file has to say of a moment between two looks at it.
    pub fn file_between(&self, before: Option<&[u8]>, after: &Bytes) -> Bytes {
        kept::between(before, after)
    }

    /// The subjects over which the realm has queues, if these are its peers.
    pub fn queue_subjects(&self, peers: &[RealmId]) -> Vec<Subject> {
        let of_peers =
            peers.iter().flat_map(|peer| [self.places.outbox(peer), self.places.source(Some(peer)).inbox]);
        std::iter::once(self.places.source(None).inbox).chain(of_peers).collect()
    }

    /// The name of the queue over a subject, if there is one.
    pub fn queue_over(&self, subject: &Subject) -> Option<QueueName> {
        let tokens: Vec<&str> = subject.tokens().collect();
        match tokens[..] {
            ["realm", realm, "outbox", peer] if realm == self.realm().as_str() => {
                peer.parse().ok().map(|peer| self.places.lane_queue(&peer))
            }
            ["realm", realm, "inbox"] if realm == self.realm().as_str() => {
                Some(self.places.source(None).queue)
            }
            ["realm", realm, "inbox", peer] if realm == self.realm().as_str() => {
                peer.parse().ok().map(|peer| self.places.source(Some(&peer)).queue)
            }
            _ => None,
        }
    }

    /// The box, or the group, that a cursor is about.
    pub fn cursor_subject(&self, key: &str) -> Option<Subject> {
        self.places.of_cursor(key)
    }

    /// Whether entries of this subject only fence off workers of a running realm, and mean nothing to another one.
    pub fn is_fence(&self, subject: &Subject) -> bool {
        subject.tokens().nth(3).is_some_and(is_fence)
    }

    /// Whose mailbox a subject is a part of, if it is one of a mailbox.
    pub fn owner<'a>(&self, subject: &'a Subject) -> Option<&'a str> {
        let mut tokens = subject.tokens().skip(2);
        (tokens.next() == Some("mail")).then(|| tokens.next()).flatten()
    }

    /// When a value of this bucket goes away by itself, in microseconds since 1970.
    pub fn expires(&self, bucket: &str, value: &[u8]) -> Option<u64> {
        #[derive(Deserialize)]
        struct Expiring {
            expires: u64,
        }
        let expires = matches!(bucket, "sessions" | "invites");
        expires.then(|| serde_json::from_slice::<Expiring>(value).ok()).flatten().map(|value| value.expires)
    }

    /// What is there of the realm: names of streams, and of buckets with something in them.
    pub async fn found(&self, broker: &SharedBroker) -> Result<Vec<String>, OpenError> {
        let (streams, buckets) = (self.places.streams(0), self.places.buckets());
        let missing = broker.missing(&streams, &buckets).await?;
        let mut found: Vec<String> = streams.into_iter().map(|spec| spec.name).collect();
        found.retain(|name| !missing.contains(name));
        for bucket in buckets.iter().filter(|bucket| !missing.iter().any(|name| name == bucket.as_str())) {
            let kept = self.kept_in(broker, bucket).await;
            let kept = kept.map_err(|error| OpenError::Unreachable(error.to_string()))?;
            if !kept.is_empty() {
                found.push(bucket.as_str().to_owned());
            }
        }
        for bucket in [FILES, FILE_PARTS].map(|name| self.places.bucket(name)) {
            let is_there = broker.missing(&[], std::slice::from_ref(&bucket)).await?.is_empty();
            let holds_nothing = crate::copy::holds_nothing(broker, &bucket);
            if is_there && !holds_nothing.await.map_err(|error| OpenError::Unreachable(error.to_string()))? {
                found.push(bucket.as_str().to_owned());
            }
        }
        Ok(found)
    }

    /// Everything that is in a bucket now, in no order.
    pub async fn kept_in(&self, broker: &SharedBroker, bucket: &Bucket) -> Result<Vec<KvEntry>, KvError> {
        crate::copy::kept_in(broker, bucket).await
    }

    /// The mark of a realm that is being restored; none if it is not, or not there.
    pub async fn restoring(&self, broker: &SharedBroker) -> Result<Option<Restoring>, KvError> {
        restoring(broker, &self.places).await
    }

    /// Makes the bucket of settings, if it is not there, and puts the mark into it. From now on the realm does not start.
    pub async fn mark(&self, broker: &SharedBroker, mark: &Restoring) -> Result<(), StartRestoring> {
        let bucket = self.places.bucket(SETTINGS);
        broker.open_bucket(&bucket).await?;
        let value = serde_json::to_vec(mark).expect("a mark is text and a number");
        broker.kv_put(&bucket, RESTORING, Bytes::from(value), Expect::Absent, None).await?;
        Ok(())
    }

    /// Takes the mark away: the realm is whole.
    pub async fn unmark(&self, broker: &SharedBroker) -> Result<(), KvError> {
        broker.kv_delete(&self.places.bucket(SETTINGS), RESTORING, Expect::Any).await
    }

    /// Whether a key of the settings is the mark, which is no part of what is kept.
    pub fn is_mark(&self, bucket: &str, key: &str) -> bool {
        bucket == SETTINGS && key == RESTORING
    }
}

/// Why a realm was not marked. Nothing of it was made but an empty bucket.
#[derive(Debug, thiserror::Error)]
pub enum StartRestoring {
    /// The bucket of settings cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Somebody else was first, or the broker does not answer.
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// The mark of a realm that is being restored. Its bucket of settings need not be there.
pub(crate) async fn restoring(broker: &SharedBroker, places: &Places) -> Result<Option<Restoring>, KvError> {
    let bucket = places.bucket(SETTINGS);
    let missing = broker.missing(&[], std::slice::from_ref(&bucket)).await;
    if !missing.map_err(|error| KvError::Unavailable(error.to_string()))?.is_empty() {
        return Ok(None);
    }
    let Some(entry) = broker.kv_get(&bucket, RESTORING).await? else { return Ok(None) };
    let mark = serde_json::from_slice(&entry.value);
    mark.map(Some)
        .map_err(|error| KvError::Refused(format!("the mark of a restoring is not readable: {error}")))
}

/// The seed in a realm's key file, with its public part; `None` if there is no file.
pub fn read_seed(path: &Path) -> Result<Option<(Zeroizing<String>, PublicKey)>, KeyError> {
    let found = key_file::read_seed(path)?;
    Ok(found.map(|(seed, key)| (seed, key.public().clone())))
}

/// Makes a key file with this seed. One that is there is never replaced: it is an error if it holds another key.
pub fn keep_seed(path: &Path, seed: &str) -> Result<(), KeyError> {
    key_file::keep_seed(path, seed)
}
