//! What is particular to the SQLite broker: its file, its lock, its control socket, a full disk, a killed process.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use antar_broker::sqlite::{ControlError, Options, SqliteBroker, control_request};
use antar_broker::{
    Append, AppendError, Broker, Bucket, EntryId, Expect, Filter, KvChange, KvError, OpenError, ReadFrom,
    ReadLimit, Seq, StreamSpec, Subject,
};
use bytes::Bytes;
use proptest::prelude::*;

fn subject(name: &str) -> Subject {
    Subject::new(format!("log.{name}")).unwrap()
}

fn append(subjects: &[Subject], body: impl Into<Bytes>) -> Append {
    Append { subjects: subjects.to_vec(), ..Append::new(subjects[0].clone(), EntryId::unique(), body) }
}

async fn open(options: Options) -> SqliteBroker {
    let broker = SqliteBroker::open(options).await.unwrap();
    let spec = StreamSpec {
        name: "LOG".into(),
        filters: vec![Filter::new("log.>").unwrap()],
        entries_per_subject_max: None,
    };
    broker.open_stream(&spec).await.unwrap();
    broker
}

async fn put(broker: &SqliteBroker, name: &str, body: &str) -> Result<Seq, AppendError> {
    Ok(broker.append(append(&[subject(name)], body.to_owned())).await?.await?.seq)
}

/// Everything in the order of the stream: subject, sequence, body.
async fn all(broker: &SqliteBroker, filter: &str) -> Vec<(String, u64, String)> {
    let (mut found, mut after) = (Vec::new(), Seq::ZERO);
    loop {
        let filter = Filter::new(filter).unwrap();
        let page = broker.read(&filter, ReadFrom::After(after), ReadLimit::entries(7)).await.unwrap();
        for entry in &page.entries {
            after = entry.seq;
            let body = String::from_utf8(entry.body.to_vec()).unwrap();
            found.push((entry.subject.as_str().to_owned(), entry.seq.0, body));
        }
        if !page.more {
            return found;
        }
    }
}

fn dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("antar.db");
    (dir, path)
}

#[derive(Debug, Clone)]
enum Step {
    /// To these subjects, as many at a time.
    Append(Vec<usize>, usize),
    /// Of this subject, the oldest so many.
    Trim(usize, usize),
    Close,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (prop::collection::btree_set(0..6_usize, 1..5), 1..12_usize)
            .prop_map(|(subjects, count)| Step::Append(subjects.into_iter().collect(), count)),
        3 => (0..6_usize, 0..9_usize).prop_map(|(subject, count)| Step::Trim(subject, count)),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..40)
}

/// Compares with what a few lines of ordinary code keep.
async fn compare(broker: &SqliteBroker, model: &[Vec<(u64, String)>]) {
    let name = |at: usize| subject(&at.to_string()).as_str().to_owned();
    let mut whole: Vec<(String, u64, String)> = Vec::new();
    for (at, entries) in model.iter().enumerate() {
        let expected: Vec<_> = entries.iter().map(|(seq, body)| (name(at), *seq, body.clone())).collect();
        assert_eq!(all(broker, &name(at)).await, expected);
        let last = entries.last().map_or(0, |(seq, _)| *seq);
        assert_eq!(broker.last(&subject(&at.to_string())).await.unwrap(), Seq(last));
        whole.extend(expected);
    }
    whole.sort_by_key(|(_, seq, _)| *seq);
    assert_eq!(all(broker, "log.>").await, whole);
    let limit = ReadLimit::entries(10_000);
    let backward = broker.read(&Filter::new("log.*").unwrap(), ReadFrom::End, limit).await.unwrap().entries;
    let backward: Vec<u64> = backward.iter().rev().map(|entry| entry.seq.0).collect();
    assert_eq!(backward, whole.iter().map(|(_, seq, _)| *seq).collect::<Vec<_>>());
}

