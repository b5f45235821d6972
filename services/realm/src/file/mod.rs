//! Files: who has sent which to whom, and their parts.
//!
//! Owns: the two buckets of files, who may read what is in them, and how files come from other realms: the message that names
//! one comes over the lane and waits here, while the bytes are asked for beside the lane (`fetch`). A record stands in a bucket that each edge has a copy
//! of; each part stands in the other one, under a key of its own, and is read when somebody wants it. A part is written
//! once: whatever is repeated, on whichever edge, finds it there. Must not know: lines, HTTP.
//!
//! Why keys and not the object store of NATS: what is written there becomes visible only as a whole, so an upload that was
//! broken off can neither be resumed nor told from one that goes on. A key is durable when its write returns, and can be
//! written once (`Expect::Absent`), on both brokers and by contracts that both are tested for.

mod age;
mod api;
mod arrive;
mod ask;
mod fetch;
pub(crate) mod kept;
mod read;
mod upload;

pub(crate) use age::sweep;
pub(crate) use arrive::Brought;
pub(crate) use ask::Asked;
pub(crate) use fetch::run as fetch;

use antar_broker::{Bucket, KvError, SharedBroker};
use antar_proto::file::FileInfo;
use antar_proto::{Address, ErrorCode, GroupAddress, GroupName, MessageId, RealmId, UserName};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::copy::KvCopy;
use crate::send::SendError;

pub use read::{FilePart, FileReader, FileView};
pub use upload::{NewFile, Stored};

/// Largest part: it stands in one value of the broker.
pub const PART_BYTES_MAX: u64 = 512 * 1024;
/// Most files of one user that are kept, of whatever size.
const FILES_PER_USER_MAX: usize = 10_000;
/// Most of them that are not whole.
const UPLOADS_PER_USER_MAX: usize = 64;
/// Most files of one other realm that are kept, and of them that are on their way.
const FILES_PER_PEER_MAX: usize = 50_000;
const FETCHES_PER_PEER_MAX: usize = 1_000;
/// Smallest part of a file for another realm, but for the last one: that realm asks for bytes, however they are divided here.
const PART_BYTES_MIN: u64 = 4 * 1024;
/// Answers to other realms that are made at the same time.
const ANSWERS_MAX: usize = 8;

/// The files of a realm.
pub(crate) struct Files {
    records: KvCopy<FileRecord>,
    parts: Bucket,
    broker: SharedBroker,
    /// Wakes whoever asks other realms for bytes.
    arrived: Notify,
    answers: std::sync::Arc<Semaphore>,
    given_up: arrive::GivenUp,
}

/// What is kept of a file beside its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    id: MessageId,
    owner: UserName,
    /// The owner's realm, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<RealmId>,
    to: Vec<UserName>,
    /// Receivers in other realms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    elsewhere: Vec<Address>,
    /// The realm whose users it was sent to with `sendgroupfilerealm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    under: Option<RealmId>,
    /// The group of this realm that it was sent to: whoever is a member may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<GroupName>,
    name: String,
    size: u64,
    parts: u32,
    /// What the sender says the SHA-256 is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claimed: Option<String>,
    state: FileState,
    /// Microseconds since 1970.
    created: u64,
    /// Once it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Of one from another realm: the edge that asks for its bytes, and where the message that names it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fetcher: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inbox: Option<u64>,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileState {
    /// Parts are missing, or nobody has looked yet.
    Open,
    /// All parts are there and were looked at. The message that names it may have been stored.
    Whole,
    /// The message was stored.
    Sent,
    /// It is being removed.
    Going,
}

impl FileRecord {
    fn key(&self) -> String {
        key_of(self.id, self.origin.as_ref())
    }

    fn part_key(&self, number: u32) -> String {
        format!("{}.{number}", self.key())
    }

    fn is_of(&self, user: &UserName) -> bool {
        self.origin.is_none() && self.owner == *user
    }

    /// The group, as it is named here.
    fn group(&self) -> Option<GroupAddress> {
        self.group.clone().map(|group| GroupAddress { group, realm: None })
    }

    /// Who has sent it, as users here name them.
    fn from(&self) -> String {
        match &self.origin {
            None => self.owner.to_string(),
            Some(realm) => format!("{}@{realm}", self.owner),
        }
    }

    /// As messages name it, once it is whole.
    fn info(&self) -> Option<FileInfo> {
        let is_whole = matches!(self.state, FileState::Whole | FileState::Sent);
        let (media, sha256) = self.media.clone().zip(self.sha256.clone()).filter(|_| is_whole)?;
        Some(FileInfo { id: self.id, name: self.name.clone(), media, size: self.size, sha256 })
    }
}

/// Why nothing came of what was wanted with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is none of this id that this user may read, or it has no such part.
    #[error("no such file")]
    NoSuchFile,
    /// Larger than this.
    #[error("a file has at most {0} bytes")]
    TooLarge(u64),
    /// The user's files would have more bytes than this, or be more than a user may have.
    #[error("{0}")]
    Quota(String),
    /// This part is missing.
    #[error("part {0} of {1} is missing")]
    Incomplete(u32, u32),
    /// The bytes are others than were promised, or there are others already.
    #[error("{0}")]
    Mismatch(String),
    /// It cannot be divided so, or is empty.
    #[error("{0}")]
    Refused(String),
    /// The message could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The broker does not answer; the same request again is safe.
    #[error("{0}")]
    Unavailable(String),
}

impl FileError {
    /// What a client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchFile => ErrorCode::NoSuchFile,
            Self::TooLarge(_) => ErrorCode::FileTooLarge,
            Self::Quota(_) => ErrorCode::FileQuota,
            Self::Incomplete(..) => ErrorCode::FileIncomplete,
            Self::Mismatch(_) => ErrorCode::FileMismatch,
            Self::Refused(_) => ErrorCode::BadRequest,
            Self::Send(SendError::NoSuchUser(_)) => ErrorCode::NoSuchUser,
            Self::Send(SendError::NoSuchRealm) => ErrorCode::NoSuchRealm,
            Self::Send(SendError::NoSuchGroup) => ErrorCode::NoSuchGroup,
            Self::Send(SendError::NotAMember) => ErrorCode::NotAMember,
            Self::Send(SendError::RealmBlocked) => ErrorCode::RealmBlocked,
            Self::Send(SendError::MailboxFull) => ErrorCode::MailboxFull,
            Self::Send(SendError::IdReused | SendError::IdAssigned) => ErrorCode::BadRequest,
            Self::Send(_) | Self::Unavailable(_) => ErrorCode::Unavailable,
        }
    }
}

impl From<KvError> for FileError {
    fn from(error: KvError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Files {
    pub(crate) fn new(records: KvCopy<FileRecord>, parts: Bucket, broker: SharedBroker) -> Self {
        let answers = std::sync::Arc::new(Semaphore::new(ANSWERS_MAX));
        Self { records, parts, broker, arrived: Notify::new(), answers, given_up: arrive::GivenUp::default() }
    }
}

/// The key of a record. Other realms choose ids as they like, so theirs have keys of their own.
fn key_of(id: MessageId, origin: Option<&RealmId>) -> String {
    match origin {
        None => id.0.simple().to_string(),
        Some(realm) => format!("{}.{realm}", id.0.simple()),
    }
}
