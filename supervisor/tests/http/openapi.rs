//! The OpenAPI document against the routes that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orcd_supervisor::http::router;
use serde_json::Value;

use crate::support::{Client, listen};

/// The methods of each path, `HEAD` aside.
type Routes = BTreeMap<String, BTreeSet<String>>;

fn documented(document: &Value) -> Routes {
    let paths = document["paths"].as_object().unwrap();
    let methods = |item: &Value| {
        item.as_object()
            .unwrap()
            .keys()
            .map(|m| m.to_uppercase())
            .collect()
    };
    paths
        .iter()
        .map(|(path, item)| (path.clone(), methods(item)))
        .collect()
}

/// Where axum puts a router's fallback; it puts it at / too, where the page is.
const FALLBACK: &str = "/{*__private__axum_fallback}";

/// The paths in what the router prints of itself: axum has no other list of them.
fn paths_of(router: &str) -> BTreeSet<String> {
    let quoted = router.split('"').skip(1).step_by(2);
    quoted
        .filter(|text| text.starts_with('/') && *text != FALLBACK)
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn each_route_is_in_the_document_and_the_other_way_round() {
    let ((app, _), address, _stop) = listen().await;
    let mut client = Client::connect(address).await;
    client.get("/openapi.json", "").await;
    let (head, document) = client.json().await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("application/json"));
    assert_eq!(
        document["openapi"]
            .as_str()
            .unwrap()
            .split('.')
            .take(2)
            .collect::<Vec<_>>(),
        ["3", "1"]
    );
    let documented = documented(&document);

    let printed = format!("{:?}", router(Arc::clone(&app)));
    let paths = paths_of(&printed);
    assert!(paths.contains("/execute"), "no paths in {printed}");
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), paths);

    for (path, methods) in &documented {
        // A method that no route has: the answer names those of the path.
        let path = path.replace("{job_id}", "j");
        client
            .send(&format!("PATCH {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await;
        let (head, _) = client.answer().await;
        assert_eq!(head.status, 405, "{path}");
        let allowed = head.header("allow").unwrap().split(',').map(str::trim);
        let allowed: BTreeSet<_> = allowed
            .filter(|m| *m != "HEAD")
            .map(str::to_owned)
            .collect();
        assert_eq!(&allowed, methods, "{path}");
    }
}
