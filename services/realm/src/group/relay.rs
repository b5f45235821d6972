//! Relays: for each peer with members in groups of this realm one worker that puts what is said there into the lane, in the order
//! of each group, one envelope for a message however many members the peer has.
//!
//! It reads the groups' own log, where the order is that all members see. How far it has come is a cursor of each group, kept
//! like those of users, so that nothing is trimmed which a peer has yet to be told. Each edge has a worker, and a fence lets one of
//! them append (see [`crate::reign`]); the others look now and then whether it goes on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use antar_broker::{
    Append, AppendError, Entry, EntryId, ExpectLast, Filter, ReadError, ReadFrom, ReadLimit, Seq,
};
use antar_proto::envelope::Envelope;
use antar_proto::{GroupAddress, RealmId};

use crate::delivery::DeliveryError;
use crate::hop::traceparent;
use crate::places::{LANE_ENTRIES_MAX, group_key, group_named, group_of};
use crate::reign::fence;
use crate::restored::STORED_HEADER;
use crate::shared::Shared;

/// Of an envelope in an outbox that was said in a group: `<group>/<sequence in the group>`.
const GROUP_HEADER: &str = "Antar-Group";
/// Most entries, and bytes of them, that are put into the lane at once.
const BATCH: ReadLimit = ReadLimit { entries_max: 256, bytes_max: 2 * 1024 * 1024 };
/// Pause before a broker that did not answer is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// How often whoever stands by looks whether the worker of another edge goes on.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Most groups that are looked at then; the next ones are the next time.
const LOOKS_MAX: usize = 256;
/// A lane with less than this part free takes nothing from groups: they wait in their own log.
const FREE_PART: u64 = 20;
/// Pause before such a lane is looked at again.
const FULL_DELAY: Duration = Duration::from_secs(1);
/// How a lane is looked through for what was put there before, and how far at the most.
const LOOK_PAGE: ReadLimit = ReadLimit { entries_max: 2_000, bytes_max: 4 * 1024 * 1024 };
const LOOK_ENTRIES_MAX: usize = 50_000;

