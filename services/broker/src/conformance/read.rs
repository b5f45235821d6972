//! Reading, finding the last, trimming.

use std::sync::Arc;

use super::{Cx, bodies, expect, growing, numbers, one, seqs};
use crate::{Append, Entry, Expect, Filter, ReadError, ReadFrom, ReadLimit, Seq, Subject, Timestamp};

pub async fn a_read_goes_on_where_the_one_before_ended(cx: &mut Cx) {
    cx.log().await;
    let seqs_of = cx.put_many("log.a", 10).await;
    cx.put_many("log.b", 5).await;
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    for expected in [3, 3, 3, 1] {
        let after = entries.last().map_or(Seq::ZERO, |entry| entry.seq);
        let page = cx.read("log.a", ReadFrom::After(after), 3).await;
        assert_eq!(page.entries.len(), expected);
        entries.extend(page.entries);
        assert_eq!(page.more, entries.len() < 10);
    }
    assert_eq!(seqs(&entries), seqs_of);
    let end = cx.read("log.a", ReadFrom::After(seqs_of[9]), 3).await;
    assert!(end.entries.is_empty() && !end.more);
    let none = cx.read("log.nobody", ReadFrom::After(Seq::ZERO), 3).await;
    assert!(none.entries.is_empty() && !none.more);
}

pub async fn a_read_backward_is_newest_first(cx: &mut Cx) {
    cx.log().await;
    let forward = cx.put_many("log.a", 10).await;
    cx.put_many("log.b", 5).await;
    let page = cx.read("log.a", ReadFrom::End, 4).await;
    assert_eq!(bodies(&page.entries), ["9", "8", "7", "6"]);
    assert!(page.more);
    let page = cx.read("log.a", ReadFrom::Before(forward[6]), 100).await;
    assert_eq!(bodies(&page.entries), ["5", "4", "3", "2", "1", "0"]);
    assert!(!page.more);
    let page = cx.read("log.a", ReadFrom::Before(forward[0]), 100).await;
    assert!(page.entries.is_empty() && !page.more);
    assert!(cx.read("log.nobody", ReadFrom::End, 1).await.entries.is_empty());
}

pub async fn whichever_limit_comes_first_ends_a_page(cx: &mut Cx) {
    cx.log().await;
    for _ in 0..10 {
        cx.put("log.a", &"x".repeat(1000)).await;
    }
    let read = async |from, entries_max, bytes_max| {
        let limit = ReadLimit { entries_max, bytes_max };
        let page = cx.broker.read(&cx.filter("log.a"), from, limit).await.unwrap();
        (page.entries.len(), page.more)
    };
    for from in [ReadFrom::After(Seq::ZERO), ReadFrom::End, ReadFrom::Since(Timestamp(0))] {
        assert_eq!(read(from, 4, 1_000_000).await, (4, true));
        assert_eq!(read(from, 100, 3_500).await, (3, true));
        assert_eq!(read(from, 100, 10_000).await, (10, false));
        assert_eq!(read(from, 10, 1_000_000).await, (10, false));
        // At least one, whatever its size.
        assert_eq!(read(from, 100, 10).await, (1, true));
    }
}

pub async fn a_read_by_time_begins_with_the_first_stored_then_or_later(cx: &mut Cx) {
    cx.log().await;
    cx.put_many("log.a", 40).await;
    let entries = cx.all("log.a").await;
    assert!(entries.windows(2).all(|pair| pair[0].time <= pair[1].time));
    for at in [0, 1, 20, 39] {
        let since = ReadFrom::Since(entries[at].time);
        let page = cx.read("log.a", since, 100).await;
        let first = entries.iter().position(|entry| entry.time >= entries[at].time).unwrap();
        assert_eq!(page.entries, entries[first..]);
    }
    let later = Timestamp(entries[39].time.0 + 1);
    assert!(cx.read("log.a", ReadFrom::Since(later), 100).await.entries.is_empty());
}

