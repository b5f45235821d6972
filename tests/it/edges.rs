//! A realm is served by as many edges as it needs, and no client can tell which one it speaks to.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Chat, Federation, Proxy, Server, Way, eventually, ok, refused, text, texts};
use crate::nats::walks::{ReportClient, walk_of_the_newer_report};

/// Within which a logout has to be effective everywhere, however busy the machine is.
const LOGOUT_MAX: Duration = Duration::from_secs(5);

/// Messages sent in each kind of weather.
const EACH: usize = 100;

/// Two edges of realm1.
fn two_edges(federation: &Federation) -> [Server; 2] {
    [federation.edge("realm1"), federation.edge("realm1")]
}

#[test]
fn a_send_answered_on_one_edge_is_in_the_next_inbox_on_another_a_thousand_times() {
    let federation = Federation::start();
    let [one, two] = two_edges(&federation);
    let mut chats = [Chat::login(&one, "realm1", "messi"), Chat::login(&two, "realm1", "henderson")];
    for n in 0..1000 {
        let (from, to) = (n % 2, (n + 1) % 2);
        let name = ["messi", "henderson"][to];
        ok(chats[from].cmd(&format!("send {name} {n}")));
        let read = ok(chats[to].cmd("inbox"));
        let senders = read["messages"].as_object().expect("by sender");
        let messages: Vec<&Value> = senders.values().filter_map(Value::as_array).flatten().collect();
        assert_eq!(messages.len(), 1, "message {n} to {name}: {read}");
        assert_eq!(text(messages[0], "msg"), n.to_string());
    }
}

#[test]
fn a_message_from_another_realm_is_read_on_any_edge_and_once() {
    let federation = Federation::start();
    let [one, two] = two_edges(&federation);
    let there = [federation.edge("realm2"), federation.edge("realm2")];
    let mut senders: Vec<Chat> = there.iter().map(|edge| Chat::login(edge, "realm2", "lineker")).collect();
    ok(senders[0].cmd("addrealm realm1 127.0.0.1 4001"));
    let mut readers = [Chat::login(&one, "realm1", "messi"), Chat::login(&two, "realm1", "messi")];
    for n in 0..50 {
        eventually("both edges of the sender know the realm", || {
            let reply = senders[n % 2].cmd(&format!("sendprivaterealm realm1 messi {n}"));
            (reply["code"] != "no-such-realm").then(|| ok(reply))
        });
        let reader = &mut readers[n / 2 % 2];
        assert_eq!(texts(&reader.realm_inbox_of("realm2", 1)), [n.to_string()]);
        reader.settle();
    }
}

#[test]
fn a_token_made_on_one_edge_works_on_another_at_once() {
    let federation = Federation::start();
    let edges = two_edges(&federation);
    for n in 0..20 {
        let messi = Chat::login(&edges[n % 2], "realm1", "messi");
        let mut elsewhere = messi.again(&edges[(n + 1) % 2], "realm1");
        assert_eq!(text(&ok(elsewhere.cmd("whoami")), "user"), "messi");
    }
    let xavi = Chat::register(&edges[0], "realm1", "xavi");
    ok(xavi.again(&edges[1], "realm1").cmd("send messi halo"));
    Chat::login(&edges[1], "realm1", "xavi");
}

#[test]
fn a_logout_is_effective_on_every_edge_within_a_second_and_watchers_are_told() {
    let federation = Federation::start();
    let edges = two_edges(&federation);
    for n in 0..5 {
        let mut messi = Chat::login(&edges[n % 2], "realm1", "messi");
        let mut elsewhere = messi.again(&edges[(n + 1) % 2], "realm1");
        let mut watching = messi.again(&edges[(n + 1) % 2], "realm1");
        ok(watching.cmd("watch"));
        ok(messi.cmd("logout"));
        let out = Instant::now();
        eventually("the token is dead", || {
            let reply = elsewhere.cmd("whoami");
            (reply["status"] == "ERROR").then(|| refused(reply, "not-authorized"))
        });
        assert!(out.elapsed() < LOGOUT_MAX, "it took {:?}", out.elapsed());
        watching.event("logged-out");
    }
}

#[test]
fn a_new_password_ends_sessions_on_every_edge() {
    let federation = Federation::start();
    let [one, two] = two_edges(&federation);
    let mut messi = Chat::login(&one, "realm1", "messi");
    let mut other = Chat::login(&two, "realm1", "messi");
    ok(messi.cmd("passwd surabaya barubaru1"));
    let changed = Instant::now();
    eventually("the other session has ended", || {
        let reply = other.cmd("whoami");
        (reply["status"] == "ERROR").then(|| refused(reply, "not-authorized"))
    });
    assert!(changed.elapsed() < LOGOUT_MAX, "it took {:?}", changed.elapsed());
    refused(two.connect("realm1").ask("auth messi surabaya"), "bad-password");
    Chat::login_with(&two, "realm1", "messi", "barubaru1");
}

#[test]
fn a_realm_added_on_one_edge_is_known_on_another() {
    let federation = Federation::start();
    let [one, two] = two_edges(&federation);
    let there = federation.edge("realm2");
    let mut messi = Chat::login(&one, "realm1", "messi");
    let mut henderson = Chat::login(&two, "realm1", "henderson");
    ok(messi.cmd("addrealm realm2 172.16.16.102 4002"));
    eventually("the other edge knows it, and where it is", || {
        let realms = ok(henderson.cmd("connectedrealm"))["realms"].clone();
        (realms[0]["host"] == "172.16.16.102").then_some(())
    });
    refused(henderson.cmd("addrealm realm2 127.0.0.1 4002"), "realm-exists");
    ok(henderson.cmd("sendprivaterealm realm2 lineker dari tepi lain"));
    let mut lineker = Chat::login(&there, "realm2", "lineker");
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["dari tepi lain"]);
}

