//! ROOT. What an incarnation may use together: the limits of its cgroup, and what cannot be limited here. Never
//! keeps a service from running.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Manager;
use crate::policy::ServiceId;
use crate::sys::errno::reason;
use crate::sys::{cgroup, clock, fds, parent, process};
use crate::unit::Unit;
use crate::wire::keeper::Kind;

/// Why limits cannot be had here, as far as it is no matter of one service.
#[derive(Debug, Default)]
pub(super) struct Unlimited {
    /// Why there are no groups at all.
    pub nowhere: Option<String>,
    /// Why a controller is not on, and what somebody can do about it.
    pub controllers: BTreeMap<&'static str, (String, &'static str)>,
}

/// One limit: the unit's key, the controller that it needs, and what is written into which file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    key: &'static str,
    controller: &'static str,
    file: &'static str,
    value: String,
    /// What else is written, where the kernel has this file instead or besides.
    also: Option<(&'static str, String)>,
    /// Whether somebody wrote it: a default that cannot be had is no news.
    asked: bool,
}

/// Controllers that the keys of `[limits]` need.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "io", "pids"];
/// Milliseconds that leaving the cgroup as it was found may take.
const GIVE_BACK_MS: u64 = 500;
/// The period of `cpu.max` in microseconds, which is also the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// The limits of a unit, defaults included.
fn shares(unit: &Unit) -> Vec<Share> {
    let limits = &unit.limits;
    let mut all = Vec::new();
    let mut add = |key, controller, file, value: Option<String>| {
        let asked = unit.is_written(&format!("limits.{key}"));
        all.extend(value.map(|value| Share { key, controller, file, value, also: None, asked }));
    };
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    let quota = limits.cpu_max.map(|percent| u64::from(percent) * PERIOD_US / 100);
    add("memory-max", "memory", "memory.max", text(limits.memory_max));
    add("memory-high", "memory", "memory.high", text(limits.memory_high));
    add("cpu-max", "cpu", "cpu.max", quota.map(|quota| format!("{quota} {PERIOD_US}")));
    add("cpu-weight", "cpu", "cpu.weight", limits.cpu_weight.map(|weight| weight.to_string()));
    add("pids-max", "pids", "pids.max", Some(limits.pids_max.to_string()));
    add("io-weight", "io", "io.weight", limits.io_weight.map(|weight| weight.to_string()));
    if let (Some(weight), Some(share)) = (limits.io_weight, all.last_mut()) {
        share.also = Some(("io.bfq.weight", bfq_weight(weight.into()).to_string()));
    }
    all
}

/// A weight from 1 to 10000 as the disk scheduler bfq has it, from 1 to 1000; 100 is the usual one of both.
fn bfq_weight(weight: u64) -> u64 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * 900 / 9900 }
}

impl Share {
    fn set(&self, group: BorrowedFd<'_>) -> io::Result<()> {
        let set = cgroup::set(group, self.file, &self.value);
        let Some((file, value)) = &self.also else { return set };
        match (cgroup::set(group, file, value), set) {
            (Ok(()), Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            (_, set) => set,
        }
    }
}

impl Manager {
    /// Has the kernel count and limit what runs in the groups that are made here, as far as it lets us. True where
    /// groups that are there already have to get their limits again.
    pub(super) fn enable_controllers(&mut self) -> bool {
        // Where processes are in the group itself, nothing below it is limited (cgroups(7), "no internal
        // processes"). Only our own are moved; somebody else's stay, and then there are no limits.
        let mut ours: BTreeSet<u32> =
            process::children(self.kept.keeper_pid).unwrap_or_default().into_iter().collect();
        ours.extend([self.kept.keeper_pid, std::process::id()]);
        let Some(base) = &mut self.cgroups else { return false };
        let switched = match base.enable(&CONTROLLERS, &ours) {
            Ok(switched) => switched,
            Err(error) => {
                log::warn!("no limits of memory, processors and disks here: {}", reason(&error));
                return false;
            }
        };
        let others = base.others(&ours).unwrap_or_default();
        let place = base.path.display().to_string();
        for (controller, error) in switched.lacking {
            let lack = lack(controller, error.as_ref(), &place, &others);
            if error.is_some() {
                log::warn!("no limits by the controller `{controller}` here: {}", lack.0);
            }
            self.unlimited.controllers.insert(controller, lack);
        }
        switched.changed
    }

