//! What of an event stream is of interest: how many tokens came, and how it ended.

use serde_json::{Value, json};

/// Longest line that is looked into. The lines of tokens may be longer: their beginning is enough.
const MOST_BYTES: usize = 64 * 1024;

/// Reads a stream's bytes as they arrive, cut anywhere.
#[derive(Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    /// Events have names, as those of `/execute` do.
    named: bool,
    ends: bool,
    /// Tokens, as an OpenAI stream says them before its end.
    counted: Option<u64>,
    last: Option<Value>,
}

impl Events {
    /// Takes more bytes of the stream; how many token events begin in them.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> u32 {
        let mut tokens = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MOST_BYTES - self.line.len().min(MOST_BYTES);
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                tokens += self.finish_line();
            }
        }
        tokens
    }

    /// The stream's last event, once it came.
    pub(crate) fn last(&self) -> Option<&Value> {
        self.last.as_ref()
    }

    fn finish_line(&mut self) -> u32 {
        let mut whole = std::mem::take(&mut self.line);
        let line = whole.trim_ascii_end();
        let mut tokens = 0;
        if let Some(event) = line.strip_prefix(b"event: ") {
            self.named = true;
            tokens = u32::from(event == b"token");
            self.ends = event == b"end" || event == b"error";
        } else if let Some(data) = line.strip_prefix(b"data: ") {
            if self.ends {
                self.last = serde_json::from_slice(data).ok();
            } else if !self.named {
                tokens = self.chunk(data);
            }
        }
        whole.clear();
        self.line = whole; // for its memory
        tokens
    }

    /// A chunk of OpenAI's form: the first has the role, the last counts tokens, and a word ends the stream. Those
    /// between bring tokens; they are not taken apart, which would make this program the bottleneck.
    fn chunk(&mut self, data: &[u8]) -> u32 {
        if data == b"[DONE]" {
            self.last = Some(json!({"type": "end", "tokens_out": self.counted}));
        } else if has(data, b"\"error\":") {
            self.last = serde_json::from_slice(data).ok();
        } else if has(data, b"\"completion_tokens\":") {
            let usage = serde_json::from_slice::<Value>(data).ok();
            self.counted = usage.and_then(|chunk| chunk["usage"]["completion_tokens"].as_u64());
        } else if has(data, b"\"finish_reason\":null") && !has(data, b"\"role\":") {
            return 1;
        }
        0
    }
}

fn has(data: &[u8], words: &[u8]) -> bool {
    data.windows(words.len()).any(|at| at == words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "id: 0\nevent: started\ndata: {\"type\":\"started\"}\n\n: working\n\n\
        id: 1\nevent: token\ndata: {\"t\":\"event: token\"}\n\nid: 2\nevent: token\ndata: {\"t\":\"b\"}\n\n\
        id: 3\nevent: end\ndata: {\"type\":\"end\",\"tokens_out\":2}\n\n";

    #[test]
    fn tokens_and_the_end_are_found_however_the_stream_is_cut() {
        for cut in 0..=STREAM.len() {
            let (first, second) = STREAM.as_bytes().split_at(cut);
            let mut events = Events::default();
            let tokens = events.take(first) + events.take(second);
            assert_eq!(tokens, 2, "cut at {cut}");
            assert_eq!(
                events.last().map(|end| &end["tokens_out"]),
                Some(&2.into()),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn chunks_of_openai_s_form_are_counted_and_so_is_what_they_say_themselves() {
        let chunk = |delta: &str| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{delta},\"finish_reason\":null}}],\"usage\":null}}\n\n"
            )
        };
        let mut events = Events::default();
        assert_eq!(events.take(chunk("{\"role\":\"assistant\"}").as_bytes()), 0);
        assert_eq!(events.take(chunk("{\"content\":\"a\"}").as_bytes()), 1);
        assert_eq!(events.take(chunk("{\"content\":\"b\"}").as_bytes()), 1);
        events.take(b"data: {\"choices\":[],\"usage\":{\"completion_tokens\":5}}\n\n");
        assert_eq!(events.last(), None);
        events.take(b"data: [DONE]\n\n");
        assert_eq!(
            events.last(),
            Some(&json!({"type": "end", "tokens_out": 5}))
        );
    }

    #[test]
    fn a_stream_without_its_end_has_none() {
        let mut events = Events::default();
        assert_eq!(
            events.take(b"event: token\ndata: {\"type\":\"end\"}\n\n"),
            1
        );
        assert_eq!(events.last(), None);
    }

    #[test]
    fn a_line_is_kept_up_to_its_bound() {
        let mut events = Events::default();
        let long = vec![b'x'; 3 * MOST_BYTES];
        assert_eq!(events.take(&long), 0);
        assert_eq!(events.line.len(), MOST_BYTES);
        assert_eq!(events.take(b"\nevent: token\n"), 1);
    }
}
