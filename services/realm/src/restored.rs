//! How what was restored differs from what it was: sequences, times and lanes begin anew, and what depends on the old ones
//! has to be told them.
//!
//! A restored realm has the same messages under other sequences. Most of what hangs on sequences is positions, which whoever
//! restores moves along. What is in here is the rest:
//!
//! * An outbox entry keeps its place in the lane that it was part of ([`PLACE_HEADER`]). So the peer knows by its place
//!   what it has delivered before, although the realm that is restored does not; and goes on after that.
//! * What is sent later has a new, larger epoch.
//! * What a peer has sent since the backup is not in it. So the first envelope of each peer that comes in after the
//!   restored ones may follow any other.
//! * Ids of entries that hold a sequence of this realm are set apart: the same number will soon stand for another entry.

use antar_broker::{EntryId, Headers, Seq, Timestamp};
use bytes::Bytes;
use serde_json::Value;

use crate::recall::Place;

/// On an entry of a restored realm: when it was first stored, in microseconds since 1970.
pub const STORED_HEADER: &str = "Antar-Stored";
/// On an outbox entry of a restored realm: its place in the lane that it was first part of, `<epoch>/<seq>`.
pub const PLACE_HEADER: &str = "Antar-Place";
/// What stands before an id that was set apart, with a `/` behind the epoch.
const APART: &str = "restored";
/// Digits of a UUID in an id.
const UUID_DIGITS: usize = 32;

/// The same for everything that is restored together.
#[derive(Debug, Clone, Copy)]
pub struct Restored {
    /// The epoch of all lanes from now on: the time in microseconds since 1970 at which the restoring began.
    pub epoch: u64,
}

impl Restored {
    /// The headers of an entry: its own, and what it was before. `lane` is the epoch of the lane that it was part of, if it
    /// stood in an outbox. What was restored before keeps what it was at first.
    pub fn headers(self, mut headers: Headers, seq: Seq, time: Timestamp, lane: Option<u64>) -> Headers {
        let has =
            |headers: &Headers, name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !has(&headers, STORED_HEADER) {
            headers.push((STORED_HEADER.into(), time.0.to_string()));
        }
        if let Some(epoch) = lane.filter(|_| !has(&headers, PLACE_HEADER)) {
            headers.push((PLACE_HEADER.into(), format!("{epoch}/{seq}")));
        }
        headers
    }

    /// The id of an entry. What a client or a peer may send again keeps its id, and is recognised by it.
    pub fn id(self, id: &EntryId, seq: Seq) -> EntryId {
        if keeps_its_meaning(id.as_str()) { id.clone() } else { self.id_apart(id, seq) }
    }

    /// An id that no other entry has, for one of several that share theirs.
    pub fn id_apart(self, id: &EntryId, seq: Seq) -> EntryId {
        let apart = format!("{APART}/{}/{seq}/{}", self.epoch, id.as_str());
        // One that would be too long is as good without the old one.
        EntryId::new(apart).unwrap_or_else(|| {
            EntryId::new(format!("{APART}/{}/{seq}", self.epoch)).expect("numbers are printable and short")
        })
    }

    /// The value of a peer: its lane begins anew, and whatever comes in of it after `inbox_upto` may follow anything.
    pub fn peer(self, value: &[u8], inbox_upto: Seq) -> Result<Bytes, serde_json::Error> {
        let mut peer: Value = serde_json::from_slice(value)?;
        if let Value::Object(fields) = &mut peer {
            fields.insert("epoch".into(), self.epoch.into());
            fields.insert("trusted_at".into(), self.epoch.into());
            fields.insert("trusted_after".into(), inbox_upto.0.into());
        }
        serde_json::to_vec(&peer).map(Bytes::from)
    }

    /// The record of a file: it is kept from now on, as long as if it had just come.
    pub fn file(self, value: &Bytes) -> Bytes {
        crate::file::kept::restored(value, self.epoch)
    }

