//! CHILD. Takes one message with descriptors out of a service's notify socket, and sends on what may be kept of them.
//! Never lets anything into the manager that somebody could answer for, and never closes: it ends.
//!
//! What a service sends may be a file of its own file system, and whoever has such a file waits for the service when he
//! closes it, or when he ends. So it is this process that has it, and nobody waits for this process. The message stays
//! in the socket until the manager has written down what came of it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::process::ExitCode;

use crate::sys::{datagrams, fds, link, objects, parent, sockets};
use crate::wire::courier::Word;

/// Where the notify socket is: the first of the sockets that it is given.
const SOCKET: RawFd = 3;

/// Its argument is how many descriptors are wanted. Standard output is the manager's link.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let most = match arguments.as_slice() {
        [most] => most.to_str().and_then(|text| text.parse().ok()),
        _ => None,
    };
    let (Some(most), Ok(socket)) = (most, fds::inherited(SOCKET)) else {
        fds::complain("carry: this process is started by supervise itself");
        return ExitCode::from(2);
    };
    let Ok(carried) = datagrams::carried(socket.as_fd()) else { return ExitCode::FAILURE };
    let stdout = io::stdout();
    let told = tell(stdout.as_fd(), &carried, most);
    let go = told.is_ok() && has_go(stdout.as_fd());
    if go {
        // Its own copies of the descriptors are `carried`, so this closes nothing.
        let _ = sockets::discard(socket.as_fd());
        // It says so, since its end may never come.
        let _ = link::send(stdout.as_fd(), &[Word::Taken as u8], &[]);
    }
    objects::leave_open(carried);
    if go { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(link: BorrowedFd<'_>, carried: &[OwnedFd], most: usize) -> io::Result<()> {
    let mut sent = 0;
    let mut all = true;
    for fd in carried.iter().map(OwnedFd::as_fd).take(if most == 0 { 0 } else { carried.len() }) {
        if sent < most && objects::object(fd).is_ok_and(|object| object.is_some()) {
            link::send(link, &[Word::Descriptor as u8], &[fd])?;
            sent += 1;
        } else {
            all = false;
        }
    }
    let end = if all { Word::All } else { Word::NotAll };
    link::send(link, &[end as u8], &[]).map(drop)
}

/// Waits until the manager has written it down; false where that ends before.
fn has_go(link: BorrowedFd<'_>) -> bool {
    loop {
        match link::receive(link, &mut [0], &mut []) {
            Ok(got) => return got.is_some(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if parent::wait(&[link], -1, &mut [false]).is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}
