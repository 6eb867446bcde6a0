//! ROOT. Unit files from disk: which there are, and their text, judged by who could have written them. Never
//! parses one.

use crate::sys::errno::reason;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::sys::files;

/// The most bytes of a unit file.
const MOST_BYTES: u64 = 256 * 1024;

/// One layer of a unit: a file and what was in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layer {
    /// Where it was.
    pub path: String,
    /// What it said.
    pub text: String,
    /// Which state of the file that was.
    #[serde(default)]
    pub stamp: Option<Stamp>,
}

/// Which file, and when it was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanos: i64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        Some(Self { inode: data.ino(), size: data.size(), seconds: data.mtime(), nanos: data.mtime_nsec() })
    }
}

/// The files of a unit that are not as they were when they were read: changed, gone, or new beside it. One that could
/// not be read is as it was while that is so of whatever is at its path.
pub fn changed(name: &str, layers: &[Layer], unreadable: &[Layer]) -> Vec<String> {
    let differs = |layer: &Layer| layer.stamp != Stamp::of(Path::new(&layer.path));
    let read = layers.iter().filter(|layer| layer.stamp.is_some());
    let all = || layers.iter().chain(unreadable);
    let mut found: Vec<String> =
        read.chain(unreadable).filter(|layer| differs(layer)).map(|layer| layer.path.clone()).collect();
    let own = all().map(|layer| Path::new(&layer.path)).find(|path| path.file_stem() == Some(name.as_ref()));
    if let Some(own) = own {
        let beside = toml_files(&own.with_file_name(format!("{name}.toml.d"))).unwrap_or_default();
        let new = beside.into_iter().map(|(_, path)| path.display().to_string());
        found.extend(new.filter(|path| all().all(|layer| layer.path != *path)));
    }
    found
}

/// So many units have problems, in words; where none has, it is a file that belongs to none.
pub fn with_problems(count: usize) -> String {
    match count {
        0 => "a unit file that is none has problems".to_owned(),
        1 => "1 unit has problems".to_owned(),
        many => format!("{many} units have problems"),
    }
}

/// Tells what concerns no single unit, and that there is nothing to run.
pub fn tell(found: &BTreeMap<String, Found>, problems: &[String], directories: &[PathBuf]) {
    for problem in problems {
        log::error!("{problem}");
    }
    if found.is_empty() {
        let (text, hint) = no_unit(directories);
        log::warn!("{text}\nhint: {hint}");
    }
}

/// That there is nothing to run, and where there might be.
pub fn no_unit(directories: &[PathBuf]) -> (&'static str, String) {
    let all: Vec<String> = directories.iter().map(|one| format!("`{}`", one.display())).collect();
    ("there is no unit", format!("a unit is a file `NAME.toml` in {}", all.join(" or ")))
}

/// Everything that was found of one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Defaults, the unit, drop-ins: in the order in which they are laid over one another.
    pub layers: Vec<Layer>,
    /// Those of them that could not be read, without a text.
    pub unreadable: Vec<Layer>,
    /// Why it is not to be used, where it is not.
    pub problems: Vec<String>,
    /// What is worth a warning.
    pub warnings: Vec<String>,
}

/// What is thought of a file that others can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// It is not used: whoever can write it can become whoever the service runs as.
    Refuse,
    /// It is read with a warning: nothing is run.
    Warn,
}

/// Reads all units for those who run them. Earlier directories win over later ones, and one that does not exist has
/// none. What concerns no single unit is in the second part.
pub fn read_all(directories: &[PathBuf]) -> (BTreeMap<String, Found>, Vec<String>) {
    read_directories(directories, Judge::Refuse)
}

/// Reads one unit by the path of its file, with what lies under and over it.
pub fn read_file(path: &Path, judge: Judge) -> (String, Found) {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = read_layers(directory, &name, path, &defaults_of(directory), judge);
    (name, found)
}

fn defaults_of(directory: &Path) -> Option<PathBuf> {
    // Of `units`, which has no parent in its name, it is the working directory.
    let parent = match directory.parent() {
        Some(parent) if directory.is_absolute() || !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None if directory == Path::new(".") => PathBuf::from(".."),
        Some(_) | None => PathBuf::new(),
    };
    Some(parent.join("defaults.toml")).filter(|path| path.symlink_metadata().is_ok())
}

