//! The client against servers that behave, misbehave, and vanish.

use antar_proto::MessageId;
use antar_proto::frame::FRAME_BYTES_MAX;
use antar_proto::json::FRAME_END;
use tokio::io::{DuplexStream, duplex};
use tokio::join;

use super::*;
use crate::calls::Token;
use crate::error::{CallError, Violation};
use crate::testing::{FakeServer, Peer, ok};

fn pair(options: &ClientOptions) -> (Client, Events, Peer<DuplexStream>) {
    let (ours, theirs) = duplex(64 * 1024);
    let (client, events) = Client::over(ours, options);
    (client, events, Peer::new(theirs))
}

fn closed(violation: Violation) -> Result<Reply, RequestError> {
    Err(RequestError::Closed(Closed::Violation(violation)))
}

#[tokio::test]
async fn pipelined_requests_get_their_own_replies_in_order() {
    let server = FakeServer::bind().await;
    let (addr, options) = (server.addr(), ClientOptions::default());
    let (connected, mut peer) = join!(Client::connect(&addr, &options), async { server.accept().await });
    let (client, _events) = connected.unwrap();
    let serve = async {
        // All three are here before the first is answered.
        let requests = [peer.request().await, peer.request().await, peer.request().await];
        for (line, tag) in &requests {
            peer.frame(&ok(tag, &format!(r#","line":"{line}""#))).await;
        }
    };
    let (a, b, c, ()) =
        join!(client.request("@1 one"), client.request("@2 two"), client.request("three"), serve);
    for (reply, line) in [(a, "one"), (b, "two"), (c, "three")] {
        assert_eq!(reply.unwrap().json()["line"], line);
    }
}

#[tokio::test]
async fn more_requests_than_may_be_in_flight_all_get_their_replies() {
    let options = ClientOptions { in_flight_max: 2, ..ClientOptions::default() };
    let (client, _events, mut peer) = pair(&options);
    let serve = async {
        for _ in 0..200 {
            let (line, tag) = peer.request().await;
            peer.frame(&ok(&tag, &format!(r#","line":"{line}""#))).await;
        }
    };
    let ask = async {
        let mut tasks = JoinSet::new();
        for n in 0..200 {
            let client = client.clone();
            tasks.spawn(async move { (n, client.request(&format!("@t{n} x{n}")).await.unwrap()) });
        }
        while let Some(answer) = tasks.join_next().await {
            let (n, reply) = answer.unwrap();
            assert_eq!(reply.json()["line"], format!("x{n}"));
        }
    };
    join!(serve, ask);
}

#[tokio::test]
async fn events_between_replies_go_to_their_channel() {
    let (client, mut events, mut peer) = pair(&ClientOptions::default());
    let token = Token::new("T");
    let serve = async {
        let (line, tag) = peer.request().await;
        assert_eq!(line, "watch T");
        peer.frame(r#"{"event":"logged-out"}"#).await;
        peer.frame(r#"{"event":"of a later version"}"#).await;
        peer.frame(&ok(&tag, "")).await;
        peer.frame(r#"{"event":"shutdown"}"#).await;
    };
    let (watched, ()) = join!(client.watch(&token), serve);
    watched.unwrap();
    assert_eq!(events.next().await, Some(Event::LoggedOut));
    assert_eq!(events.next().await, Some(Event::Shutdown));
    drop(peer);
    assert_eq!(events.next().await, None);
    assert_eq!(client.closed(), Some(Closed::Ended));
}

#[tokio::test]
async fn events_that_nobody_takes_hold_up_the_server_and_lose_nothing() {
    let options = ClientOptions { events_max: 1, ..ClientOptions::default() };
    let (client, mut events, mut peer) = pair(&options);
    let serve = async {
        let _ = peer.request().await;
        for _ in 0..100 {
            peer.frame(r#"{"event":"shutdown"}"#).await;
        }
        peer.frame(r#"{"status":"OK"}"#).await;
    };
    let take = async {
        for _ in 0..100 {
            assert_eq!(events.next().await, Some(Event::Shutdown));
        }
    };
    let (reply, (), ()) = join!(client.request("ping"), serve, take);
    assert!(reply.unwrap().is_ok());
}

#[tokio::test]
async fn without_a_listener_for_events_replies_still_come() {
    let options = ClientOptions { events_max: 1, ..ClientOptions::default() };
    let (client, events, mut peer) = pair(&options);
    drop(events);
    let serve = async {
        let _ = peer.request().await;
        for _ in 0..100 {
            peer.frame(r#"{"event":"shutdown"}"#).await;
        }
        peer.frame(r#"{"status":"OK"}"#).await;
    };
    let (reply, ()) = join!(client.request("ping"), serve);
    assert!(reply.unwrap().is_ok());
}

#[tokio::test]
async fn a_server_that_closes_in_the_middle_of_a_reply_fails_all_that_wait() {
    let (client, _events, mut peer) = pair(&ClientOptions::default());
    let serve = async {
        let _ = (peer.request().await, peer.request().await);
        peer.raw(br#"{"status":"OK","#).await;
        drop(peer);
    };
    let (a, b, ()) = join!(client.request("ping"), client.request("ping"), serve);
    assert_eq!(a, Err(RequestError::Closed(Closed::MidFrame)));
    assert_eq!(b, a);
    assert!(client.is_closed());
    assert_eq!(client.request("ping").await, a, "later ones too");
}

#[tokio::test]
async fn what_is_not_the_protocol_closes_the_connection() {
    for (answer, violation) in [
        (&b"SSH-2.0-OpenSSH_9.9\r\n\r\n"[..], Violation::NotAnObject),
        (b"{}\r\n\r\n", Violation::NoStatus),
        (b"{\"status\":\"OK\",\"id\":\"8\"}\r\n\r\n", Violation::WrongTag),
        (b"{\"status\":\"OK\"}\r\n\r\n", Violation::WrongTag),
    ] {
        let (client, _events, mut peer) = pair(&ClientOptions::default());
        let serve = async {
            let _ = peer.request().await;
            peer.raw(answer).await;
            // The client has closed its side.
            assert_eq!(peer.line().await, None);
        };
        let ask = async {
            let reply = client.request("@7 ping").await;
            drop(client);
            reply
        };
        let (reply, ()) = join!(ask, serve);
        assert_eq!(reply, closed(violation), "{:?}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn a_reply_that_nobody_asked_for_is_a_violation() {
    let (client, mut events, mut peer) = pair(&ClientOptions::default());
    peer.frame(r#"{"status":"OK"}"#).await;
    assert_eq!(events.next().await, None);
    assert_eq!(client.request("ping").await, closed(Violation::Unasked));
}

#[tokio::test]
async fn an_error_without_the_tag_is_an_answer() {
    let token = Token::new("T");
    let (client, _events, mut peer) = pair(&ClientOptions::default());
    let serve = async {
        let _ = peer.request().await;
        peer.frame(r#"{"status":"ERROR","code":"line-too-long","message":"Baris Terlalu Panjang"}"#).await;
    };
    let (answer, ()) = join!(client.send(&token, "messi", "halo"), serve);
    match answer {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, "line-too-long"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_frame_without_an_end_is_refused_at_the_limit() {
    let (client, _events, mut peer) = pair(&ClientOptions::default());
    let serve = async {
        let _ = peer.request().await;
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..FRAME_BYTES_MAX / piece.len() + 2 {
            peer.raw(&piece).await;
        }
    };
    let (reply, ()) = join!(client.request("ping"), async {
        // Ends early too, when the client stops reading.
        tokio::select! {
            () = serve => {}
            () = async { while client.closed().is_none() { tokio::task::yield_now().await } } => {}
        }
    });
    assert_eq!(reply, closed(Violation::FrameTooLong));
}

#[tokio::test]
async fn a_large_reply_comes_whole_however_it_arrives() {
    let (client, _events, mut peer) = pair(&ClientOptions::default());
    let text = "halo ".repeat(200_000);
    let serve = async {
        let (_, tag) = peer.request().await;
        let mut frame = ok(&tag, &format!(r#","text":"{text}""#)).into_bytes();
        frame.extend_from_slice(FRAME_END);
        for piece in frame.chunks(997) {
            peer.raw(piece).await;
        }
    };
    let (reply, ()) = join!(client.request("@7 ping"), serve);
    assert_eq!(reply.unwrap().json()["text"], text);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_reply_times_out_and_its_late_reply_is_dropped() {
    let (client, _events, mut peer) = pair(&ClientOptions::default());
    let started = tokio::time::Instant::now();
    assert_eq!(client.request("@1 slow").await, Err(RequestError::Timeout(Duration::from_secs(30))));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    let serve = async {
        let late = peer.request().await;
        peer.frame(&ok(&late.1, r#","was":"late""#)).await;
        let next = peer.request().await;
        peer.frame(&ok(&next.1, r#","was":"next""#)).await;
    };
    let (reply, ()) = join!(client.request("@2 next"), serve);
    assert_eq!(reply.unwrap().json()["was"], "next");
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_a_bad_address_is_not_an_address() {
    let server = FakeServer::bind().await;
    let addr = server.addr();
    drop(server);
    let options = ClientOptions::default();
    assert!(matches!(Client::connect(&addr, &options).await, Err(ConnectError::Unreachable { .. })));
    assert!(matches!(Client::connect("localhost", &options).await, Err(ConnectError::BadAddress { .. })));
    assert!(matches!(Client::connect("localhost:x", &options).await, Err(ConnectError::BadAddress { .. })));
}

#[tokio::test]
async fn a_line_that_would_be_none_or_two_is_not_sent() {
    let (client, _events, mut peer) = pair(&ClientOptions::default());
    for bad in ["", "   ", "a\nb", "a\r", "a\0"] {
        assert!(matches!(client.request(bad).await, Err(RequestError::BadLine(_))), "{bad:?}");
    }
    drop(client);
    assert_eq!(peer.line().await, None, "nothing came");
}

#[tokio::test]
async fn typed_calls_say_what_the_reports_clients_say() {
    let (client, _events, mut peer) = pair(&ClientOptions::default());
    let id = MessageId::fresh();
    let serve = async {
        let (line, tag) = peer.request().await;
        assert_eq!(line, "auth messi surabaya");
        peer.frame(&ok(&tag, r#","tokenid":"T""#)).await;
        let (line, tag) = peer.request().await;
        assert_eq!(line, "sendgrouprealm T realm2 henderson,lineker halo realm sebelah");
        peer.frame(&ok(&tag, &format!(r#","message":"x","message_id":"{id}","unknown":["pele"]"#))).await;
        let (line, tag) = peer.request().await;
        assert_eq!(line, "list T");
        peer.frame(&ok(&tag, r#","messages":"messi,lineker,""#)).await;
        let (line, tag) = peer.request().await;
        assert_eq!(line, "inbox T");
        peer.frame(&ok(&tag, r#","messages":[]"#)).await;
    };
    let ask = async {
        let token = client.auth("messi", "surabaya").await.unwrap();
        let realm = "realm2".parse().unwrap();
        let to = ["henderson", "lineker"];
        let sent = client.send_group_realm(&token, &realm, &to, "halo realm sebelah").await.unwrap();
        assert_eq!((sent.message_id, sent.unknown), (id, vec!["pele".to_owned()]));
        assert_eq!(client.list(&token).await.unwrap(), ["messi", "lineker"]);
        let inbox = client.inbox(&token).await;
        assert!(matches!(inbox, Err(CallError::Unexpected { command: "inbox", .. })), "{inbox:?}");
    };
    join!(serve, ask);
}