    /// Sets the limits of all groups again: a controller that was off has forgotten them.
    pub(super) fn limit_again(&mut self) {
        let all: Vec<_> = self.processes.iter().map(|(run, process)| (run, process.service)).collect();
        for (run, id) in all {
            if let Some(Ok(group)) = self.kept.fd(Kind::Cgroup, run.0).map(fds::duplicate) {
                self.limit_group(id, Some(group.as_fd()));
            }
        }
    }

    /// Sets the limits of an incarnation's group, or of one that has none: what of it cannot be had is a problem
    /// of the service, and it runs all the same.
    pub(super) fn limit_group(&mut self, id: ServiceId, group: Option<BorrowedFd<'_>>) {
        let Some(unit) = self.unit_of(id) else { return };
        let mut lacking = Vec::new();
        for share in shares(unit) {
            let (why, hint) = match group.map(|group| share.set(group)) {
                Some(Ok(())) => continue,
                Some(Err(error)) => self.unlimited.words(&share, &error),
                None if self.cgroups.is_some() => ("it runs outside of its cgroup".to_owned(), REMEDY),
                None => {
                    let why = self.unlimited.nowhere.as_deref().unwrap_or("no cgroup v2 here");
                    (format!("there is no cgroup v2 that supervise may use: {why}"), REMEDY)
                }
            };
            if share.asked {
                lacking.push(format!("`{}` does not hold: {why}\nhint: {hint}", share.key));
            }
        }
        let name = self.name_of(id).to_owned();
        for problem in &lacking {
            if self.lacking.get(&id).is_none_or(|before| !before.contains(problem)) {
                log::warn!("service={name} {problem}");
            }
        }
        self.lacking.insert(id, lacking);
    }

    /// Without a keeper the init above may start another, and can put it only into a group whose controllers are off.
    /// Whoever takes over turns them on again.
    pub(super) fn let_another_keeper_in(&self) {
        if let Some(Err(error)) = self.cgroups.as_ref().map(cgroup::Base::disable) {
            log::warn!("making room for a new keeper in the cgroup: {}", reason(&error));
        }
    }

