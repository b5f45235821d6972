//! What a connection still has to say: bytes to be written, and the replies that wait for their turn.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use antar_proto::command::Command;
use antar_proto::json::write_frame;
use antar_proto::reply::{Failure, Sent as SentReply, Stored};
use antar_proto::{ErrorCode, MessageId, Tag};
use antar_realm::{SendError, Sending, Sent};
use serde::Serialize;
use tokio::time::Instant;

use crate::counts::{Answered, Counts};

/// Most bytes of requests whose sends are in flight; more are not read before some are answered.
const IN_FLIGHT_BYTES_MAX: usize = 1024 * 1024;

/// A reply that has its place in the order.
enum Slot {
    Ready(Vec<u8>),
    Waiting(Box<SendSlot>),
}

/// A send that waits for the broker.
pub(crate) struct SendSlot {
    pub(crate) sending: Sending,
    pub(crate) tag: Option<Box<str>>,
    pub(crate) id: MessageId,
    /// The reports' wording of success.
    pub(crate) message: &'static str,
    /// When its line was read.
    pub(crate) since: Instant,
    /// After this it is answered `unavailable`.
    pub(crate) deadline: Instant,
    /// Of the request, as an estimate of what it takes while it waits: a name in it becomes a subject.
    pub(crate) bytes: usize,
}

/// Replies in the order of their requests.
#[derive(Default)]
pub(crate) struct Replies {
    slots: VecDeque<Slot>,
    bytes: usize,
}

impl Replies {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether another send may join, of a connection that may have `pipeline_max`.
    pub(crate) fn has_room(&self, pipeline_max: usize) -> bool {
        self.slots.len() < pipeline_max && self.bytes < IN_FLIGHT_BYTES_MAX
    }

    /// When the first send has waited long enough.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.slots.front() {
            Some(Slot::Waiting(slot)) => Some(slot.deadline),
            _ => None,
        }
    }

    /// A reply that need not wait for anything but its turn.
    pub(crate) fn push(&mut self, reply: &impl Serialize) {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, reply);
        self.push_ready(bytes);
    }

    pub(crate) fn push_ready(&mut self, reply: Vec<u8>) {
        self.bytes += reply.len();
        self.slots.push_back(Slot::Ready(reply));
    }

    pub(crate) fn push_sending(&mut self, slot: SendSlot) {
        self.bytes += slot.bytes;
        self.slots.push_back(Slot::Waiting(Box::new(slot)));
    }

    /// Writes the replies whose turn has come; ready if there was one.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        counts: &Counts,
    ) -> Poll<()> {
        let (mut answered, mut now) = (Answered::default(), None);
        let any = self.write_ready(cx, out, counts, &mut answered, &mut now);
        if now.is_some() {
            counts.add(&answered);
        }
        any
    }

    fn write_ready(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        counts: &Counts,
        answered: &mut Answered,
        now: &mut Option<Instant>,
    ) -> Poll<()> {
        let mut any = Poll::Pending;
        while let Some(others) = self.slots.len().checked_sub(1) {
            match &mut self.slots[0] {
                Slot::Ready(reply) => {
                    self.bytes -= reply.len();
                    out.extend_from_slice(reply);
                }
                Slot::Waiting(slot) => {
                    let outcome = match Pin::new(&mut slot.sending).poll(cx) {
                        Poll::Ready(outcome) => outcome,
                        Poll::Pending if slot.deadline <= Instant::now() => {
                            Err(SendError::Unknown("the broker did not acknowledge in time".into()))
                        }
                        Poll::Pending => return any,
                    };
                    self.bytes -= slot.bytes;
                    // An OK would say that it stands before those behind it. Asked again it is answered OK at once.
                    let outcome = match outcome {
                        Ok(sent) if sent.late && others > 0 => Err(SendError::Unknown(
                            "its first try got lost, and others were sent meanwhile".into(),
                        )),
                        outcome => outcome,
                    };
                    // Those that are answered together are answered at the same time.
                    answered.took(now.get_or_insert_with(Instant::now).duration_since(slot.since));
                    let tag = slot.tag.as_deref().and_then(Tag::new);
                    if write_outcome(out, tag, slot.id, slot.message, outcome, counts) {
                        answered.sent += 1;
                    }
                }
            }
            self.slots.pop_front();
            any = Poll::Ready(());
        }
        any
    }
}

