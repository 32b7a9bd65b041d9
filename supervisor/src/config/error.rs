//! Why there is no configuration.

use clap::error::{ContextKind, ErrorKind};
use orcd_shared::exit::supervisor as exit;

/// What came of the command line instead of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--help` or `--version`: the text is for stdout.
    #[error("{0}")]
    Show(String),
    /// The command line is wrong.
    #[error("error: USAGE: {0}")]
    Usage(String),
    /// The device can't be used by this build.
    #[error("error: CUDA_ERROR: {0}")]
    Device(String),
}

impl ConfigError {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Show(_) => exit::OK,
            Self::Usage(_) => exit::USAGE,
            Self::Device(_) => exit::STARTUP_FAILED,
        }
    }
}

impl From<clap::Error> for ConfigError {
    fn from(error: clap::Error) -> Self {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Show(error.to_string()),
            _ => Self::Usage(format!("{}; see --help", one_line(&error))),
        }
    }
}

/// clap's message without its prefix, its hints and its usage, on one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let message = text.split("\n\n").next().unwrap_or(text);
    let mut line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // A value from the environment is refused under the flag's name, which the person may never
    // have typed.
    if let Some(variable) = variable_of(error) {
        line.push_str(&format!(" (or {variable})"));
    }
    line
}

/// The variable of the flag that clap complains about, when it is set.
fn variable_of(error: &clap::Error) -> Option<String> {
    let argument = error.get(ContextKind::InvalidArg)?.to_string();
    let flag = argument.split_whitespace().next()?.strip_prefix("--")?;
    let variable = format!("ORCD_{}", flag.replace('-', "_").to_uppercase());
    std::env::var_os(&variable).is_some().then_some(variable)
}
