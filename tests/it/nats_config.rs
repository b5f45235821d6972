//! The configurations in `deploy/nats/`, started as they are by a plain nats-server: only ports and addresses are changed,
//! so that tests can run beside each other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::tenants::sign_in;
use crate::harness::{PATIENCE, Tenants, Wire, eventually, free_port, nats_server};

/// A server from a file of `deploy/nats/`. It is killed when this is dropped.
struct Plain {
    dir: TempDir,
    config: PathBuf,
    environment: Vec<(String, String)>,
    ports: BTreeMap<u16, u16>,
    child: Option<Child>,
}

impl Plain {
    /// Prepares `file` with these accounts and variables. `NATS_STORE` is set as well.
    #[track_caller]
    fn new(file: &str, accounts: &str, environment: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nats").join(file);
        let mut text = fs::read_to_string(&source).expect("the file is there");
        let mut ports = BTreeMap::new();
        for documented in [4222_u16, 6222, 7422, 8222] {
            let port = free_port();
            for host in ["0.0.0.0", "127.0.0.1"] {
                let of_file = format!("\"{host}:{documented}\"");
                if text.contains(&of_file) {
                    text = text.replace(&of_file, &format!("\"127.0.0.1:{port}\""));
                    ports.insert(documented, port);
                }
            }
        }
        assert!(ports.contains_key(&4222) && ports.contains_key(&8222), "{file} listens elsewhere");
        let config = dir.path().join("nats.conf");
        fs::write(&config, text).expect("a temporary file");
        fs::write(dir.path().join("accounts.conf"), accounts).expect("a temporary file");
        let store = dir.path().join("store").display().to_string();
        let mut environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.push(("NATS_STORE".into(), store));
        Self { dir, config, environment, ports, child: None }
    }

    fn addr(&self, documented: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[&documented]).into()
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"));
        let child = Command::new(nats_server())
            .arg("--config")
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn();
        self.child = Some(child.expect("nats-server starts"));
    }

    /// Starts it and waits until it is healthy.
    #[track_caller]
    fn start(mut self) -> Self {
        self.spawn();
        self.wait_healthy();
        self
    }

    #[track_caller]
    fn wait_healthy(&mut self) {
        eventually("nats-server is healthy", || {
            let ended = self.child.as_mut().expect("it runs").try_wait().expect("it is our child");
            assert!(ended.is_none(), "it has ended: {}", self.log());
            self.get("/healthz").filter(|answer| answer.starts_with("HTTP/1.0 200"))
        });
    }

    /// Starts it and waits until it has given up: what it said.
    #[track_caller]
    fn refused(mut self) -> String {
        self.spawn();
        let child = self.child.as_mut().expect("it was just started");
        let status = eventually("nats-server gives up", || child.try_wait().expect("it is our child"));
        assert!(!status.success(), "{}", self.log());
        self.log()
    }

    /// Lets it read its configuration again, and waits until it has.
    #[track_caller]
    fn reload(&self) {
        let reloads = || self.log().matches("Reloaded server configuration").count();
        let before = reloads();
        self.signal("HUP");
        eventually("it has read its configuration again", || (reloads() > before).then_some(()));
    }

    #[track_caller]
    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Ends it in good order.
    #[track_caller]
    fn terminate(&mut self) {
        self.signal("TERM");
        let child = self.child.as_mut().expect("it runs");
        eventually("nats-server ends", || child.try_wait().expect("it is our child"));
        self.child = None;
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The answer of its monitoring.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.addr(8222)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    #[track_caller]
    fn json(&self, path: &str) -> Value {
        let answer = self.get(path).expect("it answers");
        let body = answer.split_once("\r\n\r\n").expect("HTTP").1;
        serde_json::from_str(body).expect("JSON")
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- nats-server's log:\n{}", self.log());
        }
        self.kill();
    }
}

/// Makes the inbox of a realm, as it is in Antar.
#[track_caller]
fn make_inbox(wire: &mut Wire, realm: &str, replicas: u32) {
    let config = json!({
        "name": format!("REALM_{realm}_INBOX"), "storage": "file", "discard": "new", "num_replicas": replicas,
        "subjects": [format!("realm.{realm}.inbox"), format!("realm.{realm}.inbox.*")],
    });
    let made = eventually("the stream can be made", || {
        let subject = format!("$JS.API.STREAM.CREATE.REALM_{realm}_INBOX");
        let made = wire.request(&subject, config.to_string()).expect("the server answers")?;
        // In a cluster the servers need a moment to find each other.
        (!made.text().contains("\"error\"")).then(|| made.text())
    });
    assert!(made.contains("REALM_"), "{made}");
}

