//! What a realm is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use antar_proto::RealmId;
use serde::{Deserialize, Serialize};

use crate::rate::RateLimits;

/// Who may make an account with `register`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Everybody.
    Open,
    /// Whoever has an invitation (`antar user invite`).
    Invite,
    /// Nobody; accounts are made with `antar user add`.
    Closed,
}

/// Who makes a realm's streams and buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provision {
    /// Nobody: they have to be there.
    Never,
    /// Whoever starts the realm, if it has no streams yet.
    IfNew,
    /// Whatever is missing is made, by an operator's word. In a realm that was in use that hides a loss.
    Missing,
}

/// Settings of one realm. All edges of a realm must have the same.
#[derive(Debug, Clone)]
pub struct RealmConfig {
    /// Its id.
    pub id: RealmId,
    /// Its name, for people.
    pub name: String,
    /// Makes the accounts of the reports (messi, henderson, lineker; password surabaya) if they are not there.
    pub demo_accounts: bool,
    /// Who may register.
    pub registration: Registration,
    /// Answers an unknown user and a wrong password alike.
    pub uniform_errors: bool,
    /// How long a session lives after its login.
    pub session_ttl: Duration,
    /// Shortest new password, in bytes. (The demo accounts' own has 8.)
    pub password_bytes_min: usize,
    /// Most entries in one box of a mailbox.
    pub mailbox_entries_max: u64,
    /// Largest file.
    pub file_bytes_max: u64,
    /// Most bytes in files that one user has sent and that are kept.
    pub user_file_bytes_max: u64,
    /// Most bytes in files that users of one other realm have sent here and that are kept.
    pub peer_file_bytes_max: u64,
    /// How long entries are kept that were read.
    pub retention: Duration,
    /// Holds what users of realms write that have added this one and that nobody here has added.
    pub quarantine: bool,
    /// How much may be sent in a minute.
    pub rates: RateLimits,
    /// The file with the realm's key, made with a new one if the realm has none yet. Without a file the key lives as
    /// long as this process: for a realm that lives no longer either.
    pub key_file: Option<PathBuf>,
    /// Who makes what it keeps its log in.
    pub provision: Provision,
}

impl RealmConfig {
    /// The defaults for a realm of this id.
    pub fn new(id: RealmId) -> Self {
        Self {
            name: id.to_string(),
            id,
            demo_accounts: false,
            registration: Registration::Closed,
            uniform_errors: false,
            session_ttl: Duration::from_secs(30 * 24 * 3600),
            password_bytes_min: 8,
            mailbox_entries_max: 100_000,
            file_bytes_max: 100 * 1024 * 1024,
            user_file_bytes_max: 1024 * 1024 * 1024,
            peer_file_bytes_max: 10 * 1024 * 1024 * 1024,
            retention: Duration::from_secs(30 * 24 * 3600),
            quarantine: false,
            rates: RateLimits::default(),
            key_file: None,
            provision: Provision::IfNew,
        }
    }
}
