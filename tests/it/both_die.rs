//! All processes of supervise can be killed at the same moment: what it runs goes on, and the next `run` takes it back.
//! Nothing is started twice, no client is refused, and a number in a file alone is believed by nobody.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use supervise::sys::process;
use supervise::wire::mirror::{self, Head};
use supervise::wire::state::{Kind, Record};

use super::load::{Load, Target, get};
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{cri, gunicorn, processes, wait};

/// Requests in a second, over both sockets.
const RATE: u32 = 100;

/// Kills all four at one moment: none of them runs any more when the first is killed.
#[track_caller]
fn kill_all_at_once(place: &mut Place) {
    let all = [Role::Keeper, Role::Manager, Role::Zygote, Role::Logger].map(|role| place.role(role));
    let held = all.map(|pid| (pid, process::open(pid).unwrap()));
    for signal in [libc::SIGSTOP, libc::SIGKILL] {
        for (_, pidfd) in &held {
            process::signal(pidfd.as_fd(), signal).unwrap();
        }
    }
    for pid in all {
        place.reap(pid);
    }
}

fn mirror(place: &Place) -> PathBuf {
    place.path("run/mirror")
}

/// A gunicorn behind two sockets, which answers.
fn web(who: Who) -> (Place, Vec<Target>) {
    let mut place = Place::with_gunicorn(who);
    let (address, path) = (place.address(), place.path("sock/web.sock"));
    let sockets =
        format!("[socket.http]\nlisten = \"{address}\"\n[socket.local]\nlisten = \"{}\"\n", path.display());
    place.web("web", &sockets);
    place.run();
    let targets = vec![Target::Tcp(address), Target::Unix(path)];
    targets.iter().for_each(|target| drop(get(target).unwrap()));
    place.reaches("web", "running");
    (place, targets)
}

/// A process of ours that has nothing to do with a place.
struct Stranger(Child);

