//! The supervisor of a place: started, asked, and deprived of its processes.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::place::Place;
use super::{processes, wait};

/// The process that an init would see. One whose keeper was killed may go on under another pid.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
    pub pid: u32,
}

/// One of its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Manager,
    Zygote,
    Logger,
    Keeper,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

/// All that comes out of a pipe, read beside whatever its owner waits for.
fn all_of(mut pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = &mut pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

/// A command that has been given and not awaited.
pub struct Asking {
    child: Child,
    began: Instant,
}

impl Asking {
    pub fn is_under_way(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its end.
    #[track_caller]
    pub fn wait(mut self) -> Said {
        // Read all the while: what says more than a pipe takes would never end.
        let (out, err) = (all_of(self.child.stdout.take()), all_of(self.child.stderr.take()));
        let status = wait::within(2 * wait::LONG, || self.child.try_wait().unwrap());
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let took = self.began.elapsed();
        let (out, err) = (out.join().unwrap(), err.join().unwrap());
        let status = status.unwrap_or_else(|| {
            let [out, err] = [&out, &err].map(|bytes| String::from_utf8_lossy(bytes));
            panic!("a command does not end; it has said: {out}\n{err}")
        });
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: status.code(), out: text(out), err: text(err), took }
    }
}

impl Place {
    /// `supervise run` as this place's user, without waiting for anything.
    pub fn spawn(&self) -> Keeper {
        let said = File::options().create(true).append(true).open(self.path("supervise.err")).unwrap();
        self.spawn_saying(said.into())
    }

    /// The same, with its own words going elsewhere.
    pub fn spawn_saying(&self, said: OwnedFd) -> Keeper {
        self.spawn_below(&[], said)
    }

    fn spawn_below(&self, before: &[&str], said: OwnedFd) -> Keeper {
        let binary = self.binary();
        let mut command = match before {
            [] => self.command(&binary),
            [first, rest @ ..] => {
                let mut command = self.command(first.as_ref());
                command.args(rest).arg(&binary);
                command
            }
        };
        command.arg("run").arg("--units").arg(self.path("units"));
        command.arg("--runtime-dir").arg(self.path("run")).arg("--log-dir").arg(self.path("log"));
        command.arg("--state-dir").arg(self.path("state"));
        let child =
            command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
        Keeper { pid: child.id(), child }
    }

    /// The same by a script of sh, which executes its arguments in the end, with a standard input of ours.
    pub fn spawn_by(&self, script: &str, input: Stdio) -> Keeper {
        let said = File::options().create(true).append(true).open(self.path("supervise.err")).unwrap();
        let mut command = self.command(std::path::Path::new("/bin/sh"));
        command.arg("-c").arg(script).arg("sh").arg(self.binary());
        command.arg("run").arg("--units").arg(self.path("units"));
        command.arg("--runtime-dir").arg(self.path("run")).arg("--log-dir").arg(self.path("log"));
        command.arg("--state-dir").arg(self.path("state"));
        let child = command.stdin(input).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
        Keeper { pid: child.id(), child }
    }

    /// The same, until it answers.
    #[track_caller]
    pub fn run(&mut self) {
        self.keeper = Some(self.spawn());
        wait::until(wait::LONG, "the supervisor to answer", || self.try_status());
    }

    /// The same, executed by another command.
    #[track_caller]
    pub fn run_below(&mut self, before: &[&str]) {
        let said = File::options().create(true).append(true).open(self.path("supervise.err")).unwrap();
        self.keeper = Some(self.spawn_below(before, said.into()));
        wait::until(wait::LONG, "the supervisor to answer", || self.try_status());
    }

    /// What the supervisor has said so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.path("supervise.err")).unwrap_or_default()
    }

    /// Gives a command and does not wait for it.
    pub fn begin(&self, arguments: &[&str]) -> Asking {
        let mut command = self.command(&self.binary());
        command.arg("--runtime-dir").arg(self.path("run")).args(arguments);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Asking { child: command.spawn().unwrap(), began: Instant::now() }
    }

    /// Gives a command and waits for its end.
    #[track_caller]
    pub fn ask(&self, arguments: &[&str]) -> Said {
        self.begin(arguments).wait()
    }

    /// The same, and it has to succeed.
    #[track_caller]
    pub fn order(&self, arguments: &[&str]) -> Said {
        let said = self.ask(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        said
    }

    /// `status --json`, where it is answered.
    #[track_caller]
    pub fn try_status(&self) -> Option<Value> {
        let said = self.ask(&["status", "--json"]);
        (said.code == Some(0)).then(|| serde_json::from_str(&said.out).unwrap())
    }

    /// `status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.try_status().expect("an answer to `status`")
    }

    /// One service of it.
    #[track_caller]
    pub fn service(&self, name: &str) -> Value {
        let status = self.status();
        let services = status["services"].as_array().expect("services");
        let found = services.iter().find(|service| service["name"] == name);
        found.unwrap_or_else(|| panic!("no service {name} in {status:#}")).clone()
    }

    /// Waits until a service is in a state.
    #[track_caller]
    pub fn reaches(&self, name: &str, state: &str) -> Value {
        let began = Instant::now();
        loop {
            let service = self.service(name);
            if service["state"] == state {
                return service;
            }
            assert!(began.elapsed() < wait::LONG, "{name} does not become {state}: {service:#}");
            wait::a_moment();
        }
    }

    /// Its main process.
    #[track_caller]
    pub fn pid_of(&self, name: &str) -> u32 {
        let service = self.service(name);
        service["pid"].as_u64().unwrap_or_else(|| panic!("{name} does not run: {service:#}")) as u32
    }

    /// The pid of one of its processes.
    #[track_caller]
    pub fn role(&self, role: Role) -> u32 {
        let status = self.status();
        let supervisor = &status["supervisor"];
        let keeper = supervisor["keeper_pid"].as_u64().expect("a keeper") as u32;
        let below = |name| wait::until(wait::LONG, name, || processes::role_below(keeper, name));
        match role {
            Role::Keeper => keeper,
            Role::Manager => supervisor["pid"].as_u64().expect("a manager") as u32,
            Role::Zygote => below("zygote"),
            Role::Logger => below("logger"),
        }
    }

    /// Kills one of its processes, and takes the dead keeper off the list as its parent has to.
    #[track_caller]
    pub fn kill(&mut self, role: Role) -> u32 {
        let pid = self.role(role);
        self.kill_at_once(pid);
        pid
    }

    /// The same where it is known already which it is.
    #[track_caller]
    pub fn kill_at_once(&mut self, pid: u32) {
        processes::signal(pid, 9);
        self.reap(pid);
    }

    /// Waits for a process to be gone, and takes it off the list where it is our child.
    #[track_caller]
    pub fn reap(&mut self, pid: u32) {
        if let Some(keeper) = &mut self.keeper
            && keeper.pid == pid
        {
            keeper.child.wait().unwrap();
            self.keeper = None;
        }
        wait::until(wait::LONG, "a killed process to end", || (!processes::lives(pid)).then_some(()));
    }
}

