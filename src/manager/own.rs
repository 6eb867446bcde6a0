//! ROOT. Short-lived processes of our own binary, cloned by the zygote: what each gets, and nothing more. Never waits for
//! one, and never reads what one says.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Manager;
use crate::plan::{ExecPlan, FIXED_PATH, Identity, Passed};
use crate::sys::{fds, memfd};
use crate::wire::zygote::Spawn;

/// One that is to be.
pub(super) struct Own<'a> {
    /// What it does: the hidden command, and its arguments.
    pub argv: Vec<String>,
    /// Who it is; None for the supervisor's own user.
    pub identity: Option<Identity>,
    /// What of the mode its files do not get.
    pub umask: u32,
    /// Its standard output, which is all that it says.
    pub output: BorrowedFd<'a>,
    /// What else it is given.
    pub passed: Option<(Passed, BorrowedFd<'a>)>,
}

impl Manager {
    /// Has one made; the number of the request. Whoever has the same user could take from it what it holds, so it gets
    /// nothing of ours as standard error.
    pub(super) fn send_own(&mut self, name: &CStr, own: Own<'_>) -> io::Result<u64> {
        let Own { argv, identity, umask, output, passed } = own;
        let (sockets, given): (Vec<Passed>, Vec<BorrowedFd<'_>>) = passed.into_iter().unzip();
        let plan = ExecPlan {
            argv: std::iter::once("supervise".to_owned()).chain(argv).collect(),
            // In a clone of the zygote this is our own binary, whatever has become of the file.
            candidates: vec!["/proc/self/exe".to_owned()],
            env: vec![format!("PATH={FIXED_PATH}"), "LANG=C.UTF-8".to_owned()],
            pid_variables: Vec::new(),
            directory: "/".to_owned(),
            identity,
            umask,
            limits: Vec::new(),
            nice: None,
            oom_score_adj: None,
            cpus: Vec::new(),
            sockets,
            terminal: false,
        };
        let plan = plan.encode().map_err(|unfit| io::Error::other(unfit.to_string()))?;
        let plan = memfd::sealed(name, &plan)?;
        let (gate_read, gate) = fds::pipe(0)?;
        fds::write(gate.as_fd(), b"1")?; // nobody has to know of it before it runs
        let (_report, report_write) = fds::pipe(libc::O_NONBLOCK)?;
        let null = self.null.as_fd();
        let mut parcel = vec![plan.as_fd(), gate_read.as_fd(), report_write.as_fd(), null, output, null];
        let count = given.len() as u16;
        parcel.extend(given);
        let request = self.starts.next_request(self.kept.manager);
        self.starts.send(&Spawn { request, sockets: count, cgroup: false }, &parcel)?;
        Ok(request)
    }
}
