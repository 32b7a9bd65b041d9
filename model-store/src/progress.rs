//! What a person sees while a model is pulled: a bar on a terminal, lines elsewhere; all of it on stderr.

use std::io::Write as _;

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

const STYLE: &str =
    "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
/// Without a color or a symbol that a terminal may lack.
const BAR: &str = "=> ";

/// The state of one download.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            bar: ProgressBar::hidden(),
        }
    }
}

impl Progress {
    /// A file of `bytes` bytes begins, `have` of which are there.
    pub(crate) fn begin(&mut self, file: &str, bytes: u64, have: u64) {
        self.bar = ProgressBar::new(bytes).with_position(have);
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            self.bar.set_style(style.progress_chars(BAR));
        }
        self.bar.set_message(file.to_owned());
        // What was there counts for nothing in the speed.
        self.bar.reset_eta();
        if self.bar.is_hidden() {
            let from = if have > 0 {
                format!(", from {}", human_bytes(have))
            } else {
                String::new()
            };
            self.note(&format!("fetching {file} ({}{from})", human_bytes(bytes)));
        }
    }

    /// So many of its bytes are there.
    pub(crate) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// It is over, well or not.
    pub(crate) fn end(&mut self) {
        self.bar.finish_and_clear();
        *self = Self::default();
    }

    /// Says something, above the bar if there is one.
    pub(crate) fn note(&self, line: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }
}

/// A number of bytes for people: `468.64 MiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}
