//! ROOT. The directories that a unit has made for its service below /run, /var/lib and /var/cache, and the end of
//! the first. Never follows a link, never takes over what another owns, never changes what was there.
//!
//! A directory that a service can write may hold anything, so nothing in it is opened, chowned or made by name
//! here: only the directory itself, in a place that is root's. What is in it is removed link by link and entry by
//! entry, through descriptors.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Manager;
use crate::policy::ServiceId;
use crate::sys::dirs::{Dir, Facts};
use crate::sys::errno::reason;
use crate::sys::files;
use crate::unit::{Directory, Unit};

/// Entries of a runtime directory that are removed at a stop, and how deep: the loop has other things to do.
const ENTRIES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 32;

/// Whom a directory is made for.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// The variable that says where it is.
pub const fn variable(which: Directory) -> &'static str {
    match which {
        Directory::Runtime => "RUNTIME_DIRECTORY",
        Directory::State => "STATE_DIRECTORY",
        Directory::Cache => "CACHE_DIRECTORY",
    }
}

/// What is said of a step: `making` it, `removing` it.
const fn named(which: Directory) -> &'static str {
    match which {
        Directory::Runtime => "runtime directory",
        Directory::State => "state directory",
        Directory::Cache => "cache directory",
    }
}

/// Others look for sockets in the first; the other two are the service's and its group's own.
const fn mode(which: Directory) -> u32 {
    match which {
        Directory::Runtime => 0o755,
        Directory::State | Directory::Cache => 0o750,
    }
}

impl Manager {
    /// The directories of a unit with their paths, in the order of the key table.
    pub(super) fn directories(&self, unit: &Unit) -> Vec<(Directory, String)> {
        let path = |which: Directory| {
            let name = unit.service.directory_of(which)?;
            Some((which, self.directory_base(which).join(name).to_string_lossy().into_owned()))
        };
        Directory::ALL.into_iter().filter_map(path).collect()
    }

    /// Below what they are made: for an ordinary user where the user's programs have theirs.
    fn directory_base(&self, which: Directory) -> PathBuf {
        if self.user == 0 {
            return PathBuf::from(match which {
                Directory::Runtime => "/run",
                Directory::State => "/var/lib",
                Directory::Cache => "/var/cache",
            });
        }
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let at_home = |rest: &str| set("HOME").map(|home| home.join(rest));
        let found = match which {
            Directory::Runtime => set("XDG_RUNTIME_DIR"),
            Directory::State => set("XDG_STATE_HOME").or_else(|| at_home(".local/state")),
            Directory::Cache => set("XDG_CACHE_HOME").or_else(|| at_home(".cache")),
        };
        found.unwrap_or_else(|| self.settings.runtime_dir.join("directories"))
    }

    /// Makes those of a service that are missing. The error is in words, with what mends it.
    pub(super) fn make_directories(&mut self, id: ServiceId) -> Result<(), String> {
        let Some(known) = self.services.get(&id) else { return Ok(()) };
        let (Some(unit), Some(account)) = (&known.unit, &known.inputs.account) else { return Ok(()) };
        let gid = known.inputs.identity(unit, account).gid;
        let owner = Owner { uid: account.uid, gid };
        let wanted: Vec<Directory> =
            Directory::ALL.into_iter().filter(|which| unit.service.directory_of(*which).is_some()).collect();
        for which in wanted {
            let name = unit.service.directory_of(which).unwrap_or_default();
            let base = self.directory_base(which);
            let made = make(&base, name, which, owner, self.user)
                .map_err(|why| format!("making its {} {}: {why}", named(which), base.join(name).display()))?;
            if made && which == Directory::Runtime {
                self.made.insert(id);
            }
        }
        Ok(())
    }

    /// Removes the runtime directory of a service that was stopped, unless another service that is not down has
    /// the same one.
    pub(super) fn remove_runtime_directory(&mut self, id: ServiceId) {
        let Some(known) = self.services.get(&id) else { return };
        let (Some(unit), Some(account)) = (&known.unit, &known.inputs.account) else { return };
        let Some(name) = unit.service.runtime_directory.clone() else { return };
        let shared = self.services.iter().any(|(other, known)| {
            let same = known.unit.as_ref().and_then(|unit| unit.service.runtime_directory.as_ref());
            *other != id
                && same == Some(&name)
                && self.world.get(*other).is_some_and(|service| !service.is_down())
        });
        let uid = account.uid;
        let made = self.made.remove(&id);
        if shared {
            return;
        }
        let base = self.directory_base(Directory::Runtime);
        // What root owns may be somebody else's of the same name, unless this manager has made it.
        if let Err(error) = remove(&base, &name, |facts| facts.owner == uid && (made || uid != 0))
            && error.kind() != io::ErrorKind::NotFound
        {
            let path = base.join(&name);
            log::warn!(
                "service={} removing its runtime directory {}: {}",
                self.name_of(id),
                path.display(),
                reason(&error)
            );
        }
    }
}

fn open(path: &Path) -> io::Result<Dir> {
    let path =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    Dir::open(&path)
}

fn c_name(name: &str) -> CString {
    CString::new(name).unwrap_or_default() // a name of a unit has no NUL
}

