//! What all parts of a realm share, and the small things that several of them do.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use antar_broker::{
    Append, AppendError, Appended, EntryId, Expect, KvError, PendingAppend, SharedBroker, Subject,
};
use antar_proto::envelope::{Content, Outcome};
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::StatusEvent;
use antar_proto::{MessageId, RealmId, UserName};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::Accounts;
use crate::card::{CardRequest, ask};
use crate::config::RealmConfig;
use crate::copy::KvCopy;
use crate::counts::Counts;
use crate::cursor::Cursors;
use crate::edges::{Activity, EdgeRecord};
use crate::event::RealmEvent;
use crate::file::Files;
use crate::group::Groups;
use crate::invite::Invites;
use crate::key::RealmKey;
use crate::key_file::KeyRecord;
use crate::lane::LaneStatus;
use crate::login::Throttle;
use crate::mail::envelope;
use crate::peer::Peers;
use crate::places::{BOX_SENT, BOX_STATUS, Places};
use crate::presence::Presence;
use crate::quarantine::Held;
use crate::rate::Rates;
use crate::session::{Session, Sessions};

/// What all parts of a realm share.
pub(crate) struct Shared {
    pub(crate) broker: SharedBroker,
    pub(crate) config: RealmConfig,
    pub(crate) places: Places,
    pub(crate) accounts: Accounts,
    pub(crate) sessions: Sessions,
    pub(crate) cursors: Cursors,
    pub(crate) peers: Peers,
    pub(crate) invites: Invites,
    pub(crate) groups: Groups,
    pub(crate) presence: Presence,
    pub(crate) throttle: Throttle,
    pub(crate) files: Files,
    pub(crate) settings: KvCopy<Setting>,
    /// The edges that are there, this one among them.
    pub(crate) edges: KvCopy<EdgeRecord>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) counts: Arc<Counts>,
    /// When the broker last answered.
    pub(crate) answered: Mutex<Instant>,
    pub(crate) lanes: Mutex<HashMap<RealmId, Arc<LaneStatus>>>,
    /// Counts appends to mailboxes; see `room`.
    pub(crate) appends: AtomicU64,
    /// Long looks through mailboxes, one at a time: other reads shall not wait for them.
    pub(crate) scans: Semaphore,
    /// Held by whoever looks how full boxes are.
    pub(crate) looks: Arc<Semaphore>,
    /// Requests for our card that wait for the card of whoever has made them.
    pub(crate) meetings: Arc<Semaphore>,
    pub(crate) rates: Rates,
    pub(crate) held: Held,
    /// What the realm signs with.
    pub(crate) key: Arc<RealmKey>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// A value in the bucket of settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Setting {
    /// Yes or no.
    Flag(bool),
    /// The realm's public key.
    Key(KeyRecord),
}

/// The setting that says whether traffic with other realms is stopped.
pub(crate) const PAUSED: &str = "paused";

impl Shared {
    /// Takes note that the broker answers.
    pub(crate) fn has_answered(&self) {
        *self.answered.lock().expect("no holder of this lock panics") = Instant::now();
    }

    /// How long it has not, as far as is known.
    pub(crate) fn silent_for(&self) -> Duration {
        self.answered.lock().expect("no holder of this lock panics").elapsed()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.settings.get(PAUSED).is_some_and(|paused| matches!(*paused, Setting::Flag(true)))
    }

    /// Waits while traffic with other realms is stopped, whichever edge was told so.
    pub(crate) async fn wait_unpaused(&self) {
        // The sender lives in the copy, so waiting cannot fail.
        let _ = self.settings.changes().wait_for(|_| !self.is_paused()).await;
    }

    /// Whether the account of a session is as it was at its login.
    pub(crate) fn is_current(&self, session: &Session) -> bool {
        let account = self.accounts.get(&session.user);
        account.is_some_and(|account| !account.disabled && account.generation == session.generation)
    }

    /// Stops or resumes traffic with other realms, also for the next start.
    pub(crate) async fn set_paused(&self, paused: bool) -> Result<(), KvError> {
        self.settings.put(PAUSED, &Setting::Flag(paused), Expect::Any, None).await?;
        if !paused {
            let from = self.places.realm().clone();
            for peer in self.peers.all() {
                // Whom this does not reach finds out by itself.
                let _ = ask(&self.broker, &peer.realm, &CardRequest::Resumed { from: from.clone() }).await;
            }
        }
        Ok(())
    }

    /// All boxes of a user's mailbox, each with its name.
    pub(crate) fn boxes(&self, user: &UserName) -> Vec<(String, Subject)> {
        let peers = self.peers.all();
        let names =
            [BOX_LOCAL, BOX_SENT, BOX_STATUS].into_iter().chain(peers.iter().map(|peer| peer.realm.as_str()));
        names.map(|name| (name.to_owned(), self.places.mail_box(user, name))).collect()
    }

    /// The state of the lane to a peer.
    pub(crate) fn lane(&self, peer: &RealmId) -> Arc<LaneStatus> {
        self.lanes.lock().expect("no holder of this lock panics").entry(peer.clone()).or_default().clone()
    }

    /// Notes for audit what has happened. Losing such a note to a crash loses no message, so nobody waits for it.
    pub(crate) async fn record(&self, event: RealmEvent) {
        let body = serde_json::to_vec(&event).expect("an event has nothing in it that can fail");
        match self.broker.append(Append::new(self.places.event(), EntryId::unique(), body)).await {
            Ok(pending) => drop(pending),
            Err(error) => tracing::warn!(realm = %self.places.realm(), %error, "an event was not recorded"),
        }
    }

    /// Queues news for a sender; `key` makes it idempotent.
    pub(crate) async fn append_status(
        &self,
        sender: &UserName,
        event: &StatusEvent,
        key: &str,
    ) -> Result<PendingAppend, AppendError> {
        let body = serde_json::to_vec(event).expect("a status event has nothing in it that can fail");
        let id =
            EntryId::new(key).ok_or_else(|| AppendError::Refused("the key of a status is no id".into()))?;
        self.broker.append(Append::new(self.places.mail_status(sender), id, body)).await
    }

    /// What became of news or a notice. A box that is full makes room, and the whole batch comes again; news
    /// for one that is full of unread mail are left out: their sender can still ask with `status`.
    pub(crate) async fn finish_news(&self, answer: Result<Appended, AppendError>) -> Result<(), AppendError> {
        match answer {
            Err(AppendError::Full(subject)) if self.make_room(&subject).await => {
                Err(AppendError::NotStored("a box was full, room was made".into()))
            }
            Err(AppendError::Full(subject)) => {
                tracing::warn!(%subject, "news or a receipt were left out: there is no room for them");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Queues a receipt for another realm; `key` makes it idempotent.
    pub(crate) async fn append_receipt(
        &self,
        dest: &RealmId,
        results: Vec<Outcome>,
        key: &str,
    ) -> Result<PendingAppend, AppendError> {
        let id =
            EntryId::new(key).ok_or_else(|| AppendError::Refused("the key of a receipt is no id".into()))?;
        self.broker.append(Append::new(self.places.outbox(dest), id, self.receipt(dest, results))).await
    }

    /// The bytes of a receipt for another realm.
    pub(crate) fn receipt(&self, dest: &RealmId, results: Vec<Outcome>) -> Vec<u8> {
        envelope(MessageId::fresh(), self.places.realm(), dest, Content::Receipt { results }).to_bytes()
    }
}