/// Puts into the lane to a peer what is said in groups with members there, for as long as the realm is there.
pub(crate) async fn run(shared: Arc<Shared>, peer: RealmId) {
    let mut changes = shared.groups.copy.changes();
    loop {
        // Before the look, so that no change after it is missed.
        changes.borrow_and_update();
        if shared.groups.shared_with(&peer).is_empty() {
            // The sender lives in the copy, so waiting cannot fail.
            let _ = changes.changed().await;
            continue;
        }
        let Err(error) = work(&shared, &peer).await;
        match error {
            DeliveryError::Replaced => {
                tracing::info!(%peer, "another edge tells a realm what is said in groups, this one stands by");
                stand_by(&shared, &peer).await;
            }
            error => {
                tracing::warn!(%peer, %error, "what is said in groups waits for the broker");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// Waits until whoever does the work has not gone on for a while, although there is something to do.
async fn stand_by(shared: &Shared, peer: &RealmId) {
    let mut stuck: BTreeSet<(GroupAddress, Seq)> = BTreeSet::new();
    for look in 0.. {
        tokio::time::sleep(LOOK_INTERVAL).await;
        // A broker that does not answer is no reason to take over. Each part of the groups is looked at twice in a row.
        let Ok(behind) = behind(shared, peer, look / 2).await else { continue };
        if behind.intersection(&stuck).next().is_some() {
            return;
        }
        stuck = behind;
    }
}

/// The groups of which something is to be done, each with how far it was done.
async fn behind(
    shared: &Shared,
    peer: &RealmId,
    round: usize,
) -> Result<BTreeSet<(GroupAddress, Seq)>, DeliveryError> {
    let mut behind = BTreeSet::new();
    let groups = shared.groups.shared_with(peer);
    let part = round % groups.len().div_ceil(LOOKS_MAX).max(1);
    for group in groups.into_iter().skip(part * LOOKS_MAX).take(LOOKS_MAX) {
        let cursor = shared.places.relay_cursor(peer, &group);
        shared.cursors.catch_up_key(&cursor).await?;
        let upto = shared.cursors.get_key(&cursor);
        if shared.broker.last(&shared.places.group(&group)).await? > upto {
            behind.insert((group, upto));
        }
    }
    Ok(behind)
}

/// Works until something fails.
async fn work(shared: &Shared, peer: &RealmId) -> Result<std::convert::Infallible, DeliveryError> {
    let fence = fence(shared, shared.places.relay_fence(peer)).await?;
    let relayed = relayed(shared, peer).await?;
    let groups = shared.groups.shared_with(peer);
    // What is said from now on stands behind this.
    let mut after = Seq::ZERO;
    for group in &groups {
        after = after.max(shared.broker.last(&shared.places.group(group)).await?);
    }
    for group in &groups {
        let (cursor, mut upto) = shared.told_upto(peer, group).await?;
        if let Some(relayed) = relayed.get(group).filter(|relayed| **relayed > upto) {
            shared.cursors.raise(&cursor, *relayed).await?;
            upto = *relayed;
        }
        if shared.broker.last(&shared.places.group(group)).await? > upto {
            after = after.min(upto);
        }
    }
    let mut tail = shared.broker.tail(&shared.places.groups(), after).await?;
    loop {
        wait_for_room(shared, peer).await?;
        let entries = tail.next_batch(BATCH).await?;
        relay(shared, peer, &fence, &entries).await?;
    }
}

/// A lane that is nearly full is left to what is sent to people.
async fn wait_for_room(shared: &Shared, peer: &RealmId) -> Result<(), ReadError> {
    while !shared.has_room_in_lane(peer).await? {
        tokio::time::sleep(FULL_DELAY).await;
    }
    Ok(())
}

impl Shared {
    /// Whether there is room in a lane for what is told of groups; makes some if not.
    pub(super) async fn has_room_in_lane(&self, peer: &RealmId) -> Result<bool, ReadError> {
        let outbox = self.places.outbox(peer);
        let has_room = self.broker.count(&outbox).await? < LANE_ENTRIES_MAX - LANE_ENTRIES_MAX / FREE_PART;
        if !has_room {
            self.keep_room(&outbox).await;
        }
        Ok(has_room)
    }

    /// How far a peer was told of a group. One of which nobody knows, in a realm that was restored, was told of all that is there.
    async fn told_upto(&self, peer: &RealmId, group: &GroupAddress) -> Result<(String, Seq), DeliveryError> {
        let key = self.places.relay_cursor(peer, group);
        self.cursors.catch_up_key(&key).await?;
        if !self.cursors.is_kept(&key) {
            let last = self.broker.last(&self.places.group(group)).await?;
            self.cursors.raise(&key, last).await?;
        }
        let upto = self.cursors.get_key(&key);
        Ok((key, upto))
    }
}

/// Puts into the lane what concerns the peer, and notes how far that is.
async fn relay(
    shared: &Shared,
    peer: &RealmId,
    fence: &ExpectLast,
    entries: &[Arc<Entry>],
) -> Result<(), DeliveryError> {
    let mut cursors: HashMap<GroupAddress, Option<(String, Seq)>> = HashMap::new();
    let mut run = Vec::new();
    for entry in entries {
        // What other realms say is told by them.
        let Some(group) = group_of(&entry.subject).filter(|group| group.realm.is_none()) else { continue };
        if !cursors.contains_key(&group) {
            // Whoever joined before this was said must be known to have.
            shared.groups.copy.catch_up(&group_key(&group)).await?;
            let kept = shared.groups.get(&group).filter(|kept| kept.has_members_in(peer));
            let cursor = match kept {
                Some(kept) => {
                    // What is said in a group that a realm does not know of yet is for nobody there.
                    if kept.untold.contains(peer) {
                        shared.tell(&group).await?;
                    }
                    Some(shared.told_upto(peer, &group).await?)
                }
                None => None,
            };
            cursors.insert(group.clone(), cursor);
        }
        let Some(Some((_, upto))) = cursors.get_mut(&group) else { continue };
        if entry.seq <= *upto {
            continue;
        }
        *upto = entry.seq;
        run.extend(append(shared, peer, fence, &group, entry));
    }
    for answer in shared.broker.append_run(run).await {
        match answer {
            Ok(_) => {}
            Err(AppendError::Refused(why)) => {
                tracing::error!(%peer, why, "what was said in a group cannot be told");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let raised = cursors.into_values().flatten();
    let raised = raised.map(|(key, upto)| async move { shared.cursors.raise(&key, upto).await });
    futures_util::future::try_join_all(raised).await?;
    Ok(())
}

fn append(
    shared: &Shared,
    peer: &RealmId,
    fence: &ExpectLast,
    group: &GroupAddress,
    entry: &Entry,
) -> Option<Append> {
    let mut envelope = match Envelope::from_bytes(&entry.body) {
        Ok(envelope) => envelope,
        Err(error) => {
            tracing::error!(subject = %entry.subject.as_str(), seq = entry.seq.0, %error, "an entry of a group is not readable, it is left out");
            return None;
        }
    };
    envelope.dest = peer.clone();
    envelope.traceparent.get_or_insert_with(|| traceparent(envelope.id));
    Some(Append {
        headers: vec![(GROUP_HEADER.into(), format!("{}/{}", group_key(group), entry.seq))],
        expect_last: Some(fence.clone()),
        is_fresh: true,
        ..Append::new(shared.places.outbox(peer), EntryId::unique(), envelope.to_bytes())
    })
}

/// What was put into the lane before and may not be noted: the last of each group.
async fn relayed(shared: &Shared, peer: &RealmId) -> Result<HashMap<GroupAddress, Seq>, ReadError> {
    let (filter, mut from) = (Filter::from(&shared.places.outbox(peer)), ReadFrom::End);
    let (mut found, mut looked_at, mut settled) = (HashMap::new(), 0, 0);
    loop {
        let page = shared.broker.read(&filter, from, LOOK_PAGE).await?;
        for (group, seq) in page.entries.iter().filter_map(|entry| said_in(entry)) {
            let noted = shared.cursors.get_key(&shared.places.relay_cursor(peer, &group));
            // A batch is noted as a whole before the next one begins.
            settled += usize::from(seq <= noted);
            if settled > 2 * BATCH.entries_max {
                return Ok(found);
            }
            let last = found.entry(group).or_insert(seq);
            *last = seq.max(*last);
        }
        looked_at += page.entries.len();
        match page.entries.last() {
            Some(last) if page.more && looked_at < LOOK_ENTRIES_MAX => from = ReadFrom::Before(last.seq),
            _ => return Ok(found),
        }
    }
}

/// The place in its group of what stands in an outbox. That of a restored realm's was another one.
fn said_in(entry: &Entry) -> Option<(GroupAddress, Seq)> {
    let header = |name: &str| entry.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let (group, seq) = header(GROUP_HEADER).filter(|_| header(STORED_HEADER).is_none())?.split_once('/')?;
    Some((group_named(group)?, Seq(seq.parse().ok()?)))
}
