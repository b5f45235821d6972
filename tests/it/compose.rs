//! `deploy/compose.yaml`, for real: images are built, three NATS servers, four edges and two balancers are started on
//! networks of their own, talked to, cut off, killed, and taken down again.
//!
//! Needs a Docker engine on this machine and compose. The base images are real ones if they are there, and stand-ins of
//! `deploy/images.sh` otherwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Chat, Conn, OneFrame, PASSWORD, Transcript, eventually, eventually_in, free_port, nats_server, ok, skip,
    texts,
};

/// How long images may take, when a Debian root has to be made first.
const IMAGES_MAX: Duration = Duration::from_secs(300);
/// How long the engine may take for anything else.
const ENGINE_MAX: Duration = Duration::from_secs(90);
/// How long sending may be impossible after a server was killed: an election, a new connection, some tries.
const GAP_MAX: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    // This test is built as part of services/antar.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// Runs a command to its end: what it wrote, or what it complained about.
fn run(command: &mut Command, patience: Duration) -> Result<String, String> {
    let shown = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| format!("{shown}: {error}"))?;
    let reader = std::thread::spawn(move || child.wait_with_output());
    eventually_in(patience, &shown, || reader.is_finished().then_some(()));
    let output = reader.join().expect("the reader does not panic").map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{shown}: {}\n{}", text(&output.stdout), text(&output.stderr))),
    }
}

fn docker(args: &[&str]) -> Result<String, String> {
    run(Command::new("docker").args(args), ENGINE_MAX)
}

/// The words that run compose here: the plugin, or the program of its own.
fn compose_command() -> Result<Vec<&'static str>, String> {
    docker(&["version", "--format", "{{.Server.Version}}"])?;
    let known = [vec!["docker", "compose"], vec!["docker-compose"]];
    let works = |words: &Vec<&str>| {
        run(Command::new(words[0]).args(&words[1..]).arg("version"), ENGINE_MAX).map(drop).is_ok()
    };
    known.into_iter().find(works).ok_or_else(|| "there is an engine, but neither form of compose".into())
}

/// Everything that compose has started, under a name of its own. Taken down when this is dropped.
struct Deployment {
    compose: Vec<&'static str>,
    project: String,
    image: String,
    ports: [u16; 2],
}

impl Deployment {
    /// Builds the image of Antar and what is missing below it. `None` where there is no engine; but under CI there must
    /// be one.
    #[track_caller]
    fn new() -> Option<Self> {
        let compose = match compose_command() {
            Ok(compose) => compose,
            Err(reason) => {
                skip(&format!("no containers: {reason}"));
                return None;
            }
        };
        let project = format!("antar-it-{}", std::process::id());
        let image = format!("{project}:it");
        let deployment = Self { compose, project, image, ports: [free_port(), free_port()] };
        let images = |args: &[&str]| {
            let mut command = Command::new(root().join("deploy/images.sh"));
            // A server that is found by its name only is found by the script too.
            let named = Some(nats_server()).filter(|path| path.is_absolute());
            command.args(args).envs(named.map(|path| ("NATS_SERVER", path)));
            run(&mut command, IMAGES_MAX).unwrap_or_else(|why| panic!("{why}"))
        };
        images(&["stand-ins"]);
        images(&["antar", env!("CARGO_BIN_EXE_antar"), &deployment.image]);
        Some(deployment)
    }

