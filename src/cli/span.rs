//! USER. Lengths of time and sizes as people write them. Never a clock.

/// Reads a duration: a whole number and `ms`, `s`, `min` or `h`; `off` is `None`, no limit.
///
/// Errors: what is wrong with it. In milliseconds.
pub fn parse(text: &str) -> Result<Option<u64>, String> {
    let form =
        "a duration is a whole number with its unit, `250ms`, `10s`, `5min`, `1h`, or `off` for no limit";
    if text == "off" {
        return Ok(None);
    }
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(form.to_owned()),
    };
    if number.is_empty() {
        return Err(form.to_owned());
    }
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    ms.map(Some).ok_or_else(|| "that is longer than time can be counted".to_owned())
}

/// A length of time in its two largest units: `45s`, `3min`, `2h 5min`, `3d 4h`.
pub fn long(seconds: u64) -> String {
    let two = |large: u64, name: &str, small: u64, other: &str| match small {
        0 => format!("{large}{name}"),
        _ => format!("{large}{name} {small}{other}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}min", seconds / 60),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        86_400.. => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// Seconds from `since` (RFC 3339) to `now`, both in seconds since 1970; 0 where `since` is in the future, as
/// after a correction of the clock.
pub fn between(since: &str, now: i64) -> Option<u64> {
    Some(now.saturating_sub(seconds(since)?).try_into().unwrap_or(0))
}

/// Seconds since 1970 of a point in time in RFC 3339.
pub fn seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|stamp| stamp.as_second())
}

/// A size with its unit: `512B`, `12.3M`, `4.0G`.
pub fn size(bytes: u64) -> String {
    let (mut value, mut units) = (bytes as f64, ["K", "M", "G", "T", "P"].iter());
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut unit = "";
    while value >= 1023.95 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024.0, next);
    }
    format!("{value:.1}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_the_contract_says() {
        assert_eq!(parse("250ms"), Ok(Some(250)));
        assert_eq!(parse("10s"), Ok(Some(10_000)));
        assert_eq!(parse("5min"), Ok(Some(300_000)));
        assert_eq!(parse("1h"), Ok(Some(3_600_000)));
        assert_eq!(parse("0s"), Ok(Some(0)));
        assert_eq!(parse("off"), Ok(None));
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1m",
            "1S",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_sizes_are_short() {
        let times: Vec<String> = [0, 59, 60, 3_599, 3_600, 7_500, 86_399, 86_400, 273_600].map(long).to_vec();
        assert_eq!(times, ["0s", "59s", "1min", "59min", "1h", "2h 5min", "23h 59min", "1d", "3d 4h"]);
        let sizes: Vec<String> = [0, 1023, 1024, 12_897_485, 1_048_575, 1 << 32].map(size).to_vec();
        assert_eq!(sizes, ["0B", "1023B", "1.0K", "12.3M", "1.0M", "4.0G"]);
    }

    #[test]
    fn points_in_time_are_rfc_3339() {
        assert_eq!(between("1970-01-01T00:01:00Z", 90), Some(30));
        assert_eq!(between("1970-01-01T01:01:00.5+01:00", 90), Some(30));
        assert_eq!(between("1970-01-01T00:01:00Z", 0), Some(0));
        assert_eq!(between("yesterday", 0), None);
    }
}
