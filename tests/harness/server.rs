//! A server as a child process with a directory of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::{Conn, Nats, Output, PATIENCE, antar, eventually, nats};

/// Most bytes of a server's log that are shown when a test fails.
const LOG_SHOWN_BYTES: usize = 8 * 1024;

/// How to start a server; kept, so that it can be started again.
#[derive(Clone)]
pub(crate) struct Builder {
    args: Vec<String>,
    env: Vec<(String, String)>,
    realms: usize,
    dir: Option<PathBuf>,
    nats: Option<nats::Options>,
}

/// Stands for the server's directory in what it is started with.
const DIR: &str = "{dir}";
/// Stands for the URL of the server's own NATS server.
const NATS: &str = "{nats}";

impl Builder {
    /// `antar demo`: realm1 and realm2 in one process.
    pub(crate) fn demo() -> Self {
        let args = ["demo", "--port", "0", "--data", "{dir}/data"].map(String::from).to_vec();
        Self { args, env: Vec::new(), realms: 2, dir: None, nats: None }
    }

    /// The same on a NATS server of its own.
    pub(crate) fn demo_on_nats() -> Self {
        let args = ["demo", "--port", "0", "--broker", NATS].map(String::from).to_vec();
        Self { args, env: Vec::new(), realms: 2, dir: None, nats: Some(Nats::options()) }
    }

    /// The same on a broker that is there.
    pub(crate) fn demo_at(broker: &str) -> Self {
        let args = ["demo", "--port", "0", "--broker", broker].map(String::from).to_vec();
        Self { args, env: Vec::new(), realms: 2, dir: None, nats: None }
    }

    /// `antar demo` on a certain port and the next one.
    pub(crate) fn demo_on(port: u16) -> Self {
        let mut demo = Self::demo();
        demo.args[2] = port.to_string();
        demo.args.extend(["--http-port", "0"].map(String::from));
        demo
    }

    /// `antar serve` of realm1 alone, with the demo accounts and open registration.
    pub(crate) fn serve() -> Self {
        Self::serve_with("sqlite:{dir}/antar.db")
    }

    /// The same on a NATS server of its own.
    pub(crate) fn serve_on_nats() -> Self {
        Self { nats: Some(Nats::options()), ..Self::serve_with(NATS) }
    }

    /// One edge of another realm, on a broker of its own.
    pub(crate) fn serve_as(realm: &str, on_nats: bool) -> Self {
        match on_nats {
            true => Self { nats: Some(Nats::options()), ..Self::edge(realm, NATS) },
            false => Self::edge(realm, "sqlite:{dir}/antar.db"),
        }
    }

    /// The same on another broker; `{dir}` is the server's directory.
    pub(crate) fn serve_with(broker: &str) -> Self {
        Self::edge("realm1", broker)
    }

    /// One edge of a realm on a broker that is there, with the demo accounts and open registration.
    pub(crate) fn edge(realm: &str, broker: &str) -> Self {
        let args = ["serve", "--realm", realm, "--listen", "127.0.0.1:0", "--broker", broker];
        let args = args.map(String::from).to_vec();
        Self { args, env: Vec::new(), realms: 1, dir: None, nats: None }
            .env("REALM__DEMO_ACCOUNTS", "true")
            .env("AUTH__REGISTRATION", "open")
    }

