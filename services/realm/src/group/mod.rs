//! Named groups: who is in them, and who may change that. A group's messages are stored once, and each member reads them with a
//! cursor of its own.
//!
//! Owns: the bucket of groups and its rules. Must not know: how messages are sent and read, which is in the files beside this one.

mod api;
mod feed;
mod post;
mod read;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use antar_broker::{Expect, KvError, ReadError, Timestamp};
use antar_proto::command::GroupPolicy;
use antar_proto::{Address, GroupAddress, GroupName, UserName};
use serde::{Deserialize, Serialize};

use crate::copy::KvCopy;
use crate::cursor::ReadMark;
use crate::shared::Shared;

pub(crate) use feed::GroupFeed;

/// Most groups of a realm.
pub const GROUPS_MAX: usize = 10_000;
/// Most groups that one user is a member of.
pub const GROUPS_PER_USER_MAX: usize = 64;
/// Most members of a group; as many are invited, and as many removed, at the most.
pub const MEMBERS_MAX: usize = 1_000;
/// Longest topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 512;
/// How often a change is tried again that others were faster with.
const CHANGE_TRIES: usize = 16;

/// A group, as it is kept under its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) owner: Address,
    pub(crate) policy: GroupPolicy,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) topic: String,
    /// Each with when it joined, in microseconds since 1970.
    pub(crate) members: BTreeMap<Address, u64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    invited: BTreeSet<Address>,
    /// They may not join again, unless they are invited.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    removed: BTreeSet<Address>,
}

