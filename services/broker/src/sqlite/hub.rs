//! Wakes those who follow subjects. Owns who waits for what; the entries themselves are read from the log.
//!
//! A follower has no queue that could overflow: it is told that there is something, and reads from where it stands.
//! So one that is slow costs writers nothing and misses nothing.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::Filter;

/// Tells one follower that there may be something new.
#[derive(Debug, Default)]
pub(super) struct Signal(Mutex<SignalState>);

#[derive(Debug, Default)]
struct SignalState {
    raised: bool,
    waker: Option<Waker>,
}

impl Signal {
    fn state(&self) -> MutexGuard<'_, SignalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was told so far. To be called before looking, so that nothing told while looking is lost.
    pub(super) fn clear(&self) {
        self.state().raised = false;
    }

    /// Waits until it was told something since the last [`Signal::clear`]. Cancel-safe: it stays told.
    pub(super) async fn raised(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.raised {
                return Poll::Ready(());
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Tells it. Returns whom to wake.
    pub(super) fn raise(&self) -> Option<Waker> {
        let mut state = self.state();
        state.raised = true;
        state.waker.take()
    }
}

/// Who waits under one key. Nearly always it is one.
#[derive(Debug)]
enum Waiting {
    One(Arc<Signal>),
    Several(Vec<Arc<Signal>>),
}

impl Waiting {
    fn all(&self) -> &[Arc<Signal>] {
        match self {
            Self::One(signal) => std::slice::from_ref(signal),
            Self::Several(signals) => signals,
        }
    }
}

#[derive(Debug, Default)]
struct Followers {
    /// By whole subject.
    exact: HashMap<Box<str>, Waiting>,
    /// `prefix.>` by prefix; `>` alone by the empty text.
    below: HashMap<Box<str>, Waiting>,
    /// `prefix.*` by prefix.
    children: HashMap<Box<str>, Waiting>,
    /// How many of `below` have so many tokens in their prefix: others need not be looked up.
    below_by_tokens: Vec<usize>,
    /// Filters with a wildcard in the middle. Few: each is compared with every new entry.
    others: Vec<(Filter, Arc<Signal>)>,
}

/// All followers of one broker.
#[derive(Debug, Default)]
pub(super) struct Hub {
    followers: Mutex<Followers>,
    count: AtomicUsize,
}

/// How a filter is found again.
enum Key<'a> {
    Exact(&'a str),
    Below(&'a str),
    Children(&'a str),
    Other,
}

fn key(filter: &Filter) -> Key<'_> {
    let text = filter.as_str();
    if filter.is_exact() {
        return Key::Exact(text);
    }
    let (prefix, last) = text.rsplit_once('.').unwrap_or(("", text));
    match last {
        _ if prefix.split('.').any(|token| token == "*") => Key::Other,
        ">" => Key::Below(prefix),
        "*" if !prefix.is_empty() => Key::Children(prefix),
        _ => Key::Other,
    }
}

fn tokens(prefix: &str) -> usize {
    if prefix.is_empty() { 0 } else { prefix.bytes().filter(|byte| *byte == b'.').count() + 1 }
}

fn add(map: &mut HashMap<Box<str>, Waiting>, key: &str, signal: Arc<Signal>) {
    match map.get_mut(key) {
        None => {
            map.insert(key.into(), Waiting::One(signal));
        }
        Some(Waiting::Several(signals)) => signals.push(signal),
        Some(one) => *one = Waiting::Several(one.all().iter().cloned().chain([signal]).collect()),
    }
}

fn remove(map: &mut HashMap<Box<str>, Waiting>, key: &str, signal: &Arc<Signal>) {
    let emptied = match map.get_mut(key) {
        None => false,
        Some(Waiting::One(one)) => Arc::ptr_eq(one, signal),
        Some(Waiting::Several(signals)) => {
            signals.retain(|other| !Arc::ptr_eq(other, signal));
            signals.is_empty()
        }
    };
    if emptied {
        map.remove(key);
    }
}

impl Hub {
    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on every new entry that `filter` matches raises the signal.
    pub(super) fn follow(self: &Arc<Self>, filter: &Filter) -> Following {
        let signal = Arc::new(Signal::default());
        let mut followers = self.followers();
        match key(filter) {
            Key::Exact(text) => add(&mut followers.exact, text, signal.clone()),
            Key::Children(prefix) => add(&mut followers.children, prefix, signal.clone()),
            Key::Below(prefix) => {
                add(&mut followers.below, prefix, signal.clone());
                let depth = tokens(prefix);
                if followers.below_by_tokens.len() <= depth {
                    followers.below_by_tokens.resize(depth + 1, 0);
                }
                followers.below_by_tokens[depth] += 1;
            }
            Key::Other => followers.others.push((filter.clone(), signal.clone())),
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        Following { hub: self.clone(), filter: filter.clone(), signal }
    }

    fn unfollow(&self, filter: &Filter, signal: &Arc<Signal>) {
        let mut followers = self.followers();
        match key(filter) {
            Key::Exact(text) => remove(&mut followers.exact, text, signal),
            Key::Children(prefix) => remove(&mut followers.children, prefix, signal),
            Key::Below(prefix) => {
                remove(&mut followers.below, prefix, signal);
                followers.below_by_tokens[tokens(prefix)] -= 1;
            }
            Key::Other => followers.others.retain(|(_, other)| !Arc::ptr_eq(other, signal)),
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether nobody follows anything. Who begins to follow after this look has in its first read what was published
    /// before it.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Tells all who follow one of `subjects`; wakes each once.
    pub(super) fn told<'a>(&self, subjects: impl Iterator<Item = &'a str>) {
        let mut wakers = Vec::new();
        let followers = self.followers();
        for subject in subjects {
            followers.tell(subject, &mut wakers);
        }
        drop(followers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes all: the broker closes.
    pub(super) fn tell_all(&self) {
        let mut wakers = Vec::new();
        let followers = self.followers();
        let maps = [&followers.exact, &followers.below, &followers.children];
        let all = maps.into_iter().flat_map(HashMap::values).flat_map(Waiting::all);
        for signal in all.chain(followers.others.iter().map(|(_, signal)| signal)) {
            wakers.extend(signal.raise());
        }
        drop(followers);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Followers {
    fn tell(&self, subject: &str, wakers: &mut Vec<Waker>) {
        let mut raise = |waiting: Option<&Waiting>| {
            wakers.extend(waiting.map_or(&[][..], Waiting::all).iter().filter_map(|signal| signal.raise()));
        };
        if !self.exact.is_empty() {
            raise(self.exact.get(subject));
        }
        if !self.children.is_empty()
            && let Some((parent, _)) = subject.rsplit_once('.')
        {
            raise(self.children.get(parent));
        }
        if !self.below.is_empty() {
            if self.below_by_tokens.first().is_some_and(|count| *count > 0) {
                raise(self.below.get(""));
            }
            for (depth, (dot, _)) in subject.match_indices('.').enumerate() {
                if self.below_by_tokens.get(depth + 1).is_some_and(|count| *count > 0) {
                    raise(self.below.get(&subject[..dot]));
                }
            }
        }
        for (filter, signal) in &self.others {
            if filter.matches(subject) {
                wakers.extend(signal.raise());
            }
        }
    }
}

/// A place among the followers, left when dropped.
#[derive(Debug)]
pub(super) struct Following {
    hub: Arc<Hub>,
    filter: Filter,
    pub(super) signal: Arc<Signal>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.hub.unfollow(&self.filter, &self.signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(following: &Following) -> bool {
        let raised = following.signal.state().raised;
        following.signal.clear();
        raised
    }

    #[test]
    fn a_follower_is_told_exactly_what_its_filter_matches() {
        let subjects = ["a", "a.b", "a.b.c", "a.b.c.d", "b", "b.b.c"];
        let filters = [
            "a", "a.b", "a.b.c", ">", "a.>", "a.b.>", "*", "a.*", "a.b.*", "*.b.c", "a.*.c", "*.*", "*.>",
            "a.*.>",
        ];
        let hub = Arc::new(Hub::default());
        let followings: Vec<Following> =
            filters.iter().map(|filter| hub.follow(&Filter::new(filter).unwrap())).collect();
        for subject in subjects {
            hub.told([subject].into_iter());
            for following in &followings {
                let expected = following.filter.matches(subject);
                assert_eq!(raised(following), expected, "{} told of {subject}", following.filter);
            }
        }
        drop(followings);
        let followers = hub.followers();
        assert!(followers.exact.is_empty() && followers.below.is_empty() && followers.children.is_empty());
        assert!(followers.others.is_empty() && followers.below_by_tokens.iter().all(|count| *count == 0));
    }

    #[test]
    fn several_followers_of_one_subject_are_all_told_until_they_leave() {
        let hub = Arc::new(Hub::default());
        let filter = Filter::new("a.>").unwrap();
        let (one, two, three) = (hub.follow(&filter), hub.follow(&filter), hub.follow(&filter));
        hub.told(["a.b"].into_iter());
        assert!(raised(&one) && raised(&two) && raised(&three));
        drop(two);
        hub.told(["a.b"].into_iter());
        assert!(raised(&one) && raised(&three));
    }
}
