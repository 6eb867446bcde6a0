//! USER. Whether somebody could reach a path: every directory on the way, symbolic links followed, by owner, group
//! and mode as the kernel would. Never opens anything, never changes who this process is.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::sys::files;
use crate::sys::walk::is_foreign;

/// Symbolic links followed before they are called a loop, as the kernel has it (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// Somebody with these rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name, for messages.
    pub name: String,
    /// User.
    pub uid: u32,
    /// All groups, the primary one first.
    pub groups: Vec<u32>,
}

/// What is wanted of the last part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// To enter it as a directory.
    Enter,
    /// To make something in it.
    Make,
    /// To read it.
    Read,
    /// To execute it.
    Execute,
}

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// This part does not exist.
    Missing(PathBuf),
    /// This part is not what it would have to be.
    Wrong(PathBuf, &'static str),
    /// This part does not let them.
    Closed {
        /// Which.
        part: PathBuf,
        /// What it would have to let them do.
        want: Want,
        /// Permission bits.
        mode: u32,
        /// Owner.
        user: u32,
        /// Group.
        group: u32,
    },
    /// We cannot see for ourselves.
    Unseen(PathBuf, &'static str),
}

impl fmt::Display for Barrier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(part) => write!(out, "`{}` does not exist", part.display()),
            Self::Wrong(part, what) => write!(out, "`{}` is {what}", part.display()),
            Self::Closed { part, want, mode, user, group } => {
                let what = match want {
                    Want::Enter => "enter",
                    Want::Make => "write in",
                    Want::Read => "read",
                    Want::Execute => "execute",
                };
                write!(
                    out,
                    "may not {what} `{}` (mode {mode:04o}, owner {user}, group {group})",
                    part.display()
                )
            }
            Self::Unseen(part, why) => write!(out, "`{}`: {why}", part.display()),
        }
    }
}

impl Person {
    /// Whether the kernel would let them, and where the path leads.
    pub fn reaches(&self, path: &Path, want: Want) -> Result<PathBuf, Barrier> {
        let mut todo: VecDeque<OsString> = parts(path);
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        self.may(&at, &seen(&at)?, Want::Enter)?;
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let data = seen(&next)?;
            if data.file_type().is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Barrier::Wrong(next, "a loop of symbolic links"));
                }
                let target = fs::read_link(&next).map_err(|_| Barrier::Unseen(next, "cannot be read"))?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    todo.push_front(part);
                }
                continue;
            }
            self.may(&next, &data, if todo.is_empty() { want } else { Want::Enter })?;
            at = next;
        }
        Ok(at)
    }

    fn may(&self, part: &Path, data: &Metadata, want: Want) -> Result<(), Barrier> {
        let kind = data.file_type();
        let wrong = |what| Err(Barrier::Wrong(part.to_owned(), what));
        match want {
            Want::Enter | Want::Make if !kind.is_dir() => return wrong("not a directory"),
            Want::Execute if !kind.is_file() => return wrong("not a regular file"),
            Want::Read if kind.is_dir() => return wrong("a directory"),
            Want::Enter | Want::Make | Want::Execute | Want::Read => {}
        }
        if self.is_let(data, want) {
            return Ok(());
        }
        // The bits of the group are then a mask, and others may be named beside it (acl(5)).
        if files::has_access_list(part) {
            return Err(Barrier::Unseen(part.to_owned(), "it has an access control list"));
        }
        let (mode, user, group) = (data.mode() & 0o7777, data.uid(), data.gid());
        Err(Barrier::Closed { part: part.to_owned(), want, mode, user, group })
    }

    fn is_let(&self, data: &Metadata, want: Want) -> bool {
        let bits = match want {
            Want::Enter | Want::Execute => 0o1,
            Want::Make => 0o3,
            Want::Read => 0o4,
        };
        if self.uid == 0 {
            return want != Want::Execute || data.mode() & 0o111 != 0;
        }
        let shift = if data.uid() == self.uid {
            6
        } else if self.groups.contains(&data.gid()) {
            3
        } else {
            0
        };
        data.mode() >> shift & bits == bits
    }

    /// Whether they could connect to a socket of this owner, group and mode.
    pub fn could_write(&self, user: u32, group: u32, mode: u32) -> bool {
        let shift = if user == self.uid {
            6
        } else if self.groups.contains(&group) {
            3
        } else {
            0
        };
        self.uid == 0 || mode >> shift & 0o2 != 0
    }
}

