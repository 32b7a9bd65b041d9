//! Who may ask. A service on loopback is there for this machine's own programs: web pages from
//! elsewhere can have a browser send requests to it, and with a name of their own for 127.0.0.1 (DNS
//! rebinding) even read the answers. Such requests are recognized by their `Origin` and `Host` and are
//! refused on every route. A service beyond loopback asks for a key.

mod keys;
mod names;
mod source;
mod watch;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version};
use orcd_shared::error::ErrorCode;

pub use keys::{Keys, Role};
pub use names::{HostName, Origin};
pub use source::KeySource;
pub(super) use watch::watch;

use super::body;
use super::error::ApiError;
use super::rate::Rates;
use super::routes::{is_admin, is_open};
use crate::jobs::Owner;

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
/// How long a browser may go by a preflight's answer, seconds.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// What was set of who may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Requests have to bring one of these, if there is any.
    pub keys: Keys,
    /// Where these came from.
    pub source: KeySource,
    /// Beyond loopback everybody may ask.
    pub everybody: bool,
    /// Web pages that may use the service, beside those of this machine.
    pub origins: Vec<Origin>,
    /// Names under which the service is asked for, beside this machine's own.
    pub hosts: Vec<HostName>,
}

impl Access {
    /// Whether the service may listen at `address`.
    ///
    /// # Errors
    /// What to do about it.
    pub fn suffices_at(&self, address: SocketAddr) -> Result<(), String> {
        if is_loopback(address) || self.everybody || !self.keys.is_empty() {
            return Ok(());
        }
        Err(format!(
            "listening on {address} lets other machines in; give --api-key-file (or --api-key), so \
             that requests need \"Authorization: Bearer KEY\", or --insecure-no-auth if everybody \
             who reaches it may use it, or listen on 127.0.0.1"
        ))
    }

    /// The rules for a service that listens at `address`, where `host` stands for `--host`.
    #[must_use]
    pub fn guard(&self, host: &str, address: SocketAddr) -> Guard {
        let mut access = self.clone();
        let quoted = format!("[{host}]");
        access
            .hosts
            .extend(HostName::parse(host).or_else(|| HostName::parse(&quoted)));
        Guard {
            keys: RwLock::new(self.keys.clone()),
            access,
            on_loopback: is_loopback(address),
        }
    }
}

/// Whether only this machine reaches `address`.
#[must_use]
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Decides of each request whether it is answered.
#[derive(Debug)]
pub struct Guard {
    access: Access,
    /// As they are by now.
    keys: RwLock<Keys>,
    on_loopback: bool,
}

/// A request that may be answered.
#[derive(Debug, PartialEq, Eq)]
struct Admitted {
    /// The web page's origin, which may read the answer.
    reader: Option<HeaderValue>,
    /// A browser asks whether a page may send a request.
    is_preflight: bool,
    /// Who asks; it goes with the request.
    owner: Owner,
}

