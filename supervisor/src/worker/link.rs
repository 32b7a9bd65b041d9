//! The socket to one worker: accepting it and nobody else, agreeing on the protocol, and frames in
//! both directions.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::StreamCommon as _;
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName as _};
use orcd_shared::protocol::frame::{self, FrameError};
use orcd_shared::protocol::message::{MAX_PARALLEL, ToSupervisor, ToWorker};
use orcd_shared::protocol::version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::handles::{DescriptorChannel, Handover};

/// Messages that may wait for the worker to read them: for each of its slots a job and that job's
/// cancellation, a slot being free again only when the worker has answered; and beside them the
/// load request, what it is told of its pool (that it serves, and that all is settled) and the end.
/// So no worker, however far it is behind, is ever found clogged for what it was rightly sent: one
/// that reads nothing is found out by what it doesn't say. Memory is taken only for messages that do
/// wait.
pub const OUTGOING_CAPACITY: usize = 2 * MAX_PARALLEL as usize + 4;

/// What a reader asks of the socket at once: some hundred steps.
const READ_BYTES: usize = 16 << 10;

/// A worker that has just been started connects and says Hello within this time.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket can't be listened on.
    #[error("no socket at {path}: {source}")]
    Listen {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The worker did not connect and say Hello.
    #[error("the worker did not connect within {} s", HANDSHAKE_LIMIT.as_secs())]
    TooLate,
    /// Another version.
    #[error(
        "the worker speaks protocol {theirs} (build {build}), this supervisor speaks {} (build \
         {}); install both from one build or point --worker-bin to the right one",
        version::PROTOCOL,
        version::BUILD
    )]
    Mismatch {
        /// The worker's protocol.
        theirs: u32,
        /// The worker's build.
        build: String,
    },
    /// Something else than Hello came first.
    #[error("the worker did not begin with Hello; point --worker-bin to a cuda-worker")]
    NoHello,
    /// The peer closed the socket.
    #[error("the worker closed its socket")]
    Closed,
    /// Bytes that are no message.
    #[error("the worker sent a bad frame: {0}")]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error("the socket to the worker failed: {0}")]
    Io(#[from] io::Error),
}

/// Listens for one worker.
///
/// # Errors
/// [`LinkError::Listen`].
pub fn listen(path: &Path) -> Result<Listener, LinkError> {
    path.to_fs_name::<GenericFilePath>()
        .and_then(|name| ListenerOptions::new().name(name).create_tokio())
        .map_err(|source| LinkError::Listen {
            path: path.display().to_string(),
            source,
        })
}

/// Waits for the process `pid` to connect; anybody else is turned away.
///
/// # Errors
/// The listener failed.
pub async fn accept(listener: &Listener, pid: u32) -> Result<Stream, LinkError> {
    loop {
        let stream = listener.accept().await?;
        let peer = stream.peer_creds()?.pid();
        if peer.and_then(|peer| u32::try_from(peer).ok()) == Some(pid) {
            return Ok(stream);
        }
        tracing::warn!(
            ?peer,
            expected = pid,
            "rejected another process on the worker's socket"
        );
    }
}

/// Reads messages off a link.
#[derive(Debug)]
pub struct Reader {
    stream: Arc<Stream>,
    buffer: BytesMut,
}

impl Reader {
    /// A reader of `stream`.
    #[must_use]
    pub fn new(stream: Arc<Stream>) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(READ_BYTES),
        }
    }

    /// The next message. Safe to drop while it waits.
    ///
    /// # Errors
    /// [`LinkError::Closed`] at the end of the stream; any error ends the link.
    pub async fn next(&mut self) -> Result<ToSupervisor, LinkError> {
        loop {
            if let Some((message, taken)) = frame::decode(&self.buffer)? {
                self.buffer.advance(taken);
                return Ok(message);
            }
            self.buffer.reserve(READ_BYTES);
            if (&*self.stream).read_buf(&mut self.buffer).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }
}

