//! Looking for what is wrong.

use super::{Cx, bodies};
use crate::{Expect, Flaw, ReadFrom, Severity, flaws};

/// Those about the streams of the case: servers, accounts and disks are what they are, and a replica of a new stream
/// catches up by itself.
fn of_streams(cx: &Cx, flaws: Vec<Flaw>) -> Vec<Flaw> {
    let is_meant = |flaw: &Flaw| flaw.what.contains(&cx.prefix) && flaw.kind != &flaws::STREAM_BEHIND;
    flaws.into_iter().filter(is_meant).collect()
}

pub async fn what_was_just_made_has_no_flaw(cx: &mut Cx) {
    let (spec, bucket) = (cx.spec("LOG", "log.>", Some(1000)), cx.bucket("b"));
    cx.broker.open_stream(&spec).await.unwrap();
    cx.broker.open_bucket(&bucket).await.unwrap();
    cx.put("log.a", "one").await;
    cx.broker.kv_put(&bucket, "k", "v".into(), Expect::Any, None).await.unwrap();
    let (streams, buckets) = ([spec], [bucket]);
    let flaws = cx.broker.examine(&streams, &buckets).await.unwrap();
    assert_eq!(of_streams(cx, flaws), []);
    if cx.reopen().await {
        let flaws = cx.broker.examine(&streams, &buckets).await.unwrap();
        assert_eq!(of_streams(cx, flaws), []);
    }
}

pub async fn what_is_missing_is_found(cx: &mut Cx) {
    cx.log().await;
    let streams = [cx.spec("LOG", "log.>", None), cx.spec("LOST", "lost.>", None)];
    let flaws = cx.broker.examine(&streams, &[]).await.unwrap();
    let found: Vec<_> = of_streams(cx, flaws).into_iter().map(|flaw| (flaw.kind.id, flaw.what)).collect();
    assert_eq!(found, [("stream.missing", format!("stream {} is not there", streams[1].name))]);
    // It is not made by looking for it.
    assert!(!cx.broker.stream_names().await.unwrap().contains(&streams[1].name));
}

pub async fn looking_for_flaws_stores_nothing(cx: &mut Cx) {
    cx.log().await;
    cx.put("log.a", "one").await;
    let bucket = cx.bucket("b");
    cx.broker.open_bucket(&bucket).await.unwrap();
    let names = cx.broker.stream_names().await.unwrap();
    for _ in 0..2 {
        cx.broker.examine(&[cx.spec("LOG", "log.>", None)], std::slice::from_ref(&bucket)).await.unwrap();
    }
    assert_eq!(bodies(&cx.read("log.>", ReadFrom::End, 10).await.entries), ["one"]);
    assert_eq!(cx.broker.count(&cx.subject("log.a")).await.unwrap(), 1);
    // Others make streams of their own meanwhile.
    let ours =
        |names: Vec<String>| names.into_iter().filter(|name| name.contains(&cx.prefix)).collect::<Vec<_>>();
    assert_eq!(ours(cx.broker.stream_names().await.unwrap()), ours(names));
}

pub async fn a_lower_limit_than_was_promised_is_a_flaw(cx: &mut Cx) {
    cx.broker.open_stream(&cx.spec("LOG", "log.>", Some(10))).await.unwrap();
    for (limit, expected) in
        [(Some(9), Some(Severity::Error)), (Some(10), None), (None, Some(Severity::Note))]
    {
        let flaws = cx.broker.examine(&[cx.spec("LOG", "log.>", limit)], &[]).await.unwrap();
        let found: Vec<_> = of_streams(cx, flaws).iter().map(|flaw| (flaw.kind.id, flaw.severity)).collect();
        assert_eq!(
            found,
            Vec::from_iter(expected.map(|severity| ("stream.per-subject", severity))),
            "{limit:?}"
        );
    }
}

pub async fn a_closed_broker_examines_nothing(cx: &mut Cx) {
    cx.log().await;
    cx.broker.close().await;
    assert!(cx.broker.examine(&[cx.spec("LOG", "log.>", None)], &[]).await.is_err());
}
