//! One task per worker process, from its start to its reaping. It alone reports of that worker, so
//! that its reports come in the order in which things happened.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream};
use orcd_shared::kv::PoolManifest;
use orcd_shared::protocol::message::{LoadSource, ToSupervisor, WorkerInfo};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::handles::{DescriptorChannel, Handover, PoolHandle, WeightsHandle};
use super::link::{self, LinkError, Outgoing, Reader};
use super::process::{Killer, WorkerExit, WorkerProcess};
use super::runtime_dir::RuntimeDir;
use super::stderr::{self, LastLines};
use super::{EventSender, WorkerEvent, WorkerReport};
use crate::awake;

/// After the process has ended its socket yields what it had sent and then the end of the stream;
/// a copy of the socket that leaked elsewhere must not keep the supervisor waiting.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// The same for what it wrote for people.
const STDERR_LIMIT: Duration = Duration::from_millis(100);

/// How the host reaches a worker's task. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Controls {
    /// Seen by the task at the latest when there is a process.
    kill: CancellationToken,
    /// Set as soon as there is a process.
    killer: Arc<OnceLock<Killer>>,
    pub(super) interrupt: Arc<Notify>,
    /// The handles that went out with the load request, to recognize them in the answer.
    pub(super) handed_over: Arc<OnceLock<Handover>>,
}

impl Controls {
    /// SIGKILL, at once if there is a process: who follows it may rely on that.
    pub(super) fn kill(&self) {
        self.kill.cancel();
        if let Some(killer) = self.killer.get() {
            killer.kill();
        }
    }
}

/// The task of one worker.
pub(super) struct WorkerTask {
    pub(super) generation: u64,
    pub(super) events: EventSender,
    pub(super) binary: PathBuf,
    pub(super) dir: Arc<RuntimeDir>,
    pub(super) controls: Controls,
}

impl WorkerTask {
    pub(super) async fn run(self, queue: mpsc::Receiver<Outgoing>) {
        let end = match self.start().await {
            Err(message) => WorkerEvent::SpawnFailed { message },
            Ok((mut process, listener, descriptors)) => {
                // There is one process a task.
                let _ = self.controls.killer.set(process.killer());
                let (lines, follower) = self.follow_stderr(&mut process);
                self.emit(WorkerEvent::Spawned { pid: process.pid }).await;
                let exit = self
                    .serve_link(&mut process, listener, descriptors, queue)
                    .await;
                // A copy of the pipe that leaked elsewhere must not keep the report waiting.
                let _ = awake::timeout(STDERR_LIMIT, follower).await;
                let lines = lines.taken();
                if !lines.is_empty() {
                    self.emit(WorkerEvent::LastLines(lines)).await;
                }
                WorkerEvent::Exited(exit)
            }
        };
        self.emit(end).await;
    }

    async fn start(&self) -> Result<(WorkerProcess, Listener, DescriptorChannel), String> {
        let socket = self.dir.socket(self.generation);
        let listener = link::listen(&socket).map_err(|e| e.to_string())?;
        let (descriptors, stdin) =
            DescriptorChannel::pair().map_err(|e| format!("no descriptor channel: {e}"))?;
        let binary = &self.binary;
        let process = WorkerProcess::start(binary, &socket, stdin)
            .await
            .map_err(|e| {
                format!(
                    "{} can't be started: {e}; give the right --worker-bin",
                    binary.display()
                )
            })?;
        Ok((process, listener, descriptors))
    }

    fn follow_stderr(&self, process: &mut WorkerProcess) -> (LastLines, JoinHandle<()>) {
        let lines = LastLines::default();
        let (generation, keeper) = (self.generation, lines.clone());
        let stderr = process.stderr.take();
        let follower = tokio::spawn(async move {
            if let Some(stderr) = stderr {
                stderr::log_lines(stderr, generation, keeper).await;
            }
        });
        (lines, follower)
    }

