//! From a body to the streams of its jobs, whatever dialect it is written in: a dialect says what is wanted
//! ([`Generation`]) and how it is answered; all that lies between is here.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use orcd_shared::error::ErrorCode;
use orcd_shared::job::CacheScope;
use orcd_shared::kv;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use uuid::Uuid;

use super::correlation::CorrelationId;
use super::error::{ApiError, Detail};
use super::json::Json;
use super::validate::{CacheUse, Fresh, Generation, Input, Limits, Resume};
use super::{App, Service, body, deadline};
use crate::config::Switch;
use crate::fingerprint;
use crate::jobs::{BeyondEnd, Identity, JobStream, NewJob, Owner, Resumption, prompt_hash};
use crate::model::Model;
use crate::text::{ChatInput, TemplateTime, TextError};
use crate::trial::TrialError;

/// Random seeds stay below this, so that a client whose numbers are doubles can repeat them.
const RANDOM_SEED_BITS: u32 = 53;
/// Tokens at a prompt's end that a dialect gets to see.
const PROMPT_END_TOKENS: usize = 16;

/// One output that is under way.
pub(super) struct Output {
    /// Its events.
    pub(super) stream: JobStream,
    /// The prompt's last tokens.
    pub(super) prompt_end: Vec<u32>,
    /// Token events that the client has of another service, if it goes on with what that began.
    pub(super) received: Option<u64>,
}

/// What a request became.
pub(super) struct Accepted<T> {
    /// An output for each choice of each generation, in their order.
    pub(super) outputs: Vec<Output>,
    /// What the dialect has to know for the answer.
    pub(super) dialect: T,
}

/// What a body is decoded with.
pub(super) struct Decoding {
    pub(super) model: Arc<Model>,
    pub(super) limits: Limits,
    /// Names of the model, at least one.
    names: Arc<[String]>,
    /// Tokens per sequence, once a worker has said it.
    context: Option<u32>,
    /// Those of them that KV memory has for a job that is alone.
    positions: Option<u32>,
    /// What the outputs depend on beside the request, once a worker has said it.
    pub(super) fingerprint: Option<Box<str>>,
}

/// Reads `request`, decodes its body by `decode`, and hands the jobs in. Until all is checked nothing is kept.
///
/// # Errors
/// What the client gets.
pub(super) async fn accept<T: Send + 'static>(
    app: &App,
    correlation_id: &CorrelationId,
    request: Request,
    decode: impl FnOnce(Json, &Decoding) -> Result<(Vec<Generation>, T), ApiError> + Send + 'static,
) -> Result<Accepted<T>, ApiError> {
    let (parts, body) = request.into_parts();
    // The layer in front of all routes puts it there.
    let owner = parts.extensions.get::<Owner>().copied().unwrap_or_default();
    // What would be refused whatever the body says is refused before it costs anything.
    let service = match app.service_with_room() {
        Ok(service) => service,
        Err(error) => return Err(body::pass_over(&parts, body, error).await),
    };
    let deadline = deadline::of_request(&parts.headers, app.inference_timeout);
    let decoding = app.decoding(service);
    let budget = app.bodies.for_context(decoding.context.unwrap_or(0));
    let bytes = body::read(&parts, body, &budget).await?;
    // Megabytes of JSON and long prompts take milliseconds: too long for the threads that pass
    // tokens on.
    let (mut prepared, dialect) = with_permit(&app.preparing, move || {
        let (generations, dialect) = decode(body::parse(&bytes)?, &decoding)?;
        let prepared = generations.into_iter().map(|g| decoding.prepare(g));
        Ok((prepared.collect::<Result<Vec<_>, ApiError>>()?, dialect))
    })
    .await
    .unwrap_or_else(|_| Err(ApiError::internal()))?;
    let deadline = deadline?;
    app.has_places(
        service,
        prepared.iter().map(|p| p.generation.choices as usize).sum(),
    )?;
    app.try_constraints(&prepared, deadline).await?;
    for Prepared { generation, .. } in &mut prepared {
        generation.options.cache = app.cache_scope(&generation.cache, owner);
    }
    // The first one's name is that of the request.
    let request: Box<str> = (prepared.first())
        .map_or("", |p| p.generation.job_id.as_str())
        .into();
    let jobs = prepared.into_iter();
    let jobs: Vec<_> = jobs
        .flat_map(|p| p.jobs(&service.model, owner, &request, deadline, correlation_id))
        .collect();
    let received = |job: &NewJob| job.resumption.as_ref().map(|past| past.events() as u64);
    let known = jobs
        .iter()
        .map(|job| (prompt_end(&job.prompt), received(job)));
    let known: Vec<_> = known.collect();
    let streams = service.jobs.submit_all(jobs).await?;
    let outputs = streams.into_iter().zip(known);
    let output = |(stream, (prompt_end, received))| Output {
        stream,
        prompt_end,
        received,
    };
    Ok(Accepted {
        outputs: outputs.map(output).collect(),
        dialect,
    })
}

