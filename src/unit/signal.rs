//! PURE. Signals by name. Never sends one.
//!
//! Numbers are those of Linux on x86_64 and aarch64 (signal(7)); the first two real-time signals belong to the
//! C library, so that `RTMIN` is 34.

use std::fmt;

/// A signal, 1 to 64. Shown, its name without `SIG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

const REAL_TIME_FIRST: u8 = 34;
const REAL_TIME_LAST: u8 = 64;

/// Names and numbers; where two names share a number the first is shown.
const NAMES: &[(&str, u8)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

impl Signal {
    /// Asks a process to end.
    pub const TERM: Self = Self(15);
    /// Ends it.
    pub const KILL: Self = Self(9);
    /// Stops it until it is continued.
    pub const STOP: Self = Self(19);

    /// The signal of this name, with or without `SIG`: `TERM`, `SIGHUP`, `RTMIN+3`, `RTMAX-1`; None for any
    /// other word. Case counts.
    pub fn named(word: &str) -> Option<Self> {
        let word = word.strip_prefix("SIG").unwrap_or(word);
        if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == word) {
            return Some(Self(*number));
        }
        let number = if let Some(rest) = word.strip_prefix("RTMIN") {
            REAL_TIME_FIRST.checked_add(offset(rest, '+')?)
        } else {
            REAL_TIME_LAST.checked_sub(offset(word.strip_prefix("RTMAX")?, '-')?)
        };
        number.filter(|number| (REAL_TIME_FIRST..=REAL_TIME_LAST).contains(number)).map(Self)
    }

    /// The signal of this number, 1 to 64 without the two of the C library.
    pub fn numbered(number: i32) -> Option<Self> {
        let known = |number: &u8| {
            NAMES.iter().any(|(_, one)| one == number) || (REAL_TIME_FIRST..=REAL_TIME_LAST).contains(number)
        };
        u8::try_from(number).ok().filter(known).map(Self)
    }

    /// Its number, 1 to 64.
    pub fn number(self) -> i32 {
        self.0.into()
    }

    /// Names to choose from, for hints.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }
}

/// What follows `RTMIN` or `RTMAX`: nothing, or the sign and a number.
fn offset(rest: &str, sign: char) -> Option<u8> {
    if rest.is_empty() {
        return Some(0);
    }
    let digits = rest.strip_prefix(sign)?;
    if digits.bytes().all(|digit| digit.is_ascii_digit()) { digits.parse().ok() } else { None }
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => out.write_str(name),
            None if self.0 == REAL_TIME_FIRST => out.write_str("RTMIN"),
            None => write!(out, "RTMIN+{}", self.0.saturating_sub(REAL_TIME_FIRST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel() {
        for (word, number) in
            [("HUP", 1), ("SIGTERM", 15), ("KILL", 9), ("USR2", 12), ("WINCH", 28), ("CONT", 18), ("PWR", 30)]
        {
            assert_eq!(Signal::named(word).map(Signal::number), Some(number), "{word}");
        }
        assert_eq!(Signal::named("TERM").map(Signal::number), Some(libc::SIGTERM));
        assert_eq!(Signal::named("RTMIN").map(Signal::number), Some(libc::SIGRTMIN()));
        assert_eq!(Signal::named("RTMAX").map(Signal::number), Some(libc::SIGRTMAX()));
        assert_eq!(Signal::named("SIGRTMIN+3").map(Signal::number), Some(37));
        for word in [
            "",
            "SIG",
            "term",
            "15",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN+ 1",
            "RTMIN++1",
            "RTMAX-31",
            "RTMIN+300",
            "SIGSIGTERM",
        ] {
            assert_eq!(Signal::named(word), None, "{word}");
        }
    }

    #[test]
    fn every_signal_is_shown_as_a_name_that_reads_back() {
        for number in (1..=31).chain(34..=64) {
            let signal = Signal(number);
            assert_eq!(Signal::named(&signal.to_string()), Some(signal));
            assert_eq!(Signal::numbered(signal.number()), Some(signal));
        }
        assert_eq!([0, 32, 33, 65].map(Signal::numbered), [None; 4]);
    }
}
