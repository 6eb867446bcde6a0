//! Sockets of every kind are there, are what the unit says, and reach the service.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixStream};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr as Name, connect, socket};
use serde_json::{Value, json};

use super::accounts::Account;
use super::gunicorn::python;
use super::place::{Place, Who, free_port};
use super::sockets::{ask, ask_unix};
use super::wait;

fn ask_tcp(address: SocketAddr, text: &str) -> Option<Value> {
    ask(TcpStream::connect(address).ok()?, text)
}

fn ask_udp(address: SocketAddr, text: &str) -> Option<Value> {
    let any = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let client = UdpSocket::bind(any).unwrap();
    client.set_read_timeout(Some(wait::LONG)).unwrap();
    client.send_to(text.as_bytes(), address).ok()?;
    let mut place = [0; 4096];
    let count = client.recv(&mut place).ok()?;
    serde_json::from_slice(&place[..count]).ok()
}

/// The client's name is in `work`, where a plain account can answer it.
fn ask_datagram(place: &Place, server: &UnixAddr, text: &str) -> Option<Value> {
    let name = place.path("work/client");
    let client = UnixDatagram::bind(&name).unwrap();
    fs::set_permissions(&name, fs::Permissions::from_mode(0o777)).unwrap();
    client.set_read_timeout(Some(wait::LONG)).unwrap();
    let mut bytes = [0; 4096];
    let sent = client.send_to_addr(text.as_bytes(), server);
    let answer = sent.ok().and_then(|_| client.recv(&mut bytes).ok());
    fs::remove_file(&name).unwrap();
    serde_json::from_slice(&bytes[..answer?]).ok()
}

fn ask_seqpacket(path: &Path, text: &str) -> Option<Value> {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(fd.as_raw_fd(), &Name::new(path).unwrap()).ok()?;
    let mut stream = UnixStream::from(fd); // which reads and writes one as well
    stream.write_all(text.as_bytes()).ok()?;
    let mut place = [0; 4096];
    let count = stream.read(&mut place).ok()?;
    serde_json::from_slice(&place[..count]).ok()
}

fn options_are_as_wanted(v4: SocketAddr) {
    let option = |text: &str| ask_tcp(v4, &format!("option {text}")).unwrap();
    assert_eq!(option("v4 SOL_SOCKET SO_KEEPALIVE"), 1);
    assert_eq!(option("v6 SOL_SOCKET SO_KEEPALIVE"), 0);
    assert_eq!(option("v4 IPPROTO_TCP TCP_NODELAY"), 1);
    assert_eq!(option("v6 IPPROTO_TCP TCP_NODELAY"), 0);
    assert_eq!(option("v6 IPPROTO_IPV6 IPV6_V6ONLY"), 1);
    assert_eq!(option("dual IPPROTO_IPV6 IPV6_V6ONLY"), 0);
    assert_eq!(option("udp-dual IPPROTO_IPV6 IPV6_V6ONLY"), 0);
    for name in ["v4", "dual", "udp", "udp-dual"] {
        assert_eq!(option(&format!("{name} SOL_SOCKET SO_REUSEPORT")), 0, "{name}");
    }
}

