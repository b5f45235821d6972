//! The work queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::{Cx, bodies, numbers, one};
use crate::{LeaseError, Queue, ReadError, ReadLimit, Seq};

/// Longer than any case.
const LONG: Duration = Duration::from_secs(600);
/// Short enough to wait for its end.
const SHORT: Duration = Duration::from_millis(500);

async fn open(cx: &Cx, lease: Duration) -> Arc<dyn Queue> {
    cx.broker.queue(&cx.queue_name("Q"), &cx.subject("log.a"), lease).await.unwrap()
}

async fn state(cx: &Cx) -> (Seq, u64) {
    let state = cx.broker.queue_state(&cx.queue_name("Q")).await.unwrap().unwrap();
    assert_eq!(state.oldest.is_some(), state.waiting > 0);
    (state.acked, state.waiting)
}

pub async fn entries_are_handed_out_in_order_and_not_again_after_their_ack(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 7).await;
    cx.put("log.b", "other").await;
    let queue = open(cx, LONG).await;
    for range in [0..3, 3..6, 6..7] {
        let lease = queue.next(ReadLimit::entries(3)).await.unwrap();
        assert_eq!(lease.tries, 0);
        assert_eq!(bodies(&lease.entries), numbers(range.clone()));
        queue.ack(&lease, seqs[range.end - 1]).await.unwrap();
    }
    cx.put("log.a", "7").await;
    let lease = queue.next(ReadLimit::entries(3)).await.unwrap();
    assert_eq!(bodies(&lease.entries), ["7"]);
}

pub async fn nothing_is_handed_out_while_a_lease_is_held(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 4).await;
    let (queue, other) = (open(cx, LONG).await, open(cx, LONG).await);
    let lease = queue.next(ReadLimit::entries(2)).await.unwrap();
    let settled = Arc::new(AtomicBool::new(false));
    let waiting = {
        let settled = settled.clone();
        tokio::spawn(async move {
            let lease = other.next(ReadLimit::entries(10)).await.unwrap();
            (settled.load(Ordering::SeqCst), bodies(&lease.entries))
        })
    };
    // What is appended meanwhile does not get past it either.
    cx.put("log.a", "4").await;
    settled.store(true, Ordering::SeqCst);
    queue.ack(&lease, seqs[1]).await.unwrap();
    assert_eq!(waiting.await.unwrap(), (true, numbers(2..5)));
}

pub async fn what_was_given_back_comes_again_first_and_after_its_delay(cx: &mut Cx) {
    cx.log().await;
    cx.put_many("log.a", 3).await;
    let queue = open(cx, LONG).await;
    let lease = queue.next(ReadLimit::entries(2)).await.unwrap();
    let began = Instant::now();
    queue.nak(&lease, SHORT).await.unwrap();
    assert_eq!(queue.nak(&lease, SHORT).await, Err(LeaseError::Lost));
    let again = queue.next(ReadLimit::entries(2)).await.unwrap();
    assert!(began.elapsed() >= SHORT);
    assert_eq!((bodies(&again.entries), again.tries), (numbers(0..2), 1));
}

pub async fn tries_count_how_often_an_entry_was_handed_out(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 3).await;
    let queue = open(cx, LONG).await;
    for tries in 0..3 {
        let lease = queue.next(ReadLimit::entries(2)).await.unwrap();
        assert_eq!((bodies(&lease.entries), lease.tries), (numbers(0..2), tries));
        queue.nak(&lease, Duration::ZERO).await.unwrap();
    }
    let lease = queue.next(ReadLimit::entries(1)).await.unwrap();
    assert_eq!(lease.tries, 3);
    queue.ack(&lease, seqs[0]).await.unwrap();
    // Handed out three times behind the first.
    let lease = queue.next(ReadLimit::entries(1)).await.unwrap();
    assert_eq!((bodies(&lease.entries), lease.tries), (numbers(1..2), 3));
    queue.ack(&lease, seqs[1]).await.unwrap();
    let lease = queue.next(ReadLimit::entries(1)).await.unwrap();
    assert_eq!((bodies(&lease.entries), lease.tries), (numbers(2..3), 0));
}

