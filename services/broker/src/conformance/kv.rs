//! The key-value store.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::Cx;
use crate::{
    Bucket, ENTRY_BODY_BYTES_MAX, Expect, KvChange, KvEntry, KvError, KvWatch, Revision, SharedBroker,
};

/// Short enough to wait for its end.
const SHORT: Duration = Duration::from_millis(1200);
/// How often a write is tried whose time does not matter.
const WRITE_TRIES: usize = 10;

async fn put(cx: &Cx, bucket: &Bucket, key: &str, value: &str) -> Revision {
    cx.broker.kv_put(bucket, key, value.to_owned().into(), Expect::Any, None).await.unwrap()
}

async fn get(broker: &SharedBroker, bucket: &Bucket, key: &str) -> Option<(String, Revision)> {
    let entry = broker.kv_get(bucket, key).await.unwrap()?;
    assert_eq!(entry.key, key);
    Some((String::from_utf8(entry.value.to_vec()).unwrap(), entry.revision))
}

fn entry(key: &str, value: &str, revision: Revision) -> KvEntry {
    KvEntry { key: key.into(), value: value.to_owned().into(), revision }
}

pub async fn a_key_has_the_value_last_put(cx: &mut Cx) {
    let (bucket, other) = (cx.bucket("B"), cx.bucket("OTHER"));
    assert_eq!(get(&cx.broker, &bucket, "key").await, None);
    let first = put(cx, &bucket, "key", "one").await;
    assert_eq!(get(&cx.broker, &bucket, "key").await, Some(("one".into(), first)));
    let second = put(cx, &bucket, "key", "two").await;
    assert!(second > first);
    let empty = put(cx, &bucket, "a.b=c-d_E.9", "").await;
    assert!(empty > second);
    assert_eq!(get(&cx.broker, &bucket, "key").await, Some(("two".into(), second)));
    assert_eq!(get(&cx.broker, &bucket, "a.b=c-d_E.9").await, Some((String::new(), empty)));
    assert_eq!(get(&cx.broker, &other, "key").await, None);
}

pub async fn a_deleted_key_is_gone_until_it_is_put_again(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    cx.broker.kv_delete(&bucket, "key", Expect::Any).await.unwrap();
    let first = put(cx, &bucket, "key", "one").await;
    cx.broker.kv_delete(&bucket, "key", Expect::Any).await.unwrap();
    assert_eq!(get(&cx.broker, &bucket, "key").await, None);
    let again = cx.broker.kv_put(&bucket, "key", Bytes::new(), Expect::Absent, None).await.unwrap();
    assert!(again > first);
}

pub async fn a_write_happens_only_if_its_expectation_is_met(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    let write = async |value: &'static str, expect| {
        cx.broker.kv_put(&bucket, "key", value.into(), expect, None).await
    };
    assert_eq!(write("x", Expect::Revision(Revision(7))).await, Err(KvError::Conflict));
    let first = write("one", Expect::Absent).await.unwrap();
    assert_eq!(write("x", Expect::Absent).await, Err(KvError::Conflict));
    let second = write("two", Expect::Revision(first)).await.unwrap();
    assert_eq!(write("x", Expect::Revision(first)).await, Err(KvError::Conflict));
    assert_eq!(get(&cx.broker, &bucket, "key").await, Some(("two".into(), second)));
    let delete = async |expect| cx.broker.kv_delete(&bucket, "key", expect).await;
    assert_eq!(delete(Expect::Revision(first)).await, Err(KvError::Conflict));
    assert_eq!(delete(Expect::Revision(second)).await, Ok(()));
    assert_eq!(get(&cx.broker, &bucket, "key").await, None);
    assert_eq!(write("x", Expect::Revision(second)).await, Err(KvError::Conflict));
}

