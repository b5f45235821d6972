//! Sending: queues the appends of a message, and makes one outcome of their acknowledgements.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use antar_broker::{Append, AppendError, Appended, PendingAppend, ReadError, Subject};
use antar_proto::command::Receiver;
use antar_proto::file::FileInfo;
use antar_proto::{GroupAddress, MessageId, RealmId, UserName};

use crate::hop::log_hop;
use crate::mail::same_message;
use crate::places::{BOX_SENT, box_of};
use crate::shared::Shared;

/// How often an append whose acknowledgement did not come is tried again under its id.
const UNKNOWN_TRIES: u32 = 3;
/// Pause before each of these.
const UNKNOWN_DELAY: Duration = Duration::from_millis(200);

/// No longer than this after the first try: it must be recognised as the same, also if this process stood still meanwhile.
const UNKNOWN_TIME_MAX: Duration = Duration::from_secs(60);

/// What is to be sent, and to whom.
#[derive(Debug, Clone, Copy)]
pub enum Send<'a> {
    /// `send`: one user, here or, qualified, in another realm.
    One(&'a Receiver),
    /// `sendgroup`: several such.
    Group(&'a [Receiver]),
    /// `sendprivaterealm`: one user of that realm.
    RealmOne(&'a RealmId, &'a Receiver),
    /// `sendgrouprealm`: users of that realm and of this one, filed under that realm.
    RealmGroup(&'a RealmId, &'a [Receiver]),
    /// `sendgroup` to a named group.
    Named(&'a GroupAddress),
}

/// What a message says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) text: &'a str,
    /// The file that it brings.
    pub(crate) file: Option<&'a FileInfo>,
}

/// What a message is known by.
#[derive(Debug, Clone, Copy)]
pub enum SendId {
    /// Its sender chose it, and may send it again under the same id.
    Chosen(MessageId),
    /// Made for it, by [`MessageId::assigned`]; nobody can send it again.
    Assigned(MessageId),
}

impl SendId {
    /// The id itself.
    pub fn message(self) -> MessageId {
        match self {
            Self::Chosen(id) | Self::Assigned(id) => id,
        }
    }
}

impl From<MessageId> for SendId {
    fn from(id: MessageId) -> Self {
        Self::Chosen(id)
    }
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// None of the receivers exists; these are the names as they were given.
    #[error("no such user")]
    NoSuchUser(Vec<String>),
    /// The realm was not added.
    #[error("no such realm")]
    NoSuchRealm,
    /// There is no such group here.
    #[error("no such group")]
    NoSuchGroup,
    /// The sender is no member of the group.
    #[error("not a member of the group")]
    NotAMember,
    /// An operator has blocked the realm.
    #[error("the realm is blocked")]
    RealmBlocked,
    /// All receivers' mailboxes are full of unread messages, or the lane to the realm is.
    #[error("mailbox full")]
    MailboxFull,
    /// The id stands for another message that this user has sent.
    #[error("the id was used for another message")]
    IdReused,
    /// The sender chose an id that a server had made for a message.
    #[error("the id was made by a server")]
    IdAssigned,
    /// The broker did not take it.
    #[error("not stored: {0}")]
    NotStored(String),
    /// The broker did not say whether it took it.
    #[error("no acknowledgement: {0}")]
    Unknown(String),
}

/// A message that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Receivers that do not exist.
    pub unknown: Vec<String>,
    /// Receivers whose mailbox is full.
    pub full: Vec<String>,
    /// It had been stored before.
    pub duplicate: bool,
    /// Its first try got lost, and it was stored by a later one: what was sent after it may stand before it.
    pub late: bool,
}

/// A message on its way to the broker: a future that yields what became of it.
#[must_use = "nothing may be answered before the broker has acknowledged"]
pub struct Sending {
    state: SendingState,
    unknown: Vec<String>,
}

enum SendingState {
    /// The usual case: one append that is going well.
    Waiting { pending: PendingAppend, one: One },
    /// Several appends, or one that met a difficulty.
    Boxed(Pin<Box<dyn Future<Output = Result<Stored, SendError>> + std::marker::Send>>),
}

/// One append of a message, with what is needed if it does not go well.
struct One {
    shared: Arc<Shared>,
    from: UserName,
    id: MessageId,
    append: Append,
}

