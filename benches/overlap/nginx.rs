//! nginx in front, as it is in Debian: one port for each socket of the service.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::load::{self, Target};
use crate::ours::free_address;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// One that runs.
pub struct Nginx {
    process: Child,
    /// Where it listens, in the order of what is behind it.
    pub targets: Vec<Target>,
}

impl Nginx {
    /// Starts one and waits until it listens.
    pub fn start(work: &Path, behind: &[Target]) -> io::Result<Self> {
        fs::set_permissions(work, PermissionsExt::from_mode(0o755))?;
        let (mut servers, mut fronts) = (String::new(), Vec::new());
        for (number, target) in behind.iter().enumerate() {
            let front = free_address()?;
            let upstream = match target {
                Target::Tcp(address) => address.to_string(),
                Target::Unix(path) => format!("unix:{}", path.display()),
            };
            servers += &format!(
                "upstream behind{number} {{ server {upstream}; keepalive 8; }}\n\
                 server {{ listen {front}; keepalive_requests 100000; location / {{ proxy_pass http://behind{number}; \
                 proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n"
            );
            fronts.push(front);
        }
        let configuration = format!(
            "worker_processes 1;\ndaemon off;\npid {work}/pid;\nerror_log {work}/error;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_body_temp_path {work}/a;\nproxy_temp_path {work}/b;\n\
             fastcgi_temp_path {work}/c;\nuwsgi_temp_path {work}/d;\nscgi_temp_path {work}/e;\n{servers}}}\n",
            work = work.display(),
        );
        let file = work.join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = Command::new("/usr/sbin/nginx");
        let process = command.arg("-c").arg(&file).stdin(Stdio::null()).spawn()?;
        let nginx = Self { process, targets: fronts.iter().copied().map(Target::Tcp).collect() };
        let until = Instant::now() + PATIENCE;
        while !fronts.iter().all(|front| TcpStream::connect(front).is_ok()) {
            if Instant::now() > until {
                return Err(io::Error::other("nginx does not listen"));
            }
            load::reach(Instant::now() + Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = signal::kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        }
        let _ = self.process.wait();
    }
}