/// Publishes into a stream until that is acknowledged, and returns where the acknowledgement is from.
#[track_caller]
fn publish(wire: &mut Wire, subject: &str, text: &str) -> String {
    eventually(&format!("{subject} is acknowledged"), || {
        let headers = [("Nats-Msg-Id", text)];
        let answer = wire.request_with(subject, &headers, text.as_bytes(), Duration::from_secs(5));
        let answer: Value = serde_json::from_str(&answer.expect("the connection is open")?.text()).ok()?;
        Some(answer["stream"].as_str()?.to_owned())
    })
}

#[test]
fn the_single_server_syncs_always_and_lets_nobody_in_without_a_key() {
    let tenants = Tenants::of(&["realm1", "realm2"]);
    let server = Plain::new("single.conf", &tenants.accounts(), &[]).start();
    let jetstream = server.json("/jsz");
    assert_eq!(jetstream["config"]["sync_always"], true, "{jetstream}");
    assert_eq!(jetstream["config"]["max_memory"], 0, "{jetstream}");
    let limits = server.json("/varz");
    assert_eq!(
        (&limits["max_payload"], &limits["ping_interval"]),
        (&json!(1 << 20), &json!(5_000_000_000_u64))
    );
    assert!(Wire::connect(server.addr(4222)).is_err(), "nobody gets in without a key");
    let [mut one, mut two] = ["realm1", "realm2"].map(|realm| tenants.wire(server.addr(4222), realm));
    make_inbox(&mut two, "realm2", 1);
    assert_eq!(publish(&mut one, "realm.realm2.inbox", "halo"), "REALM_realm2_INBOX");
}

#[test]
fn a_variable_or_a_file_that_is_missing_is_named() {
    let tenants = Tenants::of(&["realm1"]);
    let mut server = Plain::new("single.conf", &tenants.accounts(), &[]);
    server.environment.clear();
    let said = server.refused();
    assert!(said.contains("NATS_STORE"), "{said}");
    let server = Plain::new("single.conf", "", &[]);
    fs::remove_file(server.dir.path().join("accounts.conf")).expect("it was there");
    let said = server.refused();
    assert!(said.contains("accounts.conf"), "{said}");
    for (missing, given) in [
        ("NATS_NAME", &[("NATS_CLUSTER_PASSWORD", "x"), ("NATS_ROUTES", "[]")][..]),
        ("NATS_CLUSTER_PASSWORD", &[("NATS_NAME", "nats1"), ("NATS_ROUTES", "[]")]),
        ("NATS_ROUTES", &[("NATS_NAME", "nats1"), ("NATS_CLUSTER_PASSWORD", "x")]),
    ] {
        let said = Plain::new("cluster/nats.conf", &tenants.accounts(), given).refused();
        assert!(said.contains(missing), "{said}");
    }
}

/// Three servers from the same file.
#[track_caller]
fn cluster(accounts: &str) -> Vec<Plain> {
    let names = ["nats1", "nats2", "nats3"];
    let secret = ("NATS_CLUSTER_PASSWORD", "r0ute-w0rd");
    let mut servers: Vec<_> = names
        .iter()
        .map(|name| Plain::new("cluster/nats.conf", accounts, &[("NATS_NAME", name), secret]))
        .collect();
    let routes =
        servers.iter().map(|server| format!("\"nats-route://route:{}@{}\"", secret.1, server.addr(6222)));
    let routes = format!("[{}]", routes.collect::<Vec<_>>().join(", "));
    for server in &mut servers {
        server.environment.push(("NATS_ROUTES".into(), routes.clone()));
        server.spawn();
    }
    servers.iter_mut().for_each(Plain::wait_healthy);
    servers
}

#[test]
fn the_cluster_goes_on_with_one_server_less() {
    let tenants = Tenants::of(&["realm1", "realm2"]);
    let mut servers = cluster(&tenants.accounts());
    let mut two = tenants.wire(servers[1].addr(4222), "realm2");
    make_inbox(&mut two, "realm2", 3);
    let mut one = tenants.wire(servers[0].addr(4222), "realm1");
    assert_eq!(publish(&mut one, "realm.realm2.inbox", "before"), "REALM_realm2_INBOX");
    servers[2].kill();
    for n in 0..5 {
        publish(&mut one, "realm.realm2.inbox", &format!("after {n}"));
    }
    servers[2].spawn();
    servers[2].wait_healthy();
    servers[1].kill();
    publish(&mut one, "realm.realm2.inbox", "with the one that came back");
    let mut two = tenants.wire(servers[0].addr(4222), "realm2");
    let last = two.request("$JS.API.STREAM.INFO.REALM_realm2_INBOX", "").expect("the server answers");
    let info: Value = serde_json::from_str(&last.expect("JetStream answers").text()).expect("JSON");
    assert_eq!(info["state"]["messages"], 7, "{info}");
}

