//! ROOT. What an incarnation may use together: the limits of its cgroup, and what cannot be limited here. Never
//! keeps a service from running.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use super::Manager;
use crate::policy::ServiceId;
use crate::sys::errno::reason;
use crate::sys::{cgroup, process};
use crate::unit::Unit;

/// One limit: the unit's key, the controller that it needs, and what is written into which file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    key: &'static str,
    controller: &'static str,
    file: &'static str,
    value: String,
    /// Whether somebody wrote it: a default that cannot be had is no news.
    asked: bool,
}

/// Controllers that the keys of `[limits]` need.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "io", "pids"];
/// The period of `cpu.max` in microseconds, which is also the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// The limits of a unit, defaults included.
fn shares(unit: &Unit) -> Vec<Share> {
    let limits = &unit.limits;
    let mut all = Vec::new();
    let mut add = |key, controller, file, value: Option<String>| {
        let asked = unit.is_written(&format!("limits.{key}"));
        all.extend(value.map(|value| Share { key, controller, file, value, asked }));
    };
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    let quota = limits.cpu_max.map(|percent| u64::from(percent) * PERIOD_US / 100);
    add("memory-max", "memory", "memory.max", text(limits.memory_max));
    add("memory-high", "memory", "memory.high", text(limits.memory_high));
    add("cpu-max", "cpu", "cpu.max", quota.map(|quota| format!("{quota} {PERIOD_US}")));
    add("cpu-weight", "cpu", "cpu.weight", limits.cpu_weight.map(|weight| weight.to_string()));
    add("io-weight", "io", "io.weight", limits.io_weight.map(|weight| weight.to_string()));
    add("pids-max", "pids", "pids.max", Some(limits.pids_max.to_string()));
    all
}

impl Manager {
    /// Has the kernel count and limit what runs in the groups that are made here, as far as it lets us.
    pub(super) fn enable_controllers(&self) {
        let Some(base) = &self.cgroups else { return };
        // Where processes are in the group itself, nothing below it is limited (cgroups(7), "no internal
        // processes"). Only our own are moved; somebody else's stay, and then there are no limits.
        let mut ours: BTreeSet<u32> =
            process::children(self.kept.keeper_pid).unwrap_or_default().into_iter().collect();
        ours.extend([self.kept.keeper_pid, std::process::id()]);
        if let Err(error) = base.enable(&CONTROLLERS, &ours) {
            log::info!("no limits of memory, processors and disks here: {}", reason(&error));
        }
    }

    /// Sets the limits of an incarnation's group, or of one that has none: what of it cannot be had is a problem
    /// of the service, and it runs all the same.
    pub(super) fn limit_group(&mut self, id: ServiceId, group: Option<BorrowedFd<'_>>) {
        let Some(unit) = self.unit_of(id) else { return };
        let mut lacking = Vec::new();
        for share in shares(unit) {
            let why = match (group, &self.cgroups) {
                (Some(group), _) => match cgroup::set(group, share.file, &share.value) {
                    Ok(()) => continue,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        format!("the controller `{}` is not available to supervise here", share.controller)
                    }
                    Err(error) => format!("writing {} to {}: {}", share.value, share.file, reason(&error)),
                },
                (None, None) => "there is no cgroup v2 that supervise may use".to_owned(),
                (None, Some(_)) => "it runs outside of its cgroup".to_owned(),
            };
            if share.asked {
                lacking.push(format!("`{}` does not hold: {why}\nhint: {REMEDY}", share.key));
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
}

/// What somebody can do about limits that cannot be had.
const REMEDY: &str = "limits of an instance need cgroup v2 with its controllers given to supervise (under systemd \
                      `Delegate=yes`; in a container a cgroup that can be written); `[limits]` without it works per process";

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
                ("io.weight", "10", true),
                ("pids.max", "4096", false),
            ]
        );
        assert!(all.iter().all(|share| CONTROLLERS.contains(&share.controller)));
    }
}
