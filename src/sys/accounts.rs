//! ROOT. The account database through the C library (getpwnam(3), getgrouplist(3)). Called only in the
//! process made for it, since name services can hang.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::wire::accounts::{Account, Answer};

/// A user by name.
pub fn user_by_name(name: &str) -> io::Result<Answer> {
    User::from_name(name)?.map_or(Ok(Answer::Missing), |user| account(&user).map(Answer::User))
}

/// A user by number. One without an account is itself and its own group, has no home, and no shell.
pub fn user_by_id(id: u32) -> io::Result<Answer> {
    if let Some(user) = User::from_uid(Uid::from_raw(id))? {
        return account(&user).map(Answer::User);
    }
    let name = id.to_string();
    let (home, shell) = ("/".to_owned(), "/bin/sh".to_owned());
    Ok(Answer::User(Account { name, uid: id, gid: id, groups: vec![id], home, shell }))
}

/// A group by name, or by number where the text is all digits.
pub fn group(name: &str) -> io::Result<Answer> {
    if let Some(group) = Group::from_name(name)? {
        return Ok(Answer::Group(group.gid.as_raw()));
    }
    Ok(name.parse().map_or(Answer::Missing, Answer::Group))
}

fn account(user: &User) -> io::Result<Account> {
    let name = CString::new(user.name.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut groups: Vec<u32> = getgrouplist(&name, user.gid)?.into_iter().map(Gid::as_raw).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(Account {
        name: user.name.clone(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups,
        home: user.dir.to_string_lossy().into_owned(),
        shell: user.shell.to_string_lossy().into_owned(),
    })
}
