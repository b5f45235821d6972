//! Carries out what operators ask. See [`crate::admin`] for what there is.

use std::sync::Arc;
use std::time::Duration;

use antar_broker::{KvError, ReadError, Timestamp};
use antar_proto::{ErrorCode, RealmId, UserName};

use crate::account::AccountError;
use crate::admin::{AccountInfo, AdminReply, AdminRequest, IMPORT_ACCOUNTS_MAX, NewAccount};
use crate::card::{CardRequest, ask};
use crate::event::RealmEvent;
use crate::key::PublicKey;
use crate::peer::Peer;
use crate::realm::Realm;
use crate::shared::Shared;

/// Accounts in one reply to `UserList`.
const LIST_PAGE: usize = 500;
/// Most uses and days of an invitation.
const INVITE_USES_MAX: u32 = 10_000;
const INVITE_DAYS_MAX: u32 = 3_650;

impl From<AccountError> for AdminReply {
    fn from(error: AccountError) -> Self {
        let message = error.to_string();
        match error {
            AccountError::Busy | AccountError::Unavailable(_) => Self::Unavailable { message },
            other => Self::Refused { code: other.code().as_str().into(), message },
        }
    }
}

impl From<KvError> for AdminReply {
    fn from(error: KvError) -> Self {
        Self::Unavailable { message: error.to_string() }
    }
}

impl From<ReadError> for AdminReply {
    fn from(error: ReadError) -> Self {
        Self::Unavailable { message: error.to_string() }
    }
}

impl Realm {
    /// Carries out one request of an operator.
    pub async fn admin(&self, request: AdminRequest) -> AdminReply {
        self.shared.admin(request).await
    }
}

impl Shared {
    pub(crate) async fn admin(self: &Arc<Self>, request: AdminRequest) -> AdminReply {
        self.operate(request).await.unwrap_or_else(|refused| refused)
    }

    async fn operate(self: &Arc<Self>, request: AdminRequest) -> Result<AdminReply, AdminReply> {
        match request {
            AdminRequest::UserAdd(account) => {
                let NewAccount { user, password, name, country } = account;
                let user = self.accounts.add(&user, &password, &name, &country).await?;
                self.record(RealmEvent::AccountAdded { user }).await;
            }
            AdminRequest::UserImport { accounts } => return self.import(accounts).await,
            AdminRequest::UserList { after } => return Ok(self.list(after.as_deref())),
            AdminRequest::UserPasswd { user, password } => {
                let user = known(&user)?;
                self.accounts.set_password(&user, &password).await?;
                self.sessions.end_all(&user, None).await?;
                self.record(RealmEvent::PasswordChanged { user }).await;
            }
            AdminRequest::UserDisable { user, disabled } => {
                let user = known(&user)?;
                self.accounts.set_disabled(&user, disabled).await?;
                if disabled {
                    self.sessions.end_all(&user, None).await?;
                }
                self.record(RealmEvent::AccountDisabled { user, disabled }).await;
            }
            AdminRequest::UserRemove { user } => {
                let user = known(&user)?;
                // Dead to the outside first, gone last: a removal that was broken off can be repeated.
                self.accounts.set_disabled(&user, true).await?;
                self.sessions.end_all(&user, None).await?;
                self.leave_all_groups(&user).await?;
                // Who gets this name later must not find the mail of who had it before.
                self.empty_boxes(&user).await?;
                self.accounts.remove(&user).await?;
                self.record(RealmEvent::AccountRemoved { user }).await;
            }
            AdminRequest::UserErase { user, by } => return self.erase(&known(&user)?, &by).await,
            AdminRequest::BotAdd { bot, name, by } => return self.add_bot(&bot, &name, &by).await,
            AdminRequest::BotHook { bot, to, by } => return self.add_hook(&bot, &to, &by).await,
            AdminRequest::BotList => return Ok(self.bots()),
            AdminRequest::BotRevoke { bot, hook, by } => {
                return self.revoke_bot(&bot, hook.as_deref(), &by).await;
            }
            AdminRequest::UserInvite { uses, days } => {
                if !(1..=INVITE_USES_MAX).contains(&uses) || !(1..=INVITE_DAYS_MAX).contains(&days) {
                    let message = format!(
                        "an invitation has 1 to {INVITE_USES_MAX} uses and 1 to {INVITE_DAYS_MAX} days"
                    );
                    return Err(AdminReply::Refused { code: "bad-request".into(), message });
                }
                let ttl = Duration::from_secs(u64::from(days) * 24 * 3600);
                return Ok(AdminReply::Invitation { code: self.invites.make(uses, ttl).await? });
            }
            AdminRequest::Pause { paused } => {
                self.set_paused(paused).await?;
                self.record(RealmEvent::Paused { paused }).await;
                tracing::info!(realm = %self.places.realm(), paused, "an operator stopped or resumed traffic with other realms");
            }
            AdminRequest::Ping => {}
            AdminRequest::RealmTrust { realm, key } => return self.trust(&realm, key.as_deref()).await,
            AdminRequest::RealmBlock { realm, blocked } => self.block(&realm, blocked).await?,
            AdminRequest::RealmAdmit { realm, by } => self.admit_realm(&self.peer(&realm)?, &by).await?,
            AdminRequest::DeadList(wanted) => return self.letters(wanted).await,
            AdminRequest::DeadShow { letter, offset } => return self.show_letter(letter, offset).await,
            AdminRequest::DeadRedrive { letter, by } => return self.redrive(letter, &by).await,
            AdminRequest::DeadDrop { letter, by } => return self.drop_letter(letter, &by).await,
            AdminRequest::Replay { from, entries } => return self.replay(&from, entries).await,
            AdminRequest::Show => {
                return Ok(AdminReply::Realm {
                    id: self.places.realm().to_string(),
                    name: self.config.name.clone(),
                    paused: self.is_paused(),
                    key: self.key.public().to_string(),
                    accounts: self.accounts.copy.len(),
                    peers: self.peer_infos().await?,
                });
            }
        }
        Ok(AdminReply::Done)
    }

