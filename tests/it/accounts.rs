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
        let made = tool("useradd")
            .args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"])
            .args(["--shell", "/usr/sbin/nologin", &name])
            .output()
            .expect("running useradd");
        assert!(made.status.success(), "useradd {name}: {}", String::from_utf8_lossy(&made.stderr));
        let line = fs::read_to_string("/etc/passwd").unwrap();
        let line = line.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap().to_owned();
        let numbers: Vec<u32> = line.split(':').skip(2).take(2).map(|word| word.parse().unwrap()).collect();
        Self { name, uid: numbers[0], gid: numbers[1], ours: true }
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
