//! Which messages of a peer were delivered lately: one that comes again under its id, at another place in the lane, is not
//! delivered twice, and an id that stands for another message now is noticed.
//!
//! A place in the lane says what was delivered, and is enough as long as the peer keeps its outbox. This is for a peer that
//! was restored from a backup, or that sends again what its broker no longer recognises.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use antar_broker::{ReadError, ReadFrom, ReadLimit};
use antar_proto::RealmId;
use antar_proto::envelope::{Content, Envelope};

use crate::shared::Shared;

/// Most messages that are remembered of a peer: 16 bytes for each, twice.
const MESSAGES_MAX: usize = 16_384;
/// How many of the newest in the mailboxes whoever takes the work over looks at.
const SEEDS: ReadLimit = ReadLimit { entries_max: 2_048, bytes_max: 4 * 1024 * 1024 };

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing.
    New,
    /// The same was delivered.
    Same,
    /// Another one was delivered under its id.
    Other,
}

/// A message, as hashes that nobody outside can aim at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Print {
    id: u64,
    content: u64,
}

/// The messages of one peer.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    hasher: RandomState,
    contents: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

impl Recent {
    /// That of an envelope; `None` if it is no message.
    pub(crate) fn print(&self, envelope: &Envelope) -> Option<Print> {
        let (from, content) = match &envelope.content {
            Content::Message { from, name, to, group, text, file } => {
                (from, self.hasher.hash_one((name, to, group, text, file)))
            }
            Content::GroupMessage { from, name, to_group, text, file: _ }
            | Content::GroupPost { from, name, to_group, text } => {
                (from, self.hasher.hash_one((name, to_group, text)))
            }
            _ => return None,
        };
        Some(Print { id: self.hasher.hash_one((envelope.id, from)), content })
    }

    /// Takes note of a message.
    pub(crate) fn see(&mut self, print: Print) -> Seen {
        match self.contents.get(&print.id) {
            Some(content) if *content == print.content => return Seen::Same,
            Some(_) => return Seen::Other,
            None => {}
        }
        if self.order.len() == MESSAGES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.contents.remove(&oldest);
        }
        self.order.push_back(print.id);
        self.contents.insert(print.id, print.content);
        Seen::New
    }

    /// What the mailboxes tell.
    pub(crate) async fn of(shared: &Shared, origin: &RealmId) -> Result<Self, ReadError> {
        let mut recent = Self::default();
        for filter in [shared.places.mail_of_realm(origin), shared.places.groups()] {
            let page = shared.broker.read(&filter, ReadFrom::End, SEEDS).await?;
            for entry in page.entries.iter().rev() {
                if let Ok(envelope) = Envelope::from_bytes(&entry.body)
                    && origin_of(&envelope) == origin
                    && let Some(print) = recent.print(&envelope)
                {
                    recent.see(print);
                }
            }
        }
        Ok(recent)
    }
}

/// The realm that an entry came from. What its members say in a group here stands in its log as this realm's own.
fn origin_of(envelope: &Envelope) -> &RealmId {
    match &envelope.content {
        Content::GroupMessage { from, .. } if envelope.origin == envelope.dest => &from.realm,
        _ => &envelope.origin,
    }
}

#[cfg(test)]
mod tests {
    use antar_proto::MessageId;

    use super::*;
    use crate::mail::envelope;

    fn message(id: MessageId, text: &str) -> Envelope {
        let (here, there) = ("a".parse().unwrap(), "b".parse().unwrap());
        let from = "messi@a".parse().unwrap();
        let to = vec!["lineker".parse().unwrap()];
        envelope(
            id,
            &here,
            &there,
            Content::Message { from, name: "M".into(), to, group: false, text: text.into(), file: None },
        )
    }

    #[test]
    fn the_same_and_another_message_under_one_id_are_told_apart() {
        let mut recent = Recent::default();
        let id = MessageId::fresh();
        let mut see = |envelope: &Envelope| recent.print(envelope).map(|print| recent.see(print)).unwrap();
        assert_eq!(see(&message(id, "x")), Seen::New);
        assert_eq!(see(&message(id, "x")), Seen::Same);
        assert_eq!(see(&message(id, "y")), Seen::Other);
        assert_eq!(see(&message(MessageId::fresh(), "x")), Seen::New);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        let first = message(MessageId::fresh(), "x");
        let mut see = |envelope: &Envelope| recent.print(envelope).map(|print| recent.see(print)).unwrap();
        see(&first);
        for _ in 0..MESSAGES_MAX {
            see(&message(MessageId::fresh(), "x"));
        }
        assert_eq!(see(&first), Seen::New);
        assert_eq!((recent.order.len(), recent.contents.len()), (MESSAGES_MAX, MESSAGES_MAX));
    }
}