pub async fn an_expired_lease_is_lost_and_its_entries_go_to_another_worker(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 2).await;
    let (first, second) = (open(cx, SHORT).await, open(cx, LONG).await);
    let began = Instant::now();
    let lost = first.next(ReadLimit::entries(2)).await.unwrap();
    let lease = second.next(ReadLimit::entries(2)).await.unwrap();
    assert!(began.elapsed() >= SHORT);
    assert_ne!(lost.token, lease.token);
    assert_eq!((bodies(&lease.entries), lease.tries), (numbers(0..2), 1));
    assert_eq!(first.ack(&lost, seqs[1]).await, Err(LeaseError::Lost));
    assert_eq!(first.nak(&lost, Duration::ZERO).await, Err(LeaseError::Lost));
    assert_eq!(first.extend(&lost).await, Err(LeaseError::Lost));
    assert_eq!(state(cx).await, (Seq::ZERO, 2));
    second.ack(&lease, seqs[1]).await.unwrap();
    assert_eq!(state(cx).await, (seqs[1], 0));
}

pub async fn an_extended_lease_lasts_longer(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 1).await;
    let queue = open(cx, SHORT).await;
    let lease = queue.next(ReadLimit::entries(1)).await.unwrap();
    let began = Instant::now();
    let mut pause = tokio::time::interval(SHORT / 5);
    while began.elapsed() < SHORT * 2 {
        pause.tick().await;
        queue.extend(&lease).await.unwrap();
    }
    queue.ack(&lease, seqs[0]).await.unwrap();
    assert_eq!(queue.extend(&lease).await, Err(LeaseError::Lost));
}

pub async fn what_was_not_acknowledged_of_a_lease_comes_again_at_once(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 5).await;
    let queue = open(cx, LONG).await;
    let lease = queue.next(ReadLimit::entries(4)).await.unwrap();
    queue.ack(&lease, seqs[1]).await.unwrap();
    assert_eq!(queue.ack(&lease, seqs[3]).await, Err(LeaseError::Lost));
    let lease = queue.next(ReadLimit::entries(4)).await.unwrap();
    assert_eq!((bodies(&lease.entries), lease.tries), (numbers(2..5), 1));
    // More than the lease has is the lease.
    cx.put("log.a", "5").await;
    queue.ack(&lease, Seq(seqs[4].0 + 1_000_000)).await.unwrap();
    let lease = queue.next(ReadLimit::entries(4)).await.unwrap();
    assert_eq!(bodies(&lease.entries), ["5"]);
}

pub async fn the_position_is_kept_over_reopening(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 5).await;
    let queue = open(cx, LONG).await;
    let lease = queue.next(ReadLimit::entries(3)).await.unwrap();
    queue.ack(&lease, seqs[1]).await.unwrap();
    let _held = queue.next(ReadLimit::entries(1)).await.unwrap();
    drop(queue);
    if !cx.reopen().await {
        return;
    }
    assert_eq!(state(cx).await, (seqs[1], 3));
    let lease = open(cx, LONG).await.next(ReadLimit::entries(9)).await.unwrap();
    assert_eq!(bodies(&lease.entries), numbers(2..5));
}

pub async fn a_waiting_worker_is_woken_by_a_new_entry(cx: &mut Cx) {
    cx.log().await;
    let queue = open(cx, LONG).await;
    let mut next = queue.next(ReadLimit::entries(1));
    assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    cx.put("log.a", "0").await;
    assert_eq!(bodies(&next.await.unwrap().entries), ["0"]);
}

pub async fn queues_over_one_subject_are_independent(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 2).await;
    let queue = open(cx, LONG).await;
    let other = cx.broker.queue(&cx.queue_name("OTHER"), &cx.subject("log.a"), LONG).await.unwrap();
    let lease = queue.next(ReadLimit::entries(2)).await.unwrap();
    queue.ack(&lease, seqs[1]).await.unwrap();
    let lease = other.next(ReadLimit::entries(1)).await.unwrap();
    assert_eq!(bodies(&lease.entries), ["0"]);
    assert_eq!(cx.broker.queue_state(&cx.queue_name("OTHER")).await.unwrap().unwrap().waiting, 2);
}

