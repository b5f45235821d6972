//! Reading groups: what a member has not read, how far all have, and where a message is.

use antar_broker::{Filter, ReadError, ReadFrom, ReadLimit, Seq, Timestamp};
use antar_proto::command::With;
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::State;
use antar_proto::{GroupAddress, GroupName, MessageId, UserName};

use super::GroupError;
use crate::mail::Mail;
use crate::mailbox::{CLOCK_SKEW_US, INBOX_LIMIT, MessageStatus, Unread, time_of};
use crate::shared::Shared;

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
            With::Group(group) => Filter::from(&self.places.group(&group.group)),
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
    ) -> Result<GroupName, GroupError> {
        let name = self.here(group)?;
        self.find_member(&name, user).await?;
        Ok(name)
    }

    /// Up to where every member of a group has read it; what nobody can read any more is read by all.
    pub(crate) fn read_by_all(&self, group: &GroupName) -> Seq {
        let Some(found) = self.groups.get(group) else { return Seq::ZERO };
        let mailbox = self.places.group_box(group);
        let cursors = found.members.keys().map(|member| self.cursors.get(&member.user, &mailbox));
        cursors.min().unwrap_or(Seq::ZERO)
    }

    /// Where a message is that a user sent to a group.
    pub(crate) async fn group_status(
        &self,
        user: &UserName,
        id: MessageId,
    ) -> Result<Option<MessageStatus>, ReadError> {
        let Some(time) = time_of(id) else { return Ok(None) };
        let own = self.address_of(user);
        let from = own.to_string();
        let is_it = |entry: &antar_broker::Entry| {
            Mail::of(entry).is_some_and(|mail| mail.id == id && mail.from == from)
        };
        for group in self.groups.of(user) {
            let filter = Filter::from(&self.places.group(&group));
            let start = ReadFrom::Since(Timestamp(time.0.saturating_sub(CLOCK_SKEW_US)));
            let found = self.scan(&filter, start, Some(1), is_it).await?;
            let (Some(entry), Some(kept)) = (found.first(), self.groups.get(&group)) else { continue };
            let mailbox = self.places.group_box(&group);
            let others = kept.members.keys().filter(|member| **member != own);
            let receivers: Vec<_> = others
                .map(|member| {
                    let is_read = self.cursors.get(&member.user, &mailbox) >= entry.seq;
                    (member.clone(), if is_read { State::Read } else { State::Delivered }, None)
                })
                .collect();
            let state = receivers.iter().map(|(_, state, _)| *state).min().unwrap_or(State::Delivered);
            return Ok(Some(MessageStatus { state, receivers }));
        }
        Ok(None)
    }
}
