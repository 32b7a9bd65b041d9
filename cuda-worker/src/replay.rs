//! `cuda-worker --replay BUNDLE`: the work of a crashed worker, done again without a supervisor. If
//! the crash is in the work, this process dies of it, under whatever debugger it was started.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::mpsc;

use orcd_shared::crash::{CrashBundle, CrashedJob};
use orcd_shared::exit;
use orcd_shared::job::{JobKey, JobSpec};
use orcd_shared::protocol::message::{KvSize, LoadRequest, StepToken, ToSupervisor};

use crate::loading;
use crate::scheduler::Scheduler;

/// Tokens that each job goes on after the crash.
const BEYOND: u32 = 32;

/// Runs the jobs of the bundle and gives `log` what came of them, line by line. Returns the exit code:
/// 0 if nothing crashed and each job's last token came out as before.
pub fn run(bundle: &Path, mut log: impl FnMut(fmt::Arguments<'_>)) -> u8 {
    let bundle = match read(bundle) {
        Ok(bundle) => bundle,
        Err(message) => {
            log(format_args!("{}: {message}", bundle.display()));
            return exit::worker::USAGE;
        }
    };
    log(format_args!(
        "crash of {}: {}, {} jobs on {} ({})",
        bundle.crashed_at,
        bundle.exit,
        bundle.jobs.len(),
        bundle.device,
        bundle.model
    ));
    match replay(&bundle, &mut log) {
        Ok(true) => exit::worker::OK,
        Ok(false) => exit::worker::INTERNAL,
        Err(message) => {
            log(format_args!("{message}"));
            exit::worker::LOAD_FAILED
        }
    }
}

fn read(path: &Path) -> Result<CrashBundle, String> {
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    let bundle: CrashBundle =
        serde_json::from_slice(&text).map_err(|e| format!("not a crash bundle: {e}"))?;
    if bundle.jobs.iter().any(|job| job.prompt.is_none()) {
        return Err(
            "it holds no prompts, and without them there is nothing to run; have the service \
             write them with --crash-include-prompts"
                .into(),
        );
    }
    Ok(bundle)
}

fn request(bundle: &CrashBundle) -> Result<LoadRequest, String> {
    Ok(LoadRequest {
        context: Some(bundle.context),
        parallel: Some(bundle.parallel),
        kv: bundle.kv_pages.map(KvSize::Pages),
        end_tokens: bundle.end_tokens.clone(),
        ..LoadRequest::new(bundle.model.clone(), bundle.device.parse()?)
    })
}

/// Whether all jobs came out as before.
fn replay(bundle: &CrashBundle, log: &mut impl FnMut(fmt::Arguments<'_>)) -> Result<bool, String> {
    let loaded = loading::load(&request(bundle)?, |_| {});
    let (sender, compiled) = mpsc::channel();
    let serving = loaded.map_err(|failure| failure.message)?;
    let (mut engine, limits, grammars) = serving.with_grammars(move |key, result| {
        let _ = sender.send((key, result));
    });
    let mut scheduler = Scheduler::new(limits, bundle.end_tokens.clone());
    scheduler.compile_with(grammars.map_err(|error| error.to_string())?);
    let mut out = Vec::new();
    for job in bundle.jobs.iter().filter_map(CrashedJob::spec) {
        let submitted = scheduler.submit(job, &mut engine, &mut out);
        submitted.map_err(|fatal| fatal.message)?;
    }
    let mut progress: Vec<Progress<'_>> = bundle.jobs.iter().map(Progress::of).collect();
    let mut preempted = VecDeque::new();
    loop {
        if scheduler.idle() {
            // Together they were too large for what each was to add; what one gave back is there now.
            let Some(job) = preempted.pop_front() else {
                break;
            };
            let submitted = scheduler.submit(job, &mut engine, &mut out);
            submitted.map_err(|fatal| fatal.message)?;
        }
        while let Some((key, result)) = next(&compiled, scheduler.is_waiting())? {
            let constrained = scheduler.constrain(key, result, &mut engine, &mut out);
            constrained.map_err(|fatal| fatal.message)?;
        }
        let plan = scheduler.plan(&mut engine, &mut out);
        let plan = plan.map_err(|fatal| fatal.message)?;
        let stepped = scheduler.step(&plan, &mut engine, &mut out);
        stepped.map_err(|fatal| fatal.message)?;
        for message in out.drain(..) {
            preempted.extend(handle(message, &mut progress, log));
        }
        for done in progress.iter_mut().filter(|p| p.has_enough() && !p.over) {
            done.over = true;
            let key = JobKey(done.job.key);
            let cancelled = scheduler.cancel(key, &mut engine, &mut out);
            cancelled.map_err(|fatal| fatal.message)?;
        }
    }
    for job in &progress {
        job.report(log);
    }
    Ok(progress.iter().all(|job| job.agrees != Some(false)))
}

/// What became of a constraint, if something did; waits for it if there is nothing else to do.
fn next<T>(compiled: &mpsc::Receiver<T>, wait: bool) -> Result<Option<T>, String> {
    if !wait {
        return Ok(compiled.try_recv().ok());
    }
    let next = compiled.recv();
    next.map(Some)
        .map_err(|_| "the thread that compiles constraints is gone".to_owned())
}

/// Notes what a message says; the job that is to begin again, if it says that.
fn handle(
    message: ToSupervisor,
    progress: &mut [Progress<'_>],
    log: &mut impl FnMut(fmt::Arguments<'_>),
) -> Option<JobSpec> {
    match message {
        ToSupervisor::Step(report) => {
            for token in &report.tokens {
                if let Some(job) = progress.iter_mut().find(|p| p.job.key == token.key.0) {
                    job.record_token(token);
                }
            }
        }
        ToSupervisor::JobFailed { key, code, message } => {
            log(format_args!("job {key}: {code}: {message}"));
        }
        ToSupervisor::Preempted(key) => {
            let job = progress.iter().find(|p| p.job.key == key.0);
            return job.and_then(|p| p.job.spec());
        }
        _ => {}
    }
    None
}

/// How far a job came.
struct Progress<'a> {
    job: &'a CrashedJob,
    /// Whether the last token of before came out again.
    agrees: Option<bool>,
    /// Tokens in all.
    tokens: u32,
    over: bool,
}

impl<'a> Progress<'a> {
    fn of(job: &'a CrashedJob) -> Self {
        Self {
            job,
            agrees: None,
            tokens: 0,
            over: false,
        }
    }

    fn record_token(&mut self, token: &StepToken) {
        if let Some(expected) = self.job.emitted.get(token.index as usize) {
            self.agrees = Some(*expected == token.id);
        }
        self.tokens = token.index.saturating_add(1);
        self.over |= token.finish.is_some();
    }

    fn has_enough(&self) -> bool {
        self.tokens as usize >= self.job.emitted.len() + BEYOND as usize
    }

    fn report(&self, log: &mut impl FnMut(fmt::Arguments<'_>)) {
        let again = match self.agrees {
            Some(true) => "its last token came out again",
            Some(false) => "ITS LAST TOKEN CAME OUT DIFFERENTLY",
            None => "it had no token yet",
        };
        log(format_args!(
            "job {} ({}): {again}; {} tokens before, {} now, no crash",
            JobKey(self.job.key),
            self.job.job_id,
            self.job.emitted.len(),
            self.tokens
        ));
    }
}