/// What became of one append.
struct Stored {
    duplicate: bool,
    full: Vec<String>,
    late: bool,
}

impl Future for Sending {
    type Output = Result<Sent, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let stored = match &mut self.state {
                SendingState::Waiting { pending, one } => match Pin::new(pending).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(appended)) if !appended.duplicate => {
                        one.log(&appended);
                        Ok(Stored { duplicate: false, full: users_of(&appended.full), late: false })
                    }
                    Poll::Ready(answer) => {
                        let gone = SendingState::Boxed(Box::pin(std::future::pending()));
                        let SendingState::Waiting { one, .. } = std::mem::replace(&mut self.state, gone)
                        else {
                            unreachable!("it was waiting a moment ago")
                        };
                        self.state = SendingState::Boxed(Box::pin(one.finish(answer)));
                        continue;
                    }
                },
                SendingState::Boxed(future) => match future.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(stored) => stored,
                },
            };
            let unknown = std::mem::take(&mut self.unknown);
            return Poll::Ready(stored.map(|Stored { duplicate, full, late }| Sent {
                unknown,
                full,
                duplicate,
                late,
            }));
        }
    }
}

impl Shared {
    /// Queues a message for storing. What this returns yields the outcome; until then nothing may be answered.
    pub(crate) async fn send(
        self: &Arc<Self>,
        from: &UserName,
        what: Send<'_>,
        said: Said<'_>,
        id: SendId,
    ) -> Result<Sending, SendError> {
        if matches!(id, SendId::Chosen(id) if id.is_assigned()) {
            return Err(SendError::IdAssigned);
        }
        if let Send::Named(group) = what {
            return self.post(from, group, said, id).await;
        }
        let mut plan = match self.plan(from, what) {
            Ok(plan) if plan.unknown.is_empty() => plan,
            Err(error) if !matches!(error, SendError::NoSuchRealm) => return Err(error),
            // Somebody may have been added on another edge a moment ago.
            _ => {
                self.look_up(what).await.map_err(|error| SendError::NotStored(error.to_string()))?;
                self.plan(from, what)?
            }
        };
        let unknown = std::mem::take(&mut plan.unknown);
        if plan.is_empty() {
            return Err(SendError::NoSuchUser(unknown));
        }
        let appends = self.appends(from, plan, said, id);
        let several = appends.len() > 1;
        let mut waiting = Vec::with_capacity(appends.len());
        for append in appends {
            self.watch_room(&append.subjects);
            let queued = self.broker.append(append.clone()).await;
            let one = One { shared: self.clone(), from: from.clone(), id: id.message(), append };
            match queued {
                Ok(pending) if !several => {
                    return Ok(Sending { state: SendingState::Waiting { pending, one }, unknown });
                }
                other => waiting.push((other, one)),
            }
        }
        Ok(Sending { state: SendingState::Boxed(Box::pin(all(waiting))), unknown })
    }

    /// Queues a message that is one append.
    pub(crate) async fn queue_one(
        self: &Arc<Self>,
        from: &UserName,
        append: Append,
        id: MessageId,
    ) -> Result<Sending, SendError> {
        self.watch_room(&append.subjects);
        let queued = self.broker.append(append.clone()).await;
        let one = One { shared: self.clone(), from: from.clone(), id, append };
        let state = match queued {
            Ok(pending) => SendingState::Waiting { pending, one },
            refused => SendingState::Boxed(Box::pin(all(vec![(refused, one)]))),
        };
        Ok(Sending { state, unknown: Vec::new() })
    }
}

