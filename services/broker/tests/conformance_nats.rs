//! The conformance suite against NATS: one server, and a cluster of three in which every stream has three replicas.

#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "../../../tests/harness/nats.rs"]
mod nats;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use antar_broker::conformance::Harness;
use antar_broker::{Settings, SharedBroker};
use async_trait::async_trait;

use nats::Nats;
use nats::cluster::Cluster;

/// Servers that the cases running at the same time share. They end with the last of these.
struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    fn get(&self, start: impl FnOnce() -> T) -> Arc<T> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(start());
        *shared = Arc::downgrade(&started);
        started
    }
}

static SERVER: Shared<Nats> = Shared::new();
static CLUSTER: Shared<Cluster> = Shared::new();

struct OnNats<T> {
    _servers: Arc<T>,
    settings: Settings,
    broker: SharedBroker,
}

impl<T> OnNats<T> {
    async fn new(servers: Arc<T>, settings: Settings) -> Self {
        let broker = antar_broker::open(&settings).await.unwrap();
        Self { _servers: servers, settings, broker }
    }
}

#[async_trait]
impl<T: Send + Sync> Harness for OnNats<T> {
    fn broker(&self) -> SharedBroker {
        self.broker.clone()
    }

    async fn reopen(&mut self) -> Option<SharedBroker> {
        self.broker.close().await;
        self.broker = antar_broker::open(&self.settings).await.unwrap();
        Some(self.broker())
    }
}

async fn server() -> Box<dyn Harness> {
    let server = tokio::task::spawn_blocking(|| SERVER.get(Nats::start)).await.unwrap();
    let settings = Settings::new(server.url());
    Box::new(OnNats::new(server, settings).await)
}

async fn cluster() -> Box<dyn Harness> {
    let cluster = tokio::task::spawn_blocking(|| CLUSTER.get(|| Cluster::start(3))).await.unwrap();
    let urls: Vec<String> = (0..3).map(|n| cluster.server(n).url()).collect();
    let settings = Settings { replicas: 3, ..Settings::new(urls.join(",")) };
    Box::new(OnNats::new(cluster, settings).await)
}

mod one_server {
    antar_broker::conformance_tests!(super::server);
}

mod cluster_of_three {
    antar_broker::conformance_tests!(super::cluster);
}

#[tokio::test]
async fn a_user_or_a_token_in_the_url_is_let_in() {
    for (config, good) in [
        ("authorization { user: antar, password: rahasia }", "antar:rahasia@"),
        ("authorization { token: rahasia }", "rahasia@"),
    ] {
        let start = move || Nats::options().config(config).start();
        let server = tokio::task::spawn_blocking(start).await.unwrap();
        let url = |who: &str| format!("nats://{who}{}", server.addr());
        let broker = antar_broker::open(&Settings::new(url(good))).await.unwrap();
        broker.close().await;
        for bad in ["", "antar:salah@", "salah@"] {
            let Err(error) = antar_broker::open(&Settings::new(url(bad))).await else {
                panic!("{bad:?} is let in by {config}")
            };
            assert!(!error.to_string().contains("salah"), "{error}");
        }
    }
}
