//! The digest of a request: whether two requests, sent to two services with the same fingerprint, have the same output.

use blake3::Hasher;
use orcd_shared::constraint::Constraint;
use orcd_shared::job::JobOptions;
use orcd_shared::sampling::SamplingParams;

use super::NewJob;
use super::admission::Limit;
use crate::fingerprint::{add, shown};

/// Begins the hash, so that it is no other's.
const CONTEXT: &str = "worker-orcd 2026-11-30 what outputs depend on of requests";

/// What says which output a job's is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The service's: see [`crate::fingerprint`].
    pub fingerprint: Box<str>,
    /// The time that the template saw, whether it looked or not.
    pub template_time: Box<str>,
    /// A hash of the prompt's ids: see [`prompt_hash`].
    pub prompt: [u8; 32],
}

/// Of a prompt. It may be long, so it is hashed where that stops nobody.
#[must_use]
pub fn prompt_hash(prompt: &[u32]) -> [u8; 32] {
    let mut hash = Hasher::new();
    for id in prompt {
        hash.update(&id.to_le_bytes());
    }
    hash.finalize().into()
}

/// Of all that a job's events depend on, but for the fingerprint. The patterns name every field: a new one does not compile
/// until somebody has decided whether it is part of it.
pub(super) fn request_digest(job: &NewJob, limit: Limit) -> Box<str> {
    let NewJob {
        job_id: _,
        owner: _,
        request: _,
        model: _,
        // By its hash.
        prompt: _,
        // In the fingerprint.
        tokenizer: _,
        // As the limit has it.
        max_tokens: _,
        sampling,
        options,
        stop,
        deadline: _,
        continue_on_disconnect: _,
        correlation_id: _,
        identity:
            Identity {
                fingerprint: _,
                template_time,
                prompt,
            },
        resumption: _,
    } = job;
    let mut hash = Hasher::new_derive_key(CONTEXT);
    hash.update(prompt);
    add(&mut hash, template_time.as_bytes());
    add_limit(&mut hash, limit);
    add_sampling(&mut hash, sampling);
    add_options(&mut hash, options);
    add_count(&mut hash, stop.len());
    for text in stop {
        add(&mut hash, text.as_bytes());
    }
    shown(&hash)
}

fn add_limit(hash: &mut Hasher, limit: Limit) {
    let Limit {
        max_tokens,
        asked,
        by_context,
    } = limit;
    hash.update(&max_tokens.to_le_bytes());
    hash.update(&asked.to_le_bytes());
    hash.update(&[u8::from(by_context)]);
}

fn add_sampling(hash: &mut Hasher, sampling: &SamplingParams) {
    let SamplingParams {
        temperature,
        top_p,
        top_k,
        min_p,
        repetition_penalty,
        frequency_penalty,
        presence_penalty,
        choice,
        seed,
    } = sampling;
    for number in [
        temperature,
        top_p,
        min_p,
        repetition_penalty,
        frequency_penalty,
        presence_penalty,
    ] {
        hash.update(&number.to_bits().to_le_bytes());
    }
    hash.update(&top_k.to_le_bytes());
    hash.update(&choice.to_le_bytes());
    hash.update(&seed.to_le_bytes());
}

fn add_options(hash: &mut Hasher, options: &JobOptions) {
    let JobOptions {
        ignore_end,
        top_logprobs,
        logit_bias,
        constraint,
        // Pages that are shared change no bit.
        cache: _,
    } = options;
    hash.update(&[u8::from(*ignore_end), u8::from(top_logprobs.is_some())]);
    hash.update(&top_logprobs.unwrap_or(0).to_le_bytes());
    add_count(hash, logit_bias.entries().len());
    for (id, bias) in logit_bias.entries() {
        hash.update(&id.to_le_bytes());
        hash.update(&bias.to_bits().to_le_bytes());
    }
    let kind = match constraint {
        None => 0,
        Some(Constraint::JsonSchema(_)) => 1,
        Some(Constraint::Regex(_)) => 2,
        Some(Constraint::Lark(_)) => 3,
    };
    hash.update(&[kind]);
    let text = constraint.as_ref().map_or("", Constraint::text);
    add(hash, text.as_bytes());
}

fn add_count(hash: &mut Hasher, count: usize) {
    hash.update(&(count as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use orcd_shared::job::CacheScope;
    use orcd_shared::logit_bias::LogitBias;
    use orcd_shared::sampling::PARAMETERS;
    use orcd_shared::sampling::{Kind, numbers};

    use super::*;
    use crate::samples::job;

    const LIMIT: Limit = Limit {
        max_tokens: 10,
        asked: 10,
        by_context: false,
    };

    fn of(change: impl FnOnce(&mut NewJob)) -> Box<str> {
        let mut job = job("a");
        change(&mut job);
        request_digest(&job, LIMIT)
    }

    #[test]
    fn everything_that_an_output_depends_on_is_in_it() {
        let mut all = vec![of(|_| {})];
        all.push(of(|job| job.identity.prompt = prompt_hash(&[1, 2, 4])));
        all.push(of(|job| job.identity.template_time = "later".into()));
        all.push(of(|job| job.stop = vec!["ab".into()]));
        all.push(of(|job| job.stop = vec!["a".into(), "b".into()]));
        for (_, bounds, field) in numbers() {
            all.push(of(|job| {
                *field(&mut job.sampling) = bounds.engine_least.max(0.5);
            }));
        }
        for parameter in &PARAMETERS {
            if let Kind::Count(field) = parameter.kind {
                all.push(of(|job| *field(&mut job.sampling) = 3));
            }
        }
        all.push(of(|job| job.sampling.seed += 1));
        all.push(of(|job| job.sampling.choice += 1));
        all.push(of(|job| job.options.ignore_end = true));
        all.push(of(|job| job.options.top_logprobs = Some(0)));
        all.push(of(|job| job.options.top_logprobs = Some(1)));
        let bias = |bias| LogitBias::new(vec![(3, bias)], 9).unwrap();
        all.push(of(|job| job.options.logit_bias = bias(1.0)));
        all.push(of(|job| job.options.logit_bias = bias(2.0)));
        for constraint in [Constraint::Regex, Constraint::Lark, Constraint::JsonSchema] {
            all.push(of(|job| {
                job.options.constraint = Some(constraint("{}".into()))
            }));
        }
        all.extend([
            request_digest(
                &job("a"),
                Limit {
                    max_tokens: 11,
                    ..LIMIT
                },
            ),
            request_digest(&job("a"), Limit { asked: 11, ..LIMIT }),
            request_digest(
                &job("a"),
                Limit {
                    by_context: true,
                    ..LIMIT
                },
            ),
        ]);
        for (at, digest) in all.iter().enumerate() {
            assert!(!all[..at].contains(digest), "{at}");
        }
    }

    #[test]
    fn who_asks_and_how_the_job_is_kept_is_not() {
        let first = of(|_| {});
        let other = of(|job| {
            job.job_id = "b".into();
            job.request = "b".into();
            job.correlation_id = "other".into();
            job.continue_on_disconnect = true;
            job.options.cache = CacheScope::Salt([1; 16]);
            job.identity.fingerprint = "other".into();
        });
        assert_eq!(first, other);
    }
}