pub async fn wildcards_find_their_subjects_in_the_order_of_the_stream(cx: &mut Cx) {
    cx.log().await;
    let names = [
        "log.u.messi.a",
        "log.u.messi.b",
        "log.u.lineker.a",
        "log.u.lineker",
        "log.g.all",
        "log.u.messi.b.c",
    ];
    let mut appended = Vec::new();
    for n in 0..30 {
        appended.push((names[n % names.len()], cx.put(names[n % names.len()], &n.to_string()).await.seq));
    }
    let prefix = cx.subject("log").as_str().to_owned();
    for filter in [
        "log.>",
        "log.u.messi.*",
        "log.u.>",
        "log.u.*.a",
        "log.*.messi.>",
        "log.u.messi.a",
        "log.*",
        "log.u.nobody.>",
    ] {
        let matching = |name: &str| cx.filter(filter).matches(&format!("{prefix}{}", &name["log".len()..]));
        let expected: Vec<Seq> =
            appended.iter().filter(|(name, _)| matching(name)).map(|(_, seq)| *seq).collect();
        assert_eq!(seqs(&cx.all(filter).await), expected, "{filter}");
        let mut backward = seqs(&cx.read(filter, ReadFrom::End, 100).await.entries);
        backward.reverse();
        assert_eq!(backward, expected, "{filter}");
    }
}

pub async fn paging_through_entries_with_several_subjects_shows_each_once(cx: &mut Cx) {
    cx.log().await;
    for n in 0..20 {
        let subjects: Vec<Subject> = (0..=n % 4).map(|at| cx.subject(&format!("log.{at}"))).collect();
        cx.append(Append { subjects, ..one(&cx.subject("log.0"), &n.to_string()) }).await.unwrap();
    }
    let all = cx.all("log.>").await;
    assert_eq!(all.len(), 5 * (1 + 2 + 3 + 4));
    assert!(growing(&seqs(&all)));
    for size in [1, 2, 3, 7] {
        let mut forward: Vec<Arc<Entry>> = Vec::new();
        let mut from = ReadFrom::After(Seq::ZERO);
        loop {
            let page = cx.read("log.>", from, size).await;
            forward.extend(page.entries);
            if !page.more {
                break;
            }
            from = ReadFrom::After(forward.last().unwrap().seq);
        }
        assert_eq!(forward, all, "forward by {size}");
        let mut backward: Vec<Arc<Entry>> = Vec::new();
        let mut from = ReadFrom::End;
        loop {
            let page = cx.read("log.>", from, size).await;
            backward.extend(page.entries);
            if !page.more {
                break;
            }
            from = ReadFrom::Before(backward.last().unwrap().seq);
        }
        backward.reverse();
        assert_eq!(backward, all, "backward by {size}");
    }
}

pub async fn a_read_sees_every_acknowledged_append(cx: &mut Cx) {
    cx.log().await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (broker, subject) = (cx.broker.clone(), cx.subject(&format!("log.{task}")));
        tasks.spawn(async move {
            for n in 1..=50_usize {
                let seq = broker.append(one(&subject, "x")).await.unwrap().await.unwrap().seq;
                assert_eq!(broker.last(&subject).await.unwrap(), seq);
                let filter = Filter::from(&subject);
                let page =
                    broker.read(&filter, ReadFrom::After(Seq::ZERO), ReadLimit::entries(100)).await.unwrap();
                assert_eq!((page.entries.len(), page.entries[n - 1].seq), (n, seq));
            }
        });
    }
    tasks.join_all().await;
}

pub async fn a_filter_over_no_stream_or_several_is_an_error(cx: &mut Cx) {
    cx.log().await;
    cx.broker.open_stream(&cx.spec("MAIL", "mail.>", None)).await.unwrap();
    cx.put("log.a", "x").await;
    for bad in ["elsewhere.a", "elsewhere.>", ">", "*.a"] {
        let answer = cx.broker.read(&cx.filter(bad), ReadFrom::End, ReadLimit::entries(1)).await;
        assert_eq!(answer.err(), Some(ReadError::NoStream(cx.filter(bad))), "{bad}");
        let answer = cx.broker.tail(&cx.filter(bad), Seq::ZERO).await;
        assert_eq!(answer.err(), Some(ReadError::NoStream(cx.filter(bad))), "{bad}");
    }
    let elsewhere = cx.subject("elsewhere.a");
    assert!(matches!(cx.broker.last(&elsewhere).await, Err(ReadError::NoStream(_))));
    assert!(matches!(cx.broker.trim(&elsewhere, Seq(1)).await, Err(ReadError::NoStream(_))));
}

pub async fn the_last_of_a_subject_is_its_newest_entry(cx: &mut Cx) {
    cx.log().await;
    let subject = cx.subject("log.a");
    assert_eq!(cx.broker.last(&subject).await.unwrap(), Seq::ZERO);
    for n in 0..5 {
        let seq = cx.put("log.a", &n.to_string()).await.seq;
        cx.put("log.b", "other").await;
        assert_eq!(cx.broker.last(&subject).await.unwrap(), seq);
    }
}

