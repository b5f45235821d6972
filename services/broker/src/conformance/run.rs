//! Runs: many appends in an order that holds, whatever fails.

use super::{Cx, bodies, expect, numbers, one, seqs};
use crate::{Append, AppendError, ReadFrom, Seq};

const COUNT: usize = 1_200;

fn part(cx: &Cx, subject: &str, body: &str) -> Append {
    Append { is_fresh: true, ..one(&cx.subject(subject), body) }
}

pub async fn a_run_is_stored_in_its_order_where_it_was_told(cx: &mut Cx) {
    cx.log().await;
    let fence = cx.put("log.fence", "first").await.seq;
    let run: Vec<Append> = (0..COUNT)
        .map(|n| Append {
            headers: vec![("Number".into(), n.to_string())],
            expect_last: expect(&cx.subject("log.fence"), fence),
            ..part(cx, ["log.a", "log.b", "log.c"][n % 3], &n.to_string())
        })
        .collect();
    let answers = cx.broker.append_run(run.clone()).await;
    for (at, subject) in ["log.a", "log.b", "log.c"].into_iter().enumerate() {
        let entries = cx.all(subject).await;
        let mine = || (at..COUNT).step_by(3);
        assert_eq!(bodies(&entries), mine().map(|n| n.to_string()).collect::<Vec<_>>());
        let told: Vec<Seq> = mine().map(|n| answers[n].as_ref().unwrap().seq).collect();
        assert_eq!(seqs(&entries), told);
        for (entry, n) in entries.iter().zip(mine()) {
            assert_eq!((&entry.id, &entry.headers), (&run[n].id, &run[n].headers));
        }
        let page = cx.read(subject, ReadFrom::After(told[100]), 7).await;
        assert_eq!(page.entries, entries[101..108]);
    }
}

pub async fn a_run_has_entries_with_several_subjects(cx: &mut Cx) {
    cx.log().await;
    let subjects = |n: usize| match n % 3 {
        0 => vec![cx.subject("log.a")],
        1 => vec![cx.subject("log.b"), cx.subject("log.a")],
        _ => vec![cx.subject("log.b")],
    };
    let run: Vec<Append> =
        (0..COUNT).map(|n| Append { subjects: subjects(n), ..part(cx, "log.a", &n.to_string()) }).collect();
    assert!(cx.broker.append_run(run).await.iter().all(Result::is_ok));
    let of = |left_out: usize| -> Vec<String> {
        numbers(0..COUNT).into_iter().enumerate().filter(|(n, _)| n % 3 != left_out).map(|(_, n)| n).collect()
    };
    assert_eq!(bodies(&cx.all("log.a").await), of(2));
    assert_eq!(bodies(&cx.all("log.b").await), of(0));
}

pub async fn a_run_behind_a_fence_that_fell_stores_nothing(cx: &mut Cx) {
    cx.log().await;
    let fence = cx.put("log.fence", "first").await.seq;
    cx.put("log.fence", "second").await;
    let run: Vec<Append> = (0..COUNT)
        .map(|n| Append {
            expect_last: expect(&cx.subject("log.fence"), fence),
            ..part(cx, ["log.a", "log.b"][n % 2], "x")
        })
        .collect();
    let answers = cx.broker.append_run(run).await;
    assert_eq!(answers.len(), COUNT);
    assert!(answers.iter().all(|answer| *answer == Err(AppendError::Conflict)), "{answers:?}");
    assert!(cx.all("log.a").await.is_empty() && cx.all("log.b").await.is_empty());
}

pub async fn what_is_full_or_refused_in_a_run_holds_up_nobody(cx: &mut Cx) {
    cx.broker.open_stream(&cx.spec("LOG", "log.>", Some(2))).await.unwrap();
    cx.put_many("log.full", 2).await;
    let both =
        Append { subjects: vec![cx.subject("log.full"), cx.subject("log.b")], ..part(cx, "log.b", "both") };
    let nowhere = Append { subjects: Vec::new(), ..part(cx, "log.b", "nowhere") };
    let run = vec![part(cx, "log.a", "1"), part(cx, "log.full", "2"), both, nowhere, part(cx, "log.a", "3")];
    let answers = cx.broker.append_run(run).await;
    let full = cx.subject("log.full");
    assert!(answers[0].is_ok() && answers[4].is_ok(), "{answers:?}");
    assert_eq!(answers[1], Err(AppendError::Full(full.clone())));
    assert_eq!(answers[2].as_ref().map(|appended| &appended.full[..]), Ok(&[full][..]));
    assert!(matches!(answers[3], Err(AppendError::Refused(_))), "{answers:?}");
    assert_eq!(bodies(&cx.all("log.a").await), ["1", "3"]);
    assert_eq!(bodies(&cx.all("log.b").await), ["both"]);
    assert_eq!(bodies(&cx.all("log.full").await), numbers(0..2));
}

pub async fn an_empty_run_has_no_answers(cx: &mut Cx) {
    cx.log().await;
    assert!(cx.broker.append_run(Vec::new()).await.is_empty());
}

pub async fn a_closed_broker_stores_no_run(cx: &mut Cx) {
    cx.log().await;
    cx.broker.close().await;
    let answers = cx.broker.append_run(vec![part(cx, "log.a", "x"), part(cx, "log.b", "x")]).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(AppendError::NotStored(_)))), "{answers:?}");
}
