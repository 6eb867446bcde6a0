//! PURE. What follows from which server a unit runs: how it is stopped, what shows that it is ready, and what cannot
//! work. Never knows a server; `servers` does.

use std::net::IpAddr;

use super::address::Listen;
use super::choices::{Kind, Ready, Server, Strategy};
use super::command::Context;
use super::fault::RuleFault;
use super::model::{Probe, Reload, Service, Socket, Unit};
use super::problem::Problem;
use super::signal::Signal;
use super::{SOCKETS_MAX, forms};
use crate::servers::{self, Advice, Facts, Proof, Protocol, Reach, Recognised, Variable, Weight};

/// What makes an incarnation ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Its end with success: it is a task.
    Success,
    /// Its start.
    Started,
    /// READY=1 on its notify socket.
    Notify,
    /// A line on this descriptor.
    Line(u32),
    /// The first answer on the listener that it alone has.
    Answer(Protocol),
    /// That it waits for connections on its sockets.
    Listens,
    /// That it is healthy.
    Health,
}

impl Gate {
    /// Whether a process of ours has to look.
    pub const fn is_probed(self) -> bool {
        matches!(self, Self::Answer(_) | Self::Listens | Self::Health)
    }

    /// Whether anything tells of it before it counts.
    pub const fn is_told(self) -> bool {
        !matches!(self, Self::Success | Self::Started)
    }
}

impl Service {
    /// What its command is, with the options that its environment adds.
    pub fn recognised(&self) -> Recognised {
        self.by_command().with(&self.variables())
    }

    /// What its command alone is.
    fn by_command(&self) -> Recognised {
        if self.server == Server::None {
            return Recognised::default();
        }
        // What placeholders become tells nobody which program it is.
        let context = Context { name: "", instance: 1, generation: 1, fds: &[], directories: &[] };
        let argv = self.command.expand(&context);
        let mut found = servers::recognise(&argv);
        if let Some(named) = servers::Server::from_word(self.server.word())
            && found.server != Some(named)
        {
            // It is started in a way that nobody knows; its options are where it is written.
            found = Recognised {
                server: Some(named),
                arguments: argv.into_iter().skip(1).collect(),
                wrapper: None,
            };
        }
        found
    }

    /// What its environment says to the server that its command is.
    fn variables(&self) -> Vec<Variable> {
        let pairs = self.environment.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.by_command().server.map(|server| servers::variables(server, pairs)).unwrap_or_default()
    }
}

/// What a unit that does not say how it is stopped leaves to its server.
pub(super) fn stop_as_the_server_likes(service: &mut Service, signal_chosen: bool, timeout_chosen: bool) {
    let Some(stop) = service.recognised().stop() else { return };
    if !signal_chosen && let Some(signal) = Signal::named(stop.signal) {
        service.stop_signal = signal;
    }
    // One who chose another signal has another end in mind, which may take as long.
    if !timeout_chosen {
        service.stop_timeout_ms = Some(stop.timeout_ms);
    }
}

impl Unit {
    /// What makes an incarnation of it ready.
    pub fn gate(&self) -> Gate {
        if self.service.kind == Kind::Task {
            return Gate::Success;
        }
        match self.service.ready {
            Ready::Started => Gate::Started,
            Ready::Notify => Gate::Notify,
            Ready::Fd(number) => Gate::Line(number),
            Ready::Health => Gate::Health,
            Ready::Auto => self.best_gate(),
        }
    }

    fn best_gate(&self) -> Gate {
        if let Some(protocol) = self.private() {
            return Gate::Answer(protocol);
        }
        let found = self.service.recognised();
        if found.proof() == Proof::Listens && !self.sockets.is_empty() {
            return Gate::Listens;
        }
        if self.sockets.is_empty() && found.wrapper.is_none() && found.says_ready() {
            return Gate::Notify;
        }
        Gate::Started
    }

