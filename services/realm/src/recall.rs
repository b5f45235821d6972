//! What delivery has done before, as the log tells it: every entry that it makes from an envelope names the envelope's
//! place in its lane. Whoever takes the work over reads these places back, once for each lane, and leaves out what is
//! there. So nothing is done twice, however long ago it was done and whatever ids the broker still knows.

use std::collections::HashSet;

use antar_broker::{Entry, Filter, Headers, ReadError, ReadFrom, ReadLimit, Seq, Subject, Timestamp};
use antar_proto::RealmId;
use serde::{Deserialize, Serialize};

use crate::mailbox::CLOCK_SKEW_US;
use crate::shared::Shared;

/// The place of the envelope that an entry was made from: `<origin>/<epoch>/<seq>`, of one of several entries from one
/// envelope `<origin>/<epoch>/<seq>/<number>`, of a receipt about several envelopes `<origin>/<epoch>/<first>-<last>`.
pub(crate) const LANE_HEADER: &str = "Antar-Lane";
/// The sequence of that envelope in the inbox, for people who follow a message.
pub(crate) const INBOX_HEADER: &str = "Antar-Inbox";

/// Most entries that are looked at to find out what was done of one lane: more than the largest batch leaves behind,
/// unless it is all to large groups. What is not found so is recognised by its id.
const RECALL_ENTRIES_MAX: usize = 50_000;
/// How many are read at a time.
const RECALL_PAGE: ReadLimit = ReadLimit { entries_max: 2_000, bytes_max: 4 * 1024 * 1024 };

/// A place in a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// The headers of an entry that was made from the envelope at this place; of several, the one with this number.
pub(crate) fn headers(origin: &RealmId, place: Place, number: Option<usize>, inbox: Seq) -> Headers {
    let number = number.map_or_else(String::new, |number| format!("/{number}"));
    let lane = format!("{origin}/{}/{}{number}", place.epoch, place.seq);
    vec![(LANE_HEADER.into(), lane), (INBOX_HEADER.into(), inbox.to_string())]
}

/// The headers of a receipt about the envelopes from one place to another of the same epoch.
pub(crate) fn receipt_headers(origin: &RealmId, first: Place, last: Place) -> Headers {
    vec![(LANE_HEADER.into(), format!("{origin}/{}/{}-{}", first.epoch, first.seq, last.seq))]
}

/// What a lane header says: the places from the first to the last, and which of several entries it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Made {
    first: Place,
    last: Place,
    number: Option<usize>,
}

/// The lane header of an entry, if it has one of this origin.
fn made_from(entry: &Entry, origin: &RealmId) -> Option<Made> {
    let (_, text) = entry.headers.iter().find(|(name, _)| name == LANE_HEADER)?;
    let mut parts = text.strip_prefix(origin.as_str())?.strip_prefix('/')?.split('/');
    let (epoch, seqs) = (parts.next()?.parse().ok()?, parts.next()?);
    let number = parts.next().map(str::parse).transpose().ok()?;
    let (first, last) = seqs.split_once('-').unwrap_or((seqs, seqs));
    let place = |seq: &str| Some(Place { epoch, seq: seq.parse().ok()? });
    Some(Made { first: place(first)?, last: place(last)?, number })
}

/// What was done of one lane beyond the place that is kept for it.
#[derive(Debug, Default)]
pub(crate) struct Recalled {
    mail: HashSet<(Subject, Place, Option<usize>)>,
    receipts: Vec<(Place, Place)>,
    /// Beyond this nothing was done.
    upto: Place,
}

impl Recalled {
    /// Whether this box has the entry from the envelope at this place; of several, the one with this number.
    pub(crate) fn has(&self, subject: &Subject, place: Place, number: Option<usize>) -> bool {
        place <= self.upto && self.mail.contains(&(subject.clone(), place, number))
    }

    /// Whether the receipt about the envelope at this place is on its way.
    pub(crate) fn is_told(&self, place: Place) -> bool {
        place <= self.upto && self.receipts.iter().any(|(first, last)| (*first..=*last).contains(&place))
    }
}

