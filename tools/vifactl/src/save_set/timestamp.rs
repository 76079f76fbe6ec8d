// SPDX-License-Identifier: GPL-2.0

//! RFC 3339 timestamps in UTC, with a resolution of one second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

/// Formats `time` as in `2026-11-22T18:40:05Z`. Times before 1970 become the start of 1970.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;

    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Returns whether `text` has the format of [`timestamp`].
pub(super) fn is_timestamp(text: &str) -> bool {
    const FORM: &str = "dddd-dd-ddTdd:dd:ddZ";

    text.len() == FORM.len()
        && text
            .chars()
            .zip(FORM.chars())
            .all(|(found, form)| match form {
                'd' => found.is_ascii_digit(),
                form => found == form,
            })
}

fn is_leap(year: u64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Returns year, month and day, `days` after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    // The calendar repeats after 400 years.
    const CYCLE: u64 = 400 * 365 + 97;

    let mut year = 1970 + days / CYCLE * 400;
    days %= CYCLE;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };

        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }

    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> String {
        timestamp(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn timestamps_follow_the_calendar() {
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(at(1_795_372_805), "2026-11-22T18:40:05Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(at(13_574_563_199), "2400-02-28T23:59:59Z");
        assert_eq!(at(13_574_563_200), "2400-02-29T00:00:00Z");
    }

    #[test]
    fn timestamps_have_the_expected_format() {
        assert!(is_timestamp(&at(1)));
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T18:40:05+01:00",
            "2026-11-22t18:40:05z",
        ] {
            assert!(!is_timestamp(text), "{text}");
        }
    }
}
