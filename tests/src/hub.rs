//! A Hugging Face Hub of our own: repositories of files on a port of loopback, with faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// What goes wrong with one request for a file; several come one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of the answer.
    Cut(usize),
    /// No more comes after so many bytes, and the connection stays.
    Hang(usize),
    /// This status, and what stands in `Retry-After`.
    Status(u16, Option<&'static str>),
    /// The length in the answer is larger by this, and so is what comes.
    Longer(usize),
    /// More bytes than the record says, by this, and no length in the answer.
    Endless(usize),
    /// One byte is another one.
    Flipped,
    /// `Range` is not heeded.
    Whole,
    /// The bytes are at another host.
    Elsewhere(SocketAddr),
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// The header `Range`.
    pub range: Option<String>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    commit: String,
    files: BTreeMap<String, Vec<u8>>,
    /// Names that the listing has in place of others.
    names: BTreeMap<String, String>,
    faults: VecDeque<Fault>,
    seen: Vec<Seen>,
}

/// A hub; it ends with the test's process.
#[derive(Debug, Clone)]
pub struct Hub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// One with these files in every repository.
    pub fn start<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let files = files
            .into_iter()
            .map(|(name, bytes)| (name.to_owned(), bytes));
        let state = State {
            commit: "c0".repeat(20),
            files: files.collect(),
            ..State::default()
        };
        let hub = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(state)),
        };
        let served = hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hub = served.clone();
                std::thread::spawn(move || hub.answer(stream));
            }
        });
        hub
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `HF_ENDPOINT` has to be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests for files go wrong so.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// The listing has `shown` in place of a file's name.
    pub fn call(&self, file: &str, shown: &str) {
        self.state().names.insert(file.into(), shown.into());
    }

    /// The commit of all repositories, two digits of it.
    pub fn commit(&self, digits: &str) {
        self.state().commit = digits.repeat(20);
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Those for files, but for their repository and commit.
    pub fn fetched(&self) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|request| !request.path.starts_with("/api/"));
        seen
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Clients leave in the middle: then there is nobody to answer.
    fn answer(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head).ok()? == 0 {
                return None;
            }
        }
        let head = String::from_utf8(head).ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned())
        };
        let seen = Seen {
            path: path.clone(),
            range: header("range"),
            authorization: header("authorization"),
        };
        self.state().seen.push(seen.clone());
        if path.starts_with("/api/models/") {
            let listing = self.listing();
            return send(
                stream,
                "200 OK",
                "",
                Some(listing.len()),
                listing.as_bytes(),
            );
        }
        self.send_file(stream, &path, seen.range.as_deref())
    }

    fn listing(&self) -> String {
        let state = self.state();
        let sibling = |(name, bytes): (&String, &Vec<u8>)| {
            let name = state.names.get(name).unwrap_or(name);
            serde_json::json!({
                "rfilename": name,
                "size": bytes.len(),
                "lfs": {"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134},
            })
        };
        let siblings: Vec<_> = state.files.iter().map(sibling).collect();
        serde_json::json!({"sha": state.commit, "siblings": siblings}).to_string()
    }

    fn send_file(&self, stream: TcpStream, path: &str, range: Option<&str>) -> Option<()> {
        let name = path.split('?').next()?.rsplit('/').next()?.to_owned();
        let (bytes, fault) = {
            let mut state = self.state();
            (state.files.get(&name).cloned(), state.faults.pop_front())
        };
        let Some(mut bytes) = bytes else {
            return send(stream, "404 Not Found", "", Some(0), b"");
        };
        let total = bytes.len();
        let offset = range.and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        let offset: usize = offset.filter(|_| fault != Some(Fault::Whole)).unwrap_or(0);
        let mut rest = bytes.split_off(offset.min(total));
        let last = total.saturating_sub(1);
        let (status, headers) = match offset {
            0 => ("200 OK", String::new()),
            _ => (
                "206 Partial Content",
                format!("Content-Range: bytes {offset}-{last}/{total}\r\n"),
            ),
        };
        let whole = rest.len();
        match fault {
            None | Some(Fault::Whole) => send(stream, status, &headers, Some(whole), &rest),
            Some(Fault::Cut(at)) => send(
                stream,
                status,
                &headers,
                Some(whole),
                &rest[..at.min(whole)],
            ),
            Some(Fault::Hang(at)) => {
                let mut held = stream.try_clone().ok()?;
                send(
                    stream,
                    status,
                    &headers,
                    Some(whole),
                    &rest[..at.min(whole)],
                )?;
                held.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
                held.read(&mut [0]).ok().map(drop)
            }
            Some(Fault::Status(status, retry_after)) => {
                let headers =
                    retry_after.map_or(String::new(), |value| format!("Retry-After: {value}\r\n"));
                send(stream, &format!("{status} So"), &headers, Some(0), b"")
            }
            Some(Fault::Longer(by)) => {
                rest.resize(whole + by, 0);
                send(stream, status, &headers, Some(rest.len()), &rest)
            }
            Some(Fault::Endless(by)) => {
                rest.resize(whole + by, 0);
                send(stream, status, &headers, None, &rest)
            }
            Some(Fault::Flipped) => {
                rest[whole / 2] ^= 1;
                send(stream, status, &headers, Some(whole), &rest)
            }
            Some(Fault::Elsewhere(address)) => {
                let headers = format!("Location: http://{address}/cdn/{name}?Signature=x\r\n");
                send(stream, "302 Found", &headers, Some(0), b"")
            }
        }
    }
}

/// The SHA-256 of `bytes`, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn send(
    mut stream: TcpStream,
    status: &str,
    headers: &str,
    length: Option<usize>,
    body: &[u8],
) -> Option<()> {
    let length = length.map_or(String::new(), |n| format!("Content-Length: {n}\r\n"));
    let head = format!("HTTP/1.1 {status}\r\n{headers}{length}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}
