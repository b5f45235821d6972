//! Invitations for `register`: codes that are good for so many accounts, for so long. Only their SHA-256 is kept.

use std::time::Duration;

use antar_broker::{Expect, KvError, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::copy::KvCopy;
use crate::hex::hex;

/// One invitation, as it is kept under the hash of its code.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Invite {
    /// Accounts that it is still good for.
    uses: u32,
    /// Microseconds since 1970.
    expires: u64,
}

impl Invite {
    fn is_good(&self) -> bool {
        self.uses > 0 && self.expires > Timestamp::now().0
    }
}

/// The invitations of a realm.
#[derive(Clone)]
pub(crate) struct Invites {
    copy: KvCopy<Invite>,
}

impl Invites {
    pub(crate) fn new(copy: KvCopy<Invite>) -> Self {
        Self { copy }
    }

    fn key(code: &str) -> String {
        hex(&Sha256::digest(code.as_bytes()))
    }

    /// Makes a code.
    pub(crate) async fn make(&self, uses: u32, ttl: Duration) -> Result<String, KvError> {
        let code = Uuid::new_v4().simple().to_string();
        let expires = Timestamp::now().0.saturating_add(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX));
        self.copy.put(&Self::key(&code), &Invite { uses, expires }, Expect::Absent, Some(ttl)).await?;
        Ok(code)
    }

    /// Whether a code is good for an account.
    pub(crate) fn is_good(&self, code: &str) -> bool {
        self.copy.get(&Self::key(code)).is_some_and(|invite| invite.is_good())
    }

    /// Takes one use; `false` if there was none left.
    pub(crate) async fn take(&self, code: &str) -> Result<bool, KvError> {
        const TRIES: usize = 8;
        let key = Self::key(code);
        for _ in 0..TRIES {
            let kept = self.copy.get_with_revision(&key).filter(|(invite, _)| invite.is_good());
            let Some((invite, revision)) = kept else { return Ok(false) };
            let left = Invite { uses: invite.uses - 1, ..*invite };
            let ttl = Duration::from_micros(invite.expires.saturating_sub(Timestamp::now().0).max(1));
            match self.copy.put(&key, &left, Expect::Revision(revision), Some(ttl)).await {
                Ok(()) => return Ok(true),
                Err(KvError::Conflict) => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}
