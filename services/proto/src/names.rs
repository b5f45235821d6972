//! Names and ids, checked once where they enter. A value of one of these types can be part of a subject, a key or a
//! file name without changing its meaning.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Longest realm id, user or group name, in bytes.
pub const NAME_BYTES_MAX: usize = 32;
/// Longest tag of a request, in bytes.
pub const TAG_BYTES_MAX: usize = 32;
/// The box of a mailbox that holds messages from the own realm; no realm can have this id.
pub const BOX_LOCAL: &str = "local";

/// The text is not a name of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 32 of a-z, 0-9, _ and -, and begins with a letter or a digit")]
pub struct BadName;

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && plain(bytes[0])
        && bytes.iter().all(|&b| plain(b) || b == b'_' || b == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $accept:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                let accept: fn(&str) -> bool = $accept;
                if accept(text) { Ok(Self(text.into())) } else { Err(BadName) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// Id of a realm: `[a-z0-9][a-z0-9_-]{0,31}`, and not `local`.
    RealmId, |text| is_name(text) && text != BOX_LOCAL
}
name! {
    /// Name of a user within a realm: `[a-z0-9][a-z0-9_-]{0,31}`.
    UserName, is_name
}

name! {
    /// Name of a group within a realm: `[a-z0-9][a-z0-9_-]{0,31}`, written without its `#`.
    GroupName, is_name
}

/// A group as it is written, `#tim` or `#tim@realm1`; the `#` may be left out where nothing else can stand, and is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupAddress {
    /// The group.
    pub group: GroupName,
    /// The realm that it lives in; none for the one that is asked.
    pub realm: Option<RealmId>,
}

impl FromStr for GroupAddress {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.strip_prefix('#').unwrap_or(text);
        match text.split_once('@') {
            Some((group, realm)) => Ok(Self { group: group.parse()?, realm: Some(realm.parse()?) }),
            None => Ok(Self { group: text.parse()?, realm: None }),
        }
    }
}

impl fmt::Display for GroupAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.realm {
            Some(realm) => write!(f, "{}@{realm}", self.group),
            None => self.group.fmt(f),
        }
    }
}

impl Serialize for GroupAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GroupAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A user of a realm: `messi@realm1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The user.
    pub user: UserName,
    /// The user's realm.
    pub realm: RealmId,
}

impl FromStr for Address {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let (user, realm) = text.split_once('@').ok_or(BadName)?;
        Ok(Self { user: user.parse()?, realm: realm.parse()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.realm)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The last bytes of ids that a server gave.
const ASSIGNED: [u8; 4] = *b"antr";

/// Id of a message, a UUID: version 7 unless another realm chose otherwise. Unique together with the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub Uuid);

impl MessageId {
    /// A fresh one (UUID v7).
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// One that a server gives to a message that came without. Its last bytes say so: to send such a message again under
    /// this id would be to send another one, which can be refused only if it is seen. Time and 42 bits of a counter
    /// that begins anywhere in each millisecond (RFC 9562, 6.2, method 1) make it unique.
    pub fn assigned() -> Self {
        let mut bytes = Uuid::now_v7().into_bytes();
        bytes[12..].copy_from_slice(&ASSIGNED);
        Self(Uuid::from_bytes(bytes))
    }

    /// Whether a server gave it. One chosen at random looks so once in four thousand million times.
    pub fn is_assigned(&self) -> bool {
        self.0.as_bytes()[12..] == ASSIGNED
    }
}

impl FromStr for MessageId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What a client puts before a request to recognise the reply: 1 to 32 of `A-Za-z0-9._-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a>(&'a str);

impl<'a> Tag<'a> {
    /// Takes a tag, without its `@`; `None` if it is not one.
    pub fn new(text: &'a str) -> Option<Self> {
        let good = (1..=TAG_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        good.then_some(Self(text))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// The message id that a send with this tag gets: a tag of 32 hexadecimal digits that form a UUID of version 7 is
    /// one, so that the same request sent again is the same message.
    pub fn message_id(&self) -> Option<MessageId> {
        if self.0.len() != 32 {
            return None;
        }
        let uuid = Uuid::try_parse(self.0).ok()?;
        (uuid.get_version_num() == 7).then_some(MessageId(uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_never_change_a_subject_or_a_path() {
        let long = "a".repeat(33);
        let huge = "a".repeat(256);
        for bad in [
            "",
            ".",
            "a.b",
            "*",
            ">",
            "../x",
            "a/b",
            "A",
            "-a",
            "_a",
            "a b",
            "a\u{202e}b",
            "меssi",
            "a\0",
            &long,
            &huge,
        ] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
            assert!(bad.parse::<RealmId>().is_err(), "{bad:?}");
        }
        for good in ["a", "0", "messi", "a-b_c9", &"a".repeat(32)] {
            assert!(good.parse::<UserName>().is_ok(), "{good:?}");
        }
        assert!("local".parse::<RealmId>().is_err());
    }

    #[test]
    fn an_address_is_a_user_and_a_realm() {
        assert_eq!("messi@realm1".parse::<Address>().unwrap().to_string(), "messi@realm1");
        for bad in ["messi", "@realm1", "messi@", "a@b@c", "messi@local"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_group_may_be_written_with_its_sign_and_its_realm() {
        for (text, realm) in
            [("tim", None), ("#tim", None), ("#tim@realm1", Some("realm1")), ("tim@a", Some("a"))]
        {
            let parsed: GroupAddress = text.parse().unwrap();
            assert_eq!((parsed.group.as_str(), parsed.realm.as_ref().map(RealmId::as_str)), ("tim", realm));
            assert_eq!(parsed.to_string(), text.trim_start_matches('#'));
        }
        for bad in ["", "#", "##tim", "#tim@", "#@realm1", "#Tim", "#tim.x", "#tim@local", "#tim@a@b", "#a,b"]
        {
            assert!(bad.parse::<GroupAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_tag_that_is_a_uuid_v7_is_the_message_id() {
        let assigned = MessageId::assigned();
        assert!(assigned.is_assigned() && !MessageId::fresh().is_assigned());
        let tag = assigned.0.simple().to_string();
        assert_eq!(Tag::new(&tag).unwrap().message_id(), Some(assigned));
        assert_ne!(MessageId::assigned(), assigned);
        let id = MessageId::fresh();
        let tag = id.0.simple().to_string();
        assert_eq!(Tag::new(&tag).unwrap().message_id(), Some(id));
        let v4 = Uuid::new_v4().simple().to_string();
        assert_eq!(Tag::new(&v4).unwrap().message_id(), None);
        assert_eq!(Tag::new("7").unwrap().message_id(), None);
        for bad in ["", "a b", "ä", &"x".repeat(33)] {
            assert!(Tag::new(bad).is_none(), "{bad:?}");
        }
    }
}
