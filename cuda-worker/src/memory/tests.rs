#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

use super::*;

const MIB: u64 = 1 << 20;

const MEMINFO: &str = "MemTotal:  8000000 kB\nMemFree:   10 kB\nMemAvailable:    4096000 kB\n\
                       CommitLimit:  3000 kB\nCommitted_AS:   2000 kB\n";

/// A machine's files in a folder.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.file("proc/meminfo", MEMINFO)
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Free bytes by the part of the limit's name before the path.
    fn free(&self) -> Vec<(String, u64)> {
        let limits = limits_in(self.0.path());
        let short = |l: Limit| (l.name.split(" (").next().unwrap().to_owned(), l.free);
        limits.into_iter().map(short).collect()
    }
}

fn machine_free() -> (String, u64) {
    ("the machine's memory".into(), 4_096_000 * 1024)
}

#[test]
fn without_limits_the_machines_available_memory_counts() {
    assert_eq!(Machine::new().free(), [machine_free()]);
    assert_eq!(procfs::machine("MemTotal: 1 kB\n"), None);
    let machine = Machine::new().file("proc/sys/vm/overcommit_memory", "0\n");
    assert_eq!(machine.free(), [machine_free()]);
}

#[test]
fn a_kernel_that_promises_no_more_than_it_has_is_a_limit() {
    let machine = Machine::new().file("proc/sys/vm/overcommit_memory", "2\n");
    let commit = ("vm.overcommit_memory=2".into(), 1000 * 1024);
    assert_eq!(machine.free(), [machine_free(), commit]);
}

#[test]
fn limits_of_the_process_leave_what_it_has_not_taken() {
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max file size             unlimited            unlimited            bytes     \n\
                  Max data size             3145728              unlimited            bytes     \n\
                  Max address space         10485760             20971520             bytes     \n";
    let machine = Machine::new().file("proc/self/limits", limits).file(
        "proc/self/status",
        "VmSize:\t    2048 kB\nVmData:\t    4096 kB\n",
    );
    let expected = [
        machine_free(),
        ("the address space".into(), 8 * MIB),
        ("the data size".into(), 0),
    ];
    assert_eq!(machine.free(), expected);
}

#[test]
fn every_group_of_version_2_on_the_way_to_the_root_counts() {
    let group = |machine: Machine, place: &str, max: &str, high: &str, current: &str| {
        let path = |name: &str| format!("sys/fs/cgroup{place}/{name}");
        let stat = "anon 5\nactive_file 1048576\ninactive_file 2097152\nfile 9\n";
        machine
            .file(&path("memory.max"), max)
            .file(&path("memory.high"), high)
            .file(&path("memory.current"), current)
            .file(&path("memory.stat"), stat)
    };
    let machine = Machine::new().file("proc/self/cgroup", "0::/a/b\n").file(
        "proc/self/mountinfo",
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
    );
    let machine = group(machine, "/a", "max\n", "max\n", "100\n");
    assert_eq!(machine.free(), [machine_free()]);
    let machine = group(machine, "/a", "104857600\n", "max\n", "53477376\n");
    let machine = group(machine, "/a/b", "max\n", "209715200\n", "3145728\n");
    let expected = [
        machine_free(),
        ("the cgroup's memory.high".into(), 200 * MIB),
        // 100 MiB, of which 51 are taken, and 3 of those would be given back.
        ("the cgroup's memory.max".into(), 52 * MIB),
    ];
    assert_eq!(machine.free(), expected);
    let limits = limits_in(machine.0.path());
    assert!(limits[2].name.contains("/a/memory.max"), "{limits:?}");
}

#[test]
fn version_1_counts_in_its_memory_hierarchy_alone() {
    let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let machine = Machine::new()
        .file("proc/self/cgroup", "5:devices:/x\n4:memory:/job\n0::/\n")
        .file("proc/self/mountinfo", mounts)
        .file("sys/fs/cgroup/devices/x/memory.limit_in_bytes", "1\n")
        .file(
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        )
        .file(
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes",
            "67108864\n",
        )
        .file(
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes",
            "4194304\n",
        )
        .file(
            "sys/fs/cgroup/memory/job/memory.stat",
            "inactive_file 1\ntotal_inactive_file 1048576\n",
        );
    let job = ("the cgroup's memory.limit_in_bytes".into(), 61 * MIB);
    assert_eq!(machine.free(), [machine_free(), job]);
}

