//! `antar status`: how realms are.
//!
//! Owns: what is asked and how it is shown. Must not know: how it is found out.

use antar_broker::SharedBroker;
use antar_proto::RealmId;
use antar_realm::status::{LaneState, RealmStatus, status};
use clap::Args;

use crate::admin::broker_of;
use crate::cli::OperatorArgs;
use crate::config::Environment;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::say::{self, Format};
use crate::server::open_failure;

/// `antar status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads what the realms' logs and edges say of themselves, also while nobody serves them, and changes nothing.

An edge that has said nothing for 15 s is gone, and forgotten after 10 minutes. A lane waits while the other realm takes
nothing or cannot be reached; it says why, and since when.

Examples:
  antar status                                       all realms of the database in the working directory
  antar status --realm kampus --config antar.toml
  antar status --broker nats://127.0.0.1:4222 --format json | jq '.lanes[] | select(.state != \"up\")'

Exit code 3 if the broker cannot be reached.")]
pub(crate) struct StatusArgs {
    /// This realm only. May be repeated.
    #[arg(long, value_name = "REALM")]
    realm: Vec<RealmId>,
    /// For people, or one JSON object a realm.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Which broker.
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Runs `antar status`.
pub(crate) async fn run(args: StatusArgs, environment: &Environment) -> Outcome {
    let settings = broker_of(&args.operator, environment)?.settings();
    let broker = antar_broker::open_for_reading(&settings).await.map_err(|error| open_failure(&error))?;
    let looked = look(&broker, &args).await;
    broker.close().await;
    let realms = looked?;
    for (at, realm) in realms.iter().enumerate() {
        match args.format {
            Format::Json => say::json(realm)?,
            Format::Text if at > 0 => {
                say::line("")?;
                show(realm)?;
            }
            Format::Text => show(realm)?,
        }
    }
    Ok(())
}

async fn look(broker: &SharedBroker, args: &StatusArgs) -> Outcome<Vec<RealmStatus>> {
    let there = antar_realm::realms(broker).await.or_exit(Exit::Unreachable)?;
    if let Some(unknown) = args.realm.iter().find(|realm| !there.contains(realm)) {
        let names: Vec<&str> = there.iter().map(RealmId::as_str).collect();
        let known = if names.is_empty() { "none".into() } else { names.join(", ") };
        return Err(Failure::new(
            Exit::Failed,
            format!("there is no realm {unknown} in this broker; there is {known}"),
        ));
    }
    if there.is_empty() {
        return Err(Failure::new(Exit::Failed, "there is no realm in this broker"));
    }
    let realms = if args.realm.is_empty() { there } else { args.realm.clone() };
    let mut found = Vec::with_capacity(realms.len());
    for realm in realms {
        found.push(status(broker, &realm).await.or_exit(Exit::Unreachable)?);
    }
    Ok(found)
}

fn show(status: &RealmStatus) -> Outcome {
    let alive = status.edges.iter().filter(|edge| edge.alive).count();
    let state = match (status.paused, alive) {
        (true, _) => "paused: it exchanges nothing with other realms",
        (false, 0) => "no edge serves it",
        (false, _) => "running",
    };
    say::line(format!("{}  {state}", status.realm))?;
    edges(status)?;
    lanes(status)?;
    let waiting = status.deliveries.iter().filter(|delivery| delivery.queued > 0);
    for delivery in waiting {
        let from = delivery.peer.as_ref().map_or_else(|| "other realms".into(), ToString::to_string);
        let age = delivery.oldest_s.map_or_else(String::new, |age| format!(", the oldest {}", span(age)));
        say::line(format!("  {} from {from} not delivered yet{age}", delivery.queued))?;
    }
    let dead = &status.dead_letters;
    if dead.open > 0 {
        let more = if dead.at_least { " or more" } else { "" };
        let kinds = dead.by_code.iter().map(|(code, count)| format!("{count} {code}")).collect::<Vec<_>>();
        let kinds = kinds.join(", ");
        say::line(format!(
            "  dead letters  {}{more} ({kinds}): antar dead list --realm {}",
            dead.open, status.realm
        ))?;
    }
    storage(status)
}

fn edges(status: &RealmStatus) -> Outcome {
    if status.edges.is_empty() {
        return Ok(());
    }
    let mut rows = vec![row(["edge", "state", "host", "version", "connections", "watch", "started"])];
    rows.extend(status.edges.iter().map(|edge| {
        let state = match edge.alive {
            true => "alive".into(),
            false => format!("gone for {}", span(edge.age_s)),
        };
        let record = &edge.record;
        let counts = [&record.connections, &record.watches].map(ToString::to_string);
        let [connections, watches] = counts;
        // The host is what a machine calls itself.
        let host = say::harmless(&record.host);
        row([&record.edge, &state, &host, &record.version, &connections, &watches, &record.started])
    }));
    say::table(&rows)
}

fn lanes(status: &RealmStatus) -> Outcome {
    if status.lanes.is_empty() {
        return Ok(());
    }
    let mut rows = vec![row(["lane to", "state", "queued", "oldest", "since", "why"])];
    rows.extend(status.lanes.iter().map(|lane| {
        let state = if lane.blocked {
            format!("{}, blocked", lane.state.as_str())
        } else {
            lane.state.as_str().into()
        };
        let oldest = lane.oldest_s.map(span).unwrap_or_default();
        let (since, why) = match (&lane.waiting, lane.state) {
            (Some(waiting), _) => (waiting.since.clone(), say::harmless(&waiting.error)),
            (None, LaneState::Paused) => (String::new(), format!("antar realm resume {}", status.realm)),
            (None, _) => (String::new(), String::new()),
        };
        row([lane.peer.as_str(), &state, &lane.queued.to_string(), &oldest, &since, &why])
    }));
    say::table(&rows)
}

fn storage(status: &RealmStatus) -> Outcome {
    let storage = &status.storage;
    let of_limit = storage.limit_bytes.map_or_else(
        || ", without a limit".into(),
        |limit| format!(" of {} ({} %)", size(limit), percent(storage.stored_bytes, limit)),
    );
    say::line(format!("  storage  {}{of_limit}", size(storage.stored_bytes)))?;
    let streams = storage.streams.iter().map(|stream| format!("{} {}", stream.name, stream.entries));
    say::line(format!("  entries  {}", streams.collect::<Vec<_>>().join(", ")))
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    // Two spaces before the first one set the table off from the realm's line.
    cells
        .iter()
        .enumerate()
        .map(|(at, cell)| if at == 0 { format!("  {cell}") } else { (*cell).into() })
        .collect()
}

/// A time for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A size for people, in binary units.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    // Two digits at least.
    while value >= 10 * 1024 && unit < UNITS.len() - 1 {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", UNITS[unit])
}

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(
            [0, 10_239, 10_240, 5 << 30, u64::MAX].map(size),
            ["0 B", "10239 B", "10 KiB", "5120 MiB", "16777215 TiB"]
        );
        assert_eq!([0, 119, 120, 7_200, 172_800].map(span), ["0 s", "119 s", "2 min", "2 h", "2 days"]);
        assert_eq!([percent(1, 0), percent(1, 3), percent(u64::MAX, u64::MAX)], [100, 33, 100]);
    }
}
