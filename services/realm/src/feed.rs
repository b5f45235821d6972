//! Feeds: what `watch` pushes to one user. First what is unread, then what comes, each once and after it was stored.

use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Entry, ReadError, ReadFrom, ReadLimit, Seq, Tail};
use antar_proto::UserName;
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::Event;
use tokio::time::Instant;

use crate::cursor::ReadMark;
use crate::group::{GroupFeed, News, SharedEvent};
use crate::mail::Mail;
use crate::mailbox::status_event;
use crate::places::{BOX_SENT, BOX_STATUS, box_of, group_of, is_of_group};
use crate::shared::Shared;

/// Most entries, and bytes of them, that one step returns.
const STEP: ReadLimit = ReadLimit { entries_max: 128, bytes_max: 256 * 1024 };

/// Pause before a broker that did not answer is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// What is to be pushed to one user.
pub struct Feed {
    shared: Arc<Shared>,
    user: UserName,
    /// Unread when the watch began: for each box where it was read up to.
    backlog: Vec<(String, Seq)>,
    /// Where the tail begins and the backlog ends.
    start: Seq,
    /// None while the broker does not answer.
    tail: Option<Tail>,
    /// Up to where the tail was returned.
    upto: Seq,
    /// When the broker is tried again.
    retry_at: Option<Instant>,
    groups: GroupFeed,
}

/// A step of a feed.
#[derive(Debug, Default)]
pub struct Step {
    /// To be pushed, in this order. May be empty: what came was not for pushing.
    pub events: Vec<Pushed>,
    /// To be given to [`crate::Realm::mark_seen`] once they were written.
    pub marks: Vec<ReadMark>,
}

/// What is pushed.
#[derive(Debug)]
pub enum Pushed {
    /// To one user.
    Event(Box<Event>),
    /// To all members of a group who watch.
    Shared(Arc<SharedEvent>),
}

impl Pushed {
    /// The event.
    pub fn into_event(self) -> Event {
        match self {
            Self::Event(event) => *event,
            Self::Shared(shared) => shared.event().clone(),
        }
    }
}

impl Step {
    fn push(&mut self, event: Event) {
        self.events.push(Pushed::Event(Box::new(event)));
    }

    /// Takes note of how far the user was shown a box.
    fn mark(&mut self, user: &UserName, mailbox: &str, upto: Seq) -> &mut ReadMark {
        let at = self.marks.iter().position(|mark| mark.mailbox == mailbox).unwrap_or_else(|| {
            let (user, mailbox) = (user.clone(), mailbox.to_owned());
            self.marks.push(ReadMark { user, mailbox, upto, remote: Vec::new() });
            self.marks.len() - 1
        });
        let mark = &mut self.marks[at];
        mark.upto = upto;
        mark
    }
}

impl Shared {
    pub(crate) async fn watch(self: &Arc<Self>, user: &UserName) -> Result<Feed, ReadError> {
        let boxes = self.boxes(user);
        let mut start = Seq::ZERO;
        for (_, subject) in &boxes {
            start = self.broker.last(subject).await?.max(start);
        }
        // Looked at once more: what came into one box before the last look at another lies below `start`.
        let mut backlog = Vec::new();
        for (mailbox, subject) in boxes.into_iter().filter(|(name, _)| name != BOX_SENT && name != BOX_STATUS)
        {
            let cursor = self.cursors.get(user, &mailbox);
            if self.broker.last(&subject).await? > cursor {
                backlog.push((mailbox, cursor));
            }
        }
        let tail = self.broker.tail(&self.places.mail_all(user), start).await?;
        let groups = GroupFeed::new(self);
        let (shared, user, tail) = (self.clone(), user.clone(), Some(tail));
        Ok(Feed { shared, user, backlog, start, tail, upto: start, retry_at: None, groups })
    }
}

