//! PURE. What was written, over all layers, into one unit; and the problems that only show between keys.

use std::collections::BTreeMap;

use super::account::Account;
use super::address::Listen;
use super::command::Command;
use super::fault::{CommandFault, Fault, KeyFault, SocketFault, ValueFault};
use super::keys::{Key, Table};
use super::model::{
    Environment, Kind, Limits, Places, Policy, Ready, Restart, Server, Service, Socket, Start, Unit,
};
use super::read::{did_you_mean, example};
use super::settings::{Draft, Setting, Settings, SocketSettings, Spot};
use super::signal::Signal;
use super::source::Source;
use super::value::{Value, preset};
use super::{ENVIRONMENT_BYTES_MAX, SOCKETS_MAX};

/// The builder of one unit.
pub(super) struct Builder<'a, 't> {
    pub sources: &'a [Source<'t>],
    /// Which of the layers is the unit's own file.
    pub own: usize,
    /// Whether parts of a file could not be read, so that nothing can be said to be missing.
    pub partial: bool,
    pub found: &'a mut Vec<Draft>,
}

impl Builder<'_, '_> {
    /// The unit. It is only to be used where no problem was found, here or before.
    pub fn build(&mut self, name: &str, mut settings: Settings) -> Unit {
        self.between_keys(&settings);
        let sockets = std::mem::take(&mut settings.sockets);
        let names: Vec<String> = sockets.iter().map(|socket| socket.name.clone()).collect();
        self.command(&settings, &names);
        self.addresses(&sockets);
        let places = if self.found.is_empty() { self.places(&settings, &sockets) } else { Places::default() };
        let chosen_policy = settings.keys.contains_key(&(Table::Restart, "policy"));
        let mut keys = settings.keys;
        let mut service = Keys { table: Table::Service, take: |name| keys.remove(&(Table::Service, name)) };
        let service = service_of(&mut service);
        let mut restart = Keys { table: Table::Restart, take: |name| keys.remove(&(Table::Restart, name)) };
        let mut restart = restart_of(&mut restart);
        if service.kind == Kind::Task && !chosen_policy {
            restart.policy = Policy::Never;
        }
        let mut limits = Keys { table: Table::Limits, take: |name| keys.remove(&(Table::Limits, name)) };
        let limits = limits_of(&mut limits);
        let mut top = Keys { table: Table::Top, take: |name| keys.remove(&(Table::Top, name)) };
        Unit {
            name: name.to_owned(),
            path: self.sources.get(self.own).map_or("", |source| source.path).to_owned(),
            description: top.text("description"),
            documentation: top.texts("documentation"),
            service,
            restart,
            sockets: sockets.into_iter().filter_map(socket_of).collect(),
            limits,
            places,
        }
    }

    fn tell(&mut self, spot: &Spot, fault: impl Into<Fault>) {
        self.found.push(Draft { spot: spot.clone(), fault: fault.into() });
    }

    fn places(&self, settings: &Settings, sockets: &[SocketSettings]) -> Places {
        let mut written = BTreeMap::new();
        let mut write = |name: String, spot: &Spot| {
            if let Some(source) = self.sources.get(spot.layer) {
                written.insert(name, source.place(spot.span.clone()));
            }
        };
        for (table, spot) in &settings.tables {
            write(table.name().to_owned(), spot);
        }
        for ((table, name), setting) in &settings.keys {
            let name =
                if *table == Table::Top { (*name).to_owned() } else { format!("{}.{name}", table.name()) };
            write(name, &setting.place);
        }
        for socket in sockets {
            write(format!("socket.{}", socket.name), &socket.spot);
            for (name, setting) in &socket.keys {
                write(format!("socket.{}.{name}", socket.name), &setting.place);
            }
        }
        Places { written }
    }

    /// Where to say that a key of `table` is missing: at the table's header, else at the start of the file.
    fn header(&self, settings: &Settings, table: Table) -> Spot {
        settings.tables.get(&table).cloned().unwrap_or(Spot { layer: self.own, span: 0..0 })
    }

    fn missing(&mut self, at: &Spot, key: &Key, header: &str) {
        // A key that was misspelt has been told of, with this as its remedy.
        let misspelt = self.found.iter().any(|draft| match &draft.fault {
            Fault::Key(KeyFault::Unknown { table, remedy: Some(remedy), .. }) => {
                table == header && *remedy == did_you_mean(key.name)
            }
            _ => false,
        });
        if !self.partial && !misspelt {
            let (table, example) = (header.to_owned(), example(key).to_owned());
            self.tell(at, KeyFault::Missing { key: key.name.to_owned(), table, example });
        }
    }

