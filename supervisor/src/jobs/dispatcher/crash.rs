//! What a crash leaves for whoever looks for its cause.

use orcd_shared::crash::{CrashBundle, CrashedJob};
use orcd_shared::job::{CacheScope, JobKey};
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
        let mut jobs: Vec<CrashedJob> = jobs.collect();
        hide_owners(jobs.iter_mut().map(|job| &mut job.options.cache));
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

/// Numbers scopes in the place of their names, which follow from API keys: who gets a bundle sees which jobs shared
/// pages, and can't try keys on it.
fn hide_owners<'a>(scopes: impl Iterator<Item = &'a mut CacheScope>) {
    let mut seen = Vec::new();
    for scope in scopes {
        let CacheScope::Salt(name) = scope else {
            continue;
        };
        let number = seen.iter().position(|known| known == name);
        let number = number.unwrap_or_else(|| {
            seen.push(*name);
            seen.len() - 1
        });
        *name = (number as u128).to_le_bytes();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_is_told_and_not_whose_it_is() {
        let [a, b] = [[7; 16], [9; 16]].map(CacheScope::Salt);
        let mut scopes = [b, CacheScope::Job, a, b];
        hide_owners(scopes.iter_mut());
        let numbered = |n: u128| CacheScope::Salt(n.to_le_bytes());
        assert_eq!(
            scopes,
            [numbered(0), CacheScope::Job, numbered(1), numbered(0)]
        );
    }
}