fn every_kind_is_reached(who: Who) {
    let mut place = Place::new(who);
    let (v4, port) = (place.address(), free_port());
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, free_port()));
    let made = place.path("made/deep");
    let name = format!("supervise-it-{}-{port}", std::process::id());
    let sockets = format!(
        "[socket.v4]\nlisten = \"{v4}\"\nkeepalive = true\n\
         [socket.v6]\nlisten = \"{v6}\"\nnodelay = false\nfreebind = true\n\
         [socket.dual]\nlisten = \":{port}\"\n\
         [socket.udp]\nlisten = \"{v4}\"\ntype = \"datagram\"\n\
         [socket.udp-dual]\nlisten = \":{port}\"\ntype = \"datagram\"\n\
         [socket.path]\nlisten = \"{dir}/s\"\n\
         [socket.packets]\nlisten = \"{dir}/p\"\ntype = \"seqpacket\"\n\
         [socket.datagrams]\nlisten = \"{dir}/d\"\ntype = \"datagram\"\n\
         [socket.name]\nlisten = \"@{name}\"\n",
        dir = made.display()
    );
    place.sockets("web", &sockets);
    place.run();
    place.reaches("web", "running");
    let pid = place.pid_of("web");
    let who_is = |answer: Option<Value>| answer.expect("an answer")["pid"].clone();
    assert_eq!(who_is(ask_tcp(v4, "who -")), pid);
    assert_eq!(who_is(ask_tcp(v6, "who -")), pid);
    assert_eq!(who_is(ask_tcp(SocketAddr::from(([127, 0, 0, 1], port)), "who -")), pid);
    assert_eq!(who_is(ask_tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "who -")), pid);
    assert_eq!(who_is(ask_udp(v4, "who -")), pid);
    assert_eq!(who_is(ask_udp(SocketAddr::from(([127, 0, 0, 1], port)), "who -")), pid);
    assert_eq!(who_is(ask_udp(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "who -")), pid);
    assert_eq!(who_is(ask_unix(&made.join("s"), "who -")), pid);
    assert_eq!(who_is(ask_seqpacket(&made.join("p"), "who -")), pid);
    let path = UnixAddr::from_pathname(made.join("d")).unwrap();
    assert_eq!(who_is(ask_datagram(&place, &path, "who -")), pid);
    let abstracted = UnixAddr::from_abstract_name(&name).unwrap();
    assert_eq!(who_is(ask(UnixStream::connect_addr(&abstracted).unwrap(), "who -")), pid);
    // What the service was told of them.
    let env = ask_tcp(v4, "who -").unwrap()["env"].clone();
    let dir = made.display();
    let (ip, v4_port) = (v4.ip(), v4.port());
    let ports = format!(
        "{v4}=3;{v6}=4;{port}=5;{ip}:u{v4_port}=6;u{port}=7;{dir}/s=8;{dir}/p=9;{dir}/d=10;@{name}=11"
    );
    assert_eq!(env["SERVER_STARTER_PORT"], ports);
    assert_eq!(env["LISTEN_FDNAMES"], "v4:v6:dual:udp:udp-dual:path:packets:datagrams:name");
    options_are_as_wanted(v4);
    // And of `status`.
    let service = place.service("web");
    let queues: Vec<Value> = service["sockets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|socket| json!([socket["address"], socket["queue"], socket["backlog"].is_null()]))
        .collect();
    let expected = json!([
        [v4.to_string(), 0, false],
        [v6.to_string(), 0, false],
        [format!(":{port}"), 0, false],
        [format!("{v4} (UDP)"), null, true],
        [format!(":{port} (UDP)"), null, true],
        [format!("{dir}/s"), 0, false],
        [format!("{dir}/p (seqpacket)"), 0, false],
        [format!("{dir}/d (datagram)"), null, true],
        [format!("@{name}"), 0, false],
    ]);
    assert_eq!(Value::from(queues), expected);
    place.order(&["stop", "web"]);
    assert_eq!(fs::read_dir(&made).unwrap().count(), 0, "its files are left");
    assert!(TcpStream::connect(v4).is_err());
}

#[test]
fn root_every_kind_is_reached() {
    every_kind_is_reached(Who::Root);
}

#[test]
fn user_every_kind_is_reached() {
    every_kind_is_reached(Who::User);
}

#[test]
fn root_a_file_is_for_its_group_and_nobody_else() {
    let mut place = Place::new(Who::Root);
    let web = Account::make();
    let path = place.path("made/s");
    let socket = |rest: &str| format!("[socket.a]\nlisten = \"{}\"\n{rest}", path.display());
    place.sockets("web", &socket(&format!("group = \"{}\"\n", web.name)));
    place.run();
    place.reaches("web", "running");
    let file = fs::symlink_metadata(&path).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o660, 0, web.gid));
    let parent = fs::symlink_metadata(place.path("made")).unwrap();
    assert_eq!((parent.mode() & 0o7777, parent.uid(), parent.gid()), (0o755, 0, 0));
    let connects = |groups: &[u32]| {
        let program = format!(
            "import errno, socket, sys\ns = socket.socket(socket.AF_UNIX)\nsys.exit(errno.errorcode.get(s.connect_ex('{}')))",
            path.display()
        );
        let stranger = 61_234;
        let mut command = place.command_as(stranger, stranger, groups, Path::new(python()));
        let said =
            command.args(["-I", "-c", &program]).env_clear().env("PATH", "/usr/bin:/bin").output().unwrap();
        (said.status.success(), String::from_utf8(said.stderr).unwrap().trim().to_owned())
    };
    assert_eq!(connects(&[web.gid]), (true, String::new()));
    assert_eq!(connects(&[]), (false, "EACCES".to_owned()));
    assert_eq!(connects(&[place.account.gid]), (false, "EACCES".to_owned()));
}
