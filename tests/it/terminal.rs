//! `antar chat` for people: typing, messages that come in meanwhile, a server that goes away and comes back.

use crate::harness::{Builder, Chat, Server, Terminal, ok, texts};

#[test]
fn a_person_logs_in_sends_and_leaves() {
    let server = Server::demo();
    let mut terminal = Terminal::chat(&server, "realm1");
    terminal.expect("antar> ");
    terminal.type_line("auth messi surabaya");
    terminal.expect("logged in as messi");
    terminal.type_line("send henderson halo dari terminal");
    terminal.expect("message sent to henderson");
    terminal.type_line("/help");
    terminal.expect("sendprivate");
    terminal.type_line("/quit");
    assert_eq!(terminal.wait_exit().code(), Some(0), "{}", terminal.shown());
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    assert_eq!(texts(&henderson.inbox()), ["halo dari terminal"]);
}

#[test]
fn a_message_is_shown_while_a_line_is_half_typed_and_the_line_stays() {
    let server = Server::demo();
    let mut terminal = Terminal::chat(&server, "realm1");
    terminal.type_line("auth messi surabaya");
    terminal.expect("logged in as messi");
    terminal.press("send henderson sete");
    terminal.expect("sete");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send messi datang di tengah"));
    terminal.expect("datang di tengah");
    terminal.type_line("ngah jadi");
    terminal.expect("message sent to henderson");
    assert_eq!(texts(&henderson.inbox()), ["setengah jadi"]);
}

#[test]
fn text_from_others_cannot_command_the_terminal() {
    let server = Server::demo();
    let mut terminal = Terminal::chat(&server, "realm1");
    terminal.type_line("auth messi surabaya");
    terminal.expect("logged in as messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send messi awal\u{1b}]0;judul\u{7}\u{1b}[2J\u{9b}2Jakhir"));
    terminal.expect("akhir");
    let shown = terminal.shown();
    for nasty in ["\u{1b}]0;judul", "\u{1b}[2J", "\u{9b}2J", "\u{7}"] {
        assert!(!shown.contains(nasty), "{nasty:?} reached the terminal");
    }
}

#[test]
fn a_password_that_is_asked_for_is_not_shown() {
    let server = Server::demo();
    let mut terminal = Terminal::chat(&server, "realm1");
    terminal.expect("antar> ");
    terminal.type_line("auth messi");
    terminal.expect("assword");
    terminal.type_line("surabaya");
    terminal.expect("logged in as messi");
    assert!(!terminal.text().contains("surabaya"), "{}", terminal.text());
}

#[test]
fn a_client_finds_its_server_again_and_gets_what_came_meanwhile() {
    let mut server = Builder::serve().start();
    let mut terminal = Terminal::chat(&server, "realm1");
    terminal.type_line("auth messi surabaya");
    terminal.expect("logged in as messi");
    server.kill9();
    server.start_where_it_was();
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send messi setelah bangun"));
    terminal.expect("setelah bangun");
    terminal.type_line("send henderson masih di sini");
    terminal.expect("message sent to henderson");
    assert_eq!(texts(&henderson.inbox()), ["masih di sini"]);
}
