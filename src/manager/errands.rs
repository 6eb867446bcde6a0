//! ROOT. What a probe is to do, from the unit and from what is held; and what follows from where processes listen. Never
//! starts one.

use super::Manager;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::inputs::Which;
use super::listeners::{Address, Spot};
use super::probes::For;
use crate::policy::watch::RELOAD_MS;
use crate::policy::{Run, ServiceId};
use crate::servers::{self, Protocol};
use crate::sys::walk::{self, Walked};
use crate::sys::{files, sockets};
use crate::unit::{self, Gate, Probe, Unit};
use crate::wire::keeper::Kind;
use crate::wire::probe::{Ask, At, CLOSED, Task};

/// Milliseconds between two probes of one that is to become healthy, unless it is probed more often anyway.
const AGAIN_MS: u64 = 1_000;

/// Connections that a probe is given where another incarnation may take some of them.
const MOST_TRIES: u8 = 4;

impl Manager {
    /// The connections that a probe is given. They carry root's name, so none is made where somebody else could have put
    /// another socket, or a link to one.
    pub(super) fn connections(&self, id: ServiceId, task: &Task) -> io::Result<Vec<OwnedFd>> {
        let Task::Health { at: At::Given { count }, .. } = task else { return Ok(Vec::new()) };
        let socket = self.unit_of(id).and_then(Unit::health_socket).map(|socket| &socket.listen);
        let Some(unit::Listen::Unix(path)) = socket else { return Ok(Vec::new()) };
        if !is_safe(path)? {
            return Err(io::Error::other("another can write the directory of its socket"));
        }
        (0..*count).map(|_| sockets::connect_unix(path, sockets::STREAM)).collect()
    }

    pub(super) fn task(&self, id: ServiceId, run: Run, what: For) -> Option<Task> {
        let unit = self.unit_of(id)?;
        let main = self.processes.get(run)?.main().pid;
        let sockets = self.inodes(unit, run);
        match (what, unit.gate()) {
            (For::Look, _) => Some(Task::Look { main, sockets }),
            (For::Ready, Gate::Listens) => Some(Task::Listens { main, sockets }),
            (For::Ready, Gate::Answer(protocol)) => {
                let at = At::Path(self.probe_path(run));
                Some(Task::Answer { at, asks: asks(unit, protocol) })
            }
            (For::Ready, Gate::Health) => {
                let again_ms = unit.health.as_ref()?.interval_ms.unwrap_or(AGAIN_MS).min(AGAIN_MS);
                self.health_task(id, run, Some(again_ms))
            }
            (For::Health, _) => self.health_task(id, run, None),
            (For::Reload, _) => {
                let Some(unit::Reload::Command(command)) = &unit.service.reload else { return None };
                self.command_task(id, run, command, RELOAD_MS, None)
            }
            (For::Ready, Gate::Success | Gate::Started | Gate::Notify | Gate::Line(_)) => None,
        }
    }

    fn health_task(&self, id: ServiceId, run: Run, again_ms: Option<u64>) -> Option<Task> {
        let unit = self.unit_of(id)?;
        let health = unit.health.as_ref()?;
        let (timeout_ms, host) = (health.timeout_ms, health.host.clone());
        // What an answer means is the same in both protocols. Its private listener may speak the other one, as that of uWSGI
        // with `--http-socket` does.
        let private = unit.private().filter(|_| unit.asks_private());
        let ask = match (&health.probe, private) {
            (Probe::Http(path), Some(Protocol::Uwsgi)) => Ask::Uwsgi { path: path.clone(), host },
            (Probe::Uwsgi(path), Some(Protocol::Http)) => Ask::Http { path: path.clone(), host },
            (Probe::Http(path), _) => Ask::Http { path: path.clone(), host },
            (Probe::Uwsgi(path), _) => Ask::Uwsgi { path: path.clone(), host },
            (Probe::Tcp, _) => Ask::Connection,
            (Probe::Command(command), _) => return self.command_task(id, run, command, timeout_ms, again_ms),
        };
        if unit.asks_private() {
            let at = At::Path(self.probe_path(run));
            return Some(Task::Health { at, ask, only: None, timeout_ms, again_ms });
        }
        let socket = unit.health_socket()?;
        if let Some(at) = self.stand_in_for(unit, run, &socket.name) {
            return Some(Task::Health { at, ask, only: None, timeout_ms, again_ms });
        }
        let at = reachable(&Address::of(socket));
        let alone = self.sharers_of(id) < 2;
        let only = if alone { None } else { Some(self.processes.get(run)?.main().pid) };
        // A proxy's group may connect, and the service's own user may not.
        if let (0, At::Path(path)) = (self.user, &at)
            && is_safe(path).unwrap_or(false)
        {
            let at = At::Given { count: if alone { 1 } else { MOST_TRIES } };
            return Some(Task::Health { at, ask, only, timeout_ms, again_ms: None });
        }
        Some(Task::Health { at, ask, only, timeout_ms, again_ms })
    }

