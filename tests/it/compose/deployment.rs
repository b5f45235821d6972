//! `deploy/compose.yaml` as it is started, disturbed and taken down again, and what clients of it may expect: a balancer
//! may drop them, an edge may be gone, and for a moment nothing may be stored.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::engine::{ENGINE_MAX, Image, compose_command, docker, root, run};
use crate::harness::{Chat, Conn, OneFrame, PASSWORD, eventually_in, free_port};

/// How long sending may be impossible after a server was killed: an election, a new connection, some tries.
const GAP_MAX: Duration = Duration::from_secs(60);
/// How long an edge may be silent before a client tries another one.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A profile of compose.yaml, and its edges.
pub(super) struct Profile {
    name: &'static str,
    edges: &'static [&'static str],
}

/// Three NATS servers, two edges for each realm.
pub(super) const CLUSTER: Profile =
    Profile { name: "cluster", edges: &["realm1-edge1", "realm1-edge2", "realm2-edge1", "realm2-edge2"] };
/// One of each.
pub(super) const SMALL: Profile = Profile { name: "small", edges: &["realm1-small", "realm2-small"] };

/// Everything that compose has started, under a name of its own. Taken down when this is dropped.
pub(super) struct Deployment {
    compose: Vec<&'static str>,
    profile: Profile,
    project: String,
    ports: [u16; 2],
    image: Arc<Image>,
}

impl Deployment {
    /// Starts everything of a profile, with the demo accounts, from images that are built before. `None` where there is
    /// no engine; but under CI there must be one.
    #[track_caller]
    pub(super) fn start(profile: Profile) -> Option<Self> {
        let compose = compose_command()?;
        let project = format!("antar-it-{}-{}", std::process::id(), profile.name);
        let ports = [free_port(), free_port()];
        let deployment = Self { compose, profile, project, ports, image: Image::shared() };
        deployment.up();
        Some(deployment)
    }

