//! NATS servers as child processes: found or installed, started on free ports with directories of their own, killed,
//! stopped and started again.
//!
//! Stands on nothing but the standard library, so that the tests of any crate can include it:
//! `#[path = "../../../tests/harness/nats.rs"] mod nats;`. Must not know: Antar.

#![allow(dead_code, reason = "every test binary that includes this uses some of it")]

#[path = "nats/cluster.rs"]
pub(crate) mod cluster;
#[path = "nats/install.rs"]
mod install;
#[path = "wait.rs"]
pub(crate) mod wait;
#[path = "nats/wire.rs"]
pub(crate) mod wire;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use install::nats_server;
use wait::eventually;
use wire::Wire;

/// Most bytes of a server's log that are shown when it does not start.
const LOG_SHOWN_BYTES: usize = 4 * 1024;

/// Ports are taken from below those that the system gives to anybody who asks for any port. So a server that was killed
/// finds its port free when it starts again, and no client of it ever connects to itself.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How often a server is started on other ports, when somebody was faster.
const PORT_TRIES: usize = 20;

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    sync_always: bool,
    max_payload_bytes: Option<u64>,
    config: String,
    cluster: Option<Routes>,
}

/// What a server of a cluster has to know.
#[derive(Clone, Debug)]
struct Routes {
    name: String,
    own: u16,
    all: Vec<u16>,
}

impl Options {
    /// JetStream writes to the disk before it acknowledges.
    pub(crate) fn sync_always(mut self) -> Self {
        self.sync_always = true;
        self
    }

    /// The largest message that it takes.
    pub(crate) fn max_payload(mut self, bytes: u64) -> Self {
        self.max_payload_bytes = Some(bytes);
        self
    }

    /// More of its configuration file, for instance accounts and users. Everything but `listen`, `http`, `server_name`,
    /// `jetstream`, `cluster` and `max_payload`.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.config += text;
        self.config.push('\n');
        self
    }

    /// Starts it and waits until it takes connections and JetStream is ready.
    #[track_caller]
    pub(crate) fn start(self) -> Nats {
        let mut nats =
            Nats { dir: Dir::new(), ports: free_ports(), name: name(), options: self, child: None };
        for _ in 0..PORT_TRIES {
            match nats.try_start() {
                Ok(()) => return nats,
                Err(Refused::PortTaken) => nats.ports = free_ports(),
                Err(Refused::Other) => break,
            }
        }
        panic!("a NATS server does not start: {}", nats.log());
    }
}

/// The ports of one server.
#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    http: u16,
}

/// Why a server did not start.
enum Refused {
    PortTaken,
    Other,
}

/// A NATS server with JetStream. It is killed and its directory removed when this is dropped.
pub(crate) struct Nats {
    // Killed before its directory is removed: `drop` runs before the fields go.
    dir: Dir,
    ports: Ports,
    name: String,
    options: Options,
    child: Option<Child>,
}

