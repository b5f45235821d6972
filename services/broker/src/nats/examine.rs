//! Looks for what is wrong with the servers, the account, the user and the streams.
//!
//! Asks only what changes nothing and is answered by the servers themselves: no subject of a stream is published to.
//! Which differences of a stream matter is in `differences`, what a user needs to be allowed in `permissions`.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::ServerAddr;
use async_nats::connection::State;
use async_nats::jetstream::stream::{Config, Info};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::NatsBroker;
use super::api::ApiError;
use super::differences::{broken_promises, oddities};
use super::open::check_server;
use super::permissions::Permissions;
use super::queue;
use super::streams::{bucket_config, stream_config};
use crate::examine::{clock_offset_us, clock_severity, clock_words, flaws};
use crate::{Bucket, Flaw, OpenError, ReadError, Severity, StreamSpec, Timestamp};

/// Most servers that are looked at.
const SERVERS_MAX: usize = 16;
/// How long one of them may take to be connected to, and to say who we are.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
/// Most streams of others whose subjects are looked at.
const OTHERS_MAX: usize = 32;
/// From this part of a limit on it is nearly reached, and all but reached.
const NEARLY: f64 = 0.8;
const ALL_BUT: f64 = 0.95;

/// What the server says of the user of a connection.
#[derive(Debug, Deserialize)]
struct UserInfo {
    server: ServerTime,
    data: User,
}

#[derive(Debug, Deserialize)]
struct ServerTime {
    #[serde(default)]
    time: String,
}

#[derive(Debug, Deserialize)]
struct User {
    #[serde(default)]
    account: String,
    #[serde(default)]
    permissions: Permissions,
}

/// What the account uses, and may use at most; below zero is without a limit.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    storage: f64,
    streams: f64,
    consumers: f64,
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Limits {
    max_storage: f64,
    max_streams: f64,
    max_consumers: f64,
}

fn unavailable(error: ApiError) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