impl Shared {
    /// What was done of a lane beyond `kept`, whose first envelope beyond it came in at `since`. Whoever asks must have
    /// a fence in both streams: else more could come.
    pub(crate) async fn recall(
        &self,
        origin: &RealmId,
        kept: Place,
        since: Timestamp,
    ) -> Result<Recalled, ReadError> {
        let since = Timestamp(since.0.saturating_sub(CLOCK_SKEW_US));
        let mut recalled = Recalled::default();
        let (messages, news) = (self.places.mail_of_realm(origin), self.places.mail_of_status());
        let (said, receipts) = (self.places.groups(), Filter::from(&self.places.outbox(origin)));
        for (filter, is_mail) in [(messages, true), (news, true), (said, true), (receipts, false)] {
            for (subject, made) in self.made_beyond(&filter, origin, kept, since).await? {
                recalled.upto = recalled.upto.max(made.last);
                if is_mail {
                    recalled.mail.insert((subject, made.first, made.number));
                } else {
                    recalled.receipts.push((made.first, made.last));
                }
            }
        }
        Ok(recalled)
    }

    /// Entries that delivery made from envelopes of this origin beyond `kept`, newest first.
    async fn made_beyond(
        &self,
        filter: &Filter,
        origin: &RealmId,
        kept: Place,
        since: Timestamp,
    ) -> Result<Vec<(Subject, Made)>, ReadError> {
        let (mut found, mut from, mut looked_at) = (Vec::new(), ReadFrom::End, 0);
        loop {
            let page = self.broker.read(filter, from, RECALL_PAGE).await?;
            for entry in &page.entries {
                if entry.time < since {
                    return Ok(found);
                }
                match made_from(entry, origin) {
                    // One lane is worked on in its order: what lies before was settled before.
                    Some(made) if made.last <= kept => return Ok(found),
                    Some(made) => found.push((entry.subject.clone(), made)),
                    None => {}
                }
            }
            looked_at += page.entries.len();
            match page.entries.last() {
                Some(last) if page.more && looked_at < RECALL_ENTRIES_MAX => {
                    from = ReadFrom::Before(last.seq)
                }
                _ => return Ok(found),
            }
        }
    }
}

#[cfg(test)]
mod tests {

    use antar_broker::{EntryId, Timestamp};
    use bytes::Bytes;

    use super::*;

    fn entry(headers: Headers) -> Entry {
        Entry {
            subject: Subject::new("realm.b.mail.messi.a").unwrap(),
            seq: Seq(1),
            time: Timestamp(1),
            id: EntryId::unique(),
            headers,
            body: Bytes::new(),
        }
    }

    #[test]
    fn a_place_is_read_back_as_it_was_written() {
        let origin: RealmId = "a".parse().unwrap();
        let (first, last) = (Place { epoch: 7, seq: 10 }, Place { epoch: 7, seq: 12 });
        let check = |headers: Headers, first, last, number| {
            assert_eq!(made_from(&entry(headers), &origin), Some(Made { first, last, number }));
        };
        check(headers(&origin, first, None, Seq(3)), first, first, None);
        check(headers(&origin, first, Some(4), Seq(3)), first, first, Some(4));
        check(receipt_headers(&origin, first, last), first, last, None);
    }

    #[test]
    fn other_entries_have_no_place() {
        let origin: RealmId = "a".parse().unwrap();
        let place = Place { epoch: 7, seq: 10 };
        for other in ["b", "aa"] {
            let other: RealmId = other.parse().unwrap();
            assert_eq!(made_from(&entry(headers(&other, place, None, Seq(3))), &origin), None);
        }
        for bad in ["", "a", "a/7", "a/7/", "a/7/x", "a/7/1-", "a/7/1/x"] {
            assert_eq!(made_from(&entry(vec![(LANE_HEADER.into(), bad.into())]), &origin), None, "{bad}");
        }
        assert_eq!(made_from(&entry(Vec::new()), &origin), None);
    }
}
