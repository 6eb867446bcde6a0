//! PURE. The effective unit, value by value, each with where it was written; what nobody wrote has its default.
//! Never a value of the environment.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::choices::Kind;
use super::forms::duration_text;
use super::keys::{Key, Preset, Shape, Since, Table};
use super::model::Unit;
use super::parse::Layer;
use super::source::Source;

/// What stands for the value of a variable.
pub const NOT_SHOWN: &str = "(not shown)";

/// One value of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The table and the key: `service.user`, `socket.http.listen`; at the top of the file the key alone.
    pub key: String,
    /// As it stands in the file, on one line.
    pub value: String,
    /// `file:line:column`, or the server that has a default of its own; None for a default.
    pub from: Option<String>,
}

impl Unit {
    /// Every value that counts, in the order of the reference: those that were written in these layers, which
    /// the unit was read from, and the defaults of the others.
    pub fn effective(&self, layers: &[Layer<'_>]) -> Vec<Effective> {
        let mut rows = Vec::new();
        for table in Table::ALL.into_iter().filter(|table| table.usable()) {
            if table == Table::Socket {
                for socket in &self.sockets {
                    self.of_table(table, &format!("socket.{}.", socket.name), layers, &mut rows);
                }
                continue;
            }
            let prefix = if table == Table::Top { String::new() } else { format!("{}.", table.name()) };
            self.of_table(table, &prefix, layers, &mut rows);
        }
        rows
    }

    fn of_table(&self, table: Table, prefix: &str, layers: &[Layer<'_>], rows: &mut Vec<Effective>) {
        for key in table.keys().filter(|key| key.since == Since::Now) {
            let name = format!("{prefix}{}", key.name);
            let place = self.places.of(&name);
            let from = place.map(ToString::to_string);
            if key.shape == Shape::Environment {
                let own = variables(layers);
                rows.extend(self.service.environment.0.keys().map(|variable| Effective {
                    key: format!("{name}.{variable}"),
                    value: NOT_SHOWN.to_owned(),
                    from: own.get(variable).cloned().or_else(|| from.clone()),
                }));
                continue;
            }
            let written = place.and_then(|place| {
                let layer = layers.iter().rev().find(|layer| layer.path == place.path)?;
                layer.text.get(place.span.clone()).map(on_one_line)
            });
            let liked = if place.is_none() { self.liked(&name) } else { None };
            let (value, from) = match (written, liked, default(key)) {
                (Some(value), _, _) => (value, from),
                (None, Some((value, whose)), _) => (value, Some(format!("default of {whose}"))),
                (None, None, Some(value)) => (value.to_owned(), from),
                (None, None, None) => continue,
            };
            rows.push(Effective { key: name, value, from });
        }
    }
}

impl Unit {
    /// What the unit's nature or the server that its command is has for a key that nobody wrote, and whose that is.
    fn liked(&self, name: &str) -> Option<(String, &'static str)> {
        let once = match (self.service.kind, self.service.essential) {
            (Kind::Task, _) => Some("a task"),
            (Kind::Service, true) => Some("`essential`"),
            (Kind::Service, false) => None,
        };
        if let Some(whose) = once.filter(|_| name == "restart.policy") {
            return Some((format!("\"{}\"", self.restart.policy.word()), whose));
        }
        let found = self.service.recognised();
        let (server, stop) = (found.server?, found.stop()?);
        let value = match name {
            "service.stop-signal" => stop.signal.to_owned(),
            "service.stop-timeout" => duration_text(stop.timeout_ms),
            _ => return None,
        };
        Some((format!("\"{value}\""), server.name()))
    }
}

/// Where each variable was written last: they are laid over one another one by one.
fn variables(layers: &[Layer<'_>]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for layer in layers {
        let source = Source::new(layer.path, layer.text);
        let Ok(document) = DeTable::parse(layer.text) else { continue };
        let service = document.get_ref().get("service").and_then(|value| value.get_ref().as_table());
        let all = service.and_then(|service| service.get("environment"));
        let all = all.and_then(|value| value.get_ref().as_table()).into_iter().flatten();
        found.extend(
            all.map(|(name, value)| (name.get_ref().to_string(), source.place(value.span()).to_string())),
        );
    }
    found
}

/// None for a key that is not set where nobody writes it.
const fn default(key: &Key) -> Option<&'static str> {
    match key.preset {
        Preset::Is(text) => Some(text),
        Preset::Unset(_) | Preset::Required(_) => None,
    }
}

/// A list that goes over several lines, without them and without the comments between.
fn on_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_has_instead_of_a_default_is_named() {
        let text = "command = \"/bin/redis-server\"\nuser = \"one\"\n";
        let stop = |more: &str| {
            let text = format!("[service]\n{text}{more}");
            let rows = rows(&[Layer { path: "web.toml", text: &text }]);
            [row(&rows, "service.stop-signal"), row(&rows, "service.stop-timeout")]
        };
        let said = |value: &str, from: &str| (value.to_owned(), from.to_owned());
        let of_redis = said("\"5min\"", "default of redis");
        assert_eq!(stop(""), [said("\"TERM\"", "default of redis"), of_redis.clone()]);
        let chosen = said("\"INT\"", "web.toml:4:15");
        assert_eq!(stop("stop-signal = \"INT\"\n"), [chosen, of_redis]);
    }

