//! `antar doctor` on NATS: streams that were changed under us, consumers of others, permissions, servers that are away,
//! and peers that are not what they were.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::harness::{
    Chat, Cluster, Federation, Nats, Realms, Server, Tenants, Wire, antar_with_input, eventually, free_port,
    ok, text,
};

/// What `antar doctor …` finds in realm1.
#[track_caller]
fn examine(broker: &str, env: &[(&str, &str)], args: &[&str]) -> Value {
    let all = ["doctor", "--format", "json", "--broker", broker];
    let realm: &[&str] = if args.contains(&"--realm") { &[] } else { &["--realm", "realm1"] };
    let output = antar_with_input(all.iter().chain(realm).chain(args), env, "");
    let report = output.json_lines().remove(0);
    let is_healthy = report["errors"] == 0 && report["warnings"] == 0;
    // In a cluster that is electing a leader it may be so for a moment.
    let is_unreachable = found(&report).contains(&"broker.unreachable".to_owned());
    output.exits(if is_unreachable { 3 } else { i32::from(!is_healthy) });
    report
}

/// The ids of the findings, sorted, each once; without what is so in every test.
fn found(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("a list").iter();
    let mut ids: Vec<String> = findings.map(|finding| text(finding, "id").to_owned()).collect();
    ids.retain(|id| id != "broker.sync-unknown" && id != "keys.elsewhere");
    ids.sort();
    ids.dedup();
    ids
}

/// What is said of the findings of one kind.
fn said<'a>(report: &'a Value, id: &str) -> Vec<&'a str> {
    let findings = report["findings"].as_array().expect("a list").iter();
    findings.filter(|finding| finding["id"] == id).map(|finding| text(finding, "what")).collect()
}

/// One request to JetStream's API: what it answers, which is no error.
#[track_caller]
fn api(wire: &mut Wire, request: &str, body: &Value) -> Value {
    let answer = wire.request(&format!("$JS.API.{request}"), body.to_string()).expect("the server answers");
    let answer: Value = serde_json::from_str(&answer.expect("JetStream answers").text()).expect("it is JSON");
    assert_eq!(answer["error"], Value::Null, "{request}: {answer}");
    answer
}

/// Changes the configuration of a stream.
#[track_caller]
fn change(wire: &mut Wire, stream: &str, changes: &Value) {
    let mut config = api(wire, &format!("STREAM.INFO.{stream}"), &json!({}))["config"].clone();
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    api(wire, &format!("STREAM.UPDATE.{stream}"), &config);
}

#[test]
fn settings_of_streams_that_were_changed_are_found_each_under_its_own_id() {
    let federation = Federation::start();
    let _edge = federation.edge("realm1");
    let url = federation.nats.url();
    assert_eq!(found(&examine(&url, &[], &[])), Vec::<String>::new());
    let mut wire = federation.nats.wire();
    let nanos = |seconds: u64| json!(seconds * 1_000_000_000);
    change(
        &mut wire,
        "REALM_realm1_MAIL",
        &json!({ "discard": "old", "discard_new_per_subject": false, "max_age": nanos(3600), "duplicate_window": nanos(60) }),
    );
    change(
        &mut wire,
        "REALM_realm1_LOG",
        &json!({ "max_msgs": 1000, "max_bytes": 1 << 20, "allow_direct": false }),
    );
    change(
        &mut wire,
        "REALM_realm1_INBOX",
        &json!({ "subjects": ["realm.realm1.inbox"], "deny_purge": true }),
    );
    change(&mut wire, "KV_REALM_realm1_accounts", &json!({ "republish": null }));
    let report = examine(&url, &[], &[]);
    assert_eq!(
        found(&report),
        [
            "realm.unread",
            "stream.access",
            "stream.age",
            "stream.denies",
            "stream.discard",
            "stream.limits",
            "stream.republish",
            "stream.subjects",
            "stream.window",
        ],
        "{report}"
    );
    assert_eq!(said(&report, "stream.limits").len(), 2, "{report}");
    assert!(said(&report, "stream.discard")[0].starts_with("REALM_realm1_MAIL: "), "{report}");
    assert!(report.to_string().contains("nats stream edit REALM_realm1_MAIL --discard=new"), "{report}");
}