pub async fn a_trim_removes_and_counts_what_is_old_enough(cx: &mut Cx) {
    cx.log().await;
    let subject = cx.subject("log.a");
    assert_eq!(cx.broker.trim(&subject, Seq(1_000_000)).await.unwrap(), 0);
    let seqs_of = cx.put_many("log.a", 10).await;
    cx.put_many("log.b", 3).await;
    assert_eq!(cx.broker.trim(&subject, Seq(seqs_of[0].0 - 1)).await.unwrap(), 0);
    assert_eq!(cx.broker.trim(&subject, seqs_of[3]).await.unwrap(), 4);
    assert_eq!(cx.broker.trim(&subject, seqs_of[3]).await.unwrap(), 0);
    assert_eq!(bodies(&cx.all("log.a").await), numbers(4..10));
    assert_eq!(bodies(&cx.read("log.a", ReadFrom::End, 100).await.entries).len(), 6);
    assert_eq!(cx.broker.last(&subject).await.unwrap(), seqs_of[9]);
    assert_eq!(cx.broker.trim(&subject, Seq(seqs_of[9].0 + 1_000_000)).await.unwrap(), 6);
    assert!(cx.all("log.a").await.is_empty());
    assert_eq!(cx.broker.last(&subject).await.unwrap(), Seq::ZERO);
    assert_eq!(bodies(&cx.all("log.>").await), numbers(0..3));
    // An emptied subject is as good as new.
    let next = Append { expect_last: expect(&subject, Seq::ZERO), ..one(&subject, "new") };
    let seq = cx.append(next).await.unwrap().seq;
    assert!(seq > seqs_of[9]);
    assert_eq!(bodies(&cx.all("log.a").await), ["new"]);
    if cx.reopen().await {
        assert_eq!(bodies(&cx.all("log.>").await), ["0", "1", "2", "new"]);
        assert_eq!(cx.broker.last(&subject).await.unwrap(), seq);
    }
}

pub async fn a_trim_of_one_subject_leaves_the_entry_on_the_others(cx: &mut Cx) {
    cx.log().await;
    let subjects = vec![cx.subject("log.a"), cx.subject("log.b"), cx.subject("log.c")];
    for n in 0..5 {
        cx.append(Append { subjects: subjects.clone(), ..one(&subjects[0], &n.to_string()) }).await.unwrap();
    }
    let upto = Seq(1_000_000_000);
    assert_eq!(cx.broker.trim(&subjects[1], upto).await.unwrap(), 5);
    assert!(cx.all("log.b").await.is_empty());
    assert_eq!(bodies(&cx.all("log.a").await), numbers(0..5));
    assert_eq!(cx.all("log.>").await.len(), 10);
    assert_eq!(cx.broker.trim(&subjects[0], upto).await.unwrap(), 5);
    if cx.reopen().await {
        assert!(cx.all("log.b").await.is_empty() && cx.all("log.a").await.is_empty());
    }
    assert_eq!(bodies(&cx.all("log.c").await), numbers(0..5));
    assert_eq!(cx.broker.trim(&subjects[2], upto).await.unwrap(), 5);
    assert!(cx.all("log.>").await.is_empty());
}

pub async fn a_long_trim_is_complete(cx: &mut Cx) {
    cx.log().await;
    let seqs_of = cx.put_many("log.a", 3000).await;
    assert_eq!(cx.broker.trim(&cx.subject("log.a"), seqs_of[2900]).await.unwrap(), 2901);
    assert_eq!(bodies(&cx.all("log.a").await), numbers(2901..3000));
}

pub async fn the_names_of_streams_are_listed_in_order(cx: &mut Cx) {
    cx.broker.open_stream(&cx.spec("Z", "z.>", None)).await.unwrap();
    cx.broker.open_stream(&cx.spec("A", "a.>", None)).await.unwrap();
    // A bucket is no stream, whatever the broker keeps it in.
    cx.broker.open_bucket(&cx.bucket("B")).await.unwrap();
    cx.broker.kv_put(&cx.bucket("B"), "key", "value".into(), Expect::Any, None).await.unwrap();
    let names = cx.broker.stream_names().await.unwrap();
    let own: Vec<&String> = names.iter().filter(|name| name.contains(&cx.prefix)).collect();
    assert_eq!(own, [&cx.spec("A", "a.>", None).name, &cx.spec("Z", "z.>", None).name]);
}
