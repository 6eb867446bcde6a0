//! A service has exactly the rights that its unit says, and nothing of the supervisor.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::accounts::Account;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

/// Names of what differs from run to run.
struct Names(Vec<(String, &'static str)>);

impl Names {
    fn of(&self, text: &str) -> String {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        for word in &mut words {
            if let Some((_, name)) = self.0.iter().find(|(value, _)| value == word) {
                *word = (*name).to_owned();
            }
        }
        words.join(" ")
    }
}

/// What a descriptor is. Names of temporary files and numbers of pipes are left out.
fn descriptor(pid: u32, number: u32) -> String {
    let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap().display().to_string();
    if let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
        return socket(pid, inode);
    }
    if link.starts_with("pipe:") {
        return "pipe".to_owned();
    }
    if link.starts_with("/dev/shm/wgunicorn-") {
        return "gunicorn's heartbeat".to_owned();
    }
    link
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
fn portrait(pid: u32, names: &Names) -> String {
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
    let (first, others): (Vec<u32>, Vec<u32>) = numbers.into_iter().partition(|number| *number < 5);
    for number in first {
        writeln!(text, "descriptor {number}: {}", descriptor(pid, number)).unwrap();
    }
    let mut others: Vec<String> = others.into_iter().map(|number| descriptor(pid, number)).collect();
    others.sort_unstable();
    others.dedup();
    writeln!(text, "other descriptors: {}", others.join(", ")).unwrap();
    text
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

const MASTER: &str = "\
Umask: 0027
Uid: UID UID UID UID
Gid: GID GID GID GID
Groups: GID
CapInh: 0000000000000000
CapPrm: 0000000000000000
CapEff: 0000000000000000
CapBnd: 0000000000000000
CapAmb: 0000000000000000
NoNewPrivs: 1
SigBlk: 0000000000000000
SigIgn: SIGIGN
";

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
    let workers = wait::until(wait::LONG, "both workers", || {
        let workers = processes::children(master);
        (workers.len() == 2).then_some(workers)
    });
    curl_ok(Command::new("curl").arg(format!("http://{address}/")), master);
    let names = Names(vec![
        (place.account.uid.to_string(), "UID"),
        (place.account.gid.to_string(), "GID"),
        (master.to_string(), "PID"),
        (place.account.name.clone(), "NAME"),
        (place.path("srv").display().to_string(), "SRV"),
    ]);
    println!("{}", portrait(master, &names));
    println!("{}", portrait(workers[0], &names));
    println!("{}", environment(master, &names, &place));
    let _ = (MASTER, &stranger, Role::Keeper, Stdio::null());
    panic!("look");
}

/// Asks and expects an answer of this master.
#[track_caller]
fn curl_ok(command: &mut Command, master: u32) {
    let said = command.args(["--silent", "--show-error", "--fail", "--max-time", "20"]).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.starts_with(&format!("{master} ")), "{said:?}");
}
