//! Log files as everybody else reads them: the format as its specification says, with no code of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One whole line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub stamp: String,
    pub stream: String,
    pub text: String,
}

/// A service's log files, the oldest first.
pub fn files(log: &Path, service: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(log.join(service)) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_by_key(|name| (name == "current", name.clone()));
    let all = names.clone();
    // Half a compressed file is none, and a plain one beside a whole one says the same.
    names.retain(|name| !name.ends_with(".part") && !all.contains(&format!("{name}.gz")));
    names.iter().map(|name| log.join(service).join(name)).collect()
}

fn content(path: &Path) -> Vec<u8> {
    if path.extension().is_some_and(|extension| extension == "gz") {
        let unpacked = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
        assert!(unpacked.status.success(), "{}: {unpacked:?}", path.display());
        return unpacked.stdout;
    }
    match fs::read(path) {
        // It was compressed since its name was read.
        Err(_) if path.with_extension("log.gz").exists() => content(&path.with_extension("log.gz")),
        // One that was just renamed is read under its new name the next time.
        bytes => bytes.unwrap_or_default(),
    }
}

/// Every whole line of a service so far. Fails on anything that is not the format.
#[track_caller]
pub fn lines(log: &Path, service: &str) -> Vec<Line> {
    let mut all = Vec::new();
    let mut begun: [String; 2] = [const { String::new() }; 2];
    for path in files(log, service) {
        let bytes = content(&path);
        let text = String::from_utf8_lossy(&bytes);
        // The last line may be half written at this very moment.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for entry in whole.lines() {
            let mut fields = entry.splitn(4, ' ');
            let mut field = || fields.next().unwrap_or_else(|| panic!("{}: {entry:?}", path.display()));
            let (stamp, stream, tag, part) = (field(), field(), field(), field());
            assert!(stamp.len() == 30 && stamp.ends_with('Z'), "a time stamp: {entry:?}");
            assert!(matches!(stream, "stdout" | "stderr"), "a stream: {entry:?}");
            let place = &mut begun[usize::from(stream == "stderr")];
            place.push_str(part);
            match tag {
                "F" => all.push(Line {
                    stamp: stamp.to_owned(),
                    stream: stream.to_owned(),
                    text: std::mem::take(place),
                }),
                "P" => {}
                other => panic!("a tag {other:?}: {entry:?}"),
            }
        }
    }
    all
}

/// The texts alone.
pub fn texts(log: &Path, service: &str) -> Vec<String> {
    lines(log, service).into_iter().map(|line| line.text).collect()
}
