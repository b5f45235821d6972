//! Reading mailboxes: what is unread, what was said, and where a message is.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use antar_broker::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Seq, Timestamp};
use antar_proto::command::With;
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::{Message, State, StatusEvent};
use antar_proto::{Address, ErrorCode, MessageId, RealmId, UserName};

use crate::cursor::{ReadMark, RemoteRead};
use crate::mail::{Mail, receivers};
use crate::places::{BOX_SENT, BOX_STATUS, box_of};
use crate::realm::Shared;

/// Most messages, and bytes of them, in one reply to `inbox` (`protocol.md`).
pub(crate) const INBOX_LIMIT: ReadLimit = ReadLimit { entries_max: 500, bytes_max: 1024 * 1024 };
/// Most entries that one `history` or `status` looks at.
const SCAN_ENTRIES_MAX: usize = 20_000;
/// How many it reads at a time.
const SCAN_PAGE: ReadLimit = ReadLimit { entries_max: 500, bytes_max: 4 * 1024 * 1024 };
/// How far the clock that made an id may differ from the broker's.
const CLOCK_SKEW_US: u64 = 120 * 1_000_000;

/// Unread messages, in the order in which they were stored.
#[derive(Debug, Default)]
pub struct Unread {
    /// The sender's user name (empty for a notice) and the message.
    pub messages: Vec<(String, Message)>,
    /// There are more.
    pub more: bool,
    /// To be given to [`crate::Realm::mark_read`] once the reply was written.
    pub marks: Vec<ReadMark>,
}

/// A piece of what was said.
#[derive(Debug, Default)]
pub struct History {
    /// Newest last.
    pub messages: Vec<Message>,
    /// There may be more before the first.
    pub more: bool,
}

/// Where a message is.
#[derive(Debug)]
pub struct MessageStatus {
    /// The least that was reached; `failed` if it failed for all.
    pub state: State,
    /// Each receiver with what was reached there, and why it failed.
    pub receivers: Vec<(Address, State, Option<String>)>,
}

impl Shared {
    /// What a user has not read in one box, after its cursor.
    pub(crate) async fn unread(
        &self,
        user: &UserName,
        mailbox: &str,
        limit: ReadLimit,
    ) -> Result<Unread, ReadError> {
        let subject = match mailbox.parse::<RealmId>() {
            Ok(peer) => self.places.mail_realm(user, &peer),
            Err(_) => self.places.mail_local(user),
        };
        let cursor = self.cursors.get(user, mailbox);
        let mut unread = Unread::default();
        if self.broker.last(&subject).await? <= cursor {
            return Ok(unread);
        }
        let page = self.broker.read(&Filter::from(&subject), ReadFrom::After(cursor), limit).await?;
        unread.more = page.more;
        if let Some(last) = page.entries.last() {
            let mut mark =
                ReadMark { user: user.clone(), mailbox: mailbox.into(), upto: last.seq, remote: Vec::new() };
            for entry in &page.entries {
                let Some(mail) = Mail::of(entry) else { continue };
                mark.remote.extend(self.remote_read(user, &mail));
                unread.messages.push((mail.sender_user().to_owned(), self.message_to(user, &mail)));
            }
            unread.marks.push(mark);
        }
        Ok(unread)
    }

    /// What a user has not read of other realms: of one, or with the own id of any.
    pub(crate) async fn unread_realm(&self, user: &UserName, realm: &RealmId) -> Result<Unread, ReadError> {
        if realm != self.places.realm() {
            return self.unread(user, realm.as_str(), INBOX_LIMIT).await;
        }
        let mut all = Unread::default();
        for peer in self.peers.all() {
            let limit = ReadLimit {
                entries_max: INBOX_LIMIT.entries_max.saturating_sub(all.messages.len()),
                ..INBOX_LIMIT
            };
            if limit.entries_max == 0 {
                all.more = true;
                break;
            }
            let one = self.unread(user, peer.realm.as_str(), limit).await?;
            all.messages.extend(one.messages);
            all.marks.extend(one.marks);
            all.more |= one.more;
        }
        all.messages.sort_by(|a, b| a.1.ts.cmp(&b.1.ts));
        Ok(all)
    }

    /// For a message of another realm: that it was read, to be told there.
    pub(crate) fn remote_read(&self, reader: &UserName, mail: &Mail<'_>) -> Option<RemoteRead> {
        let from: Address = mail.from.parse().ok()?;
        (mail.kind == "message" && from.realm != *self.places.realm()).then(|| RemoteRead {
            origin: from.realm,
            sender: from.user,
            reader: reader.clone(),
            id: mail.id,
        })
    }

