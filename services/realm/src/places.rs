//! Where a realm keeps what: its subjects, streams, buckets and queues. Nothing else builds such a name.

use antar_broker::{Bucket, Filter, QueueName, ReadError, SharedBroker, StreamSpec, Subject};
use antar_proto::names::BOX_LOCAL;
use antar_proto::{GroupAddress, RealmId, UserName};

/// Box of a user's own sent messages. No realm id begins with `_`.
pub(crate) const BOX_SENT: &str = "_sent";
/// Box of what became of a user's messages to other realms.
pub(crate) const BOX_STATUS: &str = "_status";
/// Where delivery marks that it, or a lane, was taken over. No user's name and no realm's id begins with `_`.
const DELIVERY: &str = "_delivery";
const LANE: &str = "_lane";
const REDRIVE: &str = "_redrive";
/// Where an edge marks that it took over what is said in groups to a peer.
const RELAY: &str = "_relay";
/// The bucket of how far each peer's lane was delivered.
pub(crate) const LANES: &str = "lanes";
/// The bucket of what became of dead letters.
pub(crate) const DEAD: &str = "dead";
/// The bucket of the edges that are there. It is no part of what a realm keeps: it is made wherever it is missing.
pub(crate) const EDGES: &str = "edges";
/// The bucket of what is kept of each file beside its parts, and that of the parts.
pub(crate) const FILES: &str = "files";
pub(crate) const FILE_PARTS: &str = "file_parts";
/// The bucket of groups.
pub(crate) const GROUPS: &str = "groups";
/// What the names of boxes begin with that are groups, in the keys of cursors. No realm id begins with `_`.
const GROUP_BOX: &str = "_group.";
/// Stands between the names of a group and of the realm that it lives in, if that is another one: in no name is a letter of
/// upper case.
const AT: &str = "AT";
/// Most envelopes waiting in one lane or inbox: a peer that is away for long must not fill the disk.
pub(crate) const LANE_ENTRIES_MAX: u64 = 1_000_000;

/// The names of one realm.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    realm: RealmId,
}

/// A part of a name that was checked makes a name that needs no check.
const PLAIN: &str = "realm ids and user names are single tokens of a subject";

impl Places {
    pub(crate) fn new(realm: RealmId) -> Self {
        Self { realm }
    }

    pub(crate) fn realm(&self) -> &RealmId {
        &self.realm
    }

    fn subject(&self, rest: std::fmt::Arguments<'_>) -> Subject {
        Subject::new(format!("realm.{}.{rest}", self.realm)).expect(PLAIN)
    }

    /// One box of a user's mailbox: `local`, another realm's id, or one of the constants above.
    pub(crate) fn mail_box(&self, user: &UserName, mailbox: &str) -> Subject {
        self.subject(format_args!("mail.{user}.{mailbox}"))
    }

    /// The box with this cursor key, `<user>.<box>`.
    pub(crate) fn mail_of_cursor(&self, key: &str) -> Option<Subject> {
        let (_, mailbox) = key.split_once('.')?;
        let is_mail = !mailbox.starts_with(GROUP_BOX);
        is_mail.then(|| Subject::new(format!("realm.{}.mail.{key}", self.realm)).ok()).flatten()
    }

    /// What the cursor with this key is about: a box, or a group.
    pub(crate) fn of_cursor(&self, key: &str) -> Option<Subject> {
        match key.split_once('.')?.1.strip_prefix(GROUP_BOX) {
            Some(token) => group_named(token).map(|group| self.group(&group)),
            None => self.mail_of_cursor(key),
        }
    }

    /// What is said in a group, of this realm or another one.
    pub(crate) fn group(&self, group: &GroupAddress) -> Subject {
        self.subject(format_args!("group.{}", group_key(group)))
    }

    /// What is said in all groups.
    pub(crate) fn groups(&self) -> Filter {
        Filter::new(format!("realm.{}.group.*", self.realm)).expect(PLAIN)
    }

    /// A group in the place of a box, for cursors.
    pub(crate) fn group_box(&self, group: &GroupAddress) -> String {
        format!("{GROUP_BOX}{}", group_key(group))
    }

    /// The cursor of how far a peer was told what is said in a group. No user's name begins with `_`.
    pub(crate) fn relay_cursor(&self, peer: &RealmId, group: &GroupAddress) -> String {
        format!("{RELAY}_{peer}.{}", self.group_box(group))
    }

