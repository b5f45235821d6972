//! Named groups: who is in them, and who may change that. A group's messages are stored once, and each member reads them with a
//! cursor of its own.
//!
//! A group lives in one realm, its home. Members from other realms ask it for what they want, through the lane, and it tells their
//! realms how the group is and what is said in it, one envelope for each realm.
//!
//! Owns: the bucket of groups. Must not know: how messages are sent and read, which is in the files beside this one.

mod abroad;
mod api;
mod deliver;
mod feed;
mod home;
mod post;
mod read;
mod relay;
mod shown;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use antar_broker::{Expect, KvError, ReadError, Seq, Timestamp};
use antar_proto::command::GroupPolicy;
use antar_proto::{Address, GroupAddress, RealmId, UserName};
use serde::{Deserialize, Serialize};

use crate::copy::KvCopy;
use crate::cursor::ReadMark;
use crate::places::{group_key, group_named};
use crate::recall::Place;
use crate::shared::Shared;

use shown::Shown;

pub(crate) use deliver::{Arriving, IncomingOfGroup};
pub(crate) use feed::{GroupFeed, News};
pub(crate) use relay::run as relay;
pub use shown::SharedEvent;
pub(crate) use state::tell_realms;

/// Most groups that live in a realm.
pub const GROUPS_MAX: usize = 10_000;
/// Most groups of each other realm that users of this one are in or invited to.
pub(crate) const GROUPS_ABROAD_MAX: usize = 1_000;
/// Most groups that one user is a member of.
pub const GROUPS_PER_USER_MAX: usize = 64;
/// Most members of a group; as many are invited, and as many removed, at the most.
pub const MEMBERS_MAX: usize = 1_000;
/// Longest topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 512;
/// How often a change is tried again that others were faster with.
const CHANGE_TRIES: usize = 16;

