//! USER. What of a unit the rights of its supervisor do not allow: limits above its own, a priority above its own,
//! processors that are not there, groups that it is not in. Never tries to set one.

use std::fs;

use super::doubt::Doubt;
use super::finding::Findings;
use super::walk::Person;
use crate::launch::{CPUS, NICE, Stage, words};
use crate::plan::{ExecPlan, Identity, Limit, Resource};
use crate::sys::errno;
use crate::unit::{Account, Fault, RuleFault, Unit};
use crate::wire::zygote::{Report, Weight};

/// Numbers of capabilities(7).
const SYS_NICE: u32 = 23;
const SYS_RESOURCE: u32 = 24;

/// What the supervisor may, as far as this process can know: it would have the same rights, or it is root's.
#[derive(Debug)]
pub struct Rights {
    /// Its services change their user.
    is_root: bool,
    /// Whether limits may be raised.
    raises_limits: bool,
    /// Whether the priority may be raised.
    raises_priority: bool,
    /// The hard limits, where they hold.
    most: Vec<(Resource, u64)>,
    /// fs.nr_open: more than this nobody may.
    most_descriptors: u64,
    /// The priority, and the highest that may be taken without a right.
    nice: i32,
    highest_nice: i32,
    /// The score of the out-of-memory killer.
    oom_score: i32,
    /// The processors that there are.
    processors: Vec<u16>,
}

impl Rights {
    /// Looks. `uid` is who checks, and `is_user` that he is who runs supervise too.
    pub fn look(is_user: bool, uid: u32) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        let own = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let own = own.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        // Of root's supervisor somebody else knows nothing better.
        let has = |capability: u32| !is_user && uid != 0 || own & 1 << capability != 0;
        let limits = text("/proc/self/limits");
        let number = |path: &str| text(path).trim().parse::<i64>().ok();
        let nice = process_nice(&text("/proc/self/stat")).unwrap_or_default();
        let ceiling = limit(&limits, "Max nice priority").map_or(0, |(soft, _)| soft.min(40));
        Self {
            is_root: !is_user,
            raises_limits: has(SYS_RESOURCE),
            raises_priority: has(SYS_NICE),
            most: [
                (Resource::Nofile, "Max open files"),
                (Resource::Core, "Max core file size"),
                (Resource::Nproc, "Max processes"),
            ]
            .into_iter()
            .filter_map(|(resource, name)| Some((resource, limit(&limits, name)?.1)))
            .collect(),
            most_descriptors: number("/proc/sys/fs/nr_open")
                .map_or(u64::MAX, |most| most.try_into().unwrap_or(u64::MAX)),
            nice,
            highest_nice: 20 - i32::try_from(ceiling).unwrap_or_default(),
            oom_score: number("/proc/self/oom_score_adj").map_or(0, |score| score as i32),
            processors: ranges(&text("/sys/devices/system/cpu/online")),
        }
    }

    /// Says which limits of a unit could not be set, in the words of the start that fails.
    pub fn check(&self, unit: &Unit, doubt: &Doubt, out: &mut Findings) {
        let limits = &unit.limits;
        let named = [
            (Resource::Nofile, limits.nofile),
            (Resource::Core, Some(limits.core.unwrap_or(u64::MAX))),
            (Resource::Nproc, limits.nproc),
        ];
        for (resource, wanted) in named {
            let key = format!("limits.{}", resource.name());
            let Some(most) = wanted.filter(|_| !doubt.about(unit, &key)) else { continue };
            if self.is_refused(resource, most) {
                let limit = Limit { resource, soft: most, hard: most };
                let plan = ExecPlan { limits: vec![limit], ..self.plan() };
                tell(unit, &key, &plan, (Stage::Limits, errno::EPERM, resource as u32), out);
            }
        }
        let nice = limits.nice.filter(|_| !doubt.about(unit, "limits.nice"));
        let is_higher = |nice: &i32| *nice < self.nice && *nice < self.highest_nice;
        if let Some(nice) = nice.filter(|nice| is_higher(nice) && !self.raises_priority) {
            let plan = ExecPlan { nice: Some(nice), ..self.plan() };
            tell(unit, "limits.nice", &plan, (Stage::Limits, errno::EACCES, NICE), out);
        }
        let wanted = &limits.cpu_affinity;
        let is_none = |all: &[u16]| !all.is_empty() && wanted.iter().all(|one| !all.contains(one));
        if !wanted.is_empty() && is_none(&self.processors) && !doubt.about(unit, "limits.cpu-affinity") {
            tell(unit, "limits.cpu-affinity", &self.plan(), (Stage::Limits, errno::EINVAL, CPUS), out);
        }
        self.check_score(unit, doubt, out);
    }

    fn is_refused(&self, resource: Resource, wanted: u64) -> bool {
        let hard = self.most.iter().find(|(one, _)| *one == resource).map(|(_, most)| *most);
        let is_raised = !self.raises_limits && hard.is_some_and(|hard| wanted > hard);
        is_raised || resource == Resource::Nofile && wanted > self.most_descriptors
    }

    /// The service runs without it. A score above zero may have been taken by ourselves, and can be given up then.
    fn check_score(&self, unit: &Unit, doubt: &Doubt, out: &mut Findings) {
        let key = "limits.oom-score-adjust";
        let Some(score) = unit.limits.oom_score_adjust.filter(|_| !doubt.about(unit, key)) else { return };
        if score < self.oom_score.min(0) && !self.raises_limits {
            let plan = ExecPlan { oom_score_adj: Some(score), ..self.plan() };
            let said = words::explain(&plan, &report(Stage::Oom, errno::EACCES, 0), None);
            let text = format!("`oom-score-adjust` will not hold: {}", said.text);
            out.add(unit, key, false, text, said.hint);
        }
    }

    /// As much of a plan as is spoken of.
    fn plan(&self) -> ExecPlan {
        ExecPlan { identity: self.is_root.then(|| Identity::new(0, 0, &[])), ..ExecPlan::default() }
    }
}

