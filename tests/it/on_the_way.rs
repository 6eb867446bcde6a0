//! A signal that comes while a process is on its way to be the keeper: it is neither lost nor that process's death. The
//! process is held at its execve, by what debuggers use, while the signal is sent.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n";

/// A process that is traced.
struct Held(Pid);

impl Held {
    fn seize(pid: u32) -> Self {
        let pid = Pid::from_raw(pid as i32);
        ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC).unwrap();
        Self(pid)
    }

    /// Lets it run until it has just executed the keeper, before the first instruction of that.
    fn reach_keeper(&self) {
        loop {
            let signal = match waitpid(self.0, Some(WaitPidFlag::__WALL)).unwrap() {
                WaitStatus::PtraceEvent(..) => {
                    let words = processes::arguments(self.0.as_raw() as u32);
                    if words.get(1).is_some_and(|role| role == "keeper") {
                        return;
                    }
                    None
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                other => panic!("it did something else: {other:?}"),
            };
            ptrace::cont(self.0, signal).unwrap();
        }
    }

    /// Sends it a signal and lets it go.
    fn signal(self, signal: Signal) {
        nix::sys::signal::kill(self.0, signal).unwrap();
        ptrace::detach(self.0, None).unwrap();
    }
}

fn sleepers(place: &Place) -> usize {
    let all = processes::of(place.root()).into_iter();
    all.filter(|pid| processes::arguments(*pid) == ["/bin/sleep", "1000"]).count()
}

#[test]
fn root_a_term_on_the_way_to_the_keepers_place_stops_everything_in_order() {
    let mut place = Place::new(Who::Root);
    place.unit("web", SLEEP);
    place.run();
    place.reaches("web", "running");
    let manager = place.role(Role::Manager);
    let held = Held::seize(manager);
    place.kill(Role::Keeper);
    held.reach_keeper();
    assert!(place.path("run/control").exists() && sleepers(&place) == 1);
    held.signal(Signal::SIGTERM);
    wait::until(wait::LONG, "its end", || (!processes::lives(manager)).then_some(()));
    assert_eq!(sleepers(&place), 0, "a service is left behind");
    assert!(!place.path("run/control").exists(), "its control socket is left behind");
}

#[test]
fn root_a_term_on_the_way_from_run_to_the_keeper_is_obeyed() {
    let mut place = Place::new(Who::Root);
    place.unit("web", SLEEP);
    let (read, write) = nix::unistd::pipe().unwrap();
    let run = place.spawn_by("read go; exec \"$@\"", Stdio::from(read));
    let pid = run.pid;
    let held = Held::seize(pid);
    fs::File::from(write).write_all(b"go\n").unwrap();
    held.reach_keeper();
    place.keeper = Some(run);
    held.signal(Signal::SIGTERM);
    let run = place.keeper.take().unwrap();
    let status = run.wait();
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(place.stderr().contains("stopping"), "{}", place.stderr());
    assert!(!place.path("run/control").exists());
}
