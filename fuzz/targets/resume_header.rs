//! The header of a reader who comes back: a whole number, or refused.

use http::{HeaderMap, HeaderValue};
use orcd_supervisor::http::last_event_id;

/// Reads `bytes` as the value of `Last-Event-ID`, and twice as two of them.
pub fn run(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.append("last-event-id", value.clone());
    if let Ok(Some(id)) = last_event_id(&headers) {
        let text = value.to_str().expect("a number is text");
        assert_eq!(text.trim().parse(), Ok(id));
    }
    headers.append("last-event-id", value);
    let _ = last_event_id(&headers);
}
