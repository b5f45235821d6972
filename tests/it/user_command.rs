//! `antar user …`, on a realm that is served and on one that is not.

use std::path::PathBuf;

use crate::harness::{Builder, Chat, Output, Server, antar, antar_with_input, ok, refused, text, texts};

const NEW: &str = "rahasia123";

/// Runs `antar user … --realm realm1 --data DIR`.
fn user(server: &Server, args: &[&str]) -> Output {
    let data = server.data();
    antar(["user"].iter().chain(args).chain(&["--realm", "realm1", "--data", &data]))
}

fn password_file(server: &Server, password: &str) -> String {
    let path: PathBuf = server.dir().join("password");
    std::fs::write(&path, format!("{password}\n")).expect("writable");
    path.to_str().expect("a temporary path is UTF-8").to_owned()
}

fn listed(server: &Server) -> Vec<(String, bool)> {
    let accounts = user(server, &["list", "--json"]).exits(0).json_lines();
    accounts.iter().map(|a| (text(a, "user").to_owned(), a["disabled"] == true)).collect()
}

fn names(server: &Server) -> Vec<String> {
    listed(server).into_iter().map(|(name, _)| name).collect()
}

/// The life of an account, once with the realm served and once without.
fn life_of_an_account(served: bool) {
    let mut server = Server::demo();
    let file = password_file(&server, NEW);
    let run = |server: &mut Server, args: &[&str], code: i32| {
        if !served {
            server.sigterm();
        }
        let output = user(server, args).exits(code);
        if !served {
            server.start();
        }
        output
    };
    let add = ["add", "xavi", "--name", "Xavi Hernandez", "--country", "Spanyol", "--password-file", &file];
    run(&mut server, &add, 0);
    let again = run(&mut server, &add, 5);
    assert!(again.stderr.contains("user-exists"), "{again:?}");
    let mut xavi = Chat::login_with(&server, "realm1", "xavi", NEW);
    let me = ok(xavi.cmd("whoami"));
    assert_eq!((text(&me, "name"), text(&me, "country")), ("Xavi Hernandez", "Spanyol"));
    if !served {
        server.sigterm();
    }
    assert_eq!(names(&server), ["henderson", "lineker", "messi", "xavi"]);
    if !served {
        server.start();
    }

    let other = password_file(&server, "lainlain123");
    run(&mut server, &["passwd", "xavi", "--password-file", &other], 0);
    refused(xavi.again(&server, "realm1").cmd("whoami"), "not-authorized");
    refused(server.connect("realm1").ask(&format!("auth xavi {NEW}")), "bad-password");
    let mut xavi = Chat::login_with(&server, "realm1", "xavi", "lainlain123");

    run(&mut server, &["disable", "xavi"], 0);
    refused(xavi.again(&server, "realm1").cmd("whoami"), "not-authorized");
    assert_eq!(server.connect("realm1").ask("auth xavi lainlain123")["status"], "ERROR");
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("send xavi menunggu"));
    run(&mut server, &["enable", "xavi"], 0);
    xavi = Chat::login_with(&server, "realm1", "xavi", "lainlain123");
    assert_eq!(texts(&xavi.inbox()), ["menunggu"], "the mailbox went on filling");
    ok(xavi.cmd("send messi selamat tinggal"));

    run(&mut server, &["remove", "xavi"], 0);
    refused(xavi.again(&server, "realm1").cmd("whoami"), "not-authorized");
    refused(server.connect("realm1").ask("auth xavi lainlain123"), "no-such-account");
    let mut messi = messi.again(&server, "realm1");
    refused(messi.cmd("send xavi halo"), "no-such-user");
    assert_eq!(texts(&messi.inbox()), ["selamat tinggal"], "what others received stays");
    for command in ["passwd", "disable", "remove"] {
        let extra = if command == "passwd" { vec!["--password-file", &file] } else { vec![] };
        run(&mut server, &[&[command, "xavi"][..], &extra].concat(), 5);
    }
}

#[test]
fn an_account_of_a_served_realm_is_made_changed_and_removed() {
    life_of_an_account(true);
}

#[test]
fn an_account_of_a_stopped_realm_is_made_changed_and_removed() {
    life_of_an_account(false);
}

