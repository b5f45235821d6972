//! The conformance suite against SQLite: as it is, with next to nothing held in memory so that everything goes through
//! the file, and through the wrapper that can fail, with its faults off.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use antar_broker::SharedBroker;
use antar_broker::conformance::Harness;
use antar_broker::sqlite::{Options, SqliteBroker};
use async_trait::async_trait;

struct Sqlite {
    broker: SharedBroker,
    dir: tempfile::TempDir,
    tight: bool,
}

impl Sqlite {
    async fn open(dir: &tempfile::TempDir, tight: bool) -> SharedBroker {
        let options = Options::new(dir.path().join("antar.db"));
        let options = if tight { options.tight() } else { options };
        Arc::new(SqliteBroker::open(options).await.unwrap())
    }

    async fn new(tight: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { broker: Self::open(&dir, tight).await, dir, tight }
    }
}

#[async_trait]
impl Harness for Sqlite {
    fn broker(&self) -> SharedBroker {
        self.broker.clone()
    }

    async fn reopen(&mut self) -> Option<SharedBroker> {
        self.broker.close().await;
        self.broker = Self::open(&self.dir, self.tight).await;
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
    Box::new(Sqlite::new(false).await)
}

async fn tight() -> Box<dyn Harness> {
    Box::new(Sqlite::new(true).await)
}

async fn wrapped() -> Box<dyn Harness> {
    Box::new(Wrapped(Sqlite::new(false).await))
}

mod sqlite {
    antar_broker::conformance_tests!(super::plain);
}

mod sqlite_with_next_to_nothing_in_memory {
    antar_broker::conformance_tests!(super::tight);
}

mod faulty_with_its_faults_off {
    antar_broker::conformance_tests!(super::wrapped);
}
