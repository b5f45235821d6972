//! Which source wins, and what is refused how.

use std::io::Write as _;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, environment: &[(&str, &str)], flags: Vec<Flag>) -> Result<Config, Vec<String>> {
    let (file, environment) = (file(text), Environment::of(environment));
    let path = Some(file.path());
    Config::load(Sources { presets: Vec::new(), file: path, environment: Some(&environment), flags })
        .map_err(|p| p.0)
}

/// Exactly one problem, with all of `words` in it.
fn problem(text: &str, environment: &[(&str, &str)], words: &[&str]) {
    let problems = load(text, environment, Vec::new()).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    for word in words {
        assert!(problems[0].contains(word), "{word:?} is not in {:?}", problems[0]);
    }
}

const MINIMAL: &str = "[realm]\nid = \"a\"\n";

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let text = "[realm]\nid = \"a\"\n[limits]\nline_bytes_max = 2000\nline_seconds = 20\nwrite_stall_seconds = 20\n[listen]\ncommand = \"127.0.0.1:1\"";
    let environment = [
        ("ANTAR__LIMITS__LINE_SECONDS", "30"),
        ("ANTAR__LISTEN__COMMAND", "127.0.0.1:2"),
        ("ANTAR_PASSWORD", "not a key"),
        ("PATH", "/bin"),
    ];
    let flags = vec![Flag("listen.command", "--listen", "127.0.0.1:3".into())];
    let config = load(text, &environment, flags).unwrap();
    assert_eq!(config.edge.line_bytes_max, 2000, "the file");
    assert_eq!(config.edge.line_time, SECOND * 30, "the environment over the file");
    assert_eq!(config.command.port(), 3, "the flag over the environment");
    assert_eq!(config.edge.pipeline_max, 1024, "the default");
    assert_eq!(config.realm.registration, Registration::Closed);
    assert_eq!(config.realm.name, "a", "an empty name is the id");
    assert!(config.broker.is_default);
}

#[test]
fn a_preset_of_a_command_lies_under_the_file() {
    let presets = || {
        vec![
            Flag("auth.registration", "antar demo", "open".into()),
            Flag("realm.id", "antar demo", "x".into()),
        ]
    };
    let open = Config::load(Sources { presets: presets(), ..Sources::default() }).unwrap();
    assert_eq!(open.realm.registration, Registration::Open);
    let file = file("[auth]\nregistration = \"invite\"");
    let invite =
        Config::load(Sources { presets: presets(), file: Some(file.path()), ..Sources::default() }).unwrap();
    assert_eq!(invite.realm.registration, Registration::Invite);
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    problem(
        "[realm]\nid = \"a\"\n[listen]\ncomand = \"x\"",
        &[],
        &["listen.comand", "did you mean listen.command?"],
    );
    problem(
        "[realm]\nid = \"a\"\n[lisen]\ncommand = 1",
        &[],
        &["lisen.command", "did you mean listen.command?"],
    );
    problem(
        MINIMAL,
        &[("ANTAR__LOG__LEVL", "info")],
        &["ANTAR__LOG__LEVL", "did you mean ANTAR__LOG__LEVEL?"],
    );
    problem(
        MINIMAL,
        &[("ANTAR__LISTEN__HTTP_FILE", "x")],
        &["ANTAR__LISTEN__HTTP_FILE", "ANTAR__LISTEN__HTTP?"],
    );
}

#[test]
fn a_wrong_value_names_the_key_the_value_and_what_is_accepted() {
    problem(
        "[realm]\nid = \"a\"\n[limits]\nline_bytes_max = 12",
        &[],
        &["limits.line_bytes_max", "12", "from 1024 to"],
    );
    problem(
        "[realm]\nid = \"a\"\n[limits]\nline_bytes_max = \"2000\"",
        &[],
        &["limits.line_bytes_max", "\"2000\"", "whole number"],
    );
    problem(
        "[realm]\nid = \"a\"\n[limits]\npipeline_max = -1",
        &[],
        &["limits.pipeline_max", "-1", "whole number"],
    );
    problem("[realm]\nid = \"a\"\ndemo_accounts = 1", &[], &["realm.demo_accounts", "1", "true or false"]);
    problem("[realm]\nid = \"A.b\"", &[], &["realm.id", "A.b", "a-z"]);
    problem(
        MINIMAL,
        &[("ANTAR__AUTH__REGISTRATION", "maybe")],
        &["ANTAR__AUTH__REGISTRATION", "maybe", "open, invite, closed"],
    );
    problem(MINIMAL, &[("ANTAR__LISTEN__HTTP", "8080")], &["ANTAR__LISTEN__HTTP", "8080", "127.0.0.1:8080"]);
    problem(MINIMAL, &[("ANTAR__LOG__LEVEL", "loud=very")], &["ANTAR__LOG__LEVEL", "loud", "trace"]);
    problem("", &[], &["realm.id is not set", "--realm", "ANTAR__REALM__ID"]);
    problem("log = 3\nrealm.id = \"a\"", &[], &["log in", "did you mean log.format?"]);
}

#[test]
fn plain_text_beyond_this_machine_has_to_be_asked_for() {
    for open in ["0.0.0.0:4001", "[::]:4001", "10.0.0.1:4001"] {
        let listen = ("ANTAR__LISTEN__COMMAND", open);
        problem(MINIMAL, &[listen], &[open, "listen.tls", "listen.allow_plaintext = true"]);
        let allowed = [listen, ("ANTAR__LISTEN__ALLOW_PLAINTEXT", "true")];
        assert_eq!(load(MINIMAL, &allowed, Vec::new()).unwrap().command, open.parse().unwrap());
    }
    let http = ("ANTAR__LISTEN__HTTP", "0.0.0.0:8080");
    problem(MINIMAL, &[http], &["listen.http", "tls.certificate_file", "listen.allow_plaintext = true"]);
    assert!(load(MINIMAL, &[http, ("ANTAR__LISTEN__ALLOW_PLAINTEXT", "true")], Vec::new()).is_ok());
    for local in ["127.0.0.1:4001", "[::1]:4001", "127.8.8.8:0"] {
        assert!(load(MINIMAL, &[("ANTAR__LISTEN__COMMAND", local)], Vec::new()).is_ok(), "{local}");
    }
}

