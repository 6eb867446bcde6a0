//! ROOT. The mirror of the state: a file in the runtime directory, for whoever starts after all of supervise was killed
//! at once. Never needed while one of keeper and manager lives, and never waited for.
//!
//! It follows the state before anything is let through a gate, and else at the end of a turn; it is written where the
//! state has changed, and then only what has. One that cannot be written is removed: what it says would be wrong soon,
//! and nobody would know. It has the values of the services' environments in it, as the kept inputs have, so nobody
//! but its owner can read it; it goes when supervise ends in order.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::Manager;
use crate::policy::Mono;
use crate::sys::errno::reason;
use crate::sys::{files, memfd};
use crate::wire::keeper::Kind as Keeps;
use crate::wire::mirror::{Head, Refused, Words, read};
use crate::wire::state::{Kind, Record, header};

/// Milliseconds after which one that could not be written is tried again, when there is something to write.
const AGAIN_MS: u64 = 10_000;
/// Bytes that it may grow by before it is written anew, beside as many as it had then.
const ROOM: usize = 256 * 1024;
/// The most bytes that are read of one.
const MOST_BYTES: u64 = 1 << 30;
/// What of the state it has.
const KINDS: [Kind; 5] = [Kind::Service, Kind::Instance, Kind::Process, Kind::Listener, Kind::Said];

/// The file, and what is still to be written.
#[derive(Debug, Default)]
pub struct Mirror {
    file: Option<File>,
    pending: Vec<u8>,
    words: Words,
    length: usize,
    least: usize,
    again_at: Option<Mono>,
    told: bool,
}

/// A record of a mirror: what it is about, and its body.
pub(super) type Found = ((Kind, u64), Vec<u8>);

impl Mirror {
    /// Something of the state has changed; an empty body removes it.
    pub fn note(&mut self, kind: Kind, id: u64, body: &[u8]) {
        // Without a file all of the state is written when there is one.
        if self.file.is_some() && (KINDS.contains(&kind) || kind == Kind::Inputs) {
            self.pending.extend(Record { kind, id, body }.encode());
        }
    }
}

/// Where the numbers in a mirror mean something.
fn here() -> io::Result<Head> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let namespace = std::fs::metadata("/proc/self/ns/pid")?.ino();
    Ok(Head { boot, namespace })
}

impl Manager {
    fn mirror_path(&self) -> PathBuf {
        self.settings.runtime_dir.join("mirror")
    }

    /// Brings it up to date. Without the lock the directory is another's.
    pub(super) fn write_mirror(&mut self) {
        if self.kept.fd(Keeps::Lock, 0).is_none() || self.mirror.again_at.is_some_and(|at| self.now < at) {
            return;
        }
        let words = Words {
            next_listener: self.store.get(header::NEXT_LISTENER),
            next_run: self.world.next_run().0,
            closing: self.store.get(header::CLOSING) != 0,
        };
        let pending = std::mem::take(&mut self.mirror.pending);
        if self.mirror.file.is_some() && pending.is_empty() && words == self.mirror.words {
            return;
        }
        let written = match &mut self.mirror.file {
            Some(file) if self.mirror.length <= 2 * self.mirror.least + ROOM => {
                let mut bytes = pending;
                if words != self.mirror.words {
                    bytes.extend(Record { kind: Kind::Words, id: 0, body: &words.encode() }.encode());
                }
                file.write_all(&bytes).map(|()| self.mirror.length += bytes.len())
            }
            Some(_) | None => self.write_anew(words),
        };
        match written {
            Ok(()) => self.mirror.words = words,
            Err(error) => self.give_mirror_up(&error),
        }
    }

    fn write_anew(&mut self, words: Words) -> io::Result<()> {
        let mut bytes = here()?.encode();
        bytes.extend(Record { kind: Kind::Words, id: 0, body: &words.encode() }.encode());
        for number in self.kept.ids(Keeps::Inputs) {
            if let Some(fd) = self.kept.fd(Keeps::Inputs, number) {
                let body = memfd::content(fd)?;
                bytes.extend(Record { kind: Kind::Inputs, id: number, body: &body }.encode());
            }
        }
        for kind in KINDS {
            for (id, body) in self.store.bodies(kind) {
                bytes.extend(Record { kind, id, body: &body }.encode());
            }
        }
        let (path, part) = (self.mirror_path(), self.mirror_path().with_extension("part"));
        match std::fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(&bytes)?;
        std::fs::rename(&part, &path)?;
        self.mirror.again_at = None;
        if std::mem::take(&mut self.mirror.told) {
            log::info!("the mirror of the state {} is written again", path.display());
        }
        (self.mirror.file, self.mirror.length, self.mirror.least) = (Some(file), bytes.len(), bytes.len());
        Ok(())
    }

    fn give_mirror_up(&mut self, error: &io::Error) {
        self.remove_mirror();
        self.mirror.again_at = Some(self.now.after(AGAIN_MS));
        if !std::mem::replace(&mut self.mirror.told, true) {
            log::warn!(
                "writing the mirror of the state {}: {}\nhint: everything goes on; only if all of supervise were killed \
                 at once, the next one would not know what runs",
                self.mirror_path().display(),
                reason(error)
            );
        }
    }

    /// Removes it: there is nothing that it would be right about.
    pub(super) fn remove_mirror(&mut self) {
        self.mirror.file = None;
        self.mirror.pending.clear();
        if self.kept.fd(Keeps::Lock, 0).is_some() {
            let path = self.mirror_path();
            let _ = std::fs::remove_file(path.with_extension("part"));
            let _ = std::fs::remove_file(path);
        }
    }

    /// What a supervisor has written down that was killed with all its processes, in order. None where there is
    /// nothing, or nothing to be believed: said with the reason.
    pub(super) fn read_mirror(&self) -> Option<Vec<Found>> {
        self.kept.fd(Keeps::Lock, 0)?;
        let path = self.mirror_path();
        let refused = |why: &dyn std::fmt::Display| {
            log::warn!("what a killed supervisor has left is not taken back by {}: {why}", path.display());
        };
        let (bytes, owner, mode) = match files::read_steady(&path, MOST_BYTES) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                refused(&reason(&error));
                return None;
            }
        };
        if owner != self.user || mode & 0o077 != 0 {
            refused(&"others could have written or read it");
            return None;
        }
        let here = here().inspect_err(|error| refused(&reason(error))).ok()?;
        match read(&bytes, &here) {
            Ok(records) => Some(records.iter().map(|one| ((one.kind, one.id), one.body.to_vec())).collect()),
            Err(why @ (Refused::Boot | Refused::Namespace)) => {
                log::info!("{}: {why}: nothing of it runs here", path.display());
                None
            }
            Err(why) => {
                refused(&why);
                None
            }
        }
    }
}
