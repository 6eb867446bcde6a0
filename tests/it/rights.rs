//! Each key of `[service]` and `[limits]` changes what it says of a running service, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::accounts::Account;
use super::identity::{Names, portrait};
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n";

/// Everything that a process may be, have and be told, one fact a line.
fn whole(pid: u32, names: &Names) -> Vec<String> {
    let mut lines: Vec<String> = portrait(pid, names).lines().map(str::to_owned).collect();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    lines.push(format!("nice: {}", fields[16]));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let processors = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    lines.push(processors.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.push(format!("command: {}", processes::arguments(pid).join(" ")));
    for pair in processes::environment(pid) {
        let (name, value) = pair.split_once('=').unwrap();
        if !matches!(name, "INVOCATION_ID" | "SUPERVISE_SERVICE" | "SERVER_STARTER_GENERATION") {
            lines.push(format!("{name}={}", names.of(value)));
        }
    }
    lines.sort();
    lines
}

/// What `other` has otherwise than `base`: its lines where the first word is in both, else with a sign.
fn differences(base: &[String], other: &[String]) -> String {
    let gone = base.iter().filter(|line| !other.contains(line)).map(|line| format!("- {line}\n"));
    let new = other.iter().filter(|line| !base.contains(line)).map(|line| format!("+ {line}\n"));
    gone.chain(new).collect()
}

/// A key's name, what is written, and what it changes.
type Case = (&'static str, String, String);

fn cases(other: &Account, place: &Place) -> Vec<Case> {
    let work = place.path("work").display().to_string();
    vec![
        (
            "group",
            format!("group = \"{}\"", other.name),
            "- Gid: GID GID GID GID\n- Groups: GID\n+ Gid: OTHER OTHER OTHER OTHER\n+ Groups: OTHER GID\n"
                .into(),
        ),
        ("groups", format!("groups = [\"{}\"]", other.name), "- Groups: GID\n+ Groups: OTHER GID\n".into()),
        ("groups-none", "groups = []".into(), String::new()),
        ("umask", "umask = \"0077\"".into(), "- Umask: 0027\n+ Umask: 0077\n".into()),
        (
            "directory",
            format!("directory = \"{work}\""),
            format!("- PWD=SRV\n- cwd: SRV\n+ PWD={work}\n+ cwd: {work}\n"),
        ),
        (
            "environment",
            "environment = { A = \"one two\", LANG = \"C\" }".into(),
            "- LANG=C.UTF-8\n+ A=one two\n+ LANG=C\n".into(),
        ),
        // The supervisor of these tests has USER=it.
        (
            "pass-environment",
            "pass-environment = [\"USER\", \"NOT_THERE\"]".into(),
            "- USER=NAME\n+ USER=it\n".into(),
        ),
        (
            "pass-under-environment",
            "pass-environment = [\"USER\"]\nenvironment = { USER = \"unit\" }".into(),
            "- USER=NAME\n+ USER=unit\n".into(),
        ),
        (
            "capabilities",
            "capabilities = [\"net-raw\", \"net-bind-service\"]".into(),
            ["Amb", "Bnd", "Eff", "Inh", "Prm"].map(|set| format!("- Cap{set}: 0000000000000000\n")).concat()
                + &["Amb", "Bnd", "Eff", "Inh", "Prm"]
                    .map(|set| format!("+ Cap{set}: 0000000000002400\n"))
                    .concat(),
        ),
        ("success-codes", "success-codes = [0, 3]".into(), String::new()),
        ("stop-signal", "stop-signal = \"INT\"\nstop-timeout = \"1s\"".into(), String::new()),
        ("nofile", "[limits]\nnofile = 64".into(), "+ limit: Max open files 64 64 files\n".into()),
        ("nproc", "[limits]\nnproc = 500".into(), "+ limit: Max processes 500 500 processes\n".into()),
        (
            "core",
            "[limits]\ncore = \"1M\"".into(),
            "- limit: Max core file size 0 0 bytes\n+ limit: Max core file size 1048576 1048576 bytes\n"
                .into(),
        ),
        ("nice", "[limits]\nnice = -3".into(), "- nice: 0\n+ nice: -3\n".into()),
        (
            "oom-score-adjust",
            "[limits]\noom-score-adjust = 300".into(),
            "- oom_score_adj: 0\n+ oom_score_adj: 300\n".into(),
        ),
        (
            "cpu-affinity",
            "[limits]\ncpu-affinity = [0]".into(),
            "- Cpus_allowed_list: 0-1\n+ Cpus_allowed_list: 0\n".into(),
        ),
    ]
}

#[test]
fn root_each_key_changes_what_it_says_and_nothing_else() {
    let mut place = Place::new(Who::Root);
    let other = Account::make();
    let cases = cases(&other, &place);
    place.unit("base", SLEEP);
    for (name, text, _) in &cases {
        place.unit(name, &format!("{SLEEP}{text}\n"));
    }
    place.run();
    let mut pids = BTreeMap::new();
    for name in cases.iter().map(|(name, ..)| *name).chain(["base"]) {
        place.reaches(name, "running");
        pids.insert(name, place.pid_of(name));
    }
    let shown = |name: &str| {
        let pid = pids[name];
        whole(pid, &names(&place, &other, pid))
    };
    let base = shown("base");
    let processors = base.iter().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().clone();
    for (name, _, expected) in &cases {
        // Whoever runs the tests may have made them nice.
        let own = base.iter().find(|line| line.starts_with("nice: ")).unwrap();
        let expected = expected.replace("- nice: 0\n", &format!("- {own}\n"));
        // The kernel lists groups by their numbers, and which of the two is lower is chance.
        let expected = match other.gid < place.account.gid {
            true => expected.clone(),
            false => expected.replace("OTHER GID", "GID OTHER"),
        };
        // How many processors there are is the machine's business.
        let expected = expected.replace("Cpus_allowed_list: 0-1", &processors);
        let expected =
            if expected == format!("- {processors}\n+ {processors}\n") { String::new() } else { expected };
        assert_eq!(differences(&base, &shown(name)), expected, "{name}");
    }
}

fn names(place: &Place, other: &Account, pid: u32) -> Names {
    let mut names = super::identity::names(place, pid);
    names.0.push((other.gid.to_string(), "OTHER"));
    names
}

/// A directory of each kind is made for the service, is told to it, and is the only thing of it that changes; what
/// belongs to another is refused with the command that mends it.
#[test]
fn root_directories_are_the_services_and_the_runtime_one_ends_with_it() {
    let mut place = Place::new(Who::Root);
    // Names that nobody else has; the two that stay are removed here.
    let name = format!("supervise-it-{}", place.account.name);
    let paths = [format!("/run/{name}"), format!("/var/lib/{name}"), format!("/var/cache/{name}")];
    let _gone = Gone(paths.to_vec());
    let keys = format!(
        "runtime-directory = \"{name}\"\nstate-directory = \"{name}\"\ncache-directory = \"{name}\"\n"
    );
    let command = "command = [\"/bin/sh\", \"-c\", \"mkdir $1/a && touch $1/a/f && ln -s /etc $1/e && sleep 1000\", \"x\", \"{runtime-directory}\"]\n";
    place.unit("web", &format!("{command}settle = \"10ms\"\n{keys}"));
    place.unit("base", SLEEP);
    place.unit(
        "foreign",
        &format!("{SLEEP}runtime-directory = \"{name}-foreign\"\n[restart]\npolicy = \"never\"\n"),
    );
    let foreign = format!("/run/{name}-foreign");
    let _foreign = Gone(vec![foreign.clone()]);
    fs::create_dir(&foreign).unwrap();
    place.run();
    place.reaches("web", "running");
    place.reaches("base", "running");
    wait::until(wait::LONG, "the service's link", || fs::symlink_metadata(format!("/run/{name}/e")).ok());
    for (path, mode) in paths.iter().zip([0o755, 0o750, 0o750]) {
        let data = fs::metadata(path).unwrap();
        assert_eq!(
            (data.uid(), data.gid(), data.mode() & 0o7777),
            (place.account.uid, place.account.gid, mode),
            "{path}"
        );
    }
    let pid = place.pid_of("web");
    let other = &place.account;
    let difference = differences(
        &whole(place.pid_of("base"), &names(&place, other, place.pid_of("base"))),
        &whole(pid, &names(&place, other, pid)),
    );
    let told: Vec<&str> = difference.lines().filter(|line| !line.contains("command: ")).collect();
    let expected = [
        format!("+ CACHE_DIRECTORY={}", paths[2]),
        format!("+ RUNTIME_DIRECTORY={}", paths[0]),
        format!("+ STATE_DIRECTORY={}", paths[1]),
    ];
    assert_eq!(told, expected);
    assert!(processes::arguments(pid).contains(&paths[0]));
    let problems = place.reaches("foreign", "failed")["problems"].to_string();
    let uid = place.account.uid;
    let expected = format!(
        "making its runtime directory {foreign}: it belongs to user 0, and the service runs as user {uid}\\nhint: if it is the service's, `chown -R {uid}:{} {foreign}`",
        place.account.gid
    );
    assert!(problems.contains(&expected), "{problems}");
    assert!(fs::metadata(&foreign).is_ok());
    place.order(&["stop", "web"]);
    assert!(fs::symlink_metadata(&paths[0]).is_err(), "the runtime directory is left");
    assert!(fs::metadata(&paths[1]).is_ok() && fs::metadata("/etc/passwd").is_ok());
    // A manager that has made nothing itself removes it all the same.
    place.order(&["start", "web"]);
    let manager = place.role(Role::Manager);
    place.kill(Role::Manager);
    wait::until(wait::LONG, "another manager", || {
        (place.try_status()?["supervisor"]["pid"].as_u64()? != u64::from(manager)).then_some(())
    });
    place.order(&["stop", "web"]);
    assert!(fs::symlink_metadata(&paths[0]).is_err(), "the runtime directory is left");
}

/// Directories that a test has made outside of its place, removed when it ends.
struct Gone(Vec<String>);

impl Drop for Gone {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_dir_all(path);
        }
    }
}

