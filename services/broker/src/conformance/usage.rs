//! How much there is.

use super::{Cx, one};
use crate::{Seq, StreamSpec};

async fn entries(cx: &Cx, spec: &StreamSpec) -> Vec<(String, u64)> {
    let usage = cx.broker.usage(std::slice::from_ref(spec)).await.unwrap();
    usage.streams.into_iter().map(|stream| (stream.name, stream.entries)).collect()
}

pub async fn usage_counts_what_is_in_each_stream_that_is_there(cx: &mut Cx) {
    cx.log().await;
    let log = cx.spec("LOG", "log.>", None);
    assert_eq!(entries(cx, &log).await, [(log.name.clone(), 0)]);
    let mut last = Seq::ZERO;
    for n in 0..5 {
        let append = one(&cx.subject(["log.a", "log.b"][n % 2]), &n.to_string());
        last = cx.broker.append(append).await.unwrap().await.unwrap().seq;
    }
    assert_eq!(entries(cx, &log).await, [(log.name.clone(), 5)]);
    assert_eq!(cx.broker.trim(&cx.subject("log.a"), last).await.unwrap(), 3);
    assert_eq!(entries(cx, &log).await, [(log.name.clone(), 2)]);
    let other = StreamSpec { name: format!("{}_not_there", log.name), ..log.clone() };
    assert_eq!(entries(cx, &other).await, []);
    let usage = cx.broker.usage(&[other, log.clone()]).await.unwrap();
    assert_eq!(usage.streams.len(), 1);
    assert!(usage.stored_bytes > 0);
    assert!(usage.limit_bytes.is_none_or(|limit| limit >= usage.stored_bytes));
}

pub async fn a_closed_broker_tells_no_usage(cx: &mut Cx) {
    cx.log().await;
    let log = cx.spec("LOG", "log.>", None);
    cx.broker.close().await;
    cx.broker.usage(&[log]).await.unwrap_err();
}
