//! Replies and events: the shapes of what an edge writes. [`crate::json::write_frame`] writes them.

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::file::FileInfo;
use crate::names::{Address, GroupAddress, MessageId, RealmId, Tag, UserName};

/// A reply that says OK, with the fields of `body`.
#[derive(Debug, Serialize)]
pub struct Ok<'a, T> {
    status: &'static str,
    #[serde(flatten)]
    body: T,
    /// After the body, so that a tag comes last and wins over nothing: no body of a tagged reply has an `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl<'a, T: Serialize> Ok<'a, T> {
    /// A reply to a request that had this tag.
    pub fn new(tag: Option<Tag<'a>>, body: T) -> Self {
        Self { status: "OK", body, id: tag.map(|tag| tag.as_str()) }
    }
}

/// Nothing beside `"status": "OK"`.
#[derive(Debug, Serialize)]
pub struct Empty {}

/// The reply to a send that was stored.
#[derive(Debug, Serialize)]
pub struct Sent<'a> {
    status: &'static str,
    message: &'static str,
    /// The request's tag; without one the message's id.
    id: TagOrId<'a>,
    message_id: MessageId,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unknown: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    full: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum TagOrId<'a> {
    Tag(&'a str),
    Id(MessageId),
}

impl<'a> Sent<'a> {
    /// `message` has the reports' wording. `unknown` and `full` list receivers that got no copy; `duplicate` tells that the
    /// message had been stored before.
    pub fn new(
        tag: Option<Tag<'a>>,
        id: MessageId,
        message: &'static str,
        unknown: &'a [String],
        full: &'a [String],
        duplicate: bool,
    ) -> Self {
        let shown = tag.map_or(TagOrId::Id(id), |tag| TagOrId::Tag(tag.as_str()));
        Self { status: "OK", message, id: shown, message_id: id, unknown, full, duplicate }
    }
}

/// Whether something that was answered `unavailable` was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Stored {
    /// It was not.
    No(#[serde(serialize_with = "no")] ()),
    /// Nobody can tell yet; the same request with the same UUID as its tag settles it.
    Unknown(&'static str),
}

impl Stored {
    /// It was not.
    pub const NO: Self = Self::No(());
    /// Nobody can tell.
    pub const UNKNOWN: Self = Self::Unknown("unknown");
}

fn no<S: serde::Serializer>((): &(), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(false)
}

/// A reply that says ERROR.
#[derive(Debug, Serialize)]
pub struct Failure<'a> {
    status: &'static str,
    code: ErrorCode,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Stored>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unknown: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl<'a> Failure<'a> {
    /// The code with the reports' wording.
    pub fn new(tag: Option<Tag<'a>>, code: ErrorCode) -> Self {
        Self {
            status: "ERROR",
            code,
            message: code.message(),
            detail: "",
            stored: None,
            retry_after_s: None,
            unknown: &[],
            message_id: None,
            id: tag.map(|tag| tag.as_str()),
        }
    }

    /// Says in English what is wrong and what to do.
    pub fn detail(self, detail: &'a str) -> Self {
        Self { detail, ..self }
    }

    /// Another wording than the code's own.
    pub fn message(self, message: &'a str) -> Self {
        Self { message, ..self }
    }

    /// For `unavailable`: whether the message was stored, and its id.
    pub fn stored(self, stored: Stored, id: Option<MessageId>) -> Self {
        Self { stored: Some(stored), message_id: id, ..self }
    }

    /// For `rate-limited`: when to try again, in seconds.
    pub fn retry_after_s(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// For `no-such-user`: the names.
    pub fn unknown(self, unknown: &'a [String]) -> Self {
        Self { unknown, ..self }
    }
}

/// A message as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Display name of the sender.
    pub msg_from: String,
    /// Display name of the receiver.
    pub msg_to: String,
    /// The text.
    pub msg: String,
    /// The message's id.
    pub id: MessageId,
    /// When it was accepted: RFC 3339, UTC.
    pub ts: String,
    /// `user@realm`; `@realm` for a notice.
    pub from: String,
    /// `user@realm` of the receiver, in `history` also a list as it was written.
    pub to: String,
    /// `notice` for a word from a realm itself; left out for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// For a notice: the message it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<MessageId>,
    /// The file that it brings. `msg` then is a line for clients that do not know files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Box<FileInfo>>,
    /// The group that it was written to, `tim`, or `tim@realm1` if it lives in another realm; left out for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Box<GroupAddress>>,
}

/// A message that `search` has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The conversation that it belongs to: `local`, or the other realm's id.
    #[serde(rename = "box")]
    pub mailbox: String,
    /// The message.
    #[serde(flatten)]
    pub message: Message,
}

