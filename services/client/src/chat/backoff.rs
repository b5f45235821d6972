//! How long to wait before the next try to connect.
//!
//! Owns: the pauses. Must not know what is tried.

use std::time::Duration;

/// The first pause, before jitter.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause, before jitter.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Doubles from [`PAUSE_MIN`] to [`PAUSE_MAX`], each pause shortened by up to half by chance, so that a thousand clients
/// of a server that restarts do not come back in the same moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause: from half of its full length up to all of it.
    pub(crate) fn next_pause(&mut self) -> Duration {
        // A fresh v4 UUID has 122 random bits; these sixteen are among them.
        let random = uuid::Uuid::new_v4().into_bytes();
        self.pause(u16::from_le_bytes([random[0], random[1]]))
    }

    fn pause(&mut self, chance: u16) -> Duration {
        let full = PAUSE_MIN.saturating_mul(1 << self.tries.min(16)).min(PAUSE_MAX);
        self.tries = self.tries.saturating_add(1);
        full / 2 + full.mul_f64(f64::from(chance) / f64::from(u16::MAX)) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| backoff.pause(u16::MAX).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(Backoff { tries: u32::MAX }.pause(0), PAUSE_MAX / 2);
    }

    #[test]
    fn chance_shortens_a_pause_by_half_at_most() {
        assert_eq!(Backoff::default().pause(0), PAUSE_MIN / 2);
        for _ in 0..100 {
            let pause = Backoff::default().next_pause();
            assert!((PAUSE_MIN / 2..=PAUSE_MIN).contains(&pause), "{pause:?}");
        }
    }
}
