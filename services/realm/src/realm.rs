//! A running realm, as edges and operators hold it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use antar_broker::{KvError, OpenError, ReadError, RequestError, SharedBroker};
use antar_proto::command::With;
use antar_proto::{Address, MessageId, RealmId, UserName};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::SPANS;
use crate::account::{AccountError, Accounts};
use crate::admin::PeerInfo;
use crate::card;
use crate::config::RealmConfig;
use crate::copy::{KvCopy, unavailable};
use crate::counts::Counts;
use crate::cursor::{Cursors, ReadMark};
use crate::edges::Activity;
use crate::event::RealmEvent;
use crate::feed::Feed;
use crate::file::Files;
use crate::group::Groups;
use crate::invite::Invites;
use crate::key_file::{self, KeyError, Rotated};
use crate::login::{LoginError, Throttle};
use crate::mailbox::{History, Unread};
use crate::password::Passwords;
use crate::peer::{AddRealmError, Peers, host_is_sane};
use crate::places::{EDGES, FILE_PARTS, FILES, GROUPS, Places};
use crate::presence;
use crate::provision::{Made, make};
use crate::quarantine::Held;
use crate::rate::Rates;
use crate::room::LOOKS_MAX;
use crate::send::{Said, Send, SendError, SendId, Sending};
use crate::session::{SessionKey, Sessions};
use crate::shared::{Setting, Shared};
use crate::status::{RealmStatus, status};
use crate::whereabouts::MessageStatus;

/// How long stopping waits for the realm's tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a broker that does not answer may go on so before the realm counts as not ready. Making a lost connection again takes
/// up to some 5 s, and each edge says every 5 s that it is there, which tells as well.
pub const READY_GRACE: Duration = Duration::from_secs(12);
/// How long the broker may take to answer when asked whether it does.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// The broker does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the broker has not answered for {} s: {why}", .silent.as_secs())]
pub struct NotReady {
    /// For how long.
    pub silent: Duration,
    /// What it says, or fails to.
    pub why: String,
}

/// Why a realm could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A stream has other settings than this version needs, or the broker cannot be reached.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A bucket cannot be read.
    #[error("the broker does not answer: {0}")]
    Kv(#[from] KvError),
    /// Requests cannot be served.
    #[error("requests cannot be served: {0}")]
    Serve(#[from] RequestError),
    /// The demo accounts could not be made.
    #[error("the demo accounts could not be made: {0}")]
    Accounts(#[from] AccountError),
    /// Some of its streams and buckets are not there. Nothing was made.
    #[error("{} not there: {advice}", .names.join(", "))]
    Missing {
        /// Their names.
        names: Vec<String>,
        /// What to do.
        advice: &'static str,
    },
    /// It is being restored, or that was broken off. Nothing was made.
    #[error(
        "it is being restored from a backup, or that was broken off: `antar realm restore` of the same file goes on where \
         it ended"
    )]
    Restoring,
    /// It has no key to sign with, or not the one that the realm has.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Nothing can be hashed.
    #[error("passwords cannot be hashed")]
    Passwords,
}

/// A realm, as edges and operators hold it. Cheap to clone.
#[derive(Clone)]
pub struct Realm {
    pub(crate) shared: Arc<Shared>,
}

