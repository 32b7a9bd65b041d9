//! What a worker writes for people, passed on to the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt as _;

/// Longest line that is kept.
const LINE_BYTES: usize = 4096;

/// Lines that are kept for a crash bundle.
const LINES: usize = 50;

/// The last lines of a worker. Clones are the same lines.
#[derive(Debug, Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// What was read by now, oldest first; none are left.
    pub(super) fn taken(&self) -> Vec<String> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.drain(..).collect()
    }
}

/// Passes the worker's stderr on to the log, a line at a time, and keeps the last ones.
pub(super) async fn log_lines(
    stderr: std::process::ChildStderr,
    generation: u64,
    keeper: LastLines,
) {
    let mut stderr = match tokio::process::ChildStderr::from_std(stderr) {
        Ok(stderr) => stderr,
        Err(error) => return tracing::warn!(%error, "the worker's stderr can't be read"),
    };
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = stderr.read(&mut chunk).await {
        for &byte in &chunk[..n] {
            match byte {
                b'\n' => log_line(&mut line, generation, &keeper),
                _ if line.len() < LINE_BYTES => line.push(byte),
                _ => {}
            }
        }
    }
    log_line(&mut line, generation, &keeper);
}

fn log_line(line: &mut Vec<u8>, generation: u64, keeper: &LastLines) {
    if !line.is_empty() {
        let text = String::from_utf8_lossy(line);
        tracing::info!(target: "cuda_worker", generation, "{text}");
        keeper.push(&text);
        line.clear();
    }
}
