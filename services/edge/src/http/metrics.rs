//! `/metrics`, as Prometheus reads it: what this edge counts, and how the realm is at the moment.
//!
//! Owns: names and help of what is looked up for each scrape; `proto-docs/metrics.md` has all of them. Labels are realms that were
//! added, streams, and words from closed lists: never users.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use antar_realm::Labels;
use antar_realm::status::{LaneState, RealmStatus};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Served;
use crate::listener::Edge;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long looking how the realm is may take.
const STATUS_TIME: Duration = Duration::from_secs(4);
/// What was looked up is good for so long, however many scrape.
const STATUS_AGE_MAX: Duration = Duration::from_secs(2);

type Number = Gauge<f64, AtomicU64>;
type Numbers = Family<Labels, Number>;

/// What is registered once, and what was looked up last.
pub(super) struct Metrics {
    counted: Registry,
    looked_up: Mutex<Option<(Instant, Arc<RealmStatus>)>>,
}

impl Metrics {
    pub(super) fn new(edge: &Edge) -> Self {
        let mut counted = registry(edge);
        edge.counts.register(&mut counted);
        edge.realm.counts().register(&mut counted);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        counted.register(
            "antar_build",
            "The version of this edge",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        let start: Number = Gauge::default();
        start.set(started.as_secs_f64());
        counted.register("antar_start_time_seconds", "When this edge started, in seconds since 1970", start);
        Self { counted, looked_up: Mutex::default() }
    }

    /// How the realm is, looked up a moment ago at most; one scrape at a time.
    async fn status(&self, edge: &Edge) -> Option<Arc<RealmStatus>> {
        let mut looked_up = self.looked_up.lock().await;
        if let Some((at, status)) = &*looked_up
            && at.elapsed() < STATUS_AGE_MAX
        {
            return Some(status.clone());
        }
        let status = match tokio::time::timeout(STATUS_TIME, edge.realm.realm_status()).await {
            Ok(Ok(status)) => Arc::new(status),
            _ => return None,
        };
        *looked_up = Some((Instant::now(), status.clone()));
        Some(status)
    }
}

/// A registry that says of which realm all of it is.
fn registry(edge: &Edge) -> Registry {
    let realm = ("realm".into(), edge.realm.id().to_string().into());
    Registry::with_labels(std::iter::once(realm))
}

pub(super) async fn metrics(State(served): State<Served>) -> Response {
    let Served { edge, metrics, .. } = &served;
    let status = metrics.status(edge).await;
    let is_ready = edge.realm.ready().await.is_ok();
    let mut now = registry(edge);
    process(&mut now, edge, is_ready);
    if let Some(status) = status {
        of_realm(&mut now, &status);
    }
    let mut text = String::new();
    let written = encode_registry(&mut text, &metrics.counted)
        .and_then(|()| encode_registry(&mut text, &now))
        .and_then(|()| encode_eof(&mut text));
    match written {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What can be told without the broker.
fn process(registry: &mut Registry, edge: &Edge, is_ready: bool) {
    let activity = edge.realm.activity();
    let load = |number: &AtomicU64| number.load(std::sync::atomic::Ordering::Relaxed) as f64;
    one(
        registry,
        "antar_connections_open",
        "Connections of clients at the moment",
        load(&activity.connections),
    );
    one(registry, "antar_watches_open", "Connections that watch at the moment", load(&activity.watches));
    one(registry, "antar_ready", "1 if /readyz says so", f64::from(u8::from(is_ready)));
    // Where there is no /proc these are left out.
    if let Some(bytes) = resident_bytes() {
        one(registry, "antar_resident_bytes", "Resident memory of the process", bytes);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        one(registry, "antar_open_files", "Open file descriptors of the process", files.count() as f64);
    }
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kib| kib * 1024.0)
}

/// How the realm is: the same at each of its edges.
fn of_realm(registry: &mut Registry, status: &RealmStatus) {
    let edges = many(registry, "antar_edges", "Edges of the realm, by whether they are alive");
    for (state, alive) in [("alive", true), ("gone", false)] {
        let count = status.edges.iter().filter(|edge| edge.alive == alive).count();
        set(&edges, vec![("state", state.into())], count as f64);
    }
    one(
        registry,
        "antar_paused",
        "1 while the realm exchanges nothing with others",
        f64::from(u8::from(status.paused)),
    );
    lanes(registry, status);
    let queued =
        many(registry, "antar_delivery_queued", "What came in from other realms and is not delivered yet");
    let oldest =
        many(registry, "antar_delivery_oldest_seconds", "Age of the oldest of that, 0 if there is none");
    for delivery in &status.deliveries {
        let peer = delivery.peer.as_ref().map_or_else(|| "any".into(), ToString::to_string);
        set(&queued, vec![("peer", peer.clone())], delivery.queued as f64);
        set(&oldest, vec![("peer", peer)], delivery.oldest_s.unwrap_or_default() as f64);
    }
    let dead = status.dead_letters.open as f64;
    one(
        registry,
        "antar_dead_letters_open",
        "Dead letters that were neither redriven nor dropped, of the newest 1,000",
        dead,
    );
    storage(registry, status);
}

fn lanes(registry: &mut Registry, status: &RealmStatus) {
    let state = many(registry, "antar_lane_state", "1 for the state that the lane to the peer is in");
    let waiting = many(registry, "antar_lane_waiting", "1 while the lane to the peer waits, with the reason");
    let queued = many(registry, "antar_lane_queued", "Envelopes that the peer has not stored yet");
    let oldest = many(registry, "antar_lane_oldest_seconds", "Age of the oldest of them, 0 if there is none");
    for lane in &status.lanes {
        let peer = || ("peer", lane.peer.to_string());
        for one in LaneState::ALL {
            let labels = vec![peer(), ("state", one.as_str().to_owned())];
            set(&state, labels, f64::from(u8::from(one == lane.state)));
        }
        if let Some(why) = &lane.waiting {
            set(&waiting, vec![peer(), ("reason", why.reason.clone())], 1.0);
        }
        set(&queued, vec![peer()], lane.queued as f64);
        set(&oldest, vec![peer()], lane.oldest_s.unwrap_or_default() as f64);
    }
}

fn storage(registry: &mut Registry, status: &RealmStatus) {
    let storage = &status.storage;
    one(
        registry,
        "antar_storage_bytes",
        "What the broker holds, of all realms in it",
        storage.stored_bytes as f64,
    );
    if let Some(limit) = storage.limit_bytes {
        one(registry, "antar_storage_limit_bytes", "What it may hold, where that can be known", limit as f64);
    }
    let entries =
        many(registry, "antar_stream_entries", "What each stream holds: entries, or messages of NATS");
    let bytes = many(registry, "antar_stream_bytes", "What each stream takes, where the broker tells");
    for stream in &storage.streams {
        let labels = || vec![("stream", stream.name.clone())];
        set(&entries, labels(), stream.entries as f64);
        if let Some(taken) = stream.bytes {
            set(&bytes, labels(), taken as f64);
        }
    }
    let events = many(
        registry,
        "antar_broker_events",
        "What became of this edge's connections to NATS since it started",
    );
    for (event, count) in &storage.events {
        set(&events, vec![("event", (*event).into())], *count as f64);
    }
}

fn one(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let number: Number = Gauge::default();
    number.set(value);
    registry.register(name, help, number);
}

fn many(registry: &mut Registry, name: &str, help: &str) -> Numbers {
    let numbers = Numbers::default();
    registry.register(name, help, numbers.clone());
    numbers
}

fn set(numbers: &Numbers, labels: Labels, value: f64) {
    numbers.get_or_create(&labels).set(value);
}
