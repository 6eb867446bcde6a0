//! ROOT. Who has an address that is wanted here, in words for people. Never does anything to him.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Address, Carries, Spot, Unbound};
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
        let (who, hint) = self.who_has(address);
        let reason = format!("address already in use: {who}");
        Unbound { address: address.clone(), reason, hint: Some(hint) }
    }

    fn who_has(&self, address: &Address) -> (String, String) {
        let sought = match (&address.spot, address.carries) {
            (Spot::Path(path), _) => Sought::Path(path),
            (Spot::Abstract(name), _) => Sought::Abstract(name),
            (Spot::Inet { address, .. }, Carries::Datagram) => {
                Sought::Inet(*address, sockets::Kind::Datagram)
            }
            (Spot::Inet { address, .. }, _) => Sought::Inet(*address, sockets::Kind::Stream),
        };
        let inodes = sockets::inodes(sought);
        if let Some(id) = self.owner_of(&inodes) {
            let name = self.name_of(id);
            let who = format!("`{name}` has it");
            return (who, format!("give one of them another address, or `supervise stop {name}` first"));
        }
        for inode in &inodes {
            let pids = sockets::processes_with(&[*inode]);
            if let Some(runtime_dir) = pids.iter().find_map(|pid| runtime_dir_of(*pid)) {
                return supervisor_has(&runtime_dir);
            }
            if let Some(pid) = pids.first() {
                return self.one_who_has(*pid);
            }
        }
        if let Some(id) = self.adopted_at(address) {
            let name = self.name_of(id);
            let hint = format!(
                "its socket was not to be had when it was adopted: `supervise restart --stop-first {name}` ends what has \
                 it, and binds it anew"
            );
            return (format!("`{name}` itself has it, it seems"), hint);
        }
        let who = "by somebody who cannot be seen from here".to_owned();
        let tool = match address.spot {
            Spot::Inet { .. } => "`ss -lntup`",
            Spot::Path(_) | Spot::Abstract(_) => "`ss -lxp`",
        };
        (who, format!("{tool}, as root and in the same network namespace, names him"))
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

    fn one_who_has(&self, pid: u32) -> (String, String) {
        let user = fs::metadata(format!("/proc/{pid}")).map(|data| data.uid());
        let user =
            user.map_or_else(|_| "of an unknown user".to_owned(), |uid| format!("user {}", user_name(uid)));
        let who = format!("process {pid} (`{}`, {user}) has it", command_of(pid));
        match self.unit_with(pid) {
            Some((name, true)) => {
                let hint = format!(
                    "it is `{name}` itself, whose socket was not to be had when it was adopted: `supervise restart \
                     --stop-first {name}`"
                );
                (who, hint)
            }
            Some((name, false)) => {
                let hint = format!(
                    "it belongs to `{name}`, which listens by itself: give `{name}` a `[socket.NAME]` table, or one \
                     of them another address"
                );
                (who, hint)
            }
            None => (who, "stop it, or choose another address".to_owned()),
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

/// That another supervisor has it, and who can say for whom.
pub(super) fn supervisor_has(runtime_dir: &Path) -> (String, String) {
    let shown = runtime_dir.display();
    let who = format!("a supervisor with the runtime directory `{shown}` has it");
    (who, format!("`supervise --runtime-dir {shown} status` shows for whom"))
}

/// The runtime directory of the supervisor of which this process is a part.
fn runtime_dir_of(pid: u32) -> Option<PathBuf> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    let ours = words.first() == Some(&b"supervise".as_slice())
        && words.get(1).is_some_and(|role| [b"keeper".as_slice(), b"manager"].contains(role));
    let at = words.iter().position(|word| *word == b"--runtime-dir").filter(|_| ours)?;
    words.get(at + 1).map(|word| Path::new(std::ffi::OsStr::from_bytes(word)).to_owned())
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
