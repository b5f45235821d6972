//! Requests and replies.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Cx;
use crate::RequestError;

/// Longer than any case.
const LONG: Duration = Duration::from_secs(60);
/// Short enough to wait for its end.
const SHORT: Duration = Duration::from_millis(300);

pub async fn a_request_that_nobody_serves_has_no_responder(cx: &mut Cx) {
    let answer = cx.broker.request(&cx.subject("rpc.nobody"), Bytes::new(), LONG).await;
    assert_eq!(answer, Err(RequestError::NoResponder));
}

pub async fn a_request_is_answered_by_who_serves_its_subject(cx: &mut Cx) {
    for name in ["rpc.a", "rpc.b"] {
        let mut requests = cx.broker.serve(&cx.subject(name)).await.unwrap();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let answer = format!("{name} {}", String::from_utf8(request.body.to_vec()).unwrap());
                request.reply.send(answer);
            }
        });
    }
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..100 {
        let name = ["rpc.a", "rpc.b"][n % 2];
        let (broker, subject) = (cx.broker.clone(), cx.subject(name));
        callers.spawn(async move {
            let answer = broker.request(&subject, n.to_string().into(), LONG).await.unwrap();
            assert_eq!(answer, format!("{name} {n}").as_bytes());
        });
    }
    callers.join_all().await;
}

pub async fn who_begins_to_serve_is_found_at_once(cx: &mut Cx) {
    for n in 0..50 {
        let subject = cx.subject(&format!("rpc.{n}"));
        let mut requests = cx.broker.serve(&subject).await.unwrap();
        let server = tokio::spawn(async move { requests.next().await.unwrap().reply.send("here") });
        let answer = cx.broker.request(&subject, Bytes::new(), LONG).await;
        assert_eq!(answer.as_deref(), Ok(b"here".as_slice()), "the server of subject {n}");
        server.await.unwrap();
    }
}

pub async fn a_request_that_is_not_answered_times_out(cx: &mut Cx) {
    let mut requests = cx.broker.serve(&cx.subject("rpc.a")).await.unwrap();
    let server = tokio::spawn(async move {
        drop(requests.next().await.unwrap().reply);
        // Kept, unanswered, until the end.
        (requests.next().await.unwrap().reply, requests)
    });
    for _ in 0..2 {
        let began = Instant::now();
        let answer = cx.broker.request(&cx.subject("rpc.a"), Bytes::new(), SHORT).await;
        assert_eq!(answer, Err(RequestError::Timeout));
        assert!(began.elapsed() >= SHORT);
    }
    // An answer that comes too late disturbs nobody.
    server.await.unwrap().0.send("late");
}

pub async fn servers_of_one_subject_share_its_requests(cx: &mut Cx) {
    for server in 0..3 {
        let mut requests = cx.broker.serve(&cx.subject("rpc.a")).await.unwrap();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                request.reply.send(server.to_string());
            }
        });
    }
    let mut counts = [0; 3];
    for _ in 0..90 {
        let answer = cx.broker.request(&cx.subject("rpc.a"), Bytes::new(), LONG).await.unwrap();
        counts[usize::from(answer[0] - b'0')] += 1;
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

pub async fn who_stopped_serving_gets_no_requests(cx: &mut Cx) {
    let gone = cx.broker.serve(&cx.subject("rpc.a")).await.unwrap();
    let mut stays = cx.broker.serve(&cx.subject("rpc.a")).await.unwrap();
    drop(gone);
    let server = tokio::spawn(async move {
        while let Some(request) = stays.next().await {
            request.reply.send("here");
        }
    });
    let mut answered = 0;
    while answered < 20 {
        // Over a network what is on its way to the one who leaves may get lost, and is asked again.
        match cx.broker.request(&cx.subject("rpc.a"), Bytes::new(), SHORT).await {
            Ok(answer) => {
                assert_eq!(&answer[..], b"here");
                answered += 1;
            }
            other => assert_eq!(other, Err(RequestError::Timeout)),
        }
    }
    server.abort();
    let _ = server.await;
    // Over a network it takes a moment until the last one's leaving is known.
    loop {
        match cx.broker.request(&cx.subject("rpc.a"), Bytes::new(), SHORT).await {
            Err(RequestError::NoResponder) => return,
            other => assert_eq!(other, Err(RequestError::Timeout)),
        }
    }
}

pub async fn serving_ends_when_the_broker_closes(cx: &mut Cx) {
    let mut requests = cx.broker.serve(&cx.subject("rpc.a")).await.unwrap();
    let waiting = tokio::spawn(async move { requests.next().await.is_none() });
    cx.broker.close().await;
    assert!(waiting.await.unwrap());
    let answer = cx.broker.request(&cx.subject("rpc.a"), Bytes::new(), LONG).await;
    assert!(matches!(answer, Err(RequestError::Unavailable(_))), "{answer:?}");
    assert!(matches!(cx.broker.serve(&cx.subject("rpc.a")).await, Err(RequestError::Unavailable(_))));
}
