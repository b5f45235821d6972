//! Appending: order, durability, idempotence, expectations, limits, refusals; streams and closing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;

use super::{Cx, bodies, expect, growing, id, numbers, one, seqs};
use crate::{
    Append, AppendError, ENTRY_BODY_BYTES_MAX, EntryId, Expect, KvError, OpenError, ReadError, ReadFrom,
    ReadLimit, SUBJECTS_MAX, Seq, StreamSpec, Subject, Timestamp,
};

pub async fn appends_of_one_caller_keep_their_order(cx: &mut Cx) {
    cx.log().await;
    let mut pending = Vec::new();
    for n in 0..300 {
        let subject = cx.subject(["log.a", "log.b", "log.c"][n % 3]);
        pending.push(cx.broker.append(one(&subject, &n.to_string())).await.unwrap());
    }
    let mut acked = Vec::new();
    for append in pending {
        let appended = append.await.unwrap();
        assert!(!appended.duplicate);
        acked.push(appended.seq);
    }
    assert!(growing(&acked), "{acked:?}");
    let entries = cx.all("log.>").await;
    assert_eq!(bodies(&entries), numbers(0..300));
    assert_eq!(seqs(&entries), acked);
}

pub async fn a_dropped_acknowledgement_does_not_take_the_append_back(cx: &mut Cx) {
    cx.log().await;
    drop(cx.broker.append(one(&cx.subject("log.a"), "0")).await.unwrap());
    cx.put("log.a", "1").await;
    assert_eq!(bodies(&cx.all("log.a").await), numbers(0..2));
}

pub async fn an_entry_is_read_back_as_it_was_appended(cx: &mut Cx) {
    cx.log().await;
    let before = Timestamp::now();
    let headers = vec![("from".to_owned(), "messi".to_owned()), ("empty".to_owned(), String::new())];
    for (at, body) in
        [Bytes::new(), Bytes::from_static(b"\0\xff\n"), Bytes::from(vec![7; 100_000])].into_iter().enumerate()
    {
        let name = format!("id-{at}!~");
        let append =
            Append { headers: headers.clone(), ..Append::new(cx.subject("log.a"), id(&name), body.clone()) };
        let seq = cx.append(append).await.unwrap().seq;
        let page = cx.read("log.a", ReadFrom::Before(Seq(seq.0 + 1)), 1).await;
        let entry = &page.entries[0];
        assert_eq!((&entry.subject, entry.seq), (&cx.subject("log.a"), seq));
        assert_eq!((entry.id.as_str(), &entry.body), (name.as_str(), &body));
        let sorted = |headers: &crate::Headers| {
            let mut headers = headers.clone();
            headers.sort();
            headers
        };
        assert_eq!(sorted(&entry.headers), sorted(&headers));
        // The broker's clock may be another machine's, but not a day off.
        assert!(entry.time.0 > before.0 - 86_400_000_000 && entry.time.0 < before.0 + 86_400_000_000);
    }
}

pub async fn acknowledged_entries_are_there_after_reopening(cx: &mut Cx) {
    cx.log().await;
    let acked = cx.put_many("log.a", 100).await;
    let subjects = vec![cx.subject("log.b"), cx.subject("log.c")];
    let group = Append { subjects, ..one(&cx.subject("log.b"), "both") };
    cx.append(group).await.unwrap();
    let before = cx.all("log.>").await;
    if !cx.reopen().await {
        return;
    }
    assert_eq!(cx.all("log.>").await, before);
    assert_eq!(seqs(&cx.all("log.a").await), acked);
    assert_eq!(cx.broker.last(&cx.subject("log.a")).await.unwrap(), *acked.last().unwrap());
    // The stream is there too, and the log goes on.
    cx.log().await;
    assert!(cx.put("log.a", "100").await.seq > before.last().unwrap().seq);
    assert_eq!(bodies(&cx.all("log.a").await), numbers(0..101));
}

pub async fn a_repeated_id_stores_nothing_and_gets_the_first_sequence(cx: &mut Cx) {
    cx.log().await;
    let first = one(&cx.subject("log.a"), "0");
    let seq = cx.append(first.clone()).await.unwrap().seq;
    cx.put("log.a", "1").await;
    for _ in 0..3 {
        let again = cx.append(first.clone()).await.unwrap();
        assert_eq!((again.seq, again.duplicate), (seq, true));
    }
    // The id counts, not the rest.
    let other = Append { id: first.id.clone(), ..one(&cx.subject("log.b"), "other") };
    let again = cx.append(other).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (seq, true));
    assert_eq!(bodies(&cx.all("log.>").await), numbers(0..2));
}

