//! Limits of memory that are not the machine's: each is found before anything is taken, named, and
//! leaves no process that ends without a word.

use std::path::PathBuf;

use orcd_shared::error::ErrorCode;
use orcd_shared::exit::worker::LOAD_FAILED;
use orcd_shared::protocol::message::{KvSize, LoadRequest, ToSupervisor, ToWorker};

use crate::model;
use crate::supervisor::{Worker, job, load};

/// An engine of the tiny model with a KV pool of a gigabyte.
fn large() -> LoadRequest {
    LoadRequest {
        kv: Some(KvSize::Bytes(1 << 30)),
        parallel: Some(512),
        ..load(&model::tiny())
    }
}

/// What a worker says to `request` under `limit`: `Err` with its reason, or `Ok` once it has done a
/// job.
fn outcome(limit: &str, request: LoadRequest) -> Result<(), (ErrorCode, String)> {
    let mut worker = Worker::greeted_under(limit);
    worker.send(&ToWorker::Load(Box::new(request)));
    loop {
        match worker.receive() {
            Some(ToSupervisor::LoadProgress { .. }) => {}
            Some(ToSupervisor::Ready(_)) => break,
            Some(ToSupervisor::LoadFailed { code, message }) => {
                assert_eq!(worker.exit(), i32::from(LOAD_FAILED));
                return Err((code, message));
            }
            other => panic!("under {limit}: {other:?}, and then {}", worker.exit()),
        }
    }
    let ended = worker.run(&[job(1, 20, 10)]);
    assert_eq!(ended.len(), 1);
    Ok(())
}

/// The refusal names the limit, the model, and two sizes of which the first is larger.
#[track_caller]
fn assert_refused(limit: &str, name: &str, request: LoadRequest) {
    let path = request.model_path.clone();
    let (code, message) = outcome(limit, request).expect_err(limit);
    assert_eq!(code, ErrorCode::InsufficientMemory, "{message}");
    for part in [name, &path, "MiB free on cpu"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    let sizes = message.rsplit_once('(').unwrap().1;
    let numbers: Vec<u64> = sizes
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    assert!(numbers[0] > numbers[1], "{message}");
}

#[test]
fn too_few_addresses_are_named() {
    assert_refused("ulimit -v 900000", "ulimit -v", large());
}

/// The pool is nobody's private memory, but there are stacks.
#[test]
fn too_little_private_memory_is_named() {
    assert_refused("ulimit -d 100000", "ulimit -d", large());
}

/// The image is a file to the kernel: beyond that limit it would send a signal.
#[test]
fn too_short_files_are_named() {
    assert_refused("ulimit -f 100", "ulimit -f", load(&model::tiny()));
}

#[test]
fn a_limit_that_leaves_enough_changes_nothing() {
    let enough = "ulimit -v 4000000; ulimit -d 4000000; ulimit -f 1000000";
    outcome(enough, load(&model::tiny())).unwrap();
}

/// From where the process starts at all to where it serves: an answer under each limit.
#[test]
fn under_no_limit_of_addresses_does_it_end_without_a_word() {
    let mut served = 0;
    for mib in [120, 160, 200, 240, 280, 320, 400, 600, 1000] {
        let limit = format!("ulimit -v {}", mib * 1024);
        match outcome(&limit, load(&model::tiny())) {
            Ok(()) => served += 1,
            Err((code, message)) => {
                assert_eq!(code, ErrorCode::InsufficientMemory, "{message}");
                assert!(message.contains("ulimit -v"), "{message}");
            }
        }
    }
    assert!(served > 0, "not even a gigabyte is enough");
}

/// A memory control group of this test's own, below this process's; gone when dropped.
struct Group(PathBuf);

impl Group {
    /// `Err` with the reason where none can be made.
    fn limited_to(bytes: u64) -> Result<Self, String> {
        let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let of = |prefix: &str| {
            let place = |line: &str| Some(line.split_once(prefix)?.1.to_owned());
            own.lines().find_map(place)
        };
        let candidates = [
            (
                ":memory:/",
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
            ),
            ("0::/", "/sys/fs/cgroup", "memory.max"),
        ];
        let mut reason = "no memory control group".to_owned();
        for (prefix, mount, file) in candidates {
            let Some(place) = of(prefix) else { continue };
            let name = format!("orcd-test-{}", std::process::id());
            let group = Self(PathBuf::from(mount).join(place).join(name));
            let made = std::fs::create_dir(&group.0)
                .and_then(|()| std::fs::write(group.0.join(file), bytes.to_string()));
            match made {
                Ok(()) => return Ok(group),
                Err(error) => reason = format!("{}: {error}", group.0.display()),
            }
        }
        Err(reason)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets it go once its last process is gone.
        for _ in 0..200 {
            match std::fs::remove_dir(&self.0) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                _ => return,
            }
        }
    }
}

/// In a container this is what counts: beyond it the kernel kills.
#[test]
fn a_control_groups_limit_is_named() {
    let group = match Group::limited_to(200 << 20) {
        Ok(group) => group,
        Err(reason) => return eprintln!("SKIPPED: no control group can be made: {reason}"),
    };
    let enter = format!("echo $$ > {}/cgroup.procs", group.0.display());
    assert_refused(&enter, "the cgroup's memory.", large());
    // What fits is served there.
    outcome(&enter, load(&model::tiny())).unwrap();
}