    /// Sets `ANTAR__<key>`.
    pub(crate) fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.env.retain(|(known, _)| *known != format!("ANTAR__{key}"));
        self.env.push((format!("ANTAR__{key}"), value.to_string()));
        self
    }

    /// Where a server of one realm takes plain text.
    pub(crate) fn listen(mut self, addr: &str) -> Self {
        for arg in self.args.iter_mut().filter(|arg| *arg == "127.0.0.1:0") {
            addr.clone_into(arg);
        }
        self
    }

    /// Takes clients over TLS too, with this certificate.
    pub(crate) fn tls(self, certificate: &super::Certificate) -> Self {
        self.env("LISTEN__TLS", "127.0.0.1:0")
            .env("TLS__CERTIFICATE_FILE", certificate.file().display())
            .env("TLS__KEY_FILE", certificate.key_file().display())
    }

    /// Sets one of `limits.…`.
    pub(crate) fn limit(self, key: &str, value: u64) -> Self {
        self.env(&format!("LIMITS__{}", key.to_uppercase()), value)
    }

    /// Keeps everything in `dir`, which outlives the server.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub(crate) fn start(self) -> Server {
        let mut server = self.prepare();
        server.start();
        server
    }

    /// Starts it and waits until it has given up: its exit code and what it said.
    #[track_caller]
    pub(crate) fn start_refused(self) -> (Option<i32>, String) {
        let mut server = self.prepare();
        server.spawn();
        let status = server.wait_exit();
        let said = server.log();
        server.child = None;
        (status.code(), said)
    }

    fn prepare(self) -> Server {
        let temp = TempDir::new().expect("a temporary directory");
        let dir = self.dir.clone().unwrap_or_else(|| temp.path().to_owned());
        let nats = self.nats.clone().map(nats::Options::start);
        Server { builder: self, _temp: temp, dir, nats, child: None, realms: Vec::new() }
    }
}

/// A running server. It is killed, and its log shown if the test is failing, when this is dropped.
pub(crate) struct Server {
    builder: Builder,
    _temp: TempDir,
    dir: PathBuf,
    nats: Option<Nats>,
    child: Option<Child>,
    realms: Vec<Listening>,
}

impl Server {
    /// The two realms of the demo.
    #[track_caller]
    pub(crate) fn demo() -> Self {
        Builder::demo().start()
    }

    /// Its directory: `data` (of a demo) or `antar.db`, and `server.log`.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The `--data` of a demo.
    pub(crate) fn data(&self) -> String {
        self.dir.join("data").to_str().expect("a temporary path is UTF-8").to_owned()
    }

    /// What an operator says to mean this server: `--data DIR` or `--broker URL`.
    pub(crate) fn operator(&self) -> [String; 2] {
        let at = self.builder.args.iter().position(|arg| arg == "--data" || arg == "--broker");
        let at = at.expect("a server has a broker");
        [0, 1].map(|next| self.fill(&self.builder.args[at + next]))
    }

    /// Runs `antar` for an operator of this server and waits until it has done what was asked.
    #[track_caller]
    pub(crate) fn operate(&self, command: &[&str]) -> Output {
        let operator = self.operator();
        antar(command.iter().copied().chain(operator.iter().map(String::as_str))).exits(0)
    }

    /// An argument as the program gets it.
    fn fill(&self, arg: &str) -> String {
        let dir = self.dir.to_str().expect("a temporary path is UTF-8");
        let url = self.nats.as_ref().map(Nats::url).unwrap_or_default();
        arg.replace(DIR, dir).replace(NATS, &url)
    }

    #[track_caller]
    fn listening(&self, realm: &str) -> &Listening {
        let known = self.realms.iter().find(|known| known.realm == realm);
        known.unwrap_or_else(|| panic!("{realm} does not listen: {:?}", self.realms))
    }

    /// Where a realm listens.
    #[track_caller]
    pub(crate) fn addr(&self, realm: &str) -> SocketAddr {
        self.listening(realm).command
    }

    /// Where a realm answers with its health, if anywhere.
    #[track_caller]
    pub(crate) fn http(&self, realm: &str) -> Option<SocketAddr> {
        self.listening(realm).http
    }

    /// Where a realm listens for TLS.
    #[track_caller]
    pub(crate) fn tls(&self, realm: &str) -> SocketAddr {
        self.listening(realm).tls.expect("it was told to")
    }

    /// Connects to a realm.
    #[track_caller]
    pub(crate) fn connect(&self, realm: &str) -> Conn {
        Conn::open(self.addr(realm))
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// All that it wrote to standard error, over all its lives.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A line of `/proc/PID/status`, in KiB.
    #[track_caller]
    pub(crate) fn memory_kib(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(key)).expect("the kernel tells");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of KiB")
    }

