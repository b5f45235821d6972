//! The scenarios with messages: who sends to whom, on which threads, for how long.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Barrier;
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::accounts::{self, Session};
use super::figures::{Latency, report, rounded};
use super::flow::{Clock, Flow, Shared, Tally};
use super::frames::FrameReader;
use super::marker::{MarkerFinder, RunId, Template};
use super::pace::Pacer;
use super::talk::Talk;
use super::{BenchArgs, Receive, Scenario, one_of, process, runtime};
use crate::exit::{Exit, Failure, Outcome};

/// How long is waited at the end for what is still on its way, without anything coming.
const DRAIN_IDLE_MAX: Duration = Duration::from_secs(10);
/// How long is waited for what may come twice.
const LINGER: Duration = Duration::from_millis(200);

/// A flow to be opened: who sends what to whom.
#[derive(Debug, Clone)]
struct Plan {
    sender: (SocketAddr, String),
    /// Everything before the text of its lines.
    prefix: String,
    /// Where each receiver listens, its token, and the request that polls.
    receivers: Vec<(SocketAddr, String, String)>,
}

/// What is reported.
#[derive(Debug, Serialize)]
struct Figures {
    seconds: u32,
    delivered: u64,
    delivered_per_s: f64,
    latency_us: Option<Latency>,
    acknowledged: u64,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
    errors: std::collections::BTreeMap<String, u64>,
    /// Of the load generator, over the whole run.
    bench_cpu_s: Option<f64>,
    /// Of `--pid`, over the measurement, and for a million deliveries.
    server_cpu_s: Option<f64>,
    server_cpu_s_per_million: Option<f64>,
    server_resident_kib: Option<u64>,
}

/// Runs the scenario and reports.
pub(crate) fn run(args: &BenchArgs) -> Outcome {
    let setup = runtime()?;
    let (plans, sessions) = setup.block_on(plan(args))?;
    let (run, clock) = (RunId::fresh(), Clock::start());
    let threads = (args.threads as usize).min(plans.len());
    // One place more for this thread, which watches the server's process meanwhile.
    let barrier = Barrier::new(threads + 1);
    let runtimes = (0..threads).map(|_| runtime()).collect::<Result<Vec<_>, _>>()?;
    let server_cpu = Cell::new(None);
    let tallies: Vec<Outcome<Tally>> = std::thread::scope(|scope| {
        let start = |(number, runtime)| {
            let mine: Vec<_> = plans.iter().skip(number).step_by(threads).cloned().collect();
            let barrier = &barrier;
            scope.spawn(move || thread(args, run, clock, runtime, &mine, barrier))
        };
        let handles: Vec<_> = runtimes.into_iter().enumerate().map(start).collect();
        barrier.wait();
        server_cpu.set(watch_server(args));
        let dead = || Err(Failure::new(Exit::Failed, "a thread of the bench died"));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| dead())).collect()
    });
    let mut total = Tally::new();
    for tally in tallies {
        total.add(&tally?);
    }
    for (server, sessions) in &sessions {
        setup.block_on(accounts::log_out(*server, sessions))?;
    }
    finish(args, total, server_cpu.get())
}

/// Measures the time that the server's process spends on the CPU, about while messages are measured.
fn watch_server(args: &BenchArgs) -> Option<f64> {
    let pid = args.pid?;
    std::thread::sleep(Duration::from_secs(u64::from(args.warmup)));
    let before = process::cpu_seconds(pid)?;
    std::thread::sleep(Duration::from_secs(u64::from(args.seconds)));
    Some(process::cpu_seconds(pid)? - before)
}

fn finish(args: &BenchArgs, total: Tally, server_cpu_s: Option<f64>) -> Outcome {
    let figures = Figures {
        seconds: args.seconds,
        delivered: total.delivered,
        delivered_per_s: rounded(total.delivered as f64 / f64::from(args.seconds)),
        latency_us: Latency::of(&total.latency),
        acknowledged: total.acknowledged,
        lost: total.lost,
        duplicated: total.duplicated,
        out_of_order: total.out_of_order,
        errors: total.errors,
        bench_cpu_s: process::cpu_seconds(std::process::id()),
        server_cpu_s: server_cpu_s.map(rounded),
        server_cpu_s_per_million: server_cpu_s.map(|cpu| rounded(cpu * 1e6 / total.delivered.max(1) as f64)),
        server_resident_kib: args.pid.and_then(process::resident_kib),
    };
    report(args, &figures)?;
    if total.delivered_total == 0 {
        return Err(Failure::new(Exit::Failed, "nothing was delivered"));
    }
    match total.lost + total.duplicated + total.out_of_order {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "messages were lost, came twice or came out of order")),
    }
}