    /// What is spoken on the listener that each incarnation alone has; None where it has none. It is called
    /// `health` and stands behind the unit's sockets.
    pub fn private(&self) -> Option<Protocol> {
        let asked = match self.health.as_ref().map(|health| &health.probe) {
            Some(Probe::Http(_)) => Some(Protocol::Http),
            Some(Probe::Uwsgi(_)) => Some(Protocol::Uwsgi),
            Some(Probe::Tcp | Probe::Command(_)) | None => None,
        };
        let service = &self.service;
        if service.kind == Kind::Task || self.sockets.len() >= SOCKETS_MAX {
            return None;
        }
        if self.has_private_probe() {
            return Some(asked.unwrap_or_else(|| service.recognised().protocol()));
        }
        // A descriptor that the unit counts on would move.
        if self.sockets.is_empty() || matches!(service.ready, Ready::Fd(_)) {
            return None;
        }
        let Proof::Extra(protocol) = service.recognised().proof() else { return None };
        let network = self.health.as_ref().is_some_and(|health| !matches!(health.probe, Probe::Command(_)));
        let public = self.health.as_ref().is_some_and(|health| health.socket.is_some());
        let wanted = service.ready == Ready::Auto || network && !public;
        // What is asked for is what it speaks, where a file decides.
        let protocol = if protocol == Protocol::Either { asked.unwrap_or(protocol) } else { protocol };
        wanted.then_some(protocol)
    }

    /// Whether `[health]` asks the listener that each incarnation alone has.
    pub fn asks_private(&self) -> bool {
        let health = self.health.as_ref();
        health.is_some_and(|health| health.socket.is_none() && !matches!(health.probe, Probe::Command(_)))
            && self.private().is_some()
    }

    /// Whether a new generation is rehearsed on private sockets before it gets its own: where clients would hear it
    /// beside the old one, and answers tell good from bad.
    pub fn rehearses(&self) -> bool {
        let asks = self.health.as_ref().is_some_and(|health| match health.probe {
            Probe::Http(_) | Probe::Uwsgi(_) => true,
            // A connection comes from the kernel, and a command asks where it likes.
            Probe::Tcp | Probe::Command(_) => false,
        });
        let overlaps = !self.sockets.is_empty() && self.deploy.strategy != Some(Strategy::StopFirst);
        asks && overlaps && self.service.kind == Kind::Service
    }

    /// Whether a new generation is believed that has only lived for a while, although clients come to its sockets, or it is
    /// known to need longer before it fails.
    pub fn proves_nothing(&self) -> bool {
        let is_slow = self.service.recognised().server == Some(servers::Server::Celery);
        self.gate() == Gate::Started && self.health.is_none() && (is_slow || !self.sockets.is_empty())
    }

    /// What proves an incarnation good, for people; `rehearsing` while a new generation is rehearsed.
    pub fn gate_text(&self, rehearsing: bool) -> String {
        let proof = self.proof_text();
        if rehearsing {
            return format!("rehearsal on private sockets, where no client hears it; then {proof}");
        }
        proof
    }

    fn proof_text(&self) -> String {
        let alive = format!("alive for {}", forms::duration_text(self.service.settle_ms));
        let then = match (&self.health, self.gate()) {
            (None, _) | (Some(_), Gate::Success | Gate::Health) => alive.clone(),
            (Some(_), _) => format!("{alive}, then {}", self.probe_text()),
        };
        match self.gate() {
            Gate::Success => "its success".to_owned(),
            Gate::Started if self.health.is_some() => then,
            Gate::Started => format!("settle only: {alive} (not proven)"),
            Gate::Notify => format!("notify: READY=1, then {then}"),
            Gate::Line(number) => format!("notify: a line on descriptor {number}, then {then}"),
            Gate::Answer(_) => format!("private probe: its first answer, then {then}"),
            Gate::Listens => format!("listener test: it waits for connections, then {then}"),
            Gate::Health => format!("{}, then {alive}", self.probe_text()),
        }
    }

    /// Who has to say that it is well.
    fn probe_text(&self) -> &'static str {
        match &self.health {
            Some(health) if matches!(health.probe, Probe::Command(_)) => "health: its command succeeds",
            Some(_) if self.asks_private() => "private probe: healthy",
            Some(_) | None => "public probe: healthy",
        }
    }
}

