//! Sending to a group: one append, whoever reads it. To a group of another realm it is one to the lane: that realm puts it in
//! its place among what others say.

use std::sync::Arc;

use antar_broker::{Append, EntryId};
use antar_proto::envelope::Content;
use antar_proto::{ErrorCode, GroupAddress, UserName};

use super::GroupError;
use crate::admin::AdminReply;
use crate::mail::envelope;
use crate::send::{Said, SendError, SendId, Sending};
use crate::shared::Shared;

impl From<GroupError> for SendError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::NotAMember => Self::NotAMember,
            GroupError::Unavailable(why) => Self::NotStored(why),
            _ => Self::NoSuchGroup,
        }
    }
}

impl From<GroupError> for AdminReply {
    fn from(error: GroupError) -> Self {
        Self::Refused { code: ErrorCode::Unavailable.as_str().into(), message: error.to_string() }
    }
}

impl Shared {
    /// Queues a message to a group for storing, if its sender is a member.
    pub(crate) async fn post(
        self: &Arc<Self>,
        from: &UserName,
        group: &GroupAddress,
        said: Said<'_>,
        id: SendId,
    ) -> Result<Sending, SendError> {
        let address = self.as_kept(group);
        if let Some(home) = &address.realm {
            self.check_peer(home)?;
        }
        self.find_member(&address, from).await?;
        let account = self.accounts.get(from);
        let name = account.as_ref().map_or(from.as_str(), |account| account.name.as_str()).to_owned();
        let (message, key) = (id.message(), id.message().0.simple());
        let (sender, to_group, text) = (self.address_of(from), address.group.clone(), said.text.to_owned());
        let realm = self.places.realm();
        let (subject, dest, content) = match &address.realm {
            Some(home) => {
                let post = Content::GroupPost { from: sender, name, to_group, text };
                (self.places.outbox(home), home, post)
            }
            None => {
                let file = said.file.cloned();
                let said = Content::GroupMessage { from: sender, name, to_group, text, file };
                (self.places.group(&address), realm, said)
            }
        };
        let body = envelope(message, realm, dest, content).to_bytes();
        let entry_id = EntryId::new(format!("{key}/{from}/#{address}"))
            .expect("a UUID and names are printable and short");
        let append = Append::new(subject, entry_id, body);
        self.queue_one(from, Append { is_fresh: matches!(id, SendId::Assigned(_)), ..append }, message).await
    }
}
