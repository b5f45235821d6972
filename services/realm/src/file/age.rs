//! When files go: with the messages that name them, and uploads that nobody ends within a day.

use std::time::Duration;

use antar_broker::{Expect, Filter, KvError, ReadFrom, ReadLimit, Timestamp};
use antar_proto::names::BOX_LOCAL;
use antar_proto::{GroupName, RealmId, UserName};

use super::{FileError, FileRecord, FileState, Files};
use crate::shared::Shared;

/// How long the parts of a file may take.
const UPLOAD_TIME: Duration = Duration::from_secs(24 * 3600);

impl Files {
    /// Removes a file: its record is marked first, so that whatever is broken off goes on at the next look.
    pub(super) async fn remove(&self, key: &str) -> Result<(), FileError> {
        let known = loop {
            let Some((known, revision)) = self.records.get_with_revision(key) else { return Ok(()) };
            if known.state == FileState::Going {
                break known;
            }
            let going = FileRecord { state: FileState::Going, ..(*known).clone() };
            match self.records.put(key, &going, Expect::Revision(revision), None).await {
                // It has just come further, or is being removed elsewhere.
                Err(KvError::Conflict) => self.records.catch_up(key).await?,
                other => {
                    other?;
                    break known;
                }
            }
        };
        // Of one from another realm the message stands before the parts.
        let first = if known.origin.is_some() { 0 } else { 1 };
        for number in first..=known.parts {
            self.broker.kv_delete(&self.parts, &known.part_key(number), Expect::Any).await?;
        }
        Ok(self.records.delete(key).await?)
    }
}

impl Files {
    /// Removes what was sent to a group of this realm: whoever makes one of this name later must not find it there.
    pub(crate) async fn forget_group(&self, group: &GroupName) -> Result<(), FileError> {
        for (key, _, _) in self.records.select(|record| record.group.as_ref() == Some(group)) {
            self.remove(&key).await?;
        }
        Ok(())
    }

    /// Removes what a user has sent, and takes the user off the receivers of everything else: who gets this name later must not
    /// find any of it.
    pub(crate) async fn forget(&self, user: &UserName) -> Result<(), KvError> {
        for (key, record) in self.records.all() {
            if record.is_of(user) {
                self.remove(&key).await.map_err(|error| KvError::Unavailable(error.to_string()))?;
                continue;
            }
            while let Some((record, revision)) = self.records.get_with_revision(&key) {
                if !record.to.contains(user) {
                    break;
                }
                let mut left = (*record).clone();
                left.to.retain(|receiver| receiver != user);
                match self.records.put(&key, &left, Expect::Revision(revision), None).await {
                    Err(KvError::Conflict) => self.records.catch_up(&key).await?,
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

/// Removes the files whose time has come.
pub(crate) async fn sweep(shared: &Shared) {
    for (key, record) in shared.files.records.all() {
        let removed = match shared.is_over(&record).await {
            Ok(true) => shared.files.remove(&key).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(realm = %shared.places.realm(), id = %record.id, %error, "a file was not removed this time");
        }
    }
}

impl Shared {
    /// Whether nobody needs a file any more.
    async fn is_over(&self, record: &FileRecord) -> Result<bool, FileError> {
        let age = Duration::from_micros(Timestamp::now().0.saturating_sub(record.created));
        match record.state {
            FileState::Going => return Ok(true),
            // Whoever asks for its bytes gives up by itself, and tells its realm.
            FileState::Open | FileState::Whole if record.origin.is_some() => return Ok(false),
            FileState::Open => return Ok(age > UPLOAD_TIME),
            FileState::Whole | FileState::Sent if age <= self.config.retention => return Ok(false),
            FileState::Whole | FileState::Sent => {}
        }
        for user in &record.to {
            if self.accounts.get(user).is_none() {
                continue;
            }
            // Who has not read what is as old may not have read the message, either.
            let mailbox = record.origin.as_ref().or(record.under.as_ref()).map_or(BOX_LOCAL, RealmId::as_str);
            let after = ReadFrom::After(self.cursors.get(user, mailbox));
            let subject = self.places.mail_box(user, mailbox);
            let page = self.broker.read(&Filter::from(&subject), after, ReadLimit::entries(1)).await;
            let page = page.map_err(|error| FileError::Unavailable(error.to_string()))?;
            let oldest = page
                .entries
                .first()
                .map(|entry| Duration::from_micros(Timestamp::now().0.saturating_sub(entry.time.0)));
            if oldest.is_some_and(|oldest| oldest + UPLOAD_TIME >= age.saturating_sub(UPLOAD_TIME)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
