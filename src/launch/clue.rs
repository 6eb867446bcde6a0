//! CHILD. After a failed step: what a look at the path finds, with the rights that the command would have had. Never
//! allocates, never opens anything but the program's file, never sees more than its user may.
//!
//! The manager does not look itself: it would follow, with root's rights, paths that a service may lead anywhere.
//! A file system that does not answer holds up this child alone, until `start-timeout`.

use std::ffi::CStr;

use super::{Failure, NOWHERE, Stage};
use crate::plan::{MOST_PATH_BYTES, Resource};
use crate::sys::image::Image;
use crate::sys::look::{self, Shape};
use crate::sys::{errno, limits};
use crate::wire::zygote::MOST_CLUE;

/// What kind of thing was found; it goes with a text: a path as it was written, a part of it, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Clue {
    /// The first line names an interpreter that is not there.
    MissingInterpreter = 1,
    /// The first line names an interpreter that may not be executed.
    ClosedInterpreter,
    /// The first line names none.
    NamelessInterpreter,
    /// The program asks for a loader that is not there.
    MissingLoader,
    /// The file is on a mount that executes nothing.
    NoexecMount,
    /// The file has no permission to execute for this user; its permission bits.
    NotExecutable,
    /// A directory of the path may not be searched by this user.
    ClosedDirectory,
    /// A directory of the path is not there.
    MissingDirectory,
    /// What stands in the path as a directory is none.
    NoDirectory,
    /// It is a directory.
    IsDirectory,
    /// It is a device, a socket or a FIFO.
    NoFile,
    /// It is a script without a `#!` line.
    NoInterpreterLine,
    /// There is nothing in it.
    EmptyFile,
    /// It is a program for another machine; the number of that.
    OtherMachine,
    /// The limit on processes of its user.
    ProcessLimit,
}

impl Clue {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::MissingInterpreter,
        Self::ClosedInterpreter,
        Self::NamelessInterpreter,
        Self::MissingLoader,
        Self::NoexecMount,
        Self::NotExecutable,
        Self::ClosedDirectory,
        Self::MissingDirectory,
        Self::NoDirectory,
        Self::IsDirectory,
        Self::NoFile,
        Self::NoInterpreterLine,
        Self::EmptyFile,
        Self::OtherMachine,
        Self::ProcessLimit,
    ];
}

/// A clue with its text, without a heap.
pub(super) struct Found {
    pub(super) clue: Clue,
    room: [u8; MOST_CLUE],
    length: usize,
}

impl Found {
    fn new(clue: Clue, text: &[u8]) -> Option<Self> {
        let mut room = [0; MOST_CLUE];
        // A longer one is not told in part: half a path is the name of something else.
        room.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { clue, room, length: text.len() })
    }

    fn number(clue: Clue, number: u64) -> Option<Self> {
        Self::new(clue, &number.to_le_bytes())
    }

    pub(super) fn text(&self) -> &[u8] {
        self.room.get(..self.length).unwrap_or_default()
    }
}

/// Looks for the reason of a failure.
pub(super) fn after(image: &Image, failure: Failure) -> Option<Found> {
    let at = if failure.detail == NOWHERE { 0 } else { failure.detail as usize };
    let candidate = image.candidate(at);
    match (failure.stage, failure.errno) {
        (Stage::Exec | Stage::User, errno::EAGAIN) => {
            let (soft, _) = limits::limit(Resource::Nproc).ok()?;
            Found::number(Clue::ProcessLimit, soft)
        }
        (Stage::Directory, errno::EACCES | errno::ENOENT | errno::ENOTDIR) => {
            let path = image.directory();
            way_to(path).or_else(|| directory(path, path.to_bytes()))
        }
        (Stage::Exec, errno::ENOENT) if failure.detail == NOWHERE && image.layout().candidates() != 1 => None,
        (Stage::Exec, errno::ENOENT | errno::ENOTDIR) if failure.detail == NOWHERE => way_to(candidate?),
        (Stage::Exec, errno::ENOENT | errno::EACCES | errno::ENOEXEC) => {
            let path = candidate?;
            way_to(path).or_else(|| file(path)).or_else(|| content(path, failure.errno))
        }
        _ => None,
    }
}

/// The first directory above the end of the path that stands in the way.
fn way_to(path: &CStr) -> Option<Found> {
    let bytes = path.to_bytes();
    let ends = bytes.iter().enumerate().filter(|(at, byte)| *at > 0 && **byte == b'/').map(|(at, _)| at);
    ends.filter_map(|end| {
        let part = bytes.get(..end)?;
        let mut room = [0; MOST_PATH_BYTES];
        directory(terminated(part, &mut room)?, part)
    })
    .next()
}

