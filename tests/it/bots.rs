//! Bots and webhooks: a program says something in a conversation, until its token or its hook is taken back.

use serde_json::{Value, json};

use super::BROKER;
use crate::harness::{
    Chat, HttpAnswer, Output, Server, antar, eventually, http_request, ok, refused, text, texts,
};

fn bot(server: &Server, args: &[&str]) -> Output {
    let operator = server.operator();
    let realm = ["--realm", "realm1"];
    antar(["bot"].iter().chain(args).chain(&realm).copied().chain(operator.iter().map(String::as_str)))
}

/// What a command printed, and nothing else, on its first line.
fn printed(output: &Output) -> String {
    output.stdout.trim().to_owned()
}

/// realm1 with HTTP, a bot called ci, and its hook to messi.
fn hooked() -> (Server, String) {
    let server = BROKER.serve().env("LISTEN__HTTP", "127.0.0.1:0").start();
    bot(&server, &["add", "ci", "--name", "Build server"]).exits(0);
    let secret = printed(&bot(&server, &["hook", "ci", "messi"]).exits(0));
    (server, secret)
}

/// The status, the head and the JSON of the answer to a POST.
#[track_caller]
fn post(server: &Server, secret: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String, Value) {
    let mut lines = vec![format!("POST /hook/{secret} HTTP/1.1"), format!("Content-Length: {}", body.len())];
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let HttpAnswer { status, head, body } =
        http_request(server.http("realm1").expect("it has HTTP"), &lines, body);
    (status, head, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[test]
fn a_hook_says_something_in_the_name_of_its_bot_once_for_each_key() {
    let (mut server, secret) = hooked();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let (status, _, reply) = post(&server, &secret, &[], b"build 7\r\ngagal\n");
    assert_eq!((status, &reply["status"]), (200, &json!("OK")), "{reply}");
    let as_json = [("Content-Type", "application/json"), ("Idempotency-Key", "build/8")];
    let (_, _, first) = post(&server, &secret, &as_json, r#"{"text": "build 8 <b>ok</b> é"}"#.as_bytes());
    server.crash();
    let (status, _, again) =
        post(&server, &secret, &as_json, r#"{"text": "build 8 <b>ok</b> é"}"#.as_bytes());
    assert_eq!((status, &again["duplicate"]), (200, &json!(true)), "{again}");
    assert_eq!(again["message_id"], first["message_id"]);
    let (status, _, other) = post(&server, &secret, &as_json, br#"{"text": "lain"}"#);
    assert_eq!((status, text(&other, "code")), (409, "bad-request"), "{other}");
    messi = messi.again(&server, "realm1");
    let said = eventually("the realm is up", || Some(messi.inbox()).filter(|said| !said.is_empty()));
    assert_eq!(texts(&said), ["build 7 gagal", "build 8 <b>ok</b> é"]);
    assert_eq!((text(&said[0], "from"), text(&said[0], "msg_from")), ("ci@realm1", "Build server"));
    assert!(!server.log().contains(&secret), "no secret in the log");
}

#[test]
fn what_is_no_message_is_refused_and_says_why() {
    let (server, secret) = hooked();
    let typed = |kind| [("Content-Type", kind)];
    for (headers, body, expected) in [
        (&[][..], &b""[..], 400),
        (&[], b" \n", 400),
        (&[], b"\xff\xfe", 400),
        (&typed("application/json"), b"{}", 400),
        (&typed("application/json"), b"[", 400),
        (&typed("image/png"), b"x", 415),
        (&[("Idempotency-Key", "")], b"x", 400),
        (&[], &vec![b'x'; 62 * 1024], 413),
        (&[], &vec![b'x'; 1024 * 1024], 413),
    ] {
        let (status, _, _) = post(&server, &secret, headers, body);
        assert_eq!(status, expected, "{headers:?} {}", String::from_utf8_lossy(&body[..body.len().min(20)]));
    }
    let (status, _, long) = post(&server, &"x".repeat(5_000), &[], b"x");
    assert!(status == 404 || status == 414, "{status} {long}");
    for wrong in ["ci.00000000000040008000000000000000", "ci", "messi.x", "..", "%00", "ci.%2e%2e"] {
        assert_eq!(post(&server, wrong, &[], b"x").0, 404, "{wrong}");
    }
    assert!(Chat::login(&server, "realm1", "messi").inbox().is_empty());
}

#[test]
fn a_bots_token_works_as_that_of_a_login_until_it_is_revoked() {
    let (server, secret) = hooked();
    let token = printed(&bot(&server, &["add", "ci"]).exits(0));
    let mut ci = Chat::resumed(server.connect("realm1"), &token);
    ok(ci.cmd("send messi dari bot"));
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("send ci halo bot"));
    assert_eq!(texts(&ci.inbox()), ["halo bot"]);
    let listed = bot(&server, &["list", "--json"]).exits(0).json_lines().remove(0);
    assert_eq!(
        (text(&listed, "bot"), &listed["tokens"], &listed["revoked"]),
        ("ci", &json!(2), &json!(false))
    );
    let hook = &listed["hooks"][0];
    assert_eq!(text(hook, "to"), "messi@realm1");
    for hidden in [&token, &secret] {
        assert!(!listed.to_string().contains(hidden.as_str()));
    }
    // One hook, and then all.
    let other = printed(&bot(&server, &["hook", "ci", "henderson@realm1"]).exits(0));
    bot(&server, &["revoke", "ci", "--hook", text(hook, "id")]).exits(0);
    assert_eq!(post(&server, &secret, &[], b"x").0, 404);
    assert_eq!(post(&server, &other, &[], b"x").0, 200);
    bot(&server, &["revoke", "ci"]).exits(0);
    assert_eq!(post(&server, &other, &[], b"x").0, 404);
    refused(ci.cmd("whoami"), "not-authorized");
    // It comes back with another token, and without what it had.
    let token = printed(&bot(&server, &["add", "ci"]).exits(0));
    refused(ci.cmd("whoami"), "not-authorized");
    ok(Chat::resumed(server.connect("realm1"), &token).cmd("send messi kembali"));
    assert_eq!(post(&server, &other, &[], b"x").0, 404);
    let said = bot(&server, &["hook", "messi", "henderson"]).exits(5).stderr;
    assert!(said.contains("no-such-bot"), "{said}");
    bot(&server, &["add", "messi"]).exits(5);
    bot(&server, &["hook", "ci", "pele"]).exits(5);
    bot(&server, &["revoke", "pele"]).exits(5);
}

#[test]
fn a_hook_that_says_too_much_is_told_when_to_go_on() {
    let server =
        BROKER.serve().env("LISTEN__HTTP", "127.0.0.1:0").limit("user_messages_per_minute", 1).start();
    bot(&server, &["add", "ci"]).exits(0);
    let secret = printed(&bot(&server, &["hook", "ci", "messi"]).exits(0));
    assert_eq!(post(&server, &secret, &[], b"satu").0, 200);
    let (status, head, reply) = post(&server, &secret, &[], b"dua");
    assert_eq!((status, text(&reply, "code")), (429, "rate-limited"));
    assert!(head.contains("\r\nretry-after: "), "{head}");
}