    fn rows(layers: &[Layer<'_>]) -> Vec<(String, String, String)> {
        let unit = Unit::parse_layers("web", layers).unwrap();
        let rows = unit.effective(layers).into_iter();
        rows.map(|row| (row.key, row.value, row.from.unwrap_or_else(|| "default".into()))).collect()
    }

    fn row(rows: &[(String, String, String)], key: &str) -> (String, String) {
        let found = rows.iter().find(|(one, ..)| one == key).unwrap_or_else(|| panic!("no {key}: {rows:#?}"));
        (found.1.clone(), found.2.clone())
    }

    #[test]
    fn each_value_has_the_place_where_it_was_written_last() {
        let layers = [
            Layer { path: "defaults.toml", text: "[service]\numask = \"0022\"\nuser = \"one\"\n" },
            Layer {
                path: "web.toml",
                text: "[service]\ncommand = [\n  \"/bin/true\", # why\n  # more\n  \"x\",\n]\nuser = \"two\"\n\
                       [socket.http]\nlisten = \"127.0.0.1:80\"\n",
            },
        ];
        let rows = rows(&layers);
        let said = |value: &str, from: &str| (value.to_owned(), from.to_owned());
        assert_eq!(row(&rows, "service.umask"), said("\"0022\"", "defaults.toml:2:9"));
        assert_eq!(row(&rows, "service.user"), said("\"two\"", "web.toml:7:8"));
        assert_eq!(row(&rows, "service.command"), said("[ \"/bin/true\", # why \"x\", ]", "web.toml:2:11"));
        assert_eq!(row(&rows, "socket.http.listen"), said("\"127.0.0.1:80\"", "web.toml:9:10"));
        assert_eq!(row(&rows, "socket.http.backlog"), said("4096", "default"));
        assert_eq!(row(&rows, "restart.delay"), said("\"250ms\"", "default"));
        assert!(!rows.iter().any(|(key, ..)| key == "service.group"), "what is not set has no value");
    }

    #[test]
    fn each_variable_has_a_place_of_its_own() {
        let layers = [
            Layer {
                path: "defaults.toml",
                text: "[service]\nenvironment = { TZ = \"UTC\", LANG = \"C\" }\n",
            },
            Layer {
                path: "web.toml",
                text: "[service]\ncommand = \"/bin/true\"\n[service.environment]\nLANG = \"de\"\nKEY = \"secret\"\n",
            },
        ];
        let rows = rows(&layers);
        let from = |name: &str| row(&rows, &format!("service.environment.{name}")).1;
        assert_eq!(from("TZ"), "defaults.toml:2:22");
        assert_eq!(from("LANG"), "web.toml:4:8");
        assert_eq!(from("KEY"), "web.toml:5:7");
    }

    #[test]
    fn what_ends_once_and_for_all_is_not_said_to_come_back() {
        let policy = |more: &str| {
            let text = format!("[service]\ncommand = \"/bin/true\"\n{more}");
            row(&rows(&[Layer { path: "web.toml", text: &text }]), "restart.policy")
        };
        let said = |value: &str, from: &str| (value.to_owned(), from.to_owned());
        assert_eq!(policy(""), said("\"always\"", "default"));
        assert_eq!(policy("kind = \"task\"\n"), said("\"never\"", "default of a task"));
        assert_eq!(policy("essential = true\n"), said("\"never\"", "default of `essential`"));
        let chosen = policy("essential = true\n[restart]\npolicy = \"on-failure\"\n");
        assert_eq!(chosen, said("\"on-failure\"", "web.toml:5:10"));
    }

    #[test]
    fn values_of_the_environment_are_not_shown() {
        let text =
            "[service]\ncommand = \"/bin/true\"\n[service.environment]\nKEY = \"secret\"\nB = \"secret\"\n";
        let rows = rows(&[Layer { path: "web.toml", text }]);
        assert_eq!(row(&rows, "service.environment.KEY").0, NOT_SHOWN);
        assert!(!format!("{rows:?}").contains("secret"), "{rows:?}");
    }
}
