//! Memory handles that outlive a worker: file descriptors received from one worker and sent to
//! the next over the descriptor channel (the worker's standard input), and descriptors that this
//! process itself was started with. The only unsafe module of this crate; therefore the C library's
//! allocator is spoken to from here too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use orcd_shared::descriptors;
use orcd_shared::kv::PoolManifest;
use orcd_shared::weights::WeightsManifest;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::awake;

/// Longest wait for the other side to send or take a descriptor. It sends before it says so on the
/// socket, so that this is never waited for in a healthy worker.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Has the C library give free memory back to the system, from all of its arenas.
pub fn give_free_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and touches nothing but free memory, under the allocator's own
    // locks; any thread may call it at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// A weights image that is kept alive by this process holding its descriptor.
#[derive(Debug, Clone)]
pub struct WeightsHandle {
    /// What the descriptor stands for.
    pub manifest: WeightsManifest,
    fd: Arc<OwnedFd>,
}

impl WeightsHandle {
    /// Takes ownership of the descriptor.
    #[must_use]
    pub fn new(manifest: WeightsManifest, fd: OwnedFd) -> Self {
        Self {
            manifest,
            fd: Arc::new(fd),
        }
    }

    /// Whether both keep the same descriptor.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fd, &other.fd)
    }
}

impl AsFd for WeightsHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A pool of KV memory with the ledger of what is in it, kept alive by this process holding their
/// descriptors.
#[derive(Debug, Clone)]
pub struct PoolHandle {
    /// What the descriptors stand for.
    pub manifest: PoolManifest,
    memory: Arc<OwnedFd>,
    ledger: Arc<OwnedFd>,
}

impl PoolHandle {
    /// Takes ownership of the descriptors.
    #[must_use]
    pub fn new(manifest: PoolManifest, memory: OwnedFd, ledger: OwnedFd) -> Self {
        Self {
            manifest,
            memory: Arc::new(memory),
            ledger: Arc::new(ledger),
        }
    }

    /// Whether both keep the same descriptors.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory) && Arc::ptr_eq(&self.ledger, &other.ledger)
    }

    /// Of its pages.
    #[must_use]
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Of what is in them.
    #[must_use]
    pub fn ledger(&self) -> BorrowedFd<'_> {
        self.ledger.as_fd()
    }
}

/// What outlives a worker, as far as it is there: what the next one is sent on the descriptor channel, ahead of a message.
#[derive(Debug, Clone, Default)]
pub struct Handover {
    /// The weights image.
    pub weights: Option<WeightsHandle>,
    /// The pool of KV memory.
    pub pool: Option<PoolHandle>,
}

impl Handover {
    /// No descriptor at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// There is nothing to send.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.weights.is_none() && self.pool.is_none()
    }

    /// The descriptors in the order in which both sides send and receive them: that of the weights,
    /// of the pool's memory, of its ledger.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let weights = self.weights.iter().map(AsFd::as_fd);
        let pool = self.pool.iter();
        weights.chain(pool.flat_map(|pool| [pool.memory(), pool.ledger()]))
    }
}

/// Where a service manager puts the descriptors that it passes on.
const FIRST_INHERITED: RawFd = 3;

/// Takes the `count` descriptors that this process was started with after its standard streams,
/// and makes them close-on-exec: no worker inherits them. Those that are not open are left out, as
/// `None`. Only the first call gets any; it belongs at the very beginning of `main`, while nothing
/// else has opened a descriptor.
#[must_use]
pub fn take_inherited(count: u16) -> Vec<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    (FIRST_INHERITED..)
        .take(usize::from(count))
        .map(|number| {
            std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).ok()?;
            // SAFETY: the descriptor is open, and nothing in this process knows its number: it was
            // there before `main`, and `TAKEN` lets nobody come here twice.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
            Some(fd)
        })
        .collect()
}

/// This side of the descriptor channel. Each descriptor travels with one data byte of no meaning.
#[derive(Debug)]
pub struct DescriptorChannel {
    stream: UnixStream,
}

impl DescriptorChannel {
    /// A new channel and the worker's end of it.
    ///
    /// # Errors
    /// No descriptors left in this process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((
            Self {
                stream: UnixStream::from_std(ours)?,
            },
            theirs.into(),
        ))
    }

    /// Sends a duplicate of `fd`.
    ///
    /// # Errors
    /// The worker is gone or does not read its channel.
    pub async fn send(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let sent = self.stream.async_io(Interest::WRITABLE, || {
            descriptors::send(&self.stream, &[0], &[fd])
        });
        within_timeout(sent).await
    }

    /// Receives one descriptor, close-on-exec.
    ///
    /// # Errors
    /// The worker is gone, or sent none, or more than one.
    pub async fn receive(&self) -> io::Result<OwnedFd> {
        let received = self
            .stream
            .async_io(Interest::READABLE, || descriptors::receive(&self.stream));
        within_timeout(received).await
    }
}

async fn within_timeout<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match awake::timeout(HANDOVER_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "nothing on the descriptor channel within {} s",
                HANDOVER_TIMEOUT.as_secs()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};

    use super::*;

    fn other_end(theirs: OwnedFd) -> DescriptorChannel {
        let stream = StdStream::from(theirs);
        stream.set_nonblocking(true).unwrap();
        DescriptorChannel {
            stream: UnixStream::from_std(stream).unwrap(),
        }
    }

    #[tokio::test]
    async fn descriptor_arrives_with_the_same_file_behind_it_and_close_on_exec() {
        let (ours, theirs) = DescriptorChannel::pair().unwrap();
        let theirs = other_end(theirs);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"weights").unwrap();
        theirs.send(file.as_fd()).await.unwrap();
        drop(file);
        let fd = ours.receive().await.unwrap();
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & nix::libc::FD_CLOEXEC, 0);
        let mut file = std::fs::File::from(fd);
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "weights");
    }

    #[tokio::test]
    async fn closed_channel_and_a_byte_without_descriptor_are_errors() {
        let (ours, theirs) = DescriptorChannel::pair().unwrap();
        let mut stream = StdStream::from(theirs);
        stream.write_all(&[0]).unwrap();
        assert!(ours.receive().await.is_err());
        drop(stream);
        assert!(ours.receive().await.is_err());
        assert!(
            ours.send(tempfile::tempfile().unwrap().as_fd())
                .await
                .is_err()
        );
    }
}
