//! Where things are at run time. The suite also runs from an archive on a machine without the
//! sources, so the environment comes first and the build's own paths last.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The supervisor's binary.
pub fn supervisor() -> PathBuf {
    binary("worker-orcd")
}

/// The worker's binary.
pub fn worker() -> PathBuf {
    binary("cuda-worker")
}

/// The worker's binary with failpoints: an example, so that no build for use contains it.
pub fn worker_with_failpoints() -> PathBuf {
    binary("cuda-worker-failpoints")
}

/// The device under test, `cpu` or `cuda:N`.
pub fn device() -> String {
    env::var("ORCD_TEST_DEVICE").unwrap_or_else(|_| "cpu".into())
}

/// The folder of the models that ship.
pub fn models() -> PathBuf {
    env::var_os("ORCD_TEST_MODEL_DIR").map_or_else(|| repository().join("models"), PathBuf::from)
}

/// The unit files of systemd.
pub fn units() -> PathBuf {
    repository().join("tools/systemd")
}

/// The folder of the real models that `make real-models` fetches.
pub fn real_models() -> PathBuf {
    env::var_os("ORCD_TEST_REAL_MODEL_DIR")
        .map_or_else(|| repository().join(".test-models"), PathBuf::from)
}

/// Why nothing can be built here; `None` if it can.
pub fn cargo_missing() -> Option<String> {
    let asked = Command::new("cargo").arg("--version").output();
    asked.err().map(|error| format!("cargo: {error}"))
}

/// The nearest folder above the test's executable, or above the working directory, that has
/// `models/`; else where the sources were at build time.
pub fn repository() -> PathBuf {
    let from = [env::current_exe().ok(), env::current_dir().ok()];
    let above = from.iter().flatten().flat_map(|path| path.ancestors());
    let found = above
        .into_iter()
        .find(|dir| dir.join("Cargo.toml").is_file() && dir.join("models").is_dir());
    found.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
        Path::to_path_buf,
    )
}

fn binary(name: &str) -> PathBuf {
    let folders = binary_folders();
    let tried = folders
        .iter()
        .flat_map(|dir| [dir.join(name), dir.join("examples").join(name)]);
    let tried: Vec<PathBuf> = tried.collect();
    tried
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .unwrap_or_else(|| {
            panic!("no {name}: make unit builds it (looked for it at {tried:?})");
        })
}

fn binary_folders() -> Vec<PathBuf> {
    if let Some(dir) = env::var_os("ORCD_TEST_BIN_DIR") {
        return vec![dir.into()];
    }
    let executable = env::current_exe().ok();
    let above = executable.iter().flat_map(|path| path.ancestors());
    // target/release/deps/e2e-HASH: the folder above `deps`, when it is that of the right profile.
    let beside = above.filter(|dir| dir.file_name().is_some_and(|n| n == "release"));
    let target = env::var_os("CARGO_TARGET_DIR").map(|dir| Path::new(&dir).join("release"));
    let default = repository().join("target/release");
    target
        .into_iter()
        .chain(beside.map(Path::to_path_buf))
        .chain([default])
        .collect()
}
