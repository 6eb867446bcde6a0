//! ROOT. Memory that outlives a process: memfds, their seals, and shared maps of them. Never interprets
//! what is in one.
//!
//! Sources: memfd_create(2), fcntl(2) on seals, mmap(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::fds::owned;
use super::{fds, retry};

/// A memfd of `bytes` bytes, all allocated now so that a later store cannot fail, whose size never changes
/// again (sealed against growing and shrinking).
pub fn fixed(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    let fd = create(name)?;
    // SAFETY: fallocate touches no memory of ours.
    retry(|| unsafe { libc::fallocate(fd.as_raw_fd(), 0, 0, bytes as libc::off_t) }.into())?;
    seal(fd.as_fd(), libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL)?;
    Ok(fd)
}

/// A memfd that holds `content` and can never be changed again; its offset is 0.
pub fn sealed(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let fd = create(name)?;
    let mut rest = content;
    while !rest.is_empty() {
        let count = fds::write(fd.as_fd(), rest)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    seal(fd.as_fd(), libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL)?;
    // SAFETY: lseek touches no memory.
    retry(|| unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_SET) } as libc::c_long)?;
    Ok(fd)
}

/// A growing, unsealed memfd, empty and close-on-exec.
pub fn create(name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    retry(|| unsafe { libc::memfd_create(name.as_ptr(), flags) }.into()).map(owned)
}

fn seal(fd: BorrowedFd<'_>, seals: libc::c_int) -> io::Result<()> {
    // SAFETY: fcntl with F_ADD_SEALS touches no memory.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into()).map(drop)
}

/// The size in bytes of the file behind a descriptor.
pub fn size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for what fstat writes.
    retry(|| unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: fstat succeeded and filled it.
    Ok(unsafe { stat.assume_init() }.st_size as usize)
}

/// The whole content, read from the start without moving the offset that other holders share.
pub fn content(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size(fd)?];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        let (start, length) = (rest.as_mut_ptr(), rest.len());
        // SAFETY: the pointer and length describe `rest`, alive across the call.
        let count = retry(|| unsafe {
            libc::pread(fd.as_raw_fd(), start.cast(), length, filled as libc::off_t) as libc::c_long
        })? as usize;
        if count == 0 {
            bytes.truncate(filled);
            break;
        }
        filled += count;
    }
    Ok(bytes)
}

/// A shared map of a whole fixed memfd. Stores reach every other mapper and survive this process.
///
/// Another process may store at the same time, so there are no slices: words are atomics, and bytes are
/// copied out and in. One writer per region is a rule of the protocols above, not of this type.
#[derive(Debug)]
pub struct Map {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the map is plain memory, reached only through atomics and volatile copies.
unsafe impl Send for Map {}

impl Map {
    /// Maps `fd` whole; for reading alone unless `writable`.
    pub fn new(fd: BorrowedFd<'_>, writable: bool) -> io::Result<Self> {
        let length = size(fd)?;
        let rights = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a fresh shared map at an address of the kernel's choice; the file is sealed against
        // shrinking by everyone who makes one of these, so no page of it can vanish.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, rights, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { start, length })
    }

    /// Bytes in the map.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the map has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The aligned 64-bit word at byte `offset`; None outside the map or unaligned.
    pub fn word64(&self, offset: usize) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) || offset.checked_add(8)? > self.length {
            return None;
        }
        // SAFETY: inside the map, aligned (the map starts on a page), and only ever used as an atomic.
        Some(unsafe { &*self.start.as_ptr().add(offset).cast::<AtomicU64>() })
    }

    /// The aligned 32-bit word at byte `offset`; None outside the map or unaligned.
    pub fn word32(&self, offset: usize) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) || offset.checked_add(4)? > self.length {
            return None;
        }
        // SAFETY: inside the map, aligned, and only ever used as an atomic.
        Some(unsafe { &*self.start.as_ptr().add(offset).cast::<AtomicU32>() })
    }

    /// Copies `bytes` to `offset`; false, and nothing stored, where they do not fit.
    ///
    /// The map must be a writable one.
    pub fn store(&self, offset: usize, bytes: &[u8]) -> bool {
        match offset.checked_add(bytes.len()) {
            Some(end) if end <= self.length => {
                // SAFETY: the target range lies inside the map and `bytes` outside of it.
                unsafe { self.start.as_ptr().add(offset).copy_from(bytes.as_ptr(), bytes.len()) };
                true
            }
            _ => false,
        }
    }

    /// Copies bytes from `offset` into `out`; false, and nothing copied, where there are not enough.
    pub fn load(&self, offset: usize, out: &mut [u8]) -> bool {
        match offset.checked_add(out.len()) {
            Some(end) if end <= self.length => {
                // SAFETY: the source range lies inside the map and `out` outside of it.
                unsafe { out.as_mut_ptr().copy_from(self.start.as_ptr().add(offset), out.len()) };
                true
            }
            _ => false,
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the range mapped in `new`, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_map_stores_another_loads() {
        let fd = fixed(c"test", 8192).unwrap();
        let writer = Map::new(fd.as_fd(), true).unwrap();
        let reader = Map::new(fd.as_fd(), false).unwrap();
        assert!(writer.store(100, b"abc"));
        writer.word64(0).unwrap().store(7, Ordering::Release);
        let mut back = [0; 3];
        assert!(reader.load(100, &mut back));
        assert_eq!((&back, reader.word64(0).unwrap().load(Ordering::Acquire)), (b"abc", 7));
        assert!(!writer.store(8190, b"abc") && reader.word64(8188).is_none() && reader.word64(4).is_none());
    }

    #[test]
    fn sealed_content_stays_as_it_was() {
        let fd = sealed(c"test", b"inputs").unwrap();
        assert!(fds::write(fd.as_fd(), b"x").is_err());
        assert_eq!(content(fd.as_fd()).unwrap(), b"inputs");
        assert_eq!(content(fd.as_fd()).unwrap(), b"inputs", "reading moved a shared offset");
    }
}