#[test]
fn a_stream_and_a_bucket_that_are_gone_are_found() {
    let federation = Federation::start();
    let _edge = federation.edge("realm1");
    let mut wire = federation.nats.wire();
    for stream in ["REALM_realm1_INBOX", "KV_REALM_realm1_lanes"] {
        api(&mut wire, &format!("STREAM.DELETE.{stream}"), &json!({}));
    }
    let report = examine(&federation.nats.url(), &[], &[]);
    assert_eq!(
        said(&report, "stream.missing"),
        ["stream REALM_realm1_INBOX is not there", "stream KV_REALM_realm1_lanes is not there"]
    );
}

#[test]
fn consumers_of_others_are_told_and_those_that_are_sent_everything_are_a_warning() {
    let federation = Federation::start();
    let _edge = federation.edge("realm1");
    let mut wire = federation.nats.wire();
    let consumer = |name: &str, more: Value| {
        let mut config = json!({ "durable_name": name, "ack_policy": "explicit" });
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({ "stream_name": "REALM_realm1_MAIL", "config": config })
    };
    let create = "CONSUMER.DURABLE.CREATE.REALM_realm1_MAIL";
    api(&mut wire, &format!("{create}.asks"), &consumer("asks", json!({ "max_deliver": 5 })));
    let report = examine(&federation.nats.url(), &[], &[]);
    assert_eq!((found(&report), &report["warnings"]), (vec!["stream.consumers".to_owned()], &json!(0)));
    assert!(said(&report, "stream.consumers")[0].contains("asks (gives up after 5 deliveries)"), "{report}");
    let spy = consumer("spy", json!({ "deliver_subject": "somewhere" }));
    api(&mut wire, &format!("{create}.spy"), &spy);
    let report = examine(&federation.nats.url(), &[], &[]);
    assert_eq!(found(&report), ["stream.consumers", "stream.pushes"]);
    assert!(said(&report, "stream.pushes")[0].contains("spy (to somewhere)"), "{report}");
}

#[test]
fn whether_a_server_writes_before_it_acknowledges_is_known_from_its_monitoring() {
    let (lazy, safe) = (Nats::start(), Nats::options().sync_always().start());
    let realms = Realms::new();
    for (nats, expected) in [(&lazy, vec!["broker.sync"]), (&safe, vec![])] {
        let _edge = realms.edge("realm1", &nats.url()).start();
        let report = examine(&nats.url(), &[], &["--monitor", &nats.http().to_string()]);
        assert_eq!(found(&report), expected, "{report}");
        assert_eq!(said(&report, "broker.sync-unknown").len(), 0);
        let nobody = format!("127.0.0.1:{}", free_port());
        assert_eq!(found(&examine(&nats.url(), &[], &["--monitor", &nobody])), ["broker.monitor"]);
    }
}

