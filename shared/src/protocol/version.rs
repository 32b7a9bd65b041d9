//! Who speaks.

/// Raised with every change of a message's bytes.
pub const PROTOCOL: u32 = 5;

/// The build that speaks: package version, for messages to people.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