    /// The epoch of the lane to a peer, as the value of the peer has it.
    pub fn epoch_of(value: &[u8]) -> Option<u64> {
        serde_json::from_slice::<Value>(value).ok()?.get("epoch")?.as_u64()
    }
}

/// Whether an id means the same in a log whose sequences are others: it begins with a UUID or with a hash, or names places
/// of another realm's lane.
fn keeps_its_meaning(id: &str) -> bool {
    let (first, rest) = id.split_once('/').unwrap_or((id, ""));
    let is_hex = first.bytes().all(|b| b.is_ascii_hexdigit());
    match first {
        "read" => true,
        "receipt" => !rest.contains("/inbox-"),
        _ => is_hex && (first.len() == UUID_DIGITS || (first.len() == 16 && rest.len() == 64)),
    }
}

/// The place in its lane of an outbox entry with these headers: its own, or that of the lane as it is now.
pub(crate) fn place_of(headers: &Headers, epoch: u64, seq: Seq) -> Place {
    let kept = headers.iter().find(|(name, _)| name == PLACE_HEADER).and_then(|(_, text)| {
        let (epoch, seq) = text.split_once('/')?;
        Some(Place { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
    });
    kept.unwrap_or(Place { epoch, seq: seq.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTORED: Restored = Restored { epoch: 9 };

    fn id(text: &str) -> EntryId {
        EntryId::new(text).unwrap()
    }

    #[test]
    fn an_outbox_entry_keeps_the_place_of_the_lane_that_it_was_first_part_of() {
        let once = RESTORED.headers(Vec::new(), Seq(7), Timestamp(3), Some(5));
        assert_eq!(place_of(&once, 9, Seq(1)), Place { epoch: 5, seq: 7 });
        let twice = Restored { epoch: 12 }.headers(once.clone(), Seq(1), Timestamp(8), Some(9));
        assert_eq!(twice, once, "restored twice, it is what it was at first");
        assert_eq!(place_of(&Vec::new(), 9, Seq(1)), Place { epoch: 9, seq: 1 });
        assert!(
            RESTORED
                .headers(Vec::new(), Seq(7), Timestamp(3), None)
                .iter()
                .all(|(name, _)| name != PLACE_HEADER)
        );
    }

    #[test]
    fn ids_with_a_sequence_of_this_realm_are_set_apart_and_others_stay() {
        let uuid = "0".repeat(32);
        let hash = format!("{}/{}", "a".repeat(16), "b".repeat(64));
        for same in [
            &*uuid,
            &format!("{uuid}/messi"),
            &format!("{uuid}/messi@b"),
            &format!("{uuid}/b/3/notice"),
            &hash,
            &format!("read/{uuid}"),
            "receipt/b/77/10-12",
        ] {
            assert_eq!(RESTORED.id(&id(same), Seq(4)).as_str(), same);
        }
        for apart in ["dead/12", "stored/b/10-12/messi", "receipt/b/inbox-12", "seq/12"] {
            assert_eq!(RESTORED.id(&id(apart), Seq(4)).as_str(), format!("restored/9/4/{apart}"));
        }
        let long = id(&format!("dead/{}", "1".repeat(150)));
        assert_eq!(RESTORED.id(&long, Seq(4)).as_str(), "restored/9/4");
    }

    #[test]
    fn a_restored_peer_keeps_what_is_not_known_here() {
        let value = br#"{"realm":"b","epoch":3,"new_field":[1]}"#;
        let peer: Value = serde_json::from_slice(&RESTORED.peer(value, Seq(40)).unwrap()).unwrap();
        let wanted = r#"{"realm":"b","epoch":9,"new_field":[1],"trusted_at":9,"trusted_after":40}"#;
        assert_eq!(peer, serde_json::from_str::<Value>(wanted).unwrap());
        assert_eq!(Restored::epoch_of(value), Some(3));
    }
}
