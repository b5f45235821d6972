//! Settings that are valid and dangerous.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use antar_realm::Registration;

use super::kinds;
use super::report::Report;
use crate::config::Config;

/// Shorter retention than this leaves too little time to look into a trouble.
const RETENTION_SHORT: Duration = Duration::from_secs(3 * 24 * 3600);
/// The shortest passwords that NIST SP 800-63B allows.
const PASSWORD_BYTES_MIN: usize = 8;

/// Looks at all of them; `file` is where the configuration comes from.
pub(super) fn check(config: &Config, file: Option<&Path>, report: &mut Report) {
    accounts(config, report);
    listeners(config, report);
    kept(config, report);
    broker(config, file, report);
}

fn is_local(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}

fn accounts(config: &Config, report: &mut Report) {
    let realm = &config.realm;
    let open = std::iter::once(config.command).chain(config.tls).find(|address| !is_local(address));
    let (is_open, command) = (open.is_some(), open.unwrap_or(config.command));
    if realm.demo_accounts && is_open {
        let what = format!("there are demo accounts, and {command} can be reached by others");
        report.say(None, &kinds::CONFIG_DEMO_ACCOUNTS, "", what);
    }
    if realm.registration == Registration::Open && is_open {
        let what = format!("registration is open, and {command} can be reached by others");
        report.say(None, &kinds::CONFIG_REGISTRATION, "", what);
    }
    if !realm.uniform_errors && is_open {
        let what = "an unknown user and a wrong password are answered differently";
        report.say(None, &kinds::CONFIG_UNIFORM_ERRORS, "", what);
    }
    if realm.password_bytes_min < PASSWORD_BYTES_MIN {
        let what = format!("passwords of {} bytes are taken", realm.password_bytes_min);
        report.say(None, &kinds::CONFIG_PASSWORD, "", what);
    }
}

fn listeners(config: &Config, report: &mut Report) {
    if !is_local(&config.command) {
        let what = format!("listen.command is {}, and the protocol is plain text", config.command);
        report.say(None, &kinds::CONFIG_PLAIN_COMMAND, "", what);
    }
    if let Some(http) = config.http.filter(|http| !is_local(http)) {
        report.say(None, &kinds::CONFIG_HTTP, "", format!("listen.http is {http}"));
    }
}

fn kept(config: &Config, report: &mut Report) {
    let retention = config.realm.retention;
    if retention < RETENTION_SHORT {
        let days = retention.as_secs() / (24 * 3600);
        report.say(None, &kinds::CONFIG_RETENTION, "", format!("retention.days is {days}"));
    }
}

fn broker(config: &Config, file: Option<&Path>, report: &mut Report) {
    let broker = &config.broker;
    if let Some((file, mode)) = file.and_then(|file| Some((file, exposed(file)?)))
        && broker.url.contains('@')
    {
        let name = file.display().to_string();
        let what = format!("{name} has mode {mode:03o} and may hold the broker's password");
        report.say(None, &kinds::CONFIG_FILE_MODE, &name, what);
    }
    if let Some(credentials) = &broker.credentials {
        let name = credentials.display().to_string();
        match (std::fs::metadata(credentials), exposed(credentials)) {
            (Err(error), _) => {
                report.say(None, &kinds::CONFIG_CREDENTIALS, &name, format!("{name}: {error}"));
            }
            (Ok(_), Some(mode)) => {
                let what = format!("{name} has mode {mode:03o}");
                report.say(None, &kinds::CONFIG_CREDENTIALS, &name, what);
            }
            (Ok(_), None) => {}
        }
    }
    if broker.sqlite_path().is_none()
        && broker.authority.is_none()
        && broker.url.split(',').any(is_plain_and_far)
    {
        let what = format!("{broker} is reached without TLS, and not on this machine");
        report.say(None, &kinds::CONFIG_BROKER_PLAIN, "", what);
    }
}

