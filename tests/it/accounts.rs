//! Accounts that exist as long as a test does. Never touches one that it has not made.

use std::fs::{self, File};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{Flock, FlockArg};

static MADE: AtomicU32 = AtomicU32::new(0);

/// One account with a group of its own name.
#[derive(Debug)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    ours: bool,
}

pub fn am_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The account databases are written by one at a time; the tools give up rather than wait.
fn alone() -> Flock<File> {
    // A directory's lock needs no file of its own that would stay behind.
    Flock::lock(File::open("/etc").unwrap(), FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap()
}

/// A number for a user and another for its group that neither a user nor a group has: where two are compared by their
/// numbers, none is taken for another.
fn free_numbers() -> (u32, u32) {
    let numbers = |file: &str| {
        let text = fs::read_to_string(file).unwrap();
        let third = text.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
        third.collect::<Vec<_>>()
    };
    let taken = [numbers("/etc/passwd"), numbers("/etc/group")].concat();
    let mut free = (30_000..60_000).filter(|number| !taken.contains(number));
    (free.next().unwrap(), free.next().unwrap())
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command
}

impl Account {
    /// A new one.
    pub fn make() -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("it{}x{number}", std::process::id());
        let _alone = alone();
        let (uid, gid) = free_numbers();
        let run = |program: &str, arguments: &[&str]| {
            let made = tool(program).args(arguments).arg(&name).output().unwrap();
            let why = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "{program} {name}: {why}");
        };
        let (uid_text, gid_text) = (uid.to_string(), gid.to_string());
        run("groupadd", &["--gid", &gid_text]);
        let account = Self { name: name.clone(), uid, gid, ours: true };
        let home = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"];
        run("useradd", &[&["--uid", &uid_text, "--gid", &gid_text][..], &home].concat());
        account
    }

    /// Makes it a member of another's group, or no longer one.
    pub fn joins(&self, other: &Self, joins: bool) {
        let _alone = alone();
        let how = if joins { "--add" } else { "--delete" };
        let done = tool("gpasswd").args([how, &self.name, &other.name]).output().unwrap();
        assert!(done.status.success(), "gpasswd {how}: {done:?}");
    }

    /// Has the name mean another number for a while, in which nobody makes an account: his own number looks free.
    pub fn while_it_is<T>(&self, uid: u32, act: impl FnOnce() -> T) -> T {
        let _alone = alone();
        let change = |uid: u32| {
            let done = tool("usermod").arg("--uid").arg(uid.to_string()).arg(&self.name).output().unwrap();
            assert!(done.status.success(), "usermod --uid {uid}: {done:?}");
        };
        change(uid);
        let acted = act();
        change(self.uid);
        acted
    }

    /// That of this process.
    pub fn own() -> Self {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Self { name: std::env::var("USER").unwrap_or_default(), uid, gid, ours: false }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let _alone = alone();
        // A process of the account that is just ending makes userdel refuse; where a test left one, the
        // place says so itself.
        let removed = tool("userdel").arg(&self.name).output();
        let there = |file: &str| {
            let start = format!("{}:", self.name);
            fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| line.starts_with(&start)))
        };
        if there("/etc/passwd") {
            let _ = tool("userdel").args(["--force", &self.name]).output();
        }
        if there("/etc/group") {
            let _ = tool("groupdel").arg(&self.name).output();
        }
        let left = there("/etc/passwd") || there("/etc/group");
        if left && !std::thread::panicking() {
            panic!("the account {} is left behind: {removed:?}", self.name);
        }
    }
}
