//! What `watch` pushes of groups: of each group what its member has not read, then what comes, in the order of the group.

use std::collections::HashSet;
use std::sync::Arc;

use antar_broker::{Entry, Filter, ReadError, ReadFrom, ReadLimit, Seq, Tail};
use antar_proto::reply::{Event, Online};
use antar_proto::{GroupAddress, UserName};
use tokio::sync::{broadcast, watch};

use crate::presence::Came;
use crate::shared::Shared;

/// The part of a feed that has to do with groups.
pub(crate) struct GroupFeed {
    /// Tells when groups change.
    changes: watch::Receiver<u64>,
    /// They have changed, and were not looked at since.
    is_stale: bool,
    mine: HashSet<GroupAddress>,
    backlog: Vec<Backlog>,
    presence: broadcast::Receiver<Arc<Vec<Came>>>,
    /// Follows all groups; none while the user has none, or the broker does not answer.
    tail: Option<Tail>,
    /// Up to where the tail was returned; none before the user has a group.
    upto: Option<Seq>,
}

/// What is unread of one group when it comes to the feed.
struct Backlog {
    group: GroupAddress,
    after: Seq,
    /// What is behind comes from the tail.
    until: Seq,
}

impl GroupFeed {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            changes: shared.groups.copy.changes(),
            presence: shared.presence.subscribe(),
            is_stale: true,
            mine: HashSet::new(),
            backlog: Vec::new(),
            tail: None,
            upto: None,
        }
    }

    /// After the broker did not answer: begins again where it was.
    pub(crate) fn reset(&mut self) {
        self.tail = None;
    }

    /// Whether what is said in a group is for this feed. Who was removed a moment ago is shown nothing more.
    pub(crate) fn shows(&self, shared: &Shared, group: &GroupAddress, user: &UserName) -> bool {
        let is_current = !self.is_stale && !self.changes.has_changed().unwrap_or(true);
        self.mine.contains(group) && (is_current || shared.is_member(group, user))
    }

    /// Makes ready what [`Self::next`] follows, and returns what is unread of groups that are new here. May be cancelled: what it
    /// did not return comes again.
    pub(crate) async fn prepare(
        &mut self,
        shared: &Shared,
        user: &UserName,
        limit: ReadLimit,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        if self.is_stale || self.changes.has_changed().unwrap_or(false) {
            self.is_stale = true;
            // Before the look, so that no change after it is missed.
            self.changes.borrow_and_update();
            self.look(shared, user).await?;
            self.is_stale = false;
        }
        while let Some(Backlog { group, after, until }) = self.backlog.first_mut() {
            let subject = shared.places.group(group);
            let page = shared.broker.read(&Filter::from(&subject), ReadFrom::After(*after), limit).await?;
            let is_over = !page.more || page.entries.last().is_none_or(|last| last.seq > *until);
            let entries: Vec<_> = page.entries.into_iter().filter(|entry| entry.seq <= *until).collect();
            match entries.last() {
                Some(last) if !is_over => *after = last.seq,
                _ => drop(self.backlog.remove(0)),
            }
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        if let (None, Some(upto)) = (&self.tail, self.upto) {
            self.tail = Some(shared.broker.tail(&shared.places.groups(), upto).await?);
        }
        Ok(Vec::new())
    }

    /// Looks which groups the user is in.
    async fn look(&mut self, shared: &Shared, user: &UserName) -> Result<(), ReadError> {
        let now = shared.groups.of(user);
        self.mine.retain(|group| now.contains(group));
        self.backlog.retain(|backlog| now.contains(&backlog.group));
        let new: Vec<GroupAddress> = now.into_iter().filter(|group| !self.mine.contains(group)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let until = match self.upto {
            Some(upto) => upto,
            None => {
                let mut until = Seq::ZERO;
                for group in &new {
                    until = shared.broker.last(&shared.places.group(group)).await?.max(until);
                }
                until
            }
        };
        let mut backlog = Vec::new();
        for group in &new {
            let mailbox = shared.places.group_box(group);
            // The user may have joined on another edge, which has moved the cursor before.
            let caught_up = shared.cursors.catch_up(user, &mailbox).await;
            caught_up.map_err(|error| ReadError::Unavailable(error.to_string()))?;
            let after = shared.cursors.get(user, &mailbox);
            // Looked at once more: what came into one group before the last look at another lies below `until`.
            if shared.broker.last(&shared.places.group(group)).await? > after && after < until {
                backlog.push(Backlog { group: group.clone(), after, until });
            }
        }
        self.backlog.extend(backlog);
        if self.mine.is_empty() {
            // Who came and went before is no news.
            self.presence = self.presence.resubscribe();
        }
        self.mine.extend(new);
        self.upto = Some(until);
        Ok(())
    }

    /// Waits until something is written to any group, others come or go who are in one with the user, or groups change; then there
    /// is nothing in it. Cancel-safe: an entry is either returned or still to come.
    pub(crate) async fn next(
        &mut self,
        shared: &Shared,
        user: &UserName,
        limit: ReadLimit,
    ) -> Result<News, ReadError> {
        let Self { changes, presence, mine, tail, upto, is_stale, .. } = self;
        loop {
            let batch = async {
                match tail {
                    Some(tail) => tail.next_batch(limit).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: all of them are, and what is ready is dealt with without waiting.
            tokio::select! {
                changed = changes.changed() => {
                    // The sender lives in the copy, so waiting cannot fail.
                    let _ = changed;
                    *is_stale = true;
                    return Ok(News::default());
                }
                came = presence.recv(), if !mine.is_empty() => {
                    // Who is too slow misses some.
                    let Ok(came) = came else { continue };
                    let met: Vec<Event> = came.iter().filter_map(|came| met(shared, mine, user, came)).collect();
                    if !met.is_empty() {
                        return Ok(News { entries: Vec::new(), met });
                    }
                }
                batch = batch => {
                    let entries = batch?;
                    if let Some(last) = entries.last() {
                        *upto = Some(last.seq);
                    }
                    return Ok(News { entries, met: Vec::new() });
                }
            }
        }
    }
}

/// What is new in groups.
#[derive(Default)]
pub(crate) struct News {
    /// What was said.
    pub(crate) entries: Vec<Arc<Entry>>,
    /// Who has come or gone.
    pub(crate) met: Vec<Event>,
}

/// What a user is told of somebody who has come or gone: nothing, unless they are in a group together.
fn met(shared: &Shared, mine: &HashSet<GroupAddress>, user: &UserName, came: &Came) -> Option<Event> {
    let are_together = came.user != *user && mine.iter().any(|group| shared.is_member(group, &came.user));
    let state = if came.is_online { Online::Online } else { Online::Offline };
    are_together.then(|| Event::Presence { user: shared.address_of(&came.user), state })
}
