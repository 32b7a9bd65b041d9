//! What `GET /metrics` shows. The dispatcher counts as things happen; the gauges are taken from its
//! snapshot when somebody scrapes.

mod gauges;
mod process;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::config::REVISION;
use crate::snapshot::Snapshot;
use gauges::Gauges;
use process::Process;

/// Bucket bounds in seconds: between two tokens.
const INTER_TOKEN_S: [f64; 12] = [
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0,
];
/// Bucket bounds in seconds: from a request to its first token.
const FIRST_TOKEN_S: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];
/// Bucket bounds in seconds: whole requests, loads and failovers.
const LONG_S: [f64; 12] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Version, revision and backend, as labels of a metric that is always 1.
type BuildInfo = Family<[(&'static str, &'static str); 3], Gauge>;
/// A counter with one label.
type ByLabel = Family<[(&'static str, String); 1], Counter>;

/// How a scrape is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.0, which has units and an end beside it.
    OpenMetrics,
}

/// All metrics of the service. Its methods cost an atomic addition or a short lock each, so that
/// the dispatcher may call them for every token.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    build: BuildInfo,
    jobs: ByLabel,
    refused: ByLabel,
    tokens: Counter,
    prompt_tokens: Counter,
    queue_wait: Histogram,
    first_token: Histogram,
    inter_token: Histogram,
    end_to_end: Histogram,
    restarts: ByLabel,
    replayed_jobs: Counter,
    replayed_tokens: Counter,
    adopted_tokens: Counter,
    preemptions: Counter,
    vllm_preemptions: Counter,
    cached_tokens: Counter,
    vllm_cache_queries: Counter,
    vllm_cache_hits: Counter,
    refused_pages: Counter,
    failover: Histogram,
    load: Histogram,
    gauges: Gauges,
    /// Held by the scrape that is being written.
    scrape: Mutex<()>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let build = registered(
            r,
            "orcd_build_info",
            "Always 1; the labels say what this is",
        );
        r.register_collector(Box::new(Process::starting_now()));
        Self {
            build,
            jobs: registered(r, "orcd_jobs_finished", "Jobs that ended, by outcome"),
            refused: registered(
                r,
                "orcd_requests_refused",
                "Requests answered with an error, by its code",
            ),
            tokens: registered(r, "orcd_tokens_generated", "Tokens generated"),
            prompt_tokens: registered(
                r,
                "orcd_prompt_tokens",
                "Prompt tokens of the jobs that were started",
            ),
            restarts: registered(
                r,
                "orcd_worker_restarts",
                "Workers lost and replaced, by cause",
            ),
            replayed_jobs: registered(
                r,
                "orcd_replayed_jobs",
                "Running jobs handed to a new worker",
            ),
            replayed_tokens: registered(
                r,
                "orcd_replayed_tokens",
                "Tokens sent before a crash and processed again after it",
            ),
            adopted_tokens: registered(
                r,
                "orcd_adopted_tokens",
                "Tokens of replayed jobs, prompts included, that were in kept KV pages",
            ),
            preemptions: registered(
                r,
                "orcd_preemptions",
                "Running jobs that gave their KV pages to older ones, to go on later",
            ),
            vllm_preemptions: registered(r, "vllm:num_preemptions", "As orcd_preemptions"),
            cached_tokens: registered(
                r,
                "orcd_prefix_cache_tokens",
                "Prompt tokens that were kept of earlier jobs when theirs began",
            ),
            vllm_cache_queries: registered(
                r,
                "vllm:prefix_cache_queries",
                "Prompt tokens of the jobs that began and share KV pages",
            ),
            vllm_cache_hits: registered(r, "vllm:prefix_cache_hits", "As orcd_prefix_cache_tokens"),
            refused_pages: registered(
                r,
                "orcd_kv_pages_refused",
                "Kept KV pages that were found not to be what they should be, and were not used",
            ),
            queue_wait: seconds(
                r,
                "orcd_queue_wait",
                "Submission to the first worker that was given the job",
                FIRST_TOKEN_S,
            ),
            first_token: seconds(
                r,
                "orcd_first_token",
                "Submission to first token",
                FIRST_TOKEN_S,
            ),
            inter_token: seconds(
                r,
                "orcd_inter_token",
                "One token of a job to its next",
                INTER_TOKEN_S,
            ),
            end_to_end: seconds(r, "orcd_job_duration", "Submission to last event", LONG_S),
            failover: seconds(
                r,
                "orcd_failover",
                "Loss of a worker to the next token, or to the next worker ready if no job was held",
                LONG_S,
            ),
            load: seconds(r, "orcd_model_load", "Load request to ready worker", LONG_S),
            gauges: Gauges::registered(r),
            scrape: Mutex::default(),
            registry,
        }
    }

    /// This service runs on "cpu" or "cuda". To be called once.
    pub fn runs_on(&self, backend: &'static str) {
        self.build
            .get_or_create(&[
                ("version", env!("CARGO_PKG_VERSION")),
                ("revision", REVISION),
                ("backend", backend),
            ])
            .set(1);
    }

    /// A job was given to a worker for the first time, after waiting in the queue for this long.
    pub fn job_started(&self, waited: Duration, prompt_tokens: u64) {
        self.queue_wait.observe(waited.as_secs_f64());
        self.prompt_tokens.inc_by(prompt_tokens);
    }

    /// A running job gave its KV pages to older ones.
    pub fn preempted(&self) {
        self.preemptions.inc();
        self.vllm_preemptions.inc();
    }

    /// A job that shares KV pages began: of so many prompt tokens so many were kept.
    pub fn looked_up(&self, asked: u64, found: u64) {
        self.vllm_cache_queries.inc_by(asked);
        self.vllm_cache_hits.inc_by(found);
        self.cached_tokens.inc_by(found);
    }

    /// So many kept KV pages were found not to be what they should be.
    pub fn pages_refused(&self, pages: u64) {
        self.refused_pages.inc_by(pages);
    }

    /// A job ended: "end" or the code of its error.
    pub fn job_finished(&self, outcome: &str) {
        self.jobs
            .get_or_create(&[("outcome", outcome.to_owned())])
            .inc();
    }

    /// A request was answered with the error `code`.
    pub fn request_refused(&self, code: &str) {
        self.refused
            .get_or_create(&[("code", code.to_owned())])
            .inc();
    }

    /// `n` tokens were generated.
    pub fn tokens(&self, n: u64) {
        self.tokens.inc_by(n);
    }

    /// From submission to the first token.
    pub fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    /// From one token of a job to its next.
    pub fn inter_token(&self, after: Duration) {
        self.inter_token.observe(after.as_secs_f64());
    }

    /// From submission to the last event.
    pub fn end_to_end(&self, after: Duration) {
        self.end_to_end.observe(after.as_secs_f64());
    }

    /// A worker was lost and another is needed; `cause` is "exit", "signal", "stalled" and the like.
    pub fn restart(&self, cause: &str) {
        self.restarts
            .get_or_create(&[("cause", cause.to_owned())])
            .inc();
    }

    /// Jobs were handed to a new worker, with so many tokens that had been sent already.
    pub fn replayed(&self, jobs: u64, tokens: u64) {
        self.replayed_jobs.inc_by(jobs);
        self.replayed_tokens.inc_by(tokens);
    }

    /// A replayed job found so many of its tokens in the KV pages that a lost worker left.
    pub fn adopted(&self, tokens: u64) {
        self.adopted_tokens.inc_by(tokens);
    }

    /// From the loss of a worker until the next one shows a token of a replayed job; until it is
    /// ready where there was none.
    pub fn failover(&self, took: Duration) {
        self.failover.observe(took.as_secs_f64());
    }

    /// From a worker's load request until it is ready.
    pub fn load(&self, took: Duration) {
        self.load.observe(took.as_secs_f64());
    }

    /// The text of a scrape, with the gauges as `snapshot` has them; all 0 without one.
    ///
    /// # Errors
    /// None in practice: writing into a `String` doesn't fail.
    pub fn encode(
        &self,
        format: Format,
        snapshot: Option<&Snapshot>,
    ) -> Result<String, std::fmt::Error> {
        // Two scrapes at once are of one snapshot each.
        let _scrape = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = snapshot {
            self.gauges.set(snapshot);
        }
        let mut out = String::new();
        match format {
            Format::Prometheus => prometheus_text::encode(&mut out, &self.registry)?,
            Format::OpenMetrics => text::encode(&mut out, &self.registry)?,
        }
        Ok(out)
    }
}