    /// A command of the unit, beside the service and with its rights.
    fn command_task(
        &self,
        id: ServiceId,
        run: Run,
        command: &unit::Command,
        timeout_ms: u64,
        again_ms: Option<u64>,
    ) -> Option<Task> {
        let unit = self.unit_of(id)?;
        let Which { instance, generation, .. } = self.which(id, run)?;
        let directories = self.directories(unit);
        let paths: Vec<_> = directories.iter().map(|(which, path)| (*which, path.as_str())).collect();
        let context = unit::Context {
            name: self.name_of(id),
            instance: instance.into(),
            generation: generation.into(),
            fds: &[],
            directories: &paths,
        };
        Some(Task::Command { argv: command.expand(&context), timeout_ms, again_ms })
    }

    /// How many incarnations of a service have its sockets.
    fn sharers_of(&self, id: ServiceId) -> usize {
        let Some(service) = self.world.get(id) else { return 0 };
        service.incarnations().filter(|(_, _, one)| !one.rehearsal).count()
    }

    /// Where a rehearsal, which nobody else can answer for, has what stands for this socket.
    fn stand_in_for(&self, unit: &Unit, run: Run, name: &str) -> Option<At> {
        let place = unit.sockets.iter().position(|socket| socket.name == name)?;
        self.processes.get(run)?.stand_ins.get(place).map(|one| reachable(&one.address))
    }

    /// Inodes of the sockets that an incarnation has, by which its processes' descriptors are told.
    pub(super) fn inodes(&self, unit: &Unit, run: Run) -> Vec<u64> {
        if let Some(process) = self.processes.get(run).filter(|process| !process.stand_ins.is_empty()) {
            return process.stand_ins.iter().map(|one| one.inode).collect();
        }
        let bound = self.wanted_sockets(unit).into_iter().filter_map(|(_, address)| {
            let (number, _) = self.listeners.at(&address)?;
            files::identity(self.kept.fd(Kind::Listener, number)?).ok()
        });
        bound.map(|(_, inode)| inode).collect()
    }
}

/// Whether nobody but root can put something else at the path of a socket.
fn is_safe(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else { return Ok(false) };
    Ok(matches!(walk::to_directory(parent, 0)?, Walked::Directory(_)))
}

/// What is asked for the first answer: the path of `[health]` where there is one.
fn asks(unit: &Unit, protocol: Protocol) -> Vec<Ask> {
    let (path, host) = match &unit.health {
        Some(health) => match &health.probe {
            Probe::Http(path) | Probe::Uwsgi(path) => (path.clone(), health.host.clone()),
            Probe::Tcp | Probe::Command(_) => ("/".to_owned(), health.host.clone()),
        },
        None => ("/".to_owned(), "localhost".to_owned()),
    };
    let http = Ask::Http { path: path.clone(), host: host.clone() };
    let uwsgi = Ask::Uwsgi { path, host };
    match protocol {
        Protocol::Http => vec![http],
        Protocol::Uwsgi => vec![uwsgi],
        Protocol::Either => vec![uwsgi, http],
    }
}

/// An address at which what listens there can be reached from this machine.
fn reachable(address: &Address) -> At {
    match &address.spot {
        Spot::Inet { address, .. } => {
            let mut address = *address;
            address.set_ip(address.ip().to_canonical()); // IPv4 on a socket of IPv6
            if address.ip().is_unspecified() {
                let ip: IpAddr = match address {
                    SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                };
                address.set_ip(ip);
            }
            At::Tcp(address.to_string())
        }
        Spot::Path(path) => At::Path(path.clone()),
        Spot::Abstract(name) => At::Abstract(name.clone()),
    }
}

/// What a probe said, and what to do where it is known why: what closes a connection at once may speak something else.
pub(super) fn explained(unit: &Unit, words: String) -> String {
    let asked = unit.health.as_ref().map(|health| &health.probe);
    match (asked, unit.service.recognised().server) {
        (Some(Probe::Http(path)), Some(servers::Server::Uwsgi)) if words == CLOSED => {
            format!("{words}: {}", other_protocol(path))
        }
        _ => words,
    }
}

