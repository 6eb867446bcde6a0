//! Log files as a container engine reads those of its containers: podman shows what a service wrote, each stream to its
//! own, in whole lines, and the times that are in the file.

use std::fs;
use std::process::Command;

use super::cri;
use super::place::{Place, Who};
use super::wait;

/// Has the engine take `$1/current` for the log of a container of its own and show it, below `$2`; what it would leave
/// elsewhere goes with the mount namespace.
const SHOW: &str = r#"
mount -t tmpfs none /run && mount -t tmpfs none /dev/shm
log=$1 work=$2
mkdir -p "$work/files"
engine() {
    podman --root "$work/root" --runroot "$work/runroot" --tmpdir "$work/tmp" --network-config-dir "$work/net" \
        --storage-driver vfs --cgroup-manager cgroupfs --events-backend none "$@"
}
engine create --name web --network none --log-driver k8s-file --log-opt "path=$log/current" \
    --rootfs "$work/files" /bin/true >"$work/id"
engine logs web >"$work/out" 2>"$work/err"
engine logs --timestamps --tail 1 web >"$work/last" 2>&1
"#;

#[test]
fn root_a_container_engine_shows_what_was_written() {
    let mut place = Place::new(Who::Root);
    // Every byte that is text somewhere, nothing at all, a line of more than one piece, and an end without a newline.
    let script = "import os\n\
        os.write(1, bytes(byte for byte in range(1, 256) if byte != 10) + b'\\n\\n')\n\
        os.write(2, b'F P stdout F 2026\\n')\n\
        os.write(1, b'x' * 40000 + b'\\n')\n\
        os.write(2, b'  two  spaces \\nlast but one\\n')\n\
        os.write(1, b'end')\n";
    place.write("srv/talk.py", script);
    place.unit("web", "command = [\"python3\", \"talk.py\"]\nkind = \"task\"\n");
    place.run();
    place.reaches("web", "done");
    let lines = wait::until(wait::LONG, "all of it", || {
        let lines = cri::lines(&place.log(), "web");
        (lines.len() >= 7).then_some(lines)
    });
    let work = place.path("engine");
    fs::create_dir(&work).unwrap();
    let mut engine = Command::new("unshare");
    engine.args(["--mount", "--propagation", "private", "sh", "-euc", SHOW, "sh"]);
    let shown = engine.arg(place.log().join("web")).arg(&work).output().unwrap();
    assert!(shown.status.success(), "podman (`apt-get install podman crun`): {shown:?}");
    let read = |name: &str| fs::read(work.join(name)).unwrap();
    let mut out: Vec<u8> = (1..=255).filter(|byte| *byte != b'\n').collect();
    out.extend(b"\n\n");
    out.extend([b'x'; 40_000]);
    out.extend(b"\nend\n");
    assert!(read("out") == out, "{}", String::from_utf8_lossy(&read("out")));
    assert_eq!(String::from_utf8_lossy(&read("err")), "F P stdout F 2026\n  two  spaces \nlast but one\n");
    // Which of both streams it is of is chance. Of a line in pieces podman would show the last one alone.
    let last = lines.last().unwrap();
    let told = String::from_utf8(read("last")).unwrap();
    assert_eq!(told, format!("{} {}\n", last.stamp, last.text));
}
