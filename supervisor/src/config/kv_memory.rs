//! The value of `--kv-memory`.

use orcd_shared::protocol::message::KvSize;

/// Units of bytes, as the ends of numbers.
const UNITS: [(char, u64); 4] = [
    ('K', 1 << 10),
    ('M', 1 << 20),
    ('G', 1 << 30),
    ('T', 1 << 40),
];

/// Bytes, perhaps with a unit, or a share, which has a point.
pub(super) fn kv_memory(text: &str) -> Result<KvSize, String> {
    let size = if text.contains('.') {
        share(text).map(KvSize::Share)
    } else {
        bytes(text).map(KvSize::Bytes)
    };
    size.ok_or_else(|| {
        "give bytes, such as 6000000000, 6G or 512M, or a share of what is free from 0.01 to 1.0"
            .into()
    })
}

fn share(text: &str) -> Option<f32> {
    let share: f32 = text.parse().ok()?;
    (0.01..=1.0).contains(&share).then_some(share)
}

fn bytes(text: &str) -> Option<u64> {
    let unit = |(end, unit)| Some((text.strip_suffix(end)?, unit));
    let (number, unit) = UNITS.into_iter().find_map(unit).unwrap_or((text, 1));
    let number = number
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then_some(number)?;
    let bytes = number.parse::<u64>().ok()?.checked_mul(unit)?;
    (bytes > 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_and_shares_a_point() {
        for (text, size) in [
            ("1", KvSize::Bytes(1)),
            ("512M", KvSize::Bytes(512 << 20)),
            ("6G", KvSize::Bytes(6 << 30)),
            ("0.5", KvSize::Share(0.5)),
            ("1.0", KvSize::Share(1.0)),
        ] {
            assert_eq!(kv_memory(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "0",
            "0G",
            "G",
            "-1",
            "+1",
            "1.5",
            "0.0",
            "1.5G",
            "6g",
            "6GiB",
            "NaN",
            "inf.",
            "18446744073709551616",
            "18446744073709551615K",
            "1 G",
        ] {
            assert!(kv_memory(text).is_err(), "{text}");
        }
    }
}
