//! Requests to `/execute`, and what came back.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::sse::{End, Event, Kind, StreamError};

/// The body of an `/execute` request.
#[derive(Debug, Clone)]
pub struct Job(Map<String, Value>);

impl Job {
    /// A job with a prompt and all else left to the defaults.
    pub fn new(job_id: &str, prompt: &str) -> Self {
        Self(Map::new()).set("job_id", job_id).set("prompt", prompt)
    }

    /// The same with the prompt's tokens.
    pub fn of_ids(job_id: &str, ids: &[u64]) -> Self {
        Self(Map::new())
            .set("job_id", job_id)
            .set("prompt_ids", ids)
    }

    /// A job that on random weights makes exactly `max_tokens` tokens: end tokens are weak there,
    /// never among the 64 likeliest.
    pub fn lasting(job_id: &str, max_tokens: u64) -> Self {
        let job = Self::new(job_id, "x").set("max_tokens", max_tokens);
        job.set("top_k", 64).set("seed", 1)
    }

    /// A job with turns of a conversation, each a role and its content.
    pub fn chat(job_id: &str, turns: &[(&str, &str)]) -> Self {
        let turn = |(role, content): &(&str, &str)| json!({"role": role, "content": content});
        let messages: Vec<_> = turns.iter().map(turn).collect();
        Self(Map::new())
            .set("job_id", job_id)
            .set("messages", messages)
    }

    /// Sets any field.
    pub fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// The same job under another name.
    pub fn named(self, job_id: &str) -> Self {
        self.set("job_id", job_id)
    }

    /// Its name.
    pub fn id(&self) -> &str {
        self.0["job_id"].as_str().unwrap()
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// As the bytes of the body.
    pub fn body(&self) -> Vec<u8> {
        self.json().to_string().into_bytes()
    }
}

/// All that a stream brought, with the time at which each event came.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// When the request was sent.
    pub begin: Instant,
    /// Events in order.
    pub events: Vec<Event>,
    /// When each came.
    pub arrivals: Vec<Instant>,
    /// Comments in order.
    pub comments: Vec<String>,
}

impl Transcript {
    /// Nothing yet.
    pub fn starting(begin: Instant) -> Self {
        Self {
            begin,
            events: Vec::new(),
            arrivals: Vec::new(),
            comments: Vec::new(),
        }
    }

    /// The concatenated text of the tokens.
    pub fn text(&self) -> String {
        self.tokens().map(|(t, _)| t).collect()
    }

    /// The token ids.
    pub fn ids(&self) -> Vec<u64> {
        self.tokens().map(|(_, id)| id).collect()
    }

    /// The text of each token.
    pub fn pieces(&self) -> Vec<&str> {
        self.tokens().map(|(t, _)| t).collect()
    }

    /// The bytes of all token events: what a crash must not change.
    pub fn token_bytes(&self) -> String {
        let is_token = |e: &&Event| matches!(e.kind, Kind::Token { .. });
        self.events
            .iter()
            .filter(is_token)
            .map(|e| e.raw.as_str())
            .collect()
    }

    /// The data of all token events.
    pub fn token_data(&self) -> Vec<serde_json::Value> {
        let raw = self.token_bytes();
        let data = raw.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).expect("data is JSON"))
            .collect()
    }

    /// Seed and number of prompt tokens that `started` reported.
    #[track_caller]
    pub fn started(&self) -> (u64, u64) {
        match self.events.first().map(|e| &e.kind) {
            Some(Kind::Started {
                seed,
                prompt_tokens,
                ..
            }) => (*seed, *prompt_tokens),
            other => panic!("the stream begins with {other:?}"),
        }
    }

    /// The `end` event.
    #[track_caller]
    pub fn end(&self) -> &End {
        match self.events.last().map(|e| &e.kind) {
            Some(Kind::End(end)) => end,
            other => panic!("the stream's last event is {other:?}"),
        }
    }

    /// The `error` event.
    #[track_caller]
    pub fn error(&self) -> &StreamError {
        match self.events.last().map(|e| &e.kind) {
            Some(Kind::Error(error)) => error,
            other => panic!("the stream's last event is {other:?}"),
        }
    }

    /// When the last event came.
    #[track_caller]
    pub fn over_at(&self) -> Instant {
        *self.arrivals.last().expect("events")
    }

    /// The longest time without an event from `since` on, or from the first event after it.
    #[track_caller]
    pub fn longest_pause(&self, since: Instant) -> Duration {
        let after = self.arrivals.iter().copied().filter(|at| *at > since);
        let times: Vec<_> = std::iter::once(since).chain(after).collect();
        assert!(times.len() > 1, "the stream was over by then");
        let gaps = times.windows(2).map(|w| w[1] - w[0]);
        gaps.max().unwrap_or_default()
    }

    /// From the request to the first token.
    #[track_caller]
    pub fn time_to_first_token(&self) -> Duration {
        let first = self
            .events
            .iter()
            .position(|e| matches!(e.kind, Kind::Token { .. }));
        self.arrivals[first.expect("a token")] - self.begin
    }

    fn tokens(&self) -> impl Iterator<Item = (&str, u64)> {
        self.events.iter().filter_map(|e| match &e.kind {
            Kind::Token { t, id, .. } => Some((t.as_str(), *id)),
            _ => None,
        })
    }
}
