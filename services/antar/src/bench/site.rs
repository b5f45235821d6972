//! Two realms with two edges each, on NATS servers of their own, as processes that can be killed, stopped and cut off.
//!
//! Owns: their directory, ports and processes. All of them are killed when this is dropped.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::link::Link;
use crate::exit::{Exit, Failure, Outcome};

/// How long a process may take until it listens.
const START_MAX: Duration = Duration::from_secs(60);
/// How often is looked whether it does.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Ports are taken from below those that the system gives to anybody who asks for any port, so that who was killed finds
/// its own free again.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Unread messages of one mailbox: nobody reads before the end.
const MAILBOX_ENTRIES_MAX: u64 = 100_000_000;

/// The realms.
pub(crate) const REALMS: [&str; 2] = ["realm1", "realm2"];
/// Edges of each.
pub(crate) const EDGES: usize = 2;

/// A process that may be killed and started again, and where it listens.
struct Process {
    command: Vec<String>,
    log: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Process {
    fn start(&mut self) -> Outcome {
        let log = || OpenOptions::new().create(true).append(true).open(&self.log);
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .spawn()
            .with_context(|| self.command[0].clone())?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it takes connections.
    async fn listens(&mut self) -> Outcome {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(ended) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                // A cluster may have no leader yet: then an edge gives up, and is started again as a service would be.
                if begin.elapsed() > START_MAX {
                    return Err(self.failure(&format!("ended ({ended})")));
                }
                self.start()?;
            }
            if begin.elapsed() > START_MAX {
                return Err(self.failure("does not listen"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    fn failure(&self, what: &str) -> Failure {
        Failure::new(Exit::Failed, format!("{} {what}: see {}", self.command[0], self.log.display()))
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All of it.
pub(crate) struct Site {
    dir: PathBuf,
    nats: Vec<Process>,
    edges: Vec<Process>,
    links: Vec<Link>,
}

impl Site {
    /// Starts everything. `servers` is how many NATS servers there are, and how many replicas each stream has.
    pub(crate) async fn start(nats_server: &Path, servers: usize, is_sync_always: bool) -> Outcome<Self> {
        let found = Command::new(nats_server).arg("--version").output();
        found.with_context(|| {
            format!("{}: no NATS server; say where one is by --nats-server", nats_server.display())
        })?;
        let dir = std::env::temp_dir().join(format!("antar-ledger-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        let ports = free_ports(servers * 2 + REALMS.len() * EDGES)?;
        let (clients, rest) = ports.split_at(servers);
        let (routes, commands) = rest.split_at(servers);
        let mut site = Self { nats: Vec::new(), edges: Vec::new(), links: Vec::new(), dir };
        for (number, port) in clients.iter().enumerate() {
            let config = site.nats_config(number, *port, routes, is_sync_always)?;
            let command = vec![nats_server.display().to_string(), "-c".into(), config.display().to_string()];
            let mut process = site.process(command, &format!("nats-{number}"), *port);
            process.start()?;
            site.nats.push(process);
        }
        for process in &mut site.nats {
            process.listens().await?;
        }
        for (number, port) in commands.iter().enumerate() {
            site.add_edge(number, *port, servers).await?;
        }
        Ok(site)
    }

    async fn add_edge(&mut self, number: usize, port: u16, replicas: usize) -> Outcome {
        let mut urls = Vec::new();
        for nats in &self.nats {
            let link = Link::start(nats.address).await?;
            urls.push(link.address.to_string());
            self.links.push(link);
        }
        let realm = REALMS[number / EDGES];
        let config = self.dir.join(format!("edge-{number}.toml"));
        let text = format!(
            "[realm]\nid = \"{realm}\"\nkey_file = \"{}\"\n[listen]\ncommand = \"127.0.0.1:{port}\"\n[broker]\nurl = \
             \"nats://{}\"\nreplicas = {replicas}\n[auth]\nregistration = \"open\"\n[limits]\nmailbox_entries_max = \
             {MAILBOX_ENTRIES_MAX}\n",
            self.dir.join(format!("{realm}.nk")).display(),
            urls.join(",")
        );
        fs::write(&config, text)?;
        let antar = std::env::current_exe()?.display().to_string();
        let command = vec![antar, "serve".into(), "--config".into(), config.display().to_string()];
        let mut process = self.process(command, &format!("edge-{number}"), port);
        process.start()?;
        process.listens().await?;
        self.edges.push(process);
        Ok(())
    }

    fn process(&self, command: Vec<String>, name: &str, port: u16) -> Process {
        let log = self.dir.join(format!("{name}.log"));
        Process { command, log, address: local(port), child: None }
    }

    fn nats_config(
        &self,
        number: usize,
        port: u16,
        routes: &[u16],
        is_sync_always: bool,
    ) -> Outcome<PathBuf> {
        let path = self.dir.join(format!("nats-{number}.conf"));
        let sync = if is_sync_always { ", sync_interval: always" } else { "" };
        let mut text = format!(
            "listen: 127.0.0.1:{port}\nserver_name: n{number}\njetstream {{ store_dir: {:?}, max_file: 1T{sync} }}\n",
            self.dir.join(format!("store-{number}"))
        );
        if routes.len() > 1 {
            let others: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
            text += &format!(
                "cluster {{ name: ledger, listen: 127.0.0.1:{}, routes: [{}] }}\n",
                routes[number],
                others.join(", ")
            );
        }
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Where the edges of a realm listen; the same over all their lives.
    pub(crate) fn edges_of(&self, realm: usize) -> Vec<SocketAddr> {
        self.edges[realm * EDGES..(realm + 1) * EDGES].iter().map(|edge| edge.address).collect()
    }

    /// How many NATS servers there are.
    pub(crate) fn servers(&self) -> usize {
        self.nats.len()
    }

    /// Kills an edge without a warning.
    pub(crate) fn kill_edge(&mut self, number: usize) {
        self.edges[number].kill();
    }

    /// Starts a killed edge again. It may wait for the broker, so nobody waits for it.
    pub(crate) async fn start_edge(&mut self, number: usize) -> Outcome {
        self.edges[number].start()?;
        self.edges[number].listens().await
    }

    /// Kills a NATS server without a warning.
    pub(crate) fn kill_nats(&mut self, number: usize) {
        self.nats[number].kill();
    }

    /// Starts a killed NATS server again.
    pub(crate) async fn start_nats(&mut self, number: usize) -> Outcome {
        self.nats[number].start()?;
        self.nats[number].listens().await
    }

    /// Stops a NATS server where it is, or lets it go on.
    pub(crate) fn stop_nats(&self, number: usize, is_stopped: bool) {
        self.nats[number].signal(if is_stopped { Signal::STOP } else { Signal::CONT });
    }

    /// Cuts the lines between the edges of a realm and NATS (up, down), or mends them.
    pub(crate) fn cut(&self, realm: usize, ways: [bool; 2]) {
        let each = self.nats.len() * EDGES;
        for link in &self.links[realm * each..(realm + 1) * each] {
            link.cut(ways);
        }
    }

    /// A file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Ends it, and removes what it has written.
    pub(crate) fn remove(mut self) -> Outcome {
        self.edges.clear();
        self.nats.clear();
        Ok(fs::remove_dir_all(&self.dir)?)
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// So many ports that nobody listens on.
fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    let span = u32::from(PORTS.end - PORTS.start);
    let begin = std::process::id().wrapping_mul(97) % span;
    let ports = (0..span).map(|n| PORTS.start + ((begin + n) % span) as u16);
    let free: Vec<u16> = ports.filter(|port| TcpListener::bind(local(*port)).is_ok()).take(count).collect();
    match free.len() == count {
        true => Ok(free),
        false => Err(Failure::new(Exit::Failed, "there are not enough free ports")),
    }
}
