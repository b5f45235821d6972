//! Redriving a dead letter: it is delivered after all, by an operator's word.
//!
//! That word stands in for the place in the lane, never for the proof: what would not be believed if it came now is not
//! delivered now.
//!
//! To redrive is idempotent, whoever does it, however often and after whatever crash. A mailbox that has the message gets
//! it no second time: it is looked at before. Whoever looks has appended a fence before, and what it then appends expects
//! that fence, so that of two who look at the same time one appends. And it appends under the id that delivery would, for the
//! case that a lane brings the same message in the same moment.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antar_broker::{
    Append, AppendError, Entry, EntryId, Expect, ExpectLast, Filter, Headers, KvError, ReadError, ReadFrom,
    ReadLimit, Subject, Timestamp,
};
use antar_proto::command::RECEIVERS_MAX;
use antar_proto::envelope::{Content, Envelope, Outcome};
use antar_proto::file::FileInfo;
use antar_proto::reply::State;
use antar_proto::{Address, ErrorCode, MessageId, RealmId, UserName};
use bytes::Bytes;

use crate::admin::{AdminReply, LetterState};
use crate::dead::{Claim, Dead};
use crate::delivery::{DeliveryError, LOOKUPS_MAX};
use crate::event::RealmEvent;
use crate::file::Brought;
use crate::hop::log_hop;
use crate::letter::Letter;
use crate::letters::{ids, operator, refused};
use crate::mail::same_message;
use crate::mailbox::{CLOCK_SKEW_US, time_of};
use crate::recall::{Place, headers};
use crate::receipt::News;
use crate::reign::fence;
use crate::shared::Shared;

/// Names the letter that a mailbox entry was made from.
pub(crate) const LETTER_HEADER: &str = "Antar-Letter";
/// How long others who redrive the same letter are waited for, and how often it is looked what they did.
const TIME_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// Whoever has begun and is not done after so long is taken to be gone. If not, the fence stops it.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// How a mailbox is looked through.
const LOOK_PAGE: ReadLimit = ReadLimit { entries_max: 1_000, bytes_max: 4 * 1024 * 1024 };

/// Why a letter, or an envelope of it, was not delivered.
pub(crate) enum Undone {
    /// It cannot be, as things are: code and reason.
    Refused(String, String),
    /// Somebody else redrives at the same time.
    Fenced,
    /// The broker does not answer.
    Unavailable(String),
}

impl From<Dead> for Undone {
    fn from(dead: Dead) -> Self {
        Self::Refused(dead.code().into(), dead.to_string())
    }
}

