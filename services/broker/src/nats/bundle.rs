//! Bundles: entries of many appends in one message of a stream.
//!
//! JetStream's work is for each message, whatever is in it. So while one is on its way to a subject, those that come
//! meanwhile wait and go together. Two kinds can: a sender's own copies, which are published behind the acknowledgement
//! of their originals, and fresh entries, whose ids nobody can repeat. Whatever has to be recognised by its id or expects
//! something goes in a message of its own, behind those that came before it.
//!
//! An entry's sequence is made of its message's and its place in there; see [`seq`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::message::{MSG_ID, headers_of};
use super::publish::{Answer, Publish, Publisher, REPEAT_MAX, Receiver, Room, answer_of};
use crate::{Append, AppendError, Appended, EntryId, Headers, Seq, Subject};

/// Says how many entries a message holds; without it, it is one.
pub(super) const BUNDLE: &str = "Antar-Bundle";
/// Most entries of a bundle, and bytes of their bodies: together no more than the longest message of a user, so that a
/// subject that is limited in messages is limited in bytes as before.
pub(super) const ENTRIES_MAX: usize = 256;
pub(super) const BYTES_MAX: usize = 32 * 1024;
/// Most bundles that are on their way to a subject at the same time: each but the first is full.
const BUNDLES_MAX: usize = 8;
/// Most messages of their own that are on their way to a subject while others wait.
const ALONE_MAX: usize = 256;
/// How often a bundle whose acknowledgement did not come is published again, under the same id, and the pause before.
const UNKNOWN_TRIES: u32 = 3;
const UNKNOWN_DELAY: Duration = Duration::from_millis(200);

/// How many bits of a sequence tell the place in a message; all set stand for its last entry, whichever place that is. So
/// what lies behind a sequence can be told without knowing the message.
const PLACE_BITS: u32 = 10;
const LAST_PLACE: u64 = (1 << PLACE_BITS) - 1;

/// The sequence of entry `at` of `count` in a message.
pub(super) fn seq(message: u64, at: usize, count: usize) -> Seq {
    let place = if at + 1 >= count { LAST_PLACE } else { at as u64 };
    Seq(message << PLACE_BITS | place)
}

/// The message that an entry stands in.
pub(super) fn message_of(seq: Seq) -> u64 {
    seq.0 >> PLACE_BITS
}

/// The message that has to be a subject's last, so that this is its last sequence; one that never comes for a sequence
/// that is no message's last.
pub(super) fn expected(seq: Seq) -> u64 {
    const NEVER: u64 = u64::MAX / 2;
    match seq.0 & LAST_PLACE {
        _ if seq == Seq::ZERO => 0,
        LAST_PLACE => message_of(seq),
        _ => NEVER,
    }
}

/// The first message that may hold something behind this entry.
pub(super) fn first_after(seq: Seq) -> u64 {
    message_of(seq) + u64::from(seq.0 & LAST_PLACE == LAST_PLACE)
}

/// One entry of a bundle.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) id: EntryId,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

impl Part {
    pub(super) fn of(append: &Append) -> Self {
        Self { id: append.id.clone(), headers: append.headers.clone(), body: append.body.clone() }
    }
}

/// A copy that is to follow its original.
#[derive(Clone)]
pub(super) struct Following {
    pub(super) bundler: Bundler,
    pub(super) subject: Subject,
    pub(super) copy: Part,
}

impl Following {
    /// The original was acknowledged: queues the copy, which answers for both.
    pub(super) fn go(self, appended: Appended, done: oneshot::Sender<Answer>, room: Option<Room>) {
        let what = What::Copy(self.copy, appended);
        self.bundler.add(self.subject, Waiting { what, done, room });
    }
}

struct Waiting {
    what: What,
    done: oneshot::Sender<Answer>,
    room: Option<Room>,
}

