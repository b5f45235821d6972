//! Sessions: tokens that stand for a user until they expire or are ended. Only their SHA-256 is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use antar_broker::{Expect, KvError, Timestamp};
use antar_proto::UserName;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::copy::KvCopy;
use crate::hex::hex;

/// A token is a UUID, written with hyphens.
const TOKEN_BYTES: usize = 36;
/// How long the token of a bot is good for: as long as brokers can count.
const LASTING: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// Most tokens that are looked up in the broker at once, because the copy does not know them. Others wait: guessing
/// tokens must not cost the broker more than this.
const LOOKUPS_MAX: usize = 16;

/// Most sessions of one user; a further login ends the oldest.
const SESSIONS_PER_USER_MAX: usize = 100;

/// A session, as it is kept under the hash of its token.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) user: UserName,
    /// Microseconds since 1970.
    pub(crate) created: u64,
    /// Of the account at the login: a session of another generation is dead.
    #[serde(default)]
    pub(crate) generation: u64,
    /// Likewise. The broker drops the key at that time; a stale copy does not outlive it either.
    pub(crate) expires: u64,
}

/// The sessions of a realm. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) copy: KvCopy<Session>,
    ttl: Duration,
    /// What [`Self::users`] found last, and when: with this version of the copy.
    users: Arc<Mutex<(u64, Arc<Users>)>>,
    lookups: Arc<Semaphore>,
}

/// How many live sessions each user has, by the time of the oldest.
type Users = Vec<(UserName, usize)>;

/// Names a session without being its token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionKey(Box<str>);

impl SessionKey {
    fn of(token: &str) -> Self {
        Self(hex(&Sha256::digest(token.as_bytes())).into())
    }
}

impl Sessions {
    pub(crate) fn new(copy: KvCopy<Session>, ttl: Duration) -> Self {
        Self { copy, ttl, users: Arc::default(), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// Opens a session; durable when this returns. The token is shown this once.
    pub(crate) async fn open(&self, user: &UserName, generation: u64) -> Result<String, KvError> {
        self.end_oldest(user).await?;
        let token = Uuid::new_v4().hyphenated().to_string();
        let created = Timestamp::now().0;
        let expires = created.saturating_add(u64::try_from(self.ttl.as_micros()).unwrap_or(u64::MAX));
        let session = Session { user: user.clone(), created, generation, expires };
        self.copy.put(&SessionKey::of(&token).0, &session, Expect::Absent, Some(self.ttl)).await?;
        Ok(token)
    }

    /// The same for a bot, whose token does not expire.
    pub(crate) async fn open_lasting(&self, user: &UserName, generation: u64) -> Result<String, KvError> {
        Self { ttl: LASTING, ..self.clone() }.open(user, generation).await
    }

    /// Whose token this is, and the key that [`Self::get`] takes.
    pub(crate) fn find(&self, token: &str) -> Option<(SessionKey, Arc<Session>)> {
        if token.len() != TOKEN_BYTES {
            return None;
        }
        let key = SessionKey::of(token);
        let session = self.get(&key)?;
        Some((key, session))
    }

    /// Waits until the copy knows this token if the broker does: it may have been made on another edge a moment ago.
    /// Looks only for what has the form of a token.
    pub(crate) async fn look_up(&self, token: &str) -> Result<(), KvError> {
        if token.len() != TOKEN_BYTES || Uuid::try_parse(token).is_err() {
            return Ok(());
        }
        let key = SessionKey::of(token);
        let _turn = self.lookups.acquire().await;
        self.copy.fresh(&key.0).await.map(drop)
    }

    /// The session of this key, if it has neither ended nor expired.
    pub(crate) fn get(&self, key: &SessionKey) -> Option<Arc<Session>> {
        self.copy.get(&key.0).filter(|session| session.expires > Timestamp::now().0)
    }

    /// Takes a session over into another generation of its account.
    pub(crate) async fn renew(&self, key: &SessionKey, generation: u64) -> Result<(), KvError> {
        const TRIES: usize = 5;
        for _ in 0..TRIES {
            let Some((session, revision)) = self.copy.get_with_revision(&key.0) else { return Ok(()) };
            let left = Duration::from_micros(session.expires.saturating_sub(Timestamp::now().0).max(1));
            let Session { user, created, expires, .. } = &*session;
            let renewed = Session { user: user.clone(), created: *created, generation, expires: *expires };
            match self.copy.put(&key.0, &renewed, Expect::Revision(revision), Some(left)).await {
                Err(KvError::Conflict) => self.copy.catch_up(&key.0).await?,
                other => return other,
            }
        }
        Err(KvError::Conflict)
    }

    /// Makes room for one more session of a user who has as many as there may be.
    async fn end_oldest(&self, user: &UserName) -> Result<(), KvError> {
        if self.count(user) < SESSIONS_PER_USER_MAX {
            return Ok(());
        }
        let all = self.copy.all().into_iter().filter(|(_, session)| session.user == *user);
        match all.min_by_key(|(_, session)| session.created) {
            Some((key, _)) => self.copy.delete(&key).await,
            None => Ok(()),
        }
    }

    /// Ends one session.
    pub(crate) async fn end(&self, key: &SessionKey) -> Result<(), KvError> {
        self.copy.delete(&key.0).await
    }

    /// Ends all sessions of a user but one.
    pub(crate) async fn end_all(&self, user: &UserName, except: Option<&SessionKey>) -> Result<(), KvError> {
        for (key, session) in self.copy.all() {
            if session.user == *user && except.is_none_or(|kept| *kept.0 != *key) {
                self.copy.delete(&key).await?;
            }
        }
        Ok(())
    }

    /// How many live sessions each user has, by the time of the oldest. Counted anew only when a session came or went.
    pub(crate) fn users(&self) -> Arc<Users> {
        let version = self.copy.version();
        let mut known = self.users.lock().expect("no holder of this lock panics");
        if known.0 != version {
            *known = (version, Arc::new(self.count_users()));
        }
        known.1.clone()
    }

    fn count_users(&self) -> Users {
        let now = Timestamp::now().0;
        let mut users: HashMap<UserName, (u64, usize)> = HashMap::new();
        for (_, session) in self.copy.all() {
            if session.expires > now {
                let (first, count) = users.entry(session.user.clone()).or_insert((u64::MAX, 0));
                *first = session.created.min(*first);
                *count += 1;
            }
        }
        let mut users: Vec<_> = users.into_iter().collect();
        users.sort_by(|a, b| (a.1.0, &a.0).cmp(&(b.1.0, &b.0)));
        users.into_iter().map(|(user, (_, count))| (user, count)).collect()
    }

    /// How many live sessions a user has.
    pub(crate) fn count(&self, user: &UserName) -> usize {
        self.users().iter().find(|(name, _)| name == user).map_or(0, |(_, count)| *count)
    }
}
