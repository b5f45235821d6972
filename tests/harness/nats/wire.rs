//! A NATS client that owes nothing to any library: what it sees is what is on the wire.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::unlike_any;

/// How long connecting, and a write that nobody takes, may last.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Where it was published.
    pub(crate) subject: String,
    /// Where an answer should go.
    pub(crate) reply: Option<String>,
    /// The lines of its headers, without the first.
    pub(crate) headers: Vec<(String, String)>,
    /// What follows the version in the first line of the headers: `503` when nobody listens.
    pub(crate) status: String,
    /// The rest.
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// The payload as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    messages: VecDeque<Message>,
    errors: Vec<String>,
    inbox: String,
    pongs: u64,
    subscriptions: u64,
}

impl Wire {
    /// What a server says of itself to whoever connects.
    pub(crate) fn hello(addr: SocketAddr) -> Result<String> {
        let mut wire = Self::open(addr)?;
        wire.info()
    }

    /// Connects without a user.
    pub(crate) fn connect(addr: SocketAddr) -> Result<Self> {
        Self::connect_with(addr, "")
    }

    /// Connects as a user.
    pub(crate) fn connect_as(addr: SocketAddr, user: &str, password: &str) -> Result<Self> {
        Self::connect_with(addr, &format!(",\"user\":{user:?},\"pass\":{password:?}"))
    }

    /// Connects with an nkey: `sign` makes the signature of what the server wants signed, in URL-safe base64.
    pub(crate) fn connect_signed(
        addr: SocketAddr,
        key: &str,
        sign: impl FnOnce(&[u8]) -> String,
    ) -> Result<Self> {
        let mut wire = Self::open(addr)?;
        let info = wire.info()?;
        let nonce = info.split_once("\"nonce\":\"").and_then(|(_, rest)| rest.split('"').next());
        let signature = sign(nonce.unwrap_or_default().as_bytes());
        wire.log_in(&format!(",\"nkey\":{key:?},\"sig\":{signature:?}"))
    }

    fn connect_with(addr: SocketAddr, more: &str) -> Result<Self> {
        let mut wire = Self::open(addr)?;
        wire.info()?;
        wire.log_in(more)
    }

