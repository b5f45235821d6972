//! Files: who has sent which to whom, and their parts.
//!
//! Owns: the two buckets of files, and who may read what is in them. A record stands in a bucket that each edge has a copy
//! of; each part stands in the other one, under a key of its own, and is read when somebody wants it. A part is written
//! once: whatever is repeated, on whichever edge, finds it there. Must not know: lines, HTTP.
//!
//! Why keys and not the object store of NATS: what is written there becomes visible only as a whole, so an upload that was
//! broken off can neither be resumed nor told from one that goes on. A key is durable when its write returns, and can be
//! written once (`Expect::Absent`), on both brokers and by contracts that both are tested for.

mod age;
mod api;
mod read;
mod upload;

pub(crate) use age::sweep;

use antar_broker::{Bucket, KvError, SharedBroker};
use antar_proto::file::FileInfo;
use antar_proto::{ErrorCode, MessageId, UserName};
use serde::{Deserialize, Serialize};

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

/// The files of a realm.
pub(crate) struct Files {
    records: KvCopy<FileRecord>,
    parts: Bucket,
    broker: SharedBroker,
}

/// What is kept of a file beside its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    id: MessageId,
    owner: UserName,
    to: Vec<UserName>,
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
    /// A receiver is in another realm.
    #[error("files are sent within a realm only")]
    OtherRealm,
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
            Self::Refused(_) | Self::OtherRealm => ErrorCode::BadRequest,
            Self::Send(SendError::NoSuchUser(_)) => ErrorCode::NoSuchUser,
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
        Self { records, parts, broker }
    }
}

fn key(id: MessageId) -> String {
    id.0.simple().to_string()
}

fn part_key(id: MessageId, number: u32) -> String {
    format!("{}.{number}", id.0.simple())
}
