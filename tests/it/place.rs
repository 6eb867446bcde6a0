//! A place of its own for each test, where a plain account can read and execute: the program, units, logs, and
//! accounts. Nothing of it is left when it goes, and where something would be, the test fails.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::accounts::{Account, am_root};
use super::{gunicorn, processes, pypi, supervisor, wait};

/// Who the supervisor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Root, whose services run as others.
    Root,
    /// An ordinary user, whose services run as the same one.
    User,
}

/// The place.
pub struct Place {
    pub who: Who,
    /// Who services run as: under an ordinary user that user.
    pub account: Account,
    /// The supervisor, while one runs.
    pub keeper: Option<supervisor::Keeper>,
    directory: TempDir,
}

/// Addresses that were asked for, and files that were written.
static ADDRESSES: AtomicU32 = AtomicU32::new(0);
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// A port that nobody has, of IPv4 and IPv6, streams and datagrams; below those that the kernel gives to clients.
pub fn free_port() -> u16 {
    static PORTS: AtomicU32 = AtomicU32::new(0);
    // By this process's number and how often it has asked: no two are given one at the same time.
    let first = 10_000 + std::process::id() % 400 * 50;
    let mut all = (0..50).map(|_| (first + PORTS.fetch_add(1, Ordering::Relaxed) % 50) as u16);
    let is_free = |port: &u16| {
        let any = (Ipv6Addr::UNSPECIFIED, *port);
        TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok()
    };
    all.find(is_free).expect("a free port")
}

fn address_with(ports: Range<u16>) -> SocketAddr {
    // By this process's number and how often it has asked: no two are given one, whether it is bound by then or not.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let asked = ADDRESSES.fetch_add(1, Ordering::Relaxed);
    let ip = Ipv4Addr::new(127, high % 254 + 1, low, (asked % 254 + 1) as u8);
    let first = usize::try_from(asked / 254).unwrap() % ports.len();
    let mut free = ports.clone().chain(ports).skip(first).map(|port| SocketAddr::from((ip, port)));
    free.find(|address| TcpListener::bind(address).is_ok()).expect("a free port")
}

impl Place {
    /// An empty one, with a program and an account.
    #[track_caller]
    pub fn new(who: Who) -> Self {
        if who == Who::Root {
            assert!(am_root(), "needs root; an ordinary user runs the others: `cargo test --test it user_`");
        }
        let directory = tempfile::Builder::new()
            .prefix("supervise-it-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in("/var/tmp")
            .unwrap();
        // The mask of whoever runs the tests may have taken from it.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        // What runs behind a shell's `&` is told to ignore them, and so would be all that it starts.
        for signal in [libc::SIGINT, libc::SIGQUIT] {
            supervise::sys::signals::default_one(signal).unwrap();
        }
        let account = if am_root() { Account::make() } else { Account::own() };
        let place = Self { who, account, keeper: None, directory };
        for name in ["bin", "units", "srv", "work"] {
            place.make(name);
        }
        // By an inode of its own: a build meanwhile does not change what runs.
        let built = Path::new(env!("CARGO_BIN_EXE_supervise"));
        fs::hard_link(built, place.binary()).or_else(|_| fs::copy(built, place.binary()).map(drop)).unwrap();
        if am_root() {
            chown(place.path("work"), Some(place.account.uid), Some(place.account.gid)).unwrap();
        }
        // Every service is recognised by its working directory.
        let defaults = format!("[service]\ndirectory = \"{}\"\n", place.path("srv").display());
        place.write("defaults.toml", &defaults);
        place
    }

    /// The same with gunicorn and its application in it.
    #[track_caller]
    pub fn with_gunicorn(who: Who) -> Self {
        let place = Self::new(who);
        pypi::install_gunicorn(&place.path("site"));
        place.write("srv/app.py", gunicorn::APP);
        place
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn binary(&self) -> PathBuf {
        self.path("bin/supervise")
    }

    pub fn log(&self) -> PathBuf {
        self.path("log")
    }

    fn own(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        if am_root() && self.who == Who::User {
            chown(path, Some(self.account.uid), Some(self.account.gid)).unwrap();
        }
    }

    fn make(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        self.own(&self.path(name), 0o755);
        self.own(self.root(), 0o755);
    }

    /// Writes a file that the supervisor's user owns. It is there as a whole or not yet: whoever waits for it may read
    /// it, or remove it, as soon as it has its name.
    pub fn write(&self, name: &str, text: &str) {
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.path(&format!(".unfinished{number}"));
        fs::write(&unfinished, text).unwrap();
        self.own(&unfinished, 0o644);
        fs::rename(&unfinished, self.path(name)).unwrap();
    }

    /// Writes a unit whose `[service]` table begins with `service`; the user is put in where there is to be one.
    pub fn unit(&self, name: &str, service: &str) {
        let user = match self.who {
            Who::Root => format!("user = \"{}\"\n", self.account.name),
            Who::User => String::new(),
        };
        self.write(&format!("units/{name}.toml"), &format!("[service]\n{user}{service}"));
    }

    /// Writes a unit of gunicorn with these sockets.
    pub fn web(&self, name: &str, sockets: &str) {
        let text = format!(
            "command = {}\nenvironment = {{ PYTHONPATH = \"{}\" }}\n{sockets}",
            gunicorn::command(),
            self.path("site").display(),
        );
        self.unit(name, &text);
    }

    /// An address on which nobody else listens: a loopback address of this place alone, with a port that only
    /// root may bind or one that everybody may.
    pub fn address(&self) -> SocketAddr {
        match self.who {
            Who::Root => address_with(80..1024),
            Who::User => self.high_address(),
        }
    }

    /// The same with a port that everybody may bind.
    pub fn high_address(&self) -> SocketAddr {
        address_with(8080..9000)
    }

    /// A command that runs as the supervisor's user, with little of our environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = match (self.who, am_root()) {
            (Who::User, true) => self.command_as(self.account.uid, self.account.gid, &[], program),
            (Who::User, false) | (Who::Root, _) => Command::new(program),
        };
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("USER", "it").current_dir("/");
        command
    }