impl Nats {
    /// One with JetStream and without accounts.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Options::default().start()
    }

    /// What to set before it starts.
    pub(crate) fn options() -> Options {
        Options::default()
    }

    /// Where it takes clients; the same over all its lives.
    pub(crate) fn addr(&self) -> SocketAddr {
        local(self.ports.client)
    }

    /// The same as clients are told it.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.addr())
    }

    /// The same with a user and a password.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@{}", self.addr())
    }

    /// Where it answers questions about itself over HTTP.
    pub(crate) fn http(&self) -> SocketAddr {
        local(self.ports.http)
    }

    /// Its name, which no other server has.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where JetStream keeps its files.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// A connection that speaks the protocol itself.
    #[track_caller]
    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.addr()).expect("the server takes connections")
    }

    /// The same as a certain user.
    #[track_caller]
    pub(crate) fn wire_as(&self, user: &str, password: &str) -> Wire {
        Wire::connect_as(self.addr(), user, password).expect("the server takes connections")
    }

    /// All that it logged, over all its lives.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let from = log.len().saturating_sub(LOG_SHOWN_BYTES);
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    /// Ends it without a warning (`kill -9`).
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a killed server again, on the same port and with what it had stored.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        assert!(self.try_start().is_ok(), "it does not start again: {}", self.log());
    }

    /// Kills it and starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Ends it in good order.
    #[track_caller]
    pub(crate) fn terminate(&mut self) {
        signal(self.pid(), "TERM");
        let child = self.child.as_mut().expect("it runs");
        eventually("the NATS server ends", || child.try_wait().expect("it is our child"));
        self.child = None;
    }

    /// Stops it where it is: its sockets stay open and nobody answers on them.
    #[track_caller]
    pub(crate) fn stop(&self) {
        signal(self.pid(), "STOP");
    }

    /// Lets a stopped server go on.
    #[track_caller]
    pub(crate) fn cont(&self) {
        signal(self.pid(), "CONT");
    }

    /// Reads its configuration again, of which this is the new `config`.
    #[track_caller]
    pub(crate) fn reload(&mut self, config: &str) {
        config.clone_into(&mut self.options.config);
        self.write_config();
        signal(self.pid(), "HUP");
    }

    /// What it answers to a GET over HTTP, for instance `/healthz` or `/jsz`: the code and the body.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        let code = said.split(' ').nth(1)?.parse().ok()?;
        Some((code, said.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// Whether everything that it stores is up to date.
    pub(crate) fn is_healthy(&self) -> bool {
        self.get("/healthz").is_some_and(|(code, _)| code == 200)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("nats.log")
    }

    fn write_config(&self) -> PathBuf {
        let Self { ports, name, options, .. } = self;
        let mut text = format!(
            "listen: 127.0.0.1:{}\nhttp: 127.0.0.1:{}\nserver_name: {name}\n\
             jetstream {{ store_dir: {:?}, max_mem: 1G, max_file: 100G{} }}\n",
            ports.client,
            ports.http,
            self.store(),
            if options.sync_always { ", sync_interval: always" } else { "" },
        );
        if let Some(bytes) = options.max_payload_bytes {
            text += &format!("max_payload: {bytes}\n");
        }
        if let Some(Routes { name, own, all }) = &options.cluster {
            let routes: Vec<_> = all.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
            text += &format!(
                "cluster {{ name: {name}, listen: 127.0.0.1:{own}, routes: [{}] }}\n",
                routes.join(", ")
            );
        }
        text += &options.config;
        let path = self.dir.path().join("nats.conf");
        fs::write(&path, text).expect("a temporary file can be written");
        path
    }

    fn try_start(&mut self) -> Result<(), Refused> {
        self.spawn();
        let child = self.child.as_mut().expect("it was just started");
        let (addr, name) = (local(self.ports.client), self.name.clone());
        let ended = eventually("a NATS server takes connections", || {
            if child.try_wait().expect("it is our child").is_some() {
                return Some(true);
            }
            // The name says that it is this server and no other that was faster.
            Wire::hello(addr).is_ok_and(|info| info.contains(&format!("\"{name}\""))).then_some(false)
        });
        if !ended {
            return Ok(());
        }
        self.child = None;
        let taken = self.log().contains("address already in use");
        Err(if taken { Refused::PortTaken } else { Refused::Other })
    }

    fn spawn(&mut self) {
        let config = self.write_config();
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let child = Command::new(nats_server())
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the NATS server starts");
        self.child = Some(child);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory of its own, gone with this.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(name());
        fs::create_dir(&dir).expect("a temporary directory");
        Self(dir)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[track_caller]
fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
}

/// A number that is another one at every call, in this process and most likely in any other.
fn unlike_any() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mixed = u64::try_from(now & u128::from(u64::MAX)).expect("it was cut to 64 bits");
    // SplitMix64, so that calls close to one another differ everywhere.
    let mut mixed = mixed ^ (u64::from(std::process::id()) << 40) ^ call.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn name() -> String {
    format!("antar-nats-{}-{:016x}", std::process::id(), unlike_any())
}

/// A port that nobody listens on at this moment.
pub(crate) fn free_port() -> u16 {
    let span = u64::from(PORTS.end - PORTS.start);
    for _ in 0..1000 {
        let port = PORTS.start + u16::try_from(unlike_any() % span).expect("the span is one of ports");
        if TcpListener::bind(local(port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

fn free_ports() -> Ports {
    Ports { client: free_port(), http: free_port() }
}
