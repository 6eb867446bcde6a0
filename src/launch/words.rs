//! PURE. A child's report in words: which step, on what, why, and the remedy. Never looks at a file; what was
//! found there comes in as facts.

use std::fmt;

use super::{CPUS, Check, Clue, NICE, NOWHERE, Stage};
use crate::plan::image::Bad;
use crate::plan::{ExecPlan, Identity, Resource, amount, capability_name};
use crate::sys::errno;
use crate::wire::zygote::Report;

/// What the child found that looked, as the service's user, right after its failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    clue: Clue,
    text: Vec<u8>,
}

impl Fact {
    /// From what came; None for a clue of another version.
    pub fn new(clue: u8, text: Vec<u8>) -> Option<Self> {
        let clue = Clue::ALL.into_iter().find(|one| *one as u8 == clue)?;
        Some(Self { clue, text })
    }

    /// Its path. It may come out of a file that anybody has written, and goes into lines of a log.
    fn path(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        text.chars()
            .map(
                |letter| {
                    if letter.is_control() { letter.escape_default().to_string() } else { letter.into() }
                },
            )
            .collect()
    }

    fn number(&self) -> u64 {
        self.text.as_slice().try_into().map_or(0, u64::from_le_bytes)
    }
}

/// A failure as people read it: one line, and a remedy where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Step, object, reason.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{}\nhint: {hint}", self.text),
            None => write!(f, "{}", self.text),
        }
    }
}