    /// The last of it: the group is left as it was found.
    pub(super) fn give_group_back(&mut self) {
        self.remove_left_groups();
        let deadline = clock::monotonic_ms() + GIVE_BACK_MS;
        // A helper that has just ended is in there until the keeper has reaped it.
        while let Some(Err(error)) = self.cgroups.as_mut().map(cgroup::Base::give_back) {
            if clock::monotonic_ms() >= deadline {
                log::info!("leaving the cgroup as it was found: {}", reason(&error));
                return;
            }
            let _ = parent::wait(&[], 5, &mut []);
        }
    }
}

impl Unlimited {
    /// Why a limit could not be set, and what can be done.
    fn words(&self, share: &Share, error: &io::Error) -> (String, &'static str) {
        match self.controllers.get(share.controller) {
            _ if error.kind() != io::ErrorKind::NotFound => {
                (format!("writing {} to {}: {}", share.value, share.file, reason(error)), REMEDY)
            }
            Some((why, hint)) => (why.clone(), hint),
            None => {
                let (controller, file) = (share.controller, share.file);
                (format!("the controller `{controller}` of this kernel has no `{file}`"), KERNEL_LACKS)
            }
        }
    }
}

/// Why a controller is not on, and what can be done.
fn lack(controller: &str, error: Option<&io::Error>, place: &str, others: &[u32]) -> (String, &'static str) {
    match (error, others) {
        (None, _) => (format!("the cgroup {place} is not given the controller `{controller}`"), REMEDY),
        (Some(error), [one, ..]) if error.raw_os_error() == Some(libc::EBUSY) => {
            let what = match process::name(*one) {
                Ok(name) => format!("{one} (`{name}`)"),
                // The kernel has no number for it here.
                Err(_) if *one == 0 => "one from outside of this container".to_owned(),
                Err(_) => one.to_string(),
            };
            let why = format!(
                "processes that are not supervise's are in the same cgroup, {place}: {what} is; the kernel limits \
                 nothing below such a group"
            );
            (why, ALONE)
        }
        (Some(error), _) => {
            (format!("turning the controller `{controller}` on in {place}: {}", reason(error)), REMEDY)
        }
    }
}

/// What somebody can do about limits that cannot be had.
const REMEDY: &str = "limits of an instance need cgroup v2 with its controllers given to supervise (under systemd \
                      `Delegate=yes`; in a container a cgroup that can be written); `[limits]` without it works per process";
/// What somebody can do about others in the group.
const ALONE: &str = "start supervise in a cgroup of its own, as systemd does, or as PID 1 of a container";
/// What somebody can do about a kernel without weights of disks.
const KERNEL_LACKS: &str =
    "weights of disks need a kernel with CONFIG_BLK_CGROUP_IOCOST, or a disk whose scheduler is bfq";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let text = "[service]\ncommand = \"x\"\n[limits]\nmemory-max = \"512M\"\nmemory-high = \"unlimited\"\n\
                    cpu-max = \"250%\"\ncpu-weight = 50\nio-weight = 10\n";
        let unit = Unit::parse("web", "web.toml", text).unwrap();
        let all = shares(&unit);
        let written: Vec<(&str, &str, bool)> =
            all.iter().map(|share| (share.file, share.value.as_str(), share.asked)).collect();
        assert_eq!(
            written,
            [
                ("memory.max", "536870912", true),
                ("cpu.max", "250000 100000", true),
                ("cpu.weight", "50", true),
                ("pids.max", "4096", false),
                ("io.weight", "10", true),
            ]
        );
        assert_eq!(all[4].also, Some(("io.bfq.weight", "10".to_owned())));
        assert_eq!([1, 100, 101, 1090, 10_000].map(bfq_weight), [1, 100, 100, 190, 1000]);
        assert!(all.iter().all(|share| CONTROLLERS.contains(&share.controller)));
    }

    #[test]
    fn where_the_kernel_has_no_weights_of_its_own_those_of_bfq_do() {
        let unit = "[service]\ncommand = \"x\"\n[limits]\nio-weight = 500\n";
        let unit = Unit::parse("web", "web.toml", unit).unwrap();
        let share = shares(&unit).pop().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let group = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(share.set(group.as_fd()).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(dir.path().join("io.bfq.weight"), "").unwrap();
        share.set(group.as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("io.bfq.weight")).unwrap(), "136");
    }

    #[test]
    fn what_cannot_be_limited_is_said_with_its_reason() {
        let error = |number| io::Error::from_raw_os_error(number);
        let me = std::process::id();
        let (why, hint) = lack("memory", Some(&error(libc::EBUSY)), "/sys/fs/cgroup/x", &[me]);
        let name = process::name(me).unwrap();
        assert_eq!(
            why,
            format!(
                "processes that are not supervise's are in the same cgroup, /sys/fs/cgroup/x: {me} (`{name}`) is; the \
                 kernel limits nothing below such a group"
            )
        );
        assert_eq!(hint, ALONE);
        let (why, _) = lack("io", None, "/sys/fs/cgroup/x", &[]);
        assert_eq!(why, "the cgroup /sys/fs/cgroup/x is not given the controller `io`");
        let (why, _) = lack("cpu", Some(&error(libc::EINVAL)), "/x", &[me]);
        assert_eq!(why, "turning the controller `cpu` on in /x: invalid argument");
    }
}
