//! `antar bench`: puts load on servers and tells what came out. It measures; it never judges a time.
//!
//! Owns: scenarios, options, the way to a report. Speaks the line protocol by `antar_proto` only, as raw as it can: it
//! shares the machine with the server it measures. Must not know: the client library, realms, brokers.

mod accounts;
mod figures;
mod flow;
mod frames;
mod idle;
mod ledger;
mod link;
mod load;
mod marker;
mod ordeal;
mod pace;
mod process;
mod sender;
mod site;
mod talk;

use std::net::SocketAddr;
use std::path::PathBuf;

use antar_proto::RealmId;
use clap::{Args, ValueEnum, ValueHint};
use serde::Serialize;

use crate::cli::server_address;
use crate::exit::{Exit, Failure, Outcome};

/// `antar bench`.
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_help = "\
It makes and uses the accounts bench-0, bench-1, … : the server must let people register (auth.registration = open), or
have them already with the password of --password.

Examples:
  antar bench send --pairs 64 --window 16
  antar bench rate --rate 5000 --pairs 64 --seconds 30 --json
  antar bench idle --conns 10000 --pid $(pgrep antar)
  antar bench group --group 100
  antar bench group --group 100 --named
  antar bench send --server 127.0.0.1:4001,127.0.0.1:4003      two edges of a realm
  antar bench realm --server 127.0.0.1:4001 --server2 127.0.0.1:4002
  antar bench ledger --ledger oks && antar bench ledger --check oks
  antar bench ledger --minutes 60 --nats-servers 3             two realms of its own, under every fault in turn

Exit code 1 if a message that was answered OK did not come, came twice or came out of order.")]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[arg(value_enum)]
    pub(crate) scenario: Scenario,
    /// The server; or several edges of its realm, with commas. Then each pair talks through two of them, the pairs in turn.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4001", value_parser = server_address, value_delimiter = ',')]
    pub(crate) server: Vec<SocketAddr>,
    /// realm: a server of the other realm, or several.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4002", value_parser = server_address, value_delimiter = ',')]
    pub(crate) server2: Vec<SocketAddr>,
    /// realm: the id of the other realm.
    #[arg(long, value_name = "ID", default_value = "realm2")]
    pub realm2: RealmId,
    /// realm: the id of the first realm (for --receive poll).
    #[arg(long, value_name = "ID", default_value = "realm1")]
    pub(crate) realm: RealmId,
    /// Pairs of a sender and a receiver.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) pairs: u32,
    /// Messages of one sender that are on their way at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) window: u32,
    /// Size of a message's text, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(marker::MARKER_BYTES as i64..=60_000))]
    pub(crate) size: u32,
    /// rate, ledger --minutes: messages a second, all together.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: u32,
    /// How long to measure, in seconds. idle: how long to leave the connections alone.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// How long to run before the measurement begins, in seconds.
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub(crate) warmup: u32,
    /// idle: users that the connections belong to.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) users: u32,
    /// idle: connections.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) conns: u32,
    /// group: members.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) group: u32,
    /// group: a named group, which the members join, and not a list of them with each message.
    #[arg(long)]
    pub(crate) named: bool,
    /// How messages are received: pushed by watch, or by asking the inbox over and over.
    #[arg(long, value_enum, default_value = "watch")]
    pub(crate) receive: Receive,
    /// Threads of the load generator.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// ledger: write the id and the number of each message that was answered OK here.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "check")]
    pub(crate) ledger: Option<PathBuf>,
    /// ledger: read the messages back and compare them with this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) check: Option<PathBuf>,
    /// ledger: how --check reads them back. The inbox shows each message to one check only.
    #[arg(long, value_enum, default_value = "inbox")]
    pub(crate) by: ReadBack,
    /// ledger: stop after this many messages; 0 for no limit but --seconds.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) messages: u64,
    /// See there.
    #[command(flatten)]
    pub(crate) ordeal: ordeal::OrdealArgs,
    /// The server's process: its memory and its time on the CPU are reported too.
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// The password of the bench accounts, which is no secret.
    #[arg(long, default_value = "bench-password")]
    #[serde(skip)]
    pub(crate) password: String,
    /// One JSON object with scenario, options and figures.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// Messages between pairs, each pair as fast as its window lets it.
    Send,
    /// Messages at a fixed rate; latency counts from when each was due.
    Rate,
    /// Connections that watch and say nothing: what they cost.
    Idle,
    /// One sender to a group whose members all watch.
    Group,
    /// Messages from one realm to another.
    Realm,
    /// Writes down what was answered OK, and checks it later: for kill and power-cut tests.
    Ledger,
}

/// How messages are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Receive {
    /// Pushed.
    Watch,
    /// Asked for.
    Poll,
}

/// How messages are read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadBack {
    /// What is unread; it is read then.
    Inbox,
    /// What was said, read or not, page by page.
    History,
}

/// Runs one scenario and reports.
pub(crate) fn run(args: &BenchArgs) -> Outcome {
    match args.scenario {
        Scenario::Send | Scenario::Rate | Scenario::Group | Scenario::Realm => load::run(args),
        Scenario::Idle => idle::run(args),
        Scenario::Ledger => match (&args.ledger, &args.check, args.ordeal.minutes) {
            (Some(path), ..) => ledger::record(args, path),
            (None, Some(path), _) => ledger::check(args, path),
            (None, None, Some(minutes)) => ordeal::run(args, minutes),
            (None, None, None) => {
                Err(Failure::new(Exit::Usage, "ledger takes --ledger FILE, --check FILE or --minutes N"))
            }
        },
    }
}

impl BenchArgs {
    /// The server for what is done once.
    fn first_server(&self) -> SocketAddr {
        self.server[0]
    }
}

/// Number `number` of some servers, which come round again.
fn one_of(servers: &[SocketAddr], number: usize) -> SocketAddr {
    servers[number % servers.len()]
}

/// A runtime on this thread only: handing work between threads costs more than it brings here.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
