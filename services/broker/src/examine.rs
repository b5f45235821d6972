//! What can be wrong with what keeps the log: every kind of flaw, with what it means and what to do about it.
//!
//! Owns: the form of a flaw, the kinds that brokers find, and how far clocks may differ. Must not know: how anything is
//! found, nor what the log is for.

use std::time::Duration;

use crate::Timestamp;

/// How bad a flaw is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A promise is broken, or whoever serves the log would refuse to start.
    Error,
    /// It works, and will not always.
    Warning,
    /// To be known; nothing has to be done.
    Note,
}

impl Severity {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A kind of flaw. Its id is stable: scripts rely on it.
#[derive(Debug, PartialEq, Eq)]
pub struct FlawKind {
    /// `area.flaw`.
    pub id: &'static str,
    /// How bad it is, unless the one that was found says otherwise.
    pub severity: Severity,
    /// What follows from it.
    pub means: &'static str,
    /// What to do about it. `NAME` stands for what it was found at.
    pub remedy: &'static str,
}

/// One flaw that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Which kind.
    pub kind: &'static FlawKind,
    /// How bad this one is.
    pub severity: Severity,
    /// What was found, for people; names what it was found at.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Flaw {
    /// One of a kind, found at `name`.
    pub fn new(kind: &'static FlawKind, name: &str, what: impl Into<String>) -> Self {
        Self { kind, severity: kind.severity, what: what.into(), remedy: kind.remedy.replace("NAME", name) }
    }