/// Runs `work` on a thread of its own, as soon as there is a permit. The permit goes with the work, which
/// is done also when whoever waits for it has left.
pub(super) async fn with_permit<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let permit = Arc::clone(permits).acquire_owned().await;
    let working = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    working.await
}

fn prompt_end(prompt: &[u32]) -> Vec<u32> {
    prompt[prompt.len().saturating_sub(PROMPT_END_TOKENS)..].to_vec()
}

impl App {
    /// Whether queue and worker together have places for so many jobs, whenever they are free.
    fn has_places(&self, service: &Service, jobs: usize) -> Result<(), ApiError> {
        let snapshot = service.jobs.snapshot();
        let Some(worker) = &snapshot.worker else {
            return Ok(());
        };
        let places = self.queue + worker.parallel as usize;
        if jobs <= places {
            return Ok(());
        }
        let message = format!(
            "the request makes {jobs} outputs, the service has places for {places}; ask for fewer"
        );
        Err(invalid("n", &format!("at most {places} outputs"), message))
    }

    /// With which jobs one of `owner` shares KV pages, where it may.
    fn cache_scope(&self, wanted: &CacheUse, owner: Owner) -> CacheScope {
        match self.prefix_cache {
            Switch::On => wanted.scope(owner),
            Switch::Off => CacheScope::Job,
        }
    }

    /// Whether all constraints can be used. What that costs is bounded, and not this process's.
    async fn try_constraints(
        &self,
        prepared: &[Prepared],
        deadline: Instant,
    ) -> Result<(), ApiError> {
        for Prepared { generation, .. } in prepared {
            let Some(constraint) = &generation.options.constraint else {
                continue;
            };
            let tried = tokio::time::timeout_at(deadline.into(), self.trials.run(constraint)).await;
            let tried = tried.map_err(|_| {
                let message = "the deadline passed before the constraint was tried";
                ApiError::new(ErrorCode::InferenceTimeout, message)
            })?;
            tried.map_err(|error| unusable(generation.constraint_field, error))?;
        }
        Ok(())
    }

    pub(super) fn decoding(&self, service: &Service) -> Decoding {
        let snapshot = service.jobs.snapshot();
        Decoding {
            model: Arc::clone(&service.model),
            limits: Limits {
                max_tokens_out: self.max_tokens_out,
                vocab_size: service.model.vocab_size(),
                defaults: service.defaults,
            },
            names: Arc::clone(&self.names),
            context: snapshot.worker.as_ref().map(|worker| worker.context),
            positions: (snapshot.worker.as_ref())
                .map(|worker| kv::positions(worker.kv_pages, worker.context)),
            fingerprint: (snapshot.worker.as_ref())
                .map(|worker| fingerprint::of(service.model.text().identity(), worker)),
        }
    }
}

impl Fresh {
    /// What no other request gets.
    pub(super) fn new() -> Self {
        Self {
            job_id: Uuid::new_v4().to_string(),
            seed: fastrand::u64(..1 << RANDOM_SEED_BITS),
        }
    }
}

/// A checked request and its prompt's tokens.
struct Prepared {
    generation: Generation,
    prompt: Vec<u32>,
    identity: Identity,
    resumption: Option<Resumption>,
}

impl Decoding {
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn context(&self) -> Option<u32> {
        self.context
    }

