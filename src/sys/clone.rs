//! ROOT. Cloning this process into a sibling, and the tie to its parent. Never decides what to try next.
//!
//! Sources: clone(2), cgroups(7), pr_set_pdeathsig(2const). With CLONE_PARENT the child belongs to the caller's
//! parent and inherits the caller's own exit signal; clone3 then wants `exit_signal` 0.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::fds::owned;
use super::retry;

/// Two flags of clone3(2) alone, above the 32 bits in which the C library's crate would lose them.
const CLEAR_HANDLERS: u64 = 0x1_0000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Set in the child half of a clone, and never in the other. From there to the execution of the command
/// nothing may allocate: another thread of a cloned process could have held the allocator's lock. An
/// allocator can look at this and object.
pub static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Half {
    /// The new process. Its parent is the parent of the process that cloned.
    Child,
    /// The process that cloned.
    Parent {
        /// The number of the new process.
        pid: u32,
        /// The new process itself, close-on-exec; None where a kernel ignored the wish (before Linux 5.2).
        pidfd: Option<OwnedFd>,
    },
}

/// A sibling by clone3(2): into a version 2 cgroup's directory if given, all handled signals back to default
/// with `clear_handlers`.
///
/// The child may only call what does not allocate and must end in an exec or an exit. Errors are those of
/// clone(2); besides, ENOSYS or EPERM from a container's filter, EACCES, ENOENT, EBUSY or EOPNOTSUPP for the
/// cgroup, EINVAL or E2BIG from a kernel that does not know a flag.
pub fn sibling(cgroup: Option<BorrowedFd<'_>>, clear_handlers: bool) -> io::Result<Half> {
    let mut pidfd: RawFd = -1;
    let mut flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
    if clear_handlers {
        flags |= CLEAR_HANDLERS;
    }
    if cgroup.is_some() {
        flags |= INTO_CGROUP;
    }
    let wish = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: without CLONE_VM the child has its own copy of memory and stack, so both halves return from
    // here like from fork(2); `wish` and `pidfd` are alive across the call and of the size passed.
    let pid =
        retry(|| unsafe { libc::syscall(libc::SYS_clone3, &raw const wish, size_of::<libc::clone_args>()) })?;
    Ok(half(pid, pidfd))
}

/// The same by the older call, for where clone3(2) is refused: no cgroup, handlers as they are.
pub fn sibling_by_old_call() -> io::Result<Half> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD;
    let none = 0 as libc::c_long;
    // SAFETY: as above; a null stack means a copy of this one, and the pidfd is stored where the parent's
    // thread number would be.
    let pid = retry(|| unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(flags), none, &raw mut pidfd, none, none)
    })?;
    Ok(half(pid, pidfd))
}

fn half(pid: libc::c_long, pidfd: RawFd) -> Half {
    if pid == 0 {
        IN_CHILD.store(true, Ordering::Relaxed);
        return Half::Child;
    }
    Half::Parent { pid: pid as u32, pidfd: (pidfd >= 0).then(|| owned(pidfd.into())) }
}

/// The number of this process's parent now; 0 if it is outside of the own PID namespace.
pub fn parent() -> u32 {
    // SAFETY: getppid touches no memory and cannot fail.
    unsafe { libc::getppid() as u32 }
}

/// The number of this process.
pub fn own_number() -> u32 {
    // SAFETY: getpid touches no memory and cannot fail.
    unsafe { libc::getpid() as u32 }
}

/// Has the system kill this process when the thread that made it ends. Look at [`parent`] afterwards: it may
/// have ended before.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: this prctl touches no memory.
    retry(|| unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.into()).map(drop)
}

/// Ends this process at once: no handlers, no flushing.
pub fn end(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory.
    unsafe { libc::_exit(code) }
}
