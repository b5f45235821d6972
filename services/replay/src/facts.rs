//! What an entry says, whatever kind it is: borrowed from its body, and read without building more than is shown.

use std::borrow::Cow;

use antar_broker::Entry;
use antar_proto::envelope::unbundle;
use antar_realm::traffic::{Kind, REPLAYED_HEADER, Spot};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// What the names of headers begin with that say why something could not be delivered.
const DEAD_HEADERS: &str = "Antar-Dead-";
/// Which envelopes of a bundle could not be delivered, where not all of them are meant.
const DEAD_LINES: &str = "Antar-Dead-Lines";
/// Most receivers that are shown of an entry: more than a realm takes.
const RECEIVERS_MAX: usize = 4_096;

/// What kind of thing an entry's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// What a user wrote.
    Message,
    /// What a realm told one of its users.
    Notice,
    /// What became of messages, as realms tell each other.
    Receipt,
    /// The same, as a sender is told.
    Status,
    /// What happened beside messages.
    Event,
    /// Something that cannot be read.
    Unknown,
}

impl What {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Notice => "notice",
            Self::Receipt => "receipt",
            Self::Status => "status",
            Self::Event => "event",
            Self::Unknown => "unknown",
        }
    }
}

/// See the module. What is not there is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// What it is.
    pub what: What,
    /// The UUID of the message, or of the notice or receipt itself.
    pub id: Cow<'a, str>,
    /// Who says it: `user@realm`, or `@realm` for a realm.
    pub from: Cow<'a, str>,
    /// To whom: names in the realm `dest`.
    pub to: Vec<Cow<'a, str>>,
    /// The realm that it comes from.
    pub origin: Cow<'a, str>,
    /// The realm that it is for.
    pub dest: Cow<'a, str>,
    /// Whom an event is about.
    pub user: Cow<'a, str>,
    /// The words, of a message or a notice.
    pub text: Option<Cow<'a, str>>,
    /// The whole body, of what is neither: it holds no words of users.
    pub detail: Option<&'a str>,
    /// Why it could not be delivered, for people and for programs.
    pub reason: Cow<'a, str>,
    /// See `reason`.
    pub code: Cow<'a, str>,
    /// From where it was copied: `realm/sequence`.
    pub replayed: Option<&'a str>,
    /// Which envelope of a bundle it is, from 0; `None` of an entry that is no bundle.
    pub line: Option<usize>,
    /// The bytes that say all this.
    pub body: &'a [u8],
}

/// All fields that the bodies of entries have.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    origin: Cow<'a, str>,
    #[serde(borrow, default)]
    dest: Cow<'a, str>,
    #[serde(borrow, default)]
    from: Cow<'a, str>,
    #[serde(borrow, default)]
    to: To<'a>,
    #[serde(borrow, default)]
    to_group: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
    #[serde(borrow, default)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    user: Cow<'a, str>,
    #[serde(borrow, default)]
    realm: Cow<'a, str>,
    #[serde(borrow, default)]
    state: Cow<'a, str>,
    #[serde(borrow, default)]
    ids: To<'a>,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
    #[serde(borrow, default)]
    code: Cow<'a, str>,
    /// Of a dead letter: the bytes that could not be delivered, as text.
    #[serde(borrow, default)]
    body: Cow<'a, str>,
}

/// One name, or several.
#[derive(Debug, Default)]
struct To<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for To<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = To<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(To(vec![Cow::Borrowed(name)]))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(To(vec![Cow::Owned(name.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
                let mut found = Vec::with_capacity(names.size_hint().unwrap_or(1).min(RECEIVERS_MAX));
                while let Some(Name(name)) = names.next_element()? {
                    if found.len() < RECEIVERS_MAX {
                        found.push(name);
                    }
                }
                Ok(To(found))
            }
        }
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        deserializer.deserialize_any(Names)
    }
}

impl<'a> Facts<'a> {
    /// Reads an entry that stands at `spot`, and of a bundle each envelope.
    pub fn all(entry: &'a Entry, spot: &Spot<'a>) -> impl Iterator<Item = Self> {
        let lines = lines_of(entry, spot);
        let one = lines.is_empty().then(|| Self::of(entry, spot));
        let spot = *spot;
        one.into_iter().chain(lines.into_iter().map(move |(line, body)| {
            let facts = Self { line: Some(line), ..Self::of_body(body, &spot, false) };
            facts.with_headers(entry)
        }))
    }

    /// Reads an entry that stands at `spot` and is no bundle.
    pub fn of(entry: &'a Entry, spot: &Spot<'a>) -> Self {
        // A letter without such headers holds its reason, and the envelope as text.
        let is_wrapped = !entry.headers.iter().any(|(name, _)| name.starts_with(DEAD_HEADERS));
        Self::of_body(&entry.body, spot, is_wrapped).with_headers(entry)
    }