pub async fn racing_compare_and_sets_lose_no_count(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    put(cx, &bucket, "count", "0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (broker, bucket) = (cx.broker.clone(), bucket.clone());
        tasks.spawn(async move {
            for _ in 0..25 {
                loop {
                    let (value, revision) = get(&broker, &bucket, "count").await.unwrap();
                    let more = (value.parse::<u32>().unwrap() + 1).to_string();
                    match broker.kv_put(&bucket, "count", more.into(), Expect::Revision(revision), None).await
                    {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error, KvError::Conflict),
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(get(&cx.broker, &bucket, "count").await.unwrap().0, "100");
}

pub async fn what_is_no_key_or_too_large_is_refused(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    let long = "x".repeat(201);
    for key in ["", ".", "a..b", ".a", "a.", "a b", "a*", "a>", "é", "a/b", &long] {
        let refused = cx.broker.kv_put(&bucket, key, Bytes::new(), Expect::Any, None).await;
        assert!(matches!(refused, Err(KvError::Refused(_))), "{key:?}: {refused:?}");
        assert!(matches!(cx.broker.kv_get(&bucket, key).await, Err(KvError::Refused(_))), "{key:?}");
        assert!(matches!(cx.broker.kv_delete(&bucket, key, Expect::Any).await, Err(KvError::Refused(_))));
    }
    let large = |more: usize| Bytes::from(vec![b'x'; ENTRY_BODY_BYTES_MAX + more]);
    let refused = cx.broker.kv_put(&bucket, "key", large(1), Expect::Any, None).await;
    assert!(matches!(refused, Err(KvError::Refused(_))), "{refused:?}");
    cx.broker.kv_put(&bucket, &long[1..], large(0), Expect::Any, None).await.unwrap();
    assert_eq!(cx.broker.kv_get(&bucket, &long[1..]).await.unwrap().unwrap().value, large(0));
}

pub async fn keys_are_there_after_reopening_and_revisions_go_on(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    let first = put(cx, &bucket, "a", "one").await;
    let second = put(cx, &bucket, "b", "two").await;
    cx.broker.kv_delete(&bucket, "b", Expect::Any).await.unwrap();
    if !cx.reopen().await {
        return;
    }
    assert_eq!(get(&cx.broker, &bucket, "a").await, Some(("one".into(), first)));
    assert_eq!(get(&cx.broker, &bucket, "b").await, None);
    assert!(put(cx, &bucket, "b", "three").await > second);
}

async fn changes(watch: &mut KvWatch, count: usize) -> Vec<KvChange> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.push(watch.next().await.unwrap());
    }
    seen
}

pub async fn a_watch_gives_what_is_there_and_then_every_change(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    let mut empty = cx.broker.kv_watch(&bucket).await.unwrap();
    assert_eq!(changes(&mut empty, 1).await, [KvChange::Current]);
    let a = put(cx, &bucket, "a", "1").await;
    put(cx, &bucket, "b", "1").await;
    put(cx, &bucket, "gone", "1").await;
    let b = put(cx, &bucket, "b", "2").await;
    cx.broker.kv_delete(&bucket, "gone", Expect::Any).await.unwrap();
    let mut watch = cx.broker.kv_watch(&bucket).await.unwrap();
    let mut first = Vec::new();
    loop {
        match watch.next().await.unwrap() {
            KvChange::Put(entry) => first.push(entry),
            KvChange::Current => break,
            KvChange::Delete { key } => assert_eq!(key, "gone"),
        }
    }
    first.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(first, [entry("a", "1", a), entry("b", "2", b)]);
    let c = put(cx, &bucket, "c", "3").await;
    put(cx, &cx.bucket("OTHER"), "d", "4").await;
    cx.broker.kv_delete(&bucket, "a", Expect::Any).await.unwrap();
    let a = put(cx, &bucket, "a", "5").await;
    let expected = [
        KvChange::Put(entry("c", "3", c)),
        KvChange::Delete { key: "a".into() },
        KvChange::Put(entry("a", "5", a)),
    ];
    assert_eq!(changes(&mut watch, 3).await, expected);
    // The one that was there from the beginning saw all of it.
    assert_eq!(changes(&mut empty, 8).await[5..], expected);
}

/// Writes until it is written: on a busy machine a cluster may not answer in time, which is no finding here.
async fn patiently<F: Future<Output = Result<(), KvError>>>(write: impl Fn() -> F) {
    for _ in 0..WRITE_TRIES {
        match write().await {
            Err(KvError::Unavailable(_)) => {}
            written => return written.unwrap(),
        }
    }
    panic!("nothing is written");
}

pub async fn watches_opened_amid_writes_end_with_what_is_there(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    let writer = {
        let (broker, bucket) = (cx.broker.clone(), bucket.clone());
        tokio::spawn(async move {
            for n in 0..400_u32 {
                let key = format!("k{}", n % 7);
                let value: Bytes = n.to_string().into();
                patiently(|| async {
                    if n % 5 == 4 {
                        return broker.kv_delete(&bucket, &key, Expect::Any).await;
                    }
                    broker.kv_put(&bucket, &key, value.clone(), Expect::Any, None).await.map(drop)
                })
                .await;
            }
            patiently(|| async {
                broker.kv_put(&bucket, "end", Bytes::new(), Expect::Any, None).await.map(drop)
            })
            .await;
        })
    };
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut watch = cx.broker.kv_watch(&bucket).await.unwrap();
        watchers.spawn(async move {
            let (mut seen, mut current, mut newest) = (BTreeMap::new(), 0, 0);
            loop {
                match watch.next().await.unwrap() {
                    KvChange::Put(entry) => {
                        assert!(current == 0 || entry.revision.0 > newest, "changes are in order");
                        newest = newest.max(entry.revision.0);
                        seen.insert(entry.key, entry.value);
                    }
                    KvChange::Delete { key } => drop(seen.remove(&key)),
                    KvChange::Current => current += 1,
                }
                if current > 0 && seen.contains_key("end") {
                    assert_eq!(current, 1);
                    return seen;
                }
            }
        });
    }
    writer.await.unwrap();
    for seen in watchers.join_all().await {
        for n in 0..7 {
            let key = format!("k{n}");
            let value = cx.broker.kv_get(&bucket, &key).await.unwrap().map(|entry| entry.value);
            assert_eq!(seen.get(&key), value.as_ref(), "{key}");
        }
    }
}

pub async fn a_key_with_a_time_to_live_goes_away_by_itself(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    put(cx, &bucket, "stays", "x").await;
    let mut watch = cx.broker.kv_watch(&bucket).await.unwrap();
    changes(&mut watch, 2).await;
    let began = std::time::Instant::now();
    let put = |key: &'static str, ttl| cx.broker.kv_put(&bucket, key, "x".into(), Expect::Any, ttl);
    put("kept", Some(SHORT)).await.unwrap();
    put("goes", Some(SHORT)).await.unwrap();
    put("kept", None).await.unwrap();
    assert_eq!(get(&cx.broker, &bucket, "goes").await.unwrap().0, "x");
    loop {
        if let KvChange::Delete { key } = watch.next().await.unwrap() {
            assert_eq!(key, "goes");
            break;
        }
    }
    assert!(began.elapsed() >= SHORT);
    assert_eq!(get(&cx.broker, &bucket, "goes").await, None);
    assert!(
        get(&cx.broker, &bucket, "kept").await.is_some() && get(&cx.broker, &bucket, "stays").await.is_some()
    );
    cx.broker.kv_put(&bucket, "goes", Bytes::new(), Expect::Absent, None).await.unwrap();
}

pub async fn a_time_to_live_goes_on_over_reopening(cx: &mut Cx) {
    let bucket = cx.bucket("B");
    cx.broker.kv_put(&bucket, "goes", Bytes::new(), Expect::Any, Some(SHORT)).await.unwrap();
    if !cx.reopen().await {
        return;
    }
    // It goes while we watch, or went before and is not among what is there.
    let mut watch = cx.broker.kv_watch(&bucket).await.unwrap();
    let mut there = false;
    loop {
        match watch.next().await.unwrap() {
            KvChange::Put(_) => there = true,
            KvChange::Current if !there => break,
            KvChange::Current => {}
            KvChange::Delete { .. } => break,
        }
    }
    assert_eq!(get(&cx.broker, &bucket, "goes").await, None);
}