#[test]
fn realms_that_share_an_account_are_found_and_those_with_their_own_are_not() {
    let federation = Federation::start();
    let edges = ["realm1", "realm2"].map(|realm| federation.edge(realm));
    let report = examine(&federation.nats.url(), &[], &[]);
    assert_eq!(found(&report), ["account.shared", "permissions.wide"]);
    assert!(said(&report, "account.shared")[0].contains("REALM_realm2_MAIL"), "{report}");
    assert!(said(&report, "permissions.wide")[0].contains("realm.realm2.mail.*.*"), "{report}");
    drop(edges);

    let tenants = Tenants::of(&["realm1", "realm2"]);
    let nats = Nats::options().config(&tenants.accounts()).start();
    let keys = Realms::new();
    let edge = |realm: &str| {
        let seed = tenants.seed_path(realm);
        keys.edge(realm, &nats.url()).env("BROKER__CREDENTIALS_FILE", seed.display()).start()
    };
    let edges = ["realm1", "realm2"].map(edge);
    let mut messi = Chat::login(&edges[0], "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let seed = tenants.seed_path("realm1");
    let env = [("ANTAR__BROKER__CREDENTIALS_FILE", seed.to_str().expect("a temporary path is UTF-8"))];
    let report = examine(&nats.url(), &env, &[]);
    assert_eq!(found(&report), Vec::<String>::new(), "{report}");
}

#[test]
fn a_peer_elsewhere_that_knows_another_key_is_known_by_what_the_lane_says() {
    let tenants = Tenants::of(&["realm1", "realm2"]);
    let nats = Nats::options().config(&tenants.accounts()).start();
    let realms = Realms::new();
    let edge = |realm: &str| {
        let seed = tenants.seed_path(realm);
        realms.edge(realm, &nats.url()).env("BROKER__CREDENTIALS_FILE", seed.display()).start()
    };
    let (here, there) = (edge("realm1"), edge("realm2"));
    ok(Chat::login(&here, "realm1", "messi").ask("addrealm realm2 127.0.0.1 4002"));
    drop(here);
    let (seed, key) = (tenants.seed_path("realm1"), realms.key_path("realm1"));
    let path = |path: &std::path::Path| path.to_str().expect("a temporary path is UTF-8").to_owned();
    let (seed, key) = (path(&seed), path(&key));
    let env = [("ANTAR__BROKER__CREDENTIALS_FILE", seed.as_str()), ("ANTAR__REALM__KEY_FILE", key.as_str())];
    antar_with_input(["realm", "rotate-key", "realm1", "--broker", &nats.url()], &env, "").exits(0);
    let here = edge("realm1");
    ok(Chat::login(&here, "realm1", "messi").cmd("sendprivaterealm realm2 lineker halo"));
    let report = eventually("the lane says why it waits", || {
        let report = examine(&nats.url(), &env, &[]);
        found(&report).contains(&"keys.not-trusted".to_owned()).then_some(report)
    });
    let mut ids = found(&report);
    // The edge was killed before.
    ids.retain(|id| id != "edges.gone");
    assert_eq!(ids, ["keys.not-trusted", "lane.stuck"], "{report}");
    drop(there);
}

#[test]
fn a_user_that_may_too_little_is_told_what_it_lacks() {
    let nats = Nats::options()
        .config(
            r#"accounts { A { jetstream: enabled, users: [
                 { user: all, password: all },
                 { user: some, password: some, permissions: {
                     publish: ["realm.realm1.>", "$JS.API.>", "_INBOX.>", "$SYS.REQ.USER.INFO"], subscribe: [">"] } } ] } }"#,
        )
        .start();
    let _edge = Realms::new().edge("realm1", &nats.url_as("all", "all")).start();
    assert_eq!(found(&examine(&nats.url_as("all", "all"), &[], &[])), Vec::<String>::new());
    let report = examine(&nats.url_as("some", "some"), &[], &[]);
    assert_eq!(found(&report), ["permissions.narrow"]);
    let lacks = said(&report, "permissions.narrow")[0];
    assert!(
        lacks.contains("publish to $KV.REALM_realm1_accounts.>") && !lacks.contains("realm.realm1"),
        "{lacks}"
    );
    assert!(!report.to_string().contains("some:some"), "no password");
}

