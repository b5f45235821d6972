//! A running server: listeners, broker, realms and edges of one process, from the start to the last reply.
//!
//! Owns: the order in which things start and end. Must not know: where settings come from.

use std::net::SocketAddr;
use std::time::Duration;

use antar_broker::OpenError;
use antar_edge::{Certificates, EdgeConfig, Listeners, RELOAD_CHECK};
use antar_realm::{Realm, RealmConfig, StartError};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::{BrokerConfig, CertificateFiles};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::say;

/// From the signal to the end of the process, whatever clients, realms and disk do (issue: 10 s).
const SHUTDOWN_MAX: Duration = Duration::from_secs(9);

/// One realm to be served, and where.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The realm.
    pub(crate) realm: RealmConfig,
    /// Where its clients connect.
    pub(crate) command: SocketAddr,
    /// Where its clients connect over TLS.
    pub(crate) tls: Option<SocketAddr>,
    /// Where its page is, and its health is answered.
    pub(crate) http: Option<SocketAddr>,
    /// What is shown to clients that speak TLS.
    pub(crate) certificate: Option<CertificateFiles>,
    /// The flag that chooses another address, for the message if this one is taken.
    pub(crate) flag: &'static str,
    /// The same for `http`.
    pub(crate) http_flag: &'static str,
}

/// Where a site listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// For clients.
    pub(crate) command: SocketAddr,
    /// For HTTP.
    pub(crate) http: Option<SocketAddr>,
}

/// A site whose addresses are taken.
struct Bound {
    realm: RealmConfig,
    listeners: Listeners,
}

/// Serves `sites` from one broker until a signal comes. `welcome` is called once all of them listen.
pub(crate) async fn run(
    broker: &BrokerConfig,
    edge: &EdgeConfig,
    sites: Vec<Site>,
    welcome: impl FnOnce(&[Addresses]) -> Outcome,
) -> Outcome {
    let (stop, reload) = (on_signal()?, signal(SignalKind::hangup())?);
    // Addresses first: a port that is taken is found before anything is opened or made.
    let bound = sites.into_iter().map(bind).collect::<Outcome<Vec<_>>>()?;
    let opened = antar_broker::open(&broker.settings()).await.map_err(|error| open_failure(&error))?;
    let (mut edges, mut realms, mut addresses) = (JoinSet::new(), Vec::new(), Vec::new());
    let mut certificates = Vec::new();
    for site in bound {
        let id = site.realm.id.clone();
        let realm =
            Realm::start(opened.clone(), site.realm).await.map_err(|error| start_failure(&id, error))?;
        let Listeners { command, tls, http, certificates: shown } = &site.listeners;
        let address = command.local_addr()?;
        let local =
            |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        let (tls, http) = (local(tls)?, local(http)?);
        addresses.push(Addresses { command: address, http });
        let http = http.map_or_else(|| "off".into(), |http| http.to_string());
        certificates.extend(shown.clone());
        edges.spawn(antar_edge::run(site.listeners, realm.clone(), edge.clone(), stop.clone()));
        realms.push(realm);
        if !address.ip().is_loopback() {
            tracing::warn!(command = %address, "plain text beyond this machine: passwords and messages cross the network readable");
        }
        let shown = tls.map_or_else(|| "off".into(), |tls| tls.to_string());
        tracing::info!(realm = %id, command = %address, tls = shown, http, broker = %broker, "listening");
        let tls = tls.map_or_else(String::new, |tls| format!(" tls={tls}"));
        say::line(format!("listening realm={id} command={address} http={http}{tls}"))?;
    }
    welcome(&addresses)?;
    // Cancel-safe: what is dropped has nothing half done between two looks.
    tokio::select! {
        () = stop.cancelled() => {}
        () = keep_certificates(&certificates, reload) => {}
    }
    let deadline = Instant::now() + SHUTDOWN_MAX;
    tracing::info!("stopping: no new connections, what is in flight is finished");
    let drained = timeout_at(deadline, async {
        while edges.join_next().await.is_some() {}
        for realm in &realms {
            realm.stop().await;
        }
        opened.close().await;
    });
    match drained.await {
        Ok(()) => tracing::info!("stopped"),
        // What was answered OK is on disk already; the rest was promised to nobody.
        Err(_) => tracing::warn!(edges = edges.len(), "stopped before all was finished"),
    }
    Ok(())
}

fn bind(site: Site) -> Outcome<Bound> {
    let listen = |address: SocketAddr, flag: &str| {
        antar_edge::bind(address).map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    format!("something listens there already: stop it, or choose another by {flag}")
                }
                std::io::ErrorKind::PermissionDenied => {
                    format!("ports below 1024 need a privilege: choose another by {flag}")
                }
                std::io::ErrorKind::AddrNotAvailable => {
                    format!("this machine does not have that address: choose another by {flag}")
                }
                _ => format!("choose another by {flag}"),
            };
            Failure::new(Exit::Failed, format!("cannot listen on {address}: {error}; {advice}"))
        })
    };
    let read = |files: CertificateFiles| Certificates::read(&files.certificate, &files.key);
    let certificates = site.certificate.map(read).transpose().or_exit(Exit::Usage)?;
    let command = listen(site.command, site.flag)?;
    let tls = site.tls.map(|address| listen(address, "listen.tls")).transpose()?;
    let http = site.http.map(|address| listen(address, site.http_flag)).transpose()?;
    Ok(Bound { realm: site.realm, listeners: Listeners { command, tls, http, certificates } })
}

/// Reads certificates again when they have changed, and on SIGHUP. Never returns.
async fn keep_certificates(certificates: &[Certificates], mut reload: Signal) {
    loop {
        // Both are cancel-safe. A hangup never ends a server, with certificates or without.
        let asked = tokio::select! {
            _ = reload.recv() => true,
            () = tokio::time::sleep(RELOAD_CHECK), if !certificates.is_empty() => false,
        };
        for shown in certificates {
            let shown = shown.clone();
            // Small files, but a file system may hang; then there is no further reload, and nothing else waits.
            let _ = tokio::task::spawn_blocking(move || shown.reload(asked)).await;
        }
    }
}

/// The exit code and the message for a broker that cannot be opened.
pub(crate) fn open_failure(error: &OpenError) -> Failure {
    let exit = match error {
        OpenError::Unreachable(_) => Exit::Unreachable,
        OpenError::Invalid(_) => Exit::Usage,
        OpenError::Differs { .. } | OpenError::Damaged(_) | OpenError::Newer(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// The exit code and the message for a realm that cannot be started.
pub(crate) fn start_failure(realm: &antar_proto::RealmId, error: StartError) -> Failure {
    let exit = match &error {
        StartError::Open(error) => open_failure(error).exit,
        StartError::Kv(_) | StartError::Serve(_) => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure { exit, error: anyhow::Error::new(error).context(format!("realm {realm} cannot be started")) }
}

/// A token that the first SIGTERM or SIGINT cancels; the second one ends the process at once.
fn on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    // Lives as long as the process, so nobody waits for it.
    tokio::spawn(async move {
        for first in [true, false] {
            // Both are cancel-safe: a signal that is not taken here is taken in the next round.
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                cancel.cancel();
            } else {
                std::process::exit(Exit::Failed as i32);
            }
        }
    });
    Ok(stop)
}