impl Keeper {
    /// How it ended, once it has.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        wait::until(2 * wait::LONG, "the supervisor to end", || self.child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// The keeper of a place, whoever its parent is: ours, or one that took its place.
fn living_keeper(place: &Place) -> Option<u32> {
    processes::of(place.root()).into_iter().find(|pid| {
        matches!(&processes::arguments(*pid)[..], [first, second, ..] if first == "supervise" && second == "keeper")
    })
}

/// TERM, and everything that it promises. What went wrong, in words.
pub fn end(place: &mut Place) -> Option<String> {
    // A manager that becomes the keeper has no arguments for a moment: nothing is believed to be there only
    // when it has not been there for a while.
    let mut seen = Instant::now();
    let keeper = wait::within(wait::LONG, || {
        let keeper = living_keeper(place);
        if !processes::of(place.root()).is_empty() {
            seen = Instant::now();
        }
        (keeper.is_some() || seen.elapsed() > Duration::from_millis(300)).then_some(keeper)
    });
    let child = place.keeper.take();
    let Some(Some(pid)) = keeper else {
        if let Some(mut child) = child {
            let _ = child.child.kill();
            let _ = child.child.wait();
        }
        return None;
    };
    if let Ok(pidfd) = supervise::sys::process::open(pid) {
        let _ = supervise::sys::process::signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGTERM);
    }
    match child {
        Some(mut child) => {
            let status = wait::within(wait::LONG, || child.child.try_wait().unwrap());
            if status.is_none() {
                let _ = child.child.kill();
                let _ = child.child.wait();
            }
            match status {
                Some(status) if status.success() => None,
                Some(status) => {
                    Some(format!("the supervisor ended with {:?}/{:?}", status.code(), status.signal()))
                }
                None => Some("a supervisor that does not end on TERM".to_owned()),
            }
        }
        None => {
            let gone = wait::within(wait::LONG, || (!processes::lives(pid)).then_some(()));
            gone.is_none().then(|| "a supervisor that does not end on TERM".to_owned())
        }
    }
}
