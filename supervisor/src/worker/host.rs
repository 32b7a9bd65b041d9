//! Workers as real processes: one task attends to each from its start to its reaping, and reports
//! in the order in which things happened.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream};
use orcd_shared::protocol::message::{LoadSource, ToSupervisor, ToWorker, WorkerInfo};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::handles::{DescriptorChannel, WeightsHandle};
use super::link::{self, LinkError, Outgoing, Reader};
use super::process::{WorkerExit, WorkerProcess};
use super::runtime_dir::{RuntimeDir, RuntimeDirError};
use super::{EventSender, Happening, LinkClogged, WorkerEvent, WorkerHost};

/// After the process has ended its socket yields what it had sent and then the end of the stream;
/// a copy of the socket that leaked elsewhere must not keep the supervisor waiting.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Longest line of a worker's stderr that is kept.
const STDERR_LINE_BYTES: usize = 4096;

/// Starts `cuda-worker` processes.
#[derive(Debug)]
pub struct ProcessHost {
    binary: PathBuf,
    dir: Arc<RuntimeDir>,
    events: EventSender,
    live: HashMap<u64, Live>,
}

#[derive(Debug)]
struct Live {
    outgoing: mpsc::Sender<Outgoing>,
    kill: CancellationToken,
    handed_over: HandedOver,
}

/// The handle that went out with a worker's load request, to recognise it in the answer.
type HandedOver = Arc<OnceLock<WeightsHandle>>;

impl ProcessHost {
    /// A host that starts `binary` and keeps its sockets in a new private directory under
    /// `runtime_base`. To be called within a runtime.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn new(
        binary: PathBuf,
        runtime_base: Option<PathBuf>,
        events: EventSender,
    ) -> Result<Self, RuntimeDirError> {
        let dir = Arc::new(RuntimeDir::create(runtime_base.as_deref())?);
        Ok(Self {
            binary,
            dir,
            events,
            live: HashMap::new(),
        })
    }
}

impl WorkerHost for ProcessHost {
    fn spawn(&mut self, generation: u64) {
        let (outgoing, queue) = mpsc::channel(link::OUTGOING_CAPACITY);
        let kill = CancellationToken::new();
        let handed_over = HandedOver::default();
        let attendant = Attendant {
            generation,
            events: self.events.clone(),
            binary: self.binary.clone(),
            dir: Arc::clone(&self.dir),
            kill: kill.clone(),
            handed_over: Arc::clone(&handed_over),
        };
        tokio::spawn(attendant.attend(queue));
        self.live.retain(|_, live| !live.outgoing.is_closed());
        self.live.insert(
            generation,
            Live {
                outgoing,
                kill,
                handed_over,
            },
        );
    }

    fn send(
        &mut self,
        generation: u64,
        message: ToWorker,
        descriptor: Option<WeightsHandle>,
    ) -> Result<(), LinkClogged> {
        let live = self.live.get(&generation).ok_or(LinkClogged)?;
        if let Some(weights) = &descriptor {
            // A worker is told to load once; should it be told twice, the first handle stands.
            let _ = live.handed_over.set(weights.clone());
        }
        live.outgoing
            .try_send(Outgoing {
                message,
                descriptor,
            })
            .map_err(|_| LinkClogged)
    }

    fn kill(&mut self, generation: u64) {
        if let Some(live) = self.live.get(&generation) {
            live.kill.cancel();
        }
    }
}

impl Drop for ProcessHost {
    fn drop(&mut self) {
        for live in self.live.values() {
            live.kill.cancel();
        }
    }
}

/// Attends to one worker.
struct Attendant {
    generation: u64,
    events: EventSender,
    binary: PathBuf,
    dir: Arc<RuntimeDir>,
    kill: CancellationToken,
    handed_over: HandedOver,
}

impl Attendant {
    async fn attend(self, queue: mpsc::Receiver<Outgoing>) {
        let end = match self.start().await {
            Err(message) => Happening::SpawnFailed { message },
            Ok((mut process, listener, descriptors)) => {
                self.tell(Happening::Spawned { pid: process.pid }).await;
                let exit = self
                    .converse(&mut process, listener, descriptors, queue)
                    .await;
                Happening::Exited(exit)
            }
        };
        self.tell(end).await;
    }

    async fn start(&self) -> Result<(WorkerProcess, Listener, DescriptorChannel), String> {
        let socket = self.dir.socket(self.generation);
        let listener = link::listen(&socket).map_err(|e| e.to_string())?;
        let (descriptors, stdin) =
            DescriptorChannel::pair().map_err(|e| format!("no descriptor channel: {e}"))?;
        let binary = &self.binary;
        let mut process = WorkerProcess::start(binary, &socket, stdin)
            .await
            .map_err(|e| {
                format!(
                    "{} can't be started: {e}; give the right --worker-bin",
                    binary.display()
                )
            })?;
        if let Some(stderr) = process.stderr.take() {
            tokio::spawn(log_lines(stderr, self.generation));
        }
        Ok((process, listener, descriptors))
    }

