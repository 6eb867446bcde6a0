//! ROOT. Whether a process is the one that a mirror speaks of. Never believes a number alone.
//!
//! A pid and its start say which process it is for as long as the machine runs; the mirror is of this boot and of these
//! pids. They are read behind a pidfd, so that everything is said of the same process. Where it was put into a cgroup it
//! has to be there, and it has to be the service's user's. What is left without its main process is proven by its
//! cgroup, or by the INVOCATION_ID that all of a session have in their environment.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use crate::manager::Manager;
use crate::manager::processes::{Heir, Process};
use crate::manager::tree::has_invocation;
use crate::sys::{cgroup, process};

/// What still stands of an incarnation.
#[derive(Debug)]
pub struct Standing {
    /// The main process, where it is there.
    pub pidfd: Option<OwnedFd>,
    /// Its cgroup.
    pub group: Option<OwnedFd>,
    /// Its processes, the main one first.
    pub pids: Vec<u32>,
}

/// All processes there are, by the sessions that they are in; looked at once.
#[derive(Debug)]
pub struct Sessions(BTreeMap<u32, Vec<u32>>);

impl Sessions {
    /// A look at all of them.
    pub fn now() -> Self {
        let mut all: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for pid in process::all().unwrap_or_default() {
            if let Ok(stat) = process::stat(pid)
                && !matches!(stat.state, b'Z' | b'X')
            {
                all.entry(stat.session).or_default().push(pid);
            }
        }
        Self(all)
    }

    /// Those in the session that a process has made. A session of its number with another leader is another's.
    fn of(&self, process: &Process) -> Vec<u32> {
        let is_another = |stat: process::Stat| stat.start_time != process.start_time;
        match process::stat(process.pid).is_ok_and(is_another) {
            true => Vec::new(),
            false => self.0.get(&process.pid).cloned().unwrap_or_default(),
        }
    }
}

impl Manager {
    /// What stands of it; None for nothing. The error says why something is there that is not touched.
    pub(super) fn stand(
        &self,
        process: &Process,
        uid: Option<u32>,
        sessions: &Sessions,
    ) -> Result<Option<Standing>, String> {
        let main = process.main();
        let group = process.cgroup.as_ref().and_then(|name| self.cgroups.as_ref()?.open(name).ok());
        let pidfd = prove(main, process, uid)?;
        let mut pids: Vec<u32> = pidfd.iter().map(|_| main.pid).collect();
        let others = match (&group, &pidfd) {
            (Some(group), _) => cgroup::processes(group.as_fd()).unwrap_or_default(),
            (None, Some(_)) => sessions.of(process),
            (None, None) => {
                let found = sessions.of(process);
                if let Some(stranger) = found.iter().find(|pid| !has_invocation(**pid, &process.invocation)) {
                    return Err(format!(
                        "process {stranger} may be left of it, which nothing proves: it is not touched\nhint: without \
                         cgroups what outlives its main process is known by INVOCATION_ID alone; end it by hand if it \
                         is of no use"
                    ));
                }
                found
            }
        };
        pids.extend(others.into_iter().filter(|pid| pidfd.is_none() || *pid != main.pid));
        let stands = pidfd.is_some() || !pids.is_empty();
        Ok(stands.then_some(Standing { pidfd, group, pids }))
    }
}

/// The main process, where the one that has its number is it.
fn prove(main: Heir, process: &Process, uid: Option<u32>) -> Result<Option<OwnedFd>, String> {
    let Ok(pidfd) = process::open(main.pid) else { return Ok(None) };
    let Ok(stat) = process::stat(main.pid) else { return Ok(None) };
    if stat.start_time != main.start_time {
        return Ok(None); // another has the number by now
    }
    let is_over = matches!(stat.state, b'Z' | b'X'); // its status can still be had, and who it was is not told any more
    if let Some(name) = &process.cgroup
        && !is_over
    {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", main.pid)).unwrap_or_default();
        if !text
            .lines()
            .any(|line| line.strip_prefix("0::").is_some_and(|path| path.ends_with(&format!("/{name}"))))
        {
            return Err(format!("process {} is not in its cgroup {name}: it is not touched", main.pid));
        }
    } else if !is_over && stat.session != process.pid {
        return Err(format!("process {} has left its session: it is not touched", main.pid));
    }
    let users = process::users(main.pid).map_err(|_| "it has just ended".to_owned())?;
    // Who was started as root may have become anybody.
    if !is_over && uid.is_some_and(|uid| uid != 0 && !users.contains(&uid)) {
        return Err(format!(
            "process {} runs as uid {}, which is not the service's: it is not touched",
            main.pid, users[1]
        ));
    }
    Ok(Some(pidfd))
}
