//! A strict parser of job streams. Whatever the contract does not allow is an error: an unknown
//! field, a gap in a count, a key too many, an event after the terminal one.

use serde_json::{Map, Value};

/// Why a stream breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// One event of a job stream, with the bytes that it came as.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// SSE id.
    pub id: u64,
    /// What it says.
    pub kind: Kind,
    /// The block as it came, from `event:` to the empty line.
    pub raw: String,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub enum Kind {
    Started {
        job_id: String,
        model: String,
        started_at: String,
        seed: u64,
        prompt_tokens: u64,
        fingerprint: String,
        request_digest: String,
        template_time: String,
    },
    /// In the place of `started` where the client goes on with what another service began. It has no id of its own: that of
    /// the event is the last one that the client has.
    Resumed {
        job_id: String,
        tokens: u64,
    },
    Token {
        t: String,
        i: u64,
        id: u64,
    },
    Metrics {
        tokens_per_sec: f64,
        vram_bytes: u64,
        queue_depth: u64,
    },
    End(End),
    Error(StreamError),
}

/// The terminal event of a job that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct End {
    pub tokens_out: u64,
    pub decode_time_ms: u64,
    pub stop_reason: String,
    pub stop_sequence: Option<String>,
    pub replays: u64,
    pub engine_time_us: u64,
    pub cached_tokens: u64,
}

/// The terminal event of a job that could not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct StreamError {
    pub code: String,
    pub message: String,
    pub retriable: bool,
    pub tokens_out: u64,
}

/// What a stream consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A comment, without its colon.
    Comment(String),
    /// An event.
    Event(Event),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Queued,
    Running,
    Over,
}

/// Checks a stream as its bytes arrive.
#[derive(Debug)]
pub struct Parser {
    pending: Vec<u8>,
    phase: Phase,
    next_id: u64,
    /// `None` until the first token of a resumed stream shows where it goes on.
    next_index: Option<u64>,
    /// Tokens that the client has of another service.
    resumes: Option<u64>,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            pending: Vec::new(),
            phase: Phase::Queued,
            next_id: 0,
            next_index: Some(0),
            resumes: None,
        }
    }
}

impl Parser {
    /// For a stream that resumes after the event `last_id`, not before `started`.
    pub fn after(last_id: u64) -> Self {
        Self {
            phase: Phase::Running,
            next_id: last_id + 1,
            next_index: None,
            ..Self::default()
        }
    }

    /// For a stream that goes on with what another service began, after so many tokens.
    pub fn resumed(tokens: u64) -> Self {
        Self {
            resumes: Some(tokens),
            ..Self::default()
        }
    }