#[test]
fn many_accounts_are_imported_and_those_that_exist_are_left_alone() {
    let server = Server::demo();
    let csv = server.dir().join("students.csv");
    let mut lines = String::from("user,password,name,country\nmessi,bukanpunyanya,Palsu,X\n");
    for n in 0..25 {
        lines += &format!("siswa{n},{NEW},\"Siswa, {n}\",Indonesia\n");
    }
    std::fs::write(&csv, lines).expect("writable");
    let csv = csv.to_str().expect("a temporary path is UTF-8");
    let first = user(&server, &["import", csv, "--json"]).exits(0).json_lines();
    assert_eq!(first[0]["added"], 25, "{first:?}");
    assert_eq!(first[0]["existing"], serde_json::json!(["messi"]));
    let mut siswa = Chat::login_with(&server, "realm1", "siswa24", NEW);
    assert_eq!(text(&ok(siswa.cmd("whoami")), "name"), "Siswa, 24");
    Chat::login(&server, "realm1", "messi");
    let second = user(&server, &["import", csv, "--json"]).exits(0).json_lines();
    assert_eq!(second[0]["added"], 0, "{second:?}");
    assert_eq!(names(&server).len(), 28);
}

#[test]
fn an_import_with_a_wrong_line_makes_nothing() {
    let server = Server::demo();
    let data = server.data();
    let args = ["user", "import", "-", "--realm", "realm1", "--data", &data];
    for csv in [
        "user,password\nbaik,rahasia123\nA.b,rahasia123\n",
        "user,password\nbaik,rahasia123\nkurang\n",
        "user\nbaik\n",
        "nama,sandi\nbaik,rahasia123\n",
    ] {
        let output = antar_with_input(args, &[], csv);
        assert!(output.code.is_some_and(|code| code != 0), "{csv}: {output:?}");
        assert!(!names(&server).contains(&"baik".to_owned()), "{csv}");
    }
}

#[test]
fn a_password_comes_from_the_environment_and_never_from_an_argument() {
    let server = Server::demo();
    let data = server.data();
    let place = ["--realm", "realm1", "--data", &data];
    let args = ["user", "add", "xavi"].iter().chain(&place);
    antar_with_input(args, &[("ANTAR_PASSWORD", NEW)], "").exits(0);
    Chat::login_with(&server, "realm1", "xavi", NEW);
    user(&server, &["add", "iniesta", "--password", NEW]).exits(2);
    user(&server, &["add", "iniesta", NEW]).exits(2);
}

#[test]
fn bad_names_and_weak_passwords_are_rejected() {
    let server = Server::demo();
    let file = password_file(&server, NEW);
    for name in ["A.b", "../x", "x y", "меssi"] {
        let output = user(&server, &["add", name, "--password-file", &file]);
        assert!(matches!(output.code, Some(2 | 5)), "{name}: {output:?}");
    }
    let weak = password_file(&server, "x");
    user(&server, &["add", "xavi", "--password-file", &weak]).exits(5);
    assert_eq!(names(&server), ["henderson", "lineker", "messi"]);
}

#[test]
fn a_realm_can_be_shown() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    let data = server.data();
    let show = |server: &Server| {
        let shown =
            antar(["realm", "show", "realm1", "--json", "--data", &server.data()]).exits(0).json_lines();
        shown[0].clone()
    };
    let shown = show(&server);
    assert_eq!(
        (&shown["id"], &shown["paused"], &shown["accounts"]),
        (&"realm1".into(), &false.into(), &3.into())
    );
    assert_eq!(shown["peers"][0]["realm"], "realm2");
    antar(["realm", "pause", "realm1", "--data", &data]).exits(0);
    assert_eq!(show(&server)["paused"], true);
    antar(["realm", "resume", "realm1", "--data", &data]).exits(0);
    assert_eq!(show(&server)["paused"], false);
}

#[test]
fn a_realm_that_is_not_there_is_an_error() {
    let server = Builder::serve().start();
    let broker = format!("sqlite:{}", server.dir().join("antar.db").display());
    for args in [["realm", "show", "realm9"], ["user", "list", "--realm=realm9"]] {
        let output = antar(args.iter().chain(&["--broker", &broker]));
        assert!(output.code.is_some_and(|code| code != 0), "{args:?}: {output:?}");
        assert!(!output.stderr.contains("panicked"), "{output:?}");
    }
    let nowhere = format!("sqlite:{}", server.dir().join("nirgends.db").display());
    let output = antar(["user", "list", "--realm", "realm1", "--broker", &nowhere]);
    assert!(output.code.is_some_and(|code| code != 0), "{output:?}");
    assert!(!server.dir().join("nirgends.db").exists(), "asking made a database");
}