    fn compose(&self, args: &[&str]) -> Result<String, String> {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]).arg("--file").arg(root().join("deploy/compose.yaml"));
        command
            .args(["--project-name", &self.project, "--profile", self.profile.name, "--profile", "demo"])
            .args(args);
        command.env("ANTAR_IMAGE", &self.image.0);
        command.env("REALM1_ADDRESS", address(self.ports[0])).env("REALM2_ADDRESS", address(self.ports[1]));
        run(&mut command, ENGINE_MAX)
    }

    #[track_caller]
    fn up(&self) {
        self.compose(&["up", "--detach", "--no-build"]).unwrap_or_else(|why| panic!("{why}"));
        for edge in self.profile.edges {
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
    pub(super) fn kill(&self, service: &str) {
        docker(&["kill", &self.container(service)]).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Starts a service again that was killed.
    #[track_caller]
    pub(super) fn start_again(&self, service: &str) {
        docker(&["start", &self.container(service)]).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Takes the edges of a realm off their way to NATS, or puts them back (`connect`, `disconnect`).
    #[track_caller]
    pub(super) fn link(&self, change: &str, realm: &str, link: &str) {
        for edge in self.edges_of(realm) {
            let network = format!("{}_{link}", self.project);
            docker(&["network", change, &network, &self.container(edge)])
                .unwrap_or_else(|why| panic!("{why}"));
        }
    }

    fn edges_of(&self, realm: &str) -> impl Iterator<Item = &'static str> {
        self.profile.edges.iter().copied().filter(move |edge| edge.starts_with(realm))
    }

    /// The one of two edges of `realm` that delivers what comes from `peer`, as soon as the other one has said that it
    /// stands by. Something has to come meanwhile.
    #[track_caller]
    pub(super) fn deliverer(&self, realm: &str, peer: &str) -> &'static str {
        let inbox = format!("realm.{realm}.inbox.{peer}");
        let stood_by_at = |edge: &str| {
            let logs = self.compose(&["logs", "--no-color", edge]).unwrap_or_else(|why| panic!("{why}"));
            let lines = logs.lines().filter_map(|line| line.get(line.find('{')?..)).map(str::to_owned);
            let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            let ours = lines.filter(|line| {
                let message = line["message"].as_str().unwrap_or_default();
                line["inbox"] == inbox && message.contains("this one stands by")
            });
            ours.filter_map(|line| line["timestamp"].as_str().map(str::to_owned)).max()
        };
        eventually_in(GAP_MAX, &format!("an edge of {realm} stands by"), || {
            let edges: Vec<_> = self.edges_of(realm).map(|edge| (stood_by_at(edge), edge)).collect();
            let (first, last) = (edges.iter().min()?, edges.iter().max()?);
            last.0.is_some().then_some(first.1)
        })
    }

    fn addr(&self, realm: &str) -> SocketAddr {
        let at = ["realm1", "realm2"].iter().position(|known| *known == realm).expect("one of the two");
        (Ipv4Addr::LOCALHOST, self.ports[at]).into()
    }

    /// A connection to a realm by its balancer, which may drop those that it has no edge for.
    pub(super) fn connect(&self, realm: &str) -> Conn {
        eventually_in(GAP_MAX, &format!("{realm} takes a connection"), || {
            let mut conn = Conn::try_open(self.addr(realm)).ok()?;
            conn.answers().then_some(conn)
        })
    }

    /// Logs in a demo account. While a leader is elected nobody can.
    #[track_caller]
    pub(super) fn login(&self, realm: &str, user: &str) -> Chat {
        eventually_in(GAP_MAX, &format!("{user} logs in"), || {
            let mut conn = self.connect(realm);
            let reply = conn.ask(&format!("auth {user} {PASSWORD}"));
            let token = reply["tokenid"].as_str();
            assert!(token.is_some() || reply["code"] == "unavailable", "{reply}");
            Some(Chat::resumed(conn, token?))
        })
    }

    /// Sends until that is answered OK. The tag makes a repeated send the same one.
    #[track_caller]
    pub(super) fn send(&self, chat: &mut Chat, realm: &str, command: &str) -> Value {
        self.ask(chat, realm, &format!("@{} {command}", uuid::Uuid::now_v7().simple()))
    }

    /// Asks until that is answered OK, over as many connections as it takes.
    #[track_caller]
    pub(super) fn ask(&self, chat: &mut Chat, realm: &str, command: &str) -> Value {
        let line = chat.line(command);
        eventually_in(GAP_MAX, &format!("OK to {command}"), || {
            let sent = chat.try_send_raw(format!("{line}\r\n"));
            let reply = sent.ok().map(|()| chat.next_frame(SILENCE_MAX));
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

    /// Waits until a sender hears that a message is in the mailboxes it was sent to.
    #[track_caller]
    pub(super) fn is_delivered(&self, chat: &mut Chat, realm: &str, id: &str) {
        eventually_in(GAP_MAX, &format!("{id} is delivered"), || {
            let status = self.ask(chat, realm, &format!("status {id}"));
            (status["state"] == "delivered").then_some(())
        });
    }

    /// All that is unread, by `inbox` or `getrealminbox REALM`; senders are mixed only if there are several. On any edge,
    /// but not while edges are killed: what was read and lost on its way is not shown again.
    #[track_caller]
    pub(super) fn unread(&self, chat: &mut Chat, realm: &str, command: &str) -> Vec<Value> {
        chat.move_to(self.connect(realm));
        let mut all = Vec::new();
        loop {
            let reply = self.ask(chat, realm, command);
            let lists = match &reply["messages"] {
                Value::Object(senders) => senders.values().collect(),
                list => vec![list],
            };
            all.extend(
                lists.into_iter().flat_map(|list| list.as_array().expect("a list of messages").clone()),
            );
            if reply["more"] != true {
                return all;
            }
        }
    }

    /// Stops and removes everything, and looks for what is left.
    #[track_caller]
    pub(super) fn leave_nothing(self) {
        self.down().unwrap_or_else(|why| panic!("{why}"));
        let label = format!("label=com.docker.compose.project={}", self.project);
        for kind in ["container", "network", "volume"] {
            let all: &[&str] = if kind == "container" { &["--all"] } else { &[] };
            let left = docker(&[&[kind, "ls", "--quiet", "--filter", &label], all].concat());
            assert_eq!(left.as_deref(), Ok(""), "a {kind} is left");
        }
    }

    fn down(&self) -> Result<(), String> {
        self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "1"]).map(drop)
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
