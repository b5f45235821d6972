//! Bundles: copies of many appends in one message of a stream.
//!
//! A sender's own copies all go to one subject, and JetStream's work is for each message, whatever is in it. So a copy is
//! published behind the acknowledgement of its original, and while one is on its way to a subject those that come
//! meanwhile wait and go together. An append is acknowledged when its copy is, too.
//!
//! An entry's sequence is made of its message's and its place in there; see [`seq`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::message::{MSG_ID, headers_of};
use super::publish::{Answer, Publish, Publisher};
use crate::{AppendError, Appended, EntryId, Headers, Seq, Subject};

/// Says how many entries a message holds; without it, it is one.
pub(super) const BUNDLE: &str = "Antar-Bundle";
/// Most entries of a bundle, and bytes of their bodies.
const ENTRIES_MAX: usize = 256;
const BYTES_MAX: usize = 256 * 1024;

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

/// One copy.
pub(super) struct Copy {
    pub(super) id: EntryId,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

/// A copy that is to follow its original.
pub(super) struct Following {
    pub(super) bundler: Bundler,
    pub(super) subject: Subject,
    pub(super) copy: Copy,
}

impl Following {
    /// The original was acknowledged: queues the copy, which answers for both.
    pub(super) fn go(self, appended: Appended, done: oneshot::Sender<Answer>) {
        let waiting = Waiting { copy: self.copy, appended, done };
        self.bundler.add(self.subject, waiting);
    }
}

struct Waiting {
    copy: Copy,
    appended: Appended,
    done: oneshot::Sender<Answer>,
}

/// Puts copies together. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bundler {
    publisher: Publisher,
    tasks: TaskTracker,
    /// Subjects to which something is on its way, with what waits.
    busy: Arc<Mutex<HashMap<Subject, Vec<Waiting>>>>,
}

impl Bundler {
    pub(super) fn new(publisher: Publisher, tasks: TaskTracker) -> Self {
        Self { publisher, tasks, busy: Arc::default() }
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<Subject, Vec<Waiting>>> {
        self.busy.lock().expect("no holder of this lock panics")
    }

    fn add(&self, subject: Subject, waiting: Waiting) {
        {
            let mut busy = self.busy();
            if let Some(queue) = busy.get_mut(&subject) {
                return queue.push(waiting);
            }
            busy.insert(subject.clone(), vec![waiting]);
        }
        let bundler = self.clone();
        self.tasks.spawn(async move { bundler.run(subject).await });
    }

    /// Publishes what waits for a subject until nothing does.
    async fn run(self, subject: Subject) {
        while let Some(waiting) = self.next(&subject) {
            let answer = self.publish(&subject, &waiting).await;
            for Waiting { mut appended, done, .. } in waiting {
                let _ = done.send(match &answer {
                    Ok(_) => Ok(appended),
                    Err(AppendError::Full(place)) => {
                        if !appended.duplicate {
                            appended.full.push(place.clone());
                        }
                        Ok(appended)
                    }
                    // The original is there: the same append again completes it.
                    Err(error) => Err(AppendError::Unknown(format!("of a copy: {error}"))),
                });
            }
        }
    }

    /// Those that go together; `None`, and the subject is free, if there are none.
    fn next(&self, subject: &Subject) -> Option<Vec<Waiting>> {
        let mut busy = self.busy();
        let queue = busy.get_mut(subject).expect("only its own run removes a subject");
        if queue.is_empty() {
            busy.remove(subject);
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for waiting in queue.iter().take(ENTRIES_MAX) {
            bytes += waiting.copy.body.len();
            if count > 0 && bytes > BYTES_MAX {
                break;
            }
            count += 1;
        }
        let rest = queue.split_off(count);
        Some(std::mem::replace(queue, rest))
    }

    async fn publish(&self, subject: &Subject, waiting: &[Waiting]) -> Answer {
        let (headers, body) = match waiting {
            [Waiting { copy: Copy { id, headers, body }, .. }] => {
                (headers_of(id, 1, headers, None, subject)?, body.clone())
            }
            several => pack(several.iter().map(|waiting| &waiting.copy), several.len()),
        };
        let message = Publish {
            subject: subject.as_str().to_owned().into(),
            headers,
            body,
            place: Some(subject.clone()),
            is_kept: true,
            // Nothing else goes to this subject before it is answered.
            may_wait: true,
            following: None,
        };
        let answer = self.publisher.publish(message).await?;
        answer.await.unwrap_or_else(|_| Err(AppendError::Unknown("the broker went away".into())))
    }
}

/// A message with several entries: of each the length of its id (two bytes), of its headers as JSON and of its body (four
/// bytes each, big-endian), then these.
fn pack<'a>(copies: impl Iterator<Item = &'a Copy>, count: usize) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(MSG_ID), HeaderValue::from(EntryId::unique().as_str()));
    headers.insert(HeaderName::from_static(BUNDLE), HeaderValue::from(count as u64));
    let mut body = BytesMut::new();
    for Copy { id, headers, body: one } in copies {
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
pub(super) fn unpack(bundle: &mut Bytes) -> Option<Copy> {
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
    Some(Copy { id, headers, body: bundle.split_to(body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_unpacked_as_it_was_packed() {
        let copy = |n: usize| Copy {
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
