//! A chat template that can't work.

use std::sync::Arc;

use orcd_shared::gguf::Value;
use orcd_supervisor::model::Model;

use crate::played::{self, Service};
use crate::support::{Client, listen};

#[tokio::test]
async fn a_broken_template_is_the_models_fault_and_raw_prompts_work() {
    let mut worker = Service::ready_with(|_| {}).await;
    let (app, address, _stop) = listen().await;
    let mut metadata = played::metadata();
    let source = "\n{{ messages[0].content.no_such_method() }}";
    metadata
        .insert("tokenizer.chat_template", Value::String(source.into()))
        .unwrap();
    let model = Model::from_metadata(&metadata, "bytes").unwrap();
    app.0.serve(worker.jobs.clone(), Arc::new(model));

    for body in [
        r#"{"job_id":"a","messages":[{"role":"user","content":"x"}]}"#,
        r#"{"job_id":"a","prompt":"x"}"#,
    ] {
        let mut client = Client::connect(address).await;
        client.post("/execute", body).await;
        let (head, answer) = client.json().await;
        assert_eq!(
            (head.status, &answer["error"]["code"]),
            (500, &"INTERNAL".into())
        );
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("the model's chat template failed"),
            "{message}"
        );
        assert!(message.contains("chat_template:2"), "{message}");
        assert!(message.contains("--chat-template"), "{message}");
    }

    let mut client = Client::connect(address).await;
    client
        .post(
            "/execute",
            r#"{"job_id":"b","prompt":"x","template":false}"#,
        )
        .await;
    worker.submitted().await;
    assert_eq!(client.head().await.status, 200);

    let mut client = Client::connect(address).await;
    client
        .send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    let (head, health) = client.json().await;
    assert_eq!(head.status, 200);
    let reason = health["chat_template"]["error"].as_str().unwrap();
    assert!(reason.contains("no_such_method"), "{reason}");
}
