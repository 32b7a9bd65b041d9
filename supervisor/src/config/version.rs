//! What `--version` says.

use std::sync::LazyLock;

use orcd_shared::protocol::version::PROTOCOL;

use super::HAS_CUDA;

/// The git revision that this was built from.
pub const REVISION: &str = env!("ORCD_REVISION");

/// Version, git revision, protocol version and devices, a line each.
#[must_use]
pub fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{}\nrevision: {REVISION}\nprotocol: {PROTOCOL}\ndevices: {}",
            env!("CARGO_PKG_VERSION"),
            if HAS_CUDA { "cpu, cuda" } else { "cpu" },
        )
    });
    &TEXT
}