#[test]
fn a_certificate_and_its_key_come_together() {
    let (tls, certificate, key) =
        ("ANTAR__LISTEN__TLS", "ANTAR__TLS__CERTIFICATE_FILE", "ANTAR__TLS__KEY_FILE");
    problem(
        MINIMAL,
        &[(tls, "0.0.0.0:1")],
        &["listen.tls is 0.0.0.0:1", "tls.certificate_file", "tls.key_file"],
    );
    problem(MINIMAL, &[(certificate, "c")], &["tls.certificate_file is set", "tls.key_file is not"]);
    problem(
        MINIMAL,
        &[(tls, "0.0.0.0:1"), (key, "k")],
        &["tls.key_file is set", "tls.certificate_file is not"],
    );
    problem(MINIMAL, &[("ANTAR__BROKER__CERTIFICATE_FILE", "c")], &["broker.certificate_key_file is not"]);
    let all = [(tls, "0.0.0.0:1"), (certificate, "c"), (key, "k"), ("ANTAR__BROKER__CA_FILE", "a")];
    let config = load(MINIMAL, &all, Vec::new()).unwrap();
    assert_eq!(config.certificate, Some(CertificateFiles { certificate: "c".into(), key: "k".into() }));
    assert_eq!(config.broker.settings().authority, Some("a".into()));
}

#[test]
fn traces_go_to_a_collector_over_http_if_this_program_can_send_them() {
    let key = "ANTAR__LOG__OTLP_ENDPOINT";
    for bad in ["collector:4318", "https://collector:4318", "http://", "http://a/b", "http://a b"] {
        problem(MINIMAL, &[(key, bad)], &[key, bad, "http://HOST:PORT"]);
    }
    assert_eq!(load(MINIMAL, &[(key, "")], Vec::new()).unwrap().log.traces, None);
    let good = [(key, "http://127.0.0.1:4318/")];
    if cfg!(feature = "otel") {
        let traces = load(MINIMAL, &good, Vec::new()).unwrap().log.traces;
        assert_eq!(traces.as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
    } else {
        problem(MINIMAL, &good, &["log.otlp_endpoint", "built without otel", "--features otel"]);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let text = "[realm]\nid = \"A\"\nnam = \"x\"\n[limits]\nline_seconds = 0\n[log]\nformat = \"xml\"";
    let problems =
        load(text, &[("ANTAR__BROKER__URL", "http://x"), ("ANTAR__X", "1")], Vec::new()).unwrap_err();
    assert_eq!(problems.len(), 6, "{problems:?}");
}

#[test]
fn a_secret_comes_from_a_file_too_and_is_never_shown() {
    let secret = file("sqlite:here.db\n");
    let path = secret.path().to_str().unwrap();
    let config = load(MINIMAL, &[("ANTAR__BROKER__URL_FILE", path)], Vec::new()).unwrap();
    assert_eq!(config.broker.url, "sqlite:here.db");
    assert!(!config.broker.is_default);
    let both = [("ANTAR__BROKER__URL_FILE", path), ("ANTAR__BROKER__URL", "sqlite:there.db")];
    problem(MINIMAL, &both, &["ANTAR__BROKER__URL_FILE", "set by ANTAR__BROKER__URL already"]);
    problem(
        MINIMAL,
        &[("ANTAR__BROKER__URL_FILE", "/nowhere/at/all")],
        &["ANTAR__BROKER__URL_FILE", "/nowhere/at/all"],
    );
    let problems = load(MINIMAL, &[("ANTAR__BROKER__URL", "kafka://me:geheim@x")], Vec::new()).unwrap_err();
    assert!(!problems[0].contains("geheim"), "{problems:?}");
    assert_eq!(print::redacted("nats://me:geheim@host:4222"), "nats://***@host:4222");
}

#[test]
fn what_is_printed_is_the_same_configuration_again() {
    let environment = Environment::of(&[("ANTAR__REALM__NAME", "Kampus \"A\""), ("ANTAR__REALM__ID", "a")]);
    let raw = Raw::read(Sources { environment: Some(&environment), ..Sources::default() }).unwrap();
    let printed = print(&raw);
    assert!(printed.contains("# Set by ANTAR__REALM__NAME."), "{printed}");
    let again = load(&printed, &[], Vec::new()).unwrap();
    assert_eq!(again.realm.name, "Kampus \"A\"");
    for key in keys::KEYS {
        assert!(printed.contains(key.doc), "{}", key.name);
    }
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_a_problem() {
    problem("realm = [", &[], &["not TOML"]);
    let missing =
        Config::load(Sources { file: Some(Path::new("/nowhere/antar.toml")), ..Sources::default() })
            .unwrap_err();
    assert!(missing.0[0].contains("/nowhere/antar.toml"));
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_code() {
    let config = load(MINIMAL, &[], Vec::new()).unwrap();
    let key_file = Some("a.nk".into());
    let realm = RealmConfig { key_file, ..RealmConfig::new(config.realm.id.clone()) };
    assert_eq!(format!("{:?}", config.realm), format!("{realm:?}"));
    assert_eq!(format!("{:?}", config.edge), format!("{:?}", EdgeConfig::default()));
}
