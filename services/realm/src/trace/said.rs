//! The way of a message to a group: to the group's home, if it is from elsewhere, and from there to each realm with members.

use std::collections::BTreeSet;

use antar_broker::ReadError;
use antar_proto::envelope::{Content, Envelope};
use antar_proto::{Address, GroupAddress, RealmId, UserName};

use super::look::Look;
use super::way::{Part, Way, hop};
use super::{Hop, Stage};
use crate::group::Group;
use crate::places::{GROUPS, group_key};

/// Members that are named one by one.
const MEMBERS_MAX: usize = 64;

/// A message to a group.
pub(super) struct Said {
    pub(super) group: GroupAddress,
    pub(super) from: Address,
    pub(super) traceparent: Option<String>,
}

impl Said {
    /// What an envelope says of it; `None` if it is no message to a group.
    pub(super) fn of(envelope: Envelope) -> Option<Self> {
        let Envelope { origin, dest, traceparent, content, .. } = envelope;
        let (home, group, from) = match content {
            Content::GroupPost { from, to_group, .. } => (dest, to_group, from),
            Content::GroupMessage { from, to_group, .. } => (origin, to_group, from),
            _ => return None,
        };
        Some(Self { group: GroupAddress { group, realm: Some(home) }, from, traceparent })
    }

    fn home(&self) -> &RealmId {
        self.group.realm.as_ref().expect("it was made with one")
    }

    /// The group as a realm keeps it.
    fn kept_at(&self, realm: &RealmId) -> GroupAddress {
        let home = self.group.realm.clone().filter(|home| home != realm);
        GroupAddress { group: self.group.group.clone(), realm: home }
    }

    fn part(&self, origin: &RealmId, dest: &RealmId) -> Part {
        Part {
            origin: origin.clone(),
            dest: dest.clone(),
            from: self.from.user.clone(),
            to: Vec::new(),
            is_group: false,
            traceparent: self.traceparent.clone(),
        }
    }
}

impl Way<'_> {
    /// Follows a message to a group.
    pub(super) async fn said(&mut self, said: &Said) -> Result<(), ReadError> {
        let home = said.home().clone();
        if said.from.realm != home {
            self.between(&said.part(&said.from.realm, &home)).await?;
        }
        let Some(look) = self.look(&home) else {
            let why = format!("the log of {home} cannot be read from here");
            self.misses(Stage::Delivered, &home, why);
            return Ok(());
        };
        let kept: Option<Group> = look.value(GROUPS, &group_key(&said.kept_at(&home))).await?;
        if !self.in_log(look, said, kept.as_ref()).await? {
            // Whatever else there is tells why.
            let is_told = self.hops.iter().any(|hop| matches!(hop.stage, Stage::Failed | Stage::Dead));
            if !is_told && self.missing.is_empty() {
                let why = format!("it is not in the log of #{}: it may have been trimmed", said.group);
                self.misses(Stage::Delivered, &home, why);
            }
            return Ok(());
        }
        let members = kept.iter().flat_map(|group| group.members.keys());
        let realms: BTreeSet<RealmId> =
            members.map(|member| member.realm.clone()).filter(|realm| *realm != home).collect();
        for realm in realms {
            self.told(said, &home, &realm, kept.as_ref()).await?;
        }
        Ok(())
    }

    /// What a realm has in its log of the group; whether it is there.
    async fn in_log(&mut self, look: &Look, said: &Said, kept: Option<&Group>) -> Result<bool, ReadError> {
        let address = said.kept_at(look.realm());
        let is_it = |entry: &antar_broker::Entry| look.envelope_in(&entry.body).is_some();
        let Some(entry) = look.one(&look.places.group(&address), is_it).await? else { return Ok(false) };
        let is_first = said.from.realm == *look.realm() && *said.home() == said.from.realm;
        let stage = if is_first { Stage::Accepted } else { Stage::Delivered };
        self.hops.push(hop(stage, look, &entry));
        let mailbox = look.places.group_box(&address);
        let here = kept.iter().flat_map(|group| group.members.keys());
        let here = here.filter(|member| member.realm == *look.realm() && **member != said.from);
        let (mut read, mut unread): (Vec<UserName>, Vec<UserName>) = (Vec::new(), Vec::new());
        for member in here.take(MEMBERS_MAX) {
            let is_read = look.cursor(&member.user, &mailbox).await? >= entry.seq;
            let list = if is_read { &mut read } else { &mut unread };
            list.push(member.user.clone());
        }
        if !read.is_empty() {
            self.hops.push(Hop { users: read, at: None, time: None, ..hop(Stage::Read, look, &entry) });
        }
        if !unread.is_empty() {
            let names: Vec<&str> = unread.iter().map(UserName::as_str).collect();
            let have = if unread.len() == 1 { "has" } else { "have" };
            self.misses(Stage::Read, look.realm(), format!("{} {have} not read it", names.join(", ")));
        }
        Ok(true)
    }

    /// The way from the group's home to a realm with members.
    async fn told(
        &mut self,
        said: &Said,
        home: &RealmId,
        realm: &RealmId,
        kept: Option<&Group>,
    ) -> Result<(), ReadError> {
        let part = said.part(home, realm);
        let Some(look) = self.look(home) else { return Ok(()) };
        let outbox = look.places.outbox(realm);
        let is_it = |entry: &antar_broker::Entry| look.envelope_in(&entry.body).is_some();
        let Some(sent) = look.one(&outbox, is_it).await? else {
            let why = format!("it waits in #{} to be put into the lane {home} → {realm}", said.group);
            self.misses(Stage::Lane, home, why);
            return Ok(());
        };
        self.hops.push(Hop { peer: Some(realm.clone()), ..hop(Stage::Lane, look, &sent) });
        if let Some(why) = self.why_it_waits(look, &part, sent.seq).await? {
            self.misses(Stage::Stored, realm, why);
            return Ok(());
        }
        let Some(there) = self.look(realm) else {
            let why = format!("the log of {realm} cannot be read from here");
            self.misses(Stage::Stored, realm, why);
            return Ok(());
        };
        let stored = self.came_in(there, &part).await?;
        match self.in_log(there, said, kept).await? {
            true => Ok(()),
            false => self.is_not_delivered(there, &part, stored).await,
        }
    }
}
