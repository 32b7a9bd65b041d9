//! The routes of a service, as its own OpenAPI document has them.

use serde_json::Value;

/// A method on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// In capitals.
    pub method: String,
    /// With `a` for each parameter.
    pub path: String,
    /// It is answered only with a key, on a service that has keys.
    pub needs_key: bool,
}

/// All routes in `document`, at least one.
pub fn routes(document: &Value) -> Vec<Route> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let routes: Vec<Route> = paths
        .flat_map(|(path, item)| {
            let operations = item.as_object().into_iter().flatten();
            operations.map(move |(method, operation)| Route {
                method: method.to_uppercase(),
                path: filled(path),
                needs_key: (operation["security"].as_array()).is_some_and(|keys| !keys.is_empty()),
            })
        })
        .collect();
    assert!(!routes.is_empty(), "no routes in {document}");
    routes
}

fn filled(path: &str) -> String {
    let parts = path.split('/');
    let parts = parts.map(|part| if part.starts_with('{') { "a" } else { part });
    parts.collect::<Vec<_>>().join("/")
}
