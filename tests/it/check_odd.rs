//! `check` with what is no unit file: it says so of each, in bounded time and memory, and opens nothing that it need not.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use super::place::{Place, Who};

/// Exit status, report and what is said besides.
fn said(place: &Place, output: &Output) -> (Option<i32>, String, String) {
    let root = place.root().display().to_string();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&root, "DIR");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn check(place: &Place, mut command: Command, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command.arg("check").args(arguments).stdin(Stdio::null()).output().unwrap();
    said(place, &output)
}

const NO_UNIT: &str =
    "hint: a unit is a file; move what is called `.toml` and is none out of this directory\n";

#[test]
fn root_what_is_no_unit_file_is_told_as_what_it_is() {
    let place = Place::new(Who::Root);
    fs::remove_file(place.path("defaults.toml")).unwrap();
    let unit = |name: &str| place.path("units").join(name);
    nix::unistd::mkfifo(&unit("a-pipe.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(unit("b-socket.toml")).unwrap();
    fs::create_dir(unit("c-directory.toml")).unwrap();
    symlink("/dev/full", unit("d-device.toml")).unwrap();
    File::create(unit("e-large.toml")).unwrap().set_len(100 << 20).unwrap();
    symlink("g-loop.toml", unit("f-loop.toml")).unwrap();
    symlink("f-loop.toml", unit("g-loop.toml")).unwrap();
    symlink("nowhere", unit("h-dangling.toml")).unwrap();
    fs::write(unit("i-bytes.toml"), b"[service]\n\n\xff").unwrap();
    fs::write(unit("j-nul.toml"), b"[service]\ncommand = \"a\0b\"\nuser = \"root\"\n").unwrap();
    let text = "[service]\ncommand = \"/bin/true\"\nuser = \"daemon\"\n";
    fs::write(place.path("units").join(OsStr::from_bytes(b"k\xff.toml")), text).unwrap();
    fs::write(unit("l\n\u{1b}[2J.toml"), text).unwrap();
    let units = place.path("units").display().to_string();
    let mut command = place.command("sh".as_ref());
    // 300 MB of address space, and a minute of the processor.
    command.args(["-c", "ulimit -v 300000; ulimit -t 60; exec \"$@\"", "sh"]).arg(place.binary());
    let (code, report, summary) = check(&place, command, &[&units]);
    let name = "hint: a unit's name starts with `a` to `z` or a digit, goes on with those, `.`, `_` and `-`, and has at most 63 \
                characters\n";
    let expected = [
        "DIR/units/a-pipe.toml: a named pipe\n",
        NO_UNIT,
        "DIR/units/b-socket.toml: a socket\n",
        NO_UNIT,
        "DIR/units/c-directory.toml: a directory\n",
        NO_UNIT,
        "warning: DIR/units/d-device.toml: `/dev/full` can be written by others than root and the supervisor's user\n",
        "hint: chown root and chmod go-w it\n",
        "DIR/units/d-device.toml: a device\n",
        NO_UNIT,
        "DIR/units/e-large.toml: longer than 262144 bytes\n",
        "hint: units are small; is this one?\n",
        "DIR/units/f-loop.toml: a symbolic link that leads back to itself\n",
        "hint: mend the link, or remove it\n",
        "DIR/units/g-loop.toml: a symbolic link that leads back to itself\n",
        "hint: mend the link, or remove it\n",
        "DIR/units/h-dangling.toml: a symbolic link to what is not there\n",
        "hint: mend the link, or remove it\n",
        "DIR/units/i-bytes.toml:3: not UTF-8\n",
        "hint: save it as UTF-8\n",
        "DIR/units/j-nul.toml:2:13: not valid TOML: invalid basic string, expected non-double-quote visible characters, `\\`\n",
        "  2 | command = \"a\\u{0}b\"\n    |             ^^^^^\n",
        "DIR/units/j-nul.toml:3:8: warning: the service runs as root\n",
        "  3 | user = \"root\"\n    |        ^^^^^^\n",
        "hint: give the service a user of its own: its sockets are bound for it, also below port 1024\n",
        "DIR/units/k\u{fffd}.toml:1:1: `k\u{fffd}` cannot be the name of a unit\n",
        "  1 | [service]\n    | ^\n",
        name,
        "DIR/units/l\\n\\u{1b}[2J.toml:1:1: `l\\n\\u{1b}[2J` cannot be the name of a unit\n",
        "  1 | [service]\n    | ^\n",
        name,
    ];
    assert_eq!(report, expected.concat());
    assert_eq!((code, summary.as_str()), (Some(3), "12 units: 12 problems, 2 warnings\n"));
}

#[test]
fn root_what_cannot_be_read_or_written_is_told_with_its_reason() {
    let place = Place::new(Who::Root);
    let text = "[service]\ncommand = \"/bin/true\"\nuser = \"daemon\"\n";
    place.write("units/web.toml", text);
    fs::set_permissions(place.path("units/web.toml"), Permissions::from_mode(0o600)).unwrap();
    let units = place.path("units").display().to_string();
    let (uid, gid) = (place.account.uid, place.account.gid);
    let other = || place.command_as(uid, gid, &[], &place.binary());
    let (code, report, _) = check(&place, other(), &[&units]);
    let expected = "DIR/units/web.toml: permission denied\n\
                    hint: let whoever runs supervise read it, and enter every directory above\n";
    assert_eq!((code, report.as_str()), (Some(3), expected));
    fs::set_permissions(place.path("units"), Permissions::from_mode(0o700)).unwrap();
    let (code, report, error) = check(&place, other(), &[&format!("{units}/web.toml")]);
    let expected = "supervise: `DIR/units/web.toml`: permission denied\n\
                    hint: this user may not enter a directory above it: check as root, or as its owner\n";
    assert_eq!((code, report.as_str(), error.as_str()), (Some(2), "", expected));
    // What is no file of that name is not said to be missing.
    let (code, _, error) = check(&place, place.command(&place.binary()), &[&format!("{units}/web.toml/")]);
    assert_eq!((code, error.as_str()), (Some(2), "supervise: `DIR/units/web.toml/`: not a directory\n"));
    // A disk without room.
    let full = File::options().write(true).open("/dev/full").unwrap();
    place.write("units/web.toml", "[service]\n");
    let mut command = place.command(&place.binary());
    let output = command.args(["check", &units]).stdin(Stdio::null()).stdout(full).output().unwrap();
    let (code, _, error) = said(&place, &output);
    assert_eq!((code, error.as_str()), (Some(1), "supervise: writing to stdout: no space left on device\n"));
    // A directory that has gone has no units, and one that has none is worth a word.
    fs::create_dir(place.path("gone")).unwrap();
    let mut command = place.command("sh".as_ref());
    command.arg("-c").arg("cd \"$1\" && rmdir \"$1\" && shift && exec \"$@\" check .").arg("sh");
    let output = command.arg(place.path("gone")).arg(place.binary()).output().unwrap();
    let expected = "warning: there is no unit\nhint: a unit is a file `NAME.toml` in `.`\n".to_owned();
    let (code, report, summary) = said(&place, &output);
    assert_eq!((code, report), (Some(0), expected));
    assert_eq!(summary, "0 units: no problems, 1 warning\n");
}

/// What a terminal would obey is in paths and words of a unit that its owner wrote, and he is not who reads of it.
#[test]
fn user_no_terminal_obeys_what_is_said_of_a_unit() {
    let mut place = Place::new(Who::User);
    let text = "command = \"a\\u001b[31mb\"\ndirectory = \"/no\\u001b[31mwhere\"\nenvironment-files = [\"/no\\u001b[2J\"]\n";
    place.unit("web", text);
    let units = place.path("units");
    let (code, report, _) = check(&place, place.command(&place.binary()), &[&units.display().to_string()]);
    assert_eq!(code, Some(3), "{report}");
    let is_plain = |text: &str| text.chars().all(|one| one == '\n' || !one.is_control());
    assert!(is_plain(&report) && report.contains("`/no\\u{1b}[31mwhere` does not exist\n"), "{report:?}");
    place.run();
    place.reaches("web", "backing-off");
    let said = place.stderr();
    assert!(is_plain(&said) && said.contains("\\u{1b}"), "{said:?}");
    let page = place.ask(&["status", "web"]).out + &place.ask(&["why", "web"]).out;
    let page = page + &place.ask(&["restart", "web"]).err + &place.ask(&["show", "web"]).out;
    assert!(is_plain(&page), "{page:?}");
}