    /// Passes on what the worker says until it has ended.
    async fn serve_link(
        &self,
        process: &mut WorkerProcess,
        listener: Listener,
        descriptors: DescriptorChannel,
        queue: mpsc::Receiver<Outgoing>,
    ) -> WorkerExit {
        let pid = process.pid;
        let mut end = std::pin::pin!(self.end_of(process));
        let connected = tokio::select! {
            exit = &mut end => return exit,
            connected = connect(&listener, pid) => connected,
        };
        drop(listener);
        let (stream, reader) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                self.emit(WorkerEvent::HandshakeFailed {
                    message: error.to_string(),
                })
                .await;
                return end.await;
            }
        };
        self.emit(WorkerEvent::Connected).await;
        let mut talk = std::pin::pin!(self.relay(stream, reader, descriptors, queue));
        tokio::select! {
            () = &mut talk => end.await,
            exit = &mut end => {
                if awake::timeout(DRAIN_LIMIT, talk).await.is_err() {
                    tracing::warn!(pid, "the worker has ended, but its socket is still open");
                }
                exit
            }
        }
    }

    /// Waits for the process to end, and signals it when asked to.
    async fn end_of(&self, process: &mut WorkerProcess) -> WorkerExit {
        loop {
            tokio::select! {
                exit = &mut process.exited => return exit.unwrap_or(WorkerExit::Unknown),
                () = self.controls.interrupt.notified() => process.interrupt(),
                () = self.controls.kill.cancelled() => break process.kill(),
            }
        }
        (&mut process.exited).await.unwrap_or(WorkerExit::Unknown)
    }

    /// Passes messages both ways until the link breaks.
    async fn relay(
        &self,
        stream: Arc<Stream>,
        mut reader: Reader,
        descriptors: DescriptorChannel,
        queue: mpsc::Receiver<Outgoing>,
    ) {
        let writer = link::write_all(stream, &descriptors, queue);
        let mut read = std::pin::pin!(self.relay_incoming(&mut reader, &descriptors));
        let error = tokio::select! {
            error = &mut read => error,
            Err(error) = writer => {
                // A worker that dies breaks both directions: what it said last is still to come.
                awake::timeout(DRAIN_LIMIT, read).await.unwrap_or(error)
            }
        };
        self.emit(WorkerEvent::LinkLost {
            message: error.to_string(),
        })
        .await;
    }

    async fn relay_incoming(
        &self,
        reader: &mut Reader,
        descriptors: &DescriptorChannel,
    ) -> LinkError {
        loop {
            match reader.next().await {
                Ok(ToSupervisor::Ready(info)) => {
                    let (weights, pool) = self.handles_of(&info, descriptors).await;
                    let ready = WorkerEvent::Ready {
                        info,
                        weights,
                        pool,
                    };
                    self.emit(ready).await;
                }
                Ok(message) => self.emit(WorkerEvent::Message(message)).await,
                Err(error) => return error,
            }
        }
    }

    /// The handles to hold for what `info` describes: those that the worker was given, or what it sent
    /// before it said so, in that order.
    async fn handles_of(
        &self,
        info: &WorkerInfo,
        descriptors: &DescriptorChannel,
    ) -> (Option<WeightsHandle>, Option<PoolHandle>) {
        let given = self.controls.handed_over.get();
        let given_weights = (given.and_then(|given| given.weights.as_ref()))
            .filter(|_| info.load_source == LoadSource::Handle)
            .filter(|given| info.weights.as_ref() == Some(&given.manifest));
        let given_pool = (given.and_then(|given| given.pool.as_ref()))
            .filter(|given| info.pool.as_ref() == Some(&given.manifest));
        let weights = match (given_weights, &info.weights) {
            (None, Some(manifest)) => match descriptors.receive().await {
                Ok(fd) => Some(WeightsHandle::new(manifest.clone(), fd)),
                Err(error) => {
                    // The service works without it: the next worker loads from the file. What may
                    // come late must not be taken for the pool's.
                    tracing::warn!(%error, "the worker's weights could not be taken over");
                    return (None, given_pool.cloned());
                }
            },
            (given, _) => given.cloned(),
        };
        let pool = match (given_pool, &info.pool) {
            (None, Some(manifest)) => match receive_pool(manifest, descriptors).await {
                Ok(pool) => Some(pool),
                Err(error) => {
                    // Here too: the next worker makes a pool of its own.
                    tracing::warn!(%error, "the worker's KV memory could not be taken over");
                    None
                }
            },
            (given, _) => given.cloned(),
        };
        (weights, pool)
    }

    async fn emit(&self, event: WorkerEvent) {
        // Without a dispatcher nobody needs to know; this worker is being killed then.
        let _ = self
            .events
            .send(WorkerReport {
                generation: self.generation,
                event,
            })
            .await;
    }
}

/// Receives the descriptors of a pool's memory and of its ledger.
async fn receive_pool(
    manifest: &PoolManifest,
    descriptors: &DescriptorChannel,
) -> io::Result<PoolHandle> {
    let memory = descriptors.receive().await?;
    let ledger = descriptors.receive().await?;
    Ok(PoolHandle::new(manifest.clone(), memory, ledger))
}

/// Waits for the worker to connect and say Hello.
async fn connect(listener: &Listener, pid: u32) -> Result<(Arc<Stream>, Reader), LinkError> {
    let handshake = async {
        let stream = Arc::new(link::accept(listener, pid).await?);
        let mut reader = Reader::new(Arc::clone(&stream));
        link::shake_hands(&stream, &mut reader).await?;
        Ok((stream, reader))
    };
    let connected = awake::timeout(link::HANDSHAKE_LIMIT, handshake).await;
    connected.unwrap_or(Err(LinkError::TooLate))
}
