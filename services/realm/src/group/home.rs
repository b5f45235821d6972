//! What people want of groups that live here, whichever realm they are of.

use std::collections::BTreeMap;
use std::sync::Arc;

use antar_broker::{Expect, KvError, Timestamp};
use antar_proto::command::GroupPolicy;
use antar_proto::envelope::GroupWish;
use antar_proto::{Address, GroupAddress, GroupName, UserName};

use super::{GROUPS_MAX, Group, GroupError, GroupInfo, MEMBERS_MAX, TOPIC_BYTES_MAX};
use crate::places::{group_key, group_named};
use crate::recall::Place;
use crate::send::SendError;
use crate::shared::Shared;

impl Shared {
    pub(crate) async fn add_group(
        &self,
        owner: &UserName,
        group: &GroupName,
        policy: GroupPolicy,
    ) -> Result<GroupInfo, GroupError> {
        self.check_groups_of(owner)?;
        if self.groups.count_of(None) >= GROUPS_MAX {
            return Err(GroupError::Full("the realm has 10000 groups"));
        }
        let (group, address) = (GroupAddress { group: group.clone(), realm: None }, self.address_of(owner));
        let key = &group_key(&group);
        // Before the look: what comes behind it belongs to a group that somebody else makes now.
        let upto = self.broker.last(&self.places.group(&group)).await?;
        self.groups.copy.catch_up(key).await?;
        // Of one that is over realms may have yet to be told: they will be told of this one.
        let (expect, before) = match self.groups.copy.get_with_revision(key) {
            Some((kept, _)) if !kept.is_over() => return Err(GroupError::Exists),
            Some((kept, revision)) => (Expect::Revision(revision), Some(kept)),
            None => (Expect::Absent, None),
        };
        // Something may be left of one that had the name before.
        self.forget_said(&group, upto).await?;
        self.read_before_joining(&group, owner).await?;
        let now = Timestamp::now().0;
        let made = Group {
            members: BTreeMap::from([(address.clone(), now)]),
            version: before.as_ref().map_or(now, |kept| now.max(kept.version + 1)),
            untold: before.map(|kept| kept.untold.clone()).unwrap_or_default(),
            ..Group::of(address.clone(), policy)
        };
        match self.groups.copy.put(key, &made, expect, None).await {
            Err(KvError::Conflict) => Err(GroupError::Exists),
            written => Ok(written.map(|()| made.info(&group, &address))?),
        }
    }

    /// Carries out what somebody wants of a group that lives here, and tells the other realms of it. To repeat it changes nothing.
    /// For another realm's request, `place` is where that stands in its lane.
    pub(crate) async fn carry_out(
        &self,
        by: &Address,
        group: &GroupName,
        wish: &GroupWish,
        place: Option<Place>,
    ) -> Result<Arc<Group>, GroupError> {
        let group = GroupAddress { group: group.clone(), realm: None };
        self.prepare(by, &group, wish).await?;
        let place = place.map(|place| (&by.realm, place));
        let now = Timestamp::now().0;
        let changed = self.groups.change(&group, place, |kept| kept.fulfil(by, wish, now)).await?;
        self.settle(&group, &changed).await?;
        Ok(changed)
    }

    /// What follows a change: what was said in a group that is gone goes, and of all others the realms are told.
    async fn settle(&self, group: &GroupAddress, changed: &Group) -> Result<(), GroupError> {
        if changed.is_gone() {
            return self.forget_group(group).await;
        }
        self.tell_or_later(group).await;
        Ok(())
    }

