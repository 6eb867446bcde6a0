//! The real servers, from PyPI, and the application they serve: slow to import, and broken on demand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is fetched. Tried with these.
const PACKAGES: [&str; 4] = ["gunicorn==27.0.1", "uwsgi==2.0.31", "uvicorn==0.54.0", "hypercorn==0.18.0"];

/// One way to serve.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its name on the command line of the bench.
    pub name: &'static str,
    /// The command behind `python`.
    pub arguments: &'static [&'static str],
    /// Further lines of its `[service]`.
    pub keys: &'static str,
    /// Whether it takes more than one socket.
    pub many_sockets: bool,
    /// Whether a Python of its own begins it, and not one inside another program.
    pub is_python: bool,
}

/// Those that are measured.
pub const SERVERS: [Server; 5] = [
    Server {
        name: "gunicorn-sync",
        arguments: &["-m", "gunicorn", "app:wsgi", "--workers", "4", "--no-control-socket"],
        keys: "",
        many_sockets: true,
        is_python: true,
    },
    Server {
        name: "gunicorn-gthread",
        arguments: &["-m", "gunicorn", "app:wsgi", "--workers", "2", "--threads", "8", "--no-control-socket"],
        keys: "",
        many_sockets: true,
        is_python: true,
    },
    Server {
        name: "uwsgi",
        arguments: &[
            "bin/uwsgi",
            "--master",
            "--need-app",
            "--protocol",
            "http",
            "--module",
            "app:wsgi",
            "--processes",
            "4",
            "--hook-master-start",
            "unix_signal:15 gracefully_kill_them_all",
        ],
        keys: "",
        many_sockets: true,
        is_python: false,
    },
    Server {
        name: "uvicorn",
        arguments: &["-m", "uvicorn", "app:asgi", "--fd", "{fd:http}", "--no-access-log"],
        keys: "",
        many_sockets: false,
        is_python: true,
    },
    Server {
        name: "hypercorn",
        arguments: &["-m", "hypercorn", "app:asgi", "--bind", "fd://{fd:http}", "--bind", "fd://{fd:health}"],
        keys: "",
        many_sockets: false,
        is_python: true,
    },
];

/// The application: a second to import, `/slow` takes two seconds, and the file `mode` says how it is broken.
pub const APP: &str = r#"
import asyncio, os, time

time.sleep(1)
MODE = open(os.path.join(os.path.dirname(__file__), "mode")).read().strip()
if MODE == "import":
    raise ImportError("no module named bagels")
STATUS = 500 if MODE == "500" else 200
BODY = b"%d" % os.getpid()

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(2)
    start_response("%d X" % STATUS, [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/slow":
        await asyncio.sleep(2)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": STATUS, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
"#;

/// Runs in front of everything in each interpreter: the ways of being broken that are not the application's.
pub const SITE: &str = r#"
import os, sys, time

try:
    MODE = open(os.path.join(os.path.dirname(__file__), "mode")).read().strip()
except OSError:
    MODE = ""
if MODE == "exit":
    sys.stderr.write("no configuration found\n"); sys.stderr.flush(); os._exit(7)
if MODE == "hang":
    while True:
        time.sleep(3600)
if MODE == "port" and os.environ.get("LISTEN_PID") == str(os.getpid()):
    os.execv(sys.executable, [sys.executable, "-S", "-m", "http.server", "--bind", "127.0.0.1", "0"])
"#;

/// The ways to be broken. `hang` costs `start-timeout`.
pub const BROKEN: [&str; 5] = ["import", "exit", "500", "port", "hang"];

/// The packages, fetched once into the build folder: a virtual environment that every account can execute.
pub fn fetched() -> io::Result<PathBuf> {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let ready = parent.join("overlap-servers");
    if ready.exists() {
        return Ok(ready);
    }
    fs::create_dir_all(parent)?;
    let unfinished = parent.join("overlap-servers.unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    let python = python();
    let run = |command: &mut Command| {
        let output = command.output()?;
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?}: {why}"))) }
    };
    let mut fetch = Command::new(&python);
    fetch.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    run(fetch.args(["--root-user-action", "ignore", "--target"]).arg(&unfinished).args(PACKAGES))?;
    fs::rename(&unfinished, &ready)?;
    Ok(ready)
}

/// A Python that any account can execute: one of the system's, not one below a private home.
pub fn python() -> PathBuf {
    let named = ["/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from);
    named.into_iter().find(|path| path.exists()).unwrap_or_else(|| PathBuf::from("python3"))
}