    /// The same, as bad as this.
    pub fn with(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}

/// Makes a constant of each kind, and `ALL` of all of them.
#[macro_export]
macro_rules! flaw_kinds {
    ($vis:vis, $($name:ident = $id:literal, $severity:ident, $means:literal, $remedy:literal;)*) => {
        $(
            #[doc = $means]
            $vis static $name: $crate::FlawKind = $crate::FlawKind {
                id: $id,
                severity: $crate::Severity::$severity,
                means: $means,
                remedy: $remedy,
            };
        )*
        /// All of them, in the order in which they are documented.
        #[allow(dead_code, reason = "who finds them need not list them")]
        $vis static ALL: &[&$crate::FlawKind] = &[$(&$name),*];
    };
}

/// The kinds that brokers find.
pub mod flaws {
    flaw_kinds! {
        pub,
        BROKER_VERSION = "broker.version", Error,
            "Older servers have known weaknesses. Edges refuse to start on one.",
            "Update it to 2.12.7 or later, or to 2.14 or later: one server after the other, see deploy/runbook.md.";
        BROKER_PAYLOAD = "broker.payload", Error,
            "Messages between realms do not fit into what the server takes. Edges refuse to start on it.",
            "Set `max_payload: 1MiB` in the server's configuration, and reload it.";
        BROKER_SERVER = "broker.server", Warning,
            "Edges work by the other servers. With most of them away nothing can be stored.",
            "Start NAME, or mend the way to it; take it out of `broker.url` if it is gone for good.";
        ACCOUNT_STORAGE = "account.storage", Warning,
            "When it is full, sends are refused.",
            "Give the account more (`antar realm nats-config --storage-gib`), or keep less (`retention.days`).";
        ACCOUNT_STREAMS = "account.streams", Warning,
            "The next version, or a tool, may need one more.",
            "Remove streams that nobody needs, or raise `max_streams` of the account.";
        ACCOUNT_CONSUMERS = "account.consumers", Warning,
            "People's tools, and other programs in this account, will be refused theirs.",
            "Find whose they are (`nats consumer ls`), or raise `max_consumers` of the account.";
        ACCOUNT_SHARED = "account.shared", Warning,
            "Inside one account no permissions keep realms apart: each can read, change and remove what the others have.",
            "Give each realm an account of its own: `antar realm nats-config`, see deploy/README.md.";
        PERMISSIONS_NARROW = "permissions.narrow", Error,
            "Edges with these credentials cannot work, or not always.",
            "Allow it to the user in the server's configuration; `antar realm nats-config` writes users that may all they need.";
        PERMISSIONS_WIDE = "permissions.wide", Warning,
            "Whoever has these credentials can write into what belongs to others, and their log takes it.",
            "Give each realm an account of its own: `antar realm nats-config`.";
        PERMISSIONS_UNKNOWN = "permissions.unknown", Note,
            "What this user may do could not be looked at; what is needed of it shows only in use.",
            "Allow the user to publish to `$SYS.REQ.USER.INFO`.";
        CLOCK_BROKER = "clock.broker", Warning,
            "Times in logs and traces do not fit together. Beyond two minutes messages are not found by their ids.",
            "Let both machines follow a time server (chrony, systemd-timesyncd).";
        STREAM_MISSING = "stream.missing", Error,
            "What was in it is lost, or the realm was never made. Edges of a realm that is in use refuse to start.",
            "Restore the realm from a backup. If nothing was in it: `antar realm init ID --add-missing`.";
        STREAM_SUBJECTS = "stream.subjects", Error,
            "Some messages have no place, or it keeps what is not the realm's. Edges refuse to start.",
            "Set the subjects as they were: `nats stream edit NAME --subjects=…`, see proto-docs/subjects.md.";
        STREAM_STORAGE = "stream.storage", Error,
            "All of it is lost when the server stops. Edges refuse to start.",
            "Back the realm up, remove the stream, and restore: the storage of a stream cannot be changed.";
        STREAM_RETENTION = "stream.retention", Error,
            "Messages go when somebody has taken them. Edges refuse to start.",
            "Back the realm up, remove the stream, and restore it.";
        STREAM_DISCARD = "stream.discard", Error,
            "When it is full, messages that nobody has read go, without a word to their senders. Edges refuse to start.",
            "`nats stream edit NAME --discard=new --discard-per-subject`";
        STREAM_AGE = "stream.age", Error,
            "Messages go after that time, read or not. Edges refuse to start.",
            "`nats stream edit NAME --max-age=0`; the realm itself removes what is old (`retention.days`).";
        STREAM_LIMITS = "stream.limits", Error,
            "One user, or one other realm, can fill it for all. Edges refuse to start on a limit of messages.",
            "`nats stream edit NAME --max-msgs=-1 --max-bytes=-1`; the account limits what is stored.";
        STREAM_PER_SUBJECT = "stream.per-subject", Error,
            "The configuration wants fewer entries of one subject than the stream has promised. Edges with it refuse to start.",
            "Set `limits.mailbox_entries_max` to what the stream has, or higher.";
        STREAM_WINDOW = "stream.window", Error,
            "A message that is sent again after longer than that is stored twice. Edges refuse to start.",
            "`nats stream edit NAME --dupe-window=10m` (2m for a bucket)";
        STREAM_REPUBLISH = "stream.republish", Error,
            "New messages are not announced: `watch` shows nothing, other edges learn nothing. Edges refuse to start.",
            "Set its republishing as it was (`nats stream edit NAME --config FILE`), see proto-docs/subjects.md.";
        STREAM_ACCESS = "stream.access", Error,
            "It cannot be read, acknowledges nothing, or takes nothing. Edges refuse to start.",
            "`nats stream edit NAME --allow-direct`; a sealed stream has to be restored from a backup.";
        STREAM_TTL = "stream.ttl", Error,
            "Sessions and invitations never expire by themselves. Edges refuse to start.",
            "`nats stream edit NAME --allow-msg-ttl`";
        STREAM_DENIES = "stream.denies", Warning,
            "What is old cannot be removed: it grows until the account or a mailbox is full.",
            "Back the realm up, remove the stream, and restore it: this setting cannot be taken back.";
        STREAM_SOURCES = "stream.sources", Warning,
            "Something else than the realm writes into its log.",
            "`nats stream edit NAME` without sources, mirror and transformation, unless somebody meant it.";
        STREAM_REPLICAS = "stream.replicas", Warning,
            "What it keeps stands still, or is lost, with one server, although there are others.",
            "`nats stream edit NAME --replicas=3`, and `broker.replicas = 3` for those to come.";
        STREAM_LEADER = "stream.leader", Error,
            "Nothing can be stored in it now: sends are answered `unavailable`.",
            "Start the servers that are away; look at `/healthz` of each.";
        STREAM_BEHIND = "stream.replica-behind", Warning,
            "If the leader fails now, the stream stands still until that server has caught up.",
            "Wait until it has caught up; if it does not, look at that server and its disk.";
        STREAM_CONSUMERS = "stream.consumers", Note,
            "Antar has none of its own; these belong to people's tools or to other programs.",
            "Remove those that nobody knows: `nats consumer rm NAME …`.";
        STREAM_PUSHES = "stream.pushes", Warning,
            "Somebody is sent a copy of what is stored: messages too, if it is the stream of mailboxes.",
            "Find out who made it; `nats consumer rm NAME …`.";
        SQLITE_SYNCHRONOUS = "sqlite.synchronous", Error,
            "A power cut loses messages that were answered OK.",
            "Take `?synchronous=normal` off `broker.url`.";
        SQLITE_JOURNAL = "sqlite.journal", Error,
            "Somebody has changed how the file is written. What was answered OK may not survive a power cut.",
            "Stop whoever has changed it; the next start of an edge sets it right.";
        SQLITE_DAMAGED = "sqlite.damaged", Error,
            "Some of what is stored cannot be read, and more may follow.",
            "Stop the server, keep a copy of the file, and restore the realm from a backup. Look at the disk.";
        SQLITE_UNCHECKED = "sqlite.unchecked", Note,
            "Damage inside of a large file shows only where it is read.",
            "Stop the server, and run `sqlite3 NAME 'PRAGMA quick_check'` if you have doubts.";
        SQLITE_MODE = "sqlite.mode", Error,
            "Other users of this machine can read everybody's messages, or write some.",
            "chmod 600 NAME";
        SQLITE_SPACE = "sqlite.space", Warning,
            "When the disk is full, sends are answered `unavailable`.",
            "Make room on the disk of NAME, or keep less (`retention.days`).";
        SQLITE_NETWORK = "sqlite.network", Warning,
            "Locks and syncs of such file systems are not to be relied on: the file may be damaged, and an OK may be lost.",
            "Move the file to a local disk; for several machines there is NATS.";
    }
}

/// A clock that differs by more than this is worth a warning.
const CLOCK_SKEW_WARNING: Duration = Duration::from_secs(2);
/// A clock that differs by more than this breaks what is found by time.
const CLOCK_SKEW_ERROR: Duration = Duration::from_secs(120);

/// By how much another clock is ahead of this one, in microseconds, if it told `told` between `asked` and `answered`: no
/// more than is certain.
pub fn clock_offset_us(asked: Timestamp, told: Timestamp, answered: Timestamp) -> i64 {
    let signed = |time: Timestamp| i64::try_from(time.0).unwrap_or(i64::MAX);
    let (asked, told, answered) = (signed(asked), signed(told), signed(answered));
    match () {
        () if told < asked => told - asked,
        () if told > answered => told - answered,
        () => 0,
    }
}

/// How bad it is that a clock is so many microseconds ahead, or behind.
pub fn clock_severity(offset_us: i64) -> Option<Severity> {
    let offset = Duration::from_micros(offset_us.unsigned_abs());
    match () {
        () if offset > CLOCK_SKEW_ERROR => Some(Severity::Error),
        () if offset > CLOCK_SKEW_WARNING => Some(Severity::Warning),
        () => None,
    }
}

/// `3.2 s ahead of`, `1 s behind`: for people.
pub fn clock_words(offset_us: i64) -> String {
    let seconds = offset_us.unsigned_abs() / 100_000;
    let side = if offset_us < 0 { "behind" } else { "ahead of" };
    format!("{}.{} s {side}", seconds / 10, seconds % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_differs_by_no_more_than_is_certain() {
        let offset =
            |told: u64| clock_offset_us(Timestamp(10_000_000), Timestamp(told), Timestamp(11_000_000));
        assert_eq!((offset(10_000_000), offset(10_500_000), offset(11_000_000)), (0, 0, 0));
        assert_eq!((offset(9_000_000), offset(14_000_000)), (-1_000_000, 3_000_000));
        assert_eq!(clock_severity(offset(9_000_000)), None);
        assert_eq!(clock_severity(offset(14_000_000)), Some(Severity::Warning));
        assert_eq!(clock_severity(-121_000_000), Some(Severity::Error));
        assert_eq!(
            (clock_words(3_210_000), clock_words(-1_000_000)),
            ("3.2 s ahead of".into(), "1.0 s behind".into())
        );
    }

    #[test]
    fn ids_are_stable_words_and_none_stands_for_two() {
        let ids: Vec<&str> = flaws::ALL.iter().map(|kind| kind.id).collect();
        for id in &ids {
            let plain =
                |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            assert!(id.split_once('.').is_some_and(|(area, flaw)| plain(area) && plain(flaw)), "{id}");
            assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{id}");
        }
    }
}
