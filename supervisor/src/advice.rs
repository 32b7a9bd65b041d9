//! What a person who starts the service should hear of, though it is not an error.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use orcd_shared::protocol::message::Device;

use crate::config::{Config, HAS_CUDA};

/// Logs it.
pub fn log(config: &Config) {
    for warning in warnings(config) {
        tracing::warn!("{warning}");
    }
}

/// A sentence each.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let unknown = config.unknown_variables.iter().map(|unknown| {
        let name = unknown.name.as_str();
        let hint = match unknown.similar.as_deref() {
            Some(similar) => format!("did you mean {similar}?"),
            None => "--help lists the known ones".to_owned(),
        };
        format!("unknown variable {name:?} is ignored; {hint}")
    });
    let on_cpu_by_default = config.device == Device::Cpu && config.device_by_default;
    let gpu = match on_cpu_by_default && !HAS_CUDA {
        true => sign_of_a_gpu(Path::new("/")),
        false => None,
    };
    let unused = gpu.map(|sign| {
        format!(
            "running on the CPU, for this build has no CUDA, but there is a GPU here ({}); \
             `make build-cuda` builds for it, --device cpu says that the CPU is meant",
            sign.display()
        )
    });
    unknown.chain(unused).collect()
}

/// Logs that systemd's socket is used, and not the address that was set, if one was.
pub fn log_passed_socket(config: &Config, listener: &TcpListener) {
    let address = listener.local_addr();
    let address = address.map_or_else(|e| e.to_string(), |address| address.to_string());
    if config.address_by_default {
        tracing::info!("listening on {address}, the socket that systemd passed");
    } else {
        tracing::warn!(
            "listening on {address}, the socket that systemd passed; --host and --port (ORCD_HOST, \
             ORCD_PORT) set nothing: change ListenStream= of the socket unit, or disable that unit"
        );
    }
}

/// Where an NVIDIA driver shows its first GPU. `root` is `/`.
fn sign_of_a_gpu(root: &Path) -> Option<PathBuf> {
    let device = root.join("dev/nvidia0");
    if device.exists() {
        return Some(device);
    }
    let listed = root.join("proc/driver/nvidia/gpus");
    let has_one = std::fs::read_dir(&listed).is_ok_and(|mut gpus| gpus.next().is_some());
    has_one.then_some(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_seen_by_its_device_file_or_the_drivers_list() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(sign_of_a_gpu(root), None);
        let list = root.join("proc/driver/nvidia/gpus");
        std::fs::create_dir_all(&list).unwrap();
        assert_eq!(sign_of_a_gpu(root), None, "a driver without a GPU");
        std::fs::create_dir(list.join("0000:01:00.0")).unwrap();
        assert_eq!(sign_of_a_gpu(root), Some(list));
        let device = root.join("dev/nvidia0");
        std::fs::create_dir(root.join("dev")).unwrap();
        std::fs::write(&device, "").unwrap();
        assert_eq!(sign_of_a_gpu(root), Some(device));
    }
}