/// What is pushed on a connection that watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A new message.
    Message {
        /// `local`, or the other realm's id.
        #[serde(rename = "box")]
        mailbox: String,
        /// The message.
        #[serde(flatten)]
        message: Message,
    },
    /// Something happened to messages that this user sent to another realm.
    Status(StatusEvent),
    /// Somebody has come or gone who is in a group with this user.
    Presence {
        /// Who.
        user: Address,
        /// What they are now.
        state: Online,
    },
    /// The server is shutting down; connect again.
    Shutdown,
    /// The session has ended; nothing more is pushed.
    LoggedOut,
}

/// Whether a user has a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Online {
    /// One at least.
    Online,
    /// None.
    Offline,
}

/// News of messages sent to another realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// The other realm.
    pub realm: RealmId,
    /// The state reached.
    pub state: State,
    /// By which receivers; empty for `stored`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserName>,
    /// Which messages.
    pub ids: Vec<MessageId>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When: RFC 3339, UTC.
    pub ts: String,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// In our outbox for the other realm.
    Accepted,
    /// In the other realm's log.
    Stored,
    /// In the receiver's mailbox.
    Delivered,
    /// The receiver has read it.
    Read,
    /// It will not be delivered.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::write_frame;

    fn text(value: &impl Serialize) -> String {
        let mut out = Vec::new();
        write_frame(&mut out, value);
        String::from_utf8(out).unwrap().trim_end().to_owned()
    }

    #[test]
    fn replies_have_the_shapes_of_the_protocol() {
        let tag = Tag::new("7");
        let id: MessageId = "0192d4d5-0000-7000-8000-000000000000".parse().unwrap();
        assert_eq!(text(&Ok::new(None, Empty {})), r#"{"status":"OK"}"#);
        assert_eq!(text(&Ok::new(tag, Empty {})), r#"{"status":"OK","id":"7"}"#);
        assert_eq!(
            text(&Sent::new(None, id, "Message Sent", &[], &[], false)),
            format!(r#"{{"status":"OK","message":"Message Sent","id":"{id}","message_id":"{id}"}}"#)
        );
        assert_eq!(
            text(&Sent::new(tag, id, "Message Sent", &["pele".into()], &[], true)),
            format!(
                r#"{{"status":"OK","message":"Message Sent","id":"7","message_id":"{id}","unknown":["pele"],"duplicate":true}}"#
            )
        );
        assert_eq!(
            text(&Failure::new(tag, ErrorCode::NoSuchUser)),
            r#"{"status":"ERROR","code":"no-such-user","message":"User Tidak Ditemukan","id":"7"}"#
        );
        assert!(
            text(&Failure::new(None, ErrorCode::Unavailable).stored(Stored::NO, None))
                .contains(r#""stored":false"#)
        );
        let unknown = Failure::new(None, ErrorCode::Unavailable).stored(Stored::UNKNOWN, Some(id));
        assert!(text(&unknown).contains(r#""stored":"unknown""#));
    }

    #[test]
    fn an_event_says_which_it_is() {
        assert_eq!(text(&Event::Shutdown), r#"{"event":"shutdown"}"#);
        assert_eq!(text(&Event::LoggedOut), r#"{"event":"logged-out"}"#);
    }
}
