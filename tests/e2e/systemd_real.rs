//! The shipped units under a real systemd: as much of them as a user's instance can do, which is
//! everything but the hardening that needs the system's.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use orcd_tests::http::Connection;
use orcd_tests::proc::wait_until;
use orcd_tests::real_systemd::RealSystemd;
use orcd_tests::{Model, paths, report};
use serde_json::Value;

const SERVICE: &str = "worker-orcd.service";
const SOCKET: &str = "worker-orcd.socket";
/// More than a busy machine needs.
const SOON: Duration = Duration::from_secs(60);
/// Keys of the service that only the system's instance can do, or that the test sets.
const LEFT_OUT: [&str; 24] = [
    "EnvironmentFile",
    "Environment",
    "ExecStart",
    "WatchdogSec",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "DynamicUser",
    "DevicePolicy",
    "DeviceAllow",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "KeyringMode",
    "WantedBy",
    "After",
];

/// Writes the units into `systemd` with a small model; gives the address that they listen on.
fn install(systemd: &RealSystemd) -> SocketAddr {
    let shipped = |name| fs::read_to_string(paths::units().join(name)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    let socket = shipped(SOCKET);
    let listen = "ListenStream=127.0.0.1:8080";
    assert!(socket.contains(listen));
    let socket = socket.replace(listen, &format!("ListenStream={address}"));
    fs::write(systemd.units().join(SOCKET), socket).unwrap();
    let is_kept = |line: &&str| {
        let key = line.split_once('=').map(|(key, _)| key);
        key.is_none_or(|key| !LEFT_OUT.contains(&key))
    };
    let service = shipped(SERVICE);
    let kept: Vec<_> = service.lines().filter(is_kept).collect();
    let ours = format!(
        "[Service]\nExecStart={} --device cpu --threads 2 --model {} --runtime-dir {} \
         --worker-bin {}\nWatchdogSec=6\n",
        paths::supervisor().display(),
        Model::Tiny.file(systemd.folder()).display(),
        systemd.folder().display(),
        paths::worker().display(),
    );
    let text = kept.join("\n").replace("[Service]\n", &ours);
    fs::write(systemd.units().join(SERVICE), text).unwrap();
    systemd.ask(&["daemon-reload"]);
    address
}

/// Waits until the main process is another one and a worker is ready; gives the health report.
#[track_caller]
fn wait_for_another(systemd: &RealSystemd, address: SocketAddr, before: &str) -> Value {
    let mut health = Value::Null;
    let is_back = || {
        if systemd.show(SERVICE, "MainPID") == before || systemd.show(SERVICE, "MainPID") == "0" {
            return false;
        }
        health = Connection::open(address)
            .request("GET", "/health", &[], b"")
            .json();
        health["status"] == "healthy"
    };
    let back = wait_until(SOON, is_back);
    assert!(back, "{health:#}\n{}", systemd.log());
    health
}

#[test]
fn service_is_kept_alive_and_its_weights_in_memory() {
    if paths::device() != "cpu" {
        return report::skipped("the test is about systemd, and runs on the CPU backend");
    }
    let systemd = match RealSystemd::start() {
        Ok(systemd) => systemd,
        Err(why) => return report::skipped(&why),
    };
    let address = install(&systemd);
    let pid = || systemd.show(SERVICE, "MainPID");
    systemd.ask(&["start", SOCKET, SERVICE]);
    let status = systemd.show(SERVICE, "StatusText");
    assert_eq!(status, "Ready: serving tiny-qwen2.gguf");
    let health = wait_for_another(&systemd, address, "");
    assert_eq!(health["load_source"], "file");
    let stored = || systemd.show(SERVICE, "NFileDescriptorStore");
    assert!(wait_until(SOON, || stored() == "5"), "{}", stored());

    let ways: [(&str, &[&str]); 3] = [
        (
            "killed",
            &["kill", "--signal=KILL", "--kill-who=main", SERVICE],
        ),
        ("restarted", &["restart", SERVICE]),
        // The watchdog sees it.
        (
            "stopped",
            &["kill", "--signal=STOP", "--kill-who=main", SERVICE],
        ),
    ];
    for (way, args) in ways {
        let before = pid();
        systemd.ask(args);
        let health = wait_for_another(&systemd, address, &before);
        assert_eq!(health["load_source"], "handle", "{way}");
        assert_eq!(stored(), "5", "{way}");
    }
    systemd.ask(&["stop", SOCKET, SERVICE]);
    let end = |property| systemd.show(SERVICE, property);
    assert_eq!(
        (end("ActiveState").as_str(), end("Result").as_str()),
        ("inactive", "success")
    );
    assert_eq!(stored(), "0", "a service stopped for good keeps no memory");
}
