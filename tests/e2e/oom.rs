//! When memory runs out it is the worker that goes, and the stream goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orcd_tests::proc::{Process, wait_until};
use orcd_tests::{Job, Model, Starter, paths, report};

/// Whatever a test waits for is there by then, on any machine.
const SOON: Duration = Duration::from_secs(60);

fn score(process: Process) -> i32 {
    let file = format!("/proc/{}/oom_score_adj", process.pid);
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

#[test]
fn worker_and_standby_go_before_the_supervisor() {
    let service = Starter::new(Model::Tiny).arg("--standby").start();
    service.wait_for_health(SOON, |h| h["standby"] == true);
    let supervisor = score(service.supervisor());
    let workers = service.supervisor().children();
    assert_eq!(workers.len(), 2);
    for worker in workers {
        let worker = score(worker);
        assert!(
            worker >= 500 && worker > supervisor,
            "{worker}, {supervisor}"
        );
    }
}

/// A control group of its own with a limit on memory, of either version. Removed on drop.
struct Group {
    folder: PathBuf,
    limit: &'static str,
}

impl Group {
    /// Beside this process's own group; why there can't be one otherwise.
    fn create() -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let path = |line: &str| line.rsplit(':').next().unwrap_or("/").to_owned();
        let first = own.lines().find(|l| l.contains(":memory:"));
        let (root, path, limit, unlimited) = match first {
            Some(line) => (
                "/sys/fs/cgroup/memory",
                path(line),
                "memory.limit_in_bytes",
                "-1",
            ),
            None => {
                let line = own.lines().find(|l| l.starts_with("0::"));
                let line = line.ok_or("no control group")?;
                ("/sys/fs/cgroup", path(line), "memory.max", "max")
            }
        };
        let parent = Path::new(root).join(path.trim_start_matches('/'));
        // As a container sees it, its own group is the root.
        let parent = [parent, root.into()].into_iter().find(|p| p.is_dir());
        let folder = parent.ok_or(format!("no {root}"))?;
        let folder = folder.join(format!("orcd-oom-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let group = Self { folder, limit };
        // Says whether this controller is there at all.
        group.limit_to(unlimited)?;
        // What is swapped out is not killed; a kernel without swap has none of these.
        for (file, none) in [("memory.swap.max", "0"), ("memory.swappiness", "0")] {
            let _ = fs::write(group.folder.join(file), none);
        }
        Ok(group)
    }

    fn limit_to(&self, bytes: &str) -> Result<(), String> {
        let file = self.folder.join(self.limit);
        fs::write(&file, bytes).map_err(|e| format!("{}: {e}", file.display()))
    }

    /// Bytes in it now.
    fn usage(&self) -> u64 {
        let files = ["memory.usage_in_bytes", "memory.current"];
        let text = files
            .iter()
            .find_map(|name| fs::read_to_string(self.folder.join(name)).ok());
        text.unwrap().trim().parse().unwrap()
    }

    fn add(&self, process: Process) -> Result<(), String> {
        let file = self.folder.join("cgroup.procs");
        let pid = process.pid.to_string();
        fs::write(&file, pid).map_err(|e| format!("{}: {e}", file.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Empty only when the processes are reaped.
        wait_until(SOON, || fs::remove_dir(&self.folder).is_ok());
    }
}

#[test]
fn worker_that_the_kernel_kills_for_its_memory_changes_no_byte() {
    if paths::device() != "cpu" {
        return report::skipped("the limit is on the machine's memory, not on the device's");
    }
    let group = match Group::create() {
        Ok(group) => group,
        Err(why) => return report::skipped(&format!("no control group for a test: {why}")),
    };
    let service = Starter::new(Model::Slow)
        .failpoints()
        .without_hang_timeout()
        .start();
    let job = [Job::lasting("a", 60)];
    let undisturbed = service.run_together(&job);
    let supervisor = service.supervisor();
    if let Err(why) = group.add(supervisor) {
        return report::skipped(&format!(
            "no process can be put into the control group: {why}"
        ));
    }
    // The next worker is born in the group.
    service.kill_worker();
    service.wait_for_health(SOON, |h| {
        h["status"] == "healthy" && h["worker"]["restarts"] == 1
    });
    // With room for the next worker too, whose load is refused where its memory is not there: what this one is charged
    // for says little of that, as its pages may count for whoever had them first.
    let limit = group.usage() + (160 << 20);
    group.limit_to(&limit.to_string()).unwrap();
    let stream = service.execute_and_trigger(&job, "eat", 10).remove(0);
    let found = stream.finish();
    assert_eq!(found.token_bytes(), undisturbed[0].token_bytes());
    assert_eq!(found.end().replays, 1, "the kernel took nobody");
    let killed = |h: &serde_json::Value| {
        let exit = h["worker"]["last_exit"].as_str();
        exit.is_some_and(|exit| exit.contains("SIGKILL")) && h["worker"]["restarts"] == 2
    };
    service.wait_for_health(SOON, killed);
    assert!(supervisor.is_alive());
    drop(service);
}
