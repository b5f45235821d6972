//! How a file comes in: a record first, then its parts in any order, and with the last one the message that names it.

use std::sync::Arc;

use antar_broker::{Expect, KvError, Timestamp};
use antar_proto::command::Receiver;
use antar_proto::file::{FileInfo, Part, safe_name};
use antar_proto::{Address, GroupName, MessageId, UserName};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    FILES_PER_USER_MAX, FileError, FileRecord, FileState, Files, PART_BYTES_MAX, PART_BYTES_MIN,
    UPLOADS_PER_USER_MAX, key_of,
};
use crate::hex::hex;
use crate::plan::Plan;
use crate::send::{Said, Send, SendError, SendId};
use crate::shared::Shared;

/// What is known of a file whose type nothing tells.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A file that is to be sent, or a part of one.
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    /// Its id, which becomes the message's.
    pub id: MessageId,
    /// For whom.
    pub to: Send<'a>,
    /// As the sender calls it.
    pub name: &'a str,
    /// Which part is at hand, of how many, and how large the whole is.
    pub part: Part,
    /// What the sender says the SHA-256 of the whole is.
    pub sha256: Option<&'a str>,
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// It had been stored before.
    pub duplicate: bool,
    /// The file, if it is whole and sent; else there are parts to come.
    pub file: Option<FileInfo>,
    /// Receivers that do not exist.
    pub unknown: Vec<String>,
    /// Receivers whose mailbox is full.
    pub full: Vec<String>,
}

impl Shared {
    /// Stores one part; durable when this returns. The last one makes the file whole and sends the message, if no other is
    /// missing. Whatever is repeated is answered alike.
    pub(crate) async fn put_part(
        self: &Arc<Self>,
        owner: &UserName,
        new: NewFile<'_>,
        bytes: Bytes,
    ) -> Result<Stored, FileError> {
        let (record, unknown) = self.begin(owner, new, Some(bytes.len() as u64)).await?;
        let Part { number, parts, .. } = new.part;
        let put = self
            .broker
            .kv_put(&self.files.parts, &record.part_key(number), bytes.clone(), Expect::Absent, None)
            .await;
        let duplicate = match put {
            Ok(_) => {
                self.files.check_there(&record, number).await?;
                false
            }
            Err(KvError::Conflict) => match self.files.part(&record, number).await? {
                Some(there) if there == bytes => true,
                _ => return Err(FileError::Mismatch("the part was sent before, with other bytes".into())),
            },
            Err(error) => return Err(error.into()),
        };
        if number < parts {
            return Ok(Stored { duplicate, file: None, unknown, full: Vec::new() });
        }
        let file = self.complete(&record, new.sha256).await?;
        let full = self.announce(owner, &record, &file).await?;
        Ok(Stored { duplicate, file: Some(file), unknown, full })
    }

