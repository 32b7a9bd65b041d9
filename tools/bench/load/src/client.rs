//! One stream: a connection, a job, its events with their times.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::events::Events;
use crate::route::Route;

/// Why a stream did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// Nobody listens, or no more connections are taken.
    #[error("can't connect to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broke(#[from] hyper::Error),
    /// The service answered something else than a stream.
    #[error("the service answered {0}: {1}")]
    Refused(StatusCode, String),
    /// The stream ended without `end`.
    #[error("the stream ended with {0}")]
    Failed(Value),
    /// It took too long.
    #[error("no end of the stream within {0:?}; raise --limit-s")]
    Late(Duration),
}

/// A stream, read to its end. Times count from sending the request.
pub(crate) struct Streamed {
    /// Pieces that brought tokens: when, and how many.
    pub(crate) arrivals: Vec<(Duration, u32)>,
    /// Tokens of the job, as its end says.
    pub(crate) tokens: u64,
    /// When the request was sent, and when the end came.
    pub(crate) sent: Instant,
    pub(crate) ended: Instant,
}

/// A connection that nothing was asked on.
pub(crate) struct Connection {
    address: SocketAddr,
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<Result<(), hyper::Error>>,
}

/// Opens a connection within `limit`.
pub(crate) async fn connect(
    address: SocketAddr,
    limit: Duration,
) -> Result<Connection, StreamError> {
    let socket = tokio::time::timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| StreamError::Late(limit))?
        .map_err(|error| StreamError::Connect(address, error))?;
    let (sender, driver) = http1::handshake(TokioIo::new(socket)).await?;
    Ok(Connection {
        address,
        sender,
        driver: tokio::spawn(driver),
    })
}

/// Runs one job; `body`: as `route` takes it.
pub(crate) async fn stream(
    connection: Connection,
    route: Route,
    body: Bytes,
    limit: Duration,
) -> Result<Streamed, StreamError> {
    tokio::time::timeout(limit, run(connection, route, body))
        .await
        .unwrap_or(Err(StreamError::Late(limit)))
}

async fn run(connection: Connection, route: Route, body: Bytes) -> Result<Streamed, StreamError> {
    let Connection {
        address,
        mut sender,
        driver,
    } = connection;
    let mut request = Request::post(route.path())
        .body(Full::new(body))
        .unwrap_or_default();
    let headers = request.headers_mut();
    if let Ok(host) = address.to_string().parse() {
        headers.insert(header::HOST, host);
    }
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    let sent = Instant::now();
    let answer = sender.send_request(request).await?;
    let streamed = read(answer, sent).await;
    driver.abort();
    streamed
}

async fn read(mut answer: Response<Incoming>, sent: Instant) -> Result<Streamed, StreamError> {
    const MOST_REFUSAL_BYTES: usize = 4096;
    if answer.status() != StatusCode::OK {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_REFUSAL_BYTES)
            .collect()
            .await;
        let text = body.map_or_else(
            |error| error.to_string(),
            |body| String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        );
        return Err(StreamError::Refused(status, text));
    }
    let (mut events, mut arrivals) = (Events::default(), Vec::new());
    while events.last().is_none() {
        let Some(frame) = answer.frame().await else {
            break;
        };
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let tokens = events.take(&data);
        if tokens > 0 {
            arrivals.push((sent.elapsed(), tokens));
        }
    }
    let end = events.last().cloned().unwrap_or(Value::Null);
    match end["tokens_out"].as_u64() {
        Some(tokens) if end["type"] == "end" => Ok(Streamed {
            arrivals,
            tokens,
            sent,
            ended: Instant::now(),
        }),
        _ => Err(StreamError::Failed(end)),
    }
}
