//! USER. The log files of services: given by a supervisor as open descriptors, or opened in the log directory where
//! there is none. Never asks for a right that the user does not have.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::ask::{Ending, Event, ask};
use crate::cli::exit::Exit;
use crate::cli::trouble::{self, Trouble, reason, shown_path};
use crate::sys::dirs::Dir;
use crate::wire::control::LogReply;
use crate::wire::names::{Unknown, resolve};
use crate::wire::request::Request;
use crate::wire::shelf::{CURRENT, Form, Old};
use crate::wire::varlink::Answer;
use crate::wire::verb::Verb;

/// The files of one service.
#[derive(Debug)]
pub struct Given {
    /// Whose.
    pub service: String,
    /// Where its lines go, as in its unit.
    pub to: String,
    /// Why there are none.
    pub note: Option<String>,
    /// What keeps its lines from where they are to go.
    pub troubles: Vec<String>,
    /// Their directory.
    pub dir: Option<Dir>,
    /// Older files, the oldest first.
    pub old: Vec<(Old, File)>,
    /// The file that grows.
    pub current: Option<File>,
}

impl Given {
    fn of(reply: LogReply, passed: Vec<OwnedFd>) -> Self {
        let mut passed = passed.into_iter();
        let dir = passed.next().map(Dir::from_fd);
        let mut given = Self {
            service: reply.service,
            to: reply.to,
            note: reply.note,
            troubles: reply.troubles,
            dir,
            old: Vec::new(),
            current: None,
        };
        for (name, fd) in reply.files.into_iter().zip(passed) {
            given.put(&name, fd);
        }
        given.in_order()
    }

    fn put(&mut self, name: &str, fd: OwnedFd) {
        match Old::parse(name.as_bytes()) {
            Some(old) if old.form != Form::Part => self.old.push((old, File::from(fd))),
            None if name == CURRENT => self.current = Some(File::from(fd)),
            Some(_) | None => {}
        }
    }

    /// Sorted; of a file that is there in two forms the plain one.
    fn in_order(mut self) -> Self {
        self.old.sort_by_key(|(old, _)| *old);
        self.old.dedup_by(|later, earlier| later.0.is_same(&earlier.0));
        self
    }
}

/// Where the files come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A supervisor, by its control socket.
    Supervisor(PathBuf),
    /// A log directory.
    Directory(PathBuf),
}

impl Source {
    /// The files of these services, in the order of their names.
    pub fn files(&self, names: &[String]) -> Result<Vec<Given>, Vec<Trouble>> {
        match self {
            Self::Supervisor(control) => asked(control, names),
            Self::Directory(directory) => opened(directory, names),
        }
    }
}

fn asked(control: &Path, names: &[String]) -> Result<Vec<Given>, Vec<Trouble>> {
    let (mut all, mut passed) = (Vec::new(), VecDeque::new());
    let mut take = |answer: Answer, passed: &mut VecDeque<OwnedFd>| {
        let reply: LogReply = serde_json::from_value(answer.parameters).unwrap_or_default();
        let count = (reply.descriptors as usize).min(passed.len());
        let own = passed.drain(..count).collect();
        if !reply.service.is_empty() {
            all.push(Given::of(reply, own));
        }
    };
    let mut anew = false;
    let ending = ask(control, &Request::Logs { names: names.to_vec() }, false, &mut |event| match event {
        Event::Passed(more) => passed.extend(more),
        Event::Answer(answer) => take(answer, &mut passed),
        Event::Again => anew = true,
        Event::Silent => {}
    });
    match ending.map_err(|trouble| vec![trouble])? {
        Ending::Last(answer) if answer.error.is_none() => take(answer, &mut passed),
        Ending::Last(answer) => return Err(trouble::of_answer(&answer, Verb::Logs, names)),
        Ending::Detached => {}
    }
    if anew {
        // What came before the connection broke came again after it.
        all.reverse();
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|given| seen.insert(given.service.clone()));
        all.reverse();
    }
    Ok(all)
}

fn opened(directory: &Path, names: &[String]) -> Result<Vec<Given>, Vec<Trouble>> {
    let failed = |error: io::Error| {
        vec![Trouble::plain(Exit::Failed, format!("`{}`: {}", shown_path(directory), reason(&error)))]
    };
    let path = CString::new(directory.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    let root = Dir::open(&path).map_err(failed)?;
    let listed = root.names(|name| std::str::from_utf8(name).is_ok()).map_err(failed)?;
    let mut all: Vec<&str> = listed.iter().filter_map(|name| name.to_str().ok()).collect();
    all.sort_unstable();
    let chosen = if names.is_empty() { Ok(all.clone()) } else { resolve(names, &all) };
    let chosen = chosen.map_err(|Unknown { name, near, .. }| {
        let text = format!("no log of `{}` in `{}`", crate::cli::text::shown(&name), shown_path(directory));
        let trouble = Trouble::plain(Exit::NoService, text);
        vec![near.map_or(trouble.clone(), |near| trouble.hint(format!("did you mean `{near}`?")))]
    })?;
    let mut given = Vec::new();
    for name in chosen {
        let below = CString::new(name).map_err(|error| failed(error.into()))?;
        match root.enter(&below).and_then(|dir| in_directory(name, dir)) {
            Ok(files) => given.push(files),
            // Something else lies there.
            Err(error) if names.is_empty() && error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => {
                let text = format!("`{}`: {}", shown_path(&directory.join(name)), reason(&error));
                return Err(vec![Trouble::plain(Exit::NotPermitted, text)]);
            }
        }
    }
    Ok(given)
}

fn in_directory(service: &str, dir: Dir) -> io::Result<Given> {
    let wanted = |name: &[u8]| name == CURRENT.as_bytes() || Old::parse(name).is_some();
    let names = dir.names(wanted)?;
    let (to, old, current) = ("file".to_owned(), Vec::new(), None);
    let mut given =
        Given { service: service.to_owned(), to, note: None, troubles: Vec::new(), dir: None, old, current };
    for name in &names {
        match dir.read(name) {
            Ok(fd) => given.put(name.to_str().unwrap_or_default(), fd),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it has gone meanwhile
            Err(error) => return Err(error),
        }
    }
    given.dir = Some(dir);
    Ok(given.in_order())
}
