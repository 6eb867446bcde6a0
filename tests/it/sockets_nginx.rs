//! The proxy in front: nginx from the distribution's package reaches a socket by its group, and nobody else does.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use super::load::{Target, get};
use super::place::{Place, Who};
use super::{processes, wait};

/// Who nginx's workers are in Debian.
const PROXY: &str = "www-data";

/// Ends with the test, whatever becomes of it.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            processes::signal(self.0.id(), libc::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

#[test]
fn root_nginx_reaches_a_socket_by_its_group() {
    let mut place = Place::with_gunicorn(Who::Root);
    let (path, front) = (place.path("made/http.sock"), place.address());
    place.web("web", &format!("[socket.http]\nlisten = \"{}\"\ngroup = \"{PROXY}\"\n", path.display()));
    place.run();
    place.reaches("web", "running");
    let file = fs::symlink_metadata(&path).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid()), (0o660, 0));
    let work = place.path("proxy");
    fs::create_dir(&work).unwrap();
    let configuration = format!(
        "user {PROXY};\ndaemon off;\npid {work}/pid;\nerror_log {work}/error;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {work}/a;\nproxy_temp_path {work}/b;\nfastcgi_temp_path {work}/c;\n\
         uwsgi_temp_path {work}/d;\nscgi_temp_path {work}/e;\n\
         server {{ listen {front}; location / {{ proxy_pass http://unix:{socket}; }} }}\n}}\n",
        work = work.display(),
        socket = path.display()
    );
    let file = work.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    let child = Command::new("/usr/sbin/nginx").arg("-c").arg(&file).stderr(Stdio::inherit()).spawn();
    let _nginx = Nginx(child.expect("nginx is needed: `apt-get install nginx-light`"));
    wait::until(wait::LONG, "nginx", || TcpStream::connect(front).ok());
    let body = get(&Target::Tcp(front)).unwrap();
    assert!(body.starts_with(&place.pid_of("web").to_string()), "{body}");
}
