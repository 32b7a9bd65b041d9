//! One request to one replica.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{Error, Failure};
use crate::sse::Parser;

/// A stream is never silent for longer than 5 s: one that is, is dead.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest body of an error.
const MAX_ERROR: usize = 1 << 20;

/// A stream that is being read.
#[derive(Debug)]
pub(crate) struct Attempt {
    replica: Uri,
    body: Incoming,
    parser: Parser,
    connection: JoinHandle<()>,
}

impl Attempt {
    /// Sends the request and waits for the head of its answer.
    pub(crate) async fn begin(
        base: &Uri,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<Self, Failure> {
        let request = request(base, path, body, key)?;
        let connected = within(base, connect(base)).await?;
        let (mut sender, connection) = connected;
        let connection = tokio::spawn(async move {
            // What breaks it is seen by whoever reads the body.
            let _ = connection.await;
        });
        let answer = within(base, sender.send_request(request)).await;
        let answer = match answer {
            Ok(answer) if answer.status() == StatusCode::OK => answer,
            Ok(answer) => {
                let failure = refused(base, answer).await;
                connection.abort();
                return Err(failure);
            }
            Err(failure) => {
                connection.abort();
                return Err(failure);
            }
        };
        Ok(Self {
            replica: base.clone(),
            body: answer.into_body(),
            parser: Parser::default(),
            connection,
        })
    }

    /// The data of the events that come next, perhaps of none.
    pub(crate) async fn read(&mut self) -> Result<Vec<Vec<u8>>, Failure> {
        let replica = &self.replica;
        let frame = timeout(SILENCE, self.body.frame()).await;
        let frame = frame.map_err(|_| Failure::connection(replica, "was silent for too long"))?;
        let frame = match frame {
            Some(frame) => frame.map_err(|error| Failure::connection(replica, error))?,
            None => {
                let reason = "ended the stream before its end";
                return Err(Failure::connection(replica, reason));
            }
        };
        let data = frame.data_ref().map_or(&[][..], |data| data);
        let events = self.parser.push(data);
        events.map_err(|_| Failure::connection(replica, "sends what no service sends"))
    }
}

impl Drop for Attempt {
    // The service cancels a job whose client is gone.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn request(
    base: &Uri,
    path: &str,
    body: &Value,
    key: Option<&str>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let path = format!("{}{path}", base.path().trim_end_matches('/'));
    let host = base.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json");
    if let Some(key) = key {
        request = request.header(AUTHORIZATION, format!("Bearer {key}"));
    }
    let request = request.body(Full::new(Bytes::from(body.to_string())));
    // A key with a line break, which no other replica would take either.
    request.map_err(|_| Failure::Final(Error::Body("has a key that is no header")))
}

type Connection = (
    http1::SendRequest<Full<Bytes>>,
    http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
);

async fn connect(base: &Uri) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
    let host = base.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let socket = TcpStream::connect((host, base.port_u16().unwrap_or(80))).await?;
    socket.set_nodelay(true)?;
    Ok(http1::handshake(TokioIo::new(socket)).await?)
}

async fn within<T, E: ToString>(
    replica: &Uri,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let done = timeout(SILENCE, work).await;
    let done = done.map_err(|_| Failure::connection(replica, "does not answer"))?;
    done.map_err(|error| Failure::connection(replica, error))
}

/// What an answer without a stream means.
async fn refused(replica: &Uri, answer: Response<Incoming>) -> Failure {
    let status = answer.status();
    let after = answer.headers().get(RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
    let after = after.map(Duration::from_secs);
    let body = timeout(
        SILENCE,
        Limited::new(answer.into_body(), MAX_ERROR).collect(),
    )
    .await;
    let body = body.ok().and_then(Result::ok);
    let body = body.and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
    // A router in front of the service that finds nobody, or has too much to do.
    let may_be_a_routers = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    match body.as_ref().and_then(|body| body.get("error")) {
        Some(error) => Failure::of_service(error, after, may_be_a_routers),
        None if may_be_a_routers => Failure::connection(replica, status),
        None => Failure::Final(Error::Service {
            code: status.to_string(),
            message: "the answer is no error of worker-orcd".into(),
        }),
    }
}
