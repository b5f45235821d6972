//! Following the log.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Cx, bodies, growing, numbers, one, seqs, take};
use crate::{Append, Entry, ReadError, ReadLimit, Seq, Subject, Tail};

pub async fn a_tail_gives_what_is_stored_and_then_what_comes(cx: &mut Cx) {
    cx.log().await;
    let stored = cx.put_many("log.a", 5).await;
    let mut tail = cx.broker.tail(&cx.filter("log.a"), Seq::ZERO).await.unwrap();
    assert_eq!(bodies(&take(&mut tail, 5).await), numbers(0..5));
    let mut later = cx.broker.tail(&cx.filter("log.a"), stored[2]).await.unwrap();
    cx.put("log.b", "other").await;
    for n in 5..10 {
        cx.put("log.a", &n.to_string()).await;
    }
    assert_eq!(bodies(&take(&mut tail, 5).await), numbers(5..10));
    assert_eq!(bodies(&take(&mut later, 7).await), numbers(3..10));
}

pub async fn a_waiting_tail_is_woken(cx: &mut Cx) {
    cx.log().await;
    for filter in ["log.a.b", "log.a.>", "log.a.*", "log.*.b", "log.>"] {
        let after = cx.all("log.>").await.last().map_or(Seq::ZERO, |entry| entry.seq);
        let mut tail = cx.broker.tail(&cx.filter(filter), after).await.unwrap();
        assert!(poll_once(&mut tail).is_pending());
        let waiting = tokio::spawn(async move { take(&mut tail, 1).await });
        cx.put("log.a.b", filter).await;
        assert_eq!(bodies(&waiting.await.unwrap()), [filter]);
    }
}

/// Polls the tail's next batch once, and drops it if it has to wait.
fn poll_once(tail: &mut Tail) -> Poll<Vec<Arc<Entry>>> {
    let mut next = std::pin::pin!(tail.next_batch(ReadLimit::entries(2)));
    next.as_mut().poll(&mut Context::from_waker(Waker::noop())).map(Result::unwrap)
}

pub async fn tails_opened_amid_appends_have_no_gap_and_nothing_twice(cx: &mut Cx) {
    cx.log().await;
    const WRITERS: usize = 4;
    const EACH: usize = 250;
    let filters = ["log.>", "log.u.>", "log.u.0", "log.u.*", "log.*.1"];
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (broker, subject) = (cx.broker.clone(), cx.subject(&format!("log.u.{writer}")));
        let group = vec![cx.subject("log.g.0"), subject.clone(), cx.subject("log.g.1")];
        writers.spawn(async move {
            for n in 0..EACH {
                let append = one(&subject, &n.to_string());
                let append = if n % 5 == 0 { Append { subjects: group.clone(), ..append } } else { append };
                broker.append(append).await.unwrap().await.unwrap();
            }
        });
    }
    let mut tails = tokio::task::JoinSet::new();
    for (at, filter) in filters.iter().cycle().take(20).enumerate() {
        // Each begins at another moment: after so many entries.
        let mut opened = cx.broker.tail(&cx.filter("log.>"), Seq::ZERO).await.unwrap();
        take(&mut opened, 1 + at * 20).await;
        let mut tail = cx.broker.tail(&cx.filter(filter), Seq::ZERO).await.unwrap();
        let count = match *filter {
            "log.>" => WRITERS * EACH + 2 * WRITERS * EACH / 5,
            "log.u.>" | "log.u.*" => WRITERS * EACH,
            "log.u.0" => EACH,
            _ => EACH + WRITERS * EACH / 5,
        };
        tails.spawn(async move { (at, take(&mut tail, count).await) });
    }
    writers.join_all().await;
    for (at, entries) in tails.join_all().await {
        let filter = filters[at % filters.len()];
        assert!(growing(&seqs(&entries)), "{filter}");
        assert_eq!(entries, cx.all(filter).await, "{filter}");
    }
}