fn registered<M: Metric + Clone + Default>(r: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    r.register(name, help, metric.clone());
    metric
}

fn seconds(r: &mut Registry, name: &str, help: &str, bounds: [f64; 12]) -> Histogram {
    let histogram = Histogram::new(bounds);
    r.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orcd_shared::kv::PageCounts;
    use orcd_shared::protocol::message::WorkerInfo;

    use super::*;
    use crate::samples::info;
    use crate::snapshot::ServiceState;

    fn snapshot() -> Snapshot {
        Snapshot {
            state: ServiceState::Ready,
            generation: 2,
            running: 3,
            queued: 7,
            worker: Some(Arc::new(WorkerInfo {
                kv_pages: 40,
                memory_used: 0,
                ..info()
            })),
            kv: PageCounts {
                used: 10,
                cached: 12,
                refused: 1,
            },
            ..Snapshot::default()
        }
    }

    #[test]
    fn scrape_shows_counts_and_the_snapshot() {
        let metrics = Metrics::new();
        metrics.job_finished("end");
        metrics.job_finished("CANCELLED");
        metrics.tokens(12);
        metrics.runs_on("cpu");
        metrics.job_started(Duration::from_millis(30), 9);
        metrics.first_token(Duration::from_millis(3));
        metrics.restart("signal");
        metrics.request_refused("QUEUE_FULL");
        metrics.replayed(2, 40);
        metrics.adopted(128);
        metrics.preempted();
        metrics.looked_up(100, 64);
        metrics.looked_up(20, 0);
        metrics.pages_refused(3);
        let text = metrics
            .encode(Format::OpenMetrics, Some(&snapshot()))
            .unwrap();
        for line in [
            "orcd_jobs_finished_total{outcome=\"end\"} 1",
            "orcd_jobs_finished_total{outcome=\"CANCELLED\"} 1",
            "orcd_requests_refused_total{code=\"QUEUE_FULL\"} 1",
            "orcd_tokens_generated_total 12",
            "orcd_prompt_tokens_total 9",
            "orcd_queue_wait_seconds_bucket{le=\"0.05\"} 1",
            "orcd_queue_wait_seconds_bucket{le=\"0.025\"} 0",
            "orcd_first_token_seconds_bucket{le=\"0.005\"} 1",
            "orcd_first_token_seconds_bucket{le=\"0.0025\"} 0",
            "orcd_worker_restarts_total{cause=\"signal\"} 1",
            "orcd_replayed_jobs_total 2",
            "orcd_replayed_tokens_total 40",
            "orcd_adopted_tokens_total 128",
            "orcd_ready 1",
            "orcd_jobs_queued 7",
            "orcd_jobs_running 3",
            "vllm:num_requests_waiting 7",
            "vllm:num_requests_running 3",
            "vllm:kv_cache_usage_perc 0.25",
            "orcd_kv_pages 40",
            "vllm:cache_config_info{block_size=\"64\",num_gpu_blocks=\"40\"} 1",
            "orcd_kv_pages_used 10",
            "orcd_kv_pages_cached 12",
            "orcd_kv_pages_free 18",
            "orcd_kv_pages_refused_total 3",
            "orcd_prefix_cache_tokens_total 64",
            "vllm:prefix_cache_queries_total 120",
            "vllm:prefix_cache_hits_total 64",
            "orcd_preemptions_total 1",
            "vllm:num_preemptions_total 1",
            "orcd_vram_used_bytes 0",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "missing {line:?} in:\n{text}"
            );
        }
        let version = env!("CARGO_PKG_VERSION");
        let build = format!(
            "orcd_build_info{{version=\"{version}\",revision=\"{REVISION}\",backend=\"cpu\"}} 1"
        );
        assert!(text.contains(&build), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_metric_is_in_the_written_document() {
        let api = include_str!("../../docs/API.md");
        let text = Metrics::new().encode(Format::Prometheus, None).unwrap();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(
                api.contains(&format!("`{name}`")),
                "{name} is not in docs/API.md"
            );
        }
    }

    #[test]
    fn counters_have_their_samples_names_in_the_older_format() {
        let metrics = Metrics::new();
        metrics.tokens(3);
        let open = metrics.encode(Format::OpenMetrics, None).unwrap();
        let text = metrics.encode(Format::Prometheus, None).unwrap();
        for line in [
            "# HELP orcd_tokens_generated_total Tokens generated.",
            "# TYPE orcd_tokens_generated_total counter",
            "orcd_tokens_generated_total 3",
            "# TYPE orcd_first_token_seconds histogram",
            "# TYPE orcd_ready gauge",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in:\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
        let samples = |text: &str| text.lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(samples(&text), samples(&open));
    }
}
