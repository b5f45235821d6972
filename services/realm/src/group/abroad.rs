//! What users of this realm want of groups that live in another one: it goes there through the lane, and so does the answer.

use std::time::Duration;

use antar_broker::{Append, EntryId, Filter, ReadLimit, Tail};
use antar_proto::envelope::{Content, GroupWish};
use antar_proto::reply::State;
use antar_proto::{Address, ErrorCode, GroupAddress, GroupName, MessageId, RealmId, UserName};

use super::GroupError;
use crate::mail::envelope;
use crate::mailbox::status_event;
use crate::send::SendError;
use crate::shared::Shared;

/// How long the answer of another realm is waited for. A later one shows in the groups of whoever has asked, or is a notice.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// News that are looked at together while an answer is waited for.
const NEWS: ReadLimit = ReadLimit { entries_max: 128, bytes_max: 256 * 1024 };

impl From<SendError> for GroupError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::NoSuchRealm => Self::NoSuchRealm,
            SendError::RealmBlocked => Self::RealmBlocked,
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl Shared {
    /// Puts a request to a group's home into the lane, and returns its id.
    pub(super) async fn request(
        &self,
        by: &Address,
        home: &RealmId,
        group: &GroupName,
        wish: GroupWish,
    ) -> Result<MessageId, GroupError> {
        let id = MessageId::fresh();
        let content = Content::GroupRequest { from: by.clone(), group: group.clone(), wish };
        let body = envelope(id, self.places.realm(), home, content).to_bytes();
        let entry_id = EntryId::new(format!("{}/{}/#{group}", id.0.simple(), by.user))
            .expect("a UUID and names are printable and short");
        let append = Append::new(self.places.outbox(home), entry_id, body);
        let unavailable = |error: antar_broker::AppendError| GroupError::Unavailable(error.to_string());
        self.broker.append(append).await.map_err(unavailable)?.await.map_err(unavailable)?;
        Ok(id)
    }

    /// Asks the realm in which a group lives. Whether it has answered that it is done; if not, the request waits in the lane.
    pub(crate) async fn ask_abroad(
        &self,
        user: &UserName,
        home: &RealmId,
        group: &GroupName,
        wish: GroupWish,
    ) -> Result<bool, GroupError> {
        self.peers.copy.fresh(home.as_str()).await?;
        self.check_peer(home)?;
        let address = GroupAddress { group: group.clone(), realm: Some(home.clone()) };
        match wish {
            GroupWish::Join if self.is_member(&address, user) => return Ok(true),
            GroupWish::Join => self.check_groups_of(user)?,
            GroupWish::Leave => {
                self.groups.copy.catch_up(&crate::places::group_key(&address)).await?;
                let own = self.address_of(user);
                let kept = self.groups.get(&address).ok_or(GroupError::NotAMember)?;
                if !kept.invited.contains(&own) {
                    kept.check_member(&own)?;
                }
            }
            GroupWish::Invite { .. } | GroupWish::Kick { .. } | GroupWish::Topic { .. } => {
                self.find_member(&address, user).await?;
            }
        }
        let news = self.places.mail_status(user);
        let last = self.broker.last(&news).await?;
        let mut tail = self.broker.tail(&Filter::from(&news), last).await?;
        let id = self.request(&self.address_of(user), home, group, wish).await?;
        match tokio::time::timeout(ANSWER_WITHIN, answer(&mut tail, id)).await {
            Ok(answer) => answer.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// Waits for what the other realm says.
async fn answer(tail: &mut Tail, id: MessageId) -> Result<(), GroupError> {
    loop {
        for event in tail.next_batch(NEWS).await?.iter().filter_map(|entry| status_event(entry)) {
            match event.state {
                _ if !event.ids.contains(&id) => {}
                State::Delivered => return Ok(()),
                State::Failed => return Err(refused(event.reason.as_deref())),
                _ => {}
            }
        }
    }
}

/// What a refusal of another realm means.
fn refused(reason: Option<&str>) -> GroupError {
    match reason.and_then(ErrorCode::from_wire) {
        Some(ErrorCode::NoSuchGroup) => GroupError::NoSuchGroup,
        Some(ErrorCode::NoSuchRealm) => GroupError::NoSuchRealm,
        Some(ErrorCode::RealmBlocked) => GroupError::RealmBlocked,
        Some(ErrorCode::NotAMember) => GroupError::NotAMember,
        Some(ErrorCode::NoSuchUser) => GroupError::NoSuchUser,
        Some(ErrorCode::GroupFull) => GroupError::Full("there is no room in the group"),
        Some(ErrorCode::BadRequest) => GroupError::BadTopic,
        Some(ErrorCode::NotAllowed) => {
            GroupError::NotAllowed("the group's owner has to do that, or to invite you")
        }
        _ => GroupError::Unavailable(format!("the realm of the group says {}", reason.unwrap_or("no"))),
    }
}

impl GroupError {
    /// The code that another realm is told, or a client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Exists => ErrorCode::GroupExists,
            Self::NoSuchGroup => ErrorCode::NoSuchGroup,
            Self::NoSuchRealm => ErrorCode::NoSuchRealm,
            Self::RealmBlocked => ErrorCode::RealmBlocked,
            Self::NotAMember => ErrorCode::NotAMember,
            Self::NoSuchUser => ErrorCode::NoSuchUser,
            Self::NotAllowed(_) => ErrorCode::NotAllowed,
            Self::Full(_) => ErrorCode::GroupFull,
            Self::BadTopic => ErrorCode::BadRequest,
            Self::Unavailable(_) => ErrorCode::Unavailable,
        }
    }
}
