//! `antar chat --tui` in a terminal, and terminals that are given back by both modes.

use std::fs;
use std::process::Command;

use crate::harness::{Builder, Chat, Server, Terminal, eventually, ok, texts};

const SIZE: (u16, u16) = (24, 80);
const PASSWORD: &[(&str, &str)] = &[("ANTAR_PASSWORD", "surabaya")];

/// messi's screen, once it shows that it is connected.
fn messi(server: &Server) -> Terminal {
    let terminal = Terminal::chat_with(server, "realm1", "--tui --user messi", PASSWORD);
    terminal.expect_screen(SIZE, &["messi@realm1 at", "connected", "/help shows what can be typed"]);
    terminal
}

fn told(server: &Server, what: &str) -> String {
    fs::read_to_string(server.dir().join(what)).expect("it was written").trim().to_owned()
}

fn signal(server: &Server, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", told(server, "pid"))).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
}

/// The modes of a terminal in which a shell can go on.
fn expect_given_back(terminal: &mut Terminal, code: u8) {
    terminal.expect(&format!("ended={code}"));
    terminal.expect("icanon");
    let (_, modes) =
        terminal.text().rsplit_once("ended=").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("told");
    for wrong in ["-icanon", "-echo ", "-isig", "-opost", "-icrnl"] {
        assert!(!modes.contains(wrong), "{wrong} in {modes}");
    }
}

#[test]
fn a_person_talks_on_the_full_screen_and_gets_the_terminal_back() {
    let server = Server::demo();
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send messi halo dari luar"));
    let mut terminal = messi(&server);
    terminal.expect_screen(SIZE, &["2 henderson 1", "1 unread elsewhere"]);
    terminal.press("\u{1b}a");
    terminal.expect_screen(SIZE, &[" henderson  messi", "── unread", "henderson: halo dari luar"]);
    terminal.type_line("halo juga");
    terminal.expect_screen(SIZE, &["messi: halo juga ✓"]);
    assert_eq!(texts(&henderson.inbox()), ["halo juga"]);
    ok(henderson.cmd("send messi langsung"));
    terminal.expect_screen(SIZE, &["henderson: langsung"]);
    terminal.type_line("/search luar");
    terminal.expect_screen(SIZE, &["1 found of luar", "henderson: halo dari luar"]);
    terminal.type_line("/users lin");
    terminal.expect_screen(SIZE, &["lineker", "Gary Lineker"]);
    terminal.type_line("/quit");
    expect_given_back(&mut terminal, 0);
    assert!(terminal.shown().contains("\u{1b}[?1049l"), "the other screen is left");
    assert!(!terminal.text().contains("surabaya"));
}

#[test]
fn names_are_completed_with_tab_on_the_full_screen() {
    let server = Server::demo();
    let mut terminal = messi(&server);
    // The names of the realm's users come with an answer that nobody sees: press until they are there.
    eventually("the name is completed", || {
        terminal.press("\u{15}/to hend\t");
        terminal.screen(SIZE.0, SIZE.1).contains("> /to henderson").then_some(())
    });
    terminal.press("\r");
    terminal.expect_screen(SIZE, &[" henderson  messi@realm1"]);
    terminal.type_line("lengkap");
    terminal.expect_screen(SIZE, &["messi: lengkap ✓"]);
}

#[test]
fn the_full_screen_follows_the_size_of_the_terminal() {
    let server = Server::demo();
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send messi ukuran"));
    let mut terminal = messi(&server);
    terminal.expect_screen(SIZE, &["2 henderson 1"]);
    terminal.press("\u{1b}2");
    terminal.expect_screen(SIZE, &["1 antar", "henderson: ukuran"]);
    for (rows, columns) in [(10_u16, 40_u16), (40, 120)] {
        let size = format!("stty -F {} rows {rows} cols {columns}", told(&server, "tty"));
        assert!(Command::new("sh").arg("-c").arg(size).status().is_ok_and(|status| status.success()));
        eventually("it is drawn in its new size", || {
            let screen = terminal.screen(rows, columns);
            let input_is_last = screen.lines().count() == usize::from(rows)
                && screen.lines().last().is_some_and(|line| line.starts_with('>'));
            let has_list = screen.contains("1 antar");
            (input_is_last && screen.contains("henderson: ukuran") && has_list == (columns >= 60))
                .then_some(())
        });
    }
}

