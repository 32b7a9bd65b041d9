//! Parses the command line and has it done.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use orcd_supervisor::advice;
use orcd_supervisor::chat::{self, ChatError};
use orcd_supervisor::check;
use orcd_supervisor::config::{Action, Chat, Config, ConfigError};
use orcd_supervisor::log;
use orcd_supervisor::models;
use orcd_supervisor::run::{Ready, RunError, bind, run};
use orcd_supervisor::signals::Shutdown;
use orcd_supervisor::systemd::Manager;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let manager = Manager::take();
    let mut stdout = std::io::stdout();
    let result = match Action::from_env() {
        Err(error) => return refuse(&error),
        Ok(Action::Serve(config)) => return serve(*config, manager),
        Ok(Action::Chat(chat)) => return hold_chat(*chat),
        Ok(Action::Check(config)) => return check_start(*config),
        Ok(Action::Pull(wanted)) => models::pull_and_show(&wanted, &mut stdout),
        Ok(Action::List(store)) => {
            models::list(&store, &mut stdout);
            Ok(())
        }
        Ok(Action::Remove { store, name }) => models::remove(&store, &name, &mut stdout),
    };
    end(result.map_err(|error| (error.exit_code(), error)))
}

fn serve(config: Config, manager: Manager) -> ExitCode {
    let checked = config.check_device().and_then(|()| config.find_model());
    let config = match checked {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    log::start(config.log_format);
    advice::log(&config);
    let result = in_runtime(serve_until_stopped(config, manager));
    end(result.map_err(|error| (error.exit_code(), error)))
}

async fn serve_until_stopped(config: Config, mut manager: Manager) -> Result<(), RunError> {
    let hangup_stops = !manager.notifier().is_there();
    let shutdown = Shutdown::by_signals(hangup_stops).map_err(RunError::no_signals)?;
    let listener = bind(&config, &mut manager).await?;
    run(config, listener, manager, shutdown, Ready::Line).await
}

fn check_start(config: Config) -> ExitCode {
    let report = Runtime::new().map(|runtime| runtime.block_on(check::check(config)));
    match report {
        Ok(report) => {
            let _ = write!(std::io::stdout(), "{report}");
            ExitCode::from(report.exit_code())
        }
        Err(error) => {
            let error = RunError::no_threads(error);
            end(Err((error.exit_code(), error)))
        }
    }
}

fn hold_chat(wanted: Chat) -> ExitCode {
    if let Err(error) = wanted.config.check_device() {
        return refuse(&error);
    }
    log::start_beside_a_chat(wanted.config.log_format);
    let held = chat::find_model(&wanted)
        .map_err(ChatError::from)
        .and_then(|model| {
            let mut config = wanted.config;
            config.model = model;
            in_runtime(chat::hold(config))
        });
    end(held.map_err(|error| (error.exit_code(), error)))
}

fn in_runtime<E: From<RunError>>(work: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = Runtime::new().map_err(RunError::no_threads)?;
    let result = runtime.block_on(work);
    // A tokenizer that is still being built must not hold up the end. Whatever else is left is
    // dropped, the runtime directory with it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

fn end(result: Result<(), (u8, impl Display)>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            // One line, whatever the message came from.
            let line = error.to_string().replace(['\n', '\r'], " ");
            let _ = writeln!(std::io::stderr(), "{line}");
            ExitCode::from(code)
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    let text = error.to_string();
    let _ = match error {
        ConfigError::Show(_) => write!(std::io::stdout(), "{text}"),
        _ => writeln!(std::io::stderr(), "{text}"),
    };
    ExitCode::from(error.exit_code())
}