/// Reads all units. Earlier directories win over later ones, and one that does not exist has none. What
/// concerns no single unit is in the second part.
pub fn read_directories(directories: &[PathBuf], judge: Judge) -> (BTreeMap<String, Found>, Vec<String>) {
    let mut units: BTreeMap<String, Found> = BTreeMap::new();
    let (mut problems, mut missing) = (Vec::new(), Vec::new());
    for directory in directories {
        let said = |error: &io::Error| format!("{}: {}", directory.display(), reason(error));
        match toml_files(directory) {
            Ok(names) => {
                let defaults = defaults_of(directory);
                for (name, path) in names {
                    units
                        .entry(name)
                        .or_insert_with_key(|name| read_layers(directory, name, &path, &defaults, judge));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(said(&error)),
            Err(error) => problems.push(said(&error)),
        }
    }
    // A place that nobody uses is no news; that there is no unit anywhere is.
    if units.is_empty() {
        problems.append(&mut missing);
    }
    (units, problems)
}

fn read_layers(directory: &Path, name: &str, path: &Path, defaults: &Option<PathBuf>, judge: Judge) -> Found {
    let mut found = Found::default();
    let beside = directory.join(format!("{name}.toml.d"));
    let drop_ins = match toml_files(&beside) {
        Ok(drop_ins) => drop_ins,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            found.problems.push(format!("{}: {}", beside.display(), reason(&error)));
            Vec::new()
        }
    };
    let layers = defaults.iter().map(PathBuf::as_path).chain([path]);
    for path in layers.chain(drop_ins.iter().map(|(_, path)| path.as_path())) {
        let layer = |text| Layer { path: path.display().to_string(), text, stamp: Stamp::of(path) };
        match read_one(path, judge, &mut found.warnings) {
            Ok(text) => found.layers.push(layer(text)),
            Err(problem) => {
                found.problems.push(problem);
                // A name that is no text is told, and cannot be looked for by what was told.
                if path.to_str().is_some() {
                    found.unreadable.push(layer(String::new()));
                }
            }
        }
    }
    found
}

/// What is called `.toml` in a directory, by its name, in order. Whatever it is, reading it says what is wrong.
fn toml_files(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

fn read_one(path: &Path, judge: Judge, warnings: &mut Vec<String>) -> Result<String, String> {
    let said = |error: io::Error| format!("{}: {}", path.display(), why_not(path, &error));
    let me = files::effective_user();
    if let Some(part) = files::unsafe_part(path, me).map_err(said)? {
        let unsafe_file = format!(
            "{}: `{}` can be written by others than root and the supervisor's user\nhint: chown root and chmod go-w it",
            path.display(),
            part.display()
        );
        match judge {
            Judge::Refuse => return Err(unsafe_file),
            Judge::Warn => warnings.push(unsafe_file),
        }
    }
    // Looked at before: opening a device may do something, and what opens a pipe is seen by whoever writes into it.
    let kind = path.metadata().map_err(said)?.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() {
            "a directory"
        } else if kind.is_socket() {
            "a socket"
        } else if kind.is_fifo() {
            "a named pipe"
        } else {
            "a device"
        };
        return Err(format!("{}: {}", path.display(), no_file(what)));
    }
    let (bytes, owner, mode) = files::read_steady(path, MOST_BYTES).map_err(said)?;
    // What was opened, and not only what the path led to a moment before.
    if judge == Judge::Refuse && ((owner != 0 && owner != me) || mode & 0o002 != 0) {
        return Err(format!("{}: it changed hands while it was read\nhint: start again", path.display()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: not UTF-8\nhint: save it as UTF-8", path.display())
    })
}

/// Why a file cannot be read, and what to do.
fn why_not(path: &Path, error: &io::Error) -> String {
    let is_link = path.symlink_metadata().is_ok_and(|data| data.is_symlink());
    match error.raw_os_error() {
        Some(libc::ENOENT) if is_link => {
            "a symbolic link to what is not there\nhint: mend the link, or remove it".to_owned()
        }
        Some(libc::ELOOP) => {
            "a symbolic link that leads back to itself\nhint: mend the link, or remove it".to_owned()
        }
        Some(libc::EACCES | libc::EPERM) => {
            format!(
                "{}\nhint: let whoever runs supervise read it, and enter every directory above",
                reason(error)
            )
        }
        Some(_) => {
            let hint = "is it a file that can be read? Mend it, or move it out of this directory";
            format!("{}\nhint: {hint}", reason(error))
        }
        None => format!("{}\nhint: units are small; is this one?", reason(error)),
    }
}

fn no_file(what: &str) -> String {
    format!("{what}\nhint: a unit is a file; move what is called `.toml` and is none out of this directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_has_and_two_have() {
        assert_eq!(with_problems(1), "1 unit has problems");
        assert_eq!(with_problems(2), "2 units have problems");
    }

    #[test]
    fn layers_come_in_their_order_and_earlier_directories_win() {
        let home = tempfile::tempdir().unwrap();
        let (mine, theirs) = (home.path().join("a/units"), home.path().join("b/units"));
        for (path, text) in [
            ("a/defaults.toml", "d"),
            ("a/units/web.toml", "u"),
            ("a/units/web.toml.d/20-z.toml", "z"),
            ("a/units/web.toml.d/10-y.toml", "y"),
            ("b/units/web.toml", "hidden"),
            ("b/units/only.toml", "o"),
            ("b/units/only.txt", "not a unit"),
        ] {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (units, problems) = read_all(&[mine, home.path().join("nowhere"), theirs]);
        let text = |name: &str| -> Vec<String> {
            units.get(name).unwrap().layers.iter().map(|layer| layer.text.clone()).collect()
        };
        assert_eq!(
            (text("web"), text("only")),
            (["d", "u", "y", "z"].map(String::from).to_vec(), vec!["o".into()])
        );
        assert_eq!((units.len(), problems.len()), (2, 0));
    }

    #[test]
    fn what_has_changed_since_is_told() {
        let home = tempfile::tempdir().unwrap();
        let units = home.path().join("units");
        fs::create_dir_all(units.join("web.toml.d")).unwrap();
        let (own, drop_in) = (units.join("web.toml"), units.join("web.toml.d/10-x.toml"));
        fs::write(&own, "a").unwrap();
        fs::write(&drop_in, "b").unwrap();
        let (found, _) = read_all(std::slice::from_ref(&units));
        let layers = &found.get("web").unwrap().layers;
        assert_eq!(changed("web", layers, &[]), [""; 0]);
        fs::write(&own, "changed").unwrap();
        let new = units.join("web.toml.d/20-y.toml");
        fs::write(&new, "c").unwrap();
        let text = |path: &Path| path.display().to_string();
        assert_eq!(changed("web", layers, &[]), [text(&own), text(&new)]);
        fs::remove_file(&drop_in).unwrap();
        assert_eq!(changed("web", layers, &[]), [text(&own), text(&drop_in), text(&new)]);
    }

    #[test]
    fn nothing_is_passed_over_in_silence() {
        let home = tempfile::tempdir().unwrap();
        let units = home.path().join("units");
        assert_eq!(read_all(std::slice::from_ref(&units)).1.len(), 1, "no unit anywhere");
        fs::create_dir_all(units.join("dir.toml")).unwrap();
        std::os::unix::fs::symlink("nowhere", units.join("link.toml")).unwrap();
        fs::write(units.join("bytes.toml"), b"a\n\xff").unwrap();
        let (found, _) = read_all(std::slice::from_ref(&units));
        let why: Vec<&str> = found.values().map(|one| one.problems.first().unwrap().as_str()).collect();
        let expected = [
            "bytes.toml:2: not UTF-8\nhint: ",
            "a directory\nhint: ",
            "symbolic link to what is not there\nhint: ",
        ];
        for (why, expected) in why.iter().zip(expected) {
            assert!(why.contains(expected), "{why}");
        }
        assert_eq!(found.len(), 3);
        // That is no change of them, and their mending is one.
        let changed = |name: &str| {
            let one = found.get(name).unwrap();
            changed(name, &one.layers, &one.unreadable).len()
        };
        assert_eq!(["dir", "link", "bytes"].map(changed), [0, 0, 0]);
        fs::write(units.join("nowhere"), "mended").unwrap();
        fs::write(units.join("bytes.toml"), "mended").unwrap();
        fs::create_dir(units.join("bytes.toml.d")).unwrap();
        fs::write(units.join("bytes.toml.d/new.toml"), "").unwrap();
        assert_eq!(["dir", "link", "bytes"].map(changed), [0, 1, 2]);
    }
}
