//! What the bodies of chat completions and completions have in common.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use orcd_shared::constraint::Constraint;
use orcd_shared::job::{CacheScope, JobOptions};
use orcd_shared::logit_bias::LogitBias;
use orcd_shared::sampling::SamplingParams;

use super::super::error::ApiError;
use super::super::json::Json;
use super::super::validate::messages::Unknown;
use super::super::validate::{
    CacheUse, Fields, Fresh, Generation, Input, Limits, Resume, Strictness, logit_bias,
    no_ignored_end, response_format, resume, sampling, stop,
};

/// Most outputs for one prompt.
pub(super) const MAX_CHOICES: u32 = 16;
/// Names of ignored fields that are remembered as logged.
const MAX_LOGGED: usize = 64;

/// The fields of both dialects.
pub(super) struct Common {
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    /// A last chunk has the usage.
    pub(super) include_usage: bool,
    pub(super) return_token_ids: bool,
    /// The only output, as far as the client has it of another service.
    pub(super) resume: Option<Resume>,
    choices: u32,
    ignore_end: bool,
    /// What the outputs have to be, and the field that says so.
    constraint: Option<Constraint>,
    constraint_field: &'static str,
    sampling: SamplingParams,
    logit_bias: LogitBias,
    stop: Vec<String>,
    cache: CacheUse,
}

/// How many tokens an output may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxTokens {
    /// `None`: what the context leaves.
    pub(super) most: Option<u32>,
    /// The field that says so, if one does.
    pub(super) field: Option<&'static str>,
}

impl MaxTokens {
    /// Takes the number from the first of `fields` that has one; all are taken.
    pub(super) fn take(f: &mut Fields, fields: &[&'static str]) -> Self {
        let mut found = Self {
            most: None,
            field: None,
        };
        for &field in fields {
            let most = f.count(field, 1, u32::MAX);
            if found.most.is_none() && most.is_some() {
                found = Self {
                    most,
                    field: Some(field),
                };
            }
        }
        found
    }
}

impl Common {
    /// Takes them; notes what is wrong.
    pub(super) fn take(f: &mut Fields, limits: &Limits, seed: u64) -> Self {
        let ignore_end = f.flag("ignore_eos");
        let model = f.take("model");
        let model = model.and_then(|value| f.string("model", "a name of /v1/models", value));
        let stream = f.flag("stream");
        let include_usage = stream_options(f, stream);
        refuse(f);
        // As vLLM's clients turn it off.
        if f.peek("top_k") == Some(&Json::Negative(-1)) {
            f.take("top_k");
        }
        let resume = resume(f, limits.vocab_size, Strictness::Lenient);
        let choices = f.count("n", 1, MAX_CHOICES).unwrap_or(1);
        if resume.is_some() && choices > 1 {
            let message = format!("n is {choices}; only a single output can be gone on with");
            f.fault("n", "1 with resume", message);
        }
        Self {
            model,
            stream,
            include_usage,
            return_token_ids: f.flag("return_token_ids"),
            resume,
            choices,
            ignore_end,
            constraint: response_format(f, "response_format", ignore_end, Unknown::Ignored),
            constraint_field: "response_format",
            sampling: sampling(f, limits, seed),
            logit_bias: logit_bias(f, limits.vocab_size),
            stop: stop(f),
            cache: CacheUse::take(f),
        }
    }

