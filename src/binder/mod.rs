//! CHILD. Binds a Unix socket with the rights of the service, in a directory that others than root can write: what
//! they can do to the way there, they could have done without us. Never as root for a service that is not.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use crate::sys::sockets::{self, Access, Kind, NotBound};
use crate::sys::{errno, fds, files, link};
use crate::wire::binder::{Done, Task};

/// Mode of directories that are missing on the way.
const DIRECTORY: u32 = 0o755;

/// Does what its argument says. What came of it, and the socket, go to standard output, which is the manager's link.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let task = match arguments.as_slice() {
        [task] => task.to_str().and_then(Task::decode),
        _ => None,
    };
    let (done, socket) = match task {
        Some(Task::Bind { before: Some(before), path, .. }) if is_there(&path, before) => (Done::There, None),
        Some(Task::Bind { path, kind, mode, user, group, .. }) => {
            match Kind::from_raw(kind).map(|kind| bind(&path, kind, Access { mode, user, group })) {
                Some(Ok((socket, file))) => (Done::Bound(file), Some(socket)),
                Some(Err(not_bound)) => (told(&not_bound), None),
                None => return ExitCode::from(2),
            }
        }
        Some(Task::Remove { path, file }) => {
            sockets::remove_if_it_is(&path, file);
            return ExitCode::SUCCESS;
        }
        None => {
            fds::complain("bind: this process is started by supervise itself");
            return ExitCode::from(2);
        }
    };
    let with = socket.as_ref().map(OwnedFd::as_fd);
    let sent = link::send(io::stdout().as_fd(), &done.encode(), with.as_slice());
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_there(path: &Path, before: (u64, u64)) -> bool {
    sockets::identity_at(path).is_ok_and(|found| found == Some(before))
}

fn bind(path: &Path, kind: Kind, access: Access) -> Result<(OwnedFd, (u64, u64)), NotBound> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    files::make_directory(parent, DIRECTORY)?;
    let directory = files::open_directory(&parent.canonicalize()?)?;
    sockets::bind_at(directory.as_fd(), path, kind, files::effective_user(), access)
}

fn told(not_bound: &NotBound) -> Done {
    match not_bound {
        NotBound::System(error) => Done::System(errno::of(error)),
        NotBound::Live => Done::Live,
        NotBound::NoSocket => Done::NoSocket,
        NotBound::Strangers => Done::Strangers,
        NotBound::NotGiven(error) => Done::NotGiven(errno::of(error)),
    }
}