impl Stranger {
    /// Who is of the services' user; with a session of its own, as every service has one, or in ours.
    fn start(place: &Place, leads: bool) -> Self {
        let program = std::path::Path::new(if leads { "setsid" } else { "env" });
        let mut command = match place.who {
            Who::Root => place.command_as(place.account.uid, place.account.gid, &[], program),
            Who::User => place.command(program),
        };
        Self(command.args(["sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap())
    }

    /// What is known of it when it sleeps.
    #[track_caller]
    fn stat(&self, leads: bool) -> processes::Stat {
        wait::until(wait::LONG, "the stranger", || {
            let sleeps = processes::arguments(self.pid()).first().is_some_and(|name| name == "sleep");
            processes::stat(self.pid()).filter(|stat| sleeps && (stat.session == stat.pid) == leads)
        })
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn adopted_under_load(who: Who) {
    let (mut place, targets) = web(who);
    let master = place.pid_of("web");
    let load = Load::start(targets.clone(), RATE);
    load.goes_on(RATE as usize / 4);
    kill_all_at_once(&mut place);
    // It is served while there is no supervisor at all, and when there is one again.
    load.goes_on(RATE as usize / 2);
    place.run();
    let service = place.reaches("web", "running");
    assert_eq!(service["pid"].as_u64(), Some(master.into()), "{service:#}");
    assert_eq!((&service["restarts"], &service["generation"]), (&0.into(), &1.into()), "{service:#}");
    assert_eq!(service["problems"], serde_json::json!([]), "{service:#}");
    load.goes_on(RATE as usize / 4);
    // The sockets are ours again: a restart takes them over beside the old one.
    place.order(&["restart", "web"]);
    let next = place.pid_of("web");
    assert_ne!(next, master);
    load.goes_on(RATE as usize / 4);
    load.end().assert_none_failed();
    wait::until(wait::LONG, "the old one to end", || (!processes::lives(master)).then_some(()));
    // And so a second time, with what was started by the second supervisor.
    kill_all_at_once(&mut place);
    place.run();
    assert_eq!(place.reaches("web", "running")["pid"].as_u64(), Some(next.into()));
    assert_eq!(place.service("web")["generation"], 2);
    // The end of one that is nobody's child is seen, and its sockets wait for the next.
    processes::signal(next, libc::SIGKILL);
    let after = wait::until(wait::LONG, "another master", || {
        let service = place.service("web");
        let pid = service["pid"].as_u64().filter(|pid| *pid != u64::from(next))?;
        (service["state"] == "running").then_some(pid)
    });
    for target in &targets {
        assert!(get(target).unwrap().starts_with(&format!("{after} ")), "{target:?}");
    }
    assert_eq!(place.service("web")["restarts"], 1);
}

#[test]
fn root_what_runs_is_taken_back_under_load() {
    adopted_under_load(Who::Root);
}

#[test]
fn user_what_runs_is_taken_back_under_load() {
    adopted_under_load(Who::User);
}

const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n";

/// A service that sleeps, and its main process.
fn sleeper(who: Who) -> (Place, u32) {
    let mut place = Place::new(who);
    place.unit("one", SLEEP);
    place.run();
    place.reaches("one", "running");
    let pid = place.pid_of("one");
    (place, pid)
}

/// A manager that waited for another keeper has left its way in.
fn the_way_in_of_a_dead_manager(who: Who) {
    let (mut place, pid) = sleeper(who);
    kill_all_at_once(&mut place);
    let way = place.path("run/handover");
    let stranger = std::os::unix::net::UnixListener::bind(&way).unwrap();
    stranger.set_nonblocking(true).unwrap();
    place.run();
    place.reaches("one", "running");
    assert_eq!(place.pid_of("one"), pid);
    assert!(!way.exists(), "it is left");
    assert_eq!(stranger.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody came");
}

#[test]
fn root_the_way_in_of_a_dead_manager_is_closed() {
    the_way_in_of_a_dead_manager(Who::Root);
}

#[test]
fn user_the_way_in_of_a_dead_manager_is_closed() {
    the_way_in_of_a_dead_manager(Who::User);
}

/// Waits until a service runs as another process than before.
#[track_caller]
fn runs_anew(place: &Place, name: &str, before: u32) -> u32 {
    wait::until(wait::LONG, "another main process", || {
        let service = place.service(name);
        let pid = service["pid"].as_u64()? as u32;
        (service["state"] == "running" && pid != before).then_some(pid)
    })
}

/// Where the mirrors of this test are from.
fn here() -> Head {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    Head { boot, namespace: fs::metadata("/proc/self/ns/pid").unwrap().ino() }
}

/// Puts another mirror in the place of the one that is there, with records that `change` has seen.
fn rewrite(place: &Place, head: &Head, change: impl Fn(Kind, serde_json::Value) -> serde_json::Value) {
    let bytes = fs::read(mirror(place)).unwrap();
    let mut other = head.encode();
    for record in mirror::read(&bytes, &here()).unwrap() {
        let body = match serde_json::from_slice(record.body) {
            Ok(body) if record.kind != Kind::Words => serde_json::to_vec(&change(record.kind, body)).unwrap(),
            _ => record.body.to_vec(),
        };
        other.extend(Record { body: &body, ..record }.encode());
    }
    fs::write(mirror(place), other).unwrap();
}

/// What was not believed: the service begins anew, and what it was is ended where a cgroup proves that it was ours, and
/// left alone where nothing does.
#[track_caller]
fn begins_anew(place: &mut Place, old: u32) {
    let grouped = !place.cgroups().is_empty();
    place.run();
    runs_anew(place, "one", old);
    assert!(place.service("one")["adopted"].is_null());
    match grouped {
        true => wait::until(wait::LONG, "the old one to end", || (!processes::lives(old)).then_some(())),
        false => {
            assert!(processes::lives(old), "it was ended although nothing proves whose it was");
            processes::signal(old, libc::SIGKILL);
        }
    }
}

/// What is done to a mirror.
type Change<'a> = &'a dyn Fn(&Place);

fn not_believed(who: Who) {
    let damaged = |place: &Place| {
        let mut bytes = fs::read(mirror(place)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(mirror(place), bytes).unwrap();
    };
    let another_boot = |place: &Place| {
        let head = Head { boot: "00000000-0000-4000-8000-000000000000".to_owned(), ..here() };
        rewrite(place, &head, |_, body| body);
    };
    let readable = |place: &Place| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(mirror(place), mode).unwrap();
    };
    let changes: [(Change<'_>, &str); 3] = [
        (&damaged, "it is damaged"),
        (&another_boot, "it is from before the machine was started"),
        (&readable, "others could have written or read it"),
    ];
    for (change, said) in changes {
        let (mut place, pid) = sleeper(who);
        kill_all_at_once(&mut place);
        change(&place);
        begins_anew(&mut place, pid);
        assert!(place.stderr().contains(said), "{said}: {}", place.stderr());
    }
}

#[test]
fn root_a_mirror_that_is_not_as_it_was_written_is_not_believed() {
    not_believed(Who::Root);
}

#[test]
fn user_a_mirror_that_is_not_as_it_was_written_is_not_believed() {
    not_believed(Who::User);
}

fn another_process(who: Who) {
    let (mut place, pid) = sleeper(who);
    let mut strangers = [true, false].map(|leads| Stranger::start(&place, leads));
    let [leader, other] = [(&strangers[0], true), (&strangers[1], false)].map(|(one, leads)| one.stat(leads));
    kill_all_at_once(&mut place);
    processes::signal(pid, libc::SIGKILL);
    wait::until(wait::LONG, "its end", || (!processes::lives(pid)).then_some(()));
    // The number of another alone; then with its start, where it leads no session as a service does, or is in no such
    // cgroup.
    for with_start in [false, true] {
        rewrite(&place, &here(), |kind, mut body| {
            if kind == Kind::Process {
                let stat = if with_start && body["cgroup"].is_null() { &other } else { &leader };
                body["pid"] = stat.pid.into();
                if with_start {
                    body["start_time"] = stat.started.into();
                }
            }
            body
        });
        place.run();
        let now = runs_anew(&place, "one", 0);
        assert!(now != leader.pid && now != other.pid, "a stranger was adopted");
        kill_all_at_once(&mut place);
        processes::signal(now, libc::SIGKILL);
        wait::until(wait::LONG, "its end", || (!processes::lives(now)).then_some(()));
    }
    place.run();
    runs_anew(&place, "one", 0);
    for stranger in &mut strangers {
        assert!(stranger.lives(), "a process of somebody else was ended");
    }
}

#[test]
fn root_a_number_that_is_anothers_by_now_is_not_believed() {
    another_process(Who::Root);
}

#[test]
fn user_a_number_that_is_anothers_by_now_is_not_believed() {
    another_process(Who::User);
}

fn torn(who: Who) {
    let (mut place, pid) = sleeper(who);
    kill_all_at_once(&mut place);
    let bytes = fs::read(mirror(&place)).unwrap();
    // The beginning of one more record, as a process leaves it that is killed while it writes.
    let half = Record { kind: Kind::Service, id: 1, body: b"{}" }.encode();
    fs::write(mirror(&place), [&bytes[..], &half[..13]].concat()).unwrap();
    place.run();
    let service = place.reaches("one", "running");
    assert_eq!(service["pid"].as_u64(), Some(pid.into()), "{}", place.stderr());
    assert!(service["adopted"].is_string(), "{service:#}");
    let said = place.order(&["status", "one"]);
    assert!(said.out.contains("after all of supervise had been killed"), "{said:?}");
    let mode = fs::metadata(mirror(&place)).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o600, "others can read what is secret of services");
}

#[test]
fn root_a_mirror_with_a_torn_end_says_what_it_said_before() {
    torn(Who::Root);
}

#[test]
fn user_a_mirror_with_a_torn_end_says_what_it_said_before() {
    torn(Who::User);
}

/// Writes a line for each signal, and has somebody say so.
const WRITER: &str = r#"
import os, signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
talk = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    talk.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
number = 0
say("READY=1")
while True:
    signal.sigwait({signal.SIGUSR1})
    number += 1
    os.write(number % 2 + 1, b"line %d\n" % number)
    open(SAID, "w").write(str(number))
    if number > 1:
        say("STATUS=said %d" % number)
"#;

fn output(who: Who) {
    let mut place = Place::new(who);
    let note = place.path("work").join("said");
    place.write("srv/writer.py", &WRITER.replace("SAID", &format!("{:?}", note.display().to_string())));
    let python = gunicorn::python();
    let unit =
        format!("command = [\"{python}\", \"-S\", \"writer.py\"]\nready = \"notify\"\nwatchdog = \"1h\"\n");
    place.unit("one", &unit);
    place.run();
    place.reaches("one", "running");
    let pid = place.pid_of("one");
    // The logger is kept from reading: what it had not read when it was killed is still in the pipe.
    let logger = place.role(Role::Logger);
    processes::signal(logger, libc::SIGSTOP);
    processes::signal(pid, libc::SIGUSR1);
    let said = |number: &str| fs::read_to_string(&note).is_ok_and(|text| text == number);
    wait::until(wait::LONG, "a line", || said("1").then_some(()));
    kill_all_at_once(&mut place);
    place.run();
    assert_eq!(place.pid_of("one"), pid, "{}", place.stderr());
    processes::signal(pid, libc::SIGUSR1);
    let lines = || cri::texts(&place.log(), "one");
    wait::until(wait::LONG, "both lines", || (lines().len() >= 2).then_some(()));
    let mut found = lines();
    found.sort();
    assert_eq!(found, ["line 1", "line 2"]);
    // What it says of itself is heard again, too.
    let hears = || place.service("one")["status_text"].as_str().is_some_and(|text| text == "said 2");
    wait::until(wait::LONG, "what it says of itself", || hears().then_some(()));
}

#[test]
fn root_what_it_writes_and_says_is_heard_again() {
    output(Who::Root);
}

#[test]
fn user_what_it_writes_and_says_is_heard_again() {
    output(Who::User);
}

#[test]
fn root_what_the_units_say_by_now_counts_for_what_does_not_run() {
    let mut place = Place::new(Who::Root);
    for name in ["changed", "gone", "stopped", "restless"] {
        place.unit(name, SLEEP);
    }
    let path = place.path("sock/held.sock");
    place.unit("held", &format!("{SLEEP}[socket.local]\nlisten = \"{}\"\n", path.display()));
    place.unit("bad", "command = []\n");
    place.run();
    for name in ["changed", "gone", "stopped", "restless", "held"] {
        place.reaches(name, "running");
    }
    place.order(&["stop", "stopped"]);
    place.order(&["stop", "--hold", "held"]);
    let (changed, gone) = (place.pid_of("changed"), place.pid_of("gone"));
    let restless = place.pid_of("restless");
    kill_all_at_once(&mut place);
    processes::signal(restless, libc::SIGKILL);
    wait::until(wait::LONG, "its end", || (!processes::lives(restless)).then_some(()));
    fs::remove_file(place.path("units/gone.toml")).unwrap();
    place.unit("changed", &format!("{SLEEP}stop-timeout = \"7s\"\n"));
    place.unit("bad", SLEEP);
    place.unit("fresh", SLEEP);
    place.run();
    let service = place.reaches("changed", "running");
    assert_eq!(service["pid"].as_u64(), Some(changed.into()), "{service:#}");
    assert_eq!(service["changed"].as_array().map(Vec::len), Some(1), "{service:#}");
    place.reaches("gone", "stopped");
    assert!(!processes::lives(gone));
    place.reaches("stopped", "stopped");
    place.reaches("held", "listening");
    assert!(UnixStream::connect(&path).is_ok(), "what was held listens no more");
    place.reaches("bad", "running");
    place.reaches("fresh", "running");
    runs_anew(&place, "restless", restless);
    // Before that it may have been seen to wait for its start.
    let service = place.reaches("restless", "running");
    assert_eq!(service["restarts"], 1, "{service:#}");
    let said = place.stderr();
    for line in ["service=changed its unit has changed", "service=gone its unit is gone: it is stopped"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn root_where_nothing_runs_any_more_all_begins_anew() {
    let (mut place, pid) = sleeper(Who::Root);
    place.order(&["stop", "one"]);
    assert!(!processes::lives(pid));
    kill_all_at_once(&mut place);
    place.run();
    let service = place.reaches("one", "running");
    assert_eq!((&service["restarts"], &service["adopted"]), (&0.into(), &serde_json::Value::Null));
    place.order(&["stop", "one"]);
}

fn in_the_middle_of_a_roll(who: Who) {
    let mut place = Place::new(who);
    let path = place.path("sock/web.sock");
    // It is ready when there is a file.
    let script = format!(
        "while ! test -e {}; do sleep 0.02; done; echo ready >&4; exec sleep 1000",
        place.path("srv/go").display()
    );
    let unit = "ready = { fd = 4 }\nsettle = \"10ms\"\nstart-timeout = \"5min\"\n";
    place.unit(
        "web",
        &format!(
            "command = [\"/bin/sh\", \"-c\", \"{script}\"]\n{unit}[socket.local]\nlisten = \"{}\"\n",
            path.display()
        ),
    );
    place.write("srv/go", "");
    place.run();
    place.reaches("web", "running");
    let old = place.pid_of("web");
    fs::remove_file(place.path("srv/go")).unwrap();
    place.order(&["restart", "--no-wait", "web"]);
    let next = || {
        let service = place.service("web");
        let all = service["instances"].as_array().unwrap().iter();
        all.filter(|one| one["role"] == "next").find_map(|one| one["pid"].as_u64()).map(|pid| pid as u32)
    };
    let coming = wait::until(wait::LONG, "the next one", next);
    kill_all_at_once(&mut place);
    place.run();
    assert!(processes::lives(old) && processes::lives(coming), "{}", place.stderr());
    assert_eq!(place.pid_of("web"), old);
    place.write("srv/go", "");
    wait::until(wait::LONG, "one to be left", || {
        let service = place.service("web");
        let one = service["instances"].as_array().unwrap().len() == 1 && service["state"] == "running";
        (one && service["generation"] == 2).then_some(())
    });
    assert_eq!(place.pid_of("web"), coming, "{}", place.stderr());
    assert!(!processes::lives(old));
    assert!(UnixStream::connect(&path).is_ok());
}

#[test]
fn root_a_roll_goes_on_where_it_was() {
    in_the_middle_of_a_roll(Who::Root);
}

#[test]
fn user_a_roll_goes_on_where_it_was() {
    in_the_middle_of_a_roll(Who::User);
}

/// A container withholds the right to look into processes of others: what runs is adopted, and serves on, but its socket
/// is its own, until it has ended.
#[test]
fn root_without_the_right_to_trace_what_runs_goes_on_with_its_own_socket() {
    let (mut place, targets) = web(Who::Root);
    let master = place.pid_of("web");
    let load = Load::start(targets.clone(), RATE);
    load.goes_on(RATE as usize / 4);
    kill_all_at_once(&mut place);
    place.run_below(&["setpriv", "--inh-caps=-sys_ptrace", "--bounding-set=-sys_ptrace", "--"]);
    assert_eq!(place.reaches("web", "running")["pid"].as_u64(), Some(master.into()));
    load.goes_on(RATE as usize / 4);
    let said = place.ask(&["restart", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("restart --stop-first web"), "{said:?}");
    assert_eq!(place.pid_of("web"), master, "one that cannot be replaced was ended");
    load.goes_on(RATE as usize / 4);
    load.end().assert_none_failed();
    place.order(&["restart", "--stop-first", "web"]);
    assert_ne!(place.pid_of("web"), master);
    targets.iter().for_each(|target| drop(get(target).unwrap()));
    let said = place.stderr();
    for line in ["its socket is not taken back", "what it writes is not read any more"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

/// Takes the file system away again, also where the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn root_a_mirror_without_room_is_none_until_there_is_some() {
    let mut place = Place::new(Who::Root);
    let run = place.path("run");
    fs::create_dir(&run).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=1m,mode=755", "none"];
    assert!(Command::new("mount").args(mount).arg(&run).status().unwrap().success());
    let _mounted = Mounted(run.clone());
    place.unit("one", SLEEP);
    place.run();
    place.reaches("one", "running");
    assert!(mirror(&place).exists());
    let filler = run.join("filler");
    assert!(fs::write(&filler, vec![0; 2 << 20]).is_err(), "it is not full");
    // Supervision goes on, and a mirror that would be out of date is none.
    wait::until(wait::LONG, "the mirror to go", || {
        place.order(&["restart", "one"]);
        (!mirror(&place).exists()).then_some(())
    });
    assert!(place.stderr().contains("writing the mirror of the state"), "{}", place.stderr());
    fs::remove_file(&filler).unwrap();
    wait::until(wait::LONG, "the mirror to be there again", || {
        place.order(&["restart", "one"]);
        mirror(&place).exists().then_some(())
    });
    let pid = place.pid_of("one");
    kill_all_at_once(&mut place);
    place.run();
    assert_eq!(place.reaches("one", "running")["pid"].as_u64(), Some(pid.into()));
}

/// An init starts the next one as soon as the keeper is dead, and the others may take a moment more.
#[test]
fn root_the_next_one_waits_for_the_last_process_of_the_one_before() {
    let (mut place, pid) = sleeper(Who::Root);
    let [keeper, manager] = [Role::Keeper, Role::Manager].map(|role| place.role(role));
    processes::signal(manager, libc::SIGSTOP);
    place.kill_at_once(keeper);
    let mut next = place.spawn();
    // It has found the lock held, and waits (poll or ppoll) to look again.
    wait::until(wait::LONG, "the next one to wait", || {
        let call = fs::read_to_string(format!("/proc/{}/syscall", next.pid)).unwrap_or_default();
        ["7 ", "271 ", "73 "].iter().any(|number| call.starts_with(number)).then_some(())
    });
    assert!(next.is_running());
    processes::signal(manager, libc::SIGKILL);
    place.keeper = Some(next);
    wait::until(wait::LONG, "the supervisor to answer", || place.try_status());
    assert_eq!(place.pid_of("one"), pid, "{}", place.stderr());
}