impl From<AppendError> for Undone {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict => Self::Fenced,
            AppendError::Refused(why) => Dead::Refused(why).into(),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<KvError> for Undone {
    fn from(error: KvError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ReadError> for Undone {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<DeliveryError> for Undone {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Replaced | DeliveryError::Moved => Self::Fenced,
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// A letter whose bytes are proven.
struct Proven<'a> {
    letter: &'a Letter,
    origin: RealmId,
    fence: ExpectLast,
}

/// A message that goes into the boxes that do not have it.
pub(crate) struct Missing<'a> {
    pub(crate) origin: &'a RealmId,
    pub(crate) fence: &'a ExpectLast,
    /// Before this it was in no box.
    pub(crate) since: Timestamp,
    /// What its entries have beside it.
    pub(crate) headers: Headers,
    pub(crate) id: MessageId,
    pub(crate) from: &'a Address,
    pub(crate) body: &'a Bytes,
}

/// A message out of it.
struct Message {
    id: MessageId,
    from: Address,
    to: Vec<UserName>,
    group: bool,
    file: Option<FileInfo>,
    place: Option<Place>,
    body: Bytes,
}

impl Shared {
    /// Delivers a letter after all, and answers its realm.
    pub(crate) async fn redrive(self: &Arc<Self>, seq: u64, by: &str) -> Result<AdminReply, AdminReply> {
        let by = operator(by)?;
        let letter = self.letter(seq).await?;
        let (until, mut begun_by_others) = (Instant::now() + TIME_MAX, None);
        while Instant::now() < until {
            let expect = match self.mark_of(&letter).await? {
                Some((mark, _)) if mark.state == LetterState::Redriven => {
                    return Ok(AdminReply::Redriven { ids: ids(&letter).collect(), already: true });
                }
                Some((mark, _)) if mark.state == LetterState::Dropped => {
                    return Err(refused("dropped", format!("letter {seq} was dropped")));
                }
                // Whoever has begun is left alone for a while, but may be gone.
                Some((mark, revision)) => {
                    let (seen, since) = *begun_by_others.get_or_insert((revision, Instant::now()));
                    if seen != revision {
                        begun_by_others = Some((revision, Instant::now()));
                    }
                    if !mark.is_older_than(GONE_AFTER) && (seen != revision || since.elapsed() < GONE_AFTER) {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    Expect::Revision(revision)
                }
                None => Expect::Absent,
            };
            let begun = match self.put_mark(&letter, LetterState::Redriving, by, expect).await {
                Ok(begun) => begun,
                Err(KvError::Conflict) => continue,
                Err(error) => return Err(error.into()),
            };
            match self.deliver_letter(&letter).await {
                Ok((origin, ids)) => {
                    let (code, done, by) = (letter.code.clone(), ids.clone(), by.to_owned());
                    let event =
                        RealmEvent::DeadRedriven { letter: seq, code, origin, ids: done, by: by.clone() };
                    self.record_once(&format!("dead/{}/redriven", letter.key()), event).await?;
                    match self.put_mark(&letter, LetterState::Redriven, &by, Expect::Revision(begun)).await {
                        Ok(_) => {}
                        Err(KvError::Conflict) => continue,
                        Err(error) => return Err(error.into()),
                    }
                    tracing::info!(realm = %self.places.realm(), letter = seq, by, "an operator redrove a dead letter");
                    return Ok(AdminReply::Redriven { ids, already: false });
                }
                Err(Undone::Refused(code, message)) => {
                    // If this fails, the letter can be redriven all the same.
                    let _ = self.remove_mark(&letter, begun).await;
                    return Err(refused(&code, message));
                }
                Err(Undone::Fenced) => tokio::time::sleep(PAUSE).await,
                Err(Undone::Unavailable(message)) => return Err(AdminReply::Unavailable { message }),
            }
        }
        Err(AdminReply::Unavailable { message: format!("letter {seq} is redriven by others all the time") })
    }

    /// Delivers what can be delivered of a letter: from which realm, and the ids. It is refused if nothing can be.
    async fn deliver_letter(self: &Arc<Self>, letter: &Letter) -> Result<(RealmId, Vec<String>), Undone> {
        if let Some(lacks) = letter.lacks {
            return Err(Undone::Refused("incomplete".into(), format!("it cannot be proven: {lacks}")));
        }
        let came = letter.as_it_came(&self.places.inbox());
        if let Some(claim) = Claim::of_first(&came.body) {
            // What counts is the key that is pinned now, whichever edge was told so.
            self.peers.copy.catch_up(claim.origin.as_str()).await?;
        }
        let origin = self.prove(&came)?.origin;
        if self.peers.copy.get(origin.as_str()).is_some_and(|peer| peer.blocked) {
            return Err(Dead::Blocked(origin).into());
        }
        let fence = fence(self, self.places.redrive_fence()).await?;
        let proven = Proven { letter, origin, fence };
        let (mut done, mut first_refused) = (Vec::new(), None);
        for (number, body) in letter.envelopes() {
            match self.redrive_one(&proven, number, body).await {
                Ok(id) => done.push(id.to_string()),
                Err(Undone::Refused(code, why)) => drop(first_refused.get_or_insert((code, why))),
                Err(undone) => return Err(undone),
            }
        }
        match first_refused {
            Some((code, why)) if done.is_empty() => Err(Undone::Refused(code, why)),
            _ => Ok((proven.origin, done)),
        }
    }

    async fn redrive_one(
        self: &Arc<Self>,
        proven: &Proven<'_>,
        number: usize,
        body: Bytes,
    ) -> Result<MessageId, Undone> {
        let Envelope { id, origin, dest, lane, content, .. } =
            Envelope::from_bytes(&body).map_err(Dead::from)?;
        if origin != proven.origin {
            return Err(Dead::WrongOrigin { claimed: origin, from: proven.origin.to_string() }.into());
        }
        if dest != *self.places.realm() {
            return Err(Dead::WrongRealm(Some(dest)).into());
        }
        let place = lane.map(|lane| Place { epoch: lane.epoch, seq: lane.seq });
        match content {
            Content::Message { from, .. } if from.realm != origin => {
                Err(Dead::ForeignSender { from, origin }.into())
            }
            Content::Message { to, .. } if to.len() > RECEIVERS_MAX => Err(Dead::TooManyReceivers.into()),
            Content::Message { from, to, group, file, .. } => {
                let message = Message { id, from, to, group, file, place, body };
                self.redrive_message(proven, number, message).await.map(|()| id)
            }
            Content::Receipt { results } => {
                for (number, outcome) in results.into_iter().enumerate() {
                    for news in self.news_of(&origin, id, number, outcome) {
                        self.redrive_news(proven, place, number, news).await?;
                    }
                }
                Ok(id)
            }
            _ => Err(Dead::Kind.into()),
        }
    }

    /// Puts a message into the mailboxes that do not have it, and tells its realm.
    async fn redrive_message(
        self: &Arc<Self>,
        proven: &Proven<'_>,
        number: usize,
        mut message: Message,
    ) -> Result<(), Undone> {
        message.to.sort();
        message.to.dedup();
        let unknown = message.to.iter().filter(|user| self.accounts.get(user).is_none()).take(LOOKUPS_MAX);
        futures_util::future::try_join_all(unknown.map(|user| self.accounts.copy.fresh(user.as_str())))
            .await?;
        let (to, origin) = (std::mem::take(&mut message.to), &proven.origin);
        let (mut users, nobody): (Vec<_>, Vec<_>) =
            to.into_iter().partition(|user| self.takes_from(user, &message.from.user, origin.as_str()));
        let code = |code: ErrorCode| Some(code.as_str().to_owned());
        if users.is_empty() {
            let names: Vec<&str> = nobody.iter().map(UserName::as_str).collect();
            let why = format!("nobody here is called {}", names.join(", "));
            return Err(Undone::Refused(ErrorCode::NoSuchUser.as_str().into(), why));
        }
        if let Some(file) = &message.file {
            return self.redrive_file(proven, &message, file, &users).await;
        }
        let missing = Missing {
            origin,
            fence: &proven.fence,
            since: since(proven.letter, Some(message.id)),
            headers: proven.headers(message.place, None),
            id: message.id,
            from: &message.from,
            body: &message.body,
        };
        let full = self.fill_boxes(&missing, &users).await?;
        users.retain(|user| !full.contains(user));
        if users.is_empty() {
            let why = "the mailboxes that it is for are full of unread messages";
            return Err(Undone::Refused(ErrorCode::MailboxFull.as_str().into(), why.into()));
        }
        let outcome = |users, state, reason| Outcome {
            id: message.id,
            sender: message.from.user.clone(),
            users,
            state,
            reason,
            group: message.group,
        };
        let all = [
            outcome(nobody, State::Failed, code(ErrorCode::NoSuchUser)),
            outcome(full.into_iter().collect(), State::Failed, code(ErrorCode::MailboxFull)),
            outcome(users, State::Delivered, None),
        ];
        let results = all.into_iter().filter(|outcome| !outcome.users.is_empty()).collect();
        let seq = proven.letter.entry.seq;
        let key = format!("receipt/{origin}/dead-{}/{number}", proven.letter.key());
        self.append_receipt(origin, results, &key).await?.await?;
        log_hop(self.places.realm(), "redriven", seq, &message.body);
        Ok(())
    }

    /// Takes a message that brings a file: it is delivered when the bytes are here.
    async fn redrive_file(
        &self,
        proven: &Proven<'_>,
        message: &Message,
        file: &FileInfo,
        users: &[UserName],
    ) -> Result<(), Undone> {
        let brought = Brought {
            origin: &proven.origin,
            id: message.id,
            from: &message.from.user,
            to: users,
            file,
            body: &message.body,
            inbox: proven.letter.inbox_seq,
        };
        match self.take_file(&brought).await? {
            Ok(Some((_, Some(code)))) => Err(Undone::Refused(code.as_str().into(), code.message().into())),
            Ok(_) => Ok(()),
            Err(dead) => Err(dead.into()),
        }
    }

    /// Appends a message to the boxes that do not have it; whose are full.
    pub(crate) async fn fill_boxes(
        self: &Arc<Self>,
        missing: &Missing<'_>,
        users: &[UserName],
    ) -> Result<HashSet<UserName>, Undone> {
        let Missing { origin, since, id, body, .. } = *missing;
        let from = missing.from.to_string();
        let mut subjects = Vec::new();
        for user in users {
            let subject = self.places.mail_realm(user, origin);
            let is_it = |entry: &Entry| {
                let claim = Claim::of(&entry.body);
                claim.is_some_and(|claim| {
                    claim.id == id && claim.from.is_some_and(|by| by.to_string() == from)
                })
            };
            match self.find_in(&subject, since, is_it).await? {
                Some(entry) if !same_message(&entry.body, body) => return Err(Dead::IdReused.into()),
                Some(_) => {}
                None => subjects.push(subject),
            }
        }
        if subjects.is_empty() {
            return Ok(HashSet::new());
        }
        self.watch_room(&subjects);
        let entry_id = match subjects.len() == users.len() {
            true => EntryId::new(format!("{}/{from}", id.0.simple()))
                .expect("a UUID and an address are printable and short"),
            // Some have it, and the id stands for that.
            false => EntryId::unique(),
        };
        let append = Append {
            subjects: subjects.clone(),
            headers: missing.headers.clone(),
            expect_last: Some(missing.fence.clone()),
            ..Append::new(subjects[0].clone(), entry_id, body.clone())
        };
        let full = match self.broker.append(append).await?.await {
            Ok(appended) => appended.full,
            Err(AppendError::Full(_)) => subjects,
            Err(error) => return Err(error.into()),
        };
        let is_full = |user: &&UserName| full.contains(&self.places.mail_realm(user, origin));
        Ok(users.iter().filter(is_full).cloned().collect())
    }

    /// Appends what a receipt tells a sender, unless it stands there.
    async fn redrive_news(
        &self,
        proven: &Proven<'_>,
        place: Option<Place>,
        number: usize,
        news: News,
    ) -> Result<(), Undone> {
        let News { subject, key, body } = news;
        let id = EntryId::new(key).expect("a UUID and a realm id are printable and short");
        let is_it = |entry: &Entry| entry.id == id;
        if self.find_in(&subject, since(proven.letter, None), is_it).await?.is_some() {
            return Ok(());
        }
        let mut append = Append::new(subject, id, body);
        append.headers = proven.headers(place, Some(number));
        append.expect_last = Some(proven.fence.clone());
        let pending = self.broker.append(append).await?;
        self.finish_news(pending.await).await.map_err(Undone::from)
    }

    /// Looks through a box from a time on.
    async fn find_in(
        &self,
        subject: &Subject,
        since: Timestamp,
        is_it: impl Fn(&Entry) -> bool + Send,
    ) -> Result<Option<Arc<Entry>>, ReadError> {
        let _scan = self.scans.acquire().await;
        let (filter, mut from) = (Filter::from(subject), ReadFrom::Since(since));
        loop {
            let page = self.broker.read(&filter, from, LOOK_PAGE).await?;
            if let Some(found) = page.entries.iter().find(|entry| is_it(entry)) {
                return Ok(Some(found.clone()));
            }
            match page.entries.last() {
                Some(last) if page.more => from = ReadFrom::After(last.seq),
                _ => return Ok(None),
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Proven<'_> {
    /// What an entry that is made from an envelope of the letter has beside it: the same as one that delivery made, so that
    /// whoever takes delivery over finds it, and which letter it was.
    fn headers(&self, place: Option<Place>, number: Option<usize>) -> Headers {
        let inbox = self.letter.inbox_seq;
        let mut all = place.map_or_else(Headers::new, |place| headers(&self.origin, place, number, inbox));
        all.push((LETTER_HEADER.into(), self.letter.entry.seq.to_string()));
        all
    }
}

/// Before this nothing made from a letter can have been stored: neither before its message was sent, nor, if that is not
/// known, long before it was put aside.
fn since(letter: &Letter, id: Option<MessageId>) -> Timestamp {
    let put_aside = letter.entry.time.0;
    let earliest = match id.map(time_of) {
        Some(Some(sent)) => sent.0.min(put_aside),
        // An id without a time.
        Some(None) => 0,
        None => put_aside,
    };
    Timestamp(earliest.saturating_sub(CLOCK_SKEW_US))
}