fn reach(socket: &Socket) -> Reach {
    let loopback = |ip: IpAddr| if ip.is_loopback() { Reach::Loopback } else { Reach::Network };
    match &socket.listen {
        Listen::Tcp { dual: true, .. } => Reach::Dual,
        Listen::Tcp { addr, dual: false } => loopback(addr.ip()),
        Listen::Unix(_) | Listen::Abstract(_) => Reach::Path,
    }
}

/// What does not work with the server that the unit runs. `server = "none"` says that nothing is known of it.
pub fn check_server(unit: &Unit) -> Vec<Problem> {
    let (command, variables) = (unit.service.by_command(), unit.service.variables());
    let all = advice(unit, &command.clone().with(&variables));
    let without = advice(unit, &command);
    let said = |one: Advice| {
        // What the command itself does not say comes of a variable.
        let guilty = variables.iter().find(|variable| {
            let alone = std::slice::from_ref(*variable);
            !without.contains(&one) && advice(unit, &command.clone().with(alone)).contains(&one)
        });
        let Advice { weight, key, what, hint } = one;
        let (key, what) = match guilty {
            Some(variable) => ("service.environment", format!("`{}`: {what}", variable.name)),
            None => (key, what),
        };
        let (place, fault) = (unit.place(key), RuleFault::Server { what, hint });
        match weight {
            Weight::Refused => Problem::error(place, fault),
            Weight::Warned => Problem::warning(place, fault),
        }
    };
    all.into_iter().map(said).collect()
}

