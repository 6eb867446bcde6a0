//! PURE. `units/reference.toml`, printed from the key table. Never written by hand.

use super::forms::{duration_text, size_text};
use super::keys::{Key, Preset, Shape, Since, Table};
use super::value::wants;

/// Most characters of a line of the reference.
const WIDTH: usize = 100;

const HEAD: &str = "Every key that a unit file knows, what it takes and what stands for it when nobody writes it. \
                    Lines that begin with `#` and a key are the keys: those with a default show it, the others an \
                    example. This file is printed from the key table in src/unit/keys.rs; a test compares the two.";

/// The whole reference: TOML that is valid as it is, and says nothing.
pub fn reference() -> String {
    let mut text = String::new();
    comment(&mut text, HEAD);
    for table in Table::ALL {
        text.push('\n');
        comment(&mut text, table.doc());
        match table {
            Table::Top => {}
            Table::Socket => text.push_str("#[socket.NAME]\n"),
            _ => {
                text.push_str(&format!("#{}\n", table.header()));
            }
        }
        for key in table.keys() {
            row(&mut text, key);
        }
    }
    text
}

fn row(text: &mut String, key: &Key) {
    text.push('\n');
    comment(text, key.doc);
    let takes = takes(key);
    let (value, note) = match key.preset {
        Preset::Is(value) => (value, "The default:"),
        Preset::Unset(value) => (value, "Unset by default; an example:"),
        Preset::Required(value) => (value, "Required; an example:"),
    };
    let later = match key.since {
        Since::Now => "",
        Since::Later => "Not supported yet. ",
    };
    comment(text, &format!("{later}Takes {takes}. {note}"));
    text.push_str(&format!("#{} = {value}\n", key.name));
}

/// What the key takes, with its range and its choices.
pub(super) fn takes(key: &Key) -> String {
    let general = wants(key.shape);
    match key.shape {
        Shape::Number(least, i64::MAX) => format!("{general} from {least}"),
        Shape::Number(least, most) => format!("{general} from {least} to {most}"),
        Shape::Duration(least_ms) if least_ms > 0 => {
            format!("a duration of at least `{}`", duration_text(least_ms))
        }
        Shape::DurationOrOff(least_ms) if least_ms > 0 => {
            format!("a duration of at least `{}`, or `\"off\"`", duration_text(least_ms))
        }
        Shape::Size(least @ 1..) => {
            format!("a size of at least `\"{}\"`, or `\"unlimited\"`", size_text(least))
        }
        Shape::Choice(choices) => {
            let of = |wanted: Since| {
                let words =
                    choices.iter().filter(|(_, since)| *since == wanted).map(|(word, _)| quoted(word));
                words.collect::<Vec<_>>().join(", ")
            };
            match (of(Since::Now), of(Since::Later)) {
                (now, later) if later.is_empty() => now,
                (now, later) if now.is_empty() => later,
                (now, later) => format!("{now}; not supported yet: {later}"),
            }
        }
        Shape::Text
        | Shape::Texts
        | Shape::Names
        | Shape::Path
        | Shape::Flag
        | Shape::Count
        | Shape::Duration(_)
        | Shape::DurationOrOff(_)
        | Shape::Size(0)
        | Shape::Units
        | Shape::Variables
        | Shape::Capabilities
        | Shape::Whos
        | Shape::Processors
        | Shape::Paths
        | Shape::Directory
        | Shape::SocketName
        | Shape::GivenName
        | Shape::Host
        | Shape::UrlPath
        | Shape::Percent
        | Shape::Reload
        | Shape::Mode
        | Shape::Signal
        | Shape::Command
        | Shape::Commands
        | Shape::Codes
        | Shape::Environment
        | Shape::Account
        | Shape::Accounts
        | Shape::Address => general.to_owned(),
    }
}

/// A choice as it is written; one in braces is a table.
fn quoted(word: &str) -> String {
    if word.starts_with('{') { format!("`{word}`") } else { format!("`\"{word}\"`") }
}

/// The words as comment lines.
fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{Layer, Unit};

    /// A unit that each key can be added to as its example has it.
    fn around(key: &Key) -> String {
        let service =
            if key.table == Table::Service && key.name == "command" { "" } else { "command = \"x\"\n" };
        let kind = if key.name == "schedule" { "kind = \"task\"\n" } else { "" };
        let own = if key.table == Table::Service { line(key) } else { String::new() };
        let mut unit = if key.table == Table::Top { line(key) } else { String::new() };
        unit.push_str(&format!("[service]\n{service}{kind}{own}"));
        if key.table == Table::Health || key.name != "ready" {
            unit.push_str("[socket.http]\n");
        }
        match (key.table, key.name) {
            (Table::Socket, "mode" | "user" | "group") => {
                unit.push_str(&format!("listen = \"/run/a.sock\"\n{}", line(key)));
            }
            (Table::Socket, "listen") => unit.push_str(&line(key)),
            (Table::Socket, _) => unit.push_str(&format!("listen = \":80\"\n{}", line(key))),
            (_, "ready") => {}
            _ => unit.push_str("listen = \":80\"\n"),
        }
        match (key.table, key.name) {
            (Table::Top | Table::Service | Table::Socket, _) => {}
            (Table::Health, "http" | "uwsgi" | "command") => {
                unit.push_str(&format!("[health]\n{}", line(key)))
            }
            (Table::Health, "tcp") => unit.push_str(&format!("[health]\n{}http = \"/\"\n", line(key))),
            (Table::Health, _) => unit.push_str(&format!("[health]\nhttp = \"/\"\n{}", line(key))),
            (table, _) => unit.push_str(&format!("{}\n{}", table.header(), line(key))),
        }
        unit
    }

    #[test]
    fn every_key_reads_as_the_reference_shows_it() {
        for key in Table::ALL.into_iter().flat_map(Table::keys) {
            let text = around(key);
            let unit = Unit::parse_ahead("web", &[Layer { path: "reference", text: &text }]);
            let problems: Vec<String> = unit.err().iter().flatten().map(ToString::to_string).collect();
            assert_eq!(problems, Vec::<String>::new(), "{text}");
        }
    }

    fn line(key: &Key) -> String {
        let text = reference();
        let start = format!("#{} = ", key.name);
        let mut lines = text.lines().filter(|line| line.starts_with(&start));
        let own = match key.preset {
            Preset::Is(value) | Preset::Unset(value) | Preset::Required(value) => format!("{start}{value}"),
        };
        let found = lines
            .find(|line| **line == own)
            .unwrap_or_else(|| panic!("{} is not in the reference", key.name));
        format!("{}\n", found.trim_start_matches('#'))
    }

    #[test]
    fn no_line_is_too_wide() {
        for line in reference().lines().filter(|line| line.starts_with("# ")) {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }
}
