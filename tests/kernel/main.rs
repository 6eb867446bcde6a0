//! The limits of control groups, with the kernel's own controllers. tests/kernel/run boots a kernel that has them and runs
//! this there, as root, so `cargo test` alone does not: where there are no controllers every test here fails.
// All of it is test code; clippy knows that of functions marked as tests alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The harness is that of tests/it, which uses more of it.
#![allow(dead_code)]

#[path = "../it/accounts.rs"]
mod accounts;
#[path = "../it/gunicorn.rs"]
mod gunicorn;
#[path = "../it/place.rs"]
mod place;
#[path = "../it/processes.rs"]
mod processes;
#[path = "../it/pypi.rs"]
mod pypi;
#[path = "../it/supervisor.rs"]
mod supervisor;
#[path = "../it/wait.rs"]
mod wait;

mod group;

use std::fs;
use std::process::Stdio;

use group::Group;
use place::{Place, Who};
use supervisor::Role;

/// A command of Python's in a unit; each line is one of the program.
fn python(lines: &[&str]) -> String {
    let program = lines.join("\\n").replace('"', "'");
    format!("command = [\"/usr/bin/python3\", \"-c\", \"{program}\"]\n")
}

/// The first problem of a service in which these words are.
fn problem(place: &Place, service: &str, words: &str) -> String {
    wait::until(wait::LONG, words, || {
        let problems = place.service(service)["problems"].clone();
        let problems = problems.as_array().unwrap().iter().filter_map(|one| one.as_str().map(str::to_owned));
        problems.into_iter().find(|one| one.contains(words))
    })
}

/// What takes more memory than there is, and needs next to none besides: the kernel has nothing else to take away first.
const EATS: &str = "[\"/bin/dd\", \"if=/dev/zero\", \"of=/dev/null\", \"bs=90M\", \"count=1\"]";
const SLEEP: &str = "command = [\"/bin/sleep\", \"100000\"]\n";

#[test]
fn root_every_limit_is_the_kernels() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    let limits =
        "memory-max = \"64M\"\nmemory-high = \"48M\"\ncpu-max = \"250%\"\ncpu-weight = 50\nio-weight = 200\n";
    place.unit("all", &format!("{SLEEP}[limits]\n{limits}"));
    place.unit("none", SLEEP);
    group.run(&mut place);
    place.reaches("all", "running");
    let all = [
        ("memory.max", "67108864"),
        ("memory.high", "50331648"),
        ("cpu.max", "250000 100000"),
        ("cpu.weight", "50"),
        ("pids.max", "4096"),
    ];
    for (file, value) in all {
        assert_eq!(group.of("all").read(file), value, "{file}");
    }
    for (file, value) in
        [("memory.max", "max"), ("memory.high", "max"), ("cpu.max", "max 100000"), ("pids.max", "4096")]
    {
        assert_eq!(group.of("none").read(file), value, "{file}");
    }
    // Whether a disk has weights is the kernel's matter, and where it has none that is told.
    match fs::read_to_string(group.of("all").path.join("io.weight")) {
        Ok(text) => assert!(text.contains("200"), "{text}"),
        Err(_) => assert_eq!(
            problem(&place, "all", "io-weight"),
            "`io-weight` does not hold: the controller `io` of this kernel has no `io.weight`\nhint: weights of disks need a \
             kernel with CONFIG_BLK_CGROUP_IOCOST, or a disk whose scheduler is bfq"
        ),
    }
    assert_eq!(place.service("none")["problems"], serde_json::json!([]));
}

