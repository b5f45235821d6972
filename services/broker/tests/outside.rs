//! A log that is read from outside: the conformance suite with one broker that writes and another, opened for reading only,
//! that reads; and what a reader leaves alone.

#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "../../../tests/harness/nats.rs"]
mod nats;
mod split;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use antar_broker::conformance::{Harness, bodies, one};
use antar_broker::sqlite::{Options, SqliteBroker};
use antar_broker::{
    AppendError, Broker, Bucket, Expect, Filter, KvChange, KvError, OpenError, QueueName, ReadError,
    ReadFrom, ReadLimit, RequestError, Seq, Settings, SharedBroker, StreamSpec, Subject, open_for_reading,
};

use split::Split;

async fn sqlite() -> Box<dyn Harness> {
    Box::new(Split::on_sqlite(false).await)
}

async fn tight() -> Box<dyn Harness> {
    Box::new(Split::on_sqlite(true).await)
}

async fn on_nats() -> Box<dyn Harness> {
    Box::new(Split::on_nats().await)
}

mod beside_a_writer_on_sqlite {
    antar_broker::conformance_tests!(super::sqlite);
}

mod beside_a_writer_on_sqlite_with_next_to_nothing_in_memory {
    antar_broker::conformance_tests!(super::tight);
}

mod beside_a_writer_on_nats {
    antar_broker::conformance_tests!(super::on_nats);
}

fn settings(file: &Path) -> Settings {
    Settings::new(format!("sqlite:{}", file.display()))
}

fn subject(name: &str) -> Subject {
    Subject::new(format!("case.a.{name}")).unwrap()
}

fn everything() -> Filter {
    Filter::new("case.a.>").unwrap()
}

async fn writer(file: &Path) -> SqliteBroker {
    let broker = SqliteBroker::open(Options::new(file)).await.unwrap();
    let spec = StreamSpec { name: "LOG".into(), filters: vec![everything()], entries_per_subject_max: None };
    broker.open_stream(&spec).await.unwrap();
    broker
}

async fn put(broker: &SqliteBroker, body: &str) {
    broker.append(one(&subject("x"), body)).await.unwrap().await.unwrap();
}

async fn read(broker: &SharedBroker) -> Vec<String> {
    bodies(
        &broker
            .read(&everything(), ReadFrom::After(Seq::ZERO), ReadLimit::entries(100))
            .await
            .unwrap()
            .entries,
    )
}

/// Names, sizes and bytes of all files of a directory.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_file_that_nobody_serves_is_read_and_nothing_is_made_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    // With what means something in the address of a file.
    let file = dir.path().join("a b#c%41.db");
    let broker = writer(&file).await;
    put(&broker, "one").await;
    broker.close().await;
    drop(broker);
    // Readers' threads close their connections; the last one tidies up.
    while std::fs::read_dir(dir.path())
        .unwrap()
        .any(|at| at.unwrap().path().to_string_lossy().ends_with("-wal"))
    {
        tokio::task::yield_now().await;
    }
    let before = files(dir.path());
    let reader = open_for_reading(&settings(&file)).await.unwrap();
    assert_eq!(read(&reader).await, ["one"]);
    let spec = StreamSpec { name: "LOG".into(), filters: vec![everything()], entries_per_subject_max: None };
    let flaws = reader.examine(&[spec], &[]).await.unwrap();
    assert!(flaws.iter().all(|flaw| flaw.kind.id == "sqlite.space"), "{flaws:?}");
    reader.close().await;
    assert_eq!(files(dir.path()), before);
}

#[tokio::test]
async fn a_reader_follows_a_file_through_writers_that_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("antar.db");
    let broker = writer(&file).await;
    put(&broker, "0").await;
    broker.close().await;
    drop(broker);
    let reader = open_for_reading(&settings(&file)).await.unwrap();
    let mut tail = reader.tail(&everything(), Seq::ZERO).await.unwrap();
    for n in 0..5 {
        assert_eq!(bodies(&tail.next_batch(ReadLimit::entries(9)).await.unwrap()), [n.to_string()]);
        let broker = writer(&file).await;
        put(&broker, &(n + 1).to_string()).await;
        broker.close().await;
    }
    assert_eq!(read(&reader).await, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_log_that_was_left_behind_by_a_killed_writer_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("antar.db");
    let broker = writer(&file).await;
    put(&broker, "one").await;
    // As a kill leaves it: copied while it is open.
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for name in ["antar.db", "antar.db-wal", "antar.db-shm"] {
        std::fs::copy(dir.path().join(name), copy.join(name)).unwrap();
    }
    let reader = open_for_reading(&settings(&copy.join("antar.db"))).await.unwrap();
    assert_eq!(read(&reader).await, ["one"]);
    let log = |dir: &Path| std::fs::read(dir.join("antar.db-wal")).unwrap();
    assert_eq!(log(&copy), log(dir.path()));
}

