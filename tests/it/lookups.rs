//! Name services that do not answer, and readers of files that are held by whoever has their user: one service waits,
//! and nothing else does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::accounts::Account;
use super::gunicorn::python;
use super::place::{Place, Who};
use super::supervisor::{Asking, Role};
use super::{processes, wait};

/// However often it falls, it is there again at once.
const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n[restart]\ndelay = \"10ms\"\nmax-delay = \"20ms\"\n";

/// The same, which waits long enough after a failure to be seen to wait.
const RETRIED: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n[restart]\ndelay = \"2s\"\n";

/// Local files, and what comes behind them never answers.
const LOCAL_FIRST: &str = "passwd: files hesiod\ngroup: files hesiod\ninitgroups: files\n";
/// Nothing answers.
const SILENT: &str = "passwd: hesiod files\ngroup: hesiod files\ninitgroups: files\n";

/// Starts the supervisor where `/etc` is one of its own: the name service `hesiod` (of the C library) reads its
/// configuration from a pipe that nobody writes to, so it hangs, and `hidden` has no account yet.
fn run_with_names_that_hang(place: &mut Place, hidden: &Account) {
    let (etc, real) = (place.path("etc"), place.path("real"));
    fs::create_dir(&etc).unwrap();
    fs::create_dir(&real).unwrap();
    for entry in fs::read_dir("/etc").unwrap() {
        let name = entry.unwrap().file_name();
        if !["nsswitch.conf", "hesiod.conf", "passwd"].contains(&name.to_str().unwrap_or_default()) {
            symlink(real.join(&name), etc.join(&name)).unwrap();
        }
    }
    let start = format!("{}:", hidden.name);
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let accounts: Vec<&str> = accounts.lines().filter(|line| !line.starts_with(&start)).collect();
    fs::write(etc.join("passwd"), accounts.join("\n") + "\n").unwrap();
    fs::write(etc.join("nsswitch.conf"), LOCAL_FIRST).unwrap();
    assert!(Command::new("mkfifo").arg(etc.join("hesiod.conf")).status().unwrap().success());
    let script = format!(
        "exec unshare --mount --propagation private sh -c 'mount --bind /etc {real} && mount --bind {etc} /etc && exec \"$@\"' sh \"$@\"",
        real = real.display(),
        etc = etc.display()
    );
    place.keeper = Some(place.spawn_by(&script, Stdio::null()));
    wait::until(wait::LONG, "the supervisor to answer", || place.try_status());
}

/// Living processes of ours that do this.
fn errands(place: &Place, what: &str) -> Vec<u32> {
    let is_it = |pid: &u32| matches!(&processes::arguments(*pid)[..], [first, second, ..] if first == "supervise" && second == what);
    processes::of(place.root()).into_iter().filter(is_it).collect()
}

fn errand(place: &Place, what: &str) -> Option<u32> {
    errands(place, what).first().copied()
}

/// Does something while such a process hangs: it lived all the time. A slow machine may need another try.
#[track_caller]
fn meanwhile(place: &Place, what: &str, mut act: impl FnMut()) {
    for _ in 0..10 {
        let pid = wait::until(wait::LONG, "a process that hangs", || errand(place, what));
        act();
        if processes::lives(pid) {
            return;
        }
    }
    panic!("nothing was done while `{what}` hung");
}

/// A service falls, is there again, and status says so.
#[track_caller]
fn falls_and_rises(place: &Place, name: &str) {
    let before = place.pid_of(name);
    processes::signal(before, 9);
    wait::until(wait::LONG, "the next one", || {
        let service = place.service(name);
        (service["state"] == "running" && service["pid"] != before).then_some(())
    });
}

#[test]
fn root_a_name_that_nobody_answers_holds_up_nobody_else() {
    let mut place = Place::new(Who::Root);
    let late = Account::make();
    place.unit("web", SLEEP);
    place.write("units/lost.toml", &format!("[service]\nuser = \"{}\"\n{RETRIED}", late.name));
    run_with_names_that_hang(&mut place, &late);
    place.reaches("web", "running");
    meanwhile(&place, "lookup", || falls_and_rises(&place, "web"));
    // Who does not answer within its time makes that one fail, and it is asked again.
    let lost = place.reaches("lost", "backing-off");
    let expected =
        format!("looking up the user `{}`: name services did not answer within 5 s\nhint: ", late.name);
    assert!(lost["problems"].to_string().contains(&expected.replace('\n', "\\n")), "{lost:#}");
    // A stop overtakes a start that waits.
    let mut start = place.begin(&["start", "lost"]);
    meanwhile(&place, "lookup", || {
        if !start.is_under_way() {
            start = place.begin(&["start", "lost"]);
        }
        place.order(&["stop", "lost"]);
    });
    let said = start.wait();
    assert!(said.code == Some(1) && said.err.contains("another command for it came in between"), "{said:?}");
    // A manager that dies meanwhile asks again, and who waits gets one answer: the account has come.
    let start = place.begin(&["start", "lost"]);
    let before = wait::until(wait::LONG, "a process that hangs", || errand(&place, "lookup"));
    place.kill(Role::Manager);
    wait::until(wait::LONG, "another", || errands(&place, "lookup").into_iter().find(|pid| *pid != before));
    fs::remove_file(place.path("etc/passwd")).unwrap();
    symlink(place.path("real/passwd"), place.path("etc/passwd")).unwrap();
    let said = start.wait();
    let said = if said.code == Some(0) { said } else { place.ask(&["start", "lost"]) };
    assert_eq!(said.code, Some(0), "{said:?}");
    let uid = fs::metadata(format!("/proc/{}", place.pid_of("lost")))
        .map(|found| std::os::unix::fs::MetadataExt::uid(&found));
    assert_eq!(uid.unwrap(), late.uid);
}

