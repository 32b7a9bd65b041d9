//! Metrics that are read and not counted: each is a row, with its place in the snapshot.

use std::sync::atomic::AtomicU64;

use orcd_shared::kv::PAGE_TOKENS;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::snapshot::{ServiceState, Snapshot};

/// A value as the snapshot has it.
type Value<N> = fn(&Snapshot) -> N;
/// Name, help and value of a gauge.
type Row<N> = (&'static str, &'static str, Value<N>);

const COUNTS: [Row<u64>; 12] = [
    ("orcd_ready", "1 while a worker takes jobs", |s| {
        u64::from(s.state == ServiceState::Ready)
    }),
    ("orcd_jobs_queued", "Jobs waiting for a worker slot", |s| {
        s.queued.into()
    }),
    ("orcd_jobs_running", "Jobs given to the worker", |s| {
        s.running.into()
    }),
    (
        "orcd_jobs_awaiting_replay",
        "Jobs of a lost worker that no other has been given yet",
        |s| s.awaiting_replay.into(),
    ),
    (
        "orcd_kv_pages",
        "Pages of KV memory, of 64 positions",
        |s| s.kv_pages().all.into(),
    ),
    (
        "orcd_kv_pages_used",
        "Pages of KV memory that running jobs hold",
        |s| s.kv_pages().used.into(),
    ),
    (
        "orcd_kv_pages_cached",
        "Pages of KV memory that nobody holds, kept for prompts that begin with what is in them",
        |s| s.kv_pages().cached.into(),
    ),
    (
        "orcd_kv_pages_free",
        "Pages of KV memory that hold nothing",
        |s| s.kv_pages().free.into(),
    ),
    (
        "orcd_worker_generation",
        "Number of the present worker, standbys counted",
        |s| s.generation,
    ),
    (
        "orcd_standby_ready",
        "1 while a standby could take over",
        |s| u64::from(s.standby.is_some_and(|standby| standby.ready)),
    ),
    ("vllm:num_requests_waiting", "As orcd_jobs_queued", |s| {
        s.queued.into()
    }),
    ("vllm:num_requests_running", "As orcd_jobs_running", |s| {
        s.running.into()
    }),
];

const SHARES: [Row<f64>; 2] = [
    (
        "orcd_kv_cache_usage_ratio",
        "Share of KV pages that running jobs hold",
        Snapshot::cache_usage,
    ),
    (
        "vllm:kv_cache_usage_perc",
        "As orcd_kv_cache_usage_ratio",
        Snapshot::cache_usage,
    ),
];

const BYTES: [Row<u64>; 2] = [
    (
        "orcd_vram_used",
        "Device memory taken by weights, KV cache and scratch",
        |s| s.worker.as_ref().map_or(0, |worker| worker.memory_used),
    ),
    ("orcd_vram_total", "Device memory", |s| {
        s.worker.as_ref().map_or(0, |worker| worker.memory_total)
    }),
];

/// What KV memory is made of, as labels of a metric that is always 1: endpoint pickers reckon with it.
type CacheConfig = Family<[(&'static str, String); 2], Gauge>;

/// Values copied from the snapshot at scrape time.
#[derive(Debug)]
pub(super) struct Gauges {
    cache_config: CacheConfig,
    whole: Vec<(Gauge, Value<u64>)>,
    shares: Vec<(Gauge<f64, AtomicU64>, Value<f64>)>,
}

impl Gauges {
    /// All of them, at 0 until [`Self::set`].
    pub(super) fn registered(r: &mut Registry) -> Self {
        let counts = COUNTS.map(|(name, help, value)| (super::registered(r, name, help), value));
        let shares = SHARES.map(|(name, help, value)| (super::registered(r, name, help), value));
        let bytes = BYTES.map(|(name, help, value)| {
            let gauge = Gauge::default();
            r.register_with_unit(name, help, Unit::Bytes, gauge.clone());
            (gauge, value)
        });
        let cache_config = "vllm:cache_config_info";
        let help = "Positions of a KV page, and pages, of the present worker";
        Self {
            cache_config: super::registered(r, cache_config, help),
            whole: counts.into_iter().chain(bytes).collect(),
            shares: shares.into(),
        }
    }

    pub(super) fn set(&self, snapshot: &Snapshot) {
        for (gauge, value) in &self.whole {
            gauge.set(i64::try_from(value(snapshot)).unwrap_or(i64::MAX));
        }
        for (gauge, value) in &self.shares {
            gauge.set(value(snapshot));
        }
        let pages = snapshot.kv_pages().all;
        let labels = [
            ("block_size", PAGE_TOKENS.to_string()),
            ("num_gpu_blocks", pages.to_string()),
        ];
        self.cache_config.clear();
        if pages > 0 {
            self.cache_config.get_or_create(&labels).set(1);
        }
    }
}
