//! What the person sees: answers on stdout; prompts, hints and errors on stderr, and only on a terminal or if
//! something is wrong.

use std::io::{IsTerminal as _, Write as _, stderr, stdin, stdout};
use std::net::SocketAddr;

/// The terminal, or whatever is in its place.
pub(super) struct Output {
    /// Whether a person types and reads here.
    is_dialog: bool,
    /// Whether the cursor is at the beginning of a line.
    at_start: bool,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            is_dialog: stdin().is_terminal() && stderr().is_terminal(),
            at_start: true,
        }
    }
}

impl Output {
    pub(super) fn greet(&self, model: &str, device: &str, address: SocketAddr) {
        self.say(&format!(
            "{model} on {device}, also at http://{address}/v1\nCtrl-C stops an answer, /clear forgets what was said, \
             Ctrl-D ends.\n"
        ));
    }

    pub(super) fn prompt(&self) {
        self.say("> ");
    }

    /// After a Ctrl-C while nothing is answered; the terminal has dropped the line.
    pub(super) fn hint(&self) {
        self.say("\n(Ctrl-D ends)\n> ");
    }

    /// Writes a part of an answer; `false` if nobody takes it.
    pub(super) fn write(&mut self, text: &str) -> bool {
        let text = plain(text);
        if let Some(last) = text.chars().last() {
            self.at_start = last == '\n';
        }
        let mut out = stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_ok()
    }

    pub(super) fn end_of_answer(&mut self) {
        if !self.at_start {
            self.write("\n");
        }
    }

    pub(super) fn error(&self, message: &str) {
        let _ = writeln!(stderr(), "[{}]", plain(message));
    }

    pub(super) fn close(&self) {
        self.say("\n");
    }

    fn say(&self, text: &str) {
        if self.is_dialog {
            let mut err = stderr().lock();
            let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        }
    }
}

/// Without the characters by which a terminal is steered: a model may write anything.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\r\n\tc\u{9b}d\x07"), "a[2Jb\n\tcd");
    }
}
