//! Exit codes, one per way to end, of both processes.

/// Exit codes of the supervisor, as `CONTRACT` promises them to systemd and orchestrators.
pub mod supervisor {
    /// A clean stop.
    pub const OK: u8 = 0;
    /// Model, memory, device or callback: the service never became ready.
    pub const STARTUP_FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// The worker could not be kept alive.
    pub const WORKER_LOST: u8 = 3;
}

/// Exit codes of the worker, read by the supervisor only.
pub mod worker {
    /// Told to stop, or the supervisor is gone.
    pub const OK: u8 = 0;
    /// The command line is wrong: not started by a supervisor.
    pub const USAGE: u8 = 2;
    /// Supervisor and worker speak different protocols.
    pub const PROTOCOL: u8 = 10;
    /// Loading failed; the reason was sent before.
    pub const LOAD_FAILED: u8 = 11;
    /// The device or its context is lost; a new process may work.
    pub const DEVICE_LOST: u8 = 12;
    /// A bug: a broken precondition or a panic on the engine thread.
    pub const INTERNAL: u8 = 13;
    /// A constraint was tried and can't be used; why is on standard output.
    pub const REFUSED: u8 = 14;
}
