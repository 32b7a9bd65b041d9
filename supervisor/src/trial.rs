//! Whether a constraint can be used: a process of its own compiles it first, with bounds, so that one that explodes costs
//! its own request and nothing else. The answer decides on admission only; a replay asks for nothing.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use orcd_shared::constraint::Constraint;
use orcd_shared::exit::worker as exit;
use orcd_shared::protocol::frame;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::worker::process::WorkerExit;
use crate::worker::question;

/// Trials at once: they are work for the processor, beside that of the workers.
const AT_ONCE: usize = 2;
/// How long one may take, however busy the machine is. It bounds itself by time of the processor.
const LIMIT: Duration = Duration::from_secs(10);
/// Verdicts that are remembered. A refusal has a reason, of [`question::MAX_ANSWER_BYTES`] at most.
const REMEMBERED: usize = 256;
/// How long one of what took too long counts.
const TOO_LONG_FOR: Duration = Duration::from_secs(60);

/// Why a constraint is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It can't be used; the client may read why.
    #[error("{0}")]
    Refused(String),
    /// It could not be tried.
    #[error("a constraint can't be tried: {0}")]
    Failed(io::Error),
}

/// Tries constraints.
#[derive(Debug)]
pub struct Trials {
    /// The worker's program.
    program: PathBuf,
    permits: Semaphore,
    /// What became of constraints, by their hashes, the oldest first.
    known: Mutex<VecDeque<Known>>,
}

/// Whether a constraint can be used; if not, why.
type Verdict = Result<(), String>;

/// A verdict, so that what costs a second to refuse costs it once.
#[derive(Debug)]
struct Known {
    hash: [u8; 32],
    verdict: Verdict,
    /// Of what took too long: how long a processor takes for something is not always the same.
    until: Option<Instant>,
}

impl Trials {
    /// By the worker's program.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            permits: Semaphore::new(AT_ONCE),
            known: Mutex::new(VecDeque::new()),
        }
    }

    /// Tries `constraint`, as soon as there is a permit; one whose verdict is known is not tried again. Whoever drops the
    /// future ends the process.
    ///
    /// # Errors
    /// It can't be used, or not be tried.
    pub async fn run(&self, constraint: &Constraint) -> Result<(), TrialError> {
        let hash = hash(constraint);
        if let Some(verdict) = self.known(&hash) {
            return verdict.map_err(TrialError::Refused);
        }
        // It is never closed.
        let _permit = self.permits.acquire().await;
        // Others may have wanted the same meanwhile.
        if let Some(verdict) = self.known(&hash) {
            return verdict.map_err(TrialError::Refused);
        }
        let done = tokio::time::timeout(LIMIT, self.ask(constraint)).await;
        let (status, reason) = match done {
            Ok(answer) => answer.map_err(TrialError::Failed)?,
            Err(_) => return Err(TrialError::Refused(exploded("10 s"))),
        };
        let verdict = verdict(status, reason);
        let known = match &verdict {
            Ok(()) => Ok(()),
            Err(TrialError::Refused(reason)) => Err(reason.clone()),
            Err(TrialError::Failed(_)) => return verdict,
        };
        self.remember(hash, known, status);
        verdict
    }

    /// How the process ends, and what it says.
    async fn ask(&self, constraint: &Constraint) -> io::Result<(ExitStatus, String)> {
        let mut bytes = Vec::new();
        frame::encode(constraint, &mut bytes).map_err(io::Error::other)?;
        // Its panics may repeat what the client sent.
        question::ask(&self.program, "--check-constraint", &bytes, Stdio::null()).await
    }

    fn known(&self, hash: &[u8; 32]) -> Option<Verdict> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let holds = |known: &&Known| known.until.is_none_or(|until| now < until);
        let found = known.iter().find(|known| known.hash == *hash);
        found.filter(holds).map(|known| known.verdict.clone())
    }

    fn remember(&self, hash: [u8; 32], verdict: Verdict, status: ExitStatus) {
        let until = match WorkerExit::from(status) {
            WorkerExit::Code(_) => None,
            // Of memory: it has a bound of its own.
            WorkerExit::Signal(signal) if signal == Signal::SIGABRT as i32 => None,
            // Of time.
            WorkerExit::Signal(signal) if signal == Signal::SIGXCPU as i32 => {
                Some(Instant::now() + TOO_LONG_FOR)
            }
            // Something else on the machine may have killed it.
            WorkerExit::Signal(_) | WorkerExit::Unknown => return,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.hash != hash);
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back(Known {
            hash,
            verdict,
            until,
        });
    }
}