    /// A message as its receiver sees it.
    pub(crate) fn message_to(&self, user: &UserName, mail: &Mail<'_>) -> Message {
        let account = self.accounts.get(user);
        let name = account.as_ref().map_or(user.as_str(), |account| account.name.as_str());
        mail.message(name, format!("{user}@{}", self.places.realm()))
    }

    /// A message as its sender sees it: to whom it was written instead of to whom it was filed.
    fn message_from(&self, entry: &Entry, mail: &Mail<'_>) -> Message {
        let to = receivers(entry);
        let own = mail.dest == self.places.realm().as_str();
        let shown = |user: &UserName| match self.accounts.get(user).filter(|_| own) {
            Some(account) => account.name.clone(),
            None => user.to_string(),
        };
        let names: Vec<String> = to.iter().map(shown).collect();
        let addresses: Vec<String> = to.iter().map(|user| format!("{user}@{}", mail.dest)).collect();
        mail.message(&names.join(", "), addresses.join(","))
    }

    /// What a user said and was told, read or not, before a message or up to now.
    pub(crate) async fn history(
        &self,
        user: &UserName,
        with: &With,
        before: Option<MessageId>,
        limit: usize,
    ) -> Result<History, ReadError> {
        let filter = self.places.mail_all(user);
        let mut from = match before.and_then(time_of) {
            Some(time) => self.first_since(&filter, Timestamp(time.0 + CLOCK_SKEW_US)).await?,
            None => ReadFrom::End,
        };
        let mut below = before;
        let mut seen = HashSet::new();
        let mut history = History { messages: Vec::new(), more: true };
        let mut scanned = 0;
        while history.messages.len() < limit && scanned < SCAN_ENTRIES_MAX {
            let page = self.broker.read(&filter, from, SCAN_PAGE).await?;
            scanned += page.entries.len();
            let mut rest = page.entries.iter();
            for entry in rest.by_ref() {
                if box_of(&entry.subject) == BOX_STATUS {
                    continue;
                }
                let Some(mail) = Mail::of(entry) else { continue };
                if below.is_some() {
                    // Everything down to the message named is newer.
                    if below == Some(mail.id) {
                        seen.insert((mail.id, mail.from.to_string()));
                        below = None;
                    }
                    continue;
                }
                if self.is_with(with, entry, &mail) && seen.insert((mail.id, mail.from.to_string())) {
                    let own = box_of(&entry.subject) == BOX_SENT;
                    history.messages.push(if own {
                        self.message_from(entry, &mail)
                    } else {
                        self.message_to(user, &mail)
                    });
                    if history.messages.len() == limit {
                        break;
                    }
                }
            }
            let last = page.entries.last().map(|entry| entry.seq);
            history.more = page.more || rest.next().is_some();
            match last {
                Some(seq) if page.more => from = ReadFrom::Before(seq),
                _ => break,
            }
        }
        history.messages.reverse();
        Ok(history)
    }

    /// Where a backward read begins that shall see everything stored before `time`.
    async fn first_since(&self, filter: &Filter, time: Timestamp) -> Result<ReadFrom, ReadError> {
        let page = self.broker.read(filter, ReadFrom::Since(time), ReadLimit::entries(1)).await?;
        Ok(page.entries.first().map_or(ReadFrom::End, |entry| ReadFrom::Before(entry.seq)))
    }

    /// Whether an entry belongs to a conversation.
    fn is_with(&self, with: &With, entry: &Entry, mail: &Mail<'_>) -> bool {
        let mailbox = box_of(&entry.subject);
        let own = self.places.realm().as_str();
        let (other, user) = match with {
            With::All => return true,
            With::Realm(realm) => {
                return mailbox == realm.as_str() || (mailbox == BOX_SENT && mail.dest == realm.as_str());
            }
            With::User(user) => (own, user),
            With::Remote(address) => (address.realm.as_str(), &address.user),
        };
        let theirs = if other == own { BOX_LOCAL } else { other };
        match mailbox {
            BOX_SENT => mail.dest == other && receivers(entry).contains(user),
            _ => mailbox == theirs && mail.sender_user() == user.as_str(),
        }
    }

