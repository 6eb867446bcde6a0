//! PURE. What was written, over all layers, into one unit; and the problems that only show between keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::account::Account;
use super::choices::{Kind, LogTo, Policy, Profile, Ready, Server, SocketType, Start, Strategy, WhenFull};
use super::command::Command;
use super::fault::{Fault, KeyFault};
use super::keys::{Key, Table};
use super::model::{
    Access, Dependencies, Deploy, Environment, Health, Limits, Log, Places, Probe, Restart, Sandbox, Service,
    Socket, Unit, Who,
};
use super::read::{did_you_mean, example};
use super::serve::stop_as_the_server_likes;
use super::settings::{Draft, Setting, Settings, SocketSettings, Spot};
use super::signal::Signal;
use super::source::Source;
use super::value::{Value, preset};

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
        self.between_keys(name, &settings);
        let sockets = std::mem::take(&mut settings.sockets);
        let places = self.places(&settings, &sockets);
        let chosen_policy = settings.keys.contains_key(&(Table::Restart, "policy"));
        let asks = settings.tables.contains_key(&Table::Health);
        let mut keys = settings.keys;
        let mut of = |table| {
            let mut own = BTreeMap::new();
            for key in Table::keys(table) {
                if let Some(setting) = keys.remove(&(table, key.name)) {
                    own.insert(key.name, setting);
                }
            }
            Keys { table, own }
        };
        let mut own = of(Table::Service);
        let (signal, timeout) = (own.is_written("stop-signal"), own.is_written("stop-timeout"));
        let mut service = service_of(&mut own);
        stop_as_the_server_likes(&mut service, signal, timeout);
        let mut restart = restart_of(&mut of(Table::Restart));
        // What ends once and for all by its nature is not brought back by a default.
        if (service.kind == Kind::Task || service.essential) && !chosen_policy {
            restart.policy = Policy::Never;
        }
        let mut top = of(Table::Top);
        Unit {
            name: name.to_owned(),
            path: self.sources.get(self.own).map_or("", |source| source.path).to_owned(),
            description: top.text("description"),
            documentation: top.texts("documentation"),
            service,
            restart: restart.into(),
            sockets: sockets.into_iter().filter_map(socket_of).collect(),
            health: asks.then(|| health_of(&mut of(Table::Health)).into()),
            deploy: deploy_of(&mut of(Table::Deploy)).into(),
            dependencies: dependencies_of(&mut of(Table::Dependencies)).into(),
            log: log_of(&mut of(Table::Log)).into(),
            limits: limits_of(&mut of(Table::Limits)).into(),
            sandbox: Sandbox {
                profile: Profile::from_word(of(Table::Sandbox).choice("profile")).unwrap_or(Profile::Default),
            },
            access: access_of(&mut of(Table::Access)).into(),
            places,
        }
    }

    pub(super) fn tell(&mut self, spot: &Spot, fault: impl Into<Fault>) {
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
        let is_read = |setting: &&Setting| setting.value.is_some();
        for ((table, name), setting) in settings.keys.iter().filter(|(_, setting)| is_read(setting)) {
            let name =
                if *table == Table::Top { (*name).to_owned() } else { format!("{}.{name}", table.name()) };
            if let Some(Value::Names(names)) = &setting.value {
                for (each, span) in names {
                    let spot = Spot { layer: setting.place.layer, span: span.clone() };
                    write(format!("{name}.{each}"), &spot);
                }
            }
            write(name, &setting.place);
        }
        for socket in sockets {
            write(format!("socket.{}", socket.name), &socket.spot);
            for (name, setting) in socket.keys.iter().filter(|(_, setting)| is_read(setting)) {
                write(format!("socket.{}.{name}", socket.name), &setting.place);
            }
        }
        Places::new(written)
    }

    /// Where to say that a key of `table` is missing: at the table's header in the unit's own file, else at its start.
    /// What lies under it is other units' too.
    pub(super) fn header(&self, settings: &Settings, table: Table) -> Spot {
        let header = settings.tables.get(&table).filter(|spot| spot.layer == self.own);
        header.cloned().unwrap_or(Spot { layer: self.own, span: 0..0 })
    }

    pub(super) fn missing(&mut self, at: &Spot, key: &Key, header: &str) {
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
}

/// The keys of one table, each with its default where nobody wrote it. A key that was wrong gives the default of
/// its type; the problem is told, so the unit is not used.
struct Keys {
    table: Table,
    own: BTreeMap<&'static str, Setting>,
}

impl Keys {
    /// Whether somebody wrote the key.
    fn is_written(&self, name: &str) -> bool {
        self.own.contains_key(name)
    }