enum What {
    /// Behind its original, which was acknowledged so.
    Copy(Part, Appended),
    /// Under an id that nobody can repeat: which of its append's subjects this is, and what follows it.
    Fresh(Part, usize, Option<Box<Following>>),
    /// In a message of its own.
    Alone(Box<Publish>),
}

impl Waiting {
    fn part(&self) -> Option<&Part> {
        match &self.what {
            What::Copy(part, _) | What::Fresh(part, ..) => Some(part),
            What::Alone(_) => None,
        }
    }

    /// Tells what became of a bundle in which this was number `at` of `count`.
    fn end(self, at: usize, count: usize, answer: &Answer) {
        let Self { what, done, room } = self;
        let answer = match (what, answer) {
            (What::Copy(_, appended), Ok(_)) => Ok(appended),
            (What::Copy(_, mut appended), Err(AppendError::Full(place))) => {
                if !appended.duplicate {
                    appended.full.push(place.clone());
                }
                Ok(appended)
            }
            // The original is there: the same append again completes it.
            (What::Copy(..), Err(error)) => Err(AppendError::Unknown(format!("of a copy: {error}"))),
            (What::Fresh(_, _, following), Ok(bundle)) => {
                let seq = seq(message_of(bundle.seq), at, count);
                // Its id is its own: a bundle that was there already is one that this published before.
                let appended = Appended { seq, duplicate: false, full: Vec::new() };
                match following {
                    Some(following) => return following.go(appended, done, room),
                    None => Ok(appended),
                }
            }
            (_, answer) => answer.clone(),
        };
        let _ = done.send(answer);
    }
}

/// Puts entries together. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bundler {
    publisher: Publisher,
    tasks: TaskTracker,
    /// Subjects to which something is on its way, with what waits.
    busy: Arc<Mutex<HashMap<Subject, VecDeque<Waiting>>>>,
}

