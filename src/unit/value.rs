//! PURE. One TOML value into one typed value, by the shape that the key table gives. Never knows of other keys.

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::account::{self, Account};
use super::address::Listen;
use super::capability::Capability;
use super::command::{self, Command, Piece};
use super::fault::{CommandFault, Fault, ValueFault};
use super::keys::{Key, Preset, Shape, Since};
use super::model::{Environment, Reload, Who};
use super::nearest::nearest;
use super::signal::Signal;
use super::source::Source;
use super::{COMMAND_BYTES_MAX, LIST_MAX, TEXT_BYTES_MAX, forms};

/// Placeholders of a command that stand for something the unit has to have, and where they are.
pub(super) type Asked = Vec<(Piece, Range<usize>)>;

/// A value that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Texts(Vec<String>),
    Path(PathBuf),
    Flag(bool),
    Number(i64),
    /// None for `"off"`.
    Count(Option<u32>),
    /// Milliseconds; None for `"off"`.
    Duration(Option<u64>),
    /// Bytes; None for `"unlimited"`.
    Size(Option<u64>),
    Mode(u32),
    Signal(Signal),
    Choice(&'static str),
    /// A descriptor's number, at least 3.
    Descriptor(u32),
    /// With what it asks for and where.
    Command(Command, Asked),
    Commands(Vec<Command>, Asked),
    Reload(Reload, Asked),
    /// Names with where each stands.
    Names(Vec<(String, Range<usize>)>),
    Capabilities(Vec<Capability>),
    Whos(Vec<Who>),
    Processors(Vec<u16>),
    Paths(Vec<PathBuf>),
    /// Hundredths of one processor.
    Percent(u32),
    Codes(Vec<u8>),
    Environment(Environment),
    Account(Account),
    Accounts(Vec<Account>),
    Address(Listen),
}

/// A TOML value by its type, or the text of a preset.
pub(super) enum Raw<'a> {
    Text(&'a str),
    /// None where it does not fit; with its text.
    Integer(Option<i64>, String),
    Float,
    Flag(bool),
    Date,
    List(&'a [Spanned<DeValue<'a>>]),
    Table(&'a DeTable<'a>),
    Empty,
}

impl Raw<'_> {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(..) => "an integer",
            Self::Float => "a fraction",
            Self::Flag(_) => "a boolean",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Empty => "nothing",
        }
    }
}

/// The reader of one value: which key, where, and whom to tell what is wrong.
pub(super) struct Reader<'a> {
    pub key: &'static Key,
    pub span: Range<usize>,
    pub source: &'a Source<'a>,
    pub note: &'a mut dyn FnMut(Range<usize>, Fault),
}

/// The value that stands for a key that nobody wrote; None where nothing does.
pub(super) fn preset(key: &'static Key) -> Option<Value> {
    let Preset::Is(text) = key.preset else { return None };
    let raw = if let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Raw::Text(inner)
    } else if let Ok(flag) = text.parse() {
        Raw::Flag(flag)
    } else if let Ok(number) = text.parse() {
        Raw::Integer(Some(number), text.to_owned())
    } else {
        Raw::Empty
    };
    Reader { key, span: 0..0, source: &Source::new("", ""), note: &mut |_, _| {} }.read(&raw)
}

/// Reads what somebody wrote. None where it is wrong, which has been told.
pub(super) fn read(reader: &mut Reader<'_>, value: &DeValue<'_>) -> Option<Value> {
    reader.read(&raw_of(value))
}

pub(super) fn raw_of<'a>(value: &'a DeValue<'_>) -> Raw<'a> {
    match value {
        DeValue::String(text) => Raw::Text(text),
        DeValue::Integer(integer) => {
            Raw::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).ok(), integer.to_string())
        }
        DeValue::Float(_) => Raw::Float,
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Datetime(_) => Raw::Date,
        DeValue::Array(items) => Raw::List(items),
        DeValue::Table(table) => Raw::Table(table),
    }
}

