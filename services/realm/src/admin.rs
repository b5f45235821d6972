//! What an operator may ask of a running realm: requests on the broker's subject `realm.<id>.admin`, as JSON.
//!
//! Whoever may publish there is an operator: on NATS the realm's own account, on SQLite whoever may open the file's
//! control socket (mode 0600).

use std::collections::BTreeMap;

use antar_broker::Subject;
use antar_proto::RealmId;
use serde::{Deserialize, Serialize};

/// Most accounts in one [`AdminRequest::UserImport`]; a larger file goes in several.
pub const IMPORT_ACCOUNTS_MAX: usize = 100;

/// Most entries of one [`AdminRequest::Replay`], and bytes of them, unless one alone has more: a request has to fit into a
/// message of NATS.
pub const REPLAY_ENTRIES_MAX: usize = 256;
/// See [`REPLAY_ENTRIES_MAX`].
pub const REPLAY_BYTES_MAX: usize = 384 * 1024;

/// An entry of another realm's mailbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayedEntry {
    /// Its sequence there.
    pub seq: u64,
    /// The id of its copy: always the same for the same entry.
    pub id: String,
    /// Whose mailbox it is in.
    pub user: String,
    /// In which box.
    pub mailbox: String,
    /// Its body.
    pub envelope: serde_json::Value,
}

/// The subject of a realm's operators.
pub fn subject(realm: &RealmId) -> Subject {
    Subject::new(format!("realm.{realm}.admin")).expect("a realm id is one token of a subject")
}

/// An account to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewAccount {
    /// Name to log in with; checked by the realm.
    pub user: String,
    /// Password, in clear; never logged, never stored.
    pub password: String,
    /// Name to show; the user's if empty.
    pub name: String,
    /// Country; may be empty.
    pub country: String,
}

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum AdminRequest {
    /// Makes one account.
    UserAdd(NewAccount),
    /// Makes many; those that are there already are left alone and counted.
    UserImport {
        /// At most [`IMPORT_ACCOUNTS_MAX`].
        accounts: Vec<NewAccount>,
    },
    /// Lists accounts in the order of their names, a page at a time.
    UserList {
        /// Begin after this name.
        #[serde(default)]
        after: Option<String>,
    },
    /// Sets a password and ends the user's sessions.
    UserPasswd {
        /// Whose.
        user: String,
        /// The new one.
        password: String,
    },
    /// Disables or enables an account. Disabling ends its sessions; its mailbox goes on filling.
    UserDisable {
        /// Whose.
        user: String,
        /// `false` enables it again.
        disabled: bool,
    },
    /// Removes an account and ends its sessions. What others received from it stays.
    UserRemove {
        /// Whose.
        user: String,
    },
    /// The same, and removes all else that this realm keeps of the user and of nobody else. To repeat it completes it.
    UserErase {
        /// Whose.
        user: String,
        /// Who wants it, as the event says.
        by: String,
    },
    /// Makes a bot and a token for it; one that is there gets another token.
    BotAdd {
        /// Its name; checked by the realm.
        bot: String,
        /// Name to show; the bot's if empty.
        name: String,
        /// Who wants it, as the event says.
        by: String,
    },
    /// Makes a hook of a bot.
    BotHook {
        /// In whose name.
        bot: String,
        /// To whom: `USER` or `USER@REALM`.
        to: String,
        /// Who wants it, as the event says.
        by: String,
    },
    /// Lists bots and their hooks.
    BotList,
    /// Takes all of a bot's tokens and hooks back, or one hook.
    BotRevoke {
        /// Whose.
        bot: String,
        /// Only this one.
        #[serde(default)]
        hook: Option<String>,
        /// Who wants it, as the event says.
        by: String,
    },
    /// Makes an invitation for `register`.
    UserInvite {
        /// How many accounts it is good for.
        uses: u32,
        /// For how long, in days.
        days: u32,
    },
    /// Stops (or resumes) all traffic between this realm and others; what comes waits, also over a restart.
    Pause {
        /// `false` resumes.
        paused: bool,
    },
    /// The realm's state.
    Show,
    /// Whether somebody serves the realm.
    Ping,
    /// Takes another key of a peer than the one that is known.
    RealmTrust {
        /// The peer.
        realm: String,
        /// Its key; the one that its name card has, if none is given.
        #[serde(default)]
        key: Option<String>,
    },
    /// Blocks a peer, or lets it in again: nothing of it is delivered, and nothing can be sent to it.
    RealmBlock {
        /// The peer.
        realm: String,
        /// `false` lets it in again.
        blocked: bool,
    },
    /// Lets a peer out of quarantine, as if a user had added it.
    RealmAdmit {
        /// The peer.
        realm: String,
        /// Who wants it, as the event says.
        by: String,
    },
    /// Lists dead letters, a page at a time.
    DeadList(LettersWanted),
    /// One dead letter, with a part of its body.
    DeadShow {
        /// Its sequence.
        letter: u64,
        /// Where in the body the part begins.
        #[serde(default)]
        offset: usize,
    },
    /// Delivers a dead letter after all. To repeat it is safe.
    DeadRedrive {
        /// Its sequence.
        letter: u64,
        /// Who wants it, as the event says.
        by: String,
    },
    /// Gives a dead letter up: it is kept as long as others, but not listed.
    DeadDrop {
        /// Its sequence.
        letter: u64,
        /// Who wants it, as the event says.
        by: String,
    },
    /// Copies mail of another realm into the mailboxes of users of the same names.
    Replay {
        /// The other realm.
        from: String,
        /// At most [`REPLAY_ENTRIES_MAX`].
        entries: Vec<ReplayedEntry>,
    },
}

