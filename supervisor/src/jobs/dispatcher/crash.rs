//! What a crash leaves for whoever looks for its cause.

use orcd_shared::crash::{CrashBundle, CrashedJob};
use orcd_shared::job::JobKey;
use orcd_shared::protocol::version::PROTOCOL;

use super::state::Dispatcher;
use crate::jobs::table::Job;
use crate::worker::WorkerHost;
use crate::worker::fleet::LostWorker;

impl<H: WorkerHost> Dispatcher<H> {
    /// Notes the jobs of worker number `lost`, and whether its loss is blamed on each.
    pub(super) fn note_crashed_jobs(&mut self, lost: u64, jobs: &[(JobKey, bool)]) {
        let Some(crashes) = &self.settings.crash_dir else {
            return;
        };
        let include_prompts = crashes.include_prompts;
        let jobs = jobs.iter().filter_map(|&(key, is_suspect)| {
            let job = self.table.in_flight(key)?;
            Some(crashed(key, job, is_suspect, include_prompts))
        });
        let jobs: Vec<CrashedJob> = jobs.collect();
        if !jobs.is_empty() {
            self.crashed_jobs.insert(lost, jobs);
        }
    }

    /// Writes the bundle of a lost worker that had jobs, now that its end is known.
    pub(super) fn write_crash_bundle(&mut self, worker: LostWorker) {
        let generation = worker.generation;
        let (Some(crashes), Some(info), Some(jobs)) = (
            &self.settings.crash_dir,
            worker.info,
            self.crashed_jobs.remove(&generation),
        ) else {
            return;
        };
        let load = &self.settings.fleet.load;
        let bundle = CrashBundle {
            version: self.settings.version.into(),
            protocol: PROTOCOL,
            crashed_at: jiff::Timestamp::now().to_string(),
            generation,
            exit: worker.exit,
            hung: worker.hung,
            model: load.model_path.clone(),
            model_bytes: (info.weights.iter().flat_map(|w| &w.model.stamps))
                .map(|stamp| stamp.bytes)
                .sum(),
            device: load.device.to_string(),
            context: info.context,
            parallel: info.parallel,
            kv_pages: Some(info.kv_pages),
            end_tokens: load.end_tokens.clone(),
            log: worker.log,
            jobs,
        };
        let crashes = crashes.clone();
        // A disk may be slow; the jobs don't wait for it.
        tokio::task::spawn_blocking(move || match crashes.write(&bundle) {
            Ok(path) => tracing::info!(generation, "crash bundle: {}", path.display()),
            Err(error) => tracing::warn!(
                generation,
                "no crash bundle in {}: {error}",
                crashes.path.display()
            ),
        });
    }
}

fn crashed(key: JobKey, job: &Job, suspect: bool, include_prompt: bool) -> CrashedJob {
    let request = job.journal.job();
    let mut options = request.options.clone();
    if !include_prompt {
        // It is the client's as the prompt is.
        options.constraint = None;
    }
    CrashedJob {
        job_id: request.job_id.clone(),
        correlation_id: request.correlation_id.clone(),
        key: key.0,
        suspect,
        prompt_tokens: u32::try_from(request.prompt.len()).unwrap_or(u32::MAX),
        prompt: include_prompt.then(|| request.prompt.clone()),
        emitted: job.journal.tokens().to_vec(),
        max_tokens: job.journal.max_tokens(),
        sampling: request.sampling,
        options,
    }
}