pub async fn the_state_of_a_queue_tells_what_waits(cx: &mut Cx) {
    cx.log().await;
    assert_eq!(cx.broker.queue_state(&cx.queue_name("Q")).await.unwrap(), None);
    let queue = open(cx, LONG).await;
    assert_eq!(state(cx).await, (Seq::ZERO, 0));
    let seqs = cx.put_many("log.a", 5).await;
    let first = cx.all("log.a").await[0].time;
    assert_eq!(state(cx).await, (Seq::ZERO, 5));
    assert_eq!(cx.broker.queue_state(&cx.queue_name("Q")).await.unwrap().unwrap().oldest, Some(first));
    // A lease settles nothing.
    let lease = queue.next(ReadLimit::entries(5)).await.unwrap();
    assert_eq!(state(cx).await, (Seq::ZERO, 5));
    queue.ack(&lease, seqs[2]).await.unwrap();
    assert_eq!(state(cx).await, (seqs[2], 2));
}

pub async fn workers_share_a_queue_without_overlap(cx: &mut Cx) {
    cx.log().await;
    const COUNT: usize = 60;
    let done = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (queue, done) = (open(cx, LONG).await, done.clone());
        workers.spawn(async move {
            loop {
                let lease = queue.next(ReadLimit::entries(1)).await.unwrap();
                let entry = &lease.entries[0];
                if entry.body.is_empty() {
                    // The sign to stop is left for the others.
                    queue.nak(&lease, Duration::ZERO).await.unwrap();
                    return;
                }
                done.lock().unwrap().push((worker, entry.clone()));
                queue.ack(&lease, entry.seq).await.unwrap();
            }
        });
    }
    cx.put_many("log.a", COUNT).await;
    cx.put("log.a", "").await;
    workers.join_all().await;
    let done = done.lock().unwrap();
    let entries: Vec<_> = done.iter().map(|(_, entry)| entry.clone()).collect();
    assert_eq!(bodies(&entries), numbers(0..COUNT));
}

pub async fn a_cancelled_wait_leases_nothing_for_long(cx: &mut Cx) {
    cx.log().await;
    let queue = open(cx, SHORT).await;
    for _ in 0..10 {
        let mut next = queue.next(ReadLimit::entries(1));
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    cx.put("log.a", "0").await;
    assert_eq!(bodies(&queue.next(ReadLimit::entries(1)).await.unwrap().entries), ["0"]);
}

pub async fn trimmed_entries_are_not_handed_out(cx: &mut Cx) {
    cx.log().await;
    let seqs = cx.put_many("log.a", 4).await;
    let queue = open(cx, LONG).await;
    cx.broker.trim(&cx.subject("log.a"), seqs[1]).await.unwrap();
    assert_eq!(state(cx).await, (Seq::ZERO, 2));
    let lease = queue.next(ReadLimit::entries(9)).await.unwrap();
    assert_eq!(bodies(&lease.entries), numbers(2..4));
}

pub async fn a_queue_over_no_stream_is_an_error(cx: &mut Cx) {
    cx.log().await;
    let answer = cx.broker.queue(&cx.queue_name("Q"), &cx.subject("elsewhere.a"), LONG).await;
    assert!(matches!(answer.err(), Some(ReadError::NoStream(_))));
    assert_eq!(cx.broker.queue_state(&cx.queue_name("Q")).await.unwrap(), None);
}

pub async fn a_waiting_worker_is_told_when_the_broker_closes(cx: &mut Cx) {
    cx.log().await;
    let queue = open(cx, LONG).await;
    let other = queue.clone();
    let waiting =
        tokio::spawn(async move { other.next(ReadLimit::entries(1)).await.map(|lease| lease.token) });
    // It waits at the latest when it has let go of the first entry.
    cx.broker.append(one(&cx.subject("log.a"), "0")).await.unwrap().await.unwrap();
    waiting.await.unwrap().unwrap();
    let waiting =
        tokio::spawn(async move { queue.next(ReadLimit::entries(1)).await.map(|lease| lease.token) });
    cx.broker.close().await;
    assert_eq!(waiting.await.unwrap(), Err(ReadError::Closed));
}
