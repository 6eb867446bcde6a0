//! A service has exactly the rights that its unit says, and nothing of the supervisor.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::accounts::Account;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

/// Names of what differs from run to run.
pub(super) struct Names(pub(super) Vec<(String, &'static str)>);

impl Names {
    pub(super) fn of(&self, text: &str) -> String {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        for word in &mut words {
            if let Some((_, name)) = self.0.iter().find(|(value, _)| value == word) {
                *word = (*name).to_owned();
            }
        }
        words.join(" ")
    }
}

/// What a descriptor is; None where it has been closed. Names of temporary files and numbers of pipes are left out.
fn descriptor(pid: u32, number: u32) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?.display().to_string();
    if let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
        return Some(socket(pid, inode));
    }
    if link.starts_with("pipe:") {
        return Some("pipe".to_owned());
    }
    if link.starts_with("/dev/shm/wgunicorn-") {
        return Some("gunicorn's heartbeat".to_owned());
    }
    Some(link)
}

/// A listening socket's address.
fn socket(pid: u32, inode: &str) -> String {
    let tcp = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let mut tcp = tcp.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    if let Some(fields) = tcp.find(|fields| fields.get(9) == Some(&inode)) {
        let state = if fields[3] == "0A" { "listens" } else { "does not listen" };
        let port = u16::from_str_radix(fields[1].split_once(':').unwrap().1, 16).unwrap();
        return format!("tcp port {port} {state}");
    }
    let unix = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let mut unix = unix.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    match unix.find(|fields| fields.get(6) == Some(&inode)) {
        Some(fields) => {
            let state = if fields[3] == "00010000" { "listens" } else { "does not listen" };
            let path = Path::new(fields.get(7).unwrap_or(&"(none)"));
            format!("unix {} {state}", path.file_name().unwrap().display())
        }
        None => "a socket that nobody knows".to_owned(),
    }
}

/// Everything that a process may be and have, one fact a line.
pub(super) fn portrait(pid: u32, names: &Names) -> String {
    let mut text = String::new();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in status.lines() {
        let (key, value) = line.split_once(':').unwrap();
        let wanted = ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "Umask"];
        if wanted.contains(&key) || key.starts_with("Cap") {
            writeln!(text, "{key}: {}", names.of(value)).unwrap();
        }
    }
    let stat = processes::stat(pid).unwrap();
    writeln!(text, "session: {}", names.of(&stat.session.to_string())).unwrap();
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    writeln!(text, "oom_score_adj: {}", file("oom_score_adj").trim()).unwrap();
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    writeln!(text, "cwd: {}", names.of(cwd.to_str().unwrap())).unwrap();
    let root = fs::read_link(format!("/proc/{pid}/root")).unwrap();
    writeln!(text, "root: {}", root.display()).unwrap();
    let own_limits = fs::read_to_string("/proc/self/limits").unwrap();
    for line in file("limits").lines().skip(1) {
        let expected = own_limits.lines().any(|own| own == line);
        // Everything is as the supervisor was started with, but for core files.
        if !expected {
            writeln!(text, "limit: {}", line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
        }
    }
    let mut numbers: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    for number in numbers.iter().filter(|number| **number < 3) {
        writeln!(text, "descriptor {number}: {}", descriptor(pid, *number).unwrap()).unwrap();
    }
    numbers.retain(|number| *number >= 3);
    text.push_str(&above(pid, &numbers));
    text
}

/// Waits until a process is this: one that begins has what its parent has, and files open that it imports.
#[track_caller]
fn comes_to_be(pid: u32, names: &Names, expected: &str) {
    let seen = wait::within(wait::LONG, || Some(portrait(pid, names)).filter(|seen| seen == expected));
    assert_eq!(seen.unwrap_or_else(|| portrait(pid, names)), expected);
}

