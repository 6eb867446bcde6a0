//! The real servers, from PyPI, and the application they serve: slow to import, and broken on demand.

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
        arguments: &["-m", "uvicorn", "app:asgi", "--fd", "{fd:http}"],
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
if MODE == "import-error":
    raise ImportError("no module named bagels")
STATUS = 500 if MODE == "answers-500" else 200
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
if MODE == "exits":
    sys.stderr.write("no configuration found\n"); sys.stderr.flush(); os._exit(7)
if MODE == "hang":
    while True:
        time.sleep(3600)
if MODE == "wrong-port" and os.environ.get("LISTEN_PID") == str(os.getpid()):
    os.execv(sys.executable, [sys.executable, "-S", "-m", "http.server", "--bind", "127.0.0.1", "0"])
"#;

/// The ways to be broken. `wrong-port` and `hang` cost `start-timeout`.
pub const BROKEN: [&str; 5] = ["import-error", "exits", "answers-500", "wrong-port", "hang"];

impl Server {
    /// Whether this way of being broken can be had of it.
    pub fn can_be(&self, broken: &str) -> bool {
        self.is_python || broken != "wrong-port" // nothing of ours runs early enough to listen elsewhere
    }
}