impl NatsBroker {
    /// See [`crate::Broker::examine`].
    pub(super) async fn look_for_flaws(
        &self,
        streams: &[StreamSpec],
        buckets: &[Bucket],
    ) -> Result<Vec<Flaw>, ReadError> {
        let replicas = self.options.replicas;
        let refused = |error: OpenError| ReadError::Unavailable(error.to_string());
        let mut wanted = Vec::new();
        for spec in streams {
            wanted.push(stream_config(spec, replicas).map_err(refused)?);
        }
        wanted.extend(buckets.iter().chain([&queue::bucket()]).map(|bucket| bucket_config(bucket, replicas)));
        let (mut found, servers) = self.look_at_servers().await;
        let user = self.look_at_user(&wanted, &mut found).await;
        let is_narrow = found.iter().any(|flaw| flaw.kind == &flaws::PERMISSIONS_NARROW);
        let looked = self.look_at_account(&wanted, servers, (&user, is_narrow), &mut found).await;
        match looked {
            // What may not be asked gets no answer, and why has been found.
            Err(_) if is_narrow => Ok(found),
            // The account has answered when it was opened.
            Err(error) if user.is_none() && self.is_connected() => {
                let what = format!("JetStream does not answer this user: {error}");
                found.push(Flaw::new(&flaws::PERMISSIONS_NARROW, "", what));
                Ok(found)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    fn is_connected(&self) -> bool {
        self.reader.api.client().connection_state() == State::Connected
    }

    /// Connects to each server that is known; how many there are.
    async fn look_at_servers(&self) -> (Vec<Flaw>, usize) {
        let named = self.options.servers();
        let own = self.reader.api.client().server_info();
        let told = own.connect_urls.iter().filter_map(|url| url.parse::<ServerAddr>().ok());
        let place = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
        let mut places = BTreeSet::new();
        let all: Vec<ServerAddr> = named.iter().cloned().chain(told).collect();
        let all: Vec<ServerAddr> = all.into_iter().filter(|server| places.insert(place(server))).collect();
        let answers = join_all(all.iter().take(SERVERS_MAX).map(|server| self.server_info(server))).await;
        let (mut found, mut ids) = (Vec::new(), BTreeSet::from([own.server_id.clone()]));
        for (number, (server, answer)) in all.iter().zip(answers).enumerate() {
            let place = place(server);
            match answer {
                Ok(info) if ids.insert(info.server_id.clone()) || info.server_id == own.server_id => {
                    match check_server(&info) {
                        Ok(()) => {}
                        Err(OpenError::Newer(why)) => {
                            found.push(Flaw::new(&flaws::BROKER_VERSION, &place, format!("{place}: {why}")));
                        }
                        Err(why) => {
                            found.push(Flaw::new(&flaws::BROKER_PAYLOAD, &place, format!("{place}: {why}")));
                        }
                    }
                }
                Ok(_) => {}
                // What servers tell of each other need not be a way for us; what somebody wrote down should be.
                Err(why) if number < named.len() => {
                    let what = format!("{place} of broker.url cannot be reached: {why}");
                    found.push(Flaw::new(&flaws::BROKER_SERVER, &place, what));
                }
                Err(_) => {}
            }
        }
        (found, ids.len())
    }

    async fn server_info(&self, server: &ServerAddr) -> Result<async_nats::ServerInfo, String> {
        let inbox = format!("_INBOX.antar{}", crate::EntryId::unique().as_str());
        let options = self.options.connection("examine", &inbox, 1, &Default::default(), |_| {});
        let options = options.map_err(|error| error.to_string())?.ignore_discovered_servers();
        match timeout(SERVER_TIMEOUT, options.connect(server.clone())).await {
            Ok(Ok(client)) => Ok(client.server_info()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".into()),
        }
    }

    /// What the user may do, and the server's clock.
    async fn look_at_user(&self, wanted: &[Config], found: &mut Vec<Flaw>) -> Option<User> {
        let asked_at = Timestamp::now();
        let asked = self.reader.api.request("$SYS.REQ.USER.INFO".into(), Bytes::new(), SERVER_TIMEOUT);
        let answer = asked.await.ok().and_then(|answer| serde_json::from_slice(&answer.payload).ok());
        let answered_at = Timestamp::now();
        let Some(UserInfo { server, data: user }) = answer else {
            let what = "the server does not say what this user may do";
            found.push(Flaw::new(&flaws::PERMISSIONS_UNKNOWN, "", what));
            return None;
        };
        found.extend(clock_flaw(asked_at, &server.time, answered_at));
        let narrow = too_narrow(&user.permissions, wanted);
        if !narrow.is_empty() {
            let what = format!("the user may not {}", narrow.join(", "));
            found.push(Flaw::new(&flaws::PERMISSIONS_NARROW, "", what));
        }
        Some(user)
    }

    async fn look_at_account(
        &self,
        wanted: &[Config],
        servers: usize,
        (user, is_narrow): (&Option<User>, bool),
        found: &mut Vec<Flaw>,
    ) -> Result<(), ReadError> {
        let usage: Value = self.reader.api.ask("INFO", &json!({})).await.map_err(unavailable)?;
        found.extend(nearly_used(&usage));
        let infos = join_all(wanted.iter().map(|config| self.reader.streams.info(&config.name))).await;
        for (config, info) in wanted.iter().zip(infos) {
            let info = match info {
                Ok(info) => info,
                Err(error) if is_narrow => return Err(unavailable(error)),
                // The account answers, so it is the stream that does not.
                Err(error) => {
                    let what = format!("{}: it does not answer: {error}", config.name);
                    found.push(Flaw::new(&flaws::STREAM_LEADER, &config.name, what));
                    continue;
                }
            };
            match info {
                Some(info) => {
                    found.extend(of_stream(&info, config, servers));
                    if info.state.consumer_count > 0 {
                        found.extend(self.look_at_consumers(&config.name).await?);
                    }
                }
                None => {
                    let what = format!("stream {} is not there", config.name);
                    found.push(Flaw::new(&flaws::STREAM_MISSING, &config.name, what));
                }
            }
        }
        self.look_at_others(wanted, user, found).await
    }

    async fn look_at_consumers(&self, stream: &str) -> Result<Vec<Flaw>, ReadError> {
        let list: Value =
            self.reader.api.ask(&format!("CONSUMER.LIST.{stream}"), &json!({})).await.map_err(unavailable)?;
        Ok(of_consumers(stream, &list))
    }

    /// Streams like ours that are not ours: their first token is the same.
    async fn look_at_others(
        &self,
        wanted: &[Config],
        user: &Option<User>,
        found: &mut Vec<Flaw>,
    ) -> Result<(), ReadError> {
        let all = self.reader.streams.all_names().await.map_err(unavailable)?;
        let kind = |subject: &String| subject.split('.').next().unwrap_or_default().to_owned();
        let kinds: BTreeSet<String> =
            wanted.iter().flat_map(|config| config.subjects.iter().map(kind)).collect();
        let is_ours = |name: &String| wanted.iter().any(|config| config.name == *name);
        let is_bucket = |name: &String| name.starts_with(super::streams::BUCKET_PREFIX);
        let (mut names, mut writable) = (Vec::new(), Vec::new());
        for name in all.iter().filter(|name| !is_ours(name) && !is_bucket(name)).take(OTHERS_MAX) {
            // One that does not answer is others' business.
            let Ok(Some(info)) = self.reader.streams.info(name).await else { continue };
            let subjects = info.config.subjects;
            if !subjects.iter().any(|subject| kinds.contains(&kind(subject))) {
                continue;
            }
            names.push(name.as_str());
            let may = |subject: &&String| {
                user.as_ref().is_some_and(|user| user.permissions.may_publish_some(subject))
            };
            writable.extend(subjects.iter().filter(may).cloned());
        }
        if names.is_empty() {
            return Ok(());
        }
        let account = user.as_ref().map_or("", |user| &*user.account);
        let what = format!("the account {account} also holds {}", names.join(", "));
        found.push(Flaw::new(&flaws::ACCOUNT_SHARED, account, what));
        if !writable.is_empty() {
            let what = format!("the user may publish to {}, which others' streams keep", writable.join(", "));
            found.push(Flaw::new(&flaws::PERMISSIONS_WIDE, account, what));
        }
        Ok(())
    }
}

fn clock_flaw(asked: Timestamp, told: &str, answered: Timestamp) -> Option<Flaw> {
    let told: jiff::Timestamp = told.parse().ok()?;
    let told = Timestamp(u64::try_from(told.as_microsecond()).ok()?);
    let offset = clock_offset_us(asked, told, answered);
    let severity = clock_severity(offset)?;
    let what = format!("the clock of the NATS server is {} this machine's", clock_words(offset));
    Some(Flaw::new(&flaws::CLOCK_BROKER, "", what).with(severity))
}

/// What a user needs and may not do.
fn too_narrow(permissions: &Permissions, wanted: &[Config]) -> Vec<String> {
    let mut publish: Vec<String> = ["INFO", "STREAM.NAMES"].map(|call| format!("$JS.API.{call}")).to_vec();
    let mut subscribe = vec!["_INBOX.>".to_owned()];
    for config in wanted {
        let is_bucket = config.name.starts_with(super::streams::BUCKET_PREFIX);
        let calls =
            ["STREAM.INFO", "DIRECT.GET", "STREAM.PURGE"].into_iter().take(if is_bucket { 2 } else { 3 });
        publish.extend(calls.map(|call| format!("$JS.API.{call}.{}", config.name)));
        publish.extend(config.subjects.iter().cloned());
        subscribe.extend(config.republish.as_ref().map(|republish| republish.destination.clone()));
    }
    let publish = publish.into_iter().filter(|subject| !permissions.may_publish(subject));
    let subscribe = subscribe.into_iter().filter(|subject| !permissions.may_subscribe(subject));
    let mut narrow: Vec<String> = publish.map(|subject| format!("publish to {subject}")).collect();
    narrow.extend(subscribe.map(|subject| format!("subscribe to {subject}")));
    let more = narrow.len().saturating_sub(OTHERS_MAX);
    narrow.truncate(OTHERS_MAX);
    narrow.extend((more > 0).then(|| format!("and {more} more")));
    narrow
}

/// Limits of an account that are nearly reached. With tiers each has its own.
fn nearly_used(account: &Value) -> Vec<Flaw> {
    let tiers =
        account["tiers"].as_object().into_iter().flatten().map(|(name, usage)| (name.as_str(), usage));
    let mut found = Vec::new();
    for (tier, usage) in std::iter::once(("", account)).chain(tiers) {
        let Ok(Usage { storage, streams, consumers, limits }) = serde_json::from_value(usage.clone()) else {
            continue;
        };
        let of = if tier.is_empty() { String::new() } else { format!(" of tier {tier}") };
        for (kind, used, max, unit) in [
            (&flaws::ACCOUNT_STORAGE, storage, limits.max_storage, "bytes"),
            (&flaws::ACCOUNT_STREAMS, streams, limits.max_streams, "streams"),
            (&flaws::ACCOUNT_CONSUMERS, consumers, limits.max_consumers, "consumers"),
        ] {
            if max > 0.0 && used >= max * NEARLY {
                let what = format!("the account{of} uses {used} of {max} {unit}");
                let severity = if used >= max * ALL_BUT { Severity::Error } else { Severity::Warning };
                found.push(Flaw::new(kind, "", what).with(severity));
            }
        }
    }
    found
}

fn of_stream(info: &Info, wants: &Config, servers: usize) -> Vec<Flaw> {
    let name = wants.name.as_str();
    let broken = broken_promises(&info.config, wants).into_iter();
    let broken = broken.map(|(kind, what)| Flaw::new(kind, name, format!("{name}: {what}")));
    let odd = oddities(&info.config, wants, servers).into_iter();
    let odd =
        odd.map(|(severity, (kind, what))| Flaw::new(kind, name, format!("{name}: {what}")).with(severity));
    let mut found: Vec<Flaw> = broken.chain(odd).collect();
    let Some(cluster) = &info.cluster else { return found };
    if cluster.name.as_ref().is_some_and(|name| !name.is_empty())
        && cluster.leader.as_ref().is_none_or(String::is_empty)
    {
        found.push(Flaw::new(&flaws::STREAM_LEADER, name, format!("{name}: it has no leader")));
    }
    for replica in cluster.replicas.iter().filter(|replica| !replica.current || replica.offline) {
        let how = match (replica.offline, replica.lag) {
            (true, _) => "is offline".to_owned(),
            (false, Some(lag)) => format!("is {lag} operations behind"),
            (false, None) => "is behind".to_owned(),
        };
        let what = format!("{name}: its replica on {} {how}", replica.name);
        found.push(Flaw::new(&flaws::STREAM_BEHIND, name, what));
    }
    found
}

fn of_consumers(stream: &str, list: &Value) -> Vec<Flaw> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (mut names, mut pushing) = (Vec::new(), Vec::new());
    for consumer in list["consumers"].as_array().into_iter().flatten() {
        let name = text(&consumer["name"]).unwrap_or_else(|| "(no name)".into());
        match text(&consumer["config"]["deliver_subject"]) {
            Some(to) => pushing.push(format!("{name} (to {to})")),
            None => match consumer["config"]["max_deliver"].as_i64() {
                Some(max) if max > 0 => names.push(format!("{name} (gives up after {max} deliveries)")),
                _ => names.push(name),
            },
        }
    }
    let flaw = |kind, names: Vec<String>| {
        (!names.is_empty())
            .then(|| Flaw::new(kind, stream, format!("{stream}: consumers {}", names.join(", "))))
    };
    [flaw(&flaws::STREAM_CONSUMERS, names), flaw(&flaws::STREAM_PUSHES, pushing)]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_before_they_are_reached() {
        let ids = |account: Value| -> Vec<(&str, Severity)> {
            nearly_used(&account).iter().map(|flaw| (flaw.kind.id, flaw.severity)).collect()
        };
        let limits = json!({ "max_storage": 1000, "max_streams": 10, "max_consumers": -1 });
        let account = |storage: u64, streams: u64| json!({ "storage": storage, "streams": streams, "consumers": 99, "limits": limits });
        assert_eq!(ids(account(799, 7)), []);
        assert_eq!(ids(account(800, 7)), [("account.storage", Severity::Warning)]);
        assert_eq!(
            ids(account(990, 8)),
            [("account.storage", Severity::Error), ("account.streams", Severity::Warning)]
        );
        let tiers = json!({ "limits": {}, "tiers": { "R3": account(990, 1) } });
        assert_eq!(ids(tiers), [("account.storage", Severity::Error)]);
    }

    #[test]
    fn a_server_whose_clock_differs_is_told() {
        let at = |text: &str| {
            let time: jiff::Timestamp = text.parse().unwrap();
            Timestamp(u64::try_from(time.as_microsecond()).unwrap())
        };
        let (asked, answered) = (at("2026-11-25T20:00:00Z"), at("2026-11-25T20:00:01Z"));
        let told = |text: &str| clock_flaw(asked, text, answered).map(|flaw| (flaw.severity, flaw.what));
        assert_eq!(told("2026-11-25T20:00:00.5Z"), None);
        assert_eq!(told("2026-11-25T20:00:02.9Z"), None);
        let (severity, what) = told("2026-11-25T20:00:09.25Z").unwrap();
        assert_eq!(severity, Severity::Warning);
        assert!(what.contains("8.2 s ahead of"), "{what}");
        assert_eq!(told("2026-11-25T19:00:00Z").unwrap().0, Severity::Error);
        assert_eq!(told("yesterday"), None);
    }

    #[test]
    fn a_stream_without_a_leader_and_a_replica_that_is_behind_are_told() {
        let spec = StreamSpec {
            name: "S".into(),
            filters: vec![crate::Filter::new("case.a.log").unwrap()],
            entries_per_subject_max: None,
        };
        let wants = stream_config(&spec, 3).unwrap();
        let found = |cluster: Value| -> Vec<(&str, String)> {
            let info = json!({
                "config": wants, "created": "2026-11-25T20:00:00Z", "cluster": cluster,
                "state": { "messages": 0, "bytes": 0, "first_seq": 0, "first_ts": "2026-11-25T20:00:00Z",
                    "last_seq": 0, "last_ts": "2026-11-25T20:00:00Z", "consumer_count": 0 },
                "offset": 0, "total": 0, "limit": 0,
            });
            let info: Info = serde_json::from_value(info).unwrap();
            of_stream(&info, &wants, 3).into_iter().map(|flaw| (flaw.kind.id, flaw.what)).collect()
        };
        let replica = |name: &str, more: Value| {
            let mut replica = json!({ "name": name, "current": true, "active": 1 });
            replica.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            replica
        };
        let well = [replica("n2", json!({})), replica("n3", json!({}))];
        assert_eq!(found(json!({ "name": "c", "leader": "n1", "replicas": well })), []);
        // A server of its own has no cluster.
        assert_eq!(found(json!({ "leader": "n1" })), []);
        assert_eq!(found(Value::Null), []);
        let ill =
            [replica("n2", json!({ "current": false, "lag": 7 })), replica("n3", json!({ "offline": true }))];
        assert_eq!(
            found(json!({ "name": "c", "replicas": ill })),
            [
                ("stream.leader", "S: it has no leader".to_owned()),
                ("stream.replica-behind", "S: its replica on n2 is 7 operations behind".to_owned()),
                ("stream.replica-behind", "S: its replica on n3 is offline".to_owned()),
            ]
        );
    }

    #[test]
    fn a_consumer_that_is_sent_everything_is_worse_than_one_that_asks() {
        let list = json!({ "consumers": [
            { "name": "a", "config": { "max_deliver": -1 } },
            { "name": "b", "config": { "max_deliver": 5 } },
            { "name": "spy", "config": { "deliver_subject": "x" } },
        ]});
        let found: Vec<_> =
            of_consumers("S", &list).into_iter().map(|flaw| (flaw.kind.id, flaw.what)).collect();
        assert_eq!(
            found,
            [
                ("stream.consumers", "S: consumers a, b (gives up after 5 deliveries)".to_owned()),
                ("stream.pushes", "S: consumers spy (to x)".to_owned()),
            ]
        );
        assert_eq!(of_consumers("S", &json!({})), []);
    }
}
