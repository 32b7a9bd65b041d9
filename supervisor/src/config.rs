//! The command line and the environment, turned into one validated [`Config`].
//!
//! Every flag has a variable `ORCD_<FLAG>`; the flag wins. Whatever is wrong ends as one
//! [`ConfigError`] that names the flag.

mod access;
mod action;
mod args;
mod environment;
mod error;
mod kv_memory;
mod numbers;
mod sampling;
mod template;
mod version;

use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory as _};
use http::Uri;
use orcd_shared::protocol::message::{Device, KvSize};
use uuid::Uuid;

pub use action::{Action, Chat, Pull};
use args::{CommandLine, ServeArgs, resolve_device};
pub use args::{Flags, LogFormat, Switch};
pub use environment::UnknownVariable;
use environment::{unknown_variables, without_empty_variables};
pub use error::ConfigError;
pub use sampling::SamplingFlags;
pub use version::{REVISION, version};

use crate::crash_dir::CrashDir;
use crate::http::access::Access;
use crate::text::TextOverrides;

/// A model file's name without what says that it is one, or a part of one.
fn file_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    // Shards are named so: `NAME-00001-of-00003.gguf`.
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = stem.rsplitn(4, '-').collect();
    match parts[..] {
        [of, "of", n, name] if is_number(of) && is_number(n) => name.to_owned(),
        _ => stem.into_owned(),
    }
}

/// Whether this build has the CUDA backend.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The model file, absolute.
    pub model: PathBuf,
    /// What was given for it, where that may be the name of a pulled model.
    model_name: Option<String>,
    /// Where pulled models are; `None` is the person's own place.
    models_dir: Option<PathBuf>,
    /// The chat template and the pre-tokenizer in place of the model file's own.
    pub text: TextOverrides,
    /// The device; there is never another.
    pub device: Device,
    /// Whether nobody said which.
    pub device_by_default: bool,
    /// Variables `ORCD_…` that set nothing.
    pub unknown_variables: Vec<UnknownVariable>,
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Whether nobody said where to listen.
    pub address_by_default: bool,
    /// Who may ask.
    pub access: Access,
    /// What is to be said about how that is set.
    pub access_warnings: Vec<String>,
    /// Names this instance.
    pub worker_id: Uuid,
    /// Who is notified once the service is ready; always `http`.
    pub callback_url: Option<Uri>,
    /// What is taken as it was given.
    pub flags: Flags,
    /// The worker program; `None` is the one beside this.
    pub worker_bin: Option<PathBuf>,
    /// Where the private directory with the sockets is made; `None` is the system's place.
    pub runtime_dir: Option<PathBuf>,
    /// Where crash bundles go; `None`: none are written.
    pub crash_dir: Option<CrashDir>,
    /// How logs look; `None`: lines for people, or fields where stderr is systemd's journal.
    pub log_format: Option<LogFormat>,
    /// How large the pool of KV pages is made; `None` is the backend's default.
    pub kv: Option<KvSize>,
}

impl Config {
    /// The names under which clients ask for the model: those of `--served-model-name`, or the file's name.
    #[must_use]
    pub fn model_names(&self) -> Vec<String> {
        let given = &self.flags.served_model_name;
        if !given.is_empty() {
            return given.clone();
        }
        vec![file_name(&self.model)]
    }

