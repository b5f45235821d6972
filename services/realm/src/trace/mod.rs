//! Where a message is: its hops through every realm whose log can be read, and what is missing.
//!
//! * `look` — reads one realm's log, from about the time at which the message was made.
//! * `way` — puts together what was found, `said` of a message to a group.
//!
//! Owns: what a hop is. Must not know: who asks, or how it is shown. Nothing here writes, and nothing needs a running realm.

mod look;
mod said;
mod way;

use antar_broker::{ReadError, SharedBroker};
use antar_proto::{Address, GroupAddress, MessageId, RealmId, UserName};
use futures_util::future::try_join_all;
use serde::Serialize;

use look::Look;

/// What has happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its sender's realm has stored it: what the sender's OK means.
    Accepted,
    /// The other realm's log has acknowledged what the lane has brought; of what was said in a group, it was put into the lane.
    Lane,
    /// It stands in the other realm's inbox.
    Stored,
    /// It was put aside there.
    Dead,
    /// It stands in a receiver's mailbox.
    Delivered,
    /// It will not be delivered.
    Failed,
    /// A receipt went out, or came in.
    Receipt,
    /// Its receiver has read it.
    Read,
}

impl Stage {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Lane => "lane",
            Self::Stored => "stored",
            Self::Dead => "dead",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Receipt => "receipt",
            Self::Read => "read",
        }
    }
}

/// One hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// What has happened.
    pub stage: Stage,
    /// In whose log it stands.
    pub realm: RealmId,
    /// The entry that tells of it, in the stream of its subject.
    pub seq: u64,
    /// When that was stored, by the broker's clock: RFC 3339, UTC. A cursor tells that something was read, but not when.
    pub time: Option<String>,
    /// Microseconds since the hop before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_us: Option<u64>,
    /// The edge that did it, where that is known.
    pub edge: Option<String>,
    /// The entry's subject.
    pub subject: String,
    /// The other realm, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<RealmId>,
    /// Whom it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserName>,
    /// What a receipt says: a state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it failed, or was put aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The dead letter that it was delivered from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub letter: Option<u64>,
    #[serde(skip)]
    at: Option<u64>,
}

/// A hop that there should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What has not happened.
    pub stage: Stage,
    /// Where it would.
    pub realm: RealmId,
    /// Why not, as far as it can be seen.
    pub why: String,
}

/// All that is known of a message.
#[derive(Debug, Clone, Serialize)]
pub struct Trace {
    /// Its id.
    pub id: MessageId,
    /// The trace context that it carries; one that has not left its realm has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who sent it.
    pub from: Address,
    /// To whom; nobody, if it is for a group.
    pub to: Vec<Address>,
    /// The group that it is for, with the realm that it lives in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupAddress>,
    /// What has happened, in the order of time.
    pub hops: Vec<Hop>,
    /// What has not.
    pub missing: Vec<Missing>,
}

/// Follows a message through these realms; `None` if none of them knows it.
pub async fn trace(
    broker: &SharedBroker,
    realms: &[RealmId],
    id: MessageId,
) -> Result<Option<Trace>, ReadError> {
    let looks: Vec<Look> = realms.iter().map(|realm| Look::new(broker.clone(), realm.clone(), id)).collect();
    // Nearly always it stands where and when its id says; only then far and wide is looked for it.
    for far in [false, true] {
        let found = try_join_all(looks.iter().map(|look| look.first(far))).await?;
        let found: Vec<_> = found.into_iter().flatten().collect();
        if let Some(trace) = way::of(&looks, id, found).await? {
            return Ok(Some(trace));
        }
    }
    Ok(None)
}
