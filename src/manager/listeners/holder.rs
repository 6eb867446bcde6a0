//! ROOT. Who has an address that is wanted here, for words to people. Never does anything to him.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Address, Carries, Holder, Spot, Unbound};
use crate::manager::Manager;
use crate::manager::processes::Process;
use crate::policy::ServiceId;
use crate::sys::sockets::{self, Sought};
use crate::sys::{files, process};
use crate::wire::keeper::Kind;

/// Bytes of a command line that are shown.
const SHOWN: usize = 80;
/// Steps from a process up to one of ours, at most.
const MOST_PARENTS: usize = 64;

impl Manager {
    /// The failure of a bind because somebody has the address.
    pub(in crate::manager) fn taken(&self, address: &Address) -> Unbound {
        let inodes = sockets::inodes(sought(address));
        if let Some(id) = self.owner_of(&inodes) {
            return Holder::Service(self.name_of(id).to_owned()).refuses(address);
        }
        let found = inodes.iter().find_map(|inode| outside(&sockets::processes_with(&[*inode])));
        match found {
            Some(holder @ Holder::Process { pid, .. }) => self.refused_by_process(&holder, pid, address),
            Some(holder) => holder.refuses(address),
            None => match self.adopted_at(address) {
                Some(id) => {
                    let name = self.name_of(id);
                    let reason = format!("address already in use: `{name}` itself has it, it seems");
                    let hint = format!(
                        "its socket was not to be had when it was adopted: `supervise restart --stop-first {name}` ends what \
                         has it, and binds it anew"
                    );
                    Unbound { address: address.clone(), reason, hint: Some(hint) }
                }
                None => Holder::Unseen.refuses(address),
            },
        }
    }

    /// The service of ours for which one of these sockets is kept.
    fn owner_of(&self, inodes: &[u64]) -> Option<ServiceId> {
        let kept = self.listeners.iter().find(|(number, _)| {
            let inode = self.kept.fd(Kind::Listener, *number).and_then(|fd| files::identity(fd).ok());
            inode.is_some_and(|(_, inode)| inodes.contains(&inode))
        });
        kept.map(|(_, listener)| listener.service)
    }

    /// The service that wants an address and goes on from before its supervisor was killed.
    fn adopted_at(&self, address: &Address) -> Option<ServiceId> {
        let adopted = self.processes.iter().filter(|(_, process)| process.adopted.is_some());
        let mut services = adopted.map(|(_, process)| process.service);
        services.find(|id| self.wants(*id).iter().any(|wanted| wanted.address == *address))
    }

    fn refused_by_process(&self, holder: &Holder, pid: u32, address: &Address) -> Unbound {
        match self.unit_with(pid) {
            Some((name, true)) => holder.refuses_with(
                address,
                format!(
                    "it is `{name}` itself, whose socket was not to be had when it was adopted: `supervise restart \
                     --stop-first {name}`"
                ),
            ),
            Some((name, false)) => holder.refuses_with(
                address,
                format!(
                    "it belongs to `{name}`, which listens by itself: give `{name}` a `[socket.NAME]` table, or one \
                     of them another address"
                ),
            ),
            None => holder.refuses(address),
        }
    }

    /// The service whose process this is, by its cgroup, or else by the parents that it has; and whether that one was
    /// adopted from a supervisor that was killed.
    fn unit_with(&self, pid: u32) -> Option<(String, bool)> {
        let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let ours = self.processes.iter().find(|(_, process)| {
            process
                .cgroup
                .as_ref()
                .is_some_and(|name| group.lines().any(|line| line.ends_with(&format!("/{name}"))))
        });
        let known = |process: &Process| (self.name_of(process.service).to_owned(), process.adopted.is_some());
        if let Some((_, process)) = ours {
            return Some(known(process));
        }
        let mut at = pid;
        for _ in 0..MOST_PARENTS {
            if let Some((_, process)) = self.processes.iter().find(|(_, process)| process.pid == at) {
                return Some(known(process));
            }
            at = process::stat(at).ok()?.parent;
        }
        None
    }
}

/// Where the kernel's tables have it.
pub fn sought(address: &Address) -> Sought<'_> {
    match (&address.spot, address.carries) {
        (Spot::Path(path), _) => Sought::Path(path),
        (Spot::Abstract(name), _) => Sought::Abstract(name),
        (Spot::Inet { address, .. }, Carries::Datagram) => Sought::Inet(*address, sockets::Kind::Datagram),
        (Spot::Inet { address, .. }, _) => Sought::Inet(*address, sockets::Kind::Stream),
    }
}

/// Who has a socket, by the processes that have it open: a supervisor before any other. None where there are none.
pub fn outside(pids: &[u32]) -> Option<Holder> {
    if let Some(runtime_dir) = pids.iter().find_map(|pid| runtime_dir_of(*pid)) {
        return Some(Holder::Supervisor { runtime_dir, service: None });
    }
    let pid = *pids.first()?;
    let user = fs::metadata(format!("/proc/{pid}")).map(|data| user_name(data.uid())).ok();
    Some(Holder::Process { pid, command: command_of(pid), user })
}

/// The first part of a path that is there and no directory, where that is why it could not be bound.
pub fn no_directory(path: &Path, error: &io::Error) -> Option<PathBuf> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let is_wrong = |part: &&&Path| part.metadata().is_ok_and(|data| !data.is_dir());
    (error.raw_os_error() == Some(libc::ENOTDIR))
        .then(|| above.iter().rev().find(is_wrong))?
        .map(|part| (*part).to_owned())
}

/// The runtime directory of the supervisor of which this process is a part.
fn runtime_dir_of(pid: u32) -> Option<PathBuf> {
    arguments_of(pid, "--runtime-dir").into_iter().next()
}

/// What the supervisor of which this process is a part was given by this name. Whoever likes can call himself so.
pub fn arguments_of(pid: u32, name: &str) -> Vec<PathBuf> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    let ours = words.first() == Some(&b"supervise".as_slice())
        && words.get(1).is_some_and(|role| [b"keeper".as_slice(), b"manager"].contains(role));
    let pairs = words.windows(2).filter(|pair| ours && pair.first() == Some(&name.as_bytes()));
    pairs.filter_map(|pair| Some(Path::new(std::ffi::OsStr::from_bytes(pair.last()?)).to_owned())).collect()
}

/// A command line as it can be shown: one line, and not too long.
fn command_of(pid: u32) -> String {
    let mut words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if words.is_empty() {
        words = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    }
    let text = String::from_utf8_lossy(&words).replace('\0', " ");
    let text: String = text.trim().chars().map(|one| if one.is_control() { '?' } else { one }).collect();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A user's name where the file of the local ones has it: name services could hang, and this is only for people.
fn user_name(uid: u32) -> String {
    let number = uid.to_string();
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    named.unwrap_or(number)
}
