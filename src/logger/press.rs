//! LOG. Old log files made smaller, by a thread that gives way to everything else. Never touches a pipe or a
//! file that grows; one that ends in the middle leaves half a file under a name that is no log's.
//!
//! A file is read, written to `….log.gz.part`, brought to the disk, and only then gets its name; the plain one
//! goes last. Whoever finds both takes either, since they say the same.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::sys::confine;
use crate::sys::dirs::{self, Dir};
use crate::sys::fds;
use crate::wire::logger::Name;
use crate::wire::shelf::{Form, Old};

use super::say::{reason, say};
use super::shelf::FILE_MODE;

/// Services that wait at most, each with a descriptor. One that finds no place here is asked for again when its
/// next file gives way.
const MOST_WAITING: usize = 64;
const READ_BYTES: usize = 64 * 1024;
/// The encoder is put together on the stack before it goes to the heap.
const STACK_BYTES: usize = 2 * 1024 * 1024;

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Name, Dir)>,
    running: bool,
}

/// The thread, and what it is to do. It ends when nothing is left, so that an idle logger is one thread.
#[derive(Debug, Default)]
pub struct Press {
    queue: Arc<Mutex<Queue>>,
}

impl Press {
    /// Has the old files in this directory compressed by and by.
    pub fn ask(&self, name: Name, dir: Dir) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.len() >= MOST_WAITING || queue.waiting.iter().any(|(one, _)| *one == name) {
            return;
        }
        queue.waiting.push_back((name, dir));
        if queue.running {
            return;
        }
        let shared = Arc::clone(&self.queue);
        let thread = std::thread::Builder::new().name("press".to_owned()).stack_size(STACK_BYTES);
        queue.running = thread.spawn(move || work(&shared)).is_ok();
        if !queue.running {
            queue.waiting.clear(); // no memory for a thread: at the next file again
        }
    }

    /// Whether nothing is being done.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        !self.queue.lock().unwrap().running
    }
}

fn work(queue: &Mutex<Queue>) {
    // Without it the files are compressed all the same.
    let _ = confine::give_way();
    loop {
        let next = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let next = queue.waiting.pop_front();
            queue.running = next.is_some();
            next
        };
        let Some((name, dir)) = next else { return };
        if let Err((doing, error)) = press_all(&dir) {
            say(&format!(
                "log of `{name}`: {doing}: {}\nhint: the file stays as it is, and is tried again with the next one",
                reason(&error)
            ));
        }
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> (&'static str, io::Error) {
    move |error| (doing, error)
}

/// Compresses what is plain, the newest first: under a flood the oldest may be gone before their turn.
fn press_all(dir: &Dir) -> Result<(), (&'static str, io::Error)> {
    loop {
        let old = list(dir).map_err(failed("listing old files"))?;
        for half in old.iter().filter(|one| one.form == Form::Part) {
            let _ = dir.remove(&path(half, Form::Part));
        }
        let Some(plain) = old.iter().rev().find(|one| one.form == Form::Plain) else { return Ok(()) };
        let twin = old.iter().any(|one| one.form == Form::Packed && one.is_same(plain));
        if !twin {
            press(dir, plain).map_err(failed("compressing an old file"))?;
        }
        match dir.remove(&path(plain, Form::Plain)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err((("removing an old file"), error));
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// The old files in a directory, in the order of their moments.
pub fn list(dir: &Dir) -> io::Result<Vec<Old>> {
    let names = dir.names(|name| Old::parse(name).is_some())?;
    let mut old: Vec<Old> = names.iter().filter_map(|name| Old::parse(name.to_bytes())).collect();
    old.sort_unstable();
    Ok(old)
}

/// Its name, for a system call.
pub fn path(old: &Old, form: Form) -> CString {
    CString::new(old.name(form)).unwrap_or_default() // digits and dots alone
}

/// One file. Nothing is left of it where it was removed meanwhile.
fn press(dir: &Dir, plain: &Old) -> io::Result<()> {
    let from = match dir.read(&path(plain, Form::Plain)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let part = path(plain, Form::Part);
    let outcome = pack(&from, dir.create_new(&part, FILE_MODE)?).and_then(|()| {
        dir.facts_of(&path(plain, Form::Plain))?;
        dir.rename(&part, &path(plain, Form::Packed))
    });
    if outcome.is_err() {
        let _ = dir.remove(&part);
    }
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn pack(from: &OwnedFd, to: OwnedFd) -> io::Result<()> {
    let mut packer = GzEncoder::new(File::from(to), Compression::default());
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match fds::read(from.as_fd(), &mut bytes)? {
            0 => break,
            count => packer.write_all(bytes.get(..count).unwrap_or_default())?,
        }
    }
    dirs::sync(packer.finish()?.as_fd())
}
