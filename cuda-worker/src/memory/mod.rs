//! How much memory this process may still take, and what says so.
//!
//! What the kernel tells of the machine is not enough: in a container the cgroup's limit comes first,
//! and beyond it a process is killed without a word. `ulimit -v` and `-d` make allocations fail in
//! places where nobody can answer. So every limit is looked at before anything is taken.

mod cgroup;
mod procfs;

use std::fs;
use std::path::Path;

/// What an engine needs, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The weights image, which all engines share.
    pub image: u64,
    /// The image is in memory already.
    pub present: bool,
    /// The KV pool, which they share too.
    pub pool: u64,
    /// That is there already.
    pub pool_present: bool,
    /// Everything else of one engine.
    pub own: u64,
    /// Taken once beside that, whether or not the image is there.
    pub once: u64,
    /// Engines that are to fit, each in a process of its own.
    pub engines: u64,
    /// Stacks of one process, and its allocator's room, which take addresses but hardly memory.
    pub addresses: u64,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Memory of all processes together.
    Memory,
    /// Addresses of this process, its mappings of image and pool included.
    Addresses,
    /// Private memory of this process.
    Private,
    /// The length of a file; image and pool are one each.
    File,
}

/// Something that bounds the memory that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// For people: "the cgroup's memory.max (/sys/fs/cgroup/…/memory.max)".
    pub name: String,
    /// What it counts.
    pub scope: Scope,
    /// What is left below it, bytes.
    pub free: u64,
}

/// A limit that an engine does not fit below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The limit.
    pub limit: Limit,
    /// What the limit would have to leave, bytes.
    pub needed: u64,
}

impl Need {
    /// Memory that all engines together take beyond what is there already, bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.below(Scope::Memory)
    }

    fn below(&self, scope: Scope) -> u64 {
        let image = if self.present { 0 } else { self.image };
        let pool = if self.pool_present { 0 } else { self.pool };
        let sum = |parts: [u64; 4]| parts.into_iter().fold(0, u64::saturating_add);
        match scope {
            Scope::Memory => sum([
                self.own.saturating_mul(self.engines),
                image,
                pool,
                self.once,
            ]),
            Scope::Addresses => sum([self.own, self.image, self.pool, self.addresses]),
            Scope::Private => self.own.saturating_add(self.addresses),
            Scope::File => image.max(pool),
        }
    }
}

/// The limit that lacks most, if any lacks something.
#[must_use]
pub fn shortfall(need: &Need, limits: &[Limit]) -> Option<Shortfall> {
    let short = limits.iter().filter_map(|limit| {
        let needed = need.below(limit.scope);
        (needed > limit.free).then(|| Shortfall {
            limit: limit.clone(),
            needed,
        })
    });
    short.max_by_key(|short| short.needed - short.limit.free)
}

/// Bytes that a pool may have beyond what `need` says, below every limit; 0 where not even that fits.
#[must_use]
pub fn room(need: &Need, limits: &[Limit]) -> u64 {
    let left = limits.iter().map(|limit| {
        let left = limit.free.saturating_sub(need.below(limit.scope));
        match limit.scope {
            Scope::Memory | Scope::Addresses => left,
            // It is shared.
            Scope::Private => u64::MAX,
            // It is a file of its own.
            Scope::File => limit.free,
        }
    });
    left.min().unwrap_or(u64::MAX)
}

/// The limit that leaves least, of those that count memory.
#[must_use]
pub fn tightest(limits: &[Limit]) -> Option<&Limit> {
    limits
        .iter()
        .filter(|limit| limit.scope != Scope::File)
        .min_by_key(|limit| limit.free)
}

/// Every limit that this process is under now. What can't be read bounds nothing.
#[must_use]
pub fn limits() -> Vec<Limit> {
    limits_in(Path::new("/"))
}

/// The same with `/proc` and the cgroups' mounts below `root`.
fn limits_in(root: &Path) -> Vec<Limit> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut limits: Vec<Limit> = Vec::new();
    limits.extend(procfs::machine(&read("proc/meminfo")));
    limits.extend(procfs::commit(
        &read("proc/sys/vm/overcommit_memory"),
        &read("proc/meminfo"),
    ));
    limits.extend(procfs::process(
        &read("proc/self/limits"),
        &read("proc/self/status"),
    ));
    let groups = cgroup::paths(&read("proc/self/cgroup"), &read("proc/self/mountinfo"));
    limits.extend(groups.iter().flat_map(|group| group.limits(root)));
    limits
}

#[cfg(test)]
mod tests;
