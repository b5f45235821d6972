//! What users of this realm want of groups that live in another one: it goes there through the lane, and so does the answer.

use std::collections::BTreeSet;
use std::time::Duration;

use antar_broker::{Append, EntryId, Expect, Filter, KvError, ReadLimit, Tail};
use antar_proto::command::GroupPolicy;
use antar_proto::envelope::{Content, GroupWish};
use antar_proto::reply::State;
use antar_proto::{Address, ErrorCode, GroupAddress, GroupName, MessageId, RealmId, UserName};

use super::{CHANGE_TRIES, GROUPS_ABROAD_MAX, Group, GroupError};
use crate::mail::envelope;
use crate::mailbox::status_event;
use crate::places::group_key;
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
        let address = GroupAddress { group: group.clone(), realm: Some(home.clone()) };
        if wish == GroupWish::Leave {
            return self.leave_abroad(user, &address).await.map(|()| true);
        }
        self.check_peer(home)?;
        match wish {
            GroupWish::Join if self.is_member(&address, user) => return Ok(true),
            GroupWish::Join => {
                self.check_groups_of(user)?;
                self.ask_to_join(user, &address).await?;
            }
            _ => drop(self.find_member(&address, user).await?),
        }
        let is_joining = wish == GroupWish::Join;
        let news = self.places.mail_status(user);
        let last = self.broker.last(&news).await?;
        let mut tail = self.broker.tail(&Filter::from(&news), last).await?;
        let id = self.request(&self.address_of(user), home, group, wish).await?;
        match tokio::time::timeout(ANSWER_WITHIN, answer(&mut tail, id)).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(refused)) => {
                if is_joining {
                    self.change_abroad(&address, |kept| _ = kept.asked.remove(user)).await?;
                }
                Err(refused)
            }
            Err(_) => Ok(false),
        }
    }

    /// Takes note that a user wants to be in a group of another realm: only so may that realm say that the user is.
    async fn ask_to_join(&self, user: &UserName, group: &GroupAddress) -> Result<(), GroupError> {
        let key = &group_key(group);
        self.groups.copy.catch_up(key).await?;
        if self.groups.copy.get(key).is_none() {
            if self.groups.count_of(group.realm.as_ref()) >= GROUPS_ABROAD_MAX {
                return Err(GroupError::Full("too many groups of that realm are known here"));
            }
            let asked = BTreeSet::from([user.clone()]);
            let made = Group { asked, ..Group::of(self.address_of(user), GroupPolicy::Invite) };
            match self.groups.copy.put(key, &made, Expect::Absent, None).await {
                Err(KvError::Conflict) => self.groups.copy.catch_up(key).await?,
                written => return Ok(written?),
            }
        }
        self.change_abroad(group, |kept| _ = kept.asked.insert(user.clone())).await
    }

    /// Takes a user out of a group of another realm, or declines its invitation: at once, whatever that realm says.
    pub(super) async fn leave_abroad(&self, user: &UserName, group: &GroupAddress) -> Result<(), GroupError> {
        let (key, own) = (group_key(group), self.address_of(user));
        self.groups.copy.catch_up(&key).await?;
        let kept = self.groups.copy.get(&key).ok_or(GroupError::NotAMember)?;
        if !kept.invited.contains(&own) && !kept.asked.contains(user) {
            kept.check_member(&own)?;
        }
        if let Some(home) = group.realm.as_ref().filter(|home| self.peers.is_known(home)) {
            self.request(&own, home, &group.group, GroupWish::Leave).await?;
        }
        self.change_abroad(group, |kept| {
            kept.members.remove(&own);
            kept.invited.remove(&own);
            kept.asked.remove(user);
        })
        .await
    }

    /// Changes what is kept of a group of another realm; what concerns nobody here goes.
    async fn change_abroad(
        &self,
        group: &GroupAddress,
        change: impl Fn(&mut Group),
    ) -> Result<(), GroupError> {
        let (copy, key, here) = (&self.groups.copy, &group_key(group), self.places.realm());
        for _ in 0..CHANGE_TRIES {
            copy.catch_up(key).await?;
            let Some((kept, revision)) = copy.get_with_revision(key) else { return Ok(()) };
            let mut changed = (*kept).clone();
            change(&mut changed);
            let is_over =
                !changed.has_members_in(here) && changed.invited.is_empty() && changed.asked.is_empty();
            let written = match is_over {
                true => copy.delete_if(key, Expect::Revision(revision)).await,
                false => copy.put(key, &changed, Expect::Revision(revision), None).await,
            };
            match written {
                Ok(()) if is_over => return self.forget_group(group).await,
                Ok(()) => return Ok(()),
                Err(KvError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(GroupError::Unavailable("the group is being changed by others".into()))
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
