use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use tokio::net::TcpListener;

use super::*;

/// Bodies received, and the statuses still to be answered; 200 when there are none left.
#[derive(Clone, Default)]
struct Orchestrator {
    bodies: Arc<Mutex<Vec<serde_json::Value>>>,
    statuses: Arc<Mutex<Vec<u16>>>,
}

async fn receive(State(o): State<Orchestrator>, body: String) -> StatusCode {
    o.bodies
        .lock()
        .unwrap()
        .push(serde_json::from_str(&body).unwrap());
    let status = o.statuses.lock().unwrap().pop().unwrap_or(200);
    StatusCode::from_u16(status).unwrap()
}

async fn listen(orchestrator: Orchestrator) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/workers", post(receive))
        .with_state(orchestrator);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/workers").parse().unwrap()
}

fn announcement() -> Announcement {
    Announcement {
        worker_id: Uuid::nil(),
        model_ref: "/models/m.gguf".into(),
        vram_bytes: 12,
        address: "127.0.0.1:8080".parse().unwrap(),
    }
}

#[tokio::test]
async fn failures_are_retried_and_the_body_is_that_of_the_contract() {
    let orchestrator = Orchestrator::default();
    orchestrator.statuses.lock().unwrap().extend([404, 503]);
    let url = listen(orchestrator.clone()).await;
    announce(&url, &announcement()).await.unwrap();
    let bodies = orchestrator.bodies.lock().unwrap();
    assert_eq!(bodies.len(), 3);
    let expected = serde_json::json!({
        "worker_id": "00000000-0000-0000-0000-000000000000",
        "model_ref": "/models/m.gguf",
        "vram_bytes": 12,
        "uri": "http://127.0.0.1:8080",
    });
    assert!(bodies.iter().all(|body| *body == expected), "{bodies:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_given_up_after_a_minute() {
    // Bound and dropped: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Uri = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(listener);
    let begin = Instant::now();
    let error = announce(&url, &announcement()).await.unwrap_err();
    assert!(
        error.contains("no connection") && error.contains("--callback-url"),
        "{error}"
    );
    let elapsed = begin.elapsed();
    assert!((50..=60).contains(&elapsed.as_secs()), "{elapsed:?}");
}

#[test]
fn a_service_on_all_addresses_is_told_by_a_useful_one() {
    let towards: SocketAddr = "10.0.0.7:4000".parse().unwrap();
    assert_eq!(
        uri("0.0.0.0:80".parse().unwrap(), towards),
        "http://10.0.0.7:80"
    );
    assert_eq!(
        uri("[::]:80".parse().unwrap(), towards),
        "http://10.0.0.7:80"
    );
    assert_eq!(
        uri("127.0.0.1:80".parse().unwrap(), towards),
        "http://127.0.0.1:80"
    );
}
