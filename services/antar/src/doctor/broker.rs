//! What keeps the log: what it says of itself, and what only its monitoring tells.

use std::net::SocketAddr;

use antar_broker::{Flaw, OpenError, ReadError, Severity, flaws};
use antar_realm::snapshot::Snapshot;
use serde_json::Value;

use super::Patient;
use super::kinds;
use super::report::Report;
use crate::config::{BrokerConfig, keys};
use crate::exit::Exit;
use crate::healthcheck;

/// Most bytes of what a server's monitoring says of it: some 10 KiB, more with many routes.
const VARZ_BYTES_MAX: u64 = 1024 * 1024;
/// From so many replicas on a message outlives the power cut of one machine.
const REPLICAS_SAFE: usize = 3;

/// Says why a broker could not be opened; how the program ends.
pub(super) fn refused(error: &OpenError, broker: &BrokerConfig, report: &mut Report) -> Exit {
    let is_file = broker.sqlite_path().is_some();
    let (kind, exit) = match error {
        OpenError::Unreachable(_) => (&kinds::BROKER_UNREACHABLE, Exit::Unreachable),
        OpenError::Newer(_) if !is_file => (&flaws::BROKER_VERSION, Exit::Failed),
        OpenError::Damaged(_) => (&flaws::SQLITE_DAMAGED, Exit::Failed),
        _ => (&kinds::BROKER_REFUSED, Exit::Failed),
    };
    report.say(None, kind, &broker.to_string(), error.to_string());
    exit
}

/// Looks at the broker, and at the streams and buckets of one realm.
pub(super) async fn check(patient: &Patient<'_>, report: &mut Report) -> Result<(), ReadError> {
    let snapshot = Snapshot::new(patient.realm.clone());
    let streams = snapshot.streams(patient.config.realm.mailbox_entries_max);
    let buckets: Vec<_> = snapshot.buckets().into_iter().map(|(_, bucket)| bucket).collect();
    for flaw in patient.broker.examine(&streams, &buckets).await? {
        // Who has not said which limit a realm's edges are told cannot be told that they differ.
        if flaw.kind == &flaws::STREAM_PER_SUBJECT && is_default_limit(patient) {
            continue;
        }
        let realm = is_of_stream(&flaw).then_some(&patient.realm);
        report.add(realm, flaw);
    }
    Ok(())
}

fn is_of_stream(flaw: &Flaw) -> bool {
    flaw.kind.id.starts_with("stream.")
}

fn is_default_limit(patient: &Patient<'_>) -> bool {
    let default = keys::find("limits.mailbox_entries_max").and_then(|key| key.default);
    default == Some(&*patient.config.realm.mailbox_entries_max.to_string())
}

/// What servers of NATS tell over HTTP alone: when they write to the disk.
pub(super) async fn check_monitors(broker: &BrokerConfig, monitors: &[SocketAddr], report: &mut Report) {
    if broker.sqlite_path().is_some() {
        return;
    }
    if monitors.is_empty() {
        let what = "whether the NATS server writes to the disk before it acknowledges is not known";
        report.say(None, &kinds::BROKER_SYNC_UNKNOWN, "", what);
    }
    for monitor in monitors {
        let (monitor, replicas) = (*monitor, broker.replicas);
        let asked = tokio::task::spawn_blocking(move || healthcheck::get(monitor, "/varz", VARZ_BYTES_MAX));
        let found = match asked.await {
            Ok(Ok(answer)) => of_varz(&monitor, &answer, replicas),
            Ok(Err(error)) => no_answer(&monitor, &error),
            Err(error) => no_answer(&monitor, &error),
        };
        found.into_iter().for_each(|flaw| report.add(None, flaw));
    }
}

fn no_answer(monitor: &SocketAddr, why: &dyn std::fmt::Display) -> Option<Flaw> {
    let name = monitor.to_string();
    Some(Flaw::new(&kinds::BROKER_MONITOR, &name, format!("the monitoring at {name} does not answer: {why}")))
}

fn of_varz(monitor: &SocketAddr, answer: &str, replicas: usize) -> Option<Flaw> {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let Ok(varz) = serde_json::from_str::<Value>(body) else {
        return no_answer(monitor, &"what is there is no NATS server");
    };
    let jetstream = &varz["jetstream"]["config"];
    if !jetstream.is_object() {
        return no_answer(monitor, &"the server there does not serve JetStream");
    }
    if jetstream["sync_always"] == true {
        return None;
    }
    let name = varz["server_name"].as_str().unwrap_or_default();
    let seconds = jetstream["sync_interval"].as_u64().unwrap_or_default() / 1_000_000_000;
    let what = format!(
        "the NATS server {name} at {monitor} writes to the disk every {seconds} s, and acknowledges before"
    );
    let severity = if replicas >= REPLICAS_SAFE { Severity::Warning } else { Severity::Error };
    Some(Flaw::new(&kinds::BROKER_SYNC, "", what).with(severity))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id and severity of what is found in the answer of a monitoring.
    fn found(body: &str, replicas: usize) -> Option<(&'static str, Severity)> {
        let monitor: SocketAddr = "127.0.0.1:8222".parse().unwrap();
        let flaw = of_varz(&monitor, &format!("HTTP/1.0 200 OK\r\nx: y\r\n\r\n{body}"), replicas)?;
        Some((flaw.kind.id, flaw.severity))
    }

    #[test]
    fn a_broker_that_cannot_be_opened_says_what_it_is() {
        let found = |url: &str, error: OpenError| {
            let broker = BrokerConfig {
                url: url.into(),
                is_default: false,
                credentials: None,
                replicas: 1,
                authority: None,
                certificate: None,
            };
            let mut report = Report::default();
            let exit = refused(&error, &broker, &mut report);
            (report.ids()[0], exit)
        };
        let why = || "why".to_owned();
        let nats = "nats://127.0.0.1:1";
        assert_eq!(found(nats, OpenError::Newer(why())), ("broker.version", Exit::Failed));
        assert_eq!(found(nats, OpenError::Invalid(why())), ("broker.refused", Exit::Failed));
        assert_eq!(found(nats, OpenError::Unreachable(why())), ("broker.unreachable", Exit::Unreachable));
        assert_eq!(found("sqlite:x.db", OpenError::Newer(why())), ("broker.refused", Exit::Failed));
        assert_eq!(found("sqlite:x.db", OpenError::Damaged(why())), ("sqlite.damaged", Exit::Failed));
    }

    #[test]
    fn a_server_that_writes_later_than_it_acknowledges_is_found() {
        let lazy = r#"{"server_name":"n","jetstream":{"config":{"sync_interval":120000000000}}}"#;
        assert_eq!(found(lazy, 1), Some(("broker.sync", Severity::Error)));
        assert_eq!(found(lazy, 3), Some(("broker.sync", Severity::Warning)));
        let always = r#"{"jetstream":{"config":{"sync_interval":120000000000,"sync_always":true}}}"#;
        assert_eq!(found(always, 1), None);
        for other in ["", "ok", "{}", r#"{"jetstream":{}}"#] {
            assert_eq!(found(other, 1), Some(("broker.monitor", Severity::Warning)), "{other}");
        }
    }
}
