//! The flags as clap reads them.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Parser, ValueEnum};
use http::Uri;
use orcd_shared::protocol::message::{Device, KvSize, MAX_PARALLEL};
use uuid::Uuid;

use super::ConfigError;
use super::access::AccessArgs;
use super::action::ActionArgs;
use super::kv_memory::kv_memory;
use super::numbers::{units, whole};
use super::sampling::SamplingFlags;
use super::template::TemplateArgs;
use crate::text::PreTokenizerName;

const EXAMPLE: &str = "\
Example:
  worker-orcd run hf.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF
  worker-orcd --model models/haiku-nano-q4_k_m.gguf --device cpu --port 8080
  curl -N http://127.0.0.1:8080/execute -d '{\"job_id\":\"1\",\"prompt\":\"Write a haiku about rain\"}'

Every flag can be given as an environment variable ORCD_<FLAG>, such as ORCD_MAX_TOKENS_OUT; the
flag wins. Exit codes: 0 clean stop, 1 startup failed, 2 usage, 3 the worker could not be kept alive.";

/// What `--models-dir` is.
pub(super) const MODELS_DIR: &str = "Where models are that were pulled [default: worker-orcd/models in $XDG_DATA_HOME or ~/.local/share]";

/// How logs look on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether something is done that is done unless it is said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    #[allow(missing_docs)]
    On,
    #[allow(missing_docs)]
    Off,
}

/// Flags that are taken as they are.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// Most tokens a request may ask for
    #[arg(long, value_name = "N", default_value_t = 2048, env = "ORCD_MAX_TOKENS_OUT",
          value_parser = whole::<u32>(1..=1_048_576))]
    pub max_tokens_out: u32,

    /// Name under which clients ask for the model; several may be given, or separated by commas [default:
    /// the file's name]
    #[arg(
        long,
        value_name = "NAME",
        env = "ORCD_SERVED_MODEL_NAME",
        value_delimiter = ','
    )]
    pub served_model_name: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: SamplingFlags,

    /// Tokens per sequence, prompt and output [default: what the model was made for]
    #[arg(long, value_name = "N", env = "ORCD_CONTEXT",
          value_parser = whole::<u32>(2..=16_777_216))]
    pub context: Option<u32>,

    /// Jobs that may wait for a place
    #[arg(long, value_name = "N", default_value_t = 64, env = "ORCD_QUEUE",
          value_parser = whole::<usize>(1..=65_536))]
    pub queue: usize,

    /// Requests that each client may send a second, the same number at once: who has one key, or who is at one address
    /// without one. Probes count apart. What goes beyond gets 429. 0: as many as come [default: 2000, and as many as come
    /// from this machine without a key]
    #[arg(long, value_name = "N", env = "ORCD_MAX_REQUESTS_PER_SEC",
          value_parser = whole::<u32>(0..=1_000_000))]
    pub max_requests_per_sec: Option<u32>,

    /// Jobs that run at once, as far as KV memory has room for them: they reserve none
    /// [default: 4 on a CPU, up to 256 on a GPU]
    #[arg(long, value_name = "N", env = "ORCD_PARALLEL",
          value_parser = whole::<u32>(1..=u64::from(MAX_PARALLEL)))]
    pub parallel: Option<u32>,

    /// Memory for keys and values, which all jobs share: bytes, such as 6G or 512M, or a share of what is left
    /// beside the weights, such as 0.5 [default: 0.85 on a GPU, 0.25 on a CPU, but no more than all jobs could use]
    #[arg(long, value_name = "SIZE", env = "ORCD_KV_MEMORY", value_parser = kv_memory)]
    pub kv_memory: Option<KvSize>,

    /// Keep what was computed for the beginning of a prompt, and use it for prompts that begin with the same tokens:
    /// their first tokens come sooner. How soon tells that somebody asked the same before, so only jobs of one API key
    /// share; without keys all do
    #[arg(long, value_enum, default_value_t = Switch::On, env = "ORCD_PREFIX_CACHE")]
    pub prefix_cache: Switch,

    /// Threads of the CPU backend [default: one per core]
    #[arg(long, value_name = "N", env = "ORCD_THREADS",
          value_parser = whole::<u32>(1..=1024))]
    pub threads: Option<u32>,

    // The supervisor waits 550 ms for the answer to a cancellation, which comes between steps.
    /// Prompts are read in pieces, so that no running stream waits for its next token much longer than
    /// this [default: 50 on a GPU, 100 on a CPU]
    #[arg(long, value_name = "MS", env = "ORCD_MAX_GAP_MS",
          value_parser = whole::<u32>(5..=400))]
    pub max_gap_ms: Option<u32>,

    /// Keep a second worker ready to take over: a lost one is then replaced within milliseconds, at
    /// the cost of a second context and of what an engine has beside weights and KV memory
    #[arg(long, env = "ORCD_STANDBY", value_parser = BoolishValueParser::new())]
    pub standby: bool,

    /// For trying what a loss of the worker does: the page at / gets a button that kills it. On loopback only
    #[arg(long, env = "ORCD_DEMO", value_parser = BoolishValueParser::new())]
    pub demo: bool,

    /// Longest life of a job, from its submission
    #[arg(long = "inference-timeout-sec", value_name = "SECONDS", default_value = "300", env = "ORCD_INFERENCE_TIMEOUT_SEC",
          value_parser = units(1..=86_400, Duration::from_secs))]
    pub inference_timeout: Duration,

    /// How long running jobs may go on after a request to stop
    #[arg(long = "drain-timeout-sec", value_name = "SECONDS", default_value = "5", env = "ORCD_DRAIN_TIMEOUT_SEC",
          value_parser = units(0..=86_400, Duration::from_secs))]
    pub drain_timeout: Duration,

    /// How long the events of an ended job are kept for readers who come back
    #[arg(long = "resume-ttl-sec", value_name = "SECONDS", default_value = "60", env = "ORCD_RESUME_TTL_SEC",
          value_parser = units(0..=86_400, Duration::from_secs))]
    pub resume_ttl: Duration,

    /// Restarts of the worker, without a finished job in between, before the service gives up
    /// [default: it never does]
    #[arg(long, value_name = "N", env = "ORCD_MAX_RESTARTS",
          value_parser = whole::<u32>(0..=1000))]
    pub max_restarts: Option<u32>,

    /// A worker that is silent, or has jobs and makes no step, for this long is replaced; steps that
    /// were slow so far allow more
    #[arg(long = "hang-timeout-ms", value_name = "MS", default_value = "1500", env = "ORCD_HANG_TIMEOUT_MS",
          value_parser = units(500..=600_000, Duration::from_millis))]
    pub hang_timeout: Duration,
}

