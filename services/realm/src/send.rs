//! Sending: from a list of receivers to appends, and from acknowledgements to an outcome.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use antar_broker::{Append, AppendError, Appended, EntryId, PendingAppend, Subject};
use antar_proto::command::Receiver;
use antar_proto::{Address, MessageId, RealmId, UserName};

use crate::mail::{Sender, message_bytes};
use crate::places::{BOX_SENT, box_of};
use crate::realm::Shared;

/// How often an append whose acknowledgement did not come is tried again under its id.
const UNKNOWN_TRIES: u32 = 3;
/// Pause before each of these.
const UNKNOWN_DELAY: Duration = Duration::from_millis(200);

/// What is to be sent, and to whom.
#[derive(Debug)]
pub enum Send<'a> {
    /// `send`: one user, here or, qualified, in another realm.
    One(&'a Receiver),
    /// `sendgroup`: several such.
    Group(&'a [Receiver]),
    /// `sendprivaterealm`: one user of that realm.
    RealmOne(&'a RealmId, &'a Receiver),
    /// `sendgrouprealm`: users of that realm and of this one, filed under that realm.
    RealmGroup(&'a RealmId, &'a [Receiver]),
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
    /// All receivers' mailboxes are full of unread messages, or the lane to the realm is.
    #[error("mailbox full")]
    MailboxFull,
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
}

/// A message on its way to the broker: a future that yields what became of it.
#[must_use = "nothing may be answered before the broker has acknowledged"]
pub struct Sending {
    state: SendingState,
    unknown: Vec<String>,
}

enum SendingState {
    /// The usual case: one append that is going well.
    Waiting { pending: PendingAppend, append: Append, shared: Arc<Shared> },
    /// Several appends, or one that met a difficulty.
    Boxed(Pin<Box<dyn Future<Output = Result<Stored, SendError>> + std::marker::Send>>),
}

/// What became of one append.
struct Stored {
    duplicate: bool,
    full: Vec<String>,
}

impl Future for Sending {
    type Output = Result<Sent, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let stored = match &mut self.state {
                SendingState::Waiting { pending, append, shared } => match Pin::new(pending).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(appended)) => Ok(stored(appended, false)),
                    Poll::Ready(Err(error)) => {
                        let recovery = recover(shared.clone(), append.clone(), error);
                        self.state = SendingState::Boxed(Box::pin(recovery));
                        continue;
                    }
                },
                SendingState::Boxed(future) => match future.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(stored) => stored,
                },
            };
            let unknown = std::mem::take(&mut self.unknown);
            return Poll::Ready(stored.map(|Stored { duplicate, full }| Sent { unknown, full, duplicate }));
        }
    }
}

/// Who gets what, after names were resolved.
#[derive(Default)]
struct Plan {
    /// Users of this realm, box `local`.
    local: Vec<UserName>,
    /// For each other realm: users there, and users here who get a copy filed under it.
    remote: Vec<(RealmId, Vec<UserName>, Vec<UserName>)>,
    /// Names that nobody has.
    unknown: Vec<String>,
    /// Sent with `sendgrouprealm`.
    group: bool,
}

impl Plan {
    fn remote(&mut self, realm: &RealmId) -> &mut (RealmId, Vec<UserName>, Vec<UserName>) {
        let at = self.remote.iter().position(|(known, ..)| known == realm).unwrap_or_else(|| {
            self.remote.push((realm.clone(), Vec::new(), Vec::new()));
            self.remote.len() - 1
        });
        &mut self.remote[at]
    }

    fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty()
    }
}

