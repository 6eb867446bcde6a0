//! What a service writes: every byte of it comes back out of the log, in pieces that parse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supervise::wire::cri;

fuzz_target!(|data: &[u8]| {
    let _ = cri::parse(data);
    let _ = cri::parse_stamp(data);
    let _ = cri::last_lines(data, true, (0, 0), 3);
    let mut out = vec![0; 2 * data.len() + 4096];
    let done =
        cri::frame(data, cri::Which::Stdout, &cri::Stamp::new(1_700_000_000, 5), cri::Tail::End, &mut out);
    assert!(done.taken == data.len() || out.len() - done.written < cri::LONGEST_PART + 64);
    let mut back = Vec::new();
    for line in out[..done.written].split_inclusive(|byte| *byte == b'\n') {
        let entry = cri::parse(&line[..line.len() - 1]).expect("an entry that we wrote");
        back.extend_from_slice(entry.content);
        back.extend_from_slice(if entry.ends { b"\n" } else { b"" });
    }
    let taken = &data[..done.taken];
    assert!(back == taken || back.strip_suffix(b"\n") == Some(taken));
});
