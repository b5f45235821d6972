//! Sending to a group: one append, whoever reads it.

use std::sync::Arc;

use antar_broker::{Append, EntryId};
use antar_proto::envelope::Content;
use antar_proto::{ErrorCode, GroupAddress, UserName};

use super::GroupError;
use crate::admin::AdminReply;
use crate::mail::envelope;
use crate::send::{SendError, SendId, Sending};
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
        text: &str,
        id: SendId,
    ) -> Result<Sending, SendError> {
        let group = self.here(group)?;
        self.find_member(&group, from).await?;
        let realm = self.places.realm();
        let account = self.accounts.get(from);
        let name = account.as_ref().map_or(from.as_str(), |account| account.name.as_str()).to_owned();
        let (message, key) = (id.message(), id.message().0.simple());
        let content = Content::GroupMessage {
            from: self.address_of(from),
            name,
            to_group: group.clone(),
            text: text.to_owned(),
        };
        let body = envelope(message, realm, realm, content).to_bytes();
        let entry_id =
            EntryId::new(format!("{key}/{from}/#{group}")).expect("a UUID and names are printable and short");
        let append = Append::new(self.places.group(&group), entry_id, body);
        self.queue_one(from, Append { is_fresh: matches!(id, SendId::Assigned(_)), ..append }, message).await
    }
}