    /// Where a message is that `user` sent; `None` if there is no such message.
    pub(crate) async fn status(
        &self,
        user: &UserName,
        id: MessageId,
    ) -> Result<Option<MessageStatus>, ReadError> {
        let sent = self.places.mail_sent(user);
        let start = match time_of(id) {
            Some(time) => ReadFrom::Since(Timestamp(time.0.saturating_sub(CLOCK_SKEW_US))),
            None => ReadFrom::After(Seq::ZERO),
        };
        let found = self
            .scan(&Filter::from(&sent), start, |entry| Mail::of(entry).is_some_and(|mail| mail.id == id))
            .await?;
        if found.is_empty() {
            return Ok(None);
        }
        // One entry for each realm it went to; they were appended together.
        let mut status = Vec::new();
        for entry in &found {
            self.status_of(user, id, entry, &mut status).await?;
        }
        let live = status.iter().filter(|(_, state, _)| *state != State::Failed);
        let state = live.map(|(_, state, _)| *state).min().unwrap_or(State::Failed);
        Ok(Some(MessageStatus { state, receivers: status }))
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
        if dest == *self.places.realm() {
            for receiver in receivers(entry) {
                let (state, reason) = self.local_state(&receiver, id, entry.time).await?;
                status.push((Address { user: receiver, realm: dest.clone() }, state, reason));
            }
            return Ok(());
        }
        let mut states: BTreeMap<UserName, (State, Option<String>)> =
            receivers(entry).into_iter().map(|user| (user, (State::Accepted, None))).collect();
        let news = Filter::from(&self.places.mail_status(user));
        let start = ReadFrom::Since(Timestamp(entry.time.0.saturating_sub(CLOCK_SKEW_US)));
        let concerns = |event: &StatusEvent| event.realm == dest && event.ids.contains(&id);
        for entry in
            self.scan(&news, start, |entry| status_event(entry).is_some_and(|event| concerns(&event))).await?
        {
            let Some(event) = status_event(&entry) else { continue };
            for (user, (state, reason)) in &mut states {
                if (event.users.is_empty() || event.users.contains(user)) && event.state > *state {
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

    /// Where a message of this realm, stored at `time`, is with one receiver. What is read may be trimmed; what is
    /// neither there nor trimmed never came in, because the mailbox was full.
    async fn local_state(
        &self,
        receiver: &UserName,
        id: MessageId,
        time: Timestamp,
    ) -> Result<(State, Option<String>), ReadError> {
        let local = Filter::from(&self.places.mail_local(receiver));
        let is_it = |entry: &Entry| Mail::of(entry).is_some_and(|mail| mail.id == id);
        let found = self.scan(&local, ReadFrom::Since(time), is_it).await?;
        if let Some(entry) = found.first() {
            let is_read = entry.seq <= self.cursors.get(receiver, BOX_LOCAL);
            return Ok((if is_read { State::Read } else { State::Delivered }, None));
        }
        let oldest = self.broker.read(&local, ReadFrom::After(Seq::ZERO), ReadLimit::entries(1)).await?;
        match oldest.entries.first() {
            Some(oldest) if oldest.time < time => {
                Ok((State::Failed, Some(ErrorCode::MailboxFull.as_str().to_owned())))
            }
            _ => Ok((State::Read, None)),
        }
    }

    /// Entries that `wanted` picks, forward, among the next [`SCAN_ENTRIES_MAX`].
    async fn scan(
        &self,
        filter: &Filter,
        mut from: ReadFrom,
        wanted: impl Fn(&Entry) -> bool + Send,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        let (mut found, mut scanned) = (Vec::new(), 0);
        loop {
            let page = self.broker.read(filter, from, SCAN_PAGE).await?;
            scanned += page.entries.len();
            found.extend(page.entries.iter().filter(|entry| wanted(entry)).cloned());
            match page.entries.last() {
                Some(last) if page.more && scanned < SCAN_ENTRIES_MAX => from = ReadFrom::After(last.seq),
                _ => return Ok(found),
            }
        }
    }
}

/// The news that an entry of a `_status` box holds.
pub(crate) fn status_event(entry: &Entry) -> Option<StatusEvent> {
    serde_json::from_slice(&entry.body).ok()
}

/// When a version 7 id was made.
fn time_of(id: MessageId) -> Option<Timestamp> {
    let (secs, nanos) = id.0.get_timestamp().filter(|_| id.0.get_version_num() == 7)?.to_unix();
    Some(Timestamp(secs.saturating_mul(1_000_000).saturating_add(u64::from(nanos) / 1_000)))
}
