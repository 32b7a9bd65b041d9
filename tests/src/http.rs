//! A small blocking HTTP/1.1 client over one TCP connection. The tests need the bytes themselves
//! (trickled, malformed, unread), so nothing hides the socket, and anything irregular in a response
//! is an error.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest that a test waits for the next byte.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// One connection to the server, closed on drop.
#[derive(Debug)]
pub struct Connection {
    socket: BufReader<TcpStream>,
}

/// Status line and header fields of a response.
#[derive(Debug, Clone)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status and headers.
    pub head: Head,
    /// The whole body.
    pub body: Vec<u8>,
    /// From before the connection was made, or the request sent on an open one, to the last byte.
    pub elapsed: Duration,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A body that is still arriving.
#[derive(Debug)]
pub struct Body {
    connection: Connection,
    framing: Framing,
    ended: bool,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(30)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        socket.set_write_timeout(Some(READ_TIMEOUT)).unwrap();
        Self {
            socket: BufReader::new(socket),
        }
    }

    /// The socket, for options.
    pub fn socket(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Sends bytes as they are. A peer that closed already is no panic: its answer is read next.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.get_mut().write_all(bytes)
    }

    /// Sends a request with its `Content-Length`, and reads the response on the same connection.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let begin = Instant::now();
        self.send(&request_bytes(method, path, headers, body))
            .unwrap();
        let head = self.read_head().unwrap();
        let body = self.read_body(&head).unwrap();
        Reply {
            head,
            body,
            elapsed: begin.elapsed(),
        }
    }

    /// Reads a complete response to what was sent raw.
    pub fn read_reply(&mut self) -> std::io::Result<Reply> {
        let begin = Instant::now();
        let head = self.read_head()?;
        let body = self.read_body(&head)?;
        Ok(Reply {
            head,
            body,
            elapsed: begin.elapsed(),
        })
    }

    /// Reads status line and headers.
    pub fn read_head(&mut self) -> std::io::Result<Head> {
        let status_line = self.read_line()?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| malformed(format!("status line {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(Head { status, headers });
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| malformed(format!("header {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Turns the connection into the body that follows `head`.
    pub fn into_body(self, head: &Head) -> Body {
        Body {
            connection: self,
            framing: head.framing(),
            ended: false,
        }
    }

    /// True when the server has closed its end and nothing is left to read.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.socket().set_read_timeout(Some(limit)).unwrap();
        let closed = matches!(self.socket.fill_buf(), Ok([]))
            || matches!(self.socket.fill_buf(), Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset);
        self.socket().set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        closed
    }

    fn read_body(&mut self, head: &Head) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let framing = head.framing();
        while let Some(piece) = self.read_piece(framing)? {
            body.extend_from_slice(&piece);
            if framing == Framing::Length(body.len() as u64) {
                break;
            }
        }
        Ok(body)
    }

    /// Next piece of a body; `None` at its regular end.
    fn read_piece(&mut self, framing: Framing) -> std::io::Result<Option<Vec<u8>>> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(n) => {
                let mut body = vec![0; usize::try_from(n).unwrap()];
                self.socket.read_exact(&mut body)?;
                Ok(Some(body))
            }
            Framing::Chunked => self.read_chunk(),
            Framing::UntilClose => {
                let piece = self.socket.fill_buf()?.to_vec();
                self.socket.consume(piece.len());
                Ok((!piece.is_empty()).then_some(piece))
            }
        }
    }

    fn read_chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let line = self.read_line()?;
        let length = usize::from_str_radix(&line, 16)
            .map_err(|_| malformed(format!("chunk size {line:?}")))?;
        let mut chunk = vec![0; length];
        self.socket.read_exact(&mut chunk)?;
        let line_end = self.read_line()?;
        if !line_end.is_empty() {
            return Err(malformed(format!("{line_end:?} after a chunk")));
        }
        Ok((length > 0).then_some(chunk))
    }

    fn read_line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        self.socket.read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!(
                    "connection ended inside the line {:?}",
                    String::from_utf8_lossy(&line)
                ),
            ));
        };
        String::from_utf8(text.to_vec()).map_err(|e| malformed(e.to_string()))
    }
}