/// How far a directory's path is there, and where in it others than root and `user` can write, as
/// [`crate::sys::walk`] has it: what is missing would be made by whoever comes there.
pub fn way(directory: &Path, user: u32) -> Result<(PathBuf, Option<PathBuf>), Barrier> {
    let mut todo = parts(directory);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    loop {
        let data = seen(&at)?;
        if data.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(Barrier::Wrong(at, "a loop of symbolic links"));
            }
            let target = fs::read_link(&at).map_err(|_| Barrier::Unseen(at.clone(), "cannot be read"))?;
            at =
                if target.is_absolute() { PathBuf::from("/") } else { at.parent().unwrap_or(&at).to_owned() };
            parts(&target).into_iter().rev().for_each(|part| todo.push_front(part));
        } else if !data.is_dir() {
            return Err(Barrier::Wrong(at, "not a directory"));
        } else if is_foreign(data.mode(), data.uid(), data.gid(), user, todo.is_empty()) {
            let rest: PathBuf = todo.iter().collect();
            let mut there = at.join(rest);
            while !there.is_dir() && there.pop() {}
            return Ok((there, Some(at)));
        }
        match todo.pop_front() {
            None => return Ok((at, None)),
            Some(part) if part == ".." => drop(at.pop()),
            Some(part) => {
                at.push(&part);
                if matches!(seen(&at), Err(Barrier::Missing(_))) {
                    at.pop();
                    return Ok((at, None));
                }
            }
        }
    }
}

/// Whether a symbolic link is on the way, or at its end.
pub fn has_link(path: &Path) -> bool {
    path.ancestors().any(|part| fs::symlink_metadata(part).is_ok_and(|data| data.file_type().is_symlink()))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(named).collect()
}

fn seen(path: &Path) -> Result<Metadata, Barrier> {
    fs::symlink_metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Barrier::Missing(path.to_owned()),
        ErrorKind::PermissionDenied => {
            Barrier::Unseen(path.to_owned(), "only its owner or root can look there")
        }
        _ => Barrier::Unseen(path.to_owned(), "cannot be looked at"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn somebody(uid: u32, groups: &[u32]) -> Person {
        Person { name: "al".into(), uid, groups: groups.to_vec() }
    }

    /// A directory that everybody can reach, with `a/b/file` in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::Builder::new().prefix("supervise-walk-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("a/b/file");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "x").unwrap();
        for (name, mode) in [("a", 0o755), ("a/b", 0o755), ("a/b/file", 0o750)] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        (dir, file)
    }

    #[test]
    fn owner_group_and_others_each_by_their_own_bits() {
        let (dir, file) = place();
        let data = fs::metadata(&file).unwrap();
        let (owner, group) = (data.uid(), data.gid());
        let stranger = somebody(54_321, &[54_321]);
        assert_eq!(somebody(owner, &[]).reaches(&file, Want::Execute), Ok(fs::canonicalize(&file).unwrap()));
        assert!(somebody(54_321, &[group]).reaches(&file, Want::Execute).is_ok());
        let closed = stranger.reaches(&file, Want::Execute).unwrap_err();
        assert!(closed.to_string().starts_with("may not execute `"), "{closed}");
        assert!(closed.to_string().contains("mode 0750"), "{closed}");
        // A directory on the way counts before what is in it.
        fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        let closed = somebody(54_321, &[]).reaches(&file, Want::Read).unwrap_err();
        assert!(matches!(closed, Barrier::Closed { want: Want::Enter, .. }), "{closed:?}");
        // An owner without the bit does not get the group's.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o070)).unwrap();
        let owner_alone = somebody(54_321, &[group]);
        assert!(!Person { uid: 54_321, ..owner_alone }.could_write(54_321, group, 0o070));
    }

    #[test]
    fn links_are_followed_and_loops_end() {
        let (dir, file) = place();
        let anybody = somebody(54_321, &[]);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("a/b/../b", dir.path().join("link")).unwrap();
        let through = dir.path().join("link/file");
        assert_eq!(anybody.reaches(&through, Want::Execute), Ok(fs::canonicalize(&file).unwrap()));
        symlink("loop", dir.path().join("loop")).unwrap();
        let error = anybody.reaches(&dir.path().join("loop"), Want::Read).unwrap_err();
        assert!(error.to_string().ends_with("is a loop of symbolic links"), "{error}");
        let error = anybody.reaches(&dir.path().join("a/nothing/x"), Want::Read).unwrap_err();
        assert_eq!(error, Barrier::Missing(dir.path().join("a/nothing")));
        let error = anybody.reaches(&file.join("x"), Want::Read).unwrap_err();
        assert!(error.to_string().ends_with("is not a directory"), "{error}");
    }
}