impl Shared {
    /// Queues a message for storing. What this returns yields the outcome; until then nothing may be answered.
    pub(crate) async fn send(
        self: &Arc<Self>,
        from: &UserName,
        what: Send<'_>,
        text: &str,
        id: MessageId,
    ) -> Result<Sending, SendError> {
        let mut plan = self.plan(what)?;
        let unknown = std::mem::take(&mut plan.unknown);
        if plan.is_empty() {
            return Err(SendError::NoSuchUser(unknown));
        }
        let mut appends = self.appends(from, plan, text, id);
        if appends.len() == 1 {
            let append = appends.remove(0);
            self.watch_room(&append.subjects);
            let pending = self.broker.append(append.clone()).await.map_err(refused)?;
            return Ok(Sending {
                state: SendingState::Waiting { pending, append, shared: self.clone() },
                unknown,
            });
        }
        let mut waiting = Vec::with_capacity(appends.len());
        for append in appends {
            self.watch_room(&append.subjects);
            let pending = self.broker.append(append.clone()).await.map_err(refused)?;
            waiting.push((pending, append));
        }
        let shared = self.clone();
        let all = async move {
            let mut stored = Stored { duplicate: true, full: Vec::new() };
            let mut any = false;
            for (pending, append) in waiting {
                let subjects = append.subjects.clone();
                let one = match pending.await {
                    Ok(appended) => self::stored(appended, false),
                    Err(error) => match recover(shared.clone(), append, error).await {
                        Ok(one) => one,
                        // A part of the message is on its way already: this one is full, the send is not in vain.
                        Err(SendError::MailboxFull) if any => {
                            Stored { duplicate: true, full: users_of(&subjects) }
                        }
                        Err(error) => return Err(error),
                    },
                };
                any = true;
                stored.duplicate &= one.duplicate;
                stored.full.extend(one.full);
            }
            Ok(stored)
        };
        Ok(Sending { state: SendingState::Boxed(Box::pin(all)), unknown })
    }

    fn plan(&self, what: Send<'_>) -> Result<Plan, SendError> {
        let mut plan = Plan::default();
        match what {
            Send::One(receiver) => {
                if let Receiver::Qualified(address) = receiver
                    && address.realm != *self.places.realm()
                    && !self.peers.is_known(&address.realm)
                {
                    return Err(SendError::NoSuchRealm);
                }
                self.plan_here(&mut plan, std::slice::from_ref(receiver));
            }
            Send::Group(receivers) => self.plan_here(&mut plan, receivers),
            Send::RealmOne(realm, receiver) if realm == self.places.realm() => {
                self.plan_here(&mut plan, std::slice::from_ref(receiver));
            }
            Send::RealmGroup(realm, receivers) if realm == self.places.realm() => {
                self.plan_here(&mut plan, receivers)
            }
            Send::RealmOne(realm, _) | Send::RealmGroup(realm, _) if !self.peers.is_known(realm) => {
                return Err(SendError::NoSuchRealm);
            }
            Send::RealmOne(realm, receiver) => match receiver {
                Receiver::User(user) => plan.remote(realm).1.push(user.clone()),
                Receiver::Qualified(address) if address.realm == *realm => {
                    plan.remote(realm).1.push(address.user.clone());
                }
                other => plan.unknown.push(other.to_string()),
            },
            Send::RealmGroup(realm, receivers) => self.plan_group(&mut plan, realm, receivers),
        }
        Ok(plan)
    }

    /// Receivers of `send` and `sendgroup`: of this realm unless qualified.
    fn plan_here(&self, plan: &mut Plan, receivers: &[Receiver]) {
        let mut seen = HashSet::with_capacity(receivers.len());
        for receiver in receivers {
            let (user, realm) = match receiver {
                Receiver::User(user) => (user, self.places.realm()),
                Receiver::Qualified(Address { user, realm }) => (user, realm),
                Receiver::Nobody(text) => {
                    plan.unknown.push(text.clone());
                    continue;
                }
            };
            if !seen.insert((user, realm)) {
                continue;
            }
            if realm != self.places.realm() {
                match self.peers.is_known(realm) {
                    true => plan.remote(realm).1.push(user.clone()),
                    false => plan.unknown.push(receiver.to_string()),
                }
            } else if self.accounts.get(user).is_some() {
                plan.local.push(user.clone());
            } else {
                plan.unknown.push(receiver.to_string());
            }
        }
    }

    /// Receivers of `sendgrouprealm`: a bare name is the user of that name in the peer, and here too if there is one.
    fn plan_group(&self, plan: &mut Plan, peer: &RealmId, receivers: &[Receiver]) {
        plan.group = true;
        let own = self.places.realm();
        let mut seen = HashSet::with_capacity(receivers.len());
        for receiver in receivers {
            let (user, realms): (_, &[&RealmId]) = match receiver {
                Receiver::User(user) => (user, &[peer, own]),
                Receiver::Qualified(Address { user, realm }) => (user, &[realm]),
                Receiver::Nobody(text) => {
                    plan.unknown.push(text.clone());
                    continue;
                }
            };
            for &realm in realms {
                if !seen.insert((user, realm)) {
                    continue;
                }
                if realm == own {
                    if self.accounts.get(user).is_some() {
                        plan.remote(peer).2.push(user.clone());
                    } else if matches!(receiver, Receiver::Qualified(_)) {
                        plan.unknown.push(receiver.to_string());
                    }
                } else if self.peers.is_known(realm) {
                    plan.remote(realm).1.push(user.clone());
                } else {
                    plan.unknown.push(receiver.to_string());
                }
            }
        }
    }