impl Realm {
    /// Opens or makes the realm's streams and buckets and starts its tasks.
    pub async fn start(broker: SharedBroker, config: RealmConfig) -> Result<Self, StartError> {
        let places = Places::new(config.id.clone());
        let (made, key) = make(&broker, &places, &config).await?;
        if made.is_key_new {
            tracing::info!(realm = %config.id, key = %key.public(), "the realm has a key now");
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let copies = Copies { broker: &broker, places: &places, tasks: &tasks, stop: &stop };
        let passwords = Passwords::start().await.map_err(|_| StartError::Passwords)?;
        let settings: KvCopy<Setting> = copies.open("settings").await?;
        let shared = Arc::new(Shared {
            accounts: Accounts::new(copies.open("accounts").await?, passwords, config.password_bytes_min),
            sessions: Sessions::new(copies.open("sessions").await?, config.session_ttl),
            cursors: Cursors::new(copies.open("cursors").await?),
            peers: Peers::new(copies.open("peers").await?),
            invites: Invites::new(copies.open("invites").await?),
            presence: presence::channel(),
            groups: Groups::new(copies.open(GROUPS).await?, config.id.clone()),
            throttle: Throttle::default(),
            files: Files::new(copies.open(FILES).await?, places.bucket(FILE_PARTS), broker.clone()),
            settings,
            edges: copies.open(EDGES).await?,
            activity: Arc::default(),
            counts: Arc::default(),
            answered: Mutex::new(Instant::now()),
            lanes: Mutex::default(),
            appends: AtomicU64::new(0),
            scans: Semaphore::new(1),
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            meetings: Arc::new(Semaphore::new(card::MEETINGS_MAX)),
            rates: Rates::new(&config.rates),
            held: Held::default(),
            key: Arc::new(key),
            broker,
            config,
            places,
            tasks,
            stop,
        });
        if shared.config.demo_accounts {
            shared.accounts.add_demo_accounts().await?;
        }
        crate::tasks::start(&shared).await?;
        tracing::info!(realm = %shared.places.realm(), edge = crate::hop::edge(), "the realm is open here");
        Ok(Self { shared })
    }

    /// Makes what a realm needs and does not have, as far as [`RealmConfig::provision`] lets it; starts nothing.
    pub async fn init(broker: &SharedBroker, config: &RealmConfig) -> Result<Made, StartError> {
        make(broker, &Places::new(config.id.clone()), config).await.map(|(made, _)| made)
    }

    /// Gives the realm another key. Its edges have to be restarted with the new file, and its peers to trust the new key.
    pub async fn rotate_key(
        broker: &SharedBroker,
        id: &RealmId,
        key_file: &Path,
    ) -> Result<Rotated, KeyError> {
        key_file::rotate(broker, &Places::new(id.clone()), key_file).await
    }

    /// Whether there is anything of a realm of this id.
    pub async fn exists(broker: &SharedBroker, id: &RealmId) -> Result<bool, OpenError> {
        let streams = Places::new(id.clone()).streams(0);
        Ok(broker.missing(&streams, &[]).await?.len() < streams.len())
    }

    /// Ends the realm's tasks; what they had begun is completed or comes again at the next start.
    pub async fn stop(&self) {
        if let Err(error) = crate::tasks::flush_cursors(&self.shared).await {
            tracing::warn!(realm = %self.id(), %error, "cursors were not saved: some messages will be shown again");
        }
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let (ended, ()) =
            tokio::join!(tokio::time::timeout(STOP_TIMEOUT, self.shared.tasks.wait()), self.shared.leave());
        if ended.is_err() {
            tracing::warn!(realm = %self.id(), tasks = self.shared.tasks.len(), "some tasks did not end in time");
        }
    }

    /// Its id.
    pub fn id(&self) -> &RealmId {
        self.shared.places.realm()
    }

    /// What it was started with.
    pub fn config(&self) -> &RealmConfig {
        &self.shared.config
    }

    /// Logs in: a fresh token. `from` is where the client is; too many failures from one place are slowed down.
    pub async fn login(&self, user: &str, password: &str, from: IpAddr) -> Result<String, LoginError> {
        self.shared.login(user, password, from).await
    }

    /// Makes an account, if the policy lets it, and logs in.
    pub async fn register(
        &self,
        user: &str,
        password: &str,
        country: &str,
        name: &str,
        invite: Option<&str>,
    ) -> Result<String, LoginError> {
        self.shared.register(user, password, country, name, invite).await
    }

    /// Whose session this token stands for, also if another edge opened it a moment ago. For when [`Self::session`] finds
    /// none.
    pub async fn session_anywhere(&self, token: &str) -> Result<Option<(SessionKey, UserName)>, KvError> {
        self.shared.sessions.look_up(token).await?;
        if let Some((_, session)) = self.shared.sessions.find(token) {
            self.shared.accounts.copy.fresh(session.user.as_str()).await?;
        }
        Ok(self.session(token))
    }

    /// Whose session this token stands for.
    pub fn session(&self, token: &str) -> Option<(SessionKey, UserName)> {
        let (key, session) = self.shared.sessions.find(token)?;
        self.shared.is_current(&session).then(|| (key, session.user.clone()))
    }

    /// Whether a session has neither ended nor expired.
    pub fn is_live(&self, key: &SessionKey) -> bool {
        self.shared.sessions.get(key).is_some_and(|session| self.shared.is_current(&session))
    }

    /// Ends a session: its token is dead when this returns.
    pub async fn logout(&self, key: &SessionKey, user: &UserName) -> Result<(), KvError> {
        self.shared.sessions.end(key).await?;
        self.shared.record(RealmEvent::LoggedOut { user: user.clone() }).await;
        Ok(())
    }

    /// Changes a password and ends the user's other sessions.
    pub async fn passwd(
        &self,
        user: &UserName,
        key: &SessionKey,
        old: &str,
        new: &str,
        from: IpAddr,
    ) -> Result<(), LoginError> {
        self.shared.passwd(user, key, old, new, from).await
    }

    /// Queues a message; the returned future yields what became of it. See [`Send`].
    pub async fn send(
        &self,
        from: &UserName,
        what: Send<'_>,
        text: &str,
        id: impl Into<SendId>,
    ) -> Result<Sending, SendError> {
        let id = id.into();
        let span =
            tracing::info_span!(target: SPANS, "send", realm = %self.id(), id = %id.message().0.hyphenated());
        self.shared.send(from, what, Said { text, file: None }, id).instrument(span).await
    }

    /// Unread messages from this realm.
    pub async fn inbox(&self, user: &UserName) -> Result<Unread, ReadError> {
        let span = tracing::info_span!(target: SPANS, "read", realm = %self.id());
        self.shared.unread_here(user).instrument(span).await
    }

    /// Unread messages exchanged with another realm; with the own id, with any. `None` if it was not added.
    pub async fn realm_inbox(&self, user: &UserName, realm: &RealmId) -> Result<Option<Unread>, ReadError> {
        if realm != self.id()
            && !self.shared.peers.is_known(realm)
            && self.shared.peers.copy.fresh(realm.as_str()).await.map_err(unavailable)?.is_none()
        {
            return Ok(None);
        }
        self.shared.unread_realm(user, realm).await.map(Some)
    }

    /// Marks as read what a reply has shown, and makes that durable.
    pub async fn mark_read(&self, marks: Vec<ReadMark>) {
        let keys = marks.iter().map(ReadMark::key).collect();
        self.mark_seen(marks);
        if let Err(error) = crate::tasks::flush_keys(&self.shared, keys).await {
            tracing::warn!(realm = %self.id(), %error, "a cursor is not durable yet");
        }
    }

    /// Marks as read what a watch has pushed; durable within half a second.
    pub fn mark_seen(&self, marks: Vec<ReadMark>) {
        for mark in marks {
            self.shared.cursors.advance(mark);
        }
    }

    /// What `watch` pushes.
    pub async fn watch(&self, user: &UserName) -> Result<Feed, ReadError> {
        self.shared.watch(user).await
    }

    /// What was said. See [`With`]. `None` if there is no message `before`.
    pub async fn history(
        &self,
        user: &UserName,
        with: &With,
        before: Option<MessageId>,
        limit: usize,
    ) -> Result<Option<History>, ReadError> {
        self.shared.history(user, with, before, limit).await
    }

    /// Where a message is that `user` sent; `None` if there is none of this id.
    pub async fn status(&self, user: &UserName, id: MessageId) -> Result<Option<MessageStatus>, ReadError> {
        self.shared.status(user, id).await
    }

    /// Users with a live session, by login, with how many they have.
    pub fn online(&self) -> Arc<Vec<(UserName, usize)>> {
        self.shared.sessions.users()
    }

    /// How many live sessions a user has; `None` if there is no such account.
    pub fn presence(&self, user: &UserName) -> Option<usize> {
        self.shared.accounts.get(user)?;
        Some(self.shared.sessions.count(user))
    }

    /// Display name and country of a user.
    pub fn profile(&self, user: &UserName) -> Option<(String, String)> {
        self.shared.accounts.get(user).map(|account| (account.name.clone(), account.country.clone()))
    }

    /// The first `limit` enabled accounts whose name begins with `prefix`, with display names; whether there are more.
    pub fn users(&self, prefix: &str, limit: usize) -> (Vec<(UserName, String)>, bool) {
        let all = self.shared.accounts.copy.all().into_iter().map(|(_, account)| account);
        let wanted = all.filter(|account| !account.disabled && account.user.as_str().starts_with(prefix));
        let mut users: Vec<_> = wanted.map(|account| (account.user.clone(), account.name.clone())).collect();
        users.sort();
        let more = users.len() > limit;
        users.truncate(limit);
        (users, more)
    }

    /// Adds another realm on behalf of a user. HOST and PORT are kept for people to see.
    pub async fn add_realm(
        &self,
        by: &UserName,
        realm: &RealmId,
        host: &str,
        port: u16,
    ) -> Result<(), AddRealmError> {
        if realm == self.id() {
            return Err(AddRealmError::Exists);
        }
        if !host_is_sane(host) {
            return Err(AddRealmError::Refused("HOST has up to 253 printable characters".into()));
        }
        self.shared.introduce(by, realm, host, port).await?;
        let (user, realm) = (by.clone(), realm.clone());
        self.shared.record(RealmEvent::RealmAdded { user, realm }).await;
        Ok(())
    }

    /// Whether the broker answers, or did so a moment ago: a connection that is lost and made again is no reason to send
    /// clients elsewhere. An error says how long it has not answered, and why.
    pub async fn ready(&self) -> Result<(), NotReady> {
        let subject = self.shared.places.event();
        let answer = tokio::time::timeout(READY_TIMEOUT, self.shared.broker.last(&subject)).await;
        let why = match answer {
            Ok(Ok(_)) => {
                self.shared.has_answered();
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", READY_TIMEOUT.as_secs()),
        };
        let silent = self.shared.silent_for();
        if silent < READY_GRACE { Ok(()) } else { Err(NotReady { silent, why }) }
    }

    /// What this edge counts.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.shared.counts
    }

    /// How the realm is. See [`crate::status`].
    pub async fn realm_status(&self) -> Result<RealmStatus, ReadError> {
        status(&self.shared.broker, self.id()).await
    }

    /// What this edge tells of itself, to be filled by whoever has the connections.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.shared.activity
    }

    /// The peers, each with the state of the lane to it.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, ReadError> {
        self.shared.peer_infos().await
    }

    /// The address of a user of this realm.
    pub fn address(&self, user: &UserName) -> Address {
        Address { user: user.clone(), realm: self.id().clone() }
    }
}

/// Opens the copies of a realm's buckets.
struct Copies<'a> {
    broker: &'a SharedBroker,
    places: &'a Places,
    tasks: &'a TaskTracker,
    stop: &'a CancellationToken,
}

impl Copies<'_> {
    async fn open<T>(&self, name: &str) -> Result<KvCopy<T>, KvError>
    where
        T: serde::Serialize + serde::de::DeserializeOwned + std::marker::Send + Sync + 'static,
    {
        KvCopy::open(self.broker.clone(), self.places.bucket(name), self.tasks, self.stop.clone()).await
    }
}