impl Bundler {
    pub(super) fn new(publisher: Publisher, tasks: TaskTracker) -> Self {
        Self { publisher, tasks, busy: Arc::default() }
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<Subject, VecDeque<Waiting>>> {
        self.busy.lock().expect("no holder of this lock panics")
    }

    /// Publishes a fresh entry, its append's number `at`, together with others.
    pub(super) async fn publish_fresh(
        &self,
        subject: &Subject,
        part: Part,
        at: usize,
        following: Option<Box<Following>>,
    ) -> Result<Receiver, AppendError> {
        let room = Some(self.publisher.room(part.body.len()).await?);
        let (done, answer) = oneshot::channel();
        self.add(subject.clone(), Waiting { what: What::Fresh(part, at, following), done, room });
        Ok(answer)
    }

    /// Publishes a message of its own, behind what waits for its subject.
    pub(super) async fn publish(&self, subject: &Subject, message: Publish) -> Result<Receiver, AppendError> {
        let room = Some(self.publisher.room(message.body.len()).await?);
        if let Some(queue) = self.busy().get_mut(subject) {
            let (done, answer) = oneshot::channel();
            queue.push_back(Waiting { what: What::Alone(Box::new(message)), done, room });
            return Ok(answer);
        }
        self.publisher.publish_within(message, room).await
    }

    fn add(&self, subject: Subject, waiting: Waiting) {
        {
            let mut busy = self.busy();
            if let Some(queue) = busy.get_mut(&subject) {
                return queue.push_back(waiting);
            }
            busy.insert(subject.clone(), [waiting].into());
        }
        let bundler = self.clone();
        self.tasks.spawn(async move { bundler.run(subject).await });
    }

    /// Publishes what waits for a subject until nothing does.
    async fn run(self, subject: Subject) {
        let mut sent = FuturesUnordered::new();
        loop {
            while sent.len() < BUNDLES_MAX
                && let Some(waiting) = self.next(&subject, sent.is_empty())
            {
                if waiting.iter().all(|waiting| waiting.part().is_none()) {
                    self.publish_alone(waiting).await;
                    continue;
                }
                let bundle = self.bundle(&subject, &waiting);
                let answer = match &bundle {
                    Ok(bundle) => self.publisher.publish_within(bundle.clone(), None).await,
                    Err(error) => Err(error.clone()),
                };
                sent.push(self.end_bundle(bundle, answer, waiting));
            }
            if sent.next().await.is_none() {
                return;
            }
        }
    }

    /// The first of those that wait which go at the same time: all of them in one bundle, or each alone. While something
    /// is on its way only a full bundle goes. `None`, and if nothing is on its way the subject is free, if there are none.
    fn next(&self, subject: &Subject, is_idle: bool) -> Option<Vec<Waiting>> {
        let mut busy = self.busy();
        let queue = busy.get_mut(subject).expect("only its own run removes a subject");
        let Some(first) = queue.front() else {
            if is_idle {
                busy.remove(subject);
            }
            return None;
        };
        let is_bundle = first.part().is_some();
        let max = if is_bundle { ENTRIES_MAX } else { ALONE_MAX };
        let (mut count, mut bytes, mut is_full) = (0, 0, false);
        for waiting in &*queue {
            bytes += waiting.part().map_or(0, |part| part.body.len());
            is_full = count == max || (count > 0 && bytes > BYTES_MAX);
            if is_full || waiting.part().is_some() != is_bundle {
                break;
            }
            count += 1;
        }
        (is_idle || (is_bundle && is_full)).then(|| queue.drain(..count).collect())
    }

    fn bundle(&self, subject: &Subject, waiting: &[Waiting]) -> Result<Publish, AppendError> {
        let (headers, body) = match waiting {
            [Waiting { what: What::Copy(part, _), .. }] => {
                (headers_of(&part.id, 1, &part.headers, None, subject)?, part.body.clone())
            }
            [Waiting { what: What::Fresh(part, at, _), .. }] => {
                (headers_of(&part.id, *at, &part.headers, None, subject)?, part.body.clone())
            }
            several => pack(several.iter().filter_map(Waiting::part), several.len()),
        };
        Ok(Publish {
            subject: subject.as_str().to_owned().into(),
            headers,
            body,
            place: Some(subject.clone()),
            is_kept: true,
            // Copies have no order among each other that anybody was promised.
            may_wait: waiting.iter().all(|waiting| matches!(waiting.what, What::Copy(..))),
            following: None,
        })
    }

    /// Waits for what became of a bundle, publishes it again if nobody can tell, and tells those in it.
    async fn end_bundle(
        &self,
        bundle: Result<Publish, AppendError>,
        published: Result<Receiver, AppendError>,
        waiting: Vec<Waiting>,
    ) {
        let answer = match &bundle {
            Ok(bundle) => self.settle(bundle, published).await,
            Err(error) => Err(error.clone()),
        };
        let count = waiting.len();
        for (at, waiting) in waiting.into_iter().enumerate() {
            waiting.end(at, count, &answer);
        }
    }

    /// Waits for what became of a message that was published so, and publishes it again while nobody can tell.
    pub(super) async fn settle(
        &self,
        message: &Publish,
        mut published: Result<Receiver, AppendError>,
    ) -> Answer {
        let (began, mut tries) = (Instant::now(), 0);
        loop {
            let answer = match published {
                Ok(answer) => answer_of(answer).await,
                // It was published before.
                Err(error) if tries > 0 => Err(AppendError::Unknown(error.to_string())),
                Err(error) => Err(error),
            };
            let may_repeat = tries < UNKNOWN_TRIES && began.elapsed() < REPEAT_MAX;
            if !(may_repeat && matches!(answer, Err(AppendError::Unknown(_)))) {
                return answer;
            }
            tries += 1;
            tokio::time::sleep(UNKNOWN_DELAY).await;
            published = self.publisher.publish_within(message.clone(), None).await;
        }
    }

    /// Publishes messages one after the other, and waits for all of them.
    async fn publish_alone(&self, waiting: Vec<Waiting>) {
        let mut published = Vec::with_capacity(waiting.len());
        for Waiting { what, done, room } in waiting {
            let What::Alone(message) = what else { continue };
            match self.publisher.publish_within(*message, room).await {
                Ok(answer) => published.push((answer, done)),
                Err(error) => drop(done.send(Err(error))),
            }
        }
        for (answer, done) in published {
            let _ = done.send(answer_of(answer).await);
        }
    }
}

/// A message with several entries: of each the length of its id (two bytes), of its headers as JSON and of its body (four
/// bytes each, big-endian), then these.
pub(super) fn pack<'a>(parts: impl Iterator<Item = &'a Part>, count: usize) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(MSG_ID), HeaderValue::from(EntryId::unique().as_str()));
    headers.insert(HeaderName::from_static(BUNDLE), HeaderValue::from(count as u64));
    let mut body = BytesMut::new();
    for Part { id, headers, body: one } in parts {
        let headers = match headers.is_empty() {
            true => Vec::new(),
            false => serde_json::to_vec(headers).expect("pairs of texts are JSON"),
        };
        body.put_u16(u16::try_from(id.as_str().len()).expect("an id is short"));
        body.put_u32(u32::try_from(headers.len()).expect("headers are few"));
        body.put_u32(u32::try_from(one.len()).expect("a body has a limit"));
        body.put_slice(id.as_str().as_bytes());
        body.put_slice(&headers);
        body.put_slice(one);
    }
    (headers, body.freeze())
}

