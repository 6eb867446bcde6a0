//! ROOT. What a helper process of ours gives up for good when it starts: identity, capabilities, life without
//! its parent. Never anything that can be taken back.
//!
//! Sources: capabilities(7), prctl(2), credentials(7), landlock(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::retry;

fn prctl(operation: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_long> {
    let none: libc::c_ulong = 0;
    // SAFETY: the operations used in this module take numbers and touch no memory.
    retry(|| unsafe { libc::prctl(operation, argument, none, none, none) }.into())
}

fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EPERM)
}

/// Has the kernel kill this process when its parent ends; false where `parent` is not the parent any more.
///
/// To be called after every change of identity, which clears it.
pub fn die_with(parent: u32) -> io::Result<bool> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    // SAFETY: getppid touches no memory and cannot fail.
    Ok(u32::try_from(unsafe { libc::getppid() }).is_ok_and(|now| now == parent))
}

/// Becomes `uid` and `gid`, real, effective and saved, without supplementary groups, and makes sure of it.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no groups, so the pointer is not read.
    retry(|| unsafe { libc::setgroups(0, std::ptr::null()) }.into())?;
    // SAFETY: setresgid takes numbers alone.
    retry(|| unsafe { libc::setresgid(gid, gid, gid) }.into())?;
    // SAFETY: setresuid takes numbers alone.
    retry(|| unsafe { libc::setresuid(uid, uid, uid) }.into())?;
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: the three places are alive across the call.
    retry(|| unsafe { libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved) }.into())?;
    let uids = [real, effective, saved];
    // SAFETY: the three places are alive across the call.
    retry(|| unsafe { libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved) }.into())?;
    let gids = [real, effective, saved];
    // SAFETY: setresuid takes numbers alone; -1 leaves a value as it is.
    let back = uid != 0 && unsafe { libc::setresuid(u32::MAX, 0, u32::MAX) } == 0;
    if uids != [uid; 3] || gids != [gid; 3] || back {
        return Err(refused());
    }
    Ok(())
}

/// Removes every capability from the bounding set, as far as this process may. To be called while it still
/// has its privileges; a process without CAP_SETPCAP has nothing to gain from it and keeps the set.
pub fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL) => return Ok(()), // one past the kernel's last
                Some(libc::EPERM) => return Ok(()),
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct CapSets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// _LINUX_CAPABILITY_VERSION_3: two of each set, of 32 bits.
const CAP_VERSION: u32 = 0x2008_0522;

