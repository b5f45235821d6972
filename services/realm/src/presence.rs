//! Who comes and who goes: told to those who watch and are in a group with them.
//!
//! A user is online who has a live session, on whichever edge. Changes within a moment are told together, and one that was undone
//! within it is none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use antar_proto::UserName;
use tokio::sync::broadcast;

use crate::shared::Shared;

/// Changes within this are told together.
const TOGETHER: Duration = Duration::from_millis(200);
/// Tellings that wait for one who watches; further ones are not told. They are a convenience.
const WAITING_MAX: usize = 16;

/// Who has come, or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) user: UserName,
    pub(crate) is_online: bool,
}

/// Where it is told.
pub(crate) type Presence = broadcast::Sender<Arc<Vec<Came>>>;

/// Nobody has come or gone yet.
pub(crate) fn channel() -> Presence {
    broadcast::Sender::new(WAITING_MAX)
}

/// Tells of everybody who comes or goes, for as long as the realm is there.
pub(crate) async fn run(shared: Arc<Shared>) {
    let online =
        || -> BTreeSet<UserName> { shared.sessions.users().iter().map(|(user, _)| user.clone()).collect() };
    let mut changes = shared.sessions.copy.changes();
    let mut before = online();
    loop {
        // The sender lives in the copy, so waiting cannot fail.
        let _ = changes.changed().await;
        tokio::time::sleep(TOGETHER).await;
        changes.borrow_and_update();
        let now = online();
        let came = now.difference(&before).map(|user| Came { user: user.clone(), is_online: true });
        let gone = before.difference(&now).map(|user| Came { user: user.clone(), is_online: false });
        let news: Vec<Came> = came.chain(gone).collect();
        if !news.is_empty() {
            // Nobody may be watching.
            let _ = shared.presence.send(Arc::new(news));
        }
        before = now;
    }
}
