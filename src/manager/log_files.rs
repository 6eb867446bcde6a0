//! ROOT. The log files of services, for those who may read them: opened here, read by the client, and by `last_words`.
//! Never opens anything that somebody other than the logger could have put there, and never follows a link.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::Manager;
use super::answer::Asker;
use super::control::{Room, SessionId};
use crate::policy::ServiceId;
use crate::sys::dirs::{self, Dir, Facts};
use crate::sys::errno::reason;
use crate::wire::control::{LogReply, Reply};
use crate::wire::shelf::{CURRENT, Form, Old};
use crate::wire::verb::Right;

/// The most files of one service that a client gets, the newest. With their directory they fit into one message.
const MOST_FILES: usize = 250;
/// How often the names are read again when a file gave way meanwhile.
const TRIES: usize = 3;
/// A directory that is the logger's alone, and what is known of it.
pub(super) struct Shelf {
    dir: Dir,
    owner: u32,
}

impl Shelf {
    /// One of its files.
    pub(super) fn open(&self, name: &str) -> io::Result<(OwnedFd, Facts)> {
        let fd = self.dir.read(&CString::new(name)?)?;
        let facts = dirs::facts(fd.as_fd())?;
        // A second name could be that of a file which the logger itself may not read.
        if !facts.regular || facts.links > 1 || facts.owner != self.owner {
            return Err(io::Error::other("not a file of the logger's"));
        }
        Ok((fd, facts))
    }

    /// Those that do not grow any more, the oldest first.
    pub(super) fn old(&self) -> io::Result<Vec<Old>> {
        let names = self.dir.names(|name| Old::parse(name).is_some_and(|old| old.form != Form::Part))?;
        let mut old: Vec<Old> = names.iter().filter_map(|name| Old::parse(name.to_bytes())).collect();
        old.sort_unstable();
        Ok(old)
    }

    /// The files with their names, the oldest first, and the one that grows last. One that gives way meanwhile
    /// is there once.
    fn files(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let mut files = Vec::new();
        for _ in 0..TRIES {
            files.clear();
            let old = self.old()?;
            let surplus = old.len().saturating_sub(MOST_FILES);
            for one in old.iter().skip(surplus) {
                let name = one.name(one.form);
                match self.open(&name) {
                    Ok((fd, _)) => files.push((name, fd)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            match self.open(CURRENT) {
                Ok((fd, _)) => files.push((CURRENT.to_owned(), fd)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            if self.old()? == old {
                break;
            }
        }
        Ok(files)
    }
}

impl Manager {
    /// The log directory of a service; None where there is none yet.
    pub(super) fn shelf(&self, id: ServiceId) -> io::Result<Option<Shelf>> {
        let path = CString::new(self.settings.log_dir.as_os_str().as_bytes())?;
        let name = CString::new(self.name_of(id))?;
        let dir = match Dir::open(&path).and_then(|root| root.enter(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let facts = dir.facts()?;
        let ours =
            facts.owner == self.user || self.settings.log_user.is_some_and(|user| user.uid == facts.owner);
        if !ours || facts.mode & 0o022 != 0 {
            return Err(io::Error::other("another user can write there"));
        }
        Ok(Some(Shelf { dir, owner: facts.owner }))
    }

    /// Gives a client the log files of these services.
    pub(super) fn answer_logs(&mut self, asker: Asker<'_>, wanted: &[String]) {
        let session = asker.session;
        let chosen = match self.resolve(wanted, asker.caller, Right::Logs) {
            Ok(chosen) => chosen,
            Err(refusal) => return self.refuse(session, refusal),
        };
        if chosen.is_empty() {
            self.reply(session, &Reply::Log(Box::default()), true);
            return;
        }
        self.logs.readers.insert(session, chosen.into());
        self.go_on_with_logs(session);
    }

    /// Sends the files of one service after the other, as long as the client takes them.
    pub(super) fn go_on_with_logs(&mut self, session: SessionId) {
        let Some(mut rest) = self.logs.readers.remove(&session) else { return };
        while let Some(id) = rest.pop_front() {
            let (reply, passed) = self.log_reply(id);
            let last = rest.is_empty();
            let room = self.control.as_mut().map_or(Room::Gone, |control| {
                control.reply_with(session, &Reply::Log(Box::new(reply)), passed, last, self.now)
            });
            match room {
                Room::Now => {}
                Room::Later if last => return,
                Room::Later => {
                    self.logs.readers.insert(session, rest);
                    return;
                }
                Room::Gone => return,
            }
        }
    }

    fn log_reply(&self, id: ServiceId) -> (LogReply, Vec<OwnedFd>) {
        let service = self.name_of(id).to_owned();
        let directory = self.settings.log_dir.join(&service).display().to_string();
        let to = self.log_word(id).to_owned();
        let mut reply = LogReply { service, to, directory, ..LogReply::default() };
        let found = self.shelf(id).and_then(|shelf| match shelf {
            Some(shelf) => shelf.files().map(|files| Some((shelf.dir, files))),
            None => Ok(None),
        });
        let mut passed = Vec::new();
        match found {
            Ok(Some((dir, files))) => {
                passed.push(dir.into_fd());
                for (name, fd) in files {
                    reply.files.push(name);
                    passed.push(fd);
                }
            }
            Ok(None) => {}
            Err(error) => reply.note = Some(format!("{}: {}", reply.directory, reason(&error))),
        }
        reply.descriptors = passed.len() as u32;
        (reply, passed)
    }
}