/// Descriptors from 3 on: what they are, in whatever order a server has put them meanwhile.
fn above(pid: u32, numbers: &[u32]) -> String {
    let mut kinds: Vec<String> = numbers.iter().filter_map(|number| descriptor(pid, *number)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.iter().fold(String::new(), |text, kind| text + "descriptor: " + kind + "\n")
}

/// The environment of a process, with what differs from run to run named.
fn environment(pid: u32, names: &Names, place: &Place) -> String {
    let mut all: Vec<String> = processes::environment(pid)
        .into_iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            let value = match name {
                "INVOCATION_ID" => {
                    let hexadecimal = value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
                    assert!(hexadecimal, "INVOCATION_ID={value}");
                    "ID".to_owned()
                }
                _ => names.of(value).replace(place.root().to_str().unwrap(), "PLACE"),
            };
            format!("{name}={value}")
        })
        .collect();
    all.sort_unstable();
    all.join("\n")
}

/// What every service is, whatever it runs. `SigIgn` is the program's own business: Python ignores SIGPIPE and
/// SIGXFSZ (bits 12 and 24).
const RIGHTS: &str = "\
Umask: 0027
Uid: UID UID UID UID
Gid: GID GID GID GID
Groups: GID
SigBlk: 0000000000000000
SigIgn: IGNORED
CapInh: 0000000000000000
CapPrm: 0000000000000000
CapEff: 0000000000000000
CapBnd: 0000000000000000
CapAmb: 0000000000000000
NoNewPrivs: 1
Seccomp: SECCOMP
session: PID
oom_score_adj: 0
cwd: SRV
root: /
limit: Max core file size 0 0 bytes
descriptor 0: /dev/null
descriptor 1: pipe
descriptor 2: pipe
";

const ENVIRONMENT: &str = "\
HOME=/nonexistent
INVOCATION_ID=ID
LANG=C.UTF-8
LISTEN_FDNAMES=http:local:health
LISTEN_FDS=3
LISTEN_PID=PID
LOGNAME=NAME
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PWD=SRV
PYTHONPATH=PLACE/site
SERVER_STARTER_GENERATION=1
SERVER_STARTER_PORT=ADDRESS=3;PLACE/sock/web.sock=4
SHELL=/usr/sbin/nologin
SUPERVISE_GENERATION=1
SUPERVISE_INSTANCE=1
SUPERVISE_SERVICE=web
USER=NAME";

/// Bits that Python sets.
const PYTHON_IGNORES: &str = "0000000001001000";
const NONE: &str = "0000000000000000";

/// The filter that we ourselves live under, which is none of supervise's.
fn own_seccomp() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("Seccomp:")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

fn expected(ignored: &str, above: &[&str]) -> String {
    let rights = RIGHTS.replace("IGNORED", ignored).replace("SECCOMP", &own_seccomp());
    above.iter().fold(rights, |text, kind| text + "descriptor: " + kind + "\n")
}

pub(super) fn names(place: &Place, pid: u32) -> Names {
    Names(vec![
        (place.account.uid.to_string(), "UID"),
        (place.account.gid.to_string(), "GID"),
        (pid.to_string(), "PID"),
        (place.account.name.clone(), "NAME"),
        (place.path("srv").display().to_string(), "SRV"),
    ])
}

/// Asks and expects an answer of this master.
#[track_caller]
fn answers(mut curl: Command, master: u32) {
    let said = curl.args(CURL).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.starts_with(&format!("{master} ")), "{said:?}");
}

const CURL: [&str; 5] = ["--silent", "--show-error", "--fail", "--max-time", "20"];

