//! The edges of a realm: each says now and then that it is there, and why the lanes that it works wait.
//!
//! Owns: these records and how long one counts. Nothing rests on them: without them a realm works, and an operator sees less.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antar_broker::{Expect, KvError, Timestamp};
use antar_proto::RealmId;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::rfc3339;
use crate::hop::edge;
use crate::places::EDGES;
use crate::shared::Shared;

/// How often an edge says that it is there.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// A lane's news is told at once, but not oftener than this.
const NEWS_INTERVAL: Duration = Duration::from_millis(500);
/// An edge that has said nothing for so long is gone: two of its words were lost, or its clock is far off.
pub const GONE_AFTER: Duration = Duration::from_secs(15);
/// After so long without a word it is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// How long the end of an edge waits for its record to go.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// What an edge says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRecord {
    /// Eight hexadecimal digits, chosen at its start. The same as in trace contexts.
    pub edge: String,
    /// The machine that it runs on, by that machine's own name for itself.
    #[serde(default)]
    pub host: String,
    /// Its version.
    pub version: String,
    /// When it started: RFC 3339, UTC.
    pub started: String,
    /// When it said this, by its clock: microseconds since 1970.
    pub at: u64,
    /// Connections of clients.
    pub connections: u64,
    /// Those of them that watch.
    pub watches: u64,
    /// The lanes that it works and that wait, by peer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<RealmId, Waiting>,
}

impl EdgeRecord {
    /// How long ago it said this, by the clock here; nothing if that clock is behind.
    pub fn age(&self) -> Duration {
        Duration::from_micros(Timestamp::now().0.saturating_sub(self.at))
    }

    /// Whether it is still there, as far as can be told.
    pub fn is_alive(&self) -> bool {
        self.age() <= GONE_AFTER
    }
}

/// Why a lane waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Since when: RFC 3339, UTC.
    pub since: String,
    /// Why its last try failed, for programs.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    pub error: String,
}

/// What an edge has to tell of itself, filled by whoever knows.
#[derive(Debug, Default)]
pub struct Activity {
    /// Connections of clients at the moment.
    pub connections: AtomicU64,
    /// Those of them that watch.
    pub watches: AtomicU64,
    /// Something changed that others should know soon.
    pub(crate) news: Notify,
}

/// Counts one up for as long as it lives.
#[derive(Debug)]
pub struct Counted(Arc<Activity>, fn(&Activity) -> &AtomicU64);

impl Counted {
    /// Counts up what `which` names.
    pub fn new(activity: Arc<Activity>, which: fn(&Activity) -> &AtomicU64) -> Self {
        which(&activity).fetch_add(1, Ordering::Relaxed);
        Self(activity, which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says that this edge is there, until the realm stops.
pub(crate) async fn beat(shared: Arc<Shared>) {
    let started = rfc3339(Timestamp::now());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    loop {
        match shared.tell_of_edge(&host, &started).await {
            Ok(()) => shared.has_answered(),
            Err(error) => {
                tracing::debug!(realm = %shared.places.realm(), %error, "this edge could not say that it is there");
            }
        }
        tokio::time::sleep(NEWS_INTERVAL).await;
        // Cancel-safe: news that come meanwhile are kept by the `Notify`.
        let _ = tokio::time::timeout(BEAT_INTERVAL - NEWS_INTERVAL, shared.activity.news.notified()).await;
    }
}

impl Shared {
    async fn tell_of_edge(&self, host: &str, started: &str) -> Result<(), KvError> {
        let lanes = self.lanes.lock().expect("no holder of this lock panics").clone();
        let waiting = lanes.into_iter().filter_map(|(peer, lane)| Some((peer, lane.waiting()?)));
        let record = EdgeRecord {
            edge: edge(),
            host: host.to_owned(),
            version: env!("CARGO_PKG_VERSION").into(),
            started: started.to_owned(),
            at: Timestamp::now().0,
            connections: self.activity.connections.load(Ordering::Relaxed),
            watches: self.activity.watches.load(Ordering::Relaxed),
            waiting: waiting.collect(),
        };
        let bytes = serde_json::to_vec(&record).expect("a record has nothing in it that can fail");
        let bucket = self.places.bucket(EDGES);
        self.broker.kv_put(&bucket, &edge(), bytes.into(), Expect::Any, Some(FORGOTTEN_AFTER)).await.map(drop)
    }

    /// Takes the record of this edge away: it ends as it should.
    pub(crate) async fn leave(&self) {
        let bucket = self.places.bucket(EDGES);
        let name = edge();
        let left = self.broker.kv_delete(&bucket, &name, Expect::Any);
        if !matches!(tokio::time::timeout(LEAVE_TIMEOUT, left).await, Ok(Ok(()))) {
            tracing::debug!(realm = %self.places.realm(), "this edge could not say that it ends");
        }
    }

    /// Why the lane to a peer waits, if it does: here, or at the edge that works it.
    pub(crate) fn waiting(&self, peer: &RealmId) -> Option<Waiting> {
        let ours = edge();
        self.lane(peer).waiting().or_else(|| {
            let edges = self.edges.all();
            let others = edges.iter().map(|(_, record)| &**record).filter(|record| record.edge != ours);
            waiting_at(others.filter(|record| record.is_alive()), peer)
        })
    }
}

/// Why the lane to a peer waits, by what these edges say, which are there.
pub(crate) fn waiting_at<'a>(alive: impl Iterator<Item = &'a EdgeRecord>, peer: &RealmId) -> Option<Waiting> {
    let said = alive.filter_map(|record| Some((record.at, record.waiting.get(peer)?)));
    said.max_by_key(|(at, _)| *at).map(|(_, waiting)| waiting.clone())
}
