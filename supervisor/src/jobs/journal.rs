//! One job's journal: what the worker must be told to go on with it, and where its stream of
//! events stands. It decides what a token means; sending events is the dispatcher's business.
//!
//! **Invariant.** Event ids count from 0 and token indices from 0, both without a gap and without
//! a repetition, and neither depends on crashes: a token that was journaled is never an event
//! again.

mod outcome;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use orcd_shared::job::{Finish, JobKey, JobSpec};
use orcd_shared::protocol::message::{StepToken, TokenLogprobs};

use super::admission::Limit;
use super::{JobEvent, NewJob, Numbered, StopReason, TopLogprob};
use crate::jobs::resumption::{Past, PastToken};
use crate::text::TokenText;
use crate::worker::replay::ReplayCheck;
pub use outcome::{Ending, TokenOutcome};

/// The journal of one job.
#[derive(Debug)]
pub struct Journal {
    key: JobKey,
    job: NewJob,
    limit: Limit,
    digest: Box<str>,
    emitted: Vec<u32>,
    /// Token events that the client has of another service, until `started`.
    past: Vec<PastToken>,
    /// The job goes on with what another service began.
    resumes: bool,
    /// What the client has of another service is all there is.
    over: Option<Ending>,
    /// Set between a replay and the token that proves it sound.
    check: Option<ReplayCheck>,
    text: TokenText,
    next_event: u64,
    /// Token events so far; one more than `emitted` at most (see [`Journal::record_token`]).
    tokens_out: u32,
    submissions: u32,
    /// Those of them that a preemption made necessary.
    preemptions: u32,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    engine_time_us: u64,
    /// Prompt tokens that were kept when the job began; `None` before it has.
    cached_tokens: Option<u32>,
}

impl Journal {
    /// The journal of an admitted job, whose request has this digest.
    #[must_use]
    pub fn new(key: JobKey, mut job: NewJob, limit: Limit, digest: Box<str>) -> Self {
        let stop = std::mem::take(&mut job.stop);
        let resumption = job.resumption.take();
        let resumes = resumption.is_some();
        let past = resumption.map_or_else(|| Past::none(stop), |past| past.within(limit));
        Self {
            key,
            job,
            limit,
            digest,
            emitted: past.generated,
            past: past.tokens,
            resumes,
            over: past.ending,
            check: None,
            text: past.text,
            next_event: 0,
            tokens_out: 0,
            submissions: 0,
            preemptions: 0,
            first_token: None,
            last_token: None,
            engine_time_us: 0,
            cached_tokens: None,
        }
    }

    /// The request.
    #[must_use]
    pub fn job(&self) -> &NewJob {
        &self.job
    }

    /// Token events so far.
    #[must_use]
    pub fn tokens_out(&self) -> u32 {
        self.tokens_out
    }