/// What the end of the process says of the constraint.
fn verdict(status: ExitStatus, reason: String) -> Result<(), TrialError> {
    match WorkerExit::from(status) {
        WorkerExit::Code(code) if code == i32::from(exit::OK) => Ok(()),
        WorkerExit::Code(code) if code == i32::from(exit::REFUSED) => {
            Err(TrialError::Refused(reason))
        }
        WorkerExit::Signal(_) => Err(TrialError::Refused(exploded("1 s or 512 MiB"))),
        other => Err(TrialError::Failed(io::Error::other(format!(
            "{other}: {reason}"
        )))),
    }
}

fn exploded(limit: &str) -> String {
    format!("it takes more than {limit} to compile; give one that repeats and nests less")
}

fn hash(constraint: &Constraint) -> [u8; 32] {
    let kind = match constraint {
        Constraint::JsonSchema(_) => 0,
        Constraint::Regex(_) => 1,
        Constraint::Lark(_) => 2,
    };
    let hash = Sha256::new().chain_update([kind]);
    hash.chain_update(constraint.text()).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that does `body`, which is counted in the file `runs`.
    fn trials(body: &str) -> (tempfile::TempDir, Trials) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker");
        let script = format!("#!/bin/sh\necho >> {}/runs\n{body}\n", dir.path().display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, Trials::new(path))
    }

    fn runs(dir: &tempfile::TempDir) -> usize {
        std::fs::read(dir.path().join("runs")).unwrap().len()
    }

    fn constraint() -> Constraint {
        Constraint::Regex("x".repeat(200_000))
    }

    #[tokio::test]
    async fn a_usable_constraint_is_tried_once() {
        let (dir, trials) = trials("cat > /dev/null");
        for _ in 0..3 {
            trials.run(&constraint()).await.unwrap();
        }
        assert_eq!(runs(&dir), 1);
        trials
            .run(&Constraint::Lark("x".repeat(200_000)))
            .await
            .unwrap();
        assert_eq!(runs(&dir), 2);
    }

    #[tokio::test]
    async fn a_refusal_says_why_and_is_found_out_once() {
        let (dir, trials) = trials("cat > /dev/null; printf 'at #/x: no'; exit 14");
        for _ in 0..2 {
            match trials.run(&constraint()).await {
                Err(TrialError::Refused(reason)) => assert_eq!(reason, "at #/x: no"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(runs(&dir), 1);
    }

    #[tokio::test]
    async fn who_is_killed_is_tried_again_unless_a_bound_did_it() {
        for (signal, expected) in [("KILL", 2), ("XCPU", 1), ("ABRT", 1)] {
            let (dir, trials) = trials(&format!("cat > /dev/null; kill -{signal} $$"));
            for _ in 0..2 {
                let died = trials.run(&constraint()).await.unwrap_err();
                assert!(matches!(died, TrialError::Refused(_)), "{died:?}");
            }
            assert_eq!(runs(&dir), expected, "{signal}");
        }
    }

    #[tokio::test]
    async fn a_process_that_dies_of_it_is_a_refusal_and_any_other_end_a_failure() {
        // It reads nothing, so that writing to it fails.
        let (_dir, trials) = self::trials("kill -KILL $$");
        let died = trials.run(&constraint()).await.unwrap_err();
        assert!(matches!(died, TrialError::Refused(_)), "{died:?}");
        let (_dir, trials) = self::trials("cat > /dev/null; exit 3");
        let failed = trials.run(&constraint()).await.unwrap_err();
        assert!(matches!(failed, TrialError::Failed(_)), "{failed:?}");
        let missing = Trials::new("/no/worker".into());
        let failed = missing.run(&constraint()).await.unwrap_err();
        assert!(matches!(failed, TrialError::Failed(_)), "{failed:?}");
    }

    #[tokio::test]
    async fn a_reason_is_bounded() {
        let (_dir, trials) = trials("cat > /dev/null; yes | head -c 1000000; exit 14");
        match trials.run(&constraint()).await {
            // Once nobody reads, writing on is the end of it.
            Err(TrialError::Refused(reason)) => assert!(reason.len() <= 4096, "{}", reason.len()),
            other => panic!("{other:?}"),
        }
    }
}
