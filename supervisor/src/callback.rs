//! `--callback-url`: notifies an orchestrator that the service is ready.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// How long it is tried.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Time for one try.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// The same for one that begins when the time is over.
const LAST_TRY_LIMIT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the orchestrator gets.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// This instance.
    pub worker_id: Uuid,
    /// The model file.
    pub model_ref: String,
    /// Device memory taken.
    pub vram_bytes: u64,
    /// Where the service listens.
    pub address: SocketAddr,
}

#[derive(Serialize)]
struct Body<'a> {
    worker_id: String,
    model_ref: &'a str,
    vram_bytes: u64,
    uri: String,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("no answer in time")]
    Late,
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Request(#[from] http::Error),
}

/// Posts to `url` until the answer is a success.
///
/// # Errors
/// The last failure, after a minute of trying.
pub async fn announce(url: &Uri, announcement: &Announcement) -> Result<(), String> {
    let end = Instant::now() + GIVE_UP_AFTER;
    let mut pause = FIRST_PAUSE;
    loop {
        // The last try is at the very end, and short.
        let left = end.saturating_duration_since(Instant::now());
        let limit = left.clamp(LAST_TRY_LIMIT, TRY_LIMIT);
        let error = match timeout(limit, post(url, announcement)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => TryError::Late,
        };
        let left = end.saturating_duration_since(Instant::now());
        let url = shown(url);
        if left.is_zero() {
            let seconds = GIVE_UP_AFTER.as_secs();
            return Err(format!(
                "--callback-url {url}: {error}; tried for {seconds} s"
            ));
        }
        pause = pause.min(left);
        tracing::warn!(%url, %error, pause_ms = pause.as_millis() as u64, "callback failed");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// For people and logs: a query may hold a secret.
fn shown(url: &Uri) -> String {
    let query = if url.query().is_some() { "?…" } else { "" };
    let authority = url.authority().map_or("", |a| a.as_str());
    format!("http://{authority}{}{query}", url.path())
}

async fn post(url: &Uri, announcement: &Announcement) -> Result<(), TryError> {
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(80);
    let bare_host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare_host, port)).await?;
    let body = Body {
        worker_id: announcement.worker_id.to_string(),
        model_ref: &announcement.model_ref,
        vram_bytes: announcement.vram_bytes,
        uri: uri(announcement.address, stream.local_addr()?),
    };
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let path = url.path_and_query().map_or("/", |p| p.as_str());
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let request = Request::post(path)
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    let response = tokio::select! {
        response = answer => response?,
        // The answer comes through the connection; it ends first only without one.
        Err(error) = connection => return Err(error.into()),
    };
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(TryError::Status(status)),
    }
}

/// Where the service can be reached. For one that listens on all addresses it is
/// the address that this machine has towards the orchestrator.
fn uri(listening: SocketAddr, towards: SocketAddr) -> String {
    let mut address = listening;
    if address.ip().is_unspecified() {
        address.set_ip(towards.ip().to_canonical());
    }
    format!("http://{address}")
}

#[cfg(test)]
mod tests;
