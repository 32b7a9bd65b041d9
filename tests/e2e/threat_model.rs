//! docs/SECURITY.md names tests that there are, and bounds for every route.

use std::collections::BTreeSet;

use orcd_tests::{Model, Starter, paths, report};
use regex::Regex;

fn threat_model() -> Option<String> {
    let path = paths::repository().join("docs/SECURITY.md");
    if !path.is_file() {
        report::skipped(&format!("{} is not here", path.display()));
        return None;
    }
    Some(std::fs::read_to_string(path).unwrap())
}

#[test]
fn each_threat_has_a_test_that_there_is() {
    let Some(text) = threat_model() else {
        return;
    };
    let (_, threats) = text.split_once("\n## Threats\n").unwrap();
    let (threats, _) = threats.split_once("\n## Bounds of every route\n").unwrap();
    let named = Regex::new(r"`([\w./]+)::(\w+)`").unwrap();
    let mut rows = 0;
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| threat ");
    for row in threats.lines().filter(is_row) {
        rows += 1;
        let mut tests = named.captures_iter(row).peekable();
        assert!(tests.peek().is_some(), "no test is named in {row}");
        for test in tests {
            let (file, name) = (&test[1], &test[2]);
            let source = std::fs::read_to_string(paths::repository().join(file));
            let source = source.unwrap_or_else(|error| panic!("{file}: {error}"));
            // In Rust with the attribute that makes it a test; in Python it is one of a list.
            let form = match file.ends_with(".py") {
                true => format!(r"(?m)^def {name}\("),
                false => format!(
                    r"#\[(?:tokio::)?test[^\n]*\]\n(?:\s*#\[[^\n]*\n)*\s*(?:async )?fn {name}\("
                ),
            };
            assert!(
                Regex::new(&form).unwrap().is_match(&source),
                "{file} has no test {name}"
            );
        }
    }
    assert!(rows > 25, "{rows} rows");
}

#[test]
fn every_route_has_its_bounds_and_no_other_stands_there() {
    let Some(text) = threat_model() else {
        return;
    };
    let (_, bounds) = text.split_once("\n## Bounds of every route\n").unwrap();
    let row = Regex::new(r"(?m)^\| `([A-Z]+ /\S*)` \| [^|]+ \| [^|]+ \| [^|]+ \|$").unwrap();
    let stated: BTreeSet<_> = row
        .captures_iter(bounds)
        .map(|row| row[1].to_owned())
        .collect();
    // With what only a demo has.
    let service = Starter::new(Model::Tiny).arg("--demo").start();
    let answer = service.get("/nowhere").json();
    let message = answer["error"]["message"].as_str().unwrap();
    let (_, list) = message.split_once("there are ").unwrap();
    let routes: BTreeSet<_> = list.split(", ").map(str::to_owned).collect();
    assert_eq!(stated, routes);
}
