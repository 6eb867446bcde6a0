//! `supervise run` below the inits that there are, each of them started for real with the file that `contrib` has
//! for it, and as PID 1 itself. In namespaces of their own, so that nothing of it is left.
//!
//! All of it needs root, Linux and the Debian packages of `tests/needs`; what is missing fails by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_supervise");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A directory with units, and files of `contrib` that start the program that was built.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "needs root: it makes namespaces");
        let place = Self(tempfile::tempdir_in("/var/tmp").unwrap());
        std::fs::set_permissions(place.0.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(place.path("units")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A unit that holds a socket, and one that does not.
    fn units(&self) {
        let socket = self.path("socket");
        self.write(
            "units/web.toml",
            &format!(
                "[service]\ncommand = [\"sleep\", \"1000\"]\nuser = \"nobody\"\nsettle = \"0s\"\n[socket.local]\nlisten = \"{}\"\n",
                socket.display()
            ),
        );
        self.write(
            "units/worker.toml",
            "[service]\ncommand = [\"sleep\", \"1001\"]\nuser = \"nobody\"\nsettle = \"0s\"\n",
        );
    }

    /// Copies a file or a directory of `contrib`, to start our program.
    fn contrib(&self, name: &str, to: &str) -> PathBuf {
        let (from, to) = (Path::new(ROOT).join("contrib").join(name), self.path(to));
        if from.is_dir() {
            std::fs::create_dir(&to).unwrap();
            for entry in std::fs::read_dir(&from).unwrap() {
                copy(&entry.unwrap().path(), &to);
            }
        } else {
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            copy(&from, to.parent().unwrap());
        }
        to
    }

    /// Runs a script of `tests/inits` with pid and mount namespaces of its own; what it says.
    fn run(&self, script: &str) -> (Option<i32>, String) {
        let script = Path::new(ROOT).join("tests/inits").join(script);
        let mut command = Command::new("unshare");
        command.args(["--fork", "--pid", "--mount", "--mount-proc", "--kill-child"]);
        // PID 1 there has to reap, or OpenRC waits for a daemon that has ended.
        command.args([BINARY, "init", "--", "timeout", "60", "bash"]);
        command.arg(script).arg(BINARY).arg(self.0.path()).stdin(Stdio::null());
        command.env("SUPERVISE_UNITS", self.path("units")).env("SUPERVISE_RUNTIME_DIR", self.path("run"));
        command.env("SUPERVISE_LOG_DIR", self.path("log")).env("SUPERVISE_STATE_DIR", self.path("state"));
        let output = command.stderr(Stdio::inherit()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

fn copy(from: &Path, directory: &Path) {
    let text = std::fs::read_to_string(from).unwrap().replace("/usr/bin/supervise", BINARY);
    let to = directory.join(from.file_name().unwrap());
    std::fs::write(&to, text).unwrap();
    std::fs::set_permissions(&to, std::fs::metadata(from).unwrap().permissions()).unwrap();
}

#[track_caller]
fn needs(programs: &[&str], package: &str) {
    for program in programs {
        let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
            .iter()
            .any(|dir| Path::new(dir).join(program).exists());
        assert!(found, "there is no `{program}`: `apt-get install {package}`");
    }
}

#[test]
fn root_below_systemd_it_is_ready_when_it_says_so_and_a_killed_keeper_costs_nothing() {
    needs(&["systemctl", "systemd-analyze"], "systemd");
    needs(&["python3"], "python3");
    let place = Place::new();
    place.units();
    let unit = std::fs::read_to_string(place.path("units/web.toml")).unwrap();
    place.write("units/web.toml", &format!("{unit}[socket.http]\nlisten = \"127.77.3.1:7077\"\n"));
    place.contrib("systemd/user/supervise.service", "config/systemd/user/supervise.service");
    let (status, said) = place.run("systemd");
    assert_eq!(
        (status, said.as_str()),
        (
            Some(0),
            "active 2 running\nkilled: active, the same services\nrestarted: nobody was refused\ninactive\n"
        )
    );
}

#[test]
fn root_the_units_of_systemd_are_what_systemd_takes() {
    needs(&["systemd-analyze"], "systemd");
    let place = Place::new();
    for (name, more) in
        [("systemd/supervise.service", "--man=no"), ("systemd/user/supervise.service", "--user")]
    {
        let unit = place.contrib(name, &format!("{more}/supervise.service"));
        let output = Command::new("systemd-analyze")
            .arg("verify")
            .args(["--man=no", more])
            .arg(&unit)
            .output()
            .unwrap();
        let complaints = String::from_utf8(output.stderr).unwrap();
        let ours: Vec<&str> = complaints.lines().filter(|line| line.contains("supervise")).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
}

#[test]
fn root_below_s6_it_is_ready_when_it_says_so() {
    needs(&["s6-svscan", "s6-svwait", "s6-svc", "s6-svok"], "s6");
    let place = Place::new();
    place.units();
    std::fs::create_dir(place.path("scan")).unwrap();
    place.contrib("s6/supervise", "scan/supervise");
    assert_eq!(place.run("s6"), (Some(0), "up\n2 services\ndown\n".to_owned()));
}

#[test]
fn root_below_runit_it_is_up_when_commands_are_answered() {
    needs(&["runsvdir", "sv"], "runit");
    let place = Place::new();
    place.units();
    std::fs::create_dir(place.path("scan")).unwrap();
    place.contrib("runit/supervise", "scan/supervise");
    assert_eq!(place.run("runit"), (Some(0), "up\n2 services\ndown\n".to_owned()));
}

#[test]
fn root_below_openrc_it_starts_and_stops() {
    needs(&["openrc-run", "supervise-daemon"], "openrc");
    let place = Place::new();
    place.units();
    place.contrib("openrc/supervise", "init.d/supervise");
    assert_eq!(place.run("openrc"), (Some(0), "up\n2 services\ndown\n".to_owned()));
}

/// `supervise run` as PID 1: what a line of sh does before it, and then its status and all that it said.
fn as_pid_one(place: &Place, before: &str, more: &[&str], then: impl FnOnce(u32)) -> (Option<i32>, String) {
    // All of them are at /run/supervise, each in its own mount namespace, but not in its own control group: each
    // would take the others' for what a dead supervisor has left.
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let script = format!("{before}\nexec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--mount", "--mount-proc", "--kill-child", "python3", "-c"]);
    // Whatever a sloppy parent may have done to signals and limits.
    command.arg(
        "import os, resource, signal, sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))\nos.execvp(sys.argv[1], sys.argv[1:])",
    );
    command.args(["sh", "-c", &script, "sh", BINARY, "run", "--units"]).arg(place.path("units")).args(more);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let guard = Guard(child.id());
    then(child.id());
    std::mem::forget(guard);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), text.concat())
}

/// Ends a namespace where the test fails before it waits for it.
struct Guard(u32);

impl Drop for Guard {
    fn drop(&mut self) {
        send(self.0, libc::SIGKILL);
    }
}

/// The one child of `unshare`, which is PID 1 inside, once it is the keeper and runs services of this command, or ones
/// that do.
fn first(unshare: u32, command: &str) -> u32 {
    let began = Instant::now();
    loop {
        let children = |of: u32| supervise::sys::process::children(of).unwrap_or_default();
        let is = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == command.as_bytes())
        };
        let below = |pid: &u32| is(pid) || children(*pid).iter().any(is);
        if let [first] = children(unshare)[..]
            && children(first).iter().any(below)
        {
            return first;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no `{command}` below PID 1");
        nix::poll::poll(&mut [], nix::poll::PollTimeout::from(5u8)).unwrap();
    }
}

fn send(pid: u32, signal: i32) {
    use std::os::fd::AsFd;
    let pidfd = supervise::sys::process::open(pid).unwrap();
    supervise::sys::process::signal(pidfd.as_fd(), signal).unwrap();
}

/// Directories in which nothing can be written.
const READ_ONLY: &str = "mount -t tmpfs -o ro none /run && mount -t tmpfs -o ro none /var/log && \
                         mount -t tmpfs -o ro none /var/lib";

#[test]
fn root_pid_one_runs_without_a_place_to_write_and_says_so_once() {
    let place = Place::new();
    place.write("units/w.toml", "[service]\ncommand = [\"sleep\", \"1002\"]\nuser = \"nobody\"\n");
    let (status, said) =
        as_pid_one(&place, READ_ONLY, &[], |unshare| send(first(unshare, "sleep\x001002\0"), libc::SIGTERM));
    assert_eq!(status, Some(0), "{said}");
    let line = "supervise: no runtime directory at /run/supervise: read-only file system; running without a control socket\n";
    assert!(said.starts_with(line), "{said}");
    assert_eq!(said.matches("control socket").count(), 1, "{said}");
}

/// How late it ends, which is after nine of docker's ten seconds, depends on what else the machine does as well.
#[test]
fn root_pid_one_ends_before_docker_would_kill_it() {
    let mut all = Vec::new();
    while all.len() < 3 && all.last().is_none_or(|took| *took >= Duration::from_millis(9_900)) {
        all.push(from_term_to_the_end());
    }
    let soon = |took: &Duration| *took < Duration::from_millis(9_900);
    assert!(all.iter().all(|took| *took >= Duration::from_millis(8_900)), "it did not wait: {all:?}");
    assert!(all.iter().any(soon), "{all:?}");
}

/// How long a PID 1 takes whose service does not heed TERM.
fn from_term_to_the_end() -> Duration {
    let place = Place::new();
    // What is ignored stays so across an exec.
    place.write(
        "units/w.toml",
        "[service]\nuser = \"nobody\"\nstop-timeout = \"1h\"\n\
         command = [\"sh\", \"-c\", \"trap '' TERM; exec sleep 1005\"]\n",
    );
    let mut began = Instant::now();
    let own_run = "mount -t tmpfs none /run";
    let (status, said) = as_pid_one(&place, own_run, &["--log-dir", "/run/log"], |unshare| {
        let pid = first(unshare, "sleep\x001005\0");
        began = Instant::now();
        send(pid, libc::SIGTERM);
    });
    assert_eq!(status, Some(0), "{said}");
    began.elapsed()
}

#[test]
fn root_pid_one_reaps_a_storm_of_orphans() {
    let place = Place::new();
    // A task that makes orphans and waits until nothing below PID 1 is dead and unreaped.
    let done = place.path("done");
    place.write(
        "units/storm.toml",
        &format!(
            "[service]\nkind = \"task\"\nuser = \"root\"\n\
             command = [\"python3\", \"{ROOT}/tests/inits/storm.py\", \"2000\", \"{}\"]\n",
            done.display()
        ),
    );
    place.write("units/w.toml", "[service]\ncommand = [\"sleep\", \"1003\"]\nuser = \"nobody\"\n");
    let own_run = "mount -t tmpfs none /run";
    let (status, said) = as_pid_one(&place, own_run, &["--log-dir", "/run/log"], |unshare| {
        let pid = first(unshare, "sleep\x001003\0");
        let began = Instant::now();
        while !done.exists() {
            assert!(began.elapsed() < Duration::from_secs(60), "the storm does not end");
            nix::poll::poll(&mut [], nix::poll::PollTimeout::from(5u8)).unwrap();
        }
        send(pid, libc::SIGTERM);
    });
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(std::fs::read_to_string(&done).unwrap(), "0 left\n", "{said}");
}

#[test]
fn root_pid_one_passes_output_on_whole() {
    let place = Place::new();
    let unit = |name: &str, seconds: u32| {
        let script = format!("echo from {name}; echo more of {name} >&2; exec sleep {seconds}");
        let text = format!("[service]\nuser = \"nobody\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n");
        place.write(&format!("units/{name}.toml"), &text);
    };
    unit("web", 1006);
    let term = |unshare| send(first(unshare, "sleep\x001006\0"), libc::SIGTERM);
    let (status, said) = as_pid_one(&place, READ_ONLY, &[], term);
    let has = |said: &str, line: &str| said.lines().any(|one| one == line);
    assert!(status == Some(0) && has(&said, "from web") && has(&said, "more of web"), "{said}");
    unit("worker", 1007);
    let term = |unshare| {
        first(unshare, "sleep\x001007\0");
        term(unshare);
    };
    let (status, said) = as_pid_one(&place, READ_ONLY, &[], term);
    for name in ["web", "worker"] {
        for line in [format!("from {name}"), format!("more of {name}")] {
            let named = said.lines().any(|one| one.starts_with(name) && one.ends_with(&line));
            assert!(status == Some(0) && named, "{line}: {said}");
        }
    }
}

/// When an essential service has ended, the container ends: everything else in order first, and with its status.
#[test]
fn root_pid_one_ends_with_the_status_of_what_is_essential() {
    for (end, status) in [("exit 7", 7), ("kill -KILL $$", 128 + libc::SIGKILL)] {
        let place = Place::new();
        let ends = place.path("ends");
        place.write(
            "units/web.toml",
            &format!(
                "[service]\nuser = \"root\"\nessential = true\n\
                 command = [\"sh\", \"-c\", \"while ! [ -e {} ]; do sleep 0.02; done; {end}\"]\n",
                ends.display()
            ),
        );
        let worker = "trap 'echo stopped; exit' TERM; sleep 1008 & wait";
        place.write(
            "units/worker.toml",
            &format!("[service]\nuser = \"nobody\"\ncommand = [\"sh\", \"-c\", \"{worker}\"]\n"),
        );
        let (code, said) = as_pid_one(&place, READ_ONLY, &[], |unshare| {
            first(unshare, "sleep\x001008\0"); // which the worker starts once it would hear a signal
            std::fs::write(&ends, "").unwrap();
        });
        assert_eq!(code, Some(status), "{end}: {said}");
        let stopped = said.lines().any(|line| line.starts_with("worker") && line.ends_with("stopped"));
        assert!(stopped, "{end}: the other one was not asked to end: {said}");
    }
}

#[test]
fn root_pid_one_works_without_dev_null_and_with_nothing_open() {
    let without_dev = "mount -t tmpfs none /run && mount -t tmpfs none /dev";
    for before in [without_dev, "mount -t tmpfs none /run; exec <&- >&- 2>&-"] {
        let place = Place::new();
        place.write("units/w.toml", "[service]\ncommand = [\"sleep\", \"1004\"]\nuser = \"nobody\"\n");
        let (status, said) = as_pid_one(&place, before, &["--log-dir", "/run/log"], |unshare| {
            send(first(unshare, "sleep\x001004\0"), libc::SIGINT);
        });
        assert_eq!(status, Some(0), "{before}: {said}");
    }
}

#[test]
fn root_what_pid_one_cannot_do_without_is_named() {
    let place = Place::new();
    let (status, said) = as_pid_one(&place, "mount -t tmpfs none /proc", &[], |_| {});
    let text = "supervise: opening /proc/self/exe: no such file or directory\n\
                hint: mount /proc; `supervise init -- COMMAND` runs one command without it\n";
    assert_eq!((status, said.as_str()), (Some(1), text));
    let (status, said) = as_pid_one(&place, "ulimit -Hn 100", &[], |_| {});
    assert_eq!(status, Some(1));
    assert!(
        said.starts_with("supervise: the limit on open files is 100, and a start needs 128\nhint: "),
        "{said}"
    );
}
