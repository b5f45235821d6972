//! What comes in at an inbox: the envelopes of an entry, and whether each is next in its lane.
//!
//! Must not know what is done with an envelope that is.

use std::sync::Arc;

use antar_broker::{Entry, Seq};
use antar_proto::RealmId;
use antar_proto::envelope::{Envelope, EnvelopeError, LanePlace, unbundle};
use bytes::Bytes;

use crate::dead::{Claim, Dead};
use crate::delivery::{Batch, Delivery, DeliveryError};
use crate::recall::Place;
use crate::reign::{Kept, Reign};

/// An envelope that is next in its lane.
pub(crate) struct Arrival<'a> {
    pub(crate) origin: RealmId,
    pub(crate) place: Place,
    pub(crate) line: &'a Line,
}

/// One envelope of an inbox entry, with the entry that it came in.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) entry: Arc<Entry>,
    /// Which of several it is, from 0; `None` for an entry that carries one, or is looked at as a whole.
    pub(crate) number: Option<usize>,
    pub(crate) body: Bytes,
}

impl Line {
    /// An entry as a whole.
    pub(crate) fn whole(entry: &Arc<Entry>) -> Self {
        Self { entry: entry.clone(), number: None, body: entry.body.clone() }
    }

    /// The envelopes of an entry, in their order.
    fn all(entry: &Arc<Entry>) -> Result<Vec<Self>, EnvelopeError> {
        let bodies: Vec<Bytes> = unbundle(&entry.body)?.map(|line| entry.body.slice_ref(line)).collect();
        let is_one = bodies.len() == 1;
        let lines = bodies.into_iter().enumerate().map(|(number, body)| Self {
            entry: entry.clone(),
            number: (!is_one).then_some(number),
            body,
        });
        Ok(lines.collect())
    }

    pub(crate) fn inbox_seq(&self) -> Seq {
        self.entry.seq
    }
}

impl Delivery {
    /// Starts the delivery of what an entry carries that `origin` was proven to have signed. It is `false` if something
    /// that came before has to be delivered first, on the other inbox: the entry comes again then.
    pub(crate) async fn lines(
        &self,
        reign: &Reign,
        entry: &Arc<Entry>,
        origin: &RealmId,
        batch: &mut Batch,
    ) -> Result<bool, DeliveryError> {
        let lines = match Line::all(entry) {
            Ok(lines) => lines,
            Err(error) => {
                self.bury(&Line::whole(entry), &error.into(), None, batch);
                return Ok(true);
            }
        };
        for line in lines {
            if let Err(dead) = self.one(reign, &line, origin, batch).await? {
                if matches!(dead, Dead::Gap { .. }) && !self.is_settled(reign, origin, entry, batch).await? {
                    return Ok(false);
                }
                let place = batch.kept.get(origin).map(|kept| kept.place);
                self.bury(&line, &dead, place, batch);
            }
        }
        Ok(true)
    }

    /// Checks whether an envelope in what `origin` has signed is next in its lane; `None` for one delivered before. One
    /// that is next takes its place even if it is then put aside: those after it are not to blame.
    pub(crate) fn admit(
        &self,
        reign: &Reign,
        line: &Line,
        origin: &RealmId,
        batch: &mut Batch,
    ) -> Result<Option<(Envelope, Place)>, Dead> {
        let parsed = Envelope::from_bytes(&line.body);
        let claim = match &parsed {
            Ok(envelope) => Claim::from(envelope),
            Err(error) => Claim::of(&line.body).ok_or_else(|| error.clone())?,
        };
        // The first one of an entry was looked at when the entry was proven; the others may say something else.
        if claim.origin != *origin {
            return Err(Dead::WrongOrigin { claimed: claim.origin, from: origin.to_string() });
        }
        if claim.dest.as_ref() != Some(self.shared.places.realm()) {
            return Err(Dead::WrongRealm(claim.dest));
        }
        let Some(LanePlace { epoch, seq, prev, .. }) = claim.lane else {
            return Err(parsed.err().map_or(Dead::NoLane, Dead::from));
        };
        let peer = self.shared.peers.copy.get(origin.as_str());
        let blocked = peer.as_ref().is_some_and(|peer| peer.blocked);
        let kept = || reign.lane(origin).map_or_else(Kept::default, |lane| lane.kept);
        let last = batch.kept.get(origin).copied().unwrap_or_else(kept);
        let place = Place { epoch, seq };
        if place <= last.place {
            return Ok(None);
        }
        let trusted = peer.filter(|peer| line.inbox_seq().0 > peer.trusted_after).map(|peer| peer.trusted_at);
        let trusted_at = trusted.unwrap_or(last.trusted_at);
        // What came under a key before it was trusted was put aside, and took no place.
        if epoch == last.place.epoch && prev != last.place.seq && trusted_at <= last.trusted_at {
            return Err(Dead::Gap { prev, last: last.place.seq });
        }
        batch.kept.insert(origin.clone(), Kept { place, trusted_at });
        if blocked {
            return Err(Dead::Blocked(origin.clone()));
        }
        Ok(Some((parsed?, place)))
    }
}