/// Gives up every capability and the way to any, through an executable too (no_new_privs), and makes sure.
pub fn drop_capabilities() -> io::Result<()> {
    match prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {} // older than ambient capabilities
        Err(error) => return Err(error),
    }
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut sets = [CapSets::default(); 2];
    // SAFETY: header and sets have the layout of capset(2) version 3 and are alive across the call.
    retry(|| unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    // SAFETY: header and sets have the layout of capget(2) version 3 and are alive across the call.
    retry(|| unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    let held = sets != [CapSets::default(); 2];
    if held || prctl(libc::PR_GET_NO_NEW_PRIVS, 0)? != 1 { Err(refused()) } else { Ok(()) }
}

/// Access rights of Landlock (landlock(7)): what this process may do below one directory alone from then on.
mod rights {
    pub const EXECUTE: u64 = 1;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    pub const REMOVE_DIR: u64 = 1 << 4;
    pub const REMOVE_FILE: u64 = 1 << 5;
    pub const MAKE_CHAR: u64 = 1 << 6;
    pub const MAKE_DIR: u64 = 1 << 7;
    pub const MAKE_REG: u64 = 1 << 8;
    pub const MAKE_SOCK: u64 = 1 << 9;
    pub const MAKE_FIFO: u64 = 1 << 10;
    pub const MAKE_BLOCK: u64 = 1 << 11;
    pub const MAKE_SYM: u64 = 1 << 12;
}

/// Takes from this process, and all that it starts, every file and directory but those below `directory`, where it
/// may read, make, write and remove plain files and directories. Descriptors that are open stay of use, and so do
/// sockets. To be called after `no_new_privs`. False where the kernel has no Landlock.
pub fn only_below(directory: BorrowedFd<'_>) -> io::Result<bool> {
    use rights::{
        EXECUTE, MAKE_BLOCK, MAKE_CHAR, MAKE_DIR, MAKE_FIFO, MAKE_REG, MAKE_SOCK, MAKE_SYM, READ_DIR,
        READ_FILE, REMOVE_DIR, REMOVE_FILE, WRITE_FILE,
    };
    let allowed = WRITE_FILE | READ_FILE | READ_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG;
    let handled = allowed | EXECUTE | REMOVE_DIR | MAKE_CHAR | MAKE_SOCK | MAKE_FIFO | MAKE_BLOCK | MAKE_SYM;
    let size = size_of::<u64>();
    // SAFETY: the kernel reads `size` bytes of `handled`, the first field of landlock_ruleset_attr.
    let ruleset =
        retry(|| unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size, 0) });
    let ruleset = match ruleset {
        Ok(fd) => super::fds::owned(fd),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let rule = Below { allowed, directory: directory.as_raw_fd() };
    // SAFETY: `rule` has the layout of landlock_path_beneath_attr and is alive across the call; 1 is its kind.
    retry(|| unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), 1, &raw const rule, 0)
    })?;
    // SAFETY: landlock_restrict_self takes numbers alone.
    retry(|| unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(true)
}

/// landlock_path_beneath_attr.
#[repr(C, packed)]
struct Below {
    allowed: u64,
    directory: libc::c_int,
}

/// Has the calling thread run only where nobody else wants the processor, nor the disk (SCHED_IDLE of sched(7), which
/// stands for the idle class of ioprio_set(2) too). Unlike a nice value it also counts where this process was given
/// a real-time priority.
pub fn give_way() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameter` is alive across the call, which reads it; 0 is the calling thread.
    retry(|| unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const parameter)
    })
    .map(drop)
}

/// Ignores the signals by which a terminal or a shutdown addresses a whole group of processes, and the one
/// for a file at its limit, so that the call fails with EFBIG instead.
pub fn ignore_group_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: SIG_IGN is no code of ours; these signals exist and can be ignored.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Raises the soft limit of open descriptors to the hard one and says what it is.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is alive across the call.
    retry(|| unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }.into())?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is alive across the call.
    retry(|| unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into())?;
    Ok(limit.rlim_max)
}

/// The effective uid of this process.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_not_below_the_directory_is_out_of_reach() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "x").unwrap();
        let directory = fs::File::open(inside.path()).unwrap();
        let (inner, outer) = (inside.path().to_owned(), outside.path().to_owned());
        // It holds for one thread, and not for the others of this test.
        let thread = std::thread::spawn(move || {
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1).unwrap();
            if !only_below(directory.as_fd()).unwrap() {
                eprintln!("NOT TESTED: Landlock, which this kernel has not");
                return;
            }
            fs::create_dir(inner.join("web")).unwrap();
            fs::write(inner.join("web/current"), "one").unwrap();
            fs::rename(inner.join("web/current"), inner.join("web/old")).unwrap();
            assert_eq!(fs::read(inner.join("web/old")).unwrap(), b"one");
            fs::remove_file(inner.join("web/old")).unwrap();
            let refused = |outcome: io::Result<()>| outcome.unwrap_err().raw_os_error() == Some(libc::EACCES);
            assert!(refused(fs::read(outer.join("secret")).map(drop)));
            assert!(refused(fs::write(outer.join("new"), "x")));
            assert!(refused(std::os::unix::fs::symlink("/etc/passwd", inner.join("link"))));
        });
        thread.join().unwrap();
    }
}
