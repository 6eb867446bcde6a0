//! A launch that fails is told with what stands in its way, as the service's own user finds it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::{Place, Who};

/// A unit, what it is to be told, and the remedy.
struct Case {
    name: &'static str,
    service: String,
    said: String,
    hint: String,
}

/// Something mounted for a test.
struct Mount(PathBuf);

impl Mount {
    fn noexec(at: &Path) -> Self {
        fs::create_dir(at).unwrap();
        let made =
            Command::new("mount").args(["-t", "tmpfs", "-o", "noexec,mode=755", "tmpfs"]).arg(at).status();
        assert!(made.unwrap().success(), "mounting on {}", at.display());
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg(&self.0).status();
        assert!(gone.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn file(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The head of a program for a machine that is nowhere near.
fn foreign() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18]) = (2, 183);
    bytes
}

/// A real program whose loader is not there.
fn orphan() -> Vec<u8> {
    let mut bytes = fs::read("/bin/sleep").unwrap();
    let name = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = bytes.windows(name.len()).position(|part| part == name).unwrap();
    bytes[at + name.len() - 2] = b'9';
    bytes
}

fn program(name: &'static str, path: &Path, reason: &str, hint: String) -> Case {
    let path = path.display();
    Case {
        name,
        service: format!("command = [\"{path}\"]\n"),
        said: format!("executing the command: {path}: {reason}"),
        hint,
    }
}

fn directory(name: &'static str, path: &Path, reason: &str, hint: String) -> Case {
    let path = path.display();
    Case {
        name,
        service: format!("command = [\"/bin/true\"]\ndirectory = \"{path}\"\n"),
        said: format!("changing to the working directory: {path}: {reason}"),
        hint,
    }
}

fn cases(place: &Place, user: &str) -> Vec<Case> {
    let at = |name: &str| place.path("bin").join(name);
    let (missing, denied, format) = ("no such file or directory", "permission denied", "exec format error");
    file(&at("snake"), b"#! /nonexistent/python9 -u\nprint()\n", 0o755);
    file(&at("windows"), b"#!/bin/sh\r\nexit\r\n", 0o755);
    file(&at("plain"), b"#!/bin/sh\n", 0o644);
    file(&at("above-plain"), format!("#!{}\n", at("plain").display()).as_bytes(), 0o755);
    file(&at("bare"), b"echo hello\n", 0o755);
    file(&at("nameless"), b"#!\necho hello\n", 0o755);
    file(&at("empty"), b"", 0o755);
    file(&at("foreign"), &foreign(), 0o755);
    file(&at("orphan"), &orphan(), 0o755);
    fs::create_dir_all(at("closed/inner")).unwrap();
    file(&at("closed/program"), b"#!/bin/sh\n", 0o755);
    // Root's own directory, and one that its owner may not enter either.
    fs::set_permissions(at("closed"), Permissions::from_mode(0o000)).unwrap();
    let closed = format!("{user} may not search the directory `{}`", at("closed").display());
    let none = format!("the directory `{}` does not exist", at("none").display());
    let no_directory = format!("`{}` is no directory", at("bare").display());
    let interpreter =
        format!("its first line names `{}`, which {user} may not execute", at("plain").display());
    vec![
        program("snake", &at("snake"), missing, "its first line names `/nonexistent/python9`, which does not exist".into()),
        program("windows", &at("windows"), missing, "its first line names `/bin/sh\\r`: its lines end in CR LF, and the CR counts as part of the name".into()),
        program("interpreter", &at("above-plain"), denied, interpreter),
        program("orphan", &at("orphan"), missing, "it needs the loader `/lib64/ld-linux-x86-64.so.9`, which does not exist".into()),
        program("plain", &at("plain"), denied, format!("its mode is 0644; {user} may not execute it")),
        program("itself", &place.path("srv"), denied, "it is a directory".into()),
        program("bare", &at("bare"), format, "a script needs a first line such as `#!/bin/sh`".into()),
        program("nameless", &at("nameless"), format, "its first line names no interpreter behind `#!`".into()),
        program("empty", &at("empty"), format, "the file is empty".into()),
        program("foreign", &at("foreign"), format, "it is a program for aarch64, and this machine does not run it".into()),
        program("below-closed", &at("closed/program"), denied, closed.clone()),
        program("below-none", &at("none/deep/program"), missing, none.clone()),
        directory("in-closed", &at("closed/inner"), denied, closed.clone()),
        directory("closed", &at("closed"), denied, closed),
        directory("in-none", &at("none/deep"), missing, none),
        directory("in-file", &at("bare/deep"), "not a directory", no_directory),
    ]
}

/// Starts all of them, and compares what is said everywhere.
fn told(place: &mut Place, cases: &[Case]) {
    for case in cases {
        let restart = "[restart]\ndelay = \"1h\"\nmax-delay = \"1h\"\n";
        place.unit(case.name, &format!("{}{restart}", case.service));
    }
    place.run();
    for Case { name, said, hint, .. } in cases {
        let service = place.reaches(name, "backing-off");
        let whole = format!("{said}\nhint: {hint}");
        assert_eq!(service["problems"], serde_json::json!([whole]), "{name}");
        let why = place.order(&["why", name]).out;
        assert!(why.contains(said) && why.contains(hint), "{why}");
        let started = place.ask(&["start", name]);
        assert_eq!(started.code, Some(1), "{started:?}");
        assert!(started.err.contains(said) && started.err.contains(hint), "{started:?}");
    }
}

#[test]
fn root_a_failed_launch_names_what_stands_in_its_way() {
    let mut place = Place::new(Who::Root);
    let user = format!("user {}", place.account.uid);
    let mut cases = cases(&place, &user);
    let mount = Mount::noexec(&place.path("mount"));
    file(&place.path("mount/program"), b"#!/bin/sh\n", 0o755);
    let hint = format!("the file system at `{}` is mounted noexec", place.path("mount").display());
    cases.push(program("noexec", &place.path("mount/program"), "permission denied", hint));
    told(&mut place, &cases);
    drop(mount);
}

#[test]
fn user_a_failed_launch_names_what_stands_in_its_way() {
    let mut place = Place::new(Who::User);
    let cases = cases(&place, "this user");
    told(&mut place, &cases);
}

#[test]
fn root_too_many_processes_are_told_with_the_limit() {
    let mut place = Place::new(Who::Root);
    // The kernel counts before the new one is the user's.
    for name in ["one", "another"] {
        place.unit(name, "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n");
    }
    place.unit("two", "command = [\"/bin/sleep\", \"1000\"]\nstart = \"manual\"\n[limits]\nnproc = 1\n");
    place.run();
    place.reaches("one", "running");
    place.reaches("another", "running");
    let said = place.ask(&["start", "two"]);
    let expected =
        format!("user {} has as many processes and threads as `nproc` lets it have: 1", place.account.uid);
    assert!(said.code == Some(1) && said.err.contains(&expected), "{said:?}");
}

#[test]
fn user_a_file_that_is_being_written_is_tried_again_and_then_told() {
    let mut place = Place::new(Who::User);
    let path = place.path("bin/busy");
    fs::copy("/bin/sleep", &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    place.unit(
        "busy",
        &format!("command = [\"{}\", \"1000\"]\nstart = \"manual\"\nsettle = \"10ms\"\n", path.display()),
    );
    place.run();
    let writer = File::options().append(true).open(&path).unwrap();
    let said = place.ask(&["start", "busy"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("text file busy") && said.err.contains("somebody is still writing the file"),
        "{said:?}"
    );
    drop(writer);
    place.order(&["restart", "busy"]);
    place.reaches("busy", "running");
}