#[test]
fn the_walk_of_the_newer_report_passes_with_each_realm_in_processes_of_its_own() {
    let federation = Federation::start();
    let [one, two] = two_edges(&federation);
    let there = federation.edge("realm2");
    walk_of_the_newer_report([
        ReportClient::auth(&one, "realm1", "messi"),
        ReportClient::auth(&there, "realm2", "lineker"),
        ReportClient::auth(&two, "realm1", "henderson"),
    ]);
}

#[test]
fn anybody_on_the_broker_sees_envelopes_between_realms_and_the_realms_as_services() {
    let federation = Federation::start();
    let (here, there) = (federation.edge("realm1"), federation.edge("realm2"));
    let mut wire = federation.nats.wire();
    wire.subscribe("realm.*.inbox").expect("the line holds");
    wire.flush().expect("the line holds");
    let mut messi = Chat::login(&here, "realm1", "messi");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    let sent = ok(messi.cmd("sendprivaterealm realm2 lineker halo realm sebelah"));
    let mut lineker = Chat::login(&there, "realm2", "lineker");
    lineker.realm_inbox_of("realm1", 1);
    let envelope = eventually("the envelope is seen", || {
        let seen = wire.next(Duration::from_secs(1)).expect("the line holds")?;
        seen.text().contains("halo realm sebelah").then_some(seen)
    });
    assert_eq!(envelope.subject, "realm.realm2.inbox");
    let body: Value = serde_json::from_slice(&envelope.payload).expect("an envelope is JSON");
    assert!(body.to_string().contains(text(&sent, "message_id")), "{body}");
    assert!(body.to_string().contains("realm1"), "the origin is there: {body}");

    let found = eventually("both realms are found as services", || {
        let answers = wire.ask_all("$SRV.PING.antar", Duration::from_millis(300)).expect("the line holds");
        let all = answers.iter().map(|answer| answer.text()).collect::<Vec<_>>().join("\n");
        (all.contains("realm1") && all.contains("realm2")).then_some(all)
    });
    assert!(found.contains("io.nats.micro.v1.ping_response"), "{found}");
}

/// Sends numbered messages to henderson and waits for each OK.
fn send_each(messi: &mut Chat, range: std::ops::Range<usize>) {
    for n in range {
        ok(messi.cmd(&format!("send henderson {n}")));
    }
}

#[test]
fn a_watcher_on_another_edge_gets_everything_once_and_in_order_over_cuts_of_its_edges_link() {
    let federation = Federation::start();
    let link = federation.link();
    let one = federation.edge("realm1");
    let two = federation.edge_behind(&link, "realm1");
    let mut messi = Chat::login(&one, "realm1", "messi");
    let mut henderson = Chat::login(&two, "realm1", "henderson");
    ok(henderson.cmd("watch"));
    let weather: [fn(&Proxy); 6] = [
        |_| {},
        |link| link.cut(Way::Both),
        |link| link.cut(Way::Down),
        |link| link.cut(Way::Up),
        Proxy::reset,
        Proxy::refuse,
    ];
    for (round, change) in weather.iter().enumerate() {
        change(&link);
        send_each(&mut messi, round * EACH..(round + 1) * EACH);
        link.heal();
        for n in round * EACH..(round + 1) * EACH {
            assert_eq!(text(&henderson.event("message"), "msg"), n.to_string(), "weather {round}");
        }
    }
    // Nothing comes twice, and what was pushed is read.
    send_each(&mut messi, 9999..10_000);
    assert_eq!(text(&henderson.event("message"), "msg"), "9999");
    henderson.send("@end ping");
    assert_eq!(ok(henderson.reply())["id"], "end");
    assert!(henderson.inbox().is_empty());
}

#[test]
fn an_edge_that_stands_by_says_why_the_lane_of_another_waits() {
    let federation = Federation::start();
    let edges = two_edges(&federation);
    let there = federation.edge("realm2");
    let mut chats =
        [Chat::login(&edges[0], "realm1", "messi"), Chat::login(&edges[1], "realm1", "henderson")];
    ok(chats[0].cmd("addrealm realm2 127.0.0.1 4002"));
    eventually("both know the realm", || {
        let realms = ok(chats[1].cmd("connectedrealm"));
        (realms["realms"][0]["state"] == "up").then_some(())
    });
    there.operate(&["realm", "pause", "realm2"]);
    ok(chats[0].cmd("sendprivaterealm realm2 lineker halo"));
    for chat in &mut chats {
        let lane = eventually("it is seen here that the lane waits", || {
            let lane = ok(chat.cmd("connectedrealm"))["realms"][0].clone();
            (lane["state"] == "waiting").then_some(lane)
        });
        assert_eq!(text(&lane, "last_error"), "the realm is paused");
    }
    there.operate(&["realm", "resume", "realm2"]);
    for chat in &mut chats {
        eventually("it is seen here that the lane goes on", || {
            let lane = ok(chat.cmd("connectedrealm"))["realms"][0].clone();
            (lane["state"] == "up").then_some(())
        });
    }
}
