//! Who dies when memory runs out.

use std::io;

/// Where the kernel keeps this process's score: -1000 is never, 1000 is first.
const FILE: &str = "/proc/self/oom_score_adj";

/// High enough to go before the supervisor, which holds what this process can't lose. Below the
/// highest, so that whoever wants another order still can have it.
const EXPENDABLE: i32 = 500;

/// Makes the kernel take this process before the supervisor, unless it would already. Anybody may
/// raise his own score.
///
/// # Errors
/// There is no such file, or it can't be written.
pub fn prefer_this_process() -> io::Result<()> {
    let present = std::fs::read_to_string(FILE)?;
    match raised(&present) {
        Some(score) => std::fs::write(FILE, score.to_string()),
        None => Ok(()),
    }
}

/// The score to set, if the present one is lower.
fn raised(present: &str) -> Option<i32> {
    let present = present.trim().parse().unwrap_or(0);
    (present < EXPENDABLE).then_some(EXPENDABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_is_raised_and_never_lowered() {
        assert_eq!(raised("0\n"), Some(EXPENDABLE));
        assert_eq!(raised("-900\n"), Some(EXPENDABLE));
        assert_eq!(raised("500\n"), None);
        assert_eq!(raised("1000\n"), None);
    }
}
