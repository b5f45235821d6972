//! How much may be sent in a minute: by a user, from an address, over a lane.
//!
//! Each edge counts for itself, in memory: nothing is stored, and nothing is asked of the broker. What is not limited costs
//! one look at an empty option. A minute's share may be used at once and comes back evenly (GCRA). Owns: the counting. Must
//! not know what becomes of a message that is too much.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use antar_broker::ReadLimit;
use antar_proto::UserName;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};

use crate::realm::Realm;

/// After so many questions, those are forgotten that have their whole share again.
const FORGET_AFTER: u32 = 4_096;

/// Messages and bytes a minute; 0 for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// Messages.
    pub messages: u32,
    /// Bytes of their text.
    pub bytes: u32,
}

/// How much may be sent, by whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// By each user.
    pub user: Rate,
    /// From each address that clients connect from.
    pub address: Rate,
    /// Over the lane to each other realm.
    pub lane: Rate,
}

/// Whose share is used up, and when there is enough of it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch {
    /// `user` or `address`.
    pub of: &'static str,
    /// Until then.
    pub wait: Duration,
}

type Limiter<K> = DefaultKeyedRateLimiter<K>;

/// Counts for each user, or each address.
struct Meter<K: Hash + Eq + Clone> {
    of: &'static str,
    messages: Option<Limiter<K>>,
    bytes: Option<(Limiter<K>, NonZeroU32)>,
    asked: AtomicU32,
}

fn quota(a_minute: u32) -> Option<(Quota, NonZeroU32)> {
    NonZeroU32::new(a_minute).map(|a_minute| (Quota::per_minute(a_minute), a_minute))
}

/// What is larger than a minute's share uses up all of it.
fn share(amount: usize, most: NonZeroU32) -> NonZeroU32 {
    u32::try_from(amount).ok().and_then(NonZeroU32::new).map_or(NonZeroU32::MIN, |amount| amount.min(most))
}

fn wait(not_until: &NotUntil<<DefaultClock as governor::clock::Clock>::Instant>) -> Duration {
    not_until.wait_time_from(DefaultClock::default().now())
}

impl<K: Hash + Eq + Clone> Meter<K> {
    fn new(of: &'static str, rate: Rate) -> Self {
        let limiter = |(quota, most)| (RateLimiter::keyed(quota), most);
        Self {
            of,
            messages: quota(rate.messages).map(limiter).map(|(limiter, _)| limiter),
            bytes: quota(rate.bytes).map(limiter),
            asked: AtomicU32::new(0),
        }
    }

    fn take(&self, key: &K, bytes: usize) -> Result<(), TooMuch> {
        if self.messages.is_none() && self.bytes.is_none() {
            return Ok(());
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) % FORGET_AFTER == FORGET_AFTER - 1 {
            for limiter in self.messages.iter().chain(self.bytes.iter().map(|(limiter, _)| limiter)) {
                limiter.retain_recent();
            }
        }
        let too_much = |wait| TooMuch { of: self.of, wait };
        if let Some(messages) = &self.messages {
            messages.check_key(key).map_err(|not_until| too_much(wait(&not_until)))?;
        }
        if let Some((limiter, most)) = &self.bytes {
            let taken = limiter.check_key_n(key, share(bytes, *most));
            taken
                .expect("no share is larger than the whole")
                .map_err(|not_until| too_much(wait(&not_until)))?;
        }
        Ok(())
    }
}

/// The meters of a realm on this edge.
pub(crate) struct Rates {
    users: Meter<UserName>,
    addresses: Meter<IpAddr>,
}

impl Rates {
    pub(crate) fn new(limits: &RateLimits) -> Self {
        Self { users: Meter::new("user", limits.user), addresses: Meter::new("address", limits.address) }
    }
}

/// The share of one lane.
pub(crate) struct Pace {
    messages: Option<(DefaultDirectRateLimiter, NonZeroU32)>,
    bytes: Option<(DefaultDirectRateLimiter, NonZeroU32)>,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        let limiter = |(quota, most)| (RateLimiter::direct(quota), most);
        Self { messages: quota(rate.messages).map(limiter), bytes: quota(rate.bytes).map(limiter) }
    }

    /// A batch that a minute's share is enough for, unless one entry alone is larger.
    pub(crate) fn batch(&self, limit: ReadLimit) -> ReadLimit {
        let most = |limiter: &Option<(_, NonZeroU32)>, whole: usize| {
            limiter.as_ref().map_or(whole, |(_, most)| whole.min(most.get() as usize))
        };
        ReadLimit {
            entries_max: most(&self.messages, limit.entries_max),
            bytes_max: most(&self.bytes, limit.bytes_max),
        }
    }

    /// Takes the share of a batch; if there is not enough, how long to wait before asking again.
    pub(crate) fn take(&self, entries: usize, bytes: usize) -> Result<(), Duration> {
        for (limiter, amount) in [(&self.messages, entries), (&self.bytes, bytes)] {
            let Some((limiter, most)) = limiter else { continue };
            let taken = limiter.check_n(share(amount, *most)).expect("no share is larger than the whole");
            taken.map_err(|not_until| wait(&not_until))?;
        }
        Ok(())
    }
}

impl Realm {
    /// Counts a message of a user that came from an address.
    pub fn take_share(&self, user: &UserName, address: Option<IpAddr>, bytes: usize) -> Result<(), TooMuch> {
        let rates = &self.shared.rates;
        if let Some(address) = address {
            rates.addresses.take(&address, bytes)?;
        }
        rates.users.take(user, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_up_and_each_has_its_own() {
        let meter = Meter::new("user", Rate { messages: 3, bytes: 1_000 });
        for _ in 0..3 {
            meter.take(&"a", 10).unwrap();
        }
        let too_much = meter.take(&"a", 10).unwrap_err();
        assert!(too_much.wait <= Duration::from_secs(20), "{too_much:?}");
        meter.take(&"b", 2_000).expect("a message larger than the share takes all of it");
        assert!(meter.take(&"b", 1).is_err());
        let off = Meter::new("user", Rate::default());
        assert!((0..10_000).all(|_| off.take(&"a", 1_000_000).is_ok()));
    }

    #[test]
    fn a_batch_fits_into_the_share_of_its_lane() {
        let pace = Pace::new(Rate { messages: 5, bytes: 0 });
        let batch = pace.batch(ReadLimit { entries_max: 2_048, bytes_max: 100 });
        assert_eq!(batch, ReadLimit { entries_max: 5, bytes_max: 100 });
        assert_eq!(pace.take(5, 1_000_000), Ok(()));
        assert!(pace.take(1, 0).is_err());
    }
}
