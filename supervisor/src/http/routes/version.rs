//! `GET /version`: which program answers, as routers ask every kind of engine.

use axum::Json;
use serde::Serialize;
use utoipa::openapi::path::OperationBuilder;
use utoipa::{PartialSchema, ToSchema};

use super::super::openapi::{self, Description, Instance};

#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    /// Of the program.
    version: &'static str,
}

/// Answers `GET /version`.
pub(super) async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// What the OpenAPI document says of it.
pub(super) fn describe(_: &Instance) -> Description {
    let answer = openapi::json(Version::schema());
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("version"))
            .summary(Some("The program's version"))
            .description(Some("For routers that look for workers."))
            .response("200", openapi::response("The version.", answer)),
        errors: &[],
        invalid: &[],
    }
}