impl Guard {
    /// Whether requests have to bring a key.
    pub(super) fn asks_for_key(&self) -> bool {
        !self.keys().is_empty()
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        // Each change is one whole assignment.
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these keys open the service; whether they are others than before. There never are none where there
    /// were some.
    fn replace_keys(&self, keys: Keys) -> bool {
        let mut own = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() || *own == keys {
            return false;
        }
        *own = keys;
        true
    }

    /// Whether a request of these `parts` may be answered; in the error's case with the origin that
    /// may read it, if there is one.
    fn judge(&self, parts: &Parts) -> Result<Admitted, (ApiError, Option<HeaderValue>)> {
        let host = host(parts).map_err(|e| (e, None))?;
        if self.on_loopback
            && let Some(host) = &host
            && !self.is_own(host)
        {
            return Err((
                forbidden(
                    "this service is there for programs on its own machine, under the names \
                     localhost and 127.0.0.1; --allow-host adds the one in the header Host",
                ),
                None,
            ));
        }
        let reader = self.reader(parts, host.as_ref()).map_err(|e| (e, None))?;
        let is_preflight = reader.is_some()
            && parts.method == Method::OPTIONS
            && parts
                .headers
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        // A browser sends preflights without a key.
        let is_open = is_preflight || is_open(parts.uri.path());
        let keys = self.keys();
        let holder = keys.holder(&parts.headers);
        if !is_open && !keys.is_empty() {
            match holder {
                None => return Err((unauthorized(&parts.headers), reader)),
                Some(holder) if holder.role == Role::User && is_admin(parts.uri.path()) => {
                    return Err((admin_only(), reader));
                }
                Some(_) => {}
            }
        }
        Ok(Admitted {
            reader,
            is_preflight,
            owner: holder.map(|holder| holder.owner).unwrap_or_default(),
        })
    }

    fn is_own(&self, host: &HostName) -> bool {
        host.is_loopback() || self.access.hosts.iter().any(|own| own.covers(host))
    }

    /// The origin that a web page's request comes from, if it may read the answer.
    fn reader(
        &self,
        parts: &Parts,
        host: Option<&HostName>,
    ) -> Result<Option<HeaderValue>, ApiError> {
        let mut values = parts.headers.get_all(header::ORIGIN).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let origin = value.to_str().ok().and_then(Origin::parse);
        if let (Some(origin), None) = (&origin, values.next()) {
            let is_allowed = self.access.origins.contains(origin);
            let is_local = self.on_loopback && origin.is_web() && self.is_own(origin.host());
            if is_allowed || is_local {
                return Ok(Some(value.clone()));
            }
            // Beyond loopback the service's own pages come from where they ask. A name counts only if
            // it was said to be the service's: whoever owns another may let it point here.
            let is_known = |host: &HostName| host.is_address() || self.is_own(host);
            if host.is_some_and(|host| !self.on_loopback && is_known(host) && origin.is_at(host)) {
                return Ok(None);
            }
        }
        // Where a key is asked for it is the key that decides. Other pages can't read the answer.
        if !self.on_loopback && self.asks_for_key() {
            return Ok(None);
        }
        Err(forbidden(
            "web pages from elsewhere may not use this service; --allow-origin adds the one in the \
             header Origin",
        ))
    }
}

/// The name under which the request asks for the service.
fn host(parts: &Parts) -> Result<Option<HostName>, ApiError> {
    let mut values = parts.headers.get_all(header::HOST).iter();
    let given = values.next();
    let invalid =
        |message: &str| ApiError::invalid_with(StatusCode::BAD_REQUEST, message).closing();
    if values.next().is_some() {
        return Err(invalid("the header Host is given more than once"));
    }
    // A request line with a whole URL says it itself.
    let named = match (parts.uri.authority(), given) {
        (Some(authority), _) => Some(authority.as_str()),
        (None, Some(value)) => Some(value.to_str().unwrap_or_default()),
        (None, None) if parts.version == Version::HTTP_11 => {
            return Err(invalid("the header Host is missing; HTTP/1.1 requires it"));
        }
        // Older than the header, and than browsers.
        (None, None) => None,
    };
    match named {
        None => Ok(None),
        Some(text) => match HostName::parse(text) {
            Some(host) => Ok(Some(host)),
            None => Err(invalid(
                "the header Host is not a valid name, with or without a port",
            )),
        },
    }
}

fn forbidden(message: &str) -> ApiError {
    ApiError::new(ErrorCode::ForbiddenOrigin, message)
}

fn unauthorized(headers: &HeaderMap) -> ApiError {
    let message = if headers.contains_key(header::AUTHORIZATION) {
        "the header Authorization has no valid key; give Bearer and one of this service's keys"
    } else {
        "this service requires a key; send the header \"Authorization: Bearer KEY\""
    };
    ApiError::new(ErrorCode::Unauthorized, message)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn admin_only() -> ApiError {
    let message = "this key does not end the service; give one of --admin-key-file or --admin-key, or send SIGTERM";
    ApiError::new(ErrorCode::Unauthorized, message)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// The layer in front of all routes.
pub(super) async fn admit(
    State((guard, rates)): State<(Arc<Guard>, Arc<Rates>)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let judged = guard.judge(&parts);
    // Who is refused counts too, and so does a browser's question.
    let judged = match rates.count(&parts, judged.as_ref().ok().map(|admitted| admitted.owner)) {
        Ok(()) => judged,
        Err(error) => Err((
            error,
            judged.map_or_else(|(_, reader)| reader, |admitted| admitted.reader),
        )),
    };
    let (mut response, reader) = match judged {
        Err((error, reader)) => {
            let error = body::pass_over(&parts, body, error).await;
            (error.into_response(), reader)
        }
        Ok(admitted) if admitted.is_preflight => (preflight(&parts.headers), admitted.reader),
        Ok(admitted) => {
            parts.extensions.insert(admitted.owner);
            let response = next.run(Request::from_parts(parts, body)).await;
            (response, admitted.reader)
        }
    };
    if let Some(origin) = reader {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("X-Correlation-Id, Retry-After"),
        );
    }
    response
}

/// What a page from an allowed origin may send: all that the routes know.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST"),
    );
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    if asked.contains_key(REQUEST_PRIVATE_NETWORK) {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

#[cfg(test)]
mod tests;