/// Which dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersWanted {
    /// Begin after this one in the order asked for.
    #[serde(default)]
    pub after: Option<u64>,
    /// The oldest first; else the newest.
    #[serde(default)]
    pub oldest_first: bool,
    /// So many at the most; the realm may give fewer, and says that there are more.
    pub limit: usize,
    /// Only those with this code.
    #[serde(default)]
    pub code: Option<String>,
    /// Only those that come from this realm, or say so.
    #[serde(default)]
    pub origin: Option<String>,
    /// Those too that were redriven or dropped.
    #[serde(default)]
    pub all_states: bool,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LetterState {
    /// Nothing yet.
    Open,
    /// Somebody has begun to redrive it; it can be redriven again.
    Redriving,
    /// It was delivered after all.
    Redriven,
    /// It was given up.
    Dropped,
}

impl LetterState {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriving => "redriving",
            Self::Redriven => "redriven",
            Self::Dropped => "dropped",
        }
    }
}

/// One dead letter, as `dead list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterInfo {
    /// Its sequence in the log.
    pub letter: u64,
    /// When it was put aside: RFC 3339, UTC.
    pub time: String,
    /// Why, for programs.
    pub code: String,
    /// Why, for people.
    pub reason: String,
    /// The realm that it comes from, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Whether that is proven.
    pub proven: bool,
    /// The sequence in the inbox.
    pub inbox_seq: u64,
    /// Which envelopes of the body are meant, from 0; all of them if this is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<usize>>,
    /// The ids of these, as far as they can be read; the first few.
    pub ids: Vec<String>,
    /// Bytes of the body.
    pub bytes: usize,
    /// What is missing for it to be redriven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// What became of it.
    pub state: LetterState,
    /// Who has redriven or dropped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// One account, as `user list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// Name to log in with.
    pub user: String,
    /// Name to show.
    pub name: String,
    /// Country.
    pub country: String,
    /// Cannot log in.
    pub disabled: bool,
    /// When it was made: RFC 3339, UTC.
    pub created: String,
    /// Live sessions.
    pub sessions: usize,
}

/// One bot, as `bot list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotInfo {
    /// Its name.
    pub bot: String,
    /// Name to show.
    pub name: String,
    /// It was revoked: it has no token and no hook.
    pub revoked: bool,
    /// When it was made: RFC 3339, UTC.
    pub created: String,
    /// Live tokens.
    pub tokens: usize,
    /// Its hooks.
    pub hooks: Vec<HookInfo>,
}