pub async fn a_repeated_id_in_flight_is_stored_once(cx: &mut Cx) {
    cx.log().await;
    for _ in 0..20 {
        let append = one(&cx.subject("log.a"), "x");
        let first = cx.broker.append(append.clone()).await.unwrap();
        let second = cx.broker.append(append).await.unwrap();
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!((first.duplicate, second.duplicate), (false, true));
        assert_eq!(first.seq, second.seq);
    }
    assert_eq!(cx.all("log.a").await.len(), 20);
}

pub async fn ids_repeated_among_many_in_flight_are_each_stored_once(cx: &mut Cx) {
    cx.log().await;
    // Each number comes twice or three times, soon or late after its first time.
    let numbered: Vec<Append> =
        (0..100).map(|n| one(&cx.subject(&format!("log.{}", n % 3)), &n.to_string())).collect();
    let order: Vec<usize> = (0..100).flat_map(|n| [n, n / 2, if n % 7 == 0 { n } else { n / 3 }]).collect();
    let mut pending = Vec::new();
    for n in &order {
        pending.push(cx.broker.append(numbered[*n].clone()).await.unwrap());
    }
    let mut first = HashMap::new();
    for (n, append) in order.iter().zip(pending) {
        let appended = append.await.unwrap();
        assert_eq!(appended.duplicate, first.contains_key(n), "{n}");
        assert_eq!(*first.entry(n).or_insert(appended.seq), appended.seq, "{n}");
    }
    let entries = cx.all("log.>").await;
    assert_eq!(bodies(&entries), numbers(0..100));
    assert_eq!(seqs(&entries), numbered.iter().enumerate().map(|(n, _)| first[&n]).collect::<Vec<_>>());
}

pub async fn of_many_callers_with_one_id_one_stores(cx: &mut Cx) {
    cx.log().await;
    let append = one(&cx.subject("log.a"), "x");
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (broker, append) = (cx.broker.clone(), append.clone());
        callers.spawn(async move { broker.append(append).await.unwrap().await.unwrap() });
    }
    let answers = callers.join_all().await;
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
    assert_eq!(answers.iter().map(|answer| answer.seq).collect::<HashSet<_>>().len(), 1);
    assert_eq!(cx.all("log.a").await.len(), 1);
}

pub async fn a_repeated_id_is_known_after_reopening(cx: &mut Cx) {
    cx.log().await;
    let append = one(&cx.subject("log.a"), "x");
    let first = cx.append(append.clone()).await.unwrap();
    if cx.reopen().await {
        let again = cx.append(append).await.unwrap();
        assert_eq!((again.seq, again.duplicate), (first.seq, true));
    }
}

pub async fn a_repeated_id_is_known_after_its_entry_was_trimmed(cx: &mut Cx) {
    cx.log().await;
    let append = one(&cx.subject("log.a"), "x");
    let first = cx.append(append.clone()).await.unwrap();
    assert_eq!(cx.broker.trim(&cx.subject("log.a"), first.seq).await.unwrap(), 1);
    assert!(cx.append(append).await.unwrap().duplicate);
    assert!(cx.all("log.a").await.is_empty());
}

pub async fn the_same_id_in_another_stream_is_another_append(cx: &mut Cx) {
    cx.log().await;
    cx.broker.open_stream(&cx.spec("MAIL", "mail.>", None)).await.unwrap();
    let append = one(&cx.subject("log.a"), "x");
    cx.append(append.clone()).await.unwrap();
    let other = Append { subjects: vec![cx.subject("mail.a")], ..append };
    assert!(!cx.append(other).await.unwrap().duplicate);
    assert_eq!(cx.all("mail.>").await.len(), 1);
}

