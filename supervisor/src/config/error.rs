//! Why there is no configuration.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory as _};
use orcd_shared::error::ErrorCode;
use orcd_shared::exit::supervisor as exit;

use super::args::CommandLine;

/// What came of the command line instead of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--help`, `--version`, completions or the manual: the text is for stdout.
    #[error("{0}")]
    Show(String),
    /// The command line is wrong.
    #[error("error: USAGE: {0}")]
    Usage(String),
    /// The device can't be used by this build.
    #[error("error: CUDA_ERROR: {0}")]
    Device(String),
    /// The model is neither a file nor one that was pulled.
    #[error("error: {code}: {0}", code = ErrorCode::ModelLoadFailed)]
    Model(String),
}

impl ConfigError {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// For what was given wrong.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "that is what `map_err` gives"
    )]
    pub(super) fn from_store(error: model_store::Error) -> Self {
        Self::Usage(error.to_string())
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Show(_) => exit::OK,
            // A build that lacks the device is a wrong command line too: no restart mends it.
            Self::Usage(_) | Self::Device(_) => exit::USAGE,
            Self::Model(_) => exit::STARTUP_FAILED,
        }
    }
}

impl From<clap::Error> for ConfigError {
    fn from(error: clap::Error) -> Self {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Show(error.to_string()),
            _ => Self::Usage(one_line(&error)),
        }
    }
}

/// clap's message with its suggestions, without its prefix and its usage, on one line.
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
    let long_forms = long_forms(error);
    let suggestions = [
        ("argument", error.get(ContextKind::SuggestedArg)),
        ("value", error.get(ContextKind::SuggestedValue)),
        ("argument", long_forms.as_ref()),
    ]
    .into_iter()
    .filter_map(|(what, names)| suggestion(what, names?));
    for part in suggestions.chain(["see --help".to_owned()]) {
        line.push_str("; ");
        line.push_str(&part);
    }
    line
}

/// "a similar argument exists: '--model'".
fn suggestion(what: &str, names: &ContextValue) -> Option<String> {
    let names = match names {
        ContextValue::String(name) => std::slice::from_ref(name),
        ContextValue::Strings(names) => names,
        _ => return None,
    };
    let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    let quoted = quoted.join(", ");
    match names.len() {
        0 => None,
        1 => Some(format!("a similar {what} exists: {quoted}")),
        _ => Some(format!("similar {what}s exist: {quoted}")),
    }
}

/// For an unknown flag of one letter, the flags that begin with it; clap suggests to pass it as a
/// value.
fn long_forms(error: &clap::Error) -> Option<ContextValue> {
    let ContextValue::String(flag) = error.get(ContextKind::InvalidArg)? else {
        return None;
    };
    let letter = flag.strip_prefix('-').filter(|name| name.len() == 1)?;
    let command = CommandLine::command();
    let flags = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let flags = flags.filter_map(Arg::get_long);
    let same = flags.filter(|long| long.starts_with(letter));
    Some(ContextValue::Strings(
        same.map(|long| format!("--{long}")).collect(),
    ))
}

/// The variable of the flag that clap complains about, when it is set.
fn variable_of(error: &clap::Error) -> Option<String> {
    let argument = error.get(ContextKind::InvalidArg)?.to_string();
    let flag = argument.split_whitespace().next()?.strip_prefix("--")?;
    let variable = format!("ORCD_{}", flag.replace('-', "_").to_uppercase());
    std::env::var_os(&variable).is_some().then_some(variable)
}
