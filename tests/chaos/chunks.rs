//! A client of OpenAI's routes that writes down whatever comes: what each chunk says beside its stream's name and time,
//! by choice, for these come in any order.

use std::collections::BTreeMap;
use std::time::Instant;

use orcd_tests::WorkerHarness;
use orcd_tests::http::{Body, request_bytes};
use serde_json::Value;

use crate::client::{self, Received};
use crate::judge::{Ending, Token};

/// A request to one of OpenAI's routes, for a stream.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The route.
    pub(crate) path: &'static str,
    /// With `stream` and `stream_options`.
    pub(crate) body: Value,
}

/// Bytes cut into chunks.
#[derive(Default)]
struct Notes {
    raw: Vec<u8>,
    /// Chunks of each choice so far.
    counts: BTreeMap<u64, u64>,
    tokens: Vec<Token>,
    arrivals: Vec<Instant>,
    /// Why each choice ended, and what the usage chunk says.
    reasons: BTreeMap<u64, String>,
    usage: Option<Value>,
    error: Option<Ending>,
    done: bool,
    faults: Vec<String>,
}

impl Notes {
    fn push(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        while let Some(end) = self.raw.windows(2).position(|w| w == b"\n\n") {
            let block: Vec<u8> = self.raw.drain(..end + 2).collect();
            self.block(&String::from_utf8_lossy(&block));
        }
    }

    fn block(&mut self, block: &str) {
        if block.starts_with(':') {
            return; // a sign of life
        }
        let Some(data) = block.trim_end().strip_prefix("data: ") else {
            return self.faults.push(format!("no data: {block:?}"));
        };
        if self.done {
            return self.faults.push("more after the end".to_owned());
        }
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        match serde_json::from_str(data) {
            Ok(chunk) => self.chunk(chunk),
            Err(error) => self.faults.push(format!("{error}: {data}")),
        }
    }

    fn chunk(&mut self, mut chunk: Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(error) = chunk.get("error") {
            self.error = Some(Ending::Error(text(&error["code"]), text(&error["message"])));
            return;
        }
        if let Some(fields) = chunk.as_object_mut() {
            fields.remove("id");
            fields.remove("created");
        }
        // Calls have names of their own, made of the stream's.
        let calls = chunk.pointer_mut("/choices/0/delta/tool_calls");
        for call in calls.and_then(Value::as_array_mut).into_iter().flatten() {
            call.as_object_mut().map(|call| call.remove("id"));
        }
        let Some(choice) = chunk["choices"][0]["index"].as_u64() else {
            let mut usage = chunk["usage"].take();
            // It tells what others had asked before.
            usage
                .as_object_mut()
                .map(|usage| usage.remove("prompt_tokens_details"));
            self.usage = Some(usage);
            return;
        };
        self.arrivals.push(Instant::now());
        let reason = &chunk["choices"][0]["finish_reason"];
        if !reason.is_null() {
            self.reasons.insert(choice, text(reason));
        } else if self.reasons.contains_key(&choice) {
            self.faults
                .push(format!("choice {choice} goes on after its end"));
        }
        let count = self.counts.entry(choice).or_default();
        self.tokens.push(Token {
            index: choice << 32 | *count,
            raw: chunk.to_string(),
        });
        *count += 1;
    }

    fn read(&mut self, body: &mut Body) -> Result<(), String> {
        while let Some(bytes) = body.read().map_err(|error| error.to_string())? {
            self.push(&bytes);
        }
        Ok(())
    }

    fn ending(&mut self, read: Result<(), String>) -> Ending {
        if let Some(error) = self.error.take() {
            return error;
        }
        match &self.usage {
            Some(usage) if self.done => Ending::End(format!("{:?}, {usage}", self.reasons), None),
            _ => Ending::Cut(read.err().unwrap_or_default()),
        }
    }
}

/// Runs a request from its first byte to the last one of its stream.
pub(crate) fn run(service: &WorkerHarness, asked: &Asked) -> Received {
    let mut notes = Notes::default();
    let mut refusals = 0;
    let request = request_bytes("POST", asked.path, &[], asked.body.to_string().as_bytes());
    let read = client::accepted(service, &request, &mut refusals)
        .and_then(|mut body| notes.read(&mut body));
    let ending = notes.ending(read);
    // By choice; within one as they came.
    notes.tokens.sort_by_key(|token| token.index);
    Received {
        tokens: notes.tokens,
        ending,
        replays: 0,
        arrivals: notes.arrivals,
        away: None,
        refusals,
        strictly: notes.faults.into_iter().next().map_or(Ok(()), Err),
    }
}

#[test]
fn chunks_are_told_by_choice_without_names_and_times() {
    let mut notes = Notes::default();
    let chunk = |id: &str, choice: u64, text: &str, reason: &str| {
        format!(
            "data: {{\"id\":\"{id}\",\"created\":{choice},\"choices\":[{{\"index\":{choice},\"text\":\"{text}\",\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    notes.push(chunk("x", 1, "b", "null").as_bytes());
    notes.push(chunk("y", 0, "a", "null").as_bytes());
    notes.push(chunk("y", 0, "", "\"stop\"").as_bytes());
    notes.push(b": alive\n\n");
    notes.push(chunk("x", 1, "", "\"length\"").as_bytes());
    notes.push(b"data: {\"choices\":[],\"usage\":{\"n\":1}}\n\ndata: [DO");
    assert!(matches!(notes.ending(Ok(())), Ending::Cut(_)));
    notes.push(b"NE]\n\n");
    let Ending::End(reasons, None) = notes.ending(Ok(())) else {
        panic!("no end");
    };
    assert_eq!(reasons, r#"{0: "stop", 1: "length"}, {"n":1}"#);
    assert_eq!(notes.faults, Vec::<String>::new());
    let indices: Vec<u64> = notes.tokens.iter().map(|token| token.index).collect();
    assert_eq!(indices, [1 << 32, 0, 1, (1 << 32) + 1]);
    assert!(
        notes
            .tokens
            .iter()
            .all(|token| !token.raw.contains("created"))
    );
    notes.push(chunk("y", 0, "c", "null").as_bytes());
    assert_eq!(notes.faults, ["more after the end"]);
}