    /// The tokens so far, which a replay would process again.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.emitted
    }

    /// Tokens to generate in all.
    #[must_use]
    pub fn max_tokens(&self) -> u32 {
        self.limit.max_tokens
    }

    /// When the latest token came.
    #[must_use]
    pub fn last_token(&self) -> Option<Instant> {
        self.last_token
    }

    /// Positions of a sequence that it has filled, or will with its prompt.
    #[must_use]
    pub fn positions(&self) -> u64 {
        (self.job.prompt.len() + self.emitted.len()) as u64
    }

    /// Positions that it may come to fill.
    #[must_use]
    pub fn most_positions(&self) -> u64 {
        self.job.prompt.len() as u64 + u64::from(self.limit.max_tokens)
    }

    /// How often it was replayed after a crash.
    #[must_use]
    pub fn replays(&self) -> u32 {
        self.submissions.saturating_sub(1 + self.preemptions)
    }

    /// It has to be submitted again because its worker needed the memory: no crash, and no replay to tell of.
    pub fn preempted(&mut self) {
        self.preemptions += 1;
    }

    /// A worker has begun with the job, and so many of its tokens need not be computed. Gives back how many of the
    /// prompt these were, if it is the first time: what a replay finds of the job's own is not news to the client.
    pub fn begun(&mut self, cached: u32) -> Option<u32> {
        if self.cached_tokens.is_some() {
            return None;
        }
        self.cached_tokens = Some(cached.min(self.prompt_tokens()));
        self.cached_tokens
    }

    /// Tokens of the prompt.
    #[must_use]
    pub fn prompt_tokens(&self) -> u32 {
        u32::try_from(self.job.prompt.len()).unwrap_or(u32::MAX)
    }

    /// What to tell a worker; also counts the submission and, if there are tokens, demands the
    /// replay check of it.
    pub fn submission(&mut self) -> JobSpec {
        self.submissions += 1;
        self.check = ReplayCheck::of(&self.emitted);
        JobSpec {
            key: self.key,
            prompt: self.job.prompt.clone(),
            emitted: self.emitted.clone(),
            max_tokens: self.limit.asked,
            sampling: self.job.sampling,
            options: self.job.options.clone(),
        }
    }

    /// The `started` event before the first submission, and the token events that the client has already; nothing after it.
    pub fn started(&mut self, started_at: jiff::Timestamp) -> Vec<Numbered> {
        if self.next_event > 0 {
            return Vec::new();
        }
        let identity = std::mem::take(&mut self.job.identity);
        let started = JobEvent::Started {
            job_id: self.job.job_id.as_str().into(),
            model: std::mem::take(&mut self.job.model),
            started_at,
            seed: self.job.sampling.seed,
            prompt_tokens: self.prompt_tokens(),
            fingerprint: identity.fingerprint,
            request_digest: std::mem::take(&mut self.digest),
            template_time: identity.template_time,
        };
        let mut events = vec![self.number(started)];
        for PastToken { id, text } in std::mem::take(&mut self.past) {
            events.push(self.next_token(text, id, None));
        }
        events
    }

    /// How the job ends that has started and of which the client has all tokens.
    pub fn over(&mut self) -> Option<Ending> {
        self.over.take()
    }

    /// Takes a token from the worker.
    ///
    /// Text that is held back comes out with the job's last token: its event is only made when it
    /// is known to be the last. An end-of-generation token is no token event, except when text is
    /// still held back: then that text travels in an event with the end token's id and the next
    /// index, counted as any other.
    pub fn record_token(
        &mut self,
        token: StepToken,
        logprobs: Option<TokenLogprobs>,
        step_us: u32,
        now: Instant,
    ) -> TokenOutcome {
        if let Some(check) = self.check.take() {
            let first = self.resumes && self.replays() == 0 && self.preemptions == 0;
            return TokenOutcome::from_check(check, &token, first);
        }
        if token.index as usize != self.emitted.len() {
            return TokenOutcome::failed(format!(
                "the worker sent token {} where {} was due",
                token.index,
                self.emitted.len()
            ));
        }
        let wants = self.job.options.top_logprobs;
        if wants.is_some() != logprobs.is_some() {
            return TokenOutcome::failed(format!(
                "token {} came {} logprobs",
                token.index,
                if wants.is_some() { "without" } else { "with" }
            ));
        }
        self.engine_time_us += u64::from(step_us);
        if token.finish == Some(Finish::Eos) {
            return self.end_of_generation(token.id, logprobs, now);
        }
        self.emitted.push(token.id);
        let mut piece = self.text.push(token.id, &self.job.tokenizer);
        if piece.stop.is_none() && token.finish.is_some() {
            let rest = self.flush();
            piece.text.push_str(&rest.text);
            piece.stop = rest.stop;
        }
        let event = Some(self.token_event(piece.text, token.id, logprobs, now));
        let ending = (piece.stop.map(Ending::StopSequence))
            .or_else(|| Some(Ending::Stop(self.stop_reason(token.finish?))));
        TokenOutcome { event, ending }
    }

    /// The last event: `end` or `error`.
    pub fn end(&mut self, ending: Ending) -> Numbered {
        let (stop_reason, stop_sequence) = match ending {
            Ending::Stop(reason) => (reason, None),
            Ending::StopSequence(text) => (StopReason::StopSequence, Some(text)),
            Ending::Error(code, message) => {
                return self.number(JobEvent::Error {
                    code,
                    message,
                    retriable: code.retriable(),
                    tokens_out: self.tokens_out,
                });
            }
        };
        let decode_time = match (self.first_token, self.last_token) {
            (Some(first), Some(last)) => last.duration_since(first),
            _ => Duration::ZERO,
        };
        self.number(JobEvent::End {
            tokens_out: self.tokens_out,
            decode_time_ms: u64::try_from(decode_time.as_millis()).unwrap_or(u64::MAX),
            engine_time_us: self.engine_time_us,
            stop_reason,
            stop_sequence,
            replays: self.replays(),
            cached_tokens: self.cached_tokens.unwrap_or(0),
        })
    }

    /// Gives back what only a job in flight needs.
    pub fn close(&mut self) {
        self.job.prompt = Vec::new();
        self.emitted = Vec::new();
    }

    fn end_of_generation(
        &mut self,
        id: u32,
        logprobs: Option<TokenLogprobs>,
        now: Instant,
    ) -> TokenOutcome {
        let rest = self.flush();
        let event = (!rest.text.is_empty()).then(|| self.token_event(rest.text, id, logprobs, now));
        let ending = (rest.stop).map_or(Ending::Stop(StopReason::Eos), Ending::StopSequence);
        TokenOutcome {
            event,
            ending: Some(ending),
        }
    }

    fn flush(&mut self) -> crate::text::TextDelta {
        std::mem::replace(&mut self.text, TokenText::new(Vec::new())).finish()
    }

    fn token_event(
        &mut self,
        text: String,
        id: u32,
        logprobs: Option<TokenLogprobs>,
        now: Instant,
    ) -> Numbered {
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
        self.next_token(text, id, logprobs)
    }

    fn next_token(&mut self, text: String, id: u32, logprobs: Option<TokenLogprobs>) -> Numbered {
        let index = self.tokens_out;
        self.tokens_out += 1;
        let logprob = logprobs.as_ref().map(|of| of.logprob);
        let top = logprobs.map(|of| of.top.into_iter().map(TopLogprob::from).collect());
        self.number(JobEvent::Token {
            text,
            index,
            id,
            logprob,
            top,
        })
    }

    fn stop_reason(&self, finish: Finish) -> StopReason {
        match finish {
            Finish::Eos => StopReason::Eos,
            Finish::MaxTokens => self.limit.reached(),
            Finish::ContextFull => StopReason::ContextFull,
        }
    }

    fn number(&mut self, event: JobEvent) -> Numbered {
        let numbered = Numbered {
            id: self.next_event,
            event,
        };
        self.next_event += 1;
        numbered
    }
}
