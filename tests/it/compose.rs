//! `deploy/compose.yaml`, for real: images are built, NATS servers, edges and balancers are started on networks of their
//! own, talked to, cut off, killed, and taken down again.
//!
//! Needs a Docker engine on this machine and compose. The base images are real ones if they are there, and stand-ins of
//! `deploy/images.sh` otherwise.

mod deployment;
mod engine;
mod image;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Chat, Transcript, eventually, ok, text, texts};
use deployment::{CLUSTER, Deployment, SMALL};
use engine::root;

/// How many messages are sent to a realm that is cut off.
const INTO_THE_CUT: usize = 20;
/// How many more everybody sends after each kill.
const AFTER_A_KILL: usize = 10;

#[test]
fn two_realms_in_containers_chat_through_cuts_and_kills() {
    let Some(deployment) = Deployment::start(CLUSTER) else { return };
    // Through the balancers: every connection may be to another edge.
    hold(&deployment, "reports-walk.txt");
    hold(&deployment, "reports-realms.txt");
    a_realm_that_is_cut_off_says_so_and_gets_its_messages_afterwards(&deployment);
    sends_go_on_without_a_nats_server_and_an_edge_of_each_realm(&deployment);
    deployment.leave_nothing();
}

#[test]
fn two_realms_on_one_server_in_containers_chat_and_outlive_its_kill() {
    let Some(deployment) = Deployment::start(SMALL) else { return };
    hold(&deployment, "realms.txt");
    let mut messi = deployment.login("realm1", "messi");
    let mut lineker = deployment.login("realm2", "lineker");
    deployment.send(&mut messi, "realm1", "sendgroup messi,lineker@realm2 sebelum");
    deployment.kill("nats");
    eventually("edges without a server say so", || {
        (messi.cmd("send messi tidak")["code"] == "unavailable").then_some(())
    });
    deployment.start_again("nats");
    let last = deployment.send(&mut messi, "realm1", "sendgroup messi,lineker@realm2 sesudah");
    deployment.is_delivered(&mut messi, "realm1", text(&last, "message_id"));
    let read = deployment.unread(&mut lineker, "realm2", "getrealminbox realm1");
    // The transcript has left a file there.
    let read: Vec<&str> = texts(&read).into_iter().filter(|text| !text.starts_with("[file]")).collect();
    assert_eq!(read, ["sebelum", "sesudah"]);
    deployment.leave_nothing();
}

/// Holds the conversation of a transcript.
fn hold(deployment: &Deployment, name: &str) {
    let path = root().join("proto-docs/transcripts").join(name);
    let transcript = Transcript::parse(name, &std::fs::read_to_string(path).expect("it is there"));
    transcript.run_over(&|realm| deployment.connect(realm));
}

fn a_realm_that_is_cut_off_says_so_and_gets_its_messages_afterwards(deployment: &Deployment) {
    let mut messi = deployment.login("realm1", "messi");
    let mut henderson = deployment.login("realm1", "henderson");
    let mut lineker = deployment.login("realm2", "lineker");
    deployment.link("disconnect", "realm2", "link2");
    // Those who are there are told, and keep their connections.
    eventually("an edge without a broker says so", || {
        (lineker.cmd("inbox")["code"] == "unavailable").then_some(())
    });
    // The realm that is not cut off does not notice, whoever it sends to.
    ok(messi.cmd("send henderson di sini semua baik"));
    assert_eq!(texts(&henderson.inbox_of(1)), ["di sini semua baik"]);
    let wanted: Vec<String> = (0..INTO_THE_CUT).map(|n| format!("{n} sementara terputus")).collect();
    let send =
        |message| text(&ok(messi.cmd(&format!("send lineker@realm2 {message}"))), "message_id").to_owned();
    let ids: Vec<String> = wanted.iter().map(send).collect();
    for id in &ids {
        assert_ne!(
            ok(messi.cmd(&format!("status {id}")))["state"],
            "delivered",
            "nobody can have delivered it"
        );
    }
    deployment.link("connect", "realm2", "link2");
    for id in &ids {
        deployment.is_delivered(&mut messi, "realm1", id);
    }
    let read = deployment.unread(&mut lineker, "realm2", "getrealminbox realm1");
    assert_eq!(texts(&read), wanted, "each once, in order");
    deployment.send(&mut lineker, "realm2", "send lineker kembali");
    assert_eq!(texts(&deployment.unread(&mut lineker, "realm2", "inbox")), ["kembali"]);
}

/// Somebody who sends one message after the other, each when the one before was answered OK.
struct Talker {
    chat: Chat,
    realm: &'static str,
    command: &'static str,
    /// What was answered OK, and the id of the last one.
    sent: Vec<String>,
    last: String,
}

impl Talker {
    fn new(deployment: &Deployment, realm: &'static str, user: &str, command: &'static str) -> Self {
        let chat = deployment.login(realm, user);
        Self { chat, realm, command, sent: Vec::new(), last: String::new() }
    }

    /// Sends until something has happened, and some more.
    fn talk(&mut self, deployment: &Deployment, happened: &AtomicBool) {
        let mut left = AFTER_A_KILL;
        while left > 0 {
            left -= usize::from(happened.load(Ordering::Relaxed));
            let message = format!("pesan {}", self.sent.len());
            let reply = deployment.send(&mut self.chat, self.realm, &format!("{} {message}", self.command));
            self.last = text(&reply, "message_id").to_owned();
            self.sent.push(message);
        }
    }
}

/// Becomes true when this is dropped.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn sends_go_on_without_a_nats_server_and_an_edge_of_each_realm(deployment: &Deployment) {
    // Inside of a realm, and between realms in both directions.
    let mut talkers = [
        Talker::new(deployment, "realm1", "messi", "send henderson"),
        Talker::new(deployment, "realm1", "messi", "send lineker@realm2"),
        Talker::new(deployment, "realm2", "lineker", "send messi@realm1"),
    ];
    let mut through = |event: &dyn Fn()| {
        let happened = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for talker in &mut talkers {
                scope.spawn(|| talker.talk(deployment, &happened));
            }
            // Also if it fails: nobody would stop.
            let _happens = OnDrop(&happened);
            event();
        });
    };
    through(&|| deployment.kill("nats1"));
    // Of each realm the edge that delivers: the other one has to take the work over.
    through(&|| deployment.kill(deployment.deliverer("realm1", "realm2")));
    through(&|| deployment.kill(deployment.deliverer("realm2", "realm1")));
    let readers = [
        ("realm1", "henderson", "inbox"),
        ("realm2", "lineker", "getrealminbox realm1"),
        ("realm1", "messi", "getrealminbox realm2"),
    ];
    for (talker, (realm, reader, command)) in talkers.iter_mut().zip(readers) {
        deployment.is_delivered(&mut talker.chat, talker.realm, &talker.last);
        // Any edge takes any login.
        let mut reader = deployment.login(realm, reader);
        let read = deployment.unread(&mut reader, realm, command);
        assert_eq!(texts(&read), talker.sent, "each once, in order: {}", talker.command);
    }
}