    /// Takes the next bytes, gives what is complete with them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Item>, Malformed> {
        self.pending.extend_from_slice(bytes);
        let mut items = Vec::new();
        while let Some(end) = self.pending.windows(2).position(|w| w == b"\n\n") {
            let block: Vec<u8> = self.pending.drain(..end + 2).collect();
            let block = String::from_utf8(block).map_err(|e| Malformed(e.to_string()))?;
            items.push(self.block(block)?);
        }
        Ok(items)
    }

    /// To be called at the end of the body.
    pub fn finish(&self) -> Result<(), Malformed> {
        if !self.pending.is_empty() {
            let rest = String::from_utf8_lossy(&self.pending);
            return Err(Malformed(format!(
                "the stream ends inside the block {rest:?}"
            )));
        }
        match self.phase {
            Phase::Over => Ok(()),
            _ => Err(Malformed("the stream ends without a terminal event".into())),
        }
    }

    /// The terminal event was seen.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    fn block(&mut self, raw: String) -> Result<Item, Malformed> {
        check(self.phase != Phase::Over, || {
            format!("{raw:?} after the terminal event")
        })?;
        if let Some(comment) = raw.strip_prefix(':') {
            let comment = comment.trim();
            check(!comment.contains('\n'), || {
                format!("a comment of several lines {raw:?}")
            })?;
            return Ok(Item::Comment(comment.to_owned()));
        }
        if let Some(data) = raw.strip_prefix("event: resumed\ndata: ") {
            let kind = self.resumed_event(data)?;
            let id = self.next_id - 1;
            return Ok(Item::Event(Event { id, kind, raw }));
        }
        let [name, id, data] = fields(&raw)?;
        check(id == self.next_id.to_string(), || {
            format!("id {id:?} where {} is due, in {raw:?}", self.next_id)
        })?;
        let data: Value =
            serde_json::from_str(&data).map_err(|e| Malformed(format!("{e}: {data:?}")))?;
        let object = Object {
            map: data.as_object().ok_or_else(|| no_object(&data))?,
            name: &name,
        };
        check(object.string("type")? == name, || {
            format!("event {name:?} with {data}")
        })?;
        let kind = self.kind(&object)?;
        self.advance(&kind)?;
        self.next_id += 1;
        Ok(Item::Event(Event {
            id: self.next_id - 1,
            kind,
            raw,
        }))
    }

    fn resumed_event(&mut self, data: &str) -> Result<Kind, Malformed> {
        let data: Value =
            serde_json::from_str(data).map_err(|e| Malformed(format!("{e}: {data:?}")))?;
        let event = Object {
            map: data.as_object().ok_or_else(|| no_object(&data))?,
            name: "resumed",
        };
        event.keys(&["job_id", "tokens"], &[])?;
        let tokens = event.count("tokens")?;
        check(
            self.phase == Phase::Queued && self.resumes == Some(tokens),
            || format!("{data} while {:?}, resuming {:?}", self.phase, self.resumes),
        )?;
        self.phase = Phase::Running;
        self.next_id = tokens + 1;
        self.next_index = Some(tokens);
        Ok(Kind::Resumed {
            job_id: event.string("job_id")?,
            tokens,
        })
    }

    fn kind(&self, event: &Object<'_>) -> Result<Kind, Malformed> {
        match event.name {
            "started" => {
                let keys = [
                    "job_id",
                    "model",
                    "started_at",
                    "seed",
                    "prompt_tokens",
                    "fingerprint",
                    "request_digest",
                    "template_time",
                ];
                event.keys(&keys, &[])?;
                let started_at = event.string("started_at")?;
                check(started_at.parse::<jiff::Timestamp>().is_ok(), || {
                    format!("started_at {started_at:?} is not RFC 3339")
                })?;
                Ok(Kind::Started {
                    job_id: event.string("job_id")?,
                    model: event.string("model")?,
                    started_at,
                    seed: event.count("seed")?,
                    prompt_tokens: event.count("prompt_tokens")?,
                    fingerprint: event.string("fingerprint")?,
                    request_digest: event.string("request_digest")?,
                    template_time: event.string("template_time")?,
                })
            }
            "token" => {
                event.keys(&["t", "i", "id"], &["logprob", "top"])?;
                let (t, i, id) = (event.string("t")?, event.count("i")?, event.count("id")?);
                Ok(Kind::Token { t, i, id })
            }
            "metrics" => {
                event.keys(&["tokens_per_sec", "vram_bytes", "queue_depth"], &[])?;
                Ok(Kind::Metrics {
                    tokens_per_sec: event.number("tokens_per_sec")?,
                    vram_bytes: event.count("vram_bytes")?,
                    queue_depth: event.count("queue_depth")?,
                })
            }
            "end" => end(event).map(Kind::End),
            "error" => {
                event.keys(&["code", "message", "retriable", "tokens_out"], &[])?;
                Ok(Kind::Error(StreamError {
                    code: event.string("code")?,
                    message: event.string("message")?,
                    retriable: event.boolean("retriable")?,
                    tokens_out: event.count("tokens_out")?,
                }))
            }
            other => Err(Malformed(format!("unknown event {other:?}"))),
        }
    }

    /// Order of events, and the counts that run through them.
    fn advance(&mut self, kind: &Kind) -> Result<(), Malformed> {
        let tokens_out = match (self.phase, kind) {
            (Phase::Queued, Kind::Started { .. }) if self.resumes.is_none() => {
                self.phase = Phase::Running;
                return Ok(());
            }
            (Phase::Running, Kind::Metrics { .. }) => return Ok(()),
            (Phase::Running, Kind::Token { i, .. }) => {
                let due = self.next_index.unwrap_or(*i);
                check(*i == due, || format!("token i {i} where {due} is due"))?;
                self.next_index = Some(i + 1);
                return Ok(());
            }
            (Phase::Running, Kind::End(end)) => end.tokens_out,
            (Phase::Queued | Phase::Running, Kind::Error(error)) => error.tokens_out,
            (phase, kind) => return Err(Malformed(format!("{kind:?} while {phase:?}"))),
        };
        self.phase = Phase::Over;
        let counted = self.next_index.unwrap_or(tokens_out);
        check(tokens_out == counted, || {
            format!("tokens_out {tokens_out} after {counted} tokens")
        })
    }
}