#[test]
fn user_a_score_that_may_not_be_had_is_a_problem_with_a_remedy() {
    let mut place = Place::new(Who::User);
    place.unit("dear", &format!("{SLEEP}[limits]\noom-score-adjust = -500\n"));
    place.run();
    let service = place.reaches("dear", "running");
    let expected = "`oom-score-adjust` does not hold: setting the out-of-memory score: -500: permission denied\n\
                    hint: lowering it needs CAP_SYS_RESOURCE, which supervise does not have here: leave it out, or run \
                    supervise as root";
    assert_eq!(service["problems"], serde_json::json!([expected]));
    assert!(place.stderr().contains(&format!("service=dear {}", expected.lines().next().unwrap())));
}

/// Where the kernel gives no controllers, limits that somebody asked for are a problem that is told, and the service
/// runs; where it does, they hold.
#[test]
fn root_limits_of_an_instance_hold_or_are_told() {
    let mut place = Place::new(Who::Root);
    place.unit("plain", SLEEP);
    place.unit("limited", &format!("{SLEEP}[limits]\nmemory-max = \"64M\"\npids-max = 10\n"));
    place.run();
    place.reaches("limited", "running");
    place.reaches("plain", "running");
    let problems = place.service("limited")["problems"].to_string();
    let group = fs::read_to_string(format!("/proc/{}/cgroup", place.pid_of("limited"))).unwrap();
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned();
    for (key, file, value) in [("memory-max", "memory.max", "67108864"), ("pids-max", "pids.max", "10")] {
        let bases = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let held = bases.iter().find_map(|base| fs::read_to_string(format!("{base}{group}/{file}")).ok());
        match held {
            Some(held) => assert_eq!(held.trim(), value, "{key}"),
            None => {
                assert!(problems.contains(&format!("`{key}` does not hold: ")), "{problems}");
                assert!(place.stderr().contains(&format!("service=limited `{key}` does not hold: ")));
            }
        }
    }
    let plain = place.service("plain")["problems"].to_string();
    assert_eq!(plain, "[]", "a default that cannot be had is no news");
    let said = || place.stderr().matches("`pids-max` does not hold").count();
    let before = said();
    processes::signal(place.pid_of("limited"), 9);
    wait::until(wait::LONG, "the next one", || (place.service("limited")["restarts"] == 1).then_some(()));
    place.reaches("limited", "running");
    assert_eq!(said(), before, "told again at each start");
}

