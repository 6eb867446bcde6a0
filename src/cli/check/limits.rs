//! USER. Limits of a unit against the controllers of cgroup v2 that this machine has. Never makes a group.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::Findings;
use crate::unit::Unit;

/// Keys of `[limits]`, and the controller that each needs.
const KEYS: [(&str, &str); 6] = [
    ("memory-max", "memory"),
    ("memory-high", "memory"),
    ("cpu-max", "cpu"),
    ("cpu-weight", "cpu"),
    ("io-weight", "io"),
    ("pids-max", "pids"),
];

/// The controllers that a supervisor would find; None where there is no cgroup v2.
#[derive(Debug, Default)]
pub struct Controllers(Option<String>);

impl Controllers {
    /// Looks: for root at the whole machine, for others at the group that they are in.
    pub fn look(is_user: bool) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mounts = text("/proc/self/mountinfo");
        let Some(mount) = mounts.lines().find_map(version_two) else { return Self(None) };
        let own = text("/proc/self/cgroup");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let group = if is_user { mount.join(own) } else { mount };
        Self(Some(text(&group.join("cgroup.controllers").display().to_string())))
    }

    /// Says which limits would not hold.
    pub fn check(&self, unit: &Unit, out: &mut Findings) {
        for (key, controller) in KEYS {
            let place = format!("limits.{key}");
            let has = |all: &String| all.split_ascii_whitespace().any(|one| one == controller);
            // A default that cannot be had is no news.
            if unit.places.of(&place).is_none() || self.0.as_ref().is_some_and(has) {
                continue;
            }
            let why = match self.0 {
                Some(_) => format!("cgroup v2 has no controller `{controller}` here"),
                None => "there is no cgroup v2 here".to_owned(),
            };
            out.warn(
                unit,
                &place,
                format!("`{key}` will not hold: {why}"),
                "have the machine boot with cgroup v2 alone, or give supervise its controllers (`Delegate=yes`, a cgroup of \
                 the container that can be written); the service runs without the limit",
            );
        }
    }
}

/// The place of a mount of cgroup v2, of a line of proc_pid_mountinfo(5).
fn version_two(line: &str) -> Option<PathBuf> {
    let (fields, about) = line.split_once(" - ")?;
    let place = fields.split(' ').nth(4)?;
    about.starts_with("cgroup2 ").then(|| Path::new(&place.replace("\\040", " ")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(controllers: Option<&str>, limits: &str) -> Vec<String> {
        let text = format!("[service]\ncommand = \"x\"\n[limits]\n{limits}");
        let unit = Unit::parse("web", "web.toml", &text).unwrap();
        let mut out = Findings::default();
        Controllers(controllers.map(str::to_owned)).check(&unit, &mut out);
        out.all.iter().map(|one| format!("{}: {}", one.place.as_ref().unwrap().line, one.text)).collect()
    }

    #[test]
    fn limits_without_a_controller_are_told_and_defaults_are_not() {
        let limits = "memory-max = \"1G\"\ncpu-weight = 50\n";
        assert_eq!(told(Some("cpuset cpu io memory pids\n"), limits), [""; 0]);
        assert_eq!(
            told(Some("hugetlb memoryx cpu\n"), limits),
            ["4: `memory-max` will not hold: cgroup v2 has no controller `memory` here"]
        );
        assert_eq!(
            told(None, limits),
            [
                "4: `memory-max` will not hold: there is no cgroup v2 here",
                "5: `cpu-weight` will not hold: there is no cgroup v2 here"
            ]
        );
        assert_eq!(told(None, "nofile = 100\n"), [""; 0]);
    }

    #[test]
    fn the_mount_is_found_among_others() {
        let line = "33 31 0:30 / /sys/fs/cgroup/my\\040unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(version_two(line), Some(PathBuf::from("/sys/fs/cgroup/my unified")));
        assert_eq!(version_two("34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
    }
}
