//! The end of the process.

/// Ends the process at once, without destructors or exit handlers: the engine thread may be in the
/// middle of a step, and tearing a device context down beneath it could wait for the step or crash.
/// The kernel and the driver free everything.
pub(crate) fn exit_now(code: u8) -> ! {
    signal_hook::low_level::exit(i32::from(code))
}