    /// The record of a file, made if this is the first that is heard of it. What is too much is refused here, before
    /// anything is stored.
    pub(super) async fn begin(
        &self,
        owner: &UserName,
        new: NewFile<'_>,
        length: Option<u64>,
    ) -> Result<(Arc<FileRecord>, Vec<String>), FileError> {
        let (most, size) = (self.config.file_bytes_max, new.part.size);
        if size > most {
            return Err(FileError::TooLarge(most));
        }
        if size == 0 {
            return Err(FileError::Refused("an empty file is not sent".into()));
        }
        if new.part.bytes().is_none_or(|bytes| bytes > PART_BYTES_MAX) {
            let why = format!(
                "{size} bytes cannot be {} parts: all but the last are equal, none is empty or has more than {PART_BYTES_MAX} bytes",
                new.part.parts
            );
            return Err(FileError::Refused(why));
        }
        if length.is_some() && new.part.bytes() != length {
            return Err(FileError::Refused("a part has another length than it has to have".into()));
        }
        if new.id.is_assigned() {
            return Err(SendError::IdAssigned.into());
        }
        let group = self.group_of_file(owner, new.to).await?;
        let plan = if group.is_some() { Plan::default() } else { self.plan_file(owner, new.to).await? };
        let unknown = plan.unknown.clone();
        let (to, elsewhere) = plan.receivers();
        if to.is_empty() && elsewhere.is_empty() && group.is_none() {
            return Err(SendError::NoSuchUser(unknown).into());
        }
        if !elsewhere.is_empty() && new.part.parts > 1 && size < PART_BYTES_MIN * u64::from(new.part.parts) {
            let why = format!("parts for another realm have {PART_BYTES_MIN} bytes or more");
            return Err(FileError::Refused(why));
        }
        let key = key_of(new.id, None);
        let record = FileRecord {
            id: new.id,
            owner: owner.clone(),
            origin: None,
            to,
            elsewhere,
            under: match new.to {
                Send::RealmGroup(realm, _) if realm != self.places.realm() => Some(realm.clone()),
                _ => None,
            },
            group,
            name: safe_name(new.name),
            size,
            parts: new.part.parts,
            claimed: new.sha256.map(str::to_ascii_lowercase),
            state: FileState::Open,
            created: Timestamp::now().0,
            media: None,
            sha256: None,
            fetcher: None,
            inbox: None,
        };
        let known = match self.files.records.fresh(&key).await? {
            Some(known) => known,
            None => {
                let most = self.config.user_file_bytes_max;
                self.files.check_quota(owner, Some(size), most)?;
                match self.files.records.put(&key, &record, Expect::Absent, None).await {
                    // Now all edges see it, and here is seen what was begun on others before: it counts too.
                    Ok(()) => {
                        if let Err(error) = self.files.check_quota(owner, None, most) {
                            self.files.remove(&key).await?;
                            return Err(error);
                        }
                    }
                    Err(KvError::Conflict) => self.files.records.catch_up(&key).await?,
                    Err(error) => return Err(error.into()),
                }
                self.files.records.get(&key).ok_or(FileError::NoSuchFile)?
            }
        };
        let same =
            |of: &FileRecord| (of.owner.clone(), of.to.clone(), of.elsewhere.clone(), of.group.clone());
        let is_same = (&known.name, known.size, known.parts) == (&record.name, record.size, record.parts);
        if !is_same || same(&known) != same(&record) || known.state == FileState::Going {
            return Err(FileError::Mismatch("the id was used for another file".into()));
        }
        if known.claimed.is_some() && record.claimed.is_some() && known.claimed != record.claimed {
            return Err(FileError::Mismatch("another SHA-256 was said before".into()));
        }
        Ok((known, unknown))
    }

    /// The group that a file is for, if it is one of this realm of which its sender is a member.
    async fn group_of_file(&self, from: &UserName, to: Send<'_>) -> Result<Option<GroupName>, FileError> {
        let Send::Named(group) = to else { return Ok(None) };
        let group = self.as_kept(group);
        if group.realm.is_some() {
            return Err(FileError::Refused("a file is sent to a group of this realm only".into()));
        }
        self.find_member(&group, from).await.map_err(SendError::from)?;
        Ok(Some(group.group))
    }

    /// Who gets a file. Who was added elsewhere a moment ago is looked for first: a file comes seldom enough.
    async fn plan_file(&self, from: &UserName, to: Send<'_>) -> Result<Plan, FileError> {
        self.look_up(to).await?;
        Ok(self.plan(from, to)?)
    }

    /// Looks at all parts: whether they are there, what they are, and whether they are what was promised, at first or now.
    pub(super) async fn complete(
        &self,
        record: &FileRecord,
        claimed: Option<&str>,
    ) -> Result<FileInfo, FileError> {
        let is_claimed = |sum: &str| {
            record.claimed.as_deref().is_none_or(|claimed| claimed == sum)
                && claimed.is_none_or(|claimed| claimed.eq_ignore_ascii_case(sum))
        };
        if let Some(info) = record.info() {
            return match is_claimed(&info.sha256) {
                true => Ok(info),
                false => Err(FileError::Mismatch(format!("it was sent with the SHA-256 {}", info.sha256))),
            };
        }
        let (mut hasher, mut media) = (Sha256::new(), UNKNOWN_TYPE.to_owned());
        for number in 1..=record.parts {
            let Some(bytes) = self.files.part(record, number).await? else {
                return Err(FileError::Incomplete(number, record.parts));
            };
            if number == 1 {
                media = media_type(&bytes).into();
            }
            hasher.update(&bytes);
        }
        let sha256 = hex(&hasher.finalize());
        if !is_claimed(&sha256) {
            // That of another realm is removed once its realm was told.
            if record.origin.is_none() {
                self.files.remove(&record.key()).await?;
            }
            return Err(FileError::Mismatch(format!(
                "what has arrived has the SHA-256 {sha256}; it was removed: send it again under another id"
            )));
        }
        let whole = FileRecord {
            state: FileState::Whole,
            media: Some(media),
            sha256: Some(sha256),
            ..record.clone()
        };
        self.files.replace(&whole).await?;
        whole.info().ok_or(FileError::NoSuchFile)
    }

