//! The command line itself: help, configuration, exit codes, the first lines on standard output.

use std::fs;
use std::net::TcpListener;

use tempfile::TempDir;

use crate::harness::{Builder, Output, Server, antar, antar_with_input};

const SUBCOMMANDS: [&str; 8] = ["demo", "serve", "chat", "user", "realm", "config", "healthcheck", "bench"];

fn config(dir: &TempDir, toml: &str, subcommand: &str) -> Output {
    let path = dir.path().join("antar.toml");
    fs::write(&path, toml).expect("writable");
    antar(["config", subcommand, "--config", path.to_str().expect("a temporary path is UTF-8")])
}

#[test]
fn every_subcommand_explains_itself() {
    let help = antar(["--help"]).exits(0);
    for subcommand in SUBCOMMANDS {
        assert!(help.stdout.contains(subcommand), "{subcommand} is not in the help");
        let own = antar([subcommand, "--help"]).exits(0);
        assert!(own.stdout.contains("Usage: antar"), "{subcommand}: {own:?}");
    }
    let version = antar(["--version"]).exits(0);
    assert_eq!(version.stdout.trim(), format!("antar {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    for args in
        [&["nothing"][..], &["serve", "--nothing"], &["demo", "--port", "x"], &["user"], &["realm", "pause"]]
    {
        let output = antar(args).exits(2);
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn config_check_takes_a_good_file_and_binds_nothing() {
    let dir = TempDir::new().expect("a temporary directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it is bound");
    let toml = format!(
        "[realm]\nid = \"kampus\"\n[listen]\ncommand = \"{addr}\"\n[broker]\nurl = \"sqlite:{}/x/y.db\"\n",
        dir.path().display()
    );
    config(&dir, &toml, "check").exits(0);
    assert!(!dir.path().join("x").exists(), "checking made a database");
}

#[test]
fn config_check_names_the_nearest_known_key() {
    let dir = TempDir::new().expect("a temporary directory");
    let said =
        config(&dir, "[realm]\nid = \"a\"\n[listen]\ncomand = \"127.0.0.1:1\"\n", "check").exits(2).stderr;
    assert!(said.contains("listen.comand") && said.contains("listen.command"), "{said}");
    let env = [("ANTAR__REALM__ID", "a"), ("ANTAR__LIMITS__LINE_BYTE_MAX", "70000")];
    let said = antar_with_input(["config", "check"], &env, "").exits(2).stderr;
    assert!(said.contains("ANTAR__LIMITS__LINE_BYTES_MAX"), "{said}");
}

#[test]
fn config_check_tells_all_that_is_wrong_at_once() {
    let dir = TempDir::new().expect("a temporary directory");
    let toml = "[realm]\nid = \"A.b\"\n[limits]\nline_seconds = 0\n[log]\nformat = \"xml\"\n";
    let said = config(&dir, toml, "check").exits(2).stderr;
    for key in ["realm.id", "limits.line_seconds", "log.format"] {
        assert!(said.contains(key), "{key} is not named: {said}");
    }
}

#[test]
fn serve_refuses_what_config_check_refuses_before_it_binds_or_opens() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Builder::serve().dir(dir.path()).env("LIMITS__NOTHING", 3);
    let (code, said) = server.start_refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(!dir.path().join("antar.db").exists());
}

#[test]
fn config_print_is_a_configuration_without_secrets() {
    let dir = TempDir::new().expect("a temporary directory");
    let printed = config(&dir, "[realm]\nid = \"kampus\"\nname = \"Kampus A\"\n", "print").exits(0).stdout;
    assert!(printed.contains("id = \"kampus\"") && printed.contains("name = \"Kampus A\""), "{printed}");
    config(&dir, &printed, "check").exits(0);
}

#[test]
fn a_port_that_is_taken_is_a_clear_error() {
    let server = Server::demo();
    let addr = server.addr("realm1").to_string();
    let dir = TempDir::new().expect("a temporary directory");
    let broker = format!("sqlite:{}/a.db", dir.path().display());
    let output = antar(["serve", "--realm", "a", "--listen", &addr, "--broker", &broker]);
    assert!(matches!(output.code, Some(1 | 3)), "{output:?}");
    assert!(output.stderr.contains(&addr), "it says which address: {output:?}");
}

#[test]
fn a_realm_needs_an_id() {
    let output = antar(["serve", "--listen", "127.0.0.1:0"]).exits(2);
    assert!(output.stderr.contains("realm"), "{output:?}");
}

#[test]
fn the_demo_listens_on_two_neighbouring_ports_when_told_one() {
    // Two free neighbours are found by trying; between the look and the start somebody else may take one.
    for _ in 0..20 {
        let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = first.local_addr().expect("it is bound").port();
        let Some(next) = port.checked_add(1) else { continue };
        if TcpListener::bind(("127.0.0.1", next)).is_err() {
            continue;
        }
        drop(first);
        let server = Builder::demo_on(port).start();
        assert_eq!((server.addr("realm1").port(), server.addr("realm2").port()), (port, next));
        return;
    }
    panic!("no two neighbouring ports are free");
}

#[test]
fn a_demo_whose_page_has_no_port_says_which_flag_chooses_another() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let dir = TempDir::new().expect("a temporary directory");
    let data = dir.path().to_str().expect("a temporary path is UTF-8");
    let output = antar(["demo", "--port", "0", "--http-port", &port, "--data", data]).exits(1);
    assert!(output.stderr.contains(&format!("127.0.0.1:{port}")), "{output:?}");
    assert!(output.stderr.contains("--http-port"), "{output:?}");
}