    fn log_in(mut self, more: &str) -> Result<Self> {
        let wire = &mut self;
        wire.send(&format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
             \"lang\":\"test\",\"version\":\"1\",\"protocol\":1{more}}}\r\n"
        ))?;
        wire.subscribe(&format!("{}.*", wire.inbox))?;
        wire.flush()?;
        Ok(self)
    }

    fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            messages: VecDeque::new(),
            errors: Vec::new(),
            inbox: format!("_INBOX.{:016x}", unlike_any()),
            pongs: 0,
            subscriptions: 0,
        })
    }

    fn info(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.line() {
                return Ok(line);
            }
            self.fill(deadline)?;
        }
    }

    /// Everything that the server complained about so far, for instance a permission that is missing.
    pub(crate) fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Asks for everything that is published on these subjects.
    pub(crate) fn subscribe(&mut self, subject: &str) -> Result<()> {
        self.subscriptions += 1;
        let id = self.subscriptions;
        self.send(&format!("SUB {subject} {id}\r\n"))
    }

    /// Publishes without waiting for anything.
    pub(crate) fn publish(&mut self, subject: &str, payload: impl AsRef<[u8]>) -> Result<()> {
        self.publish_with(subject, None, &[], payload.as_ref())
    }

    /// Publishes with an address for the answer and with headers.
    pub(crate) fn publish_with(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<()> {
        let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
        let mut bytes = Vec::new();
        if headers.is_empty() {
            write!(bytes, "PUB {subject} {reply}{}\r\n", payload.len())?;
        } else {
            let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("NATS/1.0\r\n{lines}\r\n");
            write!(bytes, "HPUB {subject} {reply}{} {}\r\n{head}", head.len(), head.len() + payload.len())?;
        }
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.stream.write_all(&bytes)
    }

    /// Waits until the server has taken all that was sent.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let (wanted, deadline) = (self.pongs + 1, Instant::now() + PATIENCE);
        self.send("PING\r\n")?;
        while self.pongs < wanted {
            self.read_more(deadline)?;
        }
        Ok(())
    }

    /// Asks and waits for one answer; `None` when nobody listens there or nobody answers in time.
    pub(crate) fn request(&mut self, subject: &str, payload: impl AsRef<[u8]>) -> Result<Option<Message>> {
        self.request_with(subject, &[], payload.as_ref(), Duration::from_secs(2))
    }

    /// The same with headers and another deadline.
    pub(crate) fn request_with(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
        patience: Duration,
    ) -> Result<Option<Message>> {
        let reply = format!("{}.{:016x}", self.inbox, unlike_any());
        self.publish_with(subject, Some(&reply), headers, payload)?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(at) = self.messages.iter().position(|message| message.subject == reply) {
                return Ok(self.messages.remove(at).filter(|answer| !answer.status.starts_with("503")));
            }
            match self.read_more(deadline) {
                Err(e) if e.kind() == ErrorKind::TimedOut => return Ok(None),
                other => other?,
            }
        }
    }

    /// Asks everybody and collects the answers that come in `span`.
    pub(crate) fn ask_all(&mut self, subject: &str, span: Duration) -> Result<Vec<Message>> {
        let reply = format!("{}.{:016x}", self.inbox, unlike_any());
        self.publish_with(subject, Some(&reply), &[], b"")?;
        let deadline = Instant::now() + span;
        loop {
            match self.read_more(deadline) {
                Err(e) if e.kind() == ErrorKind::TimedOut => break,
                other => other?,
            }
        }
        let (answers, others) = self.messages.drain(..).partition(|message| message.subject == reply);
        self.messages = others;
        Ok(Vec::from(answers))
    }

    /// The next message of a subscription; `None` when none comes in time.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Option<Message>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            match self.read_more(deadline) {
                Err(e) if e.kind() == ErrorKind::TimedOut => return Ok(None),
                other => other?,
            }
        }
    }

    fn send(&mut self, line: &str) -> Result<()> {
        self.stream.write_all(line.as_bytes())
    }

    /// Takes in one operation of the server.
    fn read_more(&mut self, deadline: Instant) -> Result<()> {
        loop {
            if self.take_operation()? {
                return Ok(());
            }
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => {
                let said = self.errors.join("; ");
                Err(Error::new(ErrorKind::ConnectionAborted, format!("the server closed: {said}")))
            }
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Takes the first line out of the buffer.
    fn line(&mut self) -> Option<String> {
        let at = self.buffer.windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
        self.buffer.drain(..at + 2);
        Some(line)
    }

    /// Whether there was a whole operation in the buffer.
    fn take_operation(&mut self) -> Result<bool> {
        let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") else { return Ok(false) };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["MSG" | "HMSG", ..] => {
                let bad = || Error::new(ErrorKind::InvalidData, line.clone());
                let has_head = words[0] == "HMSG";
                let sizes = if has_head { 2 } else { 1 };
                let size = |word: &str| word.parse::<usize>().map_err(|_| bad());
                let total = size(words.last().ok_or_else(bad)?)?;
                let head = if has_head { size(words[words.len() - 2])? } else { 0 };
                let from = end + 2;
                if self.buffer.len() < from + total + 2 {
                    return Ok(false);
                }
                let reply = (words.len() == 4 + sizes).then(|| words[3].to_owned());
                let (status, headers) = parse_head(&self.buffer[from..from + head]);
                self.messages.push_back(Message {
                    subject: words[1].to_owned(),
                    reply,
                    headers,
                    status,
                    payload: self.buffer[from + head..from + total].to_vec(),
                });
                self.buffer.drain(..from + total + 2);
            }
            _ => {
                self.buffer.drain(..end + 2);
                match words.first() {
                    Some(&"PING") => self.send("PONG\r\n")?,
                    Some(&"PONG") => self.pongs += 1,
                    Some(&"-ERR") => self.errors.push(line),
                    _ => {}
                }
            }
        }
        Ok(true)
    }
}

fn parse_head(head: &[u8]) -> (String, Vec<(String, String)>) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next().and_then(|first| first.strip_prefix("NATS/1.0")).unwrap_or_default().trim();
    let pairs = lines.filter_map(|line| line.split_once(':'));
    (status.to_owned(), pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}
