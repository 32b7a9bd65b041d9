//! `worker-orcd check`: what would keep the service from starting, found before it does. Nothing is started, and nothing is
//! left behind.

mod places;
mod program;

use std::fmt;

use orcd_shared::exit::supervisor as exit;
use tokio::task::spawn_blocking;

use crate::advice;
use crate::config::Config;
use crate::http::server::few_connections;
use crate::model::ModelHeader;
use crate::run::{RunError, joined, try_address, unfit};

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It is as it should be.
    Fine(String),
    /// The service starts, and somebody will wonder.
    Warning(String),
    /// The service would not start.
    Failed {
        /// The exit code of that start.
        code: u8,
        /// Why, and what to do.
        message: String,
    },
}

impl Verdict {
    /// The start would end with `error`, whose message begins with its own "error: ".
    fn failed(code: u8, error: impl fmt::Display) -> Self {
        let message = error.to_string();
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        Self::Failed {
            code,
            message: message.to_owned(),
        }
    }

    /// The start would end with `error`, and another one may not.
    fn failed_start(error: impl fmt::Display) -> Self {
        Self::failed(exit::STARTUP_FAILED, error)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Of what, and what.
    findings: Vec<(&'static str, Verdict)>,
}

impl Report {
    fn add(&mut self, subject: &'static str, verdict: Verdict) {
        self.findings.push((subject, verdict));
    }

    fn warn(&mut self, subject: &'static str, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            self.add(subject, Verdict::Warning(warning));
        }
    }

    /// That of the first start that would fail; 0 if none would.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let code = self.findings.iter().find_map(|(_, verdict)| match verdict {
            Verdict::Failed { code, .. } => Some(*code),
            _ => None,
        });
        code.unwrap_or(exit::OK)
    }
}

impl fmt::Display for Report {
    /// A line for each, whatever its message came from, and one for all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut failed = 0;
        for (subject, verdict) in &self.findings {
            let (word, text) = match verdict {
                Verdict::Fine(text) => ("ok", text),
                Verdict::Warning(text) => ("warning", text),
                Verdict::Failed { message, .. } => {
                    failed += 1;
                    ("FAILED", message)
                }
            };
            let text = text.replace(['\n', '\r'], " ");
            writeln!(f, "{word:8}{subject:9}{text}")?;
        }
        match failed {
            0 => writeln!(f, "nothing keeps the service from starting"),
            1 => writeln!(f, "one thing keeps the service from starting"),
            _ => writeln!(f, "{failed} things keep the service from starting"),
        }
    }
}

/// Looks at all that a start of `config` needs, in the order of that start.
pub async fn check(config: Config) -> Report {
    let mut report = Report::default();
    let device = config.check_device();
    if let Err(error) = &device {
        report.add("device", Verdict::failed(error.exit_code(), error));
    }
    // By a name there may be none.
    let (config, is_found) = match config.clone().find_model() {
        Ok(found) => (found, true),
        Err(error) => {
            report.add("model", Verdict::failed(error.exit_code(), error));
            (config, false)
        }
    };
    settings(&config, &mut report);
    report.add("address", address(&config).await);
    let is_readable = is_found && model(&config, &mut report).await;
    places::check(&config, &mut report);
    // Of a device that this build lacks, or a file that can't be read, the worker would say the same again.
    if program::check(&config, &mut report).await && is_readable && device.is_ok() {
        report.add("memory", program::memory(&config).await);
    }
    report
}

/// The command line and the environment were fine, or nobody would be here.
fn settings(config: &Config, report: &mut Report) {
    let before = report.findings.len();
    report.warn("settings", advice::warnings(config));
    report.warn("settings", config.access_warnings.iter().cloned());
    report.warn("settings", few_connections());
    if report.findings.len() == before {
        let text = format!(
            "for {}, as {}",
            config.device,
            config.model_names().join(", ")
        );
        report.add("settings", Verdict::Fine(text));
    }
}

async fn address(config: &Config) -> Verdict {
    match try_address(config).await {
        Ok(_) => Verdict::Fine(match config.port {
            0 => format!("{} has a free port", config.host),
            port => format!("{} port {port} is free", config.host),
        }),
        Err(error @ RunError::Startup { .. }) => Verdict::failed(
            error.exit_code(),
            format!("{error}; if the service runs already, it may be what is there"),
        ),
        Err(error) => Verdict::failed(error.exit_code(), error),
    }
}

/// Whether the file is a model that text can be made for.
async fn model(config: &Config, report: &mut Report) -> bool {
    let (path, overrides) = (config.model.clone(), config.text.clone());
    let built = spawn_blocking(move || {
        let header = ModelHeader::read(&path).map_err(unfit)?;
        header.build(&overrides).map_err(unfit)
    });
    let model = match joined(built.await) {
        Ok(model) => model,
        Err(error) => {
            report.add("model", Verdict::failed(error.exit_code(), error));
            return false;
        }
    };
    let text = format!(
        "{}: {}, {} tokens ({}); its weights are read at the start alone",
        config.model.display(),
        model.name(),
        model.vocab_size(),
        model.tokenizer_kind()
    );
    report.add("model", Verdict::Fine(text));
    report.warn("model", model.warnings());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_for_each_and_the_code_of_the_first_that_fails() {
        let mut report = Report::default();
        report.add("a", Verdict::Fine("is there".into()));
        assert_eq!(report.exit_code(), exit::OK);
        assert!(
            report
                .to_string()
                .ends_with("\nnothing keeps the service from starting\n")
        );
        report.warn("b", ["wonder\nat it".to_owned()]);
        assert_eq!(report.exit_code(), exit::OK);
        report.add("c", Verdict::failed(exit::USAGE, "error: USAGE: no"));
        report.add("d", Verdict::failed_start("gone"));
        assert_eq!(report.exit_code(), exit::USAGE);
        assert_eq!(
            report.to_string(),
            "ok      a        is there\n\
             warning b        wonder at it\n\
             FAILED  c        USAGE: no\n\
             FAILED  d        gone\n\
             2 things keep the service from starting\n"
        );
    }
}
