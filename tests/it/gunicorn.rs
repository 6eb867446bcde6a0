//! The server that most units run, executed by an interpreter that a plain account can reach.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::accounts::am_root;

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

/// The command: two workers, nothing written to disk but what must be.
pub fn command() -> String {
    let python = python();
    format!(
        r#"["{python}", "-m", "gunicorn", "app:app", "--workers", "2", "--no-control-socket", "--worker-tmp-dir", "/dev/shm"]"#
    )
}