/// Words for a report about a plan. A fact only makes the hint better.
pub fn explain(plan: &ExecPlan, report: &Report, fact: Option<&Fact>) -> Explanation {
    let Some(stage) = Stage::from_number(report.stage) else {
        let text = format!("an unknown step {} failed: {}", report.stage, reason(report.errno));
        return Explanation { text, hint: Some("were supervise's parts of one version?".to_owned()) };
    };
    let mut text = stage.doing().to_owned();
    for part in [object(plan, stage, report), cause(plan, stage, report)] {
        if !part.is_empty() {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    Explanation { text, hint: hint(plan, stage, report, fact) }
}

/// On what the step was carried out.
fn object(plan: &ExecPlan, stage: Stage, report: &Report) -> String {
    let id = |pick: fn(&Identity) -> u32| {
        plan.identity.as_ref().map(|id| pick(id).to_string()).unwrap_or_default()
    };
    match stage {
        Stage::Directory => plan.directory.clone(),
        Stage::Exec => program(plan, report),
        Stage::User => id(|identity| identity.uid),
        Stage::Group => id(|identity| identity.gid),
        Stage::Groups => {
            let groups =
                plan.identity.as_ref().map(|identity| identity.groups.as_slice()).unwrap_or_default();
            groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
        }
        Stage::Limits => limit(plan, report.detail),
        Stage::Oom => plan.oom_score_adj.map(|score| score.to_string()).unwrap_or_default(),
        Stage::Bounding | Stage::Capabilities => match (stage, report.detail) {
            (Stage::Capabilities, 0) => String::new(),
            (_, number) => capability_name(number).map_or_else(|| number.to_string(), str::to_owned),
        },
        Stage::Descriptors if report.detail != 0 => format!("descriptor {}", report.detail),
        Stage::Stdio => format!("descriptor {}", report.detail),
        Stage::Plan
        | Stage::Gate
        | Stage::Signals
        | Stage::Session
        | Stage::Terminal
        | Stage::Umask
        | Stage::Keyring
        | Stage::Verify
        | Stage::Descriptors
        | Stage::NoNewPrivs => String::new(),
    }
}

fn program(plan: &ExecPlan, report: &Report) -> String {
    match plan.candidates.get(report.detail as usize) {
        Some(path) => path.clone(),
        None => match plan.candidates.as_slice() {
            [only] => only.clone(),
            _ => plan.argv.first().cloned().unwrap_or_default(),
        },
    }
}

fn limit(plan: &ExecPlan, detail: u32) -> String {
    match (detail, Resource::from_code(detail)) {
        (NICE, _) => format!("nice {}", plan.nice.unwrap_or_default()),
        (CPUS, _) => "cpu-affinity".to_owned(),
        (_, Some(resource)) => match plan.limits.iter().find(|limit| limit.resource == resource) {
            Some(limit) if limit.soft == limit.hard => format!("{} {}", resource.name(), amount(limit.hard)),
            Some(limit) => format!("{} {}:{}", resource.name(), amount(limit.soft), amount(limit.hard)),
            None => resource.name().to_owned(),
        },
        (_, None) => String::new(),
    }
}

fn cause(plan: &ExecPlan, stage: Stage, report: &Report) -> String {
    match stage {
        Stage::Plan if report.errno == 0 => {
            Bad::from_code(report.detail).map_or_else(String::new, |bad| format!("it {}", bad.words()))
        }
        Stage::Gate if report.errno == 0 => "gate lost, as the manager ended".to_owned(),
        Stage::Verify if report.errno == 0 => {
            Check::from_number(report.detail).map_or_else(String::new, |check| check.words().to_owned())
        }
        Stage::Exec if report.detail == NOWHERE && plan.candidates.len() > 1 => {
            let places: Vec<_> = plan.candidates.iter().filter_map(|path| path.rsplit_once('/')).collect();
            let places: Vec<_> = places.iter().map(|(directory, _)| *directory).collect();
            format!("not found in {}", places.join(", "))
        }
        Stage::Plan
        | Stage::Gate
        | Stage::Signals
        | Stage::Session
        | Stage::Stdio
        | Stage::Terminal
        | Stage::Oom
        | Stage::Limits
        | Stage::Umask
        | Stage::Keyring
        | Stage::Groups
        | Stage::Group
        | Stage::Bounding
        | Stage::User
        | Stage::Capabilities
        | Stage::Verify
        | Stage::Descriptors
        | Stage::Directory
        | Stage::NoNewPrivs
        | Stage::Exec => reason(report.errno),
    }
}

fn reason(number: i32) -> String {
    if number == 0 { "for no reason the system gave".to_owned() } else { errno::words(number) }
}

fn hint(plan: &ExecPlan, stage: Stage, report: &Report, fact: Option<&Fact>) -> Option<String> {
    let who = plan.identity.as_ref().map_or_else(|| "this user".to_owned(), |id| format!("user {}", id.uid));
    let denied = [errno::EPERM, errno::EACCES].contains(&report.errno);
    if let Some(fact) = fact {
        return Some(fact_hint(fact, &who));
    }
    match stage {
        Stage::Exec => exec_hint(plan, report),
        Stage::Directory if denied => {
            Some(format!("{who} needs the right to search it and every directory above"))
        }
        Stage::Directory if report.errno == errno::ENOENT => {
            Some("create it, or correct `directory`".to_owned())
        }
        Stage::Groups | Stage::Group | Stage::User | Stage::Bounding if denied => Some(
            "changing the user needs root with its capabilities; leave out `user` to run as yourself"
                .to_owned(),
        ),
        Stage::User if report.errno == errno::EAGAIN => {
            Some(format!("{who} has as many processes as it may have"))
        }
        Stage::Limits if denied => Some(limit_hint(plan, report.detail).to_owned()),
        Stage::Oom if denied => Some(
            "lowering it needs CAP_SYS_RESOURCE, which supervise does not have here: leave it out, or run supervise as root"
                .to_owned(),
        ),
        Stage::Limits if report.detail == CPUS => {
            Some("none of the processors in `cpu-affinity` exists".to_owned())
        }
        Stage::Groups | Stage::Group | Stage::User if report.errno == errno::EINVAL => Some(
            "is this a user namespace, as of a container, which has no such number? Map it, or name another account".to_owned(),
        ),
        Stage::Directory if report.errno == errno::ELOOP => {
            Some("a symbolic link on the way leads in a circle: write the path without it".to_owned())
        }
        Stage::Directory if report.errno == errno::ENOTDIR => {
            Some("a part of it is a file: correct `directory`".to_owned())
        }
        Stage::Capabilities if denied => Some("supervise has no such capability to grant here".to_owned()),
        Stage::Verify if report.detail == Check::NotRoot as u32 => {
            Some("write `user = \"root\"` if that is what you want".to_owned())
        }
        Stage::Descriptors if [errno::EMFILE, errno::EINVAL].contains(&report.errno) => {
            Some("the limit on descriptors that supervise itself runs under is too low".to_owned())
        }
        Stage::Plan
        | Stage::Gate
        | Stage::Signals
        | Stage::Session
        | Stage::Stdio
        | Stage::Terminal
        | Stage::Oom
        | Stage::Limits
        | Stage::Umask
        | Stage::Keyring
        | Stage::Groups
        | Stage::Group
        | Stage::Bounding
        | Stage::User
        | Stage::Capabilities
        | Stage::Verify
        | Stage::Descriptors
        | Stage::Directory
        | Stage::NoNewPrivs => None,
    }
}

fn limit_hint(plan: &ExecPlan, detail: u32) -> &'static str {
    match (detail, Resource::from_code(detail)) {
        (NICE, _) => {
            "a higher priority needs CAP_SYS_NICE, which supervise does not have here: leave it out, or let root run supervise"
        }
        (_, Some(Resource::Nofile)) if plan.identity.is_some() => {
            "no process may have more than fs.nr_open, and supervise no more than its own hard limit without \
             CAP_SYS_RESOURCE: ask for less, or raise that (`sysctl fs.nr_open=N`)"
        }
        _ => {
            "more than its own hard limit needs CAP_SYS_RESOURCE, which supervise does not have here: ask for less, raise \
             the hard limit (`ulimit -H`, limits.conf(5)), or let root run supervise"
        }
    }
}

fn fact_hint(fact: &Fact, who: &str) -> String {
    let (path, number) = (fact.path(), fact.number());
    match fact.clue {
        Clue::MissingInterpreter if fact.text.ends_with(b"\r") => {
            format!(
                "its first line names `{path}`: its lines end in CR LF, and the CR counts as part of the name"
            )
        }
        Clue::MissingInterpreter => format!("its first line names `{path}`, which does not exist"),
        Clue::ClosedInterpreter => format!("its first line names `{path}`, which {who} may not execute"),
        Clue::NamelessInterpreter => "its first line names no interpreter behind `#!`".to_owned(),
        Clue::MissingLoader => format!("it needs the loader `{path}`, which does not exist"),
        Clue::NoexecMount if path.is_empty() => "the file system that it is on is mounted noexec".to_owned(),
        Clue::NoexecMount => format!("the file system at `{path}` is mounted noexec"),
        Clue::NotExecutable => format!("its mode is {number:04o}; {who} may not execute it"),
        Clue::ClosedDirectory => format!("{who} may not search the directory `{path}`"),
        Clue::MissingDirectory => format!("the directory `{path}` does not exist"),
        Clue::NoDirectory => format!("`{path}` is no directory"),
        Clue::IsDirectory => "it is a directory".to_owned(),
        Clue::NoFile => "it is a device, a socket or a FIFO".to_owned(),
        Clue::NoInterpreterLine => "a script needs a first line such as `#!/bin/sh`".to_owned(),
        Clue::EmptyFile => "the file is empty".to_owned(),
        Clue::OtherMachine => {
            format!("it is a program for {}, and this machine does not run it", machine(number))
        }
        Clue::ProcessLimit => {
            format!("{who} has as many processes and threads as `nproc` lets it have: {number}")
        }
    }
}

/// The machine of an ELF file (elf.h).
fn machine(number: u64) -> String {
    let name = match number {
        3 => "i386",
        8 => "MIPS",
        20 | 21 => "PowerPC",
        22 => "s390x",
        40 => "32-bit ARM",
        62 => "x86_64",
        183 => "aarch64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => return format!("machine {number}"),
    };
    name.to_owned()
}

fn exec_hint(plan: &ExecPlan, report: &Report) -> Option<String> {
    let text = match report.errno {
        errno::ENOENT if report.detail == NOWHERE && plan.candidates.len() > 1 => {
            "write its path with a slash, or set PATH in `environment`"
        }
        errno::ENOENT if report.detail == NOWHERE => {
            "there is no such file; a relative path starts at `directory`"
        }
        errno::ENOENT => "the file is there; the interpreter or loader that it names is not",
        errno::EACCES => {
            "is it executable, on a file system that allows it, below directories the user may search?"
        }
        errno::ENOEXEC => {
            "a script needs a first line such as `#!/bin/sh`; a program has to be for this machine"
        }
        errno::ETXTBSY => "somebody is still writing the file",
        errno::E2BIG => "arguments and environment together are too long",
        errno::EPERM => {
            "does the file have capabilities (`getcap`) that the service may not have? List them in `capabilities`, or remove \
             them (`setcap -r`)"
        }
        errno::ELOOP => {
            "a symbolic link on the way leads in a circle, or scripts name each other: name the real program"
        }
        errno::ENOMEM => "the machine has no memory left for it",
        errno::EAGAIN => "the user has as many processes as it may have (`nproc`)",
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests;
