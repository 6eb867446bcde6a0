//! Two supervisors beside each other: neither ends what the other has started, nor takes a path from him.

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::Stdio;

use super::gunicorn::python;
use super::place::{Place, Who};
use super::{processes, wait};

const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n";

fn sleepers(place: &Place) -> Vec<u32> {
    let all = processes::of(place.root()).into_iter();
    all.filter(|pid| processes::arguments(*pid) == ["/bin/sleep", "1000"]).collect()
}

#[test]
fn root_two_containers_with_the_same_paths_leave_each_other_alone() {
    let mut place = Place::new(Who::Root);
    place.unit("web", SLEEP);
    place.run();
    place.reaches("web", "running");
    let first = place.pid_of("web");
    // The same command line below another runtime directory of the same name.
    let run = place.path("run").display().to_string();
    let script = format!(
        "exec unshare --mount --propagation private sh -c 'mount -t tmpfs none {run} && exec \"$@\"' sh \"$@\""
    );
    let mut other = place.spawn_by(&script, Stdio::null());
    wait::until(wait::LONG, "the other's service", || (sleepers(&place).len() == 2).then_some(()));
    assert_eq!((place.pid_of("web"), place.service("web")["restarts"].as_u64()), (first, Some(0)));
    assert!(other.is_running());
    processes::signal(other.pid, libc::SIGTERM);
    assert!(other.wait().success());
    assert_eq!(sleepers(&place), [first]);
}

/// A service that does to its socket what makes it look dead to everybody who connects.
const SHUT: &str = r#"
import socket, sys, time
socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)
open(sys.argv[1], "w").close()
time.sleep(1000)
"#;

#[test]
fn root_a_path_is_its_owners_although_his_socket_looks_dead() {
    let (mut one, mut two) = (Place::new(Who::Root), Place::new(Who::Root));
    one.write("srv/shut.py", SHUT);
    let (path, shut) = (one.path("srv/web.sock"), one.path("work/shut"));
    let socket = format!("[socket.a]\nlisten = \"{}\"\n", path.display());
    let command = format!("command = [\"{}\", \"shut.py\", \"{}\"]\n", python(), shut.display());
    one.unit("web", &format!("{command}settle = \"10ms\"\n{socket}"));
    one.run();
    wait::until(wait::LONG, "the socket to look dead", || shut.exists().then_some(()));
    let file = fs::metadata(&path).unwrap().ino();
    // As long as somebody has it, its number is given to no other.
    let _kept = fs::File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    two.unit("thief", &format!("{SLEEP}{socket}"));
    two.run();
    let thief = two.reaches("thief", "backing-off");
    let run = one.path("run").display().to_string();
    let expected = format!(
        "binding {}: address already in use: a supervisor with the runtime directory `{run}` has it\nhint: `supervise \
         --runtime-dir {run} status` shows for whom",
        path.display()
    );
    assert_eq!(thief["problems"], serde_json::json!([expected]));
    assert_eq!(fs::metadata(&path).unwrap().ino(), file);
    // It is free when its owner stops.
    one.order(&["stop", "web"]);
    two.reaches("thief", "running");
    assert_ne!(fs::metadata(&path).unwrap().ino(), file);
    // And not before its owner's processes are all dead: a manager that is killed keeps it.
    two.kill(super::supervisor::Role::Manager);
    let said = one.ask(&["start", "web"]);
    let run = two.path("run").display().to_string();
    assert!(said.code == Some(1) && said.err.contains(&format!("`{run}` has it")), "{said:?}");
}