/// Serves one language model on one device over HTTP.
#[derive(Debug, Parser)]
#[command(
    name = "worker-orcd",
    after_help = EXAMPLE,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub(super) struct CommandLine {
    #[command(flatten)]
    pub(super) serve: ServeArgs,

    /// What else the program does
    #[command(subcommand)]
    pub(super) action: Option<ActionArgs>,
}

/// How a model is served.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Model file, GGUF, or the name of a model that was pulled; the flag's name may be left out
    #[arg(short, long, value_name = "PATH", env = "ORCD_MODEL")]
    pub(super) model: Option<PathBuf>,

    /// The same as --model PATH
    #[arg(value_name = "MODEL")]
    pub(super) model_by_position: Option<PathBuf>,

    #[arg(long, value_name = "DIR", env = "ORCD_MODELS_DIR", help = MODELS_DIR)]
    pub(super) models_dir: Option<PathBuf>,

    #[command(flatten)]
    pub(super) template: TemplateArgs,

    /// How texts are cut into words, by the names that model files use, where the file's own name is
    /// unknown or wrong [default: the file's]
    #[arg(long, value_name = "NAME", env = "ORCD_PRE_TOKENIZER")]
    pub(super) pre_tokenizer: Option<PreTokenizerName>,

    /// Device to run on, cpu or cuda:N; there is never a fallback to another
    /// [default: cuda:0 in a build with CUDA, cpu in a build without]
    #[arg(long, value_name = "DEVICE", env = "ORCD_DEVICE", value_parser = device)]
    pub(super) device: Option<Device>,

    /// Short for --device cuda:N
    #[arg(long, value_name = "N", env = "ORCD_GPU_DEVICE", value_parser = whole::<u32>(0..=1023))]
    pub(super) gpu_device: Option<u32>,

    /// Address to listen on
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1",
        env = "ORCD_HOST"
    )]
    pub(super) host: String,

    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080, env = "ORCD_PORT",
          value_parser = whole::<u16>(0..=65_535))]
    pub(super) port: u16,

    #[command(flatten)]
    pub(super) access: AccessArgs,

    /// Names this instance [default: a random one]
    #[arg(long, value_name = "UUID", env = "ORCD_WORKER_ID")]
    pub(super) worker_id: Option<Uuid>,

    /// Called by POST once requests are accepted; http only
    #[arg(long, value_name = "URL", env = "ORCD_CALLBACK_URL", value_parser = callback_url)]
    pub(super) callback_url: Option<Uri>,

    #[command(flatten)]
    pub(super) flags: Flags,

    /// The worker program [default: cuda-worker beside this program]
    #[arg(long, value_name = "PATH", env = "ORCD_WORKER_BIN")]
    pub(super) worker_bin: Option<PathBuf>,

    /// Where the private directory with the worker's socket is made
    /// [default: $XDG_RUNTIME_DIR, or the temporary directory]
    #[arg(long, value_name = "DIR", env = "ORCD_RUNTIME_DIR")]
    pub(super) runtime_dir: Option<PathBuf>,

    /// Where a file about each crash of the worker is written: its jobs' parameters and tokens, its
    /// end, its last lines; `cuda-worker --replay FILE` does the same work again
    #[arg(long, value_name = "DIR", env = "ORCD_CRASH_DIR")]
    pub(super) crash_dir: Option<PathBuf>,

    /// Write the jobs' prompts there too, without which they can't be run again
    #[arg(long, env = "ORCD_CRASH_INCLUDE_PROMPTS", value_parser = BoolishValueParser::new())]
    pub(super) crash_include_prompts: bool,

    /// How logs look on stderr [default: text, or fields where stderr is systemd's journal]
    #[arg(long, value_enum, env = "ORCD_LOG_FORMAT")]
    pub(super) log_format: Option<LogFormat>,

    /// Pages of KV memory in all, for tests of running out of it
    #[arg(long, hide = true, value_name = "N", env = "ORCD_DEBUG_KV_PAGES",
          value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    pub(super) debug_kv_pages: Option<u32>,
}

