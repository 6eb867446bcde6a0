//! USER. Who has an address that a unit wants, and whether he is in its way: its own supervisor, which has it for this
//! unit, is not. Never asks a supervisor twice, and none for longer than it takes to answer at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::cli::ask::{Ending, Event, ask_while};
use crate::manager::listeners::holder::{arguments_of, outside};
use crate::manager::listeners::{Address, Holder, Unbound};
use crate::sys::process;
use crate::sys::sockets::Snapshot;
use crate::unit::Unit;
use crate::wire::control::StatusReply;
use crate::wire::request::Request;
use crate::wire::settings::control_in;
use crate::wire::varlink::Answer;

/// Steps from a process up to its keeper, at most.
const MOST_PARENTS: usize = 64;

/// What somebody's having an address means to a unit that wants it.
#[derive(Debug)]
pub enum Taken {
    /// It is had for this unit.
    Fine,
    /// It cannot be bound.
    By(Box<Unbound>),
    /// That cannot be seen from here.
    Unknown(String),
}

/// Everybody who may have one.
#[derive(Debug, Default)]
pub struct Holders {
    /// All sockets.
    pub sockets: Snapshot,
    /// The runtime directory of the supervisor that is meant.
    meant: Option<PathBuf>,
    /// The addresses of the units that are checked.
    checked: BTreeMap<String, Vec<Address>>,
    /// What each supervisor has for which service; None where it does not say.
    services: RefCell<BTreeMap<PathBuf, Option<BTreeMap<String, String>>>>,
}

impl Holders {
    /// Looks.
    pub fn look(meant: Option<PathBuf>, units: &[Unit]) -> Self {
        let addresses = |unit: &Unit| unit.sockets.iter().map(Address::of).collect();
        Self {
            sockets: Snapshot::look(),
            meant: meant.map(|path| real(&path)),
            checked: units.iter().map(|unit| (unit.name.clone(), addresses(unit))).collect(),
            services: RefCell::default(),
        }
    }

    /// What it means to a unit that a socket of somebody is at an address of its.
    pub fn judge(&self, unit: &Unit, address: &Address, inode: u64) -> Taken {
        let pids = self.sockets.processes_with(inode);
        match outside(pids) {
            Some(Holder::Supervisor { runtime_dir, .. }) => {
                let ours = self.is_ours(unit, &runtime_dir, pids);
                self.of_supervisor(unit, address, runtime_dir, ours)
            }
            Some(holder @ Holder::Process { pid, .. }) => self.of_process(unit, address, &holder, pid),
            Some(holder @ (Holder::Service(_) | Holder::Unseen)) => Taken::By(holder.refuses(address).into()),
            None => {
                let said = self.meant.clone().and_then(|meant| self.service_at(&meant, address)).flatten();
                match said {
                    Some(name) if name == unit.name => Taken::Fine,
                    Some(_) | None => Taken::Unknown(format!(
                        "{address}: somebody has it; whether that is a supervisor, only root can see"
                    )),
                }
            }
        }
    }

    fn of_supervisor(&self, unit: &Unit, address: &Address, runtime_dir: PathBuf, ours: bool) -> Taken {
        let service = self.service_at(&runtime_dir, address);
        let holder = match (ours, service) {
            (true, Some(Some(name))) if name == unit.name || self.gives_up(&name, address) => {
                return Taken::Fine;
            }
            (true, Some(Some(name))) => Holder::Service(name),
            (true, Some(None) | None) => {
                let shown = runtime_dir.display();
                return Taken::Unknown(format!(
                    "{address}: the supervisor with the runtime directory `{shown}` has it, and does not say for whom"
                ));
            }
            (false, service) => Holder::Supervisor { runtime_dir, service: service.flatten() },
        };
        Taken::By(holder.refuses(address).into())
    }

    /// A process may have it from its supervisor, whose descriptors we may not see, or have bound it itself.
    fn of_process(&self, unit: &Unit, address: &Address, holder: &Holder, pid: u32) -> Taken {
        let refused = || Taken::By(holder.refuses(address).into());
        let Some(keeper) = keeper_of(pid) else { return refused() };
        let Some(runtime_dir) = arguments_of(keeper, "--runtime-dir").into_iter().next() else {
            return refused();
        };
        let ours = self.is_ours(unit, &runtime_dir, &[keeper]);
        if fs::read_dir(format!("/proc/{keeper}/fd")).is_err() {
            return self.of_supervisor(unit, address, runtime_dir, ours);
        }
        match service_of(pid) {
            // It lets go of it when the new text of its unit is read.
            Some(name) if ours && name == unit.name => Taken::Fine,
            Some(name) => {
                let hint = format!(
                    "it belongs to `{name}`, which listens by itself: give `{name}` a `[socket.NAME]` table, or one of them \
                     another address"
                );
                Taken::By(holder.refuses_with(address, hint).into())
            }
            None => refused(),
        }
    }

    /// Whether a supervisor is the one that is meant, or reads the very file of this unit.
    fn is_ours(&self, unit: &Unit, runtime_dir: &Path, pids: &[u32]) -> bool {
        if self.meant.as_ref() == Some(&real(runtime_dir)) {
            return true;
        }
        let Some(directory) =
            std::path::absolute(&unit.path).ok().and_then(|path| Some(real(path.parent()?)))
        else {
            return false;
        };
        pids.iter().flat_map(|pid| arguments_of(*pid, "--units")).any(|units| real(&units) == directory)
    }

    /// Whether what is checked is that a unit has this address no longer.
    fn gives_up(&self, name: &str, address: &Address) -> bool {
        self.checked.get(name).is_some_and(|addresses| !addresses.contains(address))
    }

    /// The service for which a supervisor has an address; None where it does not answer.
    fn service_at(&self, runtime_dir: &Path, address: &Address) -> Option<Option<String>> {
        let mut asked = self.services.borrow_mut();
        let services = asked.entry(runtime_dir.to_owned()).or_insert_with(|| ask_for(runtime_dir));
        services.as_ref().map(|services| services.get(&address.to_string()).cloned())
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The keeper above a process.
fn keeper_of(pid: u32) -> Option<u32> {
    let mut at = pid;
    for _ in 0..MOST_PARENTS {
        at = process::stat(at).ok()?.parent;
        if !arguments_of(at, "--runtime-dir").is_empty() {
            return Some(at);
        }
    }
    None
}

/// The service that a process says it is of.
fn service_of(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut all = bytes.split(|byte| *byte == 0);
    let name = all.find_map(|one| one.strip_prefix(b"SUPERVISE_SERVICE="))?;
    crate::cli::text::shown(&String::from_utf8_lossy(name)).into()
}

/// The addresses of a supervisor with the services that have them.
fn ask_for(runtime_dir: &Path) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut take = |answer: Answer| {
        let reply: StatusReply = serde_json::from_value(answer.parameters).unwrap_or_default();
        for service in reply.services {
            found.extend(service.sockets.into_iter().map(|socket| (socket.address, service.name.clone())));
        }
    };
    let request = Request::Status { names: Vec::new(), detail: false };
    let ending = ask_while(&control_in(runtime_dir), &request, false, &mut |event| match event {
        Event::Answer(answer) => {
            take(answer);
            ControlFlow::Continue(())
        }
        Event::Passed(_) => ControlFlow::Continue(()),
        Event::Again | Event::Silent => ControlFlow::Break(()),
    });
    match ending {
        Ok(Ending::Last(answer)) if answer.error.is_none() => {
            take(answer);
            Some(found)
        }
        Ok(Ending::Last(_) | Ending::Detached) | Err(_) => None,
    }
}