impl Reader<'_> {
    fn read(&mut self, raw: &Raw<'_>) -> Option<Value> {
        match self.key.shape {
            Shape::Text => self.text(raw).map(Value::Text),
            Shape::Texts | Shape::Names => self.texts(raw).map(Value::Texts),
            Shape::Path => self.path(raw).map(Value::Path),
            Shape::Flag => match raw {
                Raw::Flag(flag) => Some(Value::Flag(*flag)),
                Raw::Text(word) if matches!(*word, "true" | "false") => {
                    self.unfit(raw, Some("write it without quotes"))
                }
                _ => self.unfit(raw, None),
            },
            Shape::Number(least, most) => self.number(raw, least, most).map(Value::Number),
            Shape::Count => match raw {
                Raw::Text("off") => Some(Value::Count(None)),
                _ => {
                    let count = self.number(raw, 1, u32::MAX.into())?;
                    u32::try_from(count).ok().map(|count| Value::Count(Some(count)))
                }
            },
            Shape::Duration(least_ms) => self.duration(raw, least_ms, false),
            Shape::DurationOrOff(least_ms) => self.duration(raw, least_ms, true),
            Shape::Size(least) => self.size(raw, least).map(Value::Size),
            Shape::Mode => self.mode(raw).map(Value::Mode),
            Shape::Signal => self.signal(raw).map(Value::Signal),
            Shape::Choice(choices) => {
                let word = self.choice(raw, choices)?;
                if let Raw::Table(table) = raw { self.descriptor(table) } else { Some(Value::Choice(word)) }
            }
            Shape::Command => self.command(raw),
            Shape::Codes => self.codes(raw).map(Value::Codes),
            Shape::Environment => self.environment(raw).map(Value::Environment),
            Shape::Account => self.account(raw).map(Value::Account),
            Shape::Accounts => self.accounts(raw).map(Value::Accounts),
            Shape::Address => self.address(raw).map(Value::Address),
            Shape::Commands => self.commands(raw),
            Shape::Units => self.units(raw).map(Value::Names),
            Shape::Variables => self.variables(raw).map(Value::Names),
            Shape::Capabilities => self.capabilities(raw).map(Value::Capabilities),
            Shape::Whos => self.whos(raw).map(Value::Whos),
            Shape::Processors => self.processors(raw).map(Value::Processors),
            Shape::Paths => self.paths(raw).map(Value::Paths),
            Shape::Directory => self.directory(raw).map(Value::Text),
            Shape::SocketName => self.socket_name(raw).map(Value::Text),
            Shape::GivenName => self.given_name(raw).map(Value::Text),
            Shape::Host => self.host(raw).map(Value::Text),
            Shape::UrlPath => self.url_path(raw).map(Value::Text),
            Shape::Percent => self.percent(raw).map(Value::Percent),
            Shape::Reload => self.reload(raw),
        }
    }

    pub(super) fn tell<T>(&mut self, fault: impl Into<Fault>) -> Option<T> {
        self.tell_at(self.span.clone(), fault)
    }

    pub(super) fn tell_at<T>(&mut self, span: Range<usize>, fault: impl Into<Fault>) -> Option<T> {
        (self.note)(span, fault.into());
        None
    }

    pub(super) fn name(&self) -> String {
        self.key.name.to_owned()
    }

    /// The type is wrong.
    pub(super) fn unfit<T>(&mut self, raw: &Raw<'_>, remedy: Option<&str>) -> Option<T> {
        let (wants, remedy) = (wants(self.key.shape).to_owned(), remedy.map(str::to_owned));
        self.tell(ValueFault::Type { key: self.name(), wants, got: raw.kind(), remedy })
    }

    /// The type is right and the form is wrong.
    pub(super) fn misshapen<T>(&mut self, word: &str, wants: &str, remedy: &str) -> Option<T> {
        let (word, wants, remedy) = (word.to_owned(), wants.to_owned(), remedy.to_owned());
        self.tell(ValueFault::Form { key: self.name(), word, wants, remedy })
    }

    /// A string without NUL; None after telling.
    pub(super) fn string<'r>(&mut self, raw: &Raw<'r>) -> Option<&'r str> {
        match raw {
            Raw::Text(text) if text.contains('\0') => self.tell(ValueFault::Nul { key: self.name() }),
            Raw::Text(text) => Some(text),
            _ => self.unfit(raw, None),
        }
    }

    /// The strings of a list, each with where it is; None after telling of the first that is none.
    pub(super) fn strings<'r>(
        &mut self,
        items: &'r [Spanned<DeValue<'_>>],
    ) -> Option<Vec<(&'r str, Range<usize>)>> {
        let mut strings = Vec::new();
        for item in items {
            let DeValue::String(text) = item.get_ref() else {
                let (key, wants) = (self.name(), "a list of strings".to_owned());
                let got = raw_of(item.get_ref()).kind();
                return self.tell_at(item.span(), ValueFault::Type { key, wants, got, remedy: None });
            };
            if text.contains('\0') {
                return self.tell_at(item.span(), ValueFault::Nul { key: self.name() });
            }
            strings.push((text.as_ref(), item.span()));
        }
        Some(strings)
    }

    pub(super) fn text(&mut self, raw: &Raw<'_>) -> Option<String> {
        let text = self.string(raw)?;
        self.for_people(text, self.span.clone())
    }

    pub(super) fn for_people(&mut self, text: &str, span: Range<usize>) -> Option<String> {
        if text.len() > TEXT_BYTES_MAX {
            return self.tell_at(span, ValueFault::Long { key: self.name(), bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return self.tell_at(span, ValueFault::Control { key: self.name() });
        }
        Some(text.to_owned())
    }

    pub(super) fn texts(&mut self, raw: &Raw<'_>) -> Option<Vec<String>> {
        match raw {
            Raw::Empty => Some(Vec::new()),
            Raw::List(items) if items.len() > LIST_MAX => self.tell(ValueFault::Many { key: self.name() }),
            Raw::List(items) => {
                let strings = self.strings(items)?;
                strings.into_iter().map(|(text, span)| self.for_people(text, span)).collect()
            }
            _ => self.text(raw).map(|text| vec![text]),
        }
    }

    pub(super) fn path(&mut self, raw: &Raw<'_>) -> Option<PathBuf> {
        let path = self.string(raw)?;
        if !path.starts_with('/') {
            return self.misshapen(
                path,
                "an absolute path",
                "write it from the root on, such as `/srv/bagels`",
            );
        }
        if path.len() >= PATH_BYTES_MAX {
            return self.misshapen(path, "a path that fits", "the kernel has room for 4095 bytes");
        }
        Some(path.into())
    }

    pub(super) fn number(&mut self, raw: &Raw<'_>, least: i64, most: i64) -> Option<i64> {
        match raw {
            Raw::Integer(Some(number), _) if (least..=most).contains(number) => Some(*number),
            Raw::Integer(_, word) => {
                self.tell(ValueFault::Range { key: self.name(), word: word.clone(), least, most })
            }
            Raw::Text(word) if word.parse::<i64>().is_ok() => {
                self.unfit(raw, Some("write it without quotes"))
            }
            _ => self.unfit(raw, None),
        }
    }

    fn duration(&mut self, raw: &Raw<'_>, least_ms: u64, off: bool) -> Option<Value> {
        if let Raw::Integer(Some(number @ 0..), _) = raw {
            return self.unfit(raw, Some(&format!("write `\"{number}s\"`")));
        }
        let word = self.string(raw)?;
        if off && word == "off" {
            return Some(Value::Duration(None));
        }
        match forms::duration_ms(word) {
            Some(ms) if ms < least_ms => self.tell(ValueFault::Short { key: self.name(), least_ms, off }),
            Some(ms) => Some(Value::Duration(Some(ms))),
            None => self.misshapen(word, "a duration", &duration_remedy(word, off)),
        }
    }

    fn size(&mut self, raw: &Raw<'_>, least: u64) -> Option<Option<u64>> {
        let (bytes, word) = match raw {
            Raw::Integer(bytes, word) => (bytes.and_then(|bytes| u64::try_from(bytes).ok()), word.as_str()),
            _ => match self.string(raw)? {
                "unlimited" => return Some(None),
                word => match forms::size_bytes(word) {
                    Some(bytes) => (Some(bytes), word),
                    None => {
                        let remedy = "write it such as `\"64K\"`, `\"10M\"` or `\"1G\"`";
                        return self.misshapen(word, "a size", remedy);
                    }
                },
            },
        };
        if let Some(bytes) = bytes.filter(|bytes| (least..=i64::MAX as u64).contains(bytes)) {
            return Some(Some(bytes));
        }
        match bytes {
            Some(bytes) if bytes < least => {
                self.tell(ValueFault::Small { key: self.name(), least_bytes: least })
            }
            Some(_) | None => {
                let (key, word) = (self.name(), word.to_owned());
                self.tell(ValueFault::Range { key, word, least: 0, most: i64::MAX })
            }
        }
    }

    fn mode(&mut self, raw: &Raw<'_>) -> Option<u32> {
        let example = match self.key.preset {
            Preset::Is(text) | Preset::Unset(text) | Preset::Required(text) => text,
        };
        let remedy = format!("write it such as `{example}`");
        if let Raw::Integer(..) = raw {
            return self.unfit(raw, Some(&remedy));
        }
        let word = self.string(raw)?;
        forms::mode(word).or_else(|| self.misshapen(word, "an octal mode", &remedy))
    }

    pub(super) fn signal(&mut self, raw: &Raw<'_>) -> Option<Signal> {
        if let Raw::Integer(..) = raw {
            return self.unfit(raw, Some("write its name, such as `\"TERM\"`"));
        }
        let word = self.string(raw)?;
        match Signal::named(word) {
            Some(Signal::STOP) => self.tell(ValueFault::Endless { key: self.name(), word: word.to_owned() }),
            Some(signal) => Some(signal),
            None => {
                let upper = word.to_uppercase();
                let short = upper.strip_prefix("SIG").unwrap_or(&upper);
                let meant = Signal::names().find(|name| *name == short);
                let remedy = match meant.or_else(|| nearest(short, Signal::names()).map(|(name, _)| name)) {
                    Some(name) => format!("did you mean `\"{name}\"`?"),
                    None => "write its name, such as `\"TERM\"`".to_owned(),
                };
                self.misshapen(word, "a signal's name", &remedy)
            }
        }
    }

    fn choice(&mut self, raw: &Raw<'_>, choices: &'static [(&'static str, Since)]) -> Option<&'static str> {
        let found = |word: &str| choices.iter().find(|(choice, _)| *choice == word);
        let braced = || choices.iter().find(|(choice, _)| choice.starts_with('{'));
        let chosen = match raw {
            Raw::Table(_) => braced(),
            _ => found(self.string(raw)?).filter(|(choice, _)| !choice.starts_with('{')),
        };
        match (chosen, raw) {
            (Some((word, Since::Now)), _) => Some(word),
            (Some((word, Since::Later)), _) => {
                self.tell::<()>(ValueFault::NotYet { key: self.name(), word: (*word).to_owned() });
                Some(word)
            }
            (None, Raw::Text(word)) => {
                let of =
                    |since| choices.iter().filter(move |(_, other)| *other == since).map(|(word, _)| *word);
                // Where nothing can be chosen yet, the key has been told of, and what there will be is of use.
                let since = if of(Since::Now).next().is_some() { Since::Now } else { Since::Later };
                let meant =
                    nearest(word, choices.iter().map(|(word, _)| *word)).map(|(word, _)| word.to_owned());
                let known = of(since).map(str::to_owned).collect();
                self.tell(ValueFault::Choice { key: self.name(), word: (*word).to_owned(), known, meant })
            }
            (None, _) => self.unfit(raw, None),
        }
    }

    pub(super) fn command(&mut self, raw: &Raw<'_>) -> Option<Value> {
        let words: Vec<(String, Range<usize>)> = match raw {
            Raw::List(items) => {
                let words = self.strings(items)?;
                words.into_iter().map(|(word, span)| (word.to_owned(), span)).collect()
            }
            _ => {
                let text = self.string(raw)?;
                match command::split(text) {
                    Ok(words) => words.into_iter().map(|word| (word, self.span.clone())).collect(),
                    Err((part, fault)) => {
                        // Only where the file has the string as it stands is a part of one a part of the other.
                        let whole = self.source.inside(&self.span, text);
                        let exact = whole.start + part.start..whole.start + part.end;
                        let span = if whole.len() == text.len() { exact } else { self.span.clone() };
                        return self.tell_at(span, fault);
                    }
                }
            }
        };
        let bytes: usize = words.iter().map(|(word, _)| word.len() + 1).sum();
        match words.first() {
            None => return self.tell(CommandFault::Empty),
            Some((program, _)) if program.is_empty() => return self.tell(CommandFault::NoProgram),
            Some(_) if bytes > COMMAND_BYTES_MAX => return self.tell(CommandFault::Long { bytes }),
            Some(_) => {}
        }
        let (mut command, mut asked, mut right) = (Command::default(), Vec::new(), true);
        command.argv.reserve_exact(words.len());
        for (word, span) in words {
            let (word, faults) = command::pieces(&word);
            for (text, fault) in faults {
                right &= matches!(fault, CommandFault::PlaceholderNotYet { .. });
                self.tell_at::<()>(self.source.inside(&span, &text), fault);
            }
            for piece in &word.pieces {
                if matches!(piece, Piece::Fd(_) | Piece::Directory(_)) {
                    asked.push((piece.clone(), self.source.inside(&span, &piece.written())));
                }
            }
            command.argv.push(word);
        }
        right.then_some(Value::Command(command, asked))
    }

    fn account(&mut self, raw: &Raw<'_>) -> Option<Account> {
        match raw {
            Raw::Integer(number, word) => match number.and_then(Account::numbered) {
                Some(account) => Some(account),
                None => self.tell(ValueFault::AccountNumber { key: self.name(), word: word.clone() }),
            },
            _ => {
                let word = self.string(raw)?;
                match Account::named(word) {
                    Some(account) => Some(account),
                    None if account::numeric(word) => {
                        self.misshapen(word, "the name of an account", "write a number without quotes")
                    }
                    None => self.misshapen(
                        word,
                        "the name of an account",
                        "write the name of an account, or a number without quotes",
                    ),
                }
            }
        }
    }

    fn accounts(&mut self, raw: &Raw<'_>) -> Option<Vec<Account>> {
        let Raw::List(items) = raw else {
            return self.unfit(raw, Some("write a list, such as `[\"media\"]`"));
        };
        if items.len() > LIST_MAX {
            return self.tell(ValueFault::Many { key: self.name() });
        }
        let whole = self.span.clone();
        let mut accounts = Vec::new();
        for item in *items {
            self.span = item.span();
            accounts.push(self.account(&raw_of(item.get_ref())));
        }
        self.span = whole;
        accounts.into_iter().collect()
    }

    fn address(&mut self, raw: &Raw<'_>) -> Option<Listen> {
        match raw {
            Raw::Integer(_, word) => self.unfit(raw, Some(&format!("did you mean `\":{word}\"`?"))),
            Raw::Text(word) => match Listen::parse(word) {
                Ok(listen) => Some(listen),
                Err(fault) => self.tell(fault),
            },
            _ => self.unfit(raw, None),
        }
    }
}

/// PATH_MAX with its NUL.
const PATH_BYTES_MAX: usize = 4096;

/// What a key of this shape takes.
pub(super) const fn wants(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "a string",
        Shape::Texts => "a string or a list of strings",
        Shape::Names => "a list of strings",
        Shape::Path => "an absolute path",
        Shape::Flag => "`true` or `false`",
        Shape::Number(..) => "a whole number",
        Shape::Count => "a whole number or `\"off\"`",
        Shape::Duration(_) => "a duration",
        Shape::DurationOrOff(_) => "a duration or `\"off\"`",
        Shape::Size(_) => "a size or `\"unlimited\"`",
        Shape::Mode => "an octal mode in quotes",
        Shape::Signal => "a signal's name",
        Shape::Choice(_) => "a word in quotes",
        Shape::Command => "a list of strings, or one string",
        Shape::Commands => "a list of commands",
        Shape::Codes => "a list of exit codes",
        Shape::Environment => "a table of strings",
        Shape::Account => "a name or a number",
        Shape::Accounts => "a list of names or numbers",
        Shape::Address => "an address in quotes",
        Shape::Units => "a list of unit names",
        Shape::Variables => "a list of variables' names",
        Shape::Capabilities => "a list of capabilities",
        Shape::Whos => "a list of `\"user:NAME\"`, `\"group:NAME\"` and `\"*\"`",
        Shape::Processors => "a list of processors, such as `[0, \"4-7\"]`",
        Shape::Paths => "a list of absolute paths",
        Shape::Directory => "a name without a slash",
        Shape::SocketName => "the name of a socket",
        Shape::GivenName => "the name of a descriptor",
        Shape::Host => "a host name",
        Shape::UrlPath => "a path that begins with `/`",
        Shape::Percent => "processor time, such as `\"50%\"`",
        Shape::Reload => "`{ signal = \"HUP\" }` or `{ command = [...] }`",
    }
}

/// What to write in the place of a word that is no duration.
fn duration_remedy(word: &str, off: bool) -> String {
    let digits = word.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let whole = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let unit = match word.get(digits.len()..).unwrap_or_default().trim() {
        "" | "sec" | "secs" | "second" | "seconds" | "S" => Some("s"),
        "m" | "M" | "mins" | "minute" | "minutes" => Some("min"),
        "hr" | "H" | "hour" | "hours" => Some("h"),
        "msec" | "millis" => Some("ms"),
        _ => None,
    };
    match (whole, unit, off) {
        (true, Some(unit), _) => format!("did you mean `\"{digits}{unit}\"`?"),
        (_, _, true) => {
            "write it such as `\"250ms\"`, `\"10s\"`, `\"5min\"`, `\"1h\"` or `\"off\"`".to_owned()
        }
        (_, _, false) => "write it such as `\"250ms\"`, `\"10s\"`, `\"5min\"` or `\"1h\"`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::keys::KEYS;

    #[test]
    fn every_default_of_the_table_reads() {
        for key in KEYS {
            match key.preset {
                Preset::Is(_) => assert!(preset(key).is_some(), "{} in {}", key.name, key.table.header()),
                Preset::Unset(_) | Preset::Required(_) => assert!(preset(key).is_none()),
            }
        }
    }
}
