//! Removing a person from what a realm keeps: `antar user remove --erase`.
//!
//! Everything here can be repeated: what was broken off is completed by the same request again, for the account, by which it is
//! found, goes last. Owns: what is erased, and in which order. What is not erased, since it is not this realm's or nobody's
//! alone to take away, stands in `proto-docs/operations.md`.

use antar_broker::Seq;
use antar_proto::{Address, UserName};

use crate::account::AccountError;
use crate::admin::AdminReply;
use crate::event::RealmEvent;
use crate::letters::operator;
use crate::shared::Shared;

impl Shared {
    /// Removes an account with its sessions, its mailbox, its cursors and its name from others' lists.
    pub(crate) async fn erase(&self, user: &UserName, by: &str) -> Result<AdminReply, AdminReply> {
        let by = operator(by)?;
        // Dead to the outside first.
        let known = match self.accounts.set_disabled(user, true).await {
            Ok(()) => true,
            Err(AccountError::NoSuchUser) => false,
            Err(error) => return Err(error.into()),
        };
        self.sessions.end_all(user, None).await?;
        let mut entries = self.empty_boxes(user).await?;
        self.leave_all_groups(user).await?;
        self.cursors.forget(user).await?;
        self.forget_blocks(user).await?;
        if known {
            let created = self.accounts.get(user).map(|account| account.created.clone()).unwrap_or_default();
            let event = RealmEvent::AccountErased { user: user.clone(), by: by.to_owned() };
            self.record_once(&format!("erased/{user}/{created}"), event).await?;
            match self.accounts.remove(user).await {
                Ok(()) | Err(AccountError::NoSuchUser) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What was on its way while the account was there.
        entries += self.empty_boxes(user).await?;
        tracing::info!(realm = %self.places.realm(), %user, by, entries, "an operator erased an account");
        let peers = self.peers.all().iter().map(|peer| peer.realm.to_string()).collect();
        Ok(AdminReply::Erased { known, entries, peers })
    }

    /// Removes all that stands in a mailbox, and what the user has of files; how many entries.
    pub(crate) async fn empty_boxes(&self, user: &UserName) -> Result<u64, AdminReply> {
        self.files.forget(user).await?;
        let mut removed = 0;
        for (_, subject) in self.boxes(user) {
            let last = self.broker.last(&subject).await?;
            if last > Seq::ZERO {
                removed += self.broker.trim(&subject, last).await?;
            }
        }
        Ok(removed)
    }

    /// Takes a user off the lists of those who have blocked them.
    async fn forget_blocks(&self, user: &UserName) -> Result<(), AdminReply> {
        let whom = Address { user: user.clone(), realm: self.places.realm().clone() };
        for (_, account) in self.accounts.copy.all() {
            if account.blocks.contains(&whom) {
                let change = |account: &mut crate::account::Account| {
                    account.blocks.retain(|blocked| *blocked != whom);
                    Ok(())
                };
                match self.accounts.amend(&account.user, change).await {
                    Ok(()) | Err(AccountError::NoSuchUser) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}
