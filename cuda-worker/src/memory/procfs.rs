//! Limits that `/proc` tells of. Pure.

use super::{Limit, Scope};

/// What the machine has left: unused memory, and caches that the kernel gives back, those of the model
/// file among them.
pub(super) fn machine(meminfo: &str) -> Option<Limit> {
    Some(Limit {
        name: "the machine's memory (MemAvailable of /proc/meminfo)".into(),
        scope: Scope::Memory,
        free: kib(meminfo, "MemAvailable:")?,
    })
}

/// Where the kernel promises no more than it has.
pub(super) fn commit(overcommit: &str, meminfo: &str) -> Option<Limit> {
    if overcommit.trim() != "2" {
        return None;
    }
    let promised = kib(meminfo, "Committed_AS:")?;
    Some(Limit {
        name: "vm.overcommit_memory=2 (CommitLimit of /proc/meminfo)".into(),
        scope: Scope::Memory,
        free: kib(meminfo, "CommitLimit:")?.saturating_sub(promised),
    })
}

/// This process's own limits, from `/proc/self/limits` and `/proc/self/status`.
pub(super) fn process(limits: &str, status: &str) -> Vec<Limit> {
    let limit = |name: &str, what, scope, used: u64| {
        Some(Limit {
            name: format!("{name} of this process"),
            scope,
            free: soft(limits, what)?.saturating_sub(used),
        })
    };
    let used = |key| kib(status, key).unwrap_or(0);
    [
        limit(
            "the address space (ulimit -v)",
            "Max address space",
            Scope::Addresses,
            used("VmSize:"),
        ),
        limit(
            "the data size (ulimit -d)",
            "Max data size",
            Scope::Private,
            used("VmData:"),
        ),
        limit("the file size (ulimit -f)", "Max file size", Scope::File, 0),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A line `KEY   1234 kB`, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The soft limit in a line `Max address space   SOFT   HARD   bytes`; `None` for "unlimited".
fn soft(limits: &str, what: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(what))?;
    line.split_whitespace().next()?.parse().ok()
}