impl Feed {
    /// Waits until there is something; a broker that does not answer is waited for. An error is the end. Cancel-safe: what
    /// was not returned comes again.
    pub async fn next(&mut self) -> Result<Step, ReadError> {
        loop {
            if let Some(at) = self.retry_at {
                tokio::time::sleep_until(at).await;
                self.retry_at = None;
            }
            match self.step().await {
                Err(ReadError::Unavailable(error)) => {
                    tracing::warn!(user = %self.user, error, "a watch waits for the broker");
                    self.tail = None;
                    self.groups.reset();
                    self.retry_at = Some(Instant::now() + RETRY_DELAY);
                }
                step => return step,
            }
        }
    }

    async fn step(&mut self) -> Result<Step, ReadError> {
        while let Some((mailbox, after)) = self.backlog.first().cloned() {
            let subject = self.shared.places.mail_box(&self.user, &mailbox);
            let page = self.shared.broker.read(&(&subject).into(), ReadFrom::After(after), STEP).await?;
            let mut step = Step::default();
            let mut upto = after;
            for entry in page.entries.iter().filter(|entry| entry.seq <= self.start) {
                self.add(entry, &mut step);
                upto = entry.seq;
            }
            if page.more && page.entries.last().is_some_and(|last| last.seq <= self.start) {
                self.backlog[0].1 = upto;
            } else {
                self.backlog.remove(0);
            }
            if !step.events.is_empty() {
                return Ok(step);
            }
        }
        let mut step = Step::default();
        let unread = self.groups.prepare(&self.shared, &self.user, STEP).await?;
        if !unread.is_empty() {
            unread.iter().for_each(|entry| self.add(entry, &mut step));
            return Ok(step);
        }
        let tail = match &mut self.tail {
            Some(tail) => tail,
            none => {
                let all = self.shared.places.mail_all(&self.user);
                none.insert(self.shared.broker.tail(&all, self.upto).await?)
            }
        };
        // Cancel-safe: each of them returns an entry or keeps it.
        let news = tokio::select! {
            mail = tail.next_batch(STEP) => {
                let entries = mail?;
                self.upto = entries.last().map_or(self.upto, |last| last.seq);
                News { entries, met: Vec::new() }
            }
            news = self.groups.next(&self.shared, &self.user, STEP) => news?,
        };
        news.entries.iter().for_each(|entry| self.add(entry, &mut step));
        news.met.into_iter().for_each(|event| step.push(event));
        Ok(step)
    }

    /// Whose feed this is.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    fn add(&self, entry: &Entry, step: &mut Step) {
        if is_of_group(&entry.subject) {
            return self.add_said(entry, step);
        }
        let mailbox = match box_of(&entry.subject) {
            BOX_SENT => return,
            BOX_STATUS => {
                if let Some(event) = status_event(entry) {
                    step.push(Event::Status(event));
                }
                return;
            }
            mailbox => mailbox,
        };
        let mark = step.mark(&self.user, mailbox, entry.seq);
        if let Some(mail) = Mail::of(entry) {
            mark.remote.extend(self.shared.remote_read(&self.user, entry, &mail));
            let message = self.shared.message_to(&self.user, &mail);
            step.push(Event::Message { mailbox: mailbox.to_owned(), message });
        }
    }

    /// What was said in a group is the same for all who watch.
    fn add_said(&self, entry: &Entry, step: &mut Step) {
        let shared = &self.shared;
        let make = || {
            let (group, mail) = (group_of(&entry.subject)?, Mail::of(entry)?);
            let message = shared.message_to(&self.user, &mail);
            let group_box = shared.places.group_box(&group);
            Some(SharedEvent::new(Event::Message { mailbox: BOX_LOCAL.into(), message }, group, group_box))
        };
        let Some(shown) = shared.groups.shown.get(entry, make) else { return };
        if self.groups.shows(shared, &shown.group, &self.user) {
            step.mark(&self.user, &shown.group_box, entry.seq);
            step.events.push(Pushed::Shared(shown));
        }
    }
}
