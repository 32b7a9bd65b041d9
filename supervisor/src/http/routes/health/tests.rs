use std::sync::Arc;

use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::WorkerInfo;
use orcd_shared::weights::ContentHash;
use serde_json::{Value, json};

use super::*;
use crate::jobs::Standby;

fn info() -> WorkerInfo {
    WorkerInfo {
        device_name: "NVIDIA H100 80GB HBM3".into(),
        compute_capability: Some("9.0".into()),
        runtime_version: Some("13.0".into()),
        memory_used: 600,
        memory_total: 80_000,
        resident: true,
        context: 512,
        parallel: 2,
        kv_pages: 16,
        kv_page_bytes: 1 << 20,
        quant_kind: "Q4_K_M".into(),
        load_source: LoadSource::Handle,
        load_ms: 3,
        model_hash: ContentHash([0xab; 32]),
        arithmetic: "a-1".into(),
        weights: None,
        pool: None,
    }
}

fn snapshot(state: ServiceState) -> Snapshot {
    Snapshot {
        state,
        worker: Some(Arc::new(info())),
        worker_pid: Some(77),
        generation: 3,
        restarts: 2,
        last_exit: Some("signal 9 (SIGKILL)".into()),
        running: 1,
        queued: 4,
        free_slots: 1,
        kv: PageCounts {
            used: 5,
            cached: 3,
            refused: 0,
        },
        preemptions: 3,
        stalled: false,
        standby: Some(Standby {
            pid: Some(78),
            ready: true,
            memory_bytes: 40,
        }),
        ..Snapshot::default()
    }
}

fn body(snapshot: Option<&Snapshot>, asked_to_stop: bool) -> (u16, Value) {
    let condition = condition(snapshot, asked_to_stop);
    let about = About {
        device: Device::Cuda(1),
        model: None,
        uptime: Duration::from_millis(9500),
    };
    let report = report(snapshot, condition, &about);
    (
        condition.status().1.as_u16(),
        serde_json::to_value(report).unwrap(),
    )
}

#[test]
fn a_ready_service_reports_every_field_of_the_contract() {
    let expected = json!({
        "status": "healthy", "state": "ready",
        "model": null, "model_hash": format!("blake3:{}", "ab".repeat(32)),
        "tokenizer_kind": null, "chat_template": null, "vocab_size": null,
        "device": "cuda:1", "device_name": "NVIDIA H100 80GB HBM3", "backend": "cuda",
        "resident": true, "quant_kind": "Q4_K_M",
        "vram_bytes_used": 600, "vram_bytes_total": 80_000,
        "context_length": 512, "uptime_seconds": 9,
        "worker": {
            "pid": 77, "generation": 3, "restarts": 2, "last_exit": "signal 9 (SIGKILL)",
        },
        "standby": true,
        "standby_worker": {"pid": 78, "ready": true, "vram_bytes": 40},
        "jobs": {"running": 1, "queued": 4},
        "kv": {"page_tokens": 64, "pages": 16, "pages_used": 5, "pages_cached": 3, "pages_free": 8, "preemptions": 3},
        "load_percent": 100, "load_source": "handle",
        "sm": "9.0", "cuda_runtime_version": "13.0",
        "version": env!("CARGO_PKG_VERSION"),
    });
    assert_eq!(
        body(Some(&snapshot(ServiceState::Ready)), false),
        (200, expected)
    );
}

#[test]
fn status_follows_the_state() {
    for (state, status, code) in [
        (ServiceState::Starting { percent: 40 }, "starting", 503),
        (ServiceState::Ready, "healthy", 200),
        (ServiceState::Recovering, "recovering", 200),
        (ServiceState::Draining, "draining", 503),
        (ServiceState::Unhealthy, "unhealthy", 503),
    ] {
        let (got_code, got) = body(Some(&snapshot(state)), false);
        assert_eq!((got["status"].as_str(), got_code), (Some(status), code));
        let (got_code, got) = body(Some(&snapshot(state)), true);
        assert_eq!((got["status"].as_str(), got_code), (Some("draining"), 503));
    }
    let (code, got) = body(None, false);
    assert_eq!((got["status"].as_str(), code), (Some("starting"), 503));
    assert_eq!(
        (got["load_percent"].as_u64(), got["resident"].as_bool()),
        (Some(0), Some(false))
    );
}

#[test]
fn a_worker_that_makes_no_progress_is_not_healthy() {
    let stalled = Snapshot {
        stalled: true,
        ..snapshot(ServiceState::Ready)
    };
    let (code, got) = body(Some(&stalled), false);
    assert_eq!(code, 503);
    assert_eq!(
        (got["status"].as_str(), got["state"].as_str()),
        (Some("unhealthy"), Some("stalled"))
    );
}

#[test]
fn progress_of_loading_is_shown() {
    let loading = snapshot(ServiceState::Starting { percent: 40 });
    assert_eq!(body(Some(&loading), false).1["load_percent"], 40);
}

#[test]
fn there_is_room_in_the_queue_and_in_free_sequences() {
    let with = |free_slots, queued| Snapshot {
        free_slots,
        queued,
        ..snapshot(ServiceState::Ready)
    };
    assert!(has_room(&with(0, 3), 4));
    assert!(!has_room(&with(0, 4), 4));
    assert!(has_room(&with(1, 4), 4));
}