    fn compose(&self, args: &[&str]) -> Result<String, String> {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]).arg("--file").arg(root().join("deploy/compose.yaml"));
        command
            .args(["--project-name", &self.project, "--profile", "cluster", "--profile", "demo"])
            .args(args);
        command.env("ANTAR_IMAGE", &self.image);
        command.env("REALM1_ADDRESS", address(self.ports[0])).env("REALM2_ADDRESS", address(self.ports[1]));
        run(&mut command, ENGINE_MAX)
    }

    /// Starts everything.
    #[track_caller]
    fn up(&self) {
        self.compose(&["up", "--detach", "--no-build"]).unwrap_or_else(|why| panic!("{why}"));
        for edge in ["realm1-edge1", "realm1-edge2", "realm2-edge1", "realm2-edge2"] {
            let id = self.container(edge);
            eventually_in(ENGINE_MAX, &format!("{edge} is healthy"), || {
                let health = docker(&["inspect", "--format", "{{.State.Health.Status}}", &id]);
                (health.as_deref() == Ok("healthy")).then_some(())
            });
        }
        for accounts in ["realm1-demo", "realm2-demo"] {
            let id = self.container(accounts);
            eventually_in(ENGINE_MAX, &format!("{accounts} has ended"), || {
                let state = docker(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", &id]);
                (state.as_deref() == Ok("exited 0")).then_some(())
            });
        }
    }

    /// The container of a service.
    #[track_caller]
    fn container(&self, service: &str) -> String {
        let id = self.compose(&["ps", "--all", "-q", service]).unwrap_or_else(|why| panic!("{why}"));
        assert!(!id.is_empty(), "{service} was not started");
        id
    }

    /// Ends a service without a warning.
    #[track_caller]
    fn kill(&self, service: &str) {
        docker(&["kill", &self.container(service)]).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Takes the edges of a realm off their way to NATS, or puts them back (`connect`, `disconnect`).
    #[track_caller]
    fn link(&self, change: &str, realm: &str, link: &str) {
        for edge in ["edge1", "edge2"] {
            let id = self.container(&format!("{realm}-{edge}"));
            let network = format!("{}_{link}", self.project);
            docker(&["network", change, &network, &id]).unwrap_or_else(|why| panic!("{why}"));
        }
    }

    fn addr(&self, realm: &str) -> SocketAddr {
        let at = ["realm1", "realm2"].iter().position(|known| *known == realm).expect("one of the two");
        (Ipv4Addr::LOCALHOST, self.ports[at]).into()
    }

    /// A connection to a realm by its balancer, which may drop those that it has no edge for.
    fn connect(&self, realm: &str) -> Conn {
        eventually_in(GAP_MAX, &format!("{realm} takes a connection"), || {
            let mut conn = Conn::try_open(self.addr(realm)).ok()?;
            conn.answers().then_some(conn)
        })
    }

    /// Logs in a demo account. While a leader is elected nobody can.
    #[track_caller]
    fn login(&self, realm: &str, user: &str) -> Chat {
        eventually_in(GAP_MAX, &format!("{user} logs in"), || {
            let mut conn = self.connect(realm);
            let reply = conn.ask(&format!("auth {user} {PASSWORD}"));
            let token = reply["tokenid"].as_str();
            assert!(token.is_some() || reply["code"] == "unavailable", "{reply}");
            Some(Chat::resumed(conn, token?))
        })
    }

    /// Reads an inbox until it has given `count` messages, over connections to any edge.
    #[track_caller]
    fn inbox_of(&self, chat: &mut Chat, realm: &str, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        eventually_in(GAP_MAX, &format!("{count} messages"), || {
            chat.move_to(self.connect(realm));
            let reply = chat.cmd("inbox");
            assert!(reply["status"] == "OK" || reply["code"] == "unavailable", "{reply}");
            let senders = reply["messages"].as_object().into_iter().flat_map(|senders| senders.values());
            all.extend(senders.flat_map(|list| list.as_array().expect("a list of messages").clone()));
            (all.len() >= count).then_some(())
        });
        all
    }

    /// Sends until that is answered OK, over as many connections as it takes. The tag makes a repeated send the same one.
    #[track_caller]
    fn send(&self, chat: &mut Chat, realm: &str, command: &str) -> Value {
        let line = chat.line(&format!("@{} {command}", uuid::Uuid::now_v7().simple()));
        eventually_in(GAP_MAX, &format!("OK to {command}"), || {
            let sent = chat.try_send_raw(format!("{line}\r\n"));
            let reply = sent.ok().map(|()| chat.next_frame(Duration::from_secs(15)));
            let Some(OneFrame::Frame(frame)) = reply else {
                chat.move_to(self.connect(realm));
                return None;
            };
            let reply: Value = serde_json::from_slice(&frame).expect("a reply is JSON");
            if reply["status"] == "OK" {
                return Some(reply);
            }
            assert_eq!(reply["code"], "unavailable", "{reply}");
            None
        })
    }

    /// Stops and removes everything, the image too.
    fn down(&self) -> Result<(), String> {
        self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "1"])?;
        docker(&["image", "rm", "--force", &self.image])?;
        Ok(())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose(&["logs", "--no-color", "--tail", "25"]);
            eprintln!("--- what the containers said:\n{}", logs.unwrap_or_else(|why| why));
        }
        if let Err(why) = self.down() {
            eprintln!("not everything could be taken down: {why}");
        }
    }
}