    fn with_headers(mut self, entry: &'a Entry) -> Self {
        let facts = &mut self;
        for (name, value) in &entry.headers {
            if name == REPLAYED_HEADER {
                facts.replayed = Some(value);
            }
            match name.strip_prefix(DEAD_HEADERS) {
                Some("Reason") => facts.reason = Cow::Borrowed(value),
                Some("Code") => facts.code = Cow::Borrowed(value),
                _ => {}
            }
        }
        self
    }

    fn of_body(bytes: &'a [u8], spot: &Spot<'a>, is_wrapped: bool) -> Self {
        let unknown = Self { body: bytes, ..Self::unknown() };
        let Ok(body) = serde_json::from_slice::<Body<'a>>(bytes) else { return unknown };
        let Body { id, origin, dest, text, .. } = body;
        let raw = std::str::from_utf8(bytes).ok();
        let mut facts = Self { id, origin, dest, ..unknown };
        if spot.kind == Kind::Dead {
            (facts.reason, facts.code) = (body.reason, body.code);
        }
        match (spot.kind, &*body.kind) {
            (Kind::Dead, "") if is_wrapped && !body.body.is_empty() => {
                let spot = Spot { kind: Kind::Dead, user: None, beside: None };
                let inner = Facts::of_body(body.body.as_bytes(), &spot, false).into_owned();
                Self { reason: facts.reason, code: facts.code, body: bytes, ..inner }
            }
            (_, "message") => {
                let (from, to) = (body.from, body.to.0);
                Self { what: What::Message, from, to, text: Some(text), ..facts }
            }
            (_, "group-message") => {
                let (from, to) = (body.from, vec![Cow::Owned(format!("#{}", body.to_group))]);
                Self { what: What::Message, from, to, text: Some(text), ..facts }
            }
            (_, "notice") => {
                let (from, to) = (Cow::Owned(format!("@{}", facts.origin)), body.to.0);
                Self { what: What::Notice, from, to, text: Some(text), ..facts }
            }
            (_, "receipt") => {
                let (from, to) = (Cow::Owned(format!("@{}", facts.origin)), vec![Cow::Borrowed("")]);
                Self { what: What::Receipt, from, to, detail: raw, ..facts }
            }
            (Kind::Mail, "") if !body.state.is_empty() => {
                let from = Cow::Owned(format!("@{}", body.realm));
                let to = spot.user.map(Cow::Borrowed).into_iter().collect();
                let id = if let [id] = &body.ids.0[..] { id.clone() } else { Cow::Borrowed("") };
                Self { what: What::Status, id, from, to, origin: body.realm, detail: raw, ..facts }
            }
            (Kind::Event, "") if !body.event.is_empty() => {
                Self { what: What::Event, user: body.user, origin: body.realm, detail: raw, ..facts }
            }
            _ => facts,
        }
    }

    fn unknown() -> Self {
        let none = Cow::Borrowed("");
        Self {
            what: What::Unknown,
            id: none.clone(),
            from: none.clone(),
            to: Vec::new(),
            origin: none.clone(),
            dest: none.clone(),
            user: none.clone(),
            text: None,
            detail: None,
            reason: none.clone(),
            code: none,
            replayed: None,
            line: None,
            body: &[],
        }
    }

    /// The same, borrowed from nothing; without the whole body.
    fn into_owned(self) -> Facts<'static> {
        let own = |text: Cow<'a, str>| Cow::<'static, str>::Owned(text.into_owned());
        Facts {
            what: self.what,
            id: own(self.id),
            from: own(self.from),
            to: self.to.into_iter().map(own).collect(),
            origin: own(self.origin),
            dest: own(self.dest),
            user: own(self.user),
            text: self.text.map(own),
            detail: None,
            reason: own(self.reason),
            code: own(self.code),
            replayed: None,
            line: None,
            body: &[],
        }
    }
}

/// The envelopes of a bundle with their numbers; none of an entry that is no bundle. Of a dead letter those that are meant.
fn lines_of<'a>(entry: &'a Entry, spot: &Spot<'_>) -> Vec<(usize, &'a [u8])> {
    if !matches!(spot.kind, Kind::Inbox | Kind::Dead) || memchr::memchr(b'\n', &entry.body).is_none() {
        return Vec::new();
    }
    let Ok(lines) = unbundle(&entry.body) else { return Vec::new() };
    let meant = entry.headers.iter().find(|(name, _)| name == DEAD_LINES);
    let meant: Option<Vec<usize>> =
        meant.map(|(_, lines)| lines.split(',').filter_map(|number| number.parse().ok()).collect());
    lines
        .enumerate()
        .filter(|(number, _)| meant.as_ref().is_none_or(|meant| meant.contains(number)))
        .collect()
}
