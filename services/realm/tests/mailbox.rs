//! Mailboxes at their limit, and what a lost acknowledgement does to them.

#![expect(clippy::unwrap_used, reason = "a test that meets an error is over")]

use std::time::Duration;

use antar_broker::fault::Faulty;
use antar_broker::{Settings, SharedBroker};
use antar_proto::command::Receiver;
use antar_proto::reply::Event;
use antar_proto::{MessageId, UserName};
use antar_realm::admin::{AdminReply, AdminRequest};
use antar_realm::{Realm, RealmConfig, Send, SendError, Sending};

/// Long enough for two busy cores; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

async fn broker(dir: &tempfile::TempDir) -> SharedBroker {
    antar_broker::open(&Settings::new(format!("sqlite:{}", dir.path().join("a.db").display()))).await.unwrap()
}

async fn realm(broker: SharedBroker, mailbox_entries_max: u64) -> Realm {
    let id = "realm1".parse().unwrap();
    Realm::start(broker, RealmConfig { demo_accounts: true, mailbox_entries_max, ..RealmConfig::new(id) })
        .await
        .unwrap()
}

async fn send(realm: &Realm, text: &str) -> Result<Sending, SendError> {
    let to = Receiver::User(user("henderson"));
    realm.send(&user("messi"), Send::One(&to), text, MessageId::fresh()).await
}

/// What henderson is pushed until `last` comes.
async fn pushed_until(realm: &Realm, last: &str) -> Vec<String> {
    let mut feed = realm.watch(&user("henderson")).await.unwrap();
    let mut texts: Vec<String> = Vec::new();
    while texts.last().is_none_or(|text| text != last) {
        let step = tokio::time::timeout(SOON, feed.next()).await.expect("messages come").unwrap();
        texts.extend(step.events.into_iter().map(antar_realm::Pushed::into_event).filter_map(|event| {
            match event {
                Event::Message { message, .. } => Some(message.msg),
                _ => None,
            }
        }));
        realm.mark_read(step.marks).await;
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_that_run_full_of_read_mail_make_room_and_keep_the_order() {
    const MESSAGES: usize = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let realm = realm(broker(&dir).await, 300).await;
    let reader = realm.clone();
    let pushed = tokio::spawn(async move { pushed_until(&reader, "last").await });
    let mut accepted = Vec::new();
    for chunk in (0..MESSAGES).collect::<Vec<_>>().chunks(50) {
        let mut waiting = Vec::new();
        for number in chunk {
            let text = number.to_string();
            waiting.push((send(&realm, &text).await.unwrap(), text));
        }
        for (sending, text) in waiting {
            match sending.await {
                Ok(_) => accepted.push(text),
                Err(SendError::MailboxFull) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    while send(&realm, "last").await.unwrap().await.is_err() {
        tokio::task::yield_now().await;
    }
    accepted.push("last".into());
    assert!(accepted.len() > 600, "only {} were accepted", accepted.len());
    let pushed = pushed.await.unwrap();
    let differs = pushed.iter().zip(&accepted).position(|(pushed, accepted)| pushed != accepted);
    assert_eq!((pushed.len(), differs), (accepted.len(), None));
    realm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_full_of_unread_mail_refuses_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let realm = realm(broker(&dir).await, 10).await;
    for number in 0..10 {
        send(&realm, &number.to_string()).await.unwrap().await.unwrap();
    }
    assert_eq!(send(&realm, "one too many").await.unwrap().await, Err(SendError::MailboxFull));
    let group = [Receiver::User(user("henderson")), Receiver::User(user("lineker"))];
    let sent = realm
        .send(&user("messi"), Send::Group(&group), "halo", MessageId::fresh())
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(sent.full, ["henderson"]);
    assert_eq!(realm.inbox(&user("henderson")).await.unwrap().messages.len(), 10);
    assert_eq!(realm.inbox(&user("lineker")).await.unwrap().messages.len(), 1);
    realm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_makes_no_second_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, faults) = Faulty::wrap(broker(&dir).await);
    let realm = realm(broker, 1_000).await;
    faults.lose_acks(1);
    let sent = send(&realm, "halo").await.unwrap().await.unwrap();
    assert!(!sent.duplicate);
    assert_eq!(realm.inbox(&user("henderson")).await.unwrap().messages.len(), 1);
    realm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_by_a_later_try_says_that_others_may_stand_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, faults) = Faulty::wrap(broker(&dir).await);
    let realm = realm(broker, 1_000).await;
    faults.lose(1);
    let first = send(&realm, "first").await.unwrap();
    let second = send(&realm, "second").await.unwrap().await.unwrap();
    assert!(!second.late);
    assert!(first.await.unwrap().late);
    let unread = realm.inbox(&user("henderson")).await.unwrap().messages;
    assert_eq!(unread.iter().map(|unread| &unread.message.msg[..]).collect::<Vec<_>>(), ["second", "first"]);
    realm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_means_one_message_and_sending_it_again_is_answered_alike() {
    let dir = tempfile::tempdir().unwrap();
    let realm = realm(broker(&dir).await, 5).await;
    for number in 0..5 {
        send(&realm, &number.to_string()).await.unwrap().await.unwrap();
    }
    let group = [Receiver::User(user("henderson")), Receiver::User(user("lineker"))];
    let id = MessageId::fresh();
    for duplicate in [false, true] {
        let sending = realm.send(&user("messi"), Send::Group(&group), "halo", id).await.unwrap();
        let sent = sending.await.unwrap();
        assert_eq!((sent.duplicate, &sent.full[..]), (duplicate, &["henderson".to_owned()][..]));
    }
    let other = realm.send(&user("messi"), Send::One(&group[1]), "something else", id).await.unwrap();
    assert_eq!(other.await, Err(SendError::IdReused));
    assert_eq!(realm.inbox(&user("lineker")).await.unwrap().messages.len(), 1);
    realm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_waiting_when_the_account_was_disabled_opens_no_session() {
    let dir = tempfile::tempdir().unwrap();
    let realm = realm(broker(&dir).await, 100).await;
    let here = std::net::IpAddr::from([127, 0, 0, 1]);
    let waiting = realm.clone();
    let login = tokio::spawn(async move { waiting.login("lineker", "surabaya", here).await });
    let disable = AdminRequest::UserDisable { user: "lineker".into(), disabled: true };
    assert_eq!(realm.admin(disable).await, AdminReply::Done);
    if let Ok(token) = login.await.unwrap() {
        assert!(realm.session(&token).is_none());
    }
    let enable = AdminRequest::UserDisable { user: "lineker".into(), disabled: false };
    assert_eq!(realm.admin(enable).await, AdminReply::Done);
    let token = realm.login("lineker", "surabaya", here).await.unwrap();
    let (key, lineker) = realm.session(&token).unwrap();
    realm.passwd(&lineker, &key, "surabaya", "surabaya2", here).await.unwrap();
    assert!(realm.is_live(&key), "the session that changed the password goes on");
    realm.stop().await;
}
