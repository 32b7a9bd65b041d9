//! What the program is to do: serve, or something with models by name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Subcommand};
use clap_complete::Shell;
use model_store::settings::models_folder;
use model_store::{ModelName, Settings, Store, name};

use super::args::{CommandLine, MODELS_DIR, ServeArgs, resolve_model};
use super::{Config, ConfigError, command};

const NAME_HELP: &str =
    "hf.co/OWNER/NAME or hf.co/OWNER/NAME:QUANT [default QUANT: Q4_K_M, or the only one there is]";

/// What a command line asks for, checked.
#[derive(Debug)]
pub enum Action {
    /// Serve a model.
    Serve(Box<Config>),
    /// Look what would keep the service from starting.
    Check(Box<Config>),
    /// Pull a model.
    Pull(Box<Pull>),
    /// Show what was pulled.
    List(Store),
    /// Remove a model by its name.
    Remove {
        /// Where it is.
        store: Store,
        /// Its name, or a part of that.
        name: String,
    },
    /// Serve a model on loopback, pulled if need be, and chat with it in the terminal.
    Chat(Box<Chat>),
}

/// A model to pull.
#[derive(Debug)]
pub struct Pull {
    /// Where from and where to.
    pub settings: Settings,
    /// Which.
    pub name: ModelName,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// A chat to hold.
#[derive(Debug)]
pub struct Chat {
    /// A file, or a model's name.
    pub model: PathBuf,
    /// Where models are and come from.
    pub settings: Settings,
    /// How the model is served; its own `model` is not to be used.
    pub config: Config,
}

#[derive(Debug, Subcommand)]
pub(super) enum ActionArgs {
    /// Pull a model from the Hugging Face Hub; one that broke off goes on where it was
    Pull {
        #[arg(value_name = "MODEL", help = NAME_HELP)]
        name: String,

        /// Branch, tag or commit
        #[arg(long, default_value = "main")]
        revision: String,

        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Show the models that were pulled
    List(PlaceArgs),
    /// Remove a model that was pulled
    Rm {
        /// Its name as `list` shows it, or as much of that as fits one model alone
        #[arg(value_name = "MODEL")]
        name: String,

        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Chat with a model in the terminal: pull it if need be, and serve it on a free port of 127.0.0.1 meanwhile
    Run(Box<ServeArgs>),
    /// Look what would keep the service from starting, with the same flags and variables, and start nothing
    Check(Box<ServeArgs>),
    /// Write completions for a shell to stdout
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual page to stdout
    Man,
}

#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    #[arg(long, value_name = "DIR", env = "ORCD_MODELS_DIR", help = MODELS_DIR)]
    models_dir: Option<PathBuf>,
}

impl PlaceArgs {
    fn settings(self) -> Result<Settings, ConfigError> {
        settings(self.models_dir)
    }

    fn store(self) -> Result<Store, ConfigError> {
        store(self.models_dir)
    }
}

impl Action {
    /// Reads the command line and the environment.
    ///
    /// # Errors
    /// [`ConfigError`]; among them the texts of `--help`, `--version`, `completions` and `man`.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::parse(std::env::args_os())
    }

    /// Reads `args`, the program's name first, and the environment.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn parse<I>(args: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: Into<OsString> + Clone,
    {
        let matches = command().try_get_matches_from(args)?;
        let args = CommandLine::from_arg_matches(&matches)?;
        let Some(action) = args.action else {
            let model = resolve_model(&args.serve, &matches)?;
            return Ok(Self::Serve(Box::new(Config::of(
                args.serve, model, &matches,
            )?)));
        };
        match action {
            ActionArgs::Pull {
                name,
                revision,
                place,
            } => Ok(Self::Pull(Box::new(Pull {
                settings: place.settings()?,
                name: name.parse().map_err(ConfigError::from_store)?,
                revision,
            }))),
            ActionArgs::List(place) => Ok(Self::List(place.store()?)),
            ActionArgs::Rm { name, place } => Ok(Self::Remove {
                store: place.store()?,
                name,
            }),
            ActionArgs::Run(serve) => chat(
                *serve,
                matches.subcommand_matches("run").unwrap_or(&matches),
            ),
            ActionArgs::Check(serve) => {
                let matches = matches.subcommand_matches("check").unwrap_or(&matches);
                let model = resolve_model(&serve, matches)?;
                Ok(Self::Check(Box::new(Config::of(*serve, model, matches)?)))
            }
            ActionArgs::Completions { shell } => Err(ConfigError::Show(completions(shell))),
            ActionArgs::Man => Err(ConfigError::Show(manual()?)),
        }
    }
}

impl Config {
    /// With the file of a pulled model where `--model` is the name of one, and there is no file of that name.
    ///
    /// # Errors
    /// [`ConfigError::Model`]: it was not pulled, or may be several.
    pub fn find_model(self) -> Result<Self, ConfigError> {
        let Some(name) = self.model_name.as_ref().filter(|_| !self.model.exists()) else {
            return Ok(self);
        };
        let store = store(self.models_dir.clone())?;
        let found = store
            .find(name)
            .and_then(|model| model.usable().map(Into::into));
        let model = found.map_err(|error| match error {
            model_store::Error::Usage(_) => ConfigError::from_store(error),
            error => ConfigError::Model(error.to_string()),
        })?;
        Ok(Self { model, ..self })
    }
}

/// What `--model` says if that may be the name of a pulled model.
pub(super) fn model_name(given: &std::path::Path) -> Option<String> {
    let text = given.to_str()?;
    let may_be = name::has_host(text) || name::ShortName::parse(text).is_some();
    may_be.then(|| text.to_owned())
}

fn chat(serve: ServeArgs, matches: &clap::ArgMatches) -> Result<Action, ConfigError> {
    let on_command_line =
        |id| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    if let Some(flag) = ["host", "port", "callback_url"]
        .into_iter()
        .find(|id| on_command_line(id))
    {
        return Err(ConfigError::usage(format!(
            "run takes no --{}: it serves this terminal alone, on a free port of 127.0.0.1; leave out `run` to serve others",
            flag.replace('_', "-")
        )));
    }
    let model = resolve_model(&serve, matches)?;
    let settings = settings(serve.models_dir.clone())?;
    let config = Config::of(serve, model.clone(), matches)?.for_this_terminal();
    Ok(Action::Chat(Box::new(Chat {
        model,
        settings,
        config,
    })))
}

fn store(models_dir: Option<PathBuf>) -> Result<Store, ConfigError> {
    let models_dir = models_dir
        .map(|dir| super::absolute("--models-dir", dir))
        .transpose()?;
    let folder = models_folder(models_dir, |name| std::env::var_os(name));
    folder.map(Store::new).map_err(ConfigError::from_store)
}

fn settings(models_dir: Option<PathBuf>) -> Result<Settings, ConfigError> {
    let models_dir = models_dir
        .map(|dir| super::absolute("--models-dir", dir))
        .transpose()?;
    Settings::new(models_dir, |name| std::env::var_os(name)).map_err(ConfigError::from_store)
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "worker-orcd", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn manual() -> Result<String, ConfigError> {
    let mut text = Vec::new();
    // Without `--version`'s lines: a title has one.
    let command = CommandLine::command().version(env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(command);
    page.render(&mut text)
        .map_err(|error| ConfigError::usage(format!("the manual page can't be made: {error}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
