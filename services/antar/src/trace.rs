//! `antar trace ID`: where a message is.
//!
//! Owns: what is asked and how it is shown. Must not know: how a message is found.

use antar_broker::{ReadError, SharedBroker};
use antar_proto::{MessageId, RealmId};
use antar_realm::trace::{Hop, Trace};
use clap::Args;

use crate::admin::broker_of;
use crate::cli::OperatorArgs;
use crate::config::Environment;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::say::{self, Format};
use crate::server::open_failure;

/// `antar trace`.
#[derive(Debug, Args)]
#[command(after_help = "\
Looks through the logs of all realms in the broker that may be read, also while they are being served, and changes nothing.
Shown are the hops of the message with their times, and what is missing. Never its text.

Examples:
  antar trace 01a2007d-2b8b-719b-bd95-903f23c13caa
  antar trace 01a2007d2b8b719bbd95903f23c13caa --broker nats://127.0.0.1:4222 --format json

Exit code 1 if nobody knows the message.")]
pub(crate) struct TraceArgs {
    /// The message's id, as `send` has answered it.
    #[arg(value_name = "ID")]
    id: MessageId,
    /// Look into this realm only. May be repeated.
    #[arg(long, value_name = "REALM")]
    realm: Vec<RealmId>,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Which broker.
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Runs `antar trace`.
pub(crate) async fn run(args: TraceArgs, environment: &Environment) -> Outcome {
    let settings = broker_of(&args.operator, environment)?.settings();
    let broker = antar_broker::open_for_reading(&settings).await.map_err(|error| open_failure(&error))?;
    let found = find(&broker, &args).await;
    broker.close().await;
    let Some(trace) = found.or_exit(Exit::Unreachable)? else {
        return Err(Failure::new(Exit::Failed, format!("nobody knows a message {}", args.id)));
    };
    match args.format {
        Format::Json => say::json(&trace),
        Format::Text => show(&trace),
    }
}

async fn find(broker: &SharedBroker, args: &TraceArgs) -> Result<Option<Trace>, ReadError> {
    let realms = match args.realm.is_empty() {
        true => antar_realm::realms(broker).await?,
        false => args.realm.clone(),
    };
    antar_realm::trace::trace(broker, &realms, args.id).await
}

fn show(trace: &Trace) -> Outcome {
    let group = trace.group.iter().map(|group| format!("#{group}"));
    let to: Vec<String> = trace.to.iter().map(ToString::to_string).chain(group).collect();
    say::line(format!("{} from {} to {}", trace.id, trace.from, to.join(", ")))?;
    let mut rows = vec![["time", "", "stage", "realm", "seq", ""].map(String::from).to_vec()];
    rows.extend(trace.hops.iter().map(|hop| {
        vec![
            hop.time.clone().unwrap_or_default(),
            hop.after_us.map(delay).unwrap_or_default(),
            hop.stage.as_str().into(),
            hop.realm.to_string(),
            hop.seq.to_string(),
            remarks(hop),
        ]
    }));
    say::table(&rows)?;
    for missing in &trace.missing {
        let text = format!("missing: {} at {}: {}", missing.stage.as_str(), missing.realm, missing.why);
        say::line(say::harmless(&text))?;
    }
    Ok(())
}

/// A time between two hops.
fn delay(micros: u64) -> String {
    match micros {
        0..10_000 => format!("+{micros} µs"),
        10_000..10_000_000 => format!("+{} ms", micros / 1_000),
        _ => format!("+{} s", micros / 1_000_000),
    }
}

fn remarks(hop: &Hop) -> String {
    let users: Vec<&str> = hop.users.iter().map(|user| user.as_str()).collect();
    let parts = [
        (!users.is_empty()).then(|| users.join(",")),
        hop.peer.as_ref().map(|peer| format!("peer {peer}")),
        hop.state.clone(),
        hop.reason.clone(),
        hop.letter.map(|letter| format!("letter {letter}")),
        hop.edge.as_ref().map(|edge| format!("edge {edge}")),
    ];
    // The reason is another realm's word.
    say::harmless(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}
