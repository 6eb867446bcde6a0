//! A runtime directory that is full, read-only or somebody else's: services run, and what does not work is said.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::gunicorn::python;
use super::place::{Place, Who};
use super::supervisor::{Keeper, Role};
use super::{processes, wait};

const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n[restart]\ndelay = \"10ms\"\n";
/// Says that it is ready.
const TOLD: &str = r#"
import os, socket, time
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"#;

fn sleepers(place: &Place) -> Vec<u32> {
    let all = processes::of(place.root()).into_iter();
    all.filter(|pid| processes::arguments(*pid) == ["/bin/sleep", "1000"]).collect()
}

/// Starts the supervisor where its runtime directory is another file system, which we see too.
fn run_on(place: &Place, options: &str) -> Keeper {
    let run = place.path("run");
    fs::create_dir(&run).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&run).status().unwrap();
    assert!(mounted.success());
    place.spawn_by("exec \"$@\"", Stdio::null())
}

/// Takes the file system away again, also where the test fails.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// It runs services and ends in order.
fn works_without_a_socket(place: &Place, keeper: Keeper, said: &str) {
    wait::until(wait::LONG, "its service", || (sleepers(place).len() == 1).then_some(()));
    processes::signal(sleepers(place)[0], 9);
    wait::until(wait::LONG, "its service again", || (sleepers(place).len() == 1).then_some(()));
    let told = wait::within(wait::LONG, || place.stderr().contains(said).then_some(()));
    assert!(told.is_some() && place.stderr().matches(said).count() == 1, "{}", place.stderr());
    assert_eq!(place.ask(&["status"]).code, Some(5));
    processes::signal(keeper.pid, libc::SIGTERM);
    assert_eq!(keeper.wait().code(), Some(0));
    assert!(sleepers(place).is_empty());
}

#[test]
fn root_a_read_only_runtime_directory_costs_the_control_socket_alone() {
    let place = Place::new(Who::Root);
    let _mounted = Mounted(place.path("run"));
    place.unit("web", SLEEP);
    let keeper = run_on(&place, "ro");
    let run = place.path("run").display().to_string();
    let said =
        format!("no runtime directory at {run}: read-only file system; running without a control socket");
    works_without_a_socket(&place, keeper, &said);
}

#[test]
fn user_a_runtime_directory_that_is_not_to_be_written_costs_the_control_socket_alone() {
    let place = Place::new(Who::User);
    place.unit("web", SLEEP);
    let run = place.path("run");
    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, Permissions::from_mode(0o555)).unwrap();
    let keeper = place.spawn();
    let said = format!("no runtime directory at {}: permission denied; running", run.display());
    works_without_a_socket(&place, keeper, &said);
}

#[test]
fn root_a_control_socket_without_room_comes_when_there_is_some() {
    let mut place = Place::new(Who::Root);
    let _mounted = Mounted(place.path("run"));
    place.unit("web", SLEEP);
    place.keeper = Some(run_on(&place, "size=64k,nr_inodes=2")); // the directory and the lock
    wait::until(wait::LONG, "its service", || (sleepers(&place).len() == 1).then_some(()));
    let said =
        format!("no control socket at {}: no space left on device", place.path("run/control").display());
    wait::until(wait::LONG, "the reason", || place.stderr().contains(&said).then_some(()));
    let more = Command::new("mount").args(["-o", "remount,nr_inodes=100"]).arg(place.path("run")).status();
    assert!(more.unwrap().success());
    wait::until(wait::LONG, "the control socket", || place.try_status());
    place.order(&["restart", "web"]);
}

