//! PURE. The problems of a unit that only show between its keys. Never looks at other units; see `rules.rs`.

use super::ENVIRONMENT_BYTES_MAX;
use super::SOCKETS_MAX;
use super::address::{Listen, clash};
use super::build::Builder;
use super::choices::{Kind, SocketType};
use super::command::Piece;
use super::fault::{CommandFault, Fault, HealthFault, KeyFault, SocketFault, ValueFault};
use super::keys::Table;
use super::settings::{Setting, Settings, SocketSettings, Spot};
use super::value::{Asked, Value, preset};

/// Descriptors that a program has beside its sockets at the least: the standard three, and some to work with.
const DESCRIPTORS_BESIDE_SOCKETS: usize = 8;
/// The keys of `[health]` that say what to ask.
const PROBES: [&str; 4] = ["http", "uwsgi", "tcp", "command"];

impl Builder<'_, '_> {
    /// Everything that is wrong between the keys of a unit called `name`.
    pub(super) fn between_keys(&mut self, name: &str, settings: &Settings) {
        self.environment(settings);
        self.delays(settings);
        self.descriptors(settings);
        self.command(settings);
        self.placeholders(settings);
        self.tasks(settings);
        self.health(settings);
        self.itself(name, settings);
        self.addresses(&settings.sockets);
    }

    fn environment(&mut self, settings: &Settings) {
        if let Some((setting, Value::Environment(environment))) =
            written(settings, Table::Service, "environment")
        {
            let bytes = environment.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            if bytes > ENVIRONMENT_BYTES_MAX {
                self.tell(&setting.key, ValueFault::EnvironmentSize { bytes });
            }
        }
    }

    fn delays(&mut self, settings: &Settings) {
        let delay = match settings.keys.get(&(Table::Restart, "delay")) {
            Some(setting) => setting.value.clone(),
            None => Table::Restart.key("delay").and_then(preset),
        };
        if let Some((setting, Value::Duration(Some(most_ms)))) =
            written(settings, Table::Restart, "max-delay")
            && let Some(Value::Duration(Some(delay_ms))) = delay
            && *most_ms < delay_ms
        {
            self.tell(&setting.place, ValueFault::DelayOrder { delay_ms });
        }
    }

    fn descriptors(&mut self, settings: &Settings) {
        let sockets = settings.sockets.len();
        // The private one stands behind the sockets.
        let free = 3 + sockets + usize::from(takes_private(settings));
        if let Some((setting, Value::Descriptor(number))) = written(settings, Table::Service, "ready")
            && usize::try_from(*number).is_ok_and(|number| number < free)
        {
            self.tell(&setting.place, ValueFault::SocketThere { fd: *number, free });
        }
        if let Some((setting, Value::Number(nofile))) = written(settings, Table::Limits, "nofile")
            && usize::try_from(*nofile).is_ok_and(|nofile| nofile < sockets + DESCRIPTORS_BESIDE_SOCKETS)
        {
            self.tell(&setting.place, ValueFault::FewDescriptors { sockets });
        }
    }