    /// How many files and sockets it has open.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn spawn(&mut self) -> std::process::ChildStdout {
        let args = self.builder.args.iter().map(|arg| self.fill(arg));
        let log: File =
            OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_antar"))
            .args(args)
            // What has no absolute path is made here and nowhere in the repository.
            .current_dir(&self.dir)
            .envs(self.builder.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("it was piped");
        self.child = Some(child);
        stdout
    }

    /// Starts it (again) and waits until every realm listens.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.realms.clear();
        let stdout = self.spawn();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&seen);
        // Reads to the end, so that the server never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.lock().expect("no holder panics").push(line);
            }
        });
        let wanted = self.builder.realms;
        let realms = eventually("the server listens", || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("the server ended with {status} before it listened: {}", self.log());
            }
            let lines = seen.lock().expect("no holder panics");
            let realms: Vec<_> = lines.iter().filter_map(|line| listening(line)).collect();
            (realms.len() == wanted).then_some(realms)
        });
        self.realms = realms;
    }

    /// Starts a killed server of one realm again, on the address that it had.
    #[track_caller]
    pub(crate) fn start_where_it_was(&mut self) {
        let addr = self.realms.first().expect("it has listened").command.to_string();
        for arg in self.builder.args.iter_mut().filter(|arg| *arg == "127.0.0.1:0") {
            arg.clone_from(&addr);
        }
        self.start();
    }

    /// Ends it without a warning.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM without waiting for anything.
    #[track_caller]
    pub(crate) fn send_sigterm(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by name.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        eventually("the server ends", || child.try_wait().expect("it is our child"))
    }

    /// Asks it to end, waits for that, and says that the exit code is 0.
    #[track_caller]
    pub(crate) fn sigterm(&mut self) {
        self.send_sigterm();
        let status = self.wait_exit();
        self.child = None;
        assert_eq!(status.code(), Some(0), "after SIGTERM: {}", self.log());
    }

    /// Ends it in good order and starts it again on the same data.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.sigterm();
        self.start();
    }

    /// Kills it and starts it again on the same data.
    #[track_caller]
    pub(crate) fn crash(&mut self) {
        self.kill9();
        self.start();
    }

    /// Says that it still serves: a login, a send, an inbox.
    #[track_caller]
    pub(crate) fn assert_serves(&self) {
        let mut messi = super::Chat::login(self, "realm1", "messi");
        let sent = super::ok(messi.cmd("send messi masih hidup"));
        let id = sent["message_id"].clone();
        assert!(messi.inbox().iter().any(|message| message["id"] == id), "the message was lost");
        let mut conn = self.connect("realm1");
        super::refused(conn.ask(&format!("logout {}", "no-such-token")), "not-authorized");
        super::ok(messi.cmd("logout"));
    }

    /// Where the file with this key in its name is, below the server's directory.
    #[track_caller]
    pub(crate) fn database(&self) -> PathBuf {
        let mut folders = vec![self.dir.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("the directory is there").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if is_sqlite(&path) {
                    return path;
                }
            }
        }
        panic!("no database below {}", self.dir.display());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(LOG_SHOWN_BYTES);
            let from = (from..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
            eprintln!(
                "--- the server's log:\n{}\n--- (waited up to {PATIENCE:?} for each thing)",
                &log[from..]
            );
        }
    }
}

/// What a server says on standard output: `listening realm=realm1 command=127.0.0.1:4001 http=…`
#[derive(Debug)]
struct Listening {
    realm: String,
    command: SocketAddr,
    http: Option<SocketAddr>,
    tls: Option<SocketAddr>,
}

fn listening(line: &str) -> Option<Listening> {
    let rest = line.strip_prefix("listening ")?;
    let field = |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let realm = field("realm")?.to_owned();
    let tls = field("tls").and_then(|addr| addr.parse().ok());
    Some(Listening {
        realm,
        command: field("command")?.parse().ok()?,
        http: field("http")?.parse().ok(),
        tls,
    })
}

fn is_sqlite(path: &Path) -> bool {
    let mut head = [0; 15];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && &head == b"SQLite format 3"
}
