//! ROOT. Whether a new incarnation could not have an address because an older one of the same service has it: a
//! metrics port, a debugger. Never more than words.

use std::path::Path;

use super::Manager;
use crate::policy::service::{Ended, Incarnation};
use crate::policy::{End, ServiceId};
use crate::servers::Server;
use crate::sys::sockets::Place;
use crate::sys::{files, sockets};
use crate::wire::keeper::Kind;

/// What a program says of EADDRINUSE, in lower case: strerror(3), Python, Go, Node.
const IN_USE: [&str; 3] = ["address already in use", "address in use", "eaddrinuse"];
/// What gunicorn says where the process of its pid file lives.
const PID_FILE: &str = "already running on pid";
/// What programs say, in lower case, of what is there once only and which an older one still has: what a rehearsal
/// beside it may come upon, and a start after its end does not.
const TAKEN: [&str; 15] = [
    "in use",
    "eaddrinuse",
    "eexist",
    "file exists",
    "already exists",
    "already running",
    "already listening",
    "already locked",
    "is locked",
    "lock file",
    "lockfile",
    "acquire",
    "pidfile",
    "resource busy",
    "resource temporarily unavailable",
];
/// The most addresses that are named.
const MOST_NAMED: usize = 3;

/// Who has it, and what to do.
#[derive(Debug)]
pub(super) struct Rival {
    /// Who has it.
    pub words: String,
    /// What to do.
    pub hint: String,
}

/// Whether a rehearsal may have failed because it was one, by the words for it: the old one has what it needs, a port, a
/// path, a lock. An application that is broken is so without a rehearsal as well, and the old one is not to end for it.
pub(super) fn may_come_of_rehearsing(reason: &str, lines: &[String]) -> bool {
    let said = std::iter::once(reason).chain(lines.iter().map(String::as_str));
    said.map(str::to_lowercase).any(|line| TAKEN.iter().any(|words| line.contains(words)))
}

impl Manager {
    /// Where a service's newest incarnation has ended with these last lines, and they say that an address is in use:
    /// the older one that listens on it by itself.
    pub(super) fn rival(&self, id: ServiceId, lines: &[String]) -> Option<Rival> {
        let service = self.world.get(id)?;
        let failed = |ended: &&Ended| {
            ended.run == service.last_run && matches!(ended.end, End::Exited(_) | End::NotReady)
        };
        let ended = service.ends.last().filter(failed)?;
        let text = lines.join("\n");
        let lower = text.to_lowercase();
        let unit = self.unit_of(id);
        let server = unit.and_then(|unit| unit.service.recognised().server);
        if server == Some(Server::Gunicorn) && lower.contains(PID_FILE) {
            return Some(Rival {
                words: "another generation or instance of it has the pid file".to_owned(),
                hint: "remove `pidfile` from its configuration file: nothing here needs one".to_owned(),
            });
        }
        if !IN_USE.iter().any(|words| lower.contains(words)) {
            return None;
        }
        let found = service.incarnations().find_map(|(instance, _, one)| {
            let (pid, addresses) = self.listens_by_itself(one, &text)?;
            Some((instance.number, one.generation, pid, addresses))
        });
        let (instance, generation, pid, addresses) = found?;
        if instance != ended.instance {
            return Some(Rival {
                words: format!("its own instance {instance}, which goes on, listens on {addresses} (process {pid})"),
                hint: "give each instance a place of its own: `{instance}` in the command, as in `--port 900{instance}`, or \
                       `$SUPERVISE_INSTANCE` in the program; or make it a `[socket.NAME]` of the unit, which all instances share"
                    .to_owned(),
            });
        }
        let words =
            format!("its own generation {generation}, which goes on, listens on {addresses} (process {pid})");
        let first = format!(
            "have the old one end first: `supervise restart --stop-first {}`, or `[deploy] strategy = \"stop-first\"`",
            self.name_of(id)
        );
        let hint = match server {
            Some(server) if !server.takes_sockets() => first,
            Some(_) | None => {
                format!("make it a `[socket.NAME]` of the unit, which all generations share; or {first}")
            }
        };
        Some(Rival { words, hint })
    }

    /// Where an incarnation listens by itself on what is said to be in use, and which process of it.
    fn listens_by_itself(&self, one: &Incarnation, text: &str) -> Option<(u32, String)> {
        let pids = self.tree(one.run)?.pids();
        // What the unit gives it, both have.
        let given = |inode: u64| {
            let mut kept =
                self.listeners.iter().filter_map(|(number, _)| self.kept.fd(Kind::Listener, number));
            kept.any(|fd| files::identity(fd).is_ok_and(|(_, kept)| kept == inode))
        };
        let mut found = sockets::listeners_of(&pids);
        // What is its alone, the next one has in another place.
        let private = self.probe_path(one.run);
        let is_private = |at: &Place| match at {
            Place::Inet(_) => false,
            Place::Unix(name) => Path::new(name).file_name() == private.file_name(),
        };
        found.retain(|one| !given(one.inode) && !is_private(&one.at));
        // Not every program says which one it was.
        let is_said = |at: &Place| match at {
            Place::Inet(address) => {
                let port = address.port().to_string();
                text.split(|letter: char| !letter.is_ascii_digit()).any(|word| word == port)
            }
            Place::Unix(name) => text.contains(name.as_str()),
        };
        if found.iter().any(|one| is_said(&one.at)) {
            found.retain(|one| is_said(&one.at));
        }
        let pid = found.first()?.pid;
        let mut addresses: Vec<String> = found.iter().map(|one| one.at.to_string()).collect();
        addresses.dedup();
        addresses.truncate(MOST_NAMED);
        Some((pid, addresses.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_one_may_have_is_told_from_what_is_broken() {
        let may =
            |line: &str| may_come_of_rehearsing("exit status 1", &["so far".to_owned(), line.to_owned()]);
        for line in [
            "OSError: [Errno 98] Address already in use",
            "Error: listen EADDRINUSE: address already in use :::9100",
            "database is locked",
            "could not acquire the lock /run/web.lock",
            "FileExistsError: [Errno 17] File exists: '/run/web'",
            "Resource temporarily unavailable: another of it runs",
        ] {
            assert!(may(line), "{line}");
        }
        for line in
            ["ModuleNotFoundError: No module named 'bagels'", "ImportError: no bagels", "block 7 is bad"]
        {
            assert!(!may(line), "{line}");
        }
        assert!(!may_come_of_rehearsing("not healthy: probe said 500", &[]));
        assert!(may_come_of_rehearsing("binding a private socket: address already in use", &[]));
    }
}