pub async fn several_subjects_get_the_entry_in_the_order_given(cx: &mut Cx) {
    cx.log().await;
    cx.put("log.d", "before").await;
    let names = ["log.c", "log.a", "log.b"];
    let subjects: Vec<Subject> = names.iter().map(|name| cx.subject(name)).collect();
    let append = Append { subjects: subjects.clone(), ..one(&subjects[0], "group") };
    let appended = cx.append(append.clone()).await.unwrap();
    cx.put("log.d", "after").await;
    let entries = cx.all("log.>").await;
    assert_eq!(bodies(&entries), ["before", "group", "group", "group", "after"]);
    assert!(growing(&seqs(&entries)));
    assert_eq!(entries[1].seq, appended.seq);
    assert_eq!(entries[1..4].iter().map(|entry| entry.subject.clone()).collect::<Vec<_>>(), subjects);
    for (subject, entry) in subjects.iter().zip(&entries[1..4]) {
        assert_eq!(cx.broker.last(subject).await.unwrap(), entry.seq);
    }
    // Sent again, all of it is a repetition.
    let again = cx.append(append).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (appended.seq, true));
    assert_eq!(cx.all("log.>").await.len(), 5);
}

pub async fn the_most_subjects_of_one_append_are_taken(cx: &mut Cx) {
    cx.log().await;
    let subjects: Vec<Subject> = (0..SUBJECTS_MAX).map(|n| cx.subject(&format!("log.{n}"))).collect();
    cx.append(Append { subjects: subjects.clone(), ..one(&subjects[0], "group") }).await.unwrap();
    assert_eq!(cx.all("log.>").await.len(), SUBJECTS_MAX);
    let more = [subjects, vec![cx.subject("log.more")]].concat();
    let refused = cx.append(Append { subjects: more, ..one(&cx.subject("log.a"), "x") }).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))), "{refused:?}");
}

pub async fn an_expected_last_sequence_is_compared_and_set(cx: &mut Cx) {
    cx.log().await;
    let subject = cx.subject("log.a");
    let expecting = |last: Seq| Append { expect_last: expect(&subject, last), ..one(&subject, "x") };
    let conflict = cx.append(expecting(Seq(7))).await;
    assert_eq!(conflict, Err(AppendError::Conflict));
    let first = cx.append(expecting(Seq::ZERO)).await.unwrap().seq;
    // Another subject's entries do not count.
    cx.put("log.b", "y").await;
    assert_eq!(cx.append(expecting(Seq::ZERO)).await, Err(AppendError::Conflict));
    let second = cx.append(expecting(first)).await.unwrap().seq;
    assert!(second > first);
    assert_eq!(seqs(&cx.all("log.a").await), [first, second]);
}

pub async fn a_repetition_is_answered_whatever_it_expects(cx: &mut Cx) {
    cx.log().await;
    let append =
        Append { expect_last: expect(&cx.subject("log.a"), Seq::ZERO), ..one(&cx.subject("log.a"), "x") };
    let first = cx.append(append.clone()).await.unwrap();
    cx.put("log.a", "y").await;
    let again = cx.append(append).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
}

pub async fn a_fence_stops_who_was_replaced(cx: &mut Cx) {
    cx.log().await;
    let fence = cx.subject("log.fence");
    let work = |subjects: &[&str], seq: Seq| Append {
        subjects: subjects.iter().map(|name| cx.subject(name)).collect(),
        expect_last: expect(&fence, seq),
        ..one(&fence, "work")
    };
    let first = cx.put("log.fence", "first").await.seq;
    let done = work(&["log.a"], first);
    cx.append(done.clone()).await.unwrap();
    cx.append(work(&["log.a", "log.b"], first)).await.unwrap();
    let second = cx.put("log.fence", "second").await.seq;
    assert_eq!(cx.append(work(&["log.a"], first)).await, Err(AppendError::Conflict));
    assert_eq!(cx.append(work(&["log.a", "log.b"], first)).await, Err(AppendError::Conflict));
    // What was done before is known, whoever asks.
    assert!(cx.append(done).await.unwrap().duplicate);
    cx.append(work(&["log.b"], second)).await.unwrap();
    assert_eq!((cx.all("log.a").await.len(), cx.all("log.b").await.len()), (2, 2));
    cx.broker.open_stream(&cx.spec("MAIL", "mail.>", None)).await.unwrap();
    let elsewhere =
        Append { expect_last: expect(&cx.subject("mail.a"), Seq::ZERO), ..work(&["log.a"], second) };
    assert!(matches!(cx.append(elsewhere).await, Err(AppendError::Refused(_))));
}

