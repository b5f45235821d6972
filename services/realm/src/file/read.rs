//! Reading files: which a user may have, and their parts.

use std::sync::Arc;

use antar_proto::file::FileInfo;
use antar_proto::{MessageId, UserName};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{FileError, FileRecord, Files, key_of};
use crate::hex::hex;
use crate::shared::Shared;

/// Most other realms whose files are looked for in the broker when none here has the id.
const LOOKUPS_MAX: usize = 16;
/// A file up to this size is looked at as a whole before its last part is given. Of a larger one whoever reads all of it knows
/// the SHA-256 too; a request for one part must not cost the reading of a hundred.
const CHECKED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A file in the list of a user's own.
#[derive(Debug, Serialize)]
pub struct FileView {
    /// The file.
    #[serde(flatten)]
    pub file: FileInfo,
    /// Who has sent it: a user here, or `user@realm`.
    pub from: String,
    /// To whom, likewise.
    pub to: Vec<String>,
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
    record: Arc<FileRecord>,
    file: FileInfo,
    given: u32,
    hasher: Sha256,
}

impl FileReader {
    pub(super) async fn open(
        shared: &Arc<Shared>,
        user: &UserName,
        id: MessageId,
    ) -> Result<Self, FileError> {
        let (record, file) = shared.readable(user, id).await?;
        Ok(Self::of(shared, record, file))
    }

    fn of(shared: &Arc<Shared>, record: Arc<FileRecord>, file: FileInfo) -> Self {
        Self { shared: shared.clone(), record, file, given: 0, hasher: Sha256::new() }
    }

    /// Which file it is.
    pub fn file(&self) -> &FileInfo {
        &self.file
    }

    /// The next part; `None` after the last one. After an error there is no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        let (parts, number) = (self.record.parts, self.given + 1);
        if number > parts {
            return Ok(None);
        }
        let Some(bytes) = self.shared.files.part(&self.record, number).await? else {
            return Err(FileError::Incomplete(number, parts));
        };
        self.hasher.update(&bytes);
        self.given = number;
        if number == parts && hex(&self.hasher.finalize_reset()) != self.file.sha256 {
            tracing::error!(id = %self.file.id, "the bytes of a file are not those that were stored");
            return Err(FileError::Mismatch("the bytes of the file are not those that were stored".into()));
        }
        Ok(Some(bytes))
    }
}

impl Shared {
    /// Whether a user has sent a file, or was sent it, or is in the group that was.
    fn may_read(&self, record: &FileRecord, user: &UserName) -> bool {
        let in_group = || record.group().is_some_and(|group| self.is_member(&group, user));
        record.is_of(user) || record.to.contains(user) || in_group()
    }

    /// A file that a user was sent or has sent. Of several that have the id, the one that was here first: whoever has it
    /// cannot be given another one in its place.
    async fn readable(
        &self,
        user: &UserName,
        id: MessageId,
    ) -> Result<(Arc<FileRecord>, FileInfo), FileError> {
        let (records, own) = (&self.files.records, key_of(id, None));
        records.fresh(&own).await?;
        let find = || {
            let peers = self.peers.all();
            let theirs = peers.iter().map(|peer| key_of(id, Some(&peer.realm)));
            let all = std::iter::once(own.clone()).chain(theirs).filter_map(|key| records.get(&key));
            all.filter(|record| self.may_read(record, user)).min_by_key(|record| record.created)
        };
        let whole = |record: Option<Arc<FileRecord>>| {
            record.and_then(|record| record.info().map(|info| (record, info)))
        };
        let found = find();
        let key = found.as_ref().map(|record| record.key());
        if let Some(found) = whole(found) {
            return Ok(found);
        }
        // It may have come, or become whole, on another edge a moment ago.
        match key {
            Some(key) => records.catch_up(&key).await?,
            None => {
                let peers = self.peers.all();
                let looks = peers.iter().take(LOOKUPS_MAX);
                let looks =
                    looks.map(|peer| async { records.fresh(&key_of(id, Some(&peer.realm))).await.map(drop) });
                futures_util::future::try_join_all(looks).await?;
            }
        }
        whole(find()).ok_or(FileError::NoSuchFile)
    }

    /// One part, for who may have it.
    pub(super) async fn file_part(
        self: &Arc<Self>,
        user: &UserName,
        id: MessageId,
        number: u32,
    ) -> Result<FilePart, FileError> {
        let (record, file) = self.readable(user, id).await?;
        let parts = record.parts;
        if number > parts {
            return Err(FileError::NoSuchFile);
        }
        if number == parts && file.size <= CHECKED_BYTES_MAX {
            let mut reader = FileReader::of(self, record.clone(), file.clone());
            while reader.next().await?.is_some() {}
        }
        let Some(bytes) = self.files.part(&record, number).await? else {
            tracing::error!(%id, number, "a part of a file is gone");
            return Err(FileError::Incomplete(number, parts));
        };
        Ok(FilePart { file, number, parts, bytes })
    }
}

impl Shared {
    /// The newest files of a user, sent or got, and whether there are more.
    pub(super) fn files_of(&self, user: &UserName, limit: usize) -> (Vec<FileView>, bool) {
        let all = self.files.records.all().into_iter().map(|(_, record)| record);
        let mut own: Vec<_> = all
            .filter(|record| self.may_read(record, user))
            .filter_map(|record| record.info().map(|info| (record, info)))
            .collect();
        own.sort_by_key(|(record, _)| std::cmp::Reverse((record.created, record.id.0)));
        let more = own.len() > limit;
        own.truncate(limit);
        let view = |(record, file): (Arc<FileRecord>, FileInfo)| {
            let elsewhere = record.elsewhere.iter().map(ToString::to_string);
            let group = record.group().map(|group| format!("#{}", group.group));
            let to = record.to.iter().map(ToString::to_string).chain(elsewhere).chain(group).collect();
            FileView { file, from: record.from(), to }
        };
        (own.into_iter().map(view).collect(), more)
    }
}

impl Files {
    /// One part, as it was stored. What is there is as long as it has to be.
    pub(super) async fn part(&self, record: &FileRecord, number: u32) -> Result<Option<Bytes>, FileError> {
        Ok(self.broker.kv_get(&self.parts, &record.part_key(number)).await?.map(|entry| entry.value))
    }
}
