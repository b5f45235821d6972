//! What a realm counts at this edge, for whoever scrapes metrics. `proto-docs/metrics.md` has the names.
//!
//! Owns: the counters. Must not know: how they are shown. Labels are realms that were added, and words from closed lists: never
//! users, never what a client or another realm can choose.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use antar_proto::RealmId;

/// Labels of a metric, with their values.
pub type Labels = Vec<(&'static str, String)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Counts {
    carried: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
    delivered: Family<Labels, Counter>,
    dead: Family<Labels, Counter>,
    clock: Family<Labels, Gauge<f64, AtomicU64>>,
}

fn of(peer: &RealmId) -> Labels {
    vec![("peer", peer.to_string())]
}

impl Counts {
    /// Lets a registry show them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "antar_lane_envelopes",
            "Envelopes that this edge carried to the peer, acknowledged by its stream",
            self.carried.clone(),
        );
        registry.register(
            "antar_lane_failures",
            "Batches that did not reach the peer, by reason; each is tried again",
            self.failures.clone(),
        );
        registry.register(
            "antar_delivered_messages",
            "Messages of the peer that this edge put into mailboxes, one for each receiver",
            self.delivered.clone(),
        );
        registry.register(
            "antar_dead_letters",
            "Envelopes that this edge put aside, by reason",
            self.dead.clone(),
        );
        registry.register(
            "antar_peer_clock_offset_seconds",
            "How far the peer's clock is ahead of this edge's, by its last name card",
            self.clock.clone(),
        );
    }

    pub(crate) fn carried(&self, peer: &RealmId, envelopes: usize) {
        self.carried.get_or_create(&of(peer)).inc_by(envelopes as u64);
    }

    pub(crate) fn failed(&self, peer: &RealmId, reason: &'static str) {
        let labels = vec![("peer", peer.to_string()), ("reason", reason.to_owned())];
        self.failures.get_or_create(&labels).inc();
    }

    pub(crate) fn delivered(&self, peer: &RealmId, messages: usize) {
        self.delivered.get_or_create(&of(peer)).inc_by(messages as u64);
    }

    pub(crate) fn buried(&self, reason: &'static str) {
        self.dead.get_or_create(&vec![("reason", reason.to_owned())]).inc();
    }

    pub(crate) fn clock(&self, peer: &RealmId, ahead_s: f64) {
        self.clock.get_or_create(&of(peer)).set(ahead_s);
    }
}