/// A file system behind which is a process that never answers.
struct Silent(std::path::PathBuf, std::process::Child);

impl Silent {
    fn mount(at: &Path) -> Self {
        fs::create_dir(at).unwrap();
        let options = "fd=3,rootmode=40000,user_id=0,group_id=0,allow_other";
        let script =
            format!("exec 3<>/dev/fuse && mount -i -t fuse -o {options} silent \"$1\" && echo up && read go");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script, "sh"]).arg(at).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut said = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        Self(at.to_owned(), child)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        drop(self.1.stdin.take()); // whoever waits for it gets an error
        let _ = self.1.wait();
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn root_a_directory_that_nobody_answers_for_holds_up_nobody_else() {
    let mut place = Place::new(Who::Root);
    let silent = Silent::mount(&place.path("silent"));
    place.unit("web", SLEEP);
    let directory = place.path("silent/release").display().to_string();
    place.unit("hung", &format!("directory = \"{directory}\"\nstart = \"manual\"\n{SLEEP}"));
    place.run();
    place.reaches("web", "running");
    let start = place.begin(&["start", "hung"]);
    meanwhile(&place, "resolve", || falls_and_rises(&place, "web"));
    place.order(&["restart", "web"]);
    drop(silent);
    let said = start.wait();
    assert!(said.code == Some(1) && said.err.contains(&directory), "{said:?}");
}

#[test]
fn root_an_environment_file_that_nobody_answers_for_holds_up_nobody_else() {
    let mut place = Place::new(Who::Root);
    let silent = Silent::mount(&place.path("silent"));
    place.unit("web", SLEEP);
    let file = place.path("silent/own.env").display().to_string();
    place.unit("hung", &format!("environment-files = [\"{file}\"]\nstart = \"manual\"\n{SLEEP}"));
    place.run();
    place.reaches("web", "running");
    let start = place.begin(&["start", "hung"]);
    meanwhile(&place, "read", || falls_and_rises(&place, "web"));
    place.order(&["restart", "web"]);
    drop(silent);
    let said = start.wait();
    let expected = format!("reading the environment file {file}: ");
    assert!(said.code == Some(1) && said.err.contains(&expected), "{said:?}");
}

#[test]
fn root_an_account_that_comes_later_needs_nobodys_command() {
    let mut place = Place::new(Who::Root);
    let late = Account::make();
    place.write("units/lost.toml", &format!("[service]\nuser = \"{}\"\n{RETRIED}", late.name));
    let rights = format!("[access]\nstatus = [\"user:{}\"]\n", late.name);
    place.unit("idle", &format!("start = \"manual\"\n{SLEEP}{rights}"));
    run_with_names_that_hang(&mut place, &late);
    place.reaches("lost", "backing-off");
    assert_eq!(place.service("idle")["state"], "stopped");
    fs::remove_file(place.path("etc/passwd")).unwrap();
    symlink(place.path("real/passwd"), place.path("etc/passwd")).unwrap();
    place.reaches("lost", "running");
    // So does a right by that name on a service that does not run.
    wait::until(wait::LONG, "the right", || {
        let mut client = place.command_as(late.uid, late.gid, &[], &place.binary());
        let said =
            client.arg("--runtime-dir").arg(place.path("run")).args(["status", "--names"]).output().unwrap();
        (String::from_utf8(said.stdout).unwrap() == "idle\nlost\n").then_some(())
    });
}

#[test]
fn root_a_restart_goes_by_what_name_services_said_last() {
    let mut place = Place::new(Who::Root);
    let nobody = Account::make();
    place.unit("web", SLEEP);
    place.unit("other", SLEEP);
    run_with_names_that_hang(&mut place, &nobody);
    place.reaches("web", "running");
    place.reaches("other", "running");
    fs::write(place.path("etc/nsswitch.conf"), SILENT).unwrap();
    let before = place.pid_of("web");
    let mut restarts = Vec::new();
    // Something falls and rises while a process hangs, which is for two seconds: a slow machine may need another try.
    let done = (0..10).any(|_| {
        if restarts.iter_mut().all(|restart: &mut Asking| !restart.is_under_way()) {
            restarts.extend([place.begin(&["restart", "web"]), place.begin(&["restart", "web"])]);
        }
        let hung = wait::until(wait::LONG, "a process that hangs, or the end", || {
            let over = || restarts.iter_mut().all(|restart| !restart.is_under_way()).then_some(None);
            errand(&place, "lookup").map(Some).or_else(over)
        });
        falls_and_rises(&place, "other");
        hung.is_some_and(processes::lives)
    });
    assert!(done, "nothing was done while a name was looked up");
    let generation = 1 + restarts.len();
    for restart in restarts {
        let said = restart.wait();
        assert!(said.code == Some(0) && said.took >= Duration::from_secs(2), "{said:?}");
    }
    assert!(place.pid_of("web") != before && place.service("web")["generation"] == generation);
    assert!(place.stderr().contains("what they said before holds"), "{}", place.stderr());
}

