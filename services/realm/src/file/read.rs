//! Reading files: which a user may have, and their parts.

use std::sync::Arc;

use antar_proto::file::FileInfo;
use antar_proto::{MessageId, UserName};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{FileError, FileRecord, Files, part_key};
use crate::hex::hex;
use crate::shared::Shared;

/// A file in the list of a user's own.
#[derive(Debug, Serialize)]
pub struct FileView {
    /// The file.
    #[serde(flatten)]
    pub file: FileInfo,
    /// Who has sent it.
    pub from: UserName,
    /// To whom.
    pub to: Vec<UserName>,
}

/// A part of a file.
#[derive(Debug)]
pub struct FilePart {
    /// The file.
    pub file: FileInfo,
    /// Which part, from 1.
    pub number: u32,
    /// Of how many.
    pub parts: u32,
    /// The bytes.
    pub bytes: Bytes,
}

/// The bytes of a file, part by part. The last one is given only if all of them together have the file's SHA-256.
pub struct FileReader {
    shared: Arc<Shared>,
    file: FileInfo,
    parts: u32,
    given: u32,
    hasher: Sha256,
}

impl FileReader {
    pub(super) async fn open(
        shared: &Arc<Shared>,
        user: &UserName,
        id: MessageId,
    ) -> Result<Self, FileError> {
        let (file, parts) = shared.files.readable(user, id).await?;
        Ok(Self { shared: shared.clone(), file, parts, given: 0, hasher: Sha256::new() })
    }

    /// Which file it is.
    pub fn file(&self) -> &FileInfo {
        &self.file
    }

    /// The next part; `None` after the last one. After an error there is no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        if self.given == self.parts {
            return Ok(None);
        }
        let (id, number) = (self.file.id, self.given + 1);
        let Some(bytes) = self.shared.files.part(id, number).await? else {
            return Err(FileError::Incomplete(number, self.parts));
        };
        self.hasher.update(&bytes);
        self.given = number;
        if number == self.parts && hex(&self.hasher.finalize_reset()) != self.file.sha256 {
            tracing::error!(%id, "the bytes of a file are not those that were stored");
            return Err(FileError::Mismatch("the bytes of the file are not those that were stored".into()));
        }
        Ok(Some(bytes))
    }
}

impl Files {
    /// A file that a user was sent or has sent.
    pub(super) async fn readable(
        &self,
        user: &UserName,
        id: MessageId,
    ) -> Result<(FileInfo, u32), FileError> {
        let key = super::key(id);
        let mut record = self.records.fresh(&key).await?;
        if record.as_ref().is_some_and(|record| record.info().is_none()) {
            // It may have become whole on another edge a moment ago.
            self.records.catch_up(&key).await?;
            record = self.records.get(&key);
        }
        let record = record.filter(|record| record.owner == *user || record.to.contains(user));
        let found = record.and_then(|record| record.info().map(|info| (info, record.parts)));
        found.ok_or(FileError::NoSuchFile)
    }

    /// One part, as it was stored. What is there is as long as it has to be.
    pub(super) async fn part(&self, id: MessageId, number: u32) -> Result<Option<Bytes>, FileError> {
        Ok(self.broker.kv_get(&self.parts, &part_key(id, number)).await?.map(|entry| entry.value))
    }

    /// One part, for who may have it.
    pub(crate) async fn get(
        &self,
        user: &UserName,
        id: MessageId,
        number: u32,
    ) -> Result<FilePart, FileError> {
        let (file, parts) = self.readable(user, id).await?;
        if number > parts {
            return Err(FileError::NoSuchFile);
        }
        let Some(bytes) = self.part(id, number).await? else {
            tracing::error!(%id, number, "a part of a file is gone");
            return Err(FileError::Incomplete(number, parts));
        };
        Ok(FilePart { file, number, parts, bytes })
    }

    /// The newest files of a user, sent or got, and whether there are more.
    pub(crate) fn of(&self, user: &UserName, limit: usize) -> (Vec<FileView>, bool) {
        let all = self.records.all().into_iter().map(|(_, record)| record);
        let mut own: Vec<_> = all
            .filter(|record| record.owner == *user || record.to.contains(user))
            .filter_map(|record| record.info().map(|info| (record, info)))
            .collect();
        own.sort_by_key(|(record, _)| std::cmp::Reverse((record.created, record.id.0)));
        let more = own.len() > limit;
        own.truncate(limit);
        let view = |(record, file): (std::sync::Arc<FileRecord>, FileInfo)| FileView {
            file,
            from: record.owner.clone(),
            to: record.to.clone(),
        };
        (own.into_iter().map(view).collect(), more)
    }
}