#[test]
fn root_an_end_for_want_of_memory_is_told_with_limit_and_peak() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    place.unit(
        "eat",
        &format!("command = {EATS}\n[restart]\ndelay = \"1h\"\n[limits]\nmemory-max = \"30M\"\n"),
    );
    group.run(&mut place);
    let service = place.reaches("eat", "backing-off");
    let meaning = service["exit"]["meaning"].as_str().unwrap();
    let said = meaning.strip_prefix("ended by SIGKILL: by the kernel, for want of memory: it had come to ");
    let peak = said.and_then(|said| said.strip_suffix("M, and `memory-max` is 30M"));
    let peak: f64 = peak.unwrap_or_else(|| panic!("{meaning}")).parse().unwrap();
    assert!((25.0..=30.0).contains(&peak), "{meaning}");
    let why = place.order(&["why", "eat"]).out;
    assert!(why.contains(meaning), "{why}");
    assert!(place.stderr().contains(" ended signal=KILL out_of_memory\n"), "{}", place.stderr());
    // A command of an operator has the same limit, and is told the same.
    let exec = place.ask(&["exec", "eat", "--", "/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=90M"]);
    assert_eq!(exec.code, Some(137), "{exec:?}");
    assert!(exec.err.contains("eat: the kernel ended the command for want of memory: "), "{exec:?}");
}

#[test]
fn root_a_worker_that_is_ended_for_want_of_memory_is_a_problem_of_the_service() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    let dd = "dd if=/dev/zero of=/dev/null bs=90M count=1";
    let workers = format!("command = [\"/bin/sh\", \"-c\", \"{dd}; {dd}; sleep 100000\"]\n");
    place.unit("master", &format!("{workers}[limits]\nmemory-max = \"40M\"\n"));
    group.run(&mut place);
    let told = problem(&place, "master", "has ended 2 processes of it for want of memory: it had come to ");
    assert!(
        told.ends_with("M, and `memory-max` is 40M\nhint: a higher `memory-max`, or fewer workers"),
        "{told}"
    );
    assert_eq!(place.service("master")["state"], "running");
}

#[test]
fn root_a_fork_bomb_ends_at_its_limit_and_others_go_on() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    let bomb = "command = [\"/bin/sh\", \"-c\", \"f() { f | f & }; f; sleep 100000\"]\n";
    place.unit("bomb", &format!("{bomb}[limits]\npids-max = 30\n"));
    place.unit("other", SLEEP);
    group.run(&mut place);
    let told = problem(&place, "bomb", "the kernel has refused it new processes or threads, ");
    assert!(told.contains(": `pids-max` is 30\nhint: "), "{told}");
    assert!(group.of("bomb").read("pids.peak").parse::<u32>().unwrap() <= 30);
    let before = place.pid_of("other");
    place.order(&["restart", "other"]);
    assert_ne!(place.pid_of("other"), before);
    place.order(&["stop", "bomb"]);
    wait::until(wait::LONG, "the end of its group", || group.all_of("bomb").is_empty().then_some(()));
}

#[test]
fn root_a_limit_of_all_is_told_from_that_of_a_service() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    let go = place.path("srv/go");
    let forks = python(&[
        "import os, time",
        &format!("while not os.path.exists('{}'): time.sleep(0.01)", go.display()),
        "try:",
        "    while os.fork(): pass",
        "except OSError: pass",
        "time.sleep(100000)",
    ]);
    place.unit("forks", &format!("{forks}[limits]\npids-max = 1000\n"));
    group.run(&mut place);
    place.reaches("forks", "running");
    let now: u32 = group.read("pids.current").parse().unwrap();
    group.write("pids.max", &(now + 5).to_string());
    fs::write(go, "").unwrap();
    let told = problem(&place, "forks", "the kernel has refused it new processes or threads, ");
    assert!(told.contains(": what supervise as a whole may have is used up (it had "), "{told}");
    group.write("pids.max", "max");
}

#[test]
fn root_processor_time_is_what_was_given() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    place.unit("burn", &format!("{}[limits]\ncpu-max = \"20%\"\n", python(&["while True: pass"])));
    group.run(&mut place);
    let number = |name: &str| -> u64 {
        let text = group.of("burn").read("cpu.stat");
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("{name} in {text}"))
    };
    // Measured by the kernel's own clock: how much was used in so many periods of a tenth of a second.
    place.reaches("burn", "running");
    let (used, periods) = (number("usage_usec "), number("nr_periods "));
    wait::until(wait::LONG, "thirty periods", || (number("nr_periods ") >= periods + 30).then_some(()));
    let (used, periods) = (number("usage_usec ") - used, number("nr_periods ") - periods);
    let share = used as f64 / (periods as f64 * 100_000.0);
    assert!((0.02..0.3).contains(&share), "{share} of a processor in {periods} periods");
    assert!(number("nr_throttled ") > 0);
}

