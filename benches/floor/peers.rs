//! Other supervisors with the same probes, where they are installed: each as its own users would set it up,
//! with the change of user, without waiting between a crash and the next start where it can be told so.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, geteuid};

use crate::ours::{self, service};
use crate::probe::{self, Probe, Record};
use crate::rows::{median, rest, whole};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Runit,
    S6,
    Dinit,
    Supervisord,
}

/// One that runs, with its probes.
pub struct Running {
    peer: Peer,
    directory: tempfile::TempDir,
    process: Child,
    /// What its services say.
    pub probe: Probe,
    /// The first record of each service.
    pub first: Vec<Record>,
    /// Nanoseconds from just before it was started to the first instruction of the last service.
    pub boot_ns: u64,
}

impl Peer {
    /// All that are known.
    pub const ALL: [Self; 4] = [Self::Runit, Self::S6, Self::Dinit, Self::Supervisord];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runit => "runit",
            Self::S6 => "s6",
            Self::Dinit => "dinit",
            Self::Supervisord => "supervisord",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Runit => "runsvdir",
            Self::S6 => "s6-svscan",
            Self::Dinit => "dinit",
            Self::Supervisord => "supervisord",
        }
    }

    /// Whether it is there.
    pub fn is_installed(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(self.program()).exists())
    }

    fn write(self, root: &Path, probe: &Probe, count: u32) -> io::Result<()> {
        let services = root.join("services");
        fs::create_dir(&services)?;
        let command =
            |number| format!("{} {} {}", probe.program.display(), probe.fifo.display(), probe::name(number));
        let root_user = geteuid().is_root();
        match self {
            Self::Runit | Self::S6 => {
                let (shell, user) = match self {
                    Self::Runit => ("#!/bin/sh\nexec ", "chpst -u nobody "),
                    _ => ("#!/usr/bin/execlineb -P\n", "s6-setuidgid nobody "),
                };
                for number in 0..count {
                    let directory = services.join(service(number));
                    fs::create_dir(&directory)?;
                    let user = if root_user { user } else { "" };
                    let run = directory.join("run");
                    fs::write(&run, format!("{shell}{user}{}\n", command(number)))?;
                    fs::set_permissions(&run, PermissionsExt::from_mode(0o755))?;
                }
            }
            Self::Dinit => {
                let boot = services.join("boot");
                let mut all = String::from("type = internal\n");
                for number in 0..count {
                    all += &format!("waits-for = {}\n", service(number));
                    let user = if root_user { "run-as = nobody\n" } else { "" };
                    let text = format!(
                        "type = process\ncommand = {}\n{user}restart = true\nrestart-delay = 0\nrestart-limit-count = 0\n",
                        command(number)
                    );
                    fs::write(services.join(service(number)), text)?;
                }
                fs::write(boot, all)?;
            }
            Self::Supervisord => {
                let (root, user) = (root.display(), if root_user { "user=root\n" } else { "" });
                let mut text = format!(
                    "[supervisord]\nnodaemon=true\nminfds=8192\nlogfile={root}/log\npidfile={root}/pid\n{user}\
                     [unix_http_server]\nfile={root}/control\n[rpcinterface:supervisor]\n\
                     supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
                     [supervisorctl]\nserverurl=unix://{root}/control\n"
                );
                for number in 0..count {
                    let user = if root_user { "user=nobody\n" } else { "" };
                    text += &format!(
                        "[program:{}]\ncommand={}\n{user}autorestart=true\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile=NONE\n",
                        service(number),
                        command(number)
                    );
                }
                fs::write(root.to_string() + "/conf", text)?;
            }
        }
        Ok(())
    }

    fn command(self, root: &Path) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Self::Runit => command.arg(root.join("services")),
            Self::S6 => command.arg("-c").arg("4000").arg(root.join("services")),
            Self::Dinit => {
                command.arg("-m").arg("-q").arg("-p").arg(root.join("control")).arg("-d");
                command.arg(root.join("services"))
            }
            Self::Supervisord => command.arg("-c").arg(root.join("conf")),
        };
        command
    }

    /// Starts it with so many services and waits until all of them run.
    pub fn boot(self, count: u32) -> io::Result<Running> {
        let directory = ours::directory()?;
        let mut probe = Probe::new(directory.path(), "fifo")?;
        self.write(directory.path(), &probe, count)?;
        let mut command = self.command(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let before = supervise::sys::clock::monotonic_ns();
        let mut process = command.spawn()?;
        let first = probe.take(count as usize).inspect_err(|_| {
            let _ = process.kill();
            let _ = process.wait();
        })?;
        let last = first.iter().map(|record| record.at_ns).max().unwrap_or(before);
        Ok(Running { peer: self, directory, process, probe, first, boot_ns: last - before })
    }
}

