//! ROOT. System calls, one small file per subject; the only module with `unsafe`, and never an opinion:
//! no retries but on EINTR, no defaults, no logging.
#![allow(unsafe_code)]

pub mod accounts;
pub mod cgroup;
pub mod clock;
pub mod clone;
pub mod command;
pub mod confine;
pub mod datagrams;
pub mod diag;
pub mod dirs;
pub mod errno;
pub mod exec;
pub mod fds;
pub mod files;
pub mod gate;
pub mod identity;
pub mod image;
pub mod inotify;
pub mod limits;
pub mod link;
pub mod lock;
pub mod look;
pub mod memfd;
pub mod memory;
pub mod notify;
pub mod objects;
pub mod parent;
pub mod peer;
pub mod pipes;
pub mod poller;
pub mod process;
pub mod pty;
pub mod reclaim;
pub mod signals;
pub mod slots;
pub mod sockets;
pub mod terminal;
pub mod walk;

use std::io;

/// Runs a system call again while it is interrupted, and turns `-1` into the error it stands for.
///
/// The one place where EINTR is handled (see signal(7)): signals are read from descriptors here, so an
/// interruption never carries news.
pub fn retry(mut call: impl FnMut() -> libc::c_long) -> io::Result<libc::c_long> {
    loop {
        let value = call();
        if value != -1 {
            return Ok(value);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}
