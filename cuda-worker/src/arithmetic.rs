//! What decides the bits of tokens beside model and request, by name: replicas that say the same draw the same tokens, so
//! that one goes on with what another began. The backend is no part of it.

/// Of `docs/ARITHMETIC.md`. Raised with every change of a bit of a logit, a logprob or a draw; a test in `tests/references.rs` holds
/// what this version computes.
const VERSION: u32 = 1;

/// What KV pages hold: integers of 12 bits for keys, of 8 bits for values.
const KV: &str = "k12v8";

/// What [`crate::constraint`] makes of a constraint, beside the libraries: its bounds, and how texts become grammars. Raised
/// with every change of a mask.
const CONSTRAINTS: u32 = 1;

/// The libraries that compute masks, as `Cargo.lock` has them.
const LIBRARIES: [(&str, &str); 4] = [
    ("llguidance", "1.9.1"),
    ("toktrie", "1.9.1"),
    ("derivre", "0.3.13"),
    ("regex-syntax", "0.8.12"),
];

/// All of it in a line, for [`WorkerInfo::arithmetic`](orcd_shared::protocol::message::WorkerInfo::arithmetic).
#[must_use]
pub fn name() -> String {
    let libraries = LIBRARIES.map(|(name, version)| format!(" {name}-{version}"));
    format!(
        "arithmetic-{VERSION} {KV} constraints-{CONSTRAINTS}{}",
        libraries.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_those_that_are_built() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
        let lock = std::fs::read_to_string(lock).unwrap();
        for (name, version) in LIBRARIES {
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(
                lock.contains(&entry),
                "Cargo.lock has another {name} than {version}: put its version here, for its masks may differ"
            );
        }
    }
}