    /// Reads `args`, the program's name first, and the environment: those of a service.
    ///
    /// # Errors
    /// As [`Action::parse`].
    pub fn parse<I>(args: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: Into<std::ffi::OsString> + Clone,
    {
        match Action::parse(args)? {
            Action::Serve(config) => Ok(*config),
            _ => Err(ConfigError::usage("this starts no service")),
        }
    }

    /// Of `args`, which came as `matches`.
    fn of(args: ServeArgs, model: PathBuf, matches: &ArgMatches) -> Result<Self, ConfigError> {
        let device = resolve_device(&args, matches)?;
        let config = Self::from_args(args, model, device)?;
        let by_default = |id| matches.value_source(id) == Some(ValueSource::DefaultValue);
        Ok(Self {
            address_by_default: by_default("host") && by_default("port"),
            ..config
        })
    }

    /// The same for the person at this terminal alone: on a free port of loopback, without keys and callback.
    fn for_this_terminal(self) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            access: Access::default(),
            access_warnings: Vec::new(),
            callback_url: None,
            ..self
        }
    }

    fn from_args(
        args: ServeArgs,
        model: PathBuf,
        device: Option<Device>,
    ) -> Result<Self, ConfigError> {
        let (access, access_warnings) = args.access.resolve()?;
        let kv = args.debug_kv_pages.map(KvSize::Pages);
        let kv = kv.or(args.flags.kv_memory);
        Ok(Self {
            model_name: action::model_name(&model),
            models_dir: args.models_dir,
            model: absolute("--model", model)?,
            text: TextOverrides {
                chat_template: args.template.read()?,
                pre_tokenizer: args.pre_tokenizer,
            },
            device: device.unwrap_or(DEFAULT_DEVICE),
            device_by_default: device.is_none(),
            unknown_variables: unknown_variables(&CommandLine::command(), names_of_variables()),
            host: host(args.host)?,
            port: args.port,
            address_by_default: false,
            access,
            access_warnings,
            worker_id: args.worker_id.unwrap_or_else(Uuid::new_v4),
            callback_url: args.callback_url,
            flags: args.flags,
            worker_bin: args
                .worker_bin
                .map(|p| absolute("--worker-bin", p))
                .transpose()?,
            crash_dir: crash_dir(args.crash_dir, args.crash_include_prompts)?,
            runtime_dir: args
                .runtime_dir
                .map(|p| absolute("--runtime-dir", p))
                .transpose()?,
            log_format: args.log_format,
            kv,
        })
    }

    /// Whether this build can use the device.
    ///
    /// # Errors
    /// [`ConfigError::Device`]: there is no fallback to another one.
    pub fn check_device(&self) -> Result<(), ConfigError> {
        match self.device {
            Device::Cuda(_) if !HAS_CUDA => Err(ConfigError::Device(format!(
                "--device {}: this build has no CUDA; use --device cpu, or a build with the \
                 feature `cuda` (`make build-cuda`)",
                self.device
            ))),
            _ => Ok(()),
        }
    }
}

/// The flags, as they are to be read.
fn command() -> Command {
    let command = CommandLine::command().version(version());
    let readable = |command: Command| {
        // `--port -1` is a wrong port, not an unknown flag.
        without_empty_variables(command).mut_args(|arg| {
            let takes_value = arg.get_action().takes_values() && !arg.is_positional();
            arg.allow_negative_numbers(takes_value)
        })
    };
    readable(command).mut_subcommands(readable)
}

fn names_of_variables() -> impl Iterator<Item = String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned())
}

/// Where to run when nobody says.
const DEFAULT_DEVICE: Device = if HAS_CUDA {
    Device::Cuda(0)
} else {
    Device::Cpu
};

fn host(host: String) -> Result<String, ConfigError> {
    // `[::1]` is how people write an IPv6 address beside a port.
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(&host);
    if bare.is_empty() {
        return Err(ConfigError::usage(
            "--host is empty; give an address, such as 127.0.0.1",
        ));
    }
    Ok(bare.to_owned())
}

fn crash_dir(
    path: Option<PathBuf>,
    include_prompts: bool,
) -> Result<Option<CrashDir>, ConfigError> {
    let Some(path) = path else {
        return if include_prompts {
            Err(ConfigError::usage(
                "--crash-include-prompts needs --crash-dir, where they would be written",
            ))
        } else {
            Ok(None)
        };
    };
    let path = absolute("--crash-dir", path)?;
    Ok(Some(CrashDir {
        path,
        include_prompts,
    }))
}

fn absolute(flag: &str, path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(&path)
        .map_err(|e| ConfigError::usage(format!("{flag} {}: {e}", path.display())))
}

#[cfg(test)]
mod tests;
