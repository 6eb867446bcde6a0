//! What a service, or somebody with a right on one, gets by being hostile: nothing, and nobody else waits for it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use super::accounts::Account;
use super::gunicorn::python;
use super::place::{Place, Who};
use super::{processes, wait};

const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"1ms\"\n";

#[test]
fn root_a_service_gains_no_capability_or_group_of_another_of_its_user() {
    let mut place = Place::new(Who::Root);
    let other = Account::make();
    place.unit("plain", SLEEP);
    place.unit("able", &format!("{SLEEP}capabilities = [\"net-raw\"]\n"));
    place.unit("grouped", &format!("{SLEEP}groups = [\"{}\"]\n", other.name));
    place.run();
    for name in ["plain", "able", "grouped"] {
        place.reaches(name, "running");
    }
    let exec = |name: &str, groups: &[u32]| {
        let mut client = place.command_as(place.account.uid, place.account.gid, groups, &place.binary());
        client.arg("--runtime-dir").arg(place.path("run")).args(["exec", name, "--", "true"]);
        client.stdin(Stdio::null()).output().unwrap().status.code()
    };
    assert_eq!(exec("plain", &[]), Some(0));
    assert_eq!(exec("able", &[]), Some(125));
    assert_eq!(exec("grouped", &[]), Some(125));
    assert_eq!(exec("grouped", &[other.gid]), Some(0));
}

#[test]
fn root_services_that_never_answer_keep_no_other_from_starting() {
    let mut place = Place::new(Who::Root);
    let health = |command: &str| {
        format!("{SLEEP}ready = \"health\"\nstart-timeout = \"120s\"\n{command}\ntimeout = \"1s\"\n")
    };
    place.unit("hung", &health("instances = 20\n[health]\ncommand = [\"/bin/sleep\", \"1000\"]"));
    place.unit("good", &health("start = \"manual\"\n[health]\ncommand = [\"/bin/true\"]"));
    place.run();
    place.reaches("hung", "starting");
    let said = place.ask(&["start", "good"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.took < Duration::from_secs(60), "{said:?}");
}

/// Takes the descriptors of the probe that asks it, and says through them what it likes.
const THIEF: &str = r#"
import ctypes, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def probe():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
            if words[1:2] == [b"probe"] and os.stat(f"/proc/{pid}").st_uid == os.getuid():
                return int(pid)
        except OSError:
            pass
while (pid := probe()) is None:
    time.sleep(0.01)
pidfd = libc.syscall(434, pid, 0)
err, out = (libc.syscall(438, pidfd, number, 0) for number in (2, 1))
try:
    os.write(err, b"FORGED\n")
except OSError:
    pass
open(sys.argv[1], "w").write(f"{err} {out}")
lines = [f"unhealthy {n}\n".encode() for n in range(100000)]
at = 0
while True:
    try:
        os.write(out, b"".join(lines[at % 99000:at % 99000 + 200]))
    except OSError:
        break
    at += 200
time.sleep(1000)
"#;

#[test]
fn root_a_service_that_takes_its_probes_descriptors_gets_nothing_of_ours() {
    let mut place = Place::new(Who::Root);
    place.write("srv/thief.py", THIEF);
    let (taken, address) = (place.path("work/taken"), place.address());
    place.unit(
        "thief",
        &format!(
            "command = [\"{}\", \"thief.py\", \"{}\"]\nready = \"health\"\nstart-timeout = \"60s\"\n\
             [socket.http]\nlisten = \"{address}\"\n[health]\nhttp = \"/\"\ntimeout = \"30s\"\n",
            python(),
            taken.display()
        ),
    );
    place.run();
    let words = || std::fs::read_to_string(&taken).ok().filter(|words| !words.is_empty());
    let words = wait::until(wait::LONG, "the theft", words);
    assert!(!words.starts_with('-'), "this kernel does not let it try: {words}");
    // It talks as fast as it can, and others are answered.
    for _ in 0..5 {
        let said = place.ask(&["status", "--names"]);
        assert!(said.code == Some(0) && said.took < Duration::from_secs(30), "{said:?}");
    }
    assert!(!place.stderr().contains("FORGED"));
}

#[test]
fn root_no_connection_is_made_where_a_service_has_put_a_link() {
    let mut place = Place::new(Who::Root);
    let path = place.path("work/web.sock");
    place.unit(
        "web",
        &format!(
            "{SLEEP}ready = \"health\"\nstart-timeout = \"60s\"\nstart = \"manual\"\n[socket.http]\nlisten = \"{}\"\n\
             [health]\nhttp = \"/\"\ntimeout = \"200ms\"\n",
            path.display()
        ),
    );
    let target = place.path("for-root.sock");
    let of_root = UnixListener::bind(&target).unwrap();
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).unwrap();
    of_root.set_nonblocking(true).unwrap();
    place.run();
    let start = place.begin(&["start", "web"]);
    // Before that its file may be there and be bound anew.
    let listens = format!("listening on {}", path.display());
    wait::until(wait::LONG, "its socket", || place.stderr().contains(&listens).then_some(()));
    // What a service can do in a directory of its own.
    std::fs::remove_file(&path).unwrap();
    symlink(&target, &path).unwrap();
    let refused = |web: &serde_json::Value| web["problems"].to_string().contains("permission denied");
    let seen = wait::within(wait::LONG, || {
        assert!(of_root.accept().is_err(), "a connection of root's, for whoever put the link there");
        refused(&place.service("web")).then_some(())
    });
    assert!(seen.is_some(), "{:#}", place.service("web"));
    place.order(&["stop", "web"]);
    drop(start.wait());
}