/// Makes `name` below `base` for its owner, where it is missing; true where it was. The error is the end of a
/// sentence, with a hint.
fn make(base: &Path, name: &str, which: Directory, owner: Owner, user: u32) -> Result<bool, String> {
    let words = |error: io::Error| reason(&error);
    if user != 0 {
        files::make_directory(base, 0o700).map_err(words)?;
    }
    let above = open(base).map_err(|error| format!("opening {}: {}", base.display(), reason(&error)))?;
    let facts = above.facts().map_err(words)?;
    let others = facts.mode & 0o022 != 0 && facts.mode & libc::S_ISVTX == 0;
    if (facts.owner != 0 && facts.owner != user) || others {
        let base = base.display();
        return Err(format!(
            "{base} can be written by others\nhint: `chown root {base}` and `chmod go-w {base}`"
        ));
    }
    let name_c = c_name(name);
    let made = above.make(&name_c, 0o700).map_err(words)?;
    let path = base.join(name);
    let path = path.display();
    let directory = above.enter(&name_c).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => {
            format!("there is something else of that name, or a link\nhint: look at it, and move it away: `ls -ld {path}`")
        }
        _ => reason(&error),
    })?;
    if made {
        if user == 0 {
            directory.give(owner.uid, owner.gid).map_err(words)?;
        }
        directory.set_mode(mode(which)).map_err(words)?;
        return Ok(true);
    }
    let facts = directory.facts().map_err(words)?;
    if facts.owner != owner.uid {
        return Err(format!(
            "it belongs to user {}, and the service runs as user {}\nhint: if it is the service's, `chown -R {}:{} {path}`",
            facts.owner, owner.uid, owner.uid, owner.gid
        ));
    }
    Ok(false)
}

/// Removes `name` below `base` with all that is in it, where `ours` says yes.
fn remove(base: &Path, name: &str, ours: impl Fn(&Facts) -> bool) -> io::Result<()> {
    let above = open(base)?;
    let name = c_name(name);
    let directory = above.enter(&name)?;
    if !ours(&directory.facts()?) {
        return Err(io::Error::other("it is not the service's"));
    }
    let device = directory.facts()?.identity.device;
    empty(&directory, device, 0, &mut 0)?;
    above.remove_directory(&name)
}

fn empty(directory: &Dir, device: u64, depth: usize, count: &mut usize) -> io::Result<()> {
    // One more than may be: it is the error.
    for name in directory.first_names(ENTRIES_MAX + 1 - (*count).min(ENTRIES_MAX), |_| true)? {
        *count += 1;
        if depth >= DEPTH_MAX || *count > ENTRIES_MAX {
            return Err(io::Error::other(format!(
                "more than {ENTRIES_MAX} entries, or deeper than {DEPTH_MAX}"
            )));
        }
        match directory.enter(&name) {
            Ok(below) => {
                if below.facts()?.identity.device != device {
                    return Err(io::Error::other("something is mounted in it"));
                }
                empty(&below, device, depth + 1, count)?;
                drop(below);
                directory.remove_directory(&name)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                directory.remove(&name)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn me() -> Owner {
        let user = files::effective_user();
        let home = tempfile::tempdir().unwrap();
        Owner { uid: user, gid: fs::metadata(home.path()).unwrap().gid() }
    }

    #[test]
    fn what_is_there_stays_as_it_is_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let user = files::effective_user();
        let make = |name: &str| make(home.path(), name, Directory::State, me(), user);
        assert_eq!(make("new"), Ok(true));
        assert_eq!(fs::metadata(home.path().join("new")).unwrap().mode() & 0o7777, 0o750);
        fs::create_dir(home.path().join("old")).unwrap();
        let before = fs::metadata(home.path().join("old")).unwrap().mode();
        assert_eq!(make("old"), Ok(false));
        assert_eq!(fs::metadata(home.path().join("old")).unwrap().mode(), before);
        symlink("old", home.path().join("link")).unwrap();
        assert!(
            make("link").unwrap_err().starts_with("there is something else of that name, or a link\nhint: ")
        );
        let other = Owner { uid: user + 1, ..me() };
        let said = super::make(home.path(), "old", Directory::State, other, user).unwrap_err();
        assert!(
            said.starts_with(&format!(
                "it belongs to user {user}, and the service runs as user {}",
                user + 1
            )),
            "{said}"
        );
    }

    #[test]
    fn a_removal_takes_links_and_not_what_they_lead_to() {
        let home = tempfile::tempdir().unwrap();
        let kept = home.path().join("kept");
        fs::create_dir_all(kept.join("below")).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let runtime = home.path().join("web");
        fs::create_dir_all(runtime.join("a/b")).unwrap();
        fs::write(runtime.join("a/b/file"), "x").unwrap();
        symlink(&kept, runtime.join("a/directory")).unwrap();
        symlink(kept.join("file"), runtime.join("file")).unwrap();
        assert!(remove(home.path(), "web", |_| false).is_err());
        assert!(runtime.join("a/b/file").exists());
        remove(home.path(), "web", |_| true).unwrap();
        assert!(!runtime.exists());
        assert!(kept.join("file").exists() && kept.join("below").exists());
    }
}