/// The model that `--model` names, or the argument without a flag. One of the command line wins over
/// the environment; two different ones there are an error.
pub(super) fn resolve_model(
    args: &ServeArgs,
    matches: &ArgMatches,
) -> Result<PathBuf, ConfigError> {
    let is_flag = matches.value_source("model") == Some(ValueSource::CommandLine);
    match (&args.model, &args.model_by_position) {
        (Some(named), Some(bare)) if is_flag && named != bare => Err(ConfigError::usage(format!(
            "--model {} and the argument {} are two models; give one of them",
            named.display(),
            bare.display()
        ))),
        (_, Some(model)) | (Some(model), None) => Ok(model.clone()),
        (None, None) => Err(ConfigError::usage(
            "no model was given; give --model PATH or set ORCD_MODEL",
        )),
    }
}

/// The device that `--device` and `--gpu-device` name. Where they disagree, one given as a flag
/// wins over one from the environment; two of a kind are an error.
pub(super) fn resolve_device(
    args: &ServeArgs,
    matches: &ArgMatches,
) -> Result<Option<Device>, ConfigError> {
    let numbered = args.gpu_device.map(Device::Cuda);
    let (Some(named), Some(numbered)) = (args.device, numbered) else {
        return Ok(args.device.or(numbered));
    };
    let is_flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    match (is_flag("device"), is_flag("gpu_device")) {
        _ if named == numbered => Ok(Some(named)),
        (true, false) => Ok(Some(named)),
        (false, true) => Ok(Some(numbered)),
        _ => Err(ConfigError::usage(format!(
            "--device {named} and --gpu-device mean different devices; give one of them"
        ))),
    }
}

fn device(text: &str) -> Result<Device, String> {
    text.parse()
}

fn callback_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|e| format!("not a URL: {e}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) if !host.is_empty() => {
            // The crate takes a port for none when it has too many digits.
            let authority = uri.authority().map_or("", |a| a.as_str());
            let port = authority.rsplit_once(':').map_or("80", |(_, port)| port);
            if authority.contains('@') {
                Err("a user and password in it would not be used; leave them out".into())
            } else if !port.ends_with(']') && port.parse::<u16>().map_or(true, |n| n == 0) {
                Err(format!("invalid port {port}; give 1 to 65535"))
            } else {
                Ok(uri)
            }
        }
        (Some("https"), _) => {
            Err("https is not available; give an http URL, such as a local proxy's".into())
        }
        _ => Err("give a whole URL, such as http://127.0.0.1:9000/ready".into()),
    }
}