impl Body {
    /// Next bytes of the body as they arrive; `None` at its regular end. A connection that is cut
    /// before the last chunk is an error.
    pub fn read(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        let piece = self.connection.read_piece(self.framing)?;
        self.ended = piece.is_none();
        Ok(piece)
    }

    /// The socket, for options.
    pub fn socket(&self) -> &TcpStream {
        self.connection.socket()
    }

    /// Reads what is left and joins it with `head` to a reply.
    pub fn into_reply(mut self, head: Head, begin: Instant) -> Reply {
        let body = self.connection.read_body(&head).unwrap();
        Reply {
            head,
            body,
            elapsed: begin.elapsed(),
        }
    }
}

impl Head {
    /// Value of a header field; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    fn framing(&self) -> Framing {
        if self.header("transfer-encoding") == Some("chunked") {
            return Framing::Chunked;
        }
        match self.header("content-length") {
            Some(n) => Framing::Length(n.parse().unwrap()),
            None => Framing::UntilClose,
        }
    }
}

impl Reply {
    /// Status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Value of a header field; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON, which its `Content-Type` must announce.
    #[track_caller]
    pub fn json(&self) -> Value {
        let kind = self.header("content-type").unwrap_or_default();
        assert!(
            kind.starts_with("application/json"),
            "{kind:?}, body {:?}",
            self.text()
        );
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.text()))
    }

    /// The `error` object of an error body, with its exact fields checked.
    #[track_caller]
    pub fn error(&self) -> Value {
        let json = self.json();
        let error = &json["error"];
        let keys: Vec<_> = error.as_object().expect("an error object").keys().collect();
        for required in ["code", "message", "retriable", "correlation_id"] {
            assert!(
                keys.iter().any(|k| *k == required),
                "no {required} in {json}"
            );
        }
        for key in keys {
            let known = ["code", "message", "retriable", "correlation_id", "details"];
            assert!(known.contains(&key.as_str()), "unknown {key} in {json}");
        }
        for detail in error["details"].as_array().into_iter().flatten() {
            let mut keys: Vec<_> = detail.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            assert_eq!(keys, ["constraint", "field", "message"], "{detail}");
        }
        assert_eq!(
            error["correlation_id"].as_str(),
            self.header("x-correlation-id"),
            "the correlation id in body and header"
        );
        error.clone()
    }

    /// Status and code of an error body in one, for comparisons.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        let code = match self.json()["error"].get("type") {
            Some(_) => self.openai_code(),
            None => self.error()["code"].as_str().unwrap().to_owned(),
        };
        (self.status(), code)
    }

    /// The code of an error in OpenAI's form, by the name that it has elsewhere.
    #[track_caller]
    fn openai_code(&self) -> String {
        let json = self.json();
        let keys: Vec<_> = json["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["message", "type", "param", "code"], "{json}");
        match json["error"]["code"].as_str() {
            Some("invalid_api_key") => "UNAUTHORIZED".into(),
            Some(code) => code.to_uppercase(),
            None => "INVALID_REQUEST".into(),
        }
    }
}

/// A request as it goes over the wire.
pub fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        let fields = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        bytes.extend_from_slice(fields.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

fn malformed(what: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Serves one connection with fixed bytes.
    fn serving(response: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).unwrap();
            socket.write_all(response).unwrap();
        });
        address
    }

    fn get(response: &'static [u8]) -> std::io::Result<Reply> {
        let mut connection = Connection::open(serving(response));
        connection
            .send(&request_bytes("GET", "/", &[], b""))
            .unwrap();
        connection.read_reply()
    }

    #[test]
    fn reads_each_framing() {
        for response in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nhello",
        ] {
            assert_eq!(get(response).unwrap().text(), "hello");
        }
    }

    #[test]
    fn refuses_what_is_cut_or_irregular() {
        for response in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"",
        ] {
            assert!(
                get(response).is_err(),
                "{:?}",
                String::from_utf8_lossy(response)
            );
        }
    }
}
