//! USER. Points in time as people write them. Never asks a clock.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

const FORM: &str =
    "a point in time is `02:10`, `2026-11-23`, `2026-11-23 02:10`, `10min ago`, `yesterday`, or RFC 3339";

/// What a text means at `now` where the clocks show `zone`.
///
/// `02:10` is the last time that the clocks showed that.
pub fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    let today = now.to_zoned_datetime(zone.clone()).date();
    let midnight = |date: Date| at(date.to_datetime(Time::midnight()), zone);
    match text {
        "now" => return Ok(now),
        "today" => return midnight(today),
        "yesterday" => return midnight(today.yesterday().map_err(|_| FORM.to_owned())?),
        _ => {}
    }
    if let Some(long) = text.strip_suffix(" ago").and_then(long) {
        return now.checked_sub(long).map_err(|_| "that is longer ago than time goes back".to_owned());
    }
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Ok(stamp);
    }
    let spaced = text.replacen('T', " ", 1);
    for form in ["%H:%M", "%H:%M:%S"] {
        if let Ok(time) = Time::strptime(form, text) {
            let stamp = at(today.to_datetime(time), zone)?;
            let day_before = || at(today.to_datetime(time).checked_sub(1.day()).map_err(|_| FORM)?, zone);
            return if stamp <= now { Ok(stamp) } else { day_before() };
        }
        if let Ok(moment) = DateTime::strptime(format!("%Y-%m-%d {form}"), &spaced) {
            return at(moment, zone);
        }
    }
    Date::strptime("%Y-%m-%d", text).map_err(|_| FORM.to_owned()).and_then(midnight)
}

fn at(moment: DateTime, zone: &TimeZone) -> Result<Timestamp, String> {
    let zoned = moment.to_zoned_datetime(zone.clone()).map_err(|_| FORM.to_owned())?;
    Ok(zoned.timestamp())
}

/// `90s`, `10min`, `2h`, `3d`.
fn long(text: &str) -> Option<SignedDuration> {
    let end = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim_start() {
        "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        _ => return None,
    };
    Some(SignedDuration::from_secs(number.parse::<i64>().ok()?.checked_mul(factor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let now: Timestamp = "2026-11-23T03:12:45Z".parse().unwrap();
        parse(text, now, &TimeZone::fixed(jiff::tz::offset(1))).map(|stamp| stamp.to_string())
    }

    #[test]
    fn a_time_is_read_in_local_time_and_lies_in_the_past() {
        for (text, expected) in [
            ("02:10", "2026-11-23T01:10:00Z"),
            ("04:12:45", "2026-11-23T03:12:45Z"),
            ("04:13", "2026-11-22T03:13:00Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-11-20 01:00", "2026-11-20T00:00:00Z"),
            ("2026-11-20T01:00:05", "2026-11-20T00:00:05Z"),
            ("2026-11-20T01:00:05Z", "2026-11-20T01:00:05Z"),
            ("2026-11-20T01:00:05.5+02:00", "2026-11-19T23:00:05.5Z"),
            ("10min ago", "2026-11-23T03:02:45Z"),
            ("2 h ago", "2026-11-23T01:12:45Z"),
            ("3d ago", "2026-11-20T03:12:45Z"),
            ("today", "2026-11-22T23:00:00Z"),
            ("yesterday", "2026-11-21T23:00:00Z"),
            ("now", "2026-11-23T03:12:45Z"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_said_to_be_none() {
        for text in ["", "2", "25:00", "10min", "ago", "10 parsecs ago", "2026-13-01", "tomorrow"] {
            assert_eq!(parsed(text), Err(FORM.to_owned()), "{text}");
        }
        let far = format!("{}d ago", i64::MAX / 86_400);
        assert_eq!(parsed(&far), Err("that is longer ago than time goes back".to_owned()));
    }
}