/// An ordinary user's services are the user's, and a unit that asks for more does not run.
#[test]
fn user_what_others_alone_could_give_is_refused() {
    let mut place = Place::new(Who::User);
    let stranger = 4_294_967_000_u32;
    place.unit("plain", SLEEP);
    for (name, text) in [
        ("user", "user = \"root\"\n".to_owned()),
        ("group", format!("group = {stranger}\n")),
        ("groups", format!("groups = [{stranger}]\n")),
        ("capabilities", "capabilities = [\"net-raw\"]\n".to_owned()),
    ] {
        place.unit(name, &format!("{SLEEP}{text}"));
    }
    place.run();
    place.reaches("plain", "running");
    let name = &place.account.name;
    // What the unit says is final; who is in which group may be another matter tomorrow.
    for (unit, state, expected) in [
        ("user", "failed", format!("`{name}` cannot run a service as `root`")),
        ("group", "backing-off", format!("`{name}` cannot run a service in the group `{stranger}`")),
        ("groups", "backing-off", format!("`{name}` is not in the group `{stranger}`")),
        ("capabilities", "failed", format!("`{name}` has no capabilities to grant")),
    ] {
        let service = place.reaches(unit, state);
        assert!(service["problems"].to_string().contains(&expected), "{service}");
    }
}