    fn command(&mut self, settings: &Settings) {
        let known = || settings.sockets.iter().map(|socket| socket.name.clone()).collect::<Vec<_>>();
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
                for (piece, span) in asked {
                    let Piece::Fd(name) = piece else { continue };
                    let spot = Spot { layer: setting.place.layer, span: span.clone() };
                    let asks = PROBES.iter().take(3).any(|probe| asked_for(settings, probe).is_some());
                    if name == "health" && !asks {
                        self.tell(&spot, CommandFault::NobodyAsks);
                    } else if name != "health" && !settings.sockets.iter().any(|socket| socket.name == *name)
                    {
                        self.tell(&spot, CommandFault::NoSocket { name: name.clone(), known: known() });
                    }
                }
            }
        }
    }

    /// `{state-directory}` and the like where the unit has none made.
    fn placeholders(&mut self, settings: &Settings) {
        for setting in settings.keys.values() {
            let asked: &Asked = match &setting.value {
                Some(Value::Command(_, asked) | Value::Commands(_, asked) | Value::Reload(_, asked)) => asked,
                _ => continue,
            };
            for (piece, span) in asked {
                if let Piece::Directory(which) = piece
                    && !settings.keys.contains_key(&(Table::Service, which.key()))
                {
                    let spot = Spot { layer: setting.place.layer, span: span.clone() };
                    self.tell(&spot, CommandFault::NoDirectory { key: which.key().to_owned() });
                }
            }
        }
    }

    fn tasks(&mut self, settings: &Settings) {
        let key = settings.keys.get(&(Table::Service, "schedule"));
        if let Some(setting) = key.filter(|_| !is_task(settings)) {
            self.tell(&setting.key, ValueFault::TasksOnly { key: "schedule".to_owned() });
        }
        if let Some((setting, Value::Number(2..))) = written(settings, Table::Service, "instances")
            && is_task(settings)
        {
            self.tell(&setting.place, ValueFault::TaskInstances);
        }
    }

    fn health(&mut self, settings: &Settings) {
        let waits = matches!(written(settings, Table::Service, "ready"), Some((_, Value::Choice("health"))));
        let Some(table) = settings.tables.get(&Table::Health) else {
            if let (true, Some(setting)) = (waits, settings.keys.get(&(Table::Service, "ready"))) {
                self.tell(&setting.place, HealthFault::Missing);
            }
            return;
        };
        if is_task(settings) {
            self.tell(table, HealthFault::Task);
            return;
        }
        let asked: Vec<(&str, &Setting)> =
            PROBES.iter().filter_map(|probe| Some((*probe, asked_for(settings, probe)?))).collect();
        match asked.as_slice() {
            [] => {
                // A key that was misspelt, or could not be read, has been told of.
                let told = self.found.iter().any(|draft| match &draft.fault {
                    Fault::Key(KeyFault::Unknown { table, .. }) => table == Table::Health.header(),
                    _ => false,
                });
                if !self.partial && !told {
                    self.tell(table, HealthFault::NoProbe);
                }
            }
            [(probe, _)] => self.asked_socket(probe, table, settings),
            [first, others @ ..] => {
                for (key, setting) in others {
                    let (key, other) = ((*key).to_owned(), first.0.to_owned());
                    self.tell(&setting.key, HealthFault::TwoProbes { key, other });
                }
            }
        }
        let command = settings.keys.get(&(Table::Health, "command")).and_then(|setting| {
            let Some(Value::Command(_, asked)) = &setting.value else { return None };
            Some((setting, asked))
        });
        for (piece, span) in command.iter().flat_map(|(_, asked)| *asked) {
            if let (Piece::Fd(name), Some((setting, _))) = (piece, command) {
                let spot = Spot { layer: setting.place.layer, span: span.clone() };
                self.tell(&spot, CommandFault::NoSockets { key: "command".to_owned(), name: name.clone() });
            }
        }
    }

    /// Whether there is a socket that `probe` can ask, and whether only what it needs is written beside it.
    fn asked_socket(&mut self, probe: &str, table: &Spot, settings: &Settings) {
        let senseless: &[&str] = match probe {
            "command" => &["socket", "host"],
            "tcp" => &["host"],
            _ => &[],
        };
        for key in senseless {
            if let Some(setting) = settings.keys.get(&(Table::Health, *key)) {
                let (key, probe) = ((*key).to_owned(), probe.to_owned());
                self.tell(&setting.key, HealthFault::Senseless { key, probe });
            }
        }
        if probe == "command" {
            return;
        }
        let private = takes_private(settings);
        let (at, socket) = match written(settings, Table::Health, "socket") {
            Some((setting, Value::Text(name))) if private => {
                self.tell(&setting.key, HealthFault::Private { name: name.clone() });
                return;
            }
            Some((setting, Value::Text(name))) => {
                let Some(socket) = settings.sockets.iter().find(|socket| socket.name == *name) else {
                    let known = settings.sockets.iter().map(|socket| socket.name.clone()).collect();
                    self.tell(&setting.place, HealthFault::UnknownSocket { name: name.clone(), known });
                    return;
                };
                (&setting.place, socket)
            }
            _ if private => return,
            _ => match settings.sockets.first() {
                Some(socket) => (table, socket),
                None => {
                    self.tell(table, HealthFault::NoSocket { key: probe.to_owned() });
                    return;
                }
            },
        };
        if kind_of(socket) != SocketType::Stream {
            self.tell(at, HealthFault::NotStream { name: socket.name.clone() });
        }
    }

    /// A unit that waits for itself.
    fn itself(&mut self, name: &str, settings: &Settings) {
        for key in ["requires", "wants", "after"] {
            let Some((setting, Value::Names(names))) = written(settings, Table::Dependencies, key) else {
                continue;
            };
            for (_, span) in names.iter().filter(|(needed, _)| needed == name) {
                let spot = Spot { layer: setting.place.layer, span: span.clone() };
                self.tell(&spot, ValueFault::Itself { key: key.to_owned() });
            }
        }
    }

    fn addresses(&mut self, sockets: &[SocketSettings]) {
        if let Some(first) = sockets.get(SOCKETS_MAX) {
            self.tell(&first.spot, SocketFault::TooMany);
        }
        let mut before: Vec<(&str, &Listen, SocketType)> = Vec::new();
        for socket in sockets {
            let Some(setting) = socket.keys.get("listen") else {
                if let Some(key) = Table::Socket.key("listen") {
                    self.missing(&socket.spot, key, &format!("[socket.{}]", socket.name));
                }
                continue;
            };
            let Some(Value::Address(listen)) = &setting.value else { continue };
            let kind = kind_of(socket);
            self.senseless(socket, listen, kind);
            // What is beyond the limit has been told of, and is not compared with everything else.
            if before.len() >= SOCKETS_MAX {
                continue;
            }
            let taken =
                before.iter().find(|(_, other, other_kind)| clash((other, *other_kind), (listen, kind)));
            if let Some((by, other, _)) = taken {
                let (address, by, other) = (listen.to_string(), (*by).to_owned(), other.to_string());
                self.tell(&setting.place, SocketFault::Taken { address, by, other });
            }
            before.push((&socket.name, listen, kind));
        }
    }

    /// Keys that mean nothing for a socket of this kind: an ignored `mode` would be a false promise.
    fn senseless(&mut self, socket: &SocketSettings, listen: &Listen, kind: SocketType) {
        let network = matches!(listen, Listen::Tcp { .. });
        let of = match (listen, kind) {
            (Listen::Tcp { .. }, SocketType::Datagram) => "a UDP socket",
            (Listen::Tcp { .. }, SocketType::Stream | SocketType::Seqpacket) => "a TCP socket",
            (Listen::Unix(_), SocketType::Datagram) => "a datagram socket",
            (Listen::Unix(_), SocketType::Stream | SocketType::Seqpacket) => "a Unix socket",
            (Listen::Abstract(_), _) => "an abstract socket",
        };
        if let (true, SocketType::Seqpacket, Some(setting)) = (network, kind, socket.keys.get("type")) {
            self.tell(&setting.place, SocketFault::Seqpacket { address: listen.to_string() });
        }
        for (name, setting) in &socket.keys {
            let key = (*name).to_owned();
            let right = match *name {
                "mode" | "user" | "group" => matches!(listen, Listen::Unix(_)),
                "nodelay" | "keepalive" => network && kind != SocketType::Datagram,
                "freebind" => network,
                "backlog" => kind != SocketType::Datagram,
                _ => true,
            };
            match *name {
                _ if right => {}
                "mode" | "user" | "group" => self.tell(&setting.key, SocketFault::UnixOnly { key, of }),
                _ => self.tell(&setting.key, SocketFault::Senseless { key, of }),
            }
        }
    }
}

