//! The worker's program: whether it is the one that belongs to this, and what it says of device and memory.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use orcd_shared::exit::worker as exit;
use orcd_shared::protocol::frame;
use orcd_shared::protocol::version::PROTOCOL;

use super::{Report, Verdict};
use crate::config::Config;
use crate::run::load_request;
use crate::worker::process::{WorkerExit, worker_binary};
use crate::worker::question::ask;

/// How long it may take to say what it is.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to open a device: a driver that was not used for a while takes seconds.
const DEVICE_LIMIT: Duration = Duration::from_secs(60);

/// Whether the program is there and speaks this protocol.
pub(super) async fn check(config: &Config, report: &mut Report) -> bool {
    let program = worker_binary(config.worker_bin.as_deref());
    let said = answer(&program, "--version", &[], VERSION_LIMIT).await;
    let verdict = said.and_then(|(_, said)| belongs(&said, config.device.backend()));
    let verdict = match verdict {
        Ok(()) => Verdict::Fine(format!("{} belongs to this program", program.display())),
        Err(why) => Verdict::failed_start(format!(
            "WORKER_UNAVAILABLE: {} {why}; both programs of one build belong in one folder, or give --worker-bin",
            program.display()
        )),
    };
    let is_fine = matches!(verdict, Verdict::Fine(_));
    report.add("worker", verdict);
    is_fine
}

/// Whether a program that says this of itself can be this one's worker.
fn belongs(said: &str, backend: &str) -> Result<(), String> {
    let field = |name| said.lines().find_map(|line| line.strip_prefix(name));
    if !said.starts_with("cuda-worker ") {
        return Err("is another program".to_owned());
    }
    let protocol = field("protocol ").unwrap_or("none");
    if protocol != PROTOCOL.to_string() {
        return Err(format!("speaks protocol {protocol}, not {PROTOCOL}"));
    }
    let devices = field("devices ").unwrap_or_default();
    if !devices.split(", ").any(|device| device == backend) {
        return Err(format!("has no {backend}, only {devices}"));
    }
    Ok(())
}

/// Whether the device can be used, and holds what is asked for.
pub(super) async fn memory(config: &Config) -> Verdict {
    let mut request = load_request(config);
    if config.flags.standby {
        request.engines = 2;
    }
    let mut bytes = Vec::new();
    if let Err(error) = frame::encode(&request, &mut bytes) {
        return Verdict::failed_start(error);
    }
    let program = worker_binary(config.worker_bin.as_deref());
    match answer(&program, "--check-load", &bytes, DEVICE_LIMIT).await {
        Ok((WorkerExit::Code(code), said)) if code == i32::from(exit::OK) => Verdict::Fine(said),
        Ok((WorkerExit::Code(code), said)) if code == i32::from(exit::REFUSED) => {
            Verdict::failed_start(said)
        }
        Ok((end, said)) => Verdict::failed_start(format!(
            "WORKER_UNAVAILABLE: {} was lost while it looked at {}: {end} {said}",
            program.display(),
            config.device
        )),
        Err(why) => {
            Verdict::failed_start(format!("WORKER_UNAVAILABLE: {} {why}", program.display()))
        }
    }
}

/// How the program ends with `flag`, and what it says; or why that is not known.
async fn answer(
    program: &Path,
    flag: &str,
    input: &[u8],
    limit: Duration,
) -> Result<(WorkerExit, String), String> {
    match tokio::time::timeout(limit, ask(program, flag, input, Stdio::inherit())).await {
        Ok(Ok((status, said))) => Ok((status.into(), said)),
        Ok(Err(error)) => Err(format!("can't be asked: {error}")),
        Err(_) => Err(format!("did not answer within {} s", limit.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_by_its_name_its_protocol_and_its_devices() {
        let said = |name: &str, protocol: u32, devices: &str| {
            belongs(
                &format!("{name} 0.1.0\nprotocol {protocol}\ndevices {devices}\n"),
                "cuda",
            )
        };
        assert_eq!(said("cuda-worker", PROTOCOL, "cpu, cuda"), Ok(()));
        for (result, why) in [
            (said("cat", PROTOCOL, "cuda"), "another program"),
            (said("cuda-worker", PROTOCOL + 1, "cuda"), "speaks protocol"),
            (
                said("cuda-worker", PROTOCOL, "cpu"),
                "has no cuda, only cpu",
            ),
            (belongs("", "cpu"), "another program"),
        ] {
            let error = result.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
