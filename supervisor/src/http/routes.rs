//! All routes, each once and in a file of its own: the router, the OpenAPI document, the answer to an unknown
//! path and the rules for probes are made of this list.

mod cancel;
mod demo_kill;
mod execute;
pub(super) mod health;
mod job_events;
mod metrics;
mod page;
mod props;
mod shutdown;
mod tokenize;
mod v1;
mod version;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use http::Method;

use super::openapi::{Description, Instance};
use super::{App, openapi};
pub use job_events::last_event_id;

/// One route.
pub(super) struct Route {
    /// Its method; a `GET` answers `HEAD` too.
    pub(super) method: Method,
    /// Its path, with parameters in braces.
    pub(super) path: &'static str,
    /// Monitors ask it: answered without a key, and whatever the service is busy with.
    pub(super) is_probe: bool,
    handler: fn() -> MethodRouter<Arc<App>>,
    /// What the OpenAPI document says of it.
    pub(super) describe: fn(&Instance) -> Description,
}

/// Every route that each service has.
static ROUTES: [Route; 20] = [
    Route {
        method: Method::GET,
        path: page::PATH,
        is_probe: false,
        handler: || get(page::page),
        describe: page::describe,
    },
    Route {
        method: Method::POST,
        path: "/execute",
        is_probe: false,
        handler: || post(execute::execute),
        describe: execute::describe,
    },
    Route {
        method: Method::GET,
        path: "/jobs/{job_id}/events",
        is_probe: false,
        handler: || get(job_events::job_events),
        describe: job_events::describe,
    },
    Route {
        method: Method::POST,
        path: "/cancel",
        is_probe: false,
        handler: || post(cancel::cancel),
        describe: cancel::describe,
    },
    Route {
        method: Method::GET,
        path: "/health",
        is_probe: true,
        handler: || get(health::health),
        describe: health::describe,
    },
    Route {
        method: Method::GET,
        path: "/health/live",
        is_probe: true,
        handler: || get(health::live),
        describe: health::describe_live,
    },
    Route {
        method: Method::GET,
        path: "/health/ready",
        is_probe: true,
        handler: || get(health::ready),
        describe: health::describe_ready,
    },
    Route {
        method: Method::GET,
        path: "/metrics",
        is_probe: true,
        handler: || get(metrics::metrics),
        describe: metrics::describe,
    },
    Route {
        method: Method::GET,
        path: "/openapi.json",
        is_probe: false,
        handler: || get(openapi::openapi),
        describe: openapi::describe,
    },
    Route {
        method: Method::GET,
        path: "/props",
        is_probe: false,
        handler: || get(props::props),
        describe: props::describe,
    },
    Route {
        method: Method::POST,
        path: shutdown::PATH,
        is_probe: false,
        handler: || post(shutdown::shutdown),
        describe: shutdown::describe,
    },
    Route {
        method: Method::GET,
        path: "/version",
        is_probe: false,
        handler: || get(version::version),
        describe: version::describe,
    },
    Route {
        method: Method::GET,
        path: "/v1/models",
        is_probe: false,
        handler: || get(v1::models::list),
        describe: v1::models::describe_list,
    },
    Route {
        method: Method::GET,
        path: "/v1/models/{id}",
        is_probe: false,
        handler: || get(v1::models::get),
        describe: v1::models::describe_one,
    },
    Route {
        method: Method::POST,
        path: "/v1/chat/completions",
        is_probe: false,
        handler: || post(v1::chat_completions::chat_completions),
        describe: v1::chat_completions::describe,
    },
    Route {
        method: Method::POST,
        path: "/v1/completions",
        is_probe: false,
        handler: || post(v1::completions::create),
        describe: v1::completions::describe,
    },
    Route {
        method: Method::POST,
        path: "/v1/responses",
        is_probe: false,
        handler: || post(v1::responses::create),
        describe: v1::responses::describe,
    },
    Route {
        method: Method::POST,
        path: "/tokenize",
        is_probe: false,
        handler: || post(tokenize::tokenize),
        describe: tokenize::describe_tokenize,
    },
    Route {
        method: Method::POST,
        path: "/detokenize",
        is_probe: false,
        handler: || post(tokenize::detokenize),
        describe: tokenize::describe_detokenize,
    },
    Route {
        method: Method::POST,
        path: "/apply-template",
        is_probe: false,
        handler: || post(tokenize::apply_template),
        describe: tokenize::describe_apply_template,
    },
];

/// Those that only `--demo` brings.
static OF_DEMO: [Route; 1] = [Route {
    method: Method::POST,
    path: "/demo/kill",
    is_probe: false,
    handler: || post(demo_kill::kill),
    describe: demo_kill::describe,
}];

impl Route {
    /// Whether it is answered without a key, also where keys are asked for.
    pub(super) fn is_open(&self) -> bool {
        // The page has nothing that is anybody's, and it is where a person gives the key.
        self.is_probe || self.path == page::PATH
    }
}

/// All routes of a service, with `--demo` or without.
pub(super) fn all(with_demo: bool) -> impl Iterator<Item = &'static Route> {
    let demo = OF_DEMO.iter().filter(move |_| with_demo);
    ROUTES.iter().chain(demo)
}

/// A router with all of them.
pub(super) fn add_all(router: Router<Arc<App>>, with_demo: bool) -> Router<Arc<App>> {
    all(with_demo).fold(router, |router, route| {
        router.route(route.path, (route.handler)())
    })
}

/// Whether `path` is one that monitors ask.
pub(super) fn is_probe(path: &str) -> bool {
    ROUTES.iter().any(|r| r.is_probe && r.path == path)
}

/// Whether `path` is one that is answered without a key.
pub(super) fn is_open(path: &str) -> bool {
    ROUTES.iter().any(|r| r.is_open() && r.path == path)
}

/// Whether `path` is one that only an admin's key opens, where keys are asked for.
pub(super) fn is_admin(path: &str) -> bool {
    path == shutdown::PATH
}

/// All of them in one line.
pub(super) fn list(with_demo: bool) -> String {
    let names = all(with_demo).map(|r| format!("{} {}", r.method, r.path));
    names.collect::<Vec<_>>().join(", ")
}
