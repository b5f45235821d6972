//! Keeps an open rate: each message is sent when it is due, however slow the server is.
//!
//! The runtime's timers count milliseconds; a kernel timer behind a file descriptor does better without spinning.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::flow::{Flow, Shared};

/// Messages sent in a row, when behind, before others get their turn.
const BURST_MAX: u32 = 64;

/// A timer with the kernel's resolution.
#[derive(Debug)]
pub(crate) struct Pacer(AsyncFd<OwnedFd>);

impl Pacer {
    /// A timer. Belongs to the runtime it is made in.
    #[expect(
        deprecated,
        reason = "the newer way is unsafe, for descriptors that may close; an OwnedFd does not"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    async fn sleep(&self, ns: u64) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let wait = Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: zero, it_value: wait };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0u8; 8])?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }

    /// Sends `per_second` messages a second, by turns through `flows`, while the clock is in `span`.
    pub(crate) async fn run(
        &self,
        shared: &Shared,
        flows: &[Rc<Flow>],
        per_second: f64,
        span: Range<u64>,
    ) -> io::Result<()> {
        let due = |number: u64| span.start + (number as f64 * 1e9 / per_second) as u64;
        let (mut number, mut burst) = (0u64, 0);
        while due(number) < span.end && !flows.iter().all(|flow| flow.is_broken()) {
            let (at, now) = (due(number), shared.clock.now_ns());
            if at > now {
                self.sleep(at - now).await?;
                burst = 0;
                continue;
            }
            flows[number as usize % flows.len()].send_due(at);
            number += 1;
            burst += 1;
            if burst == BURST_MAX {
                tokio::task::yield_now().await;
                burst = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_never_shorter_than_asked() {
        let runtime = super::super::runtime().unwrap();
        runtime.block_on(async {
            let pacer = Pacer::new().unwrap();
            for ns in [1, 50_000, 2_000_000] {
                let before = std::time::Instant::now();
                pacer.sleep(ns).await.unwrap();
                assert!(before.elapsed().as_nanos() as u64 >= ns);
            }
        });
    }
}