/// Takes one entry off the front of a bundle; `None` for what is none.
pub(super) fn unpack(bundle: &mut Bytes) -> Option<Part> {
    const HEAD: usize = 10;
    if bundle.len() < HEAD {
        return None;
    }
    let (id, headers, body) =
        (usize::from(bundle.get_u16()), bundle.get_u32() as usize, bundle.get_u32() as usize);
    if bundle.len() < id.checked_add(headers)?.checked_add(body)? {
        return None;
    }
    let id = EntryId::new(std::str::from_utf8(&bundle.split_to(id)).ok()?)?;
    let headers = match bundle.split_to(headers) {
        none if none.is_empty() => Headers::new(),
        some => serde_json::from_slice(&some).ok()?,
    };
    Some(Part { id, headers, body: bundle.split_to(body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_unpacked_as_it_was_packed() {
        let copy = |n: usize| Part {
            id: EntryId::new(format!("id-{n}")).unwrap(),
            headers: if n == 1 { vec![("a".into(), "b".into())] } else { Vec::new() },
            body: Bytes::from(vec![7; n * 100]),
        };
        let copies = [copy(0), copy(1), copy(2)];
        let (_, mut body) = pack(copies.iter(), copies.len());
        for copy in &copies {
            let read = unpack(&mut body).unwrap();
            assert_eq!((&read.id, &read.headers, &read.body), (&copy.id, &copy.headers, &copy.body));
        }
        assert!(unpack(&mut body).is_none());
        let (_, mut cut) = pack(copies.iter(), copies.len());
        cut.truncate(25);
        while unpack(&mut cut).is_some() {}
    }

    #[test]
    fn sequences_tell_what_lies_behind_them() {
        assert!(seq(1, 0, 1) < seq(2, 0, 3) && seq(2, 0, 3) < seq(2, 1, 3) && seq(2, 1, 3) < seq(2, 2, 3));
        assert_eq!(
            (first_after(seq(7, 0, 1)), first_after(seq(7, 0, 2)), first_after(seq(7, 1, 2))),
            (8, 7, 8)
        );
        assert_eq!((first_after(Seq::ZERO), message_of(seq(7, 0, 2)), message_of(seq(7, 1, 2))), (0, 7, 7));
    }
}