    /// What is wanted for an input, which comes from a field.
    pub(super) fn generation(
        &self,
        job_id: String,
        (field, input): (&'static str, Input),
        max_tokens: MaxTokens,
        top_logprobs: Option<u32>,
    ) -> Generation {
        Generation {
            job_id,
            input,
            field,
            max_tokens: max_tokens.most,
            max_tokens_field: max_tokens.field,
            sampling: self.sampling,
            options: JobOptions {
                ignore_end: self.ignore_end,
                top_logprobs,
                logit_bias: self.logit_bias.clone(),
                constraint: self.constraint.clone(),
                cache: CacheScope::default(),
            },
            cache: self.cache.clone(),
            constraint_field: self.constraint_field,
            stop: self.stop.clone(),
            continue_on_disconnect: false,
            choices: self.choices,
            resume: self.resume.clone(),
        }
    }

    /// Takes the format of the outputs from where responses have it: in the object `text`.
    pub(super) fn take_text_format(&mut self, f: &mut Fields, text: Json) {
        let Some(mut text) = Fields::at("text".into(), text)
            .map_err(|e| f.add_faults(vec![e]))
            .ok()
        else {
            return;
        };
        self.constraint_field = "text.format";
        self.constraint = response_format(&mut text, "format", self.ignore_end, Unknown::Ignored);
        f.add_faults(text.finish_leniently().err().unwrap_or_default());
    }

    /// Makes the outputs what `constraint` says, which comes from `field`; notes `ignore_eos` beside it.
    pub(super) fn force(&mut self, f: &mut Fields, field: &'static str, constraint: Constraint) {
        if self.ignore_end {
            no_ignored_end(f, field);
        }
        self.constraint = Some(constraint);
        self.constraint_field = field;
    }

    /// Whether the outputs have to be something, so that they are content throughout.
    pub(super) fn is_constrained(&self) -> bool {
        self.constraint.is_some()
    }

    /// The id of the answer: that of the one that it goes on with, else `fresh`.
    pub(super) fn id(&self, fresh: String) -> String {
        let known = self.resume.as_ref().and_then(|resume| resume.id.clone());
        known.unwrap_or(fresh)
    }

    /// How tokens are drawn.
    pub(super) fn sampling(&self) -> &SamplingParams {
        &self.sampling
    }

    /// Outputs for one prompt.
    pub(super) fn choices(&self) -> usize {
        self.choices as usize
    }
}

/// Ends the decoding of a body. What nobody knows is logged once.
pub(super) fn finish(f: Fields) -> Result<(), ApiError> {
    let unknown = f.finish_leniently().map_err(ApiError::invalid)?;
    log_once(&unknown);
    Ok(())
}

/// A request's fresh id, with the dialect's own beginning.
pub(super) fn fresh(prefix: &str) -> Fresh {
    let fresh = Fresh::new();
    Fresh {
        job_id: format!("{prefix}-{}", fresh.job_id),
        ..fresh
    }
}

fn stream_options(f: &mut Fields, stream: bool) -> bool {
    let Some(value) = f.take("stream_options") else {
        return false;
    };
    if !stream {
        let message = "stream_options are given without stream".to_owned();
        f.fault("stream_options", "only with stream", message);
    }
    match Fields::at("stream_options".into(), value) {
        Ok(mut options) => {
            let include_usage = options.flag("include_usage");
            let faults = options.finish_leniently().err();
            f.add_faults(faults.unwrap_or_default());
            include_usage
        }
        Err(fault) => {
            f.add_faults(vec![fault]);
            false
        }
    }
}

/// Refuses by name what is known and can't be done.
fn refuse(f: &mut Fields) {
    for name in ["best_of", "echo", "suffix"] {
        match f.take(name) {
            None | Some(Json::Bool(false) | Json::Unsigned(1)) => {}
            Some(Json::String(text)) if text.is_empty() => {}
            Some(_) => not_supported(f, name),
        }
    }
    for name in ["functions", "function_call", "audio"] {
        match f.take(name) {
            None => {}
            Some(Json::Object(members)) if members.is_empty() => {}
            Some(_) => not_supported(f, name),
        }
    }
}

/// Notes that the field `name` asks for what this service can't do.
pub(super) fn not_supported(f: &mut Fields, name: &str) {
    let message = format!("{name} is not supported by this service; leave it out");
    f.fault(name, "not supported", message);
}

/// Logs names of fields that are ignored, each once in the life of the process.
fn log_once(names: &[String]) {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    // These say who asks, or where to look for a cache, and change nothing.
    const HARMLESS: [&str; 6] = [
        "user",
        "metadata",
        "store",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    ];
    let is_name = |name: &&String| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        name.len() <= 64 && name.bytes().all(plain) && !HARMLESS.contains(&name.as_str())
    };
    for name in names.iter().filter(is_name) {
        let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < MAX_LOGGED && logged.insert(name.clone()) {
            tracing::info!(field = %name, "ignored a field that is not known");
        }
    }
}
