//! PURE. Small written forms: durations, sizes, octal modes. Never rounds and never accepts two units in one word.

/// Longest duration: a year. What is meant to be longer is `off`.
pub(super) const DURATION_MS_MAX: u64 = 365 * 24 * 3_600_000;

/// `250ms`, `10s`, `5min`, `1h` in milliseconds; None for anything else and beyond a year.
pub(super) fn duration_ms(word: &str) -> Option<u64> {
    let (digits, unit) = split(word)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number(digits)?.checked_mul(unit_ms).filter(|ms| *ms <= DURATION_MS_MAX)
}

/// A duration as somebody would write it.
pub fn duration_text(ms: u64) -> String {
    match ms {
        0 => "0s".to_owned(),
        ms if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        ms if ms.is_multiple_of(60_000) => format!("{}min", ms / 60_000),
        ms if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// `64K`, `10M`, `1G`, `2T` or plain bytes, in bytes, by 1024; None for anything else.
pub(super) fn size_bytes(word: &str) -> Option<u64> {
    let (digits, unit) = split(word)?;
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    number(digits)?.checked_mul(1 << shift)
}

/// A size as somebody would write it.
pub fn size_text(bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let whole = |(_, shift): &(&str, u32)| bytes > 0 && bytes.is_multiple_of(1 << shift);
    match units.into_iter().find(whole) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Three or four octal digits, at most 0777; None for anything else.
pub(super) fn mode(word: &str) -> Option<u32> {
    let right = matches!(word.len(), 3 | 4) && word.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    if right { u32::from_str_radix(word, 8).ok().filter(|mode| *mode <= 0o777) } else { None }
}

fn split(word: &str) -> Option<(&str, &str)> {
    let end = word.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(word.len());
    word.split_at_checked(end).filter(|(digits, _)| !digits.is_empty())
}

fn number(digits: &str) -> Option<u64> {
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_whole_number_and_one_unit() {
        let good = [
            ("250ms", 250),
            ("10s", 10_000),
            ("5min", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("8760h", DURATION_MS_MAX),
        ];
        for (word, ms) in good {
            assert_eq!(duration_ms(word), Some(ms), "{word}");
        }
        for word in [
            "",
            "10",
            "s",
            "5m",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "1h30min",
            "8761h",
            "99999999999999999999s",
            "１s",
            "1S",
        ] {
            assert_eq!(duration_ms(word), None, "{word}");
        }
    }

    #[test]
    fn a_duration_is_written_in_its_largest_whole_unit_and_reads_back() {
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (120_000, "2min"),
            (7_200_000, "2h"),
        ] {
            assert_eq!(duration_text(ms), text);
            assert_eq!(duration_ms(text), Some(ms));
        }
    }

    #[test]
    fn sizes_count_by_1024_and_do_not_overflow() {
        for (word, bytes) in
            [("0", 0), ("64K", 65_536), ("10M", 10_485_760), ("1G", 1 << 30), ("2T", 2 << 40)]
        {
            assert_eq!(size_bytes(word), Some(bytes), "{word}");
            assert_eq!(size_text(bytes), word);
        }
        for word in ["", "K", "10k", "10MB", "1.5G", "-1", "99999999999T"] {
            assert_eq!(size_bytes(word), None, "{word}");
        }
    }

    #[test]
    fn modes_are_octal_permission_bits() {
        assert_eq!((mode("0660"), mode("027"), mode("0777")), (Some(0o660), Some(0o27), Some(0o777)));
        for word in ["", "0", "66", "0680", "1777", "4755", "00660", "+660", "0o60"] {
            assert_eq!(mode(word), None, "{word}");
        }
    }
}
