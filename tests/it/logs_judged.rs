//! Log files as the shippers of others read them: the pattern that fluent-bit's documentation gives for CRI logs, in
//! another language's regular expressions, and its times in another language's calendar.

use std::process::Command;

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
    let texts = wait::until(wait::LONG, "the last line", || {
        let texts = cri::lines(&place.log(), "web");
        texts.iter().any(|line| line.text == "end").then_some(texts)
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
