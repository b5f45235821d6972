//! The tasks of a realm: lanes, delivery, its name card, its operators' requests, cursors, and what goes with age.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use antar_broker::{
    AppendError, Filter, KvError, ReadError, ReadFrom, ReadLimit, Request, Seq, Subject, Timestamp,
};
use antar_proto::RealmId;
use antar_proto::envelope::Outcome;
use antar_proto::reply::State;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminReply, AdminRequest, PeerInfo};
use crate::card;
use crate::cursor::{FLUSH_INTERVAL, RemoteRead};
use crate::delivery;
use crate::edges;
use crate::file;
use crate::group;
use crate::lane;
use crate::places::{BOX_SENT, BOX_STATUS, Places};
use crate::presence;
use crate::realm::StartError;
use crate::shared::Shared;
use crate::status;

/// How often old entries are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// How many entries one look removes from one subject at a time.
const SWEEP_PAGE: ReadLimit = ReadLimit { entries_max: 1_000, bytes_max: 8 * 1024 * 1024 };
/// Cursors that are made durable at once.
const CURSORS_AT_ONCE: usize = 64;
/// Most outcomes in one receipt about what was read.
const READS_PER_RECEIPT_MAX: usize = 500;

/// Starts everything; each task ends when the realm stops.
pub(crate) async fn start(shared: &Arc<Shared>) -> Result<(), StartError> {
    let info = Places::info_of(shared.places.realm());
    let mut cards = shared.broker.serve_as(&card::service(shared), &info).await?;
    let mut operators = shared.broker.serve(&admin::subject(shared.places.realm())).await?;
    let card_server = shared.clone();
    spawn(shared, async move {
        while let Some(request) = cards.next().await {
            card_server.answer_card(request);
        }
    });
    let admin_server = shared.clone();
    spawn(shared, async move {
        while let Some(request) = operators.next().await {
            // Hashing many passwords takes long; other requests need not wait for it.
            let shared = admin_server.clone();
            admin_server.tasks.spawn(async move { shared.answer_admin(request).await });
        }
    });
    spawn(shared, delivery::run(shared.clone(), shared.places.source(None)));
    spawn(shared, edges::beat(shared.clone()));
    spawn(shared, run_lanes(shared.clone()));
    spawn(shared, save_cursors(shared.clone()));
    spawn(shared, group::tell_realms(shared.clone()));
    spawn(shared, presence::run(shared.clone()));
    spawn(shared, file::fetch(shared.clone()));
    spawn(shared, sweep(shared.clone()));
    Ok(())
}

