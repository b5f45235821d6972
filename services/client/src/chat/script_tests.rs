//! Scripts against an edge that says what the test wants: order, output, exit codes.

use std::future::Future;

use tokio::join;
use tokio::net::TcpStream;

use super::*;
use crate::testing::{FakeServer, Peer};

const LOGGED_IN: &str = r#"{"status":"OK","tokenid":"T"}"#;
const OK: &str = r#"{"status":"OK"}"#;

struct Ran {
    code: u8,
    out: String,
    err: String,
}

/// Runs the commands; `serve` plays the server on the one connection.
async fn run_with<F: Future<Output = ()>>(
    options: ChatOptions,
    commands: &[&str],
    serve: impl FnOnce(Peer<TcpStream>) -> F,
) -> Ran {
    let server = FakeServer::bind().await;
    let options = ChatOptions { server: server.addr(), ..options };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let commands: Vec<String> = commands.iter().map(|&command| command.to_owned()).collect();
    let source = Source::Given(commands.into_iter());
    let nobody = |_: &str| None;
    let output = Output { out: &mut out, err: &mut err };
    let chat = Box::pin(run(&options, source, Style::plain(), output, &nobody));
    let (outcome, ()) = join!(chat, async { serve(server.accept().await).await });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: outcome.exit_code(), out: text(out), err: text(err) }
}

/// Expects these lines, and answers each with its frame.
async fn play(mut peer: Peer<TcpStream>, steps: &[(&str, &str)]) {
    for (line, answer) in steps {
        assert_eq!(peer.line().await.as_deref(), Some(*line));
        peer.frame(answer).await;
    }
    assert_eq!(peer.line().await, None, "nothing more is asked");
}

fn json() -> ChatOptions {
    ChatOptions { json: true, ..ChatOptions::default() }
}

#[tokio::test]
async fn each_reply_is_one_line_exactly_as_received() {
    let inbox = r#"{"status":"OK","messages":{"messi":[{"msg":"h\u00e9"}]},"new":1}"#;
    let steps = [("auth messi surabaya", LOGGED_IN), ("inbox T", inbox), ("ping", OK)];
    let commands = ["auth messi surabaya", "", "inbox", "ping"];
    let ran = run_with(json(), &commands, |peer| play(peer, &steps)).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out, format!("{LOGGED_IN}\n{inbox}\n{OK}\n"));
}

#[tokio::test]
async fn the_first_command_that_fails_ends_the_script_with_its_code() {
    for (code, expected) in
        [("no-such-user", 5), ("not-authorized", 4), ("unavailable", 3), ("of-tomorrow", 5)]
    {
        let error = format!(r#"{{"status":"ERROR","code":"{code}","message":"M","detail":"D"}}"#);
        let steps = [("auth messi x", LOGGED_IN), ("send T pele hi", error.as_str())];
        let commands = ["auth messi x", "send pele hi", "inbox"];
        let ran = run_with(json(), &commands, |peer| play(peer, &steps)).await;
        assert_eq!((ran.code, ran.out), (expected, format!("{LOGGED_IN}\n{error}\n")), "{code}");
        let ran = run_with(ChatOptions::default(), &commands, |peer| play(peer, &steps)).await;
        assert_eq!(ran.code, expected);
        assert_eq!((ran.out.as_str(), ran.err), ("logged in as messi\n", format!("error: M ({code}) — D\n")));
    }
}

#[tokio::test]
async fn what_is_wrong_on_this_side_is_not_sent() {
    for (command, code, said) in [
        ("inbox", 4, "error: inbox needs a login: auth USER PASSWORD\n"),
        ("auth messi", 2, "error: no password for messi: auth messi PASSWORD\n"),
        ("help a b", 2, "error: too many arguments: help [COMMAND]\n"),
        ("frobnicate", 2, "error: no such command: frobnicate. See /help\n"),
        ("ping\nping", 2, "error: a command is one line: it cannot hold line breaks\n"),
    ] {
        let ran = run_with(ChatOptions::default(), &[command], |peer| play(peer, &[])).await;
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (code, "", said), "{command:?}");
    }
}