impl Event {
    /// A terminal event.
    pub fn is_terminal(&self) -> bool {
        matches!(self.kind, Kind::End(_) | Kind::Error(_))
    }
}

fn end(event: &Object<'_>) -> Result<End, Malformed> {
    let always = [
        "tokens_out",
        "decode_time_ms",
        "stop_reason",
        "replays",
        "engine_time_us",
        "cached_tokens",
    ];
    event.keys(&always, &["stop_sequence"])?;
    let stop_reason = event.string("stop_reason")?;
    let known = ["EOS", "MAX_TOKENS", "STOP_SEQUENCE", "CONTEXT_FULL"];
    check(known.contains(&stop_reason.as_str()), || {
        format!("stop_reason {stop_reason:?}")
    })?;
    let stop_sequence = match event.map.get("stop_sequence") {
        None => None,
        Some(_) => Some(event.string("stop_sequence")?),
    };
    check(
        stop_sequence.is_some() == (stop_reason == "STOP_SEQUENCE"),
        || format!("stop_sequence {stop_sequence:?} with {stop_reason}"),
    )?;
    Ok(End {
        tokens_out: event.count("tokens_out")?,
        decode_time_ms: event.count("decode_time_ms")?,
        stop_reason,
        stop_sequence,
        replays: event.count("replays")?,
        engine_time_us: event.count("engine_time_us")?,
        cached_tokens: event.count("cached_tokens")?,
    })
}

/// The values of `event`, `id` and `data`, each of which a block holds exactly once.
fn fields(raw: &str) -> Result<[String; 3], Malformed> {
    let mut found = [None, None, None];
    for line in raw.trim_end_matches('\n').split('\n') {
        let (field, value) = line
            .split_once(':')
            .ok_or_else(|| Malformed(format!("line {line:?} in {raw:?}")))?;
        let place = ["event", "id", "data"].iter().position(|f| *f == field);
        let place = place.ok_or_else(|| Malformed(format!("field {field:?} in {raw:?}")))?;
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        check(!value.contains('\r'), || {
            format!("a carriage return in {raw:?}")
        })?;
        check(found[place].replace(value).is_none(), || {
            format!("{field:?} twice in {raw:?}")
        })?;
    }
    match found {
        [Some(event), Some(id), Some(data)] => Ok([event, id, data]),
        _ => Err(Malformed(format!(
            "event, id or data is missing in {raw:?}"
        ))),
    }
}

/// The data of an event, read by key and type.
struct Object<'a> {
    map: &'a Map<String, Value>,
    name: &'a str,
}

impl Object<'_> {
    /// Exactly `type`, these keys and perhaps the optional one.
    fn keys(&self, always: &[&str], optional: &[&str]) -> Result<(), Malformed> {
        for key in self.map.keys().map(String::as_str) {
            let known = key == "type" || always.contains(&key) || optional.contains(&key);
            check(known, || {
                format!("unknown key {key:?} in {} {:?}", self.name, self.map)
            })?;
        }
        for key in always {
            check(self.map.contains_key(*key), || {
                format!("no {key:?} in {}", self.name)
            })?;
        }
        Ok(())
    }

    fn get<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<T, Malformed> {
        let value = self.map.get(key).unwrap_or(&Value::Null);
        read(value).ok_or_else(|| Malformed(format!("{key:?} is {value} in {}", self.name)))
    }

    fn string(&self, key: &str) -> Result<String, Malformed> {
        self.get(key, |v| v.as_str().map(str::to_owned))
    }

    fn count(&self, key: &str) -> Result<u64, Malformed> {
        self.get(key, Value::as_u64)
    }

    fn number(&self, key: &str) -> Result<f64, Malformed> {
        self.get(key, Value::as_f64)
    }

    fn boolean(&self, key: &str) -> Result<bool, Malformed> {
        self.get(key, Value::as_bool)
    }
}

fn no_object(data: &Value) -> Malformed {
    Malformed(format!("data is no object: {data}"))
}

fn check(holds: bool, complaint: impl FnOnce() -> String) -> Result<(), Malformed> {
    if holds {
        Ok(())
    } else {
        Err(Malformed(complaint()))
    }
}

#[cfg(test)]
mod tests;
