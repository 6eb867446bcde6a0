//! ROOT. The incarnations that exist: what is written down of each, and what is held for it here. Never
//! signals one.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::listeners::StandIn;
use crate::policy::{Run, ServiceId};

/// What the state says of an incarnation's process. Written before its gate opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Whose.
    pub service: ServiceId,
    /// Generation of its inputs.
    pub generation: u32,
    /// Of which instance of the service, from 1.
    pub instance: u16,
    /// Pid of the process that was started, which leads its session.
    pub pid: u32,
    /// Its start in clock ticks after boot: with the pid, who it is.
    pub start_time: u64,
    /// The process that it has called its main one since.
    #[serde(default)]
    pub heir: Option<Heir>,
    /// The keeper that is its parent and will be told of its end.
    pub keeper: u64,
    /// Name of its cgroup; None where it is followed as a tree.
    pub cgroup: Option<String>,
    /// INVOCATION_ID.
    pub invocation: String,
    /// Nanoseconds since 1970 at which it was made.
    pub since_ns: u64,
    /// Numbers of the pipes that it was given to write to.
    #[serde(default)]
    pub pipes: Pipes,
    /// It outlived a supervisor that was killed whole, and was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// What a rehearsal has in the places of its unit's sockets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stand_ins: Vec<StandIn>,
}

/// The numbers that the kernel has for the pipes of a process, as far as it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipes {
    /// Of its standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<u64>,
    /// Of its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<u64>,
    /// Of that on which it says that it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<u64>,
}

/// What was found of an incarnation when it was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Nanoseconds since 1970 at which that was.
    pub at_ns: u64,
    /// What was found.
    pub stands: Stands,
}

/// How much of an incarnation had outlived its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stands {
    /// Its main process.
    Main,
    /// Only others of its processes; nobody has seen how the main one ended.
    Rest,
    /// Nothing that is proven to be of it: the numbers in its record may be others' by now.
    Nothing,
}

/// A process that has become the main one of an incarnation (`MAINPID=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heir {
    /// Its pid.
    pub pid: u32,
    /// Its start in clock ticks after boot.
    pub start_time: u64,
}

impl Process {
    /// The main process: the one whose end is the incarnation's.
    pub fn main(&self) -> Heir {
        self.heir.unwrap_or(Heir { pid: self.pid, start_time: self.start_time })
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Processes {
    table: BTreeMap<Run, Box<Process>>, // a tree filled in order is half empty
    gates: BTreeMap<Run, OwnedFd>,
}

impl Processes {
    /// Adds one, with its gate where this manager made it.
    pub fn add(&mut self, run: Run, process: Process, gate: Option<OwnedFd>) {
        self.table.insert(run, Box::new(process));
        if let Some(gate) = gate {
            self.gates.insert(run, gate);
        }
    }

    /// One of them.
    pub fn get(&self, run: Run) -> Option<&Process> {
        self.table.get(&run).map(Box::as_ref)
    }

    /// Notes another main process of one; the record as it is then.
    pub fn inherit(&mut self, run: Run, heir: Heir) -> Option<&Process> {
        let process = self.table.get_mut(&run)?;
        process.heir = Some(heir);
        Some(process)
    }

    /// All, in the order of their starts.
    pub fn iter(&self) -> impl Iterator<Item = (Run, &Process)> {
        self.table.iter().map(|(run, process)| (*run, &**process))
    }

    /// The gate of one that has not been let through. Dropping it ends the process.
    pub fn take_gate(&mut self, run: Run) -> Option<OwnedFd> {
        self.gates.remove(&run)
    }

    /// Forgets one.
    pub fn remove(&mut self, run: Run) -> Option<Process> {
        self.gates.remove(&run);
        self.table.remove(&run).map(|process| *process)
    }
}
