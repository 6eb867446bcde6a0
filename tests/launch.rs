//! From a plan to a running command: what it can do, and what happens where a step fails.
//!
//! Tests that change identity start with `root_` and fail for anybody else; the `user_` ones run for both,
//! and once more as an ordinary user inside `root_a_plain_account_can_do_the_same`.
#![allow(unsafe_code)]
// All of it is test code; clippy knows that of functions marked as tests alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "launch/host.rs"]
mod host;
#[path = "launch/stages.rs"]
mod stages;
#[path = "launch/zygotes.rs"]
mod zygotes;

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use host::{Host, need_root, plan, shell};
use supervise::launch::Stage;
use supervise::plan::{Identity, Limit, Passed, Resource, capability_number};
use supervise::sys::{clone, identity};

/// What a process can say of itself, one fact a line.
const PROBE: &str = r#"
p=/proc/$$
grep -E '^(Uid|Gid|Groups|NoNewPrivs|SigPnd|SigBlk|SigIgn|Cap...|Cpus_allowed_list):' $p/status | tr '\t' ' '
set -- $(cat $p/stat)
[ "$5 $6 $7" = "$$ $$ 0" ] && echo "session: its own, no terminal"
echo "nice: ${19}"
echo "umask: $(umask)"
echo "oom: $(cat $p/oom_score_adj)"
grep -E '^Max (core file size|open files)' $p/limits | tr -s ' '
echo "cwd: $(readlink $p/cwd)"
echo "fds:"
ls $p/fd
readlink $p/fd/0
tr '\0' '\n' < $p/environ | sed "s/^LISTEN_PID=$$\$/LISTEN_PID=its own/"
:
"#;

fn passed(names: &[&str]) -> Vec<Passed> {
    names.iter().map(|name| Passed { name: (*name).to_owned(), address: ":0".to_owned() }).collect()
}

/// A directory that only this user may enter.
fn private_directory(uid: u32, gid: u32) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
    chown(directory.path(), Some(uid), Some(gid)).unwrap();
    directory
}

#[test]
fn root_the_command_has_exactly_the_rights_of_the_plan() {
    need_root();
    let directory = private_directory(4242, 4243);
    let mut plan = shell(PROBE);
    plan.directory = directory.path().to_str().unwrap().to_owned();
    plan.identity = Some(Identity::new(4242, 4243, &[4244, 33, 4243]));
    plan.umask = 0o027;
    plan.limits = vec![
        Limit { resource: Resource::Nofile, soft: 70, hard: 100 },
        Limit { resource: Resource::Core, soft: 0, hard: 0 },
    ];
    (plan.nice, plan.oom_score_adj, plan.cpus) = (Some(3), Some(77), vec![0]);
    plan.env = vec!["PATH=/usr/bin:/bin".to_owned(), "GREETING=two words".to_owned()];
    plan.pid_variables = vec!["LISTEN_PID".to_owned()];
    plan.sockets = passed(&["one", "two"]);
    // A zygote that has much to give up.
    let net_raw = capability_number("net_raw").unwrap();
    let host = Host::start_after(|| {
        identity::set_groups(&[1, 2, 3]).unwrap();
        let sets = identity::capabilities().unwrap();
        identity::set_capabilities(identity::Sets { inheritable: sets.permitted, ..sets }).unwrap();
        identity::ambient_raise(net_raw).unwrap();
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    });
    let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let sockets = sockets.each_ref().map(|socket| socket.as_fd());
    let outcome = host.ask(&plan.encode().unwrap(), &sockets, None).go();
    let expected = format!(
        "\
Uid: 4242 4242 4242 4242
Gid: 4243 4243 4243 4243
Groups: 33 4243 4244{space}
SigPnd: 0000000000000000
SigBlk: 0000000000000000
SigIgn: 0000000000000000
CapInh: 0000000000000000
CapPrm: 0000000000000000
CapEff: 0000000000000000
CapBnd: 0000000000000000
CapAmb: 0000000000000000
NoNewPrivs: 1
Cpus_allowed_list: 0
session: its own, no terminal
nice: 3
umask: 0027
oom: 77
Max core file size 0 0 bytes{space}
Max open files 70 100 files{space}
cwd: {cwd}
fds:
0
1
2
3
4
/dev/null
PATH=/usr/bin:/bin
GREETING=two words
LISTEN_PID=its own
",
        space = " ",
        cwd = directory.path().display()
    );
    assert_eq!(outcome.output, expected, "{outcome:?}");
    assert_eq!((outcome.failure, outcome.warnings, outcome.end), (None, vec![], 0));
}