    /// Passes on what the worker says until it has ended.
    async fn converse(
        &self,
        process: &mut WorkerProcess,
        listener: Listener,
        descriptors: DescriptorChannel,
        queue: mpsc::Receiver<Outgoing>,
    ) -> WorkerExit {
        let kill = self.kill.clone();
        let mut talk = std::pin::pin!(self.talk(process.pid, listener, descriptors, queue));
        let mut talking = true;
        let mut killed = false;
        let exit = loop {
            tokio::select! {
                exit = &mut process.exited => break exit.unwrap_or(WorkerExit::Unknown),
                () = &mut talk, if talking => talking = false,
                () = kill.cancelled(), if !killed => {
                    process.kill();
                    killed = true;
                }
            }
        };
        if talking && tokio::time::timeout(DRAIN_LIMIT, talk).await.is_err() {
            tracing::warn!(pid = process.pid, "the socket outlived the worker");
        }
        exit
    }

    async fn talk(
        &self,
        pid: u32,
        listener: Listener,
        descriptors: DescriptorChannel,
        queue: mpsc::Receiver<Outgoing>,
    ) {
        let handshake = async {
            let stream = Arc::new(link::accept(&listener, pid).await?);
            let mut reader = Reader::new(Arc::clone(&stream));
            link::shake_hands(&stream, &mut reader).await?;
            Ok::<_, LinkError>((stream, reader))
        };
        let connected = tokio::time::timeout(link::HANDSHAKE_LIMIT, handshake).await;
        let (stream, reader) = match connected.unwrap_or(Err(LinkError::TooLate)) {
            Ok(connected) => connected,
            Err(error) => {
                return self
                    .tell(Happening::HandshakeFailed {
                        message: error.to_string(),
                    })
                    .await;
            }
        };
        drop(listener);
        self.tell(Happening::Connected).await;
        let error = self
            .relay(stream, reader, Arc::new(descriptors), queue)
            .await;
        self.tell(Happening::LinkLost {
            message: error.to_string(),
        })
        .await;
    }

    /// Passes messages both ways until the link breaks.
    async fn relay(
        &self,
        stream: Arc<Stream>,
        mut reader: Reader,
        descriptors: Arc<DescriptorChannel>,
        queue: mpsc::Receiver<Outgoing>,
    ) -> LinkError {
        let writer = link::write_all(stream, Arc::clone(&descriptors), queue);
        let read = self.relay_incoming(&mut reader, &descriptors);
        let mut read = std::pin::pin!(read);
        tokio::select! {
            error = &mut read => error,
            Err(error) = writer => {
                // A worker that dies breaks both directions: what it said last is still to come.
                tokio::time::timeout(DRAIN_LIMIT, read).await.unwrap_or(error)
            }
        }
    }

    async fn relay_incoming(
        &self,
        reader: &mut Reader,
        descriptors: &DescriptorChannel,
    ) -> LinkError {
        loop {
            match reader.next().await {
                Ok(ToSupervisor::Ready(info)) => {
                    let weights = self.weights_of(&info, descriptors).await;
                    self.tell(Happening::Ready { info, weights }).await;
                }
                Ok(message) => self.tell(Happening::Message(message)).await,
                Err(error) => return error,
            }
        }
    }

    /// The handle to hold for the weights that `info` tells of.
    async fn weights_of(
        &self,
        info: &WorkerInfo,
        descriptors: &DescriptorChannel,
    ) -> Option<WeightsHandle> {
        let manifest = info.weights.clone()?;
        if info.load_source == LoadSource::Handle
            && let Some(held) = self
                .handed_over
                .get()
                .filter(|held| held.manifest == manifest)
        {
            return Some(held.clone());
        }
        match descriptors.receive().await {
            Ok(fd) => Some(WeightsHandle::new(manifest, fd)),
            Err(error) => {
                // The service works without it: the next worker loads from the file.
                tracing::warn!(%error, "the worker's weights could not be taken over");
                None
            }
        }
    }

    async fn tell(&self, what: Happening) {
        // Without a dispatcher nobody needs to know; this worker is being killed then.
        let _ = self
            .events
            .send(WorkerEvent {
                generation: self.generation,
                what,
            })
            .await;
    }
}

/// Passes the worker's stderr on to the log, a line at a time.
async fn log_lines(stderr: std::process::ChildStderr, generation: u64) {
    let mut stderr = match tokio::process::ChildStderr::from_std(stderr) {
        Ok(stderr) => stderr,
        Err(error) => return tracing::warn!(%error, "the worker's stderr can't be read"),
    };
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = stderr.read(&mut chunk).await {
        for &byte in &chunk[..n] {
            match byte {
                b'\n' => log_line(&mut line, generation),
                _ if line.len() < STDERR_LINE_BYTES => line.push(byte),
                _ => {}
            }
        }
    }
    log_line(&mut line, generation);
}

fn log_line(line: &mut Vec<u8>, generation: u64) {
    if !line.is_empty() {
        tracing::info!(target: "cuda_worker", generation, "{}", String::from_utf8_lossy(line));
        line.clear();
    }
}