pub async fn a_slow_tail_holds_nobody_up_and_loses_nothing(cx: &mut Cx) {
    cx.log().await;
    const COUNT: usize = 20_000;
    let mut slow = cx.broker.tail(&cx.filter("log.>"), Seq::ZERO).await.unwrap();
    assert!(poll_once(&mut slow).is_pending());
    let body = "x".repeat(100);
    let mut pending = std::collections::VecDeque::new();
    for n in 0..COUNT {
        let append = one(&cx.subject(["log.a", "log.b"][n % 2]), &format!("{n} {body}"));
        pending.push_back(cx.broker.append(append).await.unwrap());
        if pending.len() == 500 {
            pending.pop_front().unwrap().await.unwrap();
        }
    }
    for append in pending {
        append.await.unwrap();
    }
    let entries = take(&mut slow, COUNT).await;
    assert!(growing(&seqs(&entries)));
    for (n, entry) in entries.iter().enumerate() {
        assert!(entry.body.starts_with(format!("{n} ").as_bytes()), "at {n}: {:?}", entry.seq);
    }
    // And it is live again.
    cx.put("log.a", "live").await;
    assert_eq!(bodies(&take(&mut slow, 1).await), ["live"]);
}

pub async fn a_batch_keeps_its_limit(cx: &mut Cx) {
    cx.log().await;
    for _ in 0..10 {
        cx.put("log.a", &"x".repeat(1000)).await;
    }
    let mut tail = cx.broker.tail(&cx.filter("log.a"), Seq::ZERO).await.unwrap();
    let batch = tail.next_batch(ReadLimit { entries_max: 3, bytes_max: 1_000_000 }).await.unwrap();
    assert!((1..=3).contains(&batch.len()));
    let batch = tail.next_batch(ReadLimit { entries_max: 100, bytes_max: 2_500 }).await.unwrap();
    assert!((1..=2).contains(&batch.len()));
    let batch = tail.next_batch(ReadLimit { entries_max: 100, bytes_max: 1 }).await.unwrap();
    assert_eq!(batch.len(), 1);
}

pub async fn a_cancelled_wait_loses_nothing(cx: &mut Cx) {
    cx.log().await;
    let mut tail = cx.broker.tail(&cx.filter("log.a"), Seq::ZERO).await.unwrap();
    let writer = {
        let (broker, subject) = (cx.broker.clone(), cx.subject("log.a"));
        tokio::spawn(async move {
            for n in 0..300 {
                broker.append(one(&subject, &n.to_string())).await.unwrap().await.unwrap();
            }
        })
    };
    let mut entries = Vec::new();
    while entries.len() < 300 {
        match poll_once(&mut tail) {
            Poll::Ready(batch) => entries.extend(batch),
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    writer.await.unwrap();
    assert_eq!(bodies(&entries), numbers(0..300));
}

pub async fn a_tail_sees_subjects_that_did_not_exist(cx: &mut Cx) {
    cx.log().await;
    let mut tail = cx.broker.tail(&cx.filter("log.u.>"), Seq::ZERO).await.unwrap();
    for n in 0..300 {
        cx.put(&format!("log.u.{n}.box"), &n.to_string()).await;
    }
    assert_eq!(bodies(&take(&mut tail, 300).await), numbers(0..300));
}

pub async fn every_tail_gets_its_own_of_an_entry_with_several_subjects(cx: &mut Cx) {
    cx.log().await;
    let subjects: Vec<Subject> = (0..20).map(|n| cx.subject(&format!("log.{n}.box"))).collect();
    let mut tails = Vec::new();
    for n in 0..20 {
        for filter in [format!("log.{n}.>"), format!("log.{n}.box")] {
            tails.push((n, cx.broker.tail(&cx.filter(&filter), Seq::ZERO).await.unwrap()));
        }
    }
    for body in ["0", "1", "2"] {
        cx.append(Append { subjects: subjects.clone(), ..one(&subjects[0], body) }).await.unwrap();
    }
    for (n, tail) in &mut tails {
        let entries = take(tail, 3).await;
        assert_eq!(bodies(&entries), numbers(0..3));
        assert!(entries.iter().all(|entry| entry.subject == subjects[*n]));
    }
}

pub async fn a_tail_ends_when_the_broker_closes(cx: &mut Cx) {
    cx.log().await;
    let mut tail = cx.broker.tail(&cx.filter("log.a"), Seq::ZERO).await.unwrap();
    assert!(poll_once(&mut tail).is_pending());
    let waiting = tokio::spawn(async move { tail.next_batch(ReadLimit::entries(1)).await });
    cx.broker.close().await;
    assert_eq!(waiting.await.unwrap(), Err(ReadError::Closed));
}