    fn value(&mut self, name: &'static str) -> Option<Value> {
        match self.own.remove(name) {
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

    fn names(&mut self, name: &'static str) -> Vec<String> {
        let Some(Value::Names(names)) = self.value(name) else { return Vec::new() };
        let mut seen = BTreeSet::new();
        names.into_iter().map(|(name, _)| name).filter(|name| seen.insert(name.clone())).collect()
    }

    fn whos(&mut self, name: &'static str) -> Vec<Who> {
        if let Some(Value::Whos(whos)) = self.value(name) { whos } else { Vec::new() }
    }

    fn count(&mut self, name: &'static str) -> Option<u32> {
        self.number(name).and_then(|number| u32::try_from(number).ok())
    }

    fn flag(&mut self, name: &'static str) -> bool {
        matches!(self.value(name), Some(Value::Flag(true)))
    }

    fn size(&mut self, name: &'static str) -> Option<u64> {
        if let Some(Value::Size(bytes)) = self.value(name) { bytes } else { None }
    }

    fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        if let Some(Value::Path(path)) = self.value(name) { Some(path) } else { None }
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

fn service_of(keys: &mut Keys) -> Service {
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
        capabilities: if let Some(Value::Capabilities(all)) = keys.value("capabilities") {
            all
        } else {
            Vec::new()
        },
        directory: keys.path("directory"),
        environment,
        environment_files: if let Some(Value::Paths(all)) = keys.value("environment-files") {
            all
        } else {
            Vec::new()
        },
        pass_environment: keys.names("pass-environment"),
        instances: keys.number("instances").and_then(|number| u16::try_from(number).ok()).unwrap_or(1),
        umask: keys.mode("umask"),
        before_start: if let Some(Value::Commands(all, _)) = keys.value("before-start") {
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
        reload: if let Some(Value::Reload(reload, _)) = keys.value("reload") { Some(reload) } else { None },
        watchdog_ms: keys.duration("watchdog"),
        idle_stop_ms: keys.duration("idle-stop"),
        essential: keys.flag("essential"),
        schedule: keys.text("schedule"),
        tty: keys.flag("tty"),
        runtime_directory: keys.text("runtime-directory"),
        state_directory: keys.text("state-directory"),
        cache_directory: keys.text("cache-directory"),
    }
}

fn restart_of(keys: &mut Keys) -> Restart {
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

/// What is asked is the one key of its table that says so; the parser has told of none and of two.
fn health_of(keys: &mut Keys) -> Health {
    let probe = match (keys.text("http"), keys.text("uwsgi"), keys.value("command")) {
        (Some(path), _, _) => Probe::Http(path),
        (None, Some(path), _) => Probe::Uwsgi(path),
        (None, None, Some(Value::Command(command, _))) => Probe::Command(command),
        (None, None, _) => Probe::Tcp,
    };
    Health {
        probe,
        host: keys.text("host").unwrap_or_default(),
        socket: keys.text("socket"),
        interval_ms: keys.duration("interval"),
        timeout_ms: keys.duration("timeout").unwrap_or_default(),
        failures: keys.count("failures").unwrap_or(1),
    }
}

fn deploy_of(keys: &mut Keys) -> Deploy {
    Deploy { strategy: Strategy::from_word(keys.choice("strategy")), release: keys.path("release") }
}

fn dependencies_of(keys: &mut Keys) -> Dependencies {
    Dependencies { requires: keys.names("requires"), wants: keys.names("wants"), after: keys.names("after") }
}

fn log_of(keys: &mut Keys) -> Log {
    Log {
        to: LogTo::from_word(keys.choice("to")).unwrap_or(LogTo::File),
        max_size: keys.size("max-size").unwrap_or(u64::MAX),
        max_age_ms: keys.duration("max-age"),
        keep: keys.count("keep").unwrap_or_default(),
        compress: keys.flag("compress"),
        when_full: WhenFull::from_word(keys.choice("when-full")).unwrap_or(WhenFull::Drop),
    }
}

fn access_of(keys: &mut Keys) -> Access {
    Access { status: keys.whos("status"), logs: keys.whos("logs"), control: keys.whos("control") }
}

fn limits_of(keys: &mut Keys) -> Limits {
    let small = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
    Limits {
        nofile: keys.number("nofile").and_then(|number| u64::try_from(number).ok()),
        core: keys.size("core"),
        nice: small(keys.number("nice")),
        oom_score_adjust: small(keys.number("oom-score-adjust")),
        nproc: keys.number("nproc").and_then(|number| u64::try_from(number).ok()),
        cpu_affinity: if let Some(Value::Processors(all)) = keys.value("cpu-affinity") {
            all
        } else {
            Vec::new()
        },
        memory_max: keys.size("memory-max"),
        memory_high: keys.size("memory-high"),
        cpu_max: if let Some(Value::Percent(percent)) = keys.value("cpu-max") { Some(percent) } else { None },
        cpu_weight: keys.count("cpu-weight"),
        io_weight: keys.count("io-weight"),
        pids_max: keys.count("pids-max").unwrap_or_default(),
    }
}

/// The socket; None where its address is wrong or missing, which has been told.
fn socket_of(socket: SocketSettings) -> Option<Socket> {
    let mut keys = Keys { table: Table::Socket, own: socket.keys };
    let Some(Value::Address(listen)) = keys.value("listen") else { return None };
    Some(Socket {
        listen,
        kind: SocketType::from_word(keys.choice("type")).unwrap_or(SocketType::Stream),
        mode: keys.mode("mode"),
        user: keys.account("user"),
        group: keys.account("group"),
        backlog: keys.count("backlog").unwrap_or_default(),
        nodelay: keys.flag("nodelay"),
        keepalive: keys.flag("keepalive"),
        freebind: keys.flag("freebind"),
        inherit: keys.text("inherit"),
        name: socket.name,
    })
}
