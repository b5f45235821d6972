//! The conformance suite against SQLite, and once more through the wrapper that can fail, with its faults off.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use antar_broker::SharedBroker;
use antar_broker::conformance::Harness;
use async_trait::async_trait;

struct Sqlite {
    broker: SharedBroker,
    dir: tempfile::TempDir,
}

impl Sqlite {
    async fn open(dir: &tempfile::TempDir) -> SharedBroker {
        let path = dir.path().join("antar.db");
        antar_broker::open(&format!("sqlite:{}", path.display())).await.unwrap()
    }

    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { broker: Self::open(&dir).await, dir }
    }
}

#[async_trait]
impl Harness for Sqlite {
    fn broker(&self) -> SharedBroker {
        self.broker.clone()
    }

    async fn reopen(&mut self) -> Option<SharedBroker> {
        self.broker.close().await;
        self.broker = Self::open(&self.dir).await;
        Some(self.broker())
    }
}

struct Wrapped(Sqlite);

#[async_trait]
impl Harness for Wrapped {
    fn broker(&self) -> SharedBroker {
        antar_broker::fault::Faulty::wrap(self.0.broker()).0
    }

    async fn reopen(&mut self) -> Option<SharedBroker> {
        self.0.reopen().await?;
        Some(self.broker())
    }
}

async fn plain() -> Box<dyn Harness> {
    Box::new(Sqlite::new().await)
}

async fn wrapped() -> Box<dyn Harness> {
    Box::new(Wrapped(Sqlite::new().await))
}

mod sqlite {
    antar_broker::conformance_tests!(super::plain);
}

mod faulty_with_its_faults_off {
    antar_broker::conformance_tests!(super::wrapped);
}