    fn command(&mut self, settings: &Settings, sockets: &[String]) {
        match settings.keys.get(&(Table::Service, "command")) {
            None => {
                // Without the table a misspelt header, or a key above it, is what is wrong.
                let told = !settings.tables.contains_key(&Table::Service) && !self.found.is_empty();
                if let Some(key) = Table::Service.key("command").filter(|_| !told) {
                    let at = self.header(settings, Table::Service);
                    self.missing(&at, key, Table::Service.header());
                }
            }
            Some(setting) => {
                let Some(Value::Command(_, asked)) = &setting.value else { return };
                for (name, span) in asked.iter().filter(|(name, _)| !sockets.contains(name)) {
                    let spot = Spot { layer: setting.place.layer, span: span.clone() };
                    self.tell(&spot, CommandFault::NoSocket { name: name.clone(), known: sockets.to_vec() });
                }
            }
        }
    }

    fn between_keys(&mut self, settings: &Settings) {
        let read =
            |table, name| settings.keys.get(&(table, name)).map(|setting| (setting, setting.value.as_ref()));
        if let Some((setting, Some(Value::Environment(environment)))) = read(Table::Service, "environment") {
            let bytes = environment.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            if bytes > ENVIRONMENT_BYTES_MAX {
                self.tell(&setting.key, ValueFault::EnvironmentSize { bytes });
            }
        }
        let delay = match read(Table::Restart, "delay") {
            Some((_, value)) => value.cloned(),
            None => Table::Restart.key("delay").and_then(preset),
        };
        if let Some((setting, Some(Value::Duration(Some(most_ms))))) = read(Table::Restart, "max-delay")
            && let Some(Value::Duration(Some(delay_ms))) = delay
            && *most_ms < delay_ms
        {
            self.tell(&setting.place, ValueFault::DelayOrder { delay_ms });
        }
        let sockets = settings.sockets.len();
        if let Some((setting, Some(Value::Descriptor(number)))) = read(Table::Service, "ready")
            && usize::try_from(*number).is_ok_and(|number| number < 3 + sockets)
        {
            self.tell(&setting.place, ValueFault::SocketThere { fd: *number, free: 3 + sockets });
        }
        if let Some((setting, Some(Value::Number(nofile)))) = read(Table::Limits, "nofile")
            && usize::try_from(*nofile).is_ok_and(|nofile| nofile < sockets + DESCRIPTORS_BESIDE_SOCKETS)
        {
            self.tell(&setting.place, ValueFault::FewDescriptors { sockets });
        }
    }

    fn addresses(&mut self, sockets: &[SocketSettings]) {
        if let Some(first) = sockets.get(SOCKETS_MAX) {
            self.tell(&first.spot, SocketFault::TooMany);
        }
        let mut before: Vec<(&str, &Listen)> = Vec::new();
        for socket in sockets {
            let Some(setting) = socket.keys.get("listen") else {
                if let Some(key) = Table::Socket.key("listen") {
                    self.missing(&socket.spot, key, &format!("[socket.{}]", socket.name));
                }
                continue;
            };
            let Some(Value::Address(listen)) = &setting.value else { continue };
            self.senseless(socket, listen);
            // What is beyond the limit has been told of, and is not compared with everything else.
            if before.len() >= SOCKETS_MAX {
                continue;
            }
            if let Some((by, other)) = before.iter().find(|(_, other)| other.overlaps(listen)) {
                let (address, by, other) = (listen.to_string(), (*by).to_owned(), other.to_string());
                self.tell(&setting.place, SocketFault::Taken { address, by, other });
            }
            before.push((&socket.name, listen));
        }
    }

    /// Keys that mean nothing for a socket of this kind: an ignored `mode` would be a false promise.
    fn senseless(&mut self, socket: &SocketSettings, listen: &Listen) {
        let unix = match listen {
            Listen::Unix(_) => true,
            Listen::Tcp { .. } => false,
        };
        for (name, setting) in &socket.keys {
            let key = (*name).to_owned();
            match (*name, unix) {
                ("mode" | "user" | "group", false) => self.tell(&setting.key, SocketFault::UnixOnly { key }),
                ("nodelay", true) => self.tell(&setting.key, SocketFault::TcpOnly { key }),
                _ => {}
            }
        }
    }
}

/// Descriptors that a program has beside its sockets at the least: the standard three, and some to work with.
const DESCRIPTORS_BESIDE_SOCKETS: usize = 8;

/// The keys of one table, each with its default where nobody wrote it. A key that was wrong gives the default of
/// its type; the problem is told, so the unit is not used.
struct Keys<Take> {
    table: Table,
    take: Take,
}

