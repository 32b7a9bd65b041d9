//! The accept loop: bounded connections, bounded heads, and an eye on clients that vanish.

mod answer;
mod bad_head;
mod connection;
mod peer;
mod permits;
mod wire;

use std::time::Duration;

use axum::Router;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use bad_head::respond as answer_bad_head;
pub(super) use connection::{address_of, is_for_probes_only, reserve_for_probes};
pub(super) use permits::MAX_CONNECTIONS;
pub(crate) use permits::few_connections;

use permits::ConnectionPermits;

/// Largest head of a request.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;
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
    let mut permits = ConnectionPermits::new();
    let connections = TaskTracker::new();
    while let Some(stream) = stop.run_until_cancelled(accept(&listener)).await {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "a connection was closed at once");
            continue;
        }
        let Some(Some(permit)) = stop.run_until_cancelled(permits.acquire()).await else {
            break;
        };
        let served = connection::serve(stream, permit, router.clone(), stop.clone());
        connections.spawn(served);
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

async fn accept(listener: &TcpListener) -> TcpStream {
    let mut warned = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                // A peer that gave up before it was accepted, or no descriptors or memory left:
                // both pass.
                if !warned {
                    tracing::warn!(%error, "no connection could be accepted");
                }
                warned = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    // Tokens are small and go out one by one.
    stream.set_nodelay(true)?;
    // A machine that was switched off closes nothing.
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &PROBE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_S)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &PEER_LIMIT_MS)?;
    Ok(())
}
