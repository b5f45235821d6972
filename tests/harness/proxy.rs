//! A TCP proxy that stands for a network: it can be cut, one way or both, be slow, and be whole again.
//!
//! Stands on nothing but the standard library, so that the tests of any crate can include it.

#![allow(dead_code, reason = "every test binary that includes this uses some of it")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes that are on their way in one direction of a connection; more wait in the sender's socket.
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// Both.
    Both,
}

/// What the network is like at the moment.
#[derive(Default)]
struct Weather {
    /// Up and down: nothing gets through, and what is sent waits, as it does while TCP repeats itself.
    cut: [bool; 2],
    /// Up and down: how long bytes take.
    delay: [Duration; 2],
    /// New connections are closed at once.
    refusing: bool,
    /// The proxy is gone.
    over: bool,
    /// The sockets of the connections that there are.
    sockets: Vec<TcpStream>,
    /// How many connections there were.
    connections: usize,
    upstream: Option<SocketAddr>,
}

struct Shared {
    weather: Mutex<Weather>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().expect("no holder panics")
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// A proxy; everything that went through it ends when it is dropped.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    addr: SocketAddr,
}

impl Proxy {
    /// One on a free port, to this address.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it listens");
        let weather = Weather { upstream: Some(upstream), ..Weather::default() };
        let shared = Arc::new(Shared { weather: Mutex::new(weather), changed: Condvar::new() });
        let proxy = Self { shared: Arc::clone(&shared), addr };
        thread::spawn(move || {
            for client in listener.incoming() {
                let (over, refusing, upstream) = {
                    let weather = shared.lock();
                    (weather.over, weather.refusing, weather.upstream)
                };
                match (client, upstream) {
                    _ if over => break,
                    (Ok(client), Some(upstream)) if !refusing => {
                        let shared = Arc::clone(&shared);
                        thread::spawn(move || connect(&shared, client, upstream));
                    }
                    _ => {}
                }
            }
        });
        proxy
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same as NATS clients are told it.
    pub(crate) fn nats_url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// How many connections were ever made through it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Where new connections go from now on.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        self.shared.change(|weather| weather.upstream = Some(upstream));
    }

    /// Cuts the line without a word: sockets stay open, nothing gets through. What is sent meanwhile arrives after
    /// [`Proxy::heal`], unless somebody has given up by then.
    pub(crate) fn cut(&self, way: Way) {
        self.shared.change(|weather| set(&mut weather.cut, way, true));
    }

    /// Everything gets through again, connections are taken, and nothing is slow.
    pub(crate) fn heal(&self) {
        self.shared.change(|weather| {
            weather.cut = [false; 2];
            weather.delay = [Duration::ZERO; 2];
            weather.refusing = false;
        });
    }

    /// Bytes take this long.
    pub(crate) fn delay(&self, way: Way, delay: Duration) {
        self.shared.change(|weather| set(&mut weather.delay, way, delay));
    }

    /// Closes every connection; new ones are taken.
    pub(crate) fn reset(&self) {
        self.shared.change(close_all);
    }

    /// Closes every connection and all that are made from now on, until [`Proxy::heal`].
    pub(crate) fn refuse(&self) {
        self.shared.change(|weather| {
            weather.refusing = true;
            close_all(weather);
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|weather| {
            weather.over = true;
            close_all(weather);
        });
        // Wakes the thread that waits for connections, so that it sees the end.
        let _ = TcpStream::connect(self.addr);
    }
}

fn close_all(weather: &mut Weather) {
    for socket in weather.sockets.drain(..) {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

fn set<T: Copy>(both: &mut [T; 2], way: Way, value: T) {
    if way != Way::Down {
        both[0] = value;
    }
    if way != Way::Up {
        both[1] = value;
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream, upstream: SocketAddr) {
    let Ok(server) = TcpStream::connect(upstream) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let clone = |socket: &TcpStream| socket.try_clone().expect("a socket can be cloned");
    {
        let mut weather = shared.lock();
        if weather.over || weather.refusing {
            return;
        }
        weather.connections += 1;
        weather.sockets.extend([clone(&client), clone(&server)]);
    }
    let ends = [(clone(&client), clone(&server)), (server, client)];
    for (way, (from, to)) in ends.into_iter().enumerate() {
        let line = Arc::new(Line::default());
        let (weather, reading) = (Arc::clone(shared), Arc::clone(&line));
        thread::spawn(move || reading.take_in(&weather, way, from));
        let weather = Arc::clone(shared);
        thread::spawn(move || line.let_out(&weather, way, to));
    }
}

/// What is on its way in one direction of one connection.
#[derive(Default)]
struct Line {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Empty pieces stand for the end.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// Nobody takes anything any more.
    closed: bool,
}

impl Line {
    fn take_in(&self, shared: &Shared, way: usize, mut from: TcpStream) {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let n = from.read(&mut piece).unwrap_or(0);
            let due = Instant::now() + shared.lock().delay[way];
            let queue = self.queue.lock().expect("no holder panics");
            let full = |queue: &mut Queue| queue.bytes > IN_FLIGHT_BYTES_MAX && !queue.closed;
            let mut queue = self.changed.wait_while(queue, full).expect("no holder panics");
            if queue.closed {
                return;
            }
            queue.bytes += n;
            queue.pieces.push_back((due, piece[..n].to_vec()));
            self.changed.notify_all();
            if n == 0 {
                return;
            }
        }
    }

    fn let_out(&self, shared: &Shared, way: usize, mut to: TcpStream) {
        loop {
            let (due, piece) = {
                let queue = self.queue.lock().expect("no holder panics");
                let empty = |queue: &mut Queue| queue.pieces.is_empty();
                let mut queue = self.changed.wait_while(queue, empty).expect("no holder panics");
                let (due, piece) = queue.pieces.pop_front().expect("it is not empty");
                queue.bytes -= piece.len();
                self.changed.notify_all();
                (due, piece)
            };
            let over = wait_for_weather(shared, way, due);
            if over || piece.is_empty() || to.write_all(&piece).is_err() {
                self.queue.lock().expect("no holder panics").closed = true;
                self.changed.notify_all();
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    }
}

/// Waits until bytes may get through; true when the proxy is gone.
fn wait_for_weather(shared: &Shared, way: usize, due: Instant) -> bool {
    let mut weather = shared.lock();
    loop {
        if weather.over {
            return true;
        }
        let left = due.saturating_duration_since(Instant::now());
        weather = if weather.cut[way] {
            shared.changed.wait(weather).expect("no holder panics")
        } else if left.is_zero() {
            return false;
        } else {
            shared.changed.wait_timeout(weather, left).expect("no holder panics").0
        };
    }
}
