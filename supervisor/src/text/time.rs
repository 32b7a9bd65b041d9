//! The time that a chat template sees.

use std::fmt;

use jiff::Zoned;

const FORMAT: &str = "%Y-%m-%dT%H:%M:%S%:z";

/// A local time to the second, with its offset from UTC and without the name of a zone. Written down and read again it is
/// the same for a template, on whatever machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateTime(Zoned);

impl TemplateTime {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Self::of(&Zoned::now())
    }

    fn of(time: &Zoned) -> Self {
        let time = time.with_time_zone(time.offset().to_time_zone());
        let whole = time.with().subsec_nanosecond(0).build();
        Self(whole.unwrap_or(time))
    }

    /// What [`Display`](fmt::Display) wrote: RFC 3339 with whole seconds and an offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let time = Self(Zoned::strptime(FORMAT, text).ok()?);
        // Only one text stands for a time: it is compared with others.
        (time.to_string() == text).then_some(time)
    }

    pub(super) fn zoned(&self) -> &Zoned {
        &self.0
    }
}

impl fmt::Display for TemplateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime(FORMAT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_written_down_is_the_same_again() {
        let summer: Zoned = "2026-07-01T23:59:58.75+02:00[Europe/Berlin]"
            .parse()
            .unwrap();
        for (time, text) in [
            (TemplateTime::of(&summer), "2026-07-01T23:59:58+02:00"),
            (
                TemplateTime::parse("2026-11-30T00:00:00-09:30").unwrap(),
                "2026-11-30T00:00:00-09:30",
            ),
        ] {
            assert_eq!(time.to_string(), text);
            assert_eq!(TemplateTime::parse(text), Some(time.clone()));
            assert_eq!(time.zoned().strftime("%:z").to_string(), text[19..]);
        }
        let now = TemplateTime::now();
        assert_eq!(TemplateTime::parse(&now.to_string()), Some(now));
    }

    #[test]
    fn what_it_would_not_write_is_no_time() {
        for text in [
            "",
            "now",
            "2026-07-01",
            "2026-07-01T23:59:58",
            "2026-07-01T23:59:58Z",
            "2026-07-01T23:59:58.5+02:00",
            "2026-13-01T23:59:58+02:00",
            "2026-07-01T23:59:58+02:00 ",
            "2026-07-01T23:59:58+99:00",
        ] {
            assert_eq!(TemplateTime::parse(text), None, "{text}");
        }
    }
}
