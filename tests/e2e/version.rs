//! `GET /version` says what `--version` says, and what `/health` does.

use std::process::Command;

use orcd_tests::{Model, WorkerHarness, paths};

#[test]
fn the_version_is_the_programs() {
    let service = WorkerHarness::start(Model::Tiny);
    let reply = service.get("/version");
    assert_eq!(reply.status(), 200);
    let said = reply.json();
    assert_eq!(said["version"], service.get("/health").json()["version"]);
    assert_eq!(said.as_object().unwrap().len(), 1, "{said}");
    let output = Command::new(paths::supervisor())
        .arg("--version")
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains(said["version"].as_str().unwrap()),
        "{printed}"
    );
}
