//! `antar bench ledger --minutes N`: the ledger of two realms under one fault after the other, for as long as one likes.
//!
//! Owns: which faults there are, in which order, and what is to be true afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use antar_proto::MessageId;
use anyhow::Context as _;
use clap::{Args, ValueHint};
use serde::Serialize;

use super::accounts::{self, user};
use super::figures::report;
use super::ledger::{Checked, Line, compare, ids, parse};
use super::sender::{Errand, Recorded, Sender};
use super::site::{EDGES, REALMS, Site};
use super::talk::Talk;
use super::{BenchArgs, runtime};
use crate::exit::{Exit, Failure, Outcome};
use crate::say;

/// How long everything is whole between two faults.
const CALM: Duration = Duration::from_secs(3);
/// How long an edge or a server is gone, a line is cut, a server stands still, a realm is away.
const GONE: Duration = Duration::from_secs(1);
const CUT: Duration = Duration::from_secs(6);
const STOPPED: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(15);
/// How long the last messages may take, without anything coming: leases, elections, growing pauses.
const LAST_MAX: Duration = Duration::from_secs(60);
/// How often is looked for them.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Options of the long ledger.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct OrdealArgs {
    /// ledger: start two realms with two edges each on NATS servers of their own, kill, stop and cut them off in turn for
    /// so many minutes while messages flow within realm1 and to realm2 at --rate, and compare.
    #[arg(long, value_name = "N", conflicts_with_all = ["ledger", "check"], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) minutes: Option<u32>,
    /// ledger --minutes: the NATS server.
    #[arg(long, value_name = "FILE", default_value = "nats-server", value_hint = ValueHint::FilePath)]
    pub(crate) nats_server: PathBuf,
    /// ledger --minutes: how many NATS servers, 1 or 3; each stream has as many replicas.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) nats_servers: u8,
    /// ledger --minutes: the NATS servers write to the disk before they acknowledge (sync_interval: always).
    #[arg(long)]
    pub(crate) sync_always: bool,
}

#[derive(Debug, Serialize)]
struct Figures {
    faults: BTreeMap<String, u32>,
    within_realm1: Way,
    to_realm2: Way,
}

#[derive(Debug, Serialize)]
struct Way {
    sent: Recorded,
    read: Checked,
}

/// A fault, with the number of what it hits.
#[derive(Debug, Clone, Copy)]
enum Fault {
    EdgeKilled(usize),
    NatsKilled(usize),
    NatsStopped(usize),
    /// Up and down, of a realm.
    LineCut(usize, [bool; 2]),
    RealmAway(usize),
}

impl Fault {
    /// One of each, for so many NATS servers.
    fn all(servers: usize) -> Vec<Self> {
        let edges = (0..REALMS.len() * EDGES).map(Self::EdgeKilled);
        let nats = (0..servers).flat_map(|server| [Self::NatsKilled(server), Self::NatsStopped(server)]);
        let ways = [[true, true], [true, false], [false, true]];
        let lines = (0..REALMS.len()).flat_map(|realm| ways.map(|way| Self::LineCut(realm, way)));
        edges.chain(nats).chain(lines).chain([Self::RealmAway(1)]).collect()
    }

    fn name(self) -> String {
        match self {
            Self::EdgeKilled(edge) => format!("edge {edge} killed"),
            Self::NatsKilled(server) => format!("NATS server {server} killed"),
            Self::NatsStopped(server) => format!("NATS server {server} stopped"),
            Self::LineCut(realm, [true, true]) => format!("{} cut off", REALMS[realm]),
            Self::LineCut(realm, [true, false]) => format!("{} cut off on the way to NATS", REALMS[realm]),
            Self::LineCut(realm, _) => format!("{} cut off on the way from NATS", REALMS[realm]),
            Self::RealmAway(realm) => format!("{} away", REALMS[realm]),
        }
    }

    /// Does it, and mends it.
    async fn happen(self, site: &mut Site) -> Outcome {
        match self {
            Self::EdgeKilled(edge) => {
                site.kill_edge(edge);
                tokio::time::sleep(GONE).await;
                site.start_edge(edge).await?;
            }
            Self::NatsKilled(server) => {
                site.kill_nats(server);
                tokio::time::sleep(GONE).await;
                site.start_nats(server).await?;
            }
            Self::NatsStopped(server) => {
                site.stop_nats(server, true);
                tokio::time::sleep(STOPPED).await;
                site.stop_nats(server, false);
            }
            Self::LineCut(realm, ways) => {
                site.cut(realm, ways);
                tokio::time::sleep(CUT).await;
                site.cut(realm, [false; 2]);
            }
            Self::RealmAway(realm) => {
                let edges = realm * EDGES..(realm + 1) * EDGES;
                edges.clone().for_each(|edge| site.kill_edge(edge));
                tokio::time::sleep(AWAY).await;
                for edge in edges {
                    site.start_edge(edge).await?;
                }
            }
        }
        Ok(())
    }
}

