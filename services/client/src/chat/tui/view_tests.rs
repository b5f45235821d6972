//! What is drawn, without a terminal.

use crossterm::event::{KeyCode, KeyModifiers};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::chat::tui::state::tests::{messi, press, push, type_line};

fn look(colour: bool) -> Look {
    Look { colour, zone: TimeZone::UTC, server: "127.0.0.1:4001".into() }
}

fn terminal(state: &State, width: u16, height: u16, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(state, frame, &look(colour))).unwrap();
    terminal
}

fn rows(state: &State, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(state, width, height, false);
    let cells = terminal.backend().buffer().content();
    let row = |row: &[ratatui::buffer::Cell]| {
        row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()
    };
    cells.chunks(usize::from(width)).map(row).collect()
}

#[test]
fn conversations_stand_at_the_side_and_what_was_said_beside_them() {
    let mut state = messi();
    push(&mut state, "henderson@realm1", "halo bang");
    push(&mut state, "lineker@realm2", "angkara");
    press(&mut state, KeyCode::Char('2'), KeyModifiers::ALT);
    type_line(&mut state, "halo juga");
    let shown = rows(&state, 70, 9);
    assert_eq!(shown[0], " henderson (1 unread elsewhere)  messi@realm1 at 127.0.0.1:4001");
    assert!(shown[1].starts_with("1 antar"), "{shown:#?}");
    assert!(shown[2].starts_with("2 henderson "), "{shown:#?}");
    assert!(shown[3].starts_with("3 lineker@realm2 1 "), "{shown:#?}");
    assert!(shown[1].contains("── 2026-01-31 ───"), "{shown:#?}");
    assert!(shown.iter().any(|row| row.ends_with("09:30 henderson: halo bang")), "{shown:#?}");
    assert!(shown.iter().any(|row| row.ends_with(" messi: halo juga …")), "{shown:#?}");
    assert_eq!(shown[7], "connected, 1 waiting to be sent  /help");
    assert_eq!(shown[8], ">");
    // A narrow screen has no list.
    assert!(rows(&state, 40, 9)[1].starts_with("── 2026-01-31 ───"));
}

#[test]
fn what_was_unread_is_marked_and_older_things_can_be_shown() {
    let mut state = messi();
    for n in 0..40 {
        push(&mut state, "henderson@realm1", &format!("ke-{n}"));
        if n == 29 {
            press(&mut state, KeyCode::Char('2'), KeyModifiers::ALT);
            press(&mut state, KeyCode::Char('1'), KeyModifiers::ALT);
        }
    }
    press(&mut state, KeyCode::Char('a'), KeyModifiers::ALT);
    let shown = rows(&state, 60, 20);
    let marker = shown.iter().position(|row| row.contains("── unread ──")).expect("a marker");
    assert!(shown[marker - 1].ends_with("ke-29") && shown[marker + 1].ends_with("ke-30"), "{shown:#?}");
    assert!(shown[17].ends_with("ke-39"), "{shown:#?}");
    press(&mut state, KeyCode::PageUp, KeyModifiers::NONE);
    push(&mut state, "henderson@realm1", "baru");
    let shown = rows(&state, 60, 20);
    assert!(shown[17].contains("── 11 more below"), "{shown:#?}");
    assert!(shown[16].ends_with("ke-28"), "{shown:#?}");
    press(&mut state, KeyCode::PageDown, KeyModifiers::NONE);
    press(&mut state, KeyCode::PageDown, KeyModifiers::NONE);
    assert!(rows(&state, 60, 20)[17].ends_with("baru"));
}

#[test]
fn long_texts_are_wrapped_beside_the_name_and_nothing_of_them_is_lost() {
    let mut state = messi();
    push(&mut state, "henderson@realm1", "satu dua tiga empat lima enam tujuh");
    press(&mut state, KeyCode::Char('2'), KeyModifiers::ALT);
    let shown = rows(&state, 40, 8);
    assert_eq!(&shown[3..5], ["09:30 henderson: satu dua tiga empat", "                 lima enam tujuh"]);
    assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
    assert_eq!(wrap("a bcd ef", 3), ["a", "bcd", "ef"]);
    assert_eq!(wrap("漢字漢", 4), ["漢字", "漢"]);
    assert_eq!(wrap("", 4), [""]);
    // A sign that becomes an emoji is wider than it was.
    assert_eq!(wrap("❤️❤️", 3), ["❤️", "❤️"]);
}

#[test]
fn help_and_what_was_found_fill_the_place_of_the_conversation() {
    let mut state = messi();
    type_line(&mut state, "/help");
    let shown = rows(&state, 100, 30).join("\n");
    assert!(shown.contains("Alt-A") && shown.contains("/search WORDS"), "{shown}");
    push(&mut state, "henderson@realm1", "rapat besok");
    type_line(&mut state, "/search rapat");
    let shown = rows(&state, 100, 10).join("\n");
    assert!(shown.contains("1 found of rapat") && shown.contains("henderson: rapat besok"), "{shown}");
}

#[test]
fn a_lost_connection_is_told() {
    let mut state = messi();
    state.lost = Some("the server is shutting down".into());
    assert!(
        rows(&state, 80, 6)[4].starts_with("not connected: the server is shutting down; connecting again")
    );
}

#[test]
fn without_colours_there_are_none_and_with_them_a_name_keeps_its_own() {
    let mut state = messi();
    push(&mut state, "henderson@realm1", "halo");
    push(&mut state, "lineker@realm2", "halo");
    press(&mut state, KeyCode::Char('2'), KeyModifiers::ALT);
    let plain = terminal(&state, 80, 10, false);
    assert!(
        plain
            .backend()
            .buffer()
            .content()
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    let coloured = terminal(&state, 80, 10, true);
    assert!(coloured.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset));
    assert_eq!(look(true).name("henderson").fg, Some(Color::Blue), "for ever the same");
}

#[test]
fn text_from_others_is_harmless() {
    let mut state = messi();
    push(&mut state, "henderson@realm1", "awal\u{1b}]0;judul\u{7}\u{202e}akhir");
    press(&mut state, KeyCode::Char('2'), KeyModifiers::ALT);
    let shown = rows(&state, 100, 8).concat();
    assert!(shown.contains("awal\\u{1b}]0;judul\\u{7}\\u{202e}akhir"), "{shown}");
}

proptest! {
    #[test]
    fn any_size_and_any_text_can_be_drawn(width in 1u16..90, height in 1u16..30, text in ".{0,80}", name in "[a-z]{1,32}") {
        let mut state = messi();
        push(&mut state, &format!("{name}@realm1"), &text);
        press(&mut state, KeyCode::Char('2'), KeyModifiers::ALT);
        type_line(&mut state, &text);
        state.paste(&text);
        rows(&state, width, height);
        type_line(&mut state, "/help");
        rows(&state, width, height);
        type_line(&mut state, "/search a");
        rows(&state, width, height);
        // What is drawn was escaped when it came in.
        for line in wrap(&antar_proto::escape::escape(&text), usize::from(width).max(2)) {
            prop_assert!(line.width() <= usize::from(width).max(2), "{line:?}");
        }
    }
}