    /// The appends of a plan: outboxes first, each followed by the copies that belong to it.
    fn appends(&self, from: &UserName, plan: Plan, text: &str, id: MessageId) -> Vec<Append> {
        let account = self.accounts.get(from);
        let address = Address { user: from.clone(), realm: self.places.realm().clone() };
        let name = account.as_ref().map_or(from.as_str(), |account| account.name.as_str());
        let sender = Sender { address: &address, name };
        let key = id.0.simple();
        let entry_id = |suffix: std::fmt::Arguments<'_>| {
            EntryId::new(format!("{key}/{from}{suffix}")).expect("a UUID and names are printable and short")
        };
        let sent = self.places.mail_sent(from);
        let mut appends = Vec::with_capacity(1 + 2 * plan.remote.len());
        for (realm, there, here) in plan.remote {
            let outbox = (!there.is_empty()).then(|| self.places.outbox(&realm));
            let body = message_bytes(id, &sender, &realm, there, plan.group, text);
            if let Some(outbox) = outbox {
                appends.push(Append::new(outbox, entry_id(format_args!("/{realm}")), body.clone()));
            }
            let mut copies: Vec<Subject> =
                here.iter().map(|user| self.places.mail_realm(user, &realm)).collect();
            copies.push(sent.clone());
            let id = entry_id(format_args!("/{realm}/copy"));
            appends.push(Append {
                subjects: copies,
                id,
                headers: Vec::new(),
                body,
                expect_last: None,
                copies: 0,
            });
        }
        if !plan.local.is_empty() {
            let mut subjects: Vec<Subject> =
                plan.local.iter().map(|user| self.places.mail_local(user)).collect();
            subjects.push(sent);
            let body = message_bytes(id, &sender, self.places.realm(), plan.local, false, text);
            let id = entry_id(format_args!(""));
            appends.push(Append { subjects, id, headers: Vec::new(), body, expect_last: None, copies: 1 });
        }
        appends
    }
}

/// The broker did not even queue it.
fn refused(error: AppendError) -> SendError {
    match error {
        AppendError::Unknown(why) => SendError::Unknown(why),
        other => SendError::NotStored(other.to_string()),
    }
}

/// Whose mailboxes these are; the sender's own copy does not count.
fn users_of(subjects: &[Subject]) -> Vec<String> {
    let others = subjects.iter().filter(|subject| box_of(subject) != BOX_SENT);
    others.filter_map(|subject| subject.tokens().nth(3).map(str::to_owned)).collect()
}

/// What became of an append that was acknowledged: whose mailbox was full got nothing.
fn stored(appended: Appended, was_unknown: bool) -> Stored {
    let full = users_of(&appended.full);
    // After an acknowledgement that was lost, finding the entry there is not a repetition by the sender.
    Stored { duplicate: appended.duplicate && !was_unknown, full }
}

/// Brings an append that was not acknowledged to an end: the same id again where the outcome is unknown. Nothing else
/// is tried again: what the same connection sent after it may be stored already, and order is kept.
async fn recover(shared: Arc<Shared>, append: Append, mut error: AppendError) -> Result<Stored, SendError> {
    for _ in 0..UNKNOWN_TRIES {
        match error {
            AppendError::Unknown(_) => tokio::time::sleep(UNKNOWN_DELAY).await,
            // The sender's own copy is a convenience; the message itself is on its way.
            AppendError::Full(subject) if box_of(&subject) == BOX_SENT => {
                return Ok(Stored { duplicate: false, full: Vec::new() });
            }
            AppendError::Full(_) => return Err(SendError::MailboxFull),
            other => return Err(SendError::NotStored(other.to_string())),
        }
        let again = match shared.broker.append(append.clone()).await {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        match again {
            Ok(appended) => return Ok(stored(appended, true)),
            Err(AppendError::Unknown(why)) => error = AppendError::Unknown(why),
            Err(other) => return Err(SendError::Unknown(other.to_string())),
        }
    }
    Err(SendError::Unknown(error.to_string()))
}
