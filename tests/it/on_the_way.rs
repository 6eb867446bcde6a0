//! What comes while a process is on its way, which is held there by what debuggers use. A signal on the way to be the
//! keeper is neither lost nor that process's death; a manager that dies between two messages leaves nothing taken.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
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
        ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACESYSGOOD).unwrap();
        Self(pid)
    }

    /// Stops it where it is.
    fn stop(&self) {
        ptrace::interrupt(self.0).unwrap();
        waitpid(self.0, Some(WaitPidFlag::__WALL)).unwrap();
    }

    /// Lets it go from one edge of a system call to the next, until one is the right one. It is told the number.
    fn reach_call(&self, mut is_it: impl FnMut(i64) -> bool) {
        let mut signal = None;
        loop {
            ptrace::syscall(self.0, signal).unwrap();
            signal = match waitpid(self.0, Some(WaitPidFlag::__WALL)).unwrap() {
                WaitStatus::PtraceSyscall(_) => {
                    let words = fs::read_to_string(format!("/proc/{}/syscall", self.0)).unwrap();
                    let number = words.split(' ').next().and_then(|word| word.trim().parse().ok());
                    if number.is_some_and(&mut is_it) {
                        return;
                    }
                    None
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                WaitStatus::PtraceEvent(..) => None,
                other => panic!("it did something else: {other:?}"),
            };
        }
    }

    /// Kills it where it is.
    fn kill(self) {
        nix::sys::signal::kill(self.0, Signal::SIGKILL).unwrap();
        while !matches!(waitpid(self.0, Some(WaitPidFlag::__WALL)).unwrap(), WaitStatus::Signaled(..)) {}
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

#[cfg(target_arch = "x86_64")]
const REMOVES: i64 = libc::SYS_unlink;
#[cfg(not(target_arch = "x86_64"))]
const REMOVES: i64 = libc::SYS_unlinkat;

/// A service with a socket, the socket's file, and that of its lock.
fn with_a_lock() -> (Place, PathBuf, PathBuf) {
    let mut place = Place::new(Who::Root);
    let path = place.path("srv/web.sock");
    place.unit("web", &format!("{SLEEP}[socket.a]\nlisten = \"{}\"\n", path.display()));
    place.run();
    place.reaches("web", "running");
    let directory = fs::metadata(place.path("srv")).unwrap();
    let lock = format!("/run/supervise/locks/{:x}-{:x}-web.sock", directory.dev(), directory.ino()).into();
    (place, path, lock)
}

#[test]
fn root_a_manager_that_dies_between_a_socket_and_its_lock_gives_up_both() {
    let (place, path, lock) = with_a_lock();
    assert!(lock.exists());
    let held = Held::seize(place.role(Role::Manager));
    held.stop();
    let stop = place.begin(&["stop", "web"]);
    held.reach_call(|number| number == REMOVES && !path.exists());
    assert!(lock.exists(), "it has gone too far");
    held.kill();
    let said = stop.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!lock.exists());
    place.order(&["start", "web"]);
    assert!(path.exists() && lock.exists());
}

#[test]
fn root_a_manager_that_dies_between_a_lock_and_its_socket_takes_both_again() {
    let (place, path, lock) = with_a_lock();
    place.order(&["stop", "web"]);
    assert!(!lock.exists());
    let held = Held::seize(place.role(Role::Manager));
    held.stop();
    let start = place.begin(&["start", "web"]);
    // The lock is sent from its beginning to its end, and the socket is not.
    let mut edges = 0;
    held.reach_call(|number| {
        edges += u32::from(number == libc::SYS_sendmsg && lock.exists());
        edges == 3
    });
    assert!(path.exists());
    held.kill();
    let said = start.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    place.reaches("web", "running");
    assert!(path.exists() && lock.exists());
}
