//! Which entries are wanted.

use antar_broker::Entry;
use antar_proto::envelope::{Content, Envelope};
use antar_proto::{Address, MessageId, RealmId};
use antar_realm::traffic::{Kind, Spot};
use memchr::memmem::Finder;

use crate::facts::{Facts, What};

/// See the module. What is not given does not matter.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    user: Option<Address>,
    own: Option<RealmId>,
    peer: Option<RealmId>,
    id: Option<Id>,
    grep: Option<Finder<'static>>,
}

/// A message's UUID, in the forms that stand in bodies and in ids of entries.
#[derive(Debug, Clone)]
struct Id {
    hyphenated: Finder<'static>,
    simple: Finder<'static>,
}

impl Selection {
    /// What is about a user: sent or received by, in a mailbox of, noted of.
    pub fn user(mut self, user: Address, own: RealmId) -> Self {
        (self.user, self.own) = (Some(user), Some(own));
        self
    }

    /// What was exchanged with, or is about, another realm.
    pub fn peer(mut self, peer: RealmId) -> Self {
        self.peer = Some(peer);
        self
    }

    /// What is, or speaks of, one message.
    pub fn id(mut self, id: MessageId) -> Self {
        let finder = |text: String| Finder::new(text.as_bytes()).into_owned();
        self.id = Some(Id {
            hyphenated: finder(id.0.hyphenated().to_string()),
            simple: finder(id.0.simple().to_string()),
        });
        self
    }

    /// What has this text in its words, or in its reason if it could not be delivered; as it is written.
    pub fn grep(mut self, text: &str) -> Self {
        self.grep = Some(Finder::new(text.as_bytes()).into_owned());
        self
    }

    /// What can be told without reading the body: `false` for one that is not wanted.
    pub fn may_be(&self, entry: &Entry) -> bool {
        self.id.as_ref().is_none_or(|id| {
            id.hyphenated.find(&entry.body).is_some()
                || id.simple.find(entry.id.as_str().as_bytes()).is_some()
        })
    }

    /// Whether an entry is wanted that may be, or an envelope of it.
    pub fn is_wanted(&self, spot: &Spot<'_>, facts: &Facts<'_>) -> bool {
        self.is_about_id(facts)
            && self.is_about_user(spot, facts)
            && self.is_about_peer(spot, facts)
            && self.has_words(facts)
    }

    /// Of a bundle that speaks of a message, not every envelope does.
    fn is_about_id(&self, facts: &Facts<'_>) -> bool {
        let (Some(id), Some(_)) = (&self.id, facts.line) else { return true };
        id.hyphenated.find(facts.body).is_some()
    }

    fn is_about_user(&self, spot: &Spot<'_>, facts: &Facts<'_>) -> bool {
        let (Some(Address { user, realm }), Some(own)) = (&self.user, &self.own) else { return true };
        let is_own = realm == own;
        if is_own && (spot.user == Some(user.as_str()) || facts.user == user.as_str()) {
            return true;
        }
        let is_sender = facts
            .from
            .split_once('@')
            .is_some_and(|(name, at)| name == user.as_str() && at == realm.as_str());
        let is_receiver = facts.dest == realm.as_str() && facts.to.iter().any(|name| name == user.as_str());
        is_sender
            || is_receiver
            || (facts.what == What::Receipt && is_told_of(facts.body, &facts.origin, user.as_str(), realm))
    }

    fn is_about_peer(&self, spot: &Spot<'_>, facts: &Facts<'_>) -> bool {
        let Some(peer) = &self.peer else { return true };
        let named = [&facts.origin, &facts.dest].into_iter().any(|realm| **realm == *peer.as_str());
        named || (spot.kind != Kind::Group && spot.beside == Some(peer.as_str()))
    }

    fn has_words(&self, facts: &Facts<'_>) -> bool {
        let Some(grep) = &self.grep else { return true };
        let texts = [facts.text.as_deref(), Some(&*facts.reason), facts.detail];
        texts.into_iter().flatten().any(|text| grep.find(text.as_bytes()).is_some())
    }
}

/// Whether a receipt speaks of a user: of one who sent, in the realm that gets it, or of one who received.
fn is_told_of(body: &[u8], origin: &str, user: &str, realm: &RealmId) -> bool {
    let Ok(Envelope { content: Content::Receipt { results }, dest, .. }) = Envelope::from_bytes(body) else {
        return false;
    };
    results.iter().any(|outcome| {
        (dest == *realm && outcome.sender.as_str() == user)
            || (origin == realm.as_str() && outcome.users.iter().any(|name| name.as_str() == user))
    })
}
