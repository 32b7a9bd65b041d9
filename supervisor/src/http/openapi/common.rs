//! What operations share: headers, the answer's parts, and how the service is reached.

use utoipa::ToSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Info, InfoBuilder, License, Ref, RefOr, Required, Response};

use super::super::{body as bodies, correlation, server};
use super::Instance;

/// The name of the security scheme.
pub(super) const KEY: &str = "key";
const CORRELATION: &str = "X-Correlation-Id";

/// Headers of answers: name, type, whether they are there wherever they are named, meaning.
const HEADERS: [(&str, Type, bool, &str); 11] = [
    (
        CORRELATION,
        Type::String,
        true,
        "The request's, or a fresh UUIDv4; in error bodies and in the log too.",
    ),
    (
        "Retry-After",
        Type::Integer,
        true,
        "Whole seconds, 1 or more, after which to send the request again.",
    ),
    ("Allow", Type::String, true, "The methods of this path."),
    (
        "WWW-Authenticate",
        Type::String,
        true,
        "`Bearer`: send `Authorization: Bearer KEY`.",
    ),
    (
        "Connection",
        Type::String,
        false,
        "`close` where the connection can't be used again.",
    ),
    (
        "Cache-Control",
        Type::String,
        true,
        "`no-store`; of the page `no-cache`, if it has no token.",
    ),
    (
        "ETag",
        Type::String,
        true,
        "What the page's content is, for `If-None-Match`.",
    ),
    (
        "Content-Security-Policy",
        Type::String,
        true,
        "What the page may do: run its own script, and ask this service.",
    ),
    (
        "X-Accel-Buffering",
        Type::String,
        true,
        "`no`: proxies pass each event on at once.",
    ),
    (
        "Access-Control-Allow-Origin",
        Type::String,
        false,
        "The page's origin, where it may read the answer. `Vary: Origin` is beside it.",
    ),
    (
        "Access-Control-Expose-Headers",
        Type::String,
        false,
        "For the same pages: the headers that a page may read.",
    ),
];
/// Those that any answer may have.
const OF_ALL: [&str; 3] = [
    CORRELATION,
    "Access-Control-Allow-Origin",
    "Access-Control-Expose-Headers",
];

/// The title page.
pub(super) fn info() -> Info {
    let mut license = License::new("MIT OR Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".into());
    InfoBuilder::new()
        .title("worker-orcd")
        .version(env!("CARGO_PKG_VERSION"))
        .license(Some(license))
        .description(Some(format!(
            "LLM inference on one model and one device. docs/API.md says the same at more length.\n\n\
             **Transport.** HTTP/1.1 and 1.0 without TLS. Bodies are JSON whatever `Content-Type` says, at \
             most {} bytes, or 16 for each token of the context where that is more (`/cancel`, `/shutdown`: {}), else 413; compressed ones are refused, and so are \
             unknown fields and fields given twice. `null` for a field that may be left out is the same as \
             leaving it out. With `Expect: 100-continue` a body over the bound is refused before it is sent. \
             A head of more than about {} bytes is 431, such a request line 414; a head or a body that comes \
             too slowly is 408. Every `GET` answers `HEAD` too. New fields may appear in answers.\n\n\
             **Access.** With keys every route but `/`, `/health*` and `/metrics` asks for `Authorization: Bearer \
             KEY`. On loopback `Host` and `Origin` have to be this machine's or allowed (`--allow-host`, \
             `--allow-origin`), else 403; HTTP/1.1 without `Host`, or with two, is 400. A preflight from an \
             allowed page is answered 204 without a key.",
            bodies::MAX_BYTES,
            bodies::MAX_CONTROL_BYTES,
            server::MAX_HEAD_BYTES,
        )))
        .build()
}

/// Adds headers, the correlation id, and the key where this instance asks for one.
pub(super) fn components(
    mut components: ComponentsBuilder,
    instance: &Instance,
) -> ComponentsBuilder {
    for (name, kind, is_always_there, text) in HEADERS {
        let mut schema = ObjectBuilder::new().schema_type(kind.clone());
        if kind == Type::Integer {
            schema = schema.minimum(Some(1));
        }
        let mut header = HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(text))
            .build();
        // A field of OpenAPI's header object that utoipa's lacks.
        header.extensions = Some(Extensions::from_iter([("required", is_always_there)]));
        components = components.header(name, header);
    }
    let text = format!(
        "Names the request in the answer, in errors and in the log: 1 to {} of `A-Z a-z 0-9 -`. Anything \
         else, or none, is replaced by a fresh UUIDv4.",
        correlation::MAX_LENGTH
    );
    // Any string is taken: a bad one is replaced.
    let parameter = header_parameter(
        CORRELATION,
        &text,
        ObjectBuilder::new().schema_type(Type::String),
    );
    components = components.parameter(CORRELATION, parameter);
    if instance.asks_for_key {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components = components.security_scheme(KEY, scheme);
    }
    components
}

/// Any request's correlation id.
pub(super) fn correlation_parameter() -> Ref {
    Ref::new(format!("#/components/parameters/{CORRELATION}"))
}

/// A header of an answer, by its name.
pub(in super::super) fn header(name: &str) -> Ref {
    debug_assert!(HEADERS.iter().any(|(known, ..)| *known == name), "{name}");
    Ref::new(format!("#/components/headers/{name}"))
}

/// Adds the headers that every answer may have.
pub(super) fn add_headers(response: &mut RefOr<Response>) {
    if let RefOr::T(response) = response {
        for name in OF_ALL {
            response
                .headers
                .insert(name.into(), RefOr::Ref(header(name)));
        }
    }
}

/// A header of a request that may be left out.
pub(in super::super) fn header_parameter(
    name: &str,
    text: &str,
    schema: impl Into<RefOr<Schema>>,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(schema))
        .build()
}

/// A request's body.
pub(in super::super) fn body(
    text: &str,
    required: Required,
    schema: impl Into<RefOr<Schema>>,
) -> RequestBody {
    RequestBodyBuilder::new()
        .description(Some(text))
        .required(Some(required))
        .content("application/json", Content::new(Some(schema)))
        .build()
}

/// The content of an answer in JSON.
pub(in super::super) fn json(schema: impl Into<RefOr<Schema>>) -> (&'static str, Content) {
    content("application/json", schema)
}

/// The content of an answer.
pub(in super::super) fn content(
    kind: &'static str,
    schema: impl Into<RefOr<Schema>>,
) -> (&'static str, Content) {
    (kind, Content::new(Some(schema)))
}

/// An answer.
pub(in super::super) fn response(
    text: &str,
    (kind, content): (&'static str, Content),
) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(text)
        .content(kind, content)
}

/// Where the document has the schema of `T`.
pub(in super::super) fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}
