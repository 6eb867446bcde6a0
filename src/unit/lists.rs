//! PURE. Values with parts: lists of all kinds, the environment, and tables of a form of their own. Never knows of
//! other keys.

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::account::{Account, numeric};
use super::capability::Capability;
use super::command::Piece;
use super::fault::{CommandFault, Fault, ValueFault};
use super::model::{Environment, Reload, Who, is_name, is_variable};
use super::nearest::nearest;
use super::value::{Raw, Reader, Value, raw_of};
use super::{LIST_MAX, SOCKETS_MAX};

/// Most processors that the kernel can be built for.
const PROCESSORS_MAX: u16 = 8192;

impl Reader<'_> {
    /// The items of a list, not too many; None after telling.
    fn items<'r>(&mut self, raw: &Raw<'r>, remedy: Option<&str>) -> Option<&'r [Spanned<DeValue<'r>>]> {
        match raw {
            Raw::Empty => Some(&[]),
            Raw::List(items) if items.len() > LIST_MAX => self.tell(ValueFault::Many { key: self.name() }),
            Raw::List(items) => Some(items),
            _ => self.unfit(raw, remedy),
        }
    }

    /// The strings of a list that `make` makes something of; it says what is wrong with one of which it does not.
    /// Every wrong one is told.
    fn each<Item>(
        &mut self,
        raw: &Raw<'_>,
        make: impl Fn(&mut Self, &str) -> Option<Item>,
    ) -> Option<Vec<(Item, Range<usize>)>> {
        let items = self.items(raw, Some("write a list, also where there is one"))?;
        let whole = self.span.clone();
        let mut made = Some(Vec::new());
        for (word, span) in self.strings(items)? {
            self.span = span.clone();
            match (make(self, word), &mut made) {
                (Some(item), Some(made)) => made.push((item, span)),
                (Some(_), None) => {}
                (None, _) => made = None,
            }
        }
        self.span = whole;
        made
    }

    /// Commands that are given no sockets.
    pub(super) fn commands(&mut self, raw: &Raw<'_>) -> Option<Value> {
        let items = self.items(raw, Some("write a list of commands, also where there is one"))?;
        let (mut commands, mut needed) = (Some(Vec::new()), Vec::new());
        for item in items {
            let mut reader =
                Reader { key: self.key, span: item.span(), source: self.source, note: self.note };
            match (reader.socketless(&raw_of(item.get_ref())), &mut commands) {
                (Some((command, asked)), Some(commands)) => {
                    commands.push(command);
                    needed.extend(asked);
                }
                (Some(_), None) => {}
                (None, _) => commands = None, // told
            }
        }
        commands.map(|commands| Value::Commands(commands, needed))
    }

    /// A command that is given no sockets, with what else it asks for.
    fn socketless(&mut self, raw: &Raw<'_>) -> Option<(super::command::Command, super::value::Asked)> {
        let Some(Value::Command(command, asked)) = self.command(raw) else { return None };
        let mut right = true;
        for (piece, span) in &asked {
            if let Piece::Fd(name) = piece {
                right = false;
                let fault = CommandFault::NoSockets { key: self.name(), name: name.clone() };
                self.tell_at::<()>(span.clone(), fault);
            }
        }
        right.then_some((command, asked))
    }

    /// `{ signal = "HUP" }` or `{ command = [...] }`
    pub(super) fn reload(&mut self, raw: &Raw<'_>) -> Option<Value> {
        let wants = "`{ signal = \"HUP\" }` or `{ command = [...] }`";
        let Raw::Table(table) = raw else {
            let remedy = match raw {
                Raw::Text(_) => "write `{ signal = \"HUP\" }`",
                _ => "write `{ signal = \"HUP\" }` or `{ command = [\"bin/reload\"] }`",
            };
            return self.unfit(raw, Some(remedy));
        };
        let mut keys = table.iter();
        let (Some((key, value)), None) = (keys.next(), keys.next()) else {
            return self.misshapen("{ … }", wants, "write one of the two");
        };
        let mut reader = Reader { key: self.key, span: value.span(), source: self.source, note: self.note };
        match key.get_ref().as_ref() {
            "signal" => {
                let signal = reader.signal(&raw_of(value.get_ref()))?;
                Some(Value::Reload(Reload::Signal(signal), Vec::new()))
            }
            "command" => {
                let (command, asked) = reader.socketless(&raw_of(value.get_ref()))?;
                Some(Value::Reload(Reload::Command(command), asked))
            }
            word => {
                let near = nearest(word, ["signal", "command"].into_iter());
                let remedy = near
                    .map_or("write one of the two".to_owned(), |(near, _)| format!("did you mean `{near}`?"));
                self.misshapen(word, wants, &remedy)
            }
        }
    }

    pub(super) fn units(&mut self, raw: &Raw<'_>) -> Option<Vec<(String, Range<usize>)>> {
        self.each(raw, |reader, word| {
            if is_name(word) {
                return Some(word.to_owned());
            }
            let remedy = match word.strip_suffix(".toml").or_else(|| word.strip_suffix(".service")) {
                Some(stem) if is_name(stem) => format!("write `\"{stem}\"`"),
                Some(_) | None => "write the name of a unit's file without `.toml`".to_owned(),
            };
            reader.misshapen(word, "a unit's name", &remedy)
        })
    }

    pub(super) fn variables(&mut self, raw: &Raw<'_>) -> Option<Vec<(String, Range<usize>)>> {
        self.each(raw, |reader, word| {
            if is_variable(word) {
                return Some(word.to_owned());
            }
            let remedy = match word.split_once('=') {
                Some((name, _)) if is_variable(name) => "a value belongs in `[service.environment]`",
                Some(_) | None => "a variable's name has letters, digits and `_`, and starts with no digit",
            };
            // What stands behind the `=` may be a secret.
            let word = word.split('=').next().unwrap_or_default();
            reader.misshapen(word, "a variable's name alone", remedy)
        })
    }

    pub(super) fn capabilities(&mut self, raw: &Raw<'_>) -> Option<Vec<Capability>> {
        let named = self.each(raw, |reader, word| {
            Capability::named(word).or_else(|| {
                let names = Capability::names();
                let short = word.to_lowercase().replace('_', "-");
                let short = short.strip_prefix("cap-").unwrap_or(&short);
                let remedy = match nearest(short, names.iter().map(String::as_str)) {
                    Some((near, _)) => format!("did you mean `\"{near}\"`?"),
                    None => "write a name of capabilities(7), such as `\"net-raw\"`".to_owned(),
                };
                reader.misshapen(word, "a capability", &remedy)
            })
        })?;
        let mut all: Vec<Capability> = named.into_iter().map(|(capability, _)| capability).collect();
        all.sort();
        all.dedup();
        Some(all)
    }

    pub(super) fn whos(&mut self, raw: &Raw<'_>) -> Option<Vec<Who>> {
        let whos = self.each(raw, |reader, word| {
            let right = |name: &str| {
                let number = name.bytes().all(|digit| digit.is_ascii_digit())
                    && name.parse().ok().and_then(Account::numbered).is_some();
                Account::named(name).is_some() || (numeric(name) && number)
            };
            match word.split_once(':') {
                None if word == "*" => Some(Who::Everyone),
                Some(("user", name)) if right(name) => Some(Who::User(name.to_owned())),
                Some(("group", name)) if right(name) => Some(Who::Group(name.to_owned())),
                None if right(word) => {
                    let remedy = format!("write `\"user:{word}\"` or `\"group:{word}\"`");
                    reader.misshapen(word, "`user:NAME`, `group:NAME` or `*`", &remedy)
                }
                Some(_) | None => {
                    let remedy =
                        "write it such as `\"user:deploy\"`, `\"group:admin\"` or `\"*\"` for everyone";
                    reader.misshapen(word, "`user:NAME`, `group:NAME` or `*`", remedy)
                }
            }
        })?;
        Some(whos.into_iter().map(|(who, _)| who).collect())
    }

    pub(super) fn processors(&mut self, raw: &Raw<'_>) -> Option<Vec<u16>> {
        let items = self.items(raw, Some("write a list, such as `[0, 1]`"))?;
        let whole = self.span.clone();
        let mut all = Vec::new();
        for item in items {
            self.span = item.span();
            let last = i64::from(PROCESSORS_MAX) - 1;
            let range = match raw_of(item.get_ref()) {
                Raw::Text(word) => match processor_range(word) {
                    Some(range) => range,
                    None => {
                        let remedy = "write a number, or a range such as `\"4-7\"`";
                        return self.misshapen(word, "a range of processors", remedy);
                    }
                },
                raw => {
                    let number = self.number(&raw, 0, last)?;
                    let number = u16::try_from(number).ok()?;
                    number..=number
                }
            };
            all.extend(range);
        }
        self.span = whole;
        if items.is_empty() {
            return self.misshapen(
                "[]",
                "a list of processors",
                "name one, or remove the key for all of them",
            );
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    pub(super) fn paths(&mut self, raw: &Raw<'_>) -> Option<Vec<PathBuf>> {
        let paths = self.each(raw, |reader, word| {
            if word.starts_with('-') {
                let remedy = "remove the `-`: a file that is not there is an error";
                return reader.misshapen(word, "an absolute path", remedy);
            }
            reader.path(&Raw::Text(word))
        })?;
        Some(paths.into_iter().map(|(path, _)| path).collect())
    }

    pub(super) fn codes(&mut self, raw: &Raw<'_>) -> Option<Vec<u8>> {
        let items = match raw {
            Raw::Empty => return Some(vec![0]), // the table's `[0]`
            Raw::List(items) if items.len() <= 256 => items,
            _ => return self.unfit(raw, None),
        };
        let code = |item: &Spanned<DeValue<'_>>| self.number(&raw_of(item.get_ref()), 0, 255);
        let codes: Option<Vec<i64>> = items.iter().map(code).collect();
        Some(codes?.into_iter().filter_map(|code| u8::try_from(code).ok()).collect())
    }

    /// `{ fd = N }`
    pub(super) fn descriptor(&mut self, table: &DeTable<'_>) -> Option<Value> {
        let mut keys = table.iter();
        let (Some((key, value)), None) = (keys.next(), keys.next()) else {
            return self.misshapen("{ … }", "`{ fd = N }`", "write the one number that it says its word on");
        };
        if key.get_ref() != "fd" {
            return self.misshapen(key.get_ref(), "`{ fd = N }`", "did you mean `fd`?");
        }
        let most = 2 + SOCKETS_MAX as i64;
        let number = self.number(&raw_of(value.get_ref()), 3, most)?;
        u32::try_from(number).ok().map(Value::Descriptor)
    }

    pub(super) fn environment(&mut self, raw: &Raw<'_>) -> Option<Environment> {
        let table = match raw {
            Raw::Empty => return Some(Environment::default()),
            Raw::Table(table) => table,
            _ => return self.unfit(raw, Some("write `environment = { NAME = \"value\" }`")),
        };
        let (mut environment, mut right) = (Environment::default(), true);
        for (name, value) in *table {
            let fault: Option<Fault> = self.variable(name.get_ref(), value.get_ref()).map(Into::into);
            match (fault, value.get_ref()) {
                (None, DeValue::String(text)) => {
                    environment.0.insert(name.get_ref().to_string(), text.to_string());
                }
                (None, _) => {}
                (Some(fault), _) => {
                    right = false;
                    self.tell_at::<()>(name.span(), fault);
                }
            }
        }
        right.then_some(environment)
    }

    /// What is wrong with a variable, in words that do not show its value.
    fn variable(&self, name: &str, value: &DeValue<'_>) -> Option<ValueFault> {
        if self.key.table.key(name).is_some() {
            return Some(ValueFault::EnvironmentKey { name: name.to_owned() });
        }
        if !is_variable(name) {
            return Some(ValueFault::EnvironmentName { name: name.to_owned() });
        }
        match value {
            DeValue::String(text) if text.contains('\0') => Some(ValueFault::Nul { key: name.to_owned() }),
            DeValue::String(_) => None,
            _ => Some(ValueFault::Type {
                key: name.to_owned(),
                wants: "a string".to_owned(),
                got: raw_of(value).kind(),
                remedy: Some("put the value in quotes".to_owned()),
            }),
        }
    }
}

/// `4-7`, or one number.
fn processor_range(word: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|number| plain && *number < PROCESSORS_MAX)
    };
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}
