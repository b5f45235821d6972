//! Reading groups: what a member has not read, how far all have, and where a message is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use antar_broker::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Seq, Subject, Timestamp};
use antar_proto::command::With;
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::State;
use antar_proto::{Address, GroupAddress, MessageId, RealmId, UserName};

use super::GroupError;
use crate::mail::Mail;
use crate::mailbox::{CLOCK_SKEW_US, INBOX_LIMIT, Unread, time_of};
use crate::shared::Shared;
use crate::whereabouts::MessageStatus;

impl Unread {
    /// How large the messages are, as they are stored.
    pub(crate) fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.bytes).sum()
    }
}

impl Shared {
    /// What a user has not read of this realm: what was sent to the user, then group by group.
    pub(crate) async fn unread_here(&self, user: &UserName) -> Result<Unread, ReadError> {
        let mut all = self.unread(user, BOX_LOCAL, INBOX_LIMIT).await?;
        let left = ReadLimit {
            entries_max: INBOX_LIMIT.entries_max.saturating_sub(all.messages.len()),
            bytes_max: INBOX_LIMIT.bytes_max.saturating_sub(all.bytes()),
        };
        self.unread_groups(user, left, &mut all).await?;
        Ok(all)
    }

    /// Where a conversation stands.
    pub(crate) fn said(&self, user: &UserName, with: &With) -> Filter {
        match with {
            With::Group(group) => Filter::from(&self.places.group(&self.as_kept(group))),
            _ => self.places.mail_all(user),
        }
    }

    /// What a user has not read in groups, within what is left of a reply. What the user wrote there is none of it.
    pub(crate) async fn unread_groups(
        &self,
        user: &UserName,
        mut left: ReadLimit,
        all: &mut Unread,
    ) -> Result<(), ReadError> {
        let own = self.address_of(user).to_string();
        for group in self.groups.of(user) {
            if left.entries_max == 0 || left.bytes_max == 0 {
                all.more = true;
                return Ok(());
            }
            let (subject, mailbox) = (self.places.group(&group), self.places.group_box(&group));
            let one = self.unread_in(user, &mailbox, &subject, left).await?;
            left.entries_max = left.entries_max.saturating_sub(one.messages.len());
            left.bytes_max = left.bytes_max.saturating_sub(one.bytes());
            all.messages.extend(one.messages.into_iter().filter(|unread| unread.message.from != own));
            all.marks.extend(one.marks);
            all.more |= one.more;
        }
        Ok(())
    }

    /// A group whose messages a user may read.
    pub(crate) async fn readable_group(
        &self,
        user: &UserName,
        group: &GroupAddress,
    ) -> Result<(), GroupError> {
        self.find_member(&self.as_kept(group), user).await.map(drop)
    }

    /// Up to where every member of a group here has read it, and every realm with members was told of it; what nobody can read
    /// any more is read by all.
    pub(crate) fn read_by_all(&self, group: &GroupAddress) -> Seq {
        let Some(found) = self.groups.get(group) else { return Seq::ZERO };
        let (own, mailbox) = (self.places.realm(), self.places.group_box(group));
        let (here, elsewhere): (Vec<&Address>, Vec<&Address>) =
            found.members.keys().partition(|member| member.realm == *own);
        let read = here.into_iter().map(|member| self.cursors.get(&member.user, &mailbox));
        let realms: BTreeSet<&RealmId> = elsewhere.into_iter().map(|member| &member.realm).collect();
        // Others are told of by the realm that it lives in.
        let realms = realms.into_iter().filter(|_| group.realm.is_none());
        let told = realms.map(|realm| self.cursors.get_key(&self.places.relay_cursor(realm, group)));
        read.chain(told).min().unwrap_or(Seq::ZERO)
    }

    /// Where a message is that a user sent to a group.
    pub(crate) async fn group_status(
        &self,
        user: &UserName,
        id: MessageId,
    ) -> Result<Option<MessageStatus>, ReadError> {
        let Some(time) = time_of(id) else { return Ok(None) };
        let since = Timestamp(time.0.saturating_sub(CLOCK_SKEW_US));
        let own = self.address_of(user);
        for group in self.groups.of(user) {
            let said = self.said_by(&own, id, &self.places.group(&group), since).await?;
            let status = match (said, &group.realm) {
                (Some(entry), _) => self.status_in(&own, &group, &entry, id).await?,
                (None, None) => continue,
                // It has not come back from the group's home yet.
                (None, Some(home)) => {
                    let post = self.said_by(&own, id, &self.places.outbox(home), since).await?;
                    let Some(post) = post else { continue };
                    let news = self.news_since(user, home, id, post.time).await?;
                    let last = news.into_iter().max_by_key(|event| event.state);
                    let (state, reason) =
                        last.map_or((State::Accepted, None), |event| (event.state, event.reason));
                    let failed = reason.map(|reason| (own.clone(), state, Some(reason)));
                    MessageStatus { state, receivers: failed.into_iter().collect() }
                }
            };
            return Ok(Some(status));
        }
        Ok(None)
    }

    /// What stands on a subject of a message that somebody sent since then.
    async fn said_by(
        &self,
        sender: &Address,
        id: MessageId,
        subject: &Subject,
        since: Timestamp,
    ) -> Result<Option<Arc<Entry>>, ReadError> {
        let from = sender.to_string();
        let is_it = |entry: &Entry| Mail::of(entry).is_some_and(|mail| mail.id == id && mail.from == from);
        let found = self.scan(&Filter::from(subject), ReadFrom::Since(since), Some(1), is_it).await?;
        Ok(found.into_iter().next())
    }

    /// How far a message of a group has come to its other members: to those here by what they have read, of the others by what
    /// their realm has.
    async fn status_in(
        &self,
        sender: &Address,
        group: &GroupAddress,
        entry: &Entry,
        id: MessageId,
    ) -> Result<MessageStatus, ReadError> {
        let (here, mailbox) = (self.places.realm(), self.places.group_box(group));
        let kept = self.groups.get(group);
        let members = kept.iter().flat_map(|group| group.members.keys()).filter(|member| *member != sender);
        let mut reached: HashMap<&RealmId, State> = HashMap::new();
        let mut receivers = Vec::new();
        for member in members {
            let state = if member.realm == *here {
                match self.cursors.get(&member.user, &mailbox) >= entry.seq {
                    true => State::Read,
                    false => State::Delivered,
                }
            } else if group.realm.is_some() {
                // Only the group's home knows of other realms.
                continue;
            } else if let Some(state) = reached.get(&member.realm) {
                *state
            } else {
                let state = self.told_to(&member.realm, sender, entry, id).await?;
                reached.insert(&member.realm, state);
                state
            };
            receivers.push((member.clone(), state, None));
        }
        let state = receivers.iter().map(|(_, state, _)| *state).min().unwrap_or(State::Delivered);
        Ok(MessageStatus { state, receivers })
    }

    /// How far a message of a group has come on its way to a realm.
    async fn told_to(
        &self,
        realm: &RealmId,
        sender: &Address,
        entry: &Entry,
        id: MessageId,
    ) -> Result<State, ReadError> {
        let outbox = self.places.outbox(realm);
        let relayed = self.said_by(sender, id, &outbox, entry.time).await?;
        let carried = self.acked(&self.places.lane_queue(realm)).await;
        Ok(match relayed {
            Some(relayed) if relayed.seq <= carried => State::Stored,
            _ => State::Accepted,
        })
    }
}
