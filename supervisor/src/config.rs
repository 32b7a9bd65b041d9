//! The command line and the environment, turned into one validated [`Config`].
//!
//! Every flag has a variable `ORCD_<FLAG>`; the flag wins. Whatever is wrong ends as one
//! [`ConfigError`] that names the flag.

mod args;
mod error;
mod template;
mod version;

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use http::Uri;
use orcd_shared::protocol::message::Device;
use uuid::Uuid;

pub use args::LogFormat;
use args::{Args, resolve_device};
pub use error::ConfigError;
pub use version::version;

use crate::crash_dir::CrashDir;

/// Whether this build has the CUDA backend.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The model file, absolute.
    pub model: PathBuf,
    /// The chat template in place of the model file's own.
    pub chat_template: Option<String>,
    /// The device; there is never another.
    pub device: Device,
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Names this instance.
    pub worker_id: Uuid,
    /// Who is told once the service is ready; always `http`.
    pub callback_url: Option<Uri>,
    /// Upper bound of a request's `max_tokens`, and its default.
    pub max_tokens_out: u32,
    /// Tokens per sequence; `None` is the model's own.
    pub context: Option<u32>,
    /// Jobs that may wait.
    pub queue: usize,
    /// Sequences at once; `None` is the backend's default.
    pub parallel: Option<u32>,
    /// CPU backend: threads; `None` is one per core.
    pub threads: Option<u32>,
    /// Longest life of a job from its submission.
    pub inference_timeout: Duration,
    /// How long running jobs may go on after a request to stop.
    pub drain_timeout: Duration,
    /// How long events of an ended job are kept for readers who come back.
    pub resume_ttl: Duration,
    /// Restarts without a finished job in between before the service gives up; `None`: it never
    /// does.
    pub max_restarts: Option<u32>,
    /// Keep a second worker ready to take over.
    pub standby: bool,
    /// A worker that shows no progress for this long is replaced.
    pub hang_timeout: Duration,
    /// The worker program; `None` is the one beside this.
    pub worker_bin: Option<PathBuf>,
    /// Where the private directory with the sockets is made; `None` is the system's place.
    pub runtime_dir: Option<PathBuf>,
    /// Where crash bundles go; `None`: none are written.
    pub crash_dir: Option<CrashDir>,
    /// How logs look; `None`: lines for people, or fields where stderr is systemd's journal.
    pub log_format: Option<LogFormat>,
    /// Debug: KV positions in all.
    pub kv_limit_tokens: Option<u64>,
}

impl Config {
    /// Reads the command line and the environment.
    ///
    /// # Errors
    /// [`ConfigError`]; among them the texts of `--help` and `--version`.
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
        I::Item: Into<std::ffi::OsString> + Clone,
    {
        let matches = Args::command()
            .version(version())
            .try_get_matches_from(args)?;
        let args = Args::from_arg_matches(&matches)?;
        let device = resolve_device(&args, &matches)?;
        Self::from_args(args, device)
    }

    fn from_args(args: Args, device: Option<Device>) -> Result<Self, ConfigError> {
        Ok(Self {
            model: absolute("--model", args.model)?,
            chat_template: args.template.read()?,
            device: device.unwrap_or(DEFAULT_DEVICE),
            host: host(args.host)?,
            port: args.port,
            worker_id: args.worker_id.unwrap_or_else(Uuid::new_v4),
            callback_url: args.callback_url,
            max_tokens_out: args.max_tokens_out,
            context: args.context,
            queue: args.queue as usize,
            parallel: args.parallel,
            threads: args.threads,
            inference_timeout: Duration::from_secs(args.inference_timeout_sec),
            drain_timeout: Duration::from_secs(args.drain_timeout_sec),
            resume_ttl: Duration::from_secs(args.resume_ttl_sec),
            max_restarts: args.max_restarts,
            standby: args.standby,
            hang_timeout: Duration::from_millis(args.hang_timeout_ms),
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
            kv_limit_tokens: args.debug_kv_limit_tokens,
        })
    }

    /// Whether this build can use the device.
    ///
    /// # Errors
    /// [`ConfigError::Device`]: there is no fallback to another one.
    pub fn check_device(&self) -> Result<(), ConfigError> {
        match self.device {
            Device::Cuda(_) if !HAS_CUDA => Err(ConfigError::Device(format!(
                "--device {}: this build has no CUDA; use --device cpu or a build with the \
                 feature `cuda`",
                self.device
            ))),
            _ => Ok(()),
        }
    }
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
