//! Waiting for an event instead of sleeping. The only file of the tests that may sleep.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails: generous, since machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks.
const BETWEEN: Duration = Duration::from_millis(15);

/// Looks again and again until there is something, and panics with `what` when there never is.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_in(PATIENCE, what, look)
}

/// The same with a patience of its own, for what takes long by nature.
#[track_caller]
pub(crate) fn eventually_in<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "it never happened: {what}");
        sleep(BETWEEN);
    }
}

/// Whether nothing is found in `span`; for saying that something does *not* happen. Keep spans short.
pub(crate) fn holds_for(span: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if !holds() {
            return false;
        }
        sleep(BETWEEN);
    }
    true
}

/// Waits as long as between two looks, for somebody who tries something again.
pub(crate) fn a_moment() {
    sleep(BETWEEN);
}
