//! What of an event stream is of interest: how many tokens came, and how it ended.

use serde_json::Value;

/// Longest line that is looked into. The lines of tokens may be longer: their beginning is enough.
const MOST_BYTES: usize = 64 * 1024;

/// Reads a stream's bytes as they arrive, cut anywhere.
#[derive(Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    ends: bool,
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
        let line = self.line.trim_ascii_end();
        let mut tokens = 0;
        if let Some(event) = line.strip_prefix(b"event: ") {
            tokens = u32::from(event == b"token");
            self.ends = event == b"end" || event == b"error";
        } else if let (true, Some(data)) = (self.ends, line.strip_prefix(b"data: ")) {
            self.last = serde_json::from_slice(data).ok();
        }
        self.line.clear();
        tokens
    }
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
