//! Where entries come from: the realm that is meant, what is chosen of its log, and when each is due.

use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Entry, SharedBroker, Timestamp};
use antar_proto::{Address, RealmId, UserName};
use antar_realm::traffic::{Kind, Spot};
use antar_replay::facts::Facts;
use antar_replay::merge::{Merged, Reading};
use antar_replay::range::{RangeError, Sequences};
use antar_replay::select::Selection;
use tokio::time::Instant;

use super::{ReplayArgs, Speed};
use crate::admin::{Target, target_or};
use crate::config::{Environment, Flag};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::server::open_failure;

/// Stands for no realm where a configuration has to have one.
const NO_REALM: &str = "0-not-set";

/// A realm's log, opened for reading.
pub(super) struct Source {
    pub(super) broker: SharedBroker,
    pub(super) reading: Reading,
    pub(super) selection: Selection,
    merged: Merged,
    follow: bool,
    is_live: bool,
    pace: Pace,
}

/// When entries are due.
pub(super) struct Pace {
    speed: Speed,
    began: Option<(Instant, Timestamp)>,
}

impl Pace {
    pub(super) fn new(speed: Speed) -> Self {
        Self { speed, began: None }
    }

    /// How long to wait for an entry; the first one comes at once.
    pub(super) fn wait(&mut self, time: Timestamp) -> Option<Instant> {
        let Speed(Some(factor)) = self.speed else { return None };
        let (began, first) = *self.began.get_or_insert_with(|| (Instant::now(), time));
        let after = Duration::from_micros(time.0.saturating_sub(first.0)).div_f64(factor);
        let due = began.checked_add(after)?;
        (due > Instant::now()).then_some(due)
    }
}

impl Source {
    /// Opens what the arguments name.
    pub(super) async fn open(args: &ReplayArgs, environment: &Environment) -> Outcome<Self> {
        let presets = vec![Flag("realm.id", "", NO_REALM.to_owned())];
        let named = args.realm.as_ref().map(RealmId::as_str);
        let target = target_or(&args.operator, named, environment, presets)?;
        let broker = open(&target).await?;
        let realm = realm(&target, &broker).await?;
        let mut kinds = if args.kind.is_empty() { Kind::ALL.to_vec() } else { args.kind.clone() };
        kinds.sort_unstable();
        kinds.dedup();
        let sequences = match target.broker.sqlite_path() {
            Some(_) => Sequences::Shared,
            None => Sequences::PerStream,
        };
        let reading = Reading { realm, kinds, from: args.from, to: args.to, sequences };
        let selection = selection(args, &reading.realm)?;
        let merged = Merged::open(&broker, &reading).await.map_err(|error| {
            let exit = match &error {
                RangeError::Ambiguous(_) => Exit::Usage,
                RangeError::Read(_) => Exit::Unreachable,
            };
            Failure::new(exit, error)
        })?;
        let pace = Pace::new(args.speed);
        Ok(Self { broker, reading, selection, merged, follow: args.follow, is_live: false, pace })
    }

    /// Whether the next entry comes without waiting for it.
    pub(super) fn is_ready(&self) -> bool {
        self.merged.is_ready()
    }

    /// The next entry that may be wanted; `None` at the end.
    pub(super) async fn next(&mut self) -> Outcome<Option<Arc<Entry>>> {
        loop {
            match self.merged.next().await.or_exit(Exit::Unreachable)? {
                Some(entry) if !self.selection.may_be(&entry) => {}
                None if self.follow && !self.is_live => {
                    self.merged.follow().await.or_exit(Exit::Unreachable)?;
                    self.is_live = true;
                }
                entry => return Ok(entry),
            }
        }
    }

    /// Whether an entry is wanted, or a part of it.
    pub(super) fn is_wanted(&self, entry: &Entry) -> bool {
        let Some(spot) = Spot::of(&entry.subject) else { return false };
        Facts::all(entry, &spot).any(|facts| self.selection.is_wanted(&spot, &facts))
    }

    /// Until when an entry has to wait.
    pub(super) fn due(&mut self, entry: &Entry) -> Option<Instant> {
        if self.is_live { None } else { self.pace.wait(entry.time) }
    }

    /// Ends the reading.
    pub(super) async fn close(self) {
        drop(self.merged);
        self.broker.close().await;
    }
}

/// Opens a broker for reading.
pub(super) async fn open(target: &Target) -> Outcome<SharedBroker> {
    antar_broker::open_for_reading(&target.broker.settings()).await.map_err(|error| open_failure(&error))
}

async fn realm(target: &Target, broker: &SharedBroker) -> Outcome<RealmId> {
    let there = antar_realm::realms(broker).await.or_exit(Exit::Unreachable)?;
    let wanted = Some(&target.realm.id).filter(|id| id.as_str() != NO_REALM);
    let names = there.iter().map(RealmId::as_str).collect::<Vec<_>>().join(", ");
    match (wanted, &there[..]) {
        (Some(realm), _) if there.contains(realm) => Ok(realm.clone()),
        (None, [only]) => Ok(only.clone()),
        (_, []) => Err(Failure::new(Exit::Failed, format!("there is no realm in {}", target.broker))),
        (Some(realm), _) => {
            let message = format!("there is no realm {realm} in {}, but {names}", target.broker);
            Err(Failure::new(Exit::Failed, message))
        }
        (None, _) => {
            let message = format!("there are several realms, say which by --realm: {names}");
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

fn selection(args: &ReplayArgs, realm: &RealmId) -> Outcome<Selection> {
    let mut selection = Selection::default();
    if let Some(user) = &args.user {
        let local = |user: UserName| Address { user, realm: realm.clone() };
        let address = user.parse().map(local).or_else(|_| user.parse::<Address>());
        let address = address.map_err(|_| {
            Failure::new(Exit::Usage, format!("--user {user}: it is neither NAME nor NAME@REALM"))
        })?;
        selection = selection.user(address, realm.clone());
    }
    if let Some(peer) = &args.peer {
        selection = selection.peer(peer.clone());
    }
    if let Some(id) = args.id {
        selection = selection.id(id);
    }
    if let Some(text) = &args.grep {
        selection = selection.grep(text);
    }
    Ok(selection)
}
