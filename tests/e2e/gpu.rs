//! What only a GPU can show. On another device each test says SKIPPED, or fails if `ORCD_REQUIRE_GPU=1`.

use std::process::Command;
use std::time::Duration;

use orcd_shared::gguf::Value;
use orcd_tests::model::rewrite;
use orcd_tests::{Model, Starter, lock, paths, report};

const MIB: u64 = 1 << 20;

/// The number of the GPU under test.
fn gpu() -> Option<u32> {
    let device = paths::device();
    let number = device.strip_prefix("cuda:").and_then(|n| n.parse().ok());
    if number.is_none() {
        let required = std::env::var("ORCD_REQUIRE_GPU").is_ok_and(|v| v == "1");
        assert!(!required, "ORCD_REQUIRE_GPU=1, but the device is {device}");
        report::skipped(&format!("the device under test is {device}, no GPU"));
    }
    number
}

/// What the driver says about the memory of a GPU, bytes.
fn driver_says(gpu: u32, field: &str) -> u64 {
    let output = Command::new("nvidia-smi")
        .args(["-i", &gpu.to_string(), "--format=csv,noheader,nounits"])
        .arg(format!("--query-gpu={field}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mib: u64 = text.trim().parse().unwrap_or_else(|_| panic!("{text:?}"));
    mib * MIB
}

#[test]
fn too_little_vram_names_device_path_required_and_free_bytes() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.gguf");
    rewrite(
        &Model::Tiny.file(folder.path()),
        &path,
        |key, value| match key {
            "qwen2.context_length" => Some(Value::U32(4_194_304)),
            _ => Some(value.clone()),
        },
    );
    let exit = Starter::new(Model::File(path))
        .flag("--parallel", 1024)
        .flag("--kv-memory", "100T")
        .alone()
        .run_to_exit(Duration::from_secs(20));
    let line = exit.error_line(1);
    assert!(line.starts_with("error: INSUFFICIENT_VRAM: "), "{line}");
    assert!(
        line.contains("long.gguf") && line.contains(&paths::device()),
        "{line}"
    );
    let (required, free) = bytes_of(line).unwrap_or_else(|| panic!("no bytes in {line}"));
    let total = driver_says(gpu, "memory.total");
    assert!(required > total, "{required} bytes would fit in {total}");
    assert!(free > 0 && free <= total, "{free} of {total} bytes free");
}

/// Required and free bytes of "(REQUIRED of FREE bytes)".
fn bytes_of(line: &str) -> Option<(u64, u64)> {
    let (_, tail) = line.rsplit_once('(')?;
    let (required, tail) = tail.split_once(" of ")?;
    let (free, _) = tail.split_once(" bytes")?;
    Some((required.parse().ok()?, free.parse().ok()?))
}

#[test]
fn memory_in_health_is_memory_of_the_device() {
    let Some(gpu) = gpu() else { return };
    // Until the end: nobody else may take memory while it is looked at.
    let _place = lock::take(true);
    let service = Starter::new(Model::Tiny).flag("--parallel", 64).start();
    let serving = driver_says(gpu, "memory.used");
    let health = service.health();
    let reported = health["vram_bytes_used"].as_u64().unwrap();
    assert!(health["resident"] == true, "{health:#}");
    drop(service);
    std::thread::sleep(Duration::from_secs(2));
    let freed = serving.saturating_sub(driver_says(gpu, "memory.used"));
    assert!(
        freed + 2 * MIB > reported && freed < reported + 2048 * MIB,
        "{reported} bytes in /health, {freed} bytes came back when it ended"
    );
}
