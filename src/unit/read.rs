//! PURE. One layer: a TOML document against the key table. Never compares keys with each other; see `build.rs`.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::fault::{Fault, FileFault, KeyFault, SocketFault};
use super::keys::{Key, Preset, Shape, Since, Table};
use super::model::{is_name, is_variable};
use super::nearest::nearest;
use super::settings::{Draft, Setting, Settings, SocketSettings, Spot};
use super::source::Source;
use super::value;
use super::{DEPTH_MAX, SOCKETS_MAX};

/// The reader of one layer.
pub(super) struct Layered<'s, 't> {
    pub layer: usize,
    pub source: &'s mut Source<'t>,
    /// Whether parts of it are not TOML, so that a key may be in another table than it was meant for.
    pub doubtful: bool,
    /// As if everything that is known were supported.
    pub ahead: bool,
    pub found: &'s mut Vec<Draft>,
}

type Name<'d> = Spanned<DeString<'d>>;
type Node<'d> = Spanned<DeValue<'d>>;

impl Layered<'_, '_> {
    /// Everything that the document says, and every problem of a key or value by itself.
    /// None where it is nested too deep to be read at all.
    pub fn read(&mut self, document: &DeTable<'_>) -> Option<Settings> {
        let mut settings = Settings::default();
        if self.too_deep(document) {
            return None;
        }
        for (name, node) in document {
            let word = name.get_ref().as_ref();
            match (Table::named(word), node.get_ref()) {
                (Some(table), DeValue::Table(keys)) => self.table(table, name, keys, &mut settings),
                (Some(table), _) => {
                    self.tell(name.span(), KeyFault::NotATable { header: table.header().to_owned() });
                }
                (None, DeValue::Table(_)) if Table::Top.key(word).is_none() => self.unknown_table(name),
                (None, _) => {
                    if let Some((key, setting)) = self.key(Table::Top, Table::Top.header(), name, node) {
                        settings.keys.insert((Table::Top, key.name), setting);
                    }
                }
            }
        }
        Some(settings)
    }

    fn tell(&mut self, span: Range<usize>, fault: impl Into<Fault>) {
        self.found.push(Draft { spot: self.spot(span), fault: fault.into() });
    }

    fn spot(&self, span: Range<usize>) -> Spot {
        Spot { layer: self.layer, span }
    }

    /// Tells of the first value of each key that is nested too deep.
    fn too_deep(&mut self, document: &DeTable<'_>) -> bool {
        let spans: Vec<_> = document.values().filter_map(|node| deeper(node, 1)).collect();
        for span in &spans {
            self.tell(span.clone(), FileFault::TooDeep);
        }
        !spans.is_empty()
    }

    fn table(&mut self, table: Table, name: &Name<'_>, keys: &DeTable<'_>, settings: &mut Settings) {
        settings.tables.insert(table, self.spot(name.span()));
        match table {
            Table::Socket => self.sockets(keys, settings),
            // What it may hold is another unit, so its keys are not told one by one.
            Table::Dev => self.tell(name.span(), KeyFault::NotYet { what: table.header().to_owned() }),
            _ if keys.is_empty() && !table.usable() => {
                self.tell(name.span(), KeyFault::NotYet { what: table.header().to_owned() });
            }
            _ => {
                for (name, node) in keys {
                    if let Some((key, setting)) = self.key(table, table.header(), name, node) {
                        settings.keys.insert((table, key.name), setting);
                    }
                }
            }
        }
    }

    fn sockets(&mut self, tables: &DeTable<'_>, settings: &mut Settings) {
        let mut tables: Vec<_> = tables.iter().collect();
        tables.sort_by_key(|(name, _)| name.span().start);
        if let Some((first, _)) = tables.get(SOCKETS_MAX) {
            self.tell(first.span(), SocketFault::TooMany);
            tables.truncate(SOCKETS_MAX);
        }
        for (name, node) in tables {
            let word = name.get_ref().as_ref();
            let DeValue::Table(keys) = node.get_ref() else {
                let header = match Table::Socket.key(word) {
                    Some(_) => Table::Socket.header().to_owned(),
                    None => format!("[socket.{word}]"),
                };
                self.tell(name.span(), KeyFault::NotATable { header });
                continue;
            };
            if word == "health" {
                self.tell(name.span(), KeyFault::SocketReserved);
            } else if !is_name(word) {
                self.tell(name.span(), KeyFault::SocketName { name: word.to_owned() });
            }
            let header = format!("[socket.{word}]");
            let spot = self.spot(name.span());
            let mut socket = SocketSettings { name: word.to_owned(), spot, keys: Default::default() };
            for (name, node) in keys {
                if let Some((key, setting)) = self.key(Table::Socket, &header, name, node) {
                    socket.keys.insert(key.name, setting);
                }
            }
            settings.sockets.push(socket);
        }
    }

