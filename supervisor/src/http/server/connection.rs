//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Version;
use http::request::Parts;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use orcd_shared::error::ErrorCode;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::error::ApiError;
use super::answer::{Answer, Question, answer};
use super::peer::{Peer, Stage};
use super::permits::ConnectionPermit;
use super::wire::Wire;
use super::{MAX_HEAD_BYTES, bad_head};

/// Time for a request's head to arrive, also on a connection that is kept open.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The same where only probes are served: theirs come at once.
const PROBE_HEAD_LIMIT: Duration = Duration::from_secs(2);
/// Time for a client to take its last answer and close.
const LINGER: Duration = Duration::from_secs(2);

/// Serves what comes over `stream` until either side ends the connection.
pub(super) async fn serve(
    stream: TcpStream,
    permit: ConnectionPermit,
    router: Router,
    stop: CancellationToken,
) {
    let peer = Arc::new(Peer::new(stream));
    // Dropping the connection drops the answer under way, by which its job learns that its reader
    // left.
    let ended = tokio::select! {
        ended = serve_http(&peer, &permit, &router, &stop) => ended,
        () = peer.is_gone() => return,
        () = permit.is_reclaimed() => return,
        never = peer.ask_when_half_closed() => match never {},
    };
    let progress = *peer.progress();
    let mut parts_properly = progress.last;
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
        if let Some(verdict) = bad_head::verdict(&error, progress) {
            let bytes = bad_head::answer(verdict, router).await;
            let written = timeout(LINGER, peer.write(&bytes)).await;
            parts_properly = matches!(written, Ok(Ok(())));
        }
    }
    if parts_properly {
        let linger = timeout(LINGER, peer.linger());
        tokio::select! {
            _ = stop.run_until_cancelled(linger) => {}
            () = permit.is_reclaimed() => {}
        }
    }
}

/// Lets hyper speak HTTP/1.1 over the connection; after `stop` the request at hand is the last.
async fn serve_http(
    peer: &Arc<Peer>,
    permit: &ConnectionPermit,
    router: &Router,
    stop: &CancellationToken,
) -> hyper::Result<()> {
    let for_probes = permit.is_for_probes();
    let routes = TowerToHyperService::new(router.clone());
    let service = service_fn(|request| respond(&routes, peer, for_probes, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if for_probes {
            PROBE_HEAD_LIMIT
        } else {
            HEAD_LIMIT
        })
        .max_buf_size(MAX_HEAD_BYTES)
        // A client may close its sending half and read on; `Peer` finds out which have left.
        .half_close(true)
        .serve_connection(TokioIo::new(Wire(Arc::clone(peer))), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Passes a request to the routes and notes how far it is.
async fn respond(
    routes: &TowerToHyperService<Router>,
    peer: &Arc<Peer>,
    for_probes: bool,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Answer>, Infallible> {
    {
        let mut progress = peer.progress();
        progress.stage = Stage::Handled;
        progress.served = true;
        progress.knows_interim = request.version() == Version::HTTP_11;
    }
    let (parts, body) = request.into_parts();
    let (body, body_was_read) = Question::watch(body);
    let mut request = Request::from_parts(parts, body);
    if let Some(address) = peer.address() {
        request.extensions_mut().insert(From(address));
    }
    if for_probes {
        request.extensions_mut().insert(ProbesOnly);
    }
    let Ok::<_, Infallible>(response) = routes.call(request).await;
    let last = for_probes || !body_was_read.load(Ordering::Relaxed);
    Ok(answer(response, peer, last))
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
struct From(IpAddr);

/// Where the request of `parts` came from, if that was over a connection.
pub(in super::super) fn address_of(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<From>().map(|from| from.0)
}

/// Marks a request on a connection that only probes are served on.
#[derive(Debug, Clone, Copy)]
struct ProbesOnly;

/// Whether a request came on such a connection, for want of others.
pub(in super::super) fn is_for_probes_only(request: &Request) -> bool {
    request.extensions().get::<ProbesOnly>().is_some()
}

/// The layer that turns others away where only probes are served.
pub(in super::super) async fn reserve_for_probes(request: Request, next: Next) -> Response {
    let is_probe = super::super::routes::is_probe(request.uri().path());
    if is_for_probes_only(&request) && !is_probe {
        let message = "all connections that the service can have are taken; try again, or send it \
                       to another instance";
        return ApiError::new(ErrorCode::QueueFull, message)
            .closing()
            .into_response();
    }
    next.run(request).await
}
