//! PURE. Who: a user or a group, by name or by number. Never looks one up.

use std::fmt;

/// A user or a group as the unit names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// The name of an account.
    Name(String),
    /// A number, for which there need not be an account; never 4294967295, which to setresuid(2) means "leave
    /// it as it is".
    Id(u32),
}

/// Longest name: what useradd(8) and the C library's buffers agree on, with room for a directory's domain.
const NAME_BYTES_MAX: usize = 255;

impl Account {
    /// The name, if it can be one. A number in quotes is not: programs have taken `0x0`, `-1` and `4294967295`
    /// in the place of a name for a number, and so for root.
    pub(super) fn named(word: &str) -> Option<Self> {
        let odd =
            |letter: char| letter.is_control() || letter.is_whitespace() || matches!(letter, ':' | '/' | ',');
        let right = !word.is_empty()
            && word.len() <= NAME_BYTES_MAX
            && !word.starts_with(['-', '+'])
            && !numeric(word)
            && !word.contains(odd);
        right.then(|| Self::Name(word.to_owned()))
    }

    /// The number, if it is a uid or gid.
    pub(super) fn numbered(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|id| *id != u32::MAX).map(Self::Id)
    }

    /// Whether root is written out. Nothing else may come to mean uid 0: no number, and no other name.
    pub fn is_root(&self) -> bool {
        matches!(self, Self::Name(name) if name == "root")
    }
}

/// Whether it reads as a number in some base.
pub(super) fn numeric(word: &str) -> bool {
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
    let hex = digits.len() < word.len();
    !digits.is_empty()
        && digits.bytes().all(|digit| digit.is_ascii_digit() || hex && digit.is_ascii_hexdigit())
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => out.write_str(name),
            Self::Id(id) => write!(out, "{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_number_or_an_option() {
        for word in ["bagels", "www-data", "_apt", "0day", "user@example.org", "host$", "J\u{f6}rg"] {
            assert_eq!(Account::named(word), Some(Account::Name(word.to_owned())), "{word}");
        }
        for word in
            ["", "0", "1000", "0x0", "0XfF", "4294967295", "-1", "+0", "a b", "a:b", "../x", "a\n", "a,b"]
        {
            assert_eq!(Account::named(word), None, "{word}");
        }
        assert_eq!(Account::named(&"a".repeat(256)), None);
    }

    #[test]
    fn a_number_is_a_uid_and_not_the_one_that_changes_nothing() {
        assert_eq!(Account::numbered(0), Some(Account::Id(0)));
        assert_eq!(Account::numbered(4_294_967_294), Some(Account::Id(u32::MAX - 1)));
        for number in [-1, 4_294_967_295, 4_294_967_296, i64::MIN, i64::MAX] {
            assert_eq!(Account::numbered(number), None, "{number}");
        }
    }
}