    /// Pins another key of a peer, and lets both lanes go on.
    async fn trust(&self, realm: &str, key: Option<&str>) -> Result<AdminReply, AdminReply> {
        let realm = self.peer(realm)?;
        let key = key.map(str::parse::<PublicKey>).transpose().map_err(|error| AdminReply::Refused {
            code: "bad-request".into(),
            message: error.to_string(),
        })?;
        // Asked now, so that what an operator sees and what is pinned is what the realm has at the moment.
        let card = match &key {
            Some(_) => None,
            None => ask(&self.broker, &realm, &self.who_asks()).await.ok().and_then(|card| card.key),
        };
        let trusted_at = Timestamp::now().0;
        let change = |kept: Option<&Peer>| {
            let peer = kept.cloned().ok_or_else(|| unknown_realm(&realm))?;
            let wanted = key.as_ref().or(card.as_ref()).or(peer.offered.as_ref()).or(peer.key.as_ref());
            let wanted = wanted.cloned().ok_or_else(|| AdminReply::Unavailable {
                message: format!("{realm} gives no name card: say which key by --key"),
            })?;
            if peer.key.as_ref() == Some(&wanted) {
                return Ok::<_, AdminReply>(Peer { offered: None, ..peer });
            }
            Ok(Peer { key: Some(wanted), offered: None, trusted_at, ..peer })
        };
        let peer = self.peers.change(&realm, change).await?;
        let key = peer.key.map_or_else(String::new, |key| key.to_string());
        self.lane(&realm).nudge.notify_one();
        // Its lane may have waited for this. If this does not reach it, it finds out by itself.
        let resumed = CardRequest::Resumed { from: self.places.realm().clone() };
        let _ = ask(&self.broker, &realm, &resumed).await;
        tracing::info!(realm = %self.places.realm(), peer = %realm, key, "an operator trusts a realm's key");
        self.record(RealmEvent::RealmTrusted { realm, key: key.clone() }).await;
        Ok(AdminReply::Trusted { key })
    }

    async fn block(&self, realm: &str, blocked: bool) -> Result<(), AdminReply> {
        let realm = self.peer(realm)?;
        let change = |kept: Option<&Peer>| {
            let peer = kept.cloned().ok_or_else(|| unknown_realm(&realm))?;
            Ok::<_, AdminReply>(Peer { blocked, ..peer })
        };
        self.peers.change(&realm, change).await?;
        tracing::info!(realm = %self.places.realm(), peer = %realm, blocked, "an operator blocked a realm, or no longer does");
        self.record(RealmEvent::RealmBlocked { realm, blocked }).await;
        Ok(())
    }

    /// A realm that is a peer.
    fn peer(&self, realm: &str) -> Result<RealmId, AdminReply> {
        let id: Option<RealmId> = realm.parse().ok().filter(|id| self.peers.is_known(id));
        id.ok_or_else(|| unknown_realm(&realm))
    }

    async fn import(&self, accounts: Vec<NewAccount>) -> Result<AdminReply, AdminReply> {
        if accounts.len() > IMPORT_ACCOUNTS_MAX {
            let message = format!("at most {IMPORT_ACCOUNTS_MAX} accounts at once");
            return Err(AdminReply::Refused { code: "bad-request".into(), message });
        }
        let (mut added, mut existing, mut refused) = (0, Vec::new(), Vec::new());
        for NewAccount { user, password, name, country } in accounts {
            match self.accounts.add(&user, &password, &name, &country).await {
                Ok(user) => {
                    added += 1;
                    self.record(RealmEvent::AccountAdded { user }).await;
                }
                Err(AccountError::Exists) => existing.push(user),
                Err(error @ (AccountError::Busy | AccountError::Unavailable(_))) => return Err(error.into()),
                Err(error) => refused.push((user, error.to_string())),
            }
        }
        Ok(AdminReply::Imported { added, existing, refused })
    }

    fn list(&self, after: Option<&str>) -> AdminReply {
        let mut all: Vec<_> = self.accounts.copy.all().into_iter().map(|(_, account)| account).collect();
        all.retain(|account| after.is_none_or(|after| account.user.as_str() > after));
        all.sort_by(|a, b| a.user.cmp(&b.user));
        let more = all.len() > LIST_PAGE;
        all.truncate(LIST_PAGE);
        let online = self.sessions.users();
        let sessions: std::collections::HashMap<_, _> =
            online.iter().map(|(user, count)| (user, count)).collect();
        let accounts = all.iter().map(|account| AccountInfo {
            user: account.user.to_string(),
            name: account.name.clone(),
            country: account.country.clone(),
            disabled: account.disabled,
            created: account.created.clone(),
            sessions: sessions.get(&account.user).map_or(0, |count| **count),
        });
        AdminReply::Accounts { accounts: accounts.collect(), more }
    }
}

pub(crate) fn unknown_realm(realm: &dyn std::fmt::Display) -> AdminReply {
    let message = format!("{realm} is no realm that messages are exchanged with");
    AdminReply::Refused { code: ErrorCode::NoSuchRealm.as_str().into(), message }
}

/// A name that is one; whether there is such an account is found out later.
fn known(user: &str) -> Result<UserName, AdminReply> {
    user.parse().map_err(|_| AccountError::NoSuchUser.into())
}
