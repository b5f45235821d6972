//! `antar healthcheck`: asks a server on this machine whether it is ready, for container engines and scripts.
//!
//! Owns: one request of HTTP/1.0 with a deadline. Must not know: what readiness is; that is `/readyz` of the edge.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueHint};

use crate::config::{Config, Environment, Sources};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::say;

/// `antar healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks http://ADDR/readyz. Exit code 0: ready; 1: it is not; 3: nobody answers.")]
pub(crate) struct HealthcheckArgs {
    /// Where; without it, listen.http of the configuration.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Configuration file (TOML), the same as that of `antar serve`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

/// From the connect to the last byte: below what engines allow a health check (`HEALTHCHECK --timeout`).
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// More of an answer is not read: the status line and a short body are enough.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;

/// Asks once. Exit 0: ready. 1: it answers that it is not. 3: nobody answers.
pub(crate) fn run(args: &HealthcheckArgs, environment: &Environment) -> Outcome {
    let address = reachable(address(args, environment)?);
    let answer = ask(address).map_err(|error| {
        Failure::new(Exit::Unreachable, format!("no answer from http://{address}/readyz: {error}"))
    })?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    match status(&answer) {
        Some(200) => say::line("ready"),
        Some(status) => Err(Failure::new(Exit::Failed, format!("not ready ({status}): {body}"))),
        None => Err(Failure::new(Exit::Failed, format!("http://{address}/readyz did not answer in HTTP"))),
    }
}

/// Where to ask: `--http`, or what a server with this configuration listens on.
fn address(args: &HealthcheckArgs, environment: &Environment) -> Outcome<SocketAddr> {
    let nowhere = "the configuration has no listen.http to ask: set it, or use --http ADDR";
    if let Some(text) = &args.http {
        let parsed = text.parse();
        return parsed
            .map_err(|_| Failure::new(Exit::Usage, format!("--http: {text:?} is not ADDRESS:PORT")));
    }
    let sources =
        Sources { file: args.config.as_deref(), environment: Some(environment), ..Sources::default() };
    let config = Config::load(sources).or_exit(Exit::Usage)?;
    let address = config.http.filter(|address| address.port() != 0);
    address.ok_or_else(|| Failure::new(Exit::Usage, nowhere))
}

/// A server that listens on every address is asked on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The whole answer, as text.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    get(address, "/readyz", ANSWER_BYTES_MAX)
}

/// What is answered to `GET path`, head and all, up to so many bytes; within 4 s.
pub(crate) fn get(address: SocketAddr, path: &str, bytes_max: u64) -> std::io::Result<String> {
    let deadline = Instant::now() + ANSWER_MAX;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    while (answer.len() as u64) < bytes_max {
        // A timeout for each read alone would let a server that drips bytes hold the check up for ever.
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The number in `HTTP/1.x NNN …`.
fn status(answer: &str) -> Option<u16> {
    let mut words = answer.lines().next()?.split(' ');
    words.next().filter(|word| word.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What the check says to a server that answers `answer` and closes.
    fn of(answer: &'static str) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = Some(listener.local_addr().unwrap().to_string());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let n = stream.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /readyz HTTP/1.0\r\n"), "{:?}", &request[..n]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let outcome = run(&HealthcheckArgs { config: None, http }, &Environment::default());
        server.join().unwrap();
        outcome
    }

    #[test]
    fn only_200_is_ready() {
        assert!(of("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n").is_ok());
        for answer in [
            "HTTP/1.1 503 Service Unavailable\r\n\r\nthe broker does not answer\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "",
            "\r\n\r\n",
            "+OK 200",
        ] {
            assert_eq!(of(answer).unwrap_err().exit, Exit::Failed, "{answer:?}");
        }
        let told = of("HTTP/1.1 503 Service Unavailable\r\n\r\nthe broker does not answer\n").unwrap_err();
        assert!(told.error.to_string().contains("the broker does not answer"), "{told:?}");
    }

    #[test]
    fn nobody_there_is_unreachable_and_no_address_is_a_usage_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let asked = run(&HealthcheckArgs { config: None, http: Some(free) }, &Environment::default());
        assert_eq!(asked.unwrap_err().exit, Exit::Unreachable);
        let environment = Environment::of(&[("ANTAR__REALM__ID", "a")]);
        let asked = run(&HealthcheckArgs { config: None, http: None }, &environment);
        assert_eq!(asked.unwrap_err().exit, Exit::Usage);
        let asked = run(&HealthcheckArgs { config: None, http: Some("x".into()) }, &environment);
        assert_eq!(asked.unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in
            [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:1", "[::1]:1"), ("10.0.0.1:2", "10.0.0.1:2")]
        {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