#[test]
fn user_without_an_identity_to_become_nothing_is_left_over() {
    let mut plan = shell(
        "grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs):' /proc/$$/status | tr '\\t' ' '; ls /proc/$$/fd; :",
    );
    plan.umask = 0o077;
    let outcome = Host::start().run(&plan);
    let expected = "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
                    CapAmb: 0000000000000000\nNoNewPrivs: 1\n0\n1\n2\n";
    assert_eq!((outcome.output.as_str(), outcome.end), (expected, 0), "{outcome:?}");
}

#[test]
fn root_granted_capabilities_and_no_others_survive() {
    need_root();
    let bind = capability_number("net_bind_service").unwrap();
    let mut plan = shell("grep ^Cap /proc/$$/status | tr '\\t' ' '");
    plan.identity = Some(Identity::new(4242, 4243, &[]).with_capabilities(1 << bind));
    let outcome = Host::start().run(&plan);
    let expected = "Inh Prm Eff Bnd Amb".split(' ').map(|set| format!("Cap{set}: 0000000000000400\n"));
    assert_eq!(outcome.output, expected.collect::<String>(), "{outcome:?}");
}

#[test]
fn root_written_out_root_keeps_its_capabilities() {
    need_root();
    let mut plan = shell("grep -E '^(Uid|CapPrm|CapAmb)' /proc/$$/status | tr '\\t' ' '");
    plan.identity = Some(Identity::new(0, 0, &[]));
    let all = identity::capabilities().unwrap().permitted;
    let expected = format!("Uid: 0 0 0 0\nCapPrm: {all:016x}\nCapAmb: 0000000000000000\n");
    let host = Host::start();
    assert_eq!(host.run(&plan).output, expected);
    plan.identity = Some(Identity::new(0, 0, &[]).with_capabilities(1 << 10));
    let expected = "Uid: 0 0 0 0\nCapPrm: 0000000000000400\nCapAmb: 0000000000000000\n";
    assert_eq!(host.run(&plan).output, expected);
}

#[test]
fn root_is_no_identity_by_accident() {
    need_root();
    let mut plan = shell("echo ran");
    plan.identity = None;
    let outcome = Host::start().run(&plan);
    let not_root = supervise::launch::Check::NotRoot as u32;
    assert_eq!((outcome.failure, outcome.output.as_str()), (Some((Stage::Verify, 0, not_root)), ""));
}

#[test]
fn root_the_directory_is_entered_as_the_user() {
    need_root();
    let directory = private_directory(0, 0);
    let mut plan = shell("echo ran");
    plan.directory = directory.path().to_str().unwrap().to_owned();
    let outcome = Host::start().run(&plan);
    assert_eq!((outcome.failure, outcome.output.as_str()), (Some((Stage::Directory, libc::EACCES, 0)), ""));
}

#[test]
fn user_sixty_four_sockets_keep_their_order() {
    let sockets: Vec<_> = (0..64).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let mut plan = shell("for n in $(seq 3 66); do readlink /proc/$$/fd/$n; done; ls /proc/$$/fd; :");
    plan.sockets = passed(&["s"; 64]);
    let outcome = Host::start().ask(&plan.encode().unwrap(), &fds, None).go();
    let link = |fd: &TcpListener| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
        format!("{}\n", fs::read_link(path).unwrap().display())
    };
    // As ls sorts them, which is not by number.
    let mut numbers: Vec<_> = (0..67).map(|number| format!("{number}\n")).collect();
    numbers.sort();
    let expected: String = sockets.iter().map(link).chain(numbers).collect();
    assert_eq!(outcome.output, expected, "{outcome:?}");
}

#[test]
fn user_a_lower_descriptor_limit_comes_after_the_sockets() {
    let sockets: Vec<_> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
    let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let mut plan = shell("ulimit -n");
    plan.sockets = passed(&["s"; 8]);
    plan.limits = vec![Limit { resource: Resource::Nofile, soft: 12, hard: 64 }];
    let outcome = Host::start().ask(&plan.encode().unwrap(), &fds, None).go();
    assert_eq!((outcome.output.as_str(), outcome.failure), ("12\n", None), "{outcome:?}");
}

