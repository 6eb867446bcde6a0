//! ROOT. The lock of a runtime directory: one supervisor at a time, and who it is. Never waits for it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use super::{files, process, retry};
use crate::wire::handover::Holder;

/// Writes this process into a lock file whose lock is held. Over what is there, which needs no room where there is none.
pub fn claim(file: BorrowedFd<'_>) -> io::Result<()> {
    claim_for(file, std::process::id())
}

/// The same for another process, which is to hold it.
pub fn claim_for(file: BorrowedFd<'_>, pid: u32) -> io::Result<()> {
    let start_time = process::stat(pid).map_or(0, |stat| stat.start_time);
    let text = Holder { pid, start_time }.encode();
    // SAFETY: the pointer and length describe `text`, which outlives the call.
    retry(|| unsafe { libc::pwrite(file.as_raw_fd(), text.as_ptr().cast(), text.len(), 0) as libc::c_long })?;
    // SAFETY: ftruncate takes plain numbers.
    retry(|| unsafe { libc::ftruncate(file.as_raw_fd(), text.len() as libc::off_t) }.into()).map(drop)
}

/// Who wrote itself into a lock file, where that process still lives. None also where nobody can tell.
pub fn living_holder(path: &Path) -> Option<u32> {
    let (bytes, ..) = files::read_steady(path, 64).ok()?;
    let holder = Holder::decode(std::str::from_utf8(&bytes).ok()?)?;
    let stat = process::stat(holder.pid).ok()?;
    let lives = !matches!(stat.state, b'Z' | b'X') && stat.start_time == holder.start_time;
    lives.then_some(holder.pid)
}