#[test]
fn accounts_that_are_joined_by_more_than_they_should_are_found() {
    // What nats-config writes, but for `>` where the inbox and the name card stand there.
    let account = |own: &str, other: &str| {
        format!(
            r#"{own} {{ jetstream: enabled, users: [{{ user: {own}, password: {own} }}],
                 exports: [{{ service: "realm.{own}.>", accounts: [{other}] }}],
                 imports: [{{ service: {{ account: {other}, subject: "realm.{other}.>" }} }}] }}"#
        )
    };
    let accounts = [account("realm1", "realm2"), account("realm2", "realm1")].join("\n");
    let nats = Nats::options().config(&format!("accounts {{ {accounts} }}")).start();
    let realms = Realms::new();
    let edges = ["realm1", "realm2"].map(|realm| realms.edge(realm, &nats.url_as(realm, realm)).start());
    let mut messi = Chat::login(&edges[0], "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let report = examine(&nats.url_as("realm1", "realm1"), &[], &[]);
    assert_eq!(found(&report), ["peer.operated"], "{report}");
}

#[test]
fn a_user_of_whom_the_server_tells_nothing_is_noted() {
    let nats = Nats::options()
        .config(
            r#"accounts { A { jetstream: enabled, users: [
                 { user: all, password: all },
                 { user: mute, password: mute, permissions: { publish: { deny: ["$SYS.>"] } } } ] } }"#,
        )
        .start();
    let _edge = Realms::new().edge("realm1", &nats.url_as("all", "all")).start();
    let report = examine(&nats.url_as("mute", "mute"), &[], &[]);
    assert_eq!((found(&report), &report["warnings"]), (vec!["permissions.unknown".to_owned()], &json!(0)));
}

#[test]
fn an_edge_that_signs_with_the_key_from_before_is_found_and_a_realm_that_is_half_restored_too() {
    let federation = Federation::start();
    let edge = federation.edge("realm1");
    let url = federation.nats.url();
    let key = federation.realms.key_path("realm1");
    let env = [("ANTAR__REALM__KEY_FILE", key.to_str().expect("a temporary path is UTF-8"))];
    assert_eq!(found(&examine(&url, &env, &[])), Vec::<String>::new());
    antar_with_input(["realm", "rotate-key", "realm1", "--broker", &url], &env, "").exits(0);
    assert_eq!(found(&examine(&url, &env, &[])), ["keys.stale-edge"]);
    drop(edge);
    let _edge = federation.edge("realm1");
    assert_eq!(found(&examine(&url, &env, &[])), Vec::<String>::new());
    let mut wire = federation.nats.wire();
    let mark = json!({ "file": "x", "at": 1 }).to_string();
    let stored = wire.request("$KV.REALM_realm1_settings.restoring", mark).expect("the server answers");
    assert!(stored.expect("the bucket answers").text().contains("seq"));
    assert_eq!(found(&examine(&url, &env, &[])), ["realm.restoring"]);
}

#[test]
fn edges_of_different_versions_with_another_clock_or_without_a_word_are_found() {
    let federation = Federation::start();
    let _edge = federation.edge("realm1");
    let mut wire = federation.nats.wire();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_micros() as u64;
    let mut beat = |edge: &str, version: &str, at: u64| {
        let record = json!({ "edge": edge, "host": "elsewhere", "version": version, "started": "2026-01-01T00:00:00Z",
            "at": at, "connections": 0, "watches": 0 });
        let stored = wire.request(&format!("$KV.REALM_realm1_edges.{edge}"), record.to_string());
        assert!(stored.expect("the server answers").expect("the bucket answers").text().contains("seq"));
    };
    beat("00000001", "9.9.9", now - 60_000_000);
    let report = examine(&federation.nats.url(), &[], &[]);
    assert_eq!((found(&report), &report["warnings"]), (vec!["edges.gone".to_owned()], &json!(0)));
    assert!(said(&report, "edges.gone")[0].starts_with("edge 00000001 on elsewhere has said nothing for "));
    beat("00000002", "9.9.9", now + 3_600_000_000);
    let report = examine(&federation.nats.url(), &[], &[]);
    assert_eq!(found(&report), ["clock.edge", "edges.gone", "edges.versions"]);
    assert!(said(&report, "edges.versions")[0].ends_with(", 9.9.9"), "{report}");
    assert_eq!(report["errors"], 1, "an hour is more than two minutes: {report}");
}

