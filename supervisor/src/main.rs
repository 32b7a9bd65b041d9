//! Parses the command line, binds, runs.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use orcd_supervisor::advice;
use orcd_supervisor::config::{Config, ConfigError};
use orcd_supervisor::log;
use orcd_supervisor::run::{RunError, bind, run};
use orcd_supervisor::signals::Shutdown;
use orcd_supervisor::systemd::Manager;

fn main() -> ExitCode {
    let manager = Manager::take();
    let config = match Config::from_env().and_then(|config| config.check_device().map(|()| config))
    {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    log::start(config.log_format);
    advice::log(&config);
    match serve(config, manager) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the message came from.
            let line = error.to_string().replace(['\n', '\r'], " ");
            let _ = writeln!(std::io::stderr(), "{line}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(config: Config, mut manager: Manager) -> Result<(), RunError> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| RunError::Startup {
        code: "INTERNAL",
        message: format!("no threads: {error}"),
    })?;
    let hangup_stops = !manager.notifier().is_there();
    let result = runtime.block_on(async {
        let shutdown = Shutdown::by_signals(hangup_stops).map_err(|error| RunError::Startup {
            code: "INTERNAL",
            message: format!("signal handlers can't be installed: {error}"),
        })?;
        let listener = bind(&config, &mut manager).await?;
        run(config, listener, manager, shutdown).await
    });
    // A tokenizer that is still being built must not hold up the end. Whatever else is left is
    // dropped, the runtime directory with it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

fn refuse(error: &ConfigError) -> ExitCode {
    let text = error.to_string();
    let _ = match error {
        ConfigError::Show(_) => write!(std::io::stdout(), "{text}"),
        _ => writeln!(std::io::stderr(), "{text}"),
    };
    ExitCode::from(error.exit_code())
}
