//! A TCP line that can be cut without a word, one way or both, and be whole again.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::exit::Outcome;

/// Bytes that are on their way in one direction; more wait in the sender's socket.
const PIECE_BYTES: usize = 64 * 1024;

/// A line to one address. It ends when this is dropped.
pub(crate) struct Link {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    /// Up and down: nothing gets through.
    cut: watch::Sender<[bool; 2]>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// One from a free port to `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let cut = watch::Sender::new([false; 2]);
        let (mut tasks, seen) = (JoinSet::new(), cut.subscribe());
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                lines.spawn(join(client, upstream, seen.clone()));
                while lines.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, cut, _tasks: tasks })
    }

    /// Cuts it, up (to the server), down, or mends it. What is sent meanwhile arrives afterwards.
    pub(crate) fn cut(&self, ways: [bool; 2]) {
        self.cut.send_replace(ways);
    }
}

async fn join(client: TcpStream, upstream: SocketAddr, cut: watch::Receiver<[bool; 2]>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(carry(from_client, to_server, 0, cut.clone()), carry(from_server, to_client, 1, cut));
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: usize,
    mut cut: watch::Receiver<[bool; 2]>,
) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let is_open = cut.wait_for(|ways| !ways[way]).await.is_ok();
        if !is_open || to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
