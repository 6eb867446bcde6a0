//! The server that most units run: fetched once into the build folder, at a fixed version, and executed by an
//! interpreter that a plain account can reach.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

use super::accounts::am_root;

/// Tried with this one; a newer one is a decision, not an accident.
const VERSION: &str = "27.0.1";
/// Nobody in particular.
const PLAIN: &str = "65534";

/// What it serves: who answers, and in which incarnation.
pub const APP: &str = r#"
import os

# As it is when a worker begins: one that loses its master has another parent.
WHO = "%d %s" % (os.getppid(), os.environ["INVOCATION_ID"])

def app(environ, start_response):
    body = WHO
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]
"#;

/// A Python that any account can execute. One below a private home is none.
pub fn python() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let named =
            ["/usr/bin/python3", "/usr/local/bin/python3", "/opt/python/bin/python3"].map(PathBuf::from);
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&on_path).map(|directory| directory.join("python3"));
        let mut tried = Vec::new();
        for candidate in named.into_iter().chain(on_path) {
            let mut command = if am_root() {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", PLAIN, "--regid", PLAIN, "--clear-groups"]).arg(&candidate);
                command
            } else {
                Command::new(&candidate)
            };
            // What a shim finds for root below its home, it does not find for others.
            let command = command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
            let program = "import sys; assert sys.version_info >= (3, 10); print(sys.executable)";
            let said = command.args(["-I", "-c", program]).output();
            if let Ok(said) = said
                && said.status.success()
            {
                return String::from_utf8(said.stdout).unwrap().trim().to_owned();
            }
            tried.push(candidate.display().to_string());
        }
        panic!(
            "no Python (3.10 or newer) that uid {PLAIN} can execute; tried {}: install python3 system-wide",
            tried.join(", ")
        )
    })
}

/// The packages, in the build folder.
fn fetched() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let ready = parent.join(format!("gunicorn-{VERSION}"));
    if ready.exists() {
        return ready; // it gets its name when it is whole
    }
    fs::create_dir_all(parent).unwrap();
    let lock = File::options().create(true).append(true).open(parent.join("gunicorn.lock")).unwrap();
    let _alone = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
    if ready.exists() {
        return ready;
    }
    let unfinished = parent.join("gunicorn.unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    let python = python();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fetching gunicorn {VERSION} from PyPI with {python}: {why}");
    };
    let mut fetch = Command::new(python);
    fetch.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]);
    fetch.args(["--root-user-action", "ignore", "--target"]).arg(&unfinished);
    run(fetch.arg(format!("gunicorn=={VERSION}")));
    // Compiled so that copies, whose times are others, need no compiling at each start.
    let mut compile = Command::new(python);
    compile.args(["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]);
    run(compile.arg(&unfinished));
    fs::rename(&unfinished, &ready).unwrap();
    ready
}

/// Puts it where every account can read it.
pub fn install(into: &Path) {
    copy(&fetched(), into);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) =
            (from.join(entry.as_ref().unwrap().file_name()), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// The command: two workers, nothing written to disk but what must be.
pub fn command() -> String {
    let python = python();
    format!(
        r#"["{python}", "-m", "gunicorn", "app:app", "--workers", "2", "--no-control-socket", "--worker-tmp-dir", "/dev/shm"]"#
    )
}