/// That nobody answers on a private listener. It was asked as `[health]` says, where only a file knows what it speaks.
pub(super) fn silent(unit: &Unit) -> String {
    let silent = "no answer on its private probe socket";
    match (unit.health.as_ref().map(|health| &health.probe), unit.service.recognised().server) {
        (Some(Probe::Http(path)), Some(servers::Server::Uwsgi)) => {
            format!("{silent}: {}", other_protocol(path))
        }
        _ => silent.to_owned(),
    }
}

/// What to do where uWSGI is asked over HTTP and does not answer.
fn other_protocol(path: &str) -> String {
    format!(
        "uWSGI speaks the uwsgi protocol unless it is told otherwise; write `[health] uwsgi = \"{path}\"`, or \
         `protocol = http` in its configuration"
    )
}

/// What is wrong with where the processes of an incarnation listen, with the remedy.
pub(super) fn wrong(
    unit: &Unit,
    main: u32,
    held: bool,
    waits: bool,
    other: Option<(u32, String)>,
) -> Option<String> {
    let first = unit.sockets.first()?;
    let address = &first.listen;
    // The one that listens is below another, which supervise has started. A worker has its master's name.
    let below = other.as_ref().filter(|(pid, _)| *pid != main);
    let in_front = below.map(|(pid, _)| (called(main), called(*pid))).filter(|(front, own)| front != own);
    let in_front = in_front.map(|(front, _)| front);
    let found = unit.service.recognised();
    // Nothing but a file can have told a worker to.
    let by_itself = found.server.filter(|_| below.is_some()).and_then(servers::Server::own_listeners);
    let hint = match (&found.wrapper, &in_front) {
        (Some(wrapper), _) if wrapper.name.ends_with(" -c") => {
            format!("write `exec {}` in its command", wrapper.program)
        }
        (Some(wrapper), _) => {
            format!("`{}` stays in front of it: name the program itself, `{}`", wrapper.name, wrapper.program)
        }
        (None, Some(front)) => format!(
            "its sockets are passed to `{front}` alone (LISTEN_PID): write the server itself into `command`, or have \
             `{front}` become it (`exec` in a script), or give it the number of its socket, `{{fd:{}}}`",
            first.name
        ),
        (None, None) if by_itself.is_some() => by_itself.unwrap_or_default().replace("NAME", &first.name),
        (None, None) => format!(
            "have it take its socket by LISTEN_FDS, or by its number: `{{fd:{}}}` in the command",
            first.name
        ),
    };
    match other {
        // What is accepted without a socket of its own is accepted elsewhere.
        Some((pid, at)) if !waits || !held => {
            let who = match in_front {
                Some(front) => format!(
                    "its main process {main} is `{front}`, and below it process {pid} (`{}`) listens",
                    called(pid)
                ),
                None => format!("its process {pid} (`{}`) listens", called(pid)),
            };
            let none = match held {
                true => format!(
                    "none of them is seen to wait for the clients of {address} (with select or poll it could not be seen)"
                ),
                false => format!("none of its processes holds {address}: clients wait there for nobody"),
            };
            Some(format!("{who} on {at}, which is none of its sockets, and {none}\nhint: {hint}"))
        }
        Some(_) | None if !held => Some(format!(
            "none of its processes holds {address}: clients wait there for nobody\nhint: {hint}"
        )),
        Some(_) | None => None,
    }
}

/// What a process calls itself (proc_pid_comm(5)), which may be anything.
fn called(pid: u32) -> String {
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().chars().filter(|one| !one.is_control()).collect()
}

/// What to do about one that has not become ready, where the gate knows better than its output.
pub(super) fn unready_hint(unit: &Unit) -> Option<String> {
    match unit.gate() {
        Gate::Notify => Some(
            "does it say READY=1 (sd_notify(3)) when it can serve? Write `ready = \"started\"` if it never does, and a longer \
             `start-timeout` if it takes its time"
                .to_owned(),
        ),
        Gate::Line(number) => Some(format!(
            "does it write a line to descriptor {number} when it can serve? Write `ready = \"started\"` if it never does, and a \
             longer `start-timeout` if it takes its time"
        )),
        Gate::Success => Some("a longer `start-timeout`, or `\"off\"`, if it takes its time".to_owned()),
        Gate::Answer(_) | Gate::Listens | Gate::Health | Gate::Started => None,
    }
}