    /// The prompt that a conversation becomes.
    pub(super) fn render(&self, chat: &ChatInput) -> Result<String, ApiError> {
        let rendered = self.model.text().render_chat(chat);
        rendered.map_err(|error| api_error("messages", &error))
    }

    fn prepare(&self, mut generation: Generation) -> Result<Prepared, ApiError> {
        let input = std::mem::replace(&mut generation.input, Input::Ids(Vec::new()));
        let field = generation.field;
        let resume = generation.resume.take();
        let fingerprint = self.fingerprint.clone().unwrap_or_default();
        if let Some(resume) = &resume {
            goes_on_here(resume, &fingerprint)?;
        }
        let time = resume.as_ref().map(|resume| resume.template_time.clone());
        let time = time.unwrap_or_else(TemplateTime::now);
        let prompt = self.encode(input, field, &time)?;
        if prompt.is_empty() {
            let message = format!("{field} has no tokens");
            return Err(invalid(field, "at least one token", message));
        }
        self.fits(field, prompt.len())?;
        self.fits_with_output(&generation, prompt.len())?;
        let resumption = resume.map(|resume| self.resumption(&generation, resume));
        Ok(Prepared {
            identity: Identity {
                fingerprint,
                template_time: time.to_string().into(),
                prompt: prompt_hash(&prompt),
            },
            resumption: resumption.transpose()?,
            generation,
            prompt,
        })
    }

    /// What the ids that the client has were.
    fn resumption(&self, generation: &Generation, resume: Resume) -> Result<Resumption, ApiError> {
        let end_tokens = match generation.options.ignore_end {
            true => &[],
            false => self.model.end_tokens(),
        };
        let resumption = Resumption::new(
            resume.request_digest.into(),
            resume.ids,
            end_tokens,
            generation.stop.clone(),
            self.model.text().tokenizer(),
        );
        resumption.map_err(|BeyondEnd { index }| {
            let message = format!(
                "resume.ids[{index}] goes on after the end of the output; send ids of one stream, as they were received"
            );
            invalid("resume.ids", "ids of one output", message)
        })
    }

    /// Whether a sequence holds so many tokens and one more.
    pub(super) fn fits(&self, field: &str, tokens: usize) -> Result<(), ApiError> {
        let (Some(context), Some(positions)) = (self.context, self.positions) else {
            return Ok(());
        };
        if tokens < positions as usize {
            return Ok(());
        }
        let holder = match positions < context {
            true => "KV memory",
            false => "the context",
        };
        Err(too_long(field, tokens, holder, positions))
    }

    /// Whether KV memory could ever hold the output that was asked for by name. What the context leaves no room for is
    /// cut, as nobody can ask for more of that.
    fn fits_with_output(&self, generation: &Generation, prompt: usize) -> Result<(), ApiError> {
        let (Some(context), Some(positions)) = (self.context, self.positions) else {
            return Ok(());
        };
        let (Some(field), Some(wanted)) = (generation.max_tokens_field, generation.max_tokens)
        else {
            return Ok(());
        };
        let left = |all: u32| (all as usize).saturating_sub(prompt);
        let fits = left(positions);
        if left(context).min(wanted as usize) <= fits {
            return Ok(());
        }
        let message = format!(
            "{field} is {wanted}, and after a prompt of {prompt} tokens KV memory has room for {fits}: it holds \
             {positions} positions in all; ask for fewer, or give the service more --kv-memory"
        );
        let constraint = format!("at most {fits}");
        let error = ApiError::new(ErrorCode::ContextLengthExceeded, message.clone());
        Err(error.details(detail(field, &constraint, message)))
    }

    /// The tokens of a prompt, which comes from `field`.
    pub(super) fn encode(
        &self,
        input: Input,
        field: &str,
        time: &TemplateTime,
    ) -> Result<Vec<u32>, ApiError> {
        let text = self.model.text();
        let encoded = match input {
            Input::Prompt {
                text: prompt,
                template,
            } => text.encode_prompt_at(&prompt, template, time),
            Input::Ids(ids) => Ok(ids),
            Input::Chat(chat) => text.encode_chat_at(&chat, time),
        };
        encoded.map_err(|error| api_error(field, &error))
    }
}