    /// What has to be true, or to be done, before a group is changed.
    async fn prepare(&self, by: &Address, group: &GroupAddress, wish: &GroupWish) -> Result<(), GroupError> {
        match wish {
            GroupWish::Join => {
                self.groups.copy.catch_up(&group_key(group)).await?;
                let kept = self.groups.get(group).ok_or(GroupError::NoSuchGroup)?;
                if kept.members.contains_key(by) {
                    return Ok(());
                }
                kept.check_join(by)?;
                if by.realm == *self.places.realm() {
                    self.check_groups_of(&by.user)?;
                    self.read_before_joining(group, &by.user).await?;
                } else if !kept.has_members_in(&by.realm) {
                    // Nor is what was said before sent to a realm that had no members.
                    let last = self.broker.last(&self.places.group(group)).await?;
                    self.cursors.raise(&self.places.relay_cursor(&by.realm, group), last).await?;
                }
                Ok(())
            }
            GroupWish::Invite { user } if user.realm == *self.places.realm() => {
                let is_known = self.accounts.copy.fresh(user.user.as_str()).await?.is_some();
                is_known.then_some(()).ok_or(GroupError::NoSuchUser)
            }
            GroupWish::Invite { user } => match self.check_peer(&user.realm) {
                Err(SendError::RealmBlocked) => Err(GroupError::RealmBlocked),
                Err(_) => Err(GroupError::NoSuchRealm),
                Ok(()) => Ok(()),
            },
            GroupWish::Topic { text } if text.len() > TOPIC_BYTES_MAX => Err(GroupError::BadTopic),
            GroupWish::Leave | GroupWish::Kick { .. } | GroupWish::Topic { .. } => Ok(()),
        }
    }

    /// Takes a user out of everything: whoever gets the name later must not find it in a group.
    pub(crate) async fn leave_all_groups(&self, user: &UserName) -> Result<(), GroupError> {
        let address = self.address_of(user);
        let is_concerned = |kept: &Group| {
            kept.members.contains_key(&address)
                || kept.invited.contains(&address)
                || kept.removed.contains(&address)
                || kept.asked.contains(user)
        };
        for (key, _, _) in self.groups.copy.select(is_concerned) {
            let Some(group) = group_named(&key) else { continue };
            let left = match &group.realm {
                Some(_) => self.leave_abroad(user, &group).await,
                None => self.strike_out(&address, &group).await,
            };
            match left {
                // It was over, or left, a moment ago.
                Ok(()) | Err(GroupError::NoSuchGroup | GroupError::NotAMember) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes a user out of all that is kept of a group that lives here.
    async fn strike_out(&self, user: &Address, group: &GroupAddress) -> Result<(), GroupError> {
        let change = |kept: &mut Group| {
            kept.take_out(user);
            kept.removed.remove(user);
            Ok(())
        };
        let changed = self.groups.change(group, None, change).await?;
        self.settle(group, &changed).await
    }
}

impl Group {
    /// Changes it as somebody wants, who may.
    fn fulfil(&mut self, by: &Address, wish: &GroupWish, now: u64) -> Result<(), GroupError> {
        match wish {
            GroupWish::Join => {
                if !self.members.contains_key(by) {
                    self.check_join(by)?;
                    self.invited.remove(by);
                    self.removed.remove(by);
                    self.members.insert(by.clone(), now);
                }
            }
            GroupWish::Leave => {
                if !self.members.contains_key(by) && !self.invited.contains(by) {
                    return Err(GroupError::NotAMember);
                }
                self.take_out(by);
            }
            GroupWish::Invite { user } => {
                self.check_owner(by)?;
                if self.members.contains_key(user) {
                    return Ok(());
                }
                if self.invited.len() >= MEMBERS_MAX {
                    return Err(GroupError::Full(
                        "1000 are invited: some of them have to join, or to be removed",
                    ));
                }
                self.invited.insert(user.clone());
            }
            GroupWish::Kick { user } => {
                self.check_owner(by)?;
                if user == by {
                    return Err(GroupError::NotAllowed("leavegroup is how to go oneself"));
                }
                if !self.members.contains_key(user) && !self.invited.contains(user) {
                    return Err(GroupError::NoSuchUser);
                }
                if self.removed.len() >= MEMBERS_MAX {
                    return Err(GroupError::Full("1000 were removed: some of them have to be invited again"));
                }
                self.take_out(user);
                self.removed.insert(user.clone());
            }
            GroupWish::Topic { text } => {
                self.check_owner(by)?;
                self.topic.clone_from(text);
            }
        }
        Ok(())
    }
}
