//! What the program that ships does not contain.

use std::fs;

use orcd_tests::paths;

/// What only a worker of tests reads.
const FAILPOINTS: &str = "ORCD_TEST_FAILPOINTS";
/// Messages of two probes of single operations, of which a linker keeps what is called.
const PROBES: [&str; 2] = ["no function ", "a chunk has thrown"];

fn contains(program: &[u8], text: &str) -> bool {
    program
        .windows(text.len())
        .any(|found| found == text.as_bytes())
}

#[test]
fn it_has_no_failpoints_and_no_probes_of_single_operations() {
    let shipped = fs::read(paths::worker()).unwrap();
    assert!(
        contains(&shipped, "--supervisor-pid"),
        "texts can't be found in it"
    );
    for probe in PROBES {
        assert!(include_str!("../../cuda/probe.cc").contains(probe));
        assert!(!contains(&shipped, probe), "{probe:?}");
    }
    let of_tests = fs::read(paths::worker_with_failpoints()).unwrap();
    assert!(contains(&of_tests, FAILPOINTS));
    assert!(!contains(&shipped, FAILPOINTS));
}
