//! Another engine, in a process of its own: `peer.py`, which has llama.cpp.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use crate::Failure;
use crate::source::{Rows, Source};
use crate::stored::row;

/// Of the line that a peer begins with.
const MAX_GREETING_BYTES: u64 = 4096;

/// The line that a peer begins with.
#[derive(Debug, Deserialize)]
struct Greeting {
    /// What it is, with its version.
    peer: String,
    /// Logits of a row.
    vocabulary: usize,
}

/// A process that answers ids with logits.
pub(crate) struct Peer {
    process: Child,
    ids: ChildStdin,
    rows: BufReader<ChildStdout>,
    /// What it is, with its version.
    pub(crate) name: String,
    vocab: usize,
}

impl Peer {
    /// Starts `command` on the model, for windows of up to `context` tokens, and waits for its greeting. Its rows have to
    /// have `vocab` logits.
    ///
    /// # Errors
    /// It can't be started, says something else, or has another vocabulary.
    pub(crate) fn start(
        command: &[String],
        model: &Path,
        (context, threads): (u32, u32),
        vocab: usize,
    ) -> Result<Self, Failure> {
        let (program, args) = command.split_first().ok_or("--peer names no program")?;
        let mut process = Command::new(program)
            .args(args)
            .arg(model)
            .args(["--context", &context.to_string()])
            .args(["--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("--peer {program}: {e}"))?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (ids, rows) = pipes.ok_or("the peer has no pipes")?;
        let mut peer = Self {
            process,
            ids,
            rows: BufReader::new(rows),
            name: String::new(),
            vocab,
        };
        let greeting = peer.greeting()?;
        if greeting.vocabulary != vocab {
            let theirs = greeting.vocabulary;
            return Err(format!("the peer's rows have {theirs} logits, ours {vocab}").into());
        }
        peer.name = greeting.peer;
        Ok(peer)
    }

    fn greeting(&mut self) -> Result<Greeting, Failure> {
        let mut line = String::new();
        let mut bounded = self.rows.by_ref().take(MAX_GREETING_BYTES);
        bounded.read_line(&mut line)?;
        if line.is_empty() {
            return Err("the peer ended before its first line; what it says is above".into());
        }
        let greeting = serde_json::from_str(&line);
        Ok(greeting.map_err(|e| format!("the peer's first line is no greeting: {e}"))?)
    }
}

impl Source for Peer {
    fn rows<'a>(&'a mut self, window: &'a [u32]) -> Result<Rows<'a>, Failure> {
        let line = serde_json::to_string(window)?;
        writeln!(self.ids, "{line}").map_err(ended)?;
        let Self { rows, vocab, .. } = self;
        Ok(Box::new(
            window.iter().map(|_| row(rows, *vocab).map_err(ended)),
        ))
    }
}

fn ended(error: std::io::Error) -> Failure {
    format!("the peer ended before the last row ({error}); what it says is above").into()
}

impl Drop for Peer {
    /// It may be in the middle of rows that nobody reads any more.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that runs a line of the shell.
    fn peer(line: &str) -> Result<Peer, Failure> {
        let command = ["sh", "-c", line].map(str::to_owned);
        Peer::start(&command, Path::new("m.gguf"), (8, 1), 2)
    }

    fn said(result: Result<Peer, Failure>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn rows_are_those_of_the_ids() -> Result<(), Failure> {
        let mut peer = peer(
            r#"echo '{"peer": "a shell", "vocabulary": 2}'
            read ids; [ "$ids" = "[5,6]" ] && printf '\000\000\200\077\000\000\000\000\000\000\000\100\000\000\200\277'
            read ids; [ "$ids" = "[7]" ] && printf '\000\000'"#,
        )?;
        assert_eq!(peer.name, "a shell");
        let rows = peer.rows(&[5, 6])?.collect::<Result<Vec<_>, _>>()?;
        assert_eq!(rows, [[1.0, 0.0], [2.0, -1.0]]);
        let half = peer.rows(&[7])?.next();
        let error = half.and_then(Result::err).map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.starts_with("the peer ended before the last row")));
        Ok(())
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        assert!(said(peer("exit 3")).starts_with("the peer ended before its first line"));
        assert!(said(peer("echo hello")).starts_with("the peer's first line is no greeting"));
        let endless = "while :; do printf aaaaaaaa; done";
        assert!(said(peer(endless)).starts_with("the peer's first line is no greeting"));
        let other = r#"echo '{"peer": "x", "vocabulary": 3}'"#;
        assert_eq!(said(peer(other)), "the peer's rows have 3 logits, ours 2");
        let nothing = Peer::start(&["/no/such/program".to_owned()], Path::new("m"), (8, 1), 2);
        assert!(said(nothing).starts_with("--peer /no/such/program: "));
    }
}