#[test]
fn a_containers_mount_is_the_root_of_what_is_seen() {
    let machine = |cgroup: &str, root: &str| {
        let mount = format!("35 31 0:32 {root} /cg rw - cgroup cgroup rw,cpu,memory\n");
        Machine::new()
            .file("proc/self/cgroup", cgroup)
            .file("proc/self/mountinfo", &mount)
            .file("cg/memory.limit_in_bytes", "1048576\n")
            .file("cg/inner/memory.limit_in_bytes", "2097152\n")
    };
    let limit = |mib: u64| ("the cgroup's memory.limit_in_bytes".to_owned(), mib * MIB);
    let own = machine("4:cpu,memory:/docker/1\n", "/docker/1");
    assert_eq!(own.free(), [machine_free(), limit(1)]);
    let below = machine("4:cpu,memory:/docker/1/inner\n", "/docker/1");
    assert_eq!(below.free(), [machine_free(), limit(2), limit(1)]);
    // In a namespace of its own, seen from outside of it.
    let outside = machine("4:cpu,memory:/../../elsewhere\n", "/");
    assert_eq!(outside.free(), [machine_free(), limit(1)]);
}

#[test]
fn damaged_files_bound_nothing_and_harm_nothing() {
    for text in [
        "",
        "\n",
        ":",
        "::",
        "0::",
        "4:memory:",
        "- - -",
        "\u{1f600}",
    ] {
        let machine = Machine::new()
            .file("proc/self/cgroup", text)
            .file("proc/self/mountinfo", text)
            .file("proc/self/limits", text)
            .file("proc/self/status", text);
        assert_eq!(machine.free(), [machine_free()], "{text:?}");
    }
}

/// Of two engines, each number another one.
const NEED: Need = Need {
    image: 100,
    present: false,
    pool: 40,
    pool_present: false,
    own: 10,
    once: 3,
    engines: 2,
    addresses: 5,
};

#[test]
fn each_limit_counts_what_it_counts() {
    let short = |need: &Need, scope, free| {
        let limit = Limit {
            name: "l".into(),
            scope,
            free,
        };
        shortfall(need, &[limit]).map(|short| short.needed)
    };
    for (scope, needed, present) in [
        (Scope::Memory, 163, 23),
        (Scope::Addresses, 155, 155),
        (Scope::Private, 15, 15),
        (Scope::File, 100, 0),
    ] {
        assert_eq!(short(&NEED, scope, needed), None);
        assert_eq!(short(&NEED, scope, needed - 1), Some(needed));
        let mapped = Need {
            present: true,
            pool_present: true,
            ..NEED
        };
        assert_eq!(short(&mapped, scope, present), None);
        if present > 0 {
            assert_eq!(short(&mapped, scope, present - 1), Some(present));
        }
    }
    let endless = Need {
        own: u64::MAX,
        ..NEED
    };
    assert_eq!(short(&endless, Scope::Memory, 7), Some(u64::MAX));
}

#[test]
fn a_pool_has_what_is_left_below_all_limits() {
    let limit = |scope, free| Limit {
        name: "l".into(),
        scope,
        free,
    };
    let need = Need { pool: 0, ..NEED };
    let left = |limits: &[Limit]| room(&need, limits);
    assert_eq!(left(&[limit(Scope::Memory, 123 + 51)]), 51);
    let addresses = limit(Scope::Addresses, 115 + 20);
    assert_eq!(left(&[limit(Scope::Memory, 174), addresses]), 20);
    assert_eq!(left(&[limit(Scope::Private, 15)]), u64::MAX);
    assert_eq!(left(&[limit(Scope::Memory, 1)]), 0);
    assert_eq!(left(&[limit(Scope::File, 7)]), 7);
    assert_eq!(left(&[]), u64::MAX);
}

#[test]
fn the_limit_that_lacks_most_is_the_one_to_tell() {
    let limit = |name: &str, free| Limit {
        name: name.into(),
        scope: Scope::Memory,
        free,
    };
    let need = Need {
        image: 100,
        present: false,
        pool: 0,
        pool_present: false,
        own: 0,
        once: 0,
        engines: 1,
        addresses: 0,
    };
    let limits = [limit("a", 99), limit("b", 20), limit("c", 500)];
    assert_eq!(shortfall(&need, &limits).unwrap().limit.name, "b");
    assert_eq!(tightest(&limits).unwrap().name, "b");
}

#[test]
fn this_machine_has_memory() {
    assert!(limits().iter().any(|limit| limit.free > 0));
}