/// The mode of a file that others than its owner may use.
fn exposed(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Whether a server of `broker.url` is spoken to in plain text over a network.
fn is_plain_and_far(url: &str) -> bool {
    let url = url.trim();
    let bare = (!url.contains("://")).then_some(url);
    let Some(rest) = url.strip_prefix("nats://").or(bare) else { return false };
    let place = rest.rsplit('@').next().unwrap_or_default();
    let host = match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => place.split(':').next().unwrap_or_default(),
    };
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !(is_loopback || host == "localhost")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::{Flag, Sources};

    /// The ids of what is found of a configuration with these keys.
    fn found(keys: &[(&'static str, &str)], file: Option<&Path>) -> Vec<&'static str> {
        let flag = |(key, value): &(&'static str, &str)| Flag(key, "a test", (*value).to_owned());
        let mut flags = vec![Flag("realm.id", "a test", "a".into())];
        flags.extend(keys.iter().map(flag));
        let config = Config::load(Sources { flags, ..Sources::default() }).unwrap();
        let mut report = Report::default();
        check(&config, file, &mut report);
        report.ids()
    }

    #[test]
    fn the_defaults_are_not_dangerous() {
        assert_eq!(found(&[], None), Vec::<&str>::new());
        // On the loopback address a demo is nobody else's business.
        assert_eq!(
            found(&[("realm.demo_accounts", "true"), ("auth.registration", "open")], None),
            Vec::<&str>::new()
        );
    }

    #[test]
    fn what_others_can_reach_is_looked_at_more_closely() {
        let (open, allowed) = (("listen.command", "0.0.0.0:4001"), ("listen.allow_plaintext", "true"));
        assert_eq!(found(&[open, allowed], None), ["config.uniform-errors", "config.plain-command"]);
        let tls = [("listen.tls", "0.0.0.0:1"), ("tls.certificate_file", "c"), ("tls.key_file", "k")];
        assert_eq!(found(&tls, None), ["config.uniform-errors"]);
        let demo = [
            open,
            allowed,
            ("realm.demo_accounts", "true"),
            ("auth.registration", "open"),
            ("auth.uniform_errors", "true"),
        ];
        assert_eq!(
            found(&demo, None),
            ["config.demo-accounts", "config.registration", "config.plain-command"]
        );
        assert_eq!(found(&[("listen.http", "[::]:8080"), allowed], None), ["config.http"]);
    }

    #[test]
    fn what_is_kept_too_short_and_what_is_guessed_too_easily_is_found() {
        assert_eq!(found(&[("retention.days", "2")], None), ["config.retention"]);
        assert_eq!(found(&[("retention.days", "3")], None), Vec::<&str>::new());
        assert_eq!(found(&[("auth.password_bytes_min", "7")], None), ["config.password"]);
    }

    #[test]
    fn secrets_that_others_can_read_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mode =
            |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let credentials = [
            ("broker.url", "nats://u:p@127.0.0.1:1"),
            ("broker.credentials_file", file.path().to_str().unwrap()),
        ];
        mode(0o600);
        assert_eq!(found(&credentials, Some(file.path())), Vec::<&str>::new());
        mode(0o640);
        assert_eq!(found(&credentials, None), ["config.credentials"]);
        assert_eq!(found(&credentials[..1], Some(file.path())), ["config.file-mode"]);
        let gone = [credentials[0], ("broker.credentials_file", "not/there")];
        assert_eq!(found(&gone, None), ["config.credentials"]);
    }

    #[test]
    fn plain_text_over_a_network_is_noted() {
        for (url, is_far) in [
            ("nats://127.0.0.1:4222", false),
            ("nats://[::1]:4222", false),
            ("nats://a:b@localhost:4222", false),
            ("tls://nats.example:4222", false),
            ("nats://nats.example:4222", true),
            ("nats://10.0.0.1", true),
            ("10.0.0.1:4222", true),
        ] {
            assert_eq!(is_plain_and_far(url), is_far, "{url}");
        }
        let far = [("broker.url", "nats://127.0.0.1:1,nats://10.0.0.1:1")];
        assert_eq!(found(&far, None), ["config.broker-plain"]);
    }
}