#[tokio::test]
async fn a_missing_file_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("antar.db");
    let error = open_for_reading(&settings(&file)).await.err().unwrap();
    assert!(matches!(&error, OpenError::Unreachable(why) if why.contains("is not there")), "{error}");
    std::fs::write(&file, "").unwrap();
    let error = open_for_reading(&settings(&file)).await.err().unwrap();
    assert!(matches!(&error, OpenError::Unreachable(why) if why.contains("is empty")), "{error}");
    std::fs::write(&file, "this is not a database, not at all, by no means").unwrap();
    let error = open_for_reading(&settings(&file)).await.err().unwrap();
    assert!(matches!(&error, OpenError::Damaged(_)), "{error}");
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_reader_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("antar.db");
    let broker = writer(&file).await;
    let reader = open_for_reading(&settings(&file)).await.unwrap();
    let mut tail = reader.tail(&everything(), Seq::ZERO).await.unwrap();
    put(&broker, "one").await;
    assert_eq!(bodies(&tail.next_batch(ReadLimit::entries(9)).await.unwrap()), ["one"]);
    // Nobody holds the lock of who serves the file, and a new one can.
    broker.close().await;
    drop(broker);
    let broker = writer(&file).await;
    put(&broker, "two").await;
    assert_eq!(bodies(&tail.next_batch(ReadLimit::entries(9)).await.unwrap()), ["two"]);
    // The log is copied and starts over while somebody follows.
    let conn = rusqlite::Connection::open(&file).unwrap();
    let restart = || {
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
    };
    conn.busy_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(restart().unwrap(), (0, 0));
    put(&broker, "three").await;
    assert_eq!(bodies(&tail.next_batch(ReadLimit::entries(9)).await.unwrap()), ["three"]);
}

async fn refuses_to_change_anything(reader: &SharedBroker) {
    let (x, bucket) = (subject("x"), Bucket::new("b").unwrap());
    let spec = StreamSpec { name: "NEW".into(), filters: vec![everything()], entries_per_subject_max: None };
    let only = |why: &str| why.contains("for reading only");
    assert!(matches!(reader.open_stream(&spec).await, Err(OpenError::Invalid(why)) if only(&why)));
    assert!(matches!(reader.open_bucket(&bucket).await, Err(OpenError::Invalid(why)) if only(&why)));
    assert!(
        matches!(reader.append(one(&x, "")).await.err().unwrap(), AppendError::Refused(why) if only(&why))
    );
    assert!(matches!(reader.trim(&x, Seq(1)).await, Err(ReadError::Unavailable(why)) if only(&why)));
    let name = QueueName::new("q").unwrap();
    let queue = reader.queue(&name, &x, Duration::from_secs(1)).await;
    assert!(matches!(queue.err().unwrap(), ReadError::Unavailable(why) if only(&why)));
    let put = reader.kv_put(&bucket, "k", "v".into(), Expect::Any, None).await;
    assert!(matches!(put, Err(KvError::Refused(why)) if only(&why)));
    assert!(
        matches!(reader.kv_delete(&bucket, "k", Expect::Any).await, Err(KvError::Refused(why)) if only(&why))
    );
    let asked = reader.request(&x, "".into(), Duration::from_secs(1)).await;
    assert!(matches!(asked, Err(RequestError::Unavailable(why)) if only(&why)));
    assert!(matches!(reader.serve(&x).await.err().unwrap(), RequestError::Unavailable(why) if only(&why)));
    // Asking for what is not there makes nothing either.
    assert_eq!(reader.kv_get(&bucket, "k").await, Ok(None));
    assert_eq!(reader.queue_state(&name).await, Ok(None));
}

#[tokio::test]
async fn a_watch_ends_with_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("antar.db");
    let broker = writer(&file).await;
    let bucket = Bucket::new("b").unwrap();
    let put = async |key: &str, value: &str, ttl| {
        broker.kv_put(&bucket, key, value.to_owned().into(), Expect::Any, ttl).await.unwrap();
    };
    put("stays", "0", None).await;
    put("goes", "0", None).await;
    let reader = open_for_reading(&settings(&file)).await.unwrap();
    let mut watch = reader.kv_watch(&bucket).await.unwrap();
    let (mut now, mut is_current) = (BTreeMap::new(), false);
    for round in 1..=3 {
        put("stays", &round.to_string(), None).await;
        put("expires", &round.to_string(), Some(Duration::from_millis(30))).await;
        broker.kv_delete(&bucket, "goes", Expect::Any).await.unwrap();
        while now != BTreeMap::from([("stays".to_owned(), round.to_string())]) {
            match watch.next().await.unwrap() {
                KvChange::Put(entry) => {
                    now.insert(entry.key, String::from_utf8(entry.value.to_vec()).unwrap());
                }
                KvChange::Delete { key } => drop(now.remove(&key)),
                KvChange::Current => assert!(!std::mem::replace(&mut is_current, true)),
            }
        }
    }
    broker.close().await;
    reader.close().await;
    while watch.next().await.is_ok() {}
}

#[tokio::test]
async fn a_reader_refuses_to_change_anything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("antar.db");
    writer(&file).await.close().await;
    refuses_to_change_anything(&open_for_reading(&settings(&file)).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_an_empty_nats_server_makes_nothing() {
    let server = tokio::task::spawn_blocking(nats::Nats::start).await.unwrap();
    let settings = Settings::new(server.url());
    let reader: SharedBroker = open_for_reading(&settings).await.unwrap();
    refuses_to_change_anything(&reader).await;
    assert!(reader.kv_watch(&Bucket::new("b").unwrap()).await.is_err());
    let filters = vec![Filter::new("case.a.log.>").unwrap()];
    let spec = StreamSpec { name: "LOG".into(), filters, entries_per_subject_max: None };
    let flaws = reader.examine(&[spec], &[Bucket::new("b").unwrap()]).await.unwrap();
    let missing = flaws.iter().filter(|flaw| flaw.kind.id == "stream.missing");
    assert_eq!(missing.count(), 3, "the stream, the bucket, and that of queues: {flaws:?}");
    let broker = antar_broker::open(&settings).await.unwrap();
    assert_eq!(broker.stream_names().await.unwrap(), Vec::<String>::new());
    let buckets = [Bucket::new("b").unwrap()];
    assert_eq!(broker.missing(&[], &buckets).await.unwrap().len(), 2, "nor the bucket of queues");
    let _ = Arc::clone(&broker);
}
