//! A service that has sockets of any kind and does to them what it is told, and clients that tell it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::gunicorn::python;
use super::place::Place;
use super::wait;

/// One request a connection or datagram, one answer. What is done to a socket is done to it by its name.
const PROGRAM: &str = r#"
import json, os, selectors, socket, struct

names = os.environ["LISTEN_FDNAMES"].split(":")
assert os.environ["LISTEN_FDS"] == str(len(names)) and os.environ["LISTEN_PID"] == str(os.getpid())
socks = {name: socket.socket(fileno=3 + number) for number, name in enumerate(names)}
KEPT = ("LISTEN_FDS", "LISTEN_FDNAMES", "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION", "FROM_UNIT")

def who(_):
    blocking = {name: os.get_blocking(sock.fileno()) for name, sock in socks.items()}
    return {"pid": os.getpid(), "env": {key: os.environ.get(key) for key in KEPT}, "blocking": blocking}

def lock(sock):
    program = bytearray(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
    import ctypes
    held = (ctypes.c_char * len(program)).from_buffer(program)
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", 1, ctypes.addressof(held)))
    sock.setsockopt(socket.SOL_SOCKET, 44, 1)

def option(sock, level, name):
    return sock.getsockopt(getattr(socket, level), getattr(socket, name))

DO = {
    "who": who,
    "shut": lambda sock: sock.shutdown(socket.SHUT_RDWR),
    "listen": lambda sock, most: sock.listen(int(most)),
    "nonblock": lambda sock: sock.setblocking(False),
    "connect": lambda sock, host, port: sock.connect((host, int(port))),
    "lock": lock,
    "option": option,
}

def answer(text):
    command, name, *rest = text.decode().split()
    return json.dumps(DO[command](socks.get(name), *rest)).encode()

poll = selectors.DefaultSelector()
for sock in socks.values():
    poll.register(sock, selectors.EVENT_READ)
while True:
    for key, _ in poll.select():
        sock = key.fileobj
        try:
            if sock.type == socket.SOCK_DGRAM:
                text, peer = sock.recvfrom(65536)
                sock.sendto(answer(text), peer)
            else:
                client, _ = sock.accept()
                with client:
                    client.sendall(answer(client.recv(65536)))
        except OSError:
            poll.unregister(sock)
"#;

impl Place {
    /// A unit of that service; `rest` is the rest of it, the sockets above all.
    pub fn sockets(&self, name: &str, rest: &str) {
        self.write("srv/sockets.py", PROGRAM);
        let command = format!("command = [\"{}\", \"sockets.py\"]\nsettle = \"10ms\"\n", python());
        self.unit(name, &format!("{command}{rest}"));
    }
}

/// Asks over a connection; None where nobody answers.
pub fn ask(mut stream: impl Read + Write, text: &str) -> Option<Value> {
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    serde_json::from_slice(&answer).ok()
}

/// Asks over a Unix socket.
pub fn ask_unix(path: &Path, text: &str) -> Option<Value> {
    let stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(wait::LONG)).ok()?;
    let answer = ask(&stream, text);
    let _ = stream.shutdown(Shutdown::Both);
    answer
}

/// The pid of whoever answers, once it is not this one.
#[track_caller]
pub fn another_than(pid: u64, who: impl Fn() -> Option<Value>) -> u64 {
    wait::until(wait::LONG, "an answer of another process", || {
        who().and_then(|who| who["pid"].as_u64()).filter(|found| *found != pid)
    })
}
