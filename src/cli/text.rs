//! USER. Text from elsewhere made safe for a terminal. Never changes what is printable.

use std::fmt::Write as _;

/// The text with every character escaped that could act on a terminal or reorder what is read: C0, DEL, C1,
/// line and paragraph separators, and the marks of bidirectional text.
pub fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            c if c.is_ascii_control() => push(&mut safe, format_args!("\\x{:02x}", c as u32)),
            c if acts(c) => push(&mut safe, format_args!("\\u{{{:x}}}", c as u32)),
            c => safe.push(c),
        }
    }
    safe
}

/// JSON text with the same characters written as `\uXXXX`. In JSON they stand only inside of strings, and
/// there that means the same; C0 is escaped already.
pub fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Between the values; a string has these escaped.
            '\n' => safe.push('\n'),
            c if acts(c) => push(&mut safe, format_args!("\\u{:04x}", c as u32)),
            c => safe.push(c),
        }
    }
    safe
}

fn push(text: &mut String, escape: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(escape);
}

const fn acts(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Colours, where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(bool);

/// What a word says, as a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way, or not quite.
    Between,
    /// Not as it should be.
    Bad,
    /// At rest.
    Quiet,
    /// The head of a table, the name of a page.
    Head,
}

impl Paint {
    /// Colours on, or off.
    pub const fn new(on: bool) -> Self {
        Self(on)
    }

    /// On for a terminal that is not told otherwise (<https://no-color.org>, `TERM=dumb`).
    pub fn for_stdout() -> Self {
        use std::io::IsTerminal;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self::new(!plain && !dumb && std::io::stdout().is_terminal())
    }

    /// The text in a colour that is always the same for this name.
    pub fn one_of_many(self, name: &str, text: &str) -> String {
        // Not red: nothing has failed.
        let colours = ["36", "33", "32", "35", "34", "96", "93", "92", "95", "94"];
        let sum = name.bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        match colours.get(sum % colours.len()) {
            Some(code) if self.0 => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Some(_) | None => text.to_owned(),
        }
    }

    /// The text in that tone.
    pub fn tint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Between => "33",
            Tone::Bad => "31",
            Tone::Quiet => "2",
            Tone::Head => "1",
        };
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped_and_the_rest_is_left() {
        assert_eq!(shown("Größe 12 µs, 日本"), "Größe 12 µs, 日本");
        assert_eq!(shown("a\u{1b}[2Jb\rc\nd\te\u{7f}"), "a\\x1b[2Jb\\rc\\nd\\te\\x7f");
        assert_eq!(shown("\u{9b}31m\u{202e}txt\u{2066}"), "\\u{9b}31m\\u{202e}txt\\u{2066}");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "a": "\u{9b}\u{202e}\u{7f}\n\u{1b}ü" });
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.contains(r"\u009b\u202e\u007f\n\u001bü"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            prop_assert!(!shown(&text).chars().any(acts));
            let value = serde_json::Value::from(text);
            let safe = json(&value.to_string());
            prop_assert!(!safe.chars().any(acts));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        }
    }
}
