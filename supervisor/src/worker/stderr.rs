//! What a worker writes for people, passed on to the log.

use tokio::io::AsyncReadExt as _;

/// Longest line that is kept.
const LINE_BYTES: usize = 4096;

/// Passes the worker's stderr on to the log, a line at a time.
pub(super) async fn log_lines(stderr: std::process::ChildStderr, generation: u64) {
    let mut stderr = match tokio::process::ChildStderr::from_std(stderr) {
        Ok(stderr) => stderr,
        Err(error) => return tracing::warn!(%error, "the worker's stderr can't be read"),
    };
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = stderr.read(&mut chunk).await {
        for &byte in &chunk[..n] {
            match byte {
                b'\n' => log_line(&mut line, generation),
                _ if line.len() < LINE_BYTES => line.push(byte),
                _ => {}
            }
        }
    }
    log_line(&mut line, generation);
}

fn log_line(line: &mut Vec<u8>, generation: u64) {
    if !line.is_empty() {
        tracing::info!(target: "cuda_worker", generation, "{}", String::from_utf8_lossy(line));
        line.clear();
    }
}
