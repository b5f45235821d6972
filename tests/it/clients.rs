//! `antar chat` for scripts: what it prints and how it ends.

use crate::harness::{Chat, Output, Server, antar, antar_with_input, ok, text, texts};

fn chat(server: &Server, realm: &str, args: &[&str]) -> Output {
    let addr = server.addr(realm).to_string();
    antar(["chat", "--server", &addr].iter().chain(args))
}

#[test]
fn a_script_logs_in_and_sends_and_prints_each_reply_as_json() {
    let server = Server::demo();
    let output =
        chat(&server, "realm1", &["-c", "auth messi surabaya", "-c", "send henderson halo", "--json"])
            .exits(0);
    let replies = output.json_lines();
    assert_eq!(replies.len(), 2, "{output:?}");
    assert_eq!(replies[0]["status"], "OK");
    assert_eq!(replies[1]["message"], "Message Sent");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let read = henderson.inbox();
    assert_eq!(texts(&read), ["halo"]);
    assert_eq!(read[0]["id"], replies[1]["message_id"]);
}

#[test]
fn the_reports_commands_need_no_token() {
    let server = Server::demo();
    let script = [
        "-c",
        "auth messi surabaya",
        "-c",
        "addrealm realm2 127.0.0.1 4002",
        "-c",
        "sendgroup messi,henderson halo temen satu grup",
        "-c",
        "sendprivate henderson halo bang hen",
        "-c",
        "sendgrouprealm realm2 henderson,lineker halo realm sebelah",
        "-c",
        "sendprivaterealm realm2 lineker angkara",
        "-c",
        "getinbox",
        "-c",
        "getrealminbox realm2",
        "-c",
        "list",
        "-c",
        "connectedrealm",
        "-c",
        "whoami",
        "-c",
        "logout",
        "--json",
    ];
    let output = chat(&server, "realm1", &script).exits(0);
    let replies = output.json_lines();
    assert_eq!(replies.len(), 12, "{output:?}");
    assert!(replies.iter().all(|reply| reply["status"] == "OK"), "{output:?}");
    assert_eq!(replies[6]["messages"]["messi"][0]["msg"], "halo temen satu grup");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 2)), ["halo realm sebelah", "angkara"]);
}

#[test]
fn each_way_to_fail_has_its_exit_code() {
    let server = Server::demo();
    // 2: it cannot be a command.
    chat(&server, "realm1", &["-c", "nonsens apa"]).exits(2);
    // 3: nobody answers.
    let mut gone = Server::demo();
    let addr = gone.addr("realm1").to_string();
    gone.sigterm();
    antar(["chat", "--server", &addr, "-c", "ping"]).exits(3);
    // 4: not authorised.
    chat(&server, "realm1", &["-c", "auth messi salah"]).exits(4);
    chat(&server, "realm1", &["-c", "inbox"]).exits(4);
    // 5: understood and refused.
    let output =
        chat(&server, "realm1", &["-c", "auth messi surabaya", "-c", "send pele halo", "-c", "send messi x"]);
    output.exits(5);
    let mut messi = Chat::login(&server, "realm1", "messi");
    assert!(messi.inbox().is_empty(), "a script ends at its first failure");
    chat(&server, "realm1", &["-c", "ping"]).exits(0);
}

#[test]
fn a_password_comes_from_a_file_or_from_the_environment() {
    let server = Server::demo();
    let file = server.dir().join("password");
    std::fs::write(&file, "surabaya\n").expect("writable");
    let file = file.to_str().expect("a temporary path is UTF-8");
    let output =
        chat(&server, "realm1", &["--user", "messi", "--password-file", file, "--json", "-c", "whoami"])
            .exits(0);
    let replies = output.json_lines();
    assert_eq!(text(replies.last().expect("a reply"), "user"), "messi");
    let addr = server.addr("realm1").to_string();
    let args = ["chat", "--server", &addr, "--user", "messi", "-c", "whoami"];
    antar_with_input(args, &[("ANTAR_PASSWORD", "surabaya")], "").exits(0);
    antar_with_input(args, &[("ANTAR_PASSWORD", "salah")], "").exits(4);
}

#[test]
fn commands_are_read_from_a_pipe_too() {
    let server = Server::demo();
    let addr = server.addr("realm1").to_string();
    let script = "auth messi surabaya\nsend henderson dari pipa\n";
    let output = antar_with_input(["chat", "--server", &addr, "--json"], &[], script).exits(0);
    assert_eq!(output.json_lines().len(), 2, "{output:?}");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    assert_eq!(texts(&henderson.inbox()), ["dari pipa"]);
}

#[test]
fn text_from_others_cannot_command_the_terminal() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("send henderson \u{1b}[2J\u{1b}]0;judul\u{7} merah"));
    let output = chat(&server, "realm1", &["-c", "auth henderson surabaya", "-c", "inbox"]).exits(0);
    assert!(output.stdout.contains("merah"), "{output:?}");
    assert!(!output.stdout.contains('\u{1b}') && !output.stdout.contains('\u{7}'), "{output:?}");
}

#[test]
fn what_is_printed_never_holds_the_password() {
    let server = Server::demo();
    let output = chat(&server, "realm1", &["-c", "auth messi surabaya", "-c", "whoami"]).exits(0);
    assert!(!output.stdout.contains("surabaya") && !output.stderr.contains("surabaya"), "{output:?}");
}

#[test]
fn a_file_is_sent_and_saved_and_replaces_nothing() {
    let server = Server::demo();
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let bytes: Vec<u8> = (0..150_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(path("Film.bin"), &bytes).expect("writable");
    let messi = ["-c", "auth messi surabaya", "-c"];
    let sent =
        chat(&server, "realm1", &[&messi[..], &[&format!("/file henderson {}", path("Film.bin"))]].concat());
    assert!(sent.exits(0).stdout.contains("file Film.bin (600000 bytes) sent to henderson"));
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let file = henderson.inbox_of(1)[0]["file"].clone();
    let get = |to: &str| {
        let get = format!("/get {} {to}", text(&file, "id"));
        chat(&server, "realm1", &["-c", "auth henderson surabaya", "-c", &get])
    };
    for saved in ["Film-1.bin", "lain"] {
        let to = if saved == "lain" { path("lain") } else { path("") };
        let said = get(&to).exits(0).stdout;
        assert!(said.contains(saved), "{said}");
        assert!(std::fs::read(path(saved)).expect("it is there") == bytes, "other bytes came out");
    }
    let refused = get(&path("lain")).exits(1).stderr;
    assert!(refused.contains("lain"), "{refused}");
    let refused = chat(&server, "realm1", &[&messi[..], &[&format!("/file pele {}", path("lain"))]].concat());
    assert!(refused.exits(5).stderr.contains("no-such-user"));
}
