//! Sessions: tokens that stand for a user until they expire or are ended. Only their SHA-256 is kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Expect, KvError, Timestamp};
use antar_proto::UserName;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::copy::KvCopy;
use crate::hex::hex;

/// Longest token that is looked at; ours have 36 bytes.
const TOKEN_BYTES_MAX: usize = 64;

/// A session, as it is kept under the hash of its token.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) user: UserName,
    /// Microseconds since 1970.
    pub(crate) created: u64,
    /// Likewise. The broker drops the key at that time; a stale copy does not outlive it either.
    pub(crate) expires: u64,
}

/// The sessions of a realm. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions {
    copy: KvCopy<Session>,
    ttl: Duration,
}

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
        Self { copy, ttl }
    }

    /// Opens a session; durable when this returns. The token is shown this once.
    pub(crate) async fn open(&self, user: &UserName) -> Result<String, KvError> {
        let token = Uuid::new_v4().hyphenated().to_string();
        let created = Timestamp::now().0;
        let expires = created.saturating_add(u64::try_from(self.ttl.as_micros()).unwrap_or(u64::MAX));
        let session = Session { user: user.clone(), created, expires };
        self.copy.put(&SessionKey::of(&token).0, &session, Expect::Absent, Some(self.ttl)).await?;
        Ok(token)
    }

    /// Whose token this is, and the key that [`Self::is_live`] takes.
    pub(crate) fn find(&self, token: &str) -> Option<(SessionKey, Arc<Session>)> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let key = SessionKey::of(token);
        let session = self.copy.get(&key.0).filter(|session| session.expires > Timestamp::now().0)?;
        Some((key, session))
    }

    /// Whether the session has neither ended nor expired.
    pub(crate) fn is_live(&self, key: &SessionKey) -> bool {
        self.copy.get(&key.0).is_some_and(|session| session.expires > Timestamp::now().0)
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

    /// How many live sessions each user has, by the time of the oldest.
    pub(crate) fn users(&self) -> Vec<(UserName, usize)> {
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
        self.users().into_iter().find(|(name, _)| name == user).map_or(0, |(_, count)| count)
    }
}