#[test]
fn what_was_sent_while_the_server_was_away_arrives_once() {
    let mut server = Builder::serve().start();
    let mut terminal = messi(&server);
    terminal.type_line("/to henderson");
    terminal.type_line("sebelum");
    terminal.expect_screen(SIZE, &["messi: sebelum ✓"]);
    server.kill9();
    terminal.expect_screen(SIZE, &["not connected"]);
    terminal.type_line("selama");
    terminal.type_line("masih");
    terminal.expect_screen(SIZE, &["messi: selama …", "messi: masih …", "2 waiting to be sent"]);
    server.start_where_it_was();
    terminal.expect_screen(SIZE, &["messi: selama ✓", "messi: masih ✓"]);
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    assert_eq!(texts(&henderson.inbox()), ["sebelum", "selama", "masih"]);
    ok(henderson.cmd("send messi sudah"));
    terminal.expect_screen(SIZE, &["henderson: sudah", "connected"]);
}

#[test]
fn colours_are_left_out_when_they_are_not_wanted() {
    let server = Server::demo();
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send messi warna"));
    let coloured = |terminal: &Terminal| {
        let shown = terminal.shown();
        ["\u{1b}[38;5;", "\u{1b}[31m", "\u{1b}[34m"].iter().any(|colour| shown.contains(colour))
    };
    let mut terminal = messi(&server);
    terminal.expect_screen(SIZE, &["2 henderson 1"]);
    terminal.press("\u{1b}2");
    terminal.expect_screen(SIZE, &["henderson: warna"]);
    assert!(coloured(&terminal), "{}", terminal.shown());
    ok(henderson.cmd("send messi lagi"));
    terminal.expect_screen(SIZE, &["henderson: lagi"]);
    let env = [("ANTAR_PASSWORD", "surabaya"), ("NO_COLOR", "1")];
    let mut plain = Terminal::chat_with(&server, "realm1", "--tui --user messi", &env);
    plain.expect_screen(SIZE, &["2 henderson"]);
    plain.press("\u{1b}2");
    plain.expect_screen(SIZE, &["henderson: warna"]);
    assert!(!coloured(&plain), "{}", plain.shown());
}

#[test]
fn a_terminal_is_given_back_when_the_client_is_told_to_end() {
    let server = Server::demo();
    let mut terminal = messi(&server);
    terminal.press("setengah");
    terminal.expect_screen(SIZE, &["> setengah"]);
    signal(&server, "TERM");
    expect_given_back(&mut terminal, 0);
    assert!(terminal.shown().contains("\u{1b}[?1049l") && terminal.shown().contains("\u{1b}[?2004l"));
    // The line mode too, in the midst of a line.
    let mut terminal = Terminal::chat_with(&server, "realm1", "", &[]);
    terminal.expect("antar> ");
    terminal.press("setengah");
    terminal.expect("setengah");
    signal(&server, "TERM");
    expect_given_back(&mut terminal, 0);
}

#[test]
fn a_login_that_fails_never_takes_the_screen() {
    let server = Server::demo();
    let wrong = [("ANTAR_PASSWORD", "salah")];
    let mut terminal = Terminal::chat_with(&server, "realm1", "--tui --user messi", &wrong);
    terminal.expect("Password");
    expect_given_back(&mut terminal, 4);
    assert!(!terminal.shown().contains("\u{1b}[?1049h"));
    crate::harness::antar(["chat", "--server", &server.addr("realm1").to_string(), "--tui"]).exits(2);
}

#[test]
fn a_file_goes_to_the_open_conversation_and_is_saved() {
    let server = Server::demo();
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let (path, saved) = (server.dir().join("Foto.bin"), server.dir().join("Lagi.bin"));
    fs::write(&path, vec![7; 100_000]).expect("writable");
    let mut terminal = messi(&server);
    terminal.type_line("/to henderson");
    terminal.type_line(&format!("/file {}", path.display()));
    terminal.expect_screen(SIZE, &["file Foto.bin (100000 bytes)"]);
    let id = henderson.inbox_of(1)[0]["file"]["id"].as_str().expect("an id").to_owned();
    terminal.type_line(&format!("/get {id} {}", saved.display()));
    terminal.expect_screen(SIZE, &["saved as"]);
    assert!(fs::read(&saved).expect("it is there") == vec![7; 100_000]);
    terminal.type_line("/quit");
    expect_given_back(&mut terminal, 0);
}