/// Adds realm3 beside realm1 and realm2 while they are served, as the runbook says. Reloads come in pairs: nats-server
/// 2.15.1 makes a new account at the first one, and joins it with the others at the second.
#[track_caller]
fn add_a_realm(tenants: &Tenants, servers: &[Plain]) {
    let mut two = tenants.wire(servers[0].addr(4222), "realm2");
    make_inbox(&mut two, "realm2", u32::try_from(servers.len()).expect("a few"));
    let mut one = tenants.wire(servers[0].addr(4222), "realm1");
    tenants.renew(&["realm1", "realm2", "realm3"]);
    for server in servers {
        fs::write(server.dir.path().join("accounts.conf"), tenants.accounts()).expect("a temporary file");
        server.reload();
        server.reload();
    }
    for server in servers {
        let addr = server.addr(4222);
        let mut three = eventually("the new realm gets in", || tenants.try_wire(addr, "realm3").ok());
        assert_eq!(publish(&mut three, "realm.realm2.inbox", &format!("{addr}")), "REALM_realm2_INBOX");
        make_inbox(&mut three, "realm3", 1);
        assert_eq!(publish(&mut two, "realm.realm3.inbox", &format!("{addr}")), "REALM_realm3_INBOX");
    }
    // Connections that were there before stay.
    assert_eq!(publish(&mut one, "realm.realm2.inbox", "lama"), "REALM_realm2_INBOX");
}

#[test]
fn a_realm_is_added_while_others_are_served() {
    let tenants = Tenants::of(&["realm1", "realm2"]);
    add_a_realm(&tenants, &[Plain::new("single.conf", &tenants.accounts(), &[]).start()]);
}

#[test]
fn a_new_key_opens_the_same_account_and_the_old_one_none() {
    let tenants = Tenants::of(&["realm1", "realm2"]);
    let server = Plain::new("single.conf", &tenants.accounts(), &[]).start();
    let mut two = tenants.wire(server.addr(4222), "realm2");
    make_inbox(&mut two, "realm2", 1);
    let old = tenants.key("realm2");
    fs::remove_file(tenants.seed_path("realm2")).expect("it was there");
    tenants.renew(&["realm1", "realm2"]);
    fs::write(server.dir.path().join("accounts.conf"), tenants.accounts()).expect("a temporary file");
    server.reload();
    eventually("who came with the old key is put out", || two.flush().err());
    assert!(sign_in(server.addr(4222), &old.public_key(), &old).is_err(), "the old key still opens");
    let mut one = tenants.wire(server.addr(4222), "realm1");
    assert_eq!(publish(&mut one, "realm.realm2.inbox", "halo"), "REALM_realm2_INBOX");
    let mut two = tenants.wire(server.addr(4222), "realm2");
    assert_eq!(publish(&mut two, "realm.realm2.inbox", "sendiri"), "REALM_realm2_INBOX");
}

#[test]
fn a_copy_of_a_stopped_servers_directory_is_a_backup() {
    let tenants = Tenants::of(&["realm1"]);
    let mut server = Plain::new("single.conf", &tenants.accounts(), &[]).start();
    let mut one = tenants.wire(server.addr(4222), "realm1");
    make_inbox(&mut one, "realm1", 1);
    for n in 0..10 {
        publish(&mut one, "realm.realm1.inbox", &n.to_string());
    }
    server.terminate();
    let [store, copy] = ["store", "copy"].map(|name| server.dir.path().join(name));
    let copied = Command::new("cp").arg("-a").arg(&store).arg(&copy).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp -a");
    fs::remove_dir_all(&store).expect("nobody uses it");
    fs::rename(&copy, &store).expect("it is on the same disk");
    server.spawn();
    server.wait_healthy();
    let mut one = tenants.wire(server.addr(4222), "realm1");
    let info = one.request("$JS.API.STREAM.INFO.REALM_realm1_INBOX", "").expect("the server answers");
    assert!(info.expect("JetStream answers").text().contains("\"messages\":10"));
}