#[test]
fn root_a_lock_without_room_is_taken_when_there_is_some_and_nobody_has_it() {
    let mut place = Place::new(Who::Root);
    let _mounted = Mounted(place.path("run"));
    place.unit("web", SLEEP);
    place.keeper = Some(run_on(&place, "size=64k,nr_inodes=1")); // the directory alone
    wait::until(wait::LONG, "its service", || (sleepers(&place).len() == 1).then_some(()));
    assert!(!place.path("run/lock").exists());
    let keeper = place.keeper.as_ref().unwrap().pid;
    let manager = wait::until(wait::LONG, "a manager", || processes::role_below(keeper, "manager"));
    let both = |signal: i32| [keeper, manager].into_iter().for_each(|pid| processes::signal(pid, signal));
    both(libc::SIGSTOP);
    let stand = || [keeper, manager].into_iter().all(|pid| processes::stat(pid).unwrap().state == 'T');
    wait::until(wait::LONG, "both to stand still", || stand().then_some(()));
    let more = Command::new("mount").args(["-o", "remount,nr_inodes=100"]).arg(place.path("run")).status();
    let other = supervise::sys::files::try_lock(&place.path("run/lock"));
    both(libc::SIGCONT);
    assert!(more.unwrap().success());
    let other = other.unwrap();
    let said = format!(
        "somebody else has the lock {} by now: this supervisor (pid {keeper}) runs on beside it",
        place.path("run/lock").display()
    );
    assert!(other.is_some(), "it was quicker than we");
    wait::until(wait::LONG, "who has it", || place.stderr().contains(&said).then_some(()));
    assert!(!place.path("run/control").exists());
    drop(other);
    wait::until(wait::LONG, "the control socket", || place.try_status());
    let late = place.spawn().wait();
    assert_eq!(late.code(), Some(1), "{}", place.stderr());
    let said = format!("a supervisor (pid {keeper}) already runs in");
    assert!(place.stderr().contains(&said), "{}", place.stderr());
    // The next manager has it too.
    place.kill(Role::Manager);
    wait::until(wait::LONG, "the next manager", || place.try_status());
    place.order(&["restart", "web"]);
    assert_eq!(sleepers(&place).len(), 1);
}

#[test]
fn root_a_directory_that_fills_up_keeps_nothing_from_running() {
    let mut place = Place::new(Who::Root);
    let _mounted = Mounted(place.path("run"));
    place.unit("web", SLEEP);
    place.write("srv/told.py", TOLD);
    place.unit("told", &format!("ready = \"notify\"\ncommand = [\"{}\", \"told.py\"]\n", python()));
    place.keeper = Some(run_on(&place, "size=64k,nr_inodes=40"));
    wait::until(wait::LONG, "the supervisor to answer", || place.try_status());
    place.reaches("told", "running");
    let fill = |number: u32| fs::write(place.path(&format!("run/fill{number}")), [0; 8192]).is_err();
    assert!((0..100).any(fill), "it does not become full");
    let some = (0..100).find(|number| fs::File::create(place.path(&format!("run/none{number}"))).is_err());
    assert!(some.is_some(), "it does not become full");
    let pid = place.pid_of("told");
    processes::signal(place.pid_of("web"), 9);
    place.kill(Role::Manager);
    wait::until(wait::LONG, "the next web", || {
        let web = place.service("web");
        (web["state"] == "running" && web["restarts"].as_u64() >= Some(1)).then_some(())
    });
    let dead = place.kill(Role::Keeper);
    wait::until(wait::LONG, "the manager in its place", || {
        let keeper = place.try_status()?["supervisor"]["keeper_pid"].as_u64()?;
        (keeper != u64::from(dead)).then_some(())
    });
    assert_eq!(place.pid_of("told"), pid);
    let said = place.ask(&["restart", "told"]);
    assert!(said.code == Some(1) && said.err.contains("no space left on device"), "{said:?}");
    place.reaches("web", "running");
    let late = place.spawn().wait();
    assert_eq!(late.code(), Some(1), "{}", place.stderr());
    assert!(place.stderr().contains("already runs in"), "{}", place.stderr());
    let more =
        Command::new("mount").args(["-o", "remount,nr_inodes=1000,size=1M"]).arg(place.path("run")).status();
    assert!(more.unwrap().success());
    place.order(&["restart", "told"]);
}
