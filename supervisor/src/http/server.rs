//! The accept loop: bounded connections, bounded headers, and an eye on clients that vanish.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// Descriptors kept back for everything that is no connection.
const RESERVED_DESCRIPTORS: u64 = 64;
/// Time for a request's head to arrive, also on a connection that is kept open.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Pause when the process has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A peer that acknowledges nothing, or reads nothing, for this long is gone.
const PEER_LIMIT_MS: u32 = 60_000;
/// Silence after which a connection's peer is probed, and the pause between probes, seconds.
const PROBE_S: u32 = 15;
/// Time for connections to write what they have after `stop`.
const LINGER: Duration = Duration::from_secs(1);

/// Answers connections with `router` until `stop`, then lets answers under way finish for a moment.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(max_connections()));
    let connections = TaskTracker::new();
    while let Some((stream, place)) = next(&listener, &places, &stop).await {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "a connection was gone at once");
            continue;
        }
        connections.spawn(attend(stream, place, router.clone(), stop.clone()));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(LINGER, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("{} connections were cut", connections.len());
    }
}

/// The next connection and its place; `None` after `stop`.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let accepted = async {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        Some((accept(listener).await, place))
    };
    stop.run_until_cancelled(accepted).await.flatten()
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                // A peer that gave up before it was accepted, or no descriptors or memory left:
                // both pass.
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    // Tokens are small and go out one by one.
    stream.set_nodelay(true)?;
    // A machine that was switched off says no goodbye.
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &PROBE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_S)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &PEER_LIMIT_MS)?;
    Ok(())
}

async fn attend(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    router: Router,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client that closes its side of the connection is gone: this is how its job learns of
        // it while there is nothing to send.
        .half_close(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
}

/// As many connections as there are descriptors for.
fn max_connections() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return MAX_CONNECTIONS;
    };
    let wanted = MAX_CONNECTIONS as u64 + RESERVED_DESCRIPTORS;
    let raised = wanted.clamp(soft, hard.max(soft));
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    };
    let room = limit.saturating_sub(RESERVED_DESCRIPTORS).max(1);
    usize::try_from(room)
        .unwrap_or(MAX_CONNECTIONS)
        .min(MAX_CONNECTIONS)
}