/// Why nothing was changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There is a group of this name.
    #[error("there is a group of this name")]
    Exists,
    /// There is no such group here.
    #[error("there is no such group")]
    NoSuchGroup,
    /// The user is no member.
    #[error("only members may do that")]
    NotAMember,
    /// Others may do that, or nobody.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// There is no room.
    #[error("{0}")]
    Full(&'static str),
    /// Whom it is about does not exist, or has nothing to do with the group.
    #[error("no such user")]
    NoSuchUser,
    /// The topic is none.
    #[error("a topic has at most {TOPIC_BYTES_MAX} bytes")]
    BadTopic,
    /// The broker does not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl From<KvError> for GroupError {
    fn from(error: KvError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ReadError> for GroupError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A group as one of its members, or somebody who is invited, sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupInfo {
    /// Its name.
    pub group: GroupName,
    /// Who may join.
    pub policy: GroupPolicy,
    /// `user@realm`.
    pub owner: Address,
    /// What it is about; may be empty.
    pub topic: String,
    /// How many members it has.
    pub members: usize,
    /// The user is no member yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invited: bool,
}

impl Group {
    fn info(&self, group: &GroupName, user: &Address) -> GroupInfo {
        GroupInfo {
            group: group.clone(),
            policy: self.policy,
            owner: self.owner.clone(),
            topic: self.topic.clone(),
            members: self.members.len(),
            invited: !self.members.contains_key(user),
        }
    }

    fn check_member(&self, user: &Address) -> Result<(), GroupError> {
        self.members.contains_key(user).then_some(()).ok_or(GroupError::NotAMember)
    }

    fn check_owner(&self, user: &Address) -> Result<(), GroupError> {
        self.check_member(user)?;
        let refused = GroupError::NotAllowed("only the owner of the group may do that");
        (self.owner == *user).then_some(()).ok_or(refused)
    }

    /// Whether a user may become a member.
    fn check_join(&self, user: &Address) -> Result<(), GroupError> {
        let is_welcome = self.policy == GroupPolicy::Open && !self.removed.contains(user);
        if !is_welcome && !self.invited.contains(user) {
            return Err(GroupError::NotAllowed("its owner has to invite you"));
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(GroupError::Full("the group has 1000 members"));
        }
        Ok(())
    }

    /// Takes a user out; a group whose owner leaves goes to whoever has been in it longest.
    fn take_out(&mut self, user: &Address) {
        self.members.remove(user);
        self.invited.remove(user);
        if self.owner == *user
            && let Some((next, _)) = self.members.iter().min_by_key(|(_, since)| **since)
        {
            self.owner = next.clone();
        }
    }
}

type ByUser = HashMap<UserName, Vec<GroupName>>;

/// The groups of a realm.
pub(crate) struct Groups {
    pub(crate) copy: KvCopy<Group>,
    /// The groups of each user, and of which version of the copy.
    by_user: Mutex<Option<(u64, Arc<ByUser>)>>,
}

impl Groups {
    pub(crate) fn new(copy: KvCopy<Group>) -> Self {
        Self { copy, by_user: Mutex::default() }
    }

    pub(crate) fn get(&self, group: &GroupName) -> Option<Arc<Group>> {
        self.copy.get(group.as_str())
    }

    /// The groups that a user of this realm is a member of, by name.
    pub(crate) fn of(&self, user: &UserName) -> Vec<GroupName> {
        // Before the look, so that a change meanwhile makes it be looked at again.
        let version = self.copy.version();
        let mut known = self.by_user.lock().expect("no holder of this lock panics");
        let by_user = match &*known {
            Some((of, by_user)) if *of == version => by_user.clone(),
            _ => {
                let mut by_user = ByUser::new();
                for (name, group) in self.copy.all() {
                    let Ok(name) = name.parse::<GroupName>() else { continue };
                    for member in group.members.keys() {
                        by_user.entry(member.user.clone()).or_default().push(name.clone());
                    }
                }
                by_user.values_mut().for_each(|groups| groups.sort());
                let by_user = Arc::new(by_user);
                *known = Some((version, by_user.clone()));
                by_user
            }
        };
        by_user.get(user).cloned().unwrap_or_default()
    }

    /// Changes a group, as the broker has it now; one without members goes.
    async fn change<T>(
        &self,
        group: &GroupName,
        what: impl Fn(&mut Group) -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        let key = group.as_str();
        for _ in 0..CHANGE_TRIES {
            // What is refused shall be refused for what is true everywhere.
            self.copy.catch_up(key).await?;
            let (kept, revision) = self.copy.get_with_revision(key).ok_or(GroupError::NoSuchGroup)?;
            let mut changed = (*kept).clone();
            let result = what(&mut changed)?;
            let expect = Expect::Revision(revision);
            let written = match changed.members.is_empty() {
                true => self.copy.delete_if(key, expect).await,
                false => self.copy.put(key, &changed, expect, None).await,
            };
            match written {
                Ok(()) => return Ok(result),
                Err(KvError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(GroupError::Unavailable("the group is being changed by others".into()))
    }
}

impl Shared {
    /// The name of a group that lives here.
    fn group_here<'a>(&self, group: &'a GroupAddress) -> Option<&'a GroupName> {
        let is_here = group.realm.as_ref().is_none_or(|realm| realm == self.places.realm());
        is_here.then_some(&group.group)
    }

    fn here(&self, group: &GroupAddress) -> Result<GroupName, GroupError> {
        self.group_here(group).cloned().ok_or(GroupError::NoSuchGroup)
    }

    fn address_of(&self, user: &UserName) -> Address {
        Address { user: user.clone(), realm: self.places.realm().clone() }
    }

    /// Whether a user of this realm is in a group, as far as this edge knows.
    pub(crate) fn is_member(&self, group: &GroupName, user: &UserName) -> bool {
        self.groups.get(group).is_some_and(|group| group.members.contains_key(&self.address_of(user)))
    }

    /// The same, with a look at the broker before it is denied.
    pub(crate) async fn find_member(
        &self,
        group: &GroupName,
        user: &UserName,
    ) -> Result<Arc<Group>, GroupError> {
        if !self.is_member(group, user) {
            self.groups.copy.catch_up(group.as_str()).await?;
        }
        let found = self.groups.get(group).ok_or(GroupError::NoSuchGroup)?;
        found.check_member(&self.address_of(user))?;
        Ok(found)
    }

    fn check_groups_of(&self, user: &UserName) -> Result<(), GroupError> {
        let refused = GroupError::Full("you are in 64 groups: leave one first");
        (self.groups.of(user).len() < GROUPS_PER_USER_MAX).then_some(()).ok_or(refused)
    }

    /// For a user who is about to join: what was said before does not count as unread.
    async fn read_before_joining(&self, group: &GroupName, user: &UserName) -> Result<(), GroupError> {
        let mark = ReadMark {
            user: user.clone(),
            mailbox: self.places.group_box(group),
            upto: self.broker.last(&self.places.group(group)).await?,
            remote: Vec::new(),
        };
        let key = mark.key();
        self.cursors.advance(mark);
        Ok(self.cursors.save(&key).await?)
    }

    pub(crate) async fn add_group(
        &self,
        owner: &UserName,
        group: &GroupName,
        policy: GroupPolicy,
    ) -> Result<GroupInfo, GroupError> {
        self.check_groups_of(owner)?;
        if self.groups.copy.len() >= GROUPS_MAX {
            return Err(GroupError::Full("the realm has 10000 groups"));
        }
        if self.groups.copy.fresh(group.as_str()).await?.is_some() {
            return Err(GroupError::Exists);
        }
        // Something may be left of one that had the name before.
        self.forget_group(group).await?;
        self.read_before_joining(group, owner).await?;
        let address = self.address_of(owner);
        let made = Group {
            owner: address.clone(),
            policy,
            topic: String::new(),
            members: BTreeMap::from([(address.clone(), Timestamp::now().0)]),
            invited: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        match self.groups.copy.put(group.as_str(), &made, Expect::Absent, None).await {
            Err(KvError::Conflict) => Err(GroupError::Exists),
            written => Ok(written.map(|()| made.info(group, &address))?),
        }
    }

    pub(crate) async fn join_group(
        &self,
        user: &UserName,
        group: &GroupAddress,
    ) -> Result<GroupInfo, GroupError> {
        let (group, address) = (self.here(group)?, self.address_of(user));
        self.groups.copy.catch_up(group.as_str()).await?;
        let kept = self.groups.get(&group).ok_or(GroupError::NoSuchGroup)?;
        if kept.members.contains_key(&address) {
            return Ok(kept.info(&group, &address));
        }
        kept.check_join(&address)?;
        self.check_groups_of(user)?;
        self.read_before_joining(&group, user).await?;
        let now = Timestamp::now().0;
        self.groups
            .change(&group, |kept| {
                if !kept.members.contains_key(&address) {
                    kept.check_join(&address)?;
                    kept.invited.remove(&address);
                    kept.removed.remove(&address);
                    kept.members.insert(address.clone(), now);
                }
                Ok(kept.info(&group, &address))
            })
            .await
    }

    /// Takes a user out of a group, or declines its invitation.
    pub(crate) async fn leave_group(&self, user: &UserName, group: &GroupAddress) -> Result<(), GroupError> {
        let (group, address) = (self.here(group)?, self.address_of(user));
        let is_over = self
            .groups
            .change(&group, |kept| {
                if !kept.members.contains_key(&address) && !kept.invited.contains(&address) {
                    return Err(GroupError::NotAMember);
                }
                kept.take_out(&address);
                Ok(kept.members.is_empty())
            })
            .await?;
        if is_over {
            self.forget_group(&group).await?;
        }
        Ok(())
    }

    /// Removes what was said in a group that is no more.
    async fn forget_group(&self, group: &GroupName) -> Result<(), GroupError> {
        let subject = self.places.group(group);
        let last = self.broker.last(&subject).await?;
        if last > antar_broker::Seq::ZERO {
            self.broker.trim(&subject, last).await?;
        }
        Ok(())
    }

    /// The groups of a user, and the invitations, by name.
    pub(crate) fn groups_of(&self, user: &UserName) -> Vec<GroupInfo> {
        let address = self.address_of(user);
        let mut groups: Vec<GroupInfo> = Vec::new();
        for (name, group) in self.groups.copy.all() {
            let Ok(name) = name.parse() else { continue };
            if group.members.contains_key(&address) || group.invited.contains(&address) {
                groups.push(group.info(&name, &address));
            }
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups
    }

    /// The members of a group, by name, and how it looks.
    pub(crate) async fn members(
        &self,
        user: &UserName,
        group: &GroupAddress,
    ) -> Result<(GroupInfo, Vec<Address>), GroupError> {
        let name = self.here(group)?;
        let found = self.find_member(&name, user).await?;
        Ok((found.info(&name, &self.address_of(user)), found.members.keys().cloned().collect()))
    }

    pub(crate) async fn invite_to_group(
        &self,
        by: &UserName,
        group: &GroupAddress,
        user: &UserName,
    ) -> Result<(), GroupError> {
        let (group, by, invited) = (self.here(group)?, self.address_of(by), self.address_of(user));
        let is_known = self.accounts.copy.fresh(user.as_str()).await?.is_some();
        self.groups
            .change(&group, |kept| {
                kept.check_owner(&by)?;
                if !is_known {
                    return Err(GroupError::NoSuchUser);
                }
                if kept.members.contains_key(&invited) {
                    return Ok(());
                }
                if kept.invited.len() >= MEMBERS_MAX {
                    return Err(GroupError::Full(
                        "1000 are invited: some of them have to join, or to be removed",
                    ));
                }
                kept.invited.insert(invited.clone());
                Ok(())
            })
            .await
    }

    /// Removes a member, or takes an invitation back.
    pub(crate) async fn kick_from_group(
        &self,
        by: &UserName,
        group: &GroupAddress,
        user: &UserName,
    ) -> Result<(), GroupError> {
        let (group, by, kicked) = (self.here(group)?, self.address_of(by), self.address_of(user));
        self.groups
            .change(&group, |kept| {
                kept.check_owner(&by)?;
                if kicked == by {
                    return Err(GroupError::NotAllowed("leavegroup is how to go oneself"));
                }
                if !kept.members.contains_key(&kicked) && !kept.invited.contains(&kicked) {
                    return Err(GroupError::NoSuchUser);
                }
                if kept.removed.len() >= MEMBERS_MAX {
                    return Err(GroupError::Full("1000 were removed: some of them have to be invited again"));
                }
                kept.take_out(&kicked);
                kept.removed.insert(kicked.clone());
                Ok(())
            })
            .await
    }

    pub(crate) async fn topic(
        &self,
        by: &UserName,
        group: &GroupAddress,
        topic: Option<&str>,
    ) -> Result<GroupInfo, GroupError> {
        let name = self.here(group)?;
        let by_address = self.address_of(by);
        let Some(topic) = topic else {
            return Ok(self.find_member(&name, by).await?.info(&name, &by_address));
        };
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(GroupError::BadTopic);
        }
        self.groups
            .change(&name, |kept| {
                kept.check_owner(&by_address)?;
                kept.topic = topic.to_owned();
                Ok(kept.info(&name, &by_address))
            })
            .await
    }

    /// Takes a user out of everything: whoever gets the name later must not find it in a group.
    pub(crate) async fn leave_all_groups(&self, user: &UserName) -> Result<(), GroupError> {
        let address = self.address_of(user);
        for (name, group) in self.groups.copy.all() {
            let concerned = group.members.contains_key(&address)
                || group.invited.contains(&address)
                || group.removed.contains(&address);
            let Ok(name) = name.parse::<GroupName>() else { continue };
            if !concerned {
                continue;
            }
            let out = self.groups.change(&name, |kept| {
                kept.take_out(&address);
                kept.removed.remove(&address);
                Ok(kept.members.is_empty())
            });
            match out.await {
                Ok(true) => self.forget_group(&name).await?,
                Ok(false) | Err(GroupError::NoSuchGroup) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
