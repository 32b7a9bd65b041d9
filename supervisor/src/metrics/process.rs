//! The metrics of this process that all Prometheus clients have, read at each scrape.

use std::fs;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads what the system knows of this process; what it doesn't tell is left out.
#[derive(Debug)]
pub(super) struct Process {
    /// Seconds since the epoch.
    started: f64,
}

impl Process {
    /// Of a process that starts now.
    pub(super) fn starting_now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            started: since.map_or(0.0, |since| since.as_secs_f64()),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut show = |name, help, unit: Option<&Unit>, metric: &dyn EncodeMetric| {
            let metric_encoder =
                encoder.encode_descriptor(name, help, unit, metric.metric_type())?;
            metric.encode(metric_encoder)
        };
        let seconds = Some(&Unit::Seconds);
        let bytes = Some(&Unit::Bytes);
        let started = ConstGauge::new(self.started);
        show(
            "process_start_time",
            "Start since the epoch",
            seconds,
            &started,
        )?;
        if let Some(spent) = cpu_time() {
            let spent = ConstCounter::new(spent.as_secs_f64());
            show("process_cpu", "CPU time, user and system", seconds, &spent)?;
        }
        if let Some(resident) = resident_bytes() {
            let resident = ConstGauge::new(resident);
            show(
                "process_resident_memory",
                "Resident memory",
                bytes,
                &resident,
            )?;
        }
        if let Some(open) = open_descriptors() {
            let open = ConstGauge::new(open);
            show("process_open_fds", "Open descriptors", None, &open)?;
        }
        if let Ok((most, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let most = ConstGauge::new(saturated(most));
            show(
                "process_max_fds",
                "Most descriptors that may be open",
                None,
                &most,
            )?;
        }
        Ok(())
    }
}

fn cpu_time() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    Some(duration(usage.user_time()) + duration(usage.system_time()))
}

fn duration(time: TimeVal) -> Duration {
    let micros = time.tv_sec().saturating_mul(1_000_000) + time.tv_usec();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(saturated(kib.saturating_mul(1024)))
}

fn open_descriptors() -> Option<i64> {
    // One of them is what the listing itself needs.
    let listed = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(saturated(listed.saturating_sub(1) as u64))
}

fn saturated(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_knows_of_this_process_is_found() {
        let before = cpu_time().unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident_bytes().unwrap() > 64 << 20);
        drop(block);
        while cpu_time().unwrap() < before + Duration::from_millis(1) {}
        // Other tests open and close files: many of our own stand out.
        let files: Vec<_> = (0..50).map(|_| tempfile::tempfile().unwrap()).collect();
        assert!(open_descriptors().unwrap() > files.len() as i64);
    }
}
