//! A notification: lines of `KEY=value`.

use std::fmt::{self, Display, Write as _};

/// Longest value; systemd takes whole messages of at most 4 KiB.
const MAX_VALUE_CHARS: usize = 1000;

/// One notification to systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(String);

impl Message {
    /// Adds a line. A value can't begin another one, and is cut where it gets too long.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        let value = value.to_string();
        self.0.push_str(key);
        self.0.push('=');
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        self.0
            .extend(value.chars().take(MAX_VALUE_CHARS).map(printable));
        self.0.push('\n');
        self
    }

    /// Adds a line with a time in microseconds.
    #[must_use]
    pub fn with_usec(self, key: &str, time: std::time::Duration) -> Self {
        self.with(key, time.as_micros())
    }

    /// There is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, line) in self.0.lines().enumerate() {
            if n > 0 {
                f.write_char(' ')?;
            }
            f.write_str(line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_value_stays_one_line() {
        let message = Message::default()
            .with("READY", 1)
            .with("STATUS", "a\nMAINPID=1\r")
            .with_usec("EXTEND_TIMEOUT_USEC", Duration::from_secs(2));
        assert_eq!(
            message.as_bytes(),
            b"READY=1\nSTATUS=a MAINPID=1 \nEXTEND_TIMEOUT_USEC=2000000\n"
        );
        let long = Message::default().with("STATUS", "ü".repeat(5000));
        assert!(long.as_bytes().len() < 4096 && long.as_bytes().ends_with("ü\n".as_bytes()));
    }
}
