//! The envelope: what one realm puts into another realm's inbox. `proto-docs/federation.md` describes it.

use serde::{Deserialize, Serialize};

use crate::command::GroupPolicy;
use crate::file::FileInfo;
use crate::names::{Address, GroupName, MessageId, NAME_BYTES_MAX, RealmId, UserName};
use crate::reply::State;

/// The only version there is. Another one is dead-lettered and answered.
pub const ENVELOPE_VERSION: u32 = 1;

/// What an envelope takes beside its text and its receivers, usually.
const ENVELOPE_BYTES_USUAL: usize = 384;

/// Most envelopes that one entry of an inbox carries, each on a line of its own.
pub const BUNDLE_ENVELOPES_MAX: usize = 64;
/// Most bytes of an entry that carries several, so that no receiver has to keep much because of one bad line. An envelope
/// that is larger travels alone.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024;

/// One envelope, as JSON. Fields that this version does not know are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`ENVELOPE_VERSION`].
    pub v: u32,
    /// Of the message; for a receipt, its own.
    pub id: MessageId,
    /// The realm it comes from.
    pub origin: RealmId,
    /// The realm it is for.
    pub dest: RealmId,
    /// When the sender's edge accepted it: RFC 3339, UTC.
    pub sent_at: String,
    /// W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Its place in the lane; set when the lane sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LanePlace>,
    /// What it carries.
    #[serde(flatten)]
    pub content: Content,
}

/// What an envelope carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Content {
    /// A message to users of the destination.
    Message {
        /// Who sent it.
        from: Address,
        /// The sender's display name.
        name: String,
        /// For whom.
        to: Vec<UserName>,
        /// Sent with `sendgrouprealm`: a name also stands for the user of that name in the origin.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        group: bool,
        /// The text.
        text: String,
        /// The file that it brings. From another realm it is delivered once the file is here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<FileInfo>,
    },
    /// A message of a named group of the origin, in the order of that group: to the members that it has in the destination.
    GroupMessage {
        /// Who sent it.
        from: Address,
        /// The sender's display name.
        name: String,
        /// The group.
        to_group: GroupName,
        /// The text.
        text: String,
        /// The file that it brings, which is in the group's realm alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<FileInfo>,
    },
    /// A message from a member to a group of the destination, which gives it its place in the order of the group and sends it
    /// to all members, the sender among them.
    GroupPost {
        /// Who sent it.
        from: Address,
        /// The sender's display name.
        name: String,
        /// The group.
        to_group: GroupName,
        /// The text.
        text: String,
    },
    /// What a user of the origin wants of a group of the destination. A receipt tells whether it is done.
    GroupRequest {
        /// Who wants it.
        from: Address,
        /// The group.
        group: GroupName,
        /// What.
        wish: GroupWish,
    },
    /// How a group of the origin is now, for a realm with members, or people who are invited.
    GroupState {
        /// The group.
        group: GroupName,
        /// Grows with every change, also if a group of this name was there before.
        version: u64,
        /// Its owner.
        owner: Address,
        /// Who may join.
        policy: GroupPolicy,
        /// What it is about; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        topic: String,
        /// All members.
        members: Vec<Address>,
        /// Who is invited, of the destination.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        invited: Vec<UserName>,
    },
    /// A word from a realm to one of its own users, about a message that was not delivered. Stands in mailboxes only;
    /// in another realm's inbox it is refused.
    Notice {
        /// For whom.
        to: UserName,
        /// The message it is about.
        about: MessageId,
        /// The text.
        text: String,
    },
    /// What became of messages that the destination sent before.
    Receipt {
        /// One for each message and outcome.
        results: Vec<Outcome>,
    },
}

/// What a user may want of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum GroupWish {
    /// To become a member.
    Join,
    /// To be one no longer, or to decline an invitation.
    Leave,
    /// To let somebody join.
    Invite {
        /// Who.
        user: Address,
    },
    /// To remove a member, or take an invitation back.
    Kick {
        /// Who.
        user: Address,
    },
    /// To set its topic.
    Topic {
        /// The new one; may be empty.
        text: String,
    },
}

/// What became of one message at some of its receivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The message.
    pub id: MessageId,
    /// Who had sent it, a user of the realm that gets the receipt.
    pub sender: UserName,
    /// The receivers it speaks of.
    pub users: Vec<UserName>,
    /// `delivered`, `read` or `failed`.
    pub state: State,
    /// Why it failed: an error code of the line protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The message said so of itself: see [`Content::Message`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub group: bool,
}

/// Place of an envelope among those of its lane, which is first in, first out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanePlace {
    /// New when the outbox was made anew.
    pub epoch: u64,
    /// Grows within the epoch.
    pub seq: u64,
    /// The one before; 0 for the first.
    pub prev: u64,
    /// Which try this is. A batch that was broken off is sent again as a whole, and the broker must not take what was
    /// stored of the first try for what is to be stored in its place now.
    #[serde(default)]
    pub attempt: u64,
}

/// Why bytes are not an envelope that can be processed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It was made by a version that this one does not know.
    #[error("envelope version {0} is not known here")]
    Version(u64),
    /// It is not an envelope.
    #[error("not an envelope: {0}")]
    Malformed(String),
}

