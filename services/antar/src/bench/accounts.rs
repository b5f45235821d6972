//! The accounts of the bench: made if they are not there, logged in, logged out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::talk::{Talk, refused};
use crate::exit::{Exit, Failure, Outcome};

/// Logins at once: each costs the server 20 ms of hashing and 19 MiB.
const LOGINS_MAX: u32 = 16;
/// How often a `slow-down` is waited out, a second each time.
const SLOW_DOWN_RETRIES_MAX: u32 = 120;

/// A logged-in account.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Its user.
    pub(crate) user: String,
    /// Its token.
    pub(crate) token: String,
}

/// The name of the account `number`.
pub(crate) fn user(number: u32) -> String {
    format!("bench-{number}")
}

/// Logs in the accounts `bench-0` to `bench-(count - 1)`, making those that are not there; in this order.
pub(crate) async fn log_in(server: SocketAddr, count: u32, password: &str) -> Outcome<Vec<Session>> {
    let next = Arc::new(AtomicU32::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..count.min(LOGINS_MAX) {
        let (next, password) = (next.clone(), password.to_owned());
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Outcome::Ok(done);
                }
                // A connection each, so that none of them stands for several users.
                let mut talk = Talk::connect(server).await?;
                done.push((number, log_in_one(&mut talk, user(number), &password).await?));
            }
        });
    }
    let mut sessions = Vec::new();
    while let Some(done) = workers.join_next().await {
        sessions.extend(done??);
    }
    sessions.sort_by_key(|(number, _)| *number);
    Ok(sessions.into_iter().map(|(_, session)| session).collect())
}

async fn log_in_one(talk: &mut Talk, user: String, password: &str) -> Outcome<Session> {
    let register = format!("register {user} {password} Bench Bench");
    let mut reply = patient(talk, &register).await?;
    if matches!(reply["code"].as_str(), Some("user-exists" | "registration-closed")) {
        let closed = reply["code"] == "registration-closed";
        let auth = format!("auth {user} {password}");
        reply = patient(talk, &auth).await?;
        if closed && reply["code"] == "no-such-account" {
            let message = format!(
                "there is no account {user} and the server lets nobody register: set auth.registration to open, or make \
                 the accounts with `antar user import`"
            );
            return Err(Failure::new(Exit::Rejected, message));
        }
    }
    match reply["tokenid"].as_str() {
        Some(token) => Ok(Session { user, token: token.to_owned() }),
        None => Err(refused(&register, &reply)),
    }
}

/// Asks, and asks again for as long as the server says `slow-down`.
async fn patient(talk: &mut Talk, line: &str) -> Outcome<serde_json::Value> {
    for _ in 0..SLOW_DOWN_RETRIES_MAX {
        let reply = talk.ask(line).await?;
        if reply["code"] != "slow-down" {
            return Ok(reply);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(Failure::new(Exit::Unreachable, "the server went on saying slow-down"))
}

/// Ends the sessions, so that runs leave none behind.
pub(crate) async fn log_out(server: SocketAddr, sessions: &[Session]) -> Outcome {
    let mut talk = Talk::connect(server).await?;
    for session in sessions {
        talk.ask(&format!("logout {}", session.token)).await?;
    }
    Ok(())
}