fn file(directory: &Path, name: &str, content: &str, mode: u32) -> String {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn user_programs_are_tried_in_order_and_the_most_telling_failure_is_told() {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let at = |name, content, mode| file(directory.path(), name, content, mode);
    let closed = at("closed", "#!/bin/sh\n", 0o644);
    let headless = at("headless", "echo ran\n", 0o755);
    let orphan = at("orphan", "#!/no/such/interpreter\n", 0o755);
    let below = format!("{closed}/program");
    let missing = directory.path().join("missing").to_str().unwrap().to_owned();
    let sh = "/bin/sh".to_owned();
    let nowhere = supervise::launch::NOWHERE;
    let cases = [
        (vec![&missing, &below, &closed, &sh], None),
        (vec![&missing], Some((libc::ENOENT, nowhere))),
        (vec![&missing, &below], Some((libc::ENOENT, nowhere))),
        (vec![&missing, &closed, &missing], Some((libc::EACCES, 1))),
        (vec![&missing, &orphan, &missing], Some((libc::ENOENT, 1))),
        (vec![&orphan, &closed], Some((libc::EACCES, 1))),
        (vec![&missing, &headless, &sh], Some((libc::ENOEXEC, 1))),
    ];
    let host = Host::start();
    for (candidates, expected) in cases {
        let mut plan = shell("echo ran");
        plan.candidates = candidates.into_iter().cloned().collect();
        let outcome = host.run(&plan);
        let expected = expected.map(|(errno, detail)| (Stage::Exec, errno, detail));
        assert_eq!(outcome.failure, expected, "{:?}", plan.candidates);
        assert_eq!(outcome.output, if expected.is_none() { "ran\n" } else { "" });
    }
}

#[test]
fn user_a_relative_program_is_below_the_directory() {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    fs::create_dir(directory.path().join("bin")).unwrap();
    file(directory.path(), "bin/tool", "#!/bin/sh\necho \"$0 in $(pwd)\"\n", 0o755);
    let mut plan = plan(&["bin/tool"]);
    plan.directory = directory.path().to_str().unwrap().to_owned();
    let outcome = Host::start().run(&plan);
    assert_eq!(outcome.output, format!("bin/tool in {}\n", plan.directory), "{outcome:?}");
}

#[test]
fn user_a_program_that_is_being_written_is_tried_again_and_then_given_up() {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let path = directory.path().join("busy");
    fs::copy("/bin/true", &path).unwrap();
    let writer = File::options().append(true).open(&path).unwrap();
    let host = Host::start();
    let started = std::time::Instant::now();
    let outcome = host.run(&plan(&[path.to_str().unwrap()]));
    assert_eq!(outcome.failure, Some((Stage::Exec, libc::ETXTBSY, 0)));
    assert!(started.elapsed().as_millis() >= 100, "it was not tried again");
    drop(writer);
    assert_eq!(host.run(&plan(&[path.to_str().unwrap()])).failure, None);
}

/// Goes with the test, however that ends.
struct Cgroup(std::path::PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn root_a_version_2_cgroup_is_entered_by_the_clone() {
    need_root();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("no cgroup2 mount");
    let name = format!("supervise-test-{}", std::process::id());
    let path = Path::new(mount.split(' ').nth(4).unwrap()).join(&name);
    fs::create_dir(&path).unwrap();
    let _cgroup = Cgroup(path.clone());
    let directory = File::open(&path).unwrap();
    let host = Host::start();
    let image = shell("grep ^0:: /proc/$$/cgroup").encode().unwrap();
    let started = host.ask(&image, &[], Some(directory.as_fd()));
    let pid = started.pid().to_string();
    let members = fs::read_to_string(path.join("cgroup.procs")).unwrap();
    let reply = started.reply;
    let outcome = started.go();
    fs::remove_dir(&path).unwrap();
    assert_eq!(members.trim(), pid, "not in the cgroup while it waits at its gate");
    assert!(outcome.output.ends_with(&format!("/{name}\n")), "{outcome:?}");
    let spawned = |cgroup_errno| supervise::wire::zygote::Reply::Spawned {
        request: 42,
        pid: pid.parse().unwrap(),
        cgroup_errno,
        old_clone: false,
    };
    assert_eq!(reply, spawned(0));
    // The same directory, now removed: the child starts without, and the reply says why.
    let started = host.ask(&image, &[], Some(directory.as_fd()));
    let supervise::wire::zygote::Reply::Spawned { cgroup_errno, .. } = started.reply else {
        panic!("refused")
    };
    assert_eq!(i32::from(cgroup_errno), libc::ENOENT);
    assert!(!started.go().output.contains(&name));
}

#[test]
fn user_the_heap_guard_bites() {
    let (keep, _other) = supervise::sys::fds::pipe(0).unwrap();
    let pid = host::forked(keep, |_| {
        clone::IN_CHILD.store(true, std::sync::atomic::Ordering::Relaxed);
        std::hint::black_box(Vec::<u8>::with_capacity(std::hint::black_box(64)));
        0
    });
    assert_eq!(host::wait(pid), -libc::SIGABRT);
}

#[test]
fn root_a_plain_account_can_do_the_same() {
    need_root();
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let copy = directory.path().join("tests");
    fs::copy("/proc/self/exe", &copy).unwrap();
    let plan = plan(&[copy.to_str().unwrap(), "user_", "--test-threads=2"]);
    let outcome = Host::start().run(&plan);
    assert_eq!(outcome.end, 0, "{}", outcome.output);
    let passed = outcome.output.matches(" ... ok\n").count();
    assert!(passed >= 15, "only {passed} tests ran:\n{}", outcome.output);
}