/// One hook of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookInfo {
    /// What it is known by.
    pub id: String,
    /// Whom it writes to.
    pub to: String,
    /// Who has made it.
    pub by: String,
    /// When: RFC 3339, UTC.
    pub created: String,
}

/// One peer, as `realm show` and `connectedrealm` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// The other realm.
    pub realm: String,
    /// Its name, for people.
    pub name: String,
    /// Where it was said to be; nothing connects there.
    pub host: String,
    /// Its port, likewise.
    pub port: u16,
    /// `up`, `waiting` (the peer does not take envelopes now) or `paused` (we don't send).
    pub state: String,
    /// Envelopes in our outbox that the peer has not stored yet.
    pub queued: u64,
    /// Age of the oldest of them, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<u64>,
    /// The public key that proves what comes from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Another key, which its name card has now; it is not believed before an operator says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<String>,
    /// Nothing of it is delivered, and nothing can be sent to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
    /// Nobody here has added it, and what its users write is held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
    /// Since when the lane waits: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why the lane waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What was done, or why it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum AdminReply {
    /// It is done.
    Done,
    /// To `UserImport`.
    Imported {
        /// Accounts made.
        added: usize,
        /// Accounts that were there already.
        existing: Vec<String>,
        /// What was refused: the user as given, and why.
        refused: Vec<(String, String)>,
    },
    /// To `UserList`.
    Accounts {
        /// A page of them.
        accounts: Vec<AccountInfo>,
        /// There are more after the last one.
        more: bool,
    },
    /// To `UserErase`.
    Erased {
        /// There was such an account until now.
        known: bool,
        /// Entries removed from the mailbox.
        entries: u64,
        /// The other realms, which keep what they were sent.
        peers: Vec<String>,
    },
    /// To `BotAdd`.
    BotAdded {
        /// The token; shown this once.
        token: String,
    },
    /// To `BotHook`.
    HookAdded {
        /// What it is known by to operators.
        id: String,
        /// The secret; shown this once.
        secret: String,
    },
    /// To `BotList`.
    Bots {
        /// All of them.
        bots: Vec<BotInfo>,
    },
    /// To `UserInvite`.
    Invitation {
        /// The code; shown this once.
        code: String,
    },
    /// To `Show`.
    Realm {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// Whether traffic with other realms is stopped.
        paused: bool,
        /// Its public key.
        #[serde(default)]
        key: String,
        /// How many accounts there are.
        accounts: usize,
        /// Whom it exchanges messages with.
        peers: Vec<PeerInfo>,
    },
    /// To `RealmTrust`.
    Trusted {
        /// The key that is believed now.
        key: String,
    },
    /// To `DeadList`.
    Letters {
        /// A page of them.
        letters: Vec<LetterInfo>,
        /// Where to go on; nothing if there are no more.
        next: Option<u64>,
    },
    /// To `DeadShow`.
    Letter {
        /// What is known of it.
        info: Box<LetterInfo>,
        /// The headers that it came with.
        headers: Vec<(String, String)>,
        /// A part of the body, as base64.
        part: String,
        /// There is more of it.
        more: bool,
    },
    /// To `DeadRedrive`.
    Redriven {
        /// The messages, and the receipts, that were delivered.
        ids: Vec<String>,
        /// It had been done before.
        already: bool,
    },
    /// To `DeadDrop`.
    Dropped {
        /// It had been done before.
        already: bool,
    },
    /// To `Replay`.
    Replayed {
        /// Entries appended.
        appended: u64,
        /// Entries that were there before.
        known: u64,
        /// Entries of users that the realm does not have.
        unknown: BTreeMap<String, u64>,
        /// Entries for boxes that are full.
        full: BTreeMap<String, u64>,
    },
    /// It was refused; nothing was changed.
    Refused {
        /// A code of the line protocol, for instance `no-such-user`.
        code: String,
        /// For people.
        message: String,
    },
    /// The broker does not answer; try again.
    Unavailable {
        /// For people.
        message: String,
    },
}
