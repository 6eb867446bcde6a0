//! ROOT. The log files of services, for those who may read them: opened here, read by the client, and by `last_words`.
//! Never opens anything that somebody other than the logger could have put there, and never follows a link.

use std::collections::BTreeMap;
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
const TRIES: usize = 10;

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

    /// One that does not grow any more, in the form that it has by now; None where it has been removed.
    fn open_old(&self, old: &Old) -> io::Result<Option<(String, OwnedFd)>> {
        // What is compressed has its new name before it loses the old one.
        for form in [old.form, Form::Packed] {
            if let Some(found) = self.open_if_there(old.name(form))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn open_if_there(&self, name: String) -> io::Result<Option<(String, OwnedFd)>> {
        match self.open(&name) {
            Ok((fd, _)) => Ok(Some((name, fd))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The files with their names, the oldest first, and the one that grows last. One that gives way meanwhile
    /// is there once.
    fn files(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let mut opened: BTreeMap<Old, (String, OwnedFd)> = BTreeMap::new();
        let mut names = self.moments()?;
        let mut current = None;
        for _ in 0..TRIES {
            // What has been opened stays what it is, so a try is over before many more can give way.
            opened.retain(|old, _| names.contains(old));
            for old in &names {
                if !opened.contains_key(old)
                    && let Some(found) = self.open_old(old)?
                {
                    opened.insert(*old, found);
                }
            }
            current = self.open_if_there(CURRENT.to_owned())?;
            let now = self.moments()?;
            if now == names {
                break;
            }
            names = now;
        }
        Ok(opened.into_values().chain(current).collect())
    }

    /// Those of the old ones that a client gets, each once, as if none were compressed.
    fn moments(&self) -> io::Result<Vec<Old>> {
        let mut old = self.old()?;
        old.iter_mut().for_each(|one| one.form = Form::Plain);
        old.dedup();
        let surplus = old.len().saturating_sub(MOST_FILES);
        Ok(old.split_off(surplus))
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
        let troubles = self.logs.troubles_of(&service).into_iter().map(str::to_owned).collect();
        let mut reply = LogReply { service, to, directory, troubles, ..LogReply::default() };
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn each_file_is_there_once_in_the_form_that_it_has_by_now() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(&CString::new(place.path().as_os_str().as_bytes()).unwrap()).unwrap();
        let shelf = Shelf { dir, owner: place.path().metadata().unwrap().uid() };
        let moment = |number: u32| format!("2026112{number}T031245.123456789Z.log");
        let put = |name: &str| std::fs::write(place.path().join(name), name).unwrap();
        let [one, two, three] = [1, 2, 3].map(moment);
        let listed = Old::parse(one.as_bytes()).unwrap();
        // It was compressed since the names were read; then it was removed.
        put(&format!("{one}.gz"));
        let found = shelf.open_old(&listed).unwrap().map(|(name, _)| name);
        assert_eq!(found, Some(format!("{one}.gz")));
        std::fs::remove_file(place.path().join(format!("{one}.gz"))).unwrap();
        assert!(shelf.open_old(&listed).unwrap().is_none());
        // Of two forms the plain one; and half of one is none.
        let (packed, half) = (format!("{two}.gz"), format!("{three}.gz.part"));
        for name in [&one, &two, &packed, &three, &half, CURRENT] {
            put(name);
        }
        let names: Vec<String> = shelf.files().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&one, &two, &three, CURRENT]);
    }
}
