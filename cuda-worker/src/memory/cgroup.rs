//! Limits of the control groups that this process is in: of its own and of every one above it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Limit, Scope};

/// Above this a limit of version 1 means "none".
const NO_LIMIT: u64 = 1 << 62;

/// Which files tell of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A hierarchy, and the place of this process in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    version: Version,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// From there to the process's own group.
    place: PathBuf,
}

/// The hierarchies that may bound memory, from `/proc/self/cgroup` and `/proc/self/mountinfo`. Pure.
pub(super) fn paths(cgroup: &str, mountinfo: &str) -> Vec<Group> {
    let group = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = match controllers {
            "" => Version::Two,
            names if names.split(',').any(|name| name == "memory") => Version::One,
            _ => return None,
        };
        let (root, mount) = mounted(mountinfo, version)?;
        // A container's mount shows a part of the hierarchy. What lies outside of it (`/..`) is
        // not to be seen, and the mount itself is then the nearest group.
        let place = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let place = place.strip_prefix("/").unwrap_or(place);
        let inside = !place.components().any(|part| part.as_os_str() == "..");
        Some(Group {
            version,
            mount: PathBuf::from(mount),
            place: if inside { place.into() } else { PathBuf::new() },
        })
    };
    cgroup.lines().filter_map(group).collect()
}

/// Root and place of the mount of a version's (memory) hierarchy: fields 4 and 5 of a line of
/// mountinfo; after " - " come the type and, at the end, the options with the controllers' names.
fn mounted(mountinfo: &str, version: Version) -> Option<(&str, &str)> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let fits = match version {
            Version::Two => kind.starts_with("cgroup2 "),
            Version::One => {
                let options = kind.strip_prefix("cgroup ")?.split(' ').next_back()?;
                options.split(',').any(|option| option == "memory")
            }
        };
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        fits.then_some((root, place))
    })
}

impl Group {
    /// What this group and those above it leave, with the file system below `root`.
    pub(super) fn limits(&self, root: &Path) -> Vec<Limit> {
        let names: &[&str] = match self.version {
            Version::One => &["memory.limit_in_bytes"],
            Version::Two => &["memory.max", "memory.high"],
        };
        let mount = root.join(self.mount.strip_prefix("/").unwrap_or(&self.mount));
        let mut limits = Vec::new();
        for place in self.place.ancestors() {
            let folder = mount.join(place);
            for name in names {
                let file = folder.join(name);
                let Some(most) = number(&file).filter(|most| *most < NO_LIMIT) else {
                    continue;
                };
                limits.push(Limit {
                    name: format!("the cgroup's {name} ({})", file.display()),
                    scope: Scope::Memory,
                    free: most.saturating_sub(self.used(&folder)),
                });
            }
        }
        limits
    }

    /// Memory that the group would not get back when it needs it: without the caches of files.
    fn used(&self, folder: &Path) -> u64 {
        let (usage, prefix) = match self.version {
            Version::One => ("memory.usage_in_bytes", "total_"),
            Version::Two => ("memory.current", ""),
        };
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let of = |key: &str| {
            let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok();
            stat.lines().find_map(value).unwrap_or(0u64)
        };
        let caches = ["active_file", "inactive_file"].map(|key| of(&format!("{prefix}{key}")));
        let caches = caches.into_iter().fold(0, u64::saturating_add);
        number(&folder.join(usage))
            .unwrap_or(0)
            .saturating_sub(caches)
    }
}

/// The number in a file; `None` for "max", or where there is none.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
