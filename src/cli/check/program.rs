//! USER. Whether a command could be executed by whom it would run as: the program is found, may be executed, and so
//! may the interpreter that its first line names. Never runs one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::walk::{Barrier, Person, Want};
use crate::plan::candidates;
use crate::sys::files;

/// Interpreters of interpreters that the kernel follows (binfmt_script).
const MOST_NESTED: u32 = 5;
/// Bytes of a first line that the kernel reads.
const FIRST_LINE: usize = 256;

/// Why it could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It could not: why, and what to do.
    No(String, String),
    /// We cannot see.
    Unseen(String),
}

/// Checks the program of a command that begins with `word`.
pub fn check(word: &str, path: &str, directory: &Path, who: &Person) -> Result<(), Unfit> {
    let program = found(word, path, directory, who)?;
    first_line(&program, path, who, MOST_NESTED)
}

/// The file that would be executed: the first that can be, as execvp(3) has it.
fn found(word: &str, path: &str, directory: &Path, who: &Person) -> Result<PathBuf, Unfit> {
    let mut closed = None;
    for candidate in candidates(word, path) {
        let whole = directory.join(&candidate);
        match who.reaches(&whole, Want::Execute) {
            Ok(program) => return executable(program),
            Err(Barrier::Missing(_)) => {}
            Err(barrier) => drop(closed.get_or_insert(barrier)),
        }
    }
    match closed {
        Some(Barrier::Unseen(part, why)) => Err(Unfit::Unseen(format!("`{}`: {why}", part.display()))),
        Some(barrier @ Barrier::Closed { want: Want::Execute, .. }) => Err(Unfit::No(
            format!("`{}` {barrier}", who.name),
            "make it executable: `chmod a+x`, or name its interpreter first".to_owned(),
        )),
        Some(barrier @ Barrier::Closed { .. }) => {
            Err(Unfit::No(format!("`{}` {barrier}", who.name), format!("let `{}` in", who.name)))
        }
        Some(barrier) => Err(Unfit::No(barrier.to_string(), "name a program".to_owned())),
        None => Err(missing(word, path, directory)),
    }
}

/// What is mounted so that nothing of it is executed is executed for nobody.
fn executable(program: PathBuf) -> Result<PathBuf, Unfit> {
    let Some(mount) = files::noexec_mount(&program) else { return Ok(program) };
    let mount = mount.display();
    Err(Unfit::No(
        format!("`{}` cannot be executed: the file system at `{mount}` is mounted noexec", program.display()),
        format!("put it somewhere else, or `mount -o remount,exec {mount}`"),
    ))
}

fn missing(word: &str, path: &str, directory: &Path) -> Unfit {
    if word.contains('/') {
        let whole = directory.join(word);
        let hint = if word.starts_with('/') {
            "is it installed?".to_owned()
        } else {
            format!("a relative path is taken from `directory`, `{}`", directory.display())
        };
        return Unfit::No(format!("there is no `{}`", whole.display()), hint);
    }
    // Where virtual environments and bundles put programs.
    let usual = ["bin", "venv/bin", ".venv/bin", "env/bin", "node_modules/.bin", "vendor/bin"];
    let near = usual.iter().map(|place| format!("{place}/{word}")).find(|one| directory.join(one).is_file());
    let hint = match near {
        Some(near) => format!("there is `{}`: write `{near}`", directory.join(&near).display()),
        None => "give its path, or set `PATH` in `[service.environment]`".to_owned(),
    };
    Unfit::No(format!("there is no `{word}` in the service's PATH: {path}"), hint)
}

