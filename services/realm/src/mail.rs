//! What stands in a mailbox, and how it looks to its owner. A mailbox entry's body is an envelope, as it is between
//! realms, so that one append can put the same bytes into an outbox and into mailboxes.

use std::borrow::Cow;

use antar_broker::Entry;
use antar_proto::envelope::{Content, ENVELOPE_VERSION, Envelope};
use antar_proto::file::{FileInfo, safe_name};
use antar_proto::reply::Message;
use antar_proto::{Address, GroupAddress, MessageId, RealmId, UserName};
use bytes::Bytes;
use serde::Deserialize;

use crate::clock::now_rfc3339;
use crate::hop::traceparent;

/// The parts of a stored envelope that a reader needs, borrowed from the entry.
#[derive(Debug, Deserialize)]
pub(crate) struct Mail<'a> {
    pub(crate) id: MessageId,
    #[serde(borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) origin: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) dest: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) sent_at: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) from: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) text: Cow<'a, str>,
    #[serde(default)]
    about: Option<MessageId>,
    #[serde(default)]
    file: Option<Box<FileInfo>>,
    /// The group that it was written to; empty for all others.
    #[serde(borrow, default)]
    pub(crate) to_group: Cow<'a, str>,
}

impl<'a> Mail<'a> {
    /// Reads an entry of a mailbox; `None` for one that this version cannot read.
    pub(crate) fn of(entry: &'a Entry) -> Option<Self> {
        match serde_json::from_slice(&entry.body) {
            Ok(mail) => Some(mail),
            Err(error) => {
                tracing::error!(subject = entry.subject.as_str(), seq = entry.seq.0, %error, "a mailbox entry is not readable");
                None
            }
        }
    }

    /// The sender's user name; empty for a notice.
    pub(crate) fn sender_user(&self) -> &str {
        self.from.split_once('@').map_or("", |(user, _)| user)
    }

    /// The group that it was written to, with its home unless that is `realm`.
    pub(crate) fn group(&self, realm: &RealmId) -> Option<GroupAddress> {
        // A message of another kind may have such a field too, from whoever sent it.
        if !matches!(&*self.kind, "group-message" | "group-post") {
            return None;
        }
        let home = Some(&self.origin).filter(|home| **home != realm.as_str());
        Some(GroupAddress {
            group: self.to_group.parse().ok()?,
            realm: home.and_then(|home| home.parse().ok()),
        })
    }

    /// Whether a file that it names is one for its reader: those of other realms' groups are not here, and what an older
    /// version has stored may have any name.
    fn brings(&self, file: &FileInfo) -> bool {
        (self.kind == "message" || self.origin == self.dest) && file.name == safe_name(&file.name)
    }

    /// As its owner sees it. `to_name` and `to` are the owner's display name and address.
    pub(crate) fn message(&self, to_name: &str, to: String) -> Message {
        let notice = self.kind == "notice";
        Message {
            msg_from: if notice { self.origin.clone().into_owned() } else { self.name.clone().into_owned() },
            msg_to: to_name.into(),
            msg: self.text.clone().into_owned(),
            id: self.id,
            ts: self.sent_at.clone().into_owned(),
            from: if notice { format!("@{}", self.origin) } else { self.from.clone().into_owned() },
            to,
            kind: notice.then(|| "notice".into()),
            about: self.about,
            file: self.file.clone().filter(|file| self.brings(file)),
            group: None,
        }
    }
}

/// The receivers of a stored envelope, in the order in which they stand there.
pub(crate) fn receivers(entry: &Entry) -> Vec<UserName> {
    #[derive(Deserialize)]
    struct To {
        #[serde(default)]
        to: Vec<UserName>,
    }
    serde_json::from_slice::<To>(&entry.body).map_or_else(|_| Vec::new(), |parsed| parsed.to)
}

/// Whether a stored envelope was sent with `sendgrouprealm`.
pub(crate) fn is_group(entry: &Entry) -> bool {
    #[derive(Deserialize)]
    struct Group {
        #[serde(default)]
        group: bool,
    }
    serde_json::from_slice::<Group>(&entry.body).is_ok_and(|parsed| parsed.group)
}

/// Whether two stored envelopes carry the same message: the same text and file to the same receivers.
pub(crate) fn same_message(one: &[u8], other: &[u8]) -> bool {
    let content = |bytes| match Envelope::from_bytes(bytes).map(|envelope| envelope.content) {
        Ok(Content::Message { to, group, text, file, .. }) => Some((to, group, None, text, file)),
        Ok(Content::GroupMessage { to_group, text, file, .. }) => {
            Some((Vec::new(), true, Some(to_group), text, file))
        }
        Ok(Content::GroupPost { to_group, text, .. }) => Some((Vec::new(), true, Some(to_group), text, None)),
        _ => None,
    };
    content(one) == content(other)
}

/// Who sends, as envelopes show it.
#[derive(Debug, Clone)]
pub(crate) struct Sender<'a> {
    pub(crate) address: &'a Address,
    pub(crate) name: &'a str,
}

/// The bytes of a message from `sender` to users of `dest`.
pub(crate) fn message_bytes(
    id: MessageId,
    sender: &Sender<'_>,
    dest: &RealmId,
    to: Vec<UserName>,
    group: bool,
    text: &str,
    file: Option<&FileInfo>,
) -> Bytes {
    let content = Content::Message {
        from: sender.address.clone(),
        name: sender.name.into(),
        to,
        group,
        text: text.into(),
        file: file.cloned(),
    };
    envelope(id, &sender.address.realm, dest, content).to_bytes().into()
}

/// An envelope made now.
pub(crate) fn envelope(id: MessageId, origin: &RealmId, dest: &RealmId, content: Content) -> Envelope {
    Envelope {
        v: ENVELOPE_VERSION,
        id,
        origin: origin.clone(),
        dest: dest.clone(),
        sent_at: now_rfc3339(),
        // One that stays in its realm is found by its id.
        traceparent: (origin != dest).then(|| traceparent(id)),
        lane: None,
        content,
    }
}