/// Runs it and reports. What was written stays if a promise was broken.
pub(crate) fn run(args: &BenchArgs, minutes: u32) -> Outcome {
    runtime()?.block_on(async {
        let OrdealArgs { nats_server, nats_servers, sync_always, .. } = &args.ordeal;
        let mut site = Site::start(nats_server, usize::from(*nats_servers), *sync_always).await?;
        let figures = endure(args, &mut site, Duration::from_secs(u64::from(minutes) * 60)).await;
        let figures = figures.map_err(|Failure { exit, error }| {
            let what = format!("what was written is in {}", site.path("").display());
            Failure { exit, error: error.context(what) }
        })?;
        report(args, &figures)?;
        if figures.within_realm1.read.is_good() && figures.to_realm2.read.is_good() {
            return site.remove();
        }
        let message = format!(
            "what was answered OK is not all there, once and in order: see {}",
            site.path("").display()
        );
        Err(Failure::new(Exit::Failed, message))
    })
}

/// Lets messages flow and faults happen, and compares.
async fn endure(args: &BenchArgs, site: &mut Site, time: Duration) -> Outcome<Figures> {
    let servers: Vec<_> = (0..REALMS.len()).map(|realm| site.edges_of(realm)).collect();
    let here = accounts::log_in(servers[0][0], 3, &args.password).await?;
    let there = accounts::log_in(servers[1][0], 1, &args.password).await?;
    let (near, far) = (&here[0].token, &here[1].token);
    let add = format!("addrealm {far} {} 127.0.0.1 {}", REALMS[1], servers[1][0].port());
    Talk::connect(servers[0][0]).await?.ask_ok(&add).await?;
    let errand = |token: &String, prefix: String| Errand {
        servers: servers[0].clone(),
        token: token.clone(),
        prefix,
        size: args.size as usize,
        window: args.window as usize,
        rate: Some(args.rate.div_ceil(2)),
        messages: 0,
    };
    let to_near = errand(near, format!("send {near} {} ", user(2)));
    let to_far = errand(far, format!("sendprivaterealm {far} {} {} ", REALMS[1], user(0)));
    let books = [site.path("within-realm1.ledger"), site.path("to-realm2.ledger")];
    let (one, two) = (Sender::new(to_near, &books[0])?, Sender::new(to_far, &books[1])?);
    let end = Instant::now() + time;
    let (one, two, faults) = tokio::try_join!(one.run(end), two.run(end), happen(site, end))?;
    let near = settle(&servers[0], &format!("inbox {}", here[2].token), &books[0]).await?;
    let inbox = format!("getrealminbox {} {}", there[0].token, REALMS[0]);
    let far = settle(&servers[1], &inbox, &books[1]).await?;
    let [near, far] = [Way { sent: one, read: near }, Way { sent: two, read: far }];
    Ok(Figures { faults, within_realm1: near, to_realm2: far })
}

/// One fault after the other, from the first again after the last one.
async fn happen(site: &mut Site, end: Instant) -> Outcome<BTreeMap<String, u32>> {
    let (all, mut counts) = (Fault::all(site.servers()), BTreeMap::new());
    for fault in all.into_iter().cycle() {
        tokio::time::sleep(CALM).await;
        if Instant::now() >= end {
            break;
        }
        say::remark(fault.name());
        fault.happen(site).await?;
        *counts.entry(fault.name()).or_default() += 1;
    }
    Ok(counts)
}

/// Reads a mailbox to its end, for as long as something is missing and something comes, and compares it with a ledger.
async fn settle(servers: &[std::net::SocketAddr], request: &str, ledger: &Path) -> Outcome<Checked> {
    let text = std::fs::read_to_string(ledger).with_context(|| ledger.display().to_string())?;
    let ledger: Vec<Line> = parse(&text)?;
    let (mut found, mut came) = (Vec::<MessageId>::new(), Instant::now());
    let mut talk = Talk::connect(servers[0]).await?;
    loop {
        let reply = talk.ask_ok(request).await?;
        let messages = match &reply["messages"] {
            serde_json::Value::Object(senders) => senders.values().next().unwrap_or_default(),
            list => list,
        };
        let page = if messages.is_null() { Vec::new() } else { ids(messages)? };
        if page.is_empty() {
            let checked = compare(&ledger, &found);
            if checked.lost == 0 || came.elapsed() > LAST_MAX {
                return Ok(checked);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        } else {
            found.extend(page);
            came = Instant::now();
        }
    }
}