/// Who logged in where.
type Sessions = Vec<(SocketAddr, Vec<Session>)>;

/// Logs everybody in and says who sends to whom.
async fn plan(args: &BenchArgs) -> Outcome<(Vec<Plan>, Sessions)> {
    let inbox = |session: &Session| format!("inbox {}\r\n", session.token);
    let (pairs, server) = (args.pairs, args.first_server());
    match args.scenario {
        Scenario::Group => {
            let sessions = accounts::log_in(server, args.group + 1, &args.password).await?;
            let (sender, members) = sessions.split_first().expect("one more than the members");
            let to = match args.named {
                true => named_group(server, sender, members).await?,
                false => {
                    let names: Vec<_> = members.iter().map(|member| member.user.as_str()).collect();
                    names.join(",")
                }
            };
            let prefix = format!("sendgroup {} {to} ", sender.token);
            let receiver = |(number, member): (usize, &Session)| {
                (one_of(&args.server, number + 1), member.token.clone(), inbox(member))
            };
            let receivers = members.iter().enumerate().map(receiver).collect();
            let plan = Plan { sender: (server, sender.token.clone()), prefix, receivers };
            Ok((vec![plan], vec![(server, sessions)]))
        }
        Scenario::Realm => {
            let server2 = args.server2[0];
            let senders = accounts::log_in(server, pairs, &args.password).await?;
            let receivers = accounts::log_in(server2, pairs, &args.password).await?;
            add_realm(server, &senders[0], args.realm2.as_str(), server2).await?;
            let plan = |(number, (sender, receiver)): (usize, (&Session, &Session))| Plan {
                sender: (one_of(&args.server, number), sender.token.clone()),
                prefix: format!("sendprivaterealm {} {} {} ", sender.token, args.realm2, receiver.user),
                receivers: vec![(
                    one_of(&args.server2, number),
                    receiver.token.clone(),
                    format!("getrealminbox {} {}\r\n", receiver.token, args.realm),
                )],
            };
            let plans = senders.iter().zip(&receivers).enumerate().map(plan).collect();
            Ok((plans, vec![(server, senders), (server2, receivers)]))
        }
        _ => {
            let sessions = accounts::log_in(server, pairs * 2, &args.password).await?;
            let plan = |(number, pair): (usize, &[Session])| Plan {
                sender: (one_of(&args.server, number), pair[0].token.clone()),
                prefix: format!("send {} {} ", pair[0].token, pair[1].user),
                receivers: vec![(one_of(&args.server, number + 1), pair[1].token.clone(), inbox(&pair[1]))],
            };
            let plans = sessions.chunks_exact(2).enumerate().map(plan).collect();
            Ok((plans, vec![(server, sessions)]))
        }
    }
}

/// Makes a group of its own for this run, and lets everybody join.
async fn named_group(server: SocketAddr, owner: &Session, members: &[Session]) -> Outcome<String> {
    let group = format!("bench-{:x}", std::process::id());
    let mut talk = Talk::connect(server).await?;
    let made = format!("addgroup {} {group}", owner.token);
    let reply = talk.ask(&made).await?;
    if reply["status"] != "OK" && reply["code"] != "group-exists" {
        return Err(super::talk::refused(&made, &reply));
    }
    for member in members {
        talk.ask_ok(&format!("joingroup {} {group}", member.token)).await?;
    }
    Ok(format!("#{group}"))
}

/// Lets two realms send to each other; that they do already is no error.
async fn add_realm(server: SocketAddr, session: &Session, realm: &str, other: SocketAddr) -> Outcome {
    let line = format!("addrealm {} {realm} {} {}", session.token, other.ip(), other.port());
    let reply = Talk::connect(server).await?.ask(&line).await?;
    let added = reply["status"] == "OK" || reply["code"] == "realm-exists";
    if added { Ok(()) } else { Err(super::talk::refused(&line, &reply)) }
}