/// Processes with exactly these arguments.
fn of_arguments(place: &Place, arguments: &[&str]) -> Vec<u32> {
    let all = processes::of(place.root()).into_iter();
    all.filter(|pid| processes::arguments(*pid) == arguments).collect()
}

#[test]
fn user_a_health_command_ends_with_the_probe_that_runs_it() {
    let mut place = Place::new(Who::User);
    let began = place.path("work/began");
    let command = format!("echo > {}; sleep 999; true", began.display());
    let health = format!("[health]\ncommand = [\"/bin/sh\", \"-c\", \"{command}\"]\ntimeout = \"60s\"\n");
    place.unit("web", &format!("{SLEEP}ready = \"health\"\nstart-timeout = \"10min\"\n{health}"));
    place.run();
    wait::until(wait::LONG, "the health command", || began.exists().then_some(()));
    place.order(&["stop", "web"]);
    let over = || of_arguments(&place, &["sleep", "999"]).is_empty().then_some(());
    wait::until(wait::LONG, "its end", over);
}

#[test]
fn user_what_a_command_has_begun_ends_with_it() {
    let mut place = Place::new(Who::User);
    place.unit("web", SLEEP);
    place.run();
    place.reaches("web", "running");
    let said = place.ask(&["exec", "web", "--", "sh", "-c", "sleep 998 >/dev/null 2>&1 & echo began"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "began\n"), "{said:?}");
    let over = |what: &str| {
        let none = || of_arguments(&place, &["sleep", what]).is_empty().then_some(());
        wait::until(wait::LONG, "the end of what it has begun", none);
    };
    over("998");
    // One that HUP does not end, and whose client has gone.
    let mut client = place.command(&place.binary());
    client.arg("--runtime-dir").arg(place.path("run"));
    client.args(["exec", "web", "--", "sh", "-c", "trap '' HUP; sleep 997; true"]);
    let mut client = client.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let running = || (!of_arguments(&place, &["sleep", "997"]).is_empty()).then_some(());
    wait::until(wait::LONG, "the command", running);
    client.kill().unwrap();
    client.wait().unwrap();
    over("997");
}