    /// One key with its value; None for one that is not known. One that does nothing yet is told of, and that is all that
    /// is said of it: it is to be removed, whatever else is wrong with it.
    fn key(
        &mut self,
        table: Table,
        header: &str,
        name: &Name<'_>,
        node: &Node<'_>,
    ) -> Option<(&'static Key, Setting)> {
        let word = name.get_ref().as_ref();
        let Some(key) = table.key(word) else {
            let remedy = remedy(table, word);
            // What was meant as a variable below another header is not to be shown either.
            if self.doubtful || looks_like_variable(word) || (remedy.is_none() && is_variable(word)) {
                self.hide_values(node);
            }
            let (key, table) = (word.to_owned(), header.to_owned());
            self.tell(name.span(), KeyFault::Unknown { key, table, remedy });
            return None;
        };
        if key.since == Since::Later && !self.ahead {
            self.tell(name.span(), KeyFault::NotYet { what: word.to_owned() });
            return None;
        }
        if key.shape == Shape::Environment {
            self.hide_values(node);
        }
        let mut noted = Vec::new();
        let (span, mut note) = (node.span(), |span, fault| noted.push((span, fault)));
        let mut reader = value::Reader { key, span: span.clone(), source: self.source, note: &mut note };
        let value = value::read(&mut reader, node.get_ref());
        for (span, fault) in noted {
            self.tell(span, fault);
        }
        Some((key, Setting { key: self.spot(name.span()), place: self.spot(span), value }))
    }

    /// Values of the environment are never shown, not even beside a problem. The span of a dotted table is that
    /// of its key, so it is the values in it that are hidden.
    fn hide_values(&mut self, node: &Node<'_>) {
        match node.get_ref() {
            DeValue::Table(table) => table.values().for_each(|value| self.hide_values(value)),
            DeValue::Array(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => self.source.hide(node.span()),
        }
    }

    fn unknown_table(&mut self, name: &Name<'_>) {
        let word = name.get_ref().as_ref();
        let known = || Table::ALL.into_iter();
        let meant = nearest(word, known().map(Table::name)).and_then(|(near, _)| Table::named(near));
        let meant = match (meant, Table::Service.key(word)) {
            (Some(table), _) => Some(table.header().to_owned()),
            (None, Some(key)) if key.shape == Shape::Environment => Some("[service.environment]".to_owned()),
            // A key that does nothing yet is no remedy.
            (None, Some(key)) if key.since == Since::Later && !self.ahead => {
                return self.tell(name.span(), KeyFault::NotYet { what: word.to_owned() });
            }
            (None, _) => None,
        };
        self.tell(name.span(), KeyFault::UnknownTable { name: word.to_owned(), meant });
    }
}

/// The first value that is nested deeper than the limit, in a node at `level`.
fn deeper(node: &Node<'_>, level: usize) -> Option<Range<usize>> {
    if level > DEPTH_MAX {
        return Some(node.span());
    }
    match node.get_ref() {
        DeValue::Array(items) => items.iter().find_map(|item| deeper(item, level + 1)),
        DeValue::Table(table) => table.values().find_map(|item| deeper(item, level + 1)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    }
}

/// A name as variables have by custom, in capitals.
pub(super) fn looks_like_variable(word: &str) -> bool {
    is_variable(word) && !word.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// What somebody may have meant by a key that `table` does not have.
fn remedy(table: Table, word: &str) -> Option<String> {
    let near = nearest(word, table.keys().map(|key| key.name));
    if let Some((near, 0 | 1)) = near {
        return Some(did_you_mean(near));
    }
    if looks_like_variable(word) {
        return Some(format!("a variable belongs in `[service.environment]`, as `{word} = \"…\"`"));
    }
    // A key that can be used comes before one that cannot.
    let elsewhere = |name: &str| {
        let homes = || Table::ALL.into_iter().filter(|home| *home != table).filter_map(|home| home.key(name));
        homes().find(|key| key.since == Since::Now).or_else(|| homes().next())
    };
    if let Some(key) = elsewhere(word) {
        return Some(match key.table {
            Table::Top => format!("`{word}` belongs at the top of the file, above the first table"),
            home => format!("`{word}` belongs in `{}`", home.header()),
        });
    }
    if let Some((near, _)) = near {
        return Some(did_you_mean(near));
    }
    for home in Table::ALL.into_iter().filter(|home| *home != Table::Top && *home != table) {
        let inner = word.strip_prefix(home.name()).and_then(|rest| rest.strip_prefix(['-', '_']));
        let near = inner.and_then(|inner| nearest(inner, home.keys().map(|key| key.name)));
        if let Some((near, _)) = near {
            return Some(format!("did you mean `{near}` in `{}`?", home.header()));
        }
    }
    let all = Table::ALL.into_iter().flat_map(Table::keys).map(|key| key.name);
    let (near, _) = nearest(word, all).filter(|(_, edits)| *edits <= 1)?;
    elsewhere(near).map(|key| format!("did you mean `{near}` in `{}`?", key.table.header()))
}

/// The remedy for a misspelt key of the same table.
pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

/// A line that somebody could add for a key that has to be there.
pub(super) fn example(key: &Key) -> &'static str {
    match key.preset {
        Preset::Is(text) | Preset::Unset(text) | Preset::Required(text) => text,
    }
}
