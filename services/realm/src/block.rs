//! Whom a user wants to hear nothing from.
//!
//! A message from somebody who is blocked is refused as one to a user that does not exist is (XEP-0191 does the same): its
//! sender has to learn that it was not delivered, for an OK says that it was, and need not learn why. Nothing is stored, so
//! nobody can fill the mailbox of one who has blocked them. Owns: the list, which is a part of the account, and the question
//! whether somebody is on it. Must not know: how a refusal travels.

use antar_proto::{Address, UserName};

use crate::account::{Account, AccountError};
use crate::realm::Realm;
use crate::shared::Shared;

/// Most that one user can have blocked.
pub const BLOCKS_MAX: usize = 256;

/// Why a list was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Oneself.
    #[error("you cannot block yourself")]
    Oneself,
    /// The list is full.
    #[error("at most {BLOCKS_MAX} can be blocked")]
    TooMany,
    /// The account is gone, or the broker does not answer.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl Account {
    fn has_blocked(&self, user: &UserName, realm: &str) -> bool {
        self.blocks.iter().any(|blocked| blocked.user == *user && blocked.realm.as_str() == realm)
    }
}

impl Shared {
    /// Whether there is such a user, who takes messages from `from` of `realm`.
    pub(crate) fn takes_from(&self, user: &UserName, from: &UserName, realm: &str) -> bool {
        self.accounts.get(user).is_some_and(|account| !account.has_blocked(from, realm))
    }
}

impl Realm {
    /// Blocks somebody for a user, or no longer does; to repeat it changes nothing.
    pub async fn set_blocked(
        &self,
        user: &UserName,
        whom: &Address,
        blocked: bool,
    ) -> Result<(), BlockError> {
        if blocked && *whom == self.address(user) {
            return Err(BlockError::Oneself);
        }
        let kept = |account: &Account| account.blocks.iter().any(|known| known == whom);
        let change = |account: &mut Account| match (blocked, kept(account)) {
            (true, false) if account.blocks.len() >= BLOCKS_MAX => Err(BlockError::TooMany),
            (true, false) => {
                account.blocks.push(whom.clone());
                account.blocks.sort();
                Ok(())
            }
            (false, true) => {
                account.blocks.retain(|known| known != whom);
                Ok(())
            }
            _ => Ok(()),
        };
        self.shared.accounts.amend(user, change).await
    }

    /// Whom a user has blocked, in alphabetical order.
    pub async fn blocks(&self, user: &UserName) -> Result<Vec<Address>, BlockError> {
        let account = self.shared.accounts.copy.fresh(user.as_str()).await.map_err(AccountError::from)?;
        Ok(account.map(|account| account.blocks.clone()).unwrap_or_default())
    }
}