pub async fn of_racing_expectations_one_is_met(cx: &mut Cx) {
    cx.log().await;
    let mut last = Seq::ZERO;
    for _ in 0..5 {
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let append =
                Append { expect_last: expect(&cx.subject("log.a"), last), ..one(&cx.subject("log.a"), "x") };
            let broker = cx.broker.clone();
            callers.spawn(async move { broker.append(append).await?.await });
        }
        let mut winners = 0;
        for answer in callers.join_all().await {
            match answer {
                Ok(appended) => (winners, last) = (winners + 1, appended.seq),
                Err(error) => assert!(matches!(error, AppendError::Conflict), "{error:?}"),
            }
        }
        assert_eq!(winners, 1);
    }
    assert_eq!(cx.all("log.a").await.len(), 5);
}

pub async fn a_full_subject_refuses_until_it_is_trimmed(cx: &mut Cx) {
    cx.broker.open_stream(&cx.spec("LOG", "log.>", Some(3))).await.unwrap();
    let kept = cx.put_many("log.a", 3).await;
    let more = one(&cx.subject("log.a"), "more");
    assert_eq!(cx.append(more.clone()).await, Err(AppendError::Full(cx.subject("log.a"))));
    cx.put_many("log.b", 3).await;
    assert_eq!(bodies(&cx.all("log.a").await), numbers(0..3));
    cx.broker.trim(&cx.subject("log.a"), kept[0]).await.unwrap();
    cx.append(more).await.unwrap();
    assert_eq!(bodies(&cx.all("log.a").await), ["1", "2", "more"]);
    assert!(matches!(cx.append(one(&cx.subject("log.a"), "x")).await, Err(AppendError::Full(_))));
}

pub async fn a_full_subject_of_several_is_left_out(cx: &mut Cx) {
    cx.broker.open_stream(&cx.spec("LOG", "log.>", Some(1))).await.unwrap();
    cx.put("log.b", "x").await;
    let subjects = vec![cx.subject("log.a"), cx.subject("log.b"), cx.subject("log.c")];
    let group = Append { subjects, ..one(&cx.subject("log.a"), "group") };
    let appended = cx.append(group.clone()).await.unwrap();
    assert_eq!((appended.duplicate, &appended.full[..]), (false, &[cx.subject("log.b")][..]));
    assert!(cx.append(group.clone()).await.unwrap().duplicate);
    assert_eq!(bodies(&cx.all("log.>").await), ["x", "group", "group"]);
    assert_eq!(cx.broker.last(&cx.subject("log.a")).await.unwrap(), appended.seq);
    let again = Append { id: EntryId::unique(), ..group };
    assert_eq!(cx.append(again).await, Err(AppendError::Full(cx.subject("log.a"))));
    let subjects = vec![cx.subject("log.a"), cx.subject("log.d")];
    let copied = Append { subjects, copies: 1, ..one(&cx.subject("log.a"), "a copy of nothing") };
    assert_eq!(cx.append(copied).await, Err(AppendError::Full(cx.subject("log.a"))));
    assert_eq!(cx.broker.last(&cx.subject("log.d")).await.unwrap(), Seq::ZERO);
}