/// A key that somebody wrote, and its value where it could be read.
fn written<'s>(settings: &'s Settings, table: Table, name: &'static str) -> Option<(&'s Setting, &'s Value)> {
    let setting = settings.keys.get(&(table, name))?;
    setting.value.as_ref().map(|value| (setting, value))
}

/// Whether the command takes `{fd:health}`.
fn takes_private(settings: &Settings) -> bool {
    match written(settings, Table::Service, "command") {
        Some((_, Value::Command(_, asked))) => {
            asked.iter().any(|(piece, _)| *piece == Piece::Fd("health".to_owned()))
        }
        _ => false,
    }
}

/// The key of `[health]`, where it says what to ask: `tcp = false` does not.
fn asked_for<'s>(settings: &'s Settings, probe: &&'static str) -> Option<&'s Setting> {
    let setting = settings.keys.get(&(Table::Health, *probe))?;
    (setting.value != Some(Value::Flag(false))).then_some(setting)
}

fn is_task(settings: &Settings) -> bool {
    let task = Kind::Task.word();
    matches!(written(settings, Table::Service, "kind"), Some((_, Value::Choice(kind))) if *kind == task)
}

fn kind_of(socket: &SocketSettings) -> SocketType {
    match socket.keys.get("type").and_then(|setting| setting.value.as_ref()) {
        Some(Value::Choice(word)) => SocketType::from_word(word).unwrap_or(SocketType::Stream),
        _ => SocketType::Stream,
    }
}