/// Answers for realm2 with a name card, once, while `ask` is run.
fn with_card<T: Send>(wire: &mut Wire, card: &Value, ask: impl FnOnce() -> T + Send) -> T {
    wire.subscribe("realm.realm2.info").expect("the line holds");
    wire.flush().expect("the line holds");
    std::thread::scope(|scope| {
        let asking = scope.spawn(ask);
        // Lanes of realm1 ask too.
        while !asking.is_finished() {
            if let Some(asked) = wire.next(Duration::from_millis(20)).expect("the line holds") {
                wire.publish(&asked.reply.expect("it says where to answer"), card.to_string())
                    .expect("the line holds");
                wire.flush().expect("the line holds");
            }
        }
        asking.join().expect("it does not panic")
    })
}

#[test]
fn a_peer_that_is_away_has_another_clock_or_another_key_is_found() {
    let federation = Federation::start();
    let [_here, mut there]: [Server; 2] = ["realm1", "realm2"].map(|realm| federation.edge(realm));
    let mut messi = Chat::login(&_here, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let url = federation.nats.url();
    let shared = ["account.shared", "permissions.wide"];
    let others = |report: &Value| {
        let mut ids = found(report);
        ids.retain(|id| !shared.contains(&id.as_str()));
        ids
    };
    assert_eq!(others(&examine(&url, &[], &[])), Vec::<String>::new());
    let key = KeyPair::from_seed(federation.realms.key_of("realm2").trim()).expect("a seed").public_key();
    there.sigterm();
    let report = eventually("it is away", || {
        let report = examine(&url, &[], &[]);
        (!others(&report).is_empty()).then_some(report)
    });
    assert_eq!(others(&report), ["peer.silent"]);

    let mut wire = federation.nats.wire();
    let card = |key: &str, version: &str, now: Option<&str>| json!({ "realm": "realm2", "name": "realm2", "version": version, "key": key, "now": now });
    let version = env!("CARGO_PKG_VERSION");
    let skewed = card(&key, version, Some("2026-01-01T00:00:00Z"));
    let report = with_card(&mut wire, &skewed, || examine(&url, &[], &[]));
    assert_eq!(others(&report), ["clock.peer"], "{report}");
    assert!(said(&report, "clock.peer")[0].contains("behind"), "{report}");
    let stranger = KeyPair::new_user().public_key();
    let report = with_card(&mut wire, &card(&stranger, "9.9.9", None), || examine(&url, &[], &[]));
    let ids = others(&report);
    assert!(
        ids.contains(&"keys.peer-changed".to_owned()) && ids.contains(&"peer.version".to_owned()),
        "{report}"
    );
    assert!(said(&report, "keys.peer-changed")[0].contains(&stranger), "{report}");
}

#[test]
fn a_cluster_with_one_replica_a_server_away_or_a_replica_behind_is_found() {
    let mut cluster = Cluster::start(3);
    let (url, realms) = (cluster.url(), Realms::new());
    let three = [("ANTAR__BROKER__REPLICAS", "3")];
    let _safe = realms.edge("realm1", &url).env("BROKER__REPLICAS", "3").start();
    eventually("its replicas have caught up", || found(&examine(&url, &three, &[])).is_empty().then_some(()));
    let _single = realms.edge("realm2", &url).start();
    let report = examine(&url, &[], &["--realm", "realm2"]);
    let few = said(&report, "stream.replicas");
    assert_eq!(few.len(), 12, "its streams and buckets, and not the queues: {report}");
    assert!(few.iter().all(|what| what.contains("realm2") && what.contains("1 of 3 servers")), "{report}");
    cluster.server_mut(2).kill();
    let report = eventually("the others have noticed", || {
        let report = examine(&url, &three, &[]);
        let mut ids = found(&report);
        ids.retain(|id| !["account.shared", "permissions.wide"].contains(&id.as_str()));
        (ids == ["broker.server", "stream.replica-behind"]).then_some(report)
    });
    assert_eq!(report["errors"], 0, "{report}");
}