#[test]
fn root_limits_hold_for_each_of_two_incarnations() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    let go = place.path("srv/go");
    let ready = python(&[
        "import os, socket, time",
        &format!("while not os.path.exists('{}'): time.sleep(0.01)", go.display()),
        "up = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "up.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])",
        "time.sleep(100000)",
    ]);
    let listen = place.path("sock/web.sock");
    let socket = format!("[socket.local]\nlisten = \"{}\"\n", listen.display());
    place.unit("web", &format!("{ready}ready = \"notify\"\n{socket}[limits]\nmemory-max = \"50M\"\n"));
    fs::write(&go, "").unwrap();
    group.run(&mut place);
    place.reaches("web", "running");
    fs::remove_file(&go).unwrap();
    let restart = place.begin(&["restart", "web"]);
    let both = wait::until(wait::LONG, "two incarnations", || {
        let all = group.all_of("web");
        (all.len() == 2).then_some(all)
    });
    assert!(both.iter().all(|one| one.read("memory.max") == "52428800"), "{both:?}");
    fs::write(&go, "").unwrap();
    let said = restart.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    wait::until(wait::LONG, "one incarnation", || (group.all_of("web").len() == 1).then_some(()));
}

#[test]
fn root_supervise_makes_room_and_leaves_the_group_as_it_was() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    place.unit("one", SLEEP);
    group.run(&mut place);
    place.reaches("one", "running");
    assert_eq!(group.read("cgroup.procs"), "");
    for controller in ["cpu", "io", "memory", "pids"] {
        assert!(group.read("cgroup.subtree_control").split(' ').any(|one| one == controller));
    }
    let manager = place.kill(Role::Manager);
    wait::until(wait::LONG, "another manager", || (place.role(Role::Manager) != manager).then_some(()));
    assert_eq!(group.read("cgroup.procs"), "");
    assert_eq!(supervisor::end(&mut place), None);
    assert_eq!((group.below(), group.read("cgroup.subtree_control").as_str()), (Vec::new(), ""));
    // So the next can be started in the same group.
    group.run(&mut place);
    place.reaches("one", "running");
}

#[test]
fn root_limits_hold_again_when_the_manager_has_become_the_keeper() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    place.unit("one", &format!("{SLEEP}[limits]\nmemory-max = \"50M\"\npids-max = 9\n"));
    group.run(&mut place);
    place.reaches("one", "running");
    let pid = place.pid_of("one");
    place.kill(Role::Keeper);
    // An init could put another into it.
    wait::until(wait::LONG, "room for a keeper", || {
        group.read("cgroup.subtree_control").is_empty().then_some(())
    });
    wait::until(wait::LONG, "limits", || {
        let one = group.of("one");
        let read = |file| fs::read_to_string(one.path.join(file)).unwrap_or_default();
        (read("memory.max") == "52428800\n" && read("pids.max") == "9\n").then_some(())
    });
    assert_eq!(place.pid_of("one"), pid);
}

#[test]
fn root_others_in_the_group_are_named() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    let mut other = std::process::Command::new("/bin/sleep").arg("100000").spawn().unwrap();
    group.write("cgroup.procs", &other.id().to_string());
    place.unit("one", &format!("{SLEEP}[limits]\nmemory-max = \"50M\"\n"));
    group.run(&mut place);
    place.reaches("one", "running");
    let told = problem(&place, "one", "memory-max");
    // Nothing is half on: what has limits or none has a group of its own to be followed by.
    assert_eq!(place.service("one")["tracking"], "cgroup");
    assert_eq!(group.read("cgroup.subtree_control"), "");
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(
        told,
        format!(
            "`memory-max` does not hold: processes that are not supervise's are in the same cgroup, {}: {} (`sleep`) is; the \
             kernel limits nothing below such a group\nhint: start supervise in a cgroup of its own, as systemd does, or as \
             PID 1 of a container",
            group.path.display(),
            other.id(),
        )
    );
}

