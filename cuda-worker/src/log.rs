//! Lines for people on standard error, which the supervisor passes on. Never tokens, never text.

use std::fmt::Arguments;
use std::io::Write as _;

/// Writes one line. A closed standard error is no reason to stop working.
pub(crate) fn line(message: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "cuda-worker: {message}");
}