/// Whether this service gives the same bits as the one that began.
fn goes_on_here(resume: &Resume, fingerprint: &str) -> Result<(), ApiError> {
    if resume.fingerprint == fingerprint {
        return Ok(());
    }
    let message = format!(
        "resume.fingerprint is another than this service's, {fingerprint}: its model, template or arithmetic differs; \
         go on at a service that has it"
    );
    let details = detail("resume.fingerprint", fingerprint, message.clone());
    Err(ApiError::new(ErrorCode::FingerprintMismatch, message).details(details))
}

/// What the client gets for a prompt that could not be made.
fn api_error(field: &str, error: &TextError) -> ApiError {
    if error.is_request_fault() {
        return invalid(field, "fits the model's chat template", error.to_string());
    }
    if error.is_template_fault() {
        return ApiError::new(ErrorCode::Internal, error.to_string());
    }
    tracing::error!(%error, "a prompt could not be turned into tokens");
    ApiError::internal()
}

/// What the client gets for a constraint that was not taken.
fn unusable(field: &str, error: TrialError) -> ApiError {
    match error {
        TrialError::Refused(reason) => {
            let message = format!("{field} can't be used: {reason}");
            invalid(field, "can be compiled", message)
        }
        TrialError::Failed(error) => {
            tracing::error!(%error, "a constraint can't be tried");
            ApiError::internal()
        }
    }
}

fn detail(field: &str, constraint: &str, message: String) -> Vec<Detail> {
    vec![Detail {
        field: field.into(),
        constraint: constraint.into(),
        message,
    }]
}

fn invalid(field: &str, constraint: &str, message: String) -> ApiError {
    ApiError::invalid(detail(field, constraint, message))
}

fn too_long(field: &str, tokens: usize, holder: &str, positions: u32) -> ApiError {
    let message = format!(
        "the prompt has {tokens} tokens, {holder} holds {positions} with at least one for output; shorten \
         the prompt"
    );
    let constraint = format!("prompt tokens < {positions}");
    ApiError::new(ErrorCode::ContextLengthExceeded, message.clone()).details(detail(
        field,
        &constraint,
        message,
    ))
}

impl Prepared {
    /// A job for each choice. The first has the request's name.
    fn jobs(
        self,
        model: &Model,
        owner: Owner,
        request: &str,
        deadline: Instant,
        CorrelationId(correlation_id): &CorrelationId,
    ) -> Vec<NewJob> {
        let Self {
            generation,
            prompt,
            identity,
            resumption,
        } = self;
        let job = |choice: u32| {
            let mut sampling = generation.sampling;
            sampling.choice = choice;
            NewJob {
                job_id: match choice {
                    0 => generation.job_id.clone(),
                    _ => format!("{}.{choice}", generation.job_id),
                },
                owner,
                request: request.into(),
                model: model.name().into(),
                prompt: prompt.clone(),
                tokenizer: Arc::clone(model.text().tokenizer()),
                max_tokens: generation.max_tokens,
                sampling,
                options: generation.options.clone(),
                stop: generation.stop.clone(),
                deadline,
                continue_on_disconnect: generation.continue_on_disconnect,
                correlation_id: correlation_id.to_string(),
                identity: identity.clone(),
                resumption: resumption.clone(),
            }
        };
        (0..generation.choices).map(job).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A client that posts and leaves would otherwise free its permit while its work goes on, and fill every
    /// thread there is.
    #[tokio::test]
    async fn a_permit_goes_with_the_work_and_not_with_who_waits_for_it() {
        let permits = Arc::new(Semaphore::new(1));
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let waiting = with_permit(&permits, move || {
            begun.send(()).unwrap();
            finished.recv().unwrap();
        });
        tokio::select! {
            _ = waiting => panic!("it was not let finish"),
            begun = begins => begun.unwrap(),
        }
        // Whoever waited is gone.
        assert_eq!(permits.available_permits(), 0);
        finish.send(()).unwrap();
        let next = with_permit(&permits, || 7);
        assert_eq!(next.await.unwrap(), 7);
    }
}