#[test]
fn root_a_service_with_groups_of_its_own_is_seen_whole_and_leaves_none() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    let path = |name: &str| place.path(name).display().to_string();
    fs::create_dir(path("inner")).unwrap();
    place.write(
        "inner/in.toml",
        &format!("[service]\nuser = \"{}\"\n{SLEEP}[limits]\nmemory-max = \"20M\"\n", place.account.name),
    );
    let options = ["units", "runtime-dir", "log-dir", "state-dir"].map(|name| {
        let place = if name == "units" { path("inner") } else { path(&format!("in-{name}")) };
        format!("\"--{name}\", \"{place}\"")
    });
    let command = format!("command = [\"{}\", \"run\", {}]\n", place.binary().display(), options.join(", "));
    place.write("units/outer.toml", &format!("[service]\nuser = \"root\"\n{command}"));
    group.run(&mut place);
    let inner = wait::until(wait::LONG, "the inner service", || {
        let outer = group.all_of("outer").pop()?;
        outer.all_of("in").into_iter().find(|one| !one.read("cgroup.procs").is_empty())
    });
    assert_eq!(inner.read("memory.max"), "20971520");
    let sleep: u64 = inner.read("cgroup.procs").parse().unwrap();
    let pids = place.service("outer")["pids"].clone();
    assert!(pids.as_array().unwrap().contains(&sleep.into()), "{pids}");
    // Neither ends anything or removes anything behind itself.
    let outer = place.pid_of("outer");
    let role = |name| wait::until(wait::LONG, name, || processes::role_below(outer, name));
    let manager = role("manager");
    processes::signal(outer, 9);
    processes::signal(manager, 9);
    wait::until(wait::LONG, "the end of the inner service", || {
        (!processes::lives(sleep as u32)).then_some(())
    });
    place.order(&["stop", "outer"]);
    wait::until(wait::LONG, "the end of its groups", || group.all_of("outer").is_empty().then_some(()));
}

#[test]
fn root_a_group_that_cannot_be_written_is_told() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    place.unit("one", &format!("{SLEEP}[limits]\nmemory-max = \"50M\"\n"));
    // What an ordinary container has.
    let mount = "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && mount -o remount,bind,ro /sys/fs/cgroup && exec \"$@\"";
    let script = format!("exec unshare --cgroup --mount sh -c '{mount}' sh \"$@\"");
    group.run_by(&mut place, &script);
    let service = place.reaches("one", "running");
    assert_eq!(service["tracking"], "process-tree (weak)");
    let told = service["problems"][0].as_str().unwrap();
    let expected = "`memory-max` does not hold: there is no cgroup v2 that supervise may use: read-only file system\nhint: ";
    assert!(told.starts_with(expected), "{told}");
}

#[test]
fn root_limits_hold_in_a_container_of_which_supervise_is_pid_1() {
    let (group, mut place) = (Group::new(), Place::new(Who::Root));
    place.unit("one", &format!("{SLEEP}[limits]\nmemory-max = \"50M\"\n"));
    let inner = "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
    let script = format!(
        "exec unshare --pid --fork --kill-child --mount-proc sh -c 'echo 0 >{}/cgroup.procs; exec unshare --cgroup \
         sh -c \"$0\" sh \"$@\"' '{inner}' \"$@\"",
        group.path.display()
    );
    place.keeper = Some(place.spawn_by(&script, Stdio::null()));
    wait::until(wait::LONG, "the supervisor to answer", || place.try_status());
    assert_eq!(place.reaches("one", "running")["problems"], serde_json::json!([]));
    assert_eq!(place.status()["supervisor"]["keeper_pid"], 1);
    assert_eq!(group.of("one").read("memory.max"), "52428800");
}
