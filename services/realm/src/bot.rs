//! Bots: users that are programs. Each has tokens that do not expire, and hooks, by which others say something in its name.
//!
//! A hook's secret names the bot and proves the right to say something in one conversation; of it, and of tokens, only the
//! SHA-256 is kept. Hooks are a part of the bot's account, so they go with it. Owns: who is a bot, and what a hook is good for.
//! Must not know: HTTP.

use antar_proto::command::Receiver;
use antar_proto::{Address, ErrorCode, MessageId, UserName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::account::{Account, AccountError};
use crate::admin::{AdminReply, BotInfo, HookInfo};
use crate::clock::now_rfc3339;
use crate::event::RealmEvent;
use crate::hex::hex;
use crate::letters::{operator, refused};
use crate::realm::Realm;
use crate::shared::Shared;

/// Most hooks of one bot.
const HOOKS_MAX: usize = 64;
/// How much of a hook's hash is its id, by which operators name it.
const HOOK_ID_BYTES: usize = 12;
/// Longest secret that is looked at, in bytes: a name, a dot, and a UUID.
const SECRET_BYTES_MAX: usize = 80;

/// What makes an account a bot's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bot {
    hooks: Vec<Hook>,
}

/// A hook, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hook {
    /// SHA-256 of its secret, as hexadecimal digits.
    hash: String,
    /// Whom it writes to, qualified.
    to: Address,
    /// Who has made it.
    by: String,
    /// RFC 3339, UTC.
    created: String,
}

impl Hook {
    fn id(&self) -> &str {
        self.hash.get(..HOOK_ID_BYTES).unwrap_or(&self.hash)
    }
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// What a hook's secret is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooked {
    /// In whose name.
    pub bot: UserName,
    /// To whom.
    pub to: Receiver,
    hash: String,
}

