//! The connections of an edge: how to reach each of them, and which have not logged in.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

/// Why a connection is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kick {
    /// The edge shuts down.
    Shutdown,
    /// Its address has too many connections without a login.
    Evicted,
}

/// What others can reach of a connection.
#[derive(Debug, Default)]
pub(crate) struct Handle {
    kick: AtomicU8,
    waker: AtomicWaker,
    /// Milliseconds after the registry was made.
    active_ms: AtomicU64,
}

impl Handle {
    fn kick(&self, why: Kick) {
        let value = match why {
            Kick::Shutdown => 1,
            Kick::Evicted => 2,
        };
        self.kick.store(value, Ordering::Release);
        self.waker.wake();
    }

    /// Ready once the connection is told to end.
    pub(crate) fn poll_kicked(&self, cx: &Context<'_>) -> Poll<Kick> {
        self.waker.register(cx.waker());
        match self.kick.load(Ordering::Acquire) {
            0 => Poll::Pending,
            1 => Poll::Ready(Kick::Shutdown),
            _ => Poll::Ready(Kick::Evicted),
        }
    }
}

/// All connections of an edge.
#[derive(Debug)]
pub(crate) struct Guests {
    start: Instant,
    guests_per_address_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    all: HashMap<u64, Arc<Handle>>,
    /// Those that have not logged in, by address.
    guests: HashMap<IpAddr, Vec<u64>>,
}

/// A connection's place among them; given up when it is dropped.
pub(crate) struct Place {
    guests: Arc<Guests>,
    id: u64,
    address: IpAddr,
    is_guest: bool,
    pub(crate) handle: Arc<Handle>,
}

impl Guests {
    pub(crate) fn new(guests_per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), guests_per_address_max, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes in a connection. If its address has too many without a login, the one idle longest is told to go.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let handle = Arc::new(Handle::default());
        handle.active_ms.store(self.now_ms(), Ordering::Relaxed);
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let State { all, guests, .. } = &mut *state;
        all.insert(id, handle.clone());
        let here = guests.entry(address).or_default();
        if here.len() >= self.guests_per_address_max {
            let active = |id: &u64| all.get(id).map_or(0, |guest| guest.active_ms.load(Ordering::Relaxed));
            if let Some(at) = (0..here.len()).min_by_key(|&at| (active(&here[at]), here[at])) {
                let evicted = here.remove(at);
                if let Some(guest) = all.get(&evicted) {
                    guest.kick(Kick::Evicted);
                }
            }
        }
        here.push(id);
        Place { guests: self.clone(), id, address, is_guest: true, handle }
    }

    /// How many connections there are.
    pub(crate) fn count(&self) -> usize {
        self.state().all.len()
    }

    /// Tells all connections to end.
    pub(crate) fn shut_down(&self) {
        let all: Vec<_> = self.state().all.values().cloned().collect();
        for handle in all {
            handle.kick(Kick::Shutdown);
        }
    }
}

impl Place {
    /// The connection has sent something.
    pub(crate) fn is_active(&self) {
        self.handle.active_ms.store(self.guests.now_ms(), Ordering::Relaxed);
    }

    /// What `work` gives; `None` if it takes longer than `time`, or the connection is told to end meanwhile.
    pub(crate) async fn in_time<F: Future>(&self, time: Duration, work: F) -> Option<F::Output> {
        // Cancel-safe: what is dropped is the whole connection.
        tokio::select! {
            done = tokio::time::timeout(time, work) => done.ok(),
            _ = poll_fn(|cx| self.handle.poll_kicked(cx)) => None,
        }
    }

    pub(crate) fn is_guest(&self) -> bool {
        self.is_guest
    }

    /// The connection has logged in: it no longer counts against its address.
    pub(crate) fn logged_in(&mut self) {
        if std::mem::take(&mut self.is_guest) {
            self.leave_guests(&mut self.guests.state());
        }
    }

    fn leave_guests(&self, state: &mut State) {
        if let Some(here) = state.guests.get_mut(&self.address) {
            here.retain(|id| *id != self.id);
            if here.is_empty() {
                state.guests.remove(&self.address);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.guests.state();
        state.all.remove(&self.id);
        if self.is_guest {
            self.leave_guests(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kicked(place: &Place) -> bool {
        place.handle.poll_kicked(&Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn the_guest_idle_longest_goes_and_who_logged_in_stays() {
        let guests = Guests::new(2);
        let (here, there) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let mut member = guests.enter(here);
        member.logged_in();
        let (first, second, other) = (guests.enter(here), guests.enter(here), guests.enter(there));
        first.handle.active_ms.store(9, Ordering::Relaxed);
        second.handle.active_ms.store(1, Ordering::Relaxed);
        let third = guests.enter(here);
        assert!(kicked(&second));
        assert!(![&member, &first, &other, &third].into_iter().any(kicked));
        drop((member, first, second, other, third));
        assert_eq!(guests.count(), 0);
        assert!(guests.state().guests.is_empty());
    }
}