    /// A command with these rights and no others.
    pub fn command_as(&self, uid: u32, gid: u32, groups: &[u32], program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--reuid").arg(uid.to_string()).arg("--regid").arg(gid.to_string());
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        match groups.is_empty() {
            true => command.arg("--clear-groups"),
            false => command.arg("--groups").arg(groups.join(",")),
        };
        command.args(["--inh-caps=-all", "--"]).arg(program);
        command
    }

    /// Ends everything in the ordinary way; what is still there then.
    fn clear(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(problem) = supervisor::end(self) {
            left.push(problem);
        }
        let none = wait::within(wait::LONG, || processes::of(self.root()).is_empty().then_some(()));
        if none.is_none() {
            let rest = processes::of(self.root());
            left.extend(rest.iter().map(|pid| format!("a process: {}", processes::described(*pid))));
        }
        left.extend(self.cgroups().iter().map(|path| format!("a cgroup: {}", path.display())));
        for name in ["run/control", "run/handover"] {
            if self.path(name).exists() {
                left.push(format!("a file: {name}"));
            }
        }
        left
    }

    /// Ends by force what is left, one after the other.
    fn force(&self) {
        for _ in 0..50 {
            let rest = processes::of(self.root());
            if rest.is_empty() {
                break;
            }
            for pid in rest {
                if let Ok(pidfd) = supervise::sys::process::open(pid)
                    && processes::of(self.root()).contains(&pid)
                {
                    let _ = supervise::sys::process::signal(std::os::fd::AsFd::as_fd(&pidfd), 9);
                }
            }
            wait::a_moment();
        }
        for path in self.cgroups() {
            let _ = fs::remove_dir(path);
        }
    }

    /// The cgroups of this place's supervisor: their names have a sum of its runtime directory in them.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let sum = crc32fast::hash(self.path("run").as_os_str().as_encoded_bytes());
        let start = format!("supervise.{sum:08x}-");
        let mut found = Vec::new();
        for base in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
            let entries = fs::read_dir(Path::new(base).join(own)).into_iter().flatten().flatten();
            found.extend(
                entries
                    .filter(|entry| entry.file_name().to_string_lossy().starts_with(&start))
                    .map(|entry| entry.path()),
            );
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            let said = fs::read_to_string(self.path("supervise.err")).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("---- the supervisor said:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        let left = self.clear();
        self.force();
        if !left.is_empty() {
            assert!(failing, "left behind: {left:#?}");
            eprintln!("---- left behind: {left:#?}");
        }
    }
}