#[test]
fn two_realms_in_containers_chat_through_cuts_and_kills() {
    let Some(deployment) = Deployment::new() else { return };
    deployment.up();
    walk(&deployment);
    a_realm_that_is_cut_off_says_so_and_comes_back(&deployment);
    sends_go_on_without_a_nats_server_and_an_edge(&deployment);
    deployment.down().unwrap_or_else(|why| panic!("{why}"));
    let label = format!("label=com.docker.compose.project={}", deployment.project);
    for kind in ["container", "network", "volume"] {
        let all: &[&str] = if kind == "container" { &["--all"] } else { &[] };
        let left = docker(&[&[kind, "ls", "--quiet", "--filter", &label], all].concat());
        assert_eq!(left.as_deref(), Ok(""), "a {kind} is left");
    }
}

/// The older report's walk, through the balancer: every connection may be to another edge.
fn walk(deployment: &Deployment) {
    let name = "reports-walk.txt";
    let path = root().join("proto-docs/transcripts").join(name);
    let walk = Transcript::parse(name, &std::fs::read_to_string(path).expect("the transcript is there"));
    walk.run_over(&|realm| deployment.connect(realm));
}

fn a_realm_that_is_cut_off_says_so_and_comes_back(deployment: &Deployment) {
    let mut messi = deployment.login("realm1", "messi");
    let mut henderson = deployment.login("realm1", "henderson");
    let mut lineker = deployment.login("realm2", "lineker");
    deployment.link("disconnect", "realm2", "link2");
    // Those who are there are told, and keep their connections.
    eventually("an edge without a broker says so", || {
        (lineker.cmd("inbox")["code"] == "unavailable").then_some(())
    });
    // The realm that is not cut off does not notice.
    ok(messi.cmd("send henderson di sini semua baik"));
    assert_eq!(texts(&henderson.inbox_of(1)), ["di sini semua baik"]);
    deployment.link("connect", "realm2", "link2");
    deployment.send(&mut lineker, "realm2", "send lineker kembali");
    assert_eq!(texts(&deployment.inbox_of(&mut lineker, "realm2", 1)), ["kembali"]);
}

fn sends_go_on_without_a_nats_server_and_an_edge(deployment: &Deployment) {
    let mut messi = deployment.login("realm1", "messi");
    let token = deployment.login("realm1", "henderson").token;
    let mut wanted = Vec::new();
    for (killed, rounds) in [(None, 3), (Some("nats1"), 5), (Some("realm1-edge1"), 5)] {
        if let Some(service) = killed {
            deployment.kill(service);
        }
        for n in 0..rounds {
            let message = format!("{n} tanpa {}", killed.unwrap_or("apa-apa"));
            deployment.send(&mut messi, "realm1", &format!("send henderson {message}"));
            wanted.push(message);
        }
    }
    // Any edge takes any token.
    let mut henderson = Chat::resumed(deployment.connect("realm1"), &token);
    let read = deployment.inbox_of(&mut henderson, "realm1", wanted.len());
    assert_eq!(texts(&read), wanted, "each once, in order");
}