/// Stops every process that reads a file with its rights.
const HOLDER: &str = r#"
import os, signal
own = os.getuid()
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat("/proc/" + pid).st_uid != own:
                continue
            with open("/proc/" + pid + "/cmdline", "rb") as words:
                if words.read().split(b"\0")[1:2] == [b"read"]:
                    os.kill(int(pid), signal.SIGSTOP)
        except OSError:
            pass
"#;

#[test]
fn root_who_stops_the_reader_of_his_file_stops_himself_alone() {
    let mut place = Place::new(Who::Root);
    let file = place.path("work/own.env");
    fs::write(&file, "A=own\n").unwrap();
    place.write("srv/holder.py", HOLDER);
    place.unit("holder", &format!("command = [\"{}\", \"holder.py\"]\n", python()));
    place.unit("web", SLEEP);
    let files = format!("environment-files = [\"{}\"]\nstart = \"manual\"\n{SLEEP}", file.display());
    place.unit("held", &files);
    place.run();
    place.reaches("web", "running");
    place.reaches("holder", "running");
    let stopped = |place: &Place| {
        let is_held = |pid: &u32| processes::stat(*pid).is_some_and(|stat| stat.state == 'T');
        errands(place, "read").into_iter().find(is_held)
    };
    let said =
        wait::until(Duration::from_secs(120), "a reader that is held and holds up nobody else", || {
            let mut start = place.begin(&["start", "held"]);
            let held = wait::until(wait::LONG, "an answer, or a reader that is held", || {
                if start.is_under_way() { stopped(&place).map(Some) } else { Some(None) }
            });
            falls_and_rises(&place, "web");
            let was_under_way = start.is_under_way();
            let said = start.wait();
            // One that was held behind its answer, or not at all, has done no harm; and a slow machine may need another try.
            if said.code == Some(0) || held.is_none() || !was_under_way {
                place.order(&["stop", "held"]);
                return None;
            }
            Some(said)
        });
    let expected = format!("reading the environment file {}: ", file.display());
    assert!(
        said.code == Some(1) && said.err.contains(&expected) && said.err.contains("within 5 s"),
        "{said:?}"
    );
    assert_eq!(stopped(&place), None, "what is held stays behind");
    place.order(&["stop", "holder"]);
    place.order(&["start", "held"]);
}

#[test]
fn root_strict_waits_for_names_and_starts_nothing_without_them() {
    let place = Place::new(Who::Root);
    place.unit("web", SLEEP);
    place.write("units/lost.toml", &format!("[service]\nuser = \"nosuchuser\"\n{SLEEP}"));
    let mut command = place.command(&place.binary());
    command.args(["run", "--strict", "--units"]).arg(place.path("units"));
    command.arg("--runtime-dir").arg(place.path("run")).arg("--log-dir").arg(place.path("log"));
    let said = command.arg("--state-dir").arg(place.path("state")).output().unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(3), "{err}");
    assert!(err.contains("unit=lost looking up the user `nosuchuser`: there is none of that name"), "{err}");
    assert!(!Path::new(&place.path("log/web")).exists());
}

#[test]
fn root_a_stop_of_everything_waits_for_no_name() {
    // A name may have had its time just then; one that is waited for has it each time.
    assert!((0..5).any(|_| stops_while_a_name_is_looked_up()), "it waits for names");
}

/// Whether no lookup has had its time before the end.
fn stops_while_a_name_is_looked_up() -> bool {
    let mut place = Place::new(Who::Root);
    let late = Account::make();
    place.write("units/lost.toml", &format!("[service]\nuser = \"{}\"\n{RETRIED}", late.name));
    place.unit("web", SLEEP);
    run_with_names_that_hang(&mut place, &late);
    let over = |place: &Place| place.stderr().matches("name services said nothing").count();
    let before = loop {
        let before = over(&place);
        wait::until(wait::LONG, "a process that hangs", || errand(&place, "lookup"));
        if over(&place) == before {
            break before;
        }
    };
    let keeper = place.keeper.take().unwrap();
    processes::signal(keeper.pid, libc::SIGTERM);
    assert_eq!(keeper.wait().code(), Some(0));
    assert_eq!(errand(&place, "lookup"), None);
    over(&place) == before
}
