//! Whole numbers as values of flags: whatever is wrong with one, the message names the range.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A parser of whole numbers in `range`.
pub(super) fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.and_then(|n| T::try_from(n).ok()).ok_or_else(|| {
            format!(
                "give a whole number from {} to {}",
                range.start(),
                range.end()
            )
        })
    }
}

/// A parser of times, given as whole numbers in `range` of what `unit` makes a time of.
pub(super) fn units(
    range: RangeInclusive<u64>,
    unit: fn(u64) -> Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let number = whole::<u64>(range);
    move |text| number(text).map(unit)
}
