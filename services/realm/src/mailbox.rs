//! Reading mailboxes: what is unread, and what was said.

use std::collections::HashSet;
use std::sync::Arc;

use antar_broker::{Entry, EntryId, Filter, ReadError, ReadFrom, ReadLimit, Seq, Subject, Timestamp};
use antar_proto::command::With;
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::{Message, StatusEvent};
use antar_proto::{Address, MessageId, RealmId, UserName};

use crate::cursor::{ReadMark, RemoteRead};
use crate::mail::{Mail, receivers};
use crate::places::{BOX_SENT, BOX_STATUS, box_of};
use crate::replayed::is_replayed;
use crate::shared::Shared;

/// Most messages, and bytes of them, in one reply to `inbox` (`protocol.md`).
pub(crate) const INBOX_LIMIT: ReadLimit = ReadLimit { entries_max: 500, bytes_max: 1024 * 1024 };
/// Most entries that one `history` or `status` looks at.
pub(crate) const SCAN_ENTRIES_MAX: usize = 20_000;
/// A message to several realms has an entry for each, close together in the sender's box.
const SENT_TOGETHER_MAX: usize = 64;
/// How many it reads at a time.
const SCAN_PAGE: ReadLimit = ReadLimit { entries_max: 500, bytes_max: 4 * 1024 * 1024 };
/// How many entries may come into a box between a receiver's copy of a message and its sender's.
pub(crate) const APPENDED_TOGETHER: ReadLimit = ReadLimit { entries_max: 1_000, bytes_max: 8 * 1024 * 1024 };
/// How far the clock that made an id may differ from the broker's, and those of the broker's parts from each other.
pub(crate) const CLOCK_SKEW_US: u64 = 120 * 1_000_000;

/// Unread messages, in the order in which they were stored.
#[derive(Debug, Default)]
pub struct Unread {
    /// The messages.
    pub messages: Vec<UnreadMessage>,
    /// There are more.
    pub more: bool,
    /// To be given to [`crate::Realm::mark_read`] once the reply was written.
    pub marks: Vec<ReadMark>,
}

/// An unread message.
#[derive(Debug)]
pub struct UnreadMessage {
    /// The sender's user name; empty for a notice.
    pub sender: String,
    /// As its receiver sees it.
    pub message: Message,
    seq: Seq,
    pub(crate) bytes: usize,
}

/// A piece of what was said.
#[derive(Debug, Default)]
pub struct History {
    /// Newest last.
    pub messages: Vec<Message>,
    /// There may be more before the first.
    pub more: bool,
}

impl Shared {
    /// What a user has not read in one box, after its cursor.
    pub(crate) async fn unread(
        &self,
        user: &UserName,
        mailbox: &str,
        limit: ReadLimit,
    ) -> Result<Unread, ReadError> {
        let subject = self.places.mail_box(user, mailbox);
        self.unread_in(user, mailbox, &subject, limit).await
    }