/// Why an ordinary user cannot run a service in a group that its unit names.
pub fn not_ones_own(key: &str, named: &Account, group: u32, person: &Person) -> Option<Fault> {
    let (group_name, runner) = (named.to_string(), person.name.clone());
    match key {
        "service.group" if person.groups.first() != Some(&group) => {
            Some(RuleFault::OtherGroup { group: group_name, runner }.into())
        }
        "service.groups" if !person.groups.contains(&group) => {
            Some(RuleFault::NotInGroup { group: group_name, runner }.into())
        }
        _ => None,
    }
}

fn report(stage: Stage, errno: i32, detail: u32) -> Report {
    Report { weight: Weight::Failure, stage: stage as u8, errno, detail }
}

fn tell(unit: &Unit, key: &str, plan: &ExecPlan, failed: (Stage, i32, u32), out: &mut Findings) {
    let (stage, errno, detail) = failed;
    let said = words::explain(plan, &report(stage, errno, detail), None);
    out.add(unit, key, true, said.text, said.hint);
}

/// Soft and hard limit of this name in /proc/self/limits (proc_pid_limits(5)).
fn limit(text: &str, name: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut values = line.split_ascii_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some((values.next()??, values.next()??))
}

/// The 19th field of /proc/self/stat (proc_pid_stat(5)), whatever the name in brackets holds.
fn process_nice(stat: &str) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(16)?.parse().ok()
}

/// Numbers and ranges of them, with commas between.
fn ranges(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(limits: &str, is_root: bool) -> Vec<String> {
        let text = format!("[service]\ncommand = \"x\"\n[limits]\n{limits}");
        let unit = Unit::parse("web", "web.toml", &text).unwrap();
        let rights = Rights {
            is_root,
            raises_limits: is_root,
            raises_priority: is_root,
            most: vec![(Resource::Nofile, 1000), (Resource::Core, u64::MAX), (Resource::Nproc, 50)],
            most_descriptors: 2000,
            nice: 0,
            highest_nice: -3,
            oom_score: 100,
            processors: vec![0, 1],
        };
        let mut out = Findings::default();
        rights.check(&unit, &Doubt::default(), &mut out);
        let line = |one: &super::super::finding::Finding| one.place.as_ref().unwrap().line;
        out.all.iter().map(|one| format!("{}: {}", line(one), one.text)).collect()
    }

    #[test]
    fn what_is_above_the_supervisors_own_is_told_and_what_is_not_is_not() {
        let fits = "nofile = 1000\nnproc = 50\ncore = \"unlimited\"\nnice = -3\noom-score-adjust = 0\ncpu-affinity = [1, 7]\n";
        assert_eq!(told(fits, false), [""; 0]);
        let above = "nofile = 1001\nnproc = 51\nnice = -4\noom-score-adjust = -1\ncpu-affinity = [2]\n";
        assert_eq!(
            told(above, false),
            [
                "4: setting resource limits: nofile 1001: operation not permitted",
                "5: setting resource limits: nproc 51: operation not permitted",
                "6: setting resource limits: nice -4: permission denied",
                "8: setting resource limits: cpu-affinity: invalid argument",
                "7: `oom-score-adjust` will not hold: setting the out-of-memory score: -1: permission denied",
            ]
        );
        assert_eq!(told(above, true), ["8: setting resource limits: cpu-affinity: invalid argument"]);
        assert_eq!(
            told("nofile = 2001\n", true),
            ["4: setting resource limits: nofile 2001: operation not permitted"]
        );
    }

    #[test]
    fn the_kernels_tables_are_read_whatever_they_hold() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max core file size        0                    unlimited            bytes     \n\
                    Max nice priority         0                    0                    \n";
        assert_eq!(limit(text, "Max core file size"), Some((0, u64::MAX)));
        assert_eq!(limit(text, "Max nice priority"), Some((0, 0)));
        assert_eq!(limit(text, "Max open files"), None);
        let stat = "77 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 20 -5 1 0";
        assert_eq!(process_nice(stat), Some(-5));
        assert_eq!((process_nice(""), ranges("0-2,5\n"), ranges("")), (None, vec![0, 1, 2, 5], vec![]));
    }
}