#[tokio::test]
async fn the_user_of_the_options_is_logged_in_first_and_unseen_in_json() {
    let options = |json| ChatOptions {
        user: Some("messi".into()),
        password: Some("surabaya".into()),
        json,
        ..ChatOptions::default()
    };
    let steps = [("auth messi surabaya", LOGGED_IN), ("list T", r#"{"status":"OK","messages":"messi,"}"#)];
    let ran = run_with(options(true), &["list"], |peer| play(peer, &steps)).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "{\"status\":\"OK\",\"messages\":\"messi,\"}\n"));
    let ran = run_with(options(false), &["list"], |peer| play(peer, &steps)).await;
    assert_eq!(ran.out, "logged in as messi\nactive users: messi\n");
    let other = [("auth lineker jakarta", LOGGED_IN)];
    let ran = run_with(options(true), &["auth lineker jakarta"], |peer| play(peer, &other)).await;
    assert_eq!(ran.code, 0);
    let wrong = r#"{"status":"ERROR","code":"bad-password","message":"M"}"#;
    let refused = [("auth messi surabaya", wrong)];
    let ran = run_with(options(true), &["list"], |peer| play(peer, &refused)).await;
    assert_eq!((ran.code, ran.out), (4, format!("{wrong}\n")));
}

#[tokio::test]
async fn a_server_that_goes_away_is_unreachable() {
    let ran = run_with(ChatOptions::default(), &["ping", "ping"], |mut peer| async move {
        let _ = peer.line().await;
    })
    .await;
    assert_eq!((ran.code, ran.err.as_str()), (3, "error: the connection was closed\n"));
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let server = FakeServer::bind().await;
    let options = ChatOptions { server: server.addr(), ..ChatOptions::default() };
    drop(server);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let output = Output { out: &mut out, err: &mut err };
    let source = Source::Given(vec!["ping".to_owned()].into_iter());
    let outcome = Box::pin(run(&options, source, Style::plain(), output, &|_| None)).await;
    assert_eq!(outcome, ChatOutcome::Unreachable);
    assert!(String::from_utf8(err).unwrap().starts_with("error: cannot reach 127.0.0.1:"));
}

#[tokio::test]
async fn what_is_pushed_is_shown_behind_the_reply_to_watch() {
    let event = r#"{"event":"message","box":"local","msg_from":"A","msg_to":"B","msg":"halo","id":"0192d4d5-0000-7000-8000-000000000000","ts":"2020-01-31T14:03:00Z","from":"a@realm1","to":"b@realm1"}"#;
    let serve = |mut peer: Peer<TcpStream>| async move {
        for (line, answer) in [("auth b x", LOGGED_IN), ("watch T", OK)] {
            assert_eq!(peer.line().await.as_deref(), Some(line));
            peer.frame(answer).await;
        }
        peer.frame(event).await;
        peer.frame(r#"{"event":"shutdown"}"#).await;
    };
    let commands = ["auth b x", "watch", "/wait"];
    let ran = run_with(json(), &commands, serve).await;
    assert_eq!(ran.out, format!("{LOGGED_IN}\n{OK}\n{event}\n{{\"event\":\"shutdown\"}}\n"));
    assert_eq!((ran.code, ran.err.as_str()), (3, "error: the connection has ended\n"));
}

#[tokio::test]
async fn what_others_wrote_cannot_reach_the_terminal_of_a_script() {
    let history = r#"{"status":"ERROR","code":"x","message":"\u001b[2J"}"#;
    let steps = [("ping", history)];
    let ran = run_with(ChatOptions::default(), &["ping"], |peer| play(peer, &steps)).await;
    assert_eq!(ran.err, "error: \\u{1b}[2J (x)\n");
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_went_away_ends_the_script_without_a_panic() {
    let server = FakeServer::bind().await;
    let options = ChatOptions { server: server.addr(), ..ChatOptions::default() };
    let source = Source::Given(vec!["ping".to_owned(), "ping".to_owned()].into_iter());
    let output = Output { out: &mut Broken, err: &mut Vec::new() };
    let chat = Box::pin(run(&options, source, Style::plain(), output, &|_| None));
    let (outcome, ()) = join!(chat, async { play(server.accept().await, &[("ping", OK)]).await });
    assert_eq!(outcome, ChatOutcome::Failed);
}
