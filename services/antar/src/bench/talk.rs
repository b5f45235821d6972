//! One request and its reply, for what happens before and after a measurement.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::frames::{FrameReader, Kind, kind};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// How long a server may take for a connection or a reply outside of the measurement.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection on which one request at a time is made.
#[derive(Debug)]
pub(crate) struct Talk {
    reader: FrameReader,
    writer: OwnedWriteHalf,
}

impl Talk {
    /// Connects.
    pub(crate) async fn connect(server: SocketAddr) -> Outcome<Self> {
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(server)).await;
        let stream = connected
            .map_err(anyhow::Error::new)
            .and_then(|connected| Ok(connected?))
            .with_context(|| format!("no connection to {server}"))
            .or_exit(Exit::Unreachable)?;
        stream.set_nodelay(true)?;
        let (read, writer) = stream.into_split();
        Ok(Self { reader: FrameReader::new(read), writer })
    }

    /// Makes one request and returns the reply, whatever it says.
    pub(crate) async fn ask(&mut self, line: &str) -> Outcome<Value> {
        let asked = tokio::time::timeout(PATIENCE, self.exchange(line)).await;
        asked.context("no reply in time").or_exit(Exit::Unreachable)?
    }

    async fn exchange(&mut self, line: &str) -> Outcome<Value> {
        let lost = "the server closed the connection";
        self.writer
            .write_all(format!("{line}\r\n").as_bytes())
            .await
            .context(lost)
            .or_exit(Exit::Unreachable)?;
        let mut reply = None;
        while reply.is_none() {
            let each = |frame: &[u8]| {
                if kind(frame) != Kind::Event {
                    reply = Some(serde_json::from_slice(frame));
                }
            };
            self.reader.read(each).await.context(lost).or_exit(Exit::Unreachable)?;
        }
        match reply {
            Some(Ok(reply)) => Ok(reply),
            _ => Err(Failure::new(Exit::Failed, "the reply is not JSON: is this an Antar server?")),
        }
    }

    /// Makes one request whose reply must say OK.
    pub(crate) async fn ask_ok(&mut self, line: &str) -> Outcome<Value> {
        let reply = self.ask(line).await?;
        if reply["status"] == "OK" { Ok(reply) } else { Err(refused(line, &reply)) }
    }

    /// The two sides, for whoever goes on faster.
    pub(crate) fn into_parts(self) -> (FrameReader, OwnedWriteHalf) {
        (self.reader, self.writer)
    }
}

/// The error for a reply that does not say OK. Names the command only: its arguments hold tokens and passwords.
pub(crate) fn refused(line: &str, reply: &Value) -> Failure {
    let text = |name: &str| reply[name].as_str().unwrap_or_default().to_owned();
    let exit = match text("code").as_str() {
        "unavailable" | "slow-down" => Exit::Unreachable,
        "not-authorized" | "bad-password" | "no-such-account" | "bad-credentials" => Exit::NotAuthorised,
        _ => Exit::Rejected,
    };
    let command = line.split(' ').next().unwrap_or_default();
    Failure::new(
        exit,
        format!("{command} was answered {}: {} {}", text("code"), text("message"), text("detail")),
    )
}