    /// Where whoever tells a peer what is said in groups begins with an entry of its own.
    pub(crate) fn relay_fence(&self, peer: &RealmId) -> Subject {
        self.subject(format_args!("outbox.{RELAY}_{peer}"))
    }

    /// Messages from this realm.
    pub(crate) fn mail_local(&self, user: &UserName) -> Subject {
        self.mail_box(user, BOX_LOCAL)
    }

    /// Messages exchanged with another realm.
    pub(crate) fn mail_realm(&self, user: &UserName, peer: &RealmId) -> Subject {
        self.mail_box(user, peer.as_str())
    }

    /// What a user sent.
    pub(crate) fn mail_sent(&self, user: &UserName) -> Subject {
        self.mail_box(user, BOX_SENT)
    }

    /// What became of what a user sent to other realms.
    pub(crate) fn mail_status(&self, user: &UserName) -> Subject {
        self.mail_box(user, BOX_STATUS)
    }

    /// All boxes of a user.
    pub(crate) fn mail_all(&self, user: &UserName) -> Filter {
        Filter::new(format!("realm.{}.mail.{user}.*", self.realm)).expect(PLAIN)
    }

    /// Everything of all users.
    pub(crate) fn mail_of_all(&self) -> Filter {
        Filter::new(format!("realm.{}.mail.*.*", self.realm)).expect(PLAIN)
    }

    /// Where messages from and to other realms stand on their way.
    pub(crate) fn between_realms(&self) -> [Filter; 4] {
        ["inbox", "inbox.*", "outbox.*", "dead"]
            .map(|rest| Filter::new(format!("realm.{}.{rest}", self.realm)).expect(PLAIN))
    }

    /// Everything that was exchanged with another realm, of all users.
    pub(crate) fn mail_of_realm(&self, peer: &RealmId) -> Filter {
        Filter::new(format!("realm.{}.mail.*.{peer}", self.realm)).expect(PLAIN)
    }

    /// What became of messages to other realms, of all users.
    pub(crate) fn mail_of_status(&self) -> Filter {
        Filter::new(format!("realm.{}.mail.*.{BOX_STATUS}", self.realm)).expect(PLAIN)
    }

    /// What comes in at our inbox as everybody reaches it; with a peer, what comes in from that one where each realm has
    /// an account of its own: there the broker puts the origin behind the subject.
    pub(crate) fn source(&self, peer: Option<&RealmId>) -> Source {
        let realm = &self.realm;
        let queue = |name: String| QueueName::new(&name).expect(PLAIN);
        match peer {
            None => Source {
                peer: None,
                inbox: self.inbox(),
                queue: queue(format!("DELIVERY_{realm}")),
                fence: self.subject(format_args!("outbox.{DELIVERY}")),
            },
            Some(peer) => Source {
                peer: Some(peer.clone()),
                inbox: self.subject(format_args!("inbox.{peer}")),
                queue: queue(format!("DELIVERY_{realm}FROM{peer}")),
                fence: self.subject(format_args!("outbox.{DELIVERY}_{peer}")),
            },
        }
    }

    /// Where whoever delivers what comes from this realm begins with an entry of its own: its fence in the stream of
    /// mailboxes.
    pub(crate) fn mail_fence(&self, origin: &RealmId) -> Subject {
        self.subject(format_args!("mail.{LANE}.{origin}"))
    }

    /// Likewise, in the stream of outboxes.
    pub(crate) fn log_fence(&self, origin: &RealmId) -> Subject {
        self.subject(format_args!("outbox.{LANE}_{origin}"))
    }

    pub(crate) fn outbox(&self, peer: &RealmId) -> Subject {
        self.subject(format_args!("outbox.{peer}"))
    }

    pub(crate) fn inbox(&self) -> Subject {
        Self::inbox_of(&self.realm)
    }

    /// The only subject of another realm that this one publishes to.
    pub(crate) fn inbox_of(realm: &RealmId) -> Subject {
        Subject::new(format!("realm.{realm}.inbox")).expect(PLAIN)
    }

    /// Where a realm answers with its name card.
    pub(crate) fn info_of(realm: &RealmId) -> Subject {
        Subject::new(format!("realm.{realm}.info")).expect(PLAIN)
    }

    /// Where whoever redrives a dead letter begins with an entry of its own.
    pub(crate) fn redrive_fence(&self) -> Subject {
        self.subject(format_args!("mail.{REDRIVE}.{REDRIVE}"))
    }

