//! A client that writes down whatever comes, in order or not: the judgment is made afterwards.

use std::time::{Duration, Instant};

use orcd_tests::http::{Body, request_bytes};
use orcd_tests::sse::Parser;
use orcd_tests::{Job, WorkerHarness};
use serde_json::Value;

use crate::judge::{Ending, Token};

/// Longest that a client asks again when it is told to come later.
const PERSISTENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);

/// Goes away from its stream after so many tokens, for so long.
pub(crate) type Absence = Option<(usize, Duration)>;

/// What a client received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) tokens: Vec<Token>,
    pub(crate) ending: Ending,
    pub(crate) replays: u64,
    /// When `started` and each token came.
    pub(crate) arrivals: Vec<Instant>,
    /// When it was away.
    pub(crate) away: Option<(Instant, Instant)>,
    /// How often it was told to come later.
    pub(crate) refusals: usize,
    /// What the strict reader of the contract says about all of the bytes.
    pub(crate) strictly: Result<(), String>,
}

/// Bytes cut into events, leniently.
#[derive(Default)]
struct Notes {
    raw: Vec<u8>,
    read: usize,
    started: bool,
    tokens: Vec<Token>,
    last_id: Option<u64>,
    arrivals: Vec<Instant>,
    ending: Option<(Ending, u64)>,
}

impl Notes {
    fn push(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        while let Some(end) = self.raw[self.read..].windows(2).position(|w| w == b"\n\n") {
            let block = self.raw[self.read..self.read + end + 2].to_vec();
            self.read += end + 2;
            self.block(String::from_utf8_lossy(&block).into_owned());
        }
    }

    /// Drops the part of an event that a lost connection leaves behind.
    fn cut(&mut self) {
        self.raw.truncate(self.read);
    }

    fn block(&mut self, raw: String) {
        let field = |name: &str| raw.lines().find_map(|line| line.strip_prefix(name));
        let data = field("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok());
        let Some(data) = data else { return };
        self.last_id = field("id: ").and_then(|id| id.parse().ok());
        let text = |name: &str| data[name].as_str().map(str::to_owned);
        match field("event: ") {
            Some("started") => {
                self.started = true;
                self.arrivals.push(Instant::now());
            }
            Some("token") => {
                self.arrivals.push(Instant::now());
                let index = data["i"].as_u64().unwrap_or(u64::MAX);
                self.tokens.push(Token { index, raw });
            }
            Some("end") => {
                let reason = text("stop_reason").unwrap_or_default();
                let ending = Ending::End(reason, text("stop_sequence"));
                self.ending = Some((ending, data["replays"].as_u64().unwrap_or(0)));
            }
            Some("error") => {
                let code = text("code").unwrap_or_default();
                let ending = Ending::Error(code, text("message").unwrap_or_default());
                self.ending = Some((ending, 0));
            }
            _ => {}
        }
    }

    /// Reads until `enough` or the stream's end.
    fn read(
        &mut self,
        body: &mut Body,
        mut enough: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        while !enough(self) {
            match body.read().map_err(|error| error.to_string())? {
                Some(bytes) => self.push(&bytes),
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Runs a job from its request to the last byte of its stream.
pub(crate) fn run(service: &WorkerHarness, job: &Job, absence: Absence) -> Received {
    let mut notes = Notes::default();
    let mut refusals = 0;
    let mut away = None;
    let read = read_all(service, job, absence, &mut notes, &mut refusals, &mut away);
    let mut parser = Parser::default();
    let strictly = parser.push(&notes.raw).and_then(|_| parser.finish());
    let cut = || (Ending::Cut(read.err().unwrap_or_default()), 0);
    let (ending, replays) = notes.ending.unwrap_or_else(cut);
    Received {
        tokens: notes.tokens,
        ending,
        replays,
        arrivals: notes.arrivals,
        away,
        refusals,
        strictly: strictly.map_err(|malformed| malformed.0),
    }
}

fn read_all(
    service: &WorkerHarness,
    job: &Job,
    absence: Absence,
    notes: &mut Notes,
    refusals: &mut usize,
    away: &mut Option<(Instant, Instant)>,
) -> Result<(), String> {
    let request = request_bytes("POST", "/execute", &[], &job.body());
    let mut body = accepted(service, &request, refusals)?;
    if let Some((tokens, time)) = absence {
        notes.read(&mut body, |notes| notes.tokens.len() >= tokens)?;
        if notes.ending.is_none() {
            drop(body);
            notes.cut();
            let left = Instant::now();
            std::thread::sleep(time);
            body = resumed(service, job.id(), notes.last_id)?;
            *away = Some((left, Instant::now()));
        }
    }
    notes.read(&mut body, |_| false)
}

/// Sends a request, again as long as it is told to come later.
pub(crate) fn accepted(
    service: &WorkerHarness,
    request: &[u8],
    refusals: &mut usize,
) -> Result<Body, String> {
    let begin = Instant::now();
    loop {
        let (status, body) = exchange(service, request)?;
        if status == 200 {
            return Ok(body);
        }
        if status != 503 || begin.elapsed() > PERSISTENCE {
            return Err(format!("refused with {status}"));
        }
        *refusals += 1;
        std::thread::sleep(RETRY);
    }
}

fn resumed(service: &WorkerHarness, job_id: &str, after: Option<u64>) -> Result<Body, String> {
    let after = after.map(|id| id.to_string());
    let headers: Vec<_> = after
        .iter()
        .map(|id| ("Last-Event-ID", id.as_str()))
        .collect();
    let path = format!("/jobs/{job_id}/events");
    match exchange(service, &request_bytes("GET", &path, &headers, b""))? {
        (200, body) => Ok(body),
        (status, _) => Err(format!("not resumed: {status}")),
    }
}

fn exchange(service: &WorkerHarness, request: &[u8]) -> Result<(u16, Body), String> {
    let mut connection = service.connect();
    connection.send(request).map_err(|e| e.to_string())?;
    let head = connection.read_head().map_err(|e| e.to_string())?;
    Ok((head.status, connection.into_body(&head)))
}
