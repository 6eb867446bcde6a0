//! Log files as the shippers of others read them: the pattern that fluent-bit's documentation gives for CRI logs, in
//! another language's regular expressions, and its times in another language's calendar.

use std::process::{Child, Command, Stdio};

use super::cri;
use super::place::{Place, Who};
use super::wait;

/// Reads files whose names it is given; prints each whole line as hexadecimal, with its stream, or fails.
const JUDGE: &str = r#"
import datetime, re, sys
pattern = re.compile(rb"^(?P<time>[^ ]+) (?P<stream>stdout|stderr) (?P<logtag>[^ ]*) (?P<message>.*)$", re.S)
begun = {b"stdout": b"", b"stderr": b""}
last = ""
for name in sys.argv[1:]:
    data = open(name, "rb").read()
    assert data.endswith(b"\n"), name
    for line in data[:-1].split(b"\n"):
        found = pattern.match(line)
        assert found, line
        time = found["time"].decode()
        datetime.datetime.strptime(time[:26] + time[29:], "%Y-%m-%dT%H:%M:%S.%f%z")
        assert len(time) == 30 and time >= last, (time, last)
        last = time
        assert found["logtag"] in (b"F", b"P"), line
        assert len(found["message"]) <= 16384
        begun[found["stream"]] += found["message"]
        if found["logtag"] == b"F":
            print(found["stream"].decode(), begun[found["stream"]].hex())
            begun[found["stream"]] = b""
assert begun == {b"stdout": b"", b"stderr": b""}, "a part that nothing follows"
"#;

#[test]
fn user_what_others_read_is_what_was_written() {
    let mut place = Place::new(Who::User);
    // Bytes of every value, nothing at all, a line longer than a pipe, and an end without a newline.
    let script = "import os, sys\n\
        every = bytes(byte for byte in range(256) if byte != 10)\n\
        os.write(1, every + b'\\n\\n')\n\
        sys.stdout.buffer.write(b'x' * 200000 + b'\\n'); sys.stdout.flush()\n\
        os.write(2, b'F P stdout F 2026\\n')\n\
        os.write(1, b'end')\n";
    place.write("srv/talk.py", script);
    place.unit("web", "command = [\"python3\", \"talk.py\"]\nkind = \"task\"\n[log]\nmax-size = \"64K\"\ncompress = false\n");
    place.run();
    place.reaches("web", "done");
    let texts = wait::until(wait::LONG, "all of it", || {
        let texts = cri::lines(&place.log(), "web");
        (texts.len() >= 5).then_some(texts)
    });
    assert_eq!(texts.len(), 5);
    let files = cri::files(&place.log(), "web");
    assert!(files.len() > 1, "nothing gave way");
    let judged = Command::new("python3").args(["-c", JUDGE]).args(&files).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    let said = String::from_utf8(judged.stdout).unwrap();
    let of = |stream: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.strip_prefix(stream)?.strip_prefix(' '));
        lines.map(str::to_owned).collect()
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let every: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    let expected = [hex(&every), String::new(), hex(&vec![b'x'; 200_000]), hex(b"end")];
    let found = of("stdout");
    assert_eq!(found.len(), expected.len());
    for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(found == expected, "line {number}: {} digits, not {}", found.len(), expected.len());
    }
    assert_eq!(of("stderr"), [hex(b"F P stdout F 2026")]);
}

/// The journal itself, in a mount namespace of its own, which is also there for whoever writes to the system's log.
struct Journal(Child);

impl Journal {
    #[track_caller]
    fn begin(place: &Place) -> Self {
        let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal /run/log && mkdir /run/dev && \
                      mount --rbind /dev /run/dev && mount -t tmpfs -o mode=755 none /dev && cd /run/dev && \
                      for one in null zero full random urandom; do touch /dev/$one && mount --bind $one /dev/$one; done && \
                      ln -s /run/systemd/journal/dev-log /dev/log && mkdir /dev/shm && cd / && \
                      exec /lib/systemd/systemd-journald";
        let mut command = place.command("unshare".as_ref());
        command.args(["--mount", "--propagation", "private", "sh", "-e", "-c", script]);
        let journal = Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let socket = format!("/proc/{}/root/run/systemd/journal/dev-log", journal.0.id());
        wait::until(wait::LONG, "the journal", || {
            // Ours would be there before it has its own.
            let own = std::fs::read_link(format!("/proc/{}/ns/mnt", journal.0.id())).ok()?;
            let is_other = own != std::fs::read_link("/proc/self/ns/mnt").ok()?;
            (is_other && std::path::Path::new(&socket).exists()).then_some(())
        });
        journal
    }

    /// A command where it is.
    fn beside(&self) -> Vec<String> {
        ["nsenter", "--mount", "--target", &self.0.id().to_string(), "--"].map(str::to_owned).to_vec()
    }

    /// Its entries of a service: what matters of each.
    fn entries(&self, name: &str) -> Vec<[String; 4]> {
        let beside = self.beside();
        let mut command = Command::new(&beside[0]);
        command.args(&beside[1..]).args(["journalctl", "--no-pager", "--all", "--output", "json"]);
        let said = command.arg(format!("SYSLOG_IDENTIFIER={name}")).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        let entry = |line: &str| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| match &entry[name] {
                serde_json::Value::String(text) => text.clone(),
                // What is no text, or has control characters, comes as its bytes.
                bytes => bytes.to_string(),
            };
            ["_TRANSPORT", "PRIORITY", "SYSLOG_FACILITY", "MESSAGE"].map(field)
        };
        text.lines().map(entry).collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        super::processes::signal(self.0.id(), libc::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn root_the_journal_itself_takes_every_line_by_both_ways() {
    let mut place = Place::new(Who::Root);
    let journal = Journal::begin(&place);
    let script = "import os\nos.write(1, b'one\\na\\x01\\xc3\\xa4\\n')\nos.write(2, b'two\\n')\n";
    place.write("srv/talk.py", script);
    for (name, to) in [("direct", "journal"), ("indirect", "syslog")] {
        place.unit(
            name,
            &format!("command = [\"python3\", \"talk.py\"]\nkind = \"task\"\n[log]\nto = \"{to}\"\n"),
        );
    }
    let beside = journal.beside();
    place.run_below(&beside.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, transport) in [("direct", "journal"), ("indirect", "syslog")] {
        place.reaches(name, "done");
        let entries = wait::until(wait::LONG, "its entries", || {
            Some(journal.entries(name)).filter(|entries| entries.len() >= 3)
        });
        let mut told: Vec<[&str; 4]> = entries.iter().map(|one| one.each_ref().map(String::as_str)).collect();
        told.sort_unstable();
        let mut expected = [
            [transport, "6", "3", "one"],
            [transport, "6", "3", "[97,1,195,164]"],
            [transport, "6", "3", "two"],
        ];
        expected.sort_unstable();
        assert_eq!(told, expected, "{name}");
    }
}
