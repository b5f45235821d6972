//! Measures appends: `cargo run --release -p antar-broker --example append_rate [-- URL|temp [SCENARIO]]`.
//!
//! Prints appends per second for single-subject appends over 64 subjects with 1,024 in flight, for appends with 100
//! subjects, and the latency of appends one at a time and at 5,000 a second. Without a URL the file is a temporary one,
//! without a scenario (`one`, `many`, `group`, `alone`, `paced`) all are measured.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use antar_broker::{Append, EntryId, Filter, Settings, SharedBroker, StreamSpec, Subject};
use bytes::Bytes;

/// How long each measurement lasts.
const SECONDS: Duration = Duration::from_secs(4);
/// Bytes of a body: a short message with its envelope.
const BODY_BYTES: usize = 100;

type Failed = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let url = match std::env::args().nth(1) {
        Some(url) if url != "temp" => url,
        _ => format!("sqlite:{}", dir.path().join("rate.db").display()),
    };
    let scenario = std::env::args().nth(2);
    let wanted = |name: &str| scenario.as_deref().is_none_or(|scenario| scenario == name);
    let broker = antar_broker::open(&Settings::new(url)).await?;
    let spec = StreamSpec {
        name: "RATE".into(),
        filters: vec![Filter::new("rate.x.s.>")?],
        entries_per_subject_max: None,
    };
    broker.open_stream(&spec).await?;
    let subjects = |prefix: &str, count: usize| -> Result<Vec<Subject>, Failed> {
        (0..count).map(|n| Ok(Subject::new(format!("rate.x.s.{prefix}.{n}"))?)).collect()
    };
    let one = subjects("one", 64)?;
    if wanted("one") {
        for tasks in [1, 16, 64] {
            let rate = in_flight(&broker, tasks, 1024 / tasks, |n| vec![one[n % 64].clone()]).await?;
            println!(
                "1 subject each, 64 subjects, 1,024 in flight from {tasks:>2} tasks: {rate:>9.0} appends/s"
            );
        }
    }
    if wanted("many") {
        let many = subjects("many", 20_000)?;
        let rate = in_flight(&broker, 16, 64, |n| vec![many[(n * 7919) % 20_000].clone()]).await?;
        println!("1 subject each, 16,000 subjects, 1,024 in flight from 16 tasks: {rate:>9.0} appends/s");
    }
    if wanted("group") {
        let group = subjects("group", 100)?;
        let rate = in_flight(&broker, 16, 16, |_| group.clone()).await?;
        println!("100 subjects each, 256 in flight: {rate:>9.0} appends/s, {:>9.0} places/s", rate * 100.0);
    }
    if wanted("alone") {
        alone(&broker, &one).await?;
    }
    if wanted("paced") {
        paced(&broker, &one, 5_000).await?;
    }
    broker.close().await;
    Ok(())
}

fn append(subjects: Vec<Subject>) -> Append {
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    Append {
        subjects,
        id: EntryId::unique(),
        headers: Vec::new(),
        body,
        expect_last: None,
        copies: 0,
        is_fresh: false,
    }
}

/// Appends per second with `each` in flight from each of `tasks`.
async fn in_flight(
    broker: &SharedBroker,
    tasks: usize,
    each: usize,
    subjects: impl Fn(usize) -> Vec<Subject>,
) -> Result<f64, Failed> {
    let began = Instant::now();
    let mut running = Vec::new();
    for task in 0..tasks {
        // Some of each task's subjects, made before, so that making them is not measured.
        let prepared: Vec<Vec<Subject>> = (0..1000).map(|n| subjects(task * 1000 + n)).collect();
        let broker = broker.clone();
        running.push(tokio::spawn(async move {
            let mut pending = VecDeque::new();
            let mut count = 0_u64;
            let mut done = 0_u64;
            while began.elapsed() < SECONDS {
                for _ in 0..each.min(64) {
                    let subjects = prepared[count as usize % prepared.len()].clone();
                    pending.push_back(broker.append(append(subjects)).await?);
                    count += 1;
                }
                while pending.len() > each {
                    if let Some(first) = pending.pop_front() {
                        first.await?;
                        done += 1;
                    }
                }
            }
            for rest in pending {
                rest.await?;
                done += 1;
            }
            Ok::<_, antar_broker::AppendError>(done)
        }));
    }
    let mut total = 0;
    for task in running {
        total += task.await??;
    }
    Ok(total as f64 / began.elapsed().as_secs_f64())
}

async fn alone(broker: &SharedBroker, subjects: &[Subject]) -> Result<(), Failed> {
    let mut took = Vec::new();
    let began = Instant::now();
    while began.elapsed() < SECONDS {
        let at = Instant::now();
        broker.append(append(vec![subjects[took.len() % 64].clone()])).await?.await?;
        took.push(at.elapsed());
    }
    println!(
        "one at a time: {:>7} appends/s, {}",
        took.len() as u64 / SECONDS.as_secs(),
        percentiles(&mut took)
    );
    Ok(())
}

/// An open loop: appends begin when they are due, whether or not those before are done.
async fn paced(broker: &SharedBroker, subjects: &[Subject], per_second: u32) -> Result<(), Failed> {
    let (due, mut begun) = tokio::sync::mpsc::channel(10_000);
    // A thread, because the runtime's timers are no finer than a millisecond.
    let clock = std::thread::spawn(move || {
        let began = Instant::now();
        for n in 0..per_second * 8 {
            let at = began + Duration::from_secs(1) * n / per_second;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let _ = due.try_send(at);
        }
    });
    let mut running = tokio::task::JoinSet::new();
    let mut took = Vec::new();
    while let Some(at) = begun.recv().await {
        let pending = broker.append(append(vec![subjects[running.len() % 64].clone()])).await?;
        running.spawn(async move { pending.await.map(|_| at.elapsed()) });
        while let Some(done) = running.try_join_next() {
            took.push(done??);
        }
    }
    while let Some(done) = running.join_next().await {
        took.push(done??);
    }
    let _ = clock.join();
    println!("open loop at {per_second}/s: {}", percentiles(&mut took));
    Ok(())
}

fn percentiles(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    format!("p50 {:?}, p99 {:?}, p99.9 {:?}, worst {:?}", at(0.5), at(0.99), at(0.999), at(1.0))
}