/// A group, as it is kept under its name: at home, or what another realm says of one of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) owner: Address,
    pub(crate) policy: GroupPolicy,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) topic: String,
    /// Each with when it joined, in microseconds since 1970. One without members is over: its realms have yet to be told.
    pub(crate) members: BTreeMap<Address, u64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    invited: BTreeSet<Address>,
    /// They may not join again, unless they are invited.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    removed: BTreeSet<Address>,
    /// Grows with every change, at least to the time of it in microseconds since 1970: also if the name is given anew.
    #[serde(default)]
    version: u64,
    /// Realms that have yet to be told of the last changes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    untold: BTreeSet<RealmId>,
    /// Up to which place of their lanes other realms' requests were carried out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    done: BTreeMap<RealmId, Place>,
    /// Of one abroad: who has asked to join. Nobody else is made a member by what its home says.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    asked: BTreeSet<UserName>,
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
    /// The realm that is named was not added.
    #[error("the realm was not added")]
    NoSuchRealm,
    /// An operator has blocked it.
    #[error("the realm is blocked")]
    RealmBlocked,
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
    /// Its name, with its realm if that is another one.
    pub group: GroupAddress,
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
    /// One of which nothing else is known yet.
    fn of(owner: Address, policy: GroupPolicy) -> Self {
        Self {
            owner,
            policy,
            topic: String::new(),
            members: BTreeMap::new(),
            invited: BTreeSet::new(),
            removed: BTreeSet::new(),
            version: 0,
            untold: BTreeSet::new(),
            done: BTreeMap::new(),
            asked: BTreeSet::new(),
        }
    }

    fn info(&self, group: &GroupAddress, user: &Address) -> GroupInfo {
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

    fn is_over(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether it is over, and nobody has yet to be told.
    fn is_gone(&self) -> bool {
        self.is_over() && self.untold.is_empty()
    }

    /// Whether it has members in a realm.
    pub(crate) fn has_members_in(&self, realm: &RealmId) -> bool {
        self.members.keys().any(|member| member.realm == *realm)
    }

    /// The realms of those who are in it, or invited.
    fn realms(&self) -> BTreeSet<RealmId> {
        self.members.keys().chain(&self.invited).map(|address| address.realm.clone()).collect()
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

/// Who is in which groups.
#[derive(Default)]
struct Index {
    /// Users of this realm, their groups by name.
    by_user: HashMap<UserName, Vec<GroupAddress>>,
    /// Other realms with members in groups that live here.
    by_realm: HashMap<RealmId, BTreeSet<GroupAddress>>,
}

/// The groups of a realm, and those of others that its users are in.
pub(crate) struct Groups {
    pub(crate) copy: KvCopy<Group>,
    realm: RealmId,
    pub(crate) shown: Shown,
    /// Of which version of the copy, and the index.
    index: Mutex<Option<(u64, Arc<Index>)>>,
}

impl Groups {
    pub(crate) fn new(copy: KvCopy<Group>, realm: RealmId) -> Self {
        Self { copy, realm, shown: Shown::default(), index: Mutex::default() }
    }

    pub(crate) fn get(&self, group: &GroupAddress) -> Option<Arc<Group>> {
        self.copy.get(&group_key(group)).filter(|group| !group.is_over())
    }

    /// All of them that are not over, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (GroupAddress, Arc<Group>)> {
        let all = self.copy.all().into_iter().filter(|(_, group)| !group.is_over());
        all.filter_map(|(key, group)| group_named(&key).map(|address| (address, group)))
    }

    /// How many are kept that live in a realm: in this one, if none is named. Those count, too, of which nothing is known yet.
    fn count_of(&self, home: Option<&RealmId>) -> usize {
        let keys = self.copy.all().into_iter().filter_map(|(key, _)| group_named(&key));
        keys.filter(|address| address.realm.as_ref() == home).count()
    }

    /// The index, made anew only when a group has changed.
    fn index(&self) -> Arc<Index> {
        // Before the look, so that a change meanwhile makes it be looked at again.
        let version = self.copy.version();
        let mut known = self.index.lock().expect("no holder of this lock panics");
        if let Some((of, index)) = &*known
            && *of == version
        {
            return index.clone();
        }
        let mut index = Index::default();
        for (address, group) in self.all() {
            for member in group.members.keys() {
                if member.realm == self.realm {
                    index.by_user.entry(member.user.clone()).or_default().push(address.clone());
                } else if address.realm.is_none() {
                    index.by_realm.entry(member.realm.clone()).or_default().insert(address.clone());
                }
            }
        }
        index.by_user.values_mut().for_each(|groups| groups.sort());
        let index = Arc::new(index);
        *known = Some((version, index.clone()));
        index
    }

    /// Those that live here and have members in another realm, by name.
    pub(crate) fn shared_with(&self, realm: &RealmId) -> Vec<GroupAddress> {
        self.index().by_realm.get(realm).into_iter().flatten().cloned().collect()
    }

    /// The groups that a user of this realm is a member of, by name.
    pub(crate) fn of(&self, user: &UserName) -> Vec<GroupAddress> {
        self.index().by_user.get(user).cloned().unwrap_or_default()
    }

    /// Changes a group that lives here, as the broker has it now, and whom its realms have yet to be told of. One without members,
    /// of which nobody has to be told, goes. For another realm's request, `place` is where that stands in its lane: what was
    /// carried out before is not carried out again.
    async fn change(
        &self,
        group: &GroupAddress,
        place: Option<(&RealmId, Place)>,
        what: impl Fn(&mut Group) -> Result<(), GroupError>,
    ) -> Result<Arc<Group>, GroupError> {
        let key = &group_key(group);
        for _ in 0..CHANGE_TRIES {
            // What is refused shall be refused for what is true everywhere.
            self.copy.catch_up(key).await?;
            let (kept, revision) = self.copy.get_with_revision(key).ok_or(GroupError::NoSuchGroup)?;
            if kept.is_over() {
                return Err(GroupError::NoSuchGroup);
            }
            if let Some((realm, place)) = place
                && kept.done.get(realm).is_some_and(|done| *done >= place)
            {
                return Ok(kept);
            }
            let mut changed = (*kept).clone();
            what(&mut changed)?;
            if changed == *kept {
                let Some((realm, _)) = place else { return Ok(kept) };
                // Whoever asks for what is so already does not know it: it may have been restored from a backup.
                changed.untold.insert(realm.clone());
            }
            changed.version = Timestamp::now().0.max(kept.version + 1);
            changed.untold.extend(kept.realms().into_iter().chain(changed.realms()));
            changed.untold.remove(&self.realm);
            if let Some((realm, place)) = place {
                changed.done.insert(realm.clone(), place);
            }
            let expect = Expect::Revision(revision);
            let written = match changed.is_gone() {
                true => self.copy.delete_if(key, expect).await,
                false => self.copy.put(key, &changed, expect, None).await,
            };
            match written {
                Ok(()) => return Ok(Arc::new(changed)),
                Err(KvError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(GroupError::Unavailable("the group is being changed by others".into()))
    }
}

impl Shared {
    /// A group as it is written, as it is kept: without its realm if that is this one.
    pub(crate) fn as_kept(&self, group: &GroupAddress) -> GroupAddress {
        let realm = group.realm.clone().filter(|realm| realm != self.places.realm());
        GroupAddress { group: group.group.clone(), realm }
    }

    pub(crate) fn address_of(&self, user: &UserName) -> Address {
        Address { user: user.clone(), realm: self.places.realm().clone() }
    }

    /// Whether a user of this realm is in a group, as far as this edge knows.
    pub(crate) fn is_member(&self, group: &GroupAddress, user: &UserName) -> bool {
        self.groups.get(group).is_some_and(|group| group.members.contains_key(&self.address_of(user)))
    }

    /// The same, with a look at the broker before it is denied.
    pub(crate) async fn find_member(
        &self,
        group: &GroupAddress,
        user: &UserName,
    ) -> Result<Arc<Group>, GroupError> {
        if !self.is_member(group, user) {
            self.groups.copy.catch_up(&group_key(group)).await?;
        }
        let unknown = match group.realm {
            Some(_) => GroupError::NotAMember,
            None => GroupError::NoSuchGroup,
        };
        let found = self.groups.get(group).ok_or(unknown)?;
        found.check_member(&self.address_of(user))?;
        Ok(found)
    }

    fn check_groups_of(&self, user: &UserName) -> Result<(), GroupError> {
        let refused = GroupError::Full("you are in 64 groups: leave one first");
        (self.groups.of(user).len() < GROUPS_PER_USER_MAX).then_some(()).ok_or(refused)
    }

    /// For a user who is about to join: what was said before does not count as unread.
    async fn read_before_joining(&self, group: &GroupAddress, user: &UserName) -> Result<(), GroupError> {
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

    /// Removes what was said in a group that is no more, and what was sent to it.
    async fn forget_group(&self, group: &GroupAddress) -> Result<(), GroupError> {
        let last = self.broker.last(&self.places.group(group)).await?;
        self.forget_said(group, last).await
    }

    /// The same, of what stands before and at a sequence.
    async fn forget_said(&self, group: &GroupAddress, upto: Seq) -> Result<(), GroupError> {
        if upto > Seq::ZERO {
            self.broker.trim(&self.places.group(group), upto).await?;
        }
        if group.realm.is_none() {
            let forgotten = self.files.forget_group(&group.group).await;
            forgotten.map_err(|error| GroupError::Unavailable(error.to_string()))?;
        }
        Ok(())
    }

    /// The groups of a user, and the invitations, by name.
    pub(crate) fn groups_of(&self, user: &UserName) -> Vec<GroupInfo> {
        let own = self.address_of(user);
        let mine = self.groups.all();
        let mine = mine.filter(|(_, group)| group.members.contains_key(&own) || group.invited.contains(&own));
        let mut groups: Vec<GroupInfo> = mine.map(|(address, group)| group.info(&address, &own)).collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups
    }

    /// The members of a group, by name, and how it looks.
    pub(crate) async fn members(
        &self,
        user: &UserName,
        group: &GroupAddress,
    ) -> Result<(GroupInfo, Vec<Address>), GroupError> {
        let group = self.as_kept(group);
        let found = self.find_member(&group, user).await?;
        Ok((found.info(&group, &self.address_of(user)), found.members.keys().cloned().collect()))
    }
}
