//! A supervisor of ours with one service on two held sockets.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, User, geteuid};

use crate::load::Target;
use crate::servers::{self, Server};
use crate::{gunicorn, pypi};

/// One that runs.
pub struct Ours {
    directory: tempfile::TempDir,
    process: Child,
    /// Where the service listens.
    pub targets: Vec<Target>,
}

/// What a command came to.
pub struct Said {
    /// Its exit status.
    pub code: Option<i32>,
    /// How long it took.
    pub took: Duration,
    /// What it said on standard error.
    pub err: String,
}

fn binary() -> PathBuf {
    std::env::var_os("SUPERVISE_BENCH_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_supervise")), PathBuf::from)
}

/// One on which nobody listens.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

impl Ours {
    /// Starts one and waits until its service is proven good.
    pub fn start(server: &Server, start_timeout: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("supervise-overlap.").tempdir_in("/var/tmp")?;
        let root = directory.path();
        fs::set_permissions(root, PermissionsExt::from_mode(0o755))?;
        // Below a private home nobody else could execute it.
        pypi::install_all(&root.join("site"));
        for name in ["srv", "units"] {
            fs::create_dir(root.join(name))?;
        }
        fs::write(root.join("srv/app.py"), servers::APP)?;
        fs::write(root.join("srv/sitecustomize.py"), servers::SITE)?;
        let (address, path) = (free_address()?, root.join("sock/web.sock"));
        fs::write(root.join("units/web.toml"), unit(server, root, address, &path, start_timeout)?)?;
        let mut command = Command::new(binary());
        command.arg("run").arg("--units").arg(root.join("units"));
        for (flag, name) in [("--runtime-dir", "run"), ("--log-dir", "log"), ("--state-dir", "state")] {
            command.arg(flag).arg(root.join(name));
        }
        let mut targets = vec![Target::Tcp(address)];
        if server.many_sockets {
            targets.push(Target::Unix(path));
        }
        let output = fs::File::create(root.join("stderr"))?;
        let ours = Self {
            process: command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).spawn()?,
            targets,
            directory,
        };
        ours.mode("good")?;
        let began = Instant::now();
        loop {
            let said = ours.order(&["start", "web"])?;
            if said.code == Some(0) {
                return Ok(ours);
            }
            if said.code != Some(5) || began.elapsed() > Duration::from_secs(60) {
                let words = fs::read_to_string(ours.directory.path().join("stderr")).unwrap_or_default();
                return Err(io::Error::other(format!("{}: {}\n{words}", server.name, said.err)));
            }
        }
    }

    /// A directory that goes with it.
    pub fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.directory.path().join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Breaks the application, or mends it, for the processes that start from here on.
    pub fn mode(&self, mode: &str) -> io::Result<()> {
        fs::write(self.directory.path().join("srv/mode"), mode)
    }

    /// Gives a command and waits for its end.
    pub fn order(&self, arguments: &[&str]) -> io::Result<Said> {
        let began = Instant::now();
        let mut command = Command::new(binary());
        command.arg("--runtime-dir").arg(self.directory.path().join("run")).args(arguments);
        let output = command.stdin(Stdio::null()).output()?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Said { code: output.status.code(), took: began.elapsed(), err })
    }

    /// The main process of the service.
    pub fn pid(&self) -> i64 {
        let mut command = Command::new(binary());
        command.arg("--runtime-dir").arg(self.directory.path().join("run")).args(["status", "web", "--json"]);
        let said = command.output().map(|output| output.stdout).unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
        value["services"][0]["pid"].as_i64().unwrap_or(-1)
    }

    /// Stops it.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        if self.process.try_wait()?.is_none() {
            signal::kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM)?;
        }
        self.process.wait().map(drop)
    }
}

/// Nothing of it is left behind, however the measuring ended.
impl Drop for Ours {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("overlap: stopping the supervisor: {error}");
        }
    }
}

fn unit(
    server: &Server,
    root: &Path,
    address: SocketAddr,
    path: &Path,
    start_timeout: &str,
) -> io::Result<String> {
    let words = |word: &&str| match *word {
        "bin/uwsgi" => format!("{:?}", root.join("site/bin/uwsgi")),
        word => format!("{word:?}"),
    };
    let mut command: Vec<String> = server.arguments.iter().map(words).collect();
    if server.arguments.first() != Some(&"bin/uwsgi") {
        command.insert(0, format!("{:?}", gunicorn::python()));
    }
    let mut user = String::new();
    if geteuid().is_root() {
        user = "user = \"nobody\"\n".to_owned();
        if let Some(nobody) = User::from_name("nobody")? {
            chown(root.join("srv"), Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()))?;
        }
    }
    let (site, srv) = (root.join("site"), root.join("srv"));
    let second = if server.many_sockets {
        format!("[socket.local]\nlisten = {path:?}\nmode = \"0666\"\n")
    } else {
        String::new()
    };
    Ok(format!(
        "[service]\ncommand = [{}]\n{user}directory = {srv:?}\nstart-timeout = \"{start_timeout}\"\n{}\
         environment = {{ PYTHONPATH = \"{}:{}\", PYTHONDONTWRITEBYTECODE = \"1\" }}\n\
         [socket.http]\nlisten = \"{address}\"\n{second}[health]\nhttp = \"/\"\ninterval = \"off\"\n",
        command.join(", "),
        server.keys,
        srv.display(),
        site.display(),
    ))
}
