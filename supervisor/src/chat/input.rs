//! What the person says, line by line.

use std::io::{BufRead, IsTerminal as _, Read as _, stdin};

use tokio::sync::mpsc;

/// Longest line, in bytes: with what was said before it has to fit into a request.
const MAX_LINE: usize = 256 << 10;

/// A line of stdin, or its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(String),
    TooLong,
    End,
}

/// Stdin, read by a thread: no runtime reads terminals.
pub(super) struct Input {
    lines: mpsc::Receiver<Line>,
}

impl Input {
    /// Begins to read. The thread ends with stdin or with the process.
    pub(super) fn start() -> Self {
        let (send, lines) = mpsc::channel(1);
        std::thread::spawn(move || {
            let mut stdin = stdin().lock();
            loop {
                let line = read(&mut stdin);
                let is_end = line == Line::End;
                if send.blocking_send(line).is_err() || is_end {
                    return;
                }
            }
        });
        Self { lines }
    }

    /// The next line; the end again and again.
    pub(super) async fn next(&mut self) -> Line {
        self.lines.recv().await.unwrap_or(Line::End)
    }

    pub(super) fn is_terminal(&self) -> bool {
        stdin().is_terminal()
    }
}

/// A line without its end; bytes that are no UTF-8 are replaced.
fn read(from: &mut impl BufRead) -> Line {
    let mut bytes = Vec::new();
    let limit = MAX_LINE as u64 + 1;
    match from.by_ref().take(limit).read_until(b'\n', &mut bytes) {
        Ok(0) | Err(_) => return Line::End,
        Ok(_) => {}
    }
    if bytes.len() > MAX_LINE && !bytes.ends_with(b"\n") {
        return match from.skip_until(b'\n') {
            Ok(_) => Line::TooLong,
            Err(_) => Line::End,
        };
    }
    let text = String::from_utf8_lossy(&bytes);
    Line::Text(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_what_ends_them_and_too_long_ones_are_left_out() {
        let long = "x".repeat(MAX_LINE + 1);
        let exact = "y".repeat(MAX_LINE);
        let text = [
            b"a\r\n\n",
            long.as_bytes(),
            b"\n",
            exact.as_bytes(),
            b"\n\xff last",
        ]
        .concat();
        let mut from = &text[..];
        for expected in [
            Line::Text("a".into()),
            Line::Text(String::new()),
            Line::TooLong,
            Line::Text(exact),
            Line::Text("\u{fffd} last".into()),
            Line::End,
            Line::End,
        ] {
            assert_eq!(read(&mut from), expected);
        }
    }
}