#[test]
fn root_a_services_name_does_not_make_it_a_command() {
    let mut place = Place::new(Who::Root);
    place.unit("exec", SLEEP);
    place.run();
    place.reaches("exec", "running");
    let pid = place.pid_of("exec");
    place.kill(super::supervisor::Role::Manager);
    place.reaches("exec", "running");
    assert_eq!((place.pid_of("exec"), place.service("exec")["restarts"].as_u64()), (pid, Some(0)));
}

/// Keeps as many connections as it can get, each with half a call.
const CROWD: &str = r#"
import select, socket, sys
path, poll, held = sys.argv[1], select.poll(), {}
def connect():
    one = socket.socket(socket.AF_UNIX)
    one.setblocking(False)
    try:
        one.connect(path)
        one.send(b'{"method":"io.supervise.Control.Sta')
    except OSError:
        return one.close()
    held[one.fileno()] = one
    poll.register(one, select.POLLIN | select.POLLHUP)
said = False
while True:
    while len(held) < 64:
        before = len(held)
        connect()
        if len(held) == before:
            break
    if not said:
        said = print("there", flush=True) or True
    for fd, _ in poll.poll(50):
        poll.unregister(fd)
        held.pop(fd).close()
"#;

#[test]
fn root_a_crowd_of_clients_takes_no_descriptors_from_services_and_from_root() {
    let mut place = Place::new(Who::Root);
    place.write("srv/crowd.py", CROWD);
    let names: Vec<String> = (0..18).map(|number| format!("s{number}")).collect();
    for name in &names {
        place.unit(name, &format!("{SLEEP}start = \"manual\"\n[access]\nstatus = [\"*\"]\n"));
    }
    place.run_below(&["prlimit", "--nofile=256:256"]);
    let crowd: Vec<_> = (0..8)
        .map(|number| {
            let mut one = place.command_as(61_000 + number, 61_000 + number, &[], python().as_ref());
            one.arg(place.path("srv/crowd.py")).arg(place.path("run/control"));
            let mut one = one.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            std::io::Read::read_exact(one.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
            one
        })
        .collect();
    for name in &names {
        let said = place.ask(&["start", name]);
        assert!(said.code == Some(0) && said.took < Duration::from_secs(20), "{name}: {said:?}");
    }
    let said = place.ask(&["exec", "s0", "--", "echo", "there"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "there\n"), "{said:?}");
    // One with all its descriptors comes back with all of its own.
    processes::signal(place.pid_of("s3"), 9);
    wait::until(wait::LONG, "another process", || (place.service("s3")["restarts"] == 1).then_some(()));
    place.reaches("s3", "running");
    assert!(!place.stderr().contains("too many open files"), "{}", place.stderr());
    for mut one in crowd {
        one.kill().unwrap();
        one.wait().unwrap();
    }
}

#[test]
fn user_commands_whose_clients_died_with_a_manager_keep_no_place() {
    let mut place = Place::new(Who::User);
    place.unit("web", SLEEP);
    // So few descriptors that there are eight places for commands.
    place.run_below(&["prlimit", "--nofile=256:256"]);
    place.reaches("web", "running");
    let mut clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = place.command(&place.binary());
            client.arg("--runtime-dir").arg(place.path("run"));
            client.args(["exec", "web", "--", "sh", "-c", "echo runs; exec sleep 1000"]);
            let mut client = client.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            std::io::Read::read_exact(client.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
            client
        })
        .collect();
    let said = place.ask(&["exec", "web", "--", "true"]);
    assert!(said.err.contains("too many commands run already"), "{said:?}");
    // None of them comes back.
    clients.iter().for_each(|client| processes::signal(client.id(), libc::SIGSTOP));
    place.kill(super::supervisor::Role::Manager);
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    wait::until(wait::LONG, "a place", || {
        (place.ask(&["exec", "web", "--", "true"]).code == Some(0)).then_some(())
    });
}
