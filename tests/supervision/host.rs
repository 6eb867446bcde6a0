//! One supervisor in a directory of its own, where a plain account can read and execute. It is ended, and what it
//! ran is gone, when it goes out of scope.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Long enough for anything that is not itself about time, on a machine that has much else to do.
const LONG: Duration = Duration::from_secs(60);

/// Who services run as under root: a number that needs no account.
const NOBODY: u32 = 65534;

pub struct Host {
    directory: TempDir,
    keeper: Option<Child>,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A command that has been given and not awaited.
pub struct Asking(Child);

impl Asking {
    pub fn is_waiting(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    #[track_caller]
    pub fn wait(mut self) -> Said {
        let ended = within(|| self.0.try_wait().unwrap());
        if ended.is_none() {
            let _ = self.0.kill();
        }
        let output = self.0.wait_with_output().unwrap();
        assert!(ended.is_some(), "a command does not end: {output:?}");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Looks until there is something, at most [`LONG`].
pub fn within<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if began.elapsed() >= LONG {
            return None;
        }
        let _ = poll(&mut [], PollTimeout::from(5u8));
    }
}

fn am_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Host {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("supervise-supervision-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let host = Self { directory, keeper: None };
        for (name, mode) in [("units", 0o755), ("work", 0o777)] {
            fs::create_dir(host.path(name)).unwrap();
            fs::set_permissions(host.path(name), Permissions::from_mode(mode)).unwrap();
        }
        // By an inode of its own: a build meanwhile does not change what runs.
        let (built, ours) = (env!("CARGO_BIN_EXE_supervise"), host.path("supervise"));
        fs::hard_link(built, &ours).or_else(|_| fs::copy(built, &ours).map(drop)).unwrap();
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a unit: its `[service]` table begins with `service`, which runs in the work directory.
    pub fn unit(&self, name: &str, service: &str) {
        let user = if am_root() { format!("user = {NOBODY}\n") } else { String::new() };
        let text = format!("[service]\n{user}directory = \"{}\"\n{service}", self.path("work").display());
        let path = self.path(&format!("units/{name}.toml"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }

    /// The same for a shell script.
    pub fn script(&self, name: &str, script: &str, rest: &str) {
        self.unit(name, &format!("command = ['/bin/sh', '-c', '''{script}''']\n{rest}"));
    }

    /// Starts the supervisor and waits until it answers.
    #[track_caller]
    pub fn run(&mut self) {
        let said = fs::File::options().create(true).append(true).open(self.path("stderr")).unwrap();
        let mut command = Command::new(self.path("supervise"));
        command.arg("run");
        for (flag, name) in
            [("--units", "units"), ("--runtime-dir", "run"), ("--log-dir", "log"), ("--state-dir", "state")]
        {
            command.arg(flag).arg(self.path(name));
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").env("USER", "test").current_dir("/");
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        self.keeper = Some(command.spawn().unwrap());
        within(|| (self.ask(&["status"]).code != Some(5)).then_some(())).expect("an answer");
    }

    pub fn begin(&self, words: &[&str]) -> Asking {
        let mut command = Command::new(self.path("supervise"));
        command.arg("--runtime-dir").arg(self.path("run")).args(words).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Asking(command.spawn().unwrap())
    }

    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> Said {
        self.begin(words).wait()
    }

    /// Gives a command that has to succeed.
    #[track_caller]
    pub fn order(&self, words: &[&str]) {
        let said = self.ask(words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
    }

    /// `status --json`; the supervisor may be between two managers, and the command waits for the next.
    #[track_caller]
    pub fn status(&self) -> Value {
        let said = self.ask(&["status", "--json"]);
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    #[track_caller]
    pub fn service(&self, name: &str) -> Value {
        let status = self.status();
        let found = status["services"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned();
        found.unwrap_or_else(|| panic!("no {name} in {status:#}"))
    }

    /// Waits until something holds for a service.
    #[track_caller]
    pub fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = within(|| Some(self.service(name)).filter(|service| holds(service)));
        found.unwrap_or_else(|| panic!("{name}: not {what}: {:#}\n{}", self.service(name), self.said()))
    }

    #[track_caller]
    pub fn reaches(&self, name: &str, state: &str) -> Value {
        self.until(name, state, |service| service["state"] == state)
    }

    /// Kills the manager, and waits until it is gone.
    #[track_caller]
    pub fn kill_manager(&self) {
        let pid = self.status()["supervisor"]["pid"].as_i64().unwrap() as i32;
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let next = || self.status()["supervisor"]["pid"].as_i64() != Some(i64::from(pid));
        within(|| next().then_some(())).expect("another manager");
    }

    /// What the supervisor has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// A file in the work directory, once it has a whole line.
    #[track_caller]
    pub fn line(&self, name: &str) -> String {
        let path = self.path("work").join(name);
        let read = || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
        within(read).unwrap_or_else(|| panic!("no {name}\n{}", self.said()))
    }

    /// The text of a file in the work directory; nothing where there is none.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path("work").join(name)).unwrap_or_default()
    }

    /// Makes an empty file in the work directory, for which a service waits.
    pub fn go(&self, name: &str) {
        fs::write(self.path("work").join(name), "").unwrap();
    }

    /// A service's log so far.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path("log").join(name).join("current")).unwrap_or_default()
    }

    /// Sends it TERM.
    pub fn terminate(&self) {
        if let Some(keeper) = &self.keeper {
            kill(Pid::from_raw(keeper.id() as i32), Signal::SIGTERM).unwrap();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        self.terminate();
        let Some(mut keeper) = self.keeper.take() else { return };
        let ended = within(|| keeper.try_wait().unwrap());
        if ended.is_none() {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
        if failing {
            eprintln!("---- the supervisor said:\n{}", self.said());
        } else {
            assert!(ended.is_some_and(|status| status.success()), "it ended with {ended:?}\n{}", self.said());
        }
    }
}
