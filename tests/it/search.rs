//! `search`: what was said is found by its words, by those who may read it, however much there is.

use std::collections::BTreeSet;

use serde_json::Value;

use super::BROKER;
use crate::harness::{Chat, ok, refused, text, texts};

/// One answer: what was found, and where to go on.
#[track_caller]
fn page(chat: &mut Chat, args: &str) -> (Vec<Value>, Option<String>) {
    let reply = ok(chat.cmd(&format!("search {args}")));
    let found = reply["messages"].as_array().unwrap_or_else(|| panic!("not a list: {reply}")).clone();
    let next = reply["next"].as_str().map(str::to_owned);
    assert_eq!(reply["more"] == true, next.is_some(), "{reply}");
    (found, next)
}

/// All that is found, over as many answers as it takes.
#[track_caller]
fn search(chat: &mut Chat, args: &str) -> Vec<Value> {
    let (mut all, mut next) = page(chat, args);
    while let Some(place) = next {
        let (more, then) = page(chat, &format!("{args} before={place}"));
        all.extend(more);
        next = then;
    }
    all
}

#[test]
fn all_words_have_to_be_there_and_case_and_accents_do_not_count() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("send henderson Gol bunuh DIRI di menit 90"));
    ok(henderson.cmd("send messi ke CAFÉ sesudah gol itu?"));
    ok(messi.cmd("send henderson sampai nanti"));
    for chat in [&mut messi, &mut henderson] {
        let both = ["ke CAFÉ sesudah gol itu?", "Gol bunuh DIRI di menit 90"];
        assert_eq!(texts(&search(chat, "GOL")), both, "newest first");
        assert_eq!(texts(&search(chat, "diri gol")), both[1..]);
        assert_eq!(texts(&search(chat, "cafe")), both[..1]);
        assert!(search(chat, "gol nanti").is_empty());
    }
    henderson.inbox();
    assert_eq!(search(&mut henderson, "gol").len(), 2, "read or not");
    assert_eq!(messi.inbox().len(), 1, "a search marks nothing read");
}

#[test]
fn what_was_found_says_where_it_stands_and_is_there_once() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    ok(messi.cmd("send henderson kunci di sini"));
    ok(messi.cmd("send lineker@realm2 kunci di sana"));
    ok(messi.cmd("sendgrouprealm realm2 messi,lineker kunci di mana"));
    ok(messi.cmd("sendgroup messi,henderson kunci untuk kita"));
    lineker.realm_inbox_of("realm1", 2);
    let shown = |found: &[Value]| -> Vec<(String, String)> {
        found.iter().map(|found| (text(found, "box").to_owned(), text(found, "msg").to_owned())).collect()
    };
    let expected = [
        ("local", "kunci untuk kita"),
        ("realm2", "kunci di mana"),
        ("realm2", "kunci di sana"),
        ("local", "kunci di sini"),
    ]
    .map(|(mailbox, text)| (mailbox.to_owned(), text.to_owned()));
    assert_eq!(shown(&search(&mut messi, "kunci")), expected);
    // Also where a page ends between two copies of a message.
    assert_eq!(shown(&search(&mut messi, "kunci limit=1")), expected);
    let found = search(&mut lineker, "kunci sana");
    assert_eq!(shown(&found), [("realm1".to_owned(), "kunci di sana".to_owned())]);
    assert_eq!((text(&found[0], "from"), text(&found[0], "to")), ("messi@realm1", "lineker@realm2"));
}

#[test]
fn nobody_finds_what_others_said() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm1", "lineker");
    let sent = ok(messi.cmd("send henderson rahasia"));
    assert!(search(&mut lineker, "rahasia").is_empty());
    assert!(search(&mut lineker, "rahasia before=18446744073709551615").is_empty());
    let before = format!("search rahasia before={}", text(&sent, "message_id"));
    refused(lineker.cmd(&before), "no-such-message");
    refused(messi.cmd("search limit=3"), "bad-request");
    let mut stranger = server.connect("realm1");
    refused(stranger.ask("search 00000000-0000-4000-8000-000000000000 rahasia"), "not-authorized");
}

#[test]
fn a_search_pages_through_more_than_one_answer_holds() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut ids = Vec::new();
    for n in 0..1_200 {
        let word = if n % 8 == 0 { "jarum" } else { "jerami" };
        messi.start(&format!("send {} {word} {n}", if n % 2 == 0 { "messi" } else { "henderson" }));
    }
    for n in 0..1_200 {
        let sent = ok(messi.reply());
        if n % 8 == 0 {
            ids.push(text(&sent, "message_id").to_owned());
        }
    }
    ids.reverse();
    let found = |list: Vec<Value>| list.iter().map(|found| text(found, "id").to_owned()).collect::<Vec<_>>();
    assert_eq!(page(&mut messi, "jarum").0.len(), 20, "twenty unless told otherwise");
    assert_eq!(found(search(&mut messi, "jarum limit=100")), ids);
    let by_sevens = found(search(&mut messi, "jarum limit=7"));
    assert_eq!(
        by_sevens,
        ids,
        "no gap, nothing twice: {} of them",
        by_sevens.iter().collect::<BTreeSet<_>>().len()
    );
    let from = format!("jarum limit=3 before={}", ids[10]);
    assert_eq!(found(page(&mut messi, &from).0), ids[11..14], "before a message");
    assert_eq!(found(search(&mut messi, "jarum 1192")), ids[..1]);
}

#[test]
fn what_was_said_in_a_group_is_found_by_its_members_only() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(lineker.cmd("addrealm realm1 127.0.0.1 4001"));
    ok(messi.cmd("addgroup tim"));
    ok(lineker.cmd("joingroup #tim@realm1"));
    for n in 0..5 {
        ok(messi.cmd(&format!("sendgroup #tim Gol ke-{n}")));
    }
    assert_eq!(lineker.inbox_of(5).len(), 5);
    for (chat, group) in [(&mut messi, "#tim"), (&mut lineker, "#tim@realm1")] {
        let all = ["Gol ke-4", "Gol ke-3", "Gol ke-2", "Gol ke-1", "Gol ke-0"];
        assert_eq!(texts(&search(chat, &format!("{group} gol limit=2"))), all);
        assert_eq!(texts(&search(chat, &format!("{group} ke-3"))), all[1..2]);
        assert!(search(chat, "gol").is_empty(), "groups are searched by name");
    }
    refused(henderson.cmd("search #tim gol"), "not-a-member");
    refused(henderson.cmd("search #tidakada gol"), "no-such-group");
}
