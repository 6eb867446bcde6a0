//! A file of the service's own file system, stored with `FDSTORE=1`: who closes it, looks at it or ends with it waits
//! for the service, and that is nobody of supervise for whom anybody waits.

use std::time::{Duration, Instant};

use super::gunicorn::python;
use super::notify_store::{SERVICE, another, dies, have, names};
use super::place::{Place, Who};
use super::supervisor::Role;

/// A file system of the service's own that answers until its file is open, and then nobody who asks for anything.
const OWN_FILES: &str = r#"
import threading
libc = ctypes.CDLL(None, use_errno=True)
mount = WORK + "mount"
os.makedirs(mount, exist_ok=True)
assert libc.unshare(0x20000) == 0 and libc.mount(None, b"/", None, 0x44000, None) == 0
dev = os.open("/dev/fuse", os.O_RDWR)
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % dev
assert libc.mount(b"own", mount.encode(), b"fuse", 0, options) == 0, ctypes.get_errno()

def attributes(node):
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack("<6Q3I5I2I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

def serve():
    while True:
        asked = os.read(dev, 1 << 20)
        _, what, unique, node = struct.unpack_from("<IIQQ", asked)
        error, reply = 0, b""
        if what == 26:
            reply = struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 8, 8, 4096, 1, 0, 0, 0, *[0] * 7)
        elif what == 1:
            reply = struct.pack("<QQQQII", 2, 1, 0, 0, 0, 0) + attributes(2)
        elif what == 3:
            reply = struct.pack("<QII", 0, 0, 0) + attributes(node)
        elif what == 14:
            reply = struct.pack("<QII", 1, 0, 0)
        else:
            error = -38
        os.write(dev, struct.pack("<IiQ", 16 + len(reply), error, unique) + reply)
        if what == 14:
            return

threading.Thread(target=serve, daemon=True).start()
own = os.open(mount + "/file", os.O_RDONLY)
for text in ["FDSTORE=1\nFDNAME=own", "X=1", "MAINPIDFD=1", "BARRIER=1"]:
    send(text, own)
barrier()
send("FDSTORE=1\nFDNAME=mine", memory("mine"))
barrier()
"#;

/// Whoever closes such a file, looks at it or ends while he has it waits for the service: nobody of supervise does
/// whom anybody waits for.
#[test]
fn root_a_file_of_its_own_file_system_keeps_nobody_waiting() {
    // What makes one try slow may be something else; what waits for the service does so each time.
    let mut tries = std::iter::repeat_with(with_its_own_files).take(3);
    let found = tries.find_map(|(place, took)| (took < Duration::from_secs(4)).then_some(place));
    let mut place =
        found.expect("its message to be taken sooner than a process of ours is given up, which has 5 s");
    another(&mut place, Role::Manager);
    another(&mut place, Role::Keeper);
    have(&place, "send('FDSTORE=1', own)\nbarrier()");
    place.status();
    // With the end of its file system all are free that wait for it, itself first of all.
    have(&place, "os.close(dev)");
    dies(&place, "");
    assert_eq!(names(&place), ["mine"]);
}

/// A place where a service has handed over such a file, and how long that took.
fn with_its_own_files() -> (Place, Duration) {
    let mut place = Place::new(Who::Root);
    place.write("srv/one.py", SERVICE);
    let (program, work) = (python(), place.path("work"));
    let text = format!(
        "[service]\nuser = \"root\"\ncommand = [\"{program}\", \"one.py\"]\nenvironment = {{ WORK = \"{}\" }}\nready = \"notify\"\nsettle = \"0s\"\n[restart]\ndelay = \"1ms\"\n",
        work.display()
    );
    place.write("units/web.toml", &text);
    place.run();
    place.reaches("web", "running");
    let began = Instant::now();
    have(&place, OWN_FILES);
    let took = began.elapsed();
    (place, took)
}