fn spawn(shared: &Arc<Shared>, task: impl Future<Output = ()> + Send + 'static) {
    let stop: CancellationToken = shared.stop.clone();
    shared.tasks.spawn(async move {
        // Cancel-safe: every task here leaves only work that is idempotent and comes again at the next start.
        tokio::select! {
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

/// Starts a lane to each peer and delivery from it, as peers come, whichever edge has added them. Every edge has a worker
/// for each: their queues let one of them work.
async fn run_lanes(shared: Arc<Shared>) {
    let mut changed = shared.peers.copy.changes();
    let mut started: HashSet<RealmId> = HashSet::new();
    loop {
        for peer in shared.peers.all() {
            if started.insert(peer.realm.clone()) {
                let status = shared.lane(&peer.realm);
                spawn(&shared, delivery::run(shared.clone(), shared.places.source(Some(&peer.realm))));
                spawn(&shared, group::relay(shared.clone(), peer.realm.clone()));
                spawn(&shared, lane::run(shared.clone(), peer, status));
            }
        }
        // The sender lives in the copy, so waiting cannot fail.
        let _ = changed.changed().await;
    }
}

/// Makes cursors durable now and then while they move.
async fn save_cursors(shared: Arc<Shared>) {
    loop {
        shared.cursors.moved().await;
        tokio::time::sleep(FLUSH_INTERVAL).await;
        if let Err(error) = flush_cursors(&shared).await {
            tracing::warn!(realm = %shared.places.realm(), %error, "cursors are not durable yet");
        }
    }
}

/// Why cursors, or the news that something was read, could not be saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushError {
    #[error("{0}")]
    Kv(#[from] KvError),
    #[error("{0}")]
    Append(#[from] AppendError),
}

/// Makes all cursors durable that moved and tells other realms what was read of theirs.
pub(crate) async fn flush_cursors(shared: &Arc<Shared>) -> Result<(), FlushError> {
    flush_keys(shared, shared.cursors.unsaved()).await?;
    tell_reads(shared).await
}

/// Makes these cursors durable, many at a time so that they share commits, and makes room in boxes that are full.
pub(crate) async fn flush_keys(shared: &Arc<Shared>, keys: Vec<String>) -> Result<(), FlushError> {
    for keys in keys.chunks(CURSORS_AT_ONCE) {
        futures_util::future::try_join_all(keys.iter().map(|key| shared.cursors.save(key))).await?;
    }
    for subject in keys.iter().filter_map(|key| shared.places.mail_of_cursor(key)) {
        shared.keep_room(&subject).await;
    }
    Ok(())
}

async fn tell_reads(shared: &Arc<Shared>) -> Result<(), FlushError> {
    let reads = shared.cursors.take_reads();
    let mut outcomes: HashMap<RealmId, Vec<Outcome>> = HashMap::new();
    for RemoteRead { origin, sender, reader, id } in reads {
        outcomes.entry(origin).or_default().push(Outcome {
            id,
            sender,
            users: vec![reader],
            state: State::Read,
            reason: None,
            group: false,
        });
    }
    for (origin, outcomes) in outcomes {
        for results in outcomes.chunks(READS_PER_RECEIPT_MAX) {
            let key = format!("read/{}", uuid::Uuid::now_v7().simple());
            shared.append_receipt(&origin, results.to_vec(), &key).await?.await?;
        }
    }
    Ok(())
}

impl Shared {
    async fn answer_admin(self: Arc<Self>, request: Request) {
        let reply = match serde_json::from_slice::<AdminRequest>(&request.body) {
            Ok(what) => self.admin(what).await,
            Err(error) => AdminReply::Refused { code: "bad-request".into(), message: error.to_string() },
        };
        request.reply.send(serde_json::to_vec(&reply).expect("a reply has nothing in it that can fail"));
    }

    /// The peers, each with the state of the lane to it.
    pub(crate) async fn peer_infos(&self) -> Result<Vec<PeerInfo>, ReadError> {
        let mut infos = Vec::new();
        for peer in self.peers.all() {
            let waiting = self.waiting(&peer.realm);
            let lane = status::lane(&self.broker, &self.places, &peer, self.is_paused(), waiting).await?;
            let (since, last_error) = lane.waiting.map(|waiting| (waiting.since, waiting.error)).unzip();
            infos.push(PeerInfo {
                realm: peer.realm.to_string(),
                name: peer.name.clone(),
                host: peer.host.clone(),
                port: peer.port,
                state: lane.state.as_str().into(),
                queued: lane.queued,
                oldest_s: lane.oldest_s,
                key: peer.key.as_ref().map(ToString::to_string),
                offered: peer.offered.as_ref().map(ToString::to_string),
                blocked: peer.blocked,
                quarantined: self.is_quarantined(&peer),
                since,
                last_error,
            });
        }
        Ok(infos)
    }
}

/// Removes what is older than the realm keeps things: of mailboxes what was read, of lanes what was carried.
async fn sweep(shared: Arc<Shared>) {
    loop {
        for subject in [shared.places.event(), shared.places.dead()] {
            shared.keep_room(&subject).await;
        }
        if let Err(error) = sweep_once(&shared).await {
            tracing::warn!(realm = %shared.places.realm(), %error, "old entries were not removed this time");
        }
        file::sweep(&shared).await;
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

async fn sweep_once(shared: &Arc<Shared>) -> Result<(), ReadError> {
    let keep = u64::try_from(shared.config.retention.as_micros()).unwrap_or(u64::MAX);
    let Some(before) = Timestamp::now().0.checked_sub(keep).map(Timestamp) else { return Ok(()) };
    let (places, everything) = (&shared.places, Seq(u64::MAX));
    for (_, account) in shared.accounts.copy.all() {
        let user = &account.user;
        for (name, subject) in shared.boxes(user) {
            let upto = match name.as_str() {
                BOX_SENT | BOX_STATUS => everything,
                mailbox => shared.cursors.get(user, mailbox),
            };
            trim_older(shared, &subject, before, upto).await?;
        }
    }
    for (group, _) in shared.groups.all() {
        trim_older(shared, &places.group(&group), before, shared.read_by_all(&group)).await?;
    }
    for peer in shared.peers.all() {
        let carried = shared.acked(&places.lane_queue(&peer.realm)).await;
        trim_older(shared, &places.outbox(&peer.realm), before, carried).await?;
        let source = places.source(Some(&peer.realm));
        trim_older(shared, &source.inbox, before, shared.acked(&source.queue).await).await?;
    }
    let source = places.source(None);
    trim_older(shared, &source.inbox, before, shared.acked(&source.queue).await).await?;
    trim_older(shared, &places.event(), before, everything).await?;
    trim_older(shared, &places.dead(), before, everything).await
}

async fn trim_older(
    shared: &Arc<Shared>,
    subject: &Subject,
    before: Timestamp,
    upto: Seq,
) -> Result<(), ReadError> {
    if shared.broker.last(subject).await? == Seq::ZERO {
        return Ok(());
    }
    loop {
        let page = shared.broker.read(&Filter::from(subject), ReadFrom::After(Seq::ZERO), SWEEP_PAGE).await?;
        let old = page.entries.iter().take_while(|entry| entry.time < before && entry.seq <= upto);
        let Some(last) = old.last() else { return Ok(()) };
        let removed = shared.trim(subject, last.seq).await?;
        if !page.more || removed == 0 {
            return Ok(());
        }
    }
}
