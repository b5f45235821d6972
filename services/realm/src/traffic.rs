//! What stands in a realm's log, for those who read it from outside: the kinds of entries and where each kind stands.
//!
//! Must not know: how entries are read or shown.

use std::fmt;
use std::str::FromStr;

use antar_broker::{Filter, KvError, SharedBroker, Subject};
use antar_proto::RealmId;

use crate::key_file::public_key_of;
use crate::places::{Places, is_fence};

/// Marks an entry that was copied from another realm's log: `<realm>/<sequence there>`.
pub const REPLAYED_HEADER: &str = "Antar-Replayed";

/// A kind of entries. Their order is that in which entries of one moment are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Envelopes from other realms.
    Inbox,
    /// What stands in mailboxes, senders' own copies and news included.
    Mail,
    /// Envelopes to other realms.
    Outbox,
    /// Messages to named groups.
    Group,
    /// What happened beside messages.
    Event,
    /// What could not be delivered.
    Dead,
}

/// One of the three streams of a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// `REALM_<id>_INBOX`
    Inbox,
    /// `REALM_<id>_MAIL`
    Mail,
    /// `REALM_<id>_LOG`
    Log,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [Self::Inbox, Self::Mail, Self::Outbox, Self::Group, Self::Event, Self::Dead];

    /// Its name, as it stands in subjects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Mail => "mail",
            Self::Outbox => "outbox",
            Self::Group => "group",
            Self::Event => "event",
            Self::Dead => "dead",
        }
    }

    /// The stream that keeps it.
    pub const fn stream(self) -> Stream {
        match self {
            Self::Inbox => Stream::Inbox,
            Self::Mail => Stream::Mail,
            Self::Outbox | Self::Group | Self::Event | Self::Dead => Stream::Log,
        }
    }

    /// What its subjects look like in a realm. Each filter lies in one stream.
    pub fn filters(self, realm: &RealmId) -> Vec<Filter> {
        Places::new(realm.clone()).of_kind(
            self.as_str(),
            match self {
                Self::Inbox => &["", ".*"],
                Self::Mail => &[".*.*"],
                Self::Outbox | Self::Group => &[".*"],
                Self::Event | Self::Dead => &[""],
            },
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        named.ok_or_else(|| format!("{text:?} is none of inbox, outbox, mail, group, event and dead"))
    }
}

/// What a subject of a realm tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot<'a> {
    /// What stands there.
    pub kind: Kind,
    /// Whose mailbox it is.
    pub user: Option<&'a str>,
    /// Of a mailbox the box; of inbox and outbox the other realm; of a group its name.
    pub beside: Option<&'a str>,
}

impl<'a> Spot<'a> {
    /// Reads a subject; `None` for one that marks who works, and for one that is no realm's.
    pub fn of(subject: &'a Subject) -> Option<Self> {
        let mut tokens = subject.tokens().skip(2);
        let kind = tokens.next()?.parse().ok()?;
        let user = if kind == Kind::Mail { tokens.next() } else { None };
        let beside = tokens.next();
        let is_mark = [user, beside].into_iter().flatten().any(is_fence);
        (!is_mark).then_some(Self { kind, user, beside })
    }
}

/// The public key of a realm, if it has one.
pub async fn public_key(broker: &SharedBroker, realm: &RealmId) -> Result<Option<String>, KvError> {
    public_key_of(broker, &Places::new(realm.clone())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_that_a_realm_writes_has_its_kind() {
        let places = Places::new("a".parse().unwrap());
        let (user, peer) = ("messi".parse().unwrap(), "b".parse().unwrap());
        for (subject, kind, user, beside) in [
            (places.mail_local(&user), Kind::Mail, Some("messi"), Some("local")),
            (places.mail_sent(&user), Kind::Mail, Some("messi"), Some("_sent")),
            (places.mail_status(&user), Kind::Mail, Some("messi"), Some("_status")),
            (places.mail_realm(&user, &peer), Kind::Mail, Some("messi"), Some("b")),
            (places.outbox(&peer), Kind::Outbox, None, Some("b")),
            (places.inbox(), Kind::Inbox, None, None),
            (places.source(Some(&peer)).inbox, Kind::Inbox, None, Some("b")),
            (places.group(&"tim".parse().unwrap()), Kind::Group, None, Some("tim")),
            (places.event(), Kind::Event, None, None),
            (places.dead(), Kind::Dead, None, None),
        ] {
            assert_eq!(Spot::of(&subject), Some(Spot { kind, user, beside }), "{subject}");
            let filters = kind.filters(places.realm());
            assert!(filters.iter().any(|filter| filter.matches(subject.as_str())), "{subject}");
        }
        for fence in [
            places.mail_fence(&peer),
            places.log_fence(&peer),
            places.source(None).fence,
            places.source(Some(&peer)).fence,
        ] {
            assert_eq!(Spot::of(&fence), None, "{fence}");
        }
    }

    #[test]
    fn the_filters_of_all_kinds_are_those_of_the_streams() {
        let places = Places::new("a".parse().unwrap());
        let text = |filter: &Filter| filter.as_str().to_owned();
        let mut own: Vec<String> =
            places.streams(1).iter().flat_map(|spec| &spec.filters).map(text).collect();
        let mut kinds: Vec<String> =
            Kind::ALL.iter().flat_map(|kind| kind.filters(places.realm())).map(|f| text(&f)).collect();
        own.sort();
        kinds.sort();
        assert_eq!(own, kinds);
    }
}