pub async fn copies_of_many_appends_are_all_there_in_order(cx: &mut Cx) {
    const COUNT: usize = 500;
    cx.log().await;
    let mut tail = cx.broker.tail(&cx.filter("log.sent.*"), Seq::ZERO).await.unwrap();
    let appends: Vec<Append> = (0..COUNT)
        .map(|n| {
            let subjects = vec![cx.subject(["log.a", "log.b", "log.c"][n % 3]), cx.subject("log.sent.x")];
            let headers = vec![("Number".to_owned(), n.to_string())];
            Append { subjects, copies: 1, headers, ..one(&cx.subject("log.a"), &n.to_string()) }
        })
        .collect();
    let mut pending = Vec::new();
    for append in &appends {
        pending.push(cx.broker.append(append.clone()).await.unwrap());
    }
    for append in pending {
        let appended = append.await.unwrap();
        assert!(!appended.duplicate && appended.full.is_empty());
    }
    let copies = cx.all("log.sent.x").await;
    assert_eq!(bodies(&copies), numbers(0..COUNT));
    assert!(growing(&seqs(&copies)));
    for (entry, append) in copies.iter().zip(&appends) {
        assert_eq!((&entry.id, &entry.headers), (&append.id, &append.headers));
    }
    assert_eq!(super::take(&mut tail, COUNT).await, copies);
    assert_eq!(cx.broker.last(&cx.subject("log.sent.x")).await.unwrap(), copies[COUNT - 1].seq);
    for at in [1, 7, 250, COUNT - 1] {
        let page = cx.read("log.sent.x", ReadFrom::After(copies[at - 1].seq), 9).await;
        assert_eq!(page.entries, copies[at..(at + 9).min(COUNT)], "after {at}");
        assert_eq!(page.more, at + 9 < COUNT);
        let page = cx.read("log.sent.x", ReadFrom::Before(copies[at].seq), 9).await;
        let before: Vec<_> = copies[at.saturating_sub(9)..at].iter().rev().cloned().collect();
        assert_eq!((page.entries, page.more), (before, at > 9), "before {at}");
        let mut later = cx.broker.tail(&cx.filter("log.sent.x"), copies[at - 1].seq).await.unwrap();
        assert_eq!(super::take(&mut later, COUNT - at).await, copies[at..], "a tail after {at}");
    }
    // What is trimmed is old enough, and the rest is there.
    cx.broker.trim(&cx.subject("log.sent.x"), copies[300].seq).await.unwrap();
    let left = cx.all("log.sent.x").await;
    assert!(left.len() >= COUNT - 301 && left[..] == copies[COUNT - left.len()..], "{}", left.len());
    cx.broker.trim(&cx.subject("log.sent.x"), copies[COUNT - 1].seq).await.unwrap();
    assert!(cx.all("log.sent.x").await.is_empty());
}

pub async fn what_can_never_be_stored_is_refused(cx: &mut Cx) {
    cx.log().await;
    let good = one(&cx.subject("log.a"), "x");
    let elsewhere = cx.subject("elsewhere.a");
    let bad = [
        Append { subjects: Vec::new(), ..good.clone() },
        Append { subjects: vec![good.subjects[0].clone(), good.subjects[0].clone()], ..good.clone() },
        Append { subjects: vec![elsewhere.clone()], ..good.clone() },
        Append { subjects: vec![good.subjects[0].clone(), elsewhere], ..good.clone() },
        Append { body: vec![0; ENTRY_BODY_BYTES_MAX + 1].into(), ..good.clone() },
        Append { headers: vec![("a".into(), "x".repeat(4096))], ..good.clone() },
        Append {
            subjects: vec![cx.subject("log.a"), cx.subject("log.b")],
            expect_last: expect(&cx.subject("log.a"), Seq::ZERO),
            ..good.clone()
        },
    ];
    for append in bad {
        let answer = cx.append(append).await;
        assert!(matches!(answer, Err(AppendError::Refused(_))), "{answer:?}");
    }
    assert!(cx.all("log.>").await.is_empty());
    cx.append(Append { body: vec![0; ENTRY_BODY_BYTES_MAX].into(), ..good }).await.unwrap();
}

pub async fn a_failed_append_leaves_those_beside_it_alone(cx: &mut Cx) {
    cx.broker.open_stream(&cx.spec("LOG", "log.>", Some(50))).await.unwrap();
    let mut pending = Vec::new();
    for n in 0..50 {
        let good = one(&cx.subject("log.a"), &n.to_string());
        let bad = Append {
            expect_last: expect(&cx.subject("log.b"), Seq(u64::MAX / 4)),
            ..one(&cx.subject("log.b"), "bad")
        };
        pending.push((cx.broker.append(good).await.unwrap(), cx.broker.append(bad).await.unwrap()));
    }
    for (good, bad) in pending {
        good.await.unwrap();
        assert_eq!(bad.await, Err(AppendError::Conflict));
    }
    assert_eq!(bodies(&cx.all("log.>").await), numbers(0..50));
}

