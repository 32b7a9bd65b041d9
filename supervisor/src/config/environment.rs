//! The variables of the flags: an empty one counts as not set, and one that no flag has is reported,
//! since it was most likely meant for a flag.

use std::ffi::OsStr;

use clap::builder::Resettable;
use clap::{Arg, Command};

/// Beginnings of variables that are read by something else: the tests, and the scripts that build,
/// fetch and measure.
const OTHERS: [&str; 9] = [
    "ORCD_TEST_",
    "ORCD_CHAOS_",
    "ORCD_SOAK_",
    "ORCD_PEER_",
    "ORCD_FUZZ_",
    "ORCD_CUDA_ARCHS",
    "ORCD_REFERENCE_URL",
    "ORCD_REQUIRE_GPU",
    "ORCD_RESTARTS",
];
/// How alike two names have to be for one to be taken for a slip of the other, 0..1.
const ALIKE: f64 = 0.8;

/// A variable `ORCD_…` that no setting reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The variable that was probably meant.
    pub similar: Option<String>,
}

/// `command` without the variables that are set to nothing: a unit or a compose file that leaves
/// `ORCD_X=` empty means the default.
pub(super) fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command.mut_args(|arg| match arg.get_env() {
        Some(name) if is_empty(name) => arg.env(Resettable::Reset),
        _ => arg,
    })
}

/// Those of `set` that neither `command` nor anything else knows.
pub(super) fn unknown_variables(
    command: &Command,
    set: impl Iterator<Item = String>,
) -> Vec<UnknownVariable> {
    let known: Vec<&str> = command.get_arguments().filter_map(variable).collect();
    let is_unknown = |name: &String| {
        name.starts_with("ORCD_")
            && !known.contains(&name.as_str())
            && !OTHERS.iter().any(|other| name.starts_with(other))
    };
    set.filter(is_unknown)
        .map(|name| UnknownVariable {
            similar: most_similar(&name, &known),
            name,
        })
        .collect()
}

fn variable(arg: &Arg) -> Option<&str> {
    arg.get_env()?.to_str()
}

fn most_similar(name: &str, known: &[&str]) -> Option<String> {
    // Without the beginning that all of them share.
    let bare = |name: &str| name.trim_start_matches("ORCD_").to_owned();
    let likeness = |other: &str| strsim::jaro(&bare(name), &bare(other));
    let candidates = known.iter().map(|other| (likeness(other), *other));
    let best = candidates.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(likeness, _)| *likeness >= ALIKE)
        .map(|(_, other)| other.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(set: &[&str]) -> Vec<(String, Option<String>)> {
        let command =
            Command::new("x").args(["ORCD_MODEL", "ORCD_PORT", "ORCD_QUEUE"].map(|name| {
                let id: &'static str = name.trim_start_matches("ORCD_");
                Arg::new(id).long(id).env(name)
            }));
        let set = set.iter().map(|&name| name.to_owned());
        unknown_variables(&command, set)
            .into_iter()
            .map(|unknown| (unknown.name, unknown.similar))
            .collect()
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_one_that_was_meant() {
        let pair = |name: &str, similar: Option<&str>| (name.into(), similar.map(Into::into));
        assert_eq!(
            unknown(&["ORCD_MODLE", "ORCD_PRT", "ORCD_COLOR_OF_THE_SEA"]),
            [
                pair("ORCD_MODLE", Some("ORCD_MODEL")),
                pair("ORCD_PRT", Some("ORCD_PORT")),
                pair("ORCD_COLOR_OF_THE_SEA", None),
            ]
        );
    }

    #[test]
    fn what_a_flag_a_test_or_another_program_reads_is_not_reported() {
        let known = [
            "ORCD_PORT",
            "ORCD_TEST_DEVICE",
            "ORCD_CUDA_ARCHS",
            "ORCD_REQUIRE_GPU",
            "PATH",
            "ORCD",
        ];
        assert_eq!(unknown(&known), []);
    }
}
