//! A supervisor of ours with a number of services that are probes.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, geteuid};

use crate::probe::{self, Probe, Record};

/// The binary that is measured: ours of this build, or the one that SUPERVISE_BENCH_BINARY names.
pub fn binary() -> PathBuf {
    std::env::var_os("SUPERVISE_BENCH_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_supervise")), PathBuf::from)
}

/// A directory that the services' user may enter too.
pub fn directory() -> io::Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new().prefix("supervise-bench.").tempdir()?;
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    Ok(directory)
}

/// One that runs.
pub struct Ours {
    directory: tempfile::TempDir,
    process: Child,
    /// What its services say.
    pub probe: Probe,
    /// The first record of each service, by number.
    pub first: Vec<Record>,
    /// Nanoseconds from just before it was started to the first instruction of the last service.
    pub boot_ns: u64,
}

/// The name of a service.
pub fn service(number: u32) -> String {
    format!("s{}", probe::name(number))
}

fn unit(command: &str) -> String {
    let user = if geteuid().is_root() { "user = \"nobody\"\n" } else { "" };
    format!("[service]\ncommand = {command}\n{user}settle = \"0ms\"\n\n[restart]\ndelay = \"0ms\"\n")
}

impl Ours {
    /// Starts one with so many services and waits until all of them run.
    pub fn boot(count: u32) -> io::Result<Self> {
        Self::boot_with(count, |_| None)
    }

    /// The same; `other` may give a service another command line than the probe's.
    pub fn boot_with(count: u32, other: impl Fn(&Probe) -> Option<String>) -> io::Result<Self> {
        let directory = directory()?;
        let root = directory.path();
        let mut probe = Probe::new(root, "fifo")?;
        fs::create_dir(root.join("units"))?;
        let plain =
            |number: u32| format!("[{:?}, {:?}, {:?}]", probe.program, probe.fifo, probe::name(number));
        for number in 0..count {
            let text = unit(&other(&probe).unwrap_or_else(|| plain(number)));
            fs::write(root.join(format!("units/{}.toml", service(number))), text)?;
        }
        let mut command = Command::new(binary());
        command.arg("run").arg("--units").arg(root.join("units"));
        for (flag, name) in [("--runtime-dir", "run"), ("--log-dir", "log"), ("--state-dir", "state")] {
            command.arg(flag).arg(root.join(name));
        }
        let output = fs::File::create(root.join("stderr"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let before = supervise::sys::clock::monotonic_ns();
        let mut process = command.spawn()?;
        let first = match probe.take(count as usize) {
            Ok(first) => first,
            Err(error) => {
                signal::kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM)?;
                process.wait()?;
                let said = fs::read_to_string(root.join("stderr")).unwrap_or_default();
                let start: String = said.chars().take(2_000).collect();
                return Err(io::Error::other(format!("{error}; the supervisor said:\n{start}")));
            }
        };
        let last = first.iter().map(|record| record.at_ns).max().unwrap_or(before);
        Ok(Self { directory, process, probe, first, boot_ns: last - before })
    }

    /// A client's command line.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--runtime-dir").arg(self.directory.path().join("run")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The pids of all processes that are the supervisor itself.
    pub fn pids(&self) -> Vec<u32> {
        let keeper = self.process.id();
        let mut all = vec![keeper];
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
        let children = children.unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()).filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"supervise\0"))
        }));
        all
    }

    /// Each of the supervisor's processes and its proportional share of memory, in KiB.
    pub fn memory(&self) -> Vec<(String, u64)> {
        self.pids().into_iter().map(|pid| (role(pid), pss_kib(pid))).collect()
    }

    /// How often its processes have been woken up so far.
    pub fn wake_ups(&self) -> u64 {
        let of = |pid: u32| number_in(&format!("/proc/{pid}/status"), "voluntary_ctxt_switches:");
        self.pids().into_iter().map(of).sum()
    }

    /// Nanoseconds of processor time that its processes have used so far.
    pub fn used_ns(&self) -> u64 {
        self.pids().into_iter().map(used_ns).sum()
    }

    /// Stops it and waits for its end.
    pub fn stop(mut self) -> io::Result<()> {
        signal::kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM)?;
        self.process.wait().map(drop)
    }
}

fn role(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let word = line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
    String::from_utf8_lossy(word).into_owned()
}

/// The proportional share of memory of a process, in KiB.
pub fn pss_kib(pid: u32) -> u64 {
    number_in(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// Nanoseconds that a process has run (schedstat, Documentation/scheduler/sched-stats.rst).
pub fn used_ns(pid: u32) -> u64 {
    number_in(&format!("/proc/{pid}/schedstat"), "")
}

fn number_in(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(Path::new(path)).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The roles and shares as one line.
pub fn shares(memory: &[(String, u64)]) -> String {
    let mut line = String::new();
    for (role, kib) in memory {
        let _ = write!(line, "{}{role} {kib}", if line.is_empty() { "" } else { ", " });
    }
    line
}
