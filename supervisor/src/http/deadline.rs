//! `X-Deadline`: until when a job's answer is of use, RFC 3339.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::HeaderMap;
use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use orcd_shared::error::ErrorCode;
use regex::Regex;

use super::error::{ApiError, Detail};

/// The header's name.
pub(super) const NAME: &str = "X-Deadline";

/// When a job submitted now has to end: at the client's deadline or after `timeout`, whichever
/// comes first.
///
/// # Errors
/// `INVALID_REQUEST` if the header is not an RFC 3339 timestamp, `INFERENCE_TIMEOUT` if it is past.
pub fn of_request(headers: &HeaderMap, timeout: Duration) -> Result<Instant, ApiError> {
    let limit = match given(headers)? {
        Some(deadline) => remaining(deadline, Timestamp::now())?.min(timeout),
        None => timeout,
    };
    Ok(Instant::now() + limit)
}

fn given(headers: &HeaderMap) -> Result<Option<Timestamp>, ApiError> {
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(parse);
    match (parsed, values.next()) {
        (Some(deadline), None) => Ok(Some(deadline)),
        _ => Err(ApiError::invalid(vec![Detail {
            field: NAME.into(),
            constraint: "one RFC 3339 timestamp".into(),
            message: "X-Deadline is not a valid RFC 3339 timestamp; give one such as 2030-01-31T12:00:00Z"
                .into(),
        }])),
    }
}

/// RFC 3339 only (section 5.6): a date, a time and an offset. jiff reads other forms of ISO 8601 too, and
/// no digits beyond nanoseconds. What lies beyond its years, as the end of 9999 does, is the last
/// instant it knows.
fn parse(text: &str) -> Option<Timestamp> {
    // A pattern that does not compile fails every test of this file.
    #[allow(clippy::unwrap_used)]
    static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
        const DATE_TIME: &str = "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}";
        const OFFSET: &str = "[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]";
        let shape = format!(r"^({DATE_TIME})(?:(\.[0-9]{{1,9}})[0-9]*)?({OFFSET})$");
        Regex::new(&shape).unwrap()
    });
    let mut readable = String::new();
    SHAPE.captures(text.trim())?.expand("$1$2$3", &mut readable);
    let pieces = Pieces::parse(&readable).ok()?;
    let local = pieces.date().to_datetime(pieces.time()?);
    let beyond = if local.year() > 0 {
        Timestamp::MAX
    } else {
        Timestamp::MIN
    };
    Some(
        pieces
            .to_numeric_offset()?
            .to_timestamp(local)
            .unwrap_or(beyond),
    )
}

fn remaining(deadline: Timestamp, now: Timestamp) -> Result<Duration, ApiError> {
    let left = Duration::try_from(deadline.duration_since(now)).unwrap_or_default();
    if left.is_zero() {
        let late = now.duration_since(deadline);
        return Err(ApiError::new(
            ErrorCode::InferenceTimeout,
            format!("X-Deadline {deadline} passed {} ms ago", late.as_millis()),
        ));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(300);

    fn of(value: &str) -> Result<Duration, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(NAME, HeaderValue::from_str(value).unwrap());
        let begin = Instant::now();
        of_request(&headers, TIMEOUT).map(|deadline| deadline - begin)
    }

    #[test]
    fn the_earlier_of_deadline_and_timeout_counts() {
        let begin = Instant::now();
        let without = of_request(&HeaderMap::new(), TIMEOUT).unwrap() - begin;
        assert!(without >= TIMEOUT && without < TIMEOUT + Duration::from_secs(5));
        let soon = Timestamp::now() + Duration::from_secs(20);
        let left = of(&soon.to_string()).unwrap().as_secs_f64();
        assert!((15.0..=20.1).contains(&left), "{left}");
        for late in [
            "2999-01-01T00:00:00+02:00",
            "2999-01-01t00:00:00.123456789123456789-23:59",
            "2999-01-01 00:00:00z",
            "9999-12-31T23:59:59.5Z",
        ] {
            let left = of(late).unwrap();
            assert!(left >= TIMEOUT && left < TIMEOUT + Duration::from_secs(5));
        }
    }

    #[test]
    fn the_past_is_a_timeout() {
        for past in [
            "2001-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "2024-12-31t23:59:60z",
        ] {
            let error = of(past).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InferenceTimeout, "{past}");
        }
        let now = Timestamp::now();
        assert!(remaining(now, now).is_err());
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "tomorrow",
            "1700000000",
            "2030-01-31",
            "2030-01-31T12:00:00",
            "2030-13-31T12:00:00Z",
            "2030-01-31T12:00:00Z[UTC]",
            "2030-01-31T12:00:00+01:00[Europe/Berlin]",
            "2030-01-31T12Z",
            "2030-01-31T12:00Z",
            "20300131T120000Z",
            "2030-01-31T12:00:00,5Z",
            "2030-01-31T12:00:00.Z",
            "2030-01-31T12:00:005Z",
            "+002030-01-31T12:00:00Z",
            "2030-01-31T12:00:00+0100",
            "2030-01-31T12:00:00+24:00",
            "2030-01-31T12:00:00+01:60",
            "2030-01-31T12:00:00é",
            "2030-01-31T12:00:0é",
        ] {
            let error = of(bad).expect_err(bad);
            assert_eq!(error.code(), ErrorCode::InvalidRequest, "{bad}");
        }
    }
}
