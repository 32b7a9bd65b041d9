//! A served dispatcher and a client that sees every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use orcd_supervisor::config::Config;
use orcd_supervisor::http::{App, router, server};
use orcd_supervisor::jobs::dispatcher::DispatcherSettings;
use orcd_supervisor::metrics::Metrics;
use orcd_supervisor::model::Model;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::played::{self, Service};

/// Nothing here takes that long.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A service over HTTP and the test's side of its worker.
pub struct Fixture {
    pub worker: Service,
    pub address: SocketAddr,
    pub draining: CancellationToken,
    _stop: DropGuard,
}

impl Fixture {
    /// With a worker that is ready.
    pub async fn ready() -> Self {
        Self::ready_with(|_| {}).await
    }

    pub async fn ready_with(change: impl FnOnce(&mut DispatcherSettings)) -> Self {
        Self::serve(Service::ready_with(change).await).await
    }

    pub async fn serve(worker: Service) -> Self {
        let model = Model::from_metadata(&played::metadata(), "bytes").unwrap();
        Self::serve_with(worker, model, &[]).await
    }

    /// With these flags beside those that every service here has.
    pub async fn serve_with(worker: Service, model: Model, flags: &[&str]) -> Self {
        let (app, address, stop) = listen_with(flags).await;
        app.0.serve(worker.jobs.clone(), Arc::new(model));
        Self {
            worker,
            address,
            draining: app.1,
            _stop: stop,
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// A running job's reader, after its `started`, and its key.
    pub async fn running(&mut self, body: &str) -> (Client, orcd_shared::job::JobKey) {
        let mut client = self.client().await;
        client.post("/execute", body).await;
        let spec = self.worker.submitted().await;
        assert_eq!(client.head().await.status, 200);
        assert!(client.event().await.starts_with("event: started\n"));
        (client, spec.key)
    }

    /// The same of a job `j` that goes on without its reader.
    pub async fn continuing(&mut self) -> (Client, orcd_shared::job::JobKey) {
        let body = r#"{"job_id":"j","prompt":"a","on_disconnect":"continue"}"#;
        self.running(body).await
    }
}

/// A server whose model is still being loaded.
pub async fn listen() -> ((Arc<App>, CancellationToken), SocketAddr, DropGuard) {
    listen_with(&[]).await
}

/// The same, with these flags beside those that every service here has.
pub async fn listen_with(flags: &[&str]) -> ((Arc<App>, CancellationToken), SocketAddr, DropGuard) {
    let args = ["worker-orcd", "--model", "m.gguf", "--device", "cpu"];
    let config = Config::parse(args.iter().chain(flags)).unwrap();
    let draining = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = App::new(&config, address, Arc::new(Metrics::new()), draining.clone());
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(
        listener,
        router(Arc::clone(&app)),
        stop.clone(),
    ));
    ((app, draining), address, stop.drop_guard())
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    text: String,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One connection.
pub struct Client {
    pub socket: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        Self {
            socket,
            unread: Vec::new(),
        }
    }

    pub async fn post(&mut self, path: &str, body: &str) {
        self.post_with(path, "", body).await;
    }

    /// `headers` end with a line break each.
    pub async fn post_with(&mut self, path: &str, headers: &str, body: &str) {
        let length = body.len();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }

    pub async fn get(&mut self, path: &str, headers: &str) {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n"
        ))
        .await;
    }

    pub async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    pub async fn head(&mut self) -> Head {
        let text = self.until("\r\n\r\n").await;
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        Head { status, text }
    }

    /// The whole answer with a body of stated length.
    pub async fn answer(&mut self) -> (Head, String) {
        let head = self.head().await;
        let length: usize = head
            .header("content-length")
            .unwrap_or("0")
            .parse()
            .unwrap();
        while self.unread.len() < length {
            assert!(self.more().await, "the connection ended within a body");
        }
        let body = self.unread.drain(..length).collect();
        (head, String::from_utf8(body).unwrap())
    }

    pub async fn json(&mut self) -> (Head, Value) {
        let (head, body) = self.answer().await;
        let body = serde_json::from_str(&body).unwrap();
        (head, body)
    }

    /// The next chunk of a chunked body: one event. Empty at the proper end.
    pub async fn event(&mut self) -> String {
        let size = self.until("\r\n").await;
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        while self.unread.len() < size + 2 {
            assert!(self.more().await, "the connection ended within a chunk");
        }
        let chunk = self.unread.drain(..size + 2).take(size).collect();
        String::from_utf8(chunk).unwrap()
    }

    /// The next event, after whatever comments there are.
    pub async fn event_after_comments(&mut self) -> String {
        loop {
            let event = self.event().await;
            if !event.starts_with(':') {
                return event;
            }
        }
    }

    /// Says that no more is sent, as `nc -N` does.
    pub async fn close_sending_half(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    /// Whether the connection ends here, without another byte.
    pub async fn is_cut(&mut self) -> bool {
        self.unread.is_empty() && !self.more().await
    }

    async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .unread
                .windows(end.len())
                .position(|w| w == end.as_bytes());
            if let Some(at) = found {
                let text = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8(text).unwrap();
            }
            assert!(self.more().await, "the connection ended before {end:?}");
        }
    }

    async fn more(&mut self) -> bool {
        let read = self.socket.read_buf(&mut self.unread);
        match timeout(TEST_TIMEOUT, read).await.expect("nothing comes") {
            Ok(n) => n > 0,
            Err(_) => false,
        }
    }
}