async fn follow_model(steps: Vec<Step>, tight: bool) {
    let (_dir, path) = dir();
    let options = if tight { Options::new(&path).tight() } else { Options::new(&path) };
    let mut broker = open(options.clone()).await;
    let mut model: Vec<Vec<(u64, String)>> = vec![Vec::new(); 6];
    let mut count = 0;
    for step in steps {
        match step {
            Step::Append(subjects, times) => {
                let names: Vec<Subject> = subjects.iter().map(|at| subject(&at.to_string())).collect();
                let mut pending = Vec::new();
                for _ in 0..times {
                    pending.push((count, broker.append(append(&names, count.to_string())).await.unwrap()));
                    count += 1;
                }
                for (body, append) in pending {
                    let base = append.await.unwrap().seq.0;
                    for (offset, at) in subjects.iter().enumerate() {
                        model[*at].push((base + offset as u64, body.to_string()));
                    }
                }
            }
            Step::Trim(at, count) => {
                let count = count.min(model[at].len());
                let upto = count.checked_sub(1).map_or(0, |last| model[at][last].0);
                let removed = broker.trim(&subject(&at.to_string()), Seq(upto)).await.unwrap();
                assert_eq!(removed, count as u64);
                model[at].drain(..count);
            }
            Step::Close => {
                broker.close().await;
                broker = open(options.clone()).await;
            }
            Step::Kill => {
                drop(broker);
                broker = open(options.clone()).await;
            }
        }
        compare(&broker, &model).await;
    }
    broker.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_log_is_what_a_simple_model_says(steps in steps(), tight in prop::bool::weighted(0.8)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(follow_model(steps, tight));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_in_a_copy_made_at_that_moment() {
    let (dir, path) = dir();
    let broker = open(Options::new(&path)).await;
    let group: Vec<Subject> = (0..10).map(|n| subject(&n.to_string())).collect();
    for n in 0..50 {
        broker.append(append(&group, n.to_string())).await.unwrap().await.unwrap();
    }
    let expected = all(&broker, "log.>").await;
    // As after a power cut: the files as they are, with nobody having closed them.
    let copy = dir.path().join("copy.db");
    for suffix in ["", "-wal"] {
        let beside = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(beside(&path), beside(&copy)).unwrap();
    }
    let copied = open(Options::new(&copy)).await;
    assert_eq!(all(&copied, "log.>").await, expected);
    copied.close().await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_opened_once_at_a_time() {
    let (_dir, path) = dir();
    let broker = open(Options::new(&path)).await;
    let second = SqliteBroker::open(Options::new(&path)).await.err().unwrap();
    assert!(
        matches!(&second, OpenError::Unreachable(why) if why.contains("in use by another process")),
        "{second}"
    );
    put(&broker, "a", "x").await.unwrap();
    broker.close().await;
    open(Options::new(&path)).await.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_and_its_directory_are_for_their_owner_only() {
    let (dir, _) = dir();
    let path = dir.path().join("made/for/it/antar.db");
    let broker = open(Options::new(&path)).await;
    put(&broker, "a", "x").await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", ".lock", ".sock"] {
        assert_eq!(mode(Path::new(&format!("{}{suffix}", path.display()))), 0o600, "{suffix}");
    }
    broker.close().await;
}

/// Opening fails, and the file is what it was.
async fn refused(path: &Path) -> OpenError {
    let before = std::fs::read(path).unwrap();
    let error = SqliteBroker::open(Options::new(path)).await.err().unwrap();
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    assert_eq!(std::fs::read(path).unwrap(), before);
    error
}

async fn filled(path: &Path) {
    let broker = open(Options::new(path)).await;
    for n in 0..500 {
        put(&broker, &(n % 7).to_string(), &"x".repeat(500)).await.unwrap();
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (_dir, path) = dir();
    for content in
        [&b"hello"[..], &[0; 4096], b"SQLite format 2\0 and more", b"SQLite format 3\0 and rubbish"]
    {
        std::fs::write(&path, content).unwrap();
        let error = refused(&path).await;
        assert!(matches!(error, OpenError::Damaged(_)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused_and_left_alone() {
    let (_dir, path) = dir();
    filled(&path).await;
    let good = std::fs::read(&path).unwrap();
    let cut = good[..good.len() / 2].to_vec();
    let mut scribbled = good.clone();
    for page in (4096..good.len()).step_by(3 * 4096) {
        scribbled[page..page + 64].fill(0xA5);
    }
    for content in [cut, scribbled] {
        std::fs::write(&path, content).unwrap();
        let error = refused(&path).await;
        assert!(matches!(error, OpenError::Damaged(_)), "{error}");
    }
    std::fs::write(&path, good).unwrap();
    let broker = open(Options::new(&path)).await;
    assert_eq!(all(&broker, "log.>").await.len(), 500);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_file_and_another_programs_are_refused_and_left_alone() {
    let (_dir, path) = dir();
    filled(&path).await;
    let change = |sql: &str| rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    change("PRAGMA user_version = 1000");
    let error = refused(&path).await;
    assert!(matches!(&error, OpenError::Newer(why) if why.contains("newer version")), "{error}");
    change("PRAGMA user_version = 1; PRAGMA application_id = 7");
    let error = refused(&path).await;
    assert!(matches!(&error, OpenError::Invalid(why) if why.contains("another program")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_it_cannot_store_and_recovers() {
    let (_dir, path) = dir();
    let mut options = Options::new(&path);
    options.pages_max = Some(200);
    let broker = open(options).await;
    let mut stored = Vec::new();
    let mut refused = 0;
    // Some in flight at a time, so that one that does not fit takes others with it.
    while refused == 0 {
        let mut pending = Vec::new();
        for n in 0..8 {
            let body = format!("{n}{}", "x".repeat(20_000));
            pending.push(broker.append(append(&[subject("a"), subject("b")], body)).await.unwrap());
        }
        for append in pending {
            match append.await {
                Ok(appended) => stored.push(appended.seq.0),
                Err(AppendError::NotStored(_)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(stored.len() > 8, "{}", stored.len());
    let there: Vec<u64> = all(&broker, "log.a").await.iter().map(|(_, seq, _)| *seq).collect();
    assert_eq!(there, stored);
    assert_eq!(broker.last(&subject("a")).await.unwrap(), Seq(*stored.last().unwrap()));
    // Room is made, and it goes on, in sequence.
    for name in ["a", "b"] {
        broker.trim(&subject(name), Seq(stored[stored.len() / 2])).await.unwrap();
    }
    assert!(put(&broker, "a", &"y".repeat(20_000)).await.unwrap().0 > *stored.last().unwrap());
    broker.close().await;
    let broker = open(Options::new(&path)).await;
    assert_eq!(all(&broker, "log.a").await.len(), stored.len() - stored.len() / 2);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_falls_far_behind_is_told_so() {
    let (_dir, path) = dir();
    let broker = open(Options::new(&path)).await;
    let bucket = Bucket::new("B").unwrap();
    let mut watch = broker.kv_watch(&bucket).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), KvChange::Current);
    let mut puts = tokio::task::JoinSet::new();
    let broker = std::sync::Arc::new(broker);
    for n in 0..5000 {
        let (broker, bucket) = (broker.clone(), bucket.clone());
        puts.spawn(async move {
            broker.kv_put(&bucket, &format!("k{}", n % 10), Bytes::new(), Expect::Any, None).await.unwrap()
        });
    }
    puts.join_all().await;
    assert!(matches!(watch.next().await, Err(KvError::Unavailable(_))));
    let mut again = broker.kv_watch(&bucket).await.unwrap();
    let mut there = BTreeMap::new();
    while let KvChange::Put(entry) = again.next().await.unwrap() {
        there.insert(entry.key, entry.revision);
    }
    assert_eq!(there.len(), 10);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_reaches_the_holder_through_its_socket() {
    let (_dir, path) = dir();
    let url = format!("sqlite:{}", path.display());
    let ask = async |name: &str, body: Vec<u8>, timeout| {
        control_request(&url, &subject(name), body.into(), timeout).await
    };
    let (long, short) = (Duration::from_secs(30), Duration::from_millis(200));
    assert_eq!(ask("echo", Vec::new(), long).await, Err(ControlError::NotRunning(path.clone())));
    let broker = open(Options::new(&path)).await;
    assert_eq!(ask("echo", Vec::new(), long).await, Err(ControlError::NoResponder));
    let mut requests = broker.serve(&subject("echo")).await.unwrap();
    let mut silent = broker.serve(&subject("silent")).await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            request.reply.send(request.body);
        }
    });
    for body in [Vec::new(), b"hello".to_vec(), vec![7; 900_000]] {
        assert_eq!(ask("echo", body.clone(), long).await, Ok(Bytes::from(body)));
    }
    let too_long = ask("echo", vec![0; 1024 * 1024], long).await;
    assert!(matches!(too_long, Err(ControlError::Failed(_))), "{too_long:?}");
    assert_eq!(ask("silent", Vec::new(), short).await, Err(ControlError::Timeout));
    drop(silent.next().await);
    // The path alone does as well.
    let by_path =
        control_request(&path.to_string_lossy(), &subject("echo"), Bytes::from_static(b"x"), long).await;
    assert_eq!(by_path, Ok(Bytes::from_static(b"x")));
    // Rubbish costs only its own connection.
    for rubbish in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02ab", b"GET / HTTP/1.1\r\n\r\n"] {
        use tokio::io::AsyncWriteExt;
        let socket = format!("{}.sock", path.display());
        tokio::net::UnixStream::connect(socket).await.unwrap().write_all(rubbish).await.unwrap();
    }
    assert_eq!(ask("echo", b"y".to_vec(), long).await, Ok(Bytes::from_static(b"y")));
    broker.close().await;
    assert!(!Path::new(&format!("{}.sock", path.display())).exists());
    assert_eq!(ask("echo", Vec::new(), long).await, Err(ControlError::NotRunning(path.clone())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_socket_is_replaced_and_a_path_too_long_for_one_is_no_obstacle() {
    let (dir, path) = dir();
    std::fs::write(format!("{}.sock", path.display()), "left over").unwrap();
    let broker = open(Options::new(&path)).await;
    let answer =
        control_request(&path.to_string_lossy(), &subject("a"), Bytes::new(), Duration::from_secs(9)).await;
    assert_eq!(answer, Err(ControlError::NoResponder));
    broker.close().await;
    let long = dir.path().join("x".repeat(120)).join("antar.db");
    let broker = open(Options::new(&long)).await;
    put(&broker, "a", "x").await.unwrap();
    let answer =
        control_request(&long.to_string_lossy(), &subject("a"), Bytes::new(), Duration::from_secs(9)).await;
    assert!(matches!(answer, Err(ControlError::Failed(_))), "{answer:?}");
    broker.close().await;
}
