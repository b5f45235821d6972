//! The wrapper that fails on demand does so as it says.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use antar_broker::fault::{Faults, Faulty};
use antar_broker::{
    Append, AppendError, EntryId, Filter, ReadError, ReadFrom, ReadLimit, Settings, SharedBroker, StreamSpec,
    Subject,
};

async fn faulty() -> (tempfile::TempDir, SharedBroker, Arc<Faults>) {
    let dir = tempfile::tempdir().unwrap();
    let broker =
        antar_broker::open(&Settings::new(format!("sqlite:{}", dir.path().join("antar.db").display())))
            .await
            .unwrap();
    let filters = vec![Filter::new("log.>").unwrap()];
    let spec = StreamSpec { name: "LOG".into(), filters, entries_per_subject_max: None };
    broker.open_stream(&spec).await.unwrap();
    let (broker, faults) = Faulty::wrap(broker);
    (dir, broker, faults)
}

fn one() -> Append {
    Append::new(Subject::new("log.a").unwrap(), EntryId::unique(), "x")
}

async fn append(broker: &SharedBroker, append: Append) -> Result<bool, AppendError> {
    Ok(broker.append(append).await?.await?.duplicate)
}

async fn count(broker: &SharedBroker) -> Result<usize, ReadError> {
    let filter = Filter::new("log.>").unwrap();
    Ok(broker.read(&filter, ReadFrom::End, ReadLimit::entries(100)).await?.entries.len())
}

#[tokio::test]
async fn a_lost_acknowledgement_is_unknown_and_the_same_id_settles_it() {
    let (_dir, broker, faults) = faulty().await;
    faults.lose_acks(1);
    let entry = one();
    assert!(matches!(append(&broker, entry.clone()).await, Err(AppendError::Unknown(_))));
    assert_eq!(append(&broker, entry).await, Ok(true));
    assert_eq!(count(&broker).await, Ok(1));
}

#[tokio::test]
async fn a_duplicated_append_is_stored_once() {
    let (_dir, broker, faults) = faulty().await;
    faults.duplicate(true);
    assert_eq!(append(&broker, one()).await, Ok(false));
    assert_eq!(count(&broker).await, Ok(1));
}

#[tokio::test]
async fn while_refusing_nothing_is_stored() {
    let (_dir, broker, faults) = faulty().await;
    faults.refuse(true);
    assert!(matches!(append(&broker, one()).await, Err(AppendError::NotStored(_))));
    assert!(matches!(count(&broker).await, Err(ReadError::Unavailable(_))));
    faults.refuse(false);
    assert_eq!(count(&broker).await, Ok(0));
}

#[tokio::test]
async fn a_stalled_operation_goes_on_when_it_is_released() {
    let (_dir, broker, faults) = faulty().await;
    faults.stall(true);
    let held = {
        let broker = broker.clone();
        tokio::spawn(async move { append(&broker, one()).await })
    };
    faults.held(1).await;
    assert!(!held.is_finished());
    faults.stall(false);
    assert_eq!(held.await.unwrap(), Ok(false));
    assert_eq!(count(&broker).await, Ok(1));
}

#[tokio::test]
async fn a_broker_that_forgets_ids_takes_the_same_append_again() {
    let (_dir, broker, faults) = faulty().await;
    let append_one = one();
    assert_eq!(append(&broker, append_one.clone()).await, Ok(false));
    faults.forget_ids(true);
    assert_eq!(append(&broker, append_one.clone()).await, Ok(false));
    faults.forget_ids(false);
    assert_eq!(append(&broker, append_one).await, Ok(true));
    assert_eq!(count(&broker).await, Ok(2));
}

#[tokio::test]
async fn a_stall_after_some_appends_holds_the_acknowledgement_of_the_last() {
    let (_dir, broker, faults) = faulty().await;
    faults.stall_after(2);
    assert_eq!(append(&broker, one()).await, Ok(false));
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { append(&broker, one()).await }
    });
    faults.held(1).await;
    assert!(!waiting.is_finished());
    faults.stall(false);
    assert_eq!(waiting.await.unwrap(), Ok(false));
    assert_eq!(count(&broker).await, Ok(2));
}
