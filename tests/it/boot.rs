//! A manager that is killed while it reads the units for the first time: the next one starts what that one had
//! got to, and what it had not.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, fcntl};

use super::place::{Place, Who};
use super::{processes, wait};

const UNITS: usize = 60;

fn name(number: usize) -> String {
    format!("unit-{number:02}-{}", "x".repeat(40))
}

/// A standard error that takes a page and no more until it is read: the manager waits there, between the first
/// of its sockets and the last.
fn narrow_pipe() -> (File, OwnedFd) {
    let (read, write) = nix::unistd::pipe().unwrap();
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (File::from(read), write)
}

fn killed_before_anything_was_started(who: Who) {
    let mut place = Place::new(who);
    for number in 0..UNITS {
        let socket = format!("[socket.a]\nlisten = \"{}\"\n", place.address());
        place.unit(&name(number), &format!("command = [\"/bin/sleep\", \"86400\"]\n{socket}"));
    }
    let (mut read, write) = narrow_pipe();
    let keeper = place.spawn_saying(write);
    let manager = wait::until(wait::LONG, "a manager", || processes::role_below(keeper.pid, "manager"));
    wait::until(wait::LONG, "the manager to wait for its standard error", || {
        let call = fs::read_to_string(format!("/proc/{manager}/syscall")).unwrap_or_default();
        call.starts_with("1 0x2 ").then_some(()) // write(2, ...
    });
    processes::signal(manager, libc::SIGKILL);
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        read.read_to_string(&mut said).unwrap();
        said
    });
    place.keeper = Some(keeper);
    wait::until(wait::LONG, "the supervisor to answer", || place.try_status());
    for number in 0..UNITS {
        place.reaches(&name(number), "running");
    }
    drop(place);
    let said = reader.join().unwrap();
    let began = said.find(" started").unwrap();
    let died = said.find(&format!("the manager (pid {manager}) ended")).unwrap();
    assert!(died < began, "it was killed too late to tell anything: {said}");
}

#[test]
fn root_a_manager_killed_before_it_has_started_anything_leaves_nothing_unstarted() {
    killed_before_anything_was_started(Who::Root);
}

#[test]
fn user_a_manager_killed_before_it_has_started_anything_leaves_nothing_unstarted() {
    killed_before_anything_was_started(Who::User);
}
