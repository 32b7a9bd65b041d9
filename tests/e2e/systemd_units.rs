//! The unit files, as systemd's own tool judges them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use orcd_tests::{paths, report};

/// Most exposure that `systemd-analyze security` may find, in tenths of its figure. What is left is
/// what serving on a GPU needs: the network, devices, and code made at run time.
const THRESHOLD: &str = "20";
/// `--offline` came with it.
const OLDEST: u32 = 250;

fn analyze(args: &[&str], unit: &Path) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(args).arg(unit).env("SYSTEMD_COLORS", "0");
    command.output().unwrap()
}

/// Why the tool can't be used here.
fn missing() -> Option<String> {
    let units = paths::units();
    if !units.is_dir() {
        return Some(format!("{} is not here", units.display()));
    }
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        return Some("systemd-analyze is not installed".into());
    };
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    let number = text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    match number {
        Some(OLDEST..) => None,
        _ => Some(format!("systemd-analyze is too old: {text:?}")),
    }
}

/// The units with a program that is there, the template with an instance.
fn units() -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for entry in fs::read_dir(paths::units()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let program = "ExecStart=/usr/local/bin/worker-orcd";
        let is_service = name.ends_with(".service");
        assert_eq!(
            text.matches(program).count(),
            usize::from(is_service),
            "{name}"
        );
        let there = format!("ExecStart={}", paths::supervisor().display());
        fs::write(folder.path().join(name), text.replace(program, &there)).unwrap();
        paths.push(folder.path().join(name.replace("@.", "@0.")));
    }
    assert_eq!(paths.len(), 3);
    (folder, paths)
}

#[test]
fn units_are_sound() {
    if let Some(why) = missing() {
        return report::skipped(&why);
    }
    let (_folder, units) = units();
    for unit in &units {
        let output = analyze(&["verify", "--man=no"], unit);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{unit:?}: {complaints}");
        // An unknown or misspelt key is only a warning.
        assert_eq!(complaints, "", "{unit:?}");
    }
}

#[test]
fn services_expose_no_more_than_they_need() {
    if let Some(why) = missing() {
        return report::skipped(&why);
    }
    let (folder, _units) = units();
    for service in ["worker-orcd.service", "worker-orcd@.service"] {
        let threshold = format!("--threshold={THRESHOLD}");
        let args = ["security", "--no-pager", "--offline=true", &threshold];
        let output = analyze(&args, &folder.path().join(service));
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{service}: {table}");
        let verdict = table.lines().last().unwrap_or_default();
        report::figure(verdict.trim());
    }
}

/// Value of `key` in a unit; of the last line, if it is there several times.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut values = text.lines().filter_map(|line| line.split_once('='));
    values.rfind(|(k, _)| *k == key).map(|(_, v)| v)
}

#[test]
fn services_wait_for_what_may_come_and_have_a_place_for_what_they_leave() {
    if !paths::units().is_dir() {
        return report::skipped("the unit files are not here");
    }
    let help = Command::new(paths::supervisor()).arg("--help").output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    for service in ["worker-orcd.service", "worker-orcd@.service"] {
        let text = fs::read_to_string(paths::units().join(service)).unwrap();
        let value = |key| value(&text, key).unwrap_or_else(|| panic!("{service} has no {key}"));
        let seconds = |key| value(key).parse::<u32>().unwrap();
        // The worker's end is not the service's.
        assert_eq!(value("OOMPolicy"), "continue", "{service}");
        // Memory that another process holds, a callback's receiver that is not up: minutes.
        let tries_for = seconds("RestartSec") * seconds("StartLimitBurst");
        assert!(tries_for >= 600, "{service} gives up after {tries_for} s");
        // Else the limit would never be reached, and a wrong model be tried for ever.
        assert!(seconds("StartLimitIntervalSec") > tries_for, "{service}");
        let variables = text.lines().filter_map(|l| l.strip_prefix("Environment="));
        let variables: Vec<_> = variables.filter_map(|v| v.split_once('=')).collect();
        for (name, _) in variables.iter().filter(|(n, _)| n.starts_with("ORCD_")) {
            assert!(
                help.contains(&format!("{name}=")),
                "{service}: {name} sets nothing"
            );
        }
        for (variable, root, directory) in [
            ("ORCD_RUNTIME_DIR", "%t/", "RuntimeDirectory"),
            ("ORCD_CRASH_DIR", "%S/", "StateDirectory"),
            ("CUDA_CACHE_PATH", "%C/", "CacheDirectory"),
        ] {
            let path = variables.iter().find(|(name, _)| *name == variable);
            let path = path
                .unwrap_or_else(|| panic!("{service} sets no {variable}"))
                .1;
            let own = format!("{root}{}", value(directory));
            assert!(
                path.starts_with(&own),
                "{service}: {path} is not in {directory}"
            );
        }
    }
}
