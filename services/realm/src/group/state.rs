//! How other realms learn of a group's members: its home tells each realm concerned the whole state after every change, and
//! says so in the group until it has. Whoever is told takes what is newer than what it knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Append, EntryId, Expect, KvError, Timestamp};
use antar_proto::envelope::Content;
use antar_proto::{Address, GroupAddress, MessageId, RealmId};

use super::{GROUPS_ABROAD_MAX, Group, GroupError, MEMBERS_MAX, TOPIC_BYTES_MAX};
use crate::mail::envelope;
use crate::places::group_key;
use crate::recall::Place;
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
        for (key, group) in shared.groups.copy.all() {
            let Some(address) = crate::places::group_named(&key) else { continue };
            if group.untold.is_empty() || group.version > before {
                continue;
            }
            if let Err(error) = shared.tell(&address).await {
                tracing::warn!(group = %address, %error, "realms have yet to be told of a change of a group");
            }
        }
    }
}

/// What a realm says of a group of its own.
pub(super) struct State {
    pub(super) version: u64,
    pub(super) group: Group,
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

    fn is_sane(&self) -> bool {
        self.members.len() <= MEMBERS_MAX
            && self.invited.len() <= MEMBERS_MAX
            && self.topic.len() <= TOPIC_BYTES_MAX
    }
}

impl State {
    /// What `home` says; `None` for what can be no group.
    pub(super) fn of(content: Content, realm: &RealmId, home: &RealmId, place: Place) -> Option<Self> {
        let Content::GroupState { version, owner, policy, topic, members, invited, .. } = content else {
            return None;
        };
        let group = Group {
            owner,
            policy,
            topic,
            members: members.into_iter().map(|member| (member, 0)).collect(),
            invited: invited.into_iter().map(|user| Address { user, realm: realm.clone() }).collect(),
            removed: std::collections::BTreeSet::new(),
            version,
            untold: std::collections::BTreeSet::new(),
            done: BTreeMap::from([(home.clone(), place)]),
        };
        group.is_sane().then_some(Self { version, group })
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
            let mut waiting = Vec::new();
            // One that is known no longer has nobody who could ask.
            for realm in kept.untold.iter().filter(|realm| self.peers.is_known(realm)) {
                let state = kept.state(group, realm);
                let body = envelope(MessageId::fresh(), self.places.realm(), realm, state).to_bytes();
                let append = Append::new(self.places.outbox(realm), EntryId::unique(), body);
                waiting.push(self.broker.append(append).await);
            }
            let unavailable = |error: antar_broker::AppendError| GroupError::Unavailable(error.to_string());
            for pending in waiting {
                pending.map_err(unavailable)?.await.map_err(unavailable)?;
            }
            let expect = Expect::Revision(revision);
            let written = match kept.is_over() {
                true => copy.delete_if(key, expect).await,
                false => {
                    let told = Group { untold: std::collections::BTreeSet::new(), ..(*kept).clone() };
                    copy.put(key, &told, expect, None).await
                }
            };
            match written {
                Ok(()) if kept.is_over() => return self.forget_group(group).await,
                Ok(()) => return Ok(()),
                // It was changed meanwhile: what was told may have come behind what is newer.
                Err(KvError::Conflict) => copy.catch_up(key).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(GroupError::Unavailable("the group is being changed by others".into()))
    }

    /// Takes over what a realm says of a group of its own. Of people here, those count who are users and have not blocked its
    /// owner.
    pub(super) async fn take_state(&self, group: &GroupAddress, state: State) -> Result<(), GroupError> {
        let (copy, key) = (&self.groups.copy, &group_key(group));
        let State { version, group: mut said } = state;
        copy.catch_up(key).await?;
        let kept = copy.get_with_revision(key);
        if kept.as_ref().is_some_and(|(kept, _)| kept.version >= version) {
            return Ok(());
        }
        let here = self.places.realm();
        let is_user =
            |address: &Address| address.realm != *here || self.accounts.get(&address.user).is_some();
        said.members.retain(|member, _| is_user(member));
        let owner = said.owner.clone();
        said.invited.retain(|invited| self.takes_from(&invited.user, &owner.user, owner.realm.as_str()));
        let concerns_us = said.has_members_in(here) || !said.invited.is_empty();
        let Some(home) = group.realm.as_ref().filter(|_| concerns_us) else {
            copy.delete(key).await?;
            return self.forget_group(group).await;
        };
        if kept.is_none() && self.groups.count_of(Some(home)) >= GROUPS_ABROAD_MAX {
            tracing::warn!(group = %group, "a group is not taken note of: its realm has 1000 here already");
            return Ok(());
        }
        let was = |member: &Address| kept.as_ref().is_some_and(|(kept, _)| kept.members.contains_key(member));
        for member in said.members.keys().filter(|member| member.realm == *here && !was(member)) {
            self.read_before_joining(group, &member.user).await?;
        }
        let expect = kept.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
        Ok(copy.put(key, &said, expect, None).await?)
    }
}
