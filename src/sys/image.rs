//! ROOT. A plan's image in this process's own memory, ready to execute from. Never shares it, never changes
//! the memfd it came from.
//!
//! The bytes are copied before they are looked at, so that nobody can change or cut them afterwards: a memfd
//! that is not sealed is as safe as one that is.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use super::limits::decimal;
use super::{errno, memfd, retry};
use crate::plan::image::{Bad, Layout, MOST_IMAGE_BYTES, PID_ROOM};

/// Why there is no image.
#[derive(Debug)]
pub enum Fault {
    /// A system call failed.
    System(io::Error),
    /// The bytes are no plan.
    Bad(Bad),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// A plan whose layout has been looked at and whose pointers are filled in.
#[derive(Debug)]
pub struct Image {
    start: NonNull<u8>,
    length: usize,
    layout: Layout,
}

impl Image {
    /// Copies the content of `fd` into fresh memory, looks at it, and fills in the pointers and `pid`.
    /// Allocates nothing: the memory is mapped.
    pub fn read(fd: BorrowedFd<'_>, pid: u32) -> Result<Self, Fault> {
        let length = memfd::size(fd)?;
        if length == 0 || length > MOST_IMAGE_BYTES {
            return Err(Fault::Bad(Bad::Size));
        }
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a fresh anonymous map at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Fault::System(io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast()).ok_or(Fault::Bad(Bad::Size))?;
        // SAFETY: the fresh map has `length` zeroed bytes that nothing else refers to.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), length) };
        match filled(bytes, fd).and_then(|()| prepared(bytes, pid).map_err(Fault::Bad)) {
            Ok(layout) => Ok(Self { start, length, layout }),
            Err(fault) => {
                // SAFETY: exactly the map made above; `bytes` is not used after this.
                unsafe { libc::munmap(start.as_ptr().cast(), length) };
                Err(fault)
            }
        }
    }

    /// Numbers of the plan and where the rest is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the map lives as long as `self` and is not written after `read`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// The supplementary groups.
    pub fn groups(&self) -> &[u32] {
        let (at, count) = self.layout.groups();
        // SAFETY: the layout says that `count` numbers lie at `at`, a multiple of four, inside the map, which
        // starts on a page; x86_64 is little-endian, as the image is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at).cast(), count) }
    }

    /// The working directory.
    pub fn directory(&self) -> &CStr {
        self.text(self.layout.directory())
    }

    /// A place to look for the program.
    pub fn candidate(&self, index: usize) -> Option<&CStr> {
        self.layout.candidate(self.bytes(), index).map(|at| self.text(at))
    }

    /// Executes a candidate with the plan's arguments and variables. Returns only where that failed.
    pub fn execute(&self, index: usize) -> io::Error {
        let Some(path) = self.candidate(index) else { return io::Error::from_raw_os_error(errno::ENOENT) };
        let (at, _) = self.layout.pointers();
        // SAFETY: `prepared` filled the pointer room at `at` with argc pointers to terminated texts of this
        // map, a null, envc more, and a null; the map outlives the call.
        unsafe {
            let argv = self.start.as_ptr().add(at).cast::<*const libc::c_char>();
            let envp = argv.add(self.layout.argc() + 1);
            libc::execve(path.as_ptr(), argv, envp);
        }
        io::Error::last_os_error()
    }

    fn text(&self, at: usize) -> &CStr {
        let rest = self.bytes().get(at..).unwrap_or_default();
        CStr::from_bytes_until_nul(rest).unwrap_or_default()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: exactly the map made in `read`, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Reads the whole file from its start, without moving an offset that others share.
fn filled(bytes: &mut [u8], fd: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = bytes.get_mut(done..).unwrap_or_default();
        let (start, length) = (rest.as_mut_ptr(), rest.len());
        // SAFETY: the pointer and length describe `rest`, alive across the call.
        let count = retry(|| unsafe {
            libc::pread(fd.as_raw_fd(), start.cast(), length, done as libc::off_t) as libc::c_long
        })?;
        if count == 0 {
            return Err(Fault::Bad(Bad::Size));
        }
        done += count as usize;
    }
    Ok(())
}

/// Looks at the bytes, then fills in what only this process knows: addresses and its number.
fn prepared(bytes: &mut [u8], pid: u32) -> Result<Layout, Bad> {
    let layout = Layout::parse(bytes)?;
    let base = bytes.as_ptr().expose_provenance();
    let (pointers_at, pointers) = layout.pointers();
    let argc = layout.argc();
    for place in 0..pointers {
        // Arguments, a null, variables, a null; past the last word there is none.
        let word = match place {
            place if place == argc => None,
            place if place < argc => layout.word(bytes, place),
            place => layout.word(bytes, place - 1),
        };
        let address = word.map_or(0, |at| base + at);
        let at = pointers_at + place * size_of::<usize>();
        let room = bytes.get_mut(at..at + size_of::<usize>()).ok_or(Bad::Count)?;
        room.copy_from_slice(&address.to_ne_bytes());
    }
    let mut room = [0; PID_ROOM];
    let digits = decimal(pid.cast_signed(), &mut room);
    let mut index = 0;
    while let Some(at) = layout.patch(bytes, index) {
        bytes.get_mut(at..at + digits.len()).ok_or(Bad::Room)?.copy_from_slice(digits);
        index += 1;
    }
    Ok(layout)
}
