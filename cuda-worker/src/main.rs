//! The worker process. See the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    cuda_worker::program::run()
}
