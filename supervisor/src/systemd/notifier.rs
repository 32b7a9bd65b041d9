//! Sends notifications to `$NOTIFY_SOCKET`.
//!
//! Our own sender and not a crate's: those block while systemd is busy, and a blocked thread here
//! is a thread that sends no tokens.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orcd_shared::descriptors;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::Message;

/// How long a full queue is waited for. It holds messages of all services.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long systemd may take to work off its queue.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// The way to systemd; without one, a notification goes nowhere.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    address: Option<SocketAddr>,
    /// The last message did not get through; shared by clones.
    failing: Arc<AtomicBool>,
}

impl Notifier {
    /// Sends to `socket`: a path, or `@` and an abstract name.
    #[must_use]
    pub fn new(socket: Option<&OsStr>) -> Self {
        let Some(socket) = socket else {
            return Self::default();
        };
        match address(socket) {
            Ok(address) => Self {
                address: Some(address),
                ..Self::default()
            },
            Err(error) => {
                tracing::warn!(?socket, %error, "NOTIFY_SOCKET can't be used: systemd gets no notifications");
                Self::default()
            }
        }
    }

    /// Whether there is a service manager to notify.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.address.is_some()
    }

    /// Sends `message`, and duplicates of `fds` with it. Waits a moment where systemd's queue is
    /// full; the first failure of several is logged.
    pub async fn notify(&self, message: &Message, fds: &[BorrowedFd<'_>]) {
        let end = Instant::now() + SEND_TIMEOUT;
        while let Err(error) = self.try_notify(message, fds) {
            if error.kind() != io::ErrorKind::WouldBlock || Instant::now() >= end {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%message, %error, "systemd could not be notified");
                }
                return;
            }
            sleep(PAUSE).await;
        }
        self.failing.store(false, Ordering::Relaxed);
    }

    /// Waits until systemd has done what the messages so far ask for: it closes what comes with this one after them.
    pub async fn barrier(&self) {
        if !self.is_there() {
            return;
        }
        let seen = async {
            let (theirs, mut ours) = pipe::pipe()?;
            let theirs = theirs.into_blocking_fd()?;
            self.notify(&Message::default().with("BARRIER", 1), &[theirs.as_fd()])
                .await;
            drop(theirs);
            ours.read_u8().await
        };
        // It ends as an error, for nobody ever writes.
        if timeout(BARRIER_TIMEOUT, seen).await.is_err() {
            tracing::warn!("systemd has not yet done what it was asked for");
        }
    }

    /// A socket for each message: what was connected to before systemd was started again would lead
    /// nowhere.
    fn try_notify(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(address) = &self.address else {
            return Ok(());
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(address)?;
        descriptors::send(&socket, message.as_bytes(), fds)
    }
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "neither an absolute path nor an abstract name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_of_socket_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("@orcd-test-{}", fastrand::u64(..));
        for socket in [path.as_os_str(), OsStr::new(&name)] {
            let double = UnixDatagram::bind_addr(&address(socket).unwrap()).unwrap();
            let notifier = Notifier::new(Some(socket));
            notifier
                .notify(&Message::default().with("READY", 1), &[])
                .await;
            let mut buffer = [0; 64];
            let n = double.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"READY=1\n", "{socket:?}");
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for_without_a_thread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let double = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str()));
        let message = Message::default().with("STATUS", "x");
        let mut queued = 0;
        while notifier.try_notify(&message, &[]).is_ok() {
            queued += 1;
            assert!(queued < 100_000, "a queue without end");
        }
        // On this single-threaded runtime, a send that blocked would never let the reader run.
        let reader = async {
            sleep(PAUSE * 3).await;
            double.recv(&mut [0; 64]).unwrap();
        };
        let begin = Instant::now();
        tokio::join!(notifier.notify(&message, &[]), reader);
        assert!(begin.elapsed() < SEND_TIMEOUT);
        double.set_nonblocking(true).unwrap();
        let mut left = 0;
        while double.recv(&mut [0; 64]).is_ok() {
            left += 1;
        }
        assert_eq!(left, queued, "one taken, one sent");
    }

    #[tokio::test]
    async fn nobody_there_is_no_error() {
        for socket in ["vsock:2:1234", "relative", "/nowhere/notify"] {
            let notifier = Notifier::new(Some(OsStr::new(socket)));
            assert_eq!(notifier.is_there(), socket.starts_with('/'));
            notifier
                .notify(&Message::default().with("READY", 1), &[])
                .await;
        }
        assert!(!Notifier::new(None).is_there());
    }
}