pub async fn a_stream_with_other_settings_is_refused_and_left_alone(cx: &mut Cx) {
    let spec = cx.spec("LOG", "log.>", Some(2));
    cx.broker.open_stream(&spec).await.unwrap();
    cx.broker.open_stream(&spec).await.unwrap();
    let others = [
        StreamSpec { entries_per_subject_max: Some(1), ..spec.clone() },
        StreamSpec { filters: vec![cx.filter("log.*")], ..spec.clone() },
        StreamSpec { filters: vec![cx.filter("log.>"), cx.filter("mail.>")], ..spec.clone() },
    ];
    for other in others {
        let answer = cx.broker.open_stream(&other).await;
        assert!(matches!(&answer, Err(OpenError::Differs { name, .. }) if *name == spec.name), "{answer:?}");
    }
    cx.broker.open_stream(&spec).await.unwrap();
    cx.put_many("log.a", 2).await;
    assert!(matches!(cx.append(one(&cx.subject("log.a"), "x")).await, Err(AppendError::Full(_))));
}

pub async fn the_limit_of_a_stream_can_be_raised(cx: &mut Cx) {
    let spec = cx.spec("LOG", "log.>", Some(1));
    cx.broker.open_stream(&spec).await.unwrap();
    cx.put("log.a", "1").await;
    assert!(matches!(cx.append(one(&cx.subject("log.a"), "x")).await, Err(AppendError::Full(_))));
    for entries_per_subject_max in [Some(2), None] {
        cx.broker.open_stream(&StreamSpec { entries_per_subject_max, ..spec.clone() }).await.unwrap();
        cx.append(one(&cx.subject("log.a"), "more")).await.unwrap();
    }
    assert!(matches!(cx.broker.open_stream(&spec).await, Err(OpenError::Differs { .. })));
    assert_eq!(bodies(&cx.all("log.a").await), ["1", "more", "more"]);
}

pub async fn streams_that_make_no_sense_are_invalid(cx: &mut Cx) {
    cx.log().await;
    let good = cx.spec("OTHER", "other.>", None);
    let bad = [
        StreamSpec { name: String::new(), ..good.clone() },
        StreamSpec { name: "a.b".into(), ..good.clone() },
        StreamSpec { filters: Vec::new(), ..good.clone() },
        StreamSpec { filters: vec![cx.filter("log.a")], ..good.clone() },
        StreamSpec { filters: vec![cx.filter("other.>"), cx.filter("*.a")], ..good.clone() },
    ];
    for spec in bad {
        let answer = cx.broker.open_stream(&spec).await;
        assert!(matches!(answer, Err(OpenError::Invalid(_))), "{spec:?}: {answer:?}");
    }
    cx.broker.open_stream(&good).await.unwrap();
}

pub async fn sequences_grow_on_after_everything_was_trimmed(cx: &mut Cx) {
    cx.log().await;
    let last = *cx.put_many("log.a", 10).await.last().unwrap();
    cx.broker.trim(&cx.subject("log.a"), last).await.unwrap();
    if cx.reopen().await {
        assert!(cx.put("log.a", "x").await.seq > last);
    }
}

pub async fn closing_finishes_what_is_queued_and_refuses_the_rest(cx: &mut Cx) {
    cx.log().await;
    let subject = cx.subject("log.a");
    let mut pending = Vec::new();
    for n in 0..100 {
        pending.push(cx.broker.append(one(&subject, &n.to_string())).await.unwrap());
    }
    cx.broker.close().await;
    for append in pending {
        append.await.unwrap();
    }
    let late = cx.append(one(&subject, "late")).await;
    assert!(matches!(late, Err(AppendError::NotStored(_))), "{late:?}");
    let limit = ReadLimit::entries(1);
    assert_eq!(
        cx.broker.read(&cx.filter("log.a"), ReadFrom::End, limit).await.unwrap_err(),
        ReadError::Closed
    );
    assert_eq!(cx.broker.last(&subject).await.unwrap_err(), ReadError::Closed);
    assert_eq!(cx.broker.tail(&cx.filter("log.a"), Seq::ZERO).await.err(), Some(ReadError::Closed));
    let put = cx.broker.kv_put(&cx.bucket("b"), "key", Bytes::new(), Expect::Any, None).await;
    assert!(matches!(put, Err(KvError::Unavailable(_))), "{put:?}");
    let lease = Duration::from_secs(1);
    assert_eq!(cx.broker.queue(&cx.queue_name("q"), &subject, lease).await.err(), Some(ReadError::Closed));
    // Twice is once.
    cx.broker.close().await;
    if cx.reopen().await {
        assert_eq!(bodies(&cx.all("log.a").await), numbers(0..100));
    }
}
