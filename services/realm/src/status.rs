//! How a realm is: its edges, its lanes, what waits to be delivered, what was put aside, and what all of it takes.
//!
//! Owns: what is looked at, from the broker alone, so that it can be asked of a realm that nobody serves. Must not know: how
//! it is shown.

use std::collections::BTreeMap;

use antar_broker::{ReadError, SharedBroker, Timestamp, Usage};
use antar_proto::RealmId;
use serde::{Deserialize, Serialize};

use crate::checkup::{self, OpenLetters};
use crate::clock::rfc3339;
use crate::copy::{unavailable, values};
use crate::edges::{EdgeRecord, Waiting, waiting_at};
use crate::peer::Peer;
use crate::places::{EDGES, Places};
use crate::snapshot::PEERS;

/// How a realm is.
#[derive(Debug, Clone, Serialize)]
pub struct RealmStatus {
    /// Its id.
    pub realm: RealmId,
    /// Whether traffic with other realms is stopped.
    pub paused: bool,
    /// The edges that have said something of late, by their numbers.
    pub edges: Vec<EdgeStatus>,
    /// The lanes to other realms, by the realms' ids.
    pub lanes: Vec<LaneStatus>,
    /// What came from other realms and was not delivered yet: from anybody, and from each peer whose envelopes come apart.
    pub deliveries: Vec<DeliveryStatus>,
    /// What was put aside and is still there.
    pub dead_letters: DeadStatus,
    /// What its streams hold, and the broker as a whole.
    pub storage: Usage,
}

/// One edge.
#[derive(Debug, Clone, Serialize)]
pub struct EdgeStatus {
    /// What it says of itself.
    #[serde(flatten)]
    pub record: EdgeRecord,
    /// Whether it is still there, as far as can be told.
    pub alive: bool,
    /// Seconds since it last said so.
    pub age_s: u64,
}

/// The state of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaneState {
    /// It carries what comes.
    Up,
    /// The peer takes nothing now, or cannot be reached.
    Waiting,
    /// This realm sends nothing.
    Paused,
}

impl LaneState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Up, Self::Waiting, Self::Paused];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
        }
    }
}

/// One lane.
#[derive(Debug, Clone, Serialize)]
pub struct LaneStatus {
    /// To which realm.
    pub peer: RealmId,
    /// How it is.
    pub state: LaneState,
    /// Whether operators here have blocked the peer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
    /// Envelopes that the peer has not stored yet. (On NATS several of them may share one that is counted.)
    pub queued: u64,
    /// Age of the oldest of them, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<u64>,
    /// Why it waits, and since when.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

/// A queue of what came in.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryStatus {
    /// Whose envelopes come in there; anybody's if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<RealmId>,
    /// Up to which sequence it is delivered.
    pub delivered: u64,
    /// How many entries wait.
    pub queued: u64,
    /// Age of the oldest of them, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<u64>,
}

/// Dead letters that were neither redriven nor dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadStatus {
    /// How many.
    pub open: usize,
    /// How many of each reason.
    pub by_code: BTreeMap<String, usize>,
    /// There may be more: older ones were not looked at.
    pub at_least: bool,
}

impl From<OpenLetters> for DeadStatus {
    fn from(letters: OpenLetters) -> Self {
        let OpenLetters { by_code, more } = letters;
        Self { open: by_code.values().sum(), by_code, at_least: more }
    }
}

/// Looks how a realm is.
pub async fn status(broker: &SharedBroker, realm: &RealmId) -> Result<RealmStatus, ReadError> {
    let places = Places::new(realm.clone());
    let records: Vec<EdgeRecord> = values(broker, &places.bucket(EDGES)).await?;
    let peers: Vec<Peer> = values(broker, &places.bucket(PEERS)).await?;
    let paused = checkup::is_paused(broker, realm).await.map_err(unavailable)?;
    let (mut lanes, mut deliveries) =
        (Vec::new(), delivery(broker, &places, None).await?.into_iter().collect::<Vec<_>>());
    // Decided once: an edge must not be there for one part of this and gone for another.
    let mut edges: Vec<_> = records.into_iter().map(EdgeStatus::of).collect();
    let alive = || edges.iter().filter(|edge| edge.alive).map(|edge| &edge.record);
    let is_served = alive().next().is_some();
    for peer in &peers {
        let waiting = waiting_at(alive(), &peer.realm);
        let mut lane = lane(broker, &places, peer, paused, waiting).await?;
        if lane.queued > 0 && !is_served {
            lane.waiting = Some(nobody(&edges));
            if lane.state == LaneState::Up {
                lane.state = LaneState::Waiting;
            }
        }
        lanes.push(lane);
        deliveries.extend(delivery(broker, &places, Some(&peer.realm)).await?);
    }
    edges.sort_by(|a, b| (!a.alive, &a.record.edge).cmp(&(!b.alive, &b.record.edge)));
    lanes.sort_by(|a, b| a.peer.cmp(&b.peer));
    let dead_letters = checkup::open_letters(broker, realm).await?.into();
    let storage = broker.usage(&places.streams(0)).await?;
    Ok(RealmStatus { realm: realm.clone(), paused, edges, lanes, deliveries, dead_letters, storage })
}

/// Why everything waits in a realm without an edge.
fn nobody(edges: &[EdgeStatus]) -> Waiting {
    let last = edges.iter().map(|edge| edge.record.at).max();
    Waiting {
        since: last.map(|at| rfc3339(Timestamp(at))).unwrap_or_default(),
        reason: "no-edge".into(),
        error: "no edge serves this realm: start one with `antar serve`".into(),
    }
}

/// How the lane to a peer is, if it waits for this reason.
pub(crate) async fn lane(
    broker: &SharedBroker,
    places: &Places,
    peer: &Peer,
    paused: bool,
    waiting: Option<Waiting>,
) -> Result<LaneStatus, ReadError> {
    let queue = broker.queue_state(&places.lane_queue(&peer.realm)).await?;
    let state = match (paused, &waiting) {
        (true, _) => LaneState::Paused,
        (false, Some(_)) => LaneState::Waiting,
        (false, None) => LaneState::Up,
    };
    Ok(LaneStatus {
        peer: peer.realm.clone(),
        state,
        blocked: peer.blocked,
        queued: queue.as_ref().map_or(0, |queue| queue.waiting),
        oldest_s: queue.and_then(|queue| queue.oldest).map(age_s),
        waiting,
    })
}

async fn delivery(
    broker: &SharedBroker,
    places: &Places,
    peer: Option<&RealmId>,
) -> Result<Option<DeliveryStatus>, ReadError> {
    let state = broker.queue_state(&places.source(peer).queue).await?;
    let nothing_came = |delivered: u64, queued: u64| peer.is_some() && delivered == 0 && queued == 0;
    Ok(state.filter(|state| !nothing_came(state.acked.0, state.waiting)).map(|state| DeliveryStatus {
        peer: peer.cloned(),
        delivered: state.acked.0,
        queued: state.waiting,
        oldest_s: state.oldest.map(age_s),
    }))
}

impl EdgeStatus {
    fn of(record: EdgeRecord) -> Self {
        Self { alive: record.is_alive(), age_s: record.age().as_secs(), record }
    }
}

/// Seconds since then.
fn age_s(then: Timestamp) -> u64 {
    Timestamp::now().0.saturating_sub(then.0) / 1_000_000
}
