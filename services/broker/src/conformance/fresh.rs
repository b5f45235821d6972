//! Appends under ids that nobody repeats: a broker may store several together.

use super::{Cx, bodies, numbers, one, seqs};
use crate::{Append, AppendError, EntryId, ExpectLast, PendingAppend, ReadFrom, Seq};

const COUNT: usize = 500;

fn fresh(cx: &Cx, subject: &str, body: &str) -> Append {
    Append { is_fresh: true, ..one(&cx.subject(subject), body) }
}

fn every_other(from: usize) -> Vec<String> {
    numbers(0..COUNT).into_iter().skip(from).step_by(2).collect()
}

async fn queue_all(cx: &Cx, appends: &[Append]) -> Vec<PendingAppend> {
    let mut pending = Vec::with_capacity(appends.len());
    for append in appends {
        pending.push(cx.broker.append(append.clone()).await.unwrap());
    }
    pending
}

pub async fn fresh_appends_are_found_at_the_sequences_that_were_told(cx: &mut Cx) {
    cx.log().await;
    let mut tail = cx.broker.tail(&cx.filter("log.a"), Seq::ZERO).await.unwrap();
    let appends: Vec<Append> = (0..COUNT).map(|n| fresh(cx, "log.a", &n.to_string())).collect();
    let mut told = Vec::new();
    for pending in queue_all(cx, &appends).await {
        let appended = pending.await.unwrap();
        assert!(!appended.duplicate && appended.full.is_empty());
        told.push(appended.seq);
    }
    let entries = cx.all("log.a").await;
    assert_eq!(bodies(&entries), numbers(0..COUNT));
    assert_eq!(seqs(&entries), told);
    assert!(entries.iter().zip(&appends).all(|(entry, append)| entry.id == append.id));
    assert_eq!(super::take(&mut tail, COUNT).await, entries);
    assert_eq!(cx.broker.last(&cx.subject("log.a")).await.unwrap(), told[COUNT - 1]);
    for at in [1, 100, COUNT - 1] {
        let page = cx.read("log.a", ReadFrom::After(told[at - 1]), 7).await;
        assert_eq!(page.entries, entries[at..(at + 7).min(COUNT)], "after {at}");
    }
}

pub async fn fresh_and_other_appends_keep_their_order(cx: &mut Cx) {
    cx.log().await;
    let appends: Vec<Append> = (0..COUNT)
        .map(|n| Append { is_fresh: n % 7 != 3, ..fresh(cx, ["log.a", "log.b"][n % 2], &n.to_string()) })
        .collect();
    for pending in queue_all(cx, &appends).await {
        pending.await.unwrap();
    }
    for (at, subject) in ["log.a", "log.b"].into_iter().enumerate() {
        assert_eq!(bodies(&cx.all(subject).await), every_other(at), "{subject}");
    }
    // What was not fresh is recognised, whatever went with it.
    let again = cx.append(appends[3].clone()).await.unwrap();
    assert!(again.duplicate, "{again:?}");
}

pub async fn fresh_appends_have_their_copies(cx: &mut Cx) {
    cx.log().await;
    let appends: Vec<Append> = (0..COUNT)
        .map(|n| {
            let subjects = vec![cx.subject(["log.a", "log.b"][n % 2]), cx.subject("log.sent.x")];
            Append { subjects, copies: 1, ..fresh(cx, "log.a", &n.to_string()) }
        })
        .collect();
    for pending in queue_all(cx, &appends).await {
        let appended = pending.await.unwrap();
        assert!(!appended.duplicate && appended.full.is_empty());
    }
    assert_eq!(bodies(&cx.all("log.a").await), every_other(0));
    let mut copies = bodies(&cx.all("log.sent.x").await);
    // Those of one receiver are in order; between two of them it is as they were stored.
    copies.sort_by_key(|n| n.parse::<usize>().unwrap());
    assert_eq!(copies, numbers(0..COUNT));
}

pub async fn fresh_appends_to_several_subjects_are_on_all(cx: &mut Cx) {
    cx.log().await;
    let subjects = || vec![cx.subject("log.a"), cx.subject("log.b"), cx.subject("log.c")];
    let appends: Vec<Append> =
        (0..50).map(|n| Append { subjects: subjects(), ..fresh(cx, "log.a", &n.to_string()) }).collect();
    for pending in queue_all(cx, &appends).await {
        assert!(pending.await.unwrap().full.is_empty());
    }
    for subject in ["log.a", "log.b", "log.c"] {
        assert_eq!(bodies(&cx.all(subject).await), numbers(0..50), "{subject}");
    }
}

pub async fn a_fresh_append_is_refused_like_any_other(cx: &mut Cx) {
    cx.broker.open_stream(&cx.spec("LOG", "log.>", Some(1))).await.unwrap();
    cx.append(fresh(cx, "log.a", "x")).await.unwrap();
    assert_eq!(cx.append(fresh(cx, "log.a", "y")).await, Err(AppendError::Full(cx.subject("log.a"))));
    let expect_last = Some(ExpectLast { subject: cx.subject("log.b"), seq: Seq(7) });
    let expects = Append { expect_last, ..fresh(cx, "log.b", "z") };
    assert_eq!(cx.append(expects).await, Err(AppendError::Conflict));
    let nowhere = Append { is_fresh: true, ..one(&cx.subject("elsewhere.a"), "x") };
    assert!(matches!(cx.append(nowhere).await, Err(AppendError::Refused(_))));
    let large = Append { id: EntryId::unique(), body: vec![0; 1_000_000].into(), ..fresh(cx, "log.c", "") };
    assert!(matches!(cx.append(large).await, Err(AppendError::Refused(_))));
}

pub async fn of_fresh_appends_that_nobody_gets_no_copy_stays(cx: &mut Cx) {
    const MAX: usize = 3;
    cx.broker.open_stream(&cx.spec("LOG", "log.>", Some(MAX as u64))).await.unwrap();
    for subject in ["log.a", "log.b"] {
        cx.put_many(subject, MAX).await;
    }
    let to = |subjects: &[&str], body: &str| {
        let subjects = subjects.iter().map(|subject| cx.subject(subject)).collect();
        Append { subjects, copies: 1, ..fresh(cx, "log.a", body) }
    };
    let appends = [
        to(&["log.c", "log.sent.x"], "0"),
        to(&["log.a", "log.b", "log.sent.x"], "nobody gets this"),
        to(&["log.c", "log.sent.x"], "1"),
    ];
    let mut outcomes = Vec::new();
    for pending in queue_all(cx, &appends).await {
        outcomes.push(pending.await.map(|appended| appended.full));
    }
    assert_eq!(outcomes, [Ok(vec![]), Err(AppendError::Full(cx.subject("log.a"))), Ok(vec![])]);
    let mut copies = bodies(&cx.all("log.sent.x").await);
    copies.sort();
    assert_eq!(copies, ["0", "1"]);
}

pub async fn closing_finishes_fresh_appends(cx: &mut Cx) {
    cx.log().await;
    let appends: Vec<Append> = (0..COUNT).map(|n| fresh(cx, "log.a", &n.to_string())).collect();
    let pending = queue_all(cx, &appends).await;
    cx.broker.close().await;
    for pending in pending {
        pending.await.unwrap();
    }
    if cx.reopen().await {
        assert_eq!(bodies(&cx.all("log.a").await), numbers(0..COUNT));
    }
}