/// What is wrong with a directory that is to be gone through.
fn directory(path: &CStr, text: &[u8]) -> Option<Found> {
    let clue = match look::shape(path) {
        Err(error) => match errno::of(&error) {
            errno::ENOENT => Clue::MissingDirectory,
            errno::ENOTDIR => Clue::NoDirectory,
            errno::EACCES => Clue::ClosedDirectory,
            _ => return None,
        },
        Ok(Shape::File(_) | Shape::Other) => Clue::NoDirectory,
        Ok(Shape::Directory) if look::may_execute(path) => return None,
        Ok(Shape::Directory) => Clue::ClosedDirectory,
    };
    Found::new(clue, text)
}

/// What is wrong with the file, whatever is in it.
fn file(path: &CStr) -> Option<Found> {
    match look::shape(path).ok()? {
        Shape::Directory => Found::new(Clue::IsDirectory, b""),
        Shape::Other => Found::new(Clue::NoFile, b""),
        Shape::File(_) if look::is_noexec(path) => mount_of(path),
        Shape::File(_) if look::may_execute(path) => None,
        Shape::File(mode) => Found::number(Clue::NotExecutable, mode.into()),
    }
}

/// Where what executes nothing is mounted: the last part of the path that is a mount of that kind. Links may lead
/// there by another way, and then it has no name here.
fn mount_of(path: &CStr) -> Option<Found> {
    let bytes = path.to_bytes();
    let mut end = bytes.len();
    while end > 1 {
        let part = bytes.get(..end)?;
        let mut room = [0; MOST_PATH_BYTES];
        let at = terminated(part, &mut room)?;
        if look::is_mount(at) && look::is_noexec(at) {
            return Found::new(Clue::NoexecMount, part);
        }
        end = part.iter().rposition(|byte| *byte == b'/')?;
    }
    Found::new(Clue::NoexecMount, if look::is_noexec(c"/") { b"/" } else { b"" })
}

/// What is wrong with what is in it.
fn content(path: &CStr, number: i32) -> Option<Found> {
    let mut room = [0; 1024];
    let bytes = look::beginning(path, &mut room).ok()?;
    if let Some(line) = bytes.strip_prefix(b"#!") {
        return interpreter(line);
    }
    match (bytes.strip_prefix(b"\x7fELF"), number) {
        (Some(_), errno::ENOEXEC) => Found::number(Clue::OtherMachine, short(bytes, 18)?.into()),
        (Some(_), errno::ENOENT) => loader(bytes),
        (None, errno::ENOEXEC) if bytes.is_empty() => Found::new(Clue::EmptyFile, b""),
        (None, errno::ENOEXEC) => Found::new(Clue::NoInterpreterLine, b""),
        _ => None,
    }
}

/// As the kernel reads it: blanks, then a name up to a blank or the end of the line.
fn interpreter(line: &[u8]) -> Option<Found> {
    let blank = |byte: &u8| [b' ', b'\t'].contains(byte);
    let start = line.iter().position(|byte| !blank(byte)).unwrap_or(line.len());
    let rest = line.get(start..)?;
    let end = rest.iter().position(|byte| blank(byte) || [b'\n', 0].contains(byte)).unwrap_or(rest.len());
    let name = rest.get(..end).filter(|name| !name.is_empty());
    let Some(name) = name else { return Found::new(Clue::NamelessInterpreter, b"") };
    needed(name, Clue::MissingInterpreter, Some(Clue::ClosedInterpreter))
}

/// The loader that a program names in its header, where that lies in its first bytes.
fn loader(bytes: &[u8]) -> Option<Found> {
    const INTERP: u16 = 3;
    let wide = |at: usize| {
        Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).map(|number| number as usize)
    };
    if bytes.get(4) != Some(&2) {
        return None; // of 32 bits, and laid out otherwise
    }
    let (headers, size, count) = (wide(32)?, usize::from(short(bytes, 54)?), usize::from(short(bytes, 56)?));
    for index in 0..count {
        let at = headers.checked_add(index * size)?;
        if short(bytes, at)? == INTERP {
            let start = wide(at.checked_add(8)?)?;
            let name = CStr::from_bytes_until_nul(bytes.get(start..)?).ok()?;
            return needed(name.to_bytes(), Clue::MissingLoader, None);
        }
    }
    None
}

/// Whether what is needed besides is there, and may be executed.
fn needed(name: &[u8], missing: Clue, closed: Option<Clue>) -> Option<Found> {
    let mut room = [0; MOST_PATH_BYTES];
    let path = terminated(name, &mut room)?;
    match look::shape(path).map_err(|error| errno::of(&error)) {
        Err(errno::ENOENT | errno::ENOTDIR) => Found::new(missing, name),
        Err(errno::EACCES) => Found::new(closed?, name),
        Err(_) => None,
        Ok(Shape::File(_)) if look::may_execute(path) => None,
        Ok(_) => Found::new(closed?, name),
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn terminated<'a>(path: &[u8], room: &'a mut [u8; MOST_PATH_BYTES]) -> Option<&'a CStr> {
    room.get_mut(..path.len())?.copy_from_slice(path);
    CStr::from_bytes_until_nul(room).ok()
}
