//! The socket to the supervisor: connecting, and messages off it.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{GenericFilePath, Stream, ToFsName as _};
use nix::sys::resource::{Resource, getrlimit};
use orcd_shared::protocol::frame::{self, FrameError};
use serde::de::DeserializeOwned;

/// What a reader asks of the socket at once; more in the middle of a long message, but not more than a socket holds.
const READ_BYTES: usize = 16 << 10;
const MOST_READ_BYTES: usize = 256 << 10;

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Bytes that are no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
}

/// Connects to the supervisor. Reading and writing work through `&Stream`, from one thread each.
///
/// # Errors
/// Nobody listens there.
pub fn connect(path: &Path) -> io::Result<Arc<Stream>> {
    let stream = Stream::connect(path.to_fs_name::<GenericFilePath>()?)?;
    Ok(Arc::new(dup_to_high_fd(stream)))
}

/// A descriptor above all that this process opens otherwise, below the limit most systems set.
const HIGHEST: i32 = 1023;

/// The same socket under the highest descriptor number there may be. When a process is killed Linux takes
/// its descriptors from the lowest to the highest and releases what they stand for in the opposite
/// order. Releasing a CUDA context takes 20 to 30 ms on an H100; of this socket's end the
/// supervisor shall hear before.
fn dup_to_high_fd(stream: Stream) -> Stream {
    let Stream::UdSocket(socket) = &stream;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let highest = i32::try_from(limit).map_or(HIGHEST, |limit| HIGHEST.min(limit - 1));
    // Without it all is well but for those milliseconds.
    rustix::io::fcntl_dupfd_cloexec(socket, highest)
        .map_or(stream, |fd| Stream::UdSocket(fd.into()))
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    /// Bytes read and not yet taken; grows only with bytes that have come.
    buffer: Vec<u8>,
    /// Bytes of `buffer` that belong to messages already given out.
    taken: usize,
}

impl<R: Read> FrameReader<R> {
    /// A reader at the beginning of a frame.
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    /// Waits for the next message; `None` at the end of the stream, also in the middle of a frame:
    /// a peer that dies while it writes is gone like any other.
    ///
    /// # Errors
    /// The stream can't be read any further.
    pub fn message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, LinkError> {
        loop {
            if let Some((message, bytes)) = frame::decode(&self.buffer[self.taken..])? {
                self.taken += bytes;
                return Ok(Some(message));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            if self.buffer.is_empty() {
                // A long prompt must not pin its megabytes for the life of the process.
                self.buffer.shrink_to(READ_BYTES);
            }
            if !self.read_more()? {
                return Ok(None);
            }
        }
    }

    /// Appends what has come; false at the end of the stream. It asks for as much again as is there, so that a long message
    /// takes few calls, and no more memory than twice what has come.
    fn read_more(&mut self) -> io::Result<bool> {
        let before = self.buffer.len();
        let asked = before.clamp(READ_BYTES, MOST_READ_BYTES);
        self.buffer.resize(before + asked, 0);
        let read = loop {
            match self.source.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What a process leaves unread when it dies resets the connection.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(0),
                other => break other,
            }
        };
        self.buffer
            .truncate(before + read.as_ref().copied().unwrap_or(0));
        Ok(read? > 0)
    }
}

#[cfg(test)]
mod tests {
    use orcd_shared::job::{JobKey, JobOptions, JobSpec};
    use orcd_shared::protocol::message::ToWorker;
    use orcd_shared::sampling::SamplingParams;

    use super::*;

    /// Gives `step` bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(into.len());
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    struct Counted<'a>(Trickle<'a>, &'a std::cell::Cell<usize>);

    impl Read for Counted<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1.set(self.1.get() + 1);
            self.0.read(into)
        }
    }

    #[test]
    fn messages_come_out_however_the_bytes_arrive() {
        let sent: Vec<ToWorker> = (0..50)
            .map(|n| ToWorker::Cancel(JobKey(n * 1000)))
            .collect();
        let mut bytes = Vec::new();
        sent.iter()
            .for_each(|m| frame::encode(m, &mut bytes).unwrap());
        for step in [1, 3, 7, 100, READ_BYTES] {
            let mut reader = FrameReader::new(Trickle(&bytes, step));
            for message in &sent {
                assert_eq!(
                    reader.message::<ToWorker>().unwrap().as_ref(),
                    Some(message)
                );
            }
            assert_eq!(reader.message::<ToWorker>().unwrap(), None);
        }
    }

    #[test]
    fn a_long_message_takes_few_reads() {
        let message = ToWorker::Submit(Box::new(JobSpec {
            key: JobKey(1),
            prompt: (0..1_000_000).collect(),
            emitted: Vec::new(),
            max_tokens: 1,
            sampling: SamplingParams::GREEDY,
            options: JobOptions::default(),
        }));
        let mut bytes = Vec::new();
        frame::encode(&message, &mut bytes).unwrap();
        let reads = std::cell::Cell::new(0);
        let counted = Counted(Trickle(&bytes, usize::MAX), &reads);
        let read = FrameReader::new(counted).message::<ToWorker>().unwrap();
        assert!(read == Some(message));
        let most = bytes.len() / MOST_READ_BYTES + 10;
        assert!(
            reads.get() <= most,
            "{} for {} bytes",
            reads.get(),
            bytes.len()
        );
    }

    #[test]
    fn socket_to_the_supervisor_is_the_first_that_the_kernel_closes() {
        use std::os::fd::{AsFd as _, AsRawFd as _};

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let stream = connect(&path).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let later = std::fs::File::open("/dev/null").unwrap();
        let Stream::UdSocket(socket) = &*stream;
        assert!(socket.as_fd().as_raw_fd() > later.as_raw_fd());
        drop(stream); // no other descriptor holds it open
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn stream_that_ends_inside_a_frame_has_ended() {
        let mut bytes = Vec::new();
        frame::encode(&ToWorker::Shutdown, &mut bytes).unwrap();
        let mut reader = FrameReader::new(&bytes[..bytes.len() - 1]);
        assert_eq!(reader.message::<ToWorker>().unwrap(), None);
    }

    #[test]
    fn announced_size_is_not_allocated_before_it_comes() {
        let frame = [
            &(frame::MAX_FRAME_BYTES as u32).to_le_bytes()[..],
            &[2; 100],
        ]
        .concat();
        let mut reader = FrameReader::new(&frame[..]);
        assert_eq!(reader.message::<ToWorker>().unwrap(), None);
        assert!(reader.buffer.capacity() < 4 * READ_BYTES);

        let mut reader = FrameReader::new(&[0xff; 8][..]);
        let error = reader.message::<ToWorker>().unwrap_err();
        assert!(matches!(
            error,
            LinkError::Frame(FrameError::TooLong { .. })
        ));
    }
}
