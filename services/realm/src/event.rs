//! What happens in a realm beside messages, as it is kept on `realm.<id>.event` for audit and replay.

use antar_proto::{RealmId, UserName};
use serde::Serialize;

/// One thing that has happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum RealmEvent {
    AccountAdded { user: UserName },
    AccountRemoved { user: UserName },
    AccountErased { user: UserName, by: String },
    AccountDisabled { user: UserName, disabled: bool },
    PasswordChanged { user: UserName },
    BotAdded { user: UserName, by: String },
    HookAdded { user: UserName, hook: String, to: String, by: String },
    BotRevoked { user: UserName, hook: Option<String>, by: String },
    LoggedIn { user: UserName },
    LoggedOut { user: UserName },
    RealmAdded { user: UserName, realm: RealmId },
    RealmTrusted { realm: RealmId, key: String },
    RealmBlocked { realm: RealmId, blocked: bool },
    RealmAdmitted { realm: RealmId, by: String },
    Paused { paused: bool },
    DeadRedriven { letter: u64, code: String, origin: RealmId, ids: Vec<String>, by: String },
    DeadDropped { letter: u64, code: String, by: String },
    Replayed { realm: RealmId, entries: u64 },
}
