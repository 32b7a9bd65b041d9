//! A question to the worker's program, which answers it in a process of its own and ends.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::process::keep_to_itself;

/// Most bytes of an answer.
pub const MAX_ANSWER_BYTES: u64 = 4096;

/// How `program` ends that gets `flag`, and `input` on its standard input; and what it writes to its standard output,
/// [`MAX_ANSWER_BYTES`] of it. Whoever drops the future ends the process.
///
/// # Errors
/// It can't be started or read.
pub async fn ask(
    program: &Path,
    flag: &str,
    input: &[u8],
    stderr: Stdio,
) -> io::Result<(ExitStatus, String)> {
    let mut command = Command::new(program);
    command
        .arg(flag)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .kill_on_drop(true);
    keep_to_itself(command.as_std_mut());
    let mut child = command.spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    if let Some(mut stdin) = stdin {
        // One that dies of it says so by its end.
        let _ = stdin.write_all(input).await;
    }
    let mut answer = Vec::new();
    if let Some(stdout) = stdout {
        stdout
            .take(MAX_ANSWER_BYTES)
            .read_to_end(&mut answer)
            .await?;
    }
    let status = child.wait().await?;
    Ok((status, String::from_utf8_lossy(&answer).into_owned()))
}