    /// Sends the message that names a file, unless that was done. Who has a full mailbox.
    async fn announce(
        self: &Arc<Self>,
        owner: &UserName,
        record: &FileRecord,
        file: &FileInfo,
    ) -> Result<Vec<String>, FileError> {
        if record.state == FileState::Sent {
            return Ok(Vec::new());
        }
        let own = self.places.realm();
        let here = record.to.iter().map(|user| Address { user: user.clone(), realm: own.clone() });
        let to: Vec<Receiver> =
            here.chain(record.elsewhere.iter().cloned()).map(Receiver::Qualified).collect();
        let group = record.group();
        let to = match (&record.under, &group) {
            (_, Some(group)) => Send::Named(group),
            (Some(realm), None) => Send::RealmGroup(realm, &to),
            (None, None) => Send::Group(&to),
        };
        let text = format!("[file] {} ({} bytes, {}): getfile {}", file.name, file.size, file.media, file.id);
        let said = Said { text: &text, file: Some(file) };
        // Stored under the file's id: what is sent again finds it there.
        let sent = self.send(owner, to, said, SendId::Chosen(file.id)).await?.await?;
        let (media, sha256) = (Some(file.media.clone()), Some(file.sha256.clone()));
        self.files.replace(&FileRecord { state: FileState::Sent, media, sha256, ..record.clone() }).await?;
        Ok(sent.full)
    }
}

impl Files {
    /// Whether a user may have one more file of this size, or what there is, as far as this edge has seen.
    fn check_quota(&self, owner: &UserName, more: Option<u64>, bytes_max: u64) -> Result<(), FileError> {
        let (mut files, mut open, mut bytes) = (0, 0, 0_u64);
        for (_, record, _) in self.records.select(|record| record.is_of(owner)) {
            files += 1;
            open += usize::from(record.state == FileState::Open);
            bytes = bytes.saturating_add(record.size);
        }
        let one_more = usize::from(more.is_some());
        let refused = |why: String| Err(FileError::Quota(why));
        if bytes.saturating_add(more.unwrap_or(0)) > bytes_max {
            return refused(format!("your files have {bytes} bytes of the {bytes_max} that they may have"));
        }
        if files + one_more > FILES_PER_USER_MAX {
            return refused(format!("you have {files} files, and may have no more"));
        }
        if open + one_more > UPLOADS_PER_USER_MAX {
            return refused(format!("{open} of your files are not whole: end these first"));
        }
        Ok(())
    }

    /// Writes a record that has come further, unless it has come as far elsewhere.
    pub(super) async fn replace(&self, record: &FileRecord) -> Result<(), FileError> {
        let key = record.key();
        loop {
            let known = self.records.get_with_revision(&key);
            let Some((known, revision)) = known.filter(|(known, _)| known.state != FileState::Going) else {
                return Err(FileError::NoSuchFile);
            };
            if known.state == FileState::Sent && record.state != FileState::Sent {
                return Ok(());
            }
            let FileRecord { state, media, sha256, fetcher, .. } = record.clone();
            // Who may have it is as it is by now: a receiver may have been erased.
            let further = FileRecord { state, media, sha256, fetcher, ..(*known).clone() };
            if further == *known {
                return Ok(());
            }
            match self.records.put(&key, &further, Expect::Revision(revision), None).await {
                Err(KvError::Conflict) => self.records.catch_up(&key).await?,
                other => return Ok(other?),
            }
        }
    }

    /// Removes a part again whose file was removed meanwhile: nobody would find it.
    async fn check_there(&self, record: &FileRecord, number: u32) -> Result<(), FileError> {
        let key = record.key();
        self.records.catch_up(&key).await?;
        if self.records.get(&key).is_some_and(|known| known.state != FileState::Going) {
            return Ok(());
        }
        self.broker.kv_delete(&self.parts, &record.part_key(number), Expect::Any).await?;
        Err(FileError::NoSuchFile)
    }
}

/// What the first bytes of a file are; never what its sender says.
fn media_type(first: &[u8]) -> &'static str {
    if let Some(known) = infer::get(first) {
        return known.mime_type();
    }
    // The last character may go on in the next part.
    let is_text = match std::str::from_utf8(first) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    let is_plain = first.iter().all(|&b| b >= b' ' || matches!(b, b'\t' | b'\n' | b'\r' | 0x0c));
    if is_text && is_plain { "text/plain" } else { UNKNOWN_TYPE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_in_the_bytes() {
        for (bytes, media) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "image/png"),
            (b"%PDF-1.7\n", "application/pdf"),
            (b"halo\n", "text/plain"),
            (b"caf\xc3", "text/plain"),
            (b"\xff\xfe\x00\x01", UNKNOWN_TYPE),
            (b"a\0b", UNKNOWN_TYPE),
        ] {
            assert_eq!(media_type(bytes), media, "{bytes:?}");
        }
    }
}
