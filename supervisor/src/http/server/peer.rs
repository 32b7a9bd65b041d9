//! What the parts of one connection know together: its socket, and how far the request at hand is.

use std::convert::Infallible;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::StatusCode;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// A client that closed its sending half is asked this often whether it still reads: twice within
/// the time in which the contract wants a lost client's job to be cancelled.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Until an answer begins there is nothing to ask with but an interim answer, which simple clients
/// don't expect: they get none if they are answered soon.
const INTERIM_AFTER: Duration = Duration::from_millis(500);
/// The interim answer that all clients know.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Most that is thrown away so that a client gets to read the answer instead of a reset.
const MAX_DISCARDED_BYTES: usize = 16 << 20;

/// One connection's socket and progress.
#[derive(Debug)]
pub(super) struct Peer {
    stream: TcpStream,
    /// Where the other end is; `None` of one that was gone before it was served.
    address: Option<IpAddr>,
    progress: Mutex<Progress>,
    /// The answer under way is to say something, to find out whether anybody reads it.
    ask: AtomicBool,
    answering: AtomicWaker,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// A request has reached the routes.
    pub(super) served: bool,
    /// The answer at hand is the connection's last.
    pub(super) last: bool,
    /// What hyper would have answered by itself, and did not get to write.
    pub(super) withheld: Option<StatusCode>,
    /// Everything written is with the system.
    pub(super) flushed: bool,
    /// The client may be sent interim answers: it speaks HTTP/1.1.
    pub(super) knows_interim: bool,
}

/// What is being done for a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing of the next one has come.
    #[default]
    Idle,
    /// Its head is arriving.
    Head,
    /// It is with its handler.
    Handled,
    /// Its answer is being written.
    Answering,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            address: stream.peer_addr().ok().map(|address| address.ip()),
            stream,
            progress: Mutex::default(),
            ask: AtomicBool::new(false),
            answering: AtomicWaker::new(),
        }
    }

    /// Where the other end is.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the peer has broken the connection: it reads nothing any more.
    pub(super) async fn is_gone(&self) {
        if self.stream.ready(Interest::ERROR).await.is_err() {
            // The runtime is ending, and this with it.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the peer has closed its sending half, and asks from then on whether it reads. One
    /// that does not answers with a reset, which [`is_gone`](Self::is_gone) sees: on the wire a
    /// client that left and one that has merely sent all it had look the same until something is
    /// sent to them.
    pub(super) async fn ask_when_half_closed(&self) -> Infallible {
        // Ready with "read closed"; urgent data, which it also stands for, is not waited for by the
        // socket's registration.
        if self.stream.ready(Interest::PRIORITY).await.is_err() {
            std::future::pending::<()>().await;
        }
        let closed = Instant::now();
        loop {
            self.ask.store(true, Ordering::Relaxed);
            self.answering.wake();
            if closed.elapsed() >= INTERIM_AFTER {
                self.send_interim();
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Whether the answer under way is to say something; else the task is woken when it is.
    pub(super) fn poll_ask(&self, context: &Context<'_>) -> Poll<()> {
        self.answering.register(context.waker());
        match self.ask.swap(false, Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn send_interim(&self) {
        let progress = *self.progress();
        if progress.stage == Stage::Handled && progress.flushed && progress.knows_interim {
            // Nothing else is on its way, so these few bytes fit, or the peer reads nothing.
            let _ = self.stream.try_write(INTERIM);
        }
    }

    /// Writes all of `bytes`.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that nothing more is coming and throws away what still arrives: a socket that is closed
    /// with unread bytes resets the connection, and the client may lose the answer to it.
    pub(super) async fn linger(&self) {
        if shutdown(self.stream.as_raw_fd(), Shutdown::Write).is_err() {
            return;
        }
        let mut buffer = vec![0; 16 << 10];
        let mut left = MAX_DISCARDED_BYTES;
        while left > 0 && self.stream.readable().await.is_ok() {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => left = left.saturating_sub(n),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// Far longer than anything here takes.
    const TEST_TIMEOUT: Duration = Duration::from_secs(20);

    /// A request that is with its handler, and its client.
    async fn handled(knows_interim: bool) -> (Peer, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let peer = Peer::new(accepted.unwrap().0);
        *peer.progress() = Progress {
            stage: Stage::Handled,
            served: true,
            flushed: true,
            knows_interim,
            ..Progress::default()
        };
        (peer, client.unwrap())
    }

    #[tokio::test]
    async fn a_client_whose_answer_is_long_in_coming_is_asked_by_an_interim_one() {
        let (peer, mut client) = handled(true).await;
        let asking = async {
            client.shutdown().await.unwrap();
            let mut interim = vec![0; INTERIM.len()];
            client.read_exact(&mut interim).await.unwrap();
            assert_eq!(interim, INTERIM);
            drop(client);
            peer.is_gone().await;
        };
        tokio::select! {
            never = peer.ask_when_half_closed() => match never {},
            found = timeout(TEST_TIMEOUT, asking) => found.unwrap(),
        }
    }

    #[tokio::test]
    async fn one_that_knows_none_gets_none() {
        let (peer, mut client) = handled(false).await;
        client.shutdown().await.unwrap();
        let asking = timeout(2 * INTERIM_AFTER, peer.ask_when_half_closed());
        assert!(asking.await.is_err());
        let mut buffer = [0; 8];
        let nothing = client.try_read(&mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
}