/// A send, taken out of its command.
pub(crate) struct Outgoing<'a> {
    pub(crate) token: &'a str,
    pub(crate) what: antar_realm::Send<'a>,
    pub(crate) text: &'a str,
    pub(crate) message: &'static str,
}

impl<'a> Outgoing<'a> {
    /// `None` for a command that is no send, or one to a realm or group that cannot be.
    pub(crate) fn of(command: &'a Command<'_>) -> Option<Self> {
        use antar_realm::Send;
        let (token, what, text, message) = match command {
            Command::Send { token, to, text } => (token, Send::One(to), text, "Message Sent"),
            Command::SendGroup { token, to, text } => (token, Send::Group(to), text, "Message Sent"),
            Command::SendPrivateRealm { token, realm: Some(realm), to, text } => {
                (token, Send::RealmOne(realm, to), text, "Message Sent to Realm")
            }
            Command::SendGroupRealm { token, realm: Some(realm), to, text } => {
                (token, Send::RealmGroup(realm, to), text, "Message Sent to Group in Realm")
            }
            Command::SendNamedGroup { token, group: Some(group), text } => {
                (token, Send::Named(group), text, "Message Sent")
            }
            _ => return None,
        };
        Some(Self { token, what, text, message })
    }

    /// How many it is for.
    pub(crate) fn receivers(&self) -> usize {
        use antar_realm::Send;
        match self.what {
            Send::One(_) | Send::RealmOne(..) | Send::Named(_) => 1,
            Send::Group(receivers) | Send::RealmGroup(_, receivers) => receivers.len(),
        }
    }
}

/// The reply to a send; whether it is OK. What is not is counted.
pub(crate) fn write_outcome(
    out: &mut Vec<u8>,
    tag: Option<Tag<'_>>,
    id: MessageId,
    message: &'static str,
    outcome: Result<Sent, SendError>,
    counts: &Counts,
) -> bool {
    let error = match outcome {
        Ok(Sent { unknown, full, duplicate, late: _ }) => {
            write_frame(out, &SentReply::new(tag, id, message, &unknown, &full, duplicate));
            return true;
        }
        Err(error) => error,
    };
    let code = code_of(&error);
    counts.send_failed(code);
    let failure = Failure::new(tag, code);
    match error {
        SendError::NoSuchUser(unknown) => write_frame(out, &failure.unknown(&unknown)),
        SendError::NoSuchRealm => {
            write_frame(out, &failure.detail("add it first: addrealm TOKEN REALM HOST PORT"));
        }
        SendError::NoSuchGroup => write_frame(out, &failure),
        SendError::NotAMember => write_frame(out, &failure.detail("join it first: joingroup TOKEN GROUP")),
        SendError::RealmBlocked => {
            write_frame(out, &failure.detail("operators of this realm have blocked the other one"));
        }
        SendError::IdReused => {
            write_frame(out, &failure.detail("this id, the tag, stands for another message that you sent"));
        }
        SendError::IdAssigned => {
            let detail = "this id was made by a server: ask for its status; to be able to send a message again, choose \
                          its id yourself";
            write_frame(out, &failure.detail(detail));
        }
        SendError::MailboxFull => write_frame(out, &failure),
        SendError::NotStored(why) => {
            tracing::warn!(%id, why, "a message was not stored");
            write_frame(out, &failure.stored(Stored::NO, Some(id)));
        }
        SendError::Unknown(why) => {
            tracing::warn!(%id, why, "nobody can tell whether a message was stored");
            write_frame(out, &failure.stored(Stored::UNKNOWN, Some(id)));
        }
    }
    false
}

fn code_of(error: &SendError) -> ErrorCode {
    match error {
        SendError::NoSuchUser(_) => ErrorCode::NoSuchUser,
        SendError::NoSuchRealm => ErrorCode::NoSuchRealm,
        SendError::NoSuchGroup => ErrorCode::NoSuchGroup,
        SendError::NotAMember => ErrorCode::NotAMember,
        SendError::RealmBlocked => ErrorCode::RealmBlocked,
        SendError::IdReused | SendError::IdAssigned => ErrorCode::BadRequest,
        SendError::MailboxFull => ErrorCode::MailboxFull,
        SendError::NotStored(_) | SendError::Unknown(_) => ErrorCode::Unavailable,
    }
}