/// What there is to say of a unit if this is what it runs.
fn advice(unit: &Unit, found: &Recognised) -> Vec<Advice> {
    let socket = |socket: &Socket| servers::Socket {
        name: socket.name.clone(),
        address: socket.listen.to_string(),
        reach: reach(socket),
    };
    let sockets: Vec<servers::Socket> = unit.sockets.iter().map(socket).collect();
    let reload_signal = match &unit.service.reload {
        Some(Reload::Signal(signal)) => Some(signal.to_string()),
        Some(Reload::Command(_)) | None => None,
    };
    let asks_http = unit.health.as_ref().is_some_and(|health| matches!(health.probe, Probe::Http(_)));
    let asked = unit.health_socket().filter(|_| asks_http && !unit.asks_private());
    let asked = asked.map(|socket| socket.listen.to_string());
    servers::advice(Facts {
        found,
        sockets: &sockets,
        instances: unit.service.instances.into(),
        stops_by_unit: unit.places.of("service.stop-signal").is_some(),
        waits_for_notify: unit.service.ready == Ready::Notify,
        reload_signal: reload_signal.as_deref(),
        http_asked: asked.as_deref(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Severity;

    fn unit(rest: &str) -> Unit {
        let text = format!("[service]\n{rest}");
        Unit::parse("web", "/units/web.toml", &text).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })
    }

    const SOCKET: &str = "[socket.http]\nlisten = \"127.0.0.1:80\"";

    #[test]
    fn a_server_stops_as_it_likes_unless_the_unit_says_how() {
        let stop = |text: &str| {
            let service = unit(text).service;
            (service.stop_signal.to_string(), service.stop_timeout_ms)
        };
        assert_eq!(stop("command = \"gunicorn a\""), ("TERM".to_owned(), Some(35_000)));
        assert_eq!(stop("command = \"uwsgi a.ini\""), ("INT".to_owned(), Some(35_000)));
        assert_eq!(stop("command = \"uwsgi a.ini\"\nserver = \"none\""), ("TERM".to_owned(), Some(10_000)));
        let chosen = "command = \"uwsgi a.ini\"\nstop-signal = \"TERM\"\nstop-timeout = \"1s\"";
        assert_eq!(stop(chosen), ("TERM".to_owned(), Some(1_000)));
        assert_eq!(stop("command = \"bin/worker\"\nserver = \"celery\""), ("TERM".to_owned(), Some(300_000)));
    }

    #[test]
    fn the_gate_is_the_best_that_the_server_allows() {
        for (text, sockets, gate) in [
            ("command = \"gunicorn a\"", true, Gate::Answer(Protocol::Http)),
            ("command = \"gunicorn a\"\nready = \"started\"", true, Gate::Started),
            ("command = \"gunicorn a\"", false, Gate::Started),
            ("command = \"gunicorn a --preload\"", false, Gate::Notify),
            ("command = \"uwsgi a.ini\"", true, Gate::Answer(Protocol::Either)),
            ("command = \"uwsgi a.ini\"", false, Gate::Notify),
            ("command = \"uvicorn --fd 3 a\"", true, Gate::Listens),
            ("command = \"uv run gunicorn a\"", true, Gate::Started),
            ("command = \"gunicorn a\"\nserver = \"none\"", true, Gate::Started),
            ("command = \"bin/start\"\nserver = \"gunicorn\"", true, Gate::Answer(Protocol::Http)),
            ("command = \"gunicorn a\"\nkind = \"task\"", true, Gate::Success),
            ("command = \"node a\"", true, Gate::Started),
        ] {
            let unit = unit(&format!("{text}\n{}", if sockets { SOCKET } else { "" }));
            assert_eq!(unit.gate(), gate, "{text}");
        }
    }

    #[test]
    fn what_only_lives_for_a_while_proves_nothing_where_somebody_waits_for_it() {
        for (text, sockets, expected) in [
            ("command = \"node a\"", true, true),
            ("command = \"node a\"", false, false),
            ("command = \"uvicorn --fd 3 a\"", true, false),
            ("command = \"celery -A a worker\"", false, true),
            ("command = \"celery -A a worker\"\nserver = \"none\"", false, false),
        ] {
            let unit = unit(&format!("{text}\n{}", if sockets { SOCKET } else { "" }));
            assert_eq!(unit.proves_nothing(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_another_key_is_said_there() {
        let said = |text: &str| {
            let unit = unit(text);
            check_server(&unit).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let reload = said(&format!("command = \"gunicorn a\"\nreload = {{ signal = \"HUP\" }}\n{SOCKET}"));
        assert!(
            reload.starts_with("/units/web.toml:3:10: warning: HUP has gunicorn end its workers"),
            "{reload}"
        );
        let uwsgi = "command = \"uwsgi --master --need-app --exit-on-reload\"\n\
                     [socket.a]\nlisten = \"/run/a\"\n[health]\nhttp = \"/\"\n";
        assert_eq!(said(uwsgi), "", "it is asked on its private socket, in what that speaks");
        let public = said(&format!("{uwsgi}socket = \"a\""));
        assert!(
            public.starts_with("/units/web.toml:6:8: warning: uWSGI speaks the uwsgi protocol on"),
            "{public}"
        );
    }

    #[test]
    fn what_cannot_work_is_an_error_at_the_command() {
        let reuse = unit(&format!("command = \"gunicorn a --reuse-port\"\n{SOCKET}"));
        let problems = check_server(&reuse);
        assert_eq!(problems.first().unwrap().severity, Severity::Error);
        assert_eq!(
            problems.first().unwrap().to_string(),
            "/units/web.toml:2:11: with `--reuse-port` the workers of gunicorn ignore the sockets that it is given, and \
             clients wait for ever\n\
             \x20 2 | command = \"gunicorn a --reuse-port\"\n\
             \x20   |           ^^^^^^^^^^^^^^^^^^^^^^^^^\n\
             hint: remove `--reuse-port`"
        );
        let off = unit(&format!("command = \"gunicorn a --reuse-port\"\nserver = \"none\"\n{SOCKET}"));
        assert_eq!(check_server(&off), []);
        let exposed = "[socket.http]\nlisten = \"0.0.0.0:3031\"";
        assert_eq!(
            check_server(&unit(&format!("command = \"uwsgi a --protocol uwsgi\"\n{exposed}")))
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
                .count(),
            1
        );
    }
}