    pub(crate) fn dead(&self) -> Subject {
        self.subject(format_args!("dead"))
    }

    pub(crate) fn event(&self) -> Subject {
        self.subject(format_args!("event"))
    }

    /// The three streams, with their limits.
    pub(crate) fn streams(&self, mailbox_entries_max: u64) -> [StreamSpec; 3] {
        let filter = |rest: &str| Filter::new(format!("realm.{}.{rest}", self.realm)).expect(PLAIN);
        let spec = |name: &str, filters, max| StreamSpec {
            name: format!("REALM_{}_{name}", self.realm),
            filters,
            entries_per_subject_max: Some(max),
        };
        [
            spec("INBOX", vec![filter("inbox"), filter("inbox.*")], LANE_ENTRIES_MAX),
            spec("MAIL", vec![filter("mail.*.*")], mailbox_entries_max),
            spec(
                "LOG",
                vec![filter("outbox.*"), filter("group.*"), filter("event"), filter("dead")],
                LANE_ENTRIES_MAX,
            ),
        ]
    }

    /// The subjects of one kind, with each of these endings.
    pub(crate) fn of_kind(&self, kind: &str, endings: &[&str]) -> Vec<Filter> {
        let filter =
            |ending: &&str| Filter::new(format!("realm.{}.{kind}{ending}", self.realm)).expect(PLAIN);
        endings.iter().map(filter).collect()
    }

    /// All buckets but that of edges and those of files.
    pub(crate) fn buckets(&self) -> [Bucket; 9] {
        ["accounts", "sessions", "cursors", "peers", "invites", "settings", LANES, DEAD, GROUPS]
            .map(|name| self.bucket(name))
    }

    pub(crate) fn bucket(&self, name: &str) -> Bucket {
        Bucket::new(&format!("REALM_{}_{name}", self.realm)).expect(PLAIN)
    }

    /// The lane to a peer. Upper case stands between the two ids, so that no other pair has the same name.
    pub(crate) fn lane_queue(&self, peer: &RealmId) -> QueueName {
        QueueName::new(&format!("{}TO{peer}", self.realm)).expect(PLAIN)
    }
}

/// Whether a part of a subject marks who delivers, or works a lane.
pub(crate) fn is_fence(token: &str) -> bool {
    [DELIVERY, LANE, REDRIVE, RELAY].into_iter().any(|mark| token.starts_with(mark))
}

/// The realms whose streams are there, in alphabetical order.
pub async fn realms(broker: &SharedBroker) -> Result<Vec<RealmId>, ReadError> {
    let names = broker.stream_names().await?;
    let realm_of = |name: &String| name.strip_prefix("REALM_")?.strip_suffix("_LOG")?.parse().ok();
    Ok(names.iter().filter_map(realm_of).collect())
}

/// Where envelopes come in, and what belongs to the worker there.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Whose envelopes come in there; `None` for anybody's.
    pub(crate) peer: Option<RealmId>,
    pub(crate) inbox: Subject,
    pub(crate) queue: QueueName,
    /// Where each worker begins with an entry of its own, in the stream of outboxes.
    pub(crate) fence: Subject,
}

/// The group of a subject, `realm.<id>.group.<group>`.
pub(crate) fn group_of(subject: &Subject) -> Option<GroupAddress> {
    is_of_group(subject).then(|| group_named(subject.tokens().nth(3)?)).flatten()
}

/// Whether what stands on a subject was said in a group.
pub(crate) fn is_of_group(subject: &Subject) -> bool {
    subject.tokens().nth(2) == Some("group")
}

/// What a group is kept under: `tim`, or `timATrealm1` if it lives in another realm.
pub(crate) fn group_key(group: &GroupAddress) -> String {
    match &group.realm {
        Some(realm) => format!("{}{AT}{realm}", group.group),
        None => group.group.to_string(),
    }
}

/// The group that is kept under this.
pub(crate) fn group_named(key: &str) -> Option<GroupAddress> {
    match key.split_once(AT) {
        Some((group, realm)) => {
            Some(GroupAddress { group: group.parse().ok()?, realm: Some(realm.parse().ok()?) })
        }
        None => Some(GroupAddress { group: key.parse().ok()?, realm: None }),
    }
}

/// The box of a mailbox subject, `realm.<id>.mail.<user>.<box>`.
pub(crate) fn box_of(subject: &Subject) -> &str {
    subject.tokens().nth(4).unwrap_or_default()
}
