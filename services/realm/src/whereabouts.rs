//! Where a message is that somebody has sent.

use std::collections::BTreeMap;

use antar_broker::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Timestamp};
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::{State, StatusEvent};
use antar_proto::{Address, ErrorCode, MessageId, RealmId, UserName};

use crate::mail::{Mail, is_group, receivers};
use crate::mailbox::{APPENDED_TOGETHER, CLOCK_SKEW_US, SCAN_ENTRIES_MAX, status_event};
use crate::shared::Shared;

/// How many entries are looked at where [`APPENDED_TOGETHER`] was not enough, and within what time the copy follows.
const APPENDED_BEFORE: ReadLimit = ReadLimit { entries_max: SCAN_ENTRIES_MAX, bytes_max: 32 * 1024 * 1024 };
const COPIED_WITHIN_US: u64 = 10 * 1_000_000;

/// Where a message is.
#[derive(Debug)]
pub struct MessageStatus {
    /// The least that was reached; `failed` if it failed for all.
    pub state: State,
    /// Each receiver with what was reached there, and why it failed.
    pub receivers: Vec<(Address, State, Option<String>)>,
}

impl Shared {
    /// Where a message is that `user` sent; `None` if there is no such message.
    pub(crate) async fn status(
        &self,
        user: &UserName,
        id: MessageId,
    ) -> Result<Option<MessageStatus>, ReadError> {
        let _scan = self.scans.acquire().await;
        let found = self.find_sent(user, id).await?;
        if found.is_empty() {
            return self.group_status(user, id).await;
        }
        let mut status = Vec::new();
        for entry in &found {
            self.status_of(user, id, entry, &mut status).await?;
        }
        let live = status.iter().filter(|(_, state, _)| *state != State::Failed);
        let state = live.map(|(_, state, _)| *state).min().unwrap_or(State::Failed);
        Ok(Some(MessageStatus { state, receivers: status }))
    }

    /// What a realm has said of a message since it was sent.
    pub(crate) async fn news_since(
        &self,
        user: &UserName,
        realm: &RealmId,
        id: MessageId,
        sent: Timestamp,
    ) -> Result<Vec<StatusEvent>, ReadError> {
        let news = Filter::from(&self.places.mail_status(user));
        let start = ReadFrom::Since(Timestamp(sent.0.saturating_sub(CLOCK_SKEW_US)));
        let concerns = |event: &StatusEvent| event.realm == *realm && event.ids.contains(&id);
        let is_it = |entry: &Entry| status_event(entry).is_some_and(|event| concerns(&event));
        let found = self.scan(&news, start, None, is_it).await?;
        Ok(found.iter().filter_map(|entry| status_event(entry)).collect())
    }

    async fn status_of(
        &self,
        user: &UserName,
        id: MessageId,
        entry: &Entry,
        status: &mut Vec<(Address, State, Option<String>)>,
    ) -> Result<(), ReadError> {
        let Some(dest) = Mail::of(entry).and_then(|mail| mail.dest.parse::<RealmId>().ok()) else {
            return Ok(());
        };
        let own = self.places.realm();
        if dest == *own {
            for receiver in receivers(entry) {
                let (state, reason) = self.local_state(&receiver, BOX_LOCAL, id, entry).await?;
                status.push((Address { user: receiver, realm: own.clone() }, state, reason));
            }
            return Ok(());
        }
        if is_group(entry) {
            for receiver in receivers(entry).into_iter().filter(|user| self.accounts.get(user).is_some()) {
                let (state, reason) = self.local_state(&receiver, dest.as_str(), id, entry).await?;
                status.push((Address { user: receiver, realm: own.clone() }, state, reason));
            }
        }
        let mut states: BTreeMap<UserName, (State, Option<String>)> =
            receivers(entry).into_iter().map(|user| (user, (State::Accepted, None))).collect();
        for event in self.news_since(user, &dest, id, entry.time).await? {
            for (user, (state, reason)) in &mut states {
                // What was put aside, and its sender told so, may have been delivered after all.
                let is_later = event.state > *state
                    || (*state == State::Failed && matches!(event.state, State::Delivered | State::Read));
                if (event.users.is_empty() || event.users.contains(user)) && is_later {
                    (*state, *reason) = (event.state, event.reason.clone());
                }
            }
        }
        status.extend(
            states
                .into_iter()
                .map(|(user, (state, reason))| (Address { user, realm: dest.clone() }, state, reason)),
        );
        Ok(())
    }

    /// Where a message of this realm is with one receiver. `sent` is the sender's copy, which is appended with those of
    /// the receivers and behind them; only one that was broken off and tried again can stand before them. What is read may
    /// be trimmed; what is neither there nor trimmed never came in, because the mailbox was full.
    async fn local_state(
        &self,
        receiver: &UserName,
        mailbox: &str,
        id: MessageId,
        sent: &Entry,
    ) -> Result<(State, Option<String>), ReadError> {
        let filter = Filter::from(&self.places.mail_box(receiver, mailbox));
        let is_it = |entry: &Entry| Mail::of(entry).is_some_and(|mail| mail.id == id);
        let mut older = self.broker.read(&filter, ReadFrom::Before(sent.seq), APPENDED_TOGETHER).await?;
        let mut found = older.entries.iter().find(|entry| is_it(entry)).cloned();
        if found.is_none() && older.more {
            older = self.broker.read(&filter, ReadFrom::Before(sent.seq), APPENDED_BEFORE).await?;
            found = older.entries.iter().find(|entry| is_it(entry)).cloned();
        }
        if found.is_none() {
            found = self.scan(&filter, ReadFrom::After(sent.seq), Some(1), is_it).await?.into_iter().next();
        }
        if let Some(entry) = found {
            let is_read = entry.seq <= self.cursors.get(receiver, mailbox);
            return Ok((if is_read { State::Read } else { State::Delivered }, None));
        }
        // A copy follows its original within seconds. A box that has taken more than was looked at since then was not full.
        let looked_since = older.entries.last().filter(|_| older.more).map(|entry| entry.time.0);
        if looked_since.is_some_and(|time| time + COPIED_WITHIN_US > sent.time.0) {
            return Ok((State::Delivered, None));
        }
        match older.entries.is_empty() {
            false => Ok((State::Failed, Some(ErrorCode::MailboxFull.as_str().to_owned()))),
            true => Ok((State::Read, None)),
        }
    }
}