impl Running {
    /// A client that asks how one service is.
    pub fn status(&self, number: u32) -> Command {
        self.ask(number, false)
    }

    /// A client that has one service restarted.
    pub fn restart(&self, number: u32) -> Command {
        self.ask(number, true)
    }

    fn ask(&self, number: u32, restart: bool) -> Command {
        let directory: PathBuf = self.directory.path().join("services").join(service(number));
        let control = || OsString::from(self.directory.path().join("control"));
        let mut command;
        match self.peer {
            Peer::Runit => {
                command = Command::new("sv");
                command.arg(if restart { "term" } else { "status" }).arg(directory);
            }
            Peer::S6 => {
                command = Command::new(if restart { "s6-svc" } else { "s6-svstat" });
                if restart {
                    command.arg("-r");
                }
                command.arg(directory);
            }
            Peer::Dinit => {
                command = Command::new("dinitctl");
                command.arg("-p").arg(control()).arg(if restart { "restart" } else { "status" });
                command.arg(service(number));
            }
            Peer::Supervisord => {
                command = Command::new("supervisorctl");
                command.arg("-c").arg(self.directory.path().join("conf"));
                command.arg(if restart { "restart" } else { "status" }).arg(service(number));
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Its processes that are not probes.
    pub fn pids(&self) -> Vec<u32> {
        let mut all = vec![self.process.id()];
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.process.id()));
        let children = children.unwrap_or_default();
        let probes: Vec<u32> = self.first.iter().map(|record| record.pid as u32).collect();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .filter(|pid| !probes.contains(pid)),
        );
        all
    }

    /// Ends it and everything below it.
    pub fn stop(mut self) -> io::Result<()> {
        let probes: Vec<Pid> = self.first.iter().map(|record| Pid::from_raw(record.pid)).collect();
        let ending = match self.peer {
            // What is below each of its children goes with that child.
            Peer::Runit => Signal::SIGHUP,
            Peer::S6 | Peer::Dinit | Peer::Supervisord => Signal::SIGTERM,
        };
        signal::kill(Pid::from_raw(self.process.id() as i32), ending)?;
        self.process.wait()?;
        // Those of runit and s6 end a little after the process above them.
        for _ in 0..1_000 {
            if probes.iter().all(|pid| signal::kill(*pid, None).is_err()) {
                break;
            }
            rest(5)?;
        }
        Ok(())
    }
}

/// Nanoseconds until the whole of one row's round is over.
fn crash_one(running: &mut Running, at: usize) -> io::Result<u64> {
    let Some(record) = running.first.get(at).copied() else { return Err(io::Error::other("no such probe")) };
    let before = supervise::sys::clock::monotonic_ns();
    signal::kill(Pid::from_raw(record.pid), Signal::SIGKILL)?;
    let back = running.probe.next()?;
    running.first[at] = back;
    Ok(back.at_ns - before)
}

/// Prints what one peer takes, one line a row; ours and the floor have lines of their own.
pub fn all() -> io::Result<()> {
    for peer in Peer::ALL {
        if !peer.is_installed() {
            println!("{:<42} not installed: not measured", peer.name());
            continue;
        }
        for count in [1, 1_000] {
            let mut running = peer.boot(count)?;
            let print = |what: &str, value: f64, unit: &str| {
                println!("{:<42} {value:>9.3} {unit}", format!("{} {what}, {count}", peer.name()));
            };
            print("boot", running.boot_ns as f64 / 1e6, "ms");
            rest(1_500)?; // runit and s6 hold a service back that ends within its first second
            // s6 and supervisord wait a second between two starts.
            let slow = matches!(peer, Peer::S6 | Peer::Supervisord);
            let mut crashes = Vec::new();
            for round in 0..if slow { 5 } else { 50 } {
                crashes.push(crash_one(&mut running, round * 37 % count as usize)?);
                rest(if peer == Peer::Runit { 1_100 } else { 20 })?;
            }
            print("crash to first instruction", median(&crashes), "ms");
            let mut asked = Vec::new();
            for _ in 0..20 {
                asked.push(whole(running.status(count / 2))?);
            }
            print("status as a whole process", median(&asked), "ms");
            let mut restarts = Vec::new();
            for _ in 0..5 {
                rest(1_100)?;
                let before = supervise::sys::clock::monotonic_ns();
                let mut client = running.restart(count / 2).spawn()?;
                let back = running.probe.next()?;
                restarts.push(back.at_ns - before);
                client.wait()?;
                running.first[count as usize / 2] = back;
            }
            print("restart to first instruction", median(&restarts), "ms");
            let pids = running.pids();
            let kib: u64 = pids.iter().map(|pid| ours::pss_kib(*pid)).sum();
            print("memory of its processes", kib as f64 / 1024.0, "MiB");
            running.stop()?;
        }
    }
    Ok(())
}
