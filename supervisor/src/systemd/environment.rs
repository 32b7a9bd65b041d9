//! What the service manager put into the environment.

use std::ffi::OsString;
use std::time::Duration;

/// More descriptors are not taken; a store of images needs a handful.
const MAX_PASSED: usize = 64;
/// What a descriptor without a name is called, as `sd_listen_fds_with_names` has it.
const UNNAMED: &str = "unknown";

/// The environment, read and checked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// Where to send notifications.
    pub(super) notify_socket: Option<OsString>,
    /// Longest time between two signs of life.
    pub(super) watchdog: Option<Duration>,
    /// Names of the passed descriptors, in their order.
    pub(super) passed: Vec<String>,
}

impl Environment {
    /// Reads it for the process `pid`. What was meant for another process, which has left its
    /// variables to this one, or can't be read, counts as not there.
    pub(super) fn read(pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| variable(name)?.into_string().ok();
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        let is_ours = |name: &str| text(name).map(|of| of.parse() == Ok(pid));
        let passed = match number("LISTEN_FDS") {
            Some(count) if is_ours("LISTEN_PID") == Some(true) => {
                names(count, text("LISTEN_FDNAMES").as_deref())
            }
            _ => Vec::new(),
        };
        // Unlike descriptors, a watchdog without WATCHDOG_PID is for whoever sees it.
        let watchdog = number("WATCHDOG_USEC")
            .filter(|&period| period > 0 && is_ours("WATCHDOG_PID") != Some(false));
        Self {
            notify_socket: variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
            watchdog: watchdog.map(Duration::from_micros),
            passed,
        }
    }
}

/// A name for each of `count` descriptors.
fn names(count: u64, given: Option<&str>) -> Vec<String> {
    let count = usize::try_from(count).map_or(MAX_PASSED, |count| count.min(MAX_PASSED));
    let given = given.into_iter().flat_map(|names| names.split(':'));
    given
        .chain(std::iter::repeat(UNNAMED))
        .map(str::to_owned)
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::read(7, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn nothing_is_sent_without_systemd() {
        assert_eq!(read(&[]), Environment::default());
        assert_eq!(read(&[("NOTIFY_SOCKET", "")]), Environment::default());
    }

    #[test]
    fn descriptors_and_their_names_come_in_order() {
        let listen = |count, names| {
            let environment = read(&[
                ("LISTEN_PID", "7"),
                ("LISTEN_FDS", count),
                ("LISTEN_FDNAMES", names),
            ]);
            environment.passed
        };
        assert_eq!(
            listen("2", "http:orcd-weights-1"),
            ["http", "orcd-weights-1"]
        );
        assert_eq!(listen("3", "http"), ["http", UNNAMED, UNNAMED]);
        assert_eq!(listen("1", "a:b"), ["a"]);
        assert_eq!(listen("99999999999", "a").len(), MAX_PASSED);
        assert!(listen("-1", "a").is_empty());
        assert_eq!(
            read(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "1")]).passed,
            [UNNAMED]
        );
    }

    #[test]
    fn what_another_process_was_told_is_not_for_this_one() {
        for pid in ["8", "", "x"] {
            let environment = read(&[
                ("LISTEN_PID", pid),
                ("LISTEN_FDS", "1"),
                ("WATCHDOG_PID", pid),
                ("WATCHDOG_USEC", "1000"),
            ]);
            assert_eq!(environment, Environment::default(), "{pid:?}");
        }
        assert!(read(&[("LISTEN_FDS", "1")]).passed.is_empty());
        let watchdog = |of: &[(&str, &str)]| read(of).watchdog;
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "1000000")]), second);
        assert_eq!(
            watchdog(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "7")]),
            second
        );
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "0")]), None);
    }
}