/// Says Hello and hears the worker's.
///
/// # Errors
/// [`LinkError::Mismatch`] names both sides.
pub async fn shake_hands(stream: &Arc<Stream>, reader: &mut Reader) -> Result<(), LinkError> {
    let ours = ToWorker::Hello {
        protocol: version::PROTOCOL,
        build: version::BUILD.into(),
    };
    let mut bytes = Vec::new();
    frame::encode(&ours, &mut bytes)?;
    (&**stream).write_all(&bytes).await?;
    match reader.next().await? {
        ToSupervisor::Hello { protocol, .. } if protocol == version::PROTOCOL => Ok(()),
        ToSupervisor::Hello {
            protocol: theirs,
            build,
        } => Err(LinkError::Mismatch { theirs, build }),
        _ => Err(LinkError::NoHello),
    }
}

/// A message on its way to the worker.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub message: ToWorker,
    /// Sent ahead of it on the descriptor channel.
    pub handover: Handover,
}

/// What goes out in one write: about what a socket holds, so that the worker reads while the next messages are encoded.
const WRITE_BYTES: usize = 128 << 10;

/// Writes what comes through `queue` until it is closed. Messages that wait together go out in one
/// write, unless they are long.
///
/// # Errors
/// The first failure; the link is then of no more use.
pub async fn write_all(
    stream: Arc<Stream>,
    descriptors: &DescriptorChannel,
    mut queue: mpsc::Receiver<Outgoing>,
) -> Result<(), LinkError> {
    let mut batch = Vec::with_capacity(16);
    let mut bytes = Vec::new();
    while queue.recv_many(&mut batch, 16).await > 0 {
        for outgoing in batch.drain(..) {
            for descriptor in outgoing.handover.descriptors() {
                descriptors.send(descriptor).await?;
            }
            frame::encode(&outgoing.message, &mut bytes)?;
            if bytes.len() >= WRITE_BYTES {
                (&*stream).write_all(&bytes).await?;
                bytes.clear();
            }
        }
        (&*stream).write_all(&bytes).await?;
        bytes.clear();
        if queue.is_empty() {
            // A long prompt must not pin its megabytes for the life of the worker.
            bytes.shrink_to(READ_BYTES);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use orcd_shared::job::JobKey;

    use super::*;

    /// A link and the other end of it, which lives in this process too.
    async fn connected() -> (Arc<Stream>, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = listen(&path).unwrap();
        let peer = UnixStream::connect(&path).unwrap();
        (
            Arc::new(accept(&listener, std::process::id()).await.unwrap()),
            peer,
        )
    }

    #[tokio::test]
    async fn strangers_are_turned_away_and_the_worker_still_gets_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = listen(&path).unwrap();
        let _stranger = UnixStream::connect(&path).unwrap();
        let other_pid = std::process::id() + 1;
        let accepted =
            tokio::time::timeout(Duration::from_millis(50), accept(&listener, other_pid)).await;
        assert!(accepted.is_err());
        let _worker = UnixStream::connect(&path).unwrap();
        accept(&listener, std::process::id()).await.unwrap();
    }

    #[tokio::test]
    async fn messages_come_out_however_the_bytes_arrive() {
        let (stream, mut peer) = connected().await;
        let mut reader = Reader::new(stream);
        let messages: Vec<ToSupervisor> = (0..9)
            .map(|n| ToSupervisor::Cancelled(JobKey(n * 1000)))
            .collect();
        let mut bytes = Vec::new();
        messages
            .iter()
            .for_each(|m| frame::encode(m, &mut bytes).unwrap());
        let writer = std::thread::spawn(move || {
            for chunk in bytes.chunks(3) {
                peer.write_all(chunk).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for message in messages {
            assert_eq!(reader.next().await.unwrap(), message);
        }
        assert!(matches!(reader.next().await, Err(LinkError::Closed)));
        writer.join().unwrap();
    }

    #[tokio::test]
    async fn garbage_ends_the_link() {
        let (stream, mut peer) = connected().await;
        peer.write_all(&[0xff; 64]).unwrap();
        let error = Reader::new(stream).next().await.unwrap_err();
        assert!(
            matches!(error, LinkError::Frame(FrameError::TooLong { .. })),
            "{error}"
        );
    }

    #[tokio::test]
    async fn hello_is_wanted_first() {
        let (stream, mut peer) = connected().await;
        let mut bytes = Vec::new();
        frame::encode(&ToSupervisor::Cancelled(JobKey(1)), &mut bytes).unwrap();
        peer.write_all(&bytes).unwrap();
        let mut reader = Reader::new(Arc::clone(&stream));
        let error = shake_hands(&stream, &mut reader).await.unwrap_err();
        assert!(matches!(error, LinkError::NoHello));
    }
}