/// One thread's share. All threads begin together, and meet at the barrier even if they cannot begin.
fn thread(
    args: &BenchArgs,
    run: RunId,
    clock: Clock,
    runtime: Runtime,
    plans: &[Plan],
    barrier: &Barrier,
) -> Outcome<Tally> {
    let window = (args.scenario != Scenario::Rate).then_some(args.window as usize);
    let finder = MarkerFinder::new(run);
    let tally = RefCell::new(Tally::new());
    let shared = Rc::new(Shared { clock, window, finder, running: Cell::new(false), tally });
    let local = LocalSet::new();
    let opened = local.block_on(&runtime, async {
        let mut flows = Vec::new();
        for plan in plans {
            flows.push(open(args, run, &shared, plan).await?);
        }
        Outcome::Ok(flows)
    });
    barrier.wait();
    let flows = opened?;
    local.block_on(&runtime, measure(args, &shared, &flows))?;
    drop((local, flows));
    let shared = Rc::into_inner(shared).expect("every task of the thread is gone");
    Ok(shared.tally.into_inner())
}

/// Connects a flow. Its tasks run until the thread ends.
async fn open(args: &BenchArgs, run: RunId, shared: &Rc<Shared>, plan: &Plan) -> Outcome<Rc<Flow>> {
    let mut receivers = Vec::new();
    for (server, token, poll) in &plan.receivers {
        let mut talk = Talk::connect(*server).await?;
        let command = if args.receive == Receive::Watch { "watch" } else { "whoami" };
        talk.ask_ok(&format!("{command} {token}")).await?;
        receivers.push((talk.into_parts(), poll.clone()));
    }
    let mut sender = Talk::connect(plan.sender.0).await?;
    sender.ask_ok(&format!("whoami {}", plan.sender.1)).await?;
    let (reader, writer): (FrameReader, _) = sender.into_parts();
    let template = Template::new(&plan.prefix, run, args.size as usize);
    let flow = Flow::new(shared.clone(), writer, template, receivers.len());
    tokio::task::spawn_local(flow.clone().read_replies(reader));
    for (number, ((reader, writer), poll)) in receivers.into_iter().enumerate() {
        match args.receive {
            Receive::Watch => {
                tokio::task::spawn_local(keep(writer, flow.clone().receive_pushed(number, reader)))
            }
            Receive::Poll => {
                tokio::task::spawn_local(flow.clone().receive_polled(number, reader, writer, poll))
            }
        };
    }
    Ok(flow)
}

/// Dropping the writing side would close it, and the server would take that for the end.
async fn keep<W>(writer: W, task: impl Future<Output = ()>) {
    task.await;
    drop(writer);
}

async fn measure(args: &BenchArgs, shared: &Shared, flows: &[Rc<Flow>]) -> Outcome {
    let begin = shared.clock.now_ns();
    let from = begin + u64::from(args.warmup) * 1_000_000_000;
    let to = from + u64::from(args.seconds) * 1_000_000_000;
    shared.tally.borrow_mut().measured = from..to;
    shared.running.set(true);
    if args.scenario == Scenario::Rate {
        // This thread's share of the pairs is its share of the rate.
        let per_second = f64::from(args.rate) * flows.len() as f64 / f64::from(args.pairs);
        Pacer::new()?.run(shared, flows, per_second, begin..to).await?;
    } else {
        flows.iter().for_each(|flow| flow.fill_window());
        let wait = Duration::from_nanos(to - begin);
        let _ = tokio::time::timeout(wait, all_broken(flows)).await;
    }
    shared.running.set(false);
    drain(shared, flows).await;
    flows.iter().for_each(|flow| flow.count_lost());
    Ok(())
}

/// Waits until there is nothing left to measure.
async fn all_broken(flows: &[Rc<Flow>]) {
    while !flows.iter().all(|flow| flow.is_broken()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for what is on its way, for as long as something comes.
async fn drain(shared: &Shared, flows: &[Rc<Flow>]) {
    let progress = || {
        let tally = shared.tally.borrow();
        tally.delivered_total + tally.acknowledged
    };
    let (mut seen, mut idle) = (progress(), Duration::ZERO);
    while !flows.iter().all(|flow| flow.is_done()) && idle < DRAIN_IDLE_MAX {
        tokio::time::sleep(Duration::from_millis(10)).await;
        idle += Duration::from_millis(10);
        if progress() != seen {
            (seen, idle) = (progress(), Duration::ZERO);
        }
    }
    tokio::time::sleep(LINGER).await;
}
