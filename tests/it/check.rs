//! `check` looks at units and at the machine with the eyes of whom the services run as, and changes nothing.

use std::fs::{self, Permissions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use super::place::{Place, Who};
use super::wait;

/// Exit status, report and summary, with what differs from run to run replaced.
fn checked(
    place: &Place,
    command: &mut std::process::Command,
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let output = command.arg("check").args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap().replace(&place.root().display().to_string(), "DIR");
        text.replace(&place.account.name, "ACCOUNT")
    };
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The same without the command lines of processes that have an address.
fn unnamed(report: &str) -> String {
    let line = |line: &str| match (line.split_once(" (`"), line.split_once("`, user ")) {
        (Some((before, _)), Some((_, behind))) => format!("{before} (`PROGRAM`, user {behind}\n"),
        _ => format!("{line}\n"),
    };
    report.lines().map(line).collect()
}

/// The findings without the pictures.
fn told(report: &str) -> Vec<&str> {
    report.lines().filter(|line| !line.starts_with(' ')).collect()
}

#[test]
fn root_what_a_service_could_not_do_is_told_all_at_once() {
    let place = Place::new(Who::Root);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    fs::create_dir(place.path("closed")).unwrap();
    fs::set_permissions(place.path("closed"), Permissions::from_mode(0o700)).unwrap();
    place.write("srv/script", "#!/opt/none/python\n");
    fs::set_permissions(place.path("srv/script"), Permissions::from_mode(0o755)).unwrap();
    place.unit("a", "command = \"./script\"\n");
    place.unit("b", &format!("command = \"./run\"\ndirectory = \"{}\"\n", place.path("closed").display()));
    place.unit("c", &format!("command = \"/bin/true\"\n[socket.http]\nlisten = \"{address}\"\n"));
    place
        .write("units/d.toml", "[service]\ncommand = \"/bin/true\"\nuser = \"no-such-account\"\numsak = 1\n");
    place.write("units/e.toml", "[service]\ncommand = \"/bin/true\"\nuser = \"no-such-account\"\n");
    place.unit("good", "command = \"/bin/true\"\n");
    let units = place.path("units");
    let units = units.to_str().unwrap();
    let (code, report, summary) = checked(&place, &mut place.command(&place.binary()), &[units]);
    let pid = std::process::id();
    let expected = [
        "DIR/units/a.toml:3:11: the interpreter of `DIR/srv/script`: there is no `/opt/none/python`"
            .to_owned(),
        "hint: is it installed?".to_owned(),
        "DIR/units/b.toml:4:13: `ACCOUNT` may not enter `DIR/closed` (mode 0700, owner 0, group 0)"
            .to_owned(),
        "hint: let `ACCOUNT` in: `chown ACCOUNT DIR/closed`, or `chmod o+x` what is in the way".to_owned(),
        format!(
            "DIR/units/c.toml:5:10: binding {address}: address already in use: process {pid} (`PROGRAM`, user root) has it"
        ),
        "hint: stop it, or choose another address".to_owned(),
        "DIR/units/d.toml:3:8: there is no user `no-such-account`".to_owned(),
        "hint: `useradd --system no-such-account` makes it".to_owned(),
        "DIR/units/d.toml:4:1: unknown key `umsak` in `[service]`".to_owned(),
        "hint: did you mean `umask`?".to_owned(),
        "DIR/units/e.toml:3:8: there is no user `no-such-account`".to_owned(),
        "hint: `useradd --system no-such-account` makes it".to_owned(),
    ];
    let report = unnamed(&report);
    assert_eq!(told(&report), expected, "{report}");
    assert_eq!((code, summary.as_str()), (Some(3), "6 units: 6 problems\n"));
    // One file, and nothing wrong with it.
    let good = place.path("units/good.toml");
    let (code, report, summary) =
        checked(&place, &mut place.command(&place.binary()), &[good.to_str().unwrap()]);
    assert_eq!((code, report.as_str(), summary.as_str()), (Some(0), "", "1 unit: no problems\n"));
    // The text of all but one is good, whatever the machine is like.
    let (code, report, _) =
        checked(&place, &mut place.command(&place.binary()), &["--offline", "--json", units]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (code, &report["units"], report["problems"].as_array().map(Vec::len)),
        (Some(3), &6.into(), Some(1))
    );
    assert_eq!(report["problems"][0]["line"], 4);
}

#[test]
fn root_what_only_root_can_see_is_said_to_be_unchecked() {
    let place = Place::new(Who::Root);
    fs::create_dir_all(place.path("closed/inner")).unwrap();
    fs::set_permissions(place.path("closed"), Permissions::from_mode(0o700)).unwrap();
    let directory = place.path("closed/inner");
    let text = format!(
        "[service]\ncommand = \"/bin/true\"\nuser = \"root\"\ndirectory = \"{}\"\n",
        directory.display()
    );
    place.write("units/web.toml", &text);
    let units = place.path("units");
    let units = units.to_str().unwrap();
    let (uid, gid) = (place.account.uid, place.account.gid);
    let (code, report, summary) =
        checked(&place, &mut place.command_as(uid, gid, &[], &place.binary()), &[units]);
    let expected = [
        "DIR/units/web.toml:3:8: warning: the service runs as root",
        "hint: give the service a user of its own: its sockets are bound for it, also below port 1024",
        "not checked: web: whether `root` can enter `DIR/closed/inner`: `DIR/closed/inner`: only its owner or root can \
         look there",
    ];
    assert_eq!(told(&report), expected, "{report}");
    let whose = "checked as for root's supervisor; `--user` checks as for your own\n";
    let expected = format!("{whose}1 unit: no problems, 1 warning, 1 not checked\n");
    assert_eq!((code, summary), (Some(0), expected));
    let denied = checked(&place, &mut place.command(&place.binary()), &["--deny-warnings", units]);
    assert_eq!((denied.0, denied.2.as_str()), (Some(3), "1 unit: no problems, 1 warning\n"));
}

#[test]
fn user_own_units_are_checked_as_ones_own() {
    let place = Place::new(Who::User);
    place.unit("web", "command = \"/bin/true\"\n[socket.http]\nlisten = \"127.0.0.1:80\"\n");
    let units = place.path("units");
    let units = units.to_str().unwrap();
    let (code, report, _) = checked(&place, &mut place.command(&place.binary()), &["--user", units]);
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u32>().unwrap() > 80 {
        assert!(report.contains("binding 127.0.0.1:80: permission denied"), "{report}");
        assert_eq!(code, Some(3));
    } else {
        assert_eq!((code, report.as_str()), (Some(0), ""));
    }
}

/// What nobody can execute where it is, although its mode would let them.
#[test]
fn root_a_program_on_a_file_system_without_programs_is_told() {
    let place = Place::new(Who::Root);
    fs::create_dir(place.path("mounted")).unwrap();
    let (mounted, units) = (place.path("mounted"), place.path("units"));
    place.unit("web", &format!("command = \"{}/web\"\n", mounted.display()));
    place.write("srv/script", &format!("#!{}/web\n", mounted.display()));
    fs::set_permissions(place.path("srv/script"), Permissions::from_mode(0o755)).unwrap();
    place.unit("x", "command = \"./script\"\n");
    let script =
        "mount -t tmpfs -o noexec,mode=755 none \"$1\"; cp /bin/true \"$1/web\"; exec \"$2\" check \"$3\"";
    let mut command = place.command("unshare".as_ref());
    command.args(["--mount", "sh", "-c", script, "sh"]).args([&mounted, &place.binary(), &units]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let report =
        String::from_utf8(output.stdout).unwrap().replace(&place.root().display().to_string(), "DIR");
    let expected = [
        "DIR/units/web.toml:3:11: `DIR/mounted/web` cannot be executed: the file system at `DIR/mounted` is mounted noexec",
        "hint: put it somewhere else, or `mount -o remount,exec DIR/mounted`",
        "DIR/units/x.toml:3:11: the interpreter of `DIR/srv/script`: `DIR/mounted/web` cannot be executed: the file system at \
         `DIR/mounted` is mounted noexec",
        "hint: put it somewhere else, or `mount -o remount,exec DIR/mounted`",
    ];
    assert_eq!(told(&report), expected, "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(3));
}

/// What is told of limits before is what is found when they are to be set.
#[test]
fn root_limits_that_will_not_hold_are_told_before() {
    let mut place = Place::new(Who::Root);
    place.unit("web", "command = \"/bin/sleep 1000\"\n[limits]\nmemory-max = \"1G\"\ncpu-weight = 50\n");
    let units = place.path("units");
    let (_, report, _) = checked(&place, &mut place.command(&place.binary()), &[units.to_str().unwrap()]);
    let before: Vec<bool> = ["`memory-max` will not hold: ", "`cpu-weight` will not hold: "]
        .map(|one| report.contains(one))
        .to_vec();
    place.run();
    place.reaches("web", "running");
    let problems = place.service("web")["problems"].to_string();
    let found: Vec<bool> = ["`memory-max` does not hold: ", "`cpu-weight` does not hold: "]
        .map(|one| problems.contains(one))
        .to_vec();
    assert_eq!(before, found, "{report}{problems}");
}

/// Options may be where nobody reads them.
#[test]
fn root_files_of_servers_are_said_to_be_unread() {
    let place = Place::new(Who::Root);
    place.write("srv/gunicorn.conf.py", "workers = 2\n");
    place.unit("a", "command = \"/bin/sh\"\nserver = \"gunicorn\"\n");
    place.unit("b", "command = \"/bin/sh --ini /etc/web.ini\"\nserver = \"uwsgi\"\nstop-signal = \"INT\"\n");
    place.unit("c", "command = \"/bin/sh --config=h.toml\"\nserver = \"hypercorn\"\n");
    place.unit("d", "command = \"/bin/sh --config=h.toml\"\nserver = \"none\"\n");
    let units = place.path("units");
    let (code, report, summary) =
        checked(&place, &mut place.command(&place.binary()), &[units.to_str().unwrap()]);
    let expected = [
        "not checked: a: what `DIR/srv/gunicorn.conf.py` says: options in files of a server are not read",
        "not checked: b: what `/etc/web.ini` says: options in files of a server are not read",
        "not checked: c: what `h.toml` says: options in files of a server are not read",
    ];
    assert_eq!(told(&report), expected, "{report}");
    assert_eq!((code, summary.as_str()), (Some(0), "4 units: no problems, 3 not checked\n"));
}

/// The system's units are checked with the account that their log files want.
#[test]
fn root_the_account_of_the_logger_is_missed() {
    let place = Place::new(Who::Root);
    place.unit("web", "command = \"/bin/true\"\n");
    let mut command = place.command(&place.binary());
    command.env("SUPERVISE_UNITS", place.path("units"));
    let (_, report, _) = checked(&place, &mut command, &[]);
    let is_there =
        fs::read_to_string("/etc/passwd").unwrap().lines().any(|line| line.starts_with("supervise-log:"));
    let expected: &[&str] = if is_there {
        &[]
    } else {
        &[
            "warning: there is no user `supervise-log`: log files are written with root's uid",
            "hint: `useradd --system --shell /usr/sbin/nologin supervise-log` makes it",
        ]
    };
    assert_eq!(told(&report), expected, "{report}");
}

/// A worker that begins later goes where the link leads then.
#[test]
fn root_a_change_of_directory_through_a_link_is_told() {
    let place = Place::new(Who::Root);
    fs::create_dir(place.path("release")).unwrap();
    std::os::unix::fs::symlink("release", place.path("current")).unwrap();
    for (name, directory) in [("linked", "current"), ("plain", "release")] {
        let directory = place.path(directory);
        let command = format!("\"/bin/sh --chdir {}\"", directory.display());
        place.unit(name, &format!("command = {command}\nserver = \"gunicorn\"\n"));
    }
    let units = place.path("units");
    let (code, report, _) = checked(&place, &mut place.command(&place.binary()), &[units.to_str().unwrap()]);
    let expected = [
        "DIR/units/linked.toml:3:11: warning: `--chdir DIR/current` follows a link anew for each worker: one that starts after \
         a release has moved runs new code in an old generation",
        "hint: write `directory = \"DIR/current\"` instead, which is resolved once for each generation",
    ];
    assert_eq!((told(&report), code), (expected.to_vec(), Some(0)), "{report}");
}

/// The proxy of this machine is named where it does not get through.
#[test]
fn root_a_proxy_that_cannot_connect_is_named() {
    let place = Place::new(Who::Root);
    place.unit("web", "command = \"/bin/true\"\n[socket.http]\nlisten = \"/run/bagels-it/http.sock\"\n");
    fs::create_dir(place.path("closed")).unwrap();
    fs::set_permissions(place.path("closed"), Permissions::from_mode(0o700)).unwrap();
    let closed = place.path("closed/http.sock");
    place.unit(
        "closed",
        &format!(
            "command = \"/bin/true\"\n[socket.http]\nlisten = \"{}\"\ngroup = \"www-data\"\n",
            closed.display()
        ),
    );
    let units = place.path("units");
    let (code, report, _) = checked(&place, &mut place.command(&place.binary()), &[units.to_str().unwrap()]);
    let expected = [
        "DIR/units/closed.toml:5:10: warning: group `www-data` may not enter `DIR/closed` (mode 0700, owner 0, group 0), so it \
         cannot connect",
        "hint: `chmod o+x` it, or put the socket below /run: `/run/closed/http.sock`",
        "DIR/units/web.toml:5:10: warning: `www-data` cannot connect to it (mode 0660, no `group`)",
        "hint: `group = \"www-data\"` lets it, if it is the proxy in front",
    ];
    assert_eq!((told(&report), code), (expected.to_vec(), Some(0)), "{report}");
}

/// Units with many mistakes: all of them at once, in the order of files and lines, each once.
#[test]
fn root_all_mistakes_of_many_units_are_told_at_once() {
    let place = Place::new(Who::Root);
    let (taken, datagrams) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (taken, udp) = (taken.local_addr().unwrap(), datagrams.local_addr().unwrap());
    let live = place.path("live.sock");
    let _live = UnixListener::bind(&live).unwrap();
    place.write("file", "");
    place.write("bad.env", "A=1\nsecret\n");
    nix::unistd::mkfifo(&place.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, text) in UNITS {
        let text = text.replace("DIR", place.root().to_str().unwrap());
        let text = text.replace("TAKEN", &taken.to_string()).replace("UDP", &udp.to_string());
        place.write(&format!("units/{name}.toml"), &text);
    }
    fs::write(place.path("units/d.toml"), b"[service]\n\xff").unwrap();
    let open = place.path("units/f.toml");
    fs::set_permissions(&open, Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::chown(&open, Some(place.account.uid), None).unwrap();
    let units = place.path("units");
    let (code, report, summary) =
        checked(&place, &mut place.command(&place.binary()), &[units.to_str().unwrap()]);
    let report = unnamed(&report).replace(&format!("process {} (", std::process::id()), "process PID (");
    let report = report.replace(&taken.to_string(), "TAKEN").replace(&udp.to_string(), "UDP");
    // The carets are as wide as what differs.
    let report: String =
        report.lines().filter(|line| !line.ends_with('^')).map(|line| format!("{line}\n")).collect();
    assert_eq!(report, include_str!("check.expected"), "{report}");
    assert_eq!((code, summary.as_str()), (Some(3), "8 units: 27 problems, 4 warnings\n"));
}

const UNITS: [(&str, &str); 7] = [
    (
        "a",
        "[service]\ncommand = \"/opt/none/web\"\nuser = \"no-such-account\"\ngroup = \"no-such-group\"\n\
         directory = \"DIR/nowhere\"\nenvironment-files = [\"DIR/missing.env\"]\n\
         [socket.http]\nlisten = \"TAKEN\"\n[dependencies]\nrequires = [\"b\"]\n",
    ),
    (
        "b",
        "[service]\ncommand = \"./web\"\nuser = \"root\"\numsak = \"022\"\ndirectory = \"DIR/gone\"\n\
         [socket.http]\nlisten = \"TAKEN\"\ngroup = \"no-such-group\"\n[dependencies]\nrequires = [\"a\"]\n",
    ),
    // Where `./web` would be is not known.
    ("c", "[service]\ncommand = \"./web\"\ndirectry = \"DIR\"\nuser = \"no-such-account\"\n"),
    ("e", "[service]\ncommand = \"/bin/true\nuser = \"no-such-account\"\n"),
    ("f", "[service]\ncommand = \"/bin/true\"\n[limits]\nnofile = 10\n"),
    (
        "g",
        "[service]\ncommand = \"/bin/true\"\nuser = \"no-such-account\"\n\
         environment-files = [\"DIR/bad.env\", \"DIR/pipe\"]\n[socket.abstract]\nlisten = \"@web\"\n\
         [socket.file]\nlisten = \"DIR/file\"\nmode = \"0666\"\n[socket.below]\nlisten = \"DIR/file/web.sock\"\nmode = \"0666\"\n\
         [socket.live]\nlisten = \"DIR/live.sock\"\nmode = \"0666\"\n[socket.udp]\nlisten = \"UDP\"\ntype = \"datagram\"\n",
    ),
    ("Bad Name", "[service]\ncommand = \"/opt/none/web\"\nuser = \"root\"\n"),
];

/// What `check` says of a unit and what a start then fails with are the same words, with the same remedy.
fn same_words(place: &mut Place, name: &str, check: &[&str]) {
    let (code, report, _) = checked(place, &mut place.command(&place.binary()), check);
    let place_of = |line: &str| line.split_once(": ").map(|(_, text)| text.to_owned());
    let before: Vec<String> = told(&report)
        .into_iter()
        .map(|line| if line.starts_with("hint: ") { line.to_owned() } else { place_of(line).unwrap() })
        .collect();
    assert_eq!(code, Some(3), "{report}");
    place.run();
    let root = place.root().display().to_string();
    let found = || -> Vec<String> {
        let problems = place.service(name)["problems"].clone();
        let texts: Vec<&str> = problems.as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines.map(|line| line.replace(&root, "DIR").replace(&place.account.name, "ACCOUNT")).collect()
    };
    // What is bound with the service's rights is told when that has been tried.
    if wait::within(wait::LONG, || (found() == before).then_some(())).is_none() {
        panic!("before: {before:#?}\nat the start: {:#?}", found());
    }
}

/// Sockets that others than root decide on are bound with the service's rights, which are not enough for these.
#[test]
fn root_what_the_services_rights_do_not_allow_at_a_socket_is_told_as_at_the_start() {
    let mut place = Place::new(Who::Root);
    fs::create_dir(place.path("other")).unwrap();
    std::os::unix::fs::chown(place.path("other"), Some(1), Some(1)).unwrap();
    place.write("file", "");
    let mut sockets = String::new();
    for (name, path, more) in [
        ("group", "work/group.sock", "group = \"www-data\"\n"),
        ("owner", "work/owner.sock", "user = \"daemon\"\nmode = \"0666\"\n"),
        ("made", "new/made.sock", "group = \"www-data\"\n"),
        ("closed", "other/closed.sock", "mode = \"0666\"\n"),
        ("file", "file/web.sock", "mode = \"0666\"\n"),
        ("fine", "work/fine.sock", "mode = \"0666\"\n"),
    ] {
        let path = place.path(path);
        sockets += &format!("[socket.{name}]\nlisten = \"{}\"\n{more}", path.display());
    }
    place.unit("web", &format!("command = \"/bin/sleep 1000\"\n{sockets}"));
    let units = place.path("units").display().to_string();
    same_words(&mut place, "web", &[&units]);
}

/// A directory that is made for the service is the service's when the socket is bound.
#[test]
fn root_a_group_in_the_services_own_directory_is_told_before_that_is_there() {
    let place = Place::new(Who::Root);
    let (own, kept) = ("supervise-it-own", "supervise-it-own/kept");
    let unit = |groups: &str| {
        format!(
            "command = \"/bin/true\"\n{groups}runtime-directory = \"{own}\"\nstate-directory = \"{own}\"\n\
             [socket.a]\nlisten = \"/run/{own}/a.sock\"\ngroup = \"www-data\"\n\
             [socket.b]\nlisten = \"/var/lib/{kept}/b.sock\"\ngroup = \"www-data\"\n"
        )
    };
    place.unit("web", &unit(""));
    place.unit("with", &unit("groups = [\"www-data\"]\n").replace("supervise-it-own", "supervise-it-with"));
    let units = place.path("units");
    let (code, report, _) = checked(&place, &mut place.command(&place.binary()), &[units.to_str().unwrap()]);
    let hint = "hint: it is bound with the rights of the service's user, who can give it to its own groups alone: list the group in \
                `groups`, or put the socket into a directory of root's";
    let expected = [
        "DIR/units/web.toml:8:9: binding /run/supervise-it-own/a.sock: operation not permitted",
        hint,
        "DIR/units/web.toml:11:9: binding /var/lib/supervise-it-own/kept/b.sock: operation not permitted",
        hint,
    ];
    assert_eq!((told(&report), code), (expected.to_vec(), Some(3)), "{report}");
}

/// What an ordinary user's supervisor may not set.
#[test]
fn user_limits_above_ones_own_are_told_as_at_the_start() {
    let own = |name: &str| {
        let text = fs::read_to_string("/proc/self/limits").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.split_ascii_whitespace().nth(1).unwrap().to_owned()
    };
    let most_open: u64 = own("Max open files").parse().unwrap();
    for (name, limits) in [("open", format!("nofile = {}", most_open + 1)), ("nice", "nice = -5".to_owned())]
    {
        let mut place = Place::new(Who::User);
        place.unit(name, &format!("command = \"/bin/sleep 1000\"\n[limits]\n{limits}\n"));
        let units = place.path("units").display().to_string();
        same_words(&mut place, name, &["--user", &units]);
    }
}

/// Groups that an ordinary user is not in.
#[test]
fn user_groups_of_others_are_told_as_at_the_start() {
    let group = "group = \"daemon\"\n";
    for unit in [
        format!("command = \"/bin/sleep 1000\"\n{group}"),
        "command = \"/bin/sleep 1000\"\ngroups = [\"daemon\"]\n".to_owned(),
        format!("command = \"/bin/sleep 1000\"\n[socket.a]\nlisten = \"DIR/srv/a.sock\"\n{group}"),
        "command = \"/bin/sleep 1000\"\n[socket.a]\nlisten = \"/usr/a.sock\"\nmode = \"0666\"\n".to_owned(),
    ] {
        let mut place = Place::new(Who::User);
        place.unit("web", &unit.replace("DIR", place.root().to_str().unwrap()));
        let units = place.path("units").display().to_string();
        same_words(&mut place, "web", &["--user", &units]);
    }
}

/// A supervisor that has an address has it for one of its services: for this very unit nothing is wrong.
#[test]
fn root_an_address_that_a_supervisor_has_is_told_with_its_service() {
    let mut place = Place::new(Who::Root);
    let port = super::place::free_port();
    let path = place.path("web.sock");
    let sockets = format!(
        "[socket.http]\nlisten = \"127.0.0.1:{port}\"\n[socket.local]\nlisten = \"{}\"\nmode = \"0666\"\n",
        path.display()
    );
    let text = format!("command = \"/bin/sleep 1000\"\n{sockets}");
    place.unit("web", &text);
    place.run();
    place.reaches("web", "running");
    let units = place.path("units").display().to_string();
    let (code, report, summary) = checked(&place, &mut place.command(&place.binary()), &[&units]);
    assert_eq!((code, report.as_str(), summary.as_str()), (Some(0), "", "1 unit: no problems\n"));
    // The same text elsewhere is another supervisor's unit.
    fs::create_dir_all(place.path("other/units")).unwrap();
    let unit = fs::read_to_string(place.path("units/web.toml")).unwrap();
    place.write("other/units/web.toml", &unit);
    let others = place.path("other/units").display().to_string();
    let (code, report, _) = checked(&place, &mut place.command(&place.binary()), &[&others]);
    let run = format!("{}/run", place.root().display()).replace(&place.root().display().to_string(), "DIR");
    let who =
        format!("address already in use: a supervisor with the runtime directory `{run}` has it for `web`");
    let hint =
        format!("hint: give one of them another address, or `supervise --runtime-dir {run} stop web` first");
    let expected = [
        format!("DIR/other/units/web.toml:5:10: binding 127.0.0.1:{port}: {who}"),
        hint.clone(),
        format!("DIR/other/units/web.toml:7:10: binding DIR/web.sock: {who}"),
        hint,
    ];
    assert_eq!((told(&report), code), (expected.iter().map(String::as_str).collect(), Some(3)), "{report}");
    // Unless it is the one that is meant.
    let run = place.path("run").display().to_string();
    let meant = ["--runtime-dir", &run, &others];
    let (code, report, _) = checked(&place, &mut place.command(&place.binary()), &meant);
    assert_eq!((code, report.as_str()), (Some(0), ""));
    // Another unit of it would have to wait until this one is stopped, or has given it up.
    place.unit("api", &format!("command = \"/bin/true\"\n[socket.http]\nlisten = \"127.0.0.1:{port}\"\n"));
    let api = place.path("units/api.toml").display().to_string();
    let (code, report, _) = checked(&place, &mut place.command(&place.binary()), &[&api]);
    let expected = [
        &format!("DIR/units/api.toml:5:10: binding 127.0.0.1:{port}: address already in use: `web` has it"),
        "hint: give one of them another address, or `supervise stop web` first",
    ];
    assert_eq!((told(&report), code), (expected.to_vec(), Some(3)), "{report}");
    place.unit("web", "command = \"/bin/sleep 1000\"\n");
    let (code, report, _) = checked(&place, &mut place.command(&place.binary()), &[&units]);
    assert_eq!((code, report.as_str()), (Some(0), ""));
}
