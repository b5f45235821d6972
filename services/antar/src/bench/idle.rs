//! Connections that watch and say nothing: how many a server takes, and what each costs it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::accounts;
use super::figures::{report, rounded};
use super::talk::Talk;
use super::{BenchArgs, one_of, process, runtime};
use crate::exit::{Exit, Failure, Outcome};

/// Connections that are being set up at once.
const SETUPS_MAX: usize = 32;
/// Connections that are asked at the end whether they still answer.
const SAMPLE: usize = 100;

#[derive(Debug, Serialize)]
struct Figures {
    established: usize,
    setup_seconds: f64,
    idle_seconds: u32,
    /// Of the sample that was pinged after the idle time.
    pinged: usize,
    answered: usize,
    errors: BTreeMap<String, u64>,
    resident_kib_before: Option<u64>,
    resident_kib_after: Option<u64>,
    resident_kib_per_connection: Option<f64>,
}

/// Runs the scenario and reports.
pub(crate) fn run(args: &BenchArgs) -> Outcome {
    runtime()?.block_on(idle(args))
}

async fn idle(args: &BenchArgs) -> Outcome {
    // The command line's start has raised the limit as far as it may go.
    let (limit, _) = rlimit::Resource::NOFILE.get()?;
    if limit < u64::from(args.conns) + 64 {
        let message =
            format!("this process may open {limit} files, too few for --conns {}: see ulimit -n", args.conns);
        return Err(Failure::new(Exit::Usage, message));
    }
    let sessions = accounts::log_in(args.first_server(), args.users.min(args.conns), &args.password).await?;
    let before = args.pid.and_then(process::resident_kib);
    let begin = Instant::now();
    let (mut open, mut errors) = (Vec::new(), BTreeMap::<String, u64>::new());
    let (places, mut setups) = (Arc::new(Semaphore::new(SETUPS_MAX)), JoinSet::new());
    for number in 0..args.conns as usize {
        let place = places.clone().acquire_owned().await?;
        let (server, line) =
            (one_of(&args.server, number), format!("watch {}", sessions[number % sessions.len()].token));
        setups.spawn(async move {
            let mut talk = Talk::connect(server).await?;
            talk.ask_ok(&line).await?;
            drop(place);
            Outcome::Ok(talk)
        });
    }
    while let Some(talk) = setups.join_next().await {
        match talk? {
            Ok(talk) => open.push(talk),
            Err(failure) => *errors.entry(format!("{:#}", failure.error)).or_default() += 1,
        }
    }
    let setup_seconds = rounded(begin.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(u64::from(args.seconds))).await;
    let after = args.pid.and_then(process::resident_kib);
    let (pinged, answered) = ping(&mut open).await;
    let growth = before.zip(after).map(|(before, after)| after as f64 - before as f64);
    let figures = Figures {
        established: open.len(),
        setup_seconds,
        idle_seconds: args.seconds,
        pinged,
        answered,
        errors,
        resident_kib_before: before,
        resident_kib_after: after,
        resident_kib_per_connection: growth
            .map(|kib| (kib * 100.0 / open.len().max(1) as f64).round() / 100.0),
    };
    report(args, &figures)?;
    let established = open.len();
    drop(open);
    accounts::log_out(args.first_server(), &sessions).await?;
    if established < args.conns as usize || answered < pinged {
        return Err(Failure::new(Exit::Failed, "some connections were not made or did not answer"));
    }
    Ok(())
}

/// Pings a sample, spread over all: how many were asked, how many answered.
async fn ping(open: &mut [Talk]) -> (usize, usize) {
    let step = (open.len() / SAMPLE).max(1);
    let (mut pinged, mut answered) = (0, 0);
    for talk in open.iter_mut().step_by(step) {
        pinged += 1;
        answered += usize::from(talk.ask_ok("ping").await.is_ok());
    }
    (pinged, answered)
}