/// Puts envelopes' bytes, in their order, into as few bodies as the limits of a bundle allow; each with the number of its
/// first envelope. JSON on the wire has no line breaks in it, so one stands between two envelopes.
pub fn bundle(envelopes: &[Vec<u8>]) -> Vec<(usize, Vec<u8>)> {
    let mut bodies: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut count = 0;
    for (number, envelope) in envelopes.iter().enumerate() {
        match bodies.last_mut() {
            Some((_, body))
                if count < BUNDLE_ENVELOPES_MAX && body.len() + 1 + envelope.len() <= BUNDLE_BYTES_MAX =>
            {
                body.push(b'\n');
                body.extend_from_slice(envelope);
                count += 1;
            }
            _ => {
                bodies.push((number, envelope.clone()));
                count = 1;
            }
        }
    }
    bodies
}

/// The bytes of each envelope in a body. One that breaks the limits of a bundle is none, and holds nothing that could be
/// told apart.
pub fn unbundle(body: &[u8]) -> Result<impl Iterator<Item = &[u8]>, EnvelopeError> {
    let breaks = body.iter().filter(|byte| **byte == b'\n').count();
    if breaks >= BUNDLE_ENVELOPES_MAX || (breaks > 0 && body.len() > BUNDLE_BYTES_MAX) {
        return Err(EnvelopeError::Malformed(format!(
            "a bundle has at most {BUNDLE_ENVELOPES_MAX} lines and {BUNDLE_BYTES_MAX} bytes"
        )));
    }
    Ok(body.split(|byte| *byte == b'\n'))
}

impl Envelope {
    /// The bytes that are published.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = match &self.content {
            Content::Message { to, text, .. } => text.len() + to.len() * NAME_BYTES_MAX,
            Content::GroupMessage { text, .. } | Content::GroupPost { text, .. } => text.len(),
            Content::GroupState { members, .. } => members.len() * NAME_BYTES_MAX,
            _ => 0,
        };
        let mut bytes = Vec::with_capacity(ENVELOPE_BYTES_USUAL + text);
        serde_json::to_writer(&mut bytes, self)
            .expect("an envelope has string keys only and nothing in it can fail");
        bytes
    }

    /// Understands published bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        let malformed = |error: serde_json::Error| EnvelopeError::Malformed(error.to_string());
        match serde_json::from_slice(bytes) {
            Ok(envelope @ Self { v: ENVELOPE_VERSION, .. }) => Ok(envelope),
            Ok(other) => Err(EnvelopeError::Version(other.v.into())),
            Err(error) => match serde_json::from_slice(bytes) {
                Ok(Version { v }) if v != u64::from(ENVELOPE_VERSION) => Err(EnvelopeError::Version(v)),
                _ => Err(malformed(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelope(text: String) -> Envelope {
        Envelope {
            v: ENVELOPE_VERSION,
            id: MessageId::fresh(),
            origin: "realm1".parse().unwrap(),
            dest: "realm2".parse().unwrap(),
            sent_at: "2026-01-01T00:00:00Z".into(),
            traceparent: None,
            lane: Some(LanePlace { epoch: 1, seq: 3, prev: 2, attempt: 1 }),
            content: Content::Message {
                from: "messi@realm1".parse().unwrap(),
                name: "Lionel Messi".into(),
                to: vec!["lineker".parse().unwrap()],
                group: false,
                text,
                file: None,
            },
        }
    }

    #[test]
    fn fields_of_later_versions_are_ignored_and_their_versions_named() {
        let bytes = envelope("halo".into()).to_bytes();
        let more = String::from_utf8(bytes).unwrap().replacen('{', r#"{"colour":"blue","#, 1);
        assert!(Envelope::from_bytes(more.as_bytes()).is_ok());
        assert_eq!(Envelope::from_bytes(br#"{"v":2,"shape":[]}"#), Err(EnvelopeError::Version(2)));
        for bad in ["", "{}", "[]", "null", r#"{"v":1}"#, "\u{0}", r#"{"v":-1}"#] {
            assert!(
                matches!(Envelope::from_bytes(bad.as_bytes()), Err(EnvelopeError::Malformed(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn bundles_keep_to_their_limits_and_give_back_what_was_put_in() {
        let check = |envelopes: &[Vec<u8>], bodies: usize| {
            let bundled = bundle(envelopes);
            assert_eq!(bundled.len(), bodies);
            let back: Vec<Vec<u8>> = bundled
                .iter()
                .flat_map(|(_, body)| unbundle(body).unwrap().map(<[u8]>::to_vec).collect::<Vec<_>>())
                .collect();
            assert_eq!(back, envelopes);
            for (first, body) in &bundled {
                assert_eq!(unbundle(body).unwrap().next().unwrap(), envelopes[*first]);
            }
        };
        let of = |bytes: usize, count: usize| vec![vec![b'x'; bytes]; count];
        check(&[], 0);
        check(&of(10, 1), 1);
        check(&of(10, BUNDLE_ENVELOPES_MAX), 1);
        check(&of(10, BUNDLE_ENVELOPES_MAX + 1), 2);
        check(&of(BUNDLE_BYTES_MAX / 2, 3), 3);
        check(&of(BUNDLE_BYTES_MAX / 2 - 1, 3), 2);
        check(&of(BUNDLE_BYTES_MAX + 5, 2), 2);
        let lines = vec![b'\n'; BUNDLE_ENVELOPES_MAX];
        assert!(unbundle(&lines).is_err());
        assert_eq!(unbundle(&lines[1..]).unwrap().count(), BUNDLE_ENVELOPES_MAX);
        let long = [&of(BUNDLE_BYTES_MAX, 1)[0][..], b"\n{}"].concat();
        assert!(unbundle(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_text_comes_through(text in any::<String>()) {
            let envelope = envelope(text);
            prop_assert_eq!(Envelope::from_bytes(&envelope.to_bytes()).unwrap(), envelope);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Envelope::from_bytes(&bytes);
        }
    }
}
