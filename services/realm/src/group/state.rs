//! How other realms learn of a group's members: its home tells each realm concerned the whole state after every change, and
//! says so in the group until it has. Whoever is told takes what is newer than what it knows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Append, EntryId, Expect, KvError, Timestamp};
use antar_proto::envelope::Content;
use antar_proto::{Address, GroupAddress, MessageId, RealmId};

use super::{GROUPS_ABROAD_MAX, Group, GroupError, MEMBERS_MAX, TOPIC_BYTES_MAX};
use crate::mail::envelope;
use crate::places::{group_key, group_named};
use crate::shared::Shared;

/// How often it is looked for realms that were not told: whoever made the change went down, or its broker did.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// After so long somebody else tells them.
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// How often a group is told of anew that is changed meanwhile.
const TELL_TRIES: usize = 16;

/// Tells realms of changes of which nobody else has told them, for as long as the realm is there.
pub(crate) async fn tell_realms(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let within = u64::try_from(TELL_WITHIN.as_micros()).unwrap_or(u64::MAX);
        let before = Timestamp::now().0.saturating_sub(within);
        let is_late = |group: &Group| !group.untold.is_empty() && group.version <= before;
        for (key, _, _) in shared.groups.copy.select(is_late) {
            if let Some(address) = group_named(&key) {
                shared.tell_or_later(&address).await;
            }
        }
    }
}

impl Group {
    /// What a realm is told.
    fn state(&self, group: &GroupAddress, realm: &RealmId) -> Content {
        let invited = self.invited.iter().filter(|address| address.realm == *realm);
        Content::GroupState {
            group: group.group.clone(),
            version: self.version,
            owner: self.owner.clone(),
            policy: self.policy,
            topic: self.topic.clone(),
            members: self.members.keys().cloned().collect(),
            invited: invited.map(|address| address.user.clone()).collect(),
        }
    }

    /// What another realm says of a group of its own, to the realm `here`; `None` for what can be no group.
    pub(super) fn told(content: Content, here: &RealmId) -> Option<Self> {
        let Content::GroupState { version, owner, policy, topic, members, invited, .. } = content else {
            return None;
        };
        let said = Self {
            topic,
            members: members.into_iter().map(|member| (member, 0)).collect(),
            invited: invited.into_iter().map(|user| Address { user, realm: here.clone() }).collect(),
            version,
            ..Self::of(owner, policy)
        };
        said.is_sane().then_some(said)
    }

    fn is_sane(&self) -> bool {
        self.members.len() <= MEMBERS_MAX
            && self.invited.len() <= MEMBERS_MAX
            && self.topic.len() <= TOPIC_BYTES_MAX
    }
}

impl Shared {
    /// Tells other realms how a group is, if they have yet to be told; one that is over goes with that.
    pub(super) async fn tell(&self, group: &GroupAddress) -> Result<(), GroupError> {
        let (copy, key) = (&self.groups.copy, &group_key(group));
        for _ in 0..TELL_TRIES {
            let Some((kept, revision)) = copy.get_with_revision(key) else { return Ok(()) };
            if kept.untold.is_empty() {
                return Ok(());
            }
            let (mut told, mut waiting, mut trouble) = (BTreeSet::new(), Vec::new(), None);
            for realm in &kept.untold {
                // One that is known no longer has nobody who could ask.
                if !self.peers.is_known(realm) {
                    told.insert(realm.clone());
                    continue;
                }
                if !self.has_room_in_lane(realm).await? {
                    trouble = Some(format!("the lane to {realm} is nearly full"));
                    continue;
                }
                let state = kept.state(group, realm);
                let body = envelope(MessageId::fresh(), self.places.realm(), realm, state).to_bytes();
                let append = Append::new(self.places.outbox(realm), EntryId::unique(), body);
                match self.broker.append(append).await {
                    Ok(pending) => waiting.push((realm, pending)),
                    Err(error) => trouble = Some(error.to_string()),
                }
            }
            for (realm, pending) in waiting {
                match pending.await {
                    Ok(_) => drop(told.insert(realm.clone())),
                    Err(error) => trouble = Some(error.to_string()),
                }
            }
            let untold: BTreeSet<RealmId> = kept.untold.difference(&told).cloned().collect();
            let told = Group { untold, ..(*kept).clone() };
            let expect = Expect::Revision(revision);
            let written = match told.is_gone() {
                true => copy.delete_if(key, expect).await,
                false => copy.put(key, &told, expect, None).await,
            };
            match (written, trouble) {
                // It was changed meanwhile: what was told may have come behind what is newer.
                (Err(KvError::Conflict), _) => copy.catch_up(key).await?,
                (Err(error), _) => return Err(error.into()),
                (Ok(()), Some(why)) => return Err(GroupError::Unavailable(why)),
                (Ok(()), None) if told.is_gone() => return self.forget_group(group).await,
                (Ok(()), None) => return Ok(()),
            }
        }
        Err(GroupError::Unavailable("the group is being changed by others".into()))
    }

    /// The same. What cannot be told now is told later: the group says of whom.
    pub(super) async fn tell_or_later(&self, group: &GroupAddress) {
        if let Err(error) = self.tell(group).await {
            tracing::warn!(group = %group, %error, "realms have yet to be told of a change of a group");
        }
    }

    /// Takes over what a realm says of a group of its own. Of people here, those count who are users and have not blocked its
    /// owner.
    pub(super) async fn take_state(&self, group: &GroupAddress, mut said: Group) -> Result<(), GroupError> {
        let (copy, key) = (&self.groups.copy, &group_key(group));
        copy.catch_up(key).await?;
        let kept = copy.get_with_revision(key);
        if kept.as_ref().is_some_and(|(kept, _)| kept.version >= said.version) {
            return Ok(());
        }
        let here = self.places.realm();
        let was = |member: &Address| kept.as_ref().is_some_and(|(kept, _)| kept.members.contains_key(member));
        let has_asked =
            |member: &Address| kept.as_ref().is_some_and(|(kept, _)| kept.asked.contains(&member.user));
        let is_user = |address: &Address| self.accounts.get(&address.user).is_some();
        said.members.retain(|member, _| {
            member.realm != *here || (is_user(member) && (was(member) || has_asked(member)))
        });
        let owner = said.owner.clone();
        said.invited.retain(|invited| self.takes_from(&invited.user, &owner.user, owner.realm.as_str()));
        // Whose request is on its way yet.
        let asked = kept.iter().flat_map(|(kept, _)| &kept.asked);
        said.asked =
            asked.filter(|user| !said.members.contains_key(&self.address_of(user))).cloned().collect();
        let concerns_us = said.has_members_in(here) || !said.invited.is_empty() || !said.asked.is_empty();
        let Some(home) = group.realm.as_ref().filter(|_| concerns_us) else {
            let Some((_, revision)) = kept else { return Ok(()) };
            copy.delete_if(key, Expect::Revision(revision)).await?;
            return self.forget_group(group).await;
        };
        if kept.is_none() && self.groups.count_of(Some(home)) >= GROUPS_ABROAD_MAX {
            tracing::warn!(group = %group, "a group is not taken note of: its realm has 1000 here already");
            return Ok(());
        }
        for member in said.members.keys().filter(|member| member.realm == *here && !was(member)) {
            self.read_before_joining(group, &member.user).await?;
        }
        let expect = kept.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
        Ok(copy.put(key, &said, expect, None).await?)
    }
}
