//! Metrics that are read and not counted.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::snapshot::{ServiceState, Snapshot};

/// Values copied from the snapshot at scrape time.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    ready: Gauge,
    queued: Gauge,
    running: Gauge,
    vram_used: Gauge,
    vram_total: Gauge,
    generation: Gauge,
    vllm_waiting: Gauge,
    vllm_running: Gauge,
    standby: Gauge,
    cache_usage: Gauge<f64, AtomicU64>,
    vllm_cache_usage: Gauge<f64, AtomicU64>,
}

impl Gauges {
    pub(super) fn register(&self, r: &mut Registry) {
        for (name, help, gauge) in [
            ("orcd_ready", "1 while a worker takes jobs", &self.ready),
            (
                "orcd_jobs_queued",
                "Jobs waiting for a worker slot",
                &self.queued,
            ),
            (
                "orcd_jobs_running",
                "Jobs given to the worker",
                &self.running,
            ),
            (
                "orcd_worker_generation",
                "Number of the present worker, standbys counted",
                &self.generation,
            ),
            (
                "orcd_standby_ready",
                "1 while a standby could take over",
                &self.standby,
            ),
            (
                "vllm:num_requests_waiting",
                "As orcd_jobs_queued",
                &self.vllm_waiting,
            ),
            (
                "vllm:num_requests_running",
                "As orcd_jobs_running",
                &self.vllm_running,
            ),
        ] {
            r.register(name, help, gauge.clone());
        }
        for (name, help, gauge) in [
            (
                "orcd_kv_cache_usage_ratio",
                "Share of KV positions that running jobs have filled",
                &self.cache_usage,
            ),
            (
                "vllm:kv_cache_usage_perc",
                "As orcd_kv_cache_usage_ratio",
                &self.vllm_cache_usage,
            ),
        ] {
            r.register(name, help, gauge.clone());
        }
        let used = "Device memory taken by weights, KV cache and scratch";
        r.register_with_unit("orcd_vram_used", used, Unit::Bytes, self.vram_used.clone());
        r.register_with_unit(
            "orcd_vram_total",
            "Device memory",
            Unit::Bytes,
            self.vram_total.clone(),
        );
    }

    pub(super) fn set_cache_usage(&self, share: f64) {
        self.cache_usage.set(share);
        self.vllm_cache_usage.set(share);
    }

    pub(super) fn set(&self, snapshot: &Snapshot) {
        self.ready
            .set(i64::from(snapshot.state == ServiceState::Ready));
        let standby = snapshot.standby.is_some_and(|standby| standby.ready);
        self.standby.set(i64::from(standby));
        self.queued.set(snapshot.queued.into());
        self.running.set(snapshot.running.into());
        self.vllm_waiting.set(snapshot.queued.into());
        self.vllm_running.set(snapshot.running.into());
        self.generation.set(saturated(snapshot.generation));
        let memory = snapshot
            .worker
            .as_ref()
            .map(|w| (w.memory_used, w.memory_total));
        let (used, total) = memory.unwrap_or_default();
        self.vram_used.set(saturated(used));
        self.vram_total.set(saturated(total));
    }
}

fn saturated(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