impl<Take: FnMut(&'static str) -> Option<Setting>> Keys<Take> {
    fn value(&mut self, name: &'static str) -> Option<Value> {
        match (self.take)(name) {
            Some(setting) => setting.value,
            None => self.table.key(name).and_then(preset),
        }
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        if let Some(Value::Text(text)) = self.value(name) { Some(text) } else { None }
    }

    fn texts(&mut self, name: &'static str) -> Vec<String> {
        if let Some(Value::Texts(texts)) = self.value(name) { texts } else { Vec::new() }
    }

    fn duration(&mut self, name: &'static str) -> Option<u64> {
        if let Some(Value::Duration(ms)) = self.value(name) { ms } else { None }
    }

    fn number(&mut self, name: &'static str) -> Option<i64> {
        if let Some(Value::Number(number)) = self.value(name) { Some(number) } else { None }
    }

    fn mode(&mut self, name: &'static str) -> u32 {
        if let Some(Value::Mode(mode)) = self.value(name) { mode } else { 0 }
    }

    fn account(&mut self, name: &'static str) -> Option<Account> {
        if let Some(Value::Account(account)) = self.value(name) { Some(account) } else { None }
    }

    fn choice(&mut self, name: &'static str) -> &'static str {
        if let Some(Value::Choice(word)) = self.value(name) { word } else { "" }
    }
}

fn service_of<Take: FnMut(&'static str) -> Option<Setting>>(keys: &mut Keys<Take>) -> Service {
    let command = if let Some(Value::Command(command, _)) = keys.value("command") {
        command
    } else {
        Command::default()
    };
    let environment = if let Some(Value::Environment(all)) = keys.value("environment") {
        all
    } else {
        Environment::default()
    };
    Service {
        command,
        server: Server::from_word(keys.choice("server")).unwrap_or(Server::Auto),
        kind: Kind::from_word(keys.choice("kind")).unwrap_or(Kind::Service),
        success_codes: if let Some(Value::Codes(codes)) = keys.value("success-codes") {
            codes
        } else {
            vec![0]
        },
        start: Start::from_word(keys.choice("start")).unwrap_or(Start::Boot),
        user: keys.account("user"),
        group: keys.account("group"),
        groups: if let Some(Value::Accounts(groups)) = keys.value("groups") { Some(groups) } else { None },
        directory: if let Some(Value::Path(path)) = keys.value("directory") { Some(path) } else { None },
        environment,
        umask: keys.mode("umask"),
        before_start: if let Some(Value::Commands(all)) = keys.value("before-start") {
            all
        } else {
            Vec::new()
        },
        ready: match keys.value("ready") {
            Some(Value::Choice(word)) => Ready::from_word(word).unwrap_or(Ready::Auto),
            Some(Value::Descriptor(number)) => Ready::Fd(number),
            _ => Ready::Auto,
        },
        settle_ms: keys.duration("settle").unwrap_or_default(),
        start_timeout_ms: keys.duration("start-timeout"),
        stop_signal: if let Some(Value::Signal(signal)) = keys.value("stop-signal") {
            signal
        } else {
            Signal::TERM
        },
        stop_timeout_ms: keys.duration("stop-timeout"),
    }
}

fn restart_of<Take: FnMut(&'static str) -> Option<Setting>>(keys: &mut Keys<Take>) -> Restart {
    let delay_ms = keys.duration("delay").unwrap_or_default();
    Restart {
        policy: Policy::from_word(keys.choice("policy")).unwrap_or(Policy::Always),
        delay_ms,
        // One that was written and is shorter has been told of.
        max_delay_ms: keys.duration("max-delay").unwrap_or_default().max(delay_ms),
        reset_after_ms: keys.duration("reset-after"),
        give_up_after: if let Some(Value::Count(count)) = keys.value("give-up-after") { count } else { None },
    }
}

fn limits_of<Take: FnMut(&'static str) -> Option<Setting>>(keys: &mut Keys<Take>) -> Limits {
    let small = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
    Limits {
        nofile: keys.number("nofile").and_then(|number| u64::try_from(number).ok()),
        core: if let Some(Value::Size(bytes)) = keys.value("core") { bytes } else { None },
        nice: small(keys.number("nice")),
        oom_score_adjust: small(keys.number("oom-score-adjust")),
    }
}

/// The socket; None where its address is wrong or missing, which has been told.
fn socket_of(mut socket: SocketSettings) -> Option<Socket> {
    let mut keys = Keys { table: Table::Socket, take: |name| socket.keys.remove(name) };
    let Some(Value::Address(listen)) = keys.value("listen") else { return None };
    Some(Socket {
        listen,
        mode: keys.mode("mode"),
        user: keys.account("user"),
        group: keys.account("group"),
        backlog: keys.number("backlog").and_then(|number| u32::try_from(number).ok()).unwrap_or_default(),
        nodelay: matches!(keys.value("nodelay"), Some(Value::Flag(true))),
        name: socket.name,
    })
}