/// Waits for all appends of a message. What part of it was stored is on its way, so the answer then is no refusal.
async fn all(waiting: Vec<(Result<PendingAppend, AppendError>, One)>) -> Result<Stored, SendError> {
    let mut stored = Stored { duplicate: true, full: Vec::new(), late: false };
    let mut refused: Option<SendError> = None;
    let (mut any, mut all_full) = (false, true);
    for (queued, one) in waiting {
        let users = users_of(&one.append.subjects);
        let answer = match queued {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        match one.finish(answer).await {
            Ok(part) => {
                any = true;
                stored.duplicate &= part.duplicate;
                stored.late |= part.late;
                stored.full.extend(part.full);
            }
            Err(SendError::MailboxFull) => stored.full.extend(users),
            Err(SendError::IdReused) => return Err(SendError::IdReused),
            Err(error) => {
                all_full = false;
                // Nobody can tell of the whole what nobody can tell of a part.
                if refused.is_none() || matches!(error, SendError::Unknown(_)) {
                    refused = Some(error);
                }
            }
        }
    }
    match refused {
        None if any => Ok(stored),
        None if all_full => Err(SendError::MailboxFull),
        Some(error) if !any => Err(error),
        Some(error) => Err(SendError::Unknown(error.to_string())),
        None => Err(SendError::MailboxFull),
    }
}

/// Whose mailboxes these are; the sender's own copy does not count.
fn users_of(subjects: &[Subject]) -> Vec<String> {
    let others = subjects.iter().filter(|subject| box_of(subject) != BOX_SENT);
    others.filter_map(|subject| subject.tokens().nth(3).map(str::to_owned)).collect()
}

impl One {
    fn log(&self, stored: &Appended) {
        log_hop(self.shared.places.realm(), "accepted", stored.seq, &self.append.body);
    }

    /// Brings an append to an end: one whose outcome is unknown is tried again under its id, if it can be, a repetition is compared
    /// with what it repeats. Nothing else is tried again: what the same connection sent after it may be stored already.
    ///
    /// (A try whose acknowledgement was lost was nearly always stored, in its place, and the next one finds it there.
    /// Where it was not, the message is stored behind those that were sent meanwhile: see [`Sent::late`].)
    async fn finish(self, mut answer: Result<Appended, AppendError>) -> Result<Stored, SendError> {
        let (began, mut tries) = (Instant::now(), 0);
        loop {
            answer = match answer {
                Ok(appended) if appended.duplicate && tries == 0 => return self.repeated(appended).await,
                // After a lost acknowledgement, finding the entry there is no repetition by the sender.
                Ok(appended) => {
                    self.log(&appended);
                    let late = tries > 0 && !(tries == 1 && appended.duplicate);
                    return Ok(Stored { duplicate: false, full: users_of(&appended.full), late });
                }
                // The sender's own copy is a convenience; the message itself is on its way.
                Err(AppendError::Full(subject)) if box_of(&subject) == BOX_SENT => {
                    return Ok(Stored { duplicate: false, full: Vec::new(), late: tries > 0 });
                }
                Err(AppendError::Full(_)) => return Err(SendError::MailboxFull),
                Err(AppendError::Unknown(_))
                    if tries < UNKNOWN_TRIES
                        && began.elapsed() < UNKNOWN_TIME_MAX
                        && !self.append.is_fresh =>
                {
                    tries += 1;
                    tokio::time::sleep(UNKNOWN_DELAY).await;
                    match self.shared.broker.append(self.append.clone()).await {
                        Ok(pending) => pending.await,
                        Err(error) => Err(error),
                    }
                }
                Err(error @ AppendError::Unknown(_)) => return Err(SendError::Unknown(error.to_string())),
                Err(error) if tries > 0 => return Err(SendError::Unknown(error.to_string())),
                Err(error) => return Err(SendError::NotStored(error.to_string())),
            };
        }
    }

    /// The id was used before: either the same message was sent again, which is answered as it was the first time, or
    /// it stands for another one.
    async fn repeated(&self, appended: Appended) -> Result<Stored, SendError> {
        let unreadable = |error: ReadError| SendError::Unknown(error.to_string());
        let (shared, id) = (&self.shared, &self.append.id);
        let (mut kept, mut full) = (Vec::new(), Vec::new());
        for subject in &self.append.subjects {
            match shared.entry_of(subject, appended.seq, id).await.map_err(unreadable)? {
                Some(entry) => kept.push(entry),
                None if shared.has_older(subject, appended.seq).await.map_err(unreadable)? => {
                    full.push(subject.clone())
                }
                None => {}
            }
        }
        if kept.is_empty() {
            // What it repeats stands elsewhere: to be looked for, which takes long.
            kept = shared.find_sent(&self.from, self.id).await.map_err(unreadable)?;
        }
        if !kept.is_empty() && !kept.iter().any(|entry| same_message(&entry.body, &self.append.body)) {
            return Err(SendError::IdReused);
        }
        Ok(Stored { duplicate: true, full: users_of(&full), late: false })
    }
}
