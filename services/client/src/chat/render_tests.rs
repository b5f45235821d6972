//! Each reply and event as a person sees it.

use super::*;
use crate::reply::Frame;

const ID: &str = "0192d4d5-0000-7000-8000-000000000000";

fn message(from: &str, to: &str, text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        r#"{{"msg_from":"Lionel Messi","msg_to":"Gary Lineker","msg":{text},"id":"{ID}","ts":"2020-01-31T14:03:00Z","from":"{from}","to":"{to}"}}"#
    )
}

fn shown(typed: &str, json: &str) -> String {
    use crate::chat::input::{Context, Input, understand};
    let context = Context { token: Some(crate::Token::new("T")), ..Context::default() };
    let Input::Request(prepared) = understand(typed, &context).unwrap() else { panic!("{typed}") };
    let Frame::Reply(answer) = Frame::parse(json.as_bytes()).unwrap() else { panic!("{json}") };
    reply(&prepared, &answer, Some("lineker@realm2"), &Style::plain())
}

#[test]
fn every_reply_has_words_for_people() {
    let ok = r#"{"status":"OK"}"#;
    let stored =
        format!(r#"{{"status":"OK","message":"Message Sent","message_id":"{ID}","unknown":["pele","x"]}}"#);
    let users = r#"{"status":"OK","users":[{"name":"Lionel Messi","user":"messi"},{"user":"x","name":""}]}"#;
    let realms = r#"{"status":"OK","realms":[{"realm":"realm2","host":"h","port":4002,"state":"up","queued":0},{"realm":"realm3","oldest_s":7}]}"#;
    for (typed, json, expected) in [
        ("auth messi x", r#"{"status":"OK","tokenid":"secret"}"#, "logged in as messi".to_owned()),
        ("logout", ok, "logged out".into()),
        ("addrealm realm2 h 4002", ok, "realm realm2 added".into()),
        ("send a hi", &stored, format!("message sent to a ({ID})\nnot sent to pele, x: no such user")),
        ("sendgrouprealm realm2 a,b hi", &stored, format!("message sent to group a,b in realm realm2 ({ID})\nnot sent to pele, x: no such user")),
        ("list", r#"{"status":"OK","messages":"messi,lineker,"}"#, "active users: messi, lineker".into()),
        ("help ping", r#"{"status":"OK","commands":[{"usage":"ping TOKEN"}]}"#, "ping\n  answers".into()),
        ("getpresence messi", r#"{"status":"OK","online":true}"#, "messi is logged in".into()),
        ("whoami", r#"{"status":"OK","user":"messi","realm":"realm1","name":"Lionel Messi"}"#, "messi@realm1 (Lionel Messi)".into()),
        ("users", users, "name          user\nLionel Messi  messi\n              x".into()),
        ("users zz", r#"{"status":"OK","users":[]}"#, "nobody".into()),
        ("connectedrealm", realms, "realm   host  port  state  queued  oldest_s\nrealm2  h     4002  up     0\nrealm3                             7".into()),
        ("status 1", r#"{"status":"OK","id":"7","state":"failed","reason":"no-such-user"}"#, "state: failed\nreason: no-such-user".into()),
        ("capabilities", r#"{"status":"OK","limits":{"line_bytes":65536},"features":["a","b"]}"#, "limits:\n  line_bytes: 65536\nfeatures: a, b".into()),
        ("inbox", r#"{"status":"OK","messages":{}}"#, "no unread messages from this realm".into()),
        ("getrealminbox realm1", r#"{"status":"OK","messages":[]}"#, "no unread messages exchanged with realm1".into()),
    ] {
        assert_eq!(shown(typed, json), expected, "{typed}");
    }
}

#[test]
fn an_inbox_is_grouped_by_sender() {
    let json = format!(
        r#"{{"status":"OK","messages":{{"messi":[{},{}]}},"more":true}}"#,
        message("messi@realm2", "lineker@realm2", "satu"),
        message("messi@realm2", "lineker@realm2", "dua"),
    );
    let expected = "messi (Lionel Messi):\n  [2020-01-31 14:03] satu\n  [2020-01-31 14:03] dua\nthere are more: inbox again";
    assert_eq!(shown("inbox", &json), expected);
}

#[test]
fn a_conversation_says_who_said_what_to_whom() {
    let json = format!(
        r#"{{"status":"OK","messages":[{},{}]}}"#,
        message("messi@realm1", "lineker@realm2", "halo"),
        message("lineker@realm2", "messi@realm1", "hai"),
    );
    let expected =
        "[2020-01-31 14:03] messi@realm1 -> you: halo\n[2020-01-31 14:03] you -> messi@realm1: hai";
    assert_eq!(shown("history", &json), expected);
    let more = json.replace("]}", r#"],"more":true}"#);
    assert_eq!(
        shown("history", &more),
        format!("{expected}\nthere is more: the same command with before={ID}")
    );
}

#[test]
fn what_was_found_ends_with_the_newest_and_with_how_to_go_on() {
    let found =
        |text| message("messi@realm1", "lineker@realm2", text).replacen('{', r#"{"box":"realm1","#, 1);
    let json = format!(
        r#"{{"status":"OK","messages":[{},{}],"more":true,"next":"17"}}"#,
        found("dua"),
        found("satu")
    );
    let expected = "[2020-01-31 14:03] messi@realm1 -> you: satu\n[2020-01-31 14:03] messi@realm1 -> you: dua\n\
                    not everything was looked at: the same command with before=17 goes on";
    assert_eq!(shown("search a", &json), expected);
    assert_eq!(shown("search a", r#"{"status":"OK","messages":[]}"#), "nothing found");
}

#[test]
fn an_error_shows_its_message_code_and_detail() {
    let json = r#"{"status":"ERROR","code":"no-such-user","message":"User Tidak Ditemukan","detail":"see \u001b users"}"#;
    assert_eq!(shown("send a hi", json), "error: User Tidak Ditemukan (no-such-user) — see \\u{1b} users");
}

#[test]
fn a_reply_of_another_shape_is_shown_field_by_field() {
    assert_eq!(
        shown("list", r#"{"status":"OK","messages":["a","b"],"note":"x"}"#),
        "messages: a, b\nnote: x"
    );
    assert_eq!(shown("whoami", r#"{"status":"OK"}"#), "OK");
}

#[test]
fn nothing_from_others_reaches_the_terminal_unescaped() {
    let evil = "\u{1b}]0;x\u{7}\u{202e}";
    let json = serde_json::to_string(evil).unwrap();
    let text = message("messi@realm2", "lineker@realm2", evil);
    for (typed, json) in [
        ("inbox", format!(r#"{{"status":"OK","messages":{{{json}:[{text}]}}}}"#)),
        ("history", format!(r#"{{"status":"OK","messages":[{text}]}}"#)),
        (
            "search x",
            format!(
                r#"{{"status":"OK","messages":[{}],"next":{json}}}"#,
                text.replacen('{', r#"{"box":"local","#, 1)
            ),
        ),
        ("users", format!(r#"{{"status":"OK","users":[{{{json}:{json}}}]}}"#)),
        ("list", format!(r#"{{"status":"OK","messages":{json}}}"#)),
        ("whoami", format!(r#"{{"status":"OK","user":{json},"realm":{json},"name":{json}}}"#)),
        ("capabilities", format!(r#"{{"status":"OK",{json}:{json},"a":[{json}],"b":{{{json}:{json}}}}}"#)),
        ("ping", format!(r#"{{"status":"ERROR","code":{json},"message":{json},"detail":{json}}}"#)),
    ] {
        let shown = shown(typed, &json);
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
    }
}

#[test]
fn only_a_failed_delivery_is_worth_a_line() {
    let show =
        |json: &str, verbose| event(&serde_json::from_str(json).unwrap(), None, verbose, &Style::plain());
    let status = |state: &str| {
        format!(
            r#"{{"event":"status","realm":"realm2","state":"{state}","users":["pele"],"ids":["{ID}"],"reason":"no-such-user","ts":"x"}}"#
        )
    };
    let failed = format!("not delivered to pele@realm2: no-such-user ({ID})");
    assert_eq!(show(&status("failed"), false), Some(failed));
    assert_eq!(show(&status("delivered"), false), None);
    assert_eq!(show(&status("delivered"), true), Some(format!("delivered to pele@realm2 ({ID})")));
    assert_eq!(show(&status("stored"), true), None);
}

#[test]
fn a_pushed_message_reads_like_one_of_the_history() {
    let body = message("lineker@realm2", "messi@realm1", "halo");
    let json = format!(r#"{{"event":"message","box":"realm2",{}"#, &body[1..]);
    let event = |me| event(&serde_json::from_str(&json).unwrap(), me, false, &Style::plain()).unwrap();
    assert_eq!(event(Some("messi@realm1")), "[2020-01-31 14:03] lineker@realm2 -> you: halo");
    let notice = json.replace(r#""from":"lineker@realm2""#, r#""from":"@realm2","kind":"notice""#);
    let shown = super::event(&serde_json::from_str(&notice).unwrap(), None, false, &Style::plain()).unwrap();
    assert_eq!(shown, "[2020-01-31 14:03] notice from @realm2: halo");
}
