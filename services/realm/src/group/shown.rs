//! What was said in groups lately, as it is pushed: all who watch get the same, so it is made once for all of them.

use std::sync::{Arc, Mutex, OnceLock};

use antar_broker::{Entry, Seq};
use antar_proto::GroupAddress;
use antar_proto::reply::Event;

/// How many messages are remembered. Those who watch are rarely further apart, and one that is forgotten is made again.
const SHOWN_MAX: usize = 1_024;

/// A message to a group, as everybody who watches sees it.
#[derive(Debug)]
pub struct SharedEvent {
    event: Event,
    frame: OnceLock<Vec<u8>>,
    pub(crate) group: GroupAddress,
    /// The group in the place of a box.
    pub(crate) group_box: String,
}

impl SharedEvent {
    pub(crate) fn new(event: Event, group: GroupAddress, group_box: String) -> Self {
        Self { event, frame: OnceLock::new(), group, group_box }
    }

    /// The event itself.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Its bytes, which `encode` makes the first time.
    pub fn frame(&self, encode: impl FnOnce(&Event) -> Vec<u8>) -> &[u8] {
        self.frame.get_or_init(|| encode(&self.event))
    }
}

/// The place of a message.
type Place = Mutex<Option<(Seq, Arc<SharedEvent>)>>;

/// The messages that were shown last, each in the place that its sequence has.
pub(crate) struct Shown(Box<[Place]>);

impl Default for Shown {
    fn default() -> Self {
        Self((0..SHOWN_MAX).map(|_| Mutex::default()).collect())
    }
}

impl Shown {
    /// What an entry of a group is pushed as; `make` is asked if nobody was shown it lately.
    pub(crate) fn get(
        &self,
        entry: &Entry,
        make: impl FnOnce() -> Option<SharedEvent>,
    ) -> Option<Arc<SharedEvent>> {
        // The low bits of a sequence may be the same for all.
        let seq = entry.seq.0;
        let at = usize::try_from((seq ^ (seq >> 10)) % SHOWN_MAX as u64).unwrap_or(0);
        let mut place = self.0[at].lock().expect("no holder of this lock panics");
        match &*place {
            Some((known, shown)) if *known == entry.seq => Some(shown.clone()),
            _ => {
                let made = Arc::new(make()?);
                *place = Some((entry.seq, made.clone()));
                Some(made)
            }
        }
    }
}