    /// What a user has not read on a subject, after the cursor of `mailbox`.
    pub(crate) async fn unread_in(
        &self,
        user: &UserName,
        mailbox: &str,
        subject: &Subject,
        limit: ReadLimit,
    ) -> Result<Unread, ReadError> {
        let mut unread = Unread::default();
        let last = self.broker.last(subject).await?;
        if last <= self.cursors.get(user, mailbox) {
            return Ok(unread);
        }
        // It may have been read on another edge a moment ago.
        let caught_up = self.cursors.catch_up(user, mailbox).await;
        caught_up.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        let cursor = self.cursors.get(user, mailbox);
        if last <= cursor {
            return Ok(unread);
        }
        let page = self.broker.read(&Filter::from(subject), ReadFrom::After(cursor), limit).await?;
        unread.more = page.more;
        if let Some(last) = page.entries.last() {
            let mut mark =
                ReadMark { user: user.clone(), mailbox: mailbox.into(), upto: last.seq, remote: Vec::new() };
            for entry in &page.entries {
                let Some(mail) = Mail::of(entry) else { continue };
                mark.remote.extend(self.remote_read(user, entry, &mail));
                unread.messages.push(UnreadMessage {
                    sender: mail.sender_user().to_owned(),
                    message: self.message_to(user, &mail),
                    seq: entry.seq,
                    bytes: entry.body.len(),
                });
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
        let mut left = INBOX_LIMIT;
        for peer in self.peers.all() {
            if left.entries_max == 0 || left.bytes_max == 0 {
                all.more = true;
                break;
            }
            let one = self.unread(user, peer.realm.as_str(), left).await?;
            left.entries_max = left.entries_max.saturating_sub(one.messages.len());
            left.bytes_max = left.bytes_max.saturating_sub(one.bytes());
            all.messages.extend(one.messages);
            all.marks.extend(one.marks);
            all.more |= one.more;
        }
        // All boxes stand in one stream, so sequences tell the order.
        all.messages.sort_by_key(|message| message.seq);
        Ok(all)
    }

    /// For a message of another realm: that it was read, to be told there.
    pub(crate) fn remote_read(
        &self,
        reader: &UserName,
        entry: &Entry,
        mail: &Mail<'_>,
    ) -> Option<RemoteRead> {
        let from: Address = mail.from.parse().ok()?;
        (mail.kind == "message" && !is_replayed(entry) && from.realm != *self.places.realm()).then(|| {
            RemoteRead { origin: from.realm, sender: from.user, reader: reader.clone(), id: mail.id }
        })
    }

    /// A message as its receiver sees it.
    pub(crate) fn message_to(&self, user: &UserName, mail: &Mail<'_>) -> Message {
        if let Some(group) = mail.group(self.places.realm()) {
            let message = mail.message(&format!("#{group}"), format!("#{}@{}", group.group, mail.origin));
            return Message { group: Some(Box::new(group)), ..message };
        }
        let account = self.accounts.get(user);
        let name = account.as_ref().map_or(user.as_str(), |account| account.name.as_str());
        mail.message(name, format!("{user}@{}", self.places.realm()))
    }

    /// A message as its sender sees it: to whom it was written instead of to whom it was filed.
    pub(crate) fn message_from(&self, entry: &Entry, mail: &Mail<'_>) -> Message {
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

    /// What a user said and was told, read or not, before a message or up to now; `None` if that message is not found.
    pub(crate) async fn history(
        &self,
        user: &UserName,
        with: &With,
        before: Option<MessageId>,
        limit: usize,
    ) -> Result<Option<History>, ReadError> {
        let _scan = self.scans.acquire().await;
        let filter = self.said(user, with);
        if let Some(time) = before.and_then(time_of) {
            let hint = self.first_since(&filter, Timestamp(time.0 + CLOCK_SKEW_US)).await?;
            let found = self.history_from(user, with, before, limit, hint).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        // No message is named, or whoever made its id has another clock.
        self.history_from(user, with, before, limit, ReadFrom::End).await
    }

    async fn history_from(
        &self,
        user: &UserName,
        with: &With,
        mut below: Option<MessageId>,
        limit: usize,
        mut from: ReadFrom,
    ) -> Result<Option<History>, ReadError> {
        let filter = self.said(user, with);
        let mut seen = HashSet::new();
        let mut history = History { messages: Vec::new(), more: false };
        let (mut scanned, mut bytes) = (0, 0);
        'pages: loop {
            let page = self.broker.read(&filter, from, SCAN_PAGE).await?;
            for entry in &page.entries {
                let Some(mail) = Mail::of(entry).filter(|_| box_of(&entry.subject) != BOX_STATUS) else {
                    continue;
                };
                if let Some(named) = below {
                    // Everything down to the message named is newer.
                    if named == mail.id {
                        seen.insert((mail.id, mail.from.to_string()));
                        below = None;
                    }
                    continue;
                }
                if !self.is_with(with, entry, &mail) || !seen.insert((mail.id, mail.from.to_string())) {
                    continue;
                }
                bytes += entry.body.len();
                if history.messages.len() == limit
                    || (bytes > INBOX_LIMIT.bytes_max && !history.messages.is_empty())
                {
                    history.more = true;
                    break 'pages;
                }
                let own = box_of(&entry.subject) == BOX_SENT;
                let message =
                    if own { self.message_from(entry, &mail) } else { self.message_to(user, &mail) };
                history.messages.push(message);
            }
            scanned += page.entries.len();
            match page.entries.last() {
                Some(last) if page.more && scanned < SCAN_ENTRIES_MAX => from = ReadFrom::Before(last.seq),
                // Without a message to go on from, saying that there is more would lead nowhere.
                _ => {
                    history.more = page.more && !history.messages.is_empty();
                    break;
                }
            }
        }
        history.messages.reverse();
        Ok(below.is_none().then_some(history))
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
            With::All | With::Group(_) => return true,
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

    /// What a user has sent under this id: an entry for each realm it went to.
    pub(crate) async fn find_sent(
        &self,
        user: &UserName,
        id: MessageId,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        let sent = Filter::from(&self.places.mail_sent(user));
        let is_it = |entry: &Entry| Mail::of(entry).is_some_and(|mail| mail.id == id);
        if let Some(time) = time_of(id) {
            let start = ReadFrom::Since(Timestamp(time.0.saturating_sub(CLOCK_SKEW_US)));
            let found = self.scan(&sent, start, Some(SENT_TOGETHER_MAX), is_it).await?;
            if !found.is_empty() {
                return Ok(each_once(found));
            }
        }
        // Whoever made the id has another clock: look at the newest, wherever they are.
        let page = self
            .broker
            .read(&sent, ReadFrom::End, ReadLimit { entries_max: SCAN_ENTRIES_MAX, ..SCAN_PAGE })
            .await?;
        Ok(each_once(page.entries.into_iter().filter(|entry| is_it(entry)).collect()))
    }

    /// The entry of an append, known to have been made at about `seq`, on one of its subjects.
    pub(crate) async fn entry_of(
        &self,
        subject: &Subject,
        seq: Seq,
        id: &EntryId,
    ) -> Result<Option<Arc<Entry>>, ReadError> {
        let from = ReadFrom::After(Seq(seq.0.saturating_sub(1)));
        // Nearly always it is among the first.
        for limit in [ReadLimit::entries(16), APPENDED_TOGETHER] {
            let page = self.broker.read(&Filter::from(subject), from, limit).await?;
            let more = page.more;
            let found = page.entries.into_iter().find(|entry| entry.id == *id);
            if found.is_some() || !more {
                if found.is_some() {
                    return Ok(found);
                }
                break;
            }
        }
        // Another of its subjects may have been slower than this one.
        let page = self.broker.read(&Filter::from(subject), ReadFrom::Before(seq), APPENDED_TOGETHER).await?;
        Ok(page.entries.into_iter().find(|entry| entry.id == *id))
    }

    /// Whether a subject has entries before `seq`. One on which such an append has no entry was then left out of it:
    /// trimming takes the oldest first, so nothing was trimmed there that is newer.
    pub(crate) async fn has_older(&self, subject: &Subject, seq: Seq) -> Result<bool, ReadError> {
        let page =
            self.broker.read(&Filter::from(subject), ReadFrom::Before(seq), ReadLimit::entries(1)).await?;
        Ok(!page.entries.is_empty())
    }

    /// Entries that `wanted` picks, forward, among the next [`SCAN_ENTRIES_MAX`]. With `together` the first one, and
    /// those among so many behind it.
    pub(crate) async fn scan(
        &self,
        filter: &Filter,
        mut from: ReadFrom,
        together: Option<usize>,
        wanted: impl Fn(&Entry) -> bool + Send,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        let (mut found, mut scanned) = (Vec::new(), 0);
        let mut left = usize::MAX;
        loop {
            let page = self.broker.read(filter, from, SCAN_PAGE).await?;
            for entry in &page.entries {
                if wanted(entry) {
                    found.push(entry.clone());
                    left = left.min(together.unwrap_or(usize::MAX));
                }
                left -= 1;
                if left == 0 {
                    return Ok(found);
                }
            }
            scanned += page.entries.len();
            match page.entries.last() {
                Some(last) if page.more && scanned < SCAN_ENTRIES_MAX => from = ReadFrom::After(last.seq),
                _ => return Ok(found),
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Without the copies that a repeated append has left.
fn each_once(mut entries: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
    let mut seen = HashSet::new();
    entries.retain(|entry| seen.insert(entry.id.clone()));
    entries
}

/// The news that an entry of a `_status` box holds.
pub(crate) fn status_event(entry: &Entry) -> Option<StatusEvent> {
    serde_json::from_slice(&entry.body).ok()
}

/// When a version 7 id was made.
pub(crate) fn time_of(id: MessageId) -> Option<Timestamp> {
    let (secs, nanos) = id.0.get_timestamp().filter(|_| id.0.get_version_num() == 7)?.to_unix();
    Some(Timestamp(secs.saturating_mul(1_000_000).saturating_add(u64::from(nanos) / 1_000)))
}