#[test]
fn root_gunicorn_has_exactly_the_rights_of_its_unit() {
    let mut place = Place::with_gunicorn(Who::Root);
    let (address, path) = (place.address(), place.path("sock/web.sock"));
    let (members, stranger) = (Account::make(), Account::make());
    assert!(address.port() < 1024);
    place.web(
        "web",
        &format!(
            "[socket.http]\nlisten = \"{address}\"\n[socket.local]\nlisten = \"{}\"\nmode = \"0660\"\ngroup = \"{}\"\n",
            path.display(),
            members.name
        ),
    );
    place.run();
    place.reaches("web", "running");
    let master = place.pid_of("web");
    // Its workers have come up and work.
    let mut tcp = Command::new("curl");
    tcp.arg(format!("http://{address}/"));
    answers(tcp, master);
    let workers = wait::until(wait::LONG, "both workers", || {
        let workers = processes::children(master);
        (workers.len() == 2).then_some(workers)
    });
    let names = names(&place, master);
    let sockets = [
        "gunicorn's heartbeat",
        "pipe",
        &format!("tcp port {} listens", address.port()),
        "unix 1 listens", // on which it is asked whether it answers
        "unix web.sock listens",
    ];
    // A worker has a pipe of its own; the master has none beside its output.
    let of_master: Vec<&str> = sockets.into_iter().filter(|kind| *kind != "pipe").collect();
    comes_to_be(master, &names, &expected(PYTHON_IGNORES, &of_master));
    for worker in workers {
        comes_to_be(worker, &names, &expected(PYTHON_IGNORES, &sockets));
    }
    let variables = environment(master, &names, &place);
    assert_eq!(variables, ENVIRONMENT.replace("ADDRESS", &address.to_string()));
    // Who may connect to the file.
    let data = fs::metadata(&path).unwrap();
    assert_eq!((data.mode() & 0o7777, data.uid(), data.gid()), (0o660, 0, members.gid));
    let unix = |uid: u32, groups: &[u32]| {
        let mut curl = place.command_as(uid, stranger.gid, groups, Path::new("curl"));
        curl.arg("--unix-socket").arg(&path).arg("http://localhost/");
        curl
    };
    answers(unix(members.uid, &[members.gid]), master);
    answers(unix(stranger.uid, &[members.gid]), master);
    let refused = unix(stranger.uid, &[]).args(CURL).output().unwrap();
    assert_eq!(refused.status.code(), Some(7), "a stranger may connect: {refused:?}");
}

/// A program that changes nothing shows what it was given.
#[test]
fn root_a_program_is_given_nothing_but_its_rights() {
    let mut place = Place::new(Who::Root);
    let (address, path) = (place.address(), place.path("sock/bare.sock"));
    place.unit(
        "bare",
        &format!(
            "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n[socket.http]\nlisten = \"{address}\"\n[socket.local]\nlisten = \"{}\"\n",
            path.display(),
        ),
    );
    place.run();
    place.reaches("bare", "running");
    let pid = place.pid_of("bare");
    let exact = |place: &Place, pid: u32| {
        let tcp = format!("tcp port {} listens", address.port());
        assert_eq!(portrait(pid, &names(place, pid)), expected(NONE, &[&tcp, "unix bare.sock listens"]));
        let mut numbers: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        numbers.sort();
        assert_eq!(numbers, ["0", "1", "2", "3", "4"]);
        let kinds = [3, 4].map(|number| descriptor(pid, number).unwrap());
        assert!(kinds[0].starts_with("tcp") && kinds[1].starts_with("unix"), "{kinds:?}");
    };
    exact(&place, pid);
    // The same from another manager and another zygote, and below another keeper.
    for role in [Role::Manager, Role::Zygote, Role::Keeper] {
        let (keeper, manager) = (place.role(Role::Keeper), place.role(Role::Manager));
        place.kill(role);
        wait::until(wait::LONG, "another one", || {
            let now = place.try_status()?["supervisor"].clone();
            let other = [now["keeper_pid"].as_u64()?, now["pid"].as_u64()?]
                != [u64::from(keeper), u64::from(manager)];
            (other || role == Role::Zygote).then_some(())
        });
        place.order(&["restart", "bare"]);
        exact(&place, place.pid_of("bare"));
    }
}