impl Hooked {
    /// The message that a key of the sender's stands for: always the same for the same hook and key.
    pub fn message_id(&self, key: &str) -> MessageId {
        let hash = Sha256::new().chain_update(&self.hash).chain_update([0]).chain_update(key).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        MessageId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl Realm {
    /// What the secret of a hook is good for; `None` if it is none, or none any more.
    pub fn hook(&self, secret: &str) -> Option<Hooked> {
        if secret.len() > SECRET_BYTES_MAX {
            return None;
        }
        let bot: UserName = secret.split_once('.')?.0.parse().ok()?;
        let account = self.shared.accounts.get(&bot).filter(|account| !account.disabled)?;
        let hash = hash(secret);
        let hook = account.bot.as_ref()?.hooks.iter().find(|hook| hook.hash == hash)?;
        Some(Hooked { bot, to: Receiver::Qualified(hook.to.clone()), hash })
    }
}

impl Shared {
    /// Makes a bot, or gives one that is there another token, also if it was revoked.
    pub(crate) async fn add_bot(&self, user: &str, name: &str, by: &str) -> Result<AdminReply, AdminReply> {
        let by = operator(by)?;
        // Nobody knows it, so nobody logs in by it.
        let password: String = (0..4).map(|_| Uuid::new_v4().simple().to_string()).collect();
        let user = match self.accounts.make(user, &password, name, "", Some(Bot::default())).await {
            Ok(user) => user,
            Err(AccountError::Exists) => {
                let user: UserName = user.parse().map_err(|_| AccountError::BadName)?;
                self.bot(&user)?;
                if self.accounts.get(&user).is_some_and(|account| account.disabled) {
                    self.accounts.set_disabled(&user, false).await?;
                }
                user
            }
            Err(error) => return Err(error.into()),
        };
        let generation = self.accounts.get(&user).map_or(0, |account| account.generation);
        let token = self.sessions.open_lasting(&user, generation).await?;
        tracing::info!(realm = %self.places.realm(), bot = %user, by, "an operator made a token for a bot");
        self.record(RealmEvent::BotAdded { user, by: by.to_owned() }).await;
        Ok(AdminReply::BotAdded { token })
    }

    /// Makes a hook of a bot, to one user.
    pub(crate) async fn add_hook(&self, bot: &str, to: &str, by: &str) -> Result<AdminReply, AdminReply> {
        let by = operator(by)?;
        let bot: UserName = bot.parse().map_err(|_| AccountError::NoSuchUser)?;
        let to = self.hook_target(to)?;
        let secret = format!("{bot}.{}", Uuid::new_v4().simple());
        let hook = Hook { hash: hash(&secret), to: to.clone(), by: by.to_owned(), created: now_rfc3339() };
        let id = hook.id().to_owned();
        let change = |account: &mut Account| {
            let bot = account.bot.as_mut().ok_or_else(no_bot)?;
            if bot.hooks.len() >= HOOKS_MAX {
                return Err(refused("bad-request", format!("a bot has at most {HOOKS_MAX} hooks")));
            }
            bot.hooks.push(hook.clone());
            Ok(())
        };
        self.accounts.amend(&bot, change).await?;
        tracing::info!(realm = %self.places.realm(), %bot, hook = id, %to, by, "an operator made a hook");
        let event =
            RealmEvent::HookAdded { user: bot, hook: id.clone(), to: to.to_string(), by: by.to_owned() };
        self.record(event).await;
        Ok(AdminReply::HookAdded { id, secret })
    }

    fn hook_target(&self, to: &str) -> Result<Address, AdminReply> {
        let nobody = || refused(ErrorCode::NoSuchUser.as_str(), format!("there is no user {to}"));
        let own = self.places.realm();
        let address: Address = match to.contains('@') {
            true => to.parse().map_err(|_| nobody())?,
            false => Address { user: to.parse().map_err(|_| nobody())?, realm: own.clone() },
        };
        match address.realm == *own {
            true if self.accounts.get(&address.user).is_none() => Err(nobody()),
            false if !self.peers.is_known(&address.realm) => {
                Err(crate::operate::unknown_realm(&address.realm))
            }
            _ => Ok(address),
        }
    }

    /// Takes one hook of a bot back, or everything: then its tokens and hooks are dead, and nobody is logged in as it.
    pub(crate) async fn revoke_bot(
        &self,
        bot: &str,
        hook: Option<&str>,
        by: &str,
    ) -> Result<AdminReply, AdminReply> {
        let by = operator(by)?;
        let bot: UserName = bot.parse().map_err(|_| AccountError::NoSuchUser)?;
        self.accounts.copy.fresh(bot.as_str()).await?;
        let kept = self.bot(&bot)?;
        if let Some(id) = hook
            && !kept.hooks.iter().any(|hook| hook.id() == id)
        {
            return Err(refused("no-such-hook", format!("{bot} has no hook {id}")));
        }
        if hook.is_none() {
            // Dead to the outside first.
            self.accounts.set_disabled(&bot, true).await?;
            self.sessions.end_all(&bot, None).await?;
        }
        let change = |account: &mut Account| {
            let bot = account.bot.as_mut().ok_or_else(no_bot)?;
            bot.hooks.retain(|kept| hook.is_some_and(|id| kept.id() != id));
            Ok::<_, AdminReply>(())
        };
        self.accounts.amend(&bot, change).await?;
        tracing::info!(realm = %self.places.realm(), %bot, hook, by, "an operator revoked a bot, or a hook of it");
        let event = RealmEvent::BotRevoked { user: bot, hook: hook.map(str::to_owned), by: by.to_owned() };
        self.record(event).await;
        Ok(AdminReply::Done)
    }

    fn bot(&self, user: &UserName) -> Result<Bot, AdminReply> {
        let account = self.accounts.get(user).ok_or(AccountError::NoSuchUser)?;
        account.bot.clone().ok_or_else(no_bot)
    }

    /// The bots of the realm, by name.
    pub(crate) fn bots(&self) -> AdminReply {
        let mut bots: Vec<BotInfo> = Vec::new();
        for (_, account) in self.accounts.copy.all() {
            let Some(bot) = &account.bot else { continue };
            let hooks = bot.hooks.iter().map(|hook| HookInfo {
                id: hook.id().to_owned(),
                to: hook.to.to_string(),
                by: hook.by.clone(),
                created: hook.created.clone(),
            });
            bots.push(BotInfo {
                bot: account.user.to_string(),
                name: account.name.clone(),
                revoked: account.disabled,
                created: account.created.clone(),
                tokens: self.sessions.count(&account.user),
                hooks: hooks.collect(),
            });
        }
        bots.sort_by(|a, b| a.bot.cmp(&b.bot));
        AdminReply::Bots { bots }
    }
}

fn no_bot() -> AdminReply {
    refused("no-such-bot", "this user is no bot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_one_message_of_one_hook() {
        let hooked = |secret| Hooked {
            bot: "ci".parse().unwrap(),
            to: Receiver::User("messi".parse().unwrap()),
            hash: hash(secret),
        };
        let id = hooked("ci.a").message_id("1");
        assert_eq!(id, hooked("ci.a").message_id("1"));
        assert_ne!(id, hooked("ci.a").message_id("2"));
        assert_ne!(id, hooked("ci.b").message_id("1"));
        assert!(!id.is_assigned());
        assert_eq!(id.0.get_version_num(), 8);
    }
}
