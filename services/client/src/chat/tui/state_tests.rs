//! Keys, events and answers, and what becomes of them.

use super::*;
use crate::chat::ChatOptions;
use crate::error::Closed;
use crate::reply::Frame;

pub(crate) fn reply(json: &str) -> Reply {
    match Frame::parse(json.as_bytes()).unwrap() {
        Frame::Reply(reply) => reply,
        Frame::Event(event) => panic!("{event:?}"),
    }
}

/// messi@realm1, whose history, users and watch were answered with nothing.
pub(crate) fn messi() -> State {
    let mut session = Session::new(&ChatOptions::default(), true);
    session.context.token = Some(crate::calls::Token::new("T"));
    session.context.user = Some("messi".into());
    session.realm = Some("realm1".into());
    let mut state = State::new(session, true);
    for _ in 0..3 {
        assert_eq!(state.answered(Ok(reply(r#"{"status":"OK","messages":[],"users":[]}"#))), Go::On);
    }
    assert!(state.outbox.is_empty());
    state
}

pub(crate) fn press(state: &mut State, code: KeyCode, modifiers: KeyModifiers) -> Go {
    state.key(KeyEvent::new(code, modifiers))
}

pub(crate) fn type_line(state: &mut State, line: &str) -> Go {
    for c in line.chars() {
        press(state, KeyCode::Char(c), KeyModifiers::NONE);
    }
    press(state, KeyCode::Enter, KeyModifiers::NONE)
}

/// A message is pushed.
pub(crate) fn push(state: &mut State, from: &str, text: &str) {
    let id = MessageId::fresh();
    let json = serde_json::json!({"event":"message","box":"local","msg_from":"x","msg_to":"y","msg":text,"id":id,
        "ts":"2026-01-31T09:30:00.123Z","from":from,"to":"messi@realm1"});
    let event: Event = serde_json::from_value(json).unwrap();
    assert_eq!(state.news(&News::Event(Box::new(event))), Go::On);
}

fn names(state: &State) -> Vec<(&str, usize)> {
    state.talks.all.iter().map(|talk| (talk.name.as_str(), talk.unread)).collect()
}

fn front(state: &State) -> &str {
    &state.outbox.front().expect("something waits").prepared.line
}

#[test]
fn messages_make_conversations_and_are_counted_until_they_are_opened() {
    let mut state = messi();
    push(&mut state, "henderson@realm1", "satu");
    push(&mut state, "lineker@realm2", "dua");
    push(&mut state, "henderson@realm1", "tiga");
    assert_eq!(names(&state), [("antar", 0), ("henderson", 2), ("lineker@realm2", 1)]);
    press(&mut state, KeyCode::Char('a'), KeyModifiers::ALT);
    assert_eq!(state.talks.current().name, "henderson");
    assert_eq!(state.talks.current().marker, Some(0));
    push(&mut state, "henderson@realm1", "empat");
    assert_eq!(names(&state), [("antar", 0), ("henderson", 0), ("lineker@realm2", 1)]);
    press(&mut state, KeyCode::Char('3'), KeyModifiers::ALT);
    assert_eq!(state.talks.current().name, "lineker@realm2");
    press(&mut state, KeyCode::Char('a'), KeyModifiers::ALT);
    press(&mut state, KeyCode::Char('9'), KeyModifiers::ALT);
    assert_eq!(state.talks.current().name, "lineker@realm2", "nowhere else to go");
    push(&mut state, "@realm2", "a notice");
    assert_eq!(names(&state)[0], ("antar", 1));
}

#[test]
fn what_history_showed_is_unread_when_it_is_pushed_and_stands_once() {
    let mut state = messi();
    let id = MessageId::fresh();
    let message = |from: &str, id: MessageId| {
        serde_json::json!({"msg_from":"x","msg_to":"y","msg":"halo","id":id,"ts":"2026-01-31T09:30:00Z",
            "from":from,"to":if from == "messi@realm1" {"henderson@realm1"} else {"messi@realm1"}})
    };
    let history = serde_json::json!({"status":"OK",
        "messages":[message("messi@realm1", MessageId::fresh()), message("henderson@realm1", id)]});
    state.quietly("history");
    state.answered(Ok(reply(&history.to_string())));
    assert_eq!(names(&state), [("antar", 0), ("henderson", 0)]);
    let mut event = message("henderson@realm1", id);
    event["event"] = "message".into();
    event["box"] = "local".into();
    state.news(&News::Event(Box::new(serde_json::from_value(event).unwrap())));
    assert_eq!(names(&state), [("antar", 0), ("henderson", 1)]);
    let talk = &state.talks.all[1];
    assert_eq!((talk.entries.len(), talk.marker), (2, Some(1)));
    assert_eq!(talk.entries[0].mark, Some(Mark::Stored), "one's own");
}

#[test]
fn a_line_goes_to_the_open_conversation_and_its_mark_goes_forward_only() {
    let mut state = messi();
    assert_eq!(type_line(&mut state, "halo?"), Go::On);
    assert!(state.outbox.is_empty(), "nobody to say that to");
    assert_eq!(state.editor.text(), "halo?", "the line is kept");
    press(&mut state, KeyCode::Char('c'), KeyModifiers::CONTROL);
    type_line(&mut state, "/to henderson");
    type_line(&mut state, "send lineker not a command here");
    let line = front(&state).to_owned();
    assert!(line.contains(" send T henderson send lineker not a command here"), "{line}");
    let id = state.outbox[0].id.expect("a send has an id");
    let mark = |state: &State| state.talks.current().entries[0].mark.clone();
    assert_eq!(mark(&state), Some(Mark::Waiting));
    state.answered(Ok(reply(&format!(r#"{{"status":"OK","message_id":"{id}"}}"#))));
    assert_eq!(mark(&state), Some(Mark::Stored));
    state.talks.status(&[id], antar_proto::reply::State::Read, None);
    state.talks.status(&[id], antar_proto::reply::State::Delivered, None);
    assert_eq!(mark(&state), Some(Mark::Read));
}

#[test]
fn what_had_no_answer_is_kept_and_sent_again_under_the_same_id_in_its_order() {
    let mut state = messi();
    type_line(&mut state, "/to henderson");
    type_line(&mut state, "satu");
    type_line(&mut state, "dua");
    let first = front(&state).to_owned();
    state.answered(Err(RequestError::Closed(Closed::Ended)));
    state.news(&News::Lost("the server is shutting down".into()));
    assert!(state.lost.is_some());
    type_line(&mut state, "tiga");
    assert_eq!((front(&state), state.unsent()), (first.as_str(), 3));
    state.news(&News::Restored { session_ended: false });
    assert!(state.lost.is_none());
    // Nobody can tell, and then it is there.
    let unknown = r#"{"status":"ERROR","code":"unavailable","message":"x","stored":"unknown"}"#;
    state.answered(Ok(reply(unknown)));
    assert_eq!(front(&state), first);
    for _ in 0..3 {
        let id = state.outbox[0].id.unwrap();
        state.answered(Ok(reply(&format!(r#"{{"status":"OK","message_id":"{id}","duplicate":true}}"#))));
    }
    assert!(front(&state).contains("watch T"), "messages are pushed on the new connection too");
    let marks: Vec<_> = state.talks.current().entries.iter().map(|entry| entry.mark.clone()).collect();
    assert_eq!(marks, vec![Some(Mark::Stored); 3]);
}

#[test]
fn a_send_that_is_refused_says_why_and_a_server_that_stays_away_is_not_asked_for_ever() {
    let mut state = messi();
    type_line(&mut state, "/to pele");
    type_line(&mut state, "halo");
    state.answered(Ok(reply(r#"{"status":"ERROR","code":"no-such-user","message":"User Tidak Ditemukan"}"#)));
    let mark = |state: &State, at: usize| state.talks.current().entries[at].mark.clone();
    assert!(matches!(mark(&state, 0), Some(Mark::Failed(why)) if why.contains("no-such-user")));
    type_line(&mut state, "lagi");
    for _ in 0..3 {
        state.answered(Ok(reply(r#"{"status":"ERROR","code":"unavailable","message":"x","stored":false}"#)));
    }
    assert!(state.outbox.is_empty());
    assert!(matches!(mark(&state, 1), Some(Mark::Failed(_))));
}

#[test]
fn other_commands_are_not_repeated() {
    let mut state = messi();
    type_line(&mut state, "/passwd surabaya lain");
    type_line(&mut state, "/auth messi surabaya");
    assert!(state.outbox.is_empty());
    let shown = |state: &State| state.talks.all[0].entries.back().unwrap().text.clone();
    assert!(shown(&state).contains("line mode"));
    type_line(&mut state, "/addrealm realm2 127.0.0.1 4002");
    state.answered(Err(RequestError::Closed(Closed::Ended)));
    assert!(state.outbox.is_empty());
    assert!(shown(&state).contains("may have been carried out"), "{}", shown(&state));
    type_line(&mut state, "/addrealm realm2 127.0.0.1 4002");
    state.answered(Ok(reply(r#"{"status":"OK"}"#)));
    assert_eq!(shown(&state), "realm realm2 added");
}

#[test]
fn the_end_of_the_session_and_leaving_are_told_apart() {
    let mut state = messi();
    assert_eq!(state.news(&News::Restored { session_ended: true }), Go::SessionEnded);
    assert_eq!(state.news(&News::Event(Box::new(Event::LoggedOut))), Go::SessionEnded);
    assert_eq!(type_line(&mut state, "/quit"), Go::Leave);
    assert_eq!(press(&mut state, KeyCode::Char('d'), KeyModifiers::CONTROL), Go::Leave);
    type_line(&mut state, "/logout");
    assert_eq!(state.answered(Ok(reply(r#"{"status":"OK"}"#))), Go::Leave);
    let mut state = messi();
    type_line(&mut state, "/to henderson");
    type_line(&mut state, "halo");
    let dead = r#"{"status":"ERROR","code":"not-authorized","message":"x"}"#;
    assert_eq!(state.answered(Ok(reply(dead))), Go::SessionEnded);
    assert_eq!(state.unsent(), 1, "it is told that this was not sent");
}

#[test]
fn names_are_completed_the_last_seen_first() {
    let mut state = messi();
    state.quietly("users");
    state.answered(Ok(reply(r#"{"status":"OK","users":[{"user":"hagi"},{"user":"henderson"}]}"#)));
    push(&mut state, "henry@realm1", "satu");
    push(&mut state, "henderson@realm1", "dua");
    let tab = |state: &mut State| press(state, KeyCode::Tab, KeyModifiers::NONE);
    for c in "/to h".chars() {
        press(&mut state, KeyCode::Char(c), KeyModifiers::NONE);
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        tab(&mut state);
        seen.push(state.editor.text().to_owned());
    }
    assert_eq!(seen, ["/to henderson", "/to henry", "/to hagi", "/to henderson"]);
    press(&mut state, KeyCode::Char('u'), KeyModifiers::CONTROL);
    for c in "/sea".chars() {
        press(&mut state, KeyCode::Char(c), KeyModifiers::NONE);
    }
    tab(&mut state);
    assert_eq!(state.editor.text(), "/search ");
}

#[test]
fn a_draft_stays_in_its_conversation() {
    let mut state = messi();
    type_line(&mut state, "/to henderson");
    type_line(&mut state, "/to lineker");
    state.paste("setengah");
    press(&mut state, KeyCode::Char('2'), KeyModifiers::ALT);
    assert_eq!(state.editor.text(), "");
    press(&mut state, KeyCode::Down, KeyModifiers::ALT);
    assert_eq!((state.talks.current().name.as_str(), state.editor.text()), ("lineker", "setengah"));
}

#[test]
fn search_finds_what_is_loaded_everywhere() {
    let mut state = messi();
    push(&mut state, "henderson@realm1", "rapat Besok pagi");
    push(&mut state, "lineker@realm2", "besok tidak pagi-pagi");
    push(&mut state, "lineker@realm2", "lusa");
    type_line(&mut state, "/search BESOK pagi");
    let Pane::Found { entries, .. } = &state.pane else { panic!("{:?}", state.pane) };
    let found: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, ["henderson", "lineker@realm2"]);
    press(&mut state, KeyCode::Esc, KeyModifiers::NONE);
    assert!(matches!(state.pane, Pane::Talk));
}

#[test]
fn nothing_grows_without_bound() {
    let mut state = messi();
    for n in 0..2_500 {
        push(&mut state, "henderson@realm1", &format!("ke-{n}"));
    }
    let talk = &state.talks.all[1];
    assert_eq!((talk.entries.len(), talk.unread), (2_000, 2_500));
    for n in 0..1_100 {
        push(&mut state, &format!("user{n}@realm1"), "halo");
    }
    assert_eq!(state.talks.all.len(), 1_000);
    type_line(&mut state, "/to henderson");
    for n in 0..257 {
        type_line(&mut state, &format!("baris {n}"));
    }
    assert_eq!(state.outbox.len(), 256);
    assert_eq!(state.editor.text(), "baris 256", "what is not taken is kept");
}