/// What the kernel does with the first bytes of a file (execve(2)).
fn first_line(program: &Path, path: &str, who: &Person, left: u32) -> Result<(), Unfit> {
    let mut bytes = [0; FIRST_LINE];
    let read = File::open(program).and_then(|mut file| file.read(&mut bytes));
    let Ok(count) = read else {
        return Err(Unfit::Unseen(format!("`{}`: this user cannot read it", program.display())));
    };
    let head = bytes.get(..count).unwrap_or_default();
    let shown = program.display();
    if head.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let Some(line) = head.strip_prefix(b"#!") else {
        return Err(Unfit::No(
            format!("`{shown}` is no program: it begins with neither ELF nor `#!`"),
            "put the interpreter into its first line, as in `#!/bin/sh`, or before it in `command`"
                .to_owned(),
        ));
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    if line.ends_with('\r') {
        return Err(Unfit::No(
            format!("`{shown}`: its first line ends as lines of Windows do, so its interpreter is not found"),
            format!("`sed -i 's/\\r$//' {shown}`"),
        ));
    }
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else {
        return Err(Unfit::No(
            format!("`{shown}`: no interpreter in its first line"),
            "write one, as in `#!/bin/sh`".to_owned(),
        ));
    };
    if left == 0 {
        return Err(Unfit::No(
            format!("`{shown}`: interpreters of interpreters without end"),
            "name the real program".to_owned(),
        ));
    }
    let of = |unfit| in_script(unfit, &shown.to_string());
    let real = found(interpreter, path, Path::new("/"), who).map_err(of)?;
    first_line(&real, path, who, left - 1).map_err(of)?;
    if Path::new(interpreter).file_name().is_some_and(|name| name == "env") {
        let next = words.find(|word| !word.starts_with('-') && !word.contains('='));
        if let Some(next) = next {
            found(next, path, Path::new("/"), who).map_err(of)?;
        }
    }
    Ok(())
}

fn in_script(unfit: Unfit, script: &str) -> Unfit {
    match unfit {
        Unfit::No(text, hint) => Unfit::No(format!("the interpreter of `{script}`: {text}"), hint),
        Unfit::Unseen(what) => Unfit::Unseen(format!("the interpreter of `{script}`: {what}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place() -> tempfile::TempDir {
        let dir = tempfile::Builder::new().prefix("supervise-program-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        dir
    }

    fn write(dir: &Path, name: &str, text: &str, mode: u32) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn said(word: &str, dir: &Path) -> (String, String) {
        let who = Person { name: "al".into(), uid: 54_321, groups: vec![54_321] };
        match check(word, "/usr/bin:/bin", dir, &who) {
            Ok(()) => (String::new(), String::new()),
            Err(Unfit::No(text, hint)) => {
                let place = dir.display().to_string();
                (text.replace(&place, "DIR"), hint.replace(&place, "DIR"))
            }
            Err(Unfit::Unseen(what)) => (format!("unseen: {what}"), String::new()),
        }
    }

    #[test]
    fn a_program_is_followed_to_its_interpreter() {
        let dir = place();
        write(dir.path(), "good", "#!/bin/sh\n", 0o755);
        write(dir.path(), "env", "#!/usr/bin/env -S sh -e\n", 0o755);
        write(dir.path(), "nested", &format!("#!{}/good x\n", dir.path().display()), 0o755);
        for word in ["./good", "sh", "/bin/sh", "./env", "./nested"] {
            assert_eq!(said(word, dir.path()), (String::new(), String::new()), "{word}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_remedy() {
        let dir = place();
        write(dir.path(), "closed", "#!/bin/sh\n", 0o744);
        write(dir.path(), "windows", "#!/bin/sh\r\n", 0o755);
        write(dir.path(), "text", "echo hello\n", 0o755);
        write(dir.path(), "lost", "#!/opt/none/python\n", 0o755);
        write(dir.path(), "envless", "#!/usr/bin/env no-such-program\n", 0o755);
        write(dir.path(), "loop", &format!("#!{}/loop\n", dir.path().display()), 0o755);
        write(dir.path(), "venv/bin/gunicorn", "#!/bin/sh\n", 0o755);
        for (word, text, hint) in [
            ("./gone", "there is no `DIR/./gone`", "a relative path is taken from `directory`, `DIR`"),
            (
                "gunicorn",
                "there is no `gunicorn` in the service's PATH: /usr/bin:/bin",
                "there is `DIR/venv/bin/gunicorn`: write `venv/bin/gunicorn`",
            ),
            (
                "./text",
                "`DIR/text` is no program: it begins with neither ELF nor `#!`",
                "put the interpreter into its first line, as in `#!/bin/sh`, or before it in `command`",
            ),
            (
                "./windows",
                "`DIR/windows`: its first line ends as lines of Windows do, so its interpreter is not found",
                "`sed -i 's/\\r$//' DIR/windows`",
            ),
            ("./lost", "the interpreter of `DIR/lost`: there is no `/opt/none/python`", "is it installed?"),
            (
                "./envless",
                "the interpreter of `DIR/envless`: there is no `no-such-program` in the service's PATH: \
                 /usr/bin:/bin",
                "give its path, or set `PATH` in `[service.environment]`",
            ),
        ] {
            assert_eq!(said(word, dir.path()), (text.to_owned(), hint.to_owned()), "{word}");
        }
        let (text, hint) = said("./closed", dir.path());
        assert!(text.starts_with("`al` may not execute `DIR/closed` (mode 0744, owner "), "{text}");
        assert_eq!(hint, "make it executable: `chmod a+x`, or name its interpreter first");
        assert!(said("./loop", dir.path()).0.ends_with("interpreters of interpreters without end"));
    }
}