#[test]
fn a_realm_is_added_to_a_running_cluster() {
    let tenants = Tenants::of(&["realm1", "realm2"]);
    add_a_realm(&tenants, &cluster(&tenants.accounts()));
}

#[test]
fn a_server_without_the_clusters_word_does_not_get_in() {
    let tenants = Tenants::of(&["realm1"]);
    let servers = cluster(&tenants.accounts());
    let route = servers[0].addr(6222);
    for password in ["", ",\"user\":\"route\",\"pass\":\"guessed\""] {
        let refusals = || servers[0].log().matches("Authentication Failure").count();
        let before = refusals();
        let mut stream = TcpStream::connect(route).expect("the port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive timeout");
        let name = "NAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let info = format!("{{\"server_id\":\"{name}\",\"server_name\":\"x\",\"cluster\":\"antar\"}}");
        let connect = format!("{{\"verbose\":false,\"cluster\":\"antar\",\"name\":\"{name}\"{password}}}");
        let mut said = String::new();
        // The server may reset the connection before all was written, or before what it said was read.
        let _ = stream.write_all(format!("INFO {info}\r\nCONNECT {connect}\r\nPING\r\n").as_bytes());
        let _ = stream.read_to_string(&mut said);
        assert!(!said.contains("PONG"), "it got in: {said}");
        eventually("the server says that somebody was turned away", || (refusals() > before).then_some(()));
    }
}

/// The accounts of one realm alone, and its seed, as its site has them.
fn site(hub: SocketAddr, realm: &str, name: &str) -> (Plain, Tenants) {
    let tenants = Tenants::of(&[realm]);
    let seed = fs::read_to_string(tenants.seed_path(realm)).expect("it was written");
    let hub = format!("\"nats-leaf://{hub}\"");
    let environment =
        [("NATS_SITE", name), ("NATS_REALM", realm), ("NATS_HUB", &hub), ("NATS_LEAF_SEED", seed.trim())];
    (Plain::new("leaf/site.conf", &tenants.accounts(), &environment), tenants)
}

#[test]
fn sites_store_what_is_theirs_and_the_hub_joins_them() {
    let mut hub = Plain::new("leaf/hub.conf", "", &[]);
    let [(one, one_keys), (two, two_keys)] =
        [("realm1", "site1"), ("realm2", "site2")].map(|(realm, name)| site(hub.addr(7422), realm, name));
    // The hub knows public keys only.
    let known = [("realm1", &one_keys), ("realm2", &two_keys)]
        .map(|(realm, keys)| format!("{realm}={}", keys.key(realm).public_key()));
    let command = ["realm", "nats-config", &known[0], &known[1], "--storage-gib", "1"];
    let accounts = crate::harness::antar(command).exits(0).stdout;
    fs::write(hub.dir.path().join("accounts.conf"), accounts).expect("a temporary file");
    hub = hub.start();
    let (one, two) = (one.start(), two.start());
    let mut at_one = one_keys.wire(one.addr(4222), "realm1");
    let mut at_two = two_keys.wire(two.addr(4222), "realm2");
    make_inbox(&mut at_one, "realm1", 1);
    make_inbox(&mut at_two, "realm2", 1);
    at_two.subscribe("realm.realm2.inbox.*").expect("it is written");
    at_two.flush().expect("the server answers");
    assert_eq!(publish(&mut at_one, "realm.realm2.inbox", "halo"), "REALM_realm2_INBOX");
    let came = at_two.next(PATIENCE).expect("the connection is open").expect("it comes");
    assert_eq!((came.subject.as_str(), came.text().as_str()), ("realm.realm2.inbox.realm1", "halo"));
    assert_eq!(publish(&mut at_two, "realm.realm1.inbox", "halo juga"), "REALM_realm1_INBOX");

    // Without the hub a site's own streams answer, and the others' do not.
    hub.kill();
    assert_eq!(publish(&mut at_one, "realm.realm1.inbox", "sendiri"), "REALM_realm1_INBOX");
    eventually("the other site is out of reach", || {
        let sent = at_one.request_with("realm.realm2.inbox", &[], b"x", Duration::from_millis(500));
        sent.expect("the connection is open").is_none().then_some(())
    });
    hub.spawn();
    hub.wait_healthy();
    assert_eq!(publish(&mut at_one, "realm.realm2.inbox", "lagi"), "REALM_realm2_INBOX");
}
